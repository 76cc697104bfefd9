"""The book on a GPU: ``python -m benchmarks gpu_run``, within 8 minutes.

Trains the student and the ten methods of one subject, then runs the demo and one subject of
profile ``paper`` from nothing, and prints the seconds of every chapter and the share of the time in
which the GPU computes (as ``nvidia-smi`` samples it; for the student as torch.profiler adds it up).
What does not finish before ``--limit`` is stopped and called ``unfinished``. Without a GPU it says
so; ``--smoke`` tries the student and a tiny data set on whatever is there.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from joblib import cpu_count

from benchmarks import training
from eeglib.profile import load_profile
from eeglib.workflow.stages import STAGES, jobs_of
from eeglib.workflow.status import Result

CLI = [sys.executable, "-c", "from eeglib.cli import main; main()", "run"]
SMOKE = ["--only", "01"]
SMOKE += ["--set", "dataset.options={n_classes: 2, images_per_class: 4, classes_per_session: 2}"]


def main(arguments: list[str]) -> int:
    """Measure, print the tables and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu_run", description=__doc__)
    parser.add_argument("--jobs", type=int, default=max(1, min(8, cpu_count() // 2)))
    parser.add_argument("--limit", type=float, default=460, help="seconds for everything")
    parser.add_argument("--epochs", type=int, default=50, help="of the student and the methods")
    parser.add_argument("--smoke", action="store_true", help="a tiny variant, on any device")
    options = parser.parse_args(arguments)
    if not (torch.cuda.is_available() or options.smoke):
        print("gpu_run: PyTorch sees no GPU here, so nothing is measured; --smoke tries it anyway")
        return 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "a processor"
    print(f"{name}, {cpu_count()} cores, {options.jobs} jobs, torch {torch.__version__}")
    ends = time.monotonic() + options.limit
    figures = {"demo_s": "unfinished", "paper_subject_s": "unfinished"}
    figures |= _student(device, options)
    with tempfile.TemporaryDirectory(prefix="eeglib-gpu-") as folder:
        for key, profile, subjects in (
            ("demo_s", "demo", "all"),
            ("paper_subject_s", "paper", "1"),
        ):
            command = ["--profile", profile, "--subjects", subjects, "--jobs", str(options.jobs)]
            if options.smoke and profile == "paper":
                figures[key] = "skipped"
                continue
            command += SMOKE if options.smoke else []
            seconds = _run(command, Path(folder, profile), ends - time.monotonic())
            figures[key] = "unfinished" if seconds is None else f"{seconds:.1f}"
    order = ["demo_s", "paper_subject_s", "student_50_epochs_s", "rows_s", "speedup_vs_dataloader"]
    print("gpu " + " ".join(f"{key}={figures[key]}" for key in [*order, "busy_share"]))
    return 0


def _student(device: str, options: argparse.Namespace) -> dict[str, str]:
    """The student's training, and that of all methods of one subject."""
    data = training._data()
    measured = training._on_device(
        device, data, argparse.Namespace(epochs=options.epochs, repeats=1 if options.smoke else 3)
    )
    busy = training._busy_share(device, data)
    rows = None if options.smoke else training._methods_seconds(device, options.epochs)
    return {
        "student_50_epochs_s": f"{measured['student_s']:.2f}",
        "speedup_vs_dataloader": f"{measured['vs_dataloader']:.2f}",
        "busy_share": f"{busy:.3f}",
        "rows_s": "skipped" if rows is None else f"{rows:.1f}",
    }


def _run(arguments: list[str], run_dir: Path, limit: float) -> float | None:
    """Run a profile and print its chapters; seconds, or None where it did not finish."""
    started = time.monotonic()
    with _utilization() as samples:
        process = subprocess.Popen([*CLI, *arguments, "--run-dir", str(run_dir)])
        try:
            status = process.wait(max(1.0, limit))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # its jobs end with it
            status = process.wait()
    seconds = time.monotonic() - started
    _print_chapters(run_dir)
    busy = f"{np.mean(samples) / 100:.1%} of the time" if samples else "for a time not known"
    print(f"{' '.join(arguments[:4])}: {seconds:.1f} s, exit status {status}; GPU computes {busy}")
    return seconds if status == 0 else None


def _print_chapters(run_dir: Path) -> None:
    if not (run_dir / "profile.yml").is_file():
        return
    subjects = load_profile(run_dir / "profile.yml").dataset.subjects
    print(f"{'chapter':34}{'seconds':>9}{'inside':>9}{'gpu_mb':>9}  device")
    for job in (job for stage in STAGES for job in jobs_of(stage, subjects)):
        result = Result(job, run_dir)
        if result.metrics:
            about = result.provenance
            memory = about["peak_gpu_memory_mb"] or 0
            print(
                f"{job!s:34}{result.seconds or 0:9.1f}{about['seconds']:9.1f}{memory:9.0f}  "
                f"{about['device']}",
                flush=True,
            )


@contextlib.contextmanager
def _utilization():
    """Fill a list with percentages of time in which a kernel ran, five a second."""
    samples: list[float] = []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile("w+") as file:
        try:
            watch = subprocess.Popen(
                [*query, "--loop-ms=200"], stdout=file, stderr=subprocess.DEVNULL
            )
        except OSError:  # no driver, no samples
            yield samples
            return
        try:
            yield samples
        finally:
            watch.terminate()
            watch.wait()
            file.seek(0)
            samples += [float(line) for line in file if line.strip().isdigit()]
