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
from collections.abc import Callable, Sequence
from pathlib import Path

from eeglib.workflow.chapters import WorkflowError

VISIBLE = "CUDA_VISIBLE_DEVICES"
OFFERED = "EEGLIB_GPUS"
"""Environment variable of a run's jobs: the devices they may choose from."""
SHARED_BY = "EEGLIB_JOBS_PER_GPU"


def visible_gpus() -> list[str]:
    """Devices of this machine: those of ``CUDA_VISIBLE_DEVICES`` where set, else all."""
    shown = os.environ.get(VISIBLE)
    if shown is not None:
        devices = [device.strip() for device in shown.split(",")]
        # CUDA ignores whatever stands behind the first entry that is no device.
        bad = next((i for i, d in enumerate(devices) if d in ("", "-1")), len(devices))
        return devices[:bad]
    try:
        command = ["nvidia-smi", "--list-gpus"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    count = sum(line.startswith("GPU ") for line in told.stdout.splitlines())
    return [str(number) for number in range(count)]


def choose_gpus(wanted: int | None) -> list[str]:
    """Devices for the jobs of a run on this machine.

    Parameters
    ----------
    wanted : int | None
        How many; all where left out, none where 0.

    Raises
    ------
    WorkflowError
        If the machine does not show as many.
    """
    if wanted == 0:
        return []
    devices = visible_gpus()
    if wanted is not None and wanted > len(devices):
        raise WorkflowError(
            f"--gpus {wanted}, but this machine shows {len(devices)} GPUs (nvidia-smi, "
            f"{VISIBLE}). Ask for {len(devices)}, leave --gpus out to use what there is, or set "
            f"{VISIBLE}=0,1,... if they are there."
        )
    return devices[:wanted]


def claim_gpus(count: int, say: Callable[[str], None], folder: Path | None = None) -> list[str]:
    """Take GPUs for this process until it ends, and make only them visible to it.

    Waits for those that other jobs hold. A job that needs none sees none, so that it cannot take
    memory from one that does. Where no run has offered devices, such as on a node of a cluster
    whose scheduler has chosen them, the choice stands.

    Parameters
    ----------
    count : int
        Number of GPUs; 0 for none.
    say : callable
        Takes a line when the job has to wait.
    folder : Path | None
        Where the locks lie; a folder of the user in the system's temporary folder if left out.

    Returns
    -------
    list of str
        The devices.
    """
    if count == 0:
        os.environ[VISIBLE] = ""
        return []
    if OFFERED not in os.environ:
        return [d for d in os.environ.get(VISIBLE, "").split(",") if d]
    devices = os.environ[OFFERED].split(",")
    folder = folder or Path(tempfile.gettempdir()) / f"eeglib-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    slots = range(int(os.environ.get(SHARED_BY, "1")))
    waited = False
    while True:
        held = _lock_some(count, devices, slots, folder)
        if len(held) == count:
            break
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


_HELD: list = []  # files whose locks this process keeps


def _lock_some(count: int, devices: Sequence[str], slots: range, folder: Path) -> dict:
    held = {}
    # An empty device is taken before one that is already shared.
    for slot in slots:
        for device in devices:
            if len(held) == count:
                return held
            if device in held:
                continue
            file = open(folder / f"{device.replace('/', '_')}.{slot}", "a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
            else:
                held[device] = file
    return held
