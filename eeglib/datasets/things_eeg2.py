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
from eeglib.datasets.files import StoredArray, load_numpy
from eeglib.datasets.images import find_pictures
from eeglib.datasets.trial_dict import wrong_structure

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
        """Check that the files of the profile's subjects are there and undamaged."""
        for subject in self.settings.subjects:
            path = self._path(subject)
            name = path.relative_to(self.folder).as_posix()
            # Preprocessed anew, the same file may rightly differ: then it is recorded, not refused.
            published = download.known_sha256("things_eeg2", name)
            if download.verify(path, self.folder) != published:
                self._note(
                    f"{name} is not the file of the public mirror: another preprocessing, or "
                    "damage. Its checksum is recorded now."
                )
            self._content(subject)
        self.stimuli()

    def subjects(self) -> list[int]:
        """Subjects whose file of the chosen part is there."""
        paths = self.folder.glob(f"sub-*/preprocessed_eeg_{self.options.part}.npy")
        return sorted(n for path in paths if (n := self._owner(path.parent.name)) is not None)

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
        """Trials that can be used; unitless, whitened by multivariate noise normalisation."""
        from eeglib.datasets.file_epochs import usable_epochs

        content, average = self._content(subject), self.options.repetitions == "average"
        eeg = content["eeg"]
        n_repetitions = eeg.shape[1]

        @lru_cache(maxsize=1)
        def image(number: int) -> np.ndarray:
            rows = number, number + 1
            block = eeg.read(*rows) if isinstance(eeg, StoredArray) else eeg[slice(*rows)]
            return block[0].astype(np.float32)

        def read(row: int) -> np.ndarray:
            if average:
                return image(row).mean(axis=0)
            return image(row // n_repetitions)[row % n_repetitions].copy()

        info, metadata = self.info(subject), self._metadata(subject)
        return usable_epochs(read, info, metadata, content["tmin"], eeg.shape[3], self._note)

    def stimuli(self) -> pd.DataFrame:
        """Pictures that were found; empty where there is no folder of pictures."""
        table = self._images.assign(file=self._images["image"].map(self._pictures or {}))
        table = table[table["file"].notna()]
        return table[["image", "label", "class_name", "file"]].reset_index(drop=True)

    def files(self, subject: int | None = None) -> list[Path]:
        """The subject's file of the chosen part; for all, the lists and the part's pictures."""
        if subject is not None:
            paths = [self.folder / self._name(subject)]
        else:
            pictures = (self.folder / f"{self.options.part}_images").rglob("*")
            paths = [self.folder / self.options.metadata, *sorted(pictures)]
        return [path for path in paths if path.is_file()]

    def card(self) -> dict[str, str]:
        """Facts for the data card."""
        return download.CARDS["things_eeg2"] | {"processed": "; ".join(self.processed)}

    @cached_property
    def _lists(self) -> pd.DataFrame:
        """All images of the part, in the order of the signals: image, folder."""
        name, part = self.options.metadata, self.options.part.removesuffix("ing")
        path = self.folder / name
        if not path.is_file():
            raise DatasetError(download.how_to_get("things_eeg2", self.folder, name))
        content, keys = load_numpy(path), [f"{part}_img_files", f"{part}_img_concepts"]
        files, folders = (_listed(content[key]) if _has(content, keys) else [] for key in keys)
        odd = [v for v in (*files, *folders) if not isinstance(v, str) or not v.strip()]
        images = [Path(file).stem for file in files] if not odd else []
        if odd or not images or len(folders) != len(images) or len(set(images)) < len(images):
            what = f"it holds {odd[0]!r}" if odd else "its lists lack, differ in length, or repeat"
            raise wrong_structure(path, what, f"{' and '.join(keys)}: a name for each image")
        return pd.DataFrame({"image": images, "folder": folders})

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
    def _pictures(self) -> dict[str, Path] | None:
        folder = self.folder / f"{self.options.part}_images"
        return find_pictures(folder, self._images["image"], self._note)

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
            images = images[images["image"].isin(list(self._pictures))]
        if self.options.repetitions == "average":
            table = images.assign(row=images["number"])
        else:
            table = images.loc[images.index.repeat(n_repetitions)]
            within = np.tile(np.arange(n_repetitions), len(images))
            table = table.assign(row=table["number"] * n_repetitions + within)
        return table.assign(subject=subject, session=-1, block=-1, order=-1).reset_index(drop=True)

    def _name(self, subject: int) -> str:
        return f"sub-{subject:02d}/preprocessed_eeg_{self.options.part}.npy"

    def _path(self, subject: int) -> Path:
        path = self.folder / self._name(subject)
        if not path.is_file():
            message = download.how_to_get("things_eeg2", self.folder, self._name(subject))
            raise DatasetError(message)
        return path

    def _content(self, subject: int) -> dict[str, Any]:
        """Signals (in the file), channel names, sampling rate and first time of one subject."""
        return read_things(self._path(subject))


def read_things(path: Path) -> dict[str, Any]:
    """Open one file and check its structure.

    Returns ``eeg`` (StoredArray or array, shape (n_images, n_repetitions, n_chans, n_times)),
    ``ch_names`` (list of str), ``sfreq`` (hertz) and ``tmin`` (s after the onset). The form of NICE
    and ATM cuts the signals from -0.2 to 0 s off but leaves ``times`` whole: its last entries hold.
    """
    content = load_numpy(path)
    if not _has(content, KEYS):
        keys = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise wrong_structure(path, f"it holds {keys}", f"a dict with {', '.join(KEYS)}")
    eeg, ch_names = content["preprocessed_eeg_data"], list(map(str, _listed(content["ch_names"])))
    shape, dtype = getattr(eeg, "shape", ()), getattr(eeg, "dtype", np.dtype(object))
    if len(shape) != 4 or 0 in shape or dtype.kind != "f":
        what = f"its signals have shape {shape} and dtype {dtype}"
        raise wrong_structure(path, what, "four axes of floating-point numbers, none empty")
    if len(ch_names) != shape[2] or len(set(ch_names)) < len(ch_names):
        what = f"it names {len(set(ch_names))} channels for {shape[2]}"
        raise wrong_structure(path, what, "each channel once")
    try:
        times = np.array(_listed(content["times"]), dtype=float)
        steps = np.diff(times)
        enough = times.ndim == 1 and len(times) >= max(2, shape[3])
        sfreq = 1 / steps.mean() if enough and steps.mean() > 0 else 0.0
        wrong = not SFREQS[0] <= sfreq <= SFREQS[1] or np.ptp(steps) > 0.1 * steps.mean()
    except (TypeError, ValueError):
        wrong = True
    if wrong:
        allowed = f"seconds that rise by equal steps, at least {shape[3]}"
        raise wrong_structure(path, f"its times are {content['times']!r:.80}", allowed)
    tmin = float(times[-shape[3]])
    return {"eeg": eeg, "ch_names": ch_names, "sfreq": float(round(sfreq, 3)), "tmin": tmin}


def _has(content: Any, keys: list[str] | tuple[str, ...]) -> bool:
    return isinstance(content, dict) and set(keys) <= set(content)


def _listed(values: Any) -> list:
    if isinstance(values, StoredArray):
        values = values.read(0, values.shape[0])
    return list(values) if isinstance(values, (list, tuple, np.ndarray)) else []


def _plain(folder: str) -> str:
    """``01175_roller_coaster`` becomes ``roller coaster``."""
    number, _, name = folder.partition("_")
    return (name if number.isdigit() and name else folder).replace("_", " ")
