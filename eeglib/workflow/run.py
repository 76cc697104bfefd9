"""Running a profile: plan by content, let Snakemake drive the jobs, say what came of it."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable

import yaml

from eeglib.chapter import FAILURE, write_text
from eeglib.workflow.chapters import Job, WorkflowError, needs_of
from eeglib.workflow.engine import LOG, drive, progress
from eeglib.workflow.failures import Failure, disk_is_full, find_failures, record_killed
from eeglib.workflow.locks import only_run_in
from eeglib.workflow.planning import Request, check_request, plan_run, wanted_jobs


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
        If another run works in the same folder, if a notebook is not fit to run, if the disk is
        full, or if Snakemake itself stops.
    """
    check_request(request)
    try:
        request.run_dir.mkdir(parents=True, exist_ok=True)
        with only_run_in(request.run_dir, say):
            return _run(request, say)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise WorkflowError(_disk_full(request)) from None


def _run(request: Request, say: Callable[[str], None]) -> list[Failure]:
    stale, plan = plan_run(request)
    if not stale:
        say(f"Nothing to do: all results in {request.run_dir} are up to date.")
        return []
    _write_profile(request)
    say(f"{len(stale)} of {len(wanted_jobs(request))} chapters to run in {request.run_dir}")
    failures = _drive(request, stale, plan, say)
    survivors = [s for s in request.subjects if s not in {f.job.subject for f in failures}]
    if request.keep_going and survivors and survivors != [*request.subjects]:
        # The group's chapters go on without the subjects that failed.
        rest = dataclasses.replace(request, subjects=survivors, force=False)
        stale, plan = plan_run(rest)
        failures += _drive(rest, stale, plan, say) if stale else []
    return failures


def _drive(
    request: Request, stale: dict[Job, str], plan: dict, say: Callable[[str], None]
) -> list[Failure]:
    """Run the stale jobs; what then could not run must not pass for a result."""
    run_dir = request.run_dir
    for job in stale:
        (run_dir / job.folder / FAILURE).unlink(missing_ok=True)
    code = drive(request, plan, progress(stale, request, say))
    record_killed(stale, run_dir)
    failures = find_failures(stale, run_dir)
    if code != 0 and disk_is_full(run_dir):
        raise WorkflowError(_disk_full(request))
    if code != 0 and not failures:
        tail = "\n".join((run_dir / LOG).read_text(encoding="utf-8").splitlines()[-15:])
        raise WorkflowError(f"Snakemake stopped ({run_dir / LOG}):\n{tail}")
    without = {failure.job for failure in failures}
    for job in stale:
        if without.intersection(needs_of(job, request.chapters, request.subjects)):
            without.add(job)
            (run_dir / job.metrics).unlink(missing_ok=True)
    return failures


def _write_profile(request: Request) -> None:
    content = request.profile.model_dump(mode="json")
    text = "# The complete profile of this run; written by eeglib run.\n" + yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True
    )
    write_text(request.run_dir / "profile.yml", text)


def _disk_full(request: Request) -> str:
    return (
        f"No space is left on the disk that holds {request.run_dir}. Free some and run the same "
        "command again: finished chapters are kept."
    )
