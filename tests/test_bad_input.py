"""Bad input by name: each ends in one clear error, or is repaired with a stated warning."""

import copy
import gzip
import os
import pickle

import numpy as np
import pytest
import torch
import twins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eeglib.datasets import DatasetError, DatasetWarning, open_dataset
from eeglib.datasets.files import load_numpy, load_torch
from eeglib.profile import DatasetSettings

RAW = "eeg_signals_raw_with_mean_std.pth"
SPLIT = "block_splits_by_image_all.pth"
THINGS = "sub-01/preprocessed_eeg_training.npy"


@pytest.fixture(scope="module")
def original():
    return twins.eeg_imagenet(n_classes=2, images_per_class=3, subjects=(4, 1))


@pytest.fixture
def content(original):
    return copy.deepcopy(original)


def loader(folder, name="eeg_imagenet", subjects=(1,), **options):
    return open_dataset(DatasetSettings(name=name, subjects=subjects, options=options), folder)


def use(folder, **options):
    """What chapters 1 and 2 do with a data set."""
    dataset = loader(folder, **options)
    dataset.prepare()
    return dataset.epochs(4).get_data()


def refused(folder, match, **options):
    before = set(folder.glob("[!.]*"))
    with pytest.raises(DatasetError, match=match) as caught:
        use(folder, **options)
    assert len(str(caught.value)) < 1200
    assert set(folder.glob("[!.]*")) - before <= {folder / "checksums.json"}
    assert not list(folder.glob(f".{RAW}-*"))  # nothing half-written
    return caught.value


FILES = {
    "empty": (b"", "is empty"),
    "web page": (b"\n<!DOCTYPE html><html>Sign in to Drive</html>", "is an HTML page"),
    "pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
    "packed with gzip": (gzip.compress(b"x" * 100), "is damaged or another file"),
    "noise": (np.random.default_rng(0).bytes(5000), "is damaged or another file"),
    "a pickled number": (pickle.dumps(3), "is damaged or another file"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_no_data_file(tmp_path, name):
    data, match = FILES[name]
    (tmp_path / RAW).write_bytes(data)
    refused(tmp_path, match)


def test_no_file(tmp_path, content):
    twins.write_torch(tmp_path / "eeg_5_95_std.pth", content)
    error = refused(tmp_path, "There is no eeg_signals_raw_with_mean_std.pth")
    here = "in the folder now: eeg_5_95_std.pth"
    for part in ("3.10 GB", "perceivelab", str(tmp_path / RAW), "dataset.root", here):
        assert part in str(error)


def test_no_permission(tmp_path, content, monkeypatch):
    twins.write_torch(tmp_path / RAW, content)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read"):
        loader(tmp_path).subjects()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("form", ["zip", "legacy", "npy"])
def test_truncated(tmp_path, content, form, share):
    if form == "npy":
        path = twins.write_things(tmp_path / "file", twins.things(12), "numpy")
        path = path.with_suffix(".npy")
    else:
        path = twins.write_torch(tmp_path / "file", content, form == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DatasetError, match=r"is damaged|is empty"):
        (load_numpy if form == "npy" else load_torch)(path)


def change(key, value):
    return lambda content: content.__setitem__(key, value)


def change_trial(key, value):
    return lambda content: content["dataset"][2].__setitem__(key, value)


STRUCTURES = {
    "labels missing": (
        lambda c: c.pop("labels"),
        "KeyError 'labels'; allowed: a dict with dataset",
    ),
    "dataset empty": (change("dataset", []), r"trials of \[\] channels"),
    "trial no dict": (lambda c: c["dataset"].append(7), "'int' object"),
    "trial without subject": (lambda c: c["dataset"][2].pop("subject"), "KeyError 'subject'"),
    "eeg of one axis": (change_trial("eeg", torch.zeros(128)), "expected 2"),
    "eeg transposed": (change_trial("eeg", torch.zeros(500, 128)), r"trials of \[128, 500\] chan"),
    "label too high": (change_trial("label", 2), "a subject or label that is not there"),
    "label negative": (change_trial("label", -1), "a subject or label that is not there"),
    "label no number": (change_trial("label", 1.5), "'float' object"),
    "image too high": (change_trial("image", 6), "KeyError 6"),
    "subject 0": (change_trial("subject", 0), "a subject or label that is not there"),
    "labels twice": (change("labels", ["n1", "n1"]), "name twice"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_wrong_structure(tmp_path, content, name):
    apply, match = STRUCTURES[name]
    apply(content)
    twins.write_torch(tmp_path / RAW, content)
    refused(tmp_path, match)


def test_channel_count_of_another_data_set(tmp_path):
    twins.write_torch(tmp_path / RAW, twins.eeg_imagenet(2, 3, n_chans=96))
    refused(tmp_path, "has 96 channels; this data set has 128")


def spoil(value, trials=(0,), channels=5, times=slice(100, 300)):
    def apply(content):
        of_subject = [t for t in content["dataset"] if t["subject"] == 4]
        for number in trials:
            of_subject[number]["eeg"][channels, times] = value

    return apply


SIGNALS = {
    "a value is no number": (spoil(float("nan"), times=slice(120, 121)), 1),
    "infinite": (spoil(float("-inf"), (0, 3)), 2),
    "flat channel": (spoil(7.0, times=slice(None)), 1),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_bad_trials_are_dropped_and_counted(tmp_path, content, name):
    apply, n_bad = SIGNALS[name]
    apply(content)
    twins.write_torch(tmp_path / RAW, content)
    with pytest.warns(DatasetWarning, match=f"Subject 4: {n_bad} of 6 trials left out for"):
        data = use(tmp_path)
    assert np.isfinite(data).all()
    assert len(data) == 6 - n_bad


def test_bad_channel_does_not_cost_the_trials(tmp_path, content):
    spoil(float("nan"), range(6), 7)(content)
    twins.write_torch(tmp_path / RAW, content)
    with pytest.warns(DatasetWarning, match="channels set to zero as bad: FC5"):
        epochs = loader(tmp_path).epochs(4)
    assert len(epochs) == 6
    assert epochs.info["bads"] == ["FC5"]
    assert not epochs.get_data()[:, 7].any()


def test_no_trial_left(tmp_path, content):
    for number in range(6):
        spoil(float("nan"), (number,), number)(content)
    twins.write_torch(tmp_path / RAW, content)
    with pytest.warns(DatasetWarning):
        refused(tmp_path, "No trial of subject 4 can be used")


OPTIONS = {
    "misspelt": ({"cutt": (20, 460)}, "cutt: Extra inputs"),
    "cut reversed": ({"cut": (460, 20)}, "two ascending numbers"),
    "cut beyond every trial": ({"cut": (0, 590)}, "no trials of subject 4 with 590 to 600 samp"),
    "split below 0": ({"split_index": -1}, "greater than or equal to 0"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_option(tmp_path, content, name):
    options, match = OPTIONS[name]
    twins.write_torch(tmp_path / RAW, content)
    refused(tmp_path, match, **options)


def to_split(part, *rows):
    return lambda splits: splits["splits"][0][part].extend(rows)


def same_image_twice(splits):
    first = splits["splits"][0]
    first["train"].append(first["test"].pop())


SPLITS = {
    "no list": (lambda s: s.pop("splits"), "KeyError 'splits'"),
    "too few": (lambda s: s.update(splits=[]), "list index out of range"),
    "part missing": (lambda s: s["splits"][0].pop("val"), "KeyError 'val'"),
    "parts overlap": (lambda s: s["splits"][0]["val"].append(s["splits"][0]["test"][0]), "twice"),
    "an image in two parts": (same_image_twice, "each image in one part"),
    "row too high": (to_split("test", 99), "99"),
    "row negative": (to_split("test", -1), "-1"),
    "part empty": (lambda s: s["splits"][0].update(test=[]), "names 8 of 12 trials"),
    "fractions": (to_split("test", 0.5), "'float' object"),
    "too few trials": (lambda s: s["splits"][0]["train"].__delitem__(slice(2)), "10 of 12 trials"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_split_that_does_not_fit(tmp_path, content, name):
    apply, match = SPLITS[name]
    splits = twins.splits(content)
    apply(splits)
    twins.write_torch(tmp_path / RAW, content)
    twins.write_torch(tmp_path / SPLIT, splits)
    refused(tmp_path, match)


@pytest.mark.parametrize("order", [b"a_1.JPEG\nb_2.JPEG\n", b"\xff\xfe\x00\xd8\xff"])
def test_order_of_another_data_set_or_no_text(tmp_path, content, order):
    twins.write_torch(tmp_path / RAW, content)
    (tmp_path / "image_order.txt").write_bytes(order)
    refused(tmp_path, "names none of the images")


def test_order_that_lacks_images(tmp_path, content):
    twins.write_torch(tmp_path / RAW, content)
    twins.write_image_order(tmp_path / "image_order.txt", {"images": content["images"][1:]})
    with pytest.warns(DatasetWarning, match=r"2 trials show images that image_order\.txt does not"):
        assert (loader(tmp_path).trials(4)["order"] == -1).sum() == 1


def test_unicode_names(tmp_path, content):
    content["images"] = [f"bild ü {n} 図" for n in range(6)]
    folder = tmp_path / "Daten für später 図"
    folder.mkdir()
    twins.write_torch(folder / RAW, content)
    assert use(folder).shape == (6, 128, 440)


THINGS_FILES = {
    "three axes": ("preprocessed_eeg_data", np.ones((2, 3, 4)), "of shape"),
    "no image": ("preprocessed_eeg_data", np.empty((0, 4, 17, 100)), "of shape"),
    "whole numbers": ("preprocessed_eeg_data", np.ones((2, 4, 17, 100), int), "type int64"),
    "channel named twice": ("ch_names", ["Cz"] * 17, "1 names for 17 channels"),
    "too few times": ("times", np.arange(5.0), "5 times from 0 to 4"),
    "times that fall": ("times", np.arange(100.0)[::-1], "equal steps"),
    "times in milliseconds": ("times", np.arange(100.0) * 10, "equal steps"),
    "times no numbers": ("times", ["a"] * 100, "convert string"),
    "times not finite": ("times", np.full(100, np.nan), "from nan"),
    "another file": ("train_img_files", ["a.jpg"], "KeyError 'preprocessed_eeg_data'"),
}


@pytest.mark.parametrize("name", THINGS_FILES)
def test_wrong_things_file(tmp_path, name):
    key, value, match = THINGS_FILES[name]
    kept = {} if name == "another file" else twins.things(12)
    twins.write_things(tmp_path / THINGS, kept | {key: value})
    with pytest.raises(DatasetError, match=match):
        loader(tmp_path, "things_eeg2").prepare()


IMAGE_LISTS = {
    "keys": ({"a": 1}, "KeyError 'train_img_files'"),
    "lengths": ({"train_img_files": ["a.jpg"], "train_img_concepts": []}, "same length"),
    "numbers": ({"train_img_files": [1, 2], "train_img_concepts": ["c", "c"]}, "expected str"),
    "twice": ({"train_img_files": ["a.jpg"] * 2, "train_img_concepts": ["c"] * 2}, "one twice"),
}


@pytest.mark.parametrize("name", IMAGE_LISTS)
def test_wrong_image_lists(tmp_path, name):
    lists, match = IMAGE_LISTS[name]
    twins.write_things(tmp_path / THINGS, twins.things(12))
    np.save(tmp_path / "image_metadata.npy", lists, allow_pickle=True)
    with pytest.raises(DatasetError, match=match):
        loader(tmp_path, "things_eeg2").prepare()


class Malicious:
    """Touches a file when it is unpickled in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    """Attacks that leave a mark, by name."""
    code = f"open({str(path)!r}, 'w').close()"
    return {
        "os.system": Malicious(os.system, f"touch '{path}'"),
        "exec": Malicious(exec, code),
        "eval": Malicious(eval, f"__import__('os').mkdir({str(path)!r})"),
        "open": Malicious(open, str(path), "w"),
        "numpy memmap": Malicious(np.memmap, str(path), "u1", "w+", 0, (3,)),
        "torch load": Malicious(torch.hub.load, str(path), "x"),
    }


ATTACKS = sorted(touch("x"))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("form", ["zip", "legacy", "npy", "pickle", "protocol 0"])
def test_nothing_in_a_file_is_run(tmp_path, content, attack, form):
    marker, evil = tmp_path / "marker", touch(tmp_path / "marker")[attack]
    path = tmp_path / "file"
    if form in ("zip", "legacy"):
        content["dataset"][0]["label"] = evil
        twins.write_torch(path, content, form == "zip")
    elif form == "npy":
        with open(path, "wb") as file:
            np.save(file, {"preprocessed_eeg_data": evil}, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps([evil], protocol=0 if form == "protocol 0" else 4))
    read = load_torch if form in ("zip", "legacy") else load_numpy
    with pytest.raises(DatasetError, match="nothing was run"):
        read(path)
    assert not marker.exists()


def test_the_attack_is_real(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(touch(marker)["os.system"]))
    assert marker.exists()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.tuples(st.integers(0, 3), st.integers(0, 600)).map(lambda shape: torch.ones(shape)),
    st.sampled_from([torch.tensor(1), np.zeros(3), np.float64(1.5), b"bytes"]),
)
PLACES = st.one_of(
    st.tuples(st.sampled_from(["dataset", "labels", "images", "more"])),
    st.tuples(
        st.just("dataset"), st.integers(0, 5),
        st.sampled_from(["eeg", "image", "label", "subject", "more"]),
    ),
    st.tuples(st.sampled_from(["dataset", "labels", "images"]), st.integers(0, 1)),
)  # fmt: skip


@settings(
    max_examples=80, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(changes=st.lists(st.tuples(PLACES, JUNK), min_size=1, max_size=3), zipped=st.booleans())
@pytest.mark.filterwarnings("ignore::eeglib.datasets.DatasetWarning")
def test_any_change_of_the_dict_gives_one_clear_error_or_usable_trials(tmp_path, changes, zipped):
    content = twins.eeg_imagenet(2, 3, subjects=(4,), n_chans=96, lengths=(512, 512))
    for (*way, last), junk in changes:
        place = content
        try:
            for key in way:
                place = place[key]
            place[last] = junk
        except (KeyError, IndexError, TypeError, RuntimeError, ValueError):
            continue  # an earlier change took the place away
    twins.write_torch(tmp_path / "imagenet40-1000-1.pth", content, zipped)
    (tmp_path / "checksums.json").unlink(missing_ok=True)
    dataset = loader(tmp_path, "randomized_trials")
    try:
        dataset.prepare()
        for subject in dataset.subjects():
            epochs = dataset.epochs(subject)
            assert np.isfinite(epochs.get_data()).all()
            assert epochs.metadata["label"].between(0, len(dataset.class_names) - 1).all()
    except DatasetError:
        pass  # any other exception is a failure


@settings(
    max_examples=80, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data(), form=st.sampled_from(["zip", "legacy", "npy"]))
def test_any_change_of_the_bytes_gives_one_clear_error_or_a_result(tmp_path, data, form):
    path = tmp_path / "file"
    if form == "npy":
        with open(path, "wb") as file:
            np.save(file, twins.things(1, 1, 2, 5), allow_pickle=True)
    else:
        small = twins.eeg_imagenet(2, 2, subjects=(4,), n_chans=2, lengths=(3, 5))
        twins.write_torch(path, small, form == "zip")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.floats(0, 1, exclude_max=True))  # of a file whose length varies
        content[int(place * len(content))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read = load_numpy if form == "npy" else load_torch
    try:
        read(path)
    except DatasetError:
        pass  # any other exception is a failure
