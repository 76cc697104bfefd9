"""THINGS-EEG2: both published forms, with and without the 0-d array around the dict."""

import numpy as np
import pytest
import twins

from eeglib.datasets import METADATA, DatasetError, open_dataset
from eeglib.datasets.things_eeg2 import read_things
from eeglib.preprocessing import preprocess
from eeglib.profile import DatasetSettings, load_profile

CONCEPTS = ["aardvark", "bat", "cat house", "dune"]


def write(folder, content, subject=1, form="numpy", part="training"):
    path = folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{part}.npy"
    return twins.write_things(path, content, form)


def loader(folder, subjects=(1,), **options):
    return open_dataset(
        DatasetSettings(name="things_eeg2", subjects=subjects, options=options), folder
    )


@pytest.fixture(scope="module")
def content():
    return twins.things(12)


@pytest.fixture(scope="module", params=["numpy", "pickle"])
def folder(request, content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("things")
    write(folder, content, form=request.param)
    twins.write_image_metadata(folder / "image_metadata.npy", CONCEPTS, 3)
    return folder


def test_official_form(folder, content):
    dataset = loader(folder)
    dataset.prepare()
    epochs = dataset.epochs(1)
    assert tuple(epochs.metadata.columns) == METADATA
    assert epochs.info["sfreq"] == 100
    assert epochs.tmin == pytest.approx(-0.2)
    assert len(epochs) == 48
    signals = content["preprocessed_eeg_data"].reshape(48, 17, 100)
    assert np.allclose(epochs.get_data(), signals, atol=1e-6)
    assert dataset.class_names == CONCEPTS
    assert epochs.metadata["label"].tolist() == np.repeat(range(4), 12).tolist()
    assert epochs.metadata["image"].nunique() == 12


def test_the_shipped_profile_asks_for_what_both_forms_can_give(tmp_path):
    settings = load_profile("things_eeg2").filtering
    forms = {"official": {}, "nice": {"n_chans": 63, "n_times": 250, "sfreq": 250.0}}
    for name, form in forms.items():
        write(tmp_path / name, twins.things(12, extra_times=50 * bool(form), **form))
        twins.write_image_metadata(tmp_path / name / "image_metadata.npy", CONCEPTS, 3)
        dataset = loader(tmp_path / name)
        done = preprocess(dataset, 1, **settings.model_dump())
        assert len(done.epochs) == 48
        assert done.epochs.get_data().std() == pytest.approx(1, abs=0.01)
        assert f"{settings.band[0]:g}-{settings.band[1]:g} Hz" in dataset.card()["band"]


def test_a_subjects_file_and_what_all_share(folder):
    dataset = loader(folder)
    dataset.prepare()
    assert [path.name for path in dataset.files(1)] == ["preprocessed_eeg_training.npy"]
    assert dataset.files(2) == []
    assert [path.name for path in dataset.files()] == ["image_metadata.npy"]


def test_form_of_nice_and_atm_as_the_benchmark_writes_it(tmp_path):
    path = twins.write_full_things(tmp_path / "file.npy", (4, 4, 63, 250))
    content, read = np.load(path, allow_pickle=True), read_things(path)
    assert read["sfreq"] == 250
    assert read["tmin"] == pytest.approx(0.0, abs=1e-9)
    assert isinstance(read["eeg"].base.base, np.memmap)  # two megabytes stay in the file
    assert np.array_equal(read["eeg"], content["preprocessed_eeg_data"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(tmp_path, content, protocol):
    import pickle

    path = tmp_path / "file.npy"
    path.write_bytes(pickle.dumps(content, protocol))
    assert np.array_equal(read_things(path)["eeg"], content["preprocessed_eeg_data"])


def test_average_over_repetitions(folder, content):
    epochs = loader(folder, repetitions="average").epochs(1)
    assert np.allclose(epochs.get_data(), content["preprocessed_eeg_data"].mean(axis=1), atol=1e-6)


def test_some_concepts(folder):
    dataset = loader(folder, n_concepts=2)
    assert dataset.class_names == ["aardvark", "dune"]
    assert set(dataset.trials(1)["label"]) == {0, 1}
    with pytest.raises(DatasetError, match=r"has 4 concepts.*now 9"):
        loader(folder, n_concepts=9).trials(1)


def test_pictures(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "data")
    dataset = loader(tmp_path / "data")
    table = dataset.trials(1).drop_duplicates("image")
    assert dataset.stimuli().empty
    place = tmp_path / "data" / "training_images"
    twins.write_pictures(place, table["image"].tolist())
    assert len(loader(tmp_path / "data").stimuli()) == 12
    next(place.rglob("*.JPEG")).unlink()
    dataset = loader(tmp_path / "data")
    with pytest.warns(UserWarning, match="1 pictures are missing"):
        assert len(dataset.stimuli()) == 11
    assert dataset.trials(1)["image"].nunique() == 11


def test_lists_of_another_part(folder, content, tmp_path):
    write(tmp_path, content)
    twins.write_image_metadata(tmp_path / "image_metadata.npy", CONCEPTS, 5)
    with pytest.raises(DatasetError, match=r"has 12 images, image_metadata\.npy lists 20"):
        loader(tmp_path).epochs(1)


def test_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(DatasetError) as caught:
        loader(tmp_path, subjects=(3,)).prepare()
    message = str(caught.value)
    for part in ("sub-03/preprocessed_eeg_training.npy", "8.34 GB", "osf.io/3jk45", str(tmp_path)):
        assert part in message
    assert "eeglib download things_eeg2" in message
