"""One chapter for one subject: what Snakemake starts, around papermill.

Run as ``python -m eeglib.workflow.job sub-01/05_distill_student/metrics.json 2``, with two threads,
in the run's folder, where ``plan.json`` lies. The executed notebook stays where it is whatever
happens; ``failure.json`` beside it says in which cell and line it stopped.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from eeglib.chapter import FAILURE, FIGURES, METRICS, NOTEBOOK, load_provenance, write_text
from eeglib.workflow.dependencies import PARAMETERS
from eeglib.workflow.gpus import claim_gpu
from eeglib.workflow.processes import end_children, end_with
from eeglib.workflow.stages import Job

KILLED = "the job was killed from outside, most often for lack of memory"
SLURM_LOGS = " or time; see .snakemake/slurm_logs in the run's folder"
KERNEL_DIED = "the kernel was killed, most often for lack of memory; run fewer jobs at once"


class Failure(NamedTuple):
    """Why a chapter stopped, and where: the content of ``failure.json`` in its folder."""

    folder: Path
    error: str
    message: str
    cell: int | None = None
    line: int | None = None
    traceback: str = ""

    @property
    def job(self) -> Job:
        """The chapter and its subject."""
        return Job.of(self.folder)

    def write(self) -> None:
        """Write it into the chapter's folder."""
        write_text(self.folder / FAILURE, json.dumps(self._asdict() | {"folder": None}, indent=1))

    def __str__(self) -> str:
        place = f", cell In [{self.cell}]" if self.cell else ""
        place += f", line {self.line}" if self.line else ""
        return f"{self.job}: {self.error}: {self.message}\n    {self.folder / NOTEBOOK}{place}"


def load_failure(folder: Path) -> Failure | None:
    """What a chapter's folder says of a failure; of a job that works now, that it was killed."""
    try:
        content = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        return Failure(**{**content, "folder": folder})
    except FileNotFoundError:
        return None


def main() -> int:
    """Execute the chapter that the command line names, say how it went; 0 if it finished."""
    metrics, threads = sys.argv[1:]
    end_with(os.getppid())
    # Before anything loads a numerical library.
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = threads
    folder, plan = Path(metrics).parent, json.loads(Path("plan.json").read_text(encoding="utf-8"))
    stage = next(stage for stage in plan["stages"] if stage["name"] == folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    # A method that is left out now must not leave its predictions; the data of chapter 1 stay.
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    shutil.rmtree(folder / FIGURES, ignore_errors=True)
    device = claim_gpu(stage["gpus"] * stage["slots"], lambda text: _say(folder, text))
    # Written first and removed last: whatever ends the job from outside leaves it behind.
    message = KILLED + (SLURM_LOGS if "SLURM_JOB_ID" in os.environ else "")
    Failure(folder, "Killed", message).write()
    started = time.perf_counter()
    _say(folder, f"started on GPU {device}" if device else "started")
    try:
        failure = _execute(folder, plan, stage["minutes"])
    finally:
        end_children()
    if failure is None and not (folder / METRICS).is_file():
        text = "the notebook ended without chapter.finish(...), so it has no metrics.json"
        failure = Failure(folder, "NoResults", text)
    seconds = time.perf_counter() - started
    if failure is not None:
        _say(folder, f"failed after {seconds:.1f} s: {failure.error}: {failure.message}")
        failure.write()
        return 1
    (folder / FAILURE).unlink()
    memory = load_provenance(folder)["peak_memory_mb"]
    _say(folder, f"finished in {seconds:.1f} s, {memory:.0f} MB")
    return 0


def _execute(folder: Path, plan: dict, minutes: float) -> Failure | None:
    """Run the notebook; None if every cell ran, else what stopped it."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    subject = Job.of(folder).subject or plan["first_subject"]
    values = (subject, plan["profile"], str(Path.cwd()))
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        end_children()

    # The whole chapter counts, not each cell, and the start of the kernel too.
    limit = threading.Timer(minutes * 60, stop)
    limit.daemon = True
    limit.start()
    try:
        # The names of sockets are short or refused, whatever TMPDIR is.
        short = "/tmp" if os.access("/tmp", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="eeglib-", dir=short) as sockets:
            papermill.execute_notebook(
                # Papermill takes a single brace for a parameter.
                re.sub("([{}])", r"\1\1", f"{plan['notebooks']}/{folder.name}.ipynb"),
                str(folder / NOTEBOOK),
                parameters=dict(zip(PARAMETERS, values, strict=True)),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=folder.absolute(),
                # All results are written; a kernel with PyTorch takes seconds to end by itself.
                shutdown_kernel="immediate",
                extra_arguments=["--HistoryManager.enabled=False"],
                # Kernels that start at the same moment may choose the same network port and then
                # wait for ever; files have names of their own.
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            )
    except PapermillExecutionError as error:
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        lines = re.findall(rf"Cell In\[{error.exec_count}\], line (\d+)", traceback)
        line = int(lines[-1]) if lines else None
        return Failure(folder, error.ename, error.evalue, error.exec_count, line, traceback)
    except (DeadKernelError, RuntimeError) as error:
        if expired.is_set():
            limits = f"{minutes:g} minutes, the limit of resources.{folder.name}.minutes"
            text = f"stopped after {limits} in the profile"
            return Failure(folder, "TimeLimit", text, _running_cell(folder / NOTEBOOK))
        if isinstance(error, DeadKernelError):
            return Failure(folder, "KernelDied", KERNEL_DIED, _running_cell(folder / NOTEBOOK))
        return Failure(folder, "KernelNotStarted", str(error))
    finally:
        limit.cancel()
    return None


def _running_cell(notebook: Path) -> int | None:
    """Execution count of the cell in which the kernel ended, from what papermill saved."""
    if not notebook.is_file():
        return None
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell["metadata"].get("papermill", {}) for cell in cells if cell["cell_type"] == "code"]
    return sum(times.get("start_time") is not None for times in code)


def _say(folder: Path, text: str) -> None:
    print(f"{folder}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
