"""A strong decoder without a network: kernel ridge regression on covariances of a trial.

Made for few trials of many channels. It sees a trial in two ways: *moments*, the covariance of all
channels with each other now and one sample (4 to 6 ms) later; and *waves*, covariances within bands
and with waves like the classes' averages (xDAWN). The share of either way, penalty and sharpness
are chosen on the validation trials.
"""

import itertools

import numpy as np
from pyriemann.geometry.base import invsqrtm, logm
from pyriemann.geometry.tangentspace import upper
from scipy import linalg, signal, special

from eeglib.decoding.splits import Split

BANDS = ((0.0, 8.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 70.0))  # Hz
MOMENTS, WAVES = 70.0, 20.0  # Hz up to which trials are seen in one way, and by xDAWN
SHARES = (0.0, 0.5, 1.0)  # of the second way to see a trial
PENALTIES, SHARPNESS = (0.1, 0.3, 1.0, 3.0, 10.0), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class KernelDecoder:
    """Fits and predicts trials (n_trials, n_chans, n_times) on as many splits as wanted.

    `groups` are the trials' subjects, where several are mixed: means and scales are then taken
    within each subject, from unlabelled trials, test subjects included; else from the training and
    validation trials. A covariance with the next sample holds the spectrum of every source, not
    only its power. Covariances are compared by their matrix logarithms after whitening by the mean
    of their group (Barachant et al. 2013; He & Wu 2020). xDAWN: Rivet et al. 2009.
    """

    def __init__(self, trials: np.ndarray, sfreq: float, groups=None):
        self.trials, self.sfreq = np.asarray(trials, dtype=np.float64), sfreq
        members = [] if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]
        self.groups = [(m, m) for m in members]  # trials, and those that give means and scales
        self._described: tuple[np.ndarray, ...] | None = None

    def fit_predict(self, labels: np.ndarray, split: Split, n_classes: int) -> np.ndarray:
        """Fit on training, choose on validation, fit on both: probabilities of the test trials."""
        both = np.concatenate([split.training, split.validation])
        groups = self.groups or [(slice(None), both)]
        trials, moments, bands = self._described or self._describe(groups)
        if self.groups:  # then the same for every split
            self._described = trials, moments, bands

        def kernels(train: np.ndarray) -> dict[float, np.ndarray]:
            waves = (bands + _kernel(_xdawn(trials, labels, train), groups)) / 2
            return {share: (1 - share) * moments + share * waves for share in SHARES}

        own, losses = (np.arange(len(split.validation)), labels[split.validation]), {}
        for share, kernel in kernels(split.training).items():
            scores = _ridge(kernel, labels, *split[:2], n_classes)
            for (penalty, score), sharpness in itertools.product(scores.items(), SHARPNESS):
                logs = special.log_softmax(sharpness * score, axis=1)
                losses[share, penalty, sharpness] = -logs[own].mean()
        share, penalty, sharpness = min(losses, key=losses.get)
        scores = _ridge(kernels(both)[share], labels, both, split.test, n_classes, (penalty,))
        return special.softmax(sharpness * scores[penalty], axis=1)

    def _describe(self, groups) -> tuple[np.ndarray, ...]:
        """Trials for xDAWN, and the kernels that labels have no part in."""
        trials = self._filtered(0.0, MOMENTS, groups)
        pairs = np.concatenate([trials[..., :-1], trials[..., 1:]], axis=1)
        moments = _kernel(_log_covariances(_whitened(pairs, groups), 0.003), groups)
        within = (self._filtered(*b, groups) for b in BANDS if b[1] < self.sfreq / 2)
        bands = [_kernel(_log_covariances(_whitened(x, groups), 0.1), groups) for x in within]
        return self._filtered(0.0, WAVES, groups), moments, sum(bands) / len(bands)

    def _filtered(self, low: float, high: float, groups) -> np.ndarray:
        """Trials in a band, thinned out, each channel centred and scaled."""
        high = min(high, 0.49 * self.sfreq)
        limits, kind = ((low, high), "bandpass") if low > 0 else (high, "lowpass")
        sos = signal.butter(3, limits, kind, fs=self.sfreq, output="sos")
        step = max(1, int(self.sfreq / (3.2 * high)))
        trials = signal.sosfiltfilt(sos, self.trials, axis=-1)[..., ::step]
        for own, reference in groups:
            mean, spread = trials[reference].mean(axis=0), trials[reference].std(axis=(0, 2))
            trials[own] = (trials[own] - mean) / np.where(spread > 0, spread, 1)[:, np.newaxis]
        return trials


def _whitened(trials: np.ndarray, groups) -> np.ndarray:
    """Each trial's channels uncorrelated and of unit variance, on average over its group."""
    white = np.empty_like(trials)
    for own, reference in groups:
        white[own] = invsqrtm(_covariances(trials[reference], 0.05).mean(axis=0)) @ trials[own]
    return white


def _kernel(features: np.ndarray, groups) -> np.ndarray:
    """Inner products of features centred within groups, scaled to a mean of 1 on the diagonal."""
    for own, reference in groups:
        features[own] -= features[reference].mean(axis=0)
    kernel = features @ features.T
    return kernel / kernel.diagonal()[np.concatenate([r for _, r in groups])].mean()


def _ridge(kernel, labels, train, test, n_classes, penalties=PENALTIES) -> dict[float, np.ndarray]:
    """Scores of the tested trials for each penalty, by one eigendecomposition."""
    targets = np.eye(n_classes)[labels[train]]
    values, vectors = linalg.eigh(kernel[np.ix_(train, train)])
    shares = targets.mean(axis=0)  # what is said of a trial that resembles none
    turned = vectors.T @ (targets - shares)
    across = kernel[np.ix_(test, train)] @ vectors
    size = np.sqrt(n_classes)  # so that one sharpness means the same for any number of classes
    return {p: size * (shares + across @ (turned / (values + p)[:, np.newaxis])) for p in penalties}


def _covariances(trials: np.ndarray, shrinkage: float = 0.0) -> np.ndarray:
    matrices = trials @ trials.swapaxes(1, 2) / trials.shape[-1]
    level = np.trace(matrices, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] / trials.shape[1]
    return matrices + shrinkage * level * np.eye(trials.shape[1])


def _log_covariances(trials: np.ndarray, shrinkage: float) -> np.ndarray:
    """Upper triangles of matrix logarithms; off-diagonal elements count twice."""
    parts = np.array_split(trials, 1 + len(trials) // 256)  # eigenvectors of all would take GB
    return np.concatenate([upper(logm(_covariances(part, shrinkage))) for part in parts])


def _xdawn(trials: np.ndarray, labels, train) -> np.ndarray:
    """Covariances of each trial with the classes' average waves, as logarithms."""
    noise = _covariances(trials[train], 0.05).mean(axis=0)
    classes = np.unique(labels[train])
    means = np.stack([trials[train][labels[train] == c].mean(axis=0) for c in classes])
    # With few classes each has filters and a wave of its own; many share filters and components.
    few = len(means) <= 4
    scatters = _covariances(means) if few else [_covariances(means).mean(axis=0)]
    filters = [linalg.eigh(s, noise)[1][:, : -1 - 9 // len(scatters) : -1].T for s in scatters]
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
