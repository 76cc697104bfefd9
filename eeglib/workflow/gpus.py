"""Which GPUs a machine shows, and which of them a chapter gets.

Snakemake counts GPUs but does not say which one a job may use. Each job therefore takes a lock per
device, which the system lets go when the job ends, however it ends, and which other runs on the
same machine respect as well.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import IO

from eeglib.workflow.stages import WorkflowError

VISIBLE = "CUDA_VISIBLE_DEVICES"
OFFERED = "EEGLIB_GPUS"
"""Environment variable of a run's jobs: the devices they may choose from."""
SHARED_BY = "EEGLIB_JOBS_PER_GPU"
_HELD: list[IO] = []  # files whose locks this process keeps


def choose_gpus(wanted: int | None) -> list[str]:
    """Devices for a run on this machine: all that it shows, or as many as wanted."""
    devices = visible_gpus() if wanted != 0 else []
    if wanted is not None and wanted > len(devices):
        raise WorkflowError(
            f"--gpus {wanted}, but this machine shows {len(devices)} GPUs. Leave --gpus out to use "
            f"what there is, or set {VISIBLE}=0,1,... if they are there."
        )
    return devices[:wanted]


def visible_gpus() -> list[str]:
    """Devices of this machine: those of ``CUDA_VISIBLE_DEVICES`` where set, else all."""
    if VISIBLE in os.environ:
        devices = [device.strip() for device in os.environ[VISIBLE].split(",")]
        # CUDA ignores whatever stands behind the first entry that is no device.
        return list(takewhile(lambda device: device not in ("", "-1"), devices))
    try:
        command = ["nvidia-smi", "--list-gpus"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(sum(li.startswith("GPU ") for li in listed.stdout.splitlines()))]


def claim_gpus(count: int, say: Callable[[str], None], folder: Path | None = None) -> list[str]:
    """Take GPUs for this process until it ends, and make only them visible to it.

    Waits for those that other jobs hold. A job that needs none sees none. Where no run has offered
    devices, such as on a node of a cluster whose scheduler has chosen them, the choice stands. The
    locks lie in ``folder``, or in one of the user in the system's temporary folder.
    """
    if count and OFFERED not in os.environ:
        return [d for d in os.environ.get(VISIBLE, "").split(",") if d]
    folder = folder or Path(tempfile.gettempdir()) / f"eeglib-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while len(held := _lock_some(count, folder)) < count:
        # Half of what is needed would keep another job from the other half.
        for file in held.values():
            file.close()
        if not waited:
            say("waits for a GPU that another run uses")
        waited = True
        time.sleep(1)
    _HELD.extend(held.values())
    os.environ[VISIBLE] = ",".join(held)
    return list(held)


def _lock_some(count: int, folder: Path) -> dict[str, IO]:
    """Lock up to so many devices; an empty one is taken before one that is already shared."""
    held: dict[str, IO] = {}
    for slot in range(int(os.environ.get(SHARED_BY, "1"))):
        for device in os.environ.get(OFFERED, "").split(","):
            if len(held) < count and device not in held:
                file = open(folder / f"{device.replace('/', '_')}.{slot}", "a")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held[device] = file
                except BlockingIOError:
                    file.close()
    return held
