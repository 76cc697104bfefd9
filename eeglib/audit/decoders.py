"""The classifiers that are audited, and splits that respect time (chapter 8)."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, special
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from eeglib.audit.features import AuditError, AuditTrials

# Small matrices, many of them: threads of the linear algebra would only wait for each other.
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")

# From X, y and X_test to probabilities, (n_test, n_classes in y).
Decoder = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Folds = list[tuple[np.ndarray, np.ndarray]]


def whitener(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Inverse square root of the covariance of trials within groups, Ledoit & Wolf (2004)."""
    _, index = np.unique(groups, return_inverse=True)
    X = np.asarray(features, dtype=np.float64)
    means = np.stack([X[index == k].mean(axis=0) for k in range(index.max() + 1)])
    covariance = ledoit_wolf(X - means[index], assume_centered=True)[0]
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 1e-9 * values.max())
    return (vectors / np.sqrt(values)) @ vectors.T


def discriminant(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """Linear discriminant analysis with a shrunken covariance: closed form, so refits are cheap."""
    # scikit-learn's shrinks the covariance of each class on its own, which with forty trials a
    # class costs a quarter of the accuracy.
    scaler = StandardScaler().fit(X.astype(np.float64))
    X, X_test = (scaler.transform(values.astype(np.float64)) for values in (X, X_test))
    white = whitener(X, y)
    return nearest_mean(X @ white, y, X_test @ white)


def logistic(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """Multinomial logistic regression on standardised features, as in the paper's first method."""
    model = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
    return make_pipeline(StandardScaler(), model).fit(X, y).predict_proba(X_test)


def nearest_mean(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """Softmax over classes of minus half the squared distance to their means."""
    means = np.stack([X[y == label].mean(axis=0) for label in np.unique(y)])
    return special.softmax(X_test @ means.T - 0.5 * (means**2).sum(axis=1), axis=1)


@one_thread
def predict(
    trials: AuditTrials,
    folds: Folds | None = None,
    decoder: Decoder = discriminant,
    features: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every trial that some fold tests; by default all, in five random folds by image.

    Returns the rows tested, ascending, and their probabilities, shape (n_tested, n_classes), in
    which classes absent from the training get 0.
    """
    folds = random_folds(trials, seed=seed) if folds is None else folds
    X, y = trials.features if features is None else features, trials.labels
    probabilities = np.zeros((len(y), y.max() + 1))
    for train, test in folds:
        probabilities[np.ix_(test, np.unique(y[train]))] = decoder(X[train], y[train], X[test])
    tested = np.unique(np.concatenate([test for _, test in folds]))
    return tested, probabilities[tested]


def random_folds(trials: AuditTrials, n_folds: int = 5, seed: int = 0) -> Folds:
    """Random split by image, blind to time; fewer folds where a class has fewer images."""
    names, labels = image_names(trials), trials.labels
    n_folds = min(n_folds, *(len(np.unique(names[labels == c])) for c in np.unique(labels)))
    fold = _image_parts(names, labels, n_folds, seed)
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def matched_folds(trials: AuditTrials, folds: Folds, seed: int = 0) -> Folds:
    """Random folds by image, the n-th with as few training trials of a class as the n-th given."""
    # A split by time leaves trials out of the training and loses accuracy by that alone.
    labels, rng, matched = trials.labels, np.random.default_rng(seed), []
    for k, (train, test) in enumerate(random_folds(trials, seed=seed)):
        sizes = np.bincount(labels[folds[k % len(folds)][0]], minlength=labels.max() + 1)
        own = [rng.permutation(train[labels[train] == c])[: sizes[c]] for c in np.unique(labels)]
        matched.append((np.sort(np.concatenate(own)), test))
    return matched


def contiguous_folds(trials: AuditTrials, n_folds: int = 5, gap: int = 2) -> Folds:
    """Test each class in stretches of time; trials within ``gap`` of a tested one do not train."""
    position, labels = trials.position, trials.labels
    fold = np.empty(len(position), dtype=int)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for k, part in enumerate(np.array_split(rows[np.argsort(position[rows])], n_folds)):
            fold[part] = k
    folds = []
    for k in range(n_folds):
        tested = np.isin(np.arange(len(position)), position[fold == k]).astype(int)
        near = ndimage.maximum_filter1d(tested, 2 * gap + 1, mode="constant")[position]
        folds.append((np.flatnonzero(near == 0), np.flatnonzero(fold == k)))
    return _without_shared_images(trials, folds)


def group_folds(trials: AuditTrials, groups: np.ndarray) -> Folds:
    """Leave one group out, such as a session; classes that no other group has are not tested."""
    labels, folds = trials.labels, []
    for group in np.unique(groups):
        train = groups != group
        test = ~train & np.isin(labels, labels[train])
        if test.any():
            folds.append((np.flatnonzero(train), np.flatnonzero(test)))
    if not folds:
        raise AuditError("no class comes back in another block or session: none can be left out.")
    return _without_shared_images(trials, folds)


def image_names(trials: AuditTrials) -> np.ndarray:
    """Name of each trial's image; where images are not known, every trial is one."""
    images = trials.metadata["image"].fillna("").astype(str).to_numpy()
    return images if (images != "").all() else np.arange(len(images)).astype(str)


def _image_parts(names: np.ndarray, labels: np.ndarray, n_parts: int, seed: int) -> np.ndarray:
    """Part of each trial: images of a class are dealt out at random."""
    rng = np.random.default_rng(seed)
    part = np.empty(len(names), dtype=int)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        distinct, index = np.unique(names[rows], return_inverse=True)
        part[rows] = rng.permutation(np.arange(len(distinct)) % n_parts)[index]
    return part


def _without_shared_images(trials: AuditTrials, folds: Folds) -> Folds:
    """Split further where an image was shown several times, so that none is on both sides."""
    names, apart = image_names(trials), []
    part = _image_parts(names, trials.labels, 5, seed=0)
    for train, test in folds:
        if not len(np.intersect1d(names[train], names[test])):
            apart.append((train, test))
            continue
        pairs = [(train[part[train] != k], test[part[test] == k]) for k in range(5)]
        apart += [(a, b) for a, b in pairs if len(a) and len(b)]
    return apart
