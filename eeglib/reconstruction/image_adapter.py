"""Draw from a predicted image embedding through an image-prompt adapter (chapter 7).

An adapter gives a text-to-image model a second input, the embedding of an image, that a new set of
cross-attention weights reads beside the text (Ye et al., 2023, *IP-Adapter*, arXiv 2308.06721).
Here this embedding is not that of an image but what a regression predicts from EEG.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eeglib.profile import ReconstructionSettings
from eeglib.reconstruction.drawing import draw_in_batches, make_generator
from eeglib.reconstruction.pipelines import PipelineError, explain, quiet

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from PIL import Image


def load_adapter(pipeline: DiffusionPipeline, settings: ReconstructionSettings) -> None:
    """Give a pipeline the adapter that the profile names, and the image encoder that goes with it.

    From then on the pipeline draws through `draw_from_embeddings` only: its denoiser asks for an
    image embedding in every step.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Stable Diffusion 1, 2 or XL, whichever the adapter was trained for.
    settings : ReconstructionSettings
        ``adapter``, ``adapter_folder``, ``adapter_weights``, ``adapter_encoder`` and
        ``adapter_scale``.

    Raises
    ------
    PipelineError
        If the profile names no adapter, the pipeline takes none, the adapter or its encoder cannot
        be loaded or was made for another model, or if it does not read one embedding per image.
    """
    from diffusers.loaders import IPAdapterMixin

    if not settings.adapter:
        raise PipelineError(
            "reconstruction.adapter is empty. Name an IP-Adapter's repository, "
            "such as h94/IP-Adapter, or its folder."
        )
    if not isinstance(pipeline, IPAdapterMixin):
        raise PipelineError(
            f"A {type(pipeline).__name__} takes no IP-Adapter of Stable Diffusion. Leave "
            "reconstruction.adapter empty or choose Stable Diffusion 1, 2 or XL."
        )
    folder = Path(settings.adapter).expanduser()
    source = str(folder) if folder.is_dir() else settings.adapter
    try:
        with quiet():
            pipeline.load_ip_adapter(
                source,
                subfolder=settings.adapter_folder,
                weight_name=settings.adapter_weights,
                image_encoder_folder=settings.adapter_encoder,
                low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,
            )
    except Exception as error:  # damaged or unfit files make the libraries raise what they like
        raise PipelineError(_explained(error, settings, folder)) from error
    _check_sizes(pipeline, settings)
    pipeline.set_ip_adapter_scale(settings.adapter_scale)


def encode_images(
    pipeline: DiffusionPipeline, pictures: Sequence[Image.Image], batch_size: int = 16
) -> np.ndarray:
    """Embed pictures with the adapter's own image encoder.

    Regressions must be fitted to these: embeddings of another CLIP can have the same number of
    dimensions and mean something else.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        After `load_adapter`.
    pictures : sequence of PIL.Image.Image
    batch_size : int

    Returns
    -------
    array of float32, shape (n_pictures, n_dims)
    """
    import torch

    _embedding_size(pipeline)  # refuses a pipeline without adapter
    found = []
    for start in range(0, len(pictures), batch_size):
        batch = [picture.convert("RGB") for picture in pictures[start : start + batch_size]]
        with torch.no_grad():
            embeddings, _ = pipeline.encode_image(batch, pipeline.image_encoder.device, 1)
        found.append(embeddings.float().cpu().numpy())
    return np.concatenate(found)


def draw_from_embeddings(
    pipeline: DiffusionPipeline,
    embeddings: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = 25,
    guidance_scale: float = 7.5,
    size: int = 512,
) -> list[Image.Image]:
    """Draw pictures on the condition of an image embedding and a prompt.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        After `load_adapter`.
    embeddings : array, shape (n_pictures, n_dims)
        In the space of `encode_images`.
    prompts : sequence of str
    seeds : sequence of int
    steps, guidance_scale, size
        As in `eeglib.reconstruction.drawing.reconstruct`.

    Returns
    -------
    list of PIL.Image.Image

    Raises
    ------
    ValueError
        If numbers differ, or embeddings are not finite or of another size than the adapter reads.
    PipelineError
        If no adapter is loaded, or the memory does not suffice for one picture.

    Notes
    -----
    One picture at a time: diffusers takes all embeddings of a call as images for *every* prompt of
    it, so that in a batch each picture would be drawn from the embeddings of all (its issue 9813).
    """
    import torch

    n_dims = _embedding_size(pipeline)
    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or embeddings.shape[1] != n_dims:
        raise ValueError(
            f"The adapter reads embeddings of {n_dims} dimensions, got shape {embeddings.shape}. "
            "Fit the regression to embeddings from encode_images of this very pipeline."
        )
    if not len(embeddings) == len(prompts) == len(seeds) or not np.isfinite(embeddings).all():
        raise ValueError(
            f"One prompt and one seed per finite embedding are needed, got {len(embeddings)} "
            f"embeddings, {len(prompts)} prompts and {len(seeds)} seeds."
        )
    conditions = torch.tensor(embeddings, dtype=pipeline.unet.dtype)[:, np.newaxis]

    def draw(rows: slice) -> list[Image.Image]:
        return pipeline(
            prompt=list(prompts[rows]),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            ip_adapter_image_embeds=[_with_negative(pipeline, conditions[rows], guidance_scale)],
            height=size,
            width=size,
            generator=[make_generator(int(s)) for s in seeds[rows]],
        ).images

    return draw_in_batches(pipeline, len(prompts), 1, draw)


# --- pieces -----------------------------------------------------------------------------------


def _with_negative(
    pipeline: DiffusionPipeline, conditions: torch.Tensor, guidance_scale: float
) -> torch.Tensor:
    """Where guidance compares with a drawing without condition: zeros first, as in training."""
    import torch

    distilled = getattr(pipeline.unet.config, "time_cond_proj_dim", None) is not None
    if guidance_scale <= 1 or distilled:
        return conditions
    return torch.cat([torch.zeros_like(conditions), conditions])


def _embedding_size(pipeline: DiffusionPipeline) -> int:
    projection = getattr(pipeline.unet, "encoder_hid_proj", None)
    layers = getattr(projection, "image_projection_layers", None)
    if not layers:
        raise PipelineError("The pipeline has no adapter yet: call load_adapter first.")
    return layers[0].image_embeds.in_features


def _check_sizes(pipeline: DiffusionPipeline, settings: ReconstructionSettings) -> None:
    from diffusers.models.embeddings import ImageProjection

    name = f"{settings.adapter}/{settings.adapter_folder}/{settings.adapter_weights}"
    [layer] = pipeline.unet.encoder_hid_proj.image_projection_layers
    if not isinstance(layer, ImageProjection):
        raise PipelineError(
            f"{name} reads many tokens per image (a {type(layer).__name__}); the regression "
            "predicts one embedding. Choose a plain adapter, such as ip-adapter_sd15.safetensors."
        )
    reads, gives = layer.image_embeds.in_features, pipeline.image_encoder.config.projection_dim
    if reads != gives:
        raise PipelineError(
            f"{name} reads embeddings of {reads} dimensions, but the image encoder in "
            f"{settings.adapter_encoder} gives {gives}. Name the encoder that the adapter was "
            "trained with as reconstruction.adapter_encoder."
        )


def _explained(error: Exception, settings: ReconstructionSettings, folder: Path) -> str:
    if not folder.is_dir():
        return f"reconstruction.adapter: {explain(error, settings.adapter, is_folder=False)}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"The adapter in {folder} cannot be loaded: {reason}. It needs "
        f"{settings.adapter_folder}/{settings.adapter_weights}, made for a model like "
        f"reconstruction.model, and the image encoder in {settings.adapter_encoder}."
    )
