"""The dict of trials that EEG-ImageNet and the randomised-trials data share (chapter 1).

``{"dataset": [{"eeg", "image", "label", "subject"}, ...], "labels": [...], "images": [...]}``;
beside it a file of splits, lists of row numbers. Such a file holds all subjects, and in its older
form it cannot be mapped into memory. So it is converted once, into one file of numbers a subject.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pooch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from eeglib.datasets import DatasetError
from eeglib.datasets.download import cannot_write
from eeglib.datasets.files import load_torch

LEAST_COVERAGE = 0.9
"""A split that names a smaller share of the trials was made for something else."""


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _signal(value: Any) -> Any:
    if "torch" not in str(getattr(value, "dtype", "")) or value.ndim != 2 or not value.numel():
        raise ValueError("a tensor of shape (channels, samples) is needed")
    return value


def _distinct(names: list[str]) -> list[str]:
    twice = [name for name, n in Counter(names).items() if n > 1 or not name.strip()]
    if twice:
        raise ValueError(f"each name must be there once, not so {twice[0]!r}")
    return names


Index = Annotated[int, Field(ge=0, strict=True), BeforeValidator(_plain)]
Names = Annotated[
    list[str], Field(min_length=1), AfterValidator(_distinct), BeforeValidator(_plain)
]
Rows = Annotated[list[Index], Field(min_length=1), BeforeValidator(_plain)]


class _Trial(BaseModel):
    eeg: Annotated[Any, AfterValidator(_signal)]
    image: Index | str
    label: Index
    subject: Annotated[Index, Field(ge=1)]


class _Trials(BaseModel):
    dataset: Annotated[list[_Trial], Field(min_length=1)]
    labels: Names
    images: Names

    @model_validator(mode="after")
    def _fit(self) -> _Trials:
        for number, trial in enumerate(self.dataset):
            if isinstance(trial.image, int):
                if trial.image >= len(self.images):
                    raise ValueError(
                        f"trial {number} has image {trial.image}, the file names fewer"
                    )
                trial.image = self.images[trial.image]
            if trial.label >= len(self.labels):
                raise ValueError(f"trial {number} has label {trial.label}, the file names fewer")
        n_chans = Counter(trial.eeg.shape[0] for trial in self.dataset)
        if len(n_chans) > 1:
            raise ValueError(f"trials differ in their channels, number: trials {dict(n_chans)}")
        return self


class _Split(BaseModel):
    train: Rows
    val: Rows
    test: Rows


class _Splits(BaseModel):
    splits: Annotated[list[_Split], Field(min_length=1)]


def _checked(kind: type[BaseModel], path: Path) -> Any:
    try:
        return kind.model_validate(load_torch(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        allowed = ", ".join(kind.model_fields)
        raise wrong_structure(path, f"{where}: {first['msg']}", f"a dict with {allowed}") from None


@dataclass(frozen=True)
class TrialFile:
    """What such a file holds; ``folder`` is that of the converted signals.

    ``rows`` has one row per trial, in the order of the file: ``subject``, ``label``, ``image``
    (name), ``length`` in samples, and ``start``, numbers before it in its subject's file.
    """

    folder: Path
    rows: pd.DataFrame
    n_chans: int
    labels: list[str]
    duplicates: list[str]

    def read(self, row: int) -> np.ndarray:
        """Signals of one trial, float32, shape (n_chans, length)."""
        subject, length, start = (self.rows.at[row, key] for key in ("subject", "length", "start"))
        file = self.folder / f"sub-{subject}.float32"
        numbers = np.fromfile(file, "<f4", self.n_chans * length, offset=4 * start)
        return numbers.reshape(self.n_chans, length)


def open_trials(path: Path) -> TrialFile:
    """Open such a file; at first use, or if it has changed, check and convert it."""
    folder = path.with_name(f".{path.name}.converted")
    if not os.access(path.parent, os.W_OK):
        place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        folder = Path(pooch.os_cache("eeglib")) / place
    source = [path.stat().st_size, path.stat().st_mtime_ns]
    if _facts(folder).get("source") != source:
        try:
            _convert(path, folder, source)
        except OSError as error:
            if _facts(folder).get("source") != source:  # else another job was quicker
                raise DatasetError(cannot_write(folder.parent, error)) from None
    facts = _facts(folder)
    rows = pd.read_csv(folder / "rows.csv", dtype={"image": str}, keep_default_na=False)
    return TrialFile(folder, rows, facts["n_chans"], facts["labels"], facts["duplicates"])


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _convert(path: Path, folder: Path, source: list[int]) -> None:
    """Write each subject's signals into a file of its own; the folder appears when all is there."""
    content = _checked(_Trials, path)
    trials, n_chans = content.dataset, content.dataset[0].eeg.shape[0]
    rows = pd.DataFrame([trial.model_dump(exclude={"eeg"}) for trial in trials])
    rows["image"] = rows["image"].map(_image_name)
    rows["length"] = [trial.eeg.shape[1] for trial in trials]
    rows["start"] = (rows.groupby("subject")["length"].cumsum() - rows["length"]) * n_chans
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
    ) as temporary:
        partial, seen, pairs = Path(temporary) / folder.name, {}, Counter()
        partial.mkdir()
        with contextlib.ExitStack() as stack:
            files = {
                subject: stack.enter_context(open(partial / f"sub-{subject}.float32", "wb"))
                for subject in rows["subject"].unique()
            }
            for trial in trials:
                numbers = trial.eeg.float().contiguous().numpy().astype("<f4", copy=False)
                files[trial.subject].write(numbers)
                first = seen.setdefault(hashlib.blake2b(numbers, digest_size=16).digest(), trial)
                if first is not trial:
                    pairs[first.subject, trial.subject] += 1
        duplicates = [
            f"{n} trials of subject {b} have the same signals as trials of subject {a}."
            for (a, b), n in sorted(pairs.items())
        ]
        facts = {"source": source, "n_chans": n_chans, "labels": content.labels}
        facts = json.dumps(facts | {"duplicates": duplicates})
        (partial / "facts.json").write_text(facts, encoding="utf-8")
        rows.to_csv(partial / "rows.csv", index=False)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    for left in folder.parent.glob(f"{folder.name}-*"):  # by a job that was killed
        shutil.rmtree(left, ignore_errors=True)


def _image_name(image: str) -> str:
    """Name without folder and the extension of a picture; other dots belong to the name."""
    return re.sub(r"(?i)\.(jpe?g|png)$", "", re.split(r"[\\/]", image)[-1])


def read_split(path: Path, index: int, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Read one published split as row numbers of ``rows``, in parts called as ours.

    A split is refused that does not fit the trials: rows that do not exist, two parts with the
    same row or the same image, or too few of the trials.
    """
    splits = _checked(_Splits, path).splits
    if index >= len(splits):
        what = f"it holds {len(splits)} splits, dataset.options.split_index is {index}"
        raise wrong_structure(path, what, f"0 to {len(splits) - 1}")
    split = splits[index]
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    parts = {name: np.sort(numbers) for name, numbers in parts.items()}
    named = np.concatenate(list(parts.values()))
    if named.max() >= len(rows) or len(set(named)) < len(named):
        what = f"its parts share trials, or name others than 0 to {len(rows) - 1}"
        raise wrong_structure(path, what, "the split that belongs to the data file")
    if len(named) < LEAST_COVERAGE * len(rows):
        raise wrong_structure(
            path,
            f"it names {len(named)} of {len(rows)} trials",
            "a split of all trials (for EEG-ImageNet: block_splits_by_image_all.pth; the one "
            "called single covers half of one subject)",
        )
    images = Counter(i for p in parts.values() for i in rows["image"].iloc[p].unique())
    image, n_parts = images.most_common(1)[0]
    if n_parts > 1:
        raise wrong_structure(path, f"image {image!r} is in several parts", "a split by image")
    return parts


def wrong_structure(path: Path, what: str, allowed: str) -> DatasetError:
    """Error for a file that holds something else than it should."""
    return DatasetError(
        f"{path.name} does not have the structure of this data set: {what}; allowed: {allowed}. "
        "Check that it is the file that the data set's page names."
    )
