"""A strong decoder without a network: kernel ridge regression on several views of a trial.

Made for few trials of many channels, where a network has too little to learn from. Each view is a
description that some kind of answer shows in: the wave shape, the spatial covariance of
waves like the classes' averages (xDAWN), the covariance within frequency bands. Everything is in
closed form; what must be chosen is chosen on the validation trials.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import linalg, signal, special

from eeglib.decoding.splits import Split

WAVES = (6.0, 12.0, 20.0, 40.0, 70.0)
"""Upper limits of the low-passes under which waves are compared, Hz."""

BANDS = ((0.0, 8.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 70.0))
"""Bands whose covariances are compared, Hz."""

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
N_FILTERS = 9
SHRINKAGE = 0.05


@dataclass(frozen=True)
class Decoded:
    """What the decoder found.

    Attributes
    ----------
    probabilities : array, shape (n_test_trials, n_classes)
    views, penalty : str and float
        What the validation trials preferred.
    losses : dict of str to float
        Validation log-loss (nats) of each set of views, with its best penalty.
    """

    probabilities: np.ndarray
    views: str
    penalty: float
    losses: dict[str, float]


class KernelDecoder:
    """Describe trials once, then fit and predict on as many splits as wanted.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Signals in any unit.
    sfreq : float
        Hertz.
    groups : array, shape (n_trials,) | None
        Subject of each trial, where trials of several are mixed. Means and variances of views are
        then taken within each subject, from unlabelled trials, test subjects included. None: from
        the training trials alone.
    band : tuple of float | None
        Pass band of the filter that the trials went through, Hz; views outside are left out.

    Notes
    -----
    Kernel of a view: inner products of its features, scaled to a mean of 1 on the diagonal; views
    are added. Covariances are compared by their matrix logarithms after whitening by the mean of
    their group (Barachant et al. 2013; He & Wu 2020). xDAWN: Rivet et al. 2009. Ridge regression on
    class indicators equals discriminant analysis with a shrunk covariance up to scale.
    """

    def __init__(
        self,
        trials: np.ndarray,
        sfreq: float,
        groups: np.ndarray | None = None,
        band: tuple[float, float] | None = None,
    ):
        trials = finite_trials(trials)
        self.groups = None if groups is None else np.asarray(groups)
        if self.groups is not None and len(self.groups) != len(trials):
            raise ValueError(f"There are {len(trials)} trials but {len(self.groups)} groups.")
        self._kept: tuple[list[np.ndarray], dict[str, np.ndarray]] | None = None
        low, high = band or (0.0, np.inf)
        self.sfreq, self.trials = sfreq, trials
        self.waves = [w for w in WAVES if low < w < sfreq / 2 and (w <= high or w == WAVES[-1])]
        self.bands = [(a, b) for a, b in BANDS if b > low and a < high and b < sfreq / 2]

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
        """
        labels = np.asarray(labels)
        kernels = self._kernels(labels, split.training, n_classes)
        losses, best = {}, None
        for name, kernel in _combined(kernels).items():
            scores = _ridge(kernel, labels, split.training, split.validation, n_classes)
            found = [
                (log_loss(special.softmax(sharp * s, axis=1), labels[split.validation]), p, sharp)
                for p, s in scores.items()
                for sharp in SHARPNESS
            ]
            losses[name] = min(found)[0]
            if best is None or min(found) < best[0]:
                best = (min(found), name)
        (_, penalty, sharp), name = best
        known = np.concatenate([split.training, split.validation])
        kernel = _combined(self._kernels(labels, known, n_classes))[name]
        scores = _ridge(kernel, labels, known, split.test, n_classes, (penalty,))[penalty]
        return Decoded(special.softmax(sharp * scores, axis=1), name, penalty, losses)

    def _kernels(self, labels, known, n_classes: int) -> dict[str, np.ndarray]:
        """Kernel matrix of each kind of view over all trials."""
        filtered, fixed = self._unlabelled(known)
        shown = None if self.groups is not None else known
        found = [self._gram(_xdawn(f, labels, known, n_classes), shown) for f in filtered]
        return {**fixed, "xDAWN": sum(found) / len(found)}

    def _unlabelled(self, known) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """What labels have no part in; with groups it is the same for every split, and kept."""
        if self._kept is not None:
            return self._kept
        shown = None if self.groups is not None else known
        filtered = [self._filtered(0.0, high, known) for high in self.waves]
        middle = filtered[min(2, len(filtered) - 1)]
        fixed = {
            "waves": self._gram(_binned(middle), shown),
            "whitened waves": self._gram(_binned(self._whitened(middle, known)), shown),
        }
        powers = []
        for low, high in self.bands:
            whitened = self._whitened(self._filtered(low, high, known), known)
            features = _log_covariances(_covariances(whitened), 0.1)
            powers.append(self._gram(features, shown, scale=False))
        if powers:
            fixed["power"] = sum(powers) / len(powers)
        if self.groups is not None:
            self._kept = filtered, fixed
        return filtered, fixed

    def _filtered(self, low: float, high: float, known) -> np.ndarray:
        """Trials in a band, thinned out, each channel centred and scaled within its group."""
        limits, kind = ((low, high), "bandpass") if low > 0 else (high, "lowpass")
        sos = signal.butter(3, limits, kind, fs=self.sfreq, output="sos")
        step = max(1, int(self.sfreq / (3.2 * high)))
        trials = signal.sosfiltfilt(sos, self.trials, axis=-1)[..., ::step]
        for rows, told in self._parts(known):
            mean = trials[told].mean(axis=0)
            trials[rows] -= mean
            spread = (trials[told] - (0 if rows is told else mean)).std(axis=(0, 2))
            trials[rows] /= np.where(spread > 0, spread, 1)[:, np.newaxis]
        return trials

    def _parts(self, known):
        """Rows of each group, and those that its statistics are taken from."""
        if self.groups is None:
            yield np.arange(len(self.trials)), known
            return
        for group in np.unique(self.groups):
            rows = np.flatnonzero(self.groups == group)
            yield rows, rows

    def _whitened(self, trials: np.ndarray, known) -> np.ndarray:
        """Each trial's channels uncorrelated and of unit variance, on average over its group."""
        white = np.empty_like(trials)
        for rows, told in self._parts(known):
            mean = _shrunk(_covariances(trials[told]).mean(axis=0), SHRINKAGE)
            values, vectors = np.linalg.eigh(mean)
            white[rows] = (vectors / np.sqrt(values)) @ vectors.T @ trials[rows]
        return white

    def _gram(self, features: np.ndarray, shown, scale: bool = True) -> np.ndarray:
        features = np.array(features, dtype=np.float64)
        for rows, told in self._parts(shown):
            mean, spread = features[told].mean(axis=0), features[told].std(axis=0)
            features[rows] -= mean
            if scale:
                features[rows] /= np.where(spread > 0, spread, 1)
        kernel = features @ features.T
        told = slice(None) if shown is None else shown
        return kernel / kernel.diagonal()[told].mean()


def _combined(kernels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean kernel of every set of kinds, named by its members."""
    sets = (s for n in range(1, len(kernels) + 1) for s in itertools.combinations(kernels, n))
    return {" + ".join(s): sum(kernels[k] for k in s) / len(s) for s in sets}


def _ridge(kernel, labels, known, asked, n_classes, penalties=PENALTIES) -> dict[float, np.ndarray]:
    """Scores of the asked trials for each penalty, by one eigendecomposition."""
    targets = np.eye(n_classes)[labels[known]]
    mean = targets.mean(axis=0)
    values, vectors = linalg.eigh(kernel[np.ix_(known, known)])
    turned, across = vectors.T @ (targets - mean), kernel[np.ix_(asked, known)] @ vectors
    size = np.sqrt(n_classes)  # so that one sharpness means the same for any number of classes
    return {p: size * across @ (turned / (values + p)[:, np.newaxis]) for p in penalties}


def finite_trials(trials: np.ndarray) -> np.ndarray:
    """Trials in double precision; a ValueError if they are of another shape or not finite."""
    trials = np.asarray(trials, dtype=np.float64)
    if trials.ndim != 3:
        raise ValueError(
            f"Expected trials of shape (n_trials, n_chans, n_times), got {trials.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(trials).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(trials)} trials have values that are not finite, the first is "
            f"trial {bad[0]}. Drop or repair them."
        )
    return trials


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean surprise at the true classes, nats."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def _binned(trials: np.ndarray) -> np.ndarray:
    """Means over neighbouring times, a few dozen per trial, side by side."""
    n_times = trials.shape[-1]
    length = max(1, n_times // 32)
    n_kept = n_times // length
    means = trials[..., : n_kept * length].reshape(*trials.shape[:2], n_kept, length).mean(axis=-1)
    return means.reshape(len(trials), -1)


def _covariances(trials: np.ndarray) -> np.ndarray:
    return trials @ trials.swapaxes(1, 2) / trials.shape[-1]


def _shrunk(matrices: np.ndarray, share: float) -> np.ndarray:
    n_chans = matrices.shape[-1]
    level = np.trace(matrices, axis1=-2, axis2=-1)[..., np.newaxis, np.newaxis] / n_chans
    return matrices + share * level * np.eye(n_chans)


def _log_covariances(matrices: np.ndarray, share: float) -> np.ndarray:
    """Upper triangles of matrix logarithms; off-diagonal elements count twice."""
    values, vectors = np.linalg.eigh(_shrunk(matrices, share))
    logs = (vectors * np.log(values)[:, np.newaxis]) @ vectors.swapaxes(1, 2)
    rows, columns = np.triu_indices(matrices.shape[-1])
    return logs[:, rows, columns] * np.where(rows == columns, 1, np.sqrt(2))


def _xdawn(trials: np.ndarray, labels, known, n_classes: int) -> np.ndarray:
    """Covariances of each trial with the classes' average waves, as logarithms.

    With few classes each has filters and a wave of its own; with many, all share the filters and
    the waves' principal components.
    """
    noise = _shrunk(_covariances(trials[known]).mean(axis=0), SHRINKAGE)
    present = [c for c in range(n_classes) if (labels[known] == c).any()]
    means = np.stack([trials[known][labels[known] == c].mean(axis=0) for c in present])
    scatters = _covariances(means) if len(present) <= 4 else [_covariances(means).mean(axis=0)]
    n_each = max(1, N_FILTERS // len(scatters))
    filters = [linalg.eigh(s, noise)[1][:, ::-1][:, :n_each].T for s in scatters]
    if len(present) <= 4:
        waves = np.concatenate([f @ m for f, m in zip(filters, means, strict=True)])
    else:
        projected = (filters[0] @ means).reshape(len(means), -1)
        parts = np.linalg.svd(projected, full_matrices=False)[2][:3]
        waves = parts.reshape(-1, trials.shape[-1])
    seen = np.concatenate(filters) @ trials
    waves = np.broadcast_to(waves / waves.std(), (len(trials), *waves.shape))
    both = np.concatenate([waves, seen / seen[known].std()], axis=1)
    both = both - both.mean(axis=-1, keepdims=True)
    return _log_covariances(_covariances(both), 0.02)
