"""Ending what a run has started, also when the run itself is killed without warning.

A process that is killed with signal 9 cannot end its children. So the children look whether their
parent is still there, and end themselves and their own children when it is gone.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil

INTERVAL = 0.5
"""Seconds between two looks at the parent."""


def end_with_parent(parent: int, grace: float = 0) -> None:
    """End this process and its children soon after its parent has ended.

    Parameters
    ----------
    parent : int
        Process id of the parent.
    grace : float
        Seconds between an interrupt, on which a process may clear up, and the end, s.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        end_children()
        if grace:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


def end_children() -> None:
    """Kill all processes that this process and its children have started."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:  # it ended by itself
            continue
