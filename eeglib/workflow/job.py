"""One chapter for one subject: what Snakemake starts, around papermill.

Run as ``python -m eeglib.workflow.job plan.json 05_distill_student 01 --threads 2`` in the run's
folder. The executed notebook stays where it is whatever happens; ``failure.json`` beside it says
in which cell and line it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from eeglib.chapter import (
    FAILURE,
    INPUTS,
    METRICS,
    NOTEBOOK,
    PROVENANCE,
    RUNNING,
    load_provenance,
    write_text,
)
from eeglib.workflow.chapters import PASSED, Chapter, Job, needs_hashes, needs_of
from eeglib.workflow.gpus import claim_gpus
from eeglib.workflow.locks import hold_jobs_lock
from eeglib.workflow.watch import end_children, end_with_parent

KERNEL = "eeglib"
KERNEL_DIED = (
    "the kernel was killed, most often for lack of memory; run fewer jobs at once, or make the "
    "profile's data smaller"
)
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the job that the command line names; 0 if the chapter finished."""
    parser = argparse.ArgumentParser(description="Execute one chapter of a planned run.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("chapter")
    parser.add_argument("subject", help="number of the subject, or group")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parent", type=int, help="process without which the job ends too")
    options = parser.parse_args(arguments)
    if options.parent:
        end_with_parent(options.parent)
    plan = json.loads(options.plan.read_text(encoding="utf-8"))
    subject = None if options.subject == "group" else int(options.subject)
    # Before anything loads a numerical library.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    run_dir = options.plan.resolve().parent
    job = Job(options.chapter, subject)
    try:
        with hold_jobs_lock(run_dir):
            return run_job(job, plan, run_dir)
    except OSError as error:  # most often: no space left, so that not even the failure is written
        _say(job, f"failed: {error}")
        return 1


def run_job(job: Job, plan: dict, run_dir: Path) -> int:
    """Execute a chapter's notebook and record what its results depend on."""
    folder = run_dir / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    chapters = [_chapter(values) for values in plan["chapters"]]
    needs = needs_of(job, chapters, plan["summarized"])
    record = {**plan["descriptions"][job.chapter], "needs": needs_hashes(needs, run_dir)}
    resources = next(c for c in plan["chapters"] if c["name"] == job.chapter)
    devices = claim_gpus(resources["gpus"], lambda text: _say(job, text))
    where = {
        "host": platform.node(),
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpus": devices,
    }
    write_text(folder / RUNNING, json.dumps(where))
    started = time.perf_counter()
    _say(job, "started" + (f" on GPU {', '.join(devices)}" if devices else ""))
    try:
        failure = _execute(job, plan, folder, resources["minutes"])
        if failure is None and not (folder / METRICS).is_file():
            text = "the notebook ended without chapter.finish(...), so it has no metrics.json"
            failure = _stopped("NoResults", text)
        seconds = time.perf_counter() - started
        if failure is not None:
            _say(job, f"failed after {seconds:.1f} s: {failure['error']}: {failure['message']}")
            write_text(folder / FAILURE, json.dumps(failure, indent=1))
            return 1
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        # Times of files spare `eeglib run` reading what has not been touched since.
        times = {name: (folder / name).stat().st_mtime_ns for name in metrics["outputs"]}
        write_text(folder / INPUTS, json.dumps({**record, "outputs": times}, indent=1))
    finally:
        end_children()
        (folder / RUNNING).unlink(missing_ok=True)
    memory = load_provenance(folder).peak_memory_mb
    _say(job, f"finished in {seconds:.1f} s, {memory:.0f} MB")
    return 0


def write_kernel(folder: Path) -> None:
    """Describe the kernel that runs the notebooks: the Python that runs eeglib, no other.

    Parameters
    ----------
    folder : Path
        A folder for ``JUPYTER_PATH``.
    """
    kernel = folder / "kernels" / KERNEL
    kernel.mkdir(parents=True, exist_ok=True)
    options = ["-f", "{connection_file}", "--HistoryManager.enabled=False"]
    specification = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", *options],
        "display_name": "Python (eeglib)",
        "language": "python",
    }
    write_text(kernel / "kernel.json", json.dumps(specification, indent=1))


def _remove_old(folder: Path) -> None:
    """Remove what an earlier execution recorded; a method left out must not leave predictions."""
    try:
        outputs = json.loads((folder / INPUTS).read_text(encoding="utf-8")).get("outputs", {})
    except (OSError, ValueError):
        outputs = {}
    for name in (RUNNING, FAILURE, METRICS, PROVENANCE, NOTEBOOK, *outputs, INPUTS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "figures", ignore_errors=True)


def _chapter(values: dict) -> Chapter:
    return Chapter(values["name"], values["scope"], tuple(values["needs"]))


def _execute(job: Job, plan: dict, folder: Path, minutes: float) -> dict | None:
    """Run the notebook; None if every cell ran, else what stopped it."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    subject = plan["first_subject"] if job.subject is None else job.subject
    values = (subject, plan["profile"], plan["run_dir"])
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        end_children()

    # The whole chapter counts, not each cell, and the start of the kernel too.
    limit = threading.Timer(minutes * 60, stop)
    limit.daemon = True
    limit.start()
    try:
        with tempfile.TemporaryDirectory(prefix="eeglib-") as sockets:
            papermill.execute_notebook(
                Path(plan["notebooks"]) / f"{job.chapter}.ipynb",
                folder / NOTEBOOK,
                parameters=dict(zip(PASSED, values, strict=True)),
                kernel_name=KERNEL,
                language="python",
                progress_bar=False,
                cwd=folder,
                # All results are written; a kernel with PyTorch takes seconds to end by itself.
                shutdown_kernel="immediate",
                # Kernels that start at the same moment may choose the same network port and then
                # wait for ever; files have names of their own.
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            )
    except PapermillExecutionError as error:
        return {
            "cell": error.exec_count,
            "line": _line_of(error.traceback, error.exec_count),
            "error": error.ename,
            "message": error.evalue,
            "traceback": "\n".join(map(_without_color, error.traceback)),
        }
    except (DeadKernelError, RuntimeError) as error:
        where = _running_cell(folder / NOTEBOOK)
        if expired.is_set():
            key = f"resources.{job.chapter}.minutes"
            text = f"stopped after {minutes:g} minutes, the limit of {key} in the profile"
            return _stopped("TimeLimit", text, where)
        if not isinstance(error, DeadKernelError):
            return _stopped("KernelNotStarted", str(error))
        return _stopped("KernelDied", KERNEL_DIED, where)
    finally:
        limit.cancel()
    return None


def _stopped(error: str, message: str, cell: int | None = None) -> dict:
    return {"cell": cell, "line": None, "error": error, "message": message, "traceback": ""}


def _running_cell(notebook: Path) -> int | None:
    """Execution count of the cell in which the kernel ended, from what papermill saved."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    begun = [c["metadata"].get("papermill", {}).get("start_time") is not None for c in code]
    return sum(begun) or None


def _line_of(traceback: list[str], cell: int | None) -> int | None:
    """Line of the cell where the exception passed, from IPython's traceback."""
    text = _without_color("\n".join(traceback))
    found = re.findall(rf"Cell In\[{cell}\], line (\d+)", text)
    return int(found[-1]) if found else None


def _without_color(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _say(job: Job, text: str) -> None:
    print(f"{job}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
