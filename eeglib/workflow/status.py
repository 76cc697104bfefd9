"""Where a run stands: subjects x chapters with state, time and memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from tabulate import tabulate

from eeglib import chapter
from eeglib.workflow.job import Failure, load_failure
from eeglib.workflow.processes import is_running
from eeglib.workflow.run import Request, stale_jobs
from eeglib.workflow.stages import Job


@dataclass(frozen=True)
class Result:
    """What a run left of one job, read when asked for; None for what is not there."""

    job: Job
    run_dir: Path
    stale: str = ""  # the reason why it would run
    works: bool = False  # whether a run is going on

    @cached_property
    def failure(self) -> Failure | None:
        return load_failure(self.run_dir / str(self.job))

    @cached_property
    def metrics(self) -> chapter.Metrics | None:
        try:
            return None if self.failure else chapter.load_metrics(self.run_dir / str(self.job))
        except chapter.ResultsError:
            return None

    @cached_property
    def provenance(self) -> dict[str, Any] | None:
        return chapter.load_provenance(self.run_dir / str(self.job)) if self.metrics else None

    @cached_property
    def notebook(self) -> nbformat.NotebookNode | None:
        path = self.run_dir / str(self.job) / chapter.NOTEBOOK
        try:
            return nbformat.read(path, 4) if self.metrics or self.failure else None
        except Exception:  # nbformat raises many kinds for broken files
            # A full disk leaves half a notebook; what failed is known without it.
            if self.failure:
                return None
            raise

    @property
    def state(self) -> str:
        """One of done, skipped (it found nothing to do), running, failed, stale, not yet."""
        if self.failure:
            return "running" if self.works and self.failure.error == "Killed" else "failed"
        if self.metrics is None:
            return "not yet"
        return "stale" if self.stale else "skipped" if "skipped" in self.metrics.facts else "done"

    @property
    def seconds(self) -> float | None:
        """From the start of the kernel to its end, s."""
        return self.notebook and self.notebook.metadata.get("papermill", {}).get("duration")

    def __str__(self) -> str:
        if not self.provenance:
            return self.state
        seconds, memory = self.provenance["seconds"], self.provenance["peak_memory_mb"]
        return f"{self.state} {seconds:.0f} s {memory / 1000:.1f} GB"


def read_status(request: Request) -> list[Result]:
    """State of every chapter for every subject of a request; changes nothing."""
    stale = stale_jobs(request)
    works = is_running(request.run_dir)
    return [Result(job, request.run_dir, stale.get(job, ""), works) for job in request.wanted]


def describe_status(
    results: Sequence[Result], style: str = "plain", name: Callable = chapter.subject_folder
) -> str:
    """Counts, tables of chapters by subjects in tabulate's style, what failed and what is stale."""
    rows: dict[int | None, dict[str, str]] = {}
    for result in results:
        column = f"chapter {int(result.job.chapter[:2])}"
        rows.setdefault(result.job.subject, {})[column] = str(result)
    group = rows.pop(None, {})
    subjects = [{"subject": name(subject), **row} for subject, row in rows.items()]
    counts = Counter(result.state for result in results)
    total = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    parts = [tabulate([{"": "group", **group}], "keys", style)] if group else []
    parts += [tabulate(subjects, "keys", style), f"Chapters: {total}."]
    quote, lines = "`" if style == "pipe" else "", []
    for result in results:
        if result.state in ("failed", "stale"):
            failure = result.failure
            reason = f"{failure.error}: {failure.message}" if failure else result.stale
            reason = " ".join(reason.replace("`", "'").split())[:200]
            lines.append(f"- {result.job}: {result.state}: {quote}{reason}{quote}")
    return "\n\n".join(parts + (["\n".join(lines)] if lines else []))
