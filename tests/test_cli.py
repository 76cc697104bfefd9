"""The command: help, options, errors in one line, exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import eeglib
from eeglib import cli
from eeglib.profile import load_profile
from eeglib.workflow import run as workflow
from eeglib.workflow.job import Failure
from eeglib.workflow.stages import STAGES, site_folder


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code or 0


@pytest.fixture
def requests(monkeypatch) -> list:
    """Requests that would have been run."""
    seen: list = []
    monkeypatch.setattr(workflow, "run", lambda request, say: seen.append(request) or [])
    return seen


def test_help_needs_none_of_the_heavy_libraries():
    code = (
        "import sys, eeglib.cli\n"
        "heavy = {'torch', 'mne', 'pandas', 'matplotlib', 'sklearn', 'snakemake', 'papermill'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["run", "status", "audit", "student-notebooks", "book", "simulate", "download", "profiles"],
)
def test_every_command_has_help_with_an_example_or_a_sentence(command, capsys):
    assert call(command, "--help") == 0
    assert len(capsys.readouterr().out) > 100
    assert call("--help") == 0
    assert command in capsys.readouterr().out


def test_run_understands_its_options(requests, tmp_path):
    arguments = ["--subjects", "2", "--jobs", "3", "--only", "05,2", "--keep-going", "--force"]
    settings = ["--set", "training.max_epochs=5", "--set", "filtering.band=[1, 40]"]
    assert call("run", "--run-dir", str(tmp_path), *arguments, *settings) == 0
    request = requests[0]
    assert request.subjects == [2]
    assert [chapter.name[:2] for chapter in request.only] == ["05", "02"]
    assert (request.jobs, request.keep_going, request.force) == (3, True, True)
    assert (request.gpus, request.jobs_per_gpu, request.executor) == (None, None, "local")
    assert request.run_dir == tmp_path
    assert request.profile.training.max_epochs == 5
    assert request.profile.filtering.band == (1, 40)


def test_run_understands_gpus_and_clusters(requests, tmp_path):
    arguments = ["--gpus", "4", "--jobs-per-gpu", "2", "--executor", "slurm"]
    assert call("run", "--run-dir", str(tmp_path), *arguments) == 0
    request = requests[0]
    assert (request.gpus, request.jobs_per_gpu, request.executor) == (4, 2, "slurm")


def test_audit_takes_the_options_of_run(requests, capsys, tmp_path):
    arguments = ["--gpus", "0", "--jobs-per-gpu", "2", "--executor", "slurm", "--force"]
    # Nothing has run, so that there is no audit to read.
    with pytest.raises((SystemExit, ValueError)):
        cli.main(["audit", "--run-dir", str(tmp_path), *arguments])
    request = requests[0]
    assert [stage.name for stage in request.only] == ["08_audit_confounds"]
    assert (request.gpus, request.jobs_per_gpu, request.executor) == (0, 2, "slurm")
    assert (request.force, request.keep_going) == (True, True)
    assert call("audit", "--run-dir", str(tmp_path / "new"), "--dry-run") == 0
    assert "chapters would run in" in capsys.readouterr().out
    assert len(requests) == 1


def test_version_is_told(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"eeglib {eeglib.__version__}\n"
    citation = (site_folder() / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {eeglib.__version__}\n" in citation
    introduction = (site_folder() / "book" / "introduction.md").read_text(encoding="utf-8")
    assert f"Version {eeglib.__version__}, MIT" in introduction


def test_run_ends_with_the_results_and_what_comes_next(requests, capsys, tmp_path):
    folder = tmp_path / "my run"
    assert call("run", "--run-dir", str(folder)) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [f"Results: {folder}", f"Next: eeglib book --run-dir '{folder}'"]


def test_an_interrupt_says_that_results_are_kept(monkeypatch, capsys, tmp_path):
    def interrupted(request, say):
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "run", interrupted)
    assert call("run", "--run-dir", str(tmp_path)) == 130
    assert "Finished chapters are kept" in capsys.readouterr().err


def test_status_takes_the_profile_of_the_run(capsys, tmp_path):
    settings = ["--set", "dataset.subjects=[1, 2, 3]"]
    assert call("status", "--run-dir", str(tmp_path), *settings) == 0
    assert "sub-03" in capsys.readouterr().out
    (tmp_path / "profile.yml").write_text("name: mine\ndataset: {subjects: [4]}\n")
    assert call("status", "--run-dir", str(tmp_path)) == 0
    told = capsys.readouterr().out
    assert "sub-04" in told
    assert "sub-01" not in told
    assert f"Chapters: {len(STAGES)} not yet." in told


def test_student_notebooks_are_named(capsys, tmp_path):
    assert call("student-notebooks", str(tmp_path / "copies")) == 0
    told = capsys.readouterr().out.split()
    assert sorted(Path(line).name for line in told) == sorted(
        path.name for path in (tmp_path / "copies").iterdir()
    )


def test_results_go_to_a_folder_named_like_the_profile(requests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("run") == 0
    assert requests[0].run_dir == tmp_path / "runs" / "demo"
    assert requests[0].subjects == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--profile", "nothing"], "No profile named 'nothing'. Shipped profiles:"),
        (["run", "--profile", "missing.yml"], "No profile file 'missing.yml'"),
        (["run", "--subjects", "7"], "has the subjects 1, 2; 7 is not one of them"),
        (["run", "--subjects", "x"], "--subjects takes all, 3, 1-4 or 1,3,7-9"),
        (["run", "--set", "training.max_epoch=5"], "training.max_epoch: unknown key"),
        (["run", "--set", "training.max_epochs"], "--set takes KEY=VALUE"),
        (["run", "--set", "training.max_epochs=many"], "training.max_epochs"),
        (["run", "--set", "training={"], "not valid YAML"),
        (["run", "--only", "99"], "No chapter '99'"),
        (["run", "--gpus", "99"], "--gpus 99, but this machine shows"),
        (["book", "--run-dir", "no such run"], "Nothing has run"),
        (["simulate", "--set", "strength=2"], "strength"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("arguments", [["run", "--jobs", "0"], ["run", "--nonsense"], ["bake"]])
def test_options_that_do_not_exist_are_refused(arguments, capsys):
    assert call(*arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_a_failed_chapter_gives_a_message_and_exit_status_1(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "sub-02" / "05_distill_student"
    failure = Failure(folder, "ValueError", "no trials", 4, 7)
    monkeypatch.setattr(workflow, "run", lambda request, say: [failure])
    assert call("run", "--run-dir", str(tmp_path)) == 1
    out, told = capsys.readouterr()
    assert f"Next: eeglib status --run-dir {tmp_path}\n" in out
    assert "sub-02/05_distill_student: ValueError: no trials" in told
    assert f"{folder / 'notebook.ipynb'}, cell In [4], line 7" in told


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(request, say):
        raise ZeroDivisionError

    monkeypatch.setattr(workflow, "run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "--run-dir", str(tmp_path)])


def test_profiles_are_listed(capsys):
    assert call("profiles") == 0
    assert "demo " in capsys.readouterr().out


PAGES = ("run_every_subject.md", "run_on_a_cluster.md")


def commands_of(page: str) -> list[str]:
    text = (site_folder() / "book" / page).read_text(encoding="utf-8")
    return re.findall(r"^eeglib .*", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", [c for page in PAGES for c in commands_of(page)])
def test_the_commands_of_the_pages_are_understood(command, requests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr("eeglib.workflow.book.build_book", lambda run_dir, slides: run_dir)
    (tmp_path / "my_profile.yml").write_text("name: mine\n")
    assert call(*command.split()[1:]) == 0


def test_the_profile_of_the_cluster_page_is_valid(tmp_path):
    text = (site_folder() / "book" / "run_on_a_cluster.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1]
    (tmp_path / "mine.yml").write_text(block, encoding="utf-8")
    profile = load_profile(tmp_path / "mine.yml")
    assert profile.cluster.gpu_partition == "gpu"
    assert profile.resources["05_distill_student"].gpus == 1
