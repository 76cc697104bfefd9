"""A strong decoder without a network: kernel ridge regression on covariances of a trial.

Made for few trials of many channels, where a network has too little to learn from. Two views of a
trial are added: the covariances of its channels within frequency bands and with themselves a moment
later, and their covariance with waves like the classes' averages (xDAWN). Everything is in closed
form; whether the second helps, penalty and sharpness are chosen on the validation trials.
"""

from __future__ import annotations

import numpy as np
from pyriemann.geometry.base import invsqrtm, logm
from pyriemann.geometry.tangentspace import upper
from scipy import linalg, signal, special

from eeglib.decoding.splits import Split

BANDS = ((0.0, 8.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 70.0))
"""Bands whose covariances are compared, Hz."""

HIGHEST = 70.0
"""Frequencies above are left out, Hz."""

LAG = 0.006
"""Seconds between a channel and itself a moment later."""

SHARES = (0.0, 0.5)
"""Of the kernel that xDAWN may have: with or without."""

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class KernelDecoder:
    """Fits and predicts trials (n_trials, n_chans, n_times) on as many splits as wanted.

    `groups` are the trials' subjects, where several are mixed: means and covariances to compare
    with are then taken within each subject, from unlabelled trials, test subjects included; else
    from the trials that are learned from. `band` is the pass band that they went through, Hz: bands
    outside are left out.

    Notes
    -----
    Covariances are compared by their matrix logarithms after whitening by the mean of their group
    (Barachant et al. 2013; He & Wu 2020); those with a moment later see the spectrum of each source
    too. xDAWN: Rivet et al. 2009. Kernel of a view: inner products of its features, scaled to a
    mean of 1 on the diagonal. Ridge regression on class indicators equals discriminant analysis
    with a shrunk covariance up to scale.
    """

    def __init__(self, trials: np.ndarray, sfreq: float, groups=None, band=None):
        self.trials, self.sfreq = np.asarray(trials, dtype=np.float64), sfreq
        self.members = None
        if groups is not None:
            self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        low, high = band or (0.0, np.inf)
        self.bands = [(a, b) for a, b in BANDS if b > low and a < high and b < sfreq / 2]
        self._described: tuple[np.ndarray, np.ndarray] | None = None

    def fit_predict(self, labels: np.ndarray, split: Split, n_classes: int) -> np.ndarray:
        """Fit on training, choose on validation, fit on both: probabilities of the test trials."""
        own, losses = (np.arange(len(split.validation)), labels[split.validation]), {}
        kernels = self._kernels(labels, split.training)
        for share in SHARES:
            kernel = _mixed(*kernels, share)
            scores = _ridge(kernel, labels, split.training, split.validation, n_classes)
            for penalty, score in scores.items():
                for sharpness in SHARPNESS:
                    logs = special.log_softmax(sharpness * score, axis=1)
                    losses[share, penalty, sharpness] = -logs[own].mean()
        share, penalty, sharpness = min(losses, key=losses.get)
        both = np.concatenate([split.training, split.validation])
        kernel = _mixed(*self._kernels(labels, both), share)
        scores = _ridge(kernel, labels, both, split.test, n_classes, (penalty,))[penalty]
        return special.softmax(sharpness * scores, axis=1)

    def _kernels(self, labels: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kernel matrices of the two views over all trials."""
        trials, covariances = self._described or self._describe(train)
        if self.members:  # then the same for every split
            self._described = trials, covariances
        return covariances, self._compared(_xdawn(trials, labels, train), train)

    def _describe(self, train) -> tuple[np.ndarray, np.ndarray]:
        """Trials up to the highest frequency, and the kernel that labels have no part in."""
        trials, rate = self._filtered(0.0, HIGHEST, train)
        lag = max(1, round(LAG * rate))
        moments = np.concatenate([trials[..., :-lag], trials[..., lag:]], axis=1)
        views = [moments, *(self._filtered(*band, train)[0] for band in self.bands)]
        kernels = [
            self._compared(_log_covariances(self._whitened(view, train), 0.1), train)
            for view in views
        ]
        return trials, sum(kernels) / len(kernels)

    def _filtered(self, low: float, high: float, train) -> tuple[np.ndarray, float]:
        """Trials in a band, thinned out, each channel centred and scaled within its group; rate."""
        high = min(high, 0.49 * self.sfreq)
        limits, kind = ((low, high), "bandpass") if low > 0 else (high, "lowpass")
        sos = signal.butter(3, limits, kind, fs=self.sfreq, output="sos")
        step = max(1, int(self.sfreq / (3.2 * high)))
        trials = signal.sosfiltfilt(sos, self.trials, axis=-1)[..., ::step]
        for own, reference in self._groups(train):
            mean, spread = trials[reference].mean(axis=0), trials[reference].std(axis=(0, 2))
            trials[own] = (trials[own] - mean) / np.where(spread > 0, spread, 1)[:, np.newaxis]
        return trials, self.sfreq / step

    def _groups(self, train) -> list[tuple[np.ndarray, np.ndarray]]:
        """Trials of each group, and those that its statistics are taken from."""
        return [(m, m) for m in self.members] if self.members else [(slice(None), train)]

    def _whitened(self, trials: np.ndarray, train) -> np.ndarray:
        """Each trial's channels uncorrelated and of unit variance, on average over its group."""
        white = np.empty_like(trials)
        for own, reference in self._groups(train):
            mean = _shrunk(_covariances(trials[reference]).mean(axis=0), 0.05)
            white[own] = invsqrtm(mean) @ trials[own]
        return white

    def _compared(self, features: np.ndarray, train) -> np.ndarray:
        """Kernel of features, centred within groups."""
        for own, reference in self._groups(train):
            features[own] -= features[reference].mean(axis=0)
        kernel = features @ features.T
        return kernel / kernel.diagonal()[slice(None) if self.members else train].mean()


def _mixed(covariances: np.ndarray, xdawn: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * covariances + share * xdawn


def _ridge(kernel, labels, train, test, n_classes, penalties=PENALTIES) -> dict[float, np.ndarray]:
    """Scores of the tested trials for each penalty, by one eigendecomposition."""
    targets = np.eye(n_classes)[labels[train]]
    values, vectors = linalg.eigh(kernel[np.ix_(train, train)])
    turned = vectors.T @ (targets - targets.mean(axis=0))
    across = kernel[np.ix_(test, train)] @ vectors
    size = np.sqrt(n_classes)  # so that one sharpness means the same for any number of classes
    return {p: size * across @ (turned / (values + p)[:, np.newaxis]) for p in penalties}


def _covariances(trials: np.ndarray) -> np.ndarray:
    return trials @ trials.swapaxes(1, 2) / trials.shape[-1]


def _shrunk(matrices: np.ndarray, share: float) -> np.ndarray:
    n_chans = matrices.shape[-1]
    level = np.trace(matrices, axis1=-2, axis2=-1)[..., np.newaxis, np.newaxis] / n_chans
    return matrices + share * level * np.eye(n_chans)


def _log_covariances(trials: np.ndarray, share: float) -> np.ndarray:
    """Upper triangles of matrix logarithms; off-diagonal elements count twice."""
    parts = np.array_split(trials, 1 + len(trials) // 256)  # eigenvectors of all would take GB
    return np.concatenate([upper(logm(_shrunk(_covariances(part), share))) for part in parts])


def _xdawn(trials: np.ndarray, labels, train) -> np.ndarray:
    """Covariances of each trial with the classes' average waves, as logarithms.

    With few classes each has filters and a wave of its own; with many, all share the filters and
    the waves' principal components.
    """
    noise = _shrunk(_covariances(trials[train]).mean(axis=0), 0.05)
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
