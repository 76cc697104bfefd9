"""Text-to-image pipelines by name or folder (chapter 7).

What `diffusers` can load, loaded from safetensors files only; where that fails, one or two
sentences that say why and what to do.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import eeglib

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


class PipelineError(RuntimeError):
    """A pipeline that cannot be loaded or run; the message says what to do."""


def demo_diffusion_path() -> Path:
    """Folder of the demo's Stable Diffusion pipeline, in the format of diffusers."""
    return Path(eeglib.__file__).parent / "pretrained" / "demo_diffusion"


def load_pipeline(
    model: str | Path,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    scheduler: str | None = None,
) -> DiffusionPipeline:
    """Load a text-to-image pipeline.

    Parameters
    ----------
    model : str | Path
        ``demo`` for the pipeline shipped here, a folder that diffusers has saved, or the id of a
        repository on the Hugging Face hub such as ``stabilityai/sd-turbo``, which is downloaded
        once and then taken from the cache.
    device : str | None
        ``cpu``, ``cuda``, ...; None takes a GPU if there is one.
    dtype : torch.dtype | None
        Type of the weights; None is float16 on a GPU and float32 elsewhere.
    scheduler : str | None
        Class of diffusers that takes the steps, such as ``DPMSolverMultistepScheduler`` or, for
        models distilled for few steps, ``LCMScheduler``; None keeps the model's own.

    Returns
    -------
    diffusers.DiffusionPipeline
        Ready to draw. A safety checker that comes with the model is kept.

    Raises
    ------
    PipelineError
        If the folder or repository does not exist or lacks a part, the hub cannot be reached,
        the device is not there or too small, or the scheduler does not go with the model.

    Notes
    -----
    Weights are read from safetensors files only: other formats may run code when opened.
    """
    import torch
    from diffusers import DiffusionPipeline

    if device and device.startswith("cuda") and not torch.cuda.is_available():
        raise PipelineError(f"device is {device}, but PyTorch finds no GPU here; use 'cpu'.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    source = demo_diffusion_path() if str(model) == "demo" else Path(model).expanduser()
    is_folder = bool(str(model)) and source.is_dir()
    if is_folder:
        _check_parts(source)
    elif str(model) == "demo" or source.is_absolute() or str(model).startswith((".", "~")):
        raise PipelineError(
            f"No folder {source}. Give a folder saved by diffusers, a repository "
            "id such as stabilityai/sd-turbo, or 'demo'."
        )
    try:
        with quiet():
            pipeline = DiffusionPipeline.from_pretrained(
                source if is_folder else str(model),
                dtype=dtype,
                use_safetensors=True,
                low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,
            )
    except Exception as error:  # damaged files make four libraries raise whatever they like
        raise PipelineError(explain(error, model, is_folder)) from error
    pipeline.set_progress_bar_config(disable=True)
    if scheduler:
        pipeline.scheduler = _scheduler(scheduler, pipeline.scheduler)
    try:
        return pipeline.to(device)
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            f"{model} does not fit into the memory of {device}. Choose a smaller "
            "model or device='cpu'."
        ) from error


def describe_pipeline(pipeline: DiffusionPipeline) -> dict[str, str]:
    """What a reader must know about the model that drew, by name.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline

    Returns
    -------
    dict of str to str
        Kind, scheduler, parameters, device, type of the numbers, and the safety checker: without
        one nobody has screened the pictures.
    """
    import torch

    parts = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
    n_parameters = sum(tensor.numel() for part in parts for tensor in part.parameters())
    screened = getattr(pipeline, "safety_checker", None) is not None
    return {
        "pipeline": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "parameters": f"{n_parameters / 1e6:,.1f} million",
        "device": str(pipeline.device),
        "numbers": str(pipeline.dtype).removeprefix("torch."),
        "safety checker": "the model's own; pictures that it objects to come out black"
        if screened
        else "none: the pictures are not screened",
    }


def offload(pipeline: DiffusionPipeline, error: Exception) -> None:
    """Free the device where it cannot hold model and picture at once, and say so.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        With the package accelerate its parts wait in main memory and enter the device in turn;
        without it the pipeline moves to the CPU.
    error : Exception
        Why.

    Raises
    ------
    PipelineError
        If the pipeline is off the device already.
    """
    import torch

    if pipeline.device.type == "cpu":
        raise PipelineError(
            "There is too little memory for a single picture. Draw smaller pictures "
            "(reconstruction.size) or choose a smaller model. Pictures already drawn are kept."
        ) from error
    torch.cuda.empty_cache()
    if importlib.util.find_spec("accelerate"):
        print(
            "Too little memory for one picture: the model's parts now wait in main memory and "
            "enter the device in turn, which is slower."
        )
        pipeline.enable_model_cpu_offload()
        return
    print(
        "Too little memory for one picture: going on with the CPU, which is much slower. With "
        "the package accelerate installed the device could be used in part."
    )
    pipeline.to("cpu", torch.float32)


def _scheduler(name: str, own):
    """The scheduler of this name, set up as the model's own one."""
    import diffusers

    kind = getattr(diffusers, name, None)
    compatible = {c.__name__ for c in own.compatibles} | {type(own).__name__, "LCMScheduler"}
    if kind is None or name not in compatible:
        raise PipelineError(
            f"reconstruction.scheduler is {name!r}; with this model go "
            f"{', '.join(sorted(compatible))}."
        )
    return kind.from_config(own.config)


def _check_parts(folder: Path) -> None:
    """Name a part that is missing, before diffusers stumbles over it."""
    index = folder / "model_index.json"
    try:
        parts = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PipelineError(
            f"{folder} has no readable model_index.json, so it holds no diffusers pipeline. Give "
            "the folder in which pipeline.save_pretrained() wrote."
        ) from None
    wanted = [name for name, kind in parts.items() if isinstance(kind, list) and kind[0]]
    missing = [name for name in wanted if not any((folder / name).glob("*"))]
    if missing:
        raise PipelineError(
            f"The pipeline in {folder} lacks {', '.join(missing)}; its model_index.json names "
            f"{', '.join(wanted)}. Copy the whole folder again."
        )


def explain(error: Exception, model: str | Path, is_folder: bool) -> str:
    """Say in one or two sentences why a pipeline, or a part added to it, could not be loaded."""
    from huggingface_hub import errors

    first_line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if is_folder:
        return (
            f"The pipeline in {model} cannot be loaded: {first_line}. Copy the whole folder "
            "again, with weights as .safetensors."
        )
    chain = list(_causes(error))
    if any(isinstance(e, errors.GatedRepoError) for e in chain):
        return (
            f"The repository {model} asks for consent to its licence: accept it on the hub's "
            "web page, then log in with `hf auth login`."
        )
    if any(isinstance(e, errors.RepositoryNotFoundError) for e in chain):
        return (
            f"The hub has no repository {model}, or it is private. Check the spelling "
            "(owner/name); for a private one log in with `hf auth login`."
        )
    if any(isinstance(e, errors.HFValidationError) for e in chain) or "valid repo id" in first_line:
        return (
            f"{str(model)!r} is neither a folder nor a repository id. Give a folder saved by "
            "diffusers, an id such as stabilityai/sd-turbo, or 'demo'."
        )
    if any(
        isinstance(e, (errors.OfflineModeIsEnabled, ConnectionError))
        or "Connect" in type(e).__name__
        or "Timeout" in type(e).__name__
        for e in chain
    ):
        return (
            f"The hub cannot be reached and {model} is not in the cache. Connect and try "
            "again, give a local folder, or use 'demo', which needs no network."
        )
    return f"The pipeline {model} cannot be loaded: {first_line}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' bars and advice to programmers off the page while a pipeline loads."""
    import diffusers.utils.logging
    import huggingface_hub.utils
    import transformers.utils.logging

    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    speakers = (diffusers.utils.logging, transformers.utils.logging)
    before = [speaker.get_verbosity() for speaker in speakers]
    for speaker in speakers:
        speaker.set_verbosity_error()
        speaker.disable_progress_bar()
    try:
        yield
    finally:
        for speaker, verbosity in zip(speakers, before, strict=True):
            speaker.set_verbosity(verbosity)
            speaker.enable_progress_bar()
