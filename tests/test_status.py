"""Where a run stands: done, running, failed, stale, not yet; as lines and as a page."""

from __future__ import annotations

import shutil

from tiny_project import STAGES, edit_cell, tiny_request

from eeglib.workflow.job import Failure
from eeglib.workflow.processes import is_running, only_run_in
from eeglib.workflow.stages import Job
from eeglib.workflow.status import describe_status, read_status

DATA, FILTER, STUDENT, GROUP = (stage.name for stage in STAGES)


def test_every_state_is_told(tiny_site, tiny_run, tmp_path):
    shutil.copytree(tiny_site / "notebooks", tmp_path / "notebooks")
    shutil.copytree(tiny_run, tmp_path / "run")
    project = tiny_request(tmp_path / "notebooks", tmp_path / "run")
    student, filtered = (project.run_dir / str(Job(name, 2)) for name in (STUDENT, FILTER))
    (student / "metrics.json").unlink()
    Failure(student, "ValueError", "no trials", 6, 2).write()
    edit_cell(project.notebooks / f"{FILTER}.ipynb", "{data} {subject}", "{data}")
    shutil.rmtree(project.run_dir / str(Job(GROUP, None)))
    with only_run_in(project.run_dir):
        Failure(filtered, "Killed", "from outside").write()
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
    assert found[0].provenance["peak_memory_mb"] > 10
    assert found[0].seconds >= 0
    lines = describe_status(found)
    assert f"sub-02/{STUDENT}: failed: ValueError: no trials" in lines
    assert f"sub-01/{FILTER}: stale: code of the notebook has changed" in lines
    assert "Chapters: 2 stale, 1 done, 1 running, 1 failed, 1 not yet." in lines
    # The run was killed: nothing works any more.
    assert not is_running(project.run_dir)
    assert {str(s.job): s.state for s in read_status(project)}[f"sub-02/{FILTER}"] == "failed"


def test_nothing_has_run_yet(tiny_site, tmp_path):
    request = tiny_request(tiny_site / "notebooks", tmp_path / "empty")
    assert {status.state for status in read_status(request)} == {"not yet"}
    assert not (tmp_path / "empty").exists()
    assert "6 not yet" in describe_status(read_status(request))
