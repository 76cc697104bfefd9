"""A decoder that first finds the sources: their power and their waves (chapter 6).

Every electrode sees every source, so that power or voltage at electrodes mixes what the sources do,
and few trials cannot teach a classifier to unmix them. But covariances tell: sources that wax and
wane independently, over the trial and from class to class, are the directions in which all
covariances are diagonal at once. Behind such filters a few numbers describe a trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import linalg, signal, special

from eeglib.decoding.kernel_decoder import Decoded, finite_trials, log_loss
from eeglib.decoding.splits import Split

BANDS = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 70.0))
"""Bands whose power is described, Hz."""

N_SOURCES = 20
N_PATTERNS = 4
N_PARTS = 3
"""Parts of a trial between which covariances are compared."""

LATENCY = 0.1
"""Seconds from the onset of the image to where power is measured."""

DIAGONAL = 0.3
"""Weight of the diagonal in the covariance of features."""

SHARPNESS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors on the log-likelihoods; 1 is right where the features are as Gaussian as assumed."""


class SourceDecoder:
    """Sources by joint diagonalisation, then linear discriminant analysis of power and of waves.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Signals in any unit, from the onset of the image.
    sfreq : float
        Hertz.
    band : tuple of float | None
        Pass band of the filter that the trials went through, Hz; bands outside are left out.
    n_sources : int | None
        At most; None: the channels themselves.
    unmix : bool
        False: the directions of largest change, without joint diagonalisation.
    n_patterns : int
        Temporal patterns that describe a source's wave.
    latency : float
        Seconds after the onset from which power is measured.
    shrink_means : bool
        Whether noise is taken off the class means.

    Raises
    ------
    ValueError
        If the trials are not finite or not of three dimensions.
    """

    def __init__(
        self,
        trials: np.ndarray,
        sfreq: float,
        band: tuple[float, float] | None = None,
        *,
        n_sources: int | None = N_SOURCES,
        unmix: bool = True,
        n_patterns: int = N_PATTERNS,
        latency: float = LATENCY,
        shrink_means: bool = True,
    ):
        self.trials = finite_trials(trials)
        self.sfreq, self.bands = sfreq, bands_within(band, sfreq)
        self.n_sources, self.unmix, self.n_patterns = n_sources, unmix, n_patterns
        self.latency, self.shrink_means = latency, shrink_means

    def fit_predict(self, labels: np.ndarray, split: Split, n_classes: int) -> Decoded:
        """Fit on training, choose on validation, fit on both, predict test trials.

        Parameters
        ----------
        labels : array of int, shape (n_trials,)
            Those of test trials are not looked at.
        split : Split
        n_classes : int

        Returns
        -------
        Decoded
            ``views`` is ``power``, ``waves`` or ``power + waves``; ``penalty`` is always 0.
        """
        labels = np.asarray(labels)
        found = self.scores(labels, split.training, split.validation, n_classes)
        losses, sharpness = {}, {}
        for name, scores in found.items():
            losses[name], sharpness[name] = min(
                (log_loss(special.softmax(s * scores, axis=1), labels[split.validation]), s)
                for s in SHARPNESS
            )
        name = min(losses, key=losses.get)
        known = np.concatenate([split.training, split.validation])
        scores = self.scores(labels, known, split.test, n_classes)[name]
        return Decoded(special.softmax(sharpness[name] * scores, axis=1), name, 0.0, losses)

    def scores(
        self, labels: np.ndarray, known: np.ndarray, asked: np.ndarray, n_classes: int
    ) -> dict[str, np.ndarray]:
        """Log-likelihoods of the classes for some trials, learnt from others, up to a constant.

        Returns
        -------
        dict of str to array, shape (n_asked, n_classes)
            From ``power``, ``waves``, and both. A class without known trials has minus infinity.
        """
        trials, present = self.trials, np.unique(labels[known])
        filters = np.eye(trials.shape[1])
        if self.n_sources is not None:
            filters = find_sources(
                trials[known], labels[known], self.sfreq, self.bands, self.n_sources, self.unmix
            )
        power = power_features(filters @ trials, self.sfreq, self.bands, self.latency)
        waves = wave_features(filters @ trials, labels, known, self.n_patterns)
        found = {}
        for name, features in {"power": power, "waves": waves}.items():
            found[name] = np.full((len(asked), n_classes), -np.inf)
            found[name][:, present] = discriminant(
                features[known],
                np.searchsorted(present, labels[known]),
                features[asked],
                self.shrink_means,
            )
        return {**found, "power + waves": found["power"] + found["waves"]}


def bands_within(band: tuple[float, float] | None, sfreq: float) -> list[tuple[float, float]]:
    """Those of `BANDS`, cut to a pass band and to what the sampling rate can hold, Hz."""
    low, high = band or (0.5, 70.0)
    high = min(high, 0.45 * sfreq)
    cut = [(max(a, low), min(b, high)) for a, b in BANDS]
    return [(a, b) for a, b in cut if b - a >= 3] or [(low, high)]


def find_sources(
    trials: np.ndarray,
    labels: np.ndarray,
    sfreq: float,
    bands: Sequence[tuple[float, float]],
    n_sources: int = N_SOURCES,
    unmix: bool = True,
) -> np.ndarray:
    """Spatial filters for sources whose power varies over the trial and between classes.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
    labels : array of int, shape (n_trials,)
    sfreq : float
        Hertz.
    bands : sequence of (float, float)
        Hertz.
    n_sources : int
        At most; no more than channels.
    unmix : bool
        False: stop after the first step.

    Returns
    -------
    array, shape (n_sources, n_chans)

    Notes
    -----
    First the directions along which the covariance differs most between parts of the trial: the
    leading eigenvectors of the squared differences between each part's whitened covariance and
    the identity. All trials tell about these, so that they are known well. Within them, joint
    diagonalisation (Pham 2001, by pyRiemann) of the covariances of every class, band and part, as
    for spatial patterns of several classes (Grosse-Wentrup & Buss 2008).
    """
    n_chans = trials.shape[1]
    parts = np.array_split(np.arange(trials.shape[-1]), N_PARTS)
    whole, by_class = [], []
    for band in bands:
        filtered = _in_band(trials, sfreq, band)
        found = np.stack(
            [
                [_covariance(filtered[labels == c][..., part]) for c in np.unique(labels)]
                for part in parts
            ]
        )
        found /= np.trace(found.mean(axis=(0, 1))) / n_chans
        by_class.append(found)
        whole.append(found.mean(axis=(0, 1)) + 1e-3 * np.eye(n_chans))
    white = _whitener(np.mean(whole, axis=0))
    differences = np.zeros((n_chans, n_chans))
    for total, found in zip(whole, by_class, strict=True):
        own = _whitener(white @ total @ white.T) @ white
        for part in found.mean(axis=1):
            off = own @ part @ own.T - np.eye(n_chans)
            differences += off @ off
    directions = linalg.eigh(differences)[1][:, ::-1]
    filters = directions[:, :n_sources].T @ white
    if not unmix:
        return filters
    return _unmixed(filters, np.concatenate(by_class, axis=1).reshape(-1, n_chans, n_chans))


def _unmixed(filters: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    from pyriemann.geometry.ajd import ajd_pham

    seen = filters @ covariances @ filters.T
    seen += 1e-6 * np.trace(seen.mean(axis=0)) / len(filters) * np.eye(len(filters))
    with warnings.catch_warnings():  # nearly converged is good enough
        warnings.filterwarnings("ignore", message="Convergence not reached")
        return ajd_pham(seen, n_iter_max=30, eps=1e-4)[0] @ filters


def power_features(
    sources: np.ndarray,
    sfreq: float,
    bands: Sequence[tuple[float, float]],
    latency: float = LATENCY,
) -> np.ndarray:
    """Log-power of each source in each band after a latency, (n_trials, n_bands * n_sources)."""
    start = min(round(latency * sfreq), sources.shape[-1] // 2)
    power = [(_in_band(sources, sfreq, band)[..., start:] ** 2).mean(axis=-1) for band in bands]
    features = np.concatenate(power, axis=1)
    return np.log(np.maximum(features, np.finfo(float).tiny))


def wave_features(
    sources: np.ndarray, labels: np.ndarray, known: np.ndarray, n_patterns: int = N_PATTERNS
) -> np.ndarray:
    """Each source's wave as the sizes of a few temporal patterns, the same for all sources.

    Parameters
    ----------
    sources : array, shape (n_trials, n_sources, n_times)
    labels : array of int, shape (n_trials,)
    known : array of int
        Trials from which the patterns are taken.
    n_patterns : int

    Returns
    -------
    array, shape (n_trials, n_sources * n_patterns)

    Notes
    -----
    The patterns are the leading singular vectors, over time, of the mean response and of the
    classes' departures from it, after times were made uncorrelated: a class shows in how large
    the waves are that every image evokes.
    """
    mean = sources[known].mean(axis=0)
    courses = (sources[known] - mean).reshape(-1, sources.shape[-1])
    values, vectors = linalg.eigh(courses.T @ courses / len(courses))
    kept = values > 0.02 * values[-1]
    seen = sources @ (vectors[:, kept] / np.sqrt(values[kept]))
    mean = seen[known].mean(axis=0)
    classes = np.unique(labels[known])
    departures = [seen[known][labels[known] == c].mean(axis=0) - mean for c in classes]
    waves = np.concatenate([mean, np.concatenate(departures) / np.sqrt(len(classes))])
    patterns = np.linalg.svd(waves, full_matrices=False)[2][:n_patterns]
    return (seen @ patterns.T).reshape(len(sources), -1)


def discriminant(
    known: np.ndarray, labels: np.ndarray, asked: np.ndarray, shrink_means: bool = True
) -> np.ndarray:
    """Linear discriminant analysis: log-likelihood of each class, up to a constant.

    Parameters
    ----------
    known : array, shape (n_known, n_features)
    labels : array of int, shape (n_known,)
        Every class from 0 on has a trial.
    asked : array, shape (n_asked, n_features)
    shrink_means : bool
        Use `shrunk_means`.

    Returns
    -------
    array, shape (n_asked, n_classes)
    """
    centre, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    known, asked = (known - centre) / scale, (asked - centre) / scale
    counts = np.bincount(labels)
    means = np.stack([known[labels == c].mean(axis=0) for c in range(len(counts))])
    within = known - means[labels]
    covariance = within.T @ within / max(1, len(known) - len(counts))
    covariance = (1 - DIAGONAL) * covariance + DIAGONAL * np.diag(covariance.diagonal())
    factor = linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance)), lower=True)
    asked = linalg.solve_triangular(factor, asked.T, lower=True).T
    means = linalg.solve_triangular(factor, means.T, lower=True).T
    if shrink_means:
        means = shrunk_means(means, 1 / counts.mean())
    return asked @ means.T - 0.5 * (means**2).sum(axis=1)


def shrunk_means(means: np.ndarray, variance: float) -> np.ndarray:
    """Class means with noise taken off their singular values.

    Parameters
    ----------
    means : array, shape (n_classes, n_features)
        Each with independent noise of this variance on every feature.
    variance : float

    Returns
    -------
    array, shape (n_classes, n_features)

    Notes
    -----
    The shrinkage that is optimal for the squared error (Gavish & Donoho 2017): components that
    noise alone would give vanish, weak ones shrink.
    """
    centre = means.mean(axis=0)
    left, sizes, right = np.linalg.svd(means - centre, full_matrices=False)
    short, long = sorted(means.shape)
    scale, ratio = np.sqrt(long * variance), short / long
    relative = np.maximum(sizes / scale, np.finfo(float).tiny)
    inside = np.maximum((relative**2 - ratio - 1) ** 2 - 4 * ratio, 0)
    kept = np.where(relative > 1 + np.sqrt(ratio), scale * np.sqrt(inside) / relative, 0)
    return centre + (left * kept) @ right


def _in_band(trials: np.ndarray, sfreq: float, band: tuple[float, float]) -> np.ndarray:
    sos = signal.butter(3, band, "bandpass", fs=sfreq, output="sos")
    return signal.sosfiltfilt(sos, trials, axis=-1, padlen=min(30, trials.shape[-1] - 1))


def _covariance(trials: np.ndarray) -> np.ndarray:
    return (trials @ trials.swapaxes(1, 2)).mean(axis=0) / trials.shape[-1]


def _whitener(covariance: np.ndarray) -> np.ndarray:
    values, vectors = linalg.eigh(covariance)
    return (vectors / np.sqrt(values)) @ vectors.T
