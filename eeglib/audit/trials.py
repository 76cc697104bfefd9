"""What the controls work on: features of every trial, computed once (chapter 8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas

BANDS = {
    "delta": (1.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "low gamma": (30.0, 49.0),
    "high gamma": (51.0, 100.0),
}
"""Hertz; the mains at 50 Hz is left out, as a 60 Hz mains has to be by a notch filter before."""

WINDOW = 0.05
"""Length of the windows in which a trial is decoded piece by piece, s."""


class AuditError(ValueError):
    """Trials that cannot be audited; the message says what came and what is needed."""


@dataclass(frozen=True)
class AuditTrials:
    """One subject's trials, as features.

    Attributes
    ----------
    features : float array, shape (n_trials, n_features)
        What the audited decoder sees.
    metadata : pandas.DataFrame
        One row per trial: `eeglib.datasets.METADATA`, and ``time`` (s, within its session) where
        it is known.
    n_classes : int
    bands : dict of str to float array, shape (n_trials, n_chans)
        Log-power by band.
    power, mean : float arrays, shape (n_trials, n_chans)
        Log of the average square signal, and the average signal, per channel.
    shuffled : float array, shape (n_trials, n_features)
        The same features after the samples of each trial were put in random order.
    windows : dict of str to float array, shape (n_trials, n_chans)
        Log-power (or mean amplitude) in successive windows, by their start in ms.
    """

    features: np.ndarray
    metadata: pandas.DataFrame
    n_classes: int
    bands: dict[str, np.ndarray] = field(default_factory=dict)
    power: np.ndarray | None = None
    mean: np.ndarray | None = None
    shuffled: np.ndarray | None = None
    windows: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        if len(self.features) != len(self.metadata):
            raise AuditError(
                f"features has {len(self.features)} trials and metadata {len(self.metadata)}; "
                "give one row of metadata per trial."
            )
        if not np.isfinite(self.features).all():
            raise AuditError("features holds values that are not finite. Leave those trials out.")
        labels = self.labels
        if labels.min() < 0 or labels.max() >= self.n_classes:
            raise AuditError(
                f"Labels run from {labels.min()} to {labels.max()}; with n_classes = "
                f"{self.n_classes} they must be in 0 to {self.n_classes - 1}."
            )

    @property
    def labels(self) -> np.ndarray:
        """Class of each trial."""
        return self.metadata["label"].to_numpy(dtype=int)

    @property
    def order(self) -> np.ndarray | None:
        """Position in the order of presentation, or None where it is not known."""
        order = self.metadata["order"].to_numpy(dtype=int)
        return order if (order >= 0).all() else None

    @property
    def session(self) -> np.ndarray:
        """Session of each trial, counted from 0."""
        return np.unique(self.metadata["session"].to_numpy(), return_inverse=True)[1]

    @property
    def time(self) -> np.ndarray:
        """When each trial began within its session: seconds, or trials where seconds lack."""
        if "time" in self.metadata:
            return self.metadata["time"].to_numpy(dtype=float)
        return self.metadata["order"].to_numpy(dtype=float)

    @property
    def blocks(self) -> np.ndarray | None:
        """Block of each trial, counted from 0; None where neither block nor order is known.

        Where the data set does not number its blocks, trials of one class in a row count as one.
        """
        known = self.metadata["block"].to_numpy(dtype=int)
        if (known >= 0).all():
            return np.unique(known, return_inverse=True)[1]
        if self.order is None:
            return None
        rows = np.lexsort((self.order, self.session))
        changes = (np.diff(self.labels[rows]) != 0) | (np.diff(self.session[rows]) != 0)
        blocks = np.empty(len(rows), dtype=int)
        blocks[rows] = np.r_[0, np.cumsum(changes)]
        return blocks


def audit_trials(
    data: np.ndarray,
    sfreq: float,
    metadata: pandas.DataFrame,
    n_classes: int,
    broadband: np.ndarray | None = None,
    band: tuple[float, float] | None = None,
    seed: int = 0,
    kind: Literal["power", "amplitude"] = "power",
) -> AuditTrials:
    """Compute the features of all controls, once.

    Parameters
    ----------
    data : array, shape (n_trials, n_chans, n_times)
        As the decoder sees them: filtered, standardised or in volts.
    sfreq : float
        Hertz.
    metadata : pandas.DataFrame
        One row per trial.
    n_classes : int
    broadband : array, shape (n_trials, n_chans, n_times) | None
        The same trials without the band-pass, for the table by band and the mean. Where left
        out, ``data`` are taken.
    band : tuple of float | None
        Band of ``data``, Hz: the audited features are the log-powers of `BANDS` inside it.
    seed : int
        Of the random order of samples.
    kind : "power" | "amplitude"
        What the audited decoder sees of each channel: log-power by band, as the time-frequency
        images of the book show it, or the mean amplitude in windows of `WINDOW`, which shows
        responses locked to the image.

    Raises
    ------
    AuditError
        If the arrays do not belong together, hold values that are not finite, or a label lies
        outside the classes.
    """
    data = np.asarray(data, dtype=np.float32)
    broadband = data if broadband is None else np.asarray(broadband, dtype=np.float32)
    if data.ndim != 3 or data.shape[0] != len(metadata) or broadband.shape[0] != len(data):
        raise AuditError(
            f"data and broadband must be trials x channels x times with {len(metadata)} trials, "
            f"got {data.shape} and {broadband.shape}."
        )
    used = bands_within(sfreq, band)
    measure = {
        "power": lambda values: log_power(values, sfreq, used),
        "amplitude": lambda values: binned_amplitude(values, sfreq),
    }[kind]
    order = np.random.default_rng(seed).random((len(data), data.shape[2])).argsort(axis=1)
    shuffled = np.take_along_axis(data, order[:, None, :], axis=2)
    return AuditTrials(
        features=_flat(measure(data)),
        metadata=metadata.reset_index(drop=True),
        n_classes=n_classes,
        bands={
            name: values[..., 0]
            for name, limits in bands_within(sfreq, None).items()
            for values in [log_power(broadband, sfreq, {name: limits})]
        },
        power=_log(np.mean(data**2, axis=2)),
        mean=broadband.mean(axis=2),
        shuffled=_flat(measure(shuffled)),
        windows=_windows(data, sfreq, kind),
    )


def bands_within(sfreq: float, band: tuple[float, float] | None) -> dict[str, tuple[float, float]]:
    """Parts of `BANDS` inside a band and below half the sampling rate; none narrower than 2 Hz."""
    low, high = band or (0.0, np.inf)
    high = min(high, sfreq / 2)
    inside = {n: (max(a, low), min(b, high)) for n, (a, b) in BANDS.items()}
    return {n: (a, b) for n, (a, b) in inside.items() if b - a >= 2}


def log_power(data: np.ndarray, sfreq: float, bands: dict[str, tuple[float, float]]) -> np.ndarray:
    """Log-power per trial, channel and band.

    Parameters
    ----------
    data : array, shape (n_trials, n_chans, n_times)
    sfreq : float
        Hertz.
    bands : dict
        Lower and upper frequency of each band, Hz.

    Returns
    -------
    float32 array, shape (n_trials, n_chans, n_bands)

    Notes
    -----
    Sum of the squared Fourier coefficients of the Hann-tapered trial, its mean removed. A band
    that falls between two frequencies takes the nearest one.
    """
    n_times = data.shape[2]
    frequencies = np.fft.rfftfreq(n_times, 1 / sfreq)
    taper = np.hanning(n_times).astype(np.float32)
    power = np.empty((*data.shape[:2], len(bands)), np.float32)
    for rows in np.array_split(np.arange(len(data)), max(1, data.nbytes // 2**27)):
        part = data[rows] - data[rows].mean(axis=2, keepdims=True)
        square = np.abs(np.fft.rfft(part * taper, axis=2)) ** 2
        for index, (low, high) in enumerate(bands.values()):
            inside = (frequencies >= low) & (frequencies < high)
            if not inside.any():
                inside = (
                    np.arange(len(frequencies)) == np.abs(frequencies - (low + high) / 2).argmin()
                )
            power[rows, :, index] = square[..., inside].sum(axis=2)
    return _log(power)


def binned_amplitude(data: np.ndarray, sfreq: float) -> np.ndarray:
    """Mean of the signal in successive windows of `WINDOW`, shape (n_trials, n_chans, n_bins)."""
    n_bins = max(1, round(data.shape[2] / sfreq / WINDOW))
    return np.stack([b.mean(axis=2) for b in np.array_split(data, n_bins, axis=2)], axis=2)


def _windows(data: np.ndarray, sfreq: float, kind: str) -> dict[str, np.ndarray]:
    """The same measure in windows of `WINDOW` from the onset on, at most ten over the trial."""
    length = max(2, round(WINDOW * sfreq))
    starts = np.arange(0, data.shape[2] - length + 1, length)
    if len(starts) > 10:
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, 10).round().astype(int))]
    parts = {f"{1000 * s / sfreq:.0f}": data[..., s : s + length] for s in starts}
    if kind == "amplitude":
        return {name: part.mean(axis=2) for name, part in parts.items()}
    return {name: _log(np.mean(part**2, axis=2)) for name, part in parts.items()}


def _log(power: np.ndarray) -> np.ndarray:
    # A flat channel has power 0; the floor keeps its logarithm finite and constant.
    positive = power[power > 0]
    floor = 1e-6 * float(np.median(positive)) if positive.size else 1.0
    return np.log(np.maximum(power, floor)).astype(np.float32)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)
