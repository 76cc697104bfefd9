"""What failed in a run, from what the jobs left behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from eeglib.chapter import FAILURE, NOTEBOOK, RUNNING, write_text
from eeglib.workflow.chapters import Job

SLURM_LOGS = Path(".snakemake") / "slurm_logs"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A job that did not finish, and where to look."""

    job: Job
    notebook: Path
    cell: int | None
    line: int | None
    error: str
    message: str
    traceback: str

    def __str__(self) -> str:
        place = f", cell In [{self.cell}]" if self.cell else ""
        place += f", line {self.line}" if self.line else ""
        return f"{self.job}: {self.error}: {self.message}\n    {self.notebook}{place}"


def find_failures(jobs: Iterable[Job], run_dir: Path) -> list[Failure]:
    """Those of the jobs that stopped and said why."""
    failures = []
    for job in jobs:
        folder = run_dir / job.folder
        if (folder / FAILURE).is_file():
            content = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
            failures.append(Failure(job, folder / NOTEBOOK, **content))
    return failures


def record_killed(jobs: Iterable[Job], run_dir: Path) -> None:
    """Record a failure for jobs that ended without a word: killed from outside.

    Call it when no job of the run works any more.
    """
    for job in jobs:
        folder = run_dir / job.folder
        if not (folder / RUNNING).is_file():
            continue
        (folder / RUNNING).unlink()
        if (folder / FAILURE).is_file():
            continue
        text = "the job was killed from outside, most often for lack of memory"
        if (run_dir / SLURM_LOGS).is_dir():
            text += f" or time; Slurm's own messages are in {run_dir / SLURM_LOGS}"
        failure = {"cell": None, "line": None, "error": "Killed", "message": text, "traceback": ""}
        write_text(folder / FAILURE, json.dumps(failure, indent=1))


def disk_is_full(folder: Path) -> bool:
    """Whether the disk has less room than a small chapter needs, 10 MB."""
    return shutil.disk_usage(folder).free < 10e6
