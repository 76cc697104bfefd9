"""From a continuous recording to clean trials: filters, z-scores, epochs (chapter 2).

The steps are those of the paper (section 3.2): a notch at 49-51 Hz, a second-order Butterworth
band-pass at 14-70 Hz, standardisation per channel, then trials cut around the images.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eeglib.butterworth import (
    SignalError,
    bandpass_filter,
    filter_response,
    notch_and_bandpass,
    notch_filter,
    standardize,
    without_zeros,
)
from eeglib.datasets import METADATA, Recording
from eeglib.profile import FilteringSettings

if TYPE_CHECKING:
    import mne
    import pandas

__all__ = [
    "SignalError",
    "bandpass_filter",
    "cut_epochs",
    "filter_epochs",
    "filter_recording",
    "filter_response",
    "notch_and_bandpass",
    "notch_filter",
    "standardize",
]

logger = logging.getLogger(__name__)


def filter_recording(raw: mne.io.BaseRaw, settings: FilteringSettings) -> mne.io.BaseRaw:
    """Filter the EEG channels of a continuous recording.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Volts. Left as it is.
    settings : FilteringSettings
        Section ``filtering`` of the profile.

    Returns
    -------
    mne.io.BaseRaw
        A copy in volts, not yet standardised (`cut_epochs` does that). Stretches on the two sides
        of an ``EDGE boundary`` annotation are filtered each by itself, so that no joint rings.

    Raises
    ------
    SignalError
        If there is no EEG channel, a stretch is too short, or a channel is not finite.
    """
    import mne

    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    if not len(picks):
        raise SignalError(
            f"The recording has no EEG channel among {sorted(set(raw.get_channel_types()))}. "
            "Set the channels' types (raw.set_channel_types)."
        )
    filtered = raw.copy().load_data(verbose=False)
    edges = [0, *_joints(raw), raw.n_times]
    how = raw.info["sfreq"], settings.notch, settings.band, settings.order
    for pick in picks:
        trace = filtered.get_data(picks=[pick])[0]
        try:
            for start, stop in itertools.pairwise(edges):
                trace[start:stop] = notch_and_bandpass(trace[start:stop], *how)
        except SignalError as error:
            raise SignalError(f"Channel {raw.ch_names[pick]}: {error}") from None
        filtered[int(pick)] = trace[np.newaxis]
    return filtered


def filter_epochs(epochs: mne.BaseEpochs, settings: FilteringSettings) -> mne.EpochsArray:
    """Filter, standardise and crop trials that a data set distributes already cut.

    Parameters
    ----------
    epochs : mne.BaseEpochs
        Volts, with metadata. Left as they are.
    settings : FilteringSettings
        Section ``filtering`` of the profile; ``epoch`` must lie within the trials.

    Returns
    -------
    mne.EpochsArray
        EEG channels only. Each trial is filtered by itself; where ``standardize`` is set, every
        channel has zero mean and unit variance over all times of all trials.

    Raises
    ------
    SignalError
        If the trials are too short for the filter or for ``settings.epoch``, or not finite.
    """
    if epochs.metadata is None:
        raise SignalError("The trials have no metadata; a data set's loader must give them.")
    epochs = epochs.copy().load_data().pick("eeg", exclude=())
    sfreq = epochs.info["sfreq"]
    first = round((settings.epoch[0] - epochs.tmin) * sfreq)
    n_times = _trial_length(settings, sfreq)
    if first < 0 or first + n_times > len(epochs.times):
        raise SignalError(
            f"filtering.epoch is {list(settings.epoch)} s, but the trials run from "
            f"{epochs.tmin:g} to {epochs.tmin + len(epochs.times) / sfreq:g} s. Choose an epoch "
            "within them."
        )
    data = notch_and_bandpass(
        epochs.get_data(copy=True), sfreq, settings.notch, settings.band, settings.order
    )[..., first : first + n_times]
    if settings.standardize:
        mean, scale = data.mean(axis=(0, 2)), data.std(axis=(0, 2))
        data -= mean[:, np.newaxis]
        data /= without_zeros(scale, mean)[:, np.newaxis]
    return _as_epochs(
        data, epochs.info, epochs.metadata.reset_index(drop=True), settings, epochs.events[:, 0]
    )


def cut_epochs(recordings: Sequence[Recording], settings: FilteringSettings) -> mne.EpochsArray:
    """Cut one subject's recordings into trials.

    Parameters
    ----------
    recordings : sequence of Recording
        Filtered recordings of one subject, with the same channels and sampling rate.
    settings : FilteringSettings
        ``epoch`` gives start and end of a trial after its onset; ``standardize`` whether each
        recording's channels are first given zero mean and unit variance over the recording.

    Returns
    -------
    mne.EpochsArray
        EEG channels; in volts, or unitless (standard deviations) if standardised. All trials have
        ``round((end - start) * sfreq)`` times, the end not included. ``metadata`` has the columns
        `eeglib.datasets.METADATA`; event codes are the labels. Trials outside their recording, on
        a joint, or in a stretch annotated ``BAD...`` are left out and counted in the drop log.

    Raises
    ------
    SignalError
        If there is no trial left, or the recordings do not go together.
    """
    import pandas

    recordings = list(recordings)
    _check_recordings(recordings)
    sfreq = recordings[0].raw.info["sfreq"]
    n_times = _trial_length(settings, sfreq)
    tables, starts, reasons = [], [], []
    for recording in recordings:
        onsets = np.round((recording.trials["onset"] + settings.epoch[0]) * sfreq).astype(int)
        reason = _reasons_to_drop(recording.raw, onsets.to_numpy(), n_times)
        kept = np.array([not r for r in reason], dtype=bool)
        starts.append(onsets.to_numpy()[kept])
        tables.append(recording.trials.loc[kept, list(METADATA)])
        reasons.extend(reason)
    _report_dropped(reasons)
    metadata = pandas.concat(tables, ignore_index=True)
    if metadata.empty:
        raise SignalError(
            f"No trial of {len(reasons)} lies within the recordings: {_count(reasons)}. Check the "
            "onsets (seconds after the start of the recording) and filtering.epoch."
        )
    data, samples = _cut(recordings, starts, n_times, settings.standardize)
    samples -= round(settings.epoch[0] * sfreq)  # an event marks the image, not the trial's start
    info = _eeg_info(recordings[0].raw)
    return _as_epochs(data, info, metadata, settings, samples, reasons)


# --- trials ---------------------------------------------------------------------------------


def _trial_length(settings: FilteringSettings, sfreq: float) -> int:
    n_times = round((settings.epoch[1] - settings.epoch[0]) * sfreq)
    if n_times < 1:
        raise SignalError(
            f"filtering.epoch {list(settings.epoch)} s holds no time at {sfreq:g} Hz; lengthen it."
        )
    return n_times


def _joints(raw: mne.io.BaseRaw) -> list[int]:
    """First time index after each joint of a recording that was cut and put together."""
    import mne

    if "EDGE boundary" not in set(raw.annotations.description):
        return []
    events, _ = mne.events_from_annotations(
        raw, event_id={"EDGE boundary": 1}, regexp=None, verbose=False
    )
    indices = np.unique(events[:, 0] - raw.first_samp)
    return [int(i) for i in indices if 0 < i < raw.n_times]


def _reasons_to_drop(raw: mne.io.BaseRaw, starts: np.ndarray, n_times: int) -> list[str]:
    bad = np.isnan(raw.get_data(picks=[0], reject_by_annotation="NaN")[0])
    bad_so_far = np.concatenate([[0], np.cumsum(bad)])
    joints = np.array(_joints(raw), dtype=int)
    reasons = []
    for start in starts:
        stop = start + n_times
        if start < 0 or stop > raw.n_times:
            reasons.append("OUTSIDE")
        elif np.any((joints > start) & (joints < stop)):
            reasons.append("JOINT")
        elif bad_so_far[stop] > bad_so_far[start]:
            reasons.append("BAD")
        else:
            reasons.append("")
    return reasons


def _count(reasons: Sequence[str]) -> str:
    words = {
        "OUTSIDE": "outside the recording",
        "JOINT": "across a joint",
        "BAD": "annotated as bad",
    }
    counts = {words[k]: reasons.count(k) for k in words if k in reasons}
    return ", ".join(f"{number} {reason}" for reason, number in counts.items()) or "none given"


def _report_dropped(reasons: list[str]) -> None:
    dropped = sum(map(bool, reasons))
    if dropped:
        logger.warning("Left out %d of %d trials: %s.", dropped, len(reasons), _count(reasons))


def _check_recordings(recordings: list[Recording]) -> None:
    if not recordings:
        raise SignalError("There is no recording to cut. Check which subject was asked for.")
    first = recordings[0].raw
    for number, recording in enumerate(recordings):
        missing = [c for c in ("onset", *METADATA) if c not in recording.trials]
        if missing:
            raise SignalError(f"The trials of recording {number} lack the columns {missing}.")
        if recording.raw.info["sfreq"] != first.info["sfreq"]:
            raise SignalError(
                f"Recording {number} has {recording.raw.info['sfreq']:g} Hz, recording 0 "
                f"{first.info['sfreq']:g} Hz. Resample them to one rate first."
            )
        if _eeg_info(recording.raw).ch_names != _eeg_info(first).ch_names:
            raise SignalError(
                f"Recordings 0 and {number} differ in their EEG channels. Pick the channels that "
                "all recordings share, in one order."
            )


def _eeg_info(raw: mne.io.BaseRaw) -> mne.Info:
    import mne

    return mne.pick_info(raw.info, mne.pick_types(raw.info, eeg=True, exclude=()))


def _cut(
    recordings: Sequence[Recording], starts: Sequence[np.ndarray], n_times: int, scaled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Trials of all recordings, and where each starts if the recordings stood in one row."""
    import mne

    n_trials = sum(map(len, starts))
    picks = mne.pick_types(recordings[0].raw.info, eeg=True, exclude=())
    data = np.empty((n_trials, len(picks), n_times))
    samples, first, offset = [], 0, 0
    for recording, onsets in zip(recordings, starts, strict=True):
        raw = recording.raw
        picks = mne.pick_types(raw.info, eeg=True, exclude=())
        rows = slice(first, first + len(onsets))
        for column, pick in enumerate(picks):  # one channel at a time: never a second recording
            trace = raw.get_data(picks=[pick])
            trace = standardize(trace)[0] if scaled else trace[0]
            if len(onsets):
                windows = np.lib.stride_tricks.sliding_window_view(trace, n_times)
                data[rows, column] = windows[onsets]
        samples.append(onsets + offset)
        first += len(onsets)
        offset += raw.n_times
    return data, np.concatenate(samples)


def _as_epochs(
    data: np.ndarray,
    info: mne.Info,
    metadata: pandas.DataFrame,
    settings: FilteringSettings,
    samples: np.ndarray,
    reasons: Sequence[str] = (),
) -> mne.EpochsArray:
    import mne

    labels = metadata["label"].to_numpy(dtype=int)
    events = np.column_stack([_unique(samples), np.zeros(len(labels), dtype=int), labels])
    names = metadata.drop_duplicates("label").sort_values("label")
    event_id = {str(n): int(c) for n, c in zip(names["class_name"], names["label"], strict=True)}
    reasons = list(reasons) or [""] * len(labels)
    return mne.EpochsArray(
        data,
        info,
        events,
        tmin=settings.epoch[0],
        event_id=event_id,
        metadata=metadata,
        drop_log=tuple((r,) if r else () for r in reasons),
        selection=np.flatnonzero([not r for r in reasons]),
        baseline=None,
        verbose=False,
    )


def _unique(samples: np.ndarray) -> np.ndarray:
    """Event times; counted up where trials that came already cut share theirs."""
    samples = np.asarray(samples, dtype=int)
    return samples if len(np.unique(samples)) == len(samples) else np.arange(len(samples))
