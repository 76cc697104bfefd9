"""What a run asks Slurm, and tells Snakemake about it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from eeglib.workflow.stages import WorkflowError


def check_slurm(run_dir: Path) -> None:
    """Refuse to run where there is no Slurm, or it has jobs of this folder left."""
    command = ["squeue", "--me", "--noheader", "--format", "%i %j"]
    try:
        queue = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        text = "--executor slurm needs Slurm's commands: start on a login node of the cluster."
        raise WorkflowError(text) from None
    except subprocess.SubprocessError as error:
        raise WorkflowError(f"Slurm does not answer: {error}") from None
    queued = [line.split() for line in queue.stdout.splitlines()]
    left = [number for number, name in queued if name.startswith(job_prefix(run_dir))]
    if left:
        text = f"Slurm still has jobs of an earlier run in {run_dir}. Wait for them or cancel them"
        raise WorkflowError(f"{text}: scancel {' '.join(left)}")


def slurm_options(run_dir: Path, jobs: int, account: str | None) -> list[str]:
    """Options of Snakemake that submit jobs to Slurm."""
    # Where a cluster keeps no accounts, sacct is there but does not answer.
    accounting = subprocess.run("sacct --noheader --starttime now", shell=True, capture_output=True)
    return [
        *("--executor", "slurm", "--jobs", str(jobs), "--latency-wait", "60"),
        *("--slurm-jobname-prefix", job_prefix(run_dir)),
        *("--slurm-init-seconds-before-status-checks", "5"),
        *("--slurm-status-command", "squeue" if accounting.returncode else "sacct"),
        *([] if account else ["--slurm-no-account"]),
    ]


def job_prefix(run_dir: Path) -> str:
    """Beginning of the names of a folder's jobs on a cluster."""
    return f"eeglib-{hashlib.sha256(str(run_dir).encode()).hexdigest()[:8]}"
