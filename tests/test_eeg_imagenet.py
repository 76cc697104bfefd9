"""EEG-ImageNet and the randomised trials: files of the true structure at small size."""

import numpy as np
import pytest
import twins

from eeglib.datasets import METADATA, DatasetError, DatasetWarning, open_dataset
from eeglib.datasets.eeg_imagenet import MICROVOLTS_PER_COUNT
from eeglib.datasets.montage import ACTICAP_128
from eeglib.decoding.splits import Split, check_disjoint
from eeglib.profile import DatasetSettings, load_profile

RAW = "eeg_signals_raw_with_mean_std.pth"


@pytest.fixture(scope="module")
def content():
    return twins.eeg_imagenet(n_classes=3, images_per_class=6, missing_images=1, missing_trials=2)


@pytest.fixture(scope="module", params=["zip", "legacy"])
def folder(request, content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eeg_imagenet")
    twins.write_torch(folder / RAW, content, zipped=request.param == "zip")
    twins.write_torch(folder / "block_splits_by_image_all.pth", twins.splits(content))
    twins.write_image_order(folder / "image_order.txt", content)
    twins.write_pictures(folder / "images", content["images"])
    return folder


def loader(folder, name="eeg_imagenet", **options):
    return open_dataset(DatasetSettings(name=name, options=options), folder)


def of_subject(content, subject):
    return [trial for trial in content["dataset"] if trial["subject"] == subject]


@pytest.mark.parametrize("name", ["eeg_imagenet", "randomized_trials", "things_eeg2"])
def test_shipped_profile_fits_its_loader(name, tmp_path):
    profile = load_profile(name)
    assert open_dataset(profile.dataset, tmp_path).settings.name == name


def test_channels_are_distinct_and_have_positions(folder):
    assert len(ACTICAP_128) == len(set(ACTICAP_128)) == 128
    info = loader(folder).info(1)
    assert all(np.isfinite(c["loc"][:3]).all() and c["loc"][:3].any() for c in info["chs"])


def test_trials_in_volts_cut_and_in_the_order_of_presentation(folder, content):
    dataset = loader(folder)
    epochs = dataset.epochs(4)
    assert tuple(epochs.metadata.columns) == METADATA
    assert epochs.tmin == pytest.approx(0.020)
    assert len(epochs.times) == 440
    assert epochs.metadata["order"].is_monotonic_increasing
    assert (epochs.metadata.groupby("block")["label"].nunique() == 1).all()
    by_image = {content["images"][t["image"]]: t for t in of_subject(content, 4)}
    data = epochs.get_data()
    assert data.dtype == np.float32
    for trial, image in zip(data, epochs.metadata["image"], strict=True):
        counts = by_image[image]["eeg"].numpy()[:, 20:460]
        assert np.allclose(trial, counts * MICROVOLTS_PER_COUNT[:, None] * 1e-6, rtol=1e-6)
    names = [by_image[i]["label"] for i in epochs.metadata["image"]]
    assert epochs.metadata["label"].tolist() == names


def test_order_is_unknown_without_the_list(content, tmp_path):
    twins.write_torch(tmp_path / RAW, content)
    dataset = loader(tmp_path)
    assert (dataset.trials(4)[["order", "block", "session"]] == -1).all(axis=None)
    assert dataset.published_split(dataset.trials(4)) is None
    assert any("order of presentation is not known" in line for line in dataset.report())


def test_the_file_is_converted_once_and_anew_when_it_changes(tmp_path, monkeypatch):
    first = loader_of(tmp_path, twins.eeg_imagenet(2, 3)).epochs(4).get_data()
    with monkeypatch.context() as patch:
        patch.setattr("torch.load", None)  # as it must not be called
        assert np.array_equal(loader(tmp_path).epochs(4).get_data(), first)
    (tmp_path / f".{RAW}.0-killed").mkdir()
    other = loader_of(tmp_path, twins.eeg_imagenet(2, 4, seed=1)).epochs(4).get_data()
    assert len(other) == 8
    (folder,) = tmp_path.glob(".*")
    assert sorted(path.name for path in folder.iterdir())[-1] == "trials.csv"


def test_all_share_the_file_the_lists_and_the_pictures(folder):
    dataset = loader(folder)
    dataset.prepare()
    names = [path.relative_to(folder).parts[0] for path in dataset.files()]
    lists = [RAW, "block_splits_by_image_all.pth", "image_order.txt"]
    assert names == sorted(lists + ["images"] * len(dataset.stimuli()))
    assert dataset.files(1) == []


def test_epochs_stay_right_when_trials_are_taken_out(folder):
    epochs = loader(folder).epochs(4)
    whole = epochs.get_data()
    assert np.array_equal(epochs[3:6].get_data(), whole[3:6])
    assert np.array_equal(epochs.copy().drop([0, 1]).get_data(), whole[2:])
    assert np.allclose(epochs.average().data, whole.mean(axis=0), atol=1e-9)


def test_counts_by_subject_and_subject_unknown(folder, content):
    dataset = loader(folder)
    dataset.prepare()
    (lacking,) = [line for line in dataset.report() if line.startswith("Images of each class")]
    assert lacking.startswith("Images of each class: 6, but ")
    assert lacking.endswith(" 5.")
    assert dataset.subjects() == [1, 4]
    with pytest.raises(DatasetError, match=r"no trials of subject 2 .* it has subjects \[1, 4\]"):
        dataset.epochs(2)


def test_stimuli_and_published_split(folder):
    dataset = loader(folder)
    stimuli = dataset.stimuli()
    assert stimuli["file"].map(lambda path: path.is_file()).all()
    assert set(dataset.trials(4)["image"]) == set(stimuli["image"])
    metadata = dataset.epochs(1).metadata
    parts = dataset.published_split(metadata)
    check_disjoint(Split(**parts), metadata)
    assert sum(map(len, parts.values())) == len(metadata)
    other = loader(folder, split_index=1).published_split(metadata)
    assert any(not np.array_equal(parts[name], other[name]) for name in parts)


def test_filtered_variant_is_not_filtered_twice(content, tmp_path):
    from eeglib.preprocessing import remaining_steps

    twins.write_torch(tmp_path / "eeg_14_70_std.pth", content)
    dataset = loader(tmp_path, file="eeg_14_70_std.pth")
    assert dataset.processed == ("notch 49-51 Hz", "band 14-70 Hz", "standardize")
    steps = {"notch": (49, 51), "band": (14, 70), "standardize": True}
    left = remaining_steps(steps, dataset.processed)
    assert left == {"notch": None, "band": None, "standardize": False}
    assert remaining_steps(steps, ("standardize",)) == steps
    raw = of_subject(content, 4)[0]["eeg"].numpy()[:, 20:460]
    assert any(np.array_equal(trial, raw) for trial in dataset.epochs(4).get_data())


def test_lengths_out_of_range_are_left_out_and_counted(tmp_path):
    content = twins.eeg_imagenet(lengths=(495, 500))
    content["dataset"][0]["eeg"] = content["dataset"][0]["eeg"].repeat(1, 2)
    content["dataset"][1]["eeg"] = content["dataset"][1]["eeg"][:, :430].clone()
    dataset = loader_of(tmp_path, content)
    with pytest.warns(DatasetWarning, match="Subject 4: 2 trials left out, their length"):
        epochs = dataset.epochs(4)
    assert len(epochs) == len(of_subject(content, 4)) - 2


def loader_of(folder, content, **options):
    twins.write_torch(folder / RAW, content)
    return loader(folder, **options)


def test_duplicated_subject_is_reported(tmp_path):
    content = twins.eeg_imagenet(n_classes=2, images_per_class=3, subjects=(4, 1, 5))
    by_image = {t["image"]: t["eeg"] for t in of_subject(content, 4)}
    for trial in of_subject(content, 5):
        trial["eeg"] = by_image[trial["image"]].clone()
    dataset = loader_of(tmp_path, content)
    expected = "6 trials of subject 5 have the same signals as trials of subject 4."
    with pytest.warns(DatasetWarning, match=expected):
        dataset.prepare()
    again = loader(tmp_path)
    with pytest.warns(DatasetWarning, match=expected):
        again.prepare()  # from the record, without looking again


def test_randomized_trials(tmp_path):
    content = twins.eeg_imagenet(3, 4, (1,), n_chans=96, lengths=(512, 512), dtype="int16")
    for trial in content["dataset"]:
        trial["image"] = content["images"][trial["image"]] + ".JPEG"  # names instead of numbers
    twins.write_torch(tmp_path / "imagenet40-1000-1.pth", content)
    twins.write_torch(tmp_path / "imagenet40-1000-1_split.pth", twins.splits(content))
    dataset = loader(tmp_path, "randomized_trials")
    dataset.prepare()
    epochs = dataset.epochs(1)
    assert epochs.get_data().shape == (12, 96, 512)
    assert epochs.info["sfreq"] == 1024
    assert set(epochs.metadata["image"]) == set(content["images"])
    check_disjoint(Split(**dataset.published_split(epochs.metadata)), epochs.metadata)
