"""Running a profile, here or on Slurm: what is asked for, Snakemake with it, what came of it."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import psutil
import yaml
from joblib import cpu_count

from eeglib import chapter
from eeglib.datasets import open_dataset
from eeglib.profile import ChapterResources, Profile
from eeglib.workflow.dependencies import dependencies
from eeglib.workflow.gpus import OFFERED, SLOTS, VISIBLE, choose_gpus, gpu_memory_mb
from eeglib.workflow.job import Failure, load_failure
from eeglib.workflow.processes import only_run_in
from eeglib.workflow.stages import PACKAGE, STAGES, Job, Stage, WorkflowError, jobs_of

LOG = "snakemake.log"


@dataclass(frozen=True)
class Request:
    """What to run, for which subjects, and how."""

    profile: Profile
    run_dir: Path
    subjects: Sequence[int]
    notebooks: Path
    stages: Sequence[Stage] = STAGES
    only: Sequence[Stage] = ()  # these with what they need; empty: all
    jobs: int = 1  # at the same time, or in the queue of a cluster
    gpus: int | None = None  # None: all that the machine shows
    jobs_per_gpu: int | None = None  # None: as many as its memory holds
    executor: Literal["local", "slurm"] = "local"
    keep_going: bool = False
    force: bool = False

    @cached_property
    def wanted(self) -> list[Job]:
        """All jobs, each after those that it needs."""
        needed = {stage.name for stage in self.only or self.stages}
        for stage in reversed(self.stages):
            needed |= {*stage.needs} if stage.name in needed else set()
        chosen = [stage for stage in self.stages if stage.name in needed]
        return [job for stage in chosen for job in jobs_of(stage, self.subjects)]

    def needs_of(self, job: Job) -> list[Job]:
        """Jobs whose results a job reads; one for the group reads those of all subjects."""
        table = {stage.name: stage for stage in self.stages}
        whose = self.subjects if job.subject is None else [job.subject]
        return [need for name in table[job.chapter].needs for need in jobs_of(table[name], whose)]


def run(request: Request, say: Callable[[str], None] = print) -> list[Failure]:
    """Run what is stale and return what failed; WorkflowError if the run itself cannot go on."""
    make_plan(request)  # refuses what is not fit to run before anything is written
    run_dir = request.run_dir
    if request.executor == "slurm":
        _check_slurm(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with only_run_in(run_dir) as lock:
            profile = request.profile.model_dump(mode="json")
            text = yaml.safe_dump(profile, sort_keys=False, allow_unicode=True)
            header = "# The complete profile of this run; written by eeglib run.\n"
            chapter.write_text(run_dir / "profile.yml", header + text)
            chapter.write_text(run_dir / LOG, "")
            return _run(request, lock, say)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"No space is left on the disk that holds {run_dir}. Free some and run the same"
        raise WorkflowError(f"{text} command again: finished chapters are kept.") from None


def _run(request: Request, lock: int, say: Callable) -> list[Failure]:
    for job in _reasons_to_repeat(request):
        (request.run_dir / job.metrics).unlink()
    request = replace(request, force=False)
    failures: list[Failure] = []
    done: set[Job] = set()
    while request.subjects:
        stale = {job: why for job, why in stale_jobs(request).items() if job not in done}
        jobs = _first_of(stale, {failure.job for failure in failures}, request)
        if not jobs:
            if not done:
                say(f"Nothing to do: all results in {request.run_dir} are up to date.")
            break
        new = {failure.job: failure for failure in _drive(request, jobs, lock, say)}
        failures += new.values()
        blocked = set(new)
        for job in request.wanted:  # what could not run now must not pass for a result
            if blocked.intersection(request.needs_of(job)):
                blocked.add(job)
                (request.run_dir / job.metrics).unlink(missing_ok=True)
        if (failures and not request.keep_going) or (not new and len(jobs) == len(stale)):
            break
        # The group's chapters go on without the subjects that failed.
        done |= new.keys() | (set(jobs) - blocked)
        failed = {failure.job.subject for failure in failures}
        request = replace(request, subjects=[s for s in request.subjects if s not in failed])
    return failures


def _first_of(stale: dict[Job, str], failed: set[Job], request: Request) -> list[Job]:
    """Of stale jobs those that are so by themselves: what follows may find its input as it was."""
    first, blocked = set(), set(failed)
    for job, reason in stale.items():
        needs = request.needs_of(job)
        if blocked.intersection(needs):
            blocked.add(job)
        elif not reason.startswith("Input files updated by another job") and all(
            need in first for need in needs if need in stale
        ):
            first.add(job)
    jobs = [job for job in stale if job in first]
    # Chapter 1 makes the data that the others read.
    return jobs[:1] if jobs and jobs[0].chapter == chapter.DATA_CHAPTER else jobs


def stale_jobs(request: Request) -> dict[Job, str]:
    """Jobs that would run, in order, with the reason, unless their input comes out the same."""
    with tempfile.TemporaryDirectory() as empty:
        where = request.run_dir if request.run_dir.is_dir() else Path(empty)
        command = _snakemake(where, Path(empty), make_plan(request), request.wanted)
        command += ["--dry-run", "--cores", "1"]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(request))
    if done.returncode != 0:
        raise WorkflowError(f"Snakemake stopped:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    blocks = re.findall(r"^    output: (.+)\n(?:    .*\n)*?    reason: (.+)$", done.stdout, re.M)
    found = {output: _reason(text) for output, text in blocks}
    found |= {job.metrics: reason for job, reason in _reasons_to_repeat(request).items()}
    return {job: found[job.metrics] for job in request.wanted if job.metrics in found}


def _reason(text: str) -> str:
    """Snakemake's reason in fewer words; its params begin with what they are."""
    changed = re.search(r"'([^':]+): ", text.partition("now: ")[2] or text.partition("before: ")[2])
    if "Params have changed" in text and changed:
        return f"{changed[1]} has changed"
    return "has not run yet" if text.startswith("Missing output") else text


def _reasons_to_repeat(request: Request) -> dict[Job, str]:
    """Finished jobs, in order, that must run again for what Snakemake does not look at."""
    forced = {stage.name for stage in request.only or request.stages} if request.force else ()
    found = {}
    for job in request.wanted:
        folder = request.run_dir / str(job)
        if not (folder / chapter.METRICS).is_file():
            continue
        try:
            outputs = chapter.load_metrics(folder).outputs
            dataset = chapter.load_provenance(folder)["dataset"]
        except chapter.ResultsError:
            found[job] = "its record is incomplete"
            continue
        sizes = {n: (folder / n).stat().st_size for n in outputs if (folder / n).is_file()}
        damaged = [name for name in outputs if sizes.get(name) != outputs[name].bytes]
        if job.chapter in forced:
            found[job] = "--force"
        elif damaged:
            found[job] = f"{damaged[0]} is missing or damaged"
        # It may make the data itself, so that only afterwards they are as it left them.
        elif job.chapter == chapter.DATA_CHAPTER and dataset != _data(request):
            found[job] = "the data set has changed"
    return found


def make_plan(request: Request) -> dict:
    """What Snakemake and the jobs need to know, for JSON; refuses what would stop them later."""
    profile, names = request.profile, [stage.name for stage in request.stages]
    unknown = sorted(set(profile.resources) - set(names))
    if unknown:
        text = f"resources of profile {profile.name!r} names {', '.join(unknown)}"
        raise WorkflowError(f"{text}; chapters: {', '.join(names)}.")
    devices = choose_gpus(request.gpus) if request.executor == "local" else []
    memory = gpu_memory_mb(devices) if devices else None
    own = [stage for stage in request.stages if stage.per_subject]
    last = [job for stage in own[-1:] for job in jobs_of(stage, profile.dataset.subjects)]
    before = {job.subject for job in last if (request.run_dir / job.metrics).is_file()}
    return {
        "python": sys.executable,
        "parent": os.getpid(),
        "executor": request.executor,
        "notebooks": str(request.notebooks),
        "profile": str(request.run_dir / "profile.yml"),
        "subjects": [f"{subject:02d}" for subject in request.subjects],
        "first_subject": profile.dataset.subjects[0],
        # The group's chapters are about those of this run and those finished before.
        "group": [f"{subject:02d}" for subject in sorted({*request.subjects, *before})],
        "data": _data(request),
        "cluster": profile.cluster.model_dump(),
        "gpus": devices,
        "slots_per_gpu": request.jobs_per_gpu or cpu_count(),
        "stages": [_plan_stage(stage, request, len(devices), memory) for stage in request.stages],
    }


def _plan_stage(stage: Stage, request: Request, devices: int, memory: int | None) -> dict:
    """Dependencies and needs of a stage."""
    profile, cores = request.profile, cpu_count() // request.jobs
    wanted = profile.resources.get(stage.name, ChapterResources())
    gpus = stage.gpus if wanted.gpus is None else wanted.gpus
    if request.executor == "local":
        # Without a GPU the same chapters run on the processor.
        gpus, threads = min(gpus, devices), max(1, min(cores, wanted.cores or cores))
    else:
        gpus, threads = 0 if request.gpus == 0 else gpus, wanted.cores or 2
    depends = dependencies(request.notebooks / f"{stage.name}.ipynb", profile)
    if stage.name == chapter.DATA_CHAPTER:
        depends.append(f"the list of subjects: {profile.dataset.subjects}")
    slots = 1
    if devices and request.jobs_per_gpu is None:
        # A share of the memory; all of it where nobody knows how much there is.
        share = (wanted.gpu_memory_mb or stage.gpu_memory_mb) / memory if memory else 1
        slots = math.ceil(min(share, 1) * cpu_count())
    needs = {"gpus": gpus, "threads": threads, "minutes": wanted.minutes, "depends": depends}
    needs |= {"slots": slots, "memory_mb": wanted.memory_mb or stage.memory_mb}
    return stage._asdict() | needs


def _data(request: Request) -> dict[str, str]:
    """Fingerprints of the data, which change when chapter 1 makes them."""
    settings = request.profile.dataset
    dataset = open_dataset(settings, chapter.data_folder(request.run_dir))
    return chapter.data_fingerprints(dataset, [None, *settings.subjects])


def _drive(request: Request, jobs: list[Job], lock: int, say: Callable) -> list[Failure]:
    """Let Snakemake run jobs, and say what failed."""
    run_dir, remote = request.run_dir, request.executor == "slurm"
    plan = make_plan(request)
    for job in jobs:
        (run_dir / str(job) / chapter.FAILURE).unlink(missing_ok=True)
    command = _snakemake(run_dir, run_dir, plan, jobs)
    command += ["--keep-going"] if request.keep_going else []
    if remote:
        command += _slurm_options(run_dir, request.jobs, request.profile.cluster.account)
    else:
        most = max(stage["threads"] for stage in plan["stages"])
        memory = int(psutil.virtual_memory().total / 1e6)
        slots = len(plan["gpus"]) * plan["slots_per_gpu"]
        command += ["--cores", str(request.jobs * most), "--latency-wait", "5"]
        command += ["--resources", f"mem_mb={memory}", f"gpu={slots}"]
    environment, text = _environment(request, plan), ""
    # A file, for a pipe would break with this process, when Snakemake still has to clear up.
    with (
        open(run_dir / LOG, "a", encoding="utf-8") as log,
        open(log.name, encoding="utf-8") as told,
    ):
        told.seek(0, os.SEEK_END)
        process = subprocess.Popen(command, env=environment, stderr=log, pass_fds=[lock])
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                text += (new := told.read())
                if remote and new:  # what runs there cannot print here
                    say(new.rstrip())
        except KeyboardInterrupt:
            # Jobs on this machine end with Snakemake, those on a cluster it cancels.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20 if remote else 0)
            process.kill()
            process.wait()
            raise
    failures = [f for job in jobs if (f := load_failure(run_dir / str(job)))]
    if process.returncode != 0 and shutil.disk_usage(run_dir).free < 10e6:
        raise OSError(errno.ENOSPC, "the disk is full")
    if process.returncode != 0 and not failures:
        raise WorkflowError(f"Snakemake stopped ({run_dir / LOG}):\n{text[-2000:]}")
    return failures


def _snakemake(directory: Path, folder: Path, plan: dict, jobs: list[Job]) -> list[str]:
    """Write the plan into a folder; give the command that runs the jobs in the directory."""
    config = folder / "plan.json"
    chapter.write_text(config, json.dumps({**plan, "targets": [job.metrics for job in jobs]}))
    command = [sys.executable, "-m", "snakemake", "--snakefile", f"{PACKAGE}/workflow/Snakefile"]
    command += ["--directory", str(directory), "--configfile", str(config)]
    return [*command, "--scheduler", "greedy", "--nocolor", "--rerun-incomplete"]


def _environment(request: Request, plan: dict | None = None) -> dict[str, str]:
    """Environment of Snakemake and the jobs: this eeglib, this kernel, nothing from the home."""
    path = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    jupyter = request.run_dir / ".jupyter"
    always = (PACKAGE / "workflow" / "environment.yml").read_text(encoding="utf-8")
    environment = os.environ | yaml.safe_load(always)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment["JUPYTER_RUNTIME_DIR"] = str(jupyter / "runtime")
    environment["IPYTHONDIR"] = str(jupyter / "ipython")
    if request.executor == "local" and plan:
        environment |= {OFFERED: ",".join(plan["gpus"]), SLOTS: str(plan["slots_per_gpu"])}
    elif request.gpus == 0:
        environment[VISIBLE] = ""
    if not os.access(os.path.expanduser("~"), os.W_OK) and request.run_dir.is_dir():
        scratch = request.run_dir / ".home"
        scratch.mkdir(exist_ok=True)
        environment |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(scratch))
    return environment


def _check_slurm(run_dir: Path) -> None:
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


def _slurm_options(run_dir: Path, jobs: int, account: str | None) -> list[str]:
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
