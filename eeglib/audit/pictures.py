"""Controls that need to know which image was shown (chapter 8)."""

from __future__ import annotations

import numpy as np

from eeglib.audit.clock import N_PERMUTATIONS
from eeglib.audit.control import Control, difference_interval, unavailable
from eeglib.audit.decoders import one_thread, softmax, whitener
from eeglib.audit.designs import random_folds, stretches
from eeglib.audit.trials import AuditTrials

NO_IMAGES = "which image was shown, or what it looks like, is not known in this data set."


@one_thread
def image_identification(
    trials: AuditTrials, image_features: np.ndarray | None, seed: int = 0
) -> Control:
    """Control 6: find the right image among those of the same block or class.

    A clock that runs per block knows the class and cannot know which of its images was shown
    when, because they came in random order: this control is blind to it.

    Parameters
    ----------
    trials : AuditTrials
    image_features : array, shape (n_trials, n_image_features) | None
        What each trial's image looks like, such as the teacher's features.
    seed : int

    Notes
    -----
    Ridge regression from EEG to the first 20 principal components of the image features, both
    after removing the mean of the class and a straight line over the order within it. Whole
    classes are left out. A trial's score is the share of the class's other images that resemble
    the prediction less than the right one does; chance is one half. Test: images permuted within
    classes. Interval: bootstrap over stretches of trials.
    """
    name, title = "image_identification", "rank of the right image among those of its class"
    if image_features is None:
        return unavailable(6, name, title, NO_IMAGES)
    labels = trials.labels
    sizes = np.bincount(labels)[np.unique(labels)]
    if len(sizes) < 3 or sizes.min() < 5:
        return unavailable(6, name, title, "at least 3 classes with 5 images each are needed.")
    order = trials.order if trials.order is not None else np.arange(len(labels))
    white = _detrended(trials.features @ whitener(trials.features, labels), labels, order)
    target = _detrended(_components(np.asarray(image_features, float), 20), labels, order)
    predicted = _ridge_over_classes(white, target, labels)
    rng = np.random.default_rng(seed)
    scores, permuted = np.empty(len(labels)), np.zeros(N_PERMUTATIONS)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        table = _ranks(predicted[rows], target[rows])
        scores[rows] = np.diag(table)
        for k in range(N_PERMUTATIONS):
            permuted[k] += table[np.arange(len(rows)), rng.permutation(len(rows))].sum()
    value, low, high = difference_interval(
        scores,
        np.zeros(len(scores)),
        stretches(trials) if trials.order is not None else np.arange(len(scores)),
    )
    p_value = (1 + np.sum(permuted / len(labels) >= value)) / (1 + N_PERMUTATIONS)
    return Control(
        6,
        name,
        title,
        value,
        0.5,
        low,
        high,
        len(labels),
        float(p_value),
        "above chance: part of what is decoded follows the image shown"
        if p_value < 0.05
        else "at chance: no sign that the image itself is decoded, at this number of trials",
    )


@one_thread
def teacher_controls(
    trials: AuditTrials,
    teacher_logits: np.ndarray | None,
    alpha: float = 0.5,
    temperature: float = 1.0,
    seed: int = 0,
) -> Control:
    """Control 9: does the teacher's knowledge help, or only the softness of its targets?

    The same student is trained with the teacher, with a teacher whose classes are exchanged, with
    random vectors in its place, and with smoothed labels of the same mean entropy.

    Parameters
    ----------
    trials : AuditTrials
    teacher_logits : array, shape (n_trials, n_classes) | None
    alpha, temperature : float
        Of equations (1) and (2) of the paper.
    seed : int

    Notes
    -----
    The student is linear, so that its five trainings cost seconds; its loss is that of the paper.
    The estimate is the accuracy with the teacher minus that with smoothed labels.
    """
    name, title = "teacher_controls", "accuracy with the teacher minus with smoothed labels"
    if teacher_logits is None:
        return unavailable(9, name, title, "there is no teacher for this data set.")
    labels, n_classes = trials.labels, trials.n_classes
    exact = np.eye(n_classes)[labels]
    soft = softmax(np.asarray(teacher_logits, float) / temperature)
    rng = np.random.default_rng(seed)
    targets = {"no teacher": exact} | {
        kind: alpha * exact + (1 - alpha) * other
        for kind, other in {
            "teacher": soft,
            "classes exchanged": soft[:, _derangement(n_classes, rng)],
            "random vectors": rng.permuted(soft, axis=1),
            "smoothed labels": _smoothed(exact, soft),
        }.items()
    }
    folds = random_folds(trials, seed=seed)
    hits = {k: _soft_student(trials.features, t, labels, folds) for k, t in targets.items()}
    value, low, high = difference_interval(
        hits["teacher"], hits["smoothed labels"], np.arange(len(labels))
    )
    rows = [{"teacher": k, "accuracy": float(h.mean()), "n": len(h)} for k, h in hits.items()]
    return Control(
        9,
        name,
        title,
        value,
        0.0,
        low,
        high,
        len(labels),
        verdict=(
            "the teacher helps beyond soft targets"
            if low > 0
            else "no gain from the teacher's knowledge beyond that of soft targets was seen"
        ),
        rows=rows,
    )


def generation_controls(
    trials: AuditTrials,
    image_features: np.ndarray | None,
    predicted: np.ndarray,
    phantom: np.ndarray | None = None,
    drawings: np.ndarray | None = None,
) -> Control:
    """Control 10: what do image metrics say when only the class is drawn?

    Parameters
    ----------
    trials : AuditTrials
    image_features : array, shape (n_trials, n_image_features) | None
        Of the images shown.
    predicted : array of int, shape (n_trials,)
        Classes that the decoder named.
    phantom : array of int, shape (n_trials,) | None
        Classes named by a decoder trained on phantom labels.
    drawings : array, shape (n_classes, n_image_features) | None
        Features of what is drawn for each class; left out, the mean of its images, the best that
        a painter can do who is told the class only.

    Notes
    -----
    Two-way identification: is the drawing more like (cosine) the image that was shown than like
    another, averaged over all images of other classes; chance one half. The estimate is that of
    the decoder's classes minus what its accuracy predicts, ``a R + (1 - a) W``, where R and W are
    the means for the right class and for a wrong one.
    """
    name, title = "generation_controls", "two-way identification beyond what accuracy predicts"
    if image_features is None:
        return unavailable(10, name, title, NO_IMAGES)
    labels, shown = trials.labels, np.asarray(image_features, float)
    shown = shown - shown.mean(axis=0)
    classes = np.unique(labels)
    if drawings is None:
        drawings = np.zeros((trials.n_classes, shown.shape[1]))
        for c in classes:
            drawings[c] = shown[labels == c].mean(axis=0)
    table = _two_way(drawings, shown, labels)
    place = np.arange(len(labels))
    right, got = table[place, labels], table[place, predicted]
    known = table[:, classes]
    wrong = (known.sum(axis=1) - right) / max(len(classes) - 1, 1)
    expected = np.where(predicted == labels, right.mean(), wrong.mean())
    value, low, high = difference_interval(got, expected, place)
    rows = [
        {"drawn from": "class named by the decoder", "identification": float(got.mean())},
        {"drawn from": "true class, no EEG", "identification": float(right.mean())},
        {"drawn from": "a wrong class", "identification": float(wrong.mean())},
    ]
    if phantom is not None:
        rows.append(
            {
                "drawn from": "class named by a phantom-trained decoder",
                "identification": float(table[place, phantom].mean()),
            }
        )
    return Control(
        10,
        name,
        title,
        value,
        0.0,
        low,
        high,
        len(labels),
        verdict=(
            "the pictures' metric follows from the accuracy: it is no further evidence"
            if low <= 0 <= high
            else "the metric differs from what the accuracy predicts, because errors are not random"
        ),
        rows=rows,
    )


def _detrended(values: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Remove each class's mean and straight line over the order."""
    out = np.array(values, dtype=float)
    for label in np.unique(labels):
        rows = labels == label
        basis = np.c_[np.ones(rows.sum()), order[rows] - order[rows].mean()]
        out[rows] -= basis @ np.linalg.lstsq(basis, out[rows], rcond=None)[0]
    return out


def _components(values: np.ndarray, n: int) -> np.ndarray:
    centred = values - values.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = s[:n] > 1e-9 * max(s[0], 1e-30)
    return (u[:, :n] * s[:n])[:, kept]


def _ridge_over_classes(
    white: np.ndarray, target: np.ndarray, labels: np.ndarray, n_folds: int = 5
) -> np.ndarray:
    from sklearn.linear_model import RidgeCV

    predicted = np.empty_like(target)
    known = np.unique(labels)
    # Regularisation scales with the number of trials: weak answers need a strong one.
    alphas = len(labels) * np.geomspace(0.1, 100, 7)
    for part in np.array_split(known, min(n_folds, len(known))):
        test = np.isin(labels, part)
        model = RidgeCV(alphas=alphas).fit(white[~test], target[~test])
        predicted[test] = model.predict(white[test])
    return predicted


def _ranks(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Entry (i, j): share of the other images less like prediction i than image j is."""
    unit = target / np.maximum(np.linalg.norm(target, axis=1, keepdims=True), 1e-12)
    similarity = predicted @ unit.T
    return similarity.argsort(axis=1).argsort(axis=1) / (len(target) - 1)


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random cycle through all classes: none keeps its place."""
    cycle = rng.permutation(n)
    moved = np.empty(n, dtype=int)
    moved[cycle] = np.roll(cycle, 1)
    return moved


def _smoothed(exact: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Labels mixed with the uniform distribution until they have the mean entropy of ``soft``."""
    from scipy.optimize import brentq

    n = exact.shape[1]
    wanted = -(soft * np.log(np.maximum(soft, 1e-12))).sum(axis=1).mean()

    def excess(share: float) -> float:
        p = np.full(n, share / n)
        p[0] += 1 - share
        return -(p * np.log(np.maximum(p, 1e-12))).sum() - wanted

    share = 1.0 if excess(1.0) <= 0 else 0.0 if excess(0.0) >= 0 else brentq(excess, 0, 1)
    return (1 - share) * exact + share / n


def _soft_student(
    features: np.ndarray, targets: np.ndarray, labels: np.ndarray, folds: list
) -> np.ndarray:
    """Right or wrong for each trial, of a linear student trained on soft targets.

    Its inputs are the axes of largest variance after whitening, both found in the training trials.
    """
    from scipy.optimize import minimize

    hits = np.zeros(len(labels), dtype=bool)
    for train, test in folds:
        white = features @ whitener(features[train], labels[train])
        white -= white[train].mean(axis=0)
        axes = np.linalg.svd(white[train], full_matrices=False)[2][:100].T
        inputs = white @ axes
        design = np.c_[inputs / (inputs[train].std(axis=0).mean() or 1.0), np.ones(len(inputs))]
        x, y = design[train], targets[train]

        def loss(flat, x=x, y=y):
            weights = flat.reshape(x.shape[1], y.shape[1])
            p = softmax(x @ weights)
            value = -np.sum(y * np.log(np.maximum(p, 1e-12))) + 0.5 * 10 * np.sum(weights[:-1] ** 2)
            slope = x.T @ (p - y)
            slope[:-1] += 10 * weights[:-1]
            return value / len(x), slope.ravel() / len(x)

        start = np.zeros(x.shape[1] * y.shape[1])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
        logits = design[test] @ found.x.reshape(x.shape[1], -1)
        hits[test] = logits.argmax(axis=1) == labels[test]
    return hits


def _two_way(drawings: np.ndarray, shown: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Entry (i, c): share of images of other classes less like drawing c than image i is."""

    def unit(values):
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)

    similarity = unit(shown) @ unit(drawings).T
    table = np.empty_like(similarity)
    for label in np.unique(labels):
        own, others = labels == label, np.sort(similarity[labels != label], axis=0)
        for c in range(similarity.shape[1]):
            table[own, c] = np.searchsorted(others[:, c], similarity[own, c]) / len(others)
    return table
