"""THINGS-EEG2 of Gifford et al. (2022): 10 subjects, rapid randomised presentation (chapter 1).

A file holds one subject and one part as a pickled dict: ``preprocessed_eeg_data`` of shape
(n_images, n_repetitions, n_chans, n_times), ``ch_names`` and ``times``. The official form has 17
channels at 100 Hz, that of NICE and ATM 63 channels at 250 Hz; both are read, with and without the
0-d array that ``np.save`` puts around a dict.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

import eeglib.datasets as datasets
from eeglib.datasets import METADATA, Dataset, DatasetError, download
from eeglib.datasets.images import Pictures, find_pictures
from eeglib.datasets.safe_files import read_pickled_numpy
from eeglib.datasets.safe_pickle import FileArray

if TYPE_CHECKING:
    import mne

KEYS = ("preprocessed_eeg_data", "ch_names", "times")
SFREQS = (10.0, 2000.0)
"""Sampling rates that can be true, hertz."""


class Options(datasets.Options):
    """Options of this data set."""

    part: Literal["training", "test"] = Field("training", description="which of the two files")
    n_concepts: Annotated[int, Field(ge=2)] | None = Field(
        None, description="use so many concepts, spread over the alphabet; empty: all"
    )
    concepts: tuple[str, ...] | None = Field(None, description="use these concepts")
    repetitions: Literal["separate", "average"] = Field(
        "separate", description="each presentation is a trial, or the average over an image's"
    )
    metadata: str = Field("image_metadata.npy", description="names of the images and concepts")


class Loader(Dataset):
    """THINGS-EEG2, preprocessed."""

    Options = Options
    continuous: ClassVar[bool] = False

    def prepare(self) -> None:
        """Check that the files of the profile's subjects are there, undamaged and of one kind.

        Raises
        ------
        DatasetError
            If a file is not there (the message says where to get it and where to put it), is not
            the published one, or has another structure.
        """
        for subject in self.settings.subjects:
            path = self._path(subject)
            name = path.relative_to(self.folder).as_posix()
            # Preprocessed anew, the same file may rightly differ: then it is recorded, not refused.
            published = download.known_sha256("things_eeg2", name)
            record = download.verify(path, None, self.folder)
            if published is not None and record["sha256"] != published:
                self._note(
                    f"{name} is not the file of the public mirror: another preprocessing, or "
                    "damage. Its checksum is recorded now."
                )
            self._content(subject)
        self.stimuli()

    def subjects(self) -> list[int]:
        """Subjects whose file of the chosen part is there."""
        found = self.folder.glob(f"sub-*/preprocessed_eeg_{self.options.part}.npy")
        numbers = [path.parent.name.removeprefix("sub-") for path in found]
        return sorted(int(number) for number in numbers if number.isdigit())

    @cached_property
    def class_names(self) -> list[str]:
        """Concepts that are used, in alphabetical order of their numbered folders."""
        return [_plain(folder) for folder in self._folders]

    @property
    def processed(self) -> tuple[str, ...]:
        """Steps of the authors' preprocessing."""
        return (
            "recorded with 0.01-100 Hz",
            "baseline of 0.2 s before the image subtracted",
            "whitened by multivariate noise normalisation",
        )

    def trials(self, subject: int) -> pd.DataFrame:
        """Metadata of the trials, before their signals are looked at."""
        return self._metadata(subject)[list(METADATA)].reset_index(drop=True)

    def info(self, subject: int) -> mne.Info:
        """Channels with positions, and the sampling rate."""
        from eeglib.datasets.file_epochs import channel_info

        content = self._content(subject)
        return channel_info(content["ch_names"], content["sfreq"], unitless=True)

    def epochs(self, subject: int) -> mne.BaseEpochs:
        """Trials of one subject, still in the file, without those that cannot be used.

        Unitless: whitened by multivariate noise normalisation. Trials with values that are no
        numbers and with flat or saturated channels are left out and counted in `report`.
        """
        from eeglib.datasets.file_epochs import file_epochs, inspect_trials

        content, metadata = self._content(subject), self._metadata(subject)
        eeg: FileArray | np.ndarray = content["eeg"]
        n_repetitions = eeg.shape[1]

        @lru_cache(maxsize=1)
        def image(number: int) -> np.ndarray:
            rows = slice(number, number + 1)
            block = eeg.read(rows.start, rows.stop) if isinstance(eeg, FileArray) else eeg[rows]
            return block[0].astype(np.float32)

        def read(row: int) -> np.ndarray:
            if self.options.repetitions == "average":
                return image(row).mean(axis=0)
            return image(row // n_repetitions)[row % n_repetitions].copy()

        inspection = inspect_trials(
            (read(row) for row in metadata["row"]), len(metadata), eeg.shape[2]
        )
        for reason, count in inspection.reasons.items():
            self._note(f"Subject {subject}: {count} trials left out for {reason}.", warn=True)
        if inspection.bad_channels:
            names = ", ".join(content["ch_names"][c] for c in inspection.bad_channels)
            self._note(f"Subject {subject}: channels set to zero as bad: {names}.", warn=True)
        return file_epochs(
            read, inspection, metadata, self.info(subject), content["tmin"], eeg.shape[3]
        )

    def stimuli(self) -> pd.DataFrame:
        """Pictures that were found; empty where there is no folder of pictures."""
        images = self._images
        pictures = self._pictures
        if pictures is None:
            images = images.iloc[:0]
        else:
            images = images[images["image"].isin(list(pictures.files))]
        table = images[["image", "label", "class_name"]].reset_index(drop=True)
        return table.assign(file=[pictures.files[name] for name in table["image"]])

    def card(self) -> dict[str, str]:
        """Facts for the data card."""
        return {
            "title": "THINGS-EEG2 (Gifford et al. 2022)",
            "source": "https://osf.io/3jk45/",
            "licence": "CC BY 4.0 for the signals; the pictures have licences of their own",
            "recording": "64 electrodes (actiCHamp), 1000 Hz, distributed at 100 or 250 Hz",
            "unit": "none: whitened by multivariate noise normalisation",
            "processed": "; ".join(self.processed),
            "design": "5 images per second in random order, 4 sessions; training and test concepts "
            "do not overlap",
            "known defects": "order and session of a repetition were shuffled away; the whitening "
            "was estimated on training and test trials together",
        }

    @cached_property
    def _lists(self) -> pd.DataFrame:
        """All images of the part, in the order of the signals: image, folder."""
        path = self.folder / self.options.metadata
        if not path.is_file():
            raise DatasetError(
                download.how_to_get("things_eeg2", self.folder, self.options.metadata)
            )
        content, part = read_pickled_numpy(path), self.options.part.removesuffix("ing")
        keys = [f"{part}_img_files", f"{part}_img_concepts"]
        if not isinstance(content, dict) or not set(keys) <= set(content):
            raise _structure(path, "its keys are not those of the image lists", " and ".join(keys))
        columns = [_listed(content[key]) for key in keys]
        odd = [value for column in columns for value in column if not _is_name(value)]
        if odd:
            raise _structure(path, f"its lists hold {odd[0]!r}", "names of images and concepts")
        if len(columns[0]) != len(columns[1]) or not columns[0]:
            raise _structure(path, "its lists differ in length", "one concept for each image")
        table = pd.DataFrame({"image": [Path(n).stem for n in columns[0]], "folder": columns[1]})
        if table["image"].duplicated().any():
            twice = table["image"][table["image"].duplicated()].iloc[0]
            raise _structure(path, f"image {twice!r} is listed twice", "each image once")
        return table

    @cached_property
    def _folders(self) -> list[str]:
        """Numbered names of the concepts that are used."""
        folders = sorted(self._lists["folder"].unique())
        wanted = self.options.concepts
        if wanted is not None:
            unknown = sorted(set(wanted) - {_plain(f) for f in folders})
            if unknown:
                raise DatasetError(
                    f"dataset.options.concepts: {unknown[0]!r} is no concept of the "
                    f"{self.options.part} part; concepts are such as "
                    f"{', '.join(_plain(f) for f in folders[:3])}."
                )
            return [folder for folder in folders if _plain(folder) in wanted]
        n_concepts = self.options.n_concepts or len(folders)
        if n_concepts > len(folders):
            raise DatasetError(
                f"dataset.options.n_concepts is {n_concepts}, the {self.options.part} part has "
                f"{len(folders)}."
            )
        spread = np.linspace(0, len(folders) - 1, n_concepts).round().astype(int)
        return [folders[i] for i in spread]

    @cached_property
    def _images(self) -> pd.DataFrame:
        """Images that are used: image, label, class_name, number (position in the signals)."""
        label_of = {folder: label for label, folder in enumerate(self._folders)}
        table = self._lists.assign(number=range(len(self._lists)))
        table = table[table["folder"].isin(list(label_of))]
        labels = table["folder"].map(label_of)
        names = [self.class_names[label] for label in labels]
        return table.assign(label=labels, class_name=names).reset_index(drop=True)

    @cached_property
    def _pictures(self) -> Pictures | None:
        folder = self.folder / f"{self.options.part}_images"
        if not folder.is_dir():
            self._note(f"No pictures in {folder}: chapters 4 and 7 will end early.")
            return None
        pictures = find_pictures(folder, self._images["image"])
        if pictures.missing:
            self._note(
                f"{len(pictures.missing)} pictures are missing or cannot be opened; trials of "
                f"these images are left out: {', '.join(pictures.missing[:5])}",
                warn=True,
            )
        return pictures

    def _metadata(self, subject: int) -> pd.DataFrame:
        """One row per trial, with ``row``: the image, or the image's presentation."""
        n_images, n_repetitions = self._content(subject)["eeg"].shape[:2]
        if n_images != len(self._lists):
            raise DatasetError(
                f"{self._path(subject)} has {n_images} images, {self.options.metadata} lists "
                f"{len(self._lists)} for the {self.options.part} part. Use files that belong "
                "together."
            )
        images = self._images
        if self._pictures is not None:
            images = images[images["image"].isin(list(self._pictures.files))]
        if self.options.repetitions == "average":
            table = images.assign(row=images["number"])
        else:
            table = images.loc[images.index.repeat(n_repetitions)]
            within = np.tile(np.arange(n_repetitions), len(images))
            table = table.assign(row=table["number"] * n_repetitions + within)
        return table.assign(subject=subject, session=-1, block=-1, order=-1).reset_index(drop=True)

    def _path(self, subject: int) -> Path:
        name = f"sub-{subject:02d}/preprocessed_eeg_{self.options.part}.npy"
        path = self.folder / name
        if not path.is_file():
            raise DatasetError(download.how_to_get("things_eeg2", self.folder, name))
        return path

    def _content(self, subject: int) -> dict[str, Any]:
        """Signals (in the file), channel names, sampling rate and first time of one subject."""
        path = self._path(subject)
        cache = self.__dict__.setdefault("_contents", {})
        if path not in cache:
            cache[path] = read_things(path)
        return cache[path]


def read_things(path: Path) -> dict[str, Any]:
    """Open one file and check its structure.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        ``eeg`` (FileArray or array, shape (n_images, n_repetitions, n_chans, n_times)),
        ``ch_names`` (list of str), ``sfreq`` (hertz), ``tmin`` (s after the onset).

    Raises
    ------
    DatasetError
        Saying what came and what is allowed.

    Notes
    -----
    The form of NICE and ATM cuts the signals from -0.2 to 0 s off but leaves ``times`` whole: then
    its last entries hold.
    """
    content = read_pickled_numpy(path)
    if not isinstance(content, dict) or not set(KEYS) <= set(content):
        keys = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise _structure(path, f"it holds {keys}", f"a dict with {', '.join(KEYS)}")
    eeg, times = content["preprocessed_eeg_data"], content["times"]
    shape = getattr(eeg, "shape", ())
    if len(shape) != 4 or 0 in shape:
        raise _structure(path, f"its signals have shape {shape}", "four axes, none empty")
    if eeg.dtype.newbyteorder("=").name not in ("float64", "float32", "float16"):
        raise _structure(path, f"its signals have dtype {eeg.dtype}", "floating-point numbers")
    if isinstance(eeg, FileArray) and eeg.strides != _c_strides(shape):
        raise _structure(path, "its signals are in Fortran order", "C order; save them again")
    ch_names = [str(name) for name in _listed(content["ch_names"])]
    if len(ch_names) != shape[2] or len(set(ch_names)) < len(ch_names):
        raise _structure(
            path, f"it names {len(set(ch_names))} channels for {shape[2]}", "each channel once"
        )
    times = times.read() if isinstance(times, FileArray) else np.asarray(_listed(times), object)
    try:
        times = times.astype(np.float64)
    except (TypeError, ValueError):
        raise _structure(path, "its times are no numbers", "seconds") from None
    if times.ndim != 1 or len(times) < max(2, shape[3]) or not np.isfinite(times).all():
        raise _structure(path, f"it has times of shape {times.shape} for {shape[3]}", "seconds")
    steps = np.diff(times)
    sfreq = 1 / steps.mean() if steps.mean() > 0 else 0.0
    if not SFREQS[0] <= sfreq <= SFREQS[1] or np.ptp(steps) > 0.1 * steps.mean():
        raise _structure(
            path, f"its times rise by {steps.min():g} to {steps.max():g} s", "equal steps"
        )
    return {
        "eeg": eeg, "ch_names": ch_names, "sfreq": float(round(sfreq, 3)),
        "tmin": float(times[-shape[3]]),
    }  # fmt: skip


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _listed(values: Any) -> list:
    values = values.read() if isinstance(values, FileArray) else values
    return list(values) if isinstance(values, (list, tuple, np.ndarray)) else []


def _plain(folder: str) -> str:
    """``01175_roller_coaster`` becomes ``roller coaster``."""
    number, _, name = folder.partition("_")
    return (name if number.isdigit() and name else folder).replace("_", " ")


def _structure(path: Path, what: str, allowed: str) -> DatasetError:
    return DatasetError(
        f"{path.name} does not have the structure of this data set: {what}; allowed: {allowed}. "
        "Check that it is the file that the data set's page names."
    )
