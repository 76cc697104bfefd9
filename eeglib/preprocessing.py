"""From a data set to one subject's clean trials: filters, z-scores, epochs (chapter 2).

The steps, done by MNE, are those of the paper, section 3.2.
"""

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import mne
import numpy as np
import pandas
from mne.io.constants import FIFF
from scipy import signal

if TYPE_CHECKING:
    from eeglib.datasets import Dataset

Band = tuple[float, float]
Signals = mne.io.BaseRaw | mne.BaseEpochs


class SignalError(ValueError):
    """Filters or an epoch that do not fit, a channel that is not finite, or no trial left."""


class Preprocessed(NamedTuple):
    """One subject's trials, and what is needed to see how they came about."""

    before: Signals  # the first recording, or the trials where none is distributed; V
    after: Signals  # the same, filtered
    evoked: mne.Evoked  # average of all filtered trials
    epochs: mne.BaseEpochs  # with labels as event codes, `METADATA`; no unit where standardised
    report: list[str]  # what the data set found, what was done, what was left out


def preprocess(
    dataset: "Dataset",
    subject: int,
    notch: Band | None = (49.0, 51.0),
    band: Band | None = (14.0, 70.0),
    order: int = 2,
    standardize: bool = True,
    epoch: Band = (0.0, 0.5),
    reject: float | None = None,
) -> Preprocessed:
    """Filter, standardise and cut the trials of one subject.

    Parameters
    ----------
    dataset : Dataset
        Steps that it has been through already (`Dataset.processed`) are not repeated.
    notch, band : tuple of float | None
        Edges of the stop band and of the pass band (-6 dB), hertz; None leaves the filter out.
    order : int
        Of both Butterworth filters, which run forwards and backwards: no delay, gain squared.
    standardize : bool
        Give each channel zero mean and unit variance over its recording, or over all trials
        where no recording is distributed.
    epoch : tuple of float
        Start and end of a trial after the onset of its image, s; the end is not included.
    reject : float | None
        Leave out trials in which a filtered channel spans more than this, microvolts peak to peak.

    Notes
    -----
    Recordings are filtered before they are cut, each side of a joint (``EDGE boundary``) by
    itself. Trials outside their recording, across a joint, or in a stretch annotated ``BAD...``
    are left out, and so is what repeats the signals of an earlier trial to the last bit; bad
    stretches have no part in the z-scores. Trials distributed already cut are filtered one by one.
    Raises SignalError, also where trials of two classes hold the same signals.
    """
    steps = {"notch": notch, "band": band, "standardize": standardize}
    steps = remaining_steps(steps, dataset.processed) | {"order": order}
    prepare = _from_recordings if dataset.continuous else _from_trials
    limit = None if reject is None else {"eeg": reject * 1e-6}
    with mne.use_log_level("error"):
        before, after, evoked, epochs = prepare(dataset, subject, epoch, limit, **steps)
    report = dataset.report() + [f"Before it was distributed: {s}." for s in dataset.processed]
    for title in _designs(epochs.info["sfreq"], steps["notch"], steps["band"], order):
        report.append(f"Butterworth {title}, order {order}, forwards and backwards.")
    if steps["standardize"]:
        report.append("Each channel standardised to mean 0 and standard deviation 1.")
    trials, length = dataset.trials(subject), epoch[1] - epoch[0]
    gaps = trials.groupby("session")["onset"].diff() if "onset" in trials else np.array([])
    if n_close := int((gaps < length - 0.5 / epochs.info["sfreq"]).sum()):
        report.append(f"Trials that share samples with the one before: {n_close} (see split.by).")
    report.append(f"Trials kept: {len(epochs)} of {len(trials)}.")
    if left_out := _left_out(epochs.drop_log, limit):
        report.append(f"Trials left out: {left_out}.")
    return Preprocessed(before, after, evoked, epochs, report)


def remaining_steps(steps: dict, processed: tuple[str, ...]) -> dict:
    """Steps, by the parameters of `preprocess`, without those that the data have been through."""
    done = {step.split()[0] for step in processed}
    left = steps | dict.fromkeys(done & {"notch", "band"})
    # A filter takes another share of the variance from each channel, so standardise anew after it.
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
    """`filter_signals` for many short trials, shape (n_trials, n_chans, n_times), in place."""
    # Filters are linear, at the ends too: what they make of impulses is a matrix, which does to a
    # trial at once what takes a recursion through each of its channels far longer.
    matrix = filter_signals(np.eye(trials.shape[-1]), sfreq, notch, band, order)
    for trial in trials:
        trial[:] = trial @ matrix


def filter_gains(
    frequencies: np.ndarray, sfreq: float, notch: Band | None, band: Band | None, order: int = 2
) -> dict[str, np.ndarray]:
    """Gain of each filter, forwards and backwards, at `frequencies` (hertz), by its title."""
    gains = {}
    for title, design in _designs(sfreq, notch, band, order).items():
        sos = mne.filter.create_filter(None, sfreq, **design, verbose="error")["sos"]
        gains[title] = np.abs(signal.freqz_sos(sos, frequencies, fs=sfreq)[1]) ** 2
    return gains


def forward_filters(
    sfreq: float, notch: Band | None, band: Band | None, order: int = 2
) -> np.ndarray:
    """The same filters as second-order sections (n_sections, 6), to run forwards: chapter 10."""
    designs = _designs(sfreq, notch, band, order).values()
    parts = [mne.filter.create_filter(None, sfreq, **d, verbose="error")["sos"] for d in designs]
    return np.concatenate([*parts, [[1.0, 0, 0, 1, 0, 0]]])  # the last leaves all as it is


class CausalFilter:
    """The filters of `preprocess`, run forwards over samples as they come, and running means.

    The means weigh a sample by exp(-age / memory), seconds; without a memory there are none. What
    comes out depends on the samples alone, not on the blocks in which they come.
    """

    def __init__(self, sfreq, notch, band, order=2, memory: float | None = 60.0):
        self.sos = forward_filters(sfreq, notch, band, order)
        self.decay = None if memory is None else float(np.exp(-1 / (memory * sfreq)))
        self.n, self.sums = 0, None

    def push(self, samples: np.ndarray, anew: bool = False) -> np.ndarray:
        """Filter (n, n_chans); shape (3, n, n_chans): signals, means of them, of their squares.

        ``anew``, as at the start: as if the first sample had always been there.
        """
        if anew:
            self.state = signal.sosfilt_zi(self.sos)[..., np.newaxis] * samples[0]
        signals, self.state = signal.sosfilt(self.sos, samples, axis=0, zi=self.state)
        if self.decay is None:
            return np.stack([signals, np.zeros_like(signals), np.ones_like(signals)])
        self.sums = np.zeros((2, 1, samples.shape[1])) if self.sums is None else self.sums
        values, weights = np.stack([signals, signals**2]), ([1 - self.decay], [1, -self.decay])
        means, self.sums = signal.lfilter(*weights, values, axis=1, zi=self.sums)
        counts = self.n + 1 + np.arange(len(signals))
        self.n += len(signals)
        return np.stack([signals, *(means / (1 - self.decay**counts)[:, np.newaxis])])


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
    how = {"method": "iir", "iir_params": {"order": order, "ftype": "butter", "output": "sos"}}
    edges = {"notch": notch, "band-pass": band}
    for name, (low, high) in ((name, pair) for name, pair in edges.items() if pair):
        if not 0 < low < high < sfreq / 2:
            edges = f"filtering: the edges of the {name} {low:g}-{high:g} Hz must ascend and lie"
            raise SignalError(f"{edges} between 0 and half the sampling rate, {sfreq / 2:g} Hz.")
        l_freq, h_freq = (high, low) if name == "notch" else (low, high)
        designs[f"{name} {low:g}–{high:g} Hz"] = {"l_freq": l_freq, "h_freq": h_freq, **how}
    return designs


def _from_recordings(
    dataset: "Dataset", subject: int, epoch: Band, reject: dict | None, standardize: bool, **filters
):
    before = after = None
    evoked, parts, seen = [], [], {}
    for recorded, trials in dataset.recordings(subject):
        raw, sfreq = _eeg(recorded), recorded.info["sfreq"]
        before = before or raw.copy()
        start = ((trials["onset"] + epoch[0]) * sfreq).round() - round(epoch[0] * sfreq)
        events = np.column_stack([start + raw.first_samp, 0 * start, trials["label"]]).astype(int)
        tmin, tmax = _limits(epoch, sfreq)
        # Files of MNE keep no name with a semicolon or beyond Latin; the metadata keep all names.
        event_id = {str(label): label for label in trials["label"]}
        how = {"event_id": event_id, "tmin": tmin, "tmax": tmax, "baseline": None}
        # MNE takes the first of two events at one sample.
        how |= {"metadata": trials.drop(columns="onset"), "event_repeated": "drop"}
        unfiltered = mne.Epochs(raw, events, **how).drop_bad()
        twins = unfiltered.selection[_twins(unfiltered, seen)]
        for design in _designs(sfreq, **filters).values():
            raw.filter(**design, picks="all")
        after = after or raw.copy()
        part = mne.Epochs(raw, events, preload=True, **how)
        if len(part.drop(np.isin(part.selection, twins), "TWIN").drop_bad(reject)):
            evoked.append(part.average())
            if standardize:
                _standardize(part, raw)
        parts.append(part)
    if not evoked:
        left_out = _left_out(sum((part.drop_log for part in parts), ()), reject)
        problem = f"No trial of subject {subject} is left: {left_out}"
        raise SignalError(f"{problem}. Check the trials' onsets and filtering.epoch.")
    evoked = mne.combine_evoked(evoked, weights="nave")
    return before, after, evoked, mne.concatenate_epochs(parts)


def _from_trials(
    dataset: "Dataset", subject: int, epoch: Band, reject: dict | None, standardize: bool, **filters
):
    before = dataset.epochs(subject)
    after, sfreq = _eeg(before), before.info["sfreq"]
    if reject and after.info["chs"][0]["unit"] == FIFF.FIFF_UNIT_NONE:
        raise SignalError("filtering.reject is in microvolts, but these signals have no unit.")
    first, last = _limits(epoch, sfreq)
    if first < after.tmin - 0.5 / sfreq or last > after.tmax + 0.5 / sfreq:
        times = f"the trials run from {after.tmin:g} to {after.tmax + 1 / sfreq:g} s"
        raise SignalError(f"filtering.epoch {list(epoch)}: {times}. Choose an epoch within them.")
    after.drop(_twins(after, {}), "TWIN")
    filter_trials(after.get_data(copy=False), sfreq, **filters)
    epochs = after.crop(first, last).drop_bad(reject)
    if not len(epochs):
        raise SignalError(f"No trial of subject {subject} is left. Raise filtering.reject.")
    if standardize:
        epochs = after.copy()
        _standardize(epochs, after)
    return before, after, after.average(), epochs


def _limits(epoch: Band, sfreq: float) -> Band:  # times of the first and of the last sample
    return epoch[0], epoch[0] + (round((epoch[1] - epoch[0]) * sfreq) - 1) / sfreq


def power_drift(epochs: mne.BaseEpochs) -> tuple[dict[str, float], pandas.DataFrame]:
    """How the power of channels changes by itself: four numbers, and what blocks add to it.

    Takes filtered trials that are not standardised, in the order of presentation. The numbers are
    of the logarithm of power against the mean of all channels, and medians over channels; the
    table, (n_blocks, n_chans), is centred. Patterns are counted by the participation ratio.
    """
    signals, block = epochs.get_data(copy=False), epochs.metadata["block"].to_numpy()
    signals = signals - signals.mean(axis=1, keepdims=True)
    power = pandas.DataFrame(np.log(np.square(signals).mean(axis=-1)), columns=epochs.ch_names)
    means = power.groupby(block).mean()
    within = (power - means.loc[block].to_numpy()).to_numpy()
    follows = block[1:] == block[:-1]
    lagged = (within[1:] * within[:-1])[follows].mean(axis=0) / np.square(within).mean(axis=0)
    sizes = np.linalg.svd(means - means.mean(), compute_uv=False) ** 2
    numbers = {
        "sd between blocks": means.std().median(),
        "sd of trials in a block": power.groupby(block).std().mean().median(),
        "patterns that differ between blocks": sizes.sum() ** 2 / np.square(sizes).sum(),
        "correlation of a trial with the next": np.median(lagged),
    }
    return numbers, means - means.mean()


def _eeg(signals: Signals) -> Signals:
    """A copy in memory with the EEG channels alone; a joint is a place where no trial may lie."""
    signals = signals.copy().load_data().pick("eeg", exclude=())
    for name in signals.ch_names:
        if not np.isfinite(signals.get_data(picks=[name])).all():
            problem = f"Channel {name} holds values that are not finite"
            raise SignalError(f"{problem}. Interpolate it or leave it out.")
    for mark in list(signals.annotations or ()):
        if mark["description"].startswith("EDGE"):
            signals.annotations.append(mark["onset"], 0, "BAD boundary")
    return signals


def _standardize(epochs: mne.BaseEpochs, signals: Signals) -> None:
    """Subtract each channel's mean over `signals` and divide by its standard deviation there."""
    good = np.ones(len(signals.times), bool)
    for mark in signals.annotations or ():
        if re.match("(?i)bad", mark["description"]) and mark["duration"] > 0:
            # A filter carries a bad stretch over its edges.
            around = mark["onset"] - signals.first_time + np.array([-0.5, mark["duration"] + 0.5])
            good[slice(*(around.clip(0) * signals.info["sfreq"]).astype(int))] = False
    good |= not good.any()
    for pick, channel in enumerate(epochs.get_data(copy=False).swapaxes(0, 1)):
        values = signals.get_data(picks=[pick])[..., good]
        mean, scale = values.mean(), values.std()
        is_flat = scale <= 10 * np.finfo(float).eps * abs(mean)
        channel[:] = (channel - mean) / (1 if is_flat else scale)


def _twins(epochs: mne.BaseEpochs, seen: dict) -> np.ndarray:
    """Rows of trials whose signals, unless constant, are those of an earlier one in ``seen``."""
    rows = []
    for row, trial in enumerate(epochs):
        about, key = epochs.metadata.iloc[row], hashlib.blake2b(trial.tobytes()).digest()
        first = seen.setdefault(key, about)
        if first is about or (trial == trial[:, :1]).all():
            continue
        if first["label"] != about["label"]:
            a, b = (f"{t['class_name']!r} (trial {t['order']})" for t in (first, about))
            text = f"A trial of {a} and one of {b} hold the same signals: one recording is there"
            raise SignalError(f"{text} twice, under different events. Take one of them out.")
        rows.append(row)
    return np.array(rows, int)


def _left_out(drop_log: tuple[tuple[str, ...], ...], reject: dict | None) -> str:
    words = dict.fromkeys(("NO_DATA", "TOO_SHORT"), "outside the recording")
    words |= {"BAD boundary": "across a joint", "DROP DUPLICATE": "at the sample of another"}
    words["TWIN"] = "with the very signals of an earlier one: the same recording twice"
    counts = Counter()
    for reasons in drop_log:
        if reasons and reject and not any(r in words or r.startswith("BAD") for r in reasons):
            reasons = (f"above {reject['eeg'] * 1e6:g} µV from peak to peak",)
        counts.update({words.get(reason, reason) for reason in reasons})
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
