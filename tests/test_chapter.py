"""Results of a chapter: paths, checks, predictions, metrics.json."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_project import tiny_profile

from eeglib.chapter import (
    Metrics,
    OutputFile,
    ResultsError,
    Score,
    chapter_folder,
    data_fingerprints,
    load_metrics,
    load_predictions,
    load_provenance,
    open_chapter,
    replacing,
)
from eeglib.datasets import METADATA
from eeglib.decoding.splits import SplitError
from eeglib.workflow.stages import site_folder

SCORE = {"metric": "top-1", "value": 0.4, "chance": 0.1, "n": 80, "low": 0.3, "high": 0.5}


@pytest.fixture
def chapter(tmp_path):
    return open_chapter("05_distill_student", tiny_profile(), tmp_path, subject=1)


def metadata(n_trials: int) -> pd.DataFrame:
    values = {name: np.arange(n_trials) for name in METADATA}
    return pd.DataFrame({**values, "image": "bild ä", "class_name": "cat"})


def test_a_run_has_one_layout(tmp_path):
    assert chapter_folder(tmp_path, "02_filter_signals", 3) == tmp_path / "sub-03/02_filter_signals"
    assert chapter_folder(tmp_path, "04_train_teacher", None) == tmp_path / "group/04_train_teacher"


def test_metrics_say_what_was_found_and_where_it_came_from(chapter):
    chapter.output("weights.bin").write_bytes(b"abc")
    scores = pd.DataFrame([{**SCORE, "value": np.float32(0.5), "p_value": np.nan}])
    chapter.finish(scores, {"n_trials": np.int64(80), "share": np.nan, "list": np.arange(2)})
    read = load_metrics(chapter.folder)
    assert (read.chapter, read.subject) == ("05_distill_student", 1)
    assert read.scores[0].value == 0.5
    assert read.scores[0].model_dump()["p_value"] is None
    assert read.facts == {"n_trials": 80, "share": None, "list": [0, 1]}
    assert read.outputs["weights.bin"].bytes == 3
    known = load_provenance(chapter.folder)
    assert known["profile"] == json.loads(tiny_profile().model_dump_json())
    assert known["seeds"] == {"profile": [0], "training": list(tiny_profile().training.seeds)}
    assert known["packages"]["numpy"] == np.__version__
    assert known["peak_memory_mb"] > 10
    assert known["device"]
    assert 0 <= known["seconds"] < 60
    assert known["finished_at"].startswith("20")


@pytest.mark.parametrize("missing", sorted(SCORE))
def test_a_score_without_chance_n_or_interval_is_refused(chapter, missing):
    scores = pd.DataFrame([{k: v for k, v in SCORE.items() if k != missing}])
    with pytest.raises(ValueError, match=missing):
        chapter.finish(scores)
    assert not (chapter.folder / "metrics.json").exists()


def test_an_announced_output_must_be_written(chapter):
    chapter.output("never.npz")
    with pytest.raises(FileNotFoundError, match=r"never\.npz"):
        chapter.finish()


def test_inputs_are_checked(chapter):
    other = open_chapter("02_filter_signals", chapter.profile, chapter.run_dir, subject=1)
    with pytest.raises(ResultsError, match=r"eeglib run .*--only 02 --subjects 1"):
        chapter.input("02_filter_signals", "epochs.txt")
    other.output("epochs.txt").write_text("whole")
    other.finish()
    path = chapter.input("02_filter_signals", "epochs.txt")
    assert path.read_text() == "whole"
    path.write_text("wh0le")
    with pytest.raises(ResultsError, match="damaged"):
        chapter.input("02_filter_signals", "epochs.txt")


def test_a_subjects_chapter_reads_the_groups(chapter):
    group = open_chapter("04_train_teacher", chapter.profile, chapter.run_dir)
    group.output("teacher.npz").write_bytes(b"x")
    assert chapter.input("04_train_teacher", "teacher.npz").parent == group.folder


def test_an_unknown_subject_is_refused(tmp_path):
    with pytest.raises(ValueError, match="subjects 1, 2, got 9"):
        open_chapter("02_filter_signals", "demo", tmp_path, subject=9)


def test_predictions_come_back_as_they_went(chapter):
    probabilities = np.random.default_rng(0).random((4, 3), dtype=np.float32)
    chapter.save_predictions("cnn", probabilities, metadata(4), ["cat", "dög", "cup"])
    read = load_predictions(chapter.folder)["cnn"]
    np.testing.assert_array_equal(read.probabilities, probabilities)
    assert read.class_names == ["cat", "dög", "cup"]
    pd.testing.assert_frame_equal(
        read.metadata, metadata(4)[list(METADATA)], check_dtype=False, check_column_type=False
    )


@pytest.mark.parametrize(
    ("shape", "fill", "message"),
    [((3, 3), 0.1, "shape"), ((4, 2), 0.1, "shape"), ((4, 3), np.nan, "finite")],
)
def test_predictions_that_do_not_fit_are_refused(chapter, shape, fill, message):
    with pytest.raises(ValueError, match=message):
        chapter.save_predictions("cnn", np.full(shape, fill), metadata(4), ["a", "b", "c"])


def test_pickled_and_broken_predictions_are_refused(chapter):
    path = chapter.folder / "predictions-evil.npz"
    np.savez(path, probabilities=np.array([{}], dtype=object))
    with pytest.raises(ResultsError, match=r"evil\.npz cannot be read"):
        load_predictions(chapter.folder)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ResultsError, match=r"evil\.npz"):
        load_predictions(chapter.folder)
    path.unlink()
    with pytest.raises(ResultsError, match="No predictions"):
        load_predictions(chapter.folder)


@pytest.mark.parametrize("change", [{"schema_version": 99}, {"surprise": 1}, {"scores": 3}])
def test_metrics_of_another_schema_are_refused(chapter, change):
    chapter.finish()
    path = chapter.folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ResultsError, match=r"metrics\.json"):
        load_metrics(chapter.folder)


def test_the_schema_is_documented_field_by_field(chapter):
    page = (site_folder() / "book" / "run_every_subject.md").read_text(encoding="utf-8")
    section = page.split("## What metrics.json holds")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", section, flags=re.MULTILINE)
    fields = []
    for name in Metrics.model_fields:
        inner = {"scores": Score, "outputs": OutputFile}.get(name)
        fields += [f"{name}.{field}" for field in inner.model_fields] if inner else [name]
    chapter.finish()
    assert documented == [*fields, *load_provenance(chapter.folder)]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_and_fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_and_fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_what_json_does_not_know_becomes_null(chapter):
    metrics = chapter.finish(facts={"a": (np.float32("inf"), True, None)})
    assert metrics.facts == {"a": [None, True, None]}


def test_figures_are_the_same_file_each_time(chapter):
    import matplotlib.pyplot as plt

    path, made = chapter.folder / "figures" / "line.png", []
    for _ in range(2):
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([1, 2])
        assert chapter.save_figure(figure, "line") is figure
        assert figure.number not in plt.get_fignums()
        made.append(path.read_bytes())
    first, again = made
    assert again == first
    assert first.startswith(b"\x89PNG")
    assert chapter.finish().outputs == {}


def test_equal_results_are_equal_files_whatever_the_time_or_the_other_settings(tmp_path):
    written = []
    for settings in ({}, {"title": "another", "training__max_epochs": 3}):
        chapter = open_chapter("02_filter_signals", tiny_profile(**settings), tmp_path, subject=1)
        chapter.output("epochs.txt").write_text("whole")
        chapter.finish(facts={"n": 3})
        files = [chapter.folder / name for name in ("metrics.json", "provenance.json")]
        written.append([path.read_bytes() for path in files])
    (first, how), (again, how_again) = written
    assert again == first
    assert how_again != how


@pytest.fixture
def data(tmp_path):
    """A data set of two subjects and its fingerprint of the first one's trials."""
    for subject in ("sub-01", "sub-02"):
        (tmp_path / subject / "eeg").mkdir(parents=True)
        (tmp_path / subject / "eeg" / "events.tsv").write_text("a")
        (tmp_path / subject / "eeg" / "channels.tsv").write_text("Fp1 EEG")
        (tmp_path / subject / "eeg" / "signal.eeg").write_bytes(b"1234")
    (tmp_path / "stimuli").mkdir()
    (tmp_path / "stimuli" / "cat.png").write_bytes(b"png")
    (tmp_path / "participants.tsv").write_text("sub-01")
    profile = tiny_profile(dataset__root=str(tmp_path))
    dataset = open_chapter("02_filter_signals", profile, tmp_path / "run", 1).dataset
    return tmp_path, lambda: data_fingerprints(dataset, [None, 1])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sub-01/eeg/events.tsv", "b"),
        ("sub-01/eeg/channels.tsv", "Fp1 EOG"),
        ("sub-01/eeg/signal.eeg", "4321"),
        ("sub-01/ses-2/eeg/events.tsv", "a new session"),
        ("sub-01/eeg/events.tsv", None),
        ("stimuli/cat.png", "another picture"),
    ],
)
def test_data_that_changed_are_noticed(data, file, content):
    folder, fingerprint = data
    before = fingerprint()
    assert fingerprint() == before
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink() if content is None else path.write_text(content)
    assert fingerprint() != before


@pytest.mark.parametrize(
    "file",
    [
        "sub-02/eeg/events.tsv",
        "sub-03/eeg/events.tsv",
        "participants.tsv",
        "README",
        "derivatives/sub-03/truth.json",
        "sub-01/.partial/half.eeg",
    ],
)
def test_what_no_trial_of_the_subject_depends_on_does_not_count(data, file):
    folder, fingerprint = data
    before = fingerprint()
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("new")
    assert fingerprint() == before


def test_a_subjects_job_looks_at_its_own_files_alone(data, monkeypatch):
    folder, _ = data
    profile = tiny_profile(dataset__root=str(folder), dataset__subjects=[1, 2])
    chapter = open_chapter("02_filter_signals", profile, folder / "run", 1)
    opened, stat = [], Path.stat

    def look(self, **options):
        opened.append(self.name if self.suffix else "")
        assert "sub-02" not in self.parts[:-1]
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", look)
    chapter.finish()
    assert "signal.eeg" in opened


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
from eeglib.chapter import open_chapter, stop_chapter
import sys
shell = InteractiveShell.instance()
shell.run_cell(sys.argv[2] + "subject = 1", store_history=True)
chapter = open_chapter("07_reconstruct_images", "demo", sys.argv[1], 1)
stop_chapter(chapter, "No pictures.")
shell.run_cell("print('the next cell runs')", store_history=True)
"""


@pytest.mark.parametrize(("first", "runs"), [("", True), ("# Parameters\n", False)])
def test_a_chapter_ends_early_only_where_nobody_works(tmp_path, first, runs):
    command = [sys.executable, "-c", NOTEBOOK, str(tmp_path), first]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "No pictures." in done
    assert ("the next cell runs" in done) == runs
    folder = chapter_folder(tmp_path, "07_reconstruct_images", 1)
    assert load_metrics(folder).facts == {"skipped": "No pictures."}


def test_subjects_that_have_finished(tmp_path):
    for subject in (2,):
        open_chapter("06_compare_baselines", tiny_profile(), tmp_path, subject).finish()
    group = open_chapter("09_summarize_group", tiny_profile(), tmp_path)
    assert list(group.results("06_compare_baselines")) == [2]
    assert group.results("05_distill_student") == {}


def test_the_split_is_the_same_whatever_images_a_subject_lacks(tmp_path, monkeypatch):
    chapter = open_chapter("05_distill_student", tiny_profile(), tmp_path, subject=1)
    images = [f"picture {n}" for n in range(40)]
    whole = pd.DataFrame({"image": images, "label": np.repeat([0, 1], 20)})
    monkeypatch.setattr(type(chapter.dataset), "stimuli", lambda self: whole)
    parts = {
        name: set(whole["image"].iloc[rows])
        for name, rows in chapter.split(whole)._asdict().items()
    }
    for lacking in range(len(whole)):
        seen = whole.drop(index=lacking).reset_index(drop=True)
        for name, rows in chapter.split(seen)._asdict().items():
            assert set(seen["image"].iloc[rows]) <= parts[name]


def test_a_published_split_is_taken_or_missed(tmp_path, monkeypatch):
    profile = tiny_profile(split={"published": True})
    chapter = open_chapter("05_distill_student", profile, tmp_path, subject=1)
    trials = pd.DataFrame({"image": list("abc"), "label": [0, 0, 0]})
    with pytest.raises(SplitError, match=r"split\.published is true, but data set 'simulated'"):
        chapter.split(trials)
    parts = {"training": np.array([2]), "validation": np.array([0]), "test": np.array([1])}
    monkeypatch.setattr(type(chapter.dataset), "published_split", lambda self, trials: parts)
    assert {name: rows.tolist() for name, rows in chapter.split(trials)._asdict().items()} == {
        "training": [2], "validation": [0], "test": [1]
    }  # fmt: skip
    parts["test"] = np.array([0])
    with pytest.raises(SplitError, match="is in the validation and the test part"):
        chapter.split(trials)


def test_defects_of_the_data_are_lines_of_the_report_and_no_warnings(chapter):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        chapter.dataset._note("3 trials left out.", warn=True)
    assert chapter.dataset.report() == ["3 trials left out."]
    assert not shown
