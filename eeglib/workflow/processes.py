"""One run in a folder, and nothing that goes on after it was killed."""

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from eeglib.workflow.stages import WorkflowError


@contextmanager
def only_run_in(run_dir: Path) -> Iterator[int]:
    """Be the only run in a folder; gives the descriptor that holds the lock.

    It goes with the last process that has it, however that ends, and Snakemake is one of these: a
    lock of Snakemake's own that is found here is stale.
    """
    with open(run_dir / ".lock", "a", encoding="utf-8") as lock:
        # Patience, for `eeglib status` holds the lock for a moment, and so does what was killed.
        until = time.monotonic() + 3
        while (held := _try(lock)) is False:
            if time.monotonic() > until:
                text = f"Another eeglib run works in {run_dir}"
                raise WorkflowError(f"{text}. Wait, or choose another --run-dir.")
            time.sleep(0.2)
        if held:
            shutil.rmtree(run_dir / ".snakemake" / "locks", ignore_errors=True)
        yield lock.fileno()


def is_running(run_dir: Path) -> bool:
    """Whether a run works in the folder."""
    if not (run_dir / ".lock").is_file():
        return False
    with open(run_dir / ".lock", "a", encoding="utf-8") as lock:
        return _try(lock) is False


def _try(lock: IO[str]) -> bool | None:
    """Take the lock; None on a shared file system that has none, where Snakemake's own holds."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def end_with(parent: int, grace: float = 0) -> None:
    """End this process and its children with its parent; where it has grace, s, interrupt first."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        end_children()
        if grace:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def end_children() -> None:
    """Kill all processes that this process and its children have started."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            child.kill()
