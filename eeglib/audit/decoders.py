"""The classifiers that are audited (chapter 8).

A decoder is any callable ``fit_predict(features, labels, train, test)`` that returns probabilities
of shape (n_test, n_classes present in the training trials, in ascending order of label). It is
given the labels of all trials and may look at those of ``train`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from threadpoolctl import threadpool_limits

# Small matrices, many of them: threads of the linear algebra would only wait for each other.
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")

Decoder = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def discriminant(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Linear discriminant analysis with a shrunken covariance: closed form, so refits are cheap.

    Parameters
    ----------
    features : array, shape (n_trials, n_features)
    labels : array of int, shape (n_trials,)
    train, test : arrays of int
        Rows.

    Returns
    -------
    array, shape (n_test, n_classes of the training trials)

    Notes
    -----
    Pooled within-class covariance, shrunk after Ledoit & Wolf (2004); equal priors.
    """
    from sklearn.covariance import ledoit_wolf

    known, index = np.unique(labels[train], return_inverse=True)
    x = np.asarray(features[train], dtype=np.float64).reshape(len(train), -1)
    scale = x.std(axis=0)
    scale[scale == 0] = 1
    x = (x - (centre := x.mean(axis=0))) / scale
    means = np.stack([x[index == k].mean(axis=0) for k in range(len(known))])
    covariance, _ = ledoit_wolf(x - means[index], assume_centered=True)
    weights = np.linalg.solve(covariance + 1e-9 * np.eye(len(covariance)), means.T)
    offset = -0.5 * np.sum(means.T * weights, axis=0)
    y = (np.asarray(features[test], dtype=np.float64).reshape(len(test), -1) - centre) / scale
    return softmax(y @ weights + offset)


def logistic(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Multinomial logistic regression on standardised features, as in the paper's first row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    flat = np.asarray(features).reshape(len(features), -1)
    return model.fit(flat[train], labels[train]).predict_proba(flat[test])


def network_decoder(seed: int = 0, **settings) -> Decoder:
    """The profile's own student without its teacher, as a decoder of time-frequency images.

    Parameters
    ----------
    seed : int
        Of the network's weights and of the validation trials, a tenth of the training trials.
    settings
        Of `eeglib.decoding.training.fit`.
    """
    from eeglib.decoding import training
    from eeglib.decoding.networks import residual_network
    from eeglib.decoding.splits import Split

    def fit_predict(images, labels, train, test):
        known, index = np.unique(labels, return_inverse=True)
        rng = np.random.default_rng(seed)
        validation = np.sort(
            np.concatenate(
                [
                    rng.permutation(train[index[train] == k])[
                        : max(1, (index[train] == k).sum() // 10)
                    ]
                    for k in range(len(known))
                ]
            )
        )
        split = Split(np.setdiff1d(train, validation), validation, np.asarray(test))
        build = residual_network(images.shape[1:], len(known))
        student = training.fit(build, images, index, split, seed=seed, **settings)
        return training.predict(student.network, images[test])

    return fit_predict


@one_thread
def cross_validate(
    decoder: Decoder,
    features: np.ndarray,
    labels: np.ndarray,
    folds: Iterable[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every trial that some fold tests.

    Parameters
    ----------
    decoder : Decoder
    features : array, shape (n_trials, ...)
    labels : array of int, shape (n_trials,)
    folds : iterable of (train, test)
        Rows; a trial is tested at most once.

    Returns
    -------
    rows : array of int, shape (n_tested,)
        Ascending.
    probabilities : array, shape (n_tested, n_classes)
        ``n_classes`` is the largest label plus 1; classes absent from the training get 0.
    """
    rows, parts = [], []
    for train, test in folds:
        given = np.asarray(decoder(features, labels, train, test))
        known = np.unique(labels[train])
        if given.shape == (len(test), len(known)):
            full = np.zeros((len(test), labels.max() + 1))
            full[:, known] = given
        elif given.shape[1] == labels.max() + 1:
            full = given
        else:
            raise ValueError(
                f"The decoder gave probabilities of shape {given.shape} for {len(test)} trials "
                f"and {len(known)} classes; give one column per class of the training trials."
            )
        rows.append(test)
        parts.append(full)
    if not rows:
        raise ValueError("There are no folds to test. Fewer folds or a smaller gap may help.")
    rows = np.concatenate(rows)
    order = np.argsort(rows)
    return rows[order], np.concatenate(parts)[order]


def whitener(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Matrix that makes single-trial noise white, estimated within groups.

    Parameters
    ----------
    features : array, shape (n_trials, n_features)
    groups : array, shape (n_trials,)
        Blocks (or classes): means of groups are removed, so that they do not count as noise.

    Returns
    -------
    array, shape (n_features, n_features)
        Symmetric inverse square root of the shrunken covariance.
    """
    from sklearn.covariance import ledoit_wolf

    _, index = np.unique(groups, return_inverse=True)
    x = np.asarray(features, dtype=np.float64)
    means = np.stack([x[index == k].mean(axis=0) for k in range(index.max() + 1)])
    covariance, _ = ledoit_wolf(x - means[index], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 1e-9 * values.max())
    return (vectors / np.sqrt(values)) @ vectors.T


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, row by row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
