"""THINGS-EEG2 of Gifford et al. (2022): 10 subjects, rapid randomised presentation (chapter 1).

Only the part for training is read: that for tests has one image of each concept, and cannot be
split by image. The official form has 17 channels at 100 Hz, that of NICE and ATM 63 at 250 Hz.
"""

from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import mne
import numpy as np
import pandas as pd
from pydantic import Field

import eeglib.datasets as datasets
from eeglib.datasets import METADATA, Dataset, DatasetError, download
from eeglib.datasets.epochs import channel_info, usable_epochs
from eeglib.datasets.files import load_numpy, structure
from eeglib.datasets.images import find_pictures

LISTS, PICTURES = "image_metadata.npy", "training_images"


class Options(datasets.Options):
    """Options of this data set."""

    n_concepts: int | None = Field(None, ge=2)  # so many, spread over the alphabet; empty: all
    repetitions: Literal["separate", "average"] = "separate"


class Loader(Dataset):
    """THINGS-EEG2, preprocessed."""

    Options = Options
    continuous: ClassVar[bool] = False
    processed: ClassVar[tuple[str, ...]] = (
        "recorded with 0.01-100 Hz",
        "baseline of 0.2 s before the image subtracted",
        "whitened by multivariate noise normalisation",
    )

    def prepare(self) -> None:
        for subject in self.settings.subjects:
            # Preprocessed anew, a file may rightly differ from the one that can be downloaded.
            download.verify(self._path(self._name(subject)), self.folder)
            self._metadata(subject)
        self.stimuli()

    def subjects(self) -> list[int]:
        paths = self.folder.glob("sub-*/preprocessed_eeg_training.npy")
        return sorted(n for path in paths if (n := self._owner(path.parent.name)) is not None)

    @cached_property
    def class_names(self) -> list[str]:
        concepts = list(self._lists["concept"].unique())
        n_concepts = self.options.n_concepts or len(concepts)
        if n_concepts > len(concepts):
            change = f"Change dataset.options.n_concepts (now {n_concepts})"
            raise DatasetError(f"{LISTS} has {len(concepts)} concepts. {change}.")
        spread = np.linspace(0, len(concepts) - 1, n_concepts).round().astype(int)
        return [concepts[i] for i in spread]

    def trials(self, subject: int) -> pd.DataFrame:
        return self._metadata(subject)[list(METADATA)].reset_index(drop=True)

    def info(self, subject: int) -> mne.Info:
        content = self._content(subject)
        return channel_info(content["ch_names"], content["sfreq"], unitless=True)

    def epochs(self, subject: int) -> mne.BaseEpochs:
        """Trials that can be used; unitless, whitened by multivariate noise normalisation."""
        content, metadata = self._content(subject), self._metadata(subject)
        eeg, average = content["eeg"], self.options.repetitions == "average"

        def read(row: int) -> np.ndarray:
            trial = eeg[row].mean(axis=0) if average else eeg[divmod(row, eeg.shape[1])]
            return trial.astype(np.float32)

        return usable_epochs(read, self.info(subject), metadata, content["tmin"], self._note)

    @cache  # noqa: B019
    def stimuli(self) -> pd.DataFrame:
        return find_pictures(self.folder / PICTURES, self._images, self._note)

    def files(self, subject: int | None = None) -> list[Path]:
        names = (LISTS, PICTURES) if subject is None else (self._name(subject),)
        return self._below([self.folder / name for name in names])

    def card(self) -> dict[str, str]:
        return download.CARDS["things_eeg2"] | {"processed": "; ".join(self.processed)}

    @cached_property
    def _lists(self) -> pd.DataFrame:
        """All images, sorted by concept: image, concept, number in the signals."""
        path, keys = self._path(LISTS), ("train_img_files", "train_img_concepts")
        content = load_numpy(path)
        with structure(path, f"a dict with {' and '.join(keys)}, each image once"):
            files, folders = (list(content[key]) for key in keys)
            table = pd.DataFrame({"image": [Path(f).stem for f in files], "folder": folders})
            names = table["folder"].str.replace(r"^\d+_(?=.)", "", regex=True)
            table["concept"] = names.str.replace("_", " ")  # 01175_roller_coaster: roller coaster
            if table.empty or table["image"].duplicated().any():
                raise ValueError("no image, or one twice")
        return table.assign(number=table.index).sort_values("folder", kind="stable")

    @cached_property
    def _images(self) -> pd.DataFrame:
        table = self._lists.rename(columns={"concept": "class_name"}).sort_values("number")
        table = table[table["class_name"].isin(self.class_names)].reset_index(drop=True)
        return table.assign(label=table["class_name"].map(self.class_names.index).astype(int))

    def _metadata(self, subject: int) -> pd.DataFrame:
        """One row per trial, with ``row``: the image, or the image's presentation."""
        n_images, n_repetitions = self._content(subject)["eeg"].shape[:2]
        if n_images != len(self._lists):
            both = f"has {n_images} images, {LISTS} lists {len(self._lists)}"
            raise DatasetError(f"{self._name(subject)} {both}. Use files that belong together.")
        table = self._images
        if len(self.stimuli()):
            table = table[table["image"].isin(self.stimuli()["image"])]
        n_trials = 1 if self.options.repetitions == "average" else n_repetitions
        rows = np.add.outer(table["number"].to_numpy() * n_trials, np.arange(n_trials)).ravel()
        table = table.loc[table.index.repeat(n_trials)].reset_index(drop=True)
        return table.assign(row=rows, subject=subject, session=-1, block=-1, order=-1)

    def _name(self, subject: int) -> str:
        return f"sub-{subject:02d}/preprocessed_eeg_training.npy"

    def _path(self, name: str) -> Path:
        return download.find("things_eeg2", self.folder, name)

    def _content(self, subject: int) -> dict[str, Any]:
        return read_things(self._path(self._name(subject)))


def read_things(path: Path) -> dict[str, Any]:
    """Open one file: ``eeg`` (mapped into memory), ``ch_names``, ``sfreq`` and ``tmin`` (s)."""
    content = load_numpy(path)
    allowed = "a dict with preprocessed_eeg_data (floats: images, repetitions, channels, times), "
    allowed += "ch_names (each once) and times (seconds in equal steps)"
    with structure(path, allowed):
        eeg, ch_names = content["preprocessed_eeg_data"], list(map(str, content["ch_names"]))
        times = np.array(content["times"], dtype=float)
        steps = np.diff(times)
        sfreq = float(round(1 / steps.mean(), 3))
        if eeg.dtype.kind != "f" or eeg.ndim != 4 or 0 in eeg.shape:
            raise ValueError(f"signals of shape {eeg.shape} and type {eeg.dtype}")
        if len(ch_names) != eeg.shape[2] or len(set(ch_names)) < len(ch_names):
            raise ValueError(f"{len(set(ch_names))} names for {eeg.shape[2]} channels")
        equal = np.ptp(steps) < 0.1 * steps.mean()
        if not (equal and 10 <= sfreq <= 2000 and len(times) >= eeg.shape[3]):
            raise ValueError(f"{len(times)} times from {times[0]:g} to {times[-1]:g}")
    # The form of NICE and ATM lacks -0.2 to 0 s, but not in ``times``: its last entries hold.
    return {"eeg": eeg, "ch_names": ch_names, "sfreq": sfreq, "tmin": float(times[-eeg.shape[3]])}
