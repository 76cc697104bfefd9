"""Seconds and peak memory of every chapter of a run: ``python -m benchmarks pipeline``.

Runs a profile (the demo) from nothing in a temporary folder and builds its book, or reads what an
earlier run measured (``--run-dir runs/demo``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from joblib import cpu_count

from eeglib.profile import Profile, load_profile
from eeglib.workflow.book import build_book
from eeglib.workflow.run import Request, run
from eeglib.workflow.stages import STAGES, jobs_of, site_folder
from eeglib.workflow.status import Result


def main(arguments: list[str]) -> int:
    """Measure, print a table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks pipeline", description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--run-dir", type=Path, help="read this run instead of making one")
    parser.add_argument("--jobs", type=int, default=1, help="chapters at the same time")
    options = parser.parse_args(arguments)
    if options.run_dir:
        profile = load_profile(options.run_dir / "profile.yml")
        return report(profile, options.run_dir, {"jobs": "unknown"})
    profile = load_profile(options.profile)
    with tempfile.TemporaryDirectory(prefix="eeglib-pipeline-") as folder:
        run_dir = Path(folder) / "run"
        timings: dict[str, object] = {"jobs": options.jobs}
        started = time.perf_counter()
        notebooks = site_folder() / "notebooks"
        subjects = profile.dataset.subjects
        request = Request(profile, run_dir, subjects, notebooks, jobs=options.jobs)
        failures = run(request)
        timings["run_s"] = round(time.perf_counter() - started, 1)
        for failure in failures:
            print(failure)
        if failures:
            return 1
        started = time.perf_counter()
        build_book(run_dir)
        timings["book_s"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        run(request)
        timings["unchanged_s"] = round(time.perf_counter() - started, 2)
        return report(profile, run_dir, timings)


def report(profile: Profile, run_dir: Path, timings: dict[str, object]) -> int:
    """Print the table of chapters and the closing line."""
    jobs = [job for stage in STAGES for job in jobs_of(stage, profile.dataset.subjects)]
    done = [r for r in (Result(job, run_dir) for job in jobs) if r.metrics]
    if not done:
        print(f"No finished chapter in {run_dir}.")
        return 1
    head = ["total_s", "kernel_s", "imports_s", "computing_s", "peak_mb"]
    print(f"{'chapter':34}" + "".join(f"{name:>12}" for name in head) + "  device")
    for result in done:
        known = result.provenance
        kernel, imports = _overhead(result)
        figures = [result.seconds or 0, kernel, imports, known["seconds"], known["peak_memory_mb"]]
        print(
            f"{result.job!s:34}" + "".join(f"{n:12.1f}" for n in figures) + f"  {known['device']}"
        )
    total = sum(result.seconds or 0 for result in done)
    overheads = [sum(_overhead(result)) for result in done]
    figures = {
        "total_s": round(total, 1),
        "peak_mb": round(max(r.provenance["peak_memory_mb"] for r in done)),
        "overhead_s_mean": round(sum(overheads) / len(done), 2),
        "overhead_s_max": round(max(overheads), 2),
        "chapters": len(done),
        "missing": len(jobs) - len(done),
        "cores": cpu_count(),
        **timings,
    }
    print("pipeline " + " ".join(f"{name}={value}" for name, value in figures.items()))
    return 0


def _overhead(result: Result) -> tuple[float, float]:
    """Seconds for starting and ending the kernel, and for the imports before the first call."""
    imports = 0.0
    for cell in result.notebook.cells:
        if "open_chapter(" in cell.source:
            break
        imports += cell.metadata.get("papermill", {}).get("duration") or 0.0
    outside = (result.seconds or 0.0) - result.provenance["seconds"]
    return max(0.0, outside - imports), imports
