"""Running: what is stale, what runs, what is said when something fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from tiny_project import STAGES, edit_cell, tiny_profile, tiny_request, write_notebooks

from eeglib.chapter import METRICS, load_metrics
from eeglib.workflow import dependencies, processes, stages
from eeglib.workflow.dependencies import read_notebook
from eeglib.workflow.processes import only_run_in
from eeglib.workflow.run import _environment, make_plan, run, stale_jobs
from eeglib.workflow.stages import Job, WorkflowError, parse_subjects, select_stages, site_folder

DATA, FILTER, STUDENT, GROUP = (stage.name for stage in STAGES)
NOTEBOOKS = site_folder() / "notebooks"


@pytest.fixture
def project(tiny_site, tiny_run, tmp_path):
    """Copies of the tiny notebooks and of their finished run."""
    notebooks, run_dir = tmp_path / "notebooks", tmp_path / "run"
    shutil.copytree(tiny_site / "notebooks", notebooks)
    shutil.copytree(tiny_run, run_dir)
    return tiny_request(notebooks, run_dir)


def stale(request) -> list[str]:
    return [str(job) for job in stale_jobs(request)]


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
    assert (tiny_run / ".snakemake").is_dir()


def test_a_run_that_changes_nothing_starts_nothing(project):
    before, lines = started(project.run_dir), []
    assert run(project, lines.append) == []
    assert started(project.run_dir) == before
    assert len(lines) == 1
    assert "up to date" in lines[0]


def test_edited_text_runs_nothing_and_edited_code_runs_what_follows(project):
    notebook = project.notebooks / f"{STUDENT}.ipynb"
    edit_cell(notebook, "A sentence.", "Another sentence.")
    assert stale(project) == []
    edit_cell(notebook, "1 / (subject", "2 / (subject")
    reasons = {str(job): reason for job, reason in stale_jobs(project).items()}
    assert list(reasons) == [f"sub-01/{STUDENT}", f"sub-02/{STUDENT}", f"group/{GROUP}"]
    assert reasons[f"sub-01/{STUDENT}"] == "code of the notebook has changed"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"title": "another", "teacher__patience": 3, "dataset__root": "elsewhere"}, []),
        ({"seed": 9, "dataset__subjects": [1, 2, 3]}, None),
        ({"dataset__subjects": [1, 2, 3]}, [f"group/{DATA}", f"sub-03/{FILTER}"]),
    ],
)
def test_a_changed_setting_runs_the_chapters_that_read_it(project, setting, expected):
    profile = tiny_profile(**setting)
    request = replace(project, profile=profile, subjects=profile.dataset.subjects)
    after = [f"sub-03/{STUDENT}", f"group/{GROUP}"] if expected else []
    everything = [str(job) for job in request.wanted]
    assert stale(request) == (everything if expected is None else [*expected, *after])


def test_one_subject_runs_without_the_others(project):
    request = replace(project, profile=tiny_profile(seed=9), subjects=[2])
    assert f"sub-02/{STUDENT}" in stale(request)
    assert not [job for job in stale(request) if job.startswith("sub-01")]


def test_damage_and_changed_data_run_the_subject_again(project):
    (project.run_dir / f"sub-01/{FILTER}/epochs.txt").write_text("")
    events = project.run_dir / "group" / DATA / "data" / "sub-02" / "eeg" / "events.tsv"
    events.parent.mkdir(parents=True)
    events.write_text("onset\tduration\n")
    reasons = {str(job): reason for job, reason in stale_jobs(project).items()}
    assert reasons[f"group/{DATA}"] == "the data set has changed"
    assert reasons[f"sub-01/{FILTER}"] == "epochs.txt is missing or damaged"
    assert reasons[f"sub-02/{FILTER}"] == "the data set has changed"
    assert f"sub-01/{STUDENT}" not in reasons


def test_an_identical_result_runs_nothing_that_follows(project):
    before = started(project.run_dir)
    edit_cell(project.notebooks / f"{FILTER}.ipynb", "finish()", "finish(facts={})")
    assert run(replace(project, subjects=[1])) == []
    changed = {name for name, time in started(project.run_dir).items() if time != before[name]}
    assert changed == {f"sub-01/{FILTER}"}


def test_other_results_run_what_follows(project):
    only = select_stages(["2"], STAGES)
    edit_cell(project.notebooks / f"{FILTER}.ipynb", "finish()", 'finish(facts={"n": 3})')
    assert run(replace(project, only=only, subjects=[2])) == []
    assert stale(replace(project, subjects=[2])) == [f"sub-02/{STUDENT}", f"group/{GROUP}"]
    forced = replace(project, only=only, force=True, subjects=[2])
    assert stale(forced) == [f"sub-02/{FILTER}"]


def test_plain_papermill_is_a_way_in(project):
    before = {}
    for subject in (1, 2):
        folder = project.run_dir / str(Job(STUDENT, subject))
        before[subject] = (folder / METRICS).read_bytes()
        shutil.rmtree(folder)
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"]
        command += [f"notebooks/{STUDENT}.ipynb", "out.ipynb", "-p", "subject", str(subject)]
        command += ["-p", "profile", "demo", "-p", "run_dir", "run"]
        subprocess.run(command, cwd=project.run_dir.parent, check=True, capture_output=True)
        assert (folder / METRICS).read_bytes() == before[subject]
    # The run takes over what papermill made.
    assert f"sub-01/{FILTER}" not in stale(project)


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
    assert (failures[0].error, failures[0].line) == ("ZeroDivisionError", 2)
    notebook = request.run_dir / str(Job(STUDENT, 2)) / "notebook.ipynb"
    assert f"sub-02/{STUDENT}: ZeroDivisionError" in str(failures[0])
    assert f"{notebook}, cell In [{failures[0].cell}], line 2" in str(failures[0])
    executed = nbformat.read(notebook, as_version=4)
    cell = next(c for c in executed.cells if c.get("execution_count") == failures[0].cell)
    assert "subject - 2" in cell.source
    assert not (request.run_dir / Job(STUDENT, 2).metrics).exists()


def test_the_others_go_on_and_only_what_failed_is_left_to_do(failed):
    request, before, _ = failed
    changed = {name for name, time in started(request.run_dir).items() if time != before[name]}
    assert changed == {f"sub-01/{STUDENT}", f"sub-02/{STUDENT}", f"group/{GROUP}"}
    assert load_metrics(request.run_dir / "group" / GROUP).facts == {"subjects": [1]}
    assert stale(request) == [f"sub-02/{STUDENT}", f"group/{GROUP}"]


def test_a_killed_kernel_is_reported_and_no_home_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "missing home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 20)))
    (tmp_path / ("long" * 20)).mkdir()
    notebooks = write_notebooks(tmp_path / "notebooks")
    edit_cell(notebooks / f"{DATA}.ipynb", "profile_seed =", "import os; os._exit(9); x =")
    failures = run(tiny_request(notebooks, tmp_path / "run"))
    assert [(failure.job, failure.error) for failure in failures] == [
        (Job(DATA, None), "KernelDied")
    ]
    assert (tmp_path / "run" / str(Job(DATA, None)) / "notebook.ipynb").is_file()


def test_a_user_whom_the_machine_does_not_know_has_a_home_too(project, monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    home = _environment(project)["HOME"]
    assert home == str(project.run_dir / ".home")


def test_a_second_run_in_the_same_folder_is_refused(project):
    with (
        only_run_in(project.run_dir),
        pytest.raises(WorkflowError, match=r"Another eeglib run.*--run-dir"),
    ):
        run(project)


def test_a_file_system_without_locks_leaves_snakemakes_own(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("No locks available")

    own = tmp_path / ".snakemake" / "locks"
    own.mkdir(parents=True)
    with only_run_in(tmp_path):
        pass
    assert not own.exists()
    own.mkdir()
    monkeypatch.setattr(processes.fcntl, "flock", refuse)
    with only_run_in(tmp_path):
        assert own.is_dir()


def test_resources_of_an_unknown_chapter_are_refused(project):
    profile = tiny_profile(resources={"05_destill": {"minutes": 1}})
    with pytest.raises(WorkflowError, match="05_destill"):
        make_plan(replace(project, profile=profile))


def test_chapters_get_the_memory_and_the_gpu_that_their_pages_announce(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    request = tiny_request(NOTEBOOKS, tmp_path / "run", stages=stages.STAGES)
    plan = {stage["name"][:2]: stage for stage in make_plan(request)["stages"]}
    for number, stage in plan.items():
        page = next(NOTEBOOKS.glob(f"{number}_*.ipynb")).read_text(encoding="utf-8")
        assert stage["gpus"] == ("| GPU | not used" not in page)
        announced = page.split("| memory |")[1].split("|")[1].split()[0]
        assert stage["memory_mb"] >= 1000 * int(announced)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["parameters"]', '["other"]', "has 0 code cells tagged"),
        ("subject = 7", "subjekt = 1", "no parameter subject"),
        ("profile_seed =", "%time x =", "plain Python"),
    ],
)
def test_a_notebook_unfit_to_run_is_refused_before_anything_runs(project, old, new, message):
    path = project.notebooks / f"{FILTER}.ipynb"
    if old.startswith("["):
        compact = json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":"))
        assert old in compact
        path.write_text(compact.replace(old, new))
    else:
        edit_cell(path, old, new)
    with pytest.raises(WorkflowError, match=message) as caught:
        run(project)
    assert FILTER in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 3}', None])
def test_a_broken_or_missing_notebook_is_refused(tmp_path, content):
    path = tmp_path / "02_filter_signals.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WorkflowError, match=r"02_filter_signals\.ipynb"):
        read_notebook(path)


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
        select_stages(["11"], STAGES)


def test_every_notebook_of_the_book_is_a_stage_after_those_that_it_needs():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {s.name for s in stages.STAGES}
    seen: set[str] = set()
    for stage in stages.STAGES:
        assert set(stage.needs) <= seen
        seen.add(stage.name)
        assert read_notebook(NOTEBOOKS / f"{stage.name}.ipynb")
        text = (NOTEBOOKS / f"{stage.name}.ipynb").read_text(encoding="utf-8")
        inputs = {name for name in seen if f'chapter.input(\\"{name}' in text}
        assert inputs <= set(stage.needs)


def depends_on(name: str) -> set[str]:
    """Numbers of the chapters whose results depend on a module, or on a section."""
    texts = {
        stage.name[:2]: dependencies.dependencies(NOTEBOOKS / f"{stage.name}.ipynb", tiny_profile())
        for stage in stages.STAGES
    }
    return {n for n, lines in texts.items() if any(t.startswith(f"{name}: ") for t in lines)}


def test_chapters_depend_on_the_modules_and_sections_that_they_read():
    networks = depends_on("eeglib.decoding.networks")
    assert "05" in networks
    assert not networks & {"01", "02", "03"}
    assert not depends_on("eeglib.plotting")
    assert depends_on("eeglib.plotting.signals") == {"01", "02", "03", "10"}
    filtering = depends_on("section filtering of the profile")
    assert filtering >= {"02", "03"}
    assert not filtering & {"01", "04"}
    assert depends_on("section training of the profile") >= {"05", "06"}
    assert "04" in depends_on("section split of the profile")
    assert depends_on("eeglib.datasets.simulated") == {f"{n:02}" for n in range(1, 11)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in which top imports middle, and middle imports low from a function."""
    folder = tmp_path / "eeglib"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Package."""\n')
    (folder / "top.py").write_text("import numpy\nfrom eeglib import middle\n")
    middle = "def f():\n    from eeglib.sub.low import g\n    return g\n"
    (folder / "middle.py").write_text(middle)
    (folder / "sub" / "__init__.py").write_text("")
    (folder / "sub" / "low.py").write_text('def g():\n    """Say."""\n    return 1\n')
    (folder / "alone.py").write_text("x = 1\n")
    monkeypatch.setattr(dependencies, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Say.", "Tell.", True),
        ("return 1", "return 1  # why", True),
        ("return 1", "return 2", False),
    ],
)
def test_modules_are_followed_through_imports_and_only_code_counts(package, old, new, same):
    before = dependencies._modules({"eeglib.top"})
    names = {"eeglib", "eeglib.middle", "eeglib.sub", "eeglib.sub.low", "eeglib.top"}
    assert before.keys() == names
    path = package / "sub" / "low.py"
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, (1, 1))
    after = dependencies._modules({"eeglib.top"})
    changed = {name for name in names if before[name] != after[name]}
    assert changed == (set() if same else {"eeglib.sub.low"})


def test_the_data_beside_a_module_count_as_its_code(package):
    before = dependencies._modules({"eeglib.top"})
    (package / "middle.json").write_text("{}")
    after = dependencies._modules({"eeglib.top"})
    assert {name for name in before if before[name] != after[name]} == {"eeglib.middle"}
    (package / "middle.json").write_text("[]")
    assert dependencies._modules({"eeglib.top"})["eeglib.middle"] != after["eeglib.middle"]
