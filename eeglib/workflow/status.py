"""Where a run stands: subjects x chapters with state, time and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eeglib.chapter import ResultsError, load_metrics, load_provenance, subject_folder
from eeglib.workflow.job import load_failure
from eeglib.workflow.processes import is_running
from eeglib.workflow.run import Request, stale_jobs
from eeglib.workflow.stages import Job, Stage, jobs_of

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
    stale = stale_jobs(request)
    works = is_running(request.run_dir)
    jobs = [job for stage in request.stages for job in jobs_of(stage, request.subjects)]
    return [_status(job, stale.get(job, ""), request.run_dir, works) for job in jobs]


def describe_status(statuses: Sequence[JobStatus], stages: Sequence[Stage]) -> str:
    """Lines for a terminal: a table, counts, and why something would run."""
    by_subject: dict[int | None, dict[str, JobStatus]] = {}
    for status in statuses:
        by_subject.setdefault(status.job.subject, {})[status.job.chapter] = status
    subjects = listed = [s for s in by_subject if s is not None]
    if len(subjects) > LISTED:
        quiet = {"done", "skipped", "not yet"}
        listed = [s for s in subjects if {x.state for x in by_subject[s].values()} - quiet]
        listed = listed[:LISTED]
    lines = []
    if None in by_subject:
        lines += [*_table(by_subject, [None], [s for s in stages if not s.per_subject]), ""]
    lines += _table(by_subject, listed, [s for s in stages if s.per_subject])
    if len(listed) < len(subjects):
        lines.append(f"... and {len(subjects) - len(listed)} subjects more, in the counts below")
    lines += ["", "chapters: " + count_states(statuses)]
    for status in statuses:
        if status.state in ("failed", "stale") and status.job.subject in (None, *listed):
            lines.append(f"{status.job}: {status.state}: {status.reason}")
    return "\n".join(lines)


def count_states(statuses: Sequence[JobStatus]) -> str:
    """Such as ``12 done, 1 failed``."""
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _status(job: Job, reason: str, run_dir: Path, works: bool) -> JobStatus:
    folder = run_dir / str(job)
    failure = load_failure(folder)
    if failure is not None and failure.error == "Killed" and works:
        return JobStatus(job, "running", failure.started)
    if failure is not None:
        return JobStatus(job, "failed", f"{failure.error}: {failure.message}")
    try:
        metrics, known = load_metrics(folder), load_provenance(folder)
    except ResultsError:
        return JobStatus(job, "not yet", reason)
    state: State = "stale" if reason else "skipped" if "skipped" in metrics.facts else "done"
    return JobStatus(job, state, reason, known.seconds, known.peak_memory_mb)


def _table(
    by_subject: dict[int | None, dict[str, JobStatus]],
    subjects: Sequence[int | None],
    stages: Sequence[Stage],
) -> list[str]:
    """Rows of equal width: one line per subject, one column per chapter."""
    rows = [["", *(f"chapter {int(stage.name[:2])}" for stage in stages)]]
    for subject in subjects:
        cells = [by_subject[subject][stage.name].text for stage in stages]
        rows.append([subject_folder(subject), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)) for row in rows]
    return [line.rstrip() for line in lines]
