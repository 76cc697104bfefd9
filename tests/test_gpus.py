"""GPUs: which a machine shows, which a job gets; no GPU is needed, only the environment counts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny_project import STAGES, edit_cell, tiny_profile, tiny_request, write_notebooks

from eeglib.chapter import load_metrics
from eeglib.workflow import gpus
from eeglib.workflow.run import make_plan, run
from eeglib.workflow.stages import Job, WorkflowError

FILTER, STUDENT = STAGES[1].name, STAGES[2].name
ON_GPU = tuple(s._replace(gpus=1) if s.name == STUDENT else s for s in STAGES)
CLAIM = """
import sys, time
from pathlib import Path
from eeglib.workflow.gpus import claim_gpu
print(claim_gpu(int(sys.argv[1]), print, Path(sys.argv[2])), flush=True)
time.sleep(60)
"""


@pytest.fixture
def claims(tmp_path):
    """Start processes that take GPUs and hold them; gives the first line of each."""
    running = []

    def claim(devices: str, slots: int = 1, each: int = 1) -> subprocess.Popen:
        environment = {**os.environ, gpus.OFFERED: devices, gpus.SLOTS: str(slots)}
        command = [sys.executable, "-c", CLAIM, str(each), str(tmp_path)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield claim
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("0,1", ["0", "1"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("", []), ("1,-1,2", ["1"])],
)
def test_the_devices_are_those_that_cuda_shows(monkeypatch, shown, expected):
    monkeypatch.setenv(gpus.VISIBLE, shown)
    assert gpus.visible_gpus() == expected


def test_without_a_choice_the_driver_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible_gpus() == []
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    driver.chmod(0o755)
    assert gpus.visible_gpus() == ["0", "1"]


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    assert gpus.choose_gpus(None) == ["0", "1"]
    assert gpus.choose_gpus(1) == ["0"]
    assert gpus.choose_gpus(0) == []
    with pytest.raises(WorkflowError, match=r"--gpus 4, but this machine shows 2"):
        gpus.choose_gpus(4)


def test_two_jobs_never_share_a_gpu(claims):
    first, second = claims("0,1"), claims("0,1")
    taken = {first.stdout.readline().strip(), second.stdout.readline().strip()}
    assert taken == {"0", "1"}
    third = claims("0,1")
    assert "waits for a GPU" in third.stdout.readline()
    # A job that is killed gives its device back.
    first.kill()
    first.wait()
    assert third.stdout.readline().strip() in taken


def test_jobs_share_a_gpu_where_asked_and_spread_first(claims):
    lines = [claims("0,1", slots=2).stdout.readline().strip() for _ in range(4)]
    assert sorted(lines[:2]) == ["0", "1"]
    assert sorted(lines[2:]) == ["0", "1"]


def test_a_job_takes_as_many_slots_of_one_gpu_as_its_memory_needs(claims):
    first = claims("0,1", slots=4, each=3)
    assert first.stdout.readline().strip() == "0"
    assert claims("0,1", slots=4, each=2).stdout.readline().strip() == "1"
    assert claims("0,1", slots=4, each=2).stdout.readline().strip() == "1"
    large = claims("0,1", slots=4, each=2)
    assert "waits" in large.stdout.readline()
    assert claims("0,1", slots=4).stdout.readline().strip() == "0"
    first.kill()
    first.wait()
    assert large.stdout.readline().strip() == "0"


def test_a_job_that_needs_none_sees_none(monkeypatch, tmp_path):
    monkeypatch.setenv(gpus.OFFERED, "0")
    monkeypatch.setenv(gpus.VISIBLE, "0")
    assert gpus.claim_gpu(0, print, tmp_path) is None
    assert os.environ[gpus.VISIBLE] == ""


def test_the_choice_of_a_cluster_stands(monkeypatch, tmp_path):
    monkeypatch.delenv(gpus.OFFERED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, "3")
    assert gpus.claim_gpu(1, print, tmp_path) == "3"
    assert os.environ[gpus.VISIBLE] == "3"


MEET = """
import os, time
from pathlib import Path
seen = os.environ["CUDA_VISIBLE_DEVICES"]
Path(f"../../met-{subject}").touch()
until = time.monotonic() + 100
while len(list(Path("../..").glob("met-*"))) < 2:
    assert time.monotonic() < until, "the other subject does not run at the same time"
    time.sleep(0.1)
share = 1"""


def test_each_chapter_of_a_run_sees_one_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(gpus.VISIBLE, "4,5")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebooks = write_notebooks(tmp_path / "notebooks")
    look = "import os; seen = os.environ['CUDA_VISIBLE_DEVICES']; x ="
    edit_cell(notebooks / f"{FILTER}.ipynb", "profile_seed =", look)
    edit_cell(notebooks / f"{FILTER}.ipynb", "finish()", 'finish(facts={"seen": seen})')
    edit_cell(notebooks / f"{STUDENT}.ipynb", "\nshare = 1 / (subject - profile_seed)", MEET)
    edit_cell(notebooks / f"{STUDENT}.ipynb", "Frame([row])", 'Frame([row]), {"seen": seen}')
    request = tiny_request(notebooks, tmp_path / "run", stages=ON_GPU, gpus=2)
    assert run(request) == []
    seen = [load_metrics(tmp_path / "run" / str(Job(STUDENT, s))).facts["seen"] for s in (1, 2)]
    assert sorted(seen) == ["4", "5"]
    assert load_metrics(tmp_path / "run" / str(Job(FILTER, 1))).facts["seen"] == ""


def test_without_a_gpu_the_same_chapters_are_planned(monkeypatch, tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks")
    request = tiny_request(notebooks, tmp_path / "run", stages=ON_GPU)
    for shown, expected in (("", 0), ("0", 1)):
        monkeypatch.setenv(gpus.VISIBLE, shown)
        planned = {stage["name"]: stage["gpus"] for stage in make_plan(request)["stages"]}
        assert planned == {c.name: expected if c.name == STUDENT else 0 for c in STAGES}


@pytest.mark.parametrize(
    ("answer", "needs", "jobs_per_gpu", "expected"),
    [
        ("81559\\n40000", None, None, (8, 1)),  # 3,000 of 40,000 MB
        ("40000", 12_000, None, (8, 3)),
        ("40000", 90_000, None, (8, 8)),  # it may try
        ("40000", 12_000, 2, (2, 1)),
        ("[N/A]", None, None, (8, 8)),  # alone, where nobody knows
    ],
)
def test_jobs_share_a_gpu_by_memory(monkeypatch, tmp_path, answer, needs, jobs_per_gpu, expected):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\necho '{answer}'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    monkeypatch.setattr("eeglib.workflow.run.cpu_count", lambda: 8)
    profile = tiny_profile(resources={STUDENT: {"gpu_memory_mb": needs}})
    changes = {"profile": profile, "stages": ON_GPU, "jobs_per_gpu": jobs_per_gpu}
    plan = make_plan(tiny_request(write_notebooks(tmp_path / "nb"), tmp_path / "run", **changes))
    stage = next(s for s in plan["stages"] if s["name"] == STUDENT)
    assert (plan["slots_per_gpu"], stage["slots"]) == expected


def test_the_profile_may_say_how_many(monkeypatch, tmp_path):
    monkeypatch.setenv(gpus.VISIBLE, "0,1,2")
    notebooks = write_notebooks(tmp_path / "notebooks")
    profile = tiny_profile(resources={STUDENT: {"gpus": 1, "memory_mb": 7, "minutes": 1.5}})
    plan = make_plan(tiny_request(notebooks, tmp_path / "run", profile=profile))
    stage = next(s for s in plan["stages"] if s["name"] == STUDENT)
    assert (stage["memory_mb"], stage["gpus"], stage["minutes"]) == (7, 1, 1.5)
