"""What a run asks Slurm, and tells Snakemake about it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from eeglib.workflow.stages import WorkflowError


def slurm_options(run_dir: Path, jobs: int, account: str | None) -> list[str]:
    """Options of Snakemake that submit jobs to Slurm.

    Raises
    ------
    WorkflowError
        If Slurm is not there, or still has jobs of an earlier run in this folder.
    """
    command = ["squeue", "--me", "--noheader", "--format", "%i %j"]
    try:
        queue = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        raise WorkflowError(
            "--executor slurm needs Slurm's commands (sbatch, squeue), and this machine has none. "
            "Start the run on a login node of the cluster, or leave the option out."
        ) from None
    except subprocess.SubprocessError as error:
        answer = (getattr(error, "stderr", "") or str(error)).strip()
        raise WorkflowError(f"Slurm does not answer: {answer}") from None
    queued = [line.split() for line in queue.stdout.splitlines()]
    left = [number for number, name in queued if name.startswith(job_prefix(run_dir))]
    if left:
        raise WorkflowError(
            f"Slurm still has jobs of an earlier run in {run_dir}. Wait for them or cancel them: "
            f"scancel {' '.join(left)}"
        )
    options = ["--executor", "slurm", "--jobs", str(jobs), "--latency-wait", "60"]
    options += ["--slurm-jobname-prefix", job_prefix(run_dir)]
    options += ["--slurm-init-seconds-before-status-checks", "5"]
    options += ["--slurm-status-command", _status_command()]
    return options if account else [*options, "--slurm-no-account"]


def job_prefix(run_dir: Path) -> str:
    """Beginning of the names of a folder's jobs on a cluster."""
    return f"eeglib-{hashlib.sha256(str(run_dir).encode()).hexdigest()[:8]}"


def _status_command() -> str:
    """The command that knows the states of jobs: sacct only where the cluster keeps accounts."""
    try:
        command = ["sacct", "--noheader", "--starttime", "now"]
        subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "squeue"
    return "sacct"
