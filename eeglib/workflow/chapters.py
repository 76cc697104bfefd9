"""The table of chapters: what runs once or per subject, what it needs, what it depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eeglib.chapter import METRICS, sha256_of, subject_folder


class WorkflowError(ValueError):
    """A run that cannot start; the message says what came, what is allowed and what to do."""


@dataclass(frozen=True)
class Chapter:
    """One notebook and its place in the run.

    Attributes
    ----------
    name : str
        Name of the notebook without its extension.
    scope : "group" | "subject"
        Whether it runs once or for every subject.
    needs : tuple of str
        Chapters whose results it reads.
    sections : tuple of str
        Sections of the profile that it reads besides `COMMON_SECTIONS`. A change of another
        section does not run it again, and a notebook that reads another one is refused.
    assets : tuple of str
        Folders of the package, besides its source, that its results depend on.
    gpus : int
        GPUs that it uses where there are some and the profile's ``resources`` do not say.
    """

    name: str
    scope: Literal["group", "subject"]
    needs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    gpus: int = 0


PASSED = ("subject", "profile", "run_dir")
"""Parameters that the run passes to every notebook; a group's chapter gets the first subject."""
COMMON_SECTIONS = ("seed", "dataset")

CHAPTERS = (
    Chapter("01_download_data", "group"),
    Chapter("02_filter_signals", "subject", ("01_download_data",), ("filtering",)),
    Chapter("03_visualize_stft", "subject", ("02_filter_signals",), ("filtering", "timefrequency")),
    Chapter(
        "04_train_teacher",
        "group",
        ("01_download_data",),
        ("split", "teacher", "evaluation"),
        ("pretrained",),
        gpus=1,
    ),
    Chapter(
        "05_distill_student",
        "subject",
        ("02_filter_signals", "04_train_teacher"),
        ("filtering", "timefrequency", "split", "training", "teacher_study", "evaluation"),
        gpus=1,
    ),
    Chapter(
        "06_compare_baselines",
        "subject",
        ("02_filter_signals", "04_train_teacher", "05_distill_student"),
        ("filtering", "timefrequency", "split", "training", "baselines", "evaluation"),
        gpus=1,
    ),
    Chapter(
        "07_reconstruct_images",
        "subject",
        ("01_download_data", "02_filter_signals", "04_train_teacher", "05_distill_student"),
        ("split", "reconstruction", "pictures", "evaluation"),
        ("pretrained",),
        gpus=1,
    ),
    Chapter(
        "08_audit_confounds",
        "subject",
        ("02_filter_signals", "04_train_teacher", "05_distill_student"),
        ("filtering", "audit"),
    ),
    Chapter(
        "09_summarize_group",
        "group",
        (
            "04_train_teacher",
            "05_distill_student",
            "06_compare_baselines",
            "07_reconstruct_images",
            "08_audit_confounds",
        ),
        ("split", "baselines", "reconstruction", "evaluation"),
    ),
)


@dataclass(frozen=True, order=True)
class Job:
    """One chapter for one subject, or for the group where ``subject`` is None."""

    chapter: str
    subject: int | None

    @property
    def folder(self) -> str:
        """Folder of its results inside the run's folder."""
        return f"{subject_folder(self.subject)}/{self.chapter}"

    @property
    def metrics(self) -> str:
        """The file that says that it has finished."""
        return f"{self.folder}/{METRICS}"

    def __str__(self) -> str:
        return f"{subject_folder(self.subject)}/{self.chapter}"


def jobs_of(chapter: Chapter, subjects: Iterable[int]) -> list[Job]:
    """The jobs of a chapter."""
    if chapter.scope == "group":
        return [Job(chapter.name, None)]
    return [Job(chapter.name, subject) for subject in subjects]


def needs_of(job: Job, chapters: Iterable[Chapter], subjects: Iterable[int]) -> list[Job]:
    """Jobs whose results a job reads; a group chapter reads those of all subjects."""
    table = {chapter.name: chapter for chapter in chapters}
    whose = subjects if job.subject is None else [job.subject]
    return [need for name in table[job.chapter].needs for need in jobs_of(table[name], whose)]


def needs_hashes(needs: Iterable[Job], run_dir: Path) -> dict[str, str]:
    """Checksums of the metrics that a job's results are computed from, of those there are."""
    return {
        str(need): sha256_of(run_dir / need.metrics)[:16]
        for need in needs
        if (run_dir / need.metrics).is_file()
    }


def select_chapters(numbers: Iterable[str], chapters: Iterable[Chapter]) -> list[Chapter]:
    """Find chapters by number or name: ``05``, ``5`` or ``05_distill_student``.

    Raises
    ------
    WorkflowError
        If there is no such chapter.
    """
    chapters = list(chapters)
    found = []
    for wanted in numbers:
        match = [c for c in chapters if c.name == wanted or c.name[:2] == wanted.zfill(2)]
        if not match:
            names = ", ".join(chapter.name for chapter in chapters)
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
