"""Is the particular image in a prediction? Identification among images of one class (chapter 7).

Among images of one class, knowing the class is worth nothing: what is identified here is more
than any class prompt can hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas
from scipy import stats


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
    predicted, embeddings, labels = check_rows(predicted, embeddings, labels, images)
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


def images_per_class(labels: np.ndarray, images: Sequence[str]) -> int:
    """Largest number of distinct images that a class has: with 1 there is nothing to identify."""
    table = pandas.DataFrame({"label": labels, "image": images})
    return int(table.groupby("label")["image"].nunique().max())


# --- pieces -----------------------------------------------------------------------------------


def check_rows(features, embeddings, labels, images):
    """Refuse rows that do not belong together; return the first three as arrays."""
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
        blocks.append(unit_rows(mean) @ unit_rows(true).T)
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


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)
