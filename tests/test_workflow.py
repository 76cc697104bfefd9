"""Running: what is stale, what runs, what is said when something fails."""

from __future__ import annotations

import errno
import json
import shutil
import sys

import nbformat
import pytest
from tiny_project import CHAPTERS, edit_cell, tiny_profile, tiny_request, write_notebooks

from eeglib.chapter import load_metrics
from eeglib.profile import Profile
from eeglib.workflow import chapters as table
from eeglib.workflow.chapters import Chapter, Job, WorkflowError, parse_subjects, select_chapters
from eeglib.workflow.locks import only_run_in
from eeglib.workflow.notebooks import check_notebook
from eeglib.workflow.planning import plan_run, site_folder
from eeglib.workflow.run import run
from eeglib.workflow.staleness import describe_chapter, module_hashes

DATA, FILTER, STUDENT, GROUP = (chapter.name for chapter in CHAPTERS)


@pytest.fixture
def project(tiny_site, tiny_run, tmp_path):
    """Copies of the tiny notebooks and of their finished run."""
    notebooks, run_dir = tmp_path / "notebooks", tmp_path / "run"
    shutil.copytree(tiny_site / "notebooks", notebooks)
    shutil.copytree(tiny_run, run_dir)
    return tiny_request(notebooks, run_dir)


def stale(request) -> list[str]:
    return [str(job) for job in plan_run(request)[0]]


def started(run_dir) -> dict[str, str]:
    """When each notebook was executed."""
    times = {}
    for path in run_dir.glob("*/*/notebook.ipynb"):
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        times[f"{path.parent.parent.name}/{path.parent.name}"] = metadata["papermill"]["start_time"]
    return times


def test_all_chapters_run_for_all_subjects(tiny_run):
    assert sorted(started(tiny_run)) == sorted(
        [f"group/{DATA}", f"group/{GROUP}"]
        + [f"sub-0{s}/{name}" for s in (1, 2) for name in (FILTER, STUDENT)]
    )
    assert load_metrics(tiny_run / "group" / GROUP).facts == {"subjects": [1, 2]}
    kernel = json.loads((tiny_run / ".jupyter/kernels/eeglib/kernel.json").read_text())
    assert kernel["argv"][0] == sys.executable


def test_a_run_that_changes_nothing_starts_nothing(project):
    before, told = started(project.run_dir), []
    assert run(project, told.append) == []
    assert started(project.run_dir) == before
    assert len(told) == 1
    assert "up to date" in told[0]


def test_edited_text_runs_nothing(project):
    edit_cell(project.notebooks / f"{STUDENT}.ipynb", "A sentence.", "Another sentence.")
    assert stale(project) == []


def test_edited_code_runs_the_chapter_and_those_after_it(project):
    notebook = project.notebooks / f"{STUDENT}.ipynb"
    edit_cell(notebook, "1 / (subject", "2 / (subject")
    assert stale(project) == [f"sub-01/{STUDENT}", f"sub-02/{STUDENT}", f"group/{GROUP}"]
    edit_cell(notebook, "2 / (subject", "1 / (subject")
    assert stale(project) == []


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"title": "another"}, []),
        ({"teacher__patience": 3}, []),
        ({"evaluation__n_bootstrap": 9}, [f"group/{GROUP}"]),
        (
            {"training__max_epochs": 2},
            [f"sub-01/{STUDENT}", f"sub-02/{STUDENT}", f"group/{GROUP}"],
        ),
    ],
)
def test_a_changed_setting_runs_the_chapters_that_read_it(project, setting, expected):
    request = tiny_request(project.notebooks, project.run_dir, profile=tiny_profile(**setting))
    assert stale(request) == expected


def test_a_damaged_output_is_made_again(project):
    (project.run_dir / f"sub-01/{FILTER}/epochs.txt").write_text("")
    expected = [f"sub-01/{FILTER}", f"sub-01/{STUDENT}", f"group/{GROUP}"]
    assert stale(project) == expected


def test_other_results_upstream_run_those_computed_from_them(project):
    metrics = project.run_dir / f"sub-02/{FILTER}/metrics.json"
    metrics.write_text(metrics.read_text().replace('"facts":{}', '"facts":{"a":1}') + " ")
    assert stale(project) == [f"sub-02/{STUDENT}", f"group/{GROUP}"]


def test_force_and_only(project):
    only = select_chapters(["5"], CHAPTERS)
    forced = tiny_request(project.notebooks, project.run_dir, only=only, force=True, subjects=[2])
    assert stale(forced) == [f"sub-02/{STUDENT}"]


@pytest.fixture(scope="module")
def failed(tiny_site, tiny_run, tmp_path_factory):
    """A finished run, then an edit of chapter 5 that breaks it for subject 2, then a run."""
    folder = tmp_path_factory.mktemp("failed")
    notebooks, run_dir = folder / "notebooks", folder / "run"
    shutil.copytree(tiny_site / "notebooks", notebooks)
    shutil.copytree(tiny_run, run_dir)
    edit_cell(notebooks / f"{STUDENT}.ipynb", "- profile_seed)", "- 2)")
    before = started(run_dir)
    request = tiny_request(notebooks, run_dir, keep_going=True)
    return request, before, run(request)


def test_a_failure_names_subject_notebook_cell_and_line(failed):
    request, _, failures = failed
    assert [failure.job for failure in failures] == [Job(STUDENT, 2)]
    assert failures[0].error == "ZeroDivisionError"
    assert failures[0].line == 2
    assert "ZeroDivisionError" in failures[0].notebook.read_text(encoding="utf-8")
    told = str(failures[0])
    assert f"sub-02/{STUDENT}" in told
    assert str(failures[0].notebook) in told
    assert "line 2" in told
    executed = nbformat.read(failures[0].notebook, as_version=4)
    cell = next(c for c in executed.cells if c.get("execution_count") == failures[0].cell)
    assert "subject - 2" in cell.source
    assert not (request.run_dir / Job(STUDENT, 2).metrics).exists()


def test_the_others_go_on_and_nothing_else_ran(failed):
    request, before, _ = failed
    changed = {name for name, time in started(request.run_dir).items() if time != before[name]}
    assert changed == {f"sub-01/{STUDENT}", f"sub-02/{STUDENT}", f"group/{GROUP}"}
    assert load_metrics(request.run_dir / "group" / GROUP).facts == {"subjects": [1]}


def test_only_what_failed_is_left_to_do(failed):
    reasons = {str(job): reason for job, reason in plan_run(failed[0])[0].items()}
    assert reasons[f"sub-02/{STUDENT}"] == "failed before"
    assert set(reasons) == {f"sub-02/{STUDENT}", f"group/{GROUP}"}


def test_a_killed_kernel_is_reported_and_no_home_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "missing home"))
    notebooks = write_notebooks(tmp_path / "notebooks")
    edit_cell(notebooks / f"{DATA}.ipynb", "profile_seed =", "import os; os._exit(9); x =")
    failures = run(tiny_request(notebooks, tmp_path / "run"))
    assert [(failure.job, failure.error) for failure in failures] == [
        (Job(DATA, None), "KernelDied")
    ]
    assert failures[0].notebook.is_file()


def test_a_second_run_in_the_same_folder_is_refused(project):
    with (
        only_run_in(project.run_dir),
        pytest.raises(WorkflowError, match=r"Another eeglib run.*--run-dir"),
    ):
        run(project)


def test_a_file_system_without_locks_lets_everybody_in(project, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("eeglib.workflow.locks.fcntl.flock", refuse)
    with only_run_in(project.run_dir):
        pass


def test_resources_of_an_unknown_chapter_are_refused(project):
    profile = tiny_profile(resources={"05_destill": {"minutes": 1}}, title="x", seed=5)
    with pytest.raises(WorkflowError, match="05_destill"):
        run(tiny_request(project.notebooks, project.run_dir, profile=profile))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["parameters"]', '["other"]', "has 0 code cells tagged"),
        ("subject = 7", "subjekt = 1", "no parameter subject"),
        ("subject = 7", "subject = int(1)", "literals only"),
        ("subject = 7", "subject, other = 1, 2", "literals only"),
        ("profile_seed = chapter", "x = chapter.profile.teacher.model; y = chapter", "teacher"),
        ("profile_seed =", "%time x =", "plain Python"),
    ],
)
def test_a_notebook_unfit_to_run_is_refused_before_anything_runs(project, old, new, message):
    path = project.notebooks / f"{FILTER}.ipynb"
    text = path.read_text(encoding="utf-8")
    if old.startswith("["):
        compact = json.dumps(json.loads(text), separators=(",", ":"))
        assert old in compact
        path.write_text(compact.replace(old, new))
    else:
        edit_cell(path, old, new)
    before = started(project.run_dir)
    with pytest.raises(WorkflowError, match=message) as caught:
        run(project)
    assert FILTER in str(caught.value)
    assert started(project.run_dir) == before


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"cells": 3}'])
def test_a_broken_notebook_is_refused(tmp_path, content):
    path = tmp_path / "02_filter_signals.ipynb"
    path.write_text(content)
    with pytest.raises(WorkflowError, match=r"02_filter_signals\.ipynb"):
        check_notebook(path, CHAPTERS[1])


def test_a_missing_notebook_is_refused(tmp_path):
    with pytest.raises(WorkflowError, match="No notebook"):
        check_notebook(tmp_path / "x.ipynb", CHAPTERS[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", [1, 2, 5]), ("1", [1]), ("1-2", [1, 2]), (" 5, 1-2", [1, 2, 5]), ("2,2", [2])],
)
def test_subjects_are_read(text, expected):
    assert parse_subjects(text, [1, 2, 5]) == expected


@pytest.mark.parametrize("text", ["", "x", "2-1", "1-", "-1", "1,,2", "0", "3", "1-5", "1.5"])
def test_subjects_that_make_no_sense_are_refused(text):
    with pytest.raises(WorkflowError, match=r"1, 2, 5|--subjects takes"):
        parse_subjects(text, [1, 2, 5])


def test_an_unknown_chapter_is_refused():
    with pytest.raises(WorkflowError, match=r"No chapter '11'.*02_filter_signals"):
        select_chapters(["11"], CHAPTERS)


def test_the_table_of_chapters_is_in_order_and_names_real_sections():
    seen: set[str] = set()
    for chapter in table.CHAPTERS:
        assert set(chapter.needs) <= seen
        assert set(chapter.sections) <= set(Profile.model_fields)
        seen.add(chapter.name)


def test_every_notebook_of_the_book_is_fit_to_run():
    notebooks = site_folder() / "notebooks"
    names = {path.stem for path in notebooks.glob("*.ipynb")}
    assert names == {chapter.name for chapter in table.CHAPTERS}
    for chapter in table.CHAPTERS:
        check_notebook(notebooks / f"{chapter.name}.ipynb", chapter)


def test_an_edit_of_the_networks_runs_chapter_5_and_those_after_it(tmp_path):
    read = {
        chapter.name[:2]: describe_chapter(
            chapter, site_folder() / "notebooks" / f"{chapter.name}.ipynb", tiny_profile()
        )["modules"]
        for chapter in table.CHAPTERS
    }
    with_networks = {
        number for number, modules in read.items() if "eeglib.decoding.networks" in modules
    }
    assert "05" in with_networks
    assert not with_networks & {"01", "02", "03"}


@pytest.fixture
def package(tmp_path):
    """A package in which top imports middle, and middle imports low from a function."""
    folder = tmp_path / "eeglib"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Package."""\n')
    (folder / "top.py").write_text("import numpy\nfrom eeglib import middle\n")
    (folder / "middle.py").write_text("def f():\n    from .sub.low import g\n    return g\n")
    (folder / "sub" / "__init__.py").write_text("")
    (folder / "sub" / "low.py").write_text('def g():\n    """Say."""\n    return 1\n')
    (folder / "alone.py").write_text("x = 1\n")
    return folder


def test_modules_are_followed_through_imports(package):
    expected = ["eeglib", "eeglib.middle", "eeglib.sub", "eeglib.sub.low", "eeglib.top"]
    assert list(module_hashes(["eeglib.top"], package)) == expected


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Say.", "Tell.", True),
        ("return 1", "return 1  # why", True),
        ("return 1", "return 2", False),
    ],
)
def test_only_code_counts(package, old, new, same):
    before = module_hashes(["eeglib.top"], package)
    path = package / "sub" / "low.py"
    path.write_text(path.read_text().replace(old, new))
    after = module_hashes(["eeglib.top"], package)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == (set() if same else {"eeglib.sub.low"})


def test_group_chapters_read_the_results_of_all_subjects():
    needs = table.needs_of(Job(GROUP, None), CHAPTERS, [1, 4])
    assert needs == [Job(STUDENT, 1), Job(STUDENT, 4)]
    assert table.needs_of(Job(FILTER, 4), CHAPTERS, [1, 4]) == [Job(DATA, None)]
    assert Chapter("01_download_data", "group") == CHAPTERS[0]
