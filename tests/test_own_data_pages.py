"""The pages on data: their commands run, their profiles load, their tables are complete."""

import re
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import twins
from rawfiles import write_edf, write_set
from uci import SHARED

from eeglib import datasets
from eeglib.datasets import METADATA, DatasetError, open_dataset
from eeglib.datasets.download import FILES
from eeglib.preprocessing import preprocess
from eeglib.profile import DatasetSettings, load_profile

BOOK = Path(__file__).resolve().parent.parent / "book"
EEGLAB = SHARED.parent.parent / "eeglab_visual_attention" / "eeglab_data.set"


def blocks(language, page="use_your_own_eeg.md"):
    text = (BOOK / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


WRITE, RUNS, TRIGGERS, EPOCHED, TABLE, DESCRIPTION, NAME, UCI, LOADER = blocks("python")
MINE, UCI_PROFILE = blocks("yaml")


def continuous_recording(folder):
    """A recording with the markers of the page, or the real one where it is at hand."""
    rng = np.random.default_rng(0)
    names = ["Fz", "Cz", "Pz", "Oz", "PO7", "PO8"]
    info = mne.create_info(names, 128.0, "eeg")
    raw = mne.io.RawArray(rng.normal(0, 1e-5, (6, 128 * 60)), info, verbose="error")
    onsets = np.arange(2, 58, 0.7)
    what = np.where(np.arange(len(onsets)) % 2, "rt", "square")
    raw.set_annotations(mne.Annotations(onsets, 0.0, what))
    mne.export.export_raw(folder / "recording.vhdr", raw, verbose="error")
    return folder / "recording.vhdr"


@pytest.mark.parametrize("kind", ["made here", "real"])
def test_from_a_recording_to_chapter_2_by_the_words_of_the_page(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if kind == "real" and not EEGLAB.is_file():
        pytest.skip("needs the real recording of EEGLAB's tutorial, which is not here")
    source = EEGLAB if kind == "real" else continuous_recording(tmp_path)
    raw = mne.io.read_raw(source, verbose="error")
    n_shown = sum(str(what).endswith("square") for what in raw.annotations.description)
    classes = np.resize(["banana", "canoe"], n_shown)
    pictures = [f"{name}_{n:02d}.JPEG" for n, name in enumerate(classes)]
    pd.DataFrame({"class": classes, "picture": pictures}).to_csv("log.csv", index=False)
    space = {}
    exec(WRITE.replace("recording.vhdr", source.as_posix()), space)
    exec(NAME.replace("Stimulus/S  1", "square" if kind == "real" else "Comment/square"), space)
    twins.write_pictures(tmp_path / "my_data/stimuli", [p[:-5] for p in pictures], nested=False)
    (tmp_path / "my_profile.yml").write_text(MINE, encoding="utf-8")
    profile = load_profile("my_profile.yml")
    dataset = open_dataset(profile.dataset, tmp_path)
    dataset.prepare()
    assert dataset.class_names == ["banana", "canoe"]
    assert len(dataset.stimuli()) == n_shown
    done = preprocess(dataset, 1, **profile.filtering.model_dump())
    assert len(done.epochs) == n_shown
    assert set(done.epochs.metadata["image"]) == {p[:-5] for p in pictures}
    assert done.epochs.get_data().std() == pytest.approx(1, abs=0.3)


def start(folder, monkeypatch):
    """The first block of the page, run in a folder; what the further blocks build on."""
    monkeypatch.chdir(folder)
    continuous_recording(folder)
    space = {"np": np, "pd": pd}
    exec(WRITE, space)
    return space


def trials_in(folder, **options):
    settings = DatasetSettings(name="bids", subjects=(1,), root=folder, options=options)
    dataset = open_dataset(settings, folder)
    dataset.prepare()
    return dataset, dataset.trials(1)


def test_several_runs_and_a_description_by_the_words_of_the_page(tmp_path, monkeypatch):
    space = start(tmp_path, monkeypatch)
    (eeg,) = {path.parent for path in tmp_path.glob("my_data/**/*_eeg.vhdr")}
    for path in eeg.glob("*"):
        path.unlink()
    raw = mne.io.read_raw("recording.vhdr", verbose="error").load_data()
    for run in ("1", "2"):
        raw.apply_function(lambda values: values[::-1].copy())
        mne.export.export_raw(f"recording_{run}.vhdr", raw, verbose="error")
    exec(RUNS, space)
    exec(DESCRIPTION, space)
    dataset, trials = trials_in(tmp_path / "my_data")
    assert trials["run"].value_counts().to_dict() == {1: 80, 2: 80}
    assert dataset.card()["title"] == "Bananas and canoes"
    assert dataset.card()["licence"] == "CC0"


def test_triggers_in_a_channel_by_the_words_of_the_page(tmp_path, monkeypatch):
    space = start(tmp_path, monkeypatch)
    names = ["Fz", "Cz", "Oz", "EXG1", "EXG2", "Resp", "Status"]
    signals = np.random.default_rng(0).normal(0, 10, (7, 256 * 20))
    signals[6] = 0
    for n, first in enumerate(range(512, 4600, 256)):
        signals[6, first : first + 20] = 1 + n % 2
    write_edf(tmp_path / "recording.bdf", dict(zip(names, signals, strict=True)), 256)
    exec(TRIGGERS, space)
    _, trials = trials_in(tmp_path / "my_data", extension=".bdf")
    assert trials["class_name"].tolist()[:4] == ["banana", "canoe"] * 2
    assert trials["onset"].tolist()[:2] == [2.0, 3.0]


def test_trials_of_eeglab_by_the_words_of_the_page(tmp_path, monkeypatch):
    space = start(tmp_path, monkeypatch)
    write_set(tmp_path / "epoched.set", np.random.default_rng(0).normal(0, 10, (3, 250, 12)))
    exec(EPOCHED, space)
    dataset, trials = trials_in(tmp_path / "my_data")
    assert trials["class_name"].tolist() == ["banana", "canoe"] * 6
    assert np.allclose(trials["onset"], np.arange(12) + 0.2)
    (recording,) = dataset.recordings(1)
    assert np.allclose(recording.raw.annotations.onset, np.arange(1, 12))


def test_a_table_of_numbers_by_the_words_of_the_page(tmp_path, monkeypatch):
    space = start(tmp_path, monkeypatch)
    signals = np.random.default_rng(0).normal(0, 10, (5000, 2))
    pd.DataFrame(signals, columns=["Fz", "Oz"]).to_csv("recording.csv", index=False)
    log = pd.DataFrame({"onset": [1.0, 5.5], "class": ["banana", "canoe"]})
    log.to_csv("onsets.csv", index=False)
    exec(TABLE, space)
    dataset, trials = trials_in(tmp_path / "my_data")
    assert trials["onset"].tolist() == [1.0, 5.5]
    raw = dataset.recordings(1)[0].raw
    assert np.allclose(raw.get_data().T, signals * 1e-6, atol=1e-9)


def write_csv(folder, n_subjects=2, n_trials=6):
    """Trials as the database is passed around; real ones where they are at hand."""
    if SHARED.is_file():
        with np.load(SHARED, allow_pickle=False) as stored:
            content = {name: stored[name] for name in stored.files}
    else:
        rng = np.random.default_rng(0)
        names = [*mne.channels.make_standard_montage("biosemi64").ch_names[:61], "X", "Y", "nd"]
        number = np.arange(n_subjects * n_trials)
        content = {
            "X": rng.normal(0, 10, (len(number), 64, 256)), "ch_names": np.array(names),
            "subject": np.array(["co2a0000364", "co2c0000337"])[number // n_trials],
            "trial": number % n_trials,
            "cond": np.resize(["S1 obj", "S2 match", "S2 nomatch"], len(number)),
        }  # fmt: skip
    kept = []
    for subject in np.unique(content["subject"])[:n_subjects]:
        for row in np.flatnonzero(content["subject"] == subject)[:n_trials]:
            kept.append(row)
            table = pd.DataFrame(
                {
                    "trial number": content["trial"][row],
                    "sensor position": np.repeat(np.char.upper(content["ch_names"]), 256),
                    "sample num": np.tile(np.arange(256), 64),
                    "sensor value": content["X"][row].ravel().round(3),
                    "subject identifier": "a",
                    # The files end this one value with a comma.
                    "matching condition": content["cond"][row].replace("nomatch", "nomatch,"),
                    "channel": np.repeat(np.arange(64), 256),
                    "name": content["subject"][row],
                    "time": np.tile(np.arange(256) / 256, 64),
                }
            )
            table["sensor position"] = table["sensor position"].replace("ND", "nd")
            table.to_csv(folder / f"Data{len(kept)}.csv")
    return {name: content[name][kept] for name in ("X", "subject", "trial", "cond")} | {
        "ch_names": content["ch_names"]
    }


def test_the_worked_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SMNI_CMI_TRAIN" / "Train").mkdir(parents=True)
    content = write_csv(tmp_path / "SMNI_CMI_TRAIN" / "Train")
    exec(UCI, {})
    (tmp_path / "uci.yml").write_text(UCI_PROFILE, encoding="utf-8")
    profile = load_profile("uci.yml")
    dataset = open_dataset(profile.dataset, tmp_path)
    dataset.prepare()
    assert dataset.class_names == ["S1 obj", "S2 match", "S2 nomatch"]
    assert dataset.subjects() == [1, 2]
    own = np.flatnonzero(content["subject"] == dataset.labels[2])
    own = own[np.argsort(content["trial"][own])]
    (recording,) = dataset.recordings(2)
    assert recording.trials["class_name"].tolist() == content["cond"][own].tolist()
    names = [name.upper() for name in content["ch_names"]]
    rows = [names.index(name.upper()) for name in recording.raw.ch_names]
    assert len(rows) == 61
    assert np.isfinite([c["loc"][:3] for c in recording.raw.info["chs"]]).all()
    signals = recording.raw.get_data().reshape(61, len(own), 256).swapaxes(0, 1)
    assert np.abs(signals - content["X"][own][:, rows] * 1e-6).max() < 0.03e-6
    done = preprocess(dataset, 1, **profile.filtering.model_dump())
    assert done.epochs.get_data().shape == (6, 61, 256)


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The page's loader as a module of `eeglib.datasets`."""
    place = tmp_path / "modules"
    place.mkdir()
    (place / "our_laboratory.py").write_text(LOADER, encoding="utf-8")
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(place)])
    (tmp_path / "mine.yml").write_text(
        "name: mine\ndataset: {name: our_laboratory, root: data, subjects: [1]}\n"
        "filtering: {notch: null, band: [14, 60]}\n"
    )
    (tmp_path / "data").mkdir()
    return load_profile(tmp_path / "mine.yml")


def test_the_loader_of_the_page_is_complete(registered, tmp_path):
    assert "our_laboratory" in datasets.available()
    dataset = open_dataset(registered.dataset, tmp_path)
    with pytest.raises(DatasetError, match=r"There is no .*sub-1\.npz"):
        dataset.prepare()
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data" / "sub-1.npz", signals=rng.normal(0, 1e-5, (8, 4, 128)), sfreq=250,
        labels=np.resize([0, 1], 8), images=[f"picture {n}" for n in range(8)],
        ch_names=["Fz", "Cz", "Pz", "Oz"],
    )  # fmt: skip
    dataset.prepare()
    assert dataset.subjects() == [1]
    assert tuple(dataset.trials(1).columns) == METADATA
    assert dataset.info(1)["chs"][3]["loc"][1] < -0.05  # Oz is behind
    done = preprocess(dataset, 1, **registered.filtering.model_dump())
    assert done.epochs.metadata["class_name"].tolist() == ["banana", "canoe"] * 4
    changed = registered.dataset.model_copy(update={"options": {"tmim": 1}})
    with pytest.raises(DatasetError, match=r"tmim: .*Allowed: tmin"):
        open_dataset(changed, tmp_path)


# --- data cards -----------------------------------------------------------------------------

CARDS = (BOOK / "data_sets.md").read_text(encoding="utf-8")
TITLES = {
    "eeg_imagenet": "EEG-ImageNet",
    "randomized_trials": "Randomised trials",
    "things_eeg2": "THINGS-EEG2",
    "eegmmidb": "EEGMMIDB, with invented labels",
    "simulated": "Simulated recordings",
}
FACTS = (
    "subjects, trials", "channels", "sampling rate", "units", "order", "labels", "licence",
    "known defects",
)  # fmt: skip


def section(title):
    return CARDS.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", TITLES)
def test_every_data_set_has_a_card(name):
    assert set(TITLES) | {"bids"} == set(datasets.available())
    text = section(TITLES[name])
    for fact in FACTS:
        assert re.search(rf"^\| {fact} \| .{{4,}} \|$", text, flags=re.MULTILINE), fact
    for file in FILES.get(name, ()):
        if not file.optional:
            assert file.name in text or "sub-" in file.name
    if name in FILES:
        line = re.search(r"\*\*Profile of your own\*\*: `(.*?)`", text)[1]
        import yaml

        settings = yaml.safe_load(line)["dataset"]
        assert settings["name"] == name
        assert settings["subjects"] == list(load_profile(name).dataset.subjects)


def test_every_option_of_a_loader_is_described():
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", section("Options of the loaders"), re.MULTILINE)
    described = {name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)}
    known = set()
    for name in ("eeg_imagenet", "randomized_trials", "things_eeg2", "eegmmidb", "bids"):
        module = __import__(f"eeglib.datasets.{name}", fromlist=["Loader"])
        known |= set(module.Loader.Options.model_fields)
    assert described == known
