"""Real EEG with invented labels: PhysioNet's Motor Movement/Imagery data (chapter 1).

Recordings of people who saw no pictures are cut into blocks, as if each had shown the images of one
class: the design of EEG-ImageNet, with nothing in it but the clock.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import mne
import numpy as np
import pandas as pd
import pooch
from pydantic import Field, ValidationInfo, field_validator

import eeglib.datasets as datasets
from eeglib.datasets import METADATA, Dataset, DatasetError, Recording, download
from eeglib.datasets.images import COLUMNS
from eeglib.datasets.montage import place_channels
from eeglib.datasets.stimuli import CLASSES, drawn_stimuli, spread_classes
from eeglib.profile import DatasetSettings

EXTRACT = Path(__file__).with_suffix(".npz")  # written by tools/make_real_extract.py
FILES = Path("MNE-eegbci-data", "files", "eegmmidb", "1.0.0")  # where MNE puts what it downloads
RUNS = range(3, 15)  # 1 and 2 are a minute of rest each
SFREQ = 160.0  # of all but subjects 88, 92 and 100, hertz


class Options(datasets.Options):
    """Blocks to invent; the defaults are the design of EEG-ImageNet."""

    n_classes: int = Field(40, ge=2, le=40)  # blocks: each class has one
    block_seconds: float = Field(25.0, gt=0)
    trial_seconds: float = Field(0.5, gt=0, validate_default=True)  # an "image"
    extract: bool = False  # the 10 blocks, 32 channels, of subject 1 that come with the package
    seed: int = Field(0, ge=0)  # of the classes' order and of the drawings

    @field_validator("trial_seconds")
    @classmethod
    def _divides_a_block(cls, seconds: float, info: ValidationInfo) -> float:
        n = (whole := info.data.get("block_seconds", seconds)) / seconds
        if n < 0.5 or abs(n - round(n)) > 1e-6:
            raise ValueError(f"block_seconds={whole:g} is no multiple of it")
        return seconds

    @property
    def n_images(self) -> int:
        return round(self.block_seconds / self.trial_seconds)


class Loader(Dataset):
    """Runs 3, 4, ... of each subject, as many as the blocks need.

    The data are in ``dataset.root``, the ``path`` of `mne.datasets.eegbci.load_data`; where that is
    empty, in the folder that MNE is configured for, or else inside the run's own. What is missing
    is downloaded by the first chapter that reads it. A run holds as many blocks as fit, with equal
    pauses between them and half a pause at either end, and counts as a session.
    """

    Options = Options
    caution: ClassVar[tuple[str, str]] = tuple(download.TABLE["eegmmidb"]["caution"])

    def __init__(self, settings: DatasetSettings, run_folder: Path):
        super().__init__(settings, run_folder)
        if settings.root is None:
            self.folder = Path(mne.get_config("MNE_DATASETS_EEGBCI_PATH") or run_folder)
        last, of = (1, "the extract") if self.options.extract else (109, "EEGMMIDB")
        if (most := max(settings.subjects)) > last:
            text = f"There is no subject {most}; the subjects of {of} are 1 to {last}."
            raise DatasetError(f"{text} Change dataset.subjects.")

    def prepare(self) -> None:
        """Get and check the first subject's runs, and draw the pictures."""
        self.recordings(self.settings.subjects[0])
        self.stimuli()

    def subjects(self) -> list[int]:
        """Subjects whose files have been downloaded."""
        extract, here = self.options.extract, self.folder / FILES
        return [s for s in range(1, 110) if (s == 1 and extract) or (here / _name(s, 3)).is_file()]

    @property
    def class_names(self) -> list[str]:
        return [CLASSES[i].name for i in spread_classes(self.options.n_classes)]

    def recordings(self, subject: int) -> list[Recording]:
        """Runs of one subject, in volts at 160 Hz, without the zeros at their ends."""
        o, found, n_found = self.options, [], 0
        labels = np.random.default_rng([o.seed, subject]).permutation(o.n_classes)
        for run, raw in self._extract() if o.extract else self._runs(subject):
            seconds = raw.n_times / raw.info["sfreq"]
            fit = int(seconds / o.block_seconds + 1e-6)
            block = np.arange(n_found, min(n_found + fit, o.n_classes)).repeat(o.n_images)
            if len(block):
                number, label = np.arange(len(block)) % o.n_images, labels[block]
                period = seconds / fit  # of a block and a pause
                start = (block - n_found + 0.5) * period - o.block_seconds / 2
                trials = pd.DataFrame({"onset": start + number * o.trial_seconds, "label": label})
                trials = trials.assign(subject=subject, session=run, block=block)
                trials["order"] = block * o.n_images + number
                trials["image"] = [f"{k:02d}_{n:02d}" for k, n in zip(label, number, strict=True)]
                trials["class_name"] = np.array(self.class_names)[label]
                found.append(Recording(raw, trials[["onset", *METADATA]]))
                n_found = block[-1] + 1
            if n_found == o.n_classes:
                return found
        text = f"{n_found} blocks of {o.block_seconds:g} s fit into the recordings of subject"
        how = "Change dataset.options: n_classes or block_seconds."
        raise DatasetError(f"{text} {subject}, not {o.n_classes}. {how}")

    @cache  # noqa: B019
    def stimuli(self) -> pd.DataFrame:
        """The drawings that were invented to have been shown, in the run's own folder."""
        o = self.options
        folder = self.run_folder / f"stimuli_{o.n_classes}x{o.n_images}_seed{o.seed}"
        table = drawn_stimuli(folder, spread_classes(o.n_classes), o.n_images, o.seed)
        numbers = table.groupby("label").cumcount()
        table["image"] = [f"{k:02d}_{n:02d}" for k, n in zip(table["label"], numbers, strict=True)]
        return table.assign(file=[folder / file for file in table["file"]])[COLUMNS]

    def files(self, subject: int | None = None) -> list[Path]:
        """None that could change: all are compared with the published ones when they are read."""
        return []

    def card(self) -> dict[str, str]:
        o = self.options
        blocks = f"{o.n_classes} of {o.block_seconds:g} s, {o.n_images} trials each"
        return download.CARDS["eegmmidb"] | {
            "INVENTED": f"images, classes and blocks ({blocks}); nobody looked at pictures",
            "channels": f"{'32 of the 64' if o.extract else '64'}, 160 Hz, volts",
        }

    def _runs(self, subject: int) -> Iterator[tuple[int, mne.io.BaseRaw]]:
        for run in RUNS:
            raw = mne.io.read_raw_edf(self._fetch(subject, run), preload=True, verbose="error")
            mne.datasets.eegbci.standardize(raw)
            place_channels(raw.info)
            raw.crop(tmax=raw.times[raw.get_data().any(axis=0)][-1])
            if (sfreq := raw.info["sfreq"]) != SFREQ:
                text = f"Subject {subject} was recorded at {sfreq:g} Hz and is resampled to 160 Hz;"
                self._note(f"{text} there is nothing above {sfreq / 2:g} Hz in it.", warn=True)
                raw.resample(SFREQ)
            yield run, raw

    def _extract(self) -> Iterator[tuple[int, mne.io.BaseRaw]]:
        with np.load(EXTRACT, allow_pickle=False) as file:
            info = mne.create_info(file["ch_names"].tolist(), SFREQ, "eeg")
            place_channels(info)
            for run in file["runs"].tolist():
                yield run, mne.io.RawArray(file[f"run_{run}"] * 1e-6, info, verbose="error")

    def _fetch(self, subject: int, run: int) -> Path:
        """Path of a run's file, checked; it is downloaded if it is not there."""
        name = _name(subject, run)
        path = self.folder / FILES / name
        if not path.is_file():
            try:
                mne.datasets.eegbci.load_data(subject, run, path=self.folder, update_path=False)
            except Exception as error:  # of requests, pooch or the file system
                how = f'load_data({subject}, range(3, 15), path="{self.folder}")'
                text = f"{path} is missing and cannot be downloaded ({str(error)[:120]}). Run where"
                text += f" there is a network: python -c 'import mne; mne.datasets.eegbci.{how}'."
                page = "https://physionet.org/content/eegmmidb/1.0.0/"
                raise DatasetError(f"{text} The files are at {page}.") from None
        if pooch.file_hash(str(path)) != published_checksums()[name]:
            text = f"{path} is not the published file: its sha256 is not that of MNE's list"
            raise DatasetError(f"{text}. Delete it and run this again, which downloads it.")
        return path


@cache
def published_checksums() -> dict[str, str]:
    """SHA-256 of every file, by name, from the list that comes with MNE."""
    text = files("mne").joinpath("data", "eegbci_checksums.txt").read_text(encoding="utf-8")
    return dict(line.split() for line in text.splitlines())


def _name(subject: int, run: int) -> str:
    return f"S{subject:03d}/S{subject:03d}R{run:02d}.edf"
