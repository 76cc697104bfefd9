"""Epochs of trials that are distributed already cut, without the bad ones (chapter 1)."""

from collections.abc import Callable

import mne
import numpy as np
import pandas as pd

from eeglib.datasets import METADATA, DatasetError
from eeglib.datasets.montage import place_channels


def usable_epochs(
    read: Callable[[int], np.ndarray],
    info: mne.Info,
    metadata: pd.DataFrame,
    tmin: float,
    note: Callable[..., None],
) -> mne.BaseEpochs:
    """Epochs without trials that hold a flat channel or values that are not finite.

    A channel that is so in most trials is marked as bad and set to zero instead. ``read(row)``
    gives a trial, float32 (n_chans, n_times); ``metadata`` has `METADATA` and ``row``.
    """
    subject = f"Subject {metadata['subject'].iloc[0]}"
    trials = map(read, metadata["row"])
    channels = np.array([~np.isfinite(x).all(1) | (x == x[:, :1]).all(1) for x in trials])
    dead = channels.mean(axis=0) > 0.5
    bad = channels[:, ~dead].any(axis=1)
    if dead.any():
        info["bads"] = np.array(info.ch_names)[dead].tolist()
        note(f"{subject}: channels set to zero as bad: {', '.join(info['bads'])}.", warn=True)
    if bad.any():
        what = "values that are not finite, or a flat channel"
        note(f"{subject}: {bad.sum()} of {len(bad)} trials left out for {what}.", warn=True)
    if bad.all() or dead.all():
        raise DatasetError(f"No trial of {subject.lower()} can be used. The file may be damaged.")
    metadata = metadata[~bad].reset_index(drop=True)
    rows, labels = metadata["row"], metadata["label"]
    data = np.empty((len(rows), *read(rows[0]).shape), np.float32)
    for trial, row in zip(data, rows, strict=True):
        trial[:] = read(row)
        # A bad channel may hold values that are no numbers; zeros pass through every filter.
        trial[dead] = 0
    events = np.column_stack([np.arange(len(rows)), np.zeros_like(labels), labels])
    codes = {str(label): label for label in sorted(set(labels))}  # as `preprocess` names events
    times = tmin, tmin + (data.shape[2] - 1) / info["sfreq"]
    how = {"baseline": None, "metadata": metadata[list(METADATA)], "proj": False}
    # `mne.EpochsArray` would hold the trials in double precision.
    epochs = mne.BaseEpochs(info, data, events, codes, *times, **how, verbose="error")
    return epochs.drop_bad(verbose="error")


def channel_info(ch_names: list[str], sfreq: float, unitless: bool = False) -> mne.Info:
    """Info for EEG channels with their 10-05 positions; figures of ``unitless`` show no volts."""
    info = mne.create_info(ch_names, sfreq, "eeg", verbose="error")
    place_channels(info)
    for channel in info["chs"] if unitless else ():
        channel["unit"] = mne.io.constants.FIFF.FIFF_UNIT_NONE
    return info
