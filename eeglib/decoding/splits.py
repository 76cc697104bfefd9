"""Which trials train, which choose, which test: splits by image (chapters 4 to 6)."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas


class SplitError(ValueError):
    """Trials that cannot be split as asked; the message says why and what to do."""


class Split(NamedTuple):
    """Row numbers of the trials in each part: ascending arrays of int."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def sizes(self) -> dict[str, int]:
        """Number of trials in each part."""
        return {part: len(rows) for part, rows in self._asdict().items()}


def split_by_image(
    metadata: pandas.DataFrame,
    training: float,
    validation: float,
    test: float,
    seed: int,
    stimuli: pandas.DataFrame | None = None,
) -> Split:
    """Split trials so that no image is in two parts, with every class in every part.

    Where ``image`` is empty for all rows of `metadata`, each trial counts as an image of its own.
    With `stimuli`, all images of the data set (``image``, ``label``), the parts are the same for
    subjects that lack some. The images of a class are ordered by a hash of seed, label and name;
    the first go to the test, the next to validation, the rest to training. A part gets its share,
    rounded, but at least one. Neither the order of the rows nor the subject has a say.
    """
    keys, labels = _image_keys(metadata)
    all_keys, all_labels, every = keys, labels, metadata
    if stimuli is not None and len(stimuli) and (metadata["image"].fillna("") != "").any():
        every, (all_keys, all_labels) = stimuli, _image_keys(stimuli)
        if missing := sorted(set(keys) - set(all_keys)):
            text = f"{len(missing)} images, such as {missing[0]!r}, are not among the stimuli"
            raise SplitError(f"{text}. Give those of the same data set.")
    part_of_image = {}
    for label in np.unique(all_labels):
        keys_of_label = set(all_keys[all_labels == label])
        hashed = {hashlib.sha256(f"{seed}/{label}/{k}".encode()).digest(): k for k in keys_of_label}
        images = [hashed[digest] for digest in sorted(hashed)]
        n_test, n_validation = (max(1, round(s * len(images))) for s in (test, validation))
        n_training = len(images) - n_test - n_validation
        if n_training < 1:
            text = f"{_class_name(every, label)} has {len(images)} images; at least"
            least = max(3, n_test + n_validation + 1)
            raise SplitError(f"{text} {least} are needed. Collect more or leave it out.")
        order = np.repeat(["test", "validation", "training"], [n_test, n_validation, n_training])
        part_of_image |= dict(zip(images, order, strict=True))
    part_of_trial = np.array([part_of_image[key] for key in keys])
    split = Split(*(np.flatnonzero(part_of_trial == part) for part in Split._fields))
    _check_classes(split, metadata)
    return split


def split_by_group(metadata: pandas.DataFrame, by: str, **how: float) -> Split:
    """Split trials so that no run, or session, is in two parts, with every class in every part.

    The groups, numbered in a column of `metadata`, take the place of images in `split_by_image`.
    """
    n_groups = metadata[by].nunique() if by in metadata and (metadata[by] >= 0).all() else 0
    if n_groups < 3:
        raise SplitError(f"split.by: {by} needs 3 of them; known here: {n_groups}. Split by image.")
    groups = metadata.assign(image=metadata[by].map(f"{by} {{}}".format), label=0, class_name=by)
    split = split_by_image(groups, **how)
    _check_classes(split, metadata)
    return split


def _check_classes(split: Split, metadata: pandas.DataFrame) -> None:
    labels = metadata["label"].to_numpy(dtype=int)
    for part, rows in split._asdict().items():
        if lacking := sorted(set(labels) - set(labels[rows])):
            text = f"The {part} part holds no trial of {_class_name(metadata, lacking[0])}"
            raise SplitError(f"{text}. Choose another seed or leave the class out.")


def check_disjoint(split: Split, metadata: pandas.DataFrame) -> None:
    """Raise a SplitError if a part is empty, or two parts share an image."""
    keys, _ = _image_keys(metadata)
    images = {part: set(keys[rows]) for part, rows in split._asdict().items()}
    if empty := [part for part in images if not images[part]]:
        raise SplitError(f"The {empty[0]} part is empty.")
    for one, other in combinations(images, 2):
        if shared := sorted(images[one] & images[other]):
            where = f"in the {one} and the {other} part"
            raise SplitError(f"Image {shared[0]!r} is {where}. Split by image.")


def _class_name(table: pandas.DataFrame, label: int) -> str:
    """What a message calls a class."""
    return f"class {table.loc[table['label'] == label, 'class_name'].iloc[0]!r}"


def _image_keys(metadata: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Name of the image of each trial, or a name of its own for each trial, and the labels."""
    names, labels = metadata["image"].fillna("").astype(str), metadata["label"].to_numpy(dtype=int)
    unnamed = int((names == "").sum())
    if unnamed == len(names):
        return np.array([f"trial {row}" for row in range(len(names))], dtype=object), labels
    if unnamed:
        text = f"{unnamed} of {len(names)} trials have no image name"
        raise SplitError(f"{text}. Leave them out or clear all.")
    n_labels = metadata["label"].groupby(names).nunique()
    if n_labels.max() > 1:
        raise SplitError(f"Image {n_labels.idxmax()!r} has {n_labels.max()} labels. Give it one.")
    return names.to_numpy(dtype=object), labels
