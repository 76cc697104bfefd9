"""A run through a real Slurm: a cluster of one node on this machine, see slurm_one_node.sh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_project import STAGES, edit_cell, tiny_profile, tiny_request, write_notebooks

from eeglib.chapter import FAILURE, load_metrics
from eeglib.workflow.run import job_prefix, run
from eeglib.workflow.stages import Job, WorkflowError

SCRIPT = Path(__file__).with_name("slurm_one_node.sh")
DATA, FILTER = (stage.name for stage in STAGES[:2])
SUBJECTS = (1, 2, 3)
ONE_CORE = {c.name: {"cores": 1, "memory_mb": 700, "minutes": 3} for c in STAGES[:2]}
LOOK = """import os, subprocess
number = os.environ["SLURM_JOB_ID"]
told = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True).stdout
facts = {"job": number, "told": told, "gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
profile_seed ="""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Slurm that answers; skipped where it cannot be installed."""
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    folder.mkdir()
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, timeout=400)
    if started.returncode == 77:
        pytest.skip(f"no Slurm: {started.stderr.strip()}")
    assert started.returncode == 0, started.stderr
    yield folder
    subprocess.run([SCRIPT, "stop", folder], check=False)


def slurm_request(folder: Path, **changes):
    values = {"stages": STAGES[:2], "executor": "slurm", "jobs": 10, "subjects": SUBJECTS}
    values["profile"] = tiny_profile(resources=ONE_CORE, dataset__subjects=SUBJECTS)
    notebooks = folder / "notebooks"
    return tiny_request(notebooks, folder / "run", **{**values, **changes})


def test_subjects_run_through_sbatch_and_failures_are_told(cluster, tmp_path):
    folder = tmp_path / "Läufe auf dem Cluster"
    notebooks = write_notebooks(folder / "notebooks")
    edit_cell(notebooks / f"{FILTER}.ipynb", "profile_seed =", LOOK)
    edit_cell(notebooks / f"{FILTER}.ipynb", "finish()", "finish(facts=facts)")
    edit_cell(notebooks / f"{FILTER}.ipynb", "{data} {subject}", "{1 / (3 - subject)}")
    told: list[str] = []
    request = slurm_request(folder, keep_going=True)
    failures = run(request, told.append)
    found = [(f.job, f.error, f.line) for f in failures]
    assert found == [(Job(FILTER, 3), "ZeroDivisionError", 2)]
    facts = [load_metrics(request.run_dir / str(Job(FILTER, s))).facts for s in (1, 2)]
    assert facts[0]["job"] != facts[1]["job"]
    for found in facts:
        assert "TimeLimit=00:05:00" in found["told"]
        assert "NumCPUs=1" in found["told"]
        assert "mem=700M" in found["told"]
        assert f"JobName={job_prefix(request.run_dir)}" in found["told"]
        assert found["gpus"] == ""
    assert "has been submitted" in "\n".join(told)
    assert f"sub-03/{FILTER}" in "\n".join(told)


def test_a_run_that_is_killed_takes_its_jobs_along(cluster, tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks")
    edit_cell(notebooks / f"{DATA}.ipynb", "profile_seed =", "import time; time.sleep(500); x =")
    code = (
        "import sys; from pathlib import Path; from test_slurm import run, slurm_request;"
        "run(slurm_request(Path(sys.argv[1])))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    running = tmp_path / "run" / str(Job(DATA, None)) / FAILURE
    wait_for(running.is_file, 90)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not queue(), 60)


def test_jobs_of_an_earlier_run_are_not_doubled(cluster, tmp_path):
    write_notebooks(tmp_path / "notebooks")
    request = slurm_request(tmp_path)
    name = f"{job_prefix(request.run_dir)}-old"
    command = ["sbatch", "--parsable", "--output=/dev/null", "--job-name", name, "--wrap"]
    submitted = subprocess.run([*command, "sleep 100"], capture_output=True, text=True, check=True)
    number = submitted.stdout.strip()
    try:
        with pytest.raises(WorkflowError, match=f"scancel {number}"):
            run(request)
    finally:
        subprocess.run(["scancel", number], check=True)


def test_without_slurm_the_option_says_what_to_do(tmp_path, monkeypatch):
    write_notebooks(tmp_path / "notebooks")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkflowError, match="login node"):
        run(slurm_request(tmp_path))


def queue() -> str:
    command = ["squeue", "--noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def wait_for(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.5)
