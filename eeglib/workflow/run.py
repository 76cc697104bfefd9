"""Running a profile: plan by content, let Snakemake drive the jobs, say what came of it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from eeglib.datasets import open_dataset
from eeglib.metrics import write_text
from eeglib.profile import ChapterResources, Profile
from eeglib.results import NOTEBOOK
from eeglib.workflow.chapters import CHAPTERS, Chapter, Job, WorkflowError, jobs_of, needs_of
from eeglib.workflow.job import FAILURE, write_kernel
from eeglib.workflow.staleness import PACKAGE, describe_chapter, stale_jobs

SNAKEFILE = Path(__file__).with_name("Snakefile")
LOG = "snakemake.log"


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
        Chapters that run at the same time.
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
    keep_going: bool = False
    force: bool = False


@dataclasses.dataclass(frozen=True)
class Failure:
    """A job that did not finish, and where to look."""

    job: Job
    notebook: Path
    cell: int | None
    line: int | None
    error: str
    message: str
    traceback: str

    def __str__(self) -> str:
        place = f", cell In [{self.cell}]" if self.cell else ""
        place += f", line {self.line}" if self.line else ""
        return f"{self.job}: {self.error}: {self.message}\n    {self.notebook}{place}"


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


def plan_run(request: Request) -> tuple[dict[Job, str], dict]:
    """Decide what must run and why; changes nothing.

    Returns
    -------
    stale : dict
        Jobs to run, in order, with the reason.
    plan : dict
        What Snakemake and the jobs need to know, ready for JSON.

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
    threads = max(1, available_cores() // request.jobs)
    plan = {
        "python": sys.executable,
        "notebooks": str(request.notebooks),
        "profile": str(request.run_dir / "profile.yml"),
        "run_dir": str(request.run_dir),
        "subjects": [f"{subject:02d}" for subject in request.subjects],
        "first_subject": request.profile.dataset.subjects[0],
        "summarized": summarized,
        "threads": threads,
        "chapters": [_chapter_plan(chapter, request.profile) for chapter in request.chapters],
        "descriptions": descriptions,
    }
    return stale, plan


def run(request: Request, say: Callable[[str], None] = print) -> list[Failure]:
    """Run what is stale and return what failed.

    Parameters
    ----------
    request : Request
        What to run.
    say : callable
        Takes each line of progress.

    Raises
    ------
    WorkflowError
        If another run works in the same folder, if a notebook is not fit to run, or if Snakemake
        itself stops.
    """
    request.run_dir.mkdir(parents=True, exist_ok=True)
    with _only_run_in(request.run_dir) as lock:
        stale, plan = plan_run(request)
        if not stale:
            say(f"Nothing to do: all results in {request.run_dir} are up to date.")
            return []
        _check_profile(request)
        _write_profile(request)
        say(f"{len(stale)} of {len(wanted_jobs(request))} chapters to run in {request.run_dir}")
        failures = _drive(request, stale, plan, lock)
        survivors = [s for s in request.subjects if s not in {f.job.subject for f in failures}]
        if request.keep_going and survivors and survivors != [*request.subjects]:
            # The group's chapters go on without the subjects that failed.
            rest = dataclasses.replace(request, subjects=survivors, force=False)
            stale, plan = plan_run(rest)
            failures += _drive(rest, stale, plan, lock) if stale else []
    return failures


def find_failures(jobs: Iterable[Job], run_dir: Path) -> list[Failure]:
    """Those of the jobs that stopped, from what they left behind."""
    failures = []
    for job in jobs:
        folder = run_dir / job.folder
        if (folder / FAILURE).is_file():
            content = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
            failures.append(Failure(job, folder / NOTEBOOK, **content))
    return failures


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


def _chapter_plan(chapter: Chapter, profile: Profile) -> dict:
    resources = profile.resources.get(chapter.name, ChapterResources())
    return {
        "name": chapter.name,
        "scope": chapter.scope,
        "needs": list(chapter.needs),
        "minutes": resources.minutes,
        "runtime": math.ceil(resources.minutes),
        "memory_mb": resources.memory_mb,
        "gpus": resources.gpus,
    }


def _check_profile(request: Request) -> None:
    """Find what would else stop the first chapter: the data set's name and options, resources."""
    profile = request.profile
    names = [chapter.name for chapter in request.chapters]
    unknown = sorted(set(profile.resources) - set(names))
    if unknown:
        raise WorkflowError(
            f"resources of profile {profile.name!r} names {', '.join(unknown)}; chapters: "
            f"{', '.join(names)}."
        )
    open_dataset(profile.dataset, request.run_dir)


def _write_profile(request: Request) -> None:
    content = request.profile.model_dump(mode="json")
    text = "# The complete profile of this run; written by eeglib run.\n" + yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True
    )
    write_text(request.run_dir / "profile.yml", text)


@contextmanager
def _only_run_in(run_dir: Path) -> Iterator[int]:
    """Hold the folder's lock, which the system lets go when the last holder ends, however."""
    with open(run_dir / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkflowError(
                f"Another eeglib run works in {run_dir}. Wait for it, or put this one elsewhere "
                "with --run-dir."
            ) from None
        yield lock.fileno()


def _drive(request: Request, stale: dict[Job, str], plan: dict, lock: int) -> list[Failure]:
    """Run the stale jobs; what then could not run must not pass for a result."""
    run_dir = request.run_dir
    for job in stale:
        (run_dir / job.folder / FAILURE).unlink(missing_ok=True)
    code = _snakemake(request, stale, plan, lock)
    failures = find_failures(stale, run_dir)
    if code != 0 and not failures:
        tail = "\n".join((run_dir / LOG).read_text(encoding="utf-8").splitlines()[-15:])
        raise WorkflowError(f"Snakemake stopped ({run_dir / LOG}):\n{tail}")
    without = {failure.job for failure in failures}
    for job in stale:
        if without.intersection(needs_of(job, request.chapters, request.subjects)):
            without.add(job)
            (run_dir / job.metrics).unlink(missing_ok=True)
    return failures


def _snakemake(request: Request, stale: dict[Job, str], plan: dict, lock: int) -> int:
    run_dir = request.run_dir
    write_text(run_dir / "plan.json", json.dumps(plan, indent=1))
    write_kernel(run_dir / ".jupyter")
    targets = [job.metrics for job in stale]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--directory", str(run_dir), "--configfile", str(run_dir / "plan.json")]
    command += ["--cores", str(request.jobs * plan["threads"]), "--scheduler", "greedy"]
    command += ["--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime"]
    command += ["--latency-wait", "5", "--quiet", "all", "--nocolor"]
    command += ["--keep-going"] if request.keep_going else []
    command += ["--forcerun", *targets, "--", *targets]
    with open(run_dir / LOG, "w", encoding="utf-8") as log:
        # Snakemake inherits the lock: if this process is killed, the folder stays locked until
        # Snakemake has ended as well.
        done = subprocess.run(command, env=_environment(run_dir), stderr=log, pass_fds=[lock])
    return done.returncode


def _environment(run_dir: Path) -> dict[str, str]:
    """Environment of Snakemake and the jobs: this eeglib, this kernel, nothing from the home."""
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
    if not os.access(Path.home(), os.W_OK):
        scratch = tempfile.mkdtemp(prefix="eeglib-")
        environment |= {"HOME": scratch, "XDG_CACHE_HOME": scratch, "MPLCONFIGDIR": scratch}
    return environment
