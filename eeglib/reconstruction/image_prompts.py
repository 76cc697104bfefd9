"""Draw from a predicted image embedding, beside the word (chapter 7, beyond the paper).

A text-to-image model without an adapter for images can still be told about one: a regression
turns the embedding into the model's latents, which stand where pure noise would, and the caption
does the rest. Takagi and Nishimoto (2023, *CVPR*) drew from fMRI in this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eeglib.reconstruction.drawing import draw_in_batches, make_generator

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from sklearn.linear_model import RidgeCV

PENALTIES = tuple(float(p) for p in np.logspace(-3, 4, 15))


def encode_pictures(
    pipeline: DiffusionPipeline, pictures: Sequence[Image.Image], size: int, batch_size: int = 32
) -> np.ndarray:
    """Latents of pictures, by the pipeline's own autoencoder.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        A latent diffusion model.
    pictures : sequence of PIL.Image.Image
    size : int
        Height and width to which they are brought, pixels.
    batch_size : int

    Returns
    -------
    array of float32, shape (n_pictures, n_latents)
        Scaled as the denoiser sees them.
    """
    import torch

    found = []
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        resized = [picture.convert("RGB").resize((size, size)) for picture in batch]
        pixels = pipeline.image_processor.preprocess(resized)
        with torch.no_grad():
            posterior = pipeline.vae.encode(pixels.to(pipeline.device, pipeline.dtype)).latent_dist
        found.append((posterior.mean * pipeline.vae.config.scaling_factor).float().cpu().numpy())
    return np.concatenate(found).reshape(len(pictures), -1)


def fit_latents(embeddings: np.ndarray, latents: np.ndarray) -> RidgeCV:
    """Regression from image embeddings to latents, on training images.

    Parameters
    ----------
    embeddings : array, shape (n_images, n_dims)
    latents : array, shape (n_images, n_latents)
        From `encode_pictures`.

    Returns
    -------
    sklearn.linear_model.RidgeCV
        Fitted, its penalty chosen by leaving out one image at a time.
    """
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=PENALTIES).fit(embeddings, latents)


def draw_from_latents(
    pipeline: DiffusionPipeline,
    latents: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    strength: float = 0.6,
    steps: int = 25,
    guidance_scale: float = 4.0,
    size: int = 64,
    batch_size: int = 8,
) -> list[Image.Image]:
    """Draw pictures that start from latents under noise, not from noise alone.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Stable Diffusion of any size.
    latents : array, shape (n_pictures, n_latents)
        Such as `fit_latents` predicts.
    prompts : sequence of str
    seeds : sequence of int
    strength : float
        How much noise covers the latents, in (0, 1]: at 1 nothing of them is left.
    steps, guidance_scale, size, batch_size
        As in `eeglib.reconstruction.drawing.reconstruct`; ``strength * steps`` steps are run.

    Returns
    -------
    list of PIL.Image.Image

    Raises
    ------
    ValueError
        If numbers differ, latents do not fit the size, or the strength is out of bounds.
    """
    import torch
    from diffusers import AutoPipelineForImage2Image

    shape = (pipeline.vae.config.latent_channels, *[size // pipeline.vae_scale_factor] * 2)
    if not len(latents) == len(prompts) == len(seeds) or not 0 < strength <= 1:
        raise ValueError(
            f"One prompt and one seed per picture and a strength in (0, 1] are needed, got "
            f"{len(latents)} latents, {len(prompts)} prompts, {len(seeds)} seeds, {strength}."
        )
    if np.shape(latents)[1:] != (np.prod(shape),):
        raise ValueError(
            f"Pictures of {size} pixels have {np.prod(shape)} latents, got {np.shape(latents)}."
        )
    redraw = AutoPipelineForImage2Image.from_pipe(pipeline)
    redraw.set_progress_bar_config(disable=True)
    starts = torch.tensor(np.reshape(latents, (-1, *shape)), dtype=pipeline.dtype)

    def draw(rows: slice) -> list[Image.Image]:
        return redraw(
            prompt=list(prompts[rows]),
            image=starts[rows].to(pipeline.device),
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[make_generator(int(seed)) for seed in seeds[rows]],
        ).images

    return draw_in_batches(pipeline, len(prompts), batch_size, draw)
