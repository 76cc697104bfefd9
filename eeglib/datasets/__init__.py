"""Data sets: each gives the same trials, whatever the files look like (chapter 1).

A data set is one module of this package with a class named ``Loader``, a subclass of `Dataset`; the
profile's ``dataset.name`` is the module's name.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import BaseModel, ValidationError

from eeglib.profile import DatasetSettings

if TYPE_CHECKING:
    import mne
    import numpy as np
    import pandas

METADATA = ("subject", "session", "block", "order", "image", "label", "class_name")
"""Columns of every trial's metadata.

``subject`` int; ``session`` and ``block`` int, -1 where unknown; ``order`` int, position in the
presentation order within the subject, -1 where unknown; ``image`` str, name without extension, or
empty where no image is known; ``label`` int in [0, n_classes); ``class_name`` str.
"""


class DatasetError(ValueError):
    """Data that cannot be used; the message says what came, what is allowed and what to do."""


class DatasetWarning(UserWarning):
    """Data that were repaired or left out; the same text stands in `Dataset.report`."""


class Options(BaseModel, extra="forbid", frozen=True):
    """Base of a loader's own options: unknown keys are errors."""


class Recording(NamedTuple):
    """One continuous recording and the trials in it.

    Signals of ``raw`` are in volts, with channel positions where known. Where the recording was cut
    and joined, annotations named ``EDGE boundary`` mark the joints. ``trials`` has one row per
    trial: ``onset`` in seconds after the start of ``raw``, and `METADATA`.
    """

    raw: mne.io.BaseRaw
    trials: pandas.DataFrame


class Dataset(ABC):
    """A data set: where it is, who is in it, and its trials.

    ``settings`` is the section ``dataset`` of the profile. ``folder`` is where the data are, or
    will be written by `prepare`: ``settings.root`` or, where that is empty, the run's own folder.
    """

    Options: ClassVar[type[BaseModel]] = Options
    simulated: ClassVar[bool] = False
    caution: tuple[str, str] | None = None  # title and text of a warning on every page
    continuous: ClassVar[bool] = True  # recordings; if not, `epochs` gives trials already cut
    processed: ClassVar[tuple[str, ...]] = ()  # what was done before the data were distributed

    def __init__(self, settings: DatasetSettings, run_folder: Path):
        try:
            self.options = self.Options(**settings.options)
        except ValidationError as error:
            problems = [f"{e['loc'][0]}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
            text = f"dataset.options of data set {settings.name!r}: {'; '.join(problems)}. Allowed:"
            allowed = ", ".join(self.Options.model_fields) or "none"
            raise DatasetError(f"{text} {allowed}.") from None
        self.settings = settings
        self.run_folder = Path(run_folder)
        self.folder = settings.root or self.run_folder
        self._lines: list[str] = []

    @abstractmethod
    def prepare(self) -> None:
        """Make the data ready: simulate, download, or check what the user placed in `folder`."""

    @abstractmethod
    def subjects(self) -> list[int]:
        """Subjects that the data hold."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes; a trial's ``label`` is an index into this list."""

    def recordings(self, subject: int) -> list[Recording]:
        """Continuous recordings of one subject, in the order of recording."""
        raise NotImplementedError

    def epochs(self, subject: int) -> mne.BaseEpochs:
        """Trials of one subject that the data set distributes already cut, with metadata."""
        raise NotImplementedError

    def trials(self, subject: int) -> pandas.DataFrame:
        """Metadata of one subject's trials, in the order of presentation where it is known.

        Columns `METADATA`; where the recordings are continuous also ``onset``, seconds after the
        start of the session, whose runs follow each other as if without a pause.
        """
        import pandas

        if not self.continuous:
            return self.epochs(subject).metadata.reset_index(drop=True)
        tables, elapsed = [], Counter()
        for raw, trials in self.recordings(subject):
            start = trials["session"].map(elapsed).astype(float)
            tables.append(trials.assign(onset=trials["onset"] + start))
            seconds = raw.n_times / raw.info["sfreq"]
            elapsed.update(dict.fromkeys(trials["session"].unique(), seconds))
        return pandas.concat(tables, ignore_index=True)

    def info(self, subject: int) -> mne.Info:
        """Channels, their positions where known, and the sampling rate."""
        if self.continuous:
            return self.recordings(subject)[0].raw.info
        return self.epochs(subject).info

    @abstractmethod
    def stimuli(self) -> pandas.DataFrame:
        """Images shown: ``image``, ``label``, ``class_name``, ``file`` (Path); or no row at all."""

    def files(self, subject: int | None = None) -> list[Path]:
        """Files that one subject's trials depend on; without a subject, those that all share.

        What is stale after a change on disk is decided by these alone. Hidden files do not count:
        an interrupted writer may have left them.
        """
        tops = self.folder.glob("[!.]*")
        return self._below([path for path in tops if self._owner(path.name) == subject])

    def _below(self, tops: list[Path]) -> list[Path]:
        """These files, and those in these folders, but for hidden ones."""
        paths = {path for top in tops for path in (top, *top.rglob("*")) if path.is_file()}
        return sorted(p for p in paths if "/." not in f"/{p.relative_to(self.folder).as_posix()}")

    def _owner(self, name: str) -> int | None:
        """Subject whose file or folder this is, by its name; None for what all share."""
        number = re.match(r"sub-(\d+)", name)
        return int(number[1]) if number else None

    def published_split(self, metadata: pandas.DataFrame) -> dict[str, np.ndarray] | None:
        """Published ``training``, ``validation`` and ``test`` as rows of ``metadata``, or None."""
        return None

    def report(self) -> list[str]:
        """What was found, repaired or left out so far, a line each; chapters 1 and 2 print it."""
        return list(self._lines)

    def _note(self, line: str, warn: bool = False) -> None:
        """Add a line to the report, once; with ``warn`` for what changes the data."""
        if line not in self._lines:
            self._lines.append(line)
            if warn:
                warnings.warn(line, DatasetWarning, stacklevel=3)

    def card(self) -> dict[str, str]:
        """Facts for the data card: title, licence, source, known defects, one line each."""
        return {}


def available() -> list[str]:
    """Names of the data sets that this package can load."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return [n for n in names if hasattr(importlib.import_module(f"{__name__}.{n}"), "Loader")]


def open_dataset(settings: DatasetSettings, run_folder: Path) -> Dataset:
    """Open the data set that a profile names; see `Dataset` for where its files are."""
    name = f"{__name__}.{settings.name}"
    module = importlib.import_module(name) if importlib.util.find_spec(name) else None
    if not hasattr(module, "Loader"):
        text = f"dataset.name is {settings.name!r}; available"
        raise DatasetError(f"{text}: {', '.join(available())}.")
    return module.Loader(settings, run_folder)
