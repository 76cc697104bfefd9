"""From a data set to one subject's clean trials: filters, z-scores, epochs (chapter 2).

The steps are those of the paper (section 3.2): a notch at 49-51 Hz, a second-order Butterworth
band-pass at 14-70 Hz, standardisation per channel, then trials cut around the images. MNE does
the work; here is what is done to which data, and in which order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mne
import numpy as np
from scipy import signal

if TYPE_CHECKING:
    from eeglib.datasets import Dataset, Recording

Band = tuple[float, float]


class SignalError(ValueError):
    """Signals that cannot be processed; the message says what came and what to do."""


@dataclass(frozen=True)
class Preprocessed:
    """One subject's trials, and what is needed to see how they came about.

    Attributes
    ----------
    before, after : mne.io.BaseRaw | mne.BaseEpochs
        The first recording, or the trials where no recording is distributed, before and after
        filtering; volts.
    evoked : mne.Evoked
        Average of all filtered trials, volts.
    epochs : mne.BaseEpochs
        The trials that go into the models: filtered, and standardised (no unit) where asked for.
        Their times count from the onset of the image; event codes are the labels; ``metadata``
        holds `eeglib.datasets.METADATA`; ``drop_log`` says why a trial was left out.
    report : list of str
        What the data set found and what was done and left out, a line each.
    """

    before: mne.io.BaseRaw | mne.BaseEpochs
    after: mne.io.BaseRaw | mne.BaseEpochs
    evoked: mne.Evoked
    epochs: mne.BaseEpochs
    report: list[str]


def preprocess(
    dataset: Dataset,
    subject: int,
    notch: Band | None = (49.0, 51.0),
    band: Band | None = (14.0, 70.0),
    order: int = 2,
    standardize: bool = True,
    epoch: tuple[float, float] = (0.0, 0.5),
) -> Preprocessed:
    """Filter, standardise and cut the trials of one subject.

    Parameters
    ----------
    dataset : Dataset
        Steps that it has been through already (`Dataset.processed`) are not repeated.
    subject : int
    notch, band : tuple of float | None
        Edges of the stop band and of the pass band (-6 dB), hertz; None leaves the filter out.
    order : int
        Order of both Butterworth filters. They run forwards and backwards: no delay, and the
        gain is squared.
    standardize : bool
        Give each channel zero mean and unit variance over its recording, or over all trials
        where no recording is distributed.
    epoch : tuple of float
        Start and end of a trial after the onset of its image, s; the end is not included.

    Raises
    ------
    SignalError
        If a filter or the epoch does not fit the data, a channel is not finite, or no trial is
        left.

    Notes
    -----
    Recordings are filtered before they are cut, each side of a joint (``EDGE boundary``) by
    itself. Trials outside their recording, across a joint, or in a stretch annotated ``BAD...``
    are left out. Trials that are distributed already cut are filtered one by one.
    """
    steps = {"notch": notch, "band": band, "standardize": standardize}
    filters = remaining_steps(steps, dataset.processed) | {"order": order}
    standardize = filters.pop("standardize")
    prepare = _from_recordings if dataset.continuous else _from_trials
    with mne.use_log_level("error"):
        before, after, evoked, epochs = prepare(dataset, subject, filters, standardize, epoch)
    report = dataset.report() + [f"Before it was distributed: {s}." for s in dataset.processed]
    for title in _designs(epochs.info["sfreq"], **filters):
        report.append(f"Butterworth {title}, order {order}, forwards and backwards.")
    if standardize:
        report.append("Each channel standardised to mean 0 and standard deviation 1.")
    report.append(f"Trials kept: {len(epochs)} of {len(dataset.trials(subject))}.")
    if left_out := _left_out(epochs.drop_log):
        report.append(f"Trials left out: {left_out}.")
    return Preprocessed(before, after, evoked, epochs, report)


def remaining_steps(steps: dict, processed: tuple[str, ...]) -> dict:
    """Steps, by the parameters of `preprocess`, without those that the data have been through.

    The entries of `processed` begin with ``notch``, ``band`` or ``standardize``. Signals that
    were standardised are standardised anew where a filter still runs on them: it takes away a
    share of the variance that differs between channels.
    """
    done = {step.split()[0] for step in processed}
    left = steps | {name: None for name in ("notch", "band") if name in done}
    if "standardize" in done and left["notch"] is None and left["band"] is None:
        left["standardize"] = False
    return left


def filter_signals(
    signals: np.ndarray, sfreq: float, notch: Band | None, band: Band | None, order: int = 2
) -> np.ndarray:
    """The filters of `preprocess` for an array of shape (..., n_times), by `mne.filter`."""
    for design in _designs(sfreq, notch, band, order).values():
        signals = mne.filter.filter_data(signals, sfreq, **design, verbose="error")
    return signals


def filter_trials(
    trials: np.ndarray, sfreq: float, notch: Band | None, band: Band | None, order: int = 2
) -> None:
    """`filter_signals` for many short trials, shape (n_trials, n_chans, n_times), in place.

    Filters are linear, what they do at the ends included: filtered impulses make a matrix that
    does to a trial at once what takes a recursion through each of its channels far longer.
    """
    matrix = filter_signals(np.eye(trials.shape[-1]), sfreq, notch, band, order)
    for trial in trials:
        trial[:] = trial @ matrix


def filter_gains(
    frequencies: np.ndarray, sfreq: float, notch: Band | None, band: Band | None, order: int = 2
) -> dict[str, np.ndarray]:
    """Gain of each filter as it is applied, forwards and backwards, by a title for the figure.

    `frequencies`, shape (n_freqs,), and `sfreq` are in hertz; a gain of 1 leaves a wave as it is.
    """
    gains = {}
    for title, design in _designs(sfreq, notch, band, order).items():
        sos = mne.filter.create_filter(None, sfreq, **design, verbose="error")["sos"]
        gains[title] = np.abs(signal.freqz_sos(sos, frequencies, fs=sfreq)[1]) ** 2
    return gains


def spread_channels(info: mne.Info, n_chans: int) -> list[str]:
    """Names of some EEG channels from the front to the back of the head."""
    forward = np.nan_to_num([channel["loc"][1] for channel in info["chs"]])
    picks = sorted(mne.pick_types(info, eeg=True), key=lambda pick: -forward[pick])
    places = np.linspace(0, len(picks) - 1, min(n_chans, len(picks))).round().astype(int)
    return [info["ch_names"][picks[place]] for place in places]


def posterior_channel(info: mne.Info) -> str:
    """The EEG channel over primary visual cortex: Oz, or else the rearmost."""
    return "Oz" if "Oz" in info["ch_names"] else spread_channels(info, 2)[-1]


def _designs(sfreq: float, notch: Band | None, band: Band | None, order: int) -> dict[str, dict]:
    """How `mne.filter` is called for each filter; a stop band is one whose edges descend."""
    designs = {}
    for name, bounds in (("notch", notch), ("band-pass", band)):
        if bounds is None:
            continue
        low, high = bounds
        if not 0 < low < high < sfreq / 2:
            raise SignalError(
                f"The {name} {low:g}-{high:g} Hz does not fit: edges must ascend and lie between "
                f"0 and half the sampling rate, {sfreq / 2:g} Hz. Change filtering.notch or "
                "filtering.band."
            )
        designs[f"{name} {low:g}–{high:g} Hz"] = {
            "l_freq": high if name == "notch" else low,
            "h_freq": low if name == "notch" else high,
            "method": "iir",
            "iir_params": {"order": order, "ftype": "butter", "output": "sos"},
        }
    return designs


def _from_recordings(
    dataset: Dataset, subject: int, filters: dict, standardize: bool, epoch: tuple[float, float]
) -> tuple[mne.io.BaseRaw, mne.io.BaseRaw, mne.Evoked, mne.BaseEpochs]:
    before = after = None
    evoked, parts = [], []
    for recording in dataset.recordings(subject):
        raw = _eeg(recording.raw)
        before = before or raw.copy()
        for design in _designs(raw.info["sfreq"], **filters).values():
            raw.filter(**design, picks="all", skip_by_annotation="edge")
        after = after or raw.copy()
        part = _cut(raw, recording, epoch)
        if len(part):
            evoked.append(part.average())
        if standardize:
            part = _cut(raw.apply_function(_zscore, picks="all"), recording, epoch)
        parts.append(part)
    if not evoked:
        left_out = _left_out(sum((part.drop_log for part in parts), ()))
        raise SignalError(
            f"No trial of subject {subject} is left: {left_out}. Check the onsets (seconds after "
            "the start of the recording) and filtering.epoch."
        )
    epochs = mne.concatenate_epochs(parts)
    return before, after, mne.combine_evoked(evoked, weights="nave"), epochs


def _cut(raw: mne.io.BaseRaw, recording: Recording, epoch: tuple[float, float]) -> mne.Epochs:
    trials, sfreq = recording.trials, raw.info["sfreq"]
    start = ((trials["onset"] + epoch[0]) * sfreq).round().astype(int) - round(epoch[0] * sfreq)
    events = np.column_stack([start + raw.first_samp, np.zeros_like(start), trials["label"]])
    return mne.Epochs(
        raw,
        events,
        dict(zip(trials["class_name"], trials["label"], strict=True)),
        *_first_and_last_time(epoch, sfreq),
        baseline=None,
        metadata=trials.drop(columns="onset"),
        preload=True,
    )


def _from_trials(
    dataset: Dataset, subject: int, filters: dict, standardize: bool, epoch: tuple[float, float]
) -> tuple[mne.BaseEpochs, mne.BaseEpochs, mne.Evoked, mne.BaseEpochs]:
    before = dataset.epochs(subject)
    after, sfreq = _eeg(before), before.info["sfreq"]
    first, last = _first_and_last_time(epoch, sfreq)
    if first < after.tmin - 0.5 / sfreq or last > after.tmax + 0.5 / sfreq:
        raise SignalError(
            f"filtering.epoch is {list(epoch)} s, but the trials run from {after.tmin:g} to "
            f"{after.tmax + 1 / sfreq:g} s. Choose an epoch within them."
        )
    filter_trials(after.get_data(copy=False), sfreq, **filters)
    after.crop(first, last)
    epochs = after
    if standardize:
        epochs = after.copy()
        for channel in epochs.get_data(copy=False).swapaxes(0, 1):
            channel[:] = _zscore(channel)
    return before, after, after.average(), epochs


def _first_and_last_time(epoch: tuple[float, float], sfreq: float) -> tuple[float, float]:
    return epoch[0], epoch[0] + (round((epoch[1] - epoch[0]) * sfreq) - 1) / sfreq


def _eeg(signals: mne.io.BaseRaw | mne.BaseEpochs) -> mne.io.BaseRaw | mne.BaseEpochs:
    """A copy in memory with the EEG channels alone; a joint is a place where no trial may lie."""
    signals = signals.copy().load_data().pick("eeg", exclude=())
    for name in signals.ch_names:
        if not np.isfinite(signals.get_data(picks=[name])).all():
            raise SignalError(
                f"Channel {name} holds values that are not finite (NaN or infinite). Interpolate "
                "or leave out the channel or the stretch before filtering."
            )
    for mark in list(signals.annotations or ()):
        if mark["description"].startswith("EDGE"):
            signals.annotations.append(mark["onset"], 0, "BAD boundary")
    return signals


def _zscore(values: np.ndarray) -> np.ndarray:
    mean, scale = values.mean(), values.std()
    flat = scale <= 10 * np.finfo(float).eps * abs(mean)
    return (values - mean) / (1 if flat else scale)


def _left_out(drop_log: tuple[tuple[str, ...], ...]) -> str:
    words = dict.fromkeys(("NO_DATA", "TOO_SHORT"), "outside the recording")
    words["BAD boundary"] = "across a joint"
    counts = Counter(words.get(reason, reason) for reasons in drop_log for reason in reasons)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
