"""From EEG to the particular image, not only its class (chapter 7, beyond the paper).

A class prompt draws *a* banana; which banana was shown is lost. Here a ridge regression predicts
from the EEG where, within its class, the image lies in CLIP's space. Whether the prediction
carries anything is tested among images of one class, where knowing the class is worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas

from eeglib.reconstruction.identification import check_rows, identify_within_class, unit_rows

PENALTIES = tuple(float(p) for p in np.logspace(1, 7, 13))
"""Penalties that cross-validation chooses from, for features of unit variance."""


N_SAMPLES = 20_000
"""Moments from which the covariance of the noise is estimated."""


@dataclass(frozen=True)
class ImageRegressor:
    """Predicts image embeddings: the mean of a class plus a deviation read from the EEG.

    Attributes
    ----------
    feature_means : array, shape (n_classes, n_features)
        Mean EEG features of each class's training trials.
    feature_scale : array, shape (n_features,)
        Standard deviation of the features around these means.
    embedding_means : array, shape (n_classes, n_dims)
        Mean embedding of each class's training trials.
    weights : array, shape (n_features, n_dims)
        From scaled deviations of the features to deviations of the embedding.
    penalty : float
        What cross-validation chose.
    spread : float
        Root mean square of the deviations of training embeddings from these means.
    """

    feature_means: np.ndarray
    feature_scale: np.ndarray
    embedding_means: np.ndarray
    weights: np.ndarray
    penalty: float
    spread: float

    def predict(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Predict the embedding of the image of each trial.

        Parameters
        ----------
        features : array, shape (n_trials, n_features)
        labels : array of int, shape (n_trials,)
            Predicted classes where pictures are to be drawn; true classes only in
            `identify_within_class`, which takes the class as known.

        Returns
        -------
        array, shape (n_trials, n_dims)
        """
        deviations = (features - self.feature_means[labels]) / self.feature_scale
        return self.embedding_means[labels] + deviations @ self.weights

    def widen(self, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Give predictions the spread of real embeddings, to draw from them.

        Parameters
        ----------
        predicted : array, shape (n_trials, n_dims)
            From `predict`; all that are to be drawn, since one factor serves them.
        labels : array of int, shape (n_trials,)
            The same as there.

        Returns
        -------
        array, shape (n_trials, n_dims)

        Notes
        -----
        Ridge regression shrinks: the weaker the signal, the nearer all predictions lie to the
        mean, where every picture of a class is the same. One common factor on the deviations
        restores their size. Their directions, hence identification by cosine, stay as they were;
        noise is blown up as well, so that pictures are vivid whether or not they are right.
        """
        centers = self.embedding_means[labels]
        size = np.sqrt(np.mean((predicted - centers) ** 2))
        if size == 0:
            return predicted
        return centers + (predicted - centers) * (self.spread / size)


def noise_whitener(trials: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find the mixture of channels in which what trials of one class do not share is white.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Training trials, any unit.
    labels : array of int, shape (n_trials,)

    Returns
    -------
    array, shape (n_chans, n_chans)
        Multiplies channels from the left.

    Notes
    -----
    Ongoing activity is shared by many channels, far larger than what one image adds, and its
    inverse covariance cancels it: multivariate noise normalisation (Guggenmos et al., 2018,
    *NeuroImage* 173, 434), with Ledoit and Wolf's shrinkage by scikit-learn.
    """
    from sklearn.covariance import ledoit_wolf

    # Samples that follow each other are alike; a part of them gives the same covariance.
    step = max(1, len(trials) * trials.shape[-1] // N_SAMPLES)
    trials, labels = np.asarray(trials[..., ::step], dtype=np.float64), np.asarray(labels)
    noise = np.concatenate(
        [of - of.mean(axis=0) for of in (trials[labels == label] for label in np.unique(labels))]
    )
    covariance, _ = ledoit_wolf(noise.swapaxes(1, 2).reshape(-1, trials.shape[1]))
    values, vectors = np.linalg.eigh(covariance)
    # A flat channel stays flat; it is not blown up.
    root = np.where(values > 1e-12 * values.max(), values, np.inf) ** -0.5
    return (vectors * root) @ vectors.T


def trial_features(trials: np.ndarray, sfreq: float, window: float = 0.04) -> np.ndarray:
    """Describe trials by what each channel does in successive windows.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Any unit.
    sfreq : float
        Sampling frequency, Hz.
    window : float
        Length of a window, s; what remains at the end of a trial is left out.

    Returns
    -------
    array of float32, shape (n_trials, 2 * n_chans * n_windows)
        Means, which hold evoked responses, then logarithms of the mean square, which hold
        changes of rhythms.

    Raises
    ------
    ValueError
        If a trial is shorter than one window.
    """
    trials = np.asarray(trials, dtype=np.float32)
    length = round(window * sfreq)
    n_windows = trials.shape[-1] // max(length, 1)
    if length < 2 or n_windows < 1:
        raise ValueError(
            f"Windows of {window} s hold {length} values of trials with {trials.shape[-1]}; at "
            "least 2 values and one window are needed."
        )
    cut = trials[..., : n_windows * length].reshape(*trials.shape[:2], n_windows, length)
    power = np.log(np.maximum(np.mean(cut**2, axis=-1), np.finfo(np.float32).tiny))
    return np.concatenate(
        [cut.mean(axis=-1).reshape(len(trials), -1), power.reshape(len(trials), -1)], axis=1
    )


def fit_regressor(
    features: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str],
    penalties: Sequence[float] = PENALTIES,
    n_folds: int = 5,
) -> ImageRegressor:
    """Fit the regression on training trials.

    Parameters
    ----------
    features : array, shape (n_trials, n_features)
        EEG features of the training trials, such as from `trial_features`.
    embeddings : array, shape (n_trials, n_dims)
        CLIP embedding of the image that each trial showed.
    labels : array of int, shape (n_trials,)
        Classes; each in 0 ... max(labels) must occur.
    images : sequence of str
        Names of the images; trials of one image stay in one fold.
    penalties : sequence of float
    n_folds : int

    Returns
    -------
    ImageRegressor

    Raises
    ------
    ValueError
        If lengths differ, values are not finite, a class is absent, or there are fewer images
        than folds.

    Notes
    -----
    Features and embeddings enter as deviations from the mean of their class. So neither the class
    nor what goes with it, such as the slow drift between the blocks of a block design, can help
    or choose the penalty. In cross-validation these means come from the folds that train alone:
    deviations from a mean that includes the fold left out sum to zero with it, so that what was
    trained on would predict what was left out, whatever the signals are. The penalty with the
    least squared error over all folds is kept.
    """
    features, embeddings, labels = check_rows(features, embeddings, labels, images)
    n_images = len(set(images))
    if n_images < n_folds:
        raise ValueError(
            f"{n_folds} folds need as many images, got {n_images}. Give more training trials."
        )
    penalty = _choose_penalty(features, embeddings, labels, images, penalties, n_folds)
    feature_means, embedding_means = (_class_means(x, labels) for x in (features, embeddings))
    scaled, scale = _scaled(features - feature_means[labels])
    units = np.eye(features.shape[1])  # what is predicted for single features: the weights
    deviations = embeddings - embedding_means[labels]
    [weights] = _ridge(scaled, deviations, [penalty], units)
    spread = float(np.sqrt(np.mean(deviations**2)))
    return ImageRegressor(feature_means, scale, embedding_means, weights, float(penalty), spread)


@dataclass(frozen=True)
class WithinClass:
    """What `predict_within_class` found.

    Attributes
    ----------
    table : pandas.DataFrame
        From `identify_within_class`.
    regressor : ImageRegressor
    test : array of int, shape (n_test,)
        Rows of the test trials.
    predicted : array, shape (n_test, n_dims)
        Embeddings predicted for them, their class taken as known.
    widened : array, shape (n_test, n_dims)
        The same with the spread of real embeddings, for drawing.
    """

    table: pandas.DataFrame
    regressor: ImageRegressor
    test: np.ndarray
    predicted: np.ndarray
    widened: np.ndarray


def predict_within_class(
    trials: np.ndarray,
    sfreq: float,
    embeddings: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str],
    training: np.ndarray,
    test: np.ndarray,
    seed: int = 0,
) -> WithinClass:
    """Whiten, describe, fit on training trials, and test on test trials.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Any unit.
    sfreq : float
        Hz.
    embeddings : array, shape (n_trials, n_dims)
        Of the image that each trial showed.
    labels : array of int, shape (n_trials,)
    images : sequence of str
        Names of the images.
    training, test : array of int
        Rows; no image in both.
    seed : int
        Of the permutations and intervals.

    Raises
    ------
    ValueError
        If an image is in both parts; else as in `fit_regressor` and `identify_within_class`.
    """
    labels, names = np.asarray(labels), np.asarray(images)
    common = set(names[training]) & set(names[test])
    if common:
        raise ValueError(f"{len(common)} images are in training and test. Split by image.")
    mixture = noise_whitener(trials[training], labels[training])
    white = np.matmul(mixture.astype(np.float32), np.asarray(trials, dtype=np.float32))
    features = trial_features(white, sfreq)
    regressor = fit_regressor(*(x[training] for x in (features, embeddings, labels, names)))
    predicted = regressor.predict(features[test], labels[test])
    table = identify_within_class(
        predicted,
        embeddings[test],
        labels[test],
        names[test],
        regressor.embedding_means,
        seed=seed,
    )
    widened = regressor.widen(predicted, labels[test])
    return WithinClass(table, regressor, np.asarray(test), predicted, widened)


def nearest_image(predicted: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Find the image that each prediction resembles most, to show it as the reconstruction.

    Parameters
    ----------
    predicted : array, shape (n_trials, n_dims)
    embeddings : array, shape (n_images, n_dims)
        Of *training* images: among test images the true one would be on offer.

    Returns
    -------
    array of int, shape (n_trials,)
        Positions in `embeddings`.

    Notes
    -----
    Largest cosine after the mean of `embeddings` is taken from both; without that CLIP's
    embeddings all point in nearly one direction.
    """
    center = np.mean(embeddings, axis=0)
    return np.argmax(unit_rows(predicted - center) @ unit_rows(embeddings - center).T, axis=1)


# --- pieces -----------------------------------------------------------------------------------


def _class_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = np.bincount(labels)
    if not counts.all():
        raise ValueError(
            f"Classes {np.flatnonzero(counts == 0).tolist()} have no training trial. Number the "
            "classes from 0 without gaps."
        )
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, labels, values)
    return sums / counts[:, np.newaxis]


def _choose_penalty(features, embeddings, labels, images, penalties, n_folds: int) -> float:
    from sklearn.model_selection import GroupKFold

    errors = np.zeros(len(penalties))
    for kept, left in GroupKFold(n_folds).split(features, groups=np.asarray(images)):
        left = left[np.isin(labels[left], labels[kept])]  # a class may lie in one fold alone
        present, own = np.unique(labels[kept], return_inverse=True)
        theirs = np.searchsorted(present, labels[left])
        centers = [_class_means(x[kept], own) for x in (features, embeddings)]
        scaled, scale = _scaled(features[kept] - centers[0][own])
        there = (features[left] - centers[0][theirs]) / scale
        truth = embeddings[left] - centers[1][theirs]
        found = _ridge(scaled, embeddings[kept] - centers[1][own], penalties, there)
        errors += [np.sum((truth - predicted) ** 2) for predicted in found]
    return float(np.asarray(penalties)[np.argmin(errors)])


def _scaled(deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = deviations.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1)
    return deviations / scale, scale


def _ridge(
    features: np.ndarray, targets: np.ndarray, penalties, there: np.ndarray
) -> list[np.ndarray]:
    """What ridge regression without intercept predicts elsewhere, for each penalty.

    One decomposition serves all penalties. Of the two products of the features with themselves,
    trials by trials or features by features, the smaller is taken apart.
    """
    few_trials = len(features) < features.shape[1]
    gram = features @ features.T if few_trials else features.T @ features
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ (targets if few_trials else features.T @ targets)
    solutions = [vectors @ (rotated / (values + p)[:, np.newaxis]) for p in penalties]
    back = there @ features.T if few_trials else there
    return [back @ found for found in solutions]
