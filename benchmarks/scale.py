"""Many subjects with trivial chapters: ``python -m benchmarks scale --subjects 1000``.

What a run costs besides its chapters: planning and bookkeeping per job, memory, the book. One
subject runs for real; for the others a stand-in takes the place of papermill and leaves the same
files, so that the time left is that of eeglib and Snakemake. How much a job's own process adds to
papermill is measured beside it, on real executions of the same notebook.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from eeglib.profile import load_profile
from eeglib.workflow import run as workflow
from eeglib.workflow.book import build_book
from eeglib.workflow.run import Request, make_plan, run, stale_jobs
from eeglib.workflow.stages import Job, Stage, site_folder
from eeglib.workflow.status import describe_status, read_status

STAGES = (
    Stage("01_download_data", False),
    Stage("02_filter_signals", True, ("01_download_data",)),
    Stage("09_summarize_group", False, ("02_filter_signals",)),
)
WORK = {
    "01_download_data": "chapter.finish();",
    "02_filter_signals": (
        "import pandas as pd\n"
        'row = {"metric": "top-1", "value": 0.1, "chance": 0.1, "n": 80, "low": 0, "high": 0.2}\n'
        'chapter.finish(pd.DataFrame([{**row, "method": "cnn"}]));'
    ),
    "09_summarize_group": (
        "from eeglib.evaluation import attendance\n"
        'finished = {"02_filter_signals": list(chapter.results("02_filter_signals"))}\n'
        "display(attendance(chapter.profile.dataset.subjects, finished))\n"
        'chapter.finish(facts={"subjects": len(chapter.results("02_filter_signals"))});'
    ),
}
STAND_IN = """#!/bin/sh
# The 4th argument is the metrics.json to make; what subject 1 left is copied.
subject=${4%%/*}
folder=${4%/*}
mkdir -p "$folder"
cp sub-01/02_filter_signals/notebook.ipynb "$folder"
sed "s/\\"sub-01\\"/\\"$subject\\"/" \\
  sub-01/02_filter_signals/provenance.json >"$folder/provenance.json"
sed "s/\\"subject\\": 1,/\\"subject\\": ${subject#sub-},/; s/\\": 0*\\([1-9]\\)/\\": \\1/" \\
  sub-01/02_filter_signals/metrics.json >"$folder/metrics.json"
"""


def main(arguments: list[str]) -> int:
    """Measure and print the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2, help="jobs at the same time")
    parser.add_argument("--repeats", type=int, default=5, help="real executions to compare")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="eeglib-scale-") as folder:
        figures = _measure(Path(folder), options)
    print("scale " + " ".join(f"{name}={value}" for name, value in figures.items()))
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    site = _write_site(folder / "site")
    subjects = list(range(1, options.subjects + 1))
    request = Request(
        profile=load_profile("demo", {"dataset.subjects": subjects}),
        run_dir=folder / "run",
        subjects=subjects,
        notebooks=site / "notebooks",
        stages=STAGES,
        jobs=options.jobs,
        gpus=0,
    )
    only = replace(request, subjects=[1], stages=STAGES[:2])
    if run(only):
        raise SystemExit("the first subject failed")
    above_papermill = _above_papermill(only, options.repeats)
    started = time.perf_counter()
    stale = stale_jobs(request)
    planning = time.perf_counter() - started
    started, busy = time.perf_counter(), _processor_s()
    _run_stand_in(replace(request, stages=STAGES[:2]))
    bookkeeping, busy = time.perf_counter() - started, _processor_s() - busy
    memory = max(_peak_mb(resource.RUSAGE_SELF), _peak_mb(resource.RUSAGE_CHILDREN))
    if run(request):
        raise SystemExit("the group's chapter failed")
    started = time.perf_counter()
    left = stale_jobs(request)
    unchanged = time.perf_counter() - started
    if left:
        raise SystemExit(f"{len(left)} jobs are stale after the run")
    print(describe_status(read_status(request)))
    started = time.perf_counter()
    index = build_book(request.run_dir, site, STAGES)
    book = time.perf_counter() - started
    per_job = 1000 * bookkeeping / (options.subjects - 1)
    return {
        "subjects": options.subjects,
        "jobs": len(stale),
        "plan_s": round(planning, 2),
        "unchanged_s": round(unchanged, 2),
        "bookkeeping_ms_per_job": round(per_job, 1),
        "bookkeeping_cpu_ms_per_job": round(1000 * busy / (options.subjects - 1), 1),
        "job_process_ms": round(above_papermill, 1),
        "above_papermill_ms_per_job": round(per_job + max(0, above_papermill), 1),
        "peak_mb": round(memory),
        "book_s": round(book, 1),
        "book_pages": len(list(index.parent.rglob("*.html"))),
        "book_mb": round(_size_mb(index.parent), 1),
        "kb_per_job": round(1000 * _size_mb(request.run_dir / "sub-01"), 1),
        "simultaneous": options.jobs,
    }


def _above_papermill(request: Request, repeats: int) -> float:
    """Milliseconds that a job's process takes above the command papermill, shortest of each.

    The shortest, because whatever else the machine does can only add.
    """
    job = Job("02_filter_signals", 1)
    folder = request.run_dir / str(job)
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    own = [sys.executable, "-P", "-m", "eeglib.workflow.job", job.metrics, "1"]
    values = {"profile": request.run_dir / "profile.yml", "run_dir": request.run_dir}
    papermill = [sys.executable, "-P", "-m", "papermill", "--no-progress-bar"]
    papermill += ["--kernel", "python3", "--language", "python"]
    papermill += [str(request.notebooks / f"{job.chapter}.ipynb"), str(folder / "copy.ipynb")]
    papermill += ["-p", "subject", "1"]
    papermill += [part for name, value in values.items() for part in ("-p", name, str(value))]
    seconds: dict[str, list[float]] = {"own": [], "papermill": []}
    for _ in range(repeats):
        for name, command in (("own", own), ("papermill", papermill)):
            started = time.perf_counter()
            subprocess.run(
                command, cwd=request.run_dir, env=environment, check=True, capture_output=True
            )
            seconds[name].append(time.perf_counter() - started)
    (folder / "copy.ipynb").unlink()
    shortest = {name: min(values) for name, values in seconds.items()}
    print(f"one trivial chapter: {shortest['own']:.2f} s, papermill {shortest['papermill']:.2f} s")
    # Papermill wrote the results last; they are the same, but their record is the job's.
    subprocess.run(own, cwd=request.run_dir, env=environment, check=True, capture_output=True)
    return 1000 * (shortest["own"] - shortest["papermill"])


def _run_stand_in(request: Request) -> None:
    """Run with a script in the place of the jobs' Python."""
    script = request.run_dir / "stand-in.sh"
    script.write_text(STAND_IN, encoding="utf-8")
    script.chmod(0o755)

    def plan(request: Request) -> dict:
        return {**make_plan(request), "python": str(script)}

    with patch.object(workflow, "make_plan", plan):
        failures = run(request)
    if failures:
        raise SystemExit(f"{len(failures)} jobs failed")


def _write_site(folder: Path) -> Path:
    """Write a book of the three chapters with the project's own configuration."""
    (folder / "notebooks").mkdir(parents=True)
    for chapter in STAGES:
        whose = ", subject" if chapter.per_subject else ""
        opening = f'chapter = open_chapter("{chapter.name}", profile, run_dir{whose})'
        parameters = 'subject = 1\nprofile = "demo"\nrun_dir = "runs/demo"'
        cells = [
            new_markdown_cell(f"# Chapter {chapter.name[:2]}"),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            new_code_cell(f"from eeglib.chapter import open_chapter\n\n{opening}"),
            new_code_cell(WORK[chapter.name]),
        ]
        nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{chapter.name}.ipynb")
    (folder / "book").mkdir()
    shutil.copy(site_folder() / "_config.yml", folder)
    shutil.copy(site_folder() / "book" / "references.bib", folder / "book")
    shutil.copytree(site_folder() / "book" / "_static", folder / "book" / "_static")
    (folder / "book" / "introduction.md").write_text("# Many subjects\n", encoding="utf-8")
    files = [{"file": f"notebooks/{chapter.name}"} for chapter in STAGES]
    toc = {"format": "jb-book", "root": "book/introduction"}
    toc["parts"] = [{"caption": "Chapters", "chapters": files}]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    return folder


def _processor_s() -> float:
    """Processor time of this process and its ended children: other programs do not lengthen it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
