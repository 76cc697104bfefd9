"""Driving Snakemake: its command, its environment, its end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from eeglib.chapter import FAILURE, INPUTS, RUNNING, write_text
from eeglib.workflow.chapters import Job, WorkflowError
from eeglib.workflow.gpus import OFFERED, SHARED_BY, VISIBLE
from eeglib.workflow.job import write_kernel
from eeglib.workflow.planning import Request, limits
from eeglib.workflow.snakemake_process import GRACE
from eeglib.workflow.staleness import PACKAGE

SNAKEFILE = Path(__file__).with_name("Snakefile")
LOG = "snakemake.log"
LOOK_EVERY = 2
"""Seconds between two looks at jobs on a cluster, s."""


def drive(request: Request, plan: dict, look: Callable[[], None]) -> int:
    """Run the plan's jobs with Snakemake; return its exit status.

    Parameters
    ----------
    request : Request
        What to run.
    plan : dict
        From `eeglib.workflow.planning.plan_run`.
    look : callable
        Is called now and then while the jobs run.

    Raises
    ------
    WorkflowError
        If Slurm is asked for and is not there, or still has jobs of this folder.
    """
    run_dir = request.run_dir
    if request.executor == "slurm":
        _check_slurm(run_dir)
    write_text(run_dir / "plan.json", json.dumps(plan, indent=1))
    write_kernel(run_dir / ".jupyter")
    command = [sys.executable, "-m", "eeglib.workflow.snakemake_process"]
    command += [str(os.getpid()), str(run_dir)]
    command += ["--snakefile", str(SNAKEFILE), "--directory", str(run_dir)]
    command += ["--configfile", str(run_dir / "plan.json"), "--scheduler", "greedy"]
    command += ["--forceall", "--nolock", "--rerun-triggers", "mtime", "--ignore-incomplete"]
    command += ["--quiet", "all", "--nocolor"]
    command += ["--keep-going"] if request.keep_going else []
    if request.executor == "slurm":
        command += ["--executor", "slurm", "--jobs", str(request.jobs), "--latency-wait", "60"]
        command += ["--slurm-jobname-prefix", job_prefix(run_dir)]
        command += ["--slurm-init-seconds-before-status-checks", "5"]
        command += ["--slurm-status-command", _status_command()]
        command += [] if request.profile.cluster.account else ["--slurm-no-account"]
    else:
        allowed = limits(request, plan)
        command += ["--cores", str(allowed.pop("cores")), "--latency-wait", "5", "--resources"]
        command += [f"{name}={value}" for name, value in allowed.items()]
    with open(run_dir / LOG, "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=_environment(request, plan), stderr=log)
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_EVERY)
                look()
            return process.returncode
        except KeyboardInterrupt:
            _end(process, request)
            raise


def progress(
    jobs: Iterable[Job], request: Request, say: Callable[[str], None]
) -> Callable[[], None]:
    """Make a function that tells what has started and ended on a cluster since its last call.

    On this machine the jobs write to the terminal themselves.
    """
    waiting = dict.fromkeys(jobs, "") if request.executor == "slurm" else {}

    def written(job: Job) -> int | None:
        path = request.run_dir / job.folder / INPUTS
        return path.stat().st_mtime_ns if path.is_file() else None

    before = {job: written(job) for job in waiting}

    def look() -> None:
        for job, told in list(waiting.items()):
            folder = request.run_dir / job.folder
            if written(job) not in (None, before[job]):
                state = "finished"
            elif (folder / FAILURE).is_file():
                state = "failed"
            else:
                state = "started" if (folder / RUNNING).is_file() else ""
            if state and state != told:
                say(f"{job}: {state}")
                waiting[job] = state
            if state in ("finished", "failed"):
                del waiting[job]

    return look


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


def _end(process: subprocess.Popen, request: Request) -> None:
    """End Snakemake; its jobs on this machine end with it, those on a cluster it cancels."""
    if request.executor == "slurm":
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    process.kill()
    process.wait()


def _check_slurm(run_dir: Path) -> None:
    command = ["squeue", "--me", "--noheader", "--format", "%i %j"]
    try:
        queue = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        raise WorkflowError(
            "--executor slurm needs Slurm's commands (sbatch, squeue), and this machine has none. "
            "Start the run on a login node of the cluster, or leave the option out."
        ) from None
    except subprocess.SubprocessError as error:
        told = (getattr(error, "stderr", "") or str(error)).strip()
        raise WorkflowError(f"Slurm does not answer: {told}") from None
    jobs = [line.split() for line in queue.stdout.splitlines()]
    left = [number for number, name in jobs if name.startswith(job_prefix(run_dir))]
    if left:
        raise WorkflowError(
            f"Slurm still has jobs of an earlier run in {run_dir}. Wait for them or cancel them: "
            f"scancel {' '.join(left)}"
        )


def _environment(request: Request, plan: dict) -> dict[str, str]:
    """Environment of Snakemake and the jobs: this eeglib, this kernel, nothing from the home."""
    run_dir = request.run_dir
    environment = dict(os.environ)
    path = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
    jupyter = run_dir / ".jupyter"
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Nobody watches progress bars here, and pages should not show what is left of them.
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",
        "JUPYTER_PATH": str(jupyter),
        "JUPYTER_RUNTIME_DIR": str(jupyter / "runtime"),
        "IPYTHONDIR": str(jupyter / "ipython"),
    }
    if request.executor == "local":
        environment |= {OFFERED: ",".join(plan["gpus"]), SHARED_BY: str(request.jobs_per_gpu)}
    elif request.gpus == 0:
        environment[VISIBLE] = ""
    if not os.access(Path.home(), os.W_OK):
        scratch = run_dir / ".home"
        scratch.mkdir(exist_ok=True)
        environment |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(scratch))
    return environment
