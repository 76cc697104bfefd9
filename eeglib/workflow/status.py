"""Where a run stands: subjects x chapters with state, time and memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eeglib.chapter import (
    FAILURE,
    RUNNING,
    ResultsError,
    load_metrics,
    load_provenance,
    subject_folder,
)
from eeglib.workflow.chapters import Chapter, Job, jobs_of
from eeglib.workflow.locks import is_running
from eeglib.workflow.planning import Request, find_stale

State = Literal["done", "skipped", "running", "failed", "stale", "not yet"]
STATES: tuple[State, ...] = ("done", "skipped", "running", "failed", "stale", "not yet")
LISTED = 40
"""Subjects that a terminal lists one by one; of more only those with something to say."""


@dataclass(frozen=True)
class JobStatus:
    """Where one chapter of one subject stands.

    Attributes
    ----------
    job : Job
        Chapter and subject.
    state : State
        ``skipped`` means that the chapter found nothing to do, such as no pictures.
    reason : str
        Why it would run, where it would.
    seconds : float | None
        How long it took, from the chapter's first call to its last, s.
    memory_mb : float | None
        Most memory that its kernel held, MB.
    """

    job: Job
    state: State
    reason: str = ""
    seconds: float | None = None
    memory_mb: float | None = None

    @property
    def text(self) -> str:
        """The state with time and memory, such as ``done 12 s 0.8 GB``."""
        if self.seconds is None or self.memory_mb is None:
            return self.state
        return f"{self.state} {self.seconds:.0f} s {self.memory_mb / 1000:.1f} GB"


def read_status(request: Request) -> list[JobStatus]:
    """State of every chapter for every subject of a request, group first; changes nothing.

    Raises
    ------
    WorkflowError
        If a notebook is not fit to run.
    """
    stale, _ = find_stale(request)
    works = is_running(request.run_dir)
    jobs = [j for c in request.chapters for j in jobs_of(c, request.subjects)]
    return [_status(job, stale.get(job), request.run_dir, works) for job in jobs]


def describe_status(statuses: Sequence[JobStatus], chapters: Sequence[Chapter]) -> str:
    """Lines for a terminal: a table, counts, and why something would run."""
    by_subject: dict[int | None, dict[str, JobStatus]] = {}
    for status in statuses:
        by_subject.setdefault(status.job.subject, {})[status.job.chapter] = status
    subjects = [s for s in by_subject if s is not None]
    shown = subjects
    if len(subjects) > LISTED:
        quiet = {"done", "skipped", "not yet"}
        told = [s for s in subjects if {x.state for x in by_subject[s].values()} - quiet]
        shown = told[:LISTED]
    lines = []
    if None in by_subject:
        lines += [*_table(by_subject, [None], [c for c in chapters if c.scope == "group"]), ""]
    lines += _table(by_subject, shown, [c for c in chapters if c.scope == "subject"])
    if len(shown) < len(subjects):
        lines.append(f"... and {len(subjects) - len(shown)} subjects more, in the counts below")
    lines += ["", "chapters: " + count_states(statuses)]
    for status in statuses:
        if status.state in ("failed", "stale") and status.job.subject in (None, *shown):
            lines.append(f"{status.job}: {status.state}: {status.reason}")
    return "\n".join(lines)


def count_states(statuses: Sequence[JobStatus]) -> str:
    """Such as ``12 done, 1 failed``."""
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _status(job: Job, reason: str | None, run_dir: Path, works: bool) -> JobStatus:
    folder = run_dir / job.folder
    if works and (folder / RUNNING).is_file():
        return JobStatus(job, "running", _since(folder / RUNNING))
    if (folder / FAILURE).is_file():
        failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        return JobStatus(job, "failed", f"{failure['error']}: {failure['message']}")
    try:
        metrics = load_metrics(folder)
    except ResultsError:
        return JobStatus(job, "not yet", reason or "")
    state: State = "skipped" if "skipped" in metrics.facts else "done"
    known = load_provenance(folder)
    return JobStatus(
        job, "stale" if reason else state, reason or "", known.seconds, known.peak_memory_mb
    )


def _since(path: Path) -> str:
    try:
        where = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it has just ended
        return ""
    return f"on {where['host']} since {where['started_at']}"


def _table(
    by_subject: dict[int | None, dict[str, JobStatus]],
    subjects: Sequence[int | None],
    chapters: Sequence[Chapter],
) -> list[str]:
    """Rows of equal width: one line per subject, one column per chapter."""
    rows = [["", *(f"chapter {int(chapter.name[:2])}" for chapter in chapters)]]
    for subject in subjects:
        cells = [by_subject[subject][chapter.name].text for chapter in chapters]
        rows.append([subject_folder(subject), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)) for row in rows]
    return [line.rstrip() for line in lines]
