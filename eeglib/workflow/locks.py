"""Who works in a run's folder: one run, and the jobs that it started.

The locks are the system's: they go with the process that holds them, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eeglib.workflow.chapters import WorkflowError

RUN_LOCK = ".lock"
JOBS_LOCK = ".jobs.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a shared file system without locks answers; nobody can be kept out there."""
PATIENCE = 30
"""Seconds that a run waits for the jobs of one that was killed, which end by themselves, s."""


@contextmanager
def only_run_in(run_dir: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Be the only run in a folder, after the last job of an earlier one has ended.

    Raises
    ------
    WorkflowError
        If another run, or a job that an earlier one left, works in the folder.
    """
    with open(run_dir / RUN_LOCK, "a", encoding="utf-8") as lock:
        # A second try, for `eeglib status` holds the lock for a moment.
        if not (_try(lock, fcntl.LOCK_EX) or (time.sleep(0.2), _try(lock, fcntl.LOCK_EX))[1]):
            raise WorkflowError(
                f"Another eeglib run works in {run_dir}. Wait for it, or put this one elsewhere "
                "with --run-dir."
            )
        with open(run_dir / JOBS_LOCK, "a", encoding="utf-8") as jobs:
            until = time.monotonic() + PATIENCE
            told = False
            while not _try(jobs, fcntl.LOCK_EX):
                if not told:
                    say(f"Waiting for chapters that a killed run left working in {run_dir} ...")
                told = True
                if time.monotonic() > until:
                    raise WorkflowError(
                        f"Chapters of an earlier run still work in {run_dir} (see eeglib status). "
                        "Wait for them or end them, then run again."
                    )
                time.sleep(0.5)
        yield


@contextmanager
def hold_jobs_lock(run_dir: Path) -> Iterator[None]:
    """Tell later runs that a job, or Snakemake, works in the folder."""
    with open(run_dir / JOBS_LOCK, "a", encoding="utf-8") as jobs:
        _try(jobs, fcntl.LOCK_SH)
        yield


def is_running(run_dir: Path) -> bool:
    """Whether a run works in the folder."""
    path = run_dir / RUN_LOCK
    if not path.is_file():
        return False
    with open(path, encoding="utf-8") as lock:
        return not _try(lock, fcntl.LOCK_SH)


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
