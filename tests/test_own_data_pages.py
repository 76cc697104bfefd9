"""The pages on data: their commands run, their profiles load, their tables are complete."""

import re
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import twins
from uci import SHARED

from eeglib import datasets
from eeglib.datasets import METADATA, DatasetError, open_dataset
from eeglib.datasets.download import FILES
from eeglib.preprocessing import preprocess
from eeglib.profile import load_profile

BOOK = Path(__file__).resolve().parent.parent / "book"
EEGLAB = SHARED.parent.parent / "eeglab_visual_attention" / "eeglab_data.set"


def blocks(language, page="use_your_own_eeg.md"):
    text = (BOOK / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


WRITE, NAME, UCI, LOADER = blocks("python")
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
