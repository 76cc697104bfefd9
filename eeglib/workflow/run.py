"""Running a profile: what is asked for, Snakemake with it, and what came of it."""

from __future__ import annotations

import dataclasses
import errno
import functools
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
from pathlib import Path
from typing import Literal

import psutil
import yaml

from eeglib.chapter import (
    DATA_CHAPTER,
    FAILURE,
    METRICS,
    ResultsError,
    data_fingerprint,
    data_folder,
    data_subjects,
    load_metrics,
    load_provenance,
    subject_folder,
    write_text,
)
from eeglib.datasets import open_dataset
from eeglib.profile import ChapterResources, Profile
from eeglib.workflow.dependencies import dependencies, figure_modules
from eeglib.workflow.gpus import OFFERED, SHARED_BY, VISIBLE, choose_gpus
from eeglib.workflow.job import Failure, load_failure, write_kernel
from eeglib.workflow.processes import only_run_in
from eeglib.workflow.slurm import slurm_options
from eeglib.workflow.stages import (
    FILTER,
    PACKAGE,
    STAGES,
    TEACHER,
    Job,
    Stage,
    WorkflowError,
    jobs_of,
    needs_of,
)

SNAKEFILE = Path(__file__).with_name("Snakefile")
LOG = "snakemake.log"
CLUSTER_THREADS = 2
"""Cores that a chapter asks a cluster for where the profile does not say."""
CLUSTER_MARGIN = 2
"""Minutes that a cluster gives a chapter above its limit, to say that it was reached."""
GRACE = 20
"""Seconds that Snakemake has to cancel its jobs on a cluster, s."""
READ_DATA = (DATA_CHAPTER, FILTER, TEACHER)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to run.

    Attributes
    ----------
    profile : Profile
        The settings.
    run_dir : Path
        Folder of the results.
    subjects : sequence of int
        Subjects to run, of those in the profile.
    notebooks : Path
        Folder of the chapters' notebooks.
    stages : sequence of Stage
        The table of stages.
    only : sequence of Stage
        Stages wanted, with what they need; empty for all.
    jobs : int
        Chapters that run at the same time; on a cluster, that are submitted at the same time.
    gpus : int | None
        GPUs to use, all that the machine shows where left out, none where 0.
    jobs_per_gpu : int
        Chapters that may share a GPU.
    executor : "local" | "slurm"
        Whether chapters run on this machine or are submitted to Slurm.
    keep_going : bool
        Whether the other subjects go on when a chapter fails.
    force : bool
        Whether the chapters wanted run even if nothing has changed.
    """

    profile: Profile
    run_dir: Path
    subjects: Sequence[int]
    notebooks: Path
    stages: Sequence[Stage] = STAGES
    only: Sequence[Stage] = ()
    jobs: int = 1
    gpus: int | None = None
    jobs_per_gpu: int = 1
    executor: Literal["local", "slurm"] = "local"
    keep_going: bool = False
    force: bool = False


def run(request: Request, say: Callable[[str], None] = print) -> list[Failure]:
    """Run what is stale and return what failed.

    Raises
    ------
    WorkflowError
        If another run works in the same folder, if a notebook is not fit to run, if the disk is
        full, or if Snakemake itself stops.
    """
    plan = make_plan(request)
    run_dir = request.run_dir
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with only_run_in(run_dir) as lock:
            write_text(run_dir / LOG, "")
            _write_profile(request)
            write_kernel(run_dir / ".jupyter")
            return _run(request, plan, lock, say)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WorkflowError(_disk_full(request)) from None


def _run(request: Request, plan: dict, lock: int, say: Callable) -> list[Failure]:
    wanted = wanted_jobs(request)
    again = reasons_to_repeat(request)
    for job in again:
        (request.run_dir / job.metrics).unlink(missing_ok=True)
    failures: list[Failure] = []
    # Chapter 1 first, which makes the data that the others read. Then what only this module knows
    # to be stale: if its results are the same again, file by file, Snakemake finds nothing to do
    # for the chapters after it.
    first = [job for job in wanted if job.chapter == DATA_CHAPTER]
    for jobs in (first, [job for job in again if job not in first], wanted):
        if any(f.job in first for f in failures) or (failures and not request.keep_going):
            return failures
        without = {failure.job.subject for failure in failures}
        jobs = [job for job in jobs if job.subject not in without]
        failures += _drive(request, plan, jobs, lock, say) if jobs else []
    if "jobid:" not in (request.run_dir / LOG).read_text(encoding="utf-8"):
        say(f"Nothing to do: all results in {request.run_dir} are up to date.")
    survivors = [s for s in request.subjects if s not in {f.job.subject for f in failures}]
    if request.keep_going and survivors and survivors != [*request.subjects]:
        # The group's chapters go on without the subjects that failed.
        rest = dataclasses.replace(request, subjects=survivors)
        failures += _drive(rest, make_plan(rest), wanted_jobs(rest), lock, say)
    return failures


def stale_jobs(request: Request) -> dict[Job, str]:
    """Jobs that would run, in order, with the reason; changes nothing.

    What follows a chapter whose reason is not Snakemake's own runs too if its results differ.
    """
    plan = make_plan(request)
    wanted = wanted_jobs(request)
    with tempfile.TemporaryDirectory() as empty:
        where = request.run_dir if request.run_dir.is_dir() else Path(empty)
        config = Path(empty) / "plan.json"
        config.write_text(json.dumps({**plan, "targets": [job.metrics for job in wanted]}))
        command = [*_snakemake(config, where), "--dry-run", "--cores", "1"]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(request))
    if done.returncode != 0:
        raise WorkflowError(f"Snakemake stopped:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    blocks = re.findall(r"^    output: (.+)\n(?:    .*\n)*?    reason: (.+)$", done.stdout, re.M)
    found = {output: _reason(text) for output, text in blocks}
    found |= {job.metrics: reason for job, reason in reasons_to_repeat(request).items()}
    return {job: found[job.metrics] for job in wanted if job.metrics in found}


def _reason(text: str) -> str:
    """Snakemake's reason in fewer words; the texts of `dependencies` begin with what they are."""
    changed = re.search(r"'([^':]+): ", text.partition("now: ")[2] or text.partition("before: ")[2])
    if "Params have changed" in text and changed:
        return f"{changed[1]} has changed"
    return "has not run yet" if text.startswith("Missing output") else text


def reasons_to_repeat(request: Request) -> dict[Job, str]:
    """Finished jobs, in order, that must run again for what Snakemake does not look at."""
    forced = {stage.name for stage in request.only or request.stages} if request.force else ()
    dataset = open_dataset(request.profile.dataset, data_folder(request.profile, request.run_dir))
    fingerprint = functools.cache(functools.partial(data_fingerprint, dataset))
    figures = {
        stage.name: figure_modules(request.notebooks / f"{stage.name}.ipynb")
        for stage in request.stages
    }
    found = {}
    for job in wanted_jobs(request):
        folder = request.run_dir / str(job)
        if not (folder / METRICS).is_file():
            continue
        if job.chapter in forced:
            found[job] = "--force"
            continue
        try:
            metrics, known = load_metrics(folder), load_provenance(folder)
        except ResultsError:
            found[job] = "its record is incomplete"
            continue
        sizes = {name: _size(folder / name) for name in metrics.outputs}
        damaged = [name for name, size in sizes.items() if size != metrics.outputs[name].bytes]
        drawn = [n for n, code in figures[job.chapter].items() if known.modules.get(n) != code]
        if damaged:
            found[job] = f"{damaged[0]} is missing or damaged"
        elif job.chapter in READ_DATA and known.dataset != {
            subject_folder(subject): fingerprint(subject)
            for subject in data_subjects(job.chapter, job.subject, request.profile)
        }:
            found[job] = "the data have changed"
        elif drawn:
            found[job] = f"{drawn[0]} has changed"
    return found


def wanted_jobs(request: Request) -> list[Job]:
    """All jobs of a request, each after those that it needs."""
    waiting = [j for s in request.only or request.stages for j in jobs_of(s, request.subjects)]
    needed: set[Job] = set()
    while waiting:
        job = waiting.pop()
        if job not in needed:
            needed.add(job)
            waiting += needs_of(job, request.stages, request.subjects)
    ordered = [j for stage in request.stages for j in jobs_of(stage, request.subjects)]
    return [job for job in ordered if job in needed]


def make_plan(request: Request) -> dict:
    """What Snakemake and the jobs need to know, ready for JSON; checks what would stop them later.

    Raises
    ------
    WorkflowError, DatasetError
        If a notebook, the profile or the number of GPUs is not fit to run.
    """
    profile, names = request.profile, [stage.name for stage in request.stages]
    unknown = sorted(set(profile.resources) - set(names))
    if unknown:
        raise WorkflowError(
            f"resources of profile {profile.name!r} names {', '.join(unknown)}; chapters: "
            f"{', '.join(names)}."
        )
    open_dataset(profile.dataset, request.run_dir)
    devices = choose_gpus(request.gpus) if request.executor == "local" else []
    last = [stage.name for stage in request.stages if stage.per_subject][-1:]
    before = {
        s
        for n in last
        for s in profile.dataset.subjects
        if (request.run_dir / Job(n, s).metrics).is_file()
    }
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
        "gpus": devices,
        "stages": [_plan_stage(stage, request, len(devices)) for stage in request.stages],
    }


def _plan_stage(stage: Stage, request: Request, devices: int) -> dict:
    """Dependencies and resources of a stage, as Snakemake and the job take them."""
    profile = request.profile
    wanted = profile.resources.get(stage.name, ChapterResources())
    gpus = stage.gpus if wanted.gpus is None else wanted.gpus
    resources: dict[str, int | str] = {"mem_mb": wanted.memory_mb or stage.memory_mb}
    if request.executor == "local":
        # Without a GPU the same chapters run on the processor.
        gpus = min(gpus, devices)
        threads = max(1, available_cores() // request.jobs)
        threads = min(threads, wanted.cores or threads)
    else:
        gpus = 0 if request.gpus == 0 else gpus
        threads = wanted.cores or CLUSTER_THREADS
        resources["runtime"] = math.ceil(wanted.minutes) + CLUSTER_MARGIN
        cluster = profile.cluster
        settings = {
            "slurm_account": cluster.account,
            "slurm_partition": (cluster.gpu_partition if gpus else None) or cluster.partition,
            "slurm_extra": cluster.options,
        }
        resources |= {name: value for name, value in settings.items() if value}
    depends = dependencies(request.notebooks / f"{stage.name}.ipynb", profile)
    if stage.name == DATA_CHAPTER:
        depends.append(f"the list of subjects: {profile.dataset.subjects}")
    return {
        **dataclasses.asdict(stage),
        "depends": depends,
        "minutes": wanted.minutes,
        "gpus": gpus,
        "threads": threads,
        "resources": {**resources, **({"gpu": gpus} if gpus else {})},
    }


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _drive(
    request: Request, plan: dict, jobs: list[Job], lock: int, say: Callable[[str], None]
) -> list[Failure]:
    """Let Snakemake run the jobs that are stale, and say what failed."""
    run_dir = request.run_dir
    for job in jobs:
        (run_dir / str(job) / FAILURE).unlink(missing_ok=True)
    write_text(run_dir / "plan.json", json.dumps({**plan, "targets": [j.metrics for j in jobs]}))
    command = _snakemake(run_dir / "plan.json", run_dir)
    command += ["--keep-going"] if request.keep_going else []
    if request.executor == "slurm":
        account = request.profile.cluster.account
        command += slurm_options(run_dir, request.jobs, account)
    else:
        most = max(stage["threads"] for stage in plan["stages"])
        memory = int(psutil.virtual_memory().total / 1e6)
        slots = len(plan["gpus"]) * request.jobs_per_gpu
        command += ["--cores", str(request.jobs * most), "--latency-wait", "5"]
        command += ["--resources", f"mem_mb={memory}", f"gpu={slots}"]
    code = _watch(command, request, plan, jobs, lock, say)
    failures = [f for job in jobs if (f := load_failure(run_dir / str(job)))]
    if code != 0 and shutil.disk_usage(run_dir).free < 10e6:
        raise WorkflowError(_disk_full(request))
    if code != 0 and not failures:
        lines = (run_dir / LOG).read_text(encoding="utf-8").splitlines()
        tail = "\n".join(lines[-15:])
        raise WorkflowError(f"Snakemake stopped ({run_dir / LOG}):\n{tail}")
    without = {failure.job for failure in failures}
    for job in jobs:  # what could not run now must not pass for a result
        if without.intersection(needs_of(job, request.stages, request.subjects)):
            without.add(job)
            (run_dir / job.metrics).unlink(missing_ok=True)
    return failures


def _watch(
    command: list[str], request: Request, plan: dict, jobs: list[Job], lock: int, say: Callable
) -> int:
    """Run Snakemake to its end; jobs on a cluster, which cannot print here, are looked at."""
    environment = _environment(request, plan)
    remote = dict.fromkeys(jobs, "") if request.executor == "slurm" else {}
    before = {job: _changed(request.run_dir / job.metrics) for job in remote}
    with open(request.run_dir / LOG, "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stderr=log, pass_fds=[lock])
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                for job, last in remote.items():
                    failure = load_failure(request.run_dir / str(job))
                    state = "" if failure is None else "failed"
                    if failure and failure.error == "Killed":
                        state = "started"
                    elif _changed(request.run_dir / job.metrics) not in (None, before[job]):
                        state = "finished"
                    if state not in ("", last):
                        say(f"{job}: {state}")
                        remote[job] = state
            return process.returncode
        except KeyboardInterrupt:
            # Jobs on this machine end with Snakemake, those on a cluster it cancels.
            if request.executor == "slurm":
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            process.kill()
            process.wait()
            raise


def _snakemake(config: Path, directory: Path) -> list[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--directory", str(directory), "--configfile", str(config)]
    return [*command, "--scheduler", "greedy", "--nocolor", "--rerun-incomplete"]


def _environment(request: Request, plan: dict | None = None) -> dict[str, str]:
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
    if plan and request.executor == "local":
        environment |= {OFFERED: ",".join(plan["gpus"]), SHARED_BY: str(request.jobs_per_gpu)}
    elif request.gpus == 0:
        environment[VISIBLE] = ""
    if not os.access(Path.home(), os.W_OK) and run_dir.is_dir():
        scratch = run_dir / ".home"
        scratch.mkdir(exist_ok=True)
        environment |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(scratch))
    return environment


def _write_profile(request: Request) -> None:
    content = yaml.safe_dump(
        request.profile.model_dump(mode="json"), sort_keys=False, allow_unicode=True
    )
    header = "# The complete profile of this run; written by eeglib run.\n"
    write_text(request.run_dir / "profile.yml", header + content)


def _disk_full(request: Request) -> str:
    return (
        f"No space is left on the disk that holds {request.run_dir}. Free some and run the same "
        "command again: finished chapters are kept."
    )


def _changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
