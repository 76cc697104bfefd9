"""Which GPUs a machine shows, and which of them a chapter gets.

Snakemake counts GPUs but does not say which one a job may use. A device is therefore divided into
slots, and each job locks those that its memory takes. The system lets them go when the job ends,
however it ends, and other runs on the same machine respect them as well.
"""

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product, takewhile
from pathlib import Path
from typing import IO

from eeglib.workflow.stages import WorkflowError

VISIBLE = "CUDA_VISIBLE_DEVICES"
OFFERED = "EEGLIB_GPUS"  # in the environment of a run's jobs: the devices they may choose from
SLOTS = "EEGLIB_SLOTS_PER_GPU"
_HELD: list[IO] = []  # files whose locks this process keeps


def choose_gpus(wanted: int | None) -> list[str]:
    """Devices for a run on this machine: all that it shows, or as many as wanted."""
    devices = visible_gpus() if wanted != 0 else []
    if wanted is not None and wanted > len(devices):
        text = f"--gpus {wanted}, but this machine shows {len(devices)}; leave --gpus out, or"
        raise WorkflowError(f"{text} set {VISIBLE}=0,1,... if they are there.")
    return devices[:wanted]


def visible_gpus() -> list[str]:
    """Devices of this machine: those of ``CUDA_VISIBLE_DEVICES`` where set, else all."""
    if VISIBLE in os.environ:
        devices = [device.strip() for device in os.environ[VISIBLE].split(",")]
        # CUDA ignores whatever stands behind the first entry that is no device.
        return list(takewhile(lambda device: device not in ("", "-1"), devices))
    return [str(i) for i in range(sum(li.startswith("GPU ") for li in _ask_driver("--list-gpus")))]


def gpu_memory_mb(devices: Sequence[str]) -> int | None:
    """Memory of the smallest of the devices, MB; None where the driver does not say."""
    question = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    told = _ask_driver(*question, f"--id={','.join(devices)}")
    return min(map(int, told)) if told and all(line.isdigit() for line in told) else None


def _ask_driver(*question: str) -> list[str]:
    """Lines that nvidia-smi prints; none where it is not there or fails."""
    command = ["nvidia-smi", *question]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def claim_gpu(slots: int, say: Callable[[str], None], folder: Path | None = None) -> str | None:
    """Take slots of a GPU until this process ends, and make only that one visible to it.

    Waits for what other jobs hold. A job that needs no slot sees no GPU. Where no run has offered
    devices, such as on a node of a cluster, the choice of its scheduler stands.
    """
    if slots and OFFERED not in os.environ:
        return os.environ.get(VISIBLE)
    folder = folder or Path(tempfile.gettempdir()) / f"eeglib-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while slots and not (device := _lock_one(slots, folder)):
        if not waited:
            say("waits for a GPU that another run uses")
        waited = True
        time.sleep(1)
    os.environ[VISIBLE] = device if slots else ""
    return os.environ[VISIBLE] or None


def _lock_one(slots: int, folder: Path) -> str | None:
    """Lock slots of one device, where they are free; an empty one before one that is shared."""
    held: dict[str, list[IO]] = {device: [] for device in os.environ[OFFERED].split(",")}
    for slot, device in product(range(int(os.environ.get(SLOTS, "1"))), held):
        file = open(folder / f"{device.replace('/', '_')}.{slot}", "a")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held[device].append(file)
        if len(held[device]) == slots:
            _HELD.extend(held[device])
            return device
    return None  # what was locked is let go with its files
