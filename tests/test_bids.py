"""Any BIDS data set: what is in the tables arrives, and what is wrong with them is said."""

import json
import re
import sys

import mne
import mne_bids
import numpy as np
import pandas
import pytest
from PIL import Image
from rawfiles import write_edf, write_set
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
    [
        (["01", "07"], [1, 7]),
        (["1", "01"], [1, 2]),
        (["00", "01"], [1, 2]),
        (["a", "b"], [1, 2]),
        (["02", "03", "pilot"], [2, 3, 4]),
    ],
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
        (lambda f: None, {"task": "rest"}, r"found: sub-01_task-look_eeg.vhdr.*now \('rest'"),
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


# --- one recording counts once --------------------------------------------------------------


def refuse(dataset, match):
    with pytest.raises(DatasetError, match=match):
        use(dataset)


def copy(folder, old, new, header=True):
    """Copy a subject's files under another name; ``header``: also what they say of each other."""
    for file in [*folder.rglob(f"*{old}*")]:
        if file.is_file() and "scans" not in file.name:
            target = folder / file.relative_to(folder).as_posix().replace(old, new)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
            if header and file.suffix in (".vhdr", ".vmrk"):
                target.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("new", "option"),
    [
        ("look_acq-clean_eeg", {"acquisition": "clean"}),
        ("look_proc-ica_eeg", {"processing": ""}),
        ("look_desc-preproc_eeg", {"description": ["preproc"]}),
    ],
)
def test_copies_of_a_recording_are_refused_until_one_is_chosen(tmp_path, new, option):
    make(tmp_path)
    copy(tmp_path, "look_eeg", new)
    (name,) = option
    refuse(load(tmp_path), f"one recording: .*vhdr, .*vhdr.*such as {name}: ")
    assert len(load(tmp_path, **option).trials(1)) == 9


def test_two_formats_of_a_recording_are_refused_until_one_is_chosen(tmp_path):
    data = make(tmp_path)
    target = sidecar(tmp_path, "_eeg.vhdr").with_suffix(".edf")
    write_edf(target, dict(zip(NAMES, data * 1e6, strict=True)), SFREQ)
    refuse(load(tmp_path), r"_eeg\.edf, .*_eeg\.vhdr.*extension: \.edf")
    for extension in (".vhdr", "edf"):
        assert len(load(tmp_path, extension=extension).trials(1)) == 9


def test_hidden_files_derivatives_and_further_parts_of_a_file_do_not_count(tmp_path):
    make(tmp_path)
    (eeg,) = tmp_path.glob("sub-01/eeg")
    for file in [*eeg.glob("*")]:
        file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
        for other in ("derivatives/x/sub-01/eeg", "sub-01/derivatives/eeg"):
            (tmp_path / other).mkdir(parents=True, exist_ok=True)
            (tmp_path / other / file.name).write_bytes(file.read_bytes())
    assert len(load(tmp_path).trials(1)) == 9
    raw = load(tmp_path).recordings(1)[0].raw.load_data()
    for file in {*eeg.glob("*_eeg.[ev]*"), *eeg.glob("._*")}:
        file.unlink()
    raw = mne.concatenate_raws([raw.copy() for _ in range(100)])
    name = eeg / "sub-01_task-look_eeg.fif"
    raw.save(name, split_size="2MB", split_naming="bids", verbose="error")
    assert len([*eeg.glob("*split*")]) > 1
    (recording,) = load(tmp_path).recordings(1)
    assert recording.raw.n_times == 128_000


def test_two_recordings_with_the_same_signals_are_refused(tmp_path):
    make(tmp_path, run="1")
    copy(tmp_path, "run-1", "run-2")
    refuse(load(tmp_path), "hold the same signals")
    assert len(load(tmp_path, runs=2).trials(1)) == 9
    copy(tmp_path, "sub-01", "sub-02")
    dataset = load(tmp_path, subjects=(1, 2), runs=[1])
    dataset.prepare()
    dataset.trials(1)
    with pytest.raises(DatasetError, match=r"sub-02.* and sub-01.* hold the same signals"):
        dataset.trials(2)


def test_a_header_that_leads_to_another_recording_is_refused(tmp_path):
    make(tmp_path)
    make(tmp_path, subject="02")
    header = sidecar(tmp_path / "sub-02", "_eeg.vhdr")
    other = "../../sub-01/eeg/sub-01_task-look_eeg.eeg"
    text = header.read_text()
    header.write_text(text.replace("DataFile=sub-02_task-look_eeg.eeg", f"DataFile={other}"))
    with pytest.raises(DatasetError, match=r"leads to .*sub-01.*, a file of another recording"):
        load(tmp_path, subjects=(2,)).trials(2)
    (header.parent / "sub-01_task-look_eeg.vmrk").write_text("")
    header.write_text(text.replace("MarkerFile=sub-02", "MarkerFile=sub-01"))
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path, subjects=(2,)).trials(2)


def test_a_file_in_the_folder_of_another_subject_is_refused(tmp_path):
    make(tmp_path)
    for file in [*(tmp_path / "sub-01/eeg").glob("*")]:
        file.rename(file.with_name(file.name.replace("sub-01", "sub-02")))
    refuse(load(tmp_path), "does not lie where its name says")


# --- channels, units, rates, places ----------------------------------------------------------


def edf(folder, extra=None, name="sub-01_task-look_eeg.edf", **how):
    """An EDF file of 10 s without further tables than its events."""
    make(folder)
    for file in [*(folder / "sub-01/eeg").glob("*")]:
        if "events" not in file.name:
            file.unlink()
    rng = np.random.default_rng(0)
    signals = {name: rng.normal(0, 20, 1280) for name in NAMES} | (extra or {})
    file = folder / "sub-01/eeg" / name
    write_edf(file, signals, SFREQ, **how)
    return file, signals


def test_names_that_say_eye_heart_skin_or_trigger_are_no_eeg(tmp_path):
    noise = np.random.default_rng(1).normal(0, 20, 1280)
    names = ["HEOG", "VEO", "EKG1", "EXG3", "GSR1", "Resp", "Plet", "Temp", "M1", "TP9"]
    file, _ = edf(tmp_path, dict.fromkeys(names, noise))
    dataset = load(tmp_path)
    assert dataset.info(1)["ch_names"] == [*NAMES, "M1", "TP9"]
    (line,) = [line for line in dataset.report() if "left out" in line]
    assert "HEOG, VEO, EKG1, EXG3, GSR1, Resp, Plet, Temp" in line
    card = dataset.card()
    assert card["channels decoded"] == ", ".join([*NAMES, "M1", "TP9"])
    assert "HEOG (eog), VEO (eog), EKG1 (ecg), EXG3 (misc)" in card["channels left out"]
    assert "EXG3" in load(tmp_path, eeg_channels="EXG3").info(1)["ch_names"]
    refuse(load(tmp_path, eeg_channels=["EXG9"]), "EXG9.*but the file has Fz")
    table = file.with_name("sub-01_task-look_channels.tsv")
    rows = "".join(f"{n}\tEEG\tuV\n" for n in [*NAMES, *names])
    table.write_text("name\ttype\tunits\n" + rows)  # as a program writes it
    assert load(tmp_path).info(1)["ch_names"] == [*NAMES, "M1", "TP9"]
    table.write_text(table.read_text().replace("HEOG\tEEG", "HEOG\tEOG"))  # as a person does
    assert "EXG3" in load(tmp_path).info(1)["ch_names"]
    assert "HEOG" not in load(tmp_path).info(1)["ch_names"]


def test_types_inside_a_file_of_eeglab_count_and_its_warnings_are_reported(tmp_path):
    file, _ = edf(tmp_path)
    file.unlink()
    signals = np.random.default_rng(0).normal(0, 20, (3, 1280))
    write_set(
        file.with_suffix(".set"), signals, SFREQ, ("E1", "E2", "E3"), ("EEG", "VEOG", "Scalp")
    )
    dataset = load(tmp_path)
    assert dataset.info(1)["ch_names"] == ["E1", "E3"]
    assert any("Unknown types found" in line for line in dataset.report())
    assert any("left out" in line and "E2" in line for line in dataset.report())


@pytest.mark.parametrize(
    ("unit", "scale", "factor"), [("", 1, "1e-06"), ("mV", 1, "0.001"), ("uV", 1e-3, "1000")]
)
def test_a_wrong_unit_is_said_with_its_factor(tmp_path, unit, scale, factor):
    file, signals = edf(tmp_path)
    write_edf(file, {n: v * scale for n, v in signals.items()}, SFREQ, unit)
    if scale < 1:  # steps of 0.1 would leave nothing
        raw = mne.io.read_raw(file, verbose="error").load_data()
        raw._data[:] = np.array([*signals.values()]) * scale * 1e-6
        file.unlink()
        raw.save(file.with_suffix(".fif"), verbose="error")
    dataset = load(tmp_path)
    dataset.trials(1)
    assert any(f"Times {factor} it is" in line for line in dataset.report())


def test_eeg_is_read_at_its_own_rate(tmp_path):
    fast, slow = np.zeros(2560), np.random.default_rng(0).normal(0, 20, 320)
    edf(tmp_path, {"ECG": fast, "Resp": slow})
    dataset = load(tmp_path)
    assert dataset.info(1)["sfreq"] == SFREQ
    assert any("not at the rate of EEG: ECG, Resp" in line for line in dataset.report())
    edf(tmp_path, {"O1": fast})
    refuse(load(tmp_path), "several rates .*Oz 128 Hz, O1 256 Hz")


def test_another_rate_in_the_sidecar_is_said(tmp_path):
    make(tmp_path)
    edit_json(tmp_path, SamplingFrequency=500)
    dataset = load(tmp_path)
    dataset.trials(1)
    assert "128 Hz by its header, which counts; eeg.json: 500" in dataset.report()[0]


def test_positions_in_millimetres_and_two_electrodes_at_one_place(tmp_path):
    make(tmp_path)
    file = sidecar(tmp_path, "_electrodes.tsv")
    table = pandas.read_csv(file, sep="\t")
    table[["x", "y", "z"]] *= 1000
    table.loc[1, ["x", "y", "z"]] = table.loc[0, ["x", "y", "z"]]
    table.to_csv(file, sep="\t", index=False)
    dataset = load(tmp_path)
    places = [channel["loc"][:3] for channel in dataset.info(1)["chs"]]
    assert 0.05 < np.linalg.norm(places[0]) < 0.15
    assert np.isnan(places[1]).all()
    report = "\n".join(dataset.report())
    assert "taken times 0.001" in report
    assert "Fz and Cz lie at one place" in report


def test_channels_of_other_names_than_the_table_are_listed(tmp_path):
    make(tmp_path)
    replace("_channels.tsv", "\nFz", "\nEEG1")(tmp_path)
    refuse(load(tmp_path), "channels EEG1, but the file has Fz")
    replace("_channels.tsv", "\nEEG1.*", "")(tmp_path)
    dataset = load(tmp_path)
    assert dataset.info(1)["ch_names"] == NAMES
    assert "differ: Fz" in dataset.report()[0]


def test_recordings_of_a_subject_with_other_channels_are_refused(tmp_path):
    for run in ("1", "2"):
        make(tmp_path, run=run)
    replace("run-2_channels.tsv", r"(Fz\t)EEG", r"\1EOG")(tmp_path)
    both = r"run-2.*\['Cz', 'Oz', 'Pz'\].* first recording .*\['Cz', 'Fz', 'Oz', 'Pz'\]"
    refuse(load(tmp_path), both)


# --- stretches, joints, times ----------------------------------------------------------------


def test_marks_in_the_file_alone_count_and_times_count_from_its_first_sample(tmp_path):
    data = make(tmp_path)
    (eeg,) = tmp_path.glob("sub-01/eeg")
    sidecar(tmp_path, "_eeg.vhdr").unlink()
    raw = mne.io.RawArray(data, mne.create_info(NAMES, SFREQ, "eeg"), first_samp=0, verbose="error")
    raw = mne.concatenate_raws([raw.copy().crop(0, 3), raw]).set_annotations(None)
    raw.set_meas_date(0)
    raw.set_annotations(mne.Annotations([5.0, 7.0], [1.0, 0.0], ["BAD_muscle", "boundary"], 0))
    raw.crop(388 / SFREQ - 1 / SFREQ * 3)
    raw.save(eeg / "sub-01_task-look_eeg.fif", verbose="error")
    (recording,) = load(tmp_path).recordings(1)
    assert recording.raw.first_samp > 0
    marks = recording.raw.annotations
    first = recording.raw.first_time
    assert np.allclose(marks.onset - first, np.array([5.0, 7.0]) - first)
    assert marks.description.tolist() == ["BAD_muscle", "EDGE boundary"]


def test_discontinuous_edf_is_refused(tmp_path):
    edf(tmp_path, kind="EDF+D")
    refuse(load(tmp_path), "discontinuous")


def test_cut_trials_of_eeglab_are_laid_side_by_side(tmp_path):
    file, _ = edf(tmp_path)
    file.unlink()
    signals = np.random.default_rng(0).normal(0, 20, (3, 128, 9))
    write_set(file.with_suffix(".set"), signals, SFREQ, tmin=0.0)
    (recording,) = load(tmp_path).recordings(1)
    assert np.allclose(recording.raw.get_data()[:, :128], signals[..., 0] * 1e-6)
    assert np.allclose(recording.raw.annotations.onset, range(1, 9))


# --- tables made by hand ---------------------------------------------------------------------


def with_onsets(change):
    def edited(folder):
        file = sidecar(folder, "_events.tsv")
        table = pandas.read_csv(file, sep="\t")
        table["onset"] = change(table["onset"])
        table.to_csv(file, sep="\t", index=False)

    return edited


def recoded(encoding, start=""):
    def edited(folder):
        file = sidecar(folder, "_events.tsv")
        file.write_bytes((start + file.read_text()).encode(encoding))

    return edited


@pytest.mark.parametrize(
    "damage",
    [
        recoded("utf-16"),
        recoded("utf-16-le"),
        recoded("utf-8", "\N{BOM}"),
        replace("_events.tsv", "\t", " \t "),
        replace("_events.tsv", "\n", "\t\n"),
        replace("_events.tsv", "\n", "\r\n\r\n"),
        replace("_events.tsv", "\t", ";"),
        replace("_events.tsv", r"(?m)^(\d)\.0", r"\1,0"),
        lambda folder: (replace("_events.tsv", r"(?m)^(\d)\.0", r"\1,0")(folder),
                        replace("_events.tsv", "\t", ";")(folder)),
    ],
)  # fmt: skip
def test_tables_made_by_hand_are_read_where_the_meaning_is_certain(tmp_path, damage):
    make(tmp_path)
    damage(tmp_path)
    (recording,) = load(tmp_path).recordings(1)
    assert recording.trials["onset"].tolist() == list(range(9))
    assert recording.trials["class_name"].tolist() == ["cat", "dog", "car"] * 3


def test_numbers_as_classes_are_words(tmp_path):
    make(tmp_path, code=["1.0", "2.0", "n/a"] * 3)
    dataset = load(tmp_path, label_column="code", trial_types=[1, 2.0])
    assert dataset.class_names == ["1", "2"]
    assert dataset.trials(1)["class_name"].tolist() == ["1", "2"] * 3
    with pytest.raises(DatasetError, match=r"'yes'.*in quotes"):
        load(tmp_path, trial_types=[True, False])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (with_onsets(lambda s: 1000 * s), "from 0 to 8000.*milliseconds they would fit"),
        (with_onsets(lambda s: 128 * s + 128), "9 of 9 .*; in .*samples they would fit"),
        (with_onsets(lambda s: -s - 1), "9 of 9 events lie outside"),
        (with_onsets(lambda s: s + 1.7e9), "9 of 9 events lie outside .* of 10 s"),
        (replace("_events.tsv", "(?m)^4.0(.*)$", r"4.0\1\tmore\tmore"), "line 6 has .* cells"),
        (replace("_events.tsv", "(?m)^(4.0.*)$", r"\1\n4.0\t0.5\tbird\t1\t1\tx"), "at onset 4 s"),
        (replace("_events.tsv", "stim_file", "onset"), "names a column twice"),
    ],
)
def test_tables_that_cannot_be_meant_so_are_refused(tmp_path, damage, words):
    make(tmp_path)
    damage(tmp_path)
    refuse(load(tmp_path), words)


def test_events_outside_and_events_twice_are_counted(tmp_path):
    make(tmp_path)
    with_onsets(lambda s: s + 3)(tmp_path)
    replace("_events.tsv", "(?m)^(4.0.*)$", r"\1\n\1")(tmp_path)
    dataset = load(tmp_path, trial_types=("cat", "dog", "car", "bird"))
    with pytest.warns(UserWarning, match="outside|twice"):
        assert len(dataset.trials(1)) == 9
    report = "\n".join(dataset.report())
    assert "2 of 9 events lie outside the recording of 10 s; onsets run from 3 to 11" in report
    assert "events that stand there twice count once" in report
    assert "sub-01 has no event of bird; there are: dog (4), cat (3), car (3)" in report


def test_letters_as_blocks_are_refused(tmp_path):
    make(tmp_path, block=["A", "B", "C"] * 3)
    refuse(load(tmp_path), "line 2: 'A' in column 'block' is no number")


def test_any_name_is_a_class(tmp_path):
    names = ["a;b", "c:d/e", "\N{BANANA} 苹果", "badger", "edge"]
    make(tmp_path, trial_type=[*names, *names[:4]])
    assert load(tmp_path).class_names == sorted(names)


# --- others, and files that are not whole ----------------------------------------------------


def test_subjects_that_are_not_asked_for_are_not_opened(tmp_path):
    make(tmp_path)
    make(tmp_path, subject="02")
    for file in [*(tmp_path / "sub-02/eeg").glob("*")]:
        file.unlink()
        file.symlink_to("../.git/annex/objects/x")
    (tmp_path / "sub-03").symlink_to("/nowhere")
    (tmp_path / "sub-emptyroom/meg").mkdir(parents=True)
    assert len(load(tmp_path).trials(1)) == 9
    assert load(tmp_path).labels == {1: "01", 2: "02", 3: "03"}
    with pytest.raises(DatasetError, match="a link to what is not here"):
        load(tmp_path, subjects=(2,)).prepare()


def pointer(folder):
    sidecar(folder, "_eeg.eeg").write_text("/annex/objects/SHA256E-s1--00.eeg")


def cut(suffix, share):
    def damage(folder):
        file = sidecar(folder, suffix)
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (pointer, r"_eeg\.eeg is a link to what is not here"),
        (cut("_eeg.eeg", 0.4999), "holds 5,118 bytes; its header promises 5,120"),
        (cut("_eeg.eeg", 0.5), r"of 5 s; .* cut short, to judge by 9\.99"),
    ],
)
def test_files_that_are_not_whole_are_named(tmp_path, damage, words):
    make(tmp_path)
    damage(tmp_path)
    refuse(load(tmp_path), words)


def test_a_file_of_edf_or_eeglab_that_is_not_whole(tmp_path):
    file, _ = edf(tmp_path)
    size = file.stat().st_size
    cut("_eeg.edf", 0.6)(tmp_path)
    refuse(load(tmp_path), f"promises {size:,}")
    file.unlink()
    signals = np.random.default_rng(0).normal(0, 20, (3, 1280))
    write_set(file.with_suffix(".set"), signals, SFREQ, data_file="sub-01_task-look_eeg.fdt")
    assert len(load(tmp_path).trials(1)) == 9
    cut("_eeg.fdt", 0.6)(tmp_path)
    refuse(load(tmp_path), r"_eeg\.fdt holds 9,216 bytes; its header promises 15,360")


def test_a_recording_that_was_not_stopped_is_read_and_said(tmp_path):
    edf(tmp_path, n_records=-1)
    dataset = load(tmp_path)
    assert len(dataset.trials(1)) == 9
    assert any("does not match the file size" in line for line in dataset.report())


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
