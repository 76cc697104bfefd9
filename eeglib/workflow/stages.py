"""The table of stages: which notebooks there are, what each needs, who runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

import eeglib
from eeglib.chapter import METRICS, subject_folder

PACKAGE = Path(eeglib.__file__).parent


class WorkflowError(ValueError):
    """A run that cannot start; the message says what came, what is allowed and what to do."""


class Stage(NamedTuple):
    """One notebook, named like its chapter, and what it gets unless `resources` say otherwise."""

    name: str
    per_subject: bool
    needs: Sequence[str] = ()  # whose results it reads; of chapter 1 only that it is over
    gpus: int = 0
    memory_mb: int = 4000
    gpu_memory_mb: int = 3000  # with CUDA's own few hundred


TABLE = yaml.safe_load(Path(__file__).with_name("stages.yml").read_text(encoding="utf-8"))
STAGES = tuple(Stage(name, **row) for name, row in TABLE.items())


class Job(NamedTuple):
    """One chapter for one subject, or for the group where ``subject`` is None."""

    chapter: str
    subject: int | None

    @property
    def metrics(self) -> str:
        """The file inside the run's folder that says that it has finished."""
        return f"{self}/{METRICS}"

    @classmethod
    def of(cls, folder: Path) -> Job:
        """The job whose results lie in a folder."""
        whose = folder.parent.name
        return cls(folder.name, None if whose == "group" else int(whose.removeprefix("sub-")))

    def __str__(self) -> str:
        return f"{subject_folder(self.subject)}/{self.chapter}"


def jobs_of(stage: Stage, subjects: Iterable[int]) -> list[Job]:
    """The jobs of a stage."""
    return [Job(stage.name, s) for s in subjects] if stage.per_subject else [Job(stage.name, None)]


def select_stages(numbers: Iterable[str], stages: Iterable[Stage] = STAGES) -> list[Stage]:
    """Find stages by number or name: ``05``, ``5`` or ``05_distill_student``."""
    found = []
    for wanted in numbers:
        match = [s for s in stages if wanted.zfill(2) in (s.name, s.name[:2])]
        if not match:
            names = ", ".join(stage.name for stage in stages)
            raise WorkflowError(f"No chapter {wanted!r}. Chapters: {names}.")
        found += match
    return found


def parse_subjects(text: str, allowed: Iterable[int]) -> list[int]:
    """Turn ``all``, ``3``, ``1-4`` or ``1,3,7-9`` into subjects of the profile."""
    if text == "all":
        return list(allowed)
    try:
        spans = [[int(number) for number in part.split("-")] for part in text.split(",")]
    except ValueError:
        spans = []
    found = {subject for span in spans for subject in range(span[0], span[-1] + 1)}
    if not found:
        raise WorkflowError(f"--subjects takes all, 3, 1-4 or 1,3,7-9, got {text!r}.")
    unknown = sorted(found.difference(allowed))
    if unknown:
        text = f"The profile has the subjects {', '.join(map(str, allowed))}"
        raise WorkflowError(f"{text}; {unknown[0]} is not one of them: see dataset.subjects.")
    return sorted(found)


def site_folder() -> Path:
    """Folder of ``notebooks/``, ``book/``, ``_config.yml``: the checkout, else in the package."""
    checkout = PACKAGE.parent
    is_checkout = (checkout / "notebooks").is_dir() and (checkout / "_config.yml").is_file()
    return checkout if is_checkout else PACKAGE / "_site"
