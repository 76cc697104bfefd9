"""The dict of trials that EEG-ImageNet and the randomised-trials data share (chapter 1).

``{"dataset": [{"eeg", "image", "label", "subject"}, ...], "labels": [...], "images": [...]}``, and
in the raw variant ``means`` and ``stddevs``; beside it a file of splits, lists of row numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eeglib.datasets import DatasetError
from eeglib.datasets.safe_files import read_torch
from eeglib.datasets.safe_pickle import FileArray

PARTS = {"train": "training", "val": "validation", "test": "test"}
KINDS = ("float64", "float32", "float16", "int32", "int16")
LEAST_COVERAGE = 0.9
"""A split that names a smaller share of the trials was made for something else."""


@dataclass(frozen=True)
class TrialFile:
    """What such a file holds, checked; the signals are still in the file.

    Attributes
    ----------
    path : Path
    rows : pandas.DataFrame
        One row per trial: ``subject``, ``label``, ``image`` (name) and ``length`` in samples.
    eeg : list of FileArray
        Shape (n_chans, length), in the order of ``rows``.
    labels : list of str
        What the file calls the classes.
    images : list of str
        Names of the images, without extension.
    means, stddevs : array | None
        Shape (n_chans, 1).
    """

    path: Path
    rows: pd.DataFrame
    eeg: list[FileArray]
    labels: list[str]
    images: list[str]
    means: np.ndarray | None
    stddevs: np.ndarray | None

    @property
    def n_chans(self) -> int:
        """Number of channels of every trial."""
        return self.eeg[0].shape[0]


def read_trial_file(path: Path) -> TrialFile:
    """Read and check the structure of such a file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    DatasetError
        Naming the first trial that is wrong, what came and what is allowed.
    """
    content = read_torch(path)
    problem = _Problem(path)
    if not isinstance(content, dict):
        raise problem(f"it holds a {type(content).__name__}", "a dict")
    missing = [key for key in ("dataset", "labels", "images") if key not in content]
    if missing:
        raise problem(
            f"its keys are {sorted(map(str, content))[:10]}", "dataset, labels and images"
        )
    labels, images = (_names(content[key], key, problem) for key in ("labels", "images"))
    trials = content["dataset"]
    if not isinstance(trials, (list, tuple)) or not len(trials):
        raise problem(f"its dataset is a {_describe(trials)}", "a list of at least one trial")
    rows, eeg = [], []
    for number, trial in enumerate(trials):
        record, signal = _trial(trial, number, labels, images, problem)
        rows.append(record)
        eeg.append(signal)
    counts = Counter(signal.shape[0] for signal in eeg)
    if len(counts) > 1:
        raise problem(f"its trials have {dict(counts)} channels (number: trials)", "one number")
    n_chans = eeg[0].shape[0]
    scales = [_scale(content.get(key), key, n_chans, problem) for key in ("means", "stddevs")]
    if scales[1] is not None and not (scales[1] > 0).all():
        raise problem("its stddevs are not all above zero", "standard deviations")
    return TrialFile(path, pd.DataFrame(rows), eeg, labels, images, *scales)


def read_split(path: Path, index: int, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Read one published split and check that it fits the trials.

    Parameters
    ----------
    path : Path
        ``{"splits": [{"train": rows, "val": rows, "test": rows}, ...]}``.
    index : int
        Which of the splits.
    rows : pandas.DataFrame
        `TrialFile.rows`.

    Returns
    -------
    dict
        ``training``, ``validation``, ``test``: arrays of row numbers, ascending.

    Raises
    ------
    DatasetError
        If it is no split file, or does not fit: rows that do not exist, two parts with the same
        row or the same image, or too few of the trials.
    """
    content = read_torch(path)
    problem = _Problem(path)
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, (list, tuple)) or not splits:
        raise problem("it has no list called splits", '{"splits": [{"train", "val", "test"}]}')
    if not 0 <= index < len(splits):
        raise problem(
            f"it holds {len(splits)} splits, dataset.options.split_index is {index}",
            f"0 to {len(splits) - 1}",
        )
    split = splits[index]
    if not isinstance(split, dict) or not set(PARTS) <= set(split):
        raise problem(f"split {index} is {_describe(split)}", f"a dict of {', '.join(PARTS)}")
    parts = {PARTS[key]: _row_numbers(split[key], key, problem) for key in PARTS}
    _check_split(parts, rows, problem)
    return parts


def _check_split(parts: dict[str, np.ndarray], rows: pd.DataFrame, problem: _Problem) -> None:
    named = np.concatenate(list(parts.values()))
    if named.min() < 0 or named.max() >= len(rows):
        raise problem(
            f"it names row {named.max() if named.min() >= 0 else named.min()}, but the data have "
            f"{len(rows)} trials",
            "the split that belongs to the data file",
        )
    if len(np.unique(named)) < len(named):
        raise problem("its parts share trials, or one holds a trial twice", "disjoint parts")
    if len(named) < LEAST_COVERAGE * len(rows):
        raise problem(
            f"it names {len(named)} of {len(rows)} trials",
            "a split of all trials (for EEG-ImageNet: block_splits_by_image_all.pth; "
            "the one called single covers half of one subject)",
        )
    images = {name: set(rows["image"].to_numpy()[numbers]) for name, numbers in parts.items()}
    for first, second in (("training", "validation"), ("training", "test"), ("validation", "test")):
        shared = sorted((images[first] & images[second]) - {""})
        if shared:
            raise problem(f"image {shared[0]!r} is in {first} and {second}", "a split by image")


class _Problem:
    def __init__(self, path: Path):
        self.path = path

    def __call__(self, what: str, allowed: str) -> DatasetError:
        return DatasetError(
            f"{self.path.name} does not have the structure of this data set: {what}; allowed: "
            f"{allowed}. Check that it is the file that the data set's page names."
        )


def _describe(value: Any) -> str:
    length = f" of length {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{length}"


def _names(values: Any, key: str, problem: _Problem) -> list[str]:
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, (list, tuple)) or not values:
        raise problem(f"its {key} are a {_describe(values)}", "a list of names")
    odd = [value for value in values if not isinstance(value, str) or not value.strip()]
    if odd:
        raise problem(f"its {key} hold {odd[0]!r}", "names")
    twice = [name for name, n in Counter(values).items() if n > 1]
    if twice:
        raise problem(f"its {key} hold {twice[0]!r} twice", "each name once")
    return [str(value) for value in values]


def _trial(
    trial: Any, number: int, labels: list[str], images: list[str], problem: _Problem
) -> tuple[dict[str, Any], FileArray]:
    where = f"trial {number}"
    if not isinstance(trial, dict):
        raise problem(f"{where} is a {_describe(trial)}", "a dict")
    missing = [key for key in ("eeg", "image", "label", "subject") if key not in trial]
    if missing:
        raise problem(f"{where} lacks {', '.join(missing)}", "eeg, image, label and subject")
    eeg = trial["eeg"]
    if not isinstance(eeg, FileArray):
        raise problem(f"the eeg of {where} is a {_describe(eeg)}", "a tensor")
    eeg.check()
    if len(eeg.shape) != 2 or 0 in eeg.shape:
        raise problem(f"the eeg of {where} has shape {eeg.shape}", "(channels, samples)")
    if eeg.dtype.newbyteorder("=").name not in KINDS:
        raise problem(f"the eeg of {where} has dtype {eeg.dtype}", ", ".join(KINDS))
    label = _integer(trial["label"], len(labels), f"the label of {where}", problem)
    image = trial["image"]
    if not isinstance(image, str):
        image = images[_integer(image, len(images), f"the image of {where}", problem)]
    subject = _integer(trial["subject"], 10**6, f"the subject of {where}", problem)
    if subject == 0:
        raise problem(f"the subject of {where} is 0", "numbers from 1")
    name = Path(image.replace("\\", "/")).name
    record = {"subject": subject, "label": label, "length": eeg.shape[1], "image": _stem(name)}
    return record, eeg


def _stem(name: str) -> str:
    """Name without the extension of a picture; other dots belong to the name."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and extension.lower() in ("jpeg", "jpg", "png") else name


def _integer(value: Any, limit: int, what: str, problem: _Problem) -> int:
    if isinstance(value, FileArray) and value.shape == ():
        value = value.read().item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise problem(f"{what} is {value!r}", "a whole number")
    if not 0 <= value < limit:
        raise problem(f"{what} is {value}", f"0 to {limit - 1}")
    return int(value)


def _row_numbers(values: Any, key: str, problem: _Problem) -> np.ndarray:
    if isinstance(values, FileArray):
        values = values.read()
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict)):
        numbers = np.asarray(
            [v.read().item() if isinstance(v, FileArray) else v for v in values], dtype=object
        )
        whole = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in numbers)
        if numbers.ndim == 1 and len(numbers) and whole and max(map(abs, numbers)) < 2**62:
            return np.sort(numbers.astype(np.int64))
    raise problem(f"its {key} is a {_describe(values)}", "a list of row numbers, not empty")


def _scale(values: Any, key: str, n_chans: int, problem: _Problem) -> np.ndarray | None:
    if values is None:
        return None
    values = values.read() if isinstance(values, FileArray) else values
    if not isinstance(values, np.ndarray) or values.size != n_chans:
        shape = getattr(values, "shape", _describe(values))
        raise problem(f"its {key} have shape {shape}", f"one number for each of {n_chans} channels")
    values = values.astype(np.float64).reshape(n_chans, 1)
    if not np.isfinite(values).all():
        raise problem(f"its {key} hold values that are no numbers", "finite numbers")
    return values
