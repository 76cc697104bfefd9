"""Any BIDS data set: what is in the tables arrives, and what is wrong with them is said."""

import json
import re
import sys

import mne_bids
import numpy as np
import pandas
import pytest
from PIL import Image
from uci import SHARED, write_uci_bids

from eeglib.datasets import METADATA, DatasetError, open_dataset
from eeglib.datasets.bids import numbers_of
from eeglib.datasets.bids_writer import write_recording
from eeglib.profile import DatasetSettings

NAMES = ["Fz", "Cz", "Pz", "Oz"]
SFREQ = 128.0


def make(folder, subject="01", session=None, run=None, task="look", **columns):
    """Write a recording of 10 s with an event every second; returns the signals in volts."""
    rng = np.random.default_rng([*f"{subject} {session} {run} {task}".encode()])
    data = rng.normal(0, 2e-5, (len(NAMES), 1280)).astype(np.float32)
    events = pandas.DataFrame(
        {
            "onset": np.arange(9.0),
            "duration": 0.5,
            "trial_type": ["cat", "dog", "car"] * 3,
            "stim_file": [f"set/{name}_{i}.png" for i in range(3) for name in ("a", "b", "c")],
        }
    ).assign(**columns)
    path = mne_bids.BIDSPath(subject, session, task, run=run, root=folder)
    write_recording(path, data, NAMES, SFREQ, events, {}, {"PowerLineFrequency": 50})
    return data


def load(folder, subjects=(1,), **options):
    settings = DatasetSettings(name="bids", subjects=subjects, root=folder, options=options)
    return open_dataset(settings, folder)


def sidecar(folder, suffix):
    return next(folder.rglob(f"*{suffix}"))


def edit(folder, suffix, change):
    file = sidecar(folder, suffix)
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


def edit_json(folder, **entries):
    edit(folder, "_eeg.json", lambda text: json.dumps(json.loads(text) | entries))


# --- what is there arrives ------------------------------------------------------------------


def test_signals_events_and_positions_arrive(tmp_path):
    data = make(tmp_path)
    dataset = load(tmp_path)
    dataset.prepare()
    (recording,) = dataset.recordings(1)
    assert np.abs(recording.raw.get_data() - data).max() < 0.51e-7
    assert recording.raw.info["sfreq"] == SFREQ
    assert recording.raw.ch_names == NAMES
    trials = recording.trials
    assert list(trials.columns) == ["onset", *METADATA, "run"]
    assert dataset.class_names == ["car", "cat", "dog"]
    assert trials["label"].tolist() == [1, 2, 0] * 3
    assert trials["onset"].tolist() == list(range(9))
    assert trials["order"].tolist() == list(range(9))
    assert trials["image"].tolist()[:4] == ["a_0", "b_0", "c_0", "a_1"]
    assert set(trials["block"]) == {-1}
    assert set(trials["session"]) == {1}
    assert not len(recording.raw.annotations)
    oz = recording.raw.info["chs"][3]["loc"][:3]
    assert oz[1] < -0.05  # behind
    assert dataset.report() == []


def test_sessions_and_runs_come_in_the_order_people_count(tmp_path):
    for session in ("2", "10", "1"):
        make(tmp_path, session=session)
    dataset = load(tmp_path)
    assert [set(r.trials["session"]) for r in dataset.recordings(1)] == [{1}, {2}, {10}]
    assert dataset.trials(1)["order"].tolist() == list(range(27))
    assert len(load(tmp_path, sessions=("10",)).recordings(1)) == 1


def test_the_runs_of_a_session_follow_each_other(tmp_path):
    for session, run in (("1", "1"), ("1", "2"), ("2", "1")):
        make(tmp_path, session=session, run=run)
    dataset = load(tmp_path)
    assert [r.trials["onset"].tolist() for r in dataset.recordings(1)] == [list(range(9))] * 3
    trials = dataset.trials(1)  # a recording lasts 10 s
    assert trials["onset"].tolist() == [*range(9), *range(10, 19), *range(9)]
    assert trials["session"].tolist() == [1] * 18 + [2] * 9
    for run in ("1", "2"):  # without sessions, runs count as such
        make(tmp_path, subject="02", run=run)
    assert set(load(tmp_path, subjects=(2,)).trials(2)["session"]) == {1, 2}


def opened(use):
    """Names of the subjects whose files are opened, or folders listed, while ``use`` runs."""
    seen = set()

    def hook(event, arguments):
        if active and event in ("open", "os.listdir", "os.scandir"):
            seen.update(re.findall(r"sub-\w+?(?=/|_|$)", str(arguments[0])))

    active = []
    sys.addaudithook(hook)
    active.append(True)
    use()
    active.clear()
    return seen


def test_one_subjects_job_reads_one_subjects_files(tmp_path):
    for subject in ("01", "02", "03"):
        make(tmp_path, subject=subject)
    sidecar(tmp_path / "sub-02", "_events.tsv").write_text("rubbish")
    dataset = load(tmp_path, subjects=(1, 3))

    def use():
        dataset.prepare()
        dataset.recordings(3)
        dataset.stimuli()

    assert opened(use) == {"sub-01", "sub-03"}
    dataset = load(tmp_path, subjects=(3, 2, 1))
    assert opened(lambda: dataset.trials(3)) == {"sub-03"}


def test_subjects_who_show_other_classes_are_named(tmp_path):
    make(tmp_path)
    make(tmp_path, subject="02", trial_type=["cat", "car"] * 4 + ["cat"])
    dataset = load(tmp_path, subjects=(1, 2))
    dataset.prepare()
    assert set(dataset.trials(2)["label"]) == {0, 1}
    make(tmp_path, subject="02", trial_type="bird")
    with pytest.raises(DatasetError, match=r"bird.*trial_types=\['bird', 'car', 'cat', 'dog'\]"):
        load(tmp_path, subjects=(1, 2)).prepare()


def test_files_that_a_subjects_trials_depend_on(tmp_path):
    for subject in ("a", "b"):
        make(tmp_path, subject=subject)
    pictures(tmp_path, ["set/a_0.png"])
    for other in ("derivatives/x/sub-b/eeg/1.edf", ".git/config", "sub-b/.cache"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("x")
    dataset = load(tmp_path, subjects=(1, 2), trial_types=("cat", "dog", "car"))
    own = dataset.files(2)
    assert {path.relative_to(tmp_path).parts[0] for path in own} == {"sub-b"}
    endings = {path.name.rpartition("_")[2] for path in own if "_task-" in path.name}
    assert {"eeg.vhdr", "eeg.eeg", "events.tsv", "channels.tsv", "eeg.json"} <= endings
    shared = {path.relative_to(tmp_path).as_posix() for path in dataset.files()}
    assert {"stimuli/set/a_0.png", "dataset_description.json"} <= shared
    assert not [name for name in shared if "sub-" in name or "participants" in name]
    assert not [path for path in [*own, *dataset.files()] if "/." in path.as_posix()]
    by_first = load(tmp_path, subjects=(1, 2)).files(2)
    assert [path.name for path in set(by_first) - set(own)] == ["sub-a_task-look_events.tsv"]


def test_labels_of_subjects_that_are_no_numbers_are_numbered(tmp_path):
    for subject in ("co3", "ca1"):
        make(tmp_path, subject=subject)
    dataset = load(tmp_path, subjects=(1, 2))
    assert dataset.subjects() == [1, 2]
    assert dataset.labels == {1: "ca1", 2: "co3"}
    assert "1 = sub-ca1" in dataset.card()["subjects"]
    assert set(dataset.trials(2)["subject"]) == {2}


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [(["01", "07"], [1, 7]), (["1", "01"], [1, 2]), (["00", "01"], [1, 2]), (["a", "b"], [1, 2])],
)
def test_numbers_of_labels(labels, numbers):
    assert numbers_of(labels) == numbers


def test_images_of_one_name_in_two_folders_are_two(tmp_path):
    make(tmp_path, stim_file=["a/1.png", "b/1.png", "n/a"] * 3)
    assert load(tmp_path).trials(1)["image"].tolist()[:3] == ["a/1", "b/1", ""]


def test_chosen_columns_and_types(tmp_path):
    make(tmp_path, what=["x", "y", "n/a"] * 3, block=np.repeat([4, 5, 6], 3))
    dataset = load(tmp_path, label_column="what", trial_types=("y", "x"))
    trials = dataset.trials(1)
    assert dataset.class_names == ["y", "x"]
    assert trials["label"].tolist() == [1, 0] * 3
    assert trials["block"].tolist() == [4, 4, 5, 5, 6, 6]
    assert load(tmp_path, label_column="what").class_names == ["x", "y"]


def test_markers_that_are_no_stimuli_are_no_classes(tmp_path):
    make(
        tmp_path,
        trial_type=["cat", "dog", "boundary", "BAD_jump", "n/a", "New Segment"] + ["cat"] * 3,
    )
    assert load(tmp_path).class_names == ["cat", "dog"]


def pictures(folder, names):
    for name in names:
        file = folder / "stimuli" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)


def test_images_are_found_in_the_folder_stimuli(tmp_path):
    make(tmp_path)
    assert load(tmp_path).stimuli().empty
    pictures(tmp_path, [f"set/{letter}_{i}.png" for i in range(3) for letter in "abc"])
    stimuli = load(tmp_path).stimuli()
    assert stimuli.columns.tolist() == ["image", "label", "class_name", "file"]
    assert stimuli[stimuli["image"] == "b_1"].iloc[0, :3].tolist() == ["b_1", 2, "dog"]
    assert len(stimuli) == 9


@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>"])
def test_trials_without_their_picture_are_left_out_and_named(tmp_path, content):
    make(tmp_path)
    pictures(tmp_path, [f"set/{letter}_{i}.png" for i in range(3) for letter in "abc"])
    (tmp_path / "stimuli/set/b_1.png").unlink()
    if content is not None:
        (tmp_path / "stimuli/set/b_1.png").write_bytes(content)
    dataset = load(tmp_path)
    with pytest.warns(UserWarning, match=r"1 pictures are missing .* left out: set/b_1\.png"):
        trials = dataset.trials(1)
    assert len(trials) == 8
    assert set(trials["image"]) == set(dataset.stimuli()["image"])
    assert "set/b_1.png" in dataset.report()[0]


def test_a_folder_of_other_pictures_is_refused(tmp_path):
    make(tmp_path)
    pictures(tmp_path, ["other.png"])
    with pytest.raises(DatasetError, match="None of the 9 pictures can be opened"):
        load(tmp_path).prepare()


def test_an_image_of_two_classes_teaches_nothing(tmp_path):
    make(tmp_path, stim_file="one.png")
    pictures(tmp_path, ["one.png"])
    with pytest.warns(UserWarning, match="more than one class"):
        assert load(tmp_path).stimuli().empty


def test_channels_that_are_no_eeg_are_left_out_and_named(tmp_path):
    make(tmp_path)
    edit(tmp_path, "_channels.tsv", lambda t: re.sub("(?m)^(Fz\t)EEG", r"\1EOG", t))
    dataset = load(tmp_path)
    assert dataset.info(1)["ch_names"] == ["Cz", "Pz", "Oz"]
    assert "Fz (eog)" in dataset.card()["channels left out"]


def test_missing_tables_of_channels_and_positions_do_not_hurt(tmp_path):
    make(tmp_path)
    for pattern in ("*_channels.tsv", "*_electrodes.tsv", "*_coordsystem.json", "*_eeg.json"):
        next(tmp_path.rglob(pattern)).unlink()
    (tmp_path / "participants.tsv").unlink()
    dataset = load(tmp_path)
    info = dataset.info(1)
    assert info["ch_names"] == NAMES
    assert info["chs"][3]["loc"][1] < -0.05
    report = "\n".join(dataset.report())  # what MNE-BIDS says is not lost
    assert "channels.tsv" in report
    assert "participants" not in report


@pytest.mark.parametrize("kind", ["epoched", "discontinuous"])
def test_joints_are_marked(tmp_path, kind):
    make(tmp_path, trial_type=["cat", "dog", "boundary"] * 3)
    edit_json(tmp_path, RecordingType=kind, EpochLength=2.5)
    (recording,) = load(tmp_path).recordings(1)
    marks = recording.raw.annotations
    assert set(marks.description) == {"EDGE boundary"}
    assert np.allclose(marks.onset, [2, 2.5, 5, 7.5, 8] if kind == "epoched" else [2, 5, 8])


def test_bad_stretches_stay_marked(tmp_path):
    make(tmp_path, trial_type=["cat", "dog", "BAD_jump"] * 3)
    (recording,) = load(tmp_path).recordings(1)
    marks = recording.raw.annotations
    assert list(marks.description) == ["BAD_jump"] * 3
    assert np.allclose(marks.onset, [2, 5, 8])
    assert np.allclose(marks.duration, 0.5)
    assert len(recording.trials) == 6
    (recording,) = load(tmp_path, trial_types=("BAD_jump", "cat")).recordings(1)
    assert not len(recording.raw.annotations)  # a class, however it is called
    assert len(recording.trials) == 6


# --- what is wrong is said ------------------------------------------------------------------


def test_events_without_an_onset_are_left_out_and_counted(tmp_path):
    make(tmp_path)
    replace("_events.tsv", r"\n7\.0", "\nn/a")(tmp_path)
    dataset = load(tmp_path)
    with pytest.warns(UserWarning, match="1 events without an onset are left out"):
        assert dataset.trials(1)["onset"].tolist() == [*range(7), 8]


def use(dataset):
    dataset.prepare()
    dataset.recordings(1)


def drop(pattern):
    return lambda folder: next(folder.rglob(pattern)).unlink()


def replace(suffix, old, new):
    return lambda folder: edit(folder, suffix, lambda text: re.sub(old, new, text))


@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        (drop("*_events.tsv"), {}, "there is none"),
        (replace("_events.tsv", r"^onset", "start"), {}, "no column 'onset'"),
        (replace("_events.tsv", r"\n3\.0", "\nlater"), {}, "line 5: 'later' in .* onset in sec"),
        (replace("_events.tsv", r"(?s)\n.*", "\n"), {}, "No event .* names a class"),
        (replace("_events.tsv", r"(?s).*", ""), {}, "must be a table"),
        (lambda f: None, {"label_column": "what"}, "no column 'what'; it has: onset"),
        (lambda f: None, {"image_column": "picture"}, "no column 'picture'"),
        (lambda f: None, {"trial_types": ("bird",)}, r"now \('bird',\)"),
        (lambda f: None, {"task": "rest"}, "found: sub-01_task-look_eeg.vhdr.*now rest"),
        (lambda f: None, {"sessions": ("9",)}, r"sessions \(now \('9',\)"),
        (lambda f: make(f, task="other"), {}, "of one task; found: .*look.*other"),
        (replace("_channels.tsv", "\tEEG\t", "\tECG\t"), {}, "no channel the type EEG"),
        (drop("*_eeg.eeg"), {}, "cannot be read"),
        (replace("_eeg.vhdr", "(?s).*", "rubbish"), {}, "cannot be read"),
        (replace("_eeg.json", "(?s).*", "{"), {}, "not valid JSON"),
        (lambda f: edit_json(f, RecordingType="epoched"), {}, "EpochLength"),
    ],
)
def test_damage_is_named(tmp_path, damage, options, words):
    make(tmp_path)
    damage(tmp_path)
    dataset = load(tmp_path, **options)
    with pytest.raises(DatasetError, match=words):
        use(dataset)


def test_folder_that_is_no_data_set_and_subject_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match=r"No subject 1 .* a folder of a BIDS data set"):
        load(tmp_path).prepare()
    assert load(tmp_path).files() == load(tmp_path).files(1) == []
    make(tmp_path)
    with pytest.raises(DatasetError, match=r"No subject 3 .* there are: 1"):
        load(tmp_path, subjects=(3,)).prepare()
    with pytest.raises(DatasetError, match="No subject 4"):
        load(tmp_path).recordings(4)


# --- real recordings ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uci_folder(tmp_path_factory):
    if not SHARED.is_file():
        pytest.skip("needs ../shared/real/uci_eeg_objects, which is not here")
    return write_uci_bids(SHARED, tmp_path_factory.mktemp("uci") / "data", [1, 3])


def test_real_trials_come_back_as_they_were(uci_folder):
    dataset = load(uci_folder, subjects=(1, 2))
    dataset.prepare()
    with np.load(SHARED, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    label = sorted(set(arrays["subject"]))[2]
    own = np.flatnonzero(arrays["subject"] == label)
    own = own[np.argsort(arrays["trial"][own], kind="stable")]
    assert dataset.labels[2] == label
    (recording,) = dataset.recordings(2)
    raw, trials = recording.raw, recording.trials
    assert raw.info["sfreq"] == 256
    assert len(raw.ch_names) == 61
    assert trials["class_name"].tolist() == arrays["cond"][own].tolist()
    rows = [arrays["ch_names"].tolist().index(name) for name in raw.ch_names]
    signals = raw.get_data().reshape(61, len(own), 256).swapaxes(0, 1)
    assert np.abs(signals - arrays["X"][own][:, rows] * 1e-6).max() < 0.03e-6
    assert np.allclose(raw.annotations.onset, np.arange(1, len(own)))
    positions = np.array([c["loc"][:3] for c in raw.info["chs"]])
    assert not np.isnan(positions).any()
    assert dataset.stimuli().empty
    assert set(trials["image"]) == {""}
