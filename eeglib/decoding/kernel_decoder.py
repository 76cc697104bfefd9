"""A strong decoder without a network: kernel ridge regression on several views of a trial.

Made for few trials of many channels, where a network has too little to learn from. Each view is a
description that some kind of answer shows in: the wave shape, the spatial covariance of
waves like the classes' averages (xDAWN), the covariance within frequency bands. Everything is in
closed form; what must be chosen is chosen on the validation trials.
"""

from __future__ import annotations

import itertools

import numpy as np
from pyriemann.geometry.base import invsqrtm, logm
from pyriemann.geometry.tangentspace import upper
from scipy import linalg, signal, special

from eeglib.decoding.splits import Split

WAVES = (6.0, 12.0, 20.0, 40.0, 70.0)
"""Upper limits of the low-passes under which waves are compared, Hz."""

BANDS = ((0.0, 8.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 70.0))
"""Bands whose covariances are compared, Hz."""

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class KernelDecoder:
    """Fits and predicts trials (n_trials, n_chans, n_times) on as many splits as wanted.

    `groups` are the trials' subjects, where several are mixed: means and variances are then taken
    within each subject, from unlabelled trials, test subjects included; else from the trials that
    are learned from. `band` is the pass band that they went through, Hz: views outside are left
    out.

    Notes
    -----
    Kernel of a view: inner products of its features, scaled to a mean of 1 on the diagonal; views
    are added. Covariances are compared by their matrix logarithms after whitening by the mean of
    their group (Barachant et al. 2013; He & Wu 2020). xDAWN: Rivet et al. 2009. Ridge regression on
    class indicators equals discriminant analysis with a shrunk covariance up to scale.
    """

    def __init__(self, trials: np.ndarray, sfreq: float, groups=None, band=None):
        self.trials, self.sfreq = np.asarray(trials, dtype=np.float64), sfreq
        self.members = None
        if groups is not None:
            self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        low, high = band or (0.0, np.inf)
        self.waves = [w for w in WAVES if low < w < sfreq / 2 and (w <= high or w == WAVES[-1])]
        self.bands = [(a, b) for a, b in BANDS if b > low and a < high and b < sfreq / 2]
        self._described: tuple[list[np.ndarray], dict[str, np.ndarray]] | None = None

    def fit_predict(self, labels: np.ndarray, split: Split, n_classes: int) -> np.ndarray:
        """Fit on training, choose on validation, fit on both: probabilities of the test trials."""
        choices, own = [], (np.arange(len(split.validation)), labels[split.validation])
        for views, kernel in _combinations(self._kernels(labels, split.training)).items():
            scores = _ridge(kernel, labels, split.training, split.validation, n_classes)
            choices += [
                (-special.log_softmax(sharpness * score, axis=1)[own].mean(), views, p, sharpness)
                for p, score in scores.items()
                for sharpness in SHARPNESS
            ]
        _, views, penalty, sharpness = min(choices)
        both = np.concatenate([split.training, split.validation])
        kernel = _combinations(self._kernels(labels, both))[views]
        scores = _ridge(kernel, labels, both, split.test, n_classes, (penalty,))[penalty]
        return special.softmax(sharpness * scores, axis=1)

    def _kernels(self, labels, train) -> dict[str, np.ndarray]:
        """Kernel matrix of each kind of view over all trials."""
        waves, kernels = self._described or self._describe(train)
        if self.members:  # then the same for every split
            self._described = waves, kernels
        evoked = [self._kernel(_xdawn(w, labels, train), train) for w in waves]
        return {**kernels, "xDAWN": sum(evoked) / len(evoked)}

    def _describe(self, train) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Filtered trials, and the kernels that labels have no part in."""
        waves = [self._filtered(0.0, high, train) for high in self.waves]
        middle = waves[min(2, len(waves) - 1)]
        kernels = {
            "waves": self._kernel(_binned(middle), train),
            "whitened waves": self._kernel(_binned(self._whitened(middle, train)), train),
        }
        whitened = (self._whitened(self._filtered(*band, train), train) for band in self.bands)
        features = (_log_covariances(trials, 0.1) for trials in whitened)
        if powers := [self._kernel(values, train, scale=False) for values in features]:
            kernels["power"] = sum(powers) / len(powers)
        return waves, kernels

    def _filtered(self, low: float, high: float, train) -> np.ndarray:
        """Trials in a band, thinned out, each channel centred and scaled within its group."""
        limits, kind = ((low, high), "bandpass") if low > 0 else (high, "lowpass")
        sos = signal.butter(3, limits, kind, fs=self.sfreq, output="sos")
        step = max(1, int(self.sfreq / (3.2 * high)))
        trials = signal.sosfiltfilt(sos, self.trials, axis=-1)[..., ::step]
        for own, reference in self._groups(train):
            trials[own] -= trials[reference].mean(axis=0)
            trials[own] /= _spread(trials[reference], axis=(0, 2))[:, np.newaxis]
        return trials

    def _groups(self, train) -> list[tuple[np.ndarray, np.ndarray]]:
        """Trials of each group, and those that its statistics are taken from."""
        return [(m, m) for m in self.members] if self.members else [(slice(None), train)]

    def _whitened(self, trials: np.ndarray, train) -> np.ndarray:
        """Each trial's channels uncorrelated and of unit variance, on average over its group."""
        white = np.empty_like(trials)
        for own, reference in self._groups(train):
            mean = _shrunk(_covariances(trials[reference]).mean(axis=0))
            white[own] = invsqrtm(mean) @ trials[own]
        return white

    def _kernel(self, features: np.ndarray, train, scale: bool = True) -> np.ndarray:
        features = np.array(features, dtype=np.float64)
        for own, reference in self._groups(train):
            features[own] -= features[reference].mean(axis=0)
            if scale:
                features[own] /= _spread(features[reference], axis=0)
        kernel = features @ features.T
        return kernel / kernel.diagonal()[slice(None) if self.members else train].mean()


def _combinations(kernels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean kernel of every set of kinds, named by its members."""
    sets = (s for n in range(1, len(kernels) + 1) for s in itertools.combinations(kernels, n))
    return {" + ".join(s): sum(kernels[k] for k in s) / len(s) for s in sets}


def _ridge(kernel, labels, train, test, n_classes, penalties=PENALTIES) -> dict[float, np.ndarray]:
    """Scores of the tested trials for each penalty, by one eigendecomposition."""
    targets = np.eye(n_classes)[labels[train]]
    values, vectors = linalg.eigh(kernel[np.ix_(train, train)])
    turned = vectors.T @ (targets - targets.mean(axis=0))
    across = kernel[np.ix_(test, train)] @ vectors
    size = np.sqrt(n_classes)  # so that one sharpness means the same for any number of classes
    return {p: size * across @ (turned / (values + p)[:, np.newaxis]) for p in penalties}


def _spread(values: np.ndarray, axis) -> np.ndarray:
    """Standard deviation; 1 where it is zero."""
    spread = values.std(axis=axis)
    return np.where(spread > 0, spread, 1)


def _binned(trials: np.ndarray) -> np.ndarray:
    """Means over neighbouring times, a few dozen per trial, side by side."""
    n_trials, n_chans, n_times = trials.shape
    length = max(1, n_times // 32)
    bins = trials[..., : n_times // length * length].reshape(n_trials, n_chans, -1, length)
    return bins.mean(axis=-1).reshape(n_trials, -1)


def _covariances(trials: np.ndarray) -> np.ndarray:
    return trials @ trials.swapaxes(1, 2) / trials.shape[-1]


def _shrunk(matrices: np.ndarray, share: float = 0.05) -> np.ndarray:
    n_chans = matrices.shape[-1]
    level = np.trace(matrices, axis1=-2, axis2=-1)[..., np.newaxis, np.newaxis] / n_chans
    return matrices + share * level * np.eye(n_chans)


def _log_covariances(trials: np.ndarray, share: float) -> np.ndarray:
    """Upper triangles of matrix logarithms; off-diagonal elements count twice."""
    return upper(logm(_shrunk(_covariances(trials), share)))


def _xdawn(trials: np.ndarray, labels, train) -> np.ndarray:
    """Covariances of each trial with the classes' average waves, as logarithms.

    With few classes each has filters and a wave of its own; with many, all share the filters and
    the waves' principal components.
    """
    noise = _shrunk(_covariances(trials[train]).mean(axis=0))
    classes = np.unique(labels[train])
    means = np.stack([trials[train][labels[train] == c].mean(axis=0) for c in classes])
    few = len(means) <= 4
    scatters = _covariances(means) if few else [_covariances(means).mean(axis=0)]
    n_each = 9 // len(scatters)
    filters = [linalg.eigh(s, noise)[1][:, ::-1][:, :n_each].T for s in scatters]
    if few:
        waves = np.concatenate([f @ m for f, m in zip(filters, means, strict=True)])
    else:
        projected = (filters[0] @ means).reshape(len(means), -1)
        components = np.linalg.svd(projected, full_matrices=False)[2][:3]
        waves = components.reshape(-1, trials.shape[-1])
    sources = np.concatenate(filters) @ trials
    waves = np.broadcast_to(waves / waves.std(), (len(trials), *waves.shape))
    both = np.concatenate([waves, sources / sources[train].std()], axis=1)
    return _log_covariances(both - both.mean(axis=-1, keepdims=True), 0.02)
