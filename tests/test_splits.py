"""Splits: by image, the same for all subjects, every class in every part."""

import numpy as np
import pandas
import pytest

from eeglib.decoding.splits import (
    Split,
    SplitError,
    check_disjoint,
    split_by_group,
    split_by_image,
)

SHARES = {"training": 0.8, "validation": 0.1, "test": 0.1}


def trials(n_classes=4, n_images=10, repeats=2, names=True):
    rows = [
        (f"n{c}_{i}" if names else "", c, f"class number {c}")
        for c in range(n_classes)
        for i in range(n_images)
        for _ in range(repeats)
    ]
    return pandas.DataFrame(rows, columns=["image", "label", "class_name"])


def images_of(split, metadata, part):
    return set(metadata["image"].iloc[getattr(split, part)])


def test_parts_are_disjoint_complete_and_stratified():
    metadata = trials()
    split = split_by_image(metadata, **SHARES, seed=0)
    everything = np.concatenate([split.training, split.validation, split.test])
    assert sorted(everything) == list(range(len(metadata)))
    assert not images_of(split, metadata, "training") & images_of(split, metadata, "test")
    for part, count in [("training", 16), ("validation", 2), ("test", 2)]:
        counts = metadata["label"].iloc[getattr(split, part)].value_counts()
        assert (counts == count).all()
        assert len(counts) == 4


def test_order_of_rows_and_repeats_have_no_say():
    metadata = trials()
    shuffled = metadata.sample(frac=1, random_state=1).iloc[:70].reset_index(drop=True)
    first = split_by_image(metadata, **SHARES, seed=3)
    second = split_by_image(shuffled, **SHARES, seed=3, stimuli=metadata.drop_duplicates())
    assert images_of(second, shuffled, "test") <= images_of(first, metadata, "test")
    assert images_of(second, shuffled, "training") <= images_of(first, metadata, "training")


def test_a_subject_that_lacks_images_keeps_everyones_parts():
    stimuli = trials(n_images=20, repeats=1)
    complete = split_by_image(stimuli, **SHARES, seed=0)
    for lost in range(0, 80, 7):
        subject = stimuli.drop(index=[lost, (lost + 1) % 80]).reset_index(drop=True)
        split = split_by_image(subject, **SHARES, seed=0, stimuli=stimuli)
        for part in ("training", "validation", "test"):
            assert images_of(split, subject, part) <= images_of(complete, stimuli, part)


def test_same_seed_same_split_other_seed_other_split():
    metadata = trials()
    first, same, other = (split_by_image(metadata, **SHARES, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.test, same.test)
    assert not np.array_equal(first.test, other.test)


def test_without_images_each_trial_is_its_own():
    metadata = trials(names=False, n_images=5, repeats=3)
    split = split_by_image(metadata, **SHARES, seed=0)
    assert len(split.test) == 4 * 2
    assert len(split.training) + len(split.validation) + len(split.test) == len(metadata)


def test_three_images_are_enough_and_two_are_not():
    split = split_by_image(trials(n_images=3, repeats=1), **SHARES, seed=0)
    assert [len(split.training), len(split.validation), len(split.test)] == [4, 4, 4]
    with pytest.raises(SplitError, match="class 'class number 0' has 2 images; at least 3"):
        split_by_image(trials(n_images=2), **SHARES, seed=0)


def test_an_image_with_two_labels_or_half_the_names_is_refused():
    metadata = trials()
    metadata.loc[0, "image"] = "n1_0"
    with pytest.raises(SplitError, match="Image 'n1_0' has 2 labels"):
        split_by_image(metadata, **SHARES, seed=0)
    metadata = trials()
    metadata.loc[:9, "image"] = ""
    with pytest.raises(SplitError, match="10 of 80 trials have no image name"):
        split_by_image(metadata, **SHARES, seed=0)


def test_stimuli_of_another_data_set_are_refused():
    with pytest.raises(SplitError, match="not among the stimuli"):
        split_by_image(trials(), **SHARES, seed=0, stimuli=trials(n_images=5))


def test_a_subject_without_any_test_image_of_a_class_is_refused():
    stimuli = trials(n_images=5, repeats=1)
    split = split_by_image(stimuli, **SHARES, seed=0)
    lost = [row for row in split.test if stimuli["label"][row] == 2]
    subject = stimuli.drop(index=lost).reset_index(drop=True)
    with pytest.raises(SplitError, match="test part holds no trial of class 'class number 2'"):
        split_by_image(subject, **SHARES, seed=0, stimuli=stimuli)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (([0, 1], [1], [4]), "training and the validation"),
        (([0], [2], []), "test part is empty"),
        (([0], [2], [1]), "n0_0.*training and the test"),
    ],
)
def test_overlaps_are_found(parts, words):
    split = Split(*(np.array(p, dtype=int) for p in parts))
    with pytest.raises(SplitError, match=words):
        check_disjoint(split, trials())


@pytest.mark.parametrize("by", ["run", "session"])
def test_a_split_by_run_or_session_keeps_each_together(by):
    metadata = trials(n_images=20, repeats=1)
    metadata[by] = np.arange(len(metadata)) % 10
    split = split_by_group(metadata, by, **SHARES, seed=0)
    parts = [set(metadata[by].iloc[rows]) for rows in split]
    assert [len(part) for part in parts] == [8, 1, 1]
    assert set.union(*parts) == set(range(10))
    others = [split_by_group(metadata, by, **SHARES, seed=seed).test for seed in (1, 2, 3)]
    assert not all(np.array_equal(split.test, other) for other in others)
    metadata.loc[metadata[by].isin(parts[2]), "label"] = 0
    with pytest.raises(SplitError, match="test part holds no trial of class 'class number 1'"):
        split_by_group(metadata, by, **SHARES, seed=0)


def test_a_split_by_run_needs_three():
    metadata = trials().assign(session=-1, run=np.arange(80) % 2)
    for by, n in (("run", 2), ("session", 0)):
        with pytest.raises(SplitError, match=f"split.by: {by} needs 3 of them; known here: {n}"):
            split_by_group(metadata, by, **SHARES, seed=0)
    with pytest.raises(SplitError, match="known here: 0"):
        split_by_group(trials(), "run", **SHARES, seed=0)
