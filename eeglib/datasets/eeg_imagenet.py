"""EEG-ImageNet of Spampinato et al. (2017) and Palazzo et al. (2020): 6 subjects, 40 classes.

The one file of all subjects, ``{"dataset": [{"eeg", "image", "label", "subject"}, ...], "labels":
[...], "images": [...]}``, cannot always be mapped into memory: it is converted once, by subject.
"""

import hashlib
import json
import math
import os
import re
import shutil
from functools import cache, cached_property
from operator import index
from pathlib import Path
from typing import Any, ClassVar

import mne
import numpy as np
import pandas as pd
import pooch
from pydantic import Field, field_validator

import eeglib.datasets as datasets
from eeglib.datasets import METADATA, Dataset, DatasetError, download
from eeglib.datasets.epochs import channel_info, usable_epochs
from eeglib.datasets.files import load_torch, structure, whole_folder
from eeglib.datasets.images import find_pictures
from eeglib.datasets.montage import ACTICAP_128
from eeglib.datasets.stimuli import CLASSES

# Resolution of the amplifier, channel by channel, as inferred from the recordings' headers.
MICROVOLTS_PER_COUNT = np.r_[np.full(32, 0.5), np.full(96, 0.1)]
BLOCKS_PER_SESSION = 10
PARTS = {"training": "train", "validation": "val", "test": "test"}  # here, in the published file
WNIDS = {c.wnid: c.name for c in CLASSES}
IMAGE_ORDER = "image_order.txt"


class Options(datasets.Options):
    """Options of this data set."""

    file: str = "eeg_signals_raw_with_mean_std.pth"
    cut: tuple[int, int] = (20, 460)  # samples of a trial that are kept
    split_index: int = Field(0, ge=0)  # which of the published splits

    @field_validator("cut")
    @classmethod
    def _ascend(cls, cut: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= cut[0] < cut[1]:
            raise ValueError("needs two ascending numbers of samples, from 0")
        return cut


class Loader(Dataset):
    """EEG-ImageNet, raw or in one of its three filtered variants."""

    Options = Options
    continuous: ClassVar[bool] = False
    channels: ClassVar[tuple[str, ...]] = ACTICAP_128
    sfreq: ClassVar[float] = 1000.0
    longest: ClassVar[float] = 600  # trials of more samples are left out
    split_file: ClassVar[str] = "block_splits_by_image_all.pth"

    def prepare(self) -> None:
        table = self._table
        download.verify(self.folder / self.options.file, self.folder)
        twins = table[table["same_as"] > 0].groupby(["same_as", "subject"]).size()
        for (first, second), n in twins.items():
            what = f"{n} trials of subject {second}"
            self._note(f"{what} have the same signals as trials of subject {first}.", warn=True)
        images = table.drop_duplicates("image")["class_name"].value_counts()
        fewer = "".join(f", {name} {n}" for name, n in images[images < images.max()].items())
        self._note(f"Images of each class: {images.max()}{fewer and f', but {fewer[2:]}'}.")
        self.stimuli()
        self.published_split(table)

    def subjects(self) -> list[int]:
        return sorted(int(s) for s in self._table["subject"].unique())

    @property
    def class_names(self) -> list[str]:
        return [WNIDS.get(label, label) for label in self._facts["labels"]]

    @property
    def processed(self) -> tuple[str, ...]:
        """Told by the name of the file: ``eeg_14_70_std.pth`` is filtered and standardised."""
        band = re.fullmatch(r"eeg_(\d+)_(\d+)_std", Path(self.options.file).stem)
        if band is None:
            return ()
        return ("notch 49-51 Hz", f"band {band[1]}-{band[2]} Hz", "standardize")

    def trials(self, subject: int) -> pd.DataFrame:
        return self._of(subject)[list(METADATA)].reset_index(drop=True)

    def info(self, subject: int) -> mne.Info:
        return channel_info(list(self.channels), self.sfreq, "standardize" in self.processed)

    def epochs(self, subject: int) -> mne.BaseEpochs:
        (start, stop), trials = self.options.cut, self._of(subject)
        file, n_chans = self._converted / f"sub-{subject}.float32", self._facts["n_chans"]
        standardized = "standardize" in self.processed
        factor = np.float32(1 if standardized else MICROVOLTS_PER_COUNT[:, None] * 1e-6)

        def read(row: int) -> np.ndarray:
            length, first = trials.at[row, "length"], trials.at[row, "start"]
            numbers = np.fromfile(file, np.float32, n_chans * length, offset=4 * first)
            return numbers.reshape(n_chans, length)[:, start:stop] * factor

        return usable_epochs(read, self.info(subject), trials, start / self.sfreq, self._note)

    @cache  # noqa: B019
    def stimuli(self) -> pd.DataFrame:
        return find_pictures(self.folder / "images", self._table.sort_values("image"), self._note)

    def files(self, subject: int | None = None) -> list[Path]:
        if subject is not None:
            return []  # all share one file
        names = (self.options.file, self.split_file, IMAGE_ORDER, "images")
        return self._below([self.folder / name for name in names])

    def published_split(self, metadata: pd.DataFrame) -> dict[str, np.ndarray] | None:
        """Parts of the file of splits, for these trials; None where there is no such file."""
        path, table = self.folder / self.split_file, self._table
        if not path.is_file():
            return None
        content, n = load_torch(path), len(table)
        allowed = "a dict with splits, each with rows of the data file for train, val and test, "
        allowed += "each image in one part, as in block_splits_by_image_all.pth of EEG-ImageNet"
        with structure(path, allowed):
            split = content["splits"][self.options.split_index]
            named = [(index(row), part) for part, key in PARTS.items() for row in split[key]]
            parts = pd.Series(dict(named))  # by row
            by_image = parts.groupby(table["image"].loc[parts.index])
            # A split of a smaller share of the trials was made for something else.
            whole = len(parts) >= 0.9 * n and parts.nunique() == len(PARTS)
            if not whole or len(parts) < len(named) or by_image.nunique().sum() > by_image.ngroups:
                raise ValueError(f"its split names {len(parts)} of {n} trials, some perhaps twice")
        # Within one subject an image was shown once, and a split by image treats all alike.
        parts_here = metadata["image"].map(by_image.first())
        return {part: np.flatnonzero(parts_here == part) for part in PARTS}

    def card(self) -> dict[str, str]:
        processed, unit = "; ".join(self.processed), "standard deviations"
        if "standardize" not in processed:
            unit = "volts, from counts by the amplifier's resolution (inferred)"
        facts = {"unit": unit, "processed": processed or "nothing"}
        return download.CARDS[self.settings.name] | facts

    @cached_property
    def _converted(self) -> Path:
        return converted(download.find(self.settings.name, self.folder, self.options.file))

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts = json.loads((self._converted / "facts.json").read_text(encoding="utf-8"))
        if facts["n_chans"] != len(self.channels):
            found, n = f"{self.options.file} has {facts['n_chans']} channels", len(self.channels)
            raise DatasetError(f"{found}; this data set has {n}. Is it the file you meant?")
        return facts

    @cached_property
    def _table(self) -> pd.DataFrame:
        """All trials of the file: `METADATA`, ``row``, and what `convert` wrote of each."""
        file = self._converted / "trials.csv"
        table = pd.read_csv(file, keep_default_na=False, dtype={"image": str})
        table["class_name"] = np.array(self.class_names, dtype=object)[table["label"]]
        order = self._presentation(table["image"])
        for column in ("order", "block", "session"):
            table[column] = table["image"].map(order[column]).fillna(-1).astype(int)
        return table.assign(row=table.index)

    def _presentation(self, images: pd.Series) -> pd.DataFrame:
        """Order, block and session of each image, by name; empty where they are not known."""
        path = self.folder / IMAGE_ORDER
        if not path.is_file():
            self._note(f"The order of presentation is not known: there is no {IMAGE_ORDER}.")
            return pd.DataFrame(columns=["order", "block", "session"])
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split()
        names = pd.Series(list(dict.fromkeys(map(image_name, lines))), dtype=str)
        if (unknown := int((~images.isin(names)).sum())) == len(images):
            text = f"{path.name} names none of the images in {self.options.file}"
            raise DatasetError(f"{text}. Use the list of this data set, or remove it.")
        if unknown:
            self._note(f"{unknown} trials show images that {path.name} does not list.", warn=True)
        self._note(f"Order, blocks and sessions are those of {path.name}, for all subjects alike.")
        classes = names.str.split("_").str[0]
        block = (classes != classes.shift()).cumsum() - 1
        columns = {"order": names.index, "block": block, "session": block // BLOCKS_PER_SESSION}
        return pd.DataFrame(columns).set_index(names)

    def _of(self, subject: int) -> pd.DataFrame:
        """Trials of one subject that can be cut, in the order of presentation if known."""
        table = self._table[self._table["subject"] == subject]
        fits = table["length"].between(self.options.cut[1], self.longest)
        allowed = f"{self.options.cut[1]} to {self.longest} samples"
        if not fits.any():
            text = f"{self.options.file} has no trials of subject {subject} with {allowed}; it has"
            how = "Change dataset.subjects or dataset.options.cut."
            raise DatasetError(f"{text} subjects {self.subjects()}. {how}")
        if not fits.all():
            text = f"{sum(~fits)} trials left out, their length is not {allowed}."
            self._note(f"Subject {subject}: {text}", warn=True)
        table = table[fits]
        if len(self.stimuli()):
            table = table[table["image"].isin(self.stimuli()["image"])]
        return table.sort_values(["order", "row"])


class RandomizedOptions(Options):
    """Options of the randomised trials."""

    file: str = "imagenet40-1000-1.pth"
    cut: tuple[int, int] = (0, 512)


class RandomizedTrials(Loader):
    """Randomised trials, standardised and decimated by 4 by their authors."""

    Options = RandomizedOptions
    channels = tuple(f"EEG{n + 1:03d}" for n in range(96))  # only their positions are documented
    sfreq = 1024.0
    longest = math.inf
    split_file = "imagenet40-1000-1_split.pth"
    processed = ("standardize",)


def converted(path: Path) -> Path:
    """Folder with the signals of a data file; made at first use, and anew if the file changes."""
    place = path.parent if os.access(path.parent, os.W_OK) else Path(pooch.os_cache("eeglib"))
    state = path.stat()
    folder = place / f".{path.name}.{state.st_size}-{state.st_mtime_ns}"
    if not folder.is_dir():
        with whole_folder(folder) as partial:
            convert(path, partial)
        for old in set(place.glob(f".{path.name}.*")) - {folder}:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def convert(path: Path, folder: Path) -> None:
    """Check a data file and write each subject's signals into a file of its own.

    ``trials.csv`` has ``start``, the count of numbers before a trial in its subject's file, and
    ``same_as``, a subject who has a trial with the very same signals, or 0.
    """
    import torch

    content = load_torch(path)
    allowed = "a dict with dataset (dicts with eeg, image, label, subject), labels, images"
    with structure(path, allowed):
        labels, images = (dict(enumerate(map(str, content[key]))) for key in ("labels", "images"))
        trials, shown = content["dataset"], [trial["image"] for trial in content["dataset"]]
        signals = [torch.as_tensor(trial["eeg"]) for trial in trials]
        shown = [image if isinstance(image, str) else images[index(image)] for image in shown]
        table = pd.DataFrame({"image": map(image_name, shown)})
        for column in ("subject", "label"):
            table[column] = [index(trial[column]) for trial in trials]
        table["length"] = [length for _, length in (signal.shape for signal in signals)]
        n_chans = sorted({len(signal) for signal in signals})
        if len(n_chans) != 1:
            raise ValueError(f"trials of {n_chans} channels")
        if (table["subject"] < 1).any() or not table["label"].isin(list(labels)).all():
            raise ValueError("a subject or label that is not there")
        if len(set(labels.values())) < len(labels):
            raise ValueError("a label's name twice")
    by_subject = table.groupby("subject")
    table["start"] = (by_subject["length"].cumsum() - table["length"]) * n_chans[0]
    table["same_as"], seen = 0, {}
    for subject, rows in by_subject.groups.items():
        with open(folder / f"sub-{subject}.float32", "wb") as file:
            for row in rows:
                numbers = signals[row].float().contiguous().numpy()
                file.write(numbers)
                digest = hashlib.blake2b(numbers, digest_size=16).digest()
                table.loc[row, "same_as"] = seen.get(digest, 0)
                seen.setdefault(digest, subject)
    table.to_csv(folder / "trials.csv", index=False)
    facts = json.dumps({"labels": list(labels.values()), "n_chans": n_chans[0]})
    (folder / "facts.json").write_text(facts, encoding="utf-8")


def image_name(image: str) -> str:
    """Name without folder and the extension of a picture; other dots belong to the name."""
    return re.sub(r"(?i)\.(jpe?g|png)$", "", re.split(r"[\\/]", image)[-1])
