"""Trials that stay in their file until they are used, and the search for bad ones (chapter 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mne
import numpy as np
import pandas as pd

from eeglib.datasets import METADATA, DatasetError

EDGE_SHARE = 0.2
"""A channel that spends this share of a trial at its highest or lowest value is saturated."""

LEVELS = 16
"""A channel with fewer steps of resolution between its extremes is too quiet to be saturated."""

DEAD_SHARE = 0.5
"""A channel that is bad in more than this share of the trials is bad as a whole."""

Reader = Callable[[int], np.ndarray]


class FileEpochs(mne.BaseEpochs):
    """MNE epochs whose trials are read one at a time, in single precision.

    Iterating, averaging and saving need the memory of one trial; ``load_data`` and ``get_data``
    read all of them.

    Parameters
    ----------
    read : callable
        ``read(row)`` gives a float32 array of shape (n_chans, n_times).
    info : mne.Info
    metadata : pandas.DataFrame
        One row per trial, with `METADATA` and the column ``row``: what ``read`` is asked for.
    tmin : float
        Time of the first value after the onset of the image, s.
    n_times : int
    """

    def __init__(
        self, read: Reader, info: mne.Info, metadata: pd.DataFrame, tmin: float, n_times: int
    ):
        self._reader = _Uncopied(read)
        self._rows = metadata["row"].to_numpy()
        labels = metadata["label"].to_numpy()
        classes = metadata.drop_duplicates("label").sort_values("label")
        names = classes["class_name"].astype(str)
        names = classes["label"].astype(str) if names.duplicated().any() else names
        super().__init__(
            info,
            None,
            np.column_stack([np.arange(len(labels)), np.zeros_like(labels), labels]).astype(int),
            {name: int(label) for name, label in zip(names, classes["label"], strict=True)},
            tmin=tmin,
            tmax=tmin + (n_times - 1) / info["sfreq"],
            baseline=None,
            metadata=metadata[list(METADATA)].reset_index(drop=True),
            proj=False,
            verbose="error",
        )
        self.drop_bad(verbose="error")

    def _get_data(self, *args: object, **kwargs: object) -> np.ndarray:
        with mne.use_log_level("error"):  # otherwise it announces every reading
            return super()._get_data(*args, **kwargs)

    def _get_epoch_from_raw(self, idx: int, verbose: object = None) -> np.ndarray:
        # Trials may have been taken out since; the event's sample is the trial's first number.
        return self._reader.read(int(self._rows[self.events[idx, 0]]))


class _Uncopied:
    """Keeps ``epochs.copy()`` from copying what is known about thousands of places in a file."""

    def __init__(self, read: Reader):
        self.read = read

    def __deepcopy__(self, memo: dict) -> _Uncopied:
        return self


@dataclass(frozen=True)
class Inspection:
    """Which trials and channels of one subject can be used.

    Attributes
    ----------
    good : array of bool, shape (n_trials,)
    bad_channels : list of int
    reasons : dict
        Number of trials left out, by reason.
    """

    good: np.ndarray
    bad_channels: list[int]
    reasons: dict[str, int]


def inspect_trials(trials: Iterator[np.ndarray], n_trials: int, n_chans: int) -> Inspection:
    """Find trials with values that are no numbers, flat or saturated channels.

    Parameters
    ----------
    trials : iterator of array, shape (n_chans, n_times)
    n_trials, n_chans : int

    Returns
    -------
    Inspection
        A channel that is bad in more than half of the trials does not cost them: it counts as a
        bad channel.
    """
    faults = {name: np.zeros((n_trials, n_chans), bool) for name in _FAULTS}
    for number, trial in enumerate(trials):
        for name, found in _faults_of(trial).items():
            faults[name][number] = found
    dead = np.zeros(n_chans, bool)
    for found in faults.values():
        dead |= found.mean(axis=0) > DEAD_SHARE
    good, reasons = np.ones(n_trials, bool), {}
    for name, found in faults.items():
        hit = found[:, ~dead].any(axis=1) & good
        good &= ~hit
        if hit.any():
            reasons[name] = int(hit.sum())
    return Inspection(good, np.flatnonzero(dead).tolist(), reasons)


_FAULTS = ("not finite", "a flat channel", "a saturated channel")


def _faults_of(trial: np.ndarray) -> dict[str, np.ndarray]:
    infinite = ~np.isfinite(trial).all(axis=1)
    with np.errstate(invalid="ignore"):
        low, high = trial.min(axis=1), trial.max(axis=1)
        flat = (low == high) & ~infinite
        at_edge = (trial == low[:, None]).mean(axis=1), (trial == high[:, None]).mean(axis=1)
        # A quiet channel with coarse steps sits at its extremes often and is not saturated.
        steps = np.abs(np.diff(trial, axis=1))
        step = np.where(steps > 0, steps, np.inf).min(axis=1, initial=np.inf)
        wide = high - low >= LEVELS * step
    saturated = (np.maximum(*at_edge) >= EDGE_SHARE) & wide & ~flat
    return dict(zip(_FAULTS, (infinite, flat, saturated), strict=True))


def file_epochs(
    read: Reader,
    inspection: Inspection,
    metadata: pd.DataFrame,
    info: mne.Info,
    tmin: float,
    n_times: int,
) -> FileEpochs:
    """Epochs of the good trials, with bad channels marked, at zero, and positions where known.

    Parameters
    ----------
    read : callable
        ``read(row)`` gives a float32 array of shape (n_chans, n_times).
    inspection : Inspection
        Of the same trials.
    metadata : pandas.DataFrame
        `METADATA` and the column ``row``.
    info : mne.Info
        From `channel_info`; bad channels are marked in it.
    tmin : float
        Seconds after the onset of the image.
    n_times : int

    Raises
    ------
    DatasetError
        If no trial is good.
    """
    if not inspection.good.any():
        raise DatasetError(
            f"None of the {len(metadata)} trials of subject {metadata['subject'].iloc[0]} can be "
            f"used ({inspection.reasons}). Look at the signals; the file may be damaged."
        )
    info["bads"] = [info["ch_names"][c] for c in inspection.bad_channels]
    bad = np.array(inspection.bad_channels, dtype=int)

    def read_good(row: int) -> np.ndarray:
        trial = read(row)
        # A bad channel may hold values that are no numbers; zeros pass through every filter.
        trial[bad] = 0
        return trial

    return FileEpochs(read_good, info, metadata[inspection.good], tmin, n_times)


def channel_info(ch_names: list[str], sfreq: float, unitless: bool = False) -> mne.Info:
    """Info for EEG channels, with positions of the 10-05 system for the names that it knows.

    ``unitless`` signals, such as z-scores, are marked so that no figure shows microvolts.
    """
    from mne.io.constants import FIFF

    from eeglib.datasets.montage import montage_1005

    info = mne.create_info(ch_names, sfreq, "eeg", verbose="error")
    montage = montage_1005()
    known = {name.lower() for name in montage.ch_names}
    if any(name.lower() in known for name in ch_names):
        info.set_montage(montage, match_case=False, on_missing="ignore", verbose="error")
    if unitless:
        for channel in info["chs"]:
            channel["unit"] = FIFF.FIFF_UNIT_NONE
    return info
