"""What a chapter found and where it came from: the schema of ``metrics.json`` (every chapter).

Provenance means versions, seeds, data, device, time and memory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

import eeglib
from eeglib.profile import DatasetSettings, Profile
from eeglib.run_folder import METRICS

SCHEMA_VERSION = 1

PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "mne",
    "torch",
    "open-clip-torch",
    "diffusers",
    "transformers",
)
"""Packages whose versions may change a result."""

_READABLE = {".csv", ".json", ".tsv", ".vhdr"}


class ResultsError(RuntimeError):
    """Results that are missing or damaged; the message says which chapter makes them."""


class Provenance(BaseModel):
    """How one chapter's results came about; part of ``metrics.json``."""

    model_config = ConfigDict(extra="forbid")

    eeglib: str
    python: str
    platform: str
    packages: dict[str, str]
    git_revision: str | None
    seeds: dict[str, list[int]]
    dataset: str
    device: str
    seconds: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None
    finished_at: str


class Score(BaseModel):
    """One score: never without its chance level, its n and its interval."""

    model_config = ConfigDict(extra="allow")

    metric: str
    value: float | None
    chance: float | None
    n: int
    low: float | None
    high: float | None


class OutputFile(BaseModel):
    """Size and checksum of a file that later chapters may read."""

    bytes: int
    sha256: str


class Metrics(BaseModel):
    """Content of ``metrics.json``, version 1: what one chapter found and how it came about."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    chapter: str
    subject: int | None
    profile: dict[str, Any]
    scores: list[Score]
    facts: dict[str, Any]
    outputs: dict[str, OutputFile]
    provenance: Provenance


def load_metrics(folder: str | Path) -> Metrics:
    """Read and check the ``metrics.json`` of a chapter's folder.

    Raises
    ------
    ResultsError
        If there is none, or it does not follow the schema.
    """
    path = Path(folder) / METRICS
    try:
        metrics = Metrics.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"No {path}: that chapter has not finished. Run it first.") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is not valid; run its chapter again. {error}") from None
    if metrics.schema_version != SCHEMA_VERSION:
        raise ResultsError(
            f"{path} follows version {metrics.schema_version} of the schema, this eeglib reads "
            f"version {SCHEMA_VERSION}. Run the chapter again."
        )
    return metrics


def collect_provenance(profile: Profile, data: Path, seconds: float) -> Provenance:
    """Gather what is known at the end of a chapter.

    Parameters
    ----------
    profile : Profile
        Settings of the run.
    data : Path
        Folder of the data set.
    seconds : float
        How long the chapter took, s.
    """
    device, gpu_memory = _device()
    return Provenance(
        eeglib=eeglib.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=_versions(),
        git_revision=git_revision(),
        seeds={"profile": [profile.seed], "training": list(profile.training.seeds)},
        dataset=dataset_fingerprint(profile.dataset, data),
        device=device,
        seconds=round(seconds, 3),
        peak_memory_mb=round(peak_memory_mb(), 1),
        peak_gpu_memory_mb=gpu_memory,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def dataset_fingerprint(settings: DatasetSettings, folder: Path) -> str:
    """Checksum that tells two data sets apart.

    Notes
    -----
    Covers the loader's name and options, the name and size of every file, and the content of the
    text files (events, channels, stimuli); signals count by size only, for they may be many
    gigabytes. Hidden files do not count: an interrupted writer may have left them.
    """
    digest = hashlib.sha256(settings.model_dump_json(include={"name", "options"}).encode())
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        digest.update(f"{inside.as_posix()}\0{path.stat().st_size}\0".encode())
        if path.suffix in _READABLE:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def peak_memory_mb() -> float:
    """Largest memory of this process or of one of its finished children so far, MB."""
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    unit = 1 if sys.platform == "darwin" else 1024
    return peak * unit / 1e6


def git_revision() -> str | None:
    """Commit of the checkout that eeglib runs from, ``-dirty`` if edited; None if installed."""
    checkout = Path(eeglib.__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def plain(value: Any) -> Any:
    """Turn NumPy scalars, arrays and paths into what JSON knows; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"metrics.json holds numbers, text, lists and dicts, got {type(value).__name__}. "
        "Turn it into one of them."
    )


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _device() -> tuple[str, float | None]:
    # A chapter that never imported torch should not pay seconds for the question.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return "cpu", None
    return torch.cuda.get_device_name(), round(torch.cuda.max_memory_allocated() / 1e6, 1)
