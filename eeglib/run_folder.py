"""Names of folders and files in a run, and writing files whole (every chapter and the workflow).

Imports nothing heavy: every job of a run starts with this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

METRICS = "metrics.json"
NOTEBOOK = "notebook.ipynb"
INPUTS = "inputs.json"
"""What a finished chapter's results depend on; see `eeglib.workflow.staleness`."""
FAILURE = "failure.json"
"""Why a chapter stopped, and in which cell and line."""
RUNNING = "running.json"
"""Where and since when a chapter runs; left behind only by a job that was killed."""


def subject_folder(subject: int | None) -> str:
    """Name of a subject's folder; ``group`` for None."""
    return "group" if subject is None else f"sub-{subject:02d}"


def chapter_folder(run_dir: str | Path, chapter: str, subject: int | None) -> Path:
    """Folder of a chapter's results: under ``group`` or under the subject, such as ``sub-01``."""
    return Path(run_dir) / subject_folder(subject) / chapter


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place at once when all went well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
