"""Epochs of trials that are distributed already cut, without the bad ones (chapter 1)."""

from __future__ import annotations

from collections.abc import Callable

import mne
import numpy as np
import pandas as pd

from eeglib.datasets import METADATA, DatasetError
from eeglib.datasets.montage import place_channels

EDGE_SHARE = 0.2
"""A channel that spends this share of a trial at its highest or lowest value is saturated."""

LEVELS = 16
"""A channel with fewer steps of resolution between its extremes is too quiet to be saturated."""

DEAD_SHARE = 0.5
"""A channel that is bad in more than this share of the trials is bad as a whole."""

FAULTS = ("not finite", "a flat channel", "a saturated channel")


def usable_epochs(
    read: Callable[[int], np.ndarray],
    info: mne.Info,
    metadata: pd.DataFrame,
    tmin: float,
    note: Callable[..., None],
) -> mne.BaseEpochs:
    """Epochs without the trials that cannot be used; each reason goes to ``note`` with its count.

    That are values that are no numbers, flat and saturated channels. A channel that is bad in more
    than half of the trials does not cost them: it is marked as bad and set to zero. ``read(row)``
    gives a trial, float32 of shape (n_chans, n_times); ``metadata`` has `METADATA` and ``row``.
    """
    subject = f"Subject {metadata['subject'].iloc[0]}"
    faults = np.array([_faults(read(row)) for row in metadata["row"]])
    dead = np.flatnonzero((faults.mean(axis=0) > DEAD_SHARE).any(axis=0))
    faults[..., dead] = False
    if dead.size:
        info["bads"] = [info["ch_names"][channel] for channel in dead]
        note(f"{subject}: channels set to zero as bad: {', '.join(info['bads'])}.", warn=True)
    kinds = faults.any(axis=2)
    bad = kinds.any(axis=1)
    for number, reason in enumerate(FAULTS):
        if n := (bad & (kinds.argmax(axis=1) == number)).sum():
            note(f"{subject}: {n} trials left out for {reason}.", warn=True)
    if bad.all():
        raise DatasetError(
            f"None of the {len(bad)} trials of {subject.lower()} can be used: values that are "
            "no numbers, flat or saturated channels. Look at the signals; the file may be damaged."
        )
    metadata = metadata[~bad].reset_index(drop=True)
    rows, labels = metadata["row"], metadata["label"]
    data = np.empty((len(rows), *read(rows[0]).shape), np.float32)
    for trial, row in zip(data, rows, strict=True):
        trial[:] = read(row)
        # A bad channel may hold values that are no numbers; zeros pass through every filter.
        trial[dead] = 0
    # `mne.EpochsArray` would hold the trials in double precision.
    epochs = mne.BaseEpochs(
        info,
        data,
        np.column_stack([np.arange(len(rows)), np.zeros_like(labels), labels]),
        dict(zip(metadata["class_name"], labels, strict=True)),
        tmin=tmin,
        tmax=tmin + (data.shape[2] - 1) / info["sfreq"],
        baseline=None,
        metadata=metadata[list(METADATA)],
        proj=False,
        verbose="error",
    )
    return epochs.drop_bad(verbose="error")


def _faults(trial: np.ndarray) -> np.ndarray:
    """Which channels of a trial have which of `FAULTS`, shape (3, n_chans)."""
    infinite = ~np.isfinite(trial).all(axis=1)
    with np.errstate(invalid="ignore"):
        low, high = trial.min(axis=1, keepdims=True), trial.max(axis=1, keepdims=True)
        at_edge = np.maximum((trial == low).mean(axis=1), (trial == high).mean(axis=1))
        # A quiet channel with coarse steps sits at its extremes often and is not saturated.
        steps = np.abs(np.diff(trial, axis=1))
        step = np.where(steps > 0, steps, np.inf).min(axis=1, initial=np.inf)
        wide = (high - low)[:, 0] >= LEVELS * step
    flat = (low == high)[:, 0] & ~infinite
    return np.array([infinite, flat, (at_edge >= EDGE_SHARE) & wide & ~flat])


def channel_info(ch_names: list[str], sfreq: float, unitless: bool = False) -> mne.Info:
    """Info for EEG channels, with positions of the 10-05 system for the names that it knows.

    ``unitless`` signals, such as z-scores, are marked so that no figure shows microvolts.
    """
    info = mne.create_info(ch_names, sfreq, "eeg", verbose="error")
    place_channels(info)
    if unitless:
        for channel in info["chs"]:
            channel["unit"] = mne.io.constants.FIFF.FIFF_UNIT_NONE
    return info
