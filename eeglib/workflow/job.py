"""One chapter for one subject: what Snakemake starts, around papermill.

Run as ``python -m eeglib.workflow.job plan.json 05_distill_student 01 --threads 2`` in the run's
folder. The executed notebook stays where it is whatever happens; ``failure.json`` beside it says
in which cell and line it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

from eeglib.metrics import load_metrics, write_text
from eeglib.results import NOTEBOOK
from eeglib.workflow.chapters import Chapter, Job, needs_of
from eeglib.workflow.notebooks import PASSED
from eeglib.workflow.staleness import INPUTS, needs_hashes

KERNEL = "eeglib"
FAILURE = "failure.json"
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
    options = parser.parse_args(arguments)
    plan = json.loads(options.plan.read_text(encoding="utf-8"))
    subject = None if options.subject == "group" else int(options.subject)
    # Before anything loads a numerical library.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    return run_job(Job(options.chapter, subject), plan, options.plan.resolve().parent)


def run_job(job: Job, plan: dict, run_dir: Path) -> int:
    """Execute a chapter's notebook and record what its results depend on."""
    folder = run_dir / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FAILURE, INPUTS):
        (folder / name).unlink(missing_ok=True)
    chapters = [_chapter(values) for values in plan["chapters"]]
    needs = needs_of(job, chapters, plan["summarized"])
    record = {**plan["descriptions"][job.chapter], "needs": needs_hashes(needs, run_dir)}
    started = time.perf_counter()
    _say(job, "started")
    failure = _execute(job, plan, folder)
    if failure is None and not (run_dir / job.metrics).is_file():
        failure = {
            "cell": None,
            "line": None,
            "error": "NoResults",
            "message": "the notebook ended without chapter.finish(...), so it has no metrics.json",
            "traceback": "",
        }
    seconds = time.perf_counter() - started
    if failure is not None:
        write_text(folder / FAILURE, json.dumps(failure, indent=1))
        _say(job, f"failed after {seconds:.1f} s: {failure['error']}: {failure['message']}")
        return 1
    write_text(folder / INPUTS, json.dumps(record, indent=1))
    memory = load_metrics(folder).provenance.peak_memory_mb
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


def _chapter(values: dict) -> Chapter:
    return Chapter(values["name"], values["scope"], tuple(values["needs"]))


def _execute(job: Job, plan: dict, folder: Path) -> dict | None:
    """Run the notebook; None if every cell ran, else what stopped it."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    subject = plan["first_subject"] if job.subject is None else job.subject
    values = (subject, plan["profile"], plan["run_dir"])
    minutes = next(c["minutes"] for c in plan["chapters"] if c["name"] == job.chapter)
    try:
        papermill.execute_notebook(
            Path(plan["notebooks"]) / f"{job.chapter}.ipynb",
            folder / NOTEBOOK,
            parameters=dict(zip(PASSED, values, strict=True)),
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            cwd=folder,
            execution_timeout=int(minutes * 60),
        )
    except PapermillExecutionError as error:
        return {
            "cell": error.exec_count,
            "line": _line_of(error.traceback, error.exec_count),
            "error": error.ename,
            "message": error.evalue,
            "traceback": "\n".join(map(_without_color, error.traceback)),
        }
    except CellTimeoutError:
        text = f"a cell took longer than resources.{job.chapter}.minutes = {minutes:g}"
        return _stopped("TimeLimit", text)
    except DeadKernelError:
        text = (
            "the kernel was killed, most often for lack of memory; run fewer jobs at once, or "
            "make the profile's data smaller"
        )
        return _stopped("KernelDied", text)
    return None


def _stopped(error: str, message: str) -> dict:
    return {"cell": None, "line": None, "error": error, "message": message, "traceback": ""}


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
