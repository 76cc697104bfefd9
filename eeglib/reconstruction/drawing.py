"""From a predicted class to a picture: prompts and Stable Diffusion (chapter 7).

The same calls serve the small pipeline that is shipped and any Stable Diffusion of the hub. A
picture depends on prompt, seed and settings alone, so that it can be kept and not drawn again.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import numpy as np
import pandas
import torch
import transformers
from diffusers import DiffusionPipeline
from PIL import Image

import eeglib

PRETRAINED = Path(eeglib.__file__).parent / "pretrained"  # the demo's models


class ReconstructionError(RuntimeError):
    """A model that cannot be had, or pictures that cannot be drawn or measured."""


def choose_trials(metadata: pandas.DataFrame, n_images: int) -> np.ndarray:
    """Choose rows of trials to draw without a look at the predictions: one per class in turn.

    Takes the trials' table with columns ``label`` and ``order``. First comes the first trial of
    each class in the order of presentation, then the second of each, up to `n_images`.
    """
    ordered = metadata.reset_index(drop=True).sort_values("order", kind="stable")
    turn = ordered.groupby("label").cumcount()
    return turn.sort_values(kind="stable").index[:n_images].to_numpy()


def picture_seeds(trials: pandas.DataFrame) -> list[int]:
    """A seed for each trial's picture: its ``order`` of presentation; its row where that is -1."""
    order = trials["order"].to_numpy()
    return np.where(order >= 0, order, np.arange(len(order))).tolist()


def open_shown(stimuli: pandas.DataFrame, trials: pandas.DataFrame) -> list[Image.Image]:
    """Open the picture that each trial showed, in colour and in the order of the trials.

    Both tables have columns ``image, class_name``, that of the stimuli also ``file``. A
    `ReconstructionError` says where they name another class for an image.
    """
    of_trials = stimuli.set_index("image").loc[trials["image"]]
    wrong = of_trials["class_name"].to_numpy() != trials["class_name"].to_numpy()
    if wrong.any():
        text = f"{wrong.sum()} of {len(trials)} trials have another class than their picture"
        first = trials["image"].iloc[int(wrong.argmax())]
        raise ReconstructionError(f"{text}, first {first}. Run chapters 1 and 5 again.")
    return [Image.open(file).convert("RGB") for file in of_trials["file"]]


def prompt(class_name: str, template: str = "an image of a {class}") -> str:
    """Put the name of a class in place of ``{class}``, the ``a`` or ``an`` before it made to fit.

    Underscores in the name become spaces. The sentence is that of the paper's section 3.3.
    """
    if "{class}" not in template:
        raise ReconstructionError(f"The prompt must contain {{class}}, got {template!r}.")
    name = " ".join(re.sub(r"[\x00-\x1f\x7f_]+", " ", str(class_name)).split())
    if not re.search(r"\w", name):
        raise ReconstructionError(f"A class name needs a letter or digit, got {class_name!r}.")
    article = "an" if name[0].lower() in "aeiou" else "a"
    return re.sub(r"\ban?(?= \{class\})", article, template).replace("{class}", name)


def load_pipeline(
    model: str | Path,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    scheduler: str | None = None,
) -> DiffusionPipeline:
    """Load a text-to-image pipeline.

    `model` is ``demo`` for the one shipped here, a folder that diffusers has saved, or the id of a
    repository on the Hugging Face hub such as ``stabilityai/sd-turbo``, which is downloaded once.
    Weights are read from safetensors files only: other formats may run code when opened. Without a
    `device` it is a GPU, if there is one, with weights of float16. The `scheduler` is a class of
    diffusers that takes the steps, such as ``DPMSolverMultistepScheduler`` or, for models distilled
    for few steps, ``LCMScheduler``; None keeps the model's own.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    source = PRETRAINED / "demo_diffusion" if str(model) == "demo" else Path(model).expanduser()
    is_folder = bool(str(model)) and source.is_dir()
    # Advice to programmers and bars do not belong on a page of the book.
    huggingface_hub.utils.disable_progress_bars()
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    try:
        how = {"variant": _variant(source) if is_folder else None, "use_safetensors": True}
        name = source if is_folder else str(model)
        pipeline = DiffusionPipeline.from_pretrained(name, dtype=dtype, **how)
    except Exception as error:  # damaged files make four libraries raise whatever they like
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if is_folder:
            advice = "Copy the whole folder, model_index.json and weights as .safetensors."
        elif source.is_file():
            how = "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)"
            advice = f"It is a single file; with a network, make a folder of it: diffusers.{how}."
        else:
            advice = "There is no such folder (a relative one counts from the profile's file). Is "
            advice += "it a repository's id (owner/name) and the hub within reach? A licence is "
            advice += "accepted on its web page, then run `hf auth login`. 'demo' needs no network."
        text = f"The pipeline {str(model)!r} cannot be loaded: {reason}. {advice}"
        raise ReconstructionError(text) from error
    pipeline.set_progress_bar_config(disable=True)
    if scheduler:
        own = pipeline.scheduler
        names = {kind.__name__ for kind in own.compatibles} | {type(own).__name__, "LCMScheduler"}
        if scheduler not in names or not hasattr(diffusers, scheduler):
            text = f"reconstruction.scheduler is {scheduler!r}; with this model go "
            raise ReconstructionError(f"{text}{', '.join(sorted(names))}.")
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(own.config)
    return pipeline.to(device)


def _variant(folder: Path) -> str | None:
    """The variant fp16, where a part of a pipeline has its weights in no other."""
    parts = ([path.name for path in part.glob("*.safetensors")] for part in folder.iterdir())
    halves = any(names and all(".fp16" in name for name in names) for names in parts)
    return "fp16" if halves else None


def reconstruct(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = 25,
    guidance_scale: float = 4.0,
    size: int = 64,
    batch_size: int = 4,
    cache_dir: str | Path | None = None,
) -> list[Image.Image]:
    """Draw a picture for each prompt, with the seed that belongs to it: RGB, in the same order.

    A picture depends on its own prompt and seed, not on what else is drawn; one that is asked for
    twice is drawn once.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        From `load_pipeline`: Stable Diffusion 1, 2 or XL.
    steps, guidance_scale, size : int, float, int
        Denoising steps; strength of the prompt, up to 1 none; height and width, a multiple of 8.
    batch_size : int
        Pictures drawn at a time; halved where the device's memory does not suffice.
    cache_dir : str | Path | None
        Where each picture is kept as soon as it is drawn. One that is there already is not drawn
        again as long as model, prompt, seed and the settings above are the same.
    """
    jobs = list(zip(prompts, seeds, strict=True))
    settings = {"steps": steps, "guidance_scale": guidance_scale, "size": size}
    files: dict[tuple, Path | None] = dict.fromkeys(jobs)
    if cache_dir is not None:
        model = fingerprint(pipeline)
        files = {job: Path(cache_dir) / _file_name(model, *job, settings) for job in files}
    kept = {job: file for job, file in files.items() if file and file.is_file()}
    drawn = {job: Image.open(file).convert("RGB") for job, file in kept.items()}
    todo = [job for job in files if job not in drawn]
    encoded = _encode(pipeline, list(dict.fromkeys(text for text, _ in todo)))
    while todo:
        batch = todo[:batch_size]
        try:
            pictures = _draw(pipeline, encoded, batch, **settings)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                text = "There is too little memory for a single picture; see reconstruction.size."
                raise ReconstructionError(f"{text} Those drawn are kept.") from error
            batch_size = len(batch) // 2
            torch.cuda.empty_cache()
            print(f"Too little memory for {len(batch)} pictures; going on with {batch_size}.")
            continue
        for job, picture in zip(batch, pictures, strict=True):
            drawn[job] = picture
            if file := files[job]:
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(part := file.with_suffix(".part"), "png")
                part.replace(file)  # whole, or not at all
        todo = todo[len(batch) :]
    return [drawn[job] for job in jobs]


def trajectory(
    pipeline: DiffusionPipeline,
    prompt: str,
    seed: int,
    steps: int = 25,
    guidance_scale: float = 4.0,
    size: int = 64,
) -> list[tuple[int, Image.Image]]:
    """Watch one picture come out of noise, at up to 8 moments.

    Takes what `reconstruct` takes. Gives, for each moment, the denoising steps done so far and the
    latents, decoded: the first is noise, the last is the picture that `reconstruct` draws.
    """
    side = size // pipeline.vae_scale_factor
    shape = (1, pipeline.unet.config.in_channels, side, side)
    generator = torch.Generator("cpu").manual_seed(seed)  # as `_draw` does
    noise = torch.randn(shape, generator=generator, dtype=pipeline.unet.dtype)
    states = [noise.to(pipeline.device)]

    def keep(_pipeline, _step, _timestep, values):
        states.append(values["latents"].clone())
        return values

    how = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
    how |= {"height": size, "width": size, "output_type": "latent"}
    pipeline(prompt, latents=states[0], callback_on_step_end=keep, **how)
    chosen = np.unique(np.linspace(0, len(states) - 1, 8).round().astype(int))
    latents = torch.cat([states[step] for step in chosen]) / pipeline.vae.config.scaling_factor
    with torch.no_grad():
        pixels = pipeline.vae.decode(latents).sample
    pictures = pipeline.image_processor.postprocess(pixels, output_type="pil")
    return list(zip(chosen.tolist(), pictures, strict=True))


def fingerprint(pipeline: DiffusionPipeline) -> str:
    """Digest of scheduler and weights (64 numbers each): trained again, a model has another."""
    digest = hashlib.sha256()
    for name, part in sorted(pipeline.components.items()):
        if name == "scheduler":
            public = {k: v for k, v in part.config.items() if not k.startswith("_")}
            text = json.dumps([type(part).__name__, public], sort_keys=True, default=str)
            digest.update(text.encode())
        elif hasattr(part, "state_dict"):
            for key, weights in part.state_dict().items():
                digest.update(f"{name}.{key}{tuple(weights.shape)}{weights.dtype}".encode())
                digest.update(weights.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _encode(pipeline, prompts: list[str]) -> dict[str, list[torch.Tensor]]:
    """Embeddings of each prompt and of none; of Stable Diffusion XL the pooled ones, too."""
    if not prompts:
        return {}
    how = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    with torch.no_grad():
        parts = pipeline.encode_prompt(prompt=prompts, device=pipeline.device, **how)
    return {text: [part[row] for part in parts] for row, text in enumerate(prompts)}


def _draw(pipeline, encoded, batch, steps: int, guidance_scale: float, size: int) -> list:
    names = ["prompt_embeds", "negative_prompt_embeds"]
    names += ["pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    parts = map(torch.stack, zip(*(encoded[text] for text, _ in batch), strict=True))
    how = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
    how |= {"height": size, "width": size} | dict(zip(names, parts, strict=False))
    # Noise from the CPU: a GPU would draw another one from the same seed.
    noise = [torch.Generator("cpu").manual_seed(int(seed)) for _, seed in batch]
    output = pipeline(generator=noise, **how)
    if blanked := sum(getattr(output, "nsfw_content_detected", None) or []):
        print(f"The model's own safety checker has blanked {blanked} pictures: they are black.")
    return output.images


def _file_name(model: str, text: str, seed: int, settings: dict[str, Any]) -> str:
    key = hashlib.sha256(json.dumps([model, text, int(seed), settings], sort_keys=True).encode())
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
    return f"{readable}_{seed}_{key.hexdigest()[:16]}.png"
