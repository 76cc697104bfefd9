"""What the controls work on: a subject's trials as features, computed once (chapter 8)."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas
from pyriemann.geometry.tangentspace import tangent_space, upper
from sklearn.decomposition import PCA

BANDS = {  # Hz; the mains at 50 Hz is left out: of 60 Hz a notch filter has to before
    "delta": (1.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "low gamma": (30.0, 49.0),
    "high gamma": (51.0, 100.0),
}
WINDOW = 0.05  # s, of the windows in which a trial is decoded piece by piece
SHUFFLED = "samples in random order"
N_COMPONENTS = 60


class AuditError(ValueError):
    """Trials that do not support a control; the message says what came and what is needed."""


@dataclass(frozen=True)
class AuditTrials:
    """One subject's trials, as features of shape (n_trials, n_features)."""

    features: np.ndarray  # what the decoder sees that the controls refit
    metadata: pandas.DataFrame  # eeglib.datasets.METADATA, and time, s in its session, if known
    spectra: dict[str, np.ndarray] = field(default_factory=dict)
    """Of each channel ``power`` (log of the average square), ``mean``, and log-power by band."""
    windows: dict[str, np.ndarray] = field(default_factory=dict)
    """Log-power (or mean amplitude) in windows, by their start after the image in ms; last, under
    `SHUFFLED`, ``common`` after the samples of each trial were put in random order."""
    common: np.ndarray | None = None  # log-power by band, or mean amplitudes: alike in all subjects
    gain: np.ndarray | None = None  # how features change when all amplitudes are multiplied by e

    @property
    def labels(self) -> np.ndarray:
        """Class of each trial."""
        return self.metadata["label"].to_numpy(dtype=int)

    @property
    def weights(self) -> np.ndarray:
        """What each trial counts so that all classes count alike; 1 where they are equal."""
        _, index, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        return len(index) / (len(counts) * counts[index])

    @property
    def session(self) -> np.ndarray:
        """Session of each trial, counted from 0."""
        return np.unique(self.metadata["session"].to_numpy(), return_inverse=True)[1]

    @property
    def ordered(self) -> bool:
        """Whether the order of presentation is known."""
        return bool((self.metadata["order"] >= 0).all())

    @property
    def position(self) -> np.ndarray:
        """Rank of each trial in the order of presentation; an `AuditError` without one."""
        if not self.ordered:
            raise AuditError("the order of presentation is not known; add order to the events.")
        return np.lexsort((self.metadata["order"].to_numpy(), self.session)).argsort()

    @property
    def time(self) -> np.ndarray:
        """When each trial began within its session: seconds, or trials where seconds lack."""
        return self.metadata["time" if "time" in self.metadata else "order"].to_numpy(dtype=float)

    @property
    def blocks(self) -> np.ndarray | None:
        """Block of each trial, counted from 0; trials of one class in a row where not numbered."""
        numbers = self.metadata["block"].to_numpy(dtype=int)
        if (numbers >= 0).all():
            return np.unique(numbers, return_inverse=True)[1]
        if not self.ordered:
            return None
        rows = np.argsort(self.position)
        changes = (np.diff(self.labels[rows]) != 0) | (np.diff(self.session[rows]) != 0)
        return np.r_[0, np.cumsum(changes)][self.position]

    @property
    def design(self) -> str:
        """``block`` (a class in one run), ``repeated blocks``, ``randomized`` or ``unknown``."""
        blocks = self.blocks
        if blocks is None or not self.ordered:
            return "unknown"
        pairs = np.unique(np.c_[blocks, self.labels], axis=0)
        n_blocks, n = len(np.unique(blocks)), len(blocks)
        # Numbered or not: over half as many as the runs of one class that a random order has.
        if len(pairs) > n_blocks or n_blocks > (n - np.sum(np.bincount(self.labels) ** 2) / n) / 2:
            return "randomized"
        return "block" if np.bincount(pairs[:, 1]).max() == 1 else "repeated blocks"


def audit_trials(
    data: np.ndarray,
    sfreq: float,
    metadata: pandas.DataFrame,
    broadband: np.ndarray | None = None,
    band: tuple[float, float] | None = None,
    tmin: float = 0.0,
    seed: int = 0,
    kind: Literal["covariance", "amplitude"] | None = None,
) -> AuditTrials:
    """Compute the features of all controls.

    Parameters
    ----------
    data, broadband : array, shape (n_trials, n_chans, n_times)
        As the decoder sees them, and without the band-pass, for the table by band and the mean.
    sfreq, band, tmin : float, tuple of float | None, float
        Of ``data``: Hz, Hz, and when the trials begin, s after the image (``epochs.tmin``).
    metadata : pandas.DataFrame
        One row per trial.
    kind : "covariance" | "amplitude" | None
        What the refitted decoder sees: the covariance of the channels, as the first 60 principal
        components of its logarithm in tangent space (Barachant et al. 2013; without labels); or the
        mean amplitude in windows of 50 ms, which shows responses locked to the image. None: the
        amplitude where the band reaches below 8 Hz.
    """
    data = np.asarray(data, dtype=np.float32)
    broadband = data if broadband is None else np.asarray(broadband, dtype=np.float32)
    if not len(data) == len(metadata) == len(broadband):
        raise AuditError("Trials, data and broadband data differ in number. Run chapter 2 again.")

    kind = kind or ("amplitude" if (band or (0.0,))[0] < 8 else "covariance")

    def comparable(values: np.ndarray) -> np.ndarray:
        if kind == "covariance":
            return log_power(values, sfreq, bands_within(sfreq, band)).reshape(len(values), -1)
        return np.hstack(list(_windows(values, sfreq, tmin, kind).values()))

    features, gain = comparable(data), None
    common = features
    if kind == "covariance":
        logarithms = log_covariances(data)
        pca = PCA(min(N_COMPONENTS, *logarithms.shape), random_state=seed)
        features = pca.fit_transform(logarithms)
        gain = 2 * pca.components_ @ upper(np.eye(data.shape[1]))
    order = np.random.default_rng(seed).random((len(data), data.shape[2])).argsort(axis=1)
    shuffled = comparable(np.take_along_axis(data, order[:, None, :], axis=2))
    spectra = {"power": _log(np.mean(data**2, axis=2)), "mean": broadband.mean(axis=2)}
    bands = bands_within(sfreq)
    spectra |= zip(bands, np.moveaxis(log_power(broadband, sfreq, bands), 2, 0), strict=True)
    windows = _windows(data, sfreq, tmin, kind) | {SHUFFLED: shuffled}
    return AuditTrials(features, metadata.reset_index(drop=True), spectra, windows, common, gain)


def log_covariances(data: np.ndarray) -> np.ndarray:
    """Logarithms of the trials' shrunk covariances relative to their mean, (n_trials, n_pairs)."""
    unit = np.eye(data.shape[1])
    covariances = np.stack([x @ x.T for x in data.astype(float)]) / data.shape[2]
    sizes = np.trace(covariances, axis1=1, axis2=2) / len(unit)
    if not sizes.min() > 0:
        raise AuditError("A trial has no signal in any channel. Leave it out of the events.")
    covariances = 0.9 * covariances + 0.1 * sizes[:, None, None] * unit
    return tangent_space(covariances, covariances.mean(axis=0))


def bands_within(sfreq: float, band: tuple[float, float] | None = None) -> dict[str, tuple]:
    """Parts of `BANDS` inside a band and below half the sampling rate; none narrower than 2 Hz."""
    low, high = band or (0.0, np.inf)
    inside = {n: (max(a, low), min(b, high, sfreq / 2)) for n, (a, b) in BANDS.items()}
    return {n: (a, b) for n, (a, b) in inside.items() if b - a >= 2}


def log_power(data: np.ndarray, sfreq: float, bands: dict[str, tuple[float, float]]) -> np.ndarray:
    """Log-power by Hann-tapered Fourier transform, float32, shape (n_trials, n_chans, n_bands)."""
    n_times = data.shape[2]
    frequencies = np.fft.rfftfreq(n_times, 1 / sfreq)
    taper = np.hanning(n_times).astype(np.float32)
    power = np.empty((*data.shape[:2], len(bands)), np.float32)
    for trial, values in enumerate(data):
        centred = values - values.mean(axis=1, keepdims=True)
        square = np.abs(np.fft.rfft(centred * taper)) ** 2
        for index, (low, high) in enumerate(bands.values()):
            inside = (frequencies >= low) & (frequencies < high)
            if not inside.any():  # a band between two frequencies takes the nearest
                inside[np.abs(frequencies - (low + high) / 2).argmin()] = True
            power[trial, :, index] = square[:, inside].sum(axis=1)
    return _log(power)


def with_time(metadata: pandas.DataFrame, trials: pandas.DataFrame) -> pandas.DataFrame:
    """Metadata with each trial's onset (``time``, s) from the table of all trials, if known."""
    if "onset" not in trials or (trials["order"] < 0).any() or trials["order"].duplicated().any():
        return metadata
    onset = trials.set_index("order")["onset"]
    return metadata.assign(time=onset.reindex(metadata["order"]).to_numpy())


def _windows(data: np.ndarray, sfreq: float, tmin: float, kind: str) -> dict[str, np.ndarray]:
    """The same measure in windows that start at multiples of `WINDOW` after the image."""
    index = np.floor((tmin + np.arange(data.shape[2]) / sfreq) / WINDOW + 1e-6).astype(int)
    parts = {}
    for k in np.unique(index[index >= 0]):
        part = data[..., index == k]
        # One that the trial cuts short counts if half of it is left.
        if part.shape[2] >= max(2, WINDOW * sfreq / 2):
            values = part.mean(axis=2) if kind == "amplitude" else _log(np.mean(part**2, axis=2))
            parts[f"{1000 * max(k * WINDOW, tmin):.0f}"] = values
    return parts


def _log(power: np.ndarray) -> np.ndarray:
    # A flat channel has power 0; the floor keeps its logarithm finite and constant.
    positive = power[power > 0]
    floor = 1e-6 * float(np.median(positive)) if positive.size else 1.0
    return np.log(np.maximum(power, floor)).astype(np.float32)
