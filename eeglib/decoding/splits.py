"""Which trials train, which choose, which test: splits by image, checked (chapters 4 to 6)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

PARTS = ("training", "validation", "test")


class SplitError(ValueError):
    """Trials that cannot be split as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Split:
    """Row numbers of the trials in each part.

    Attributes
    ----------
    training, validation, test : array of int, shape (n_trials of the part,)
        Ascending.
    """

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def sizes(self) -> dict[str, int]:
        """Number of trials in each part."""
        return {part: len(getattr(self, part)) for part in PARTS}


def split_by_image(
    metadata: pandas.DataFrame,
    training: float,
    validation: float,
    test: float,
    seed: int,
    stimuli: pandas.DataFrame | None = None,
) -> Split:
    """Split trials so that no image is in two parts, with every class in every part.

    Parameters
    ----------
    metadata : pandas.DataFrame
        One row per trial, with ``image`` and ``label``. Where ``image`` is empty for all trials,
        each trial counts as an image of its own.
    training, validation, test : float
        Shares of each class's images, summing to 1.
    seed : int
        Another seed gives another split.
    stimuli : pandas.DataFrame | None
        All images of the data set (``image``, ``label``). Give it where subjects lack some images:
        the parts are then decided on the complete list and are the same for all subjects. Without
        it they are decided on the images in `metadata`.

    Returns
    -------
    Split

    Raises
    ------
    SplitError
        If a class has fewer than 3 images, an image has two labels, or names are missing.

    Notes
    -----
    The images of a class are ordered by a hash of seed, label and name; the first go to the test,
    the next to validation, the rest to training. A part gets its share of the images, rounded, but
    at least one. Neither the order of the rows nor the subject has a say.
    """
    keys, labels = _image_keys(metadata)
    known_keys, known_labels = keys, labels
    if stimuli is not None and len(stimuli) and _has_images(metadata):
        known_keys, known_labels = _image_keys(stimuli)
        missing = sorted(set(keys) - set(known_keys))
        if missing:
            raise SplitError(
                f"{len(missing)} images of the trials are not among the stimuli, such as "
                f"{missing[0]!r}. Give the stimuli of the same data set."
            )
    shares = (training, validation, test)
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise SplitError(f"The shares must be above 0 and sum to 1, got {shares}.")
    parts = _parts_of_images(known_keys, known_labels, validation, test, seed)
    of_trial = np.array([parts[key] for key in keys])
    split = Split(*(np.flatnonzero(of_trial == part) for part in PARTS))
    check_disjoint(split, metadata)
    for part in PARTS:
        lacking = sorted(set(labels) - set(labels[getattr(split, part)]))
        if lacking:
            raise SplitError(
                f"The {part} part holds no trial of label {lacking[0]}: this subject lacks all of "
                "its images there. Choose another seed or leave the class out."
            )
    return split


def check_disjoint(split: Split, metadata: pandas.DataFrame) -> None:
    """Make sure that no trial and no image is in two parts, and every row number exists.

    Parameters
    ----------
    split : Split
    metadata : pandas.DataFrame
        One row per trial, with ``image`` and ``label``.

    Raises
    ------
    SplitError
        Naming the parts and what they share.
    """
    keys, _ = _image_keys(metadata)
    seen: dict[str, str] = {}
    for part in PARTS:
        rows = np.asarray(getattr(split, part))
        if len(rows) == 0:
            raise SplitError(f"The {part} part is empty.")
        if rows.min() < 0 or rows.max() >= len(keys):
            raise SplitError(
                f"The {part} part names rows from {rows.min()} to {rows.max()}, but there are "
                f"{len(keys)} trials. Was the split made for another subject?"
            )
        if len(np.unique(rows)) < len(rows):
            raise SplitError(f"The {part} part holds a trial twice.")
        for key in set(keys[rows]):
            if key in seen:
                raise SplitError(
                    f"Image {key!r} is in the {seen[key]} and the {part} part. Split by image."
                )
            seen[key] = part


def _has_images(metadata: pandas.DataFrame) -> bool:
    return bool(len(metadata)) and bool((metadata["image"].fillna("").astype(str) != "").any())


def _image_keys(metadata: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Name of the image of each trial, or a name of its own for each trial, and the labels."""
    missing = [column for column in ("image", "label") if column not in metadata]
    if missing or not len(metadata):
        raise SplitError(f"Trials need the columns image and label; missing: {missing or 'rows'}.")
    names = metadata["image"].fillna("").astype(str).to_numpy(dtype=object)
    labels = metadata["label"].to_numpy(dtype=int)
    unnamed = int((names == "").sum())
    if unnamed == len(names):
        return np.array([f"trial {row}" for row in range(len(names))], dtype=object), labels
    if unnamed:
        raise SplitError(
            f"{unnamed} of {len(names)} trials have no image name. Leave them out, or clear all "
            "names to split by trial."
        )
    label_of: dict[str, int] = {}
    for name, label in zip(names, labels, strict=True):
        if label_of.setdefault(name, label) != label:
            raise SplitError(
                f"Image {name!r} has the labels {label_of[name]} and {label}. Give each image one "
                "label, or clear the names to split by trial."
            )
    return names, labels


def _parts_of_images(
    keys: np.ndarray, labels: np.ndarray, validation: float, test: float, seed: int
) -> dict[str, str]:
    parts = {}
    for label in np.unique(labels):
        images = sorted(set(keys[labels == label]), key=lambda key: _draw(seed, label, key))
        n_test = max(1, round(test * len(images)))
        n_validation = max(1, round(validation * len(images)))
        if len(images) - n_test - n_validation < 1:
            raise SplitError(
                f"Label {label} has {len(images)} images; at least "
                f"{max(3, n_test + n_validation + 1)} are needed, one for each part. Collect more "
                "or leave the class out."
            )
        for rank, key in enumerate(images):
            in_test, in_validation = rank < n_test, rank < n_test + n_validation
            parts[key] = "test" if in_test else "validation" if in_validation else "training"
    return parts


def _draw(seed: int, label: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}/{label}/{key}".encode()).digest()
