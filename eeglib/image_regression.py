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
from scipy import stats

PENALTIES = tuple(float(p) for p in np.logspace(1, 7, 13))
"""Penalties that cross-validation chooses from, for features of unit variance."""


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
    """

    feature_means: np.ndarray
    feature_scale: np.ndarray
    embedding_means: np.ndarray
    weights: np.ndarray
    penalty: float

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


def trial_features(trials: np.ndarray, sfreq: float, window: float = 0.1) -> np.ndarray:
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
    or choose the penalty. Ridge regression and its cross-validation are scikit-learn's; the score
    is R squared, averaged over dimensions by their variance.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold

    features, embeddings, labels = _checked(features, embeddings, labels, images)
    n_images = len(set(images))
    if n_images < n_folds:
        raise ValueError(
            f"{n_folds} folds need as many images, got {n_images}. Give more training trials."
        )
    feature_means, embedding_means = (_class_means(x, labels) for x in (features, embeddings))
    deviations = features - feature_means[labels]
    scale = deviations.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1)
    search = GridSearchCV(
        Ridge(fit_intercept=False),
        {"alpha": list(penalties)},
        scoring=_explained,
        cv=GroupKFold(n_folds),
    )
    search.fit(deviations / scale, embeddings - embedding_means[labels], groups=np.asarray(images))
    return ImageRegressor(
        feature_means,
        scale,
        embedding_means,
        search.best_estimator_.coef_.T.reshape(features.shape[1], -1),
        float(search.best_params_["alpha"]),
    )


def identify_within_class(
    predicted: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str],
    class_means: np.ndarray,
    n_permutations: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pandas.DataFrame:
    """Test whether predictions tell an image from others of its class.

    Parameters
    ----------
    predicted : array, shape (n_trials, n_dims)
        Predicted for *test* trials, with their true classes.
    embeddings : array, shape (n_trials, n_dims)
        True embeddings of their images.
    labels : array of int, shape (n_trials,)
    images : sequence of str
        Names of the images; predictions for one image are averaged.
    class_means : array, shape (n_classes, n_dims)
        ``ImageRegressor.embedding_means``; compared are deviations from it.
    n_permutations, confidence, seed
        Of the test and of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns ``metric, value, chance, n, low, high, p_value``; rows ``within-class top-1``
        (the image's own embedding is the nearest; chance: mean of 1 / images in the class) and
        ``within-class two-way`` (share of the other images that it beats; chance 0.5). ``n``
        counts images of classes that have at least two.

    Raises
    ------
    ValueError
        If lengths differ, values are not finite, or no class has two images.

    Notes
    -----
    Near means a large cosine between deviations. p-values come from exchanging images within
    classes, which keeps their level exactly whatever the predictions are (Phipson and Smyth,
    2010). Intervals: Clopper-Pearson for top-1, percentile bootstrap over images for two-way.
    """
    predicted, embeddings, labels = _checked(predicted, embeddings, labels, images)
    blocks = _similarities(predicted, embeddings, labels, images, class_means)
    rng = np.random.default_rng(seed)
    hits, wins, sizes = [], [], []
    by_chance = np.zeros((n_permutations, 2))
    for similarity in blocks:
        n = len(similarity)
        table = np.stack([_top_1(similarity), _two_way(similarity)])
        hits.append(table[0].diagonal())
        wins.append(table[1].diagonal())
        sizes.append(n)
        exchanged = rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
        by_chance += table[:, np.arange(n), exchanged].sum(axis=2).T
    hits, wins, n = np.concatenate(hits), np.concatenate(wins), int(np.sum(sizes))
    # A shared first place counts as a part of a hit, which no binomial interval allows for.
    exact = stats.binomtest(int(np.floor(hits.sum() + 1e-9)), n).proportion_ci(confidence)
    tail = (1 - confidence) / 2
    means = wins[rng.integers(0, n, (n_permutations, n))].mean(axis=1)
    bounds = [(exact.low, exact.high), tuple(np.quantile(means, [tail, 1 - tail]))]
    chances = [len(sizes) / n, 0.5]
    rows = []
    for i, (metric, found) in enumerate((("top-1", hits), ("two-way", wins))):
        larger = np.sum(by_chance[:, i] >= found.sum() - 1e-9)
        p_value = (1 + larger) / (1 + n_permutations)
        rows.append((f"within-class {metric}", found.mean(), chances[i], n, *bounds[i], p_value))
    columns = ["metric", "value", "chance", "n", "low", "high", "p_value"]
    return pandas.DataFrame(rows, columns=columns)


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
    return np.argmax(_unit(predicted - center) @ _unit(embeddings - center).T, axis=1)


# --- pieces -----------------------------------------------------------------------------------


def _checked(features, embeddings, labels, images):
    features, embeddings = (np.asarray(x, dtype=np.float64) for x in (features, embeddings))
    labels = np.asarray(labels)
    lengths = [len(x) for x in (features, embeddings, labels, images)]
    if len(set(lengths)) > 1 or features.ndim != 2 or embeddings.ndim != 2 or not lengths[0]:
        raise ValueError(
            "Give one row of features (or predictions), one embedding, one label and one image "
            f"name per trial; got {features.shape}, {embeddings.shape}, {lengths[2]}, {lengths[3]}."
        )
    if not (np.isfinite(features).all() and np.isfinite(embeddings).all()):
        raise ValueError("Features and embeddings must be finite. Was a channel flat?")
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"labels must be integers from 0, got {labels.dtype}.")
    return features, embeddings, labels


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


def _explained(estimator, features: np.ndarray, embeddings: np.ndarray) -> float:
    """R squared around zero, since deviations have no mean to be predicted from."""
    error = np.sum((embeddings - estimator.predict(features)) ** 2)
    return float(1 - error / max(np.sum(embeddings**2), 1e-300))


def _similarities(predicted, embeddings, labels, images, class_means) -> list[np.ndarray]:
    """For each class with two images or more: cosines of predictions (rows) and images."""
    names = np.asarray(images)
    blocks = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        distinct, place = np.unique(names[own], return_inverse=True)
        if len(distinct) < 2:
            continue
        center = class_means[label]
        mean, true = (
            np.stack([x[own[place == i]].mean(axis=0) for i in range(len(distinct))]) - center
            for x in (predicted, embeddings)
        )
        blocks.append(_unit(mean) @ _unit(true).T)
    if not blocks:
        raise ValueError(
            "No class has two test images; within-class identification needs at least two. "
            "Enlarge split.test."
        )
    return blocks


def _top_1(similarity: np.ndarray) -> np.ndarray:
    """For each prediction and image: is it the nearest? Equal ones share the place."""
    best = similarity >= similarity.max(axis=1, keepdims=True) - 1e-12
    return best / best.sum(axis=1, keepdims=True)


def _two_way(similarity: np.ndarray) -> np.ndarray:
    """For each prediction and image: the share of the other images that are farther."""
    ranks = stats.rankdata(similarity.round(12), axis=1)  # equal ones share the rank
    return (ranks - 1) / (similarity.shape[1] - 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)
