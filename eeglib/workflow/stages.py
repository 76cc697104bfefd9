"""The table of stages: which notebooks there are, what each needs, who runs it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import eeglib
from eeglib.chapter import DATA_CHAPTER, METRICS, subject_folder

PACKAGE = Path(eeglib.__file__).parent


class WorkflowError(ValueError):
    """A run that cannot start; the message says what came, what is allowed and what to do."""


@dataclass(frozen=True)
class Stage:
    """One notebook and its place in the run.

    Attributes
    ----------
    name : str
        Name of the notebook without its extension, which is that of its chapter.
    per_subject : bool
        Whether it runs for every subject, or once for the group.
    needs : tuple of str
        Stages whose results it reads. Of chapter 1 only that it is over counts: what it made are
        the data, and a change of the data is seen for each subject.
    gpus : int
        GPUs that it uses where there are some and the profile's ``resources`` do not say.
    memory_mb : int
        Memory that it needs where the profile does not say, MB.
    """

    name: str
    per_subject: bool
    needs: tuple[str, ...] = ()
    gpus: int = 0
    memory_mb: int = 4000


FILTER, TEACHER, STUDENT = "02_filter_signals", "04_train_teacher", "05_distill_student"
DECODED = ("06_compare_baselines", "07_reconstruct_images", "08_audit_confounds")
STAGES = (
    Stage(DATA_CHAPTER, False),
    Stage(FILTER, True, (DATA_CHAPTER,), memory_mb=6000),
    Stage("03_visualize_stft", True, (FILTER,)),
    Stage(TEACHER, False, (DATA_CHAPTER,), gpus=1),
    Stage(STUDENT, True, (FILTER, TEACHER), gpus=1, memory_mb=6000),
    Stage(DECODED[0], True, (FILTER, TEACHER, STUDENT), gpus=1, memory_mb=6000),
    Stage(DECODED[1], True, (FILTER, TEACHER, STUDENT), gpus=1, memory_mb=8000),
    Stage(DECODED[2], True, (FILTER, TEACHER, STUDENT), memory_mb=8000),
    Stage("09_summarize_group", False, (TEACHER, STUDENT, *DECODED)),
)


@dataclass(frozen=True, order=True)
class Job:
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


def needs_of(job: Job, stages: Iterable[Stage], subjects: Iterable[int]) -> list[Job]:
    """Jobs whose results a job reads; one for the group reads those of all subjects."""
    table = {stage.name: stage for stage in stages}
    whose = subjects if job.subject is None else [job.subject]
    return [need for name in table[job.chapter].needs for need in jobs_of(table[name], whose)]


def select_stages(numbers: Iterable[str], stages: Iterable[Stage] = STAGES) -> list[Stage]:
    """Find stages by number or name: ``05``, ``5`` or ``05_distill_student``.

    Raises
    ------
    WorkflowError
        If there is no such chapter.
    """
    stages, found = list(stages), []
    for wanted in numbers:
        match = [s for s in stages if s.name == wanted or s.name[:2] == wanted.zfill(2)]
        if not match:
            names = ", ".join(stage.name for stage in stages)
            raise WorkflowError(f"No chapter {wanted!r}. Chapters: {names}.")
        found += match
    return found


def parse_subjects(text: str, allowed: Iterable[int]) -> list[int]:
    """Turn ``all``, ``3``, ``1-4`` or ``1,3,7-9`` into subjects of the profile.

    Raises
    ------
    WorkflowError
        If it cannot be read, or names a subject that the profile does not have.
    """
    allowed = list(allowed)
    if text.strip().lower() == "all":
        return allowed
    found: set[int] = set()
    for part in text.split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        span = range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1) if bounds else range(0)
        if not span:
            raise WorkflowError(f"--subjects takes all, 3, 1-4 or 1,3,7-9, got {text!r}.")
        found.update(span)
    unknown = sorted(found - set(allowed))
    if unknown:
        raise WorkflowError(
            f"The profile has the subjects {', '.join(map(str, allowed))}; "
            f"{', '.join(map(str, unknown))} is not one of them. Choose among these, or change "
            "dataset.subjects in the profile."
        )
    return sorted(found)


def site_folder() -> Path:
    """Folder that holds ``notebooks/``, ``book/``, ``_config.yml`` and ``_toc.yml``.

    The checkout when eeglib runs from one, else the copy inside the installed package.
    """
    checkout = PACKAGE.parent
    is_checkout = (checkout / "notebooks").is_dir() and (checkout / "_config.yml").is_file()
    return checkout if is_checkout else PACKAGE / "_site"
