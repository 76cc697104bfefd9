"""Where a run stands: done, running, failed, stale, not yet; as lines and as a page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from tiny_project import CHAPTERS, edit_cell, tiny_request

from eeglib.chapter import FAILURE, RUNNING
from eeglib.workflow.chapters import Job
from eeglib.workflow.locks import is_running, only_run_in
from eeglib.workflow.status import JobStatus, count_states, describe_status, read_status

DATA, FILTER, STUDENT, GROUP = (chapter.name for chapter in CHAPTERS)


@pytest.fixture
def project(tiny_site, tiny_run, tmp_path):
    """Copies of the tiny notebooks and of their finished run."""
    shutil.copytree(tiny_site / "notebooks", tmp_path / "notebooks")
    shutil.copytree(tiny_run, tmp_path / "run")
    return tiny_request(tmp_path / "notebooks", tmp_path / "run")


def states(request) -> dict[str, str]:
    return {str(status.job): status.state for status in read_status(request)}


def test_everything_is_done_with_time_and_memory(project):
    statuses = read_status(project)
    assert {s.state for s in statuses} == {"done"}
    assert all(s.memory_mb > 10 and s.seconds >= 0 for s in statuses)
    told = describe_status(statuses, CHAPTERS)
    assert "chapters: 6 done" in told
    assert "sub-02" in told


def test_every_state_is_told(project):
    folder = project.run_dir / Job(STUDENT, 2).folder
    (folder / "metrics.json").unlink()
    failure = {"cell": 6, "line": 2, "error": "ValueError", "message": "no trials"}
    (folder / FAILURE).write_text(json.dumps({**failure, "traceback": ""}))
    edit_cell(project.notebooks / f"{FILTER}.ipynb", "{data} {subject}", "{data}")
    shutil.rmtree(project.run_dir / Job(GROUP, None).folder)
    with only_run_in(project.run_dir):
        running = {"host": "node7", "pid": 1, "started_at": "2026-01-01", "gpus": []}
        (project.run_dir / Job(FILTER, 2).folder / RUNNING).write_text(json.dumps(running))
        assert is_running(project.run_dir)
        found = read_status(project)
    assert {str(s.job): s.state for s in found} == {
        f"group/{DATA}": "done",
        f"sub-01/{FILTER}": "stale",
        f"sub-02/{FILTER}": "running",
        f"sub-01/{STUDENT}": "stale",
        f"sub-02/{STUDENT}": "failed",
        f"group/{GROUP}": "not yet",
    }
    told = describe_status(found, CHAPTERS)
    assert f"sub-02/{STUDENT}: failed: ValueError: no trials" in told
    assert f"sub-01/{FILTER}: stale: the notebook's code has changed" in told
    assert "1 done, 1 running, 1 failed, 2 stale, 1 not yet" in told


def test_a_job_that_was_killed_is_not_shown_as_running(project):
    (project.run_dir / Job(FILTER, 1).folder / RUNNING).write_text("{}")
    assert not is_running(project.run_dir)
    assert states(project)[f"sub-01/{FILTER}"] == "done"


def test_of_many_subjects_only_those_with_news_are_listed(project):
    subjects = range(1, 1001)
    statuses = [JobStatus(Job(FILTER, s), "failed" if s == 700 else "done") for s in subjects]
    told = describe_status(statuses, [CHAPTERS[1]])
    assert len(told.splitlines()) < 10
    assert "sub-700" in told
    assert "999 subjects more" in told
    assert count_states(statuses) == "999 done, 1 failed"


def test_nothing_has_run_yet(project, tmp_path):
    empty = replace(project, run_dir=tmp_path / "empty")
    assert set(states(empty).values()) == {"not yet"}
    assert not (tmp_path / "empty").exists()
