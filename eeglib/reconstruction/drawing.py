"""From a predicted class to a picture: prompts and Stable Diffusion (chapter 7).

The same calls serve the small pipeline that is shipped and any Stable Diffusion of the hub. A
picture depends on prompt, seed and settings alone, so that it can be kept and not drawn again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eeglib.reconstruction.pipelines import PipelineError, describe_pipeline, load_pipeline, offload
from eeglib.reconstruction.prompts import Mixture, condition_prompts, embedded, prompt

if TYPE_CHECKING:
    import pandas
    import torch
    from diffusers import DiffusionPipeline

__all__ = [
    "Frame",
    "PipelineError",
    "choose_trials",
    "condition_prompts",
    "describe_pipeline",
    "fingerprint",
    "load_pipeline",
    "prompt",
    "reconstruct",
    "trajectory",
]


SMALL = 20_000_000
"""Weights of a denoiser up to which it is drawn with one thread on a CPU."""


@dataclass(frozen=True)
class Frame:
    """One moment of a drawing.

    Attributes
    ----------
    step : int
        Denoising steps done so far; 0 is pure noise.
    picture : PIL.Image.Image
        The latents of this moment, decoded.
    """

    step: int
    picture: Image.Image


def choose_trials(metadata: pandas.DataFrame, n_images: int) -> np.ndarray:
    """Choose trials to draw without a look at the predictions: one per class in turn.

    Parameters
    ----------
    metadata : pandas.DataFrame
        Columns ``label`` and ``order``, one row per trial.
    n_images : int
        Fewer are chosen where there are fewer trials.

    Returns
    -------
    array of int, shape (n_chosen,)
        Row numbers: the first trial of each class in the order of presentation, then the second
        of each, and so on.
    """
    if n_images < 1:
        raise ValueError(f"reconstruction.n_images must be at least 1, got {n_images}.")
    ordered = metadata.reset_index(drop=True).sort_values("order", kind="stable")
    turn = ordered.groupby("label").cumcount()
    return turn.sort_values(kind="stable").index[:n_images].to_numpy()


def reconstruct(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str | Mixture],
    seeds: Sequence[int],
    steps: int = 25,
    guidance_scale: float = 4.0,
    size: int = 64,
    batch_size: int = 4,
    cache_dir: str | Path | None = None,
) -> list[Image.Image]:
    """Draw a picture for each prompt.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        From `load_pipeline`.
    prompts : sequence of str or Mixture
    seeds : sequence of int
        One per prompt, at least 0. A picture depends on its own prompt and seed, not on what
        else is drawn.
    steps : int
        Denoising steps.
    guidance_scale : float
        Strength of the prompt; up to 1 the picture is drawn without guidance.
    size : int
        Height and width in pixels, a multiple of 8.
    batch_size : int
        Pictures drawn at a time; halved where the device's memory does not suffice. If it does
        not even for one, the model's parts wait in the main memory until they are needed.
    cache_dir : str | Path | None
        Where each picture is kept as soon as it is drawn. One that is there already is not drawn
        again as long as weights, scheduler, prompt, seed, steps, guidance and size are the same.

    Returns
    -------
    list of PIL.Image.Image
        RGB, in the order of `prompts`.

    Raises
    ------
    ValueError
        If prompts and seeds differ in number, or a setting cannot be used.
    PipelineError
        If the memory does not suffice for one picture. What was drawn before is kept.
    """
    import torch
    from tqdm.auto import tqdm

    jobs = _checked_jobs(prompts, seeds, steps, size, batch_size)
    settings = {"steps": int(steps), "guidance_scale": float(guidance_scale), "size": int(size)}
    cache = None if cache_dir is None else Path(cache_dir)
    model = "" if cache is None else fingerprint(pipeline)
    files = {job: cache and cache / _file_name(model, *job, settings) for job in jobs}
    drawn = {job: picture for job, file in files.items() if (picture := _read(file)) is not None}
    todo = [job for job in files if job not in drawn]
    # Mixtures among themselves: they enter as embeddings, plain prompts as text.
    todo.sort(key=lambda job: isinstance(job[0], Mixture))
    # Without a terminal there is no bar: a page of the book would show every state of it.
    with tqdm(total=len(files), initial=len(drawn), desc="drawing", disable=None) as bar:
        while todo:
            batch = todo[:batch_size]
            try:
                with _fitting_threads(pipeline):
                    pictures = _draw(pipeline, batch, settings)
            except torch.OutOfMemoryError as error:
                batch_size = _halved(pipeline, len(batch), error)
                continue
            for job, picture in zip(batch, pictures, strict=True):
                drawn[job] = picture
                _write(picture, files[job])
            bar.update(len(batch))
            todo = todo[len(batch) :]
    return [drawn[job] for job in jobs]


def draw_in_batches(
    pipeline: DiffusionPipeline,
    n_pictures: int,
    batch_size: int,
    draw: Callable[[slice], list[Image.Image]],
) -> list[Image.Image]:
    """Draw rows in turn, as many at a time as the device's memory allows.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
    n_pictures : int
    batch_size : int
        Halved where memory does not suffice, as in `reconstruct`.
    draw : callable
        Draws the pictures of some rows.

    Returns
    -------
    list of PIL.Image.Image, length n_pictures

    Raises
    ------
    PipelineError
        If the memory does not suffice for one picture.
    """
    import torch

    drawn: list[Image.Image] = []
    while len(drawn) < n_pictures:
        rows = slice(len(drawn), min(len(drawn) + batch_size, n_pictures))
        try:
            with _fitting_threads(pipeline):
                drawn += draw(rows)
        except torch.OutOfMemoryError as error:
            batch_size = _halved(pipeline, rows.stop - rows.start, error)
    return drawn


def trajectory(
    pipeline: DiffusionPipeline,
    prompt: str,
    seed: int,
    steps: int = 25,
    guidance_scale: float = 4.0,
    size: int = 64,
    n_frames: int = 8,
) -> list[Frame]:
    """Watch one picture come out of noise.

    Parameters
    ----------
    pipeline, prompt, seed, steps, guidance_scale, size
        As in `reconstruct`.
    n_frames : int
        Moments to show, at least 2; at most ``steps + 1`` are there.

    Returns
    -------
    list of Frame
        The first is noise, the last is the picture that `reconstruct` draws.
    """
    from diffusers.utils.torch_utils import randn_tensor

    [(prompt, seed)] = _checked_jobs([prompt], [seed], steps, size, 1)
    if n_frames < 2:
        raise ValueError(f"n_frames must be at least 2, got {n_frames}.")
    side = size // pipeline.vae_scale_factor
    generator = make_generator(seed)
    shape = (1, pipeline.unet.config.in_channels, side, side)
    noise = randn_tensor(shape, generator, pipeline.device, pipeline.unet.dtype)
    states = [noise]

    def keep(_pipeline, _step, _timestep, kwargs):
        states.append(kwargs["latents"].clone())
        return kwargs

    pipeline(
        prompt=prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        height=size,
        width=size,
        generator=generator,
        latents=noise,
        callback_on_step_end=keep,
        output_type="latent",
    )
    chosen = np.unique(np.linspace(0, len(states) - 1, n_frames).round().astype(int))
    return [Frame(int(step), _decode(pipeline, states[step])) for step in chosen]


def fingerprint(pipeline: DiffusionPipeline) -> str:
    """Tell whether two pipelines would draw the same.

    Returns
    -------
    str
        Hexadecimal digest over the scheduler's settings and, of every tensor of weights, its
        name, shape, type and first 64 numbers: trained again, a model has another one.
    """
    digest = hashlib.sha256()
    for name, part in sorted(pipeline.components.items()):
        config = getattr(part, "config", {})
        if name == "scheduler":
            public = {k: v for k, v in config.items() if not k.startswith("_")}
            digest.update(
                json.dumps([type(part).__name__, public], sort_keys=True, default=str).encode()
            )
        elif hasattr(part, "state_dict"):
            for key, weights in part.state_dict().items():
                digest.update(f"{name}.{key}{tuple(weights.shape)}{weights.dtype}".encode())
                digest.update(weights.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _checked_jobs(
    prompts, seeds, steps: int, size: int, batch_size: int
) -> list[tuple[str | Mixture, int]]:
    if isinstance(prompts, str):
        raise ValueError(f"prompts must be a list of sentences, got the single one {prompts!r}.")
    if len(prompts) != len(seeds):
        raise ValueError(
            f"One seed per prompt is needed, got {len(prompts)} prompts and {len(seeds)} seeds."
        )
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if int(value) != value or value < 1:
            raise ValueError(f"{name} must be a whole number from 1 on, got {value}.")
    if size < 8 or size % 8:
        raise ValueError(f"size must be a multiple of 8 pixels, such as 64 or 512, got {size}.")
    for seed in seeds:
        if int(seed) != seed or seed < 0:
            raise ValueError(f"A seed must be a whole number from 0 on, got {seed}.")
    texts = [text if isinstance(text, Mixture) else str(text) for text in prompts]
    return [(text, int(seed)) for text, seed in zip(texts, seeds, strict=True)]


def _draw(pipeline, batch: list[tuple], settings: dict) -> list[Image.Image]:
    texts = [text for text, _ in batch]
    plain = all(isinstance(text, str) for text in texts)
    output = pipeline(
        **({"prompt": texts} if plain else embedded(pipeline, texts)),
        generator=[make_generator(seed) for _, seed in batch],
        num_inference_steps=settings["steps"],
        guidance_scale=settings["guidance_scale"],
        height=settings["size"],
        width=settings["size"],
    )
    blanked = sum(getattr(output, "nsfw_content_detected", None) or [])
    if blanked:
        print(f"The model's own safety checker has blanked {blanked} pictures: they are black.")
    return output.images


@contextmanager
def _fitting_threads(pipeline) -> Iterator[None]:
    """One thread for a small model on the CPU: its layers are too short to be shared out.

    On busy cores, where each layer waits for the slower thread, sharing costs many times the work.
    """
    import torch

    before = torch.get_num_threads()
    small = sum(weights.numel() for weights in pipeline.unet.parameters()) < SMALL
    if pipeline.device.type == "cpu" and small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_generator(seed: int) -> torch.Generator:
    """Source of a picture's noise."""
    import torch

    # Noise from the CPU: a GPU would draw another one from the same seed.
    return torch.Generator("cpu").manual_seed(seed)


def _decode(pipeline, latents) -> Image.Image:
    import torch

    with torch.no_grad():
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return pipeline.image_processor.postprocess(pixels, output_type="pil")[0]


def _halved(pipeline, batch_size: int, error: Exception) -> int:
    """Half the batch; where it is a single picture, the same with the model off the device."""
    import torch

    if batch_size == 1:
        offload(pipeline, error)
        return 1
    torch.cuda.empty_cache()
    print(
        f"Too little memory for {batch_size} pictures at a time; going on with {batch_size // 2}."
    )
    return batch_size // 2


def _file_name(model: str, text: str | Mixture, seed: int, settings: dict) -> str:
    exact = text if isinstance(text, str) else repr(text)
    key = hashlib.sha256(json.dumps([model, exact, seed, settings], sort_keys=True).encode())
    readable = re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")[:40]
    return f"{readable}_{seed}_{key.hexdigest()[:16]}.png"


def _read(file: Path | None) -> Image.Image | None:
    if file is None or not file.is_file():
        return None
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError):
        return None  # a damaged file: the picture is drawn anew and the file replaced


def _write(picture: Image.Image, file: Path | None) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.part")
    picture.save(partial, format="PNG")
    partial.replace(file)
