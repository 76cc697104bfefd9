"""Real EEG with invented labels: the extract, PhysioNet's files, what may be wrong with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mne
import numpy as np
import pytest
import requests

from eeglib.datasets import METADATA, DatasetError, DatasetWarning, eegmmidb, open_dataset
from eeglib.profile import DatasetSettings, load_profile

SHARED = Path(__file__).resolve().parents[2] / "shared/real/eegmmidb"
SMALL = {"n_classes": 3, "block_seconds": 2.0}


def load(folder, subjects=(1,), root=None, **options):
    settings = DatasetSettings(name="eegmmidb", subjects=subjects, root=root, options=options)
    return open_dataset(settings, folder)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No network, and no folder that MNE is configured for."""

    def refuse(*_, **__):
        raise requests.ConnectionError("no network here")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    monkeypatch.delenv("MNE_DATASETS_EEGBCI_PATH", raising=False)
    monkeypatch.setattr(mne, "get_config", lambda *_: None)


def write_edf(path: Path, signals: np.ndarray, sfreq: int) -> None:
    """Write microvolts of shape (n_chans, n_times) as PhysioNet's files are: records of 1 s."""
    names = ("Fc5.", "Cz..", "Iz..")
    n_chans, n_records = len(names), signals.shape[1] // sfreq

    def fields(values, width):
        return "".join(f"{value:<{width}}" for value in values)

    header = f"{'0':<8}{'':<160}{'12.08.09':<8}{'16.15.00':<8}{256 * (1 + n_chans):<8}{'':<44}"
    header += f"{n_records:<8}{1:<8}{n_chans:<4}" + fields(names, 16) + fields([""] * n_chans, 80)
    header += fields(["uV"] * n_chans, 8)
    for value in (-8092, 8092, -8092, 8092):
        header += fields([value] * n_chans, 8)
    header += fields([""] * n_chans, 80) + fields([sfreq] * n_chans, 8) + fields([""] * n_chans, 32)
    records = signals.astype("<i2").reshape(n_chans, n_records, sfreq).transpose(1, 0, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode("ascii") + records.tobytes())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Files of 5 s, the last half second zero, as if their checksums were the published ones."""

    def write(subject=1, runs=(3, 4), seconds=5, sfreq=160):
        sums = {}
        for run in runs:
            rng = np.random.default_rng([subject, run])
            signals = rng.integers(-90, 90, (3, seconds * sfreq))
            signals[:, -sfreq // 2 :] = 0
            name = f"S{subject:03d}/S{subject:03d}R{run:02d}.edf"
            path = tmp_path / "root" / eegmmidb.FILES / name
            write_edf(path, signals, sfreq)
            sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(eegmmidb, "published_checksums", lambda: sums)
        return tmp_path / "root"

    return write


@pytest.fixture(scope="module")
def extract(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    return load(folder, extract=True, n_classes=10)


def test_the_extract_is_ten_blocks_of_fifty_trials(extract):
    trials = extract.trials(1)
    assert len(trials) == 500
    assert (trials.groupby("block").size() == 50).all()
    assert trials.groupby("block")["label"].nunique().max() == 1
    assert sorted(trials["label"].unique()) == list(range(10))
    assert trials["order"].tolist() == list(range(500))
    assert trials.groupby("session")["block"].nunique().to_dict() == {3: 4, 4: 4, 5: 2}
    assert trials["image"].nunique() == 500
    info = extract.info(1)
    assert (len(info["ch_names"]), info["sfreq"]) == (32, 160)
    assert info.get_montage() is not None


def test_the_extract_holds_whole_microvolts_and_no_pickle():
    with np.load(eegmmidb.EXTRACT, allow_pickle=False) as file:
        assert {file[f"run_{run}"].dtype for run in file["runs"]} == {np.dtype("int16")}
        assert [file[f"run_{run}"].shape[1] for run in file["runs"]] == [19920, 19920, 9960]
    assert eegmmidb.EXTRACT.stat().st_size < 2.5e6
    text = eegmmidb.EXTRACT.with_suffix(".txt").read_text(encoding="utf-8")
    for source in ("ODC-By 1.0", "10.13026/C28G6P", "Schalk", "Goldberger"):
        assert source in text


def test_blocks_are_spread_evenly_over_a_run(extract):
    recording = extract.recordings(1)[0]
    starts = recording.trials.groupby("block")["onset"].min().to_numpy()
    pauses = np.diff(starts) - 25
    assert pauses == pytest.approx(np.full(3, 6.125))
    assert starts[0] == pytest.approx(6.125 / 2)
    end = recording.trials["onset"].max() + 0.5
    assert recording.raw.duration - end == pytest.approx(6.125 / 2)


def test_every_image_is_a_drawing_in_the_folder_of_the_run(tmp_path, small):
    dataset = load(tmp_path / "run", root=small(), **SMALL)
    stimuli = dataset.stimuli()
    assert set(dataset.trials(1)["image"]) == set(stimuli["image"])
    assert all(tmp_path / "run" in file.parents and file.is_file() for file in stimuli["file"])
    joined = dataset.trials(1).merge(stimuli, on="image")
    assert (joined["label_x"] == joined["label_y"]).all()
    assert (joined["class_name_x"] == joined["class_name_y"]).all()


def test_order_of_classes_is_drawn_by_seed_and_subject(tmp_path, small):
    root, order = small(1), {}
    for seed in (0, 0, 1):
        dataset = load(tmp_path, root=root, **SMALL | {"n_classes": 4, "seed": seed})
        order.setdefault(seed, []).append(dataset.trials(1)["label"].tolist())
    small(2)
    order["other"] = load(tmp_path, (2,), root, **SMALL | {"n_classes": 4}).trials(2)["label"]
    assert order[0][0] == order[0][1] != order[1][0]
    assert order[0][0] != order["other"].tolist()


def test_files_lose_the_zeros_at_their_end(tmp_path, small):
    first, second = load(tmp_path, root=small(), **SMALL).recordings(1)
    assert first.raw.duration == pytest.approx(4.5, abs=0.02)
    assert list(first.trials.columns) == ["onset", *METADATA]
    assert first.raw.ch_names == ["FC5", "Cz", "Iz"]
    assert np.ptp(first.raw.get_data()) == pytest.approx(178e-6, abs=5e-6)
    assert len(second.trials) == 4  # one block is enough, where two would fit


def test_other_sampling_rates_are_resampled_with_a_word(tmp_path, small):
    dataset = load(tmp_path, (88,), small(88, sfreq=128), **SMALL)
    with pytest.warns(DatasetWarning, match="recorded at 128 Hz"):
        recordings = dataset.recordings(88)
    assert {r.raw.info["sfreq"] for r in recordings} == {160}
    assert len(dataset.trials(88)) == 12
    assert dataset.report() == [
        "Subject 88 was recorded at 128 Hz and is resampled to 160 Hz; there is nothing above 64 "
        "Hz in it."
    ]


def test_only_the_first_subject_is_needed_to_begin(tmp_path, small):
    dataset = load(tmp_path / "run", (1, 2), small(), **SMALL)
    dataset.prepare()
    assert dataset.subjects() == [1]


def test_missing_files_without_a_network(tmp_path):
    with pytest.raises(DatasetError, match="is missing and cannot be downloaded") as caught:
        load(tmp_path, root=tmp_path / "empty").prepare()
    for part in (
        "S001R03.edf",
        str(tmp_path / "empty" / eegmmidb.FILES),
        "physionet.org/content",
        "load_data(1,",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_file_is_refused(tmp_path, small):
    root = small()
    path = root / eegmmidb.FILES / "S001/S001R04.edf"
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    with pytest.raises(DatasetError, match=r"S001R04\.edf is not the published file.*Delete it"):
        load(tmp_path, root=root, **SMALL).prepare()


def test_checksums_are_those_that_mne_knows():
    sums = eegmmidb.published_checksums()
    names = [f"S{s:03d}/S{s:03d}R{run:02d}.edf" for s in (1, 88, 109) for run in eegmmidb.RUNS]
    assert all(len(sums[name]) == 64 for name in names)


@pytest.mark.parametrize(
    ("subjects", "options", "match"),
    [
        ((110,), {}, "no subject 110; the subjects of EEGMMIDB are 1 to 109"),
        ((1, 2), {"extract": True}, "no subject 2; the subjects of the extract are 1 to 1"),
        ((1,), {"trial_seconds": 0.3}, "trial_seconds: .*25 is no multiple of it, got 0.3"),
        ((1,), {"trial_seconds": 26.0}, "25 is no multiple of it"),
        ((1,), {"n_classes": 41}, "n_classes"),
        ((1,), {"blocks": 3}, "Allowed: n_classes, block_seconds, trial_seconds, extract, seed"),
    ],
)
def test_wrong_settings_are_refused_at_once(tmp_path, subjects, options, match):
    with pytest.raises(DatasetError, match=match):
        load(tmp_path, subjects, **options)


@pytest.mark.parametrize(
    ("options", "fit"), [({"n_classes": 11}, 10), ({"block_seconds": 130.0}, 0)]
)
def test_blocks_that_do_not_fit(tmp_path, options, fit):
    with pytest.raises(DatasetError, match=f"^{fit} blocks of .* fit into the recordings") as error:
        load(tmp_path, extract=True, **options).recordings(1)
    assert "n_classes or block_seconds" in str(error.value)


def test_pages_say_that_nobody_saw_the_pictures(tmp_path):
    from eeglib.chapter import data_notice, open_chapter

    settings = {"dataset.subjects": [1], "dataset.options": {"extract": True, "n_classes": 10}}
    profile = load_profile("phantom", settings)
    notice = data_notice(open_chapter("02_filter_signals", profile, tmp_path, 1))
    assert notice.title == "Real EEG, invented labels: nobody saw these pictures"
    assert notice.kind == "warning"
    assert "Profile phantom. Subject 1." in notice.text


def test_profile_takes_all_people_and_the_design_of_eeg_imagenet(tmp_path):
    profile = load_profile("phantom")
    assert profile.dataset.subjects == tuple(range(1, 110))
    dataset = open_dataset(profile.dataset, tmp_path)
    assert len(dataset.class_names) == 40
    assert dataset.options.n_images == 50


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full recordings are not at hand")
def test_the_extract_is_a_part_of_the_published_files(tmp_path, extract):
    dataset = load(tmp_path, root=SHARED, n_classes=10)
    whole, parts = dataset.recordings(1), extract.recordings(1)
    assert len(dataset.info(1)["ch_names"]) == 64
    for a, b in zip(whole, parts, strict=True):
        n_times, names = b.raw.n_times, b.raw.ch_names
        assert np.allclose(a.raw.get_data(names, stop=n_times), b.raw.get_data(), atol=1e-12)
        assert np.array_equal(a.trials["label"][: len(b.trials)], b.trials["label"])
