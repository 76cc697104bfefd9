"""Faults, really caused: killed processes, a full disk, no memory, a hanging notebook."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_project import STAGES, edit_cell, tiny_profile, tiny_request, write_notebooks

from eeglib.chapter import FAILURE, METRICS, load_metrics
from eeglib.workflow.book import stage_book
from eeglib.workflow.job import Failure
from eeglib.workflow.run import run, stale_jobs
from eeglib.workflow.stages import Job, WorkflowError
from eeglib.workflow.status import read_status

DATA, FILTER, STUDENT, GROUP = (stage.name for stage in STAGES)
CODE = (
    "import sys; from pathlib import Path; from tiny_project import tiny_request;"
    "from eeglib.workflow.run import run;"
    "sys.exit(len(run(tiny_request(Path(sys.argv[1]), Path(sys.argv[2])))))"
)


def start(notebooks: Path, run_dir: Path, **variables: str) -> subprocess.Popen:
    """Start a run of the tiny chapters in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CODE, str(notebooks), str(run_dir)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, **variables}, **output)


def finished(run_dir: Path) -> dict[str, bytes]:
    """What a run found, by job: equal results are equal files."""
    paths = [p for p in sorted(run_dir.glob(f"*/*/{METRICS}")) if not (p.parent / FAILURE).exists()]
    return {f"{p.parent.parent.name}/{p.parent.name}": p.read_bytes() for p in paths}


def kernels_of(process: psutil.Process) -> list[psutil.Process]:
    children = process.children(recursive=True)
    return [child for child in children if "ipykernel_launcher" in " ".join(child.cmdline())]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_finished(
    tiny_site, tiny_run, tmp_path
):
    notebooks, run_dir = tiny_site / "notebooks", tmp_path / "run"
    chance = random.Random(0)
    for kill_kernel in (False, True, False):
        process = start(notebooks, run_dir)
        time.sleep(chance.uniform(2, 6))
        before = finished(run_dir)
        try:
            victims = kernels_of(psutil.Process(process.pid)) if kill_kernel else []
            for victim in victims or [psutil.Process(process.pid)]:
                victim.kill()
        except psutil.NoSuchProcess:
            pass
        process.communicate(timeout=120)
        kept = finished(run_dir)
        assert before.items() <= kept.items()
    before = finished(run_dir)
    assert run(tiny_request(notebooks, run_dir)) == []
    assert before.items() <= finished(run_dir).items()
    assert finished(run_dir) == finished(tiny_run)
    assert not list(run_dir.glob(f"*/*/{FAILURE}"))


def test_nothing_goes_on_after_the_run_was_killed(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks")
    edit_cell(notebooks / f"{DATA}.ipynb", "profile_seed =", "import time; time.sleep(300); x =")
    process = start(notebooks, tmp_path / "run")
    running = tmp_path / "run" / str(Job(DATA, None)) / FAILURE
    wait_for(running.is_file)
    wait_for(lambda: kernels_of(psutil.Process(process.pid)))
    tree = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not [p for p in tree if p.is_running() and p.status() != "zombie"])


def test_an_interrupt_ends_the_run_and_its_jobs(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks")
    edit_cell(notebooks / f"{DATA}.ipynb", "profile_seed =", "import time; time.sleep(300); x =")
    process = start(notebooks, tmp_path / "run")
    wait_for((tmp_path / "run" / str(Job(DATA, None)) / FAILURE).is_file)
    tree = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in told.splitlines()[-1]
    wait_for(lambda: not [p for p in tree if p.is_running() and p.status() != "zombie"])


def test_two_runs_in_one_folder_at_once(tiny_site, tmp_path):
    notebooks, run_dir = tiny_site / "notebooks", tmp_path / "run"
    first = start(notebooks, run_dir)
    wait_for(lambda: list(run_dir.glob(f"*/*/{FAILURE}")))
    second = start(notebooks, run_dir)
    told, _ = second.communicate(timeout=60)
    assert second.returncode != 0
    assert "Another eeglib run works in" in told
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_a_full_disk_is_named_and_nothing_finished_is_lost(tmp_path):
    disk = tmp_path / "small disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs root to mount")
    try:
        notebooks = write_notebooks(tmp_path / "notebooks")
        fill = 'chapter.output("big.bin").write_bytes(bytes(10_000_000)); profile_seed ='
        edit_cell(notebooks / f"{STUDENT}.ipynb", "profile_seed =", fill)
        request = tiny_request(notebooks, disk / "run")
        with pytest.raises(WorkflowError, match="No space is left on the disk"):
            run(request)
        before = finished(disk / "run")
        assert len(before) >= 2
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        assert run(request) == []
        assert before.items() <= finished(disk / "run").items()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_out_of_memory_in_one_subject_leaves_the_others(tmp_path):
    groups = Path("/sys/fs/cgroup/memory")
    version1 = (groups / "memory.limit_in_bytes").exists()
    group = (groups if version1 else groups.parent) / f"eeglib-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if version1 else "memory.max")
    try:
        group.mkdir()
        limit.write_text("400000000")
    except OSError:
        pytest.skip("a limit that the system enforces needs a writable cgroup for memory")
    try:
        notebooks = write_notebooks(tmp_path / "notebooks")
        greedy = (
            "import os\n"
            f"if subject == 2: open('{group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
            "if subject == 2: kept = [bytearray(os.urandom(1)) * 10_000_000 for _ in range(100)]\n"
            "profile_seed ="
        )
        edit_cell(notebooks / f"{FILTER}.ipynb", "profile_seed =", greedy)
        request = tiny_request(notebooks, tmp_path / "run", keep_going=True)
        failures = run(request)
        assert [(f.job, f.error) for f in failures] == [(Job(FILTER, 2), "KernelDied")]
        assert "lack of memory" in failures[0].message
        assert load_metrics(tmp_path / "run" / "group" / GROUP).facts == {"subjects": [1]}
        states = {str(s.job): s.state for s in read_status(request)}
        assert states[f"sub-02/{FILTER}"] == "failed"
        assert states[f"sub-01/{STUDENT}"] == "done"
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()


def test_a_job_that_is_killed_is_told_and_the_others_finish(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks")
    suicide = "import os, signal\nif subject == 2: os.kill(os.getppid(), signal.SIGKILL)\ny ="
    edit_cell(notebooks / f"{FILTER}.ipynb", "profile_seed =", suicide)
    request = tiny_request(notebooks, tmp_path / "run", keep_going=True, stages=STAGES[:2])
    failures = run(request)
    assert [(f.job, f.error) for f in failures] == [(Job(FILTER, 2), "Killed")]
    assert finished(tmp_path / "run").keys() == {str(Job(DATA, None)), str(Job(FILTER, 1))}


def test_a_notebook_that_hangs_is_stopped_after_its_time(tmp_path):
    notebooks = write_notebooks(tmp_path / "notebooks")
    # Many short cells would pass a limit that counts for each cell.
    hang = "import time\nif subject == 2: time.sleep(300)\nprofile_seed ="
    edit_cell(notebooks / f"{FILTER}.ipynb", "profile_seed =", hang)
    profile = tiny_profile(resources={FILTER: {"minutes": 0.15}})
    began = time.monotonic()
    request = tiny_request(
        notebooks, tmp_path / "run", profile=profile, keep_going=True, stages=STAGES[:2]
    )
    failures = run(request)
    assert time.monotonic() - began < 90
    assert [(f.job, f.error) for f in failures] == [(Job(FILTER, 2), "TimeLimit")]
    assert f"resources.{FILTER}.minutes" in failures[0].message
    executed = json.loads((failures[0].folder / "notebook.ipynb").read_text(encoding="utf-8"))
    code = [c for c in executed["cells"] if c["cell_type"] == "code"]
    assert "time.sleep" in "".join(code[failures[0].cell - 1]["source"])


def test_a_corrupt_file_is_found_by_its_checksum_before_it_is_read(tiny_site, tiny_run, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    path = run_dir / f"sub-01/{FILTER}/epochs.txt"
    right = path.read_text()
    path.write_text(right[::-1])  # the disk has changed a bit: the size is as it was
    (run_dir / f"sub-01/{STUDENT}/{METRICS}").unlink()
    request = tiny_request(tiny_site / "notebooks", run_dir)
    (failure,) = run(request)
    assert failure.job == Job(STUDENT, 1)
    assert "is damaged or was edited. Delete it and run: eeglib run" in failure.message
    path.unlink()
    assert run(request) == []
    assert path.read_text() == right
    assert finished(run_dir) == finished(tiny_run)


def test_what_a_left_out_method_wrote_does_not_stay(tiny_site, tiny_run, tmp_path):
    notebooks, run_dir = tmp_path / "notebooks", tmp_path / "run"
    shutil.copytree(tiny_site / "notebooks", notebooks)
    shutil.copytree(tiny_run, run_dir)
    edit_cell(notebooks / f"{STUDENT}.ipynb", '"line")', '"other")')
    assert run(tiny_request(notebooks, run_dir)) == []
    figures = run_dir / f"sub-01/{STUDENT}/figures"
    assert [path.name for path in figures.iterdir()] == ["other.png"]


def test_clock_and_locale_do_not_matter(tiny_site, tiny_run, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    # As if everything had been written tomorrow, or in 1971.
    for number, path in enumerate(sorted(p for p in run_dir.rglob("*") if p.is_file())):
        seconds = time.time() + 86400 if number % 2 else 4e7
        os.utime(path, (seconds, seconds))
    for name in ("LANG", "LC_ALL"):
        monkeypatch.setenv(name, "tr_TR.ISO-8859-9")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert stale_jobs(tiny_request(tiny_site / "notebooks", run_dir)) == {}


def test_a_home_that_cannot_be_written_is_not_needed(tiny_site, tiny_run, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a read-only home needs root to mount")
    try:
        run_dir = tmp_path / "Ergebnisse ü 1"
        variables = {"HOME": str(home)}
        process = start(tiny_site / "notebooks", run_dir, **variables)
        told, _ = process.communicate(timeout=200)
        assert process.returncode == 0, told
        assert finished(run_dir) == finished(tiny_run)
        assert list(home.iterdir()) == []
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_a_broken_notebook_of_a_failed_chapter_does_not_stop_the_book(
    tiny_site, tiny_run, tmp_path
):
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    folder = run_dir / str(Job(STUDENT, 2))
    (folder / METRICS).unlink()
    (folder / "notebook.ipynb").write_text('{"cells": [')
    Failure(folder, "Killed", "disk full").write()
    staging = stage_book(run_dir, tiny_site, STAGES)
    page = staging / "subjects" / "sub-02" / f"{STUDENT}.ipynb"
    assert "disk full" in page.read_text(encoding="utf-8")


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
