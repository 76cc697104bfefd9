"""What a run is asked for, and what of it must run: decided by content, changing nothing."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import psutil

from eeglib.datasets import open_dataset
from eeglib.profile import ChapterResources, Profile
from eeglib.workflow.chapters import CHAPTERS, Chapter, Job, WorkflowError, jobs_of, needs_of
from eeglib.workflow.gpus import choose_gpus
from eeglib.workflow.staleness import PACKAGE, describe_chapter, stale_jobs

CLUSTER_THREADS = 2
"""Cores that a chapter asks a cluster for where the profile does not say."""
CLUSTER_MARGIN = 2
"""Minutes that a cluster gives a chapter above its limit, to say that it was reached."""


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
    chapters : sequence of Chapter
        The table of chapters.
    only : sequence of Chapter
        Chapters wanted, with what they need; empty for all.
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
    chapters: Sequence[Chapter] = CHAPTERS
    only: Sequence[Chapter] = ()
    jobs: int = 1
    gpus: int | None = None
    jobs_per_gpu: int = 1
    executor: Literal["local", "slurm"] = "local"
    keep_going: bool = False
    force: bool = False


def wanted_jobs(request: Request) -> list[Job]:
    """All jobs of a request, each after those that it needs."""
    targets = [j for c in request.only or request.chapters for j in jobs_of(c, request.subjects)]
    needed: set[Job] = set()
    waiting = list(targets)
    while waiting:
        job = waiting.pop()
        if job not in needed:
            needed.add(job)
            waiting += needs_of(job, request.chapters, request.subjects)
    ordered = [j for c in request.chapters for j in jobs_of(c, request.subjects)]
    return [job for job in ordered if job in needed]


def find_stale(request: Request) -> tuple[dict[Job, str], dict[str, dict]]:
    """Decide what must run and why.

    Returns
    -------
    stale : dict
        Jobs to run, in order, with the reason.
    descriptions : dict
        By chapter, what its results depend on besides other results.

    Raises
    ------
    WorkflowError
        If a notebook is not fit to run.
    """
    jobs = wanted_jobs(request)
    names = {job.chapter for job in jobs}
    descriptions = {
        chapter.name: describe_chapter(
            chapter, request.notebooks / f"{chapter.name}.ipynb", request.profile
        )
        for chapter in request.chapters
        if chapter.name in names
    }
    summarized = _summarized(request)
    stale = stale_jobs(
        jobs, descriptions, lambda job: needs_of(job, request.chapters, summarized), request.run_dir
    )
    if request.force:
        forced = {c.name for c in request.only or request.chapters}
        again = {job: "--force" for job in jobs if job.chapter in forced}
        stale = {job: {**stale, **again}[job] for job in jobs if job in stale or job in again}
    return stale, descriptions


def plan_run(request: Request) -> tuple[dict[Job, str], dict]:
    """Decide what must run and why, and with what; changes nothing.

    Returns
    -------
    stale : dict
        Jobs to run, in order, with the reason.
    plan : dict
        What Snakemake and the jobs need to know, ready for JSON.

    Raises
    ------
    WorkflowError
        If a notebook or the profile is not fit to run.
    """
    check_request(request)
    stale, descriptions = find_stale(request)
    devices = choose_gpus(request.gpus) if request.executor == "local" else []
    plan = {
        "python": sys.executable,
        "executor": request.executor,
        "notebooks": str(request.notebooks),
        "profile": str(request.run_dir / "profile.yml"),
        "run_dir": str(request.run_dir),
        "subjects": [f"{subject:02d}" for subject in request.subjects],
        "first_subject": request.profile.dataset.subjects[0],
        "summarized": _summarized(request),
        "stale": [str(job) for job in stale],
        "gpus": devices,
        "chapters": [_chapter_plan(chapter, request, len(devices)) for chapter in request.chapters],
        "descriptions": descriptions,
    }
    return stale, plan


def limits(request: Request, plan: dict) -> dict[str, int]:
    """What all jobs that run at the same time may use together on this machine."""
    return {
        "cores": request.jobs * max(chapter["threads"] for chapter in plan["chapters"]),
        "mem_mb": int(psutil.virtual_memory().total / 1e6),
        "gpu": len(plan["gpus"]) * request.jobs_per_gpu,
    }


def site_folder() -> Path:
    """Folder that holds ``notebooks/``, ``book/``, ``_config.yml`` and ``_toc.yml``.

    The checkout when eeglib runs from one, else the copy inside the installed package.
    """
    checkout = PACKAGE.parent
    if (checkout / "notebooks").is_dir() and (checkout / "_config.yml").is_file():
        return checkout
    return PACKAGE / "_site"


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _summarized(request: Request) -> list[int]:
    """Subjects of the group's chapters: those of this run and those finished before."""
    last = [c.name for c in request.chapters if c.scope == "subject"][-1:]
    before = [
        subject
        for subject in request.profile.dataset.subjects
        if last and (request.run_dir / Job(last[0], subject).metrics).is_file()
    ]
    return sorted({*request.subjects, *before})


def _chapter_plan(chapter: Chapter, request: Request, devices: int) -> dict:
    """Names and resources of a chapter, as Snakemake and the job take them."""
    profile = request.profile
    wanted = profile.resources.get(chapter.name, ChapterResources())
    gpus = chapter.gpus if wanted.gpus is None else wanted.gpus
    resources: dict[str, int | str] = {"mem_mb": wanted.memory_mb}
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
        partition = (cluster.gpu_partition if gpus else None) or cluster.partition
        settings = {
            "slurm_account": cluster.account,
            "slurm_partition": partition,
            "slurm_extra": cluster.options,
        }
        resources |= {name: value for name, value in settings.items() if value}
    return {
        "name": chapter.name,
        "scope": chapter.scope,
        "needs": list(chapter.needs),
        "minutes": wanted.minutes,
        "gpus": gpus,
        "threads": threads,
        "resources": {**resources, **({"gpu": gpus} if gpus else {})},
    }


def check_request(request: Request) -> None:
    """Find what would else stop the run later: resources, GPUs, the data set and its options.

    Raises
    ------
    WorkflowError, DatasetError
        If something is not as it must be.
    """
    profile = request.profile
    names = [chapter.name for chapter in request.chapters]
    unknown = sorted(set(profile.resources) - set(names))
    if unknown:
        raise WorkflowError(
            f"resources of profile {profile.name!r} names {', '.join(unknown)}; chapters: "
            f"{', '.join(names)}."
        )
    if request.executor == "local":
        choose_gpus(request.gpus)
    open_dataset(profile.dataset, request.run_dir)
