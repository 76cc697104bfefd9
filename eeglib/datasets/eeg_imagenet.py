"""EEG-ImageNet of Spampinato et al. (2017) and Palazzo et al. (2020): 6 subjects, 40 classes.

Chapter 1. The file is a dict of trials (`eeglib.datasets.trial_dict`); the signals of one subject
are read only when they are asked for.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

import eeglib.datasets as datasets
from eeglib.datasets import METADATA, Dataset, DatasetError, download
from eeglib.datasets.images import find_pictures
from eeglib.datasets.montage import ACTICAP_128
from eeglib.datasets.stimuli import CLASSES
from eeglib.datasets.trial_dict import TrialFile, open_trials, read_split

if TYPE_CHECKING:
    import mne

CHANNELS = list(ACTICAP_128)
"""The 128 electrodes of the cap, in the order of the file."""

MICROVOLTS_PER_COUNT = np.r_[np.full(32, 0.5), np.full(96, 0.1)]
"""Resolution of the amplifier, channel by channel, as inferred from the recordings' headers."""

PLAUSIBLE = (0.5, 500.0)
"""Standard deviation of an EEG channel, microvolts; outside it the unit is in doubt."""

BLOCKS_PER_SESSION = 10
WNIDS = {c.wnid: c.name for c in CLASSES}


class Options(datasets.Options):
    """Options of this data set."""

    file: str = Field("eeg_signals_raw_with_mean_std.pth", description="name of the data file")
    cut: tuple[int, int] = Field((20, 460), description="samples of a trial that are kept")
    lengths: tuple[int, int] = Field(
        (450, 600), description="trials of other lengths, in samples, are left out"
    )
    unit: Literal["counts", "microvolt", "none"] | None = Field(
        None, description="of the numbers; empty: counts in the raw file, none in the others"
    )
    processed: tuple[str, ...] | None = Field(
        None, description="what the signals have been through; empty: told by the file's name"
    )
    split_file: str = Field("block_splits_by_image_all.pth", description="published splits")
    split_index: int = Field(0, ge=0, description="which of them")
    image_order: str = Field("image_order.txt", description="images in the order of presentation")
    images: str = Field("images", description="folder of the pictures")
    sfreq: Annotated[float, Field(gt=0)] = Field(1000.0, description="hertz")

    @field_validator("cut", "lengths")
    @classmethod
    def _ascend(cls, bounds: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= bounds[0] < bounds[1]:
            raise ValueError("needs two ascending numbers of samples, from 0")
        return bounds


class Loader(Dataset):
    """EEG-ImageNet, raw or in one of its three filtered variants."""

    Options = Options
    continuous: ClassVar[bool] = False
    download_name: ClassVar[str] = "eeg_imagenet"
    channels: ClassVar[list[str] | None] = CHANNELS
    resolution: ClassVar[np.ndarray | None] = MICROVOLTS_PER_COUNT

    def prepare(self) -> None:
        """Check that the files are there and undamaged, and look for known defects."""
        download.verify(self._path("file"), self.folder)
        for line in self._file.duplicates:
            self._note(line, warn=True)
        counts = self._file.rows["subject"].value_counts().sort_index()
        self._note("Trials by subject: " + ", ".join(f"{s}: {n}" for s, n in counts.items()) + ".")
        images = self._table.drop_duplicates("image")["class_name"].value_counts()
        images = images.reindex(self.class_names, fill_value=0)
        fewer = ", ".join(f"{name} {n}" for name, n in images[images < images.max()].items())
        self._note(f"Images of each class: {images.max()}{fewer and f', but {fewer}'}.")
        self.stimuli()
        self.published_split(self._table)

    def subjects(self) -> list[int]:
        """Subjects in the file, ascending."""
        return sorted(int(s) for s in self._file.rows["subject"].unique())

    @property
    def class_names(self) -> list[str]:
        """Common names of the file's classes; a WordNet id that is not among the 40 stays."""
        return [WNIDS.get(label, label) for label in self._file.labels]

    @property
    def processed(self) -> tuple[str, ...]:
        """Told by the name of the file: ``eeg_14_70_std.pth`` is filtered and standardised."""
        if self.options.processed is not None:
            return self.options.processed
        band = re.fullmatch(r"eeg_(\d+)_(\d+)_std", Path(self.options.file).stem)
        if band is None:
            return ()
        return ("notch 49-51 Hz", f"band {band[1]}-{band[2]} Hz", "standardize")

    def trials(self, subject: int) -> pd.DataFrame:
        """Metadata of the trials that are long enough, before their signals are looked at."""
        return self._of(subject)[list(METADATA)].reset_index(drop=True)

    def info(self, subject: int) -> mne.Info:
        """Channels with positions, and the sampling rate."""
        from eeglib.datasets.file_epochs import channel_info

        names = self.channels or [f"EEG{n + 1:03d}" for n in range(self._file.n_chans)]
        return channel_info(list(names), self.options.sfreq, self._unit == "none")

    def epochs(self, subject: int) -> mne.BaseEpochs:
        """Trials that can be used; volts in the raw file, unitless in the filtered ones."""
        from eeglib.datasets.file_epochs import usable_epochs

        if self._unit == "counts" and self.resolution is None:
            raise DatasetError(
                "The amplifier's resolution is not known for this data set. Set "
                "dataset.options.unit to microvolt or none."
            )
        factor = {"microvolt": 1e-6, "none": 1.0}.get(self._unit)
        factor = np.float32(self.resolution[:, None] * 1e-6 if factor is None else factor)
        start, stop = self.options.cut
        file, metadata = self._file, self._of(subject)

        def read(row: int) -> np.ndarray:
            return file.read(row)[:, start:stop] * factor

        with np.errstate(invalid="ignore"):
            typical = 1e6 * np.nanmedian([read(row).std(axis=1) for row in metadata["row"][:50]])
        if self._unit != "none" and not PLAUSIBLE[0] <= typical <= PLAUSIBLE[1]:
            self._note(
                f"Subject {subject}: the channels' standard deviation is {typical:.3g} microvolts, "
                "which EEG never has: the unit is in doubt. Set dataset.options.unit.",
                warn=True,
            )
        tmin = start / self.options.sfreq
        return usable_epochs(read, self.info(subject), metadata, tmin, stop - start, self._note)

    def stimuli(self) -> pd.DataFrame:
        """Pictures that were found; empty where there is no folder of pictures."""
        table = self._table.drop_duplicates("image").sort_values("image")
        table = table.assign(file=table["image"].map(self._pictures or {}))
        table = table[table["file"].notna()]
        return table[["image", "label", "class_name", "file"]].reset_index(drop=True)

    def files(self, subject: int | None = None) -> list[Path]:
        """All subjects' signals lie in one file, so that they share what there is."""
        if subject is not None:
            return []
        options = self.options
        single = [self.folder / n for n in (options.file, options.split_file, options.image_order)]
        pictures = (self.folder / options.images).rglob("*")
        return [path for path in (*single, *sorted(pictures)) if path.is_file()]

    def published_split(self, metadata: pd.DataFrame) -> dict[str, np.ndarray] | None:
        """Parts of the file of splits, for these trials; None where there is no such file."""
        path = self._path("split_file", optional=True)
        if path is None:
            return None
        rows = self._file.rows
        parts = read_split(path, self.options.split_index, rows)
        # Within one subject an image was shown once, and a split by image treats all alike.
        part_of = {
            image: name for name, numbers in parts.items() for image in rows["image"].iloc[numbers]
        }
        unnamed = len(rows) - sum(map(len, parts.values()))
        if unnamed:
            self._note(f"{unnamed} trials are in no part of {path.name}.", warn=True)
        parts_here = metadata["image"].map(part_of).to_numpy()
        return {name: np.flatnonzero(parts_here == name) for name in parts}

    def card(self) -> dict[str, str]:
        """Facts for the data card."""
        unit = {
            "counts": "volts, from counts by the amplifier's resolution (inferred)",
            "microvolt": "volts",
            "none": "standard deviations",
        }[self._unit]
        processed = "; ".join(self.processed) or "nothing"
        return download.CARDS[self.download_name] | {"unit": unit, "processed": processed}

    @cached_property
    def _file(self) -> TrialFile:
        file = open_trials(self._path("file"))
        if self.channels is not None and file.n_chans != len(self.channels):
            raise DatasetError(
                f"{self.options.file} has {file.n_chans} channels; this data set has "
                f"{len(self.channels)}. Check that it is the file you meant."
            )
        return file

    @cached_property
    def _table(self) -> pd.DataFrame:
        """Metadata of all trials of the file, with ``row`` and ``length``."""
        table = self._file.rows.assign(row=range(len(self._file.rows)), session=-1, block=-1)
        table["class_name"] = np.array(self.class_names, dtype=object)[table["label"]]
        order = self._presentation()
        table["order"] = table["image"].map(order["order"]).fillna(-1).astype(int)
        for column in ("block", "session"):
            table[column] = table["image"].map(order[column]).fillna(-1).astype(int)
        return table

    @cached_property
    def _pictures(self) -> dict[str, Path] | None:
        if "images" in self.options.model_fields_set:
            self._path("images")
        folder = self.folder / self.options.images
        return find_pictures(folder, self._file.rows["image"], self._note)

    @property
    def _unit(self) -> str:
        if self.options.unit is not None:
            return self.options.unit
        return "none" if "standardize" in self.processed else "counts"

    def _path(self, option: str, optional: bool = False) -> Path | None:
        """The file that an option names; None where it is optional and was not asked for."""
        name = getattr(self.options, option)
        path = self.folder / name
        if path.is_file() or (option == "images" and path.is_dir()):
            return path
        if optional and option not in self.options.model_fields_set:
            return None
        raise DatasetError(download.how_to_get(self.download_name, self.folder, name))

    def _presentation(self) -> pd.DataFrame:
        """Order, block and session of each image, by name; empty where they are not known."""
        path = self._path("image_order", optional=True)
        if path is None:
            name = self.options.image_order
            self._note(f"The order of presentation is not known: there is no {name}.")
            return pd.DataFrame(columns=["order", "block", "session"])
        try:
            lines = path.read_text(encoding="utf-8-sig").split()
        except UnicodeDecodeError:
            raise DatasetError(f"{path.name} is not a text file. Download it again.") from None
        names = pd.Series([re.split(r"[\\/]", line)[-1].split(".")[0] for line in lines], dtype=str)
        names = names[~names.duplicated()].reset_index(drop=True)
        classes = names.str.split("_").str[0]
        block = (classes != classes.shift()).cumsum() - 1
        unknown = int((~self._file.rows["image"].isin(names)).sum())
        if unknown == len(self._file.rows):
            raise DatasetError(
                f"{path.name} names none of the images in {self.options.file}. Use the list that "
                "belongs to this data set, or remove it."
            )
        if unknown:
            self._note(f"{unknown} trials show images that {path.name} does not list.", warn=True)
        self._note(f"Order, blocks and sessions are those of {path.name}, for all subjects alike.")
        session = block // BLOCKS_PER_SESSION
        table = pd.DataFrame({"order": range(len(names)), "block": block, "session": session})
        return table.set_index(names)

    def _of(self, subject: int) -> pd.DataFrame:
        """Trials of one subject that can be cut, in the order of presentation if known."""
        table = self._table[self._table["subject"] == subject]
        if table.empty:
            raise DatasetError(
                f"{self.options.file} has no trials of subject {subject}; it has subjects "
                f"{', '.join(map(str, self.subjects()))}. Set dataset.subjects."
            )
        low, high = max(self.options.lengths[0], self.options.cut[1]), self.options.lengths[1]
        fits = table["length"].between(low, high)
        if not fits.any():
            raise DatasetError(
                f"No trial of subject {subject} has {low} to {high} samples; they have "
                f"{table['length'].min()} to {table['length'].max()}. Change "
                "dataset.options.cut or lengths."
            )
        if not fits.all():
            self._note(
                f"Subject {subject}: {(~fits).sum()} trials left out, their length is not {low} to "
                f"{high} samples.",
                warn=True,
            )
        table = table[fits]
        if self._pictures is not None:
            table = table[table["image"].isin(list(self._pictures))]
        if table.empty:
            raise DatasetError(
                f"None of subject {subject}'s images has a picture in {self.options.images}. "
                "Put the pictures there, or remove the folder to go on without pictures."
            )
        return table.sort_values(["order", "row"])
