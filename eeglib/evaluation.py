"""Scores with chance, n, an interval and a test, within a subject and over subjects (chapter 9).

Arrays in, tables out. The scores are those of the paper (section 4.1): top-1, top-3 and top-5
accuracy, macro F1, and Cohen's kappa.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas
from scipy import stats

CHUNK = 2**22
"""Numbers drawn at a time by the bootstrap: bounds its memory."""


def score(
    probabilities: np.ndarray,
    labels: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    class_shares: np.ndarray | None = None,
) -> pandas.DataFrame:
    """Score the predictions for one subject's test trials.

    Parameters
    ----------
    probabilities : array, shape (n_trials, n_classes)
        Rows sum to 1.
    labels : array of int, shape (n_trials,)
        True classes.
    n_bootstrap : int
        Draws for the intervals and for the permutation tests.
    confidence : float
        Of the percentile intervals.
    seed : int
    class_shares : array, shape (n_classes,) | None
        Shares of the classes among the training trials. Give them where classes are unequal:
        chance for the top-k accuracies is then that of always naming the k commonest classes.

    Returns
    -------
    pandas.DataFrame
        One row for each of top-1, top-3, top-5 (those below n_classes), F1 and kappa; columns
        ``metric, value, chance, n, low, high, p_value``.

    Raises
    ------
    ValueError
        If probabilities or labels are not what they should be.

    Notes
    -----
    Ties count in favour of the lower class number, so that constant predictions score what always
    naming class 0 scores. F1 is the mean over the classes that occur among true or predicted
    classes; a class never hit has F1 0. Chance: k / n_classes; 1 / n_classes for F1 (drawing
    classes at random where they are equally frequent); 0 for kappa, which is defined as 0 where
    only one class occurs. Intervals: percentile bootstrap over trials. Tests are one-sided: exact
    binomial for the top-k accuracies, permutation of the labels for F1 and kappa.
    """
    probabilities, labels = _checked(probabilities, labels)
    n_trials, n_classes = probabilities.shape
    hits, chances = _hits(probabilities, labels), _chances(labels, n_classes, class_shares)
    predicted = probabilities.argmax(axis=1)
    values = {k: h.mean() for k, h in hits.items()} | _agreement(
        np.ones((1, n_trials)), labels, predicted, n_classes
    )
    rng = np.random.default_rng(seed)
    draws: dict[str, list] = {name: [] for name in values}
    for weights in _resamples(rng, n_bootstrap, n_trials):
        for name, hit in hits.items():
            draws[name].append(weights @ hit / n_trials)
        for name, value in _agreement(weights, labels, predicted, n_classes).items():
            draws[name].append(value)
    p_values = _permutation_tests(rng, labels, predicted, n_classes, n_bootstrap)
    rows = []
    for name, value in values.items():
        low, high = _interval(np.concatenate(draws[name]), confidence)
        if name in hits:
            test = stats.binomtest(
                int(hits[name].sum()), n_trials, min(chances[name], 1.0), alternative="greater"
            )
            p_values[name] = test.pvalue
        rows.append(
            (
                name,
                float(np.ravel(value)[0]),
                chances[name],
                n_trials,
                low,
                high,
                float(p_values[name]),
            )
        )
    columns = ["metric", "value", "chance", "n", "low", "high", "p_value"]
    return pandas.DataFrame(rows, columns=columns)


def paired_difference(
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    labels: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pandas.DataFrame:
    """Compare two methods on the same trials.

    Parameters
    ----------
    probabilities_a, probabilities_b : array, shape (n_trials, n_classes)
        Of the two methods, for the same trials in the same order.
    labels : array of int, shape (n_trials,)
    n_bootstrap, confidence, seed
        As in `score`.

    Returns
    -------
    pandas.DataFrame
        Per metric: ``metric, value_a, value_b, difference`` (a - b), ``n, low, high, p_value``.

    Notes
    -----
    The interval is a bootstrap over trials that keeps the pairs together. The two-sided p-value
    is that of a permutation test which swaps the two methods at random, trial by trial.
    """
    a, labels = _checked(probabilities_a, labels)
    b, _ = _checked(probabilities_b, labels)
    if a.shape != b.shape:
        raise ValueError(f"The two methods have shapes {a.shape} and {b.shape}; they must agree.")
    n_trials, n_classes = a.shape
    hits_a, hits_b = _hits(a, labels), _hits(b, labels)
    named_a, named_b = a.argmax(axis=1), b.argmax(axis=1)

    def both(weights_a, weights_b):
        """Scores of a mixture of trials of a and trials of b, weighted."""
        top = {k: (weights_a @ hits_a[k] + weights_b @ hits_b[k]) / n_trials for k in hits_a}
        weights = np.concatenate([weights_a, weights_b], axis=1)
        return top | _agreement(
            weights, np.tile(labels, 2), np.concatenate([named_a, named_b]), n_classes
        )

    one, none = np.ones((1, n_trials)), np.zeros((1, n_trials))
    value_a, value_b = both(one, none), both(none, one)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list] = {k: [] for k in value_a}
    swapped: dict[str, list] = {k: [] for k in value_a}
    for weights in _resamples(rng, n_bootstrap, n_trials):
        zero, kept = np.zeros_like(weights), rng.integers(0, 2, weights.shape)
        scores_a, scores_b = both(weights, zero), both(zero, weights)
        mixed, opposite = both(kept, 1 - kept), both(1 - kept, kept)
        for k in drawn:
            drawn[k].append(scores_a[k] - scores_b[k])
            swapped[k].append(mixed[k] - opposite[k])
    rows = []
    for k in drawn:
        difference = float(np.ravel(value_a[k] - value_b[k])[0])
        low, high = _interval(np.concatenate(drawn[k]), confidence)
        null = np.abs(np.concatenate(swapped[k]))
        p_value = (1 + np.sum(null >= abs(difference) - 1e-12)) / (1 + n_bootstrap)
        rows.append(
            (
                k,
                float(np.ravel(value_a[k])[0]),
                float(np.ravel(value_b[k])[0]),
                difference,
                n_trials,
                low,
                high,
                float(p_value),
            )
        )
    columns = ["metric", "value_a", "value_b", "difference", "n", "low", "high", "p_value"]
    return pandas.DataFrame(rows, columns=columns)


def summarize_subjects(
    tables: Mapping[int, pandas.DataFrame] | Sequence[pandas.DataFrame],
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pandas.DataFrame:
    """Mean and standard deviation over subjects, as in the paper's Table 1.

    Parameters
    ----------
    tables : mapping of subject to table, or sequence of tables
        What `score` gave for each subject.
    n_bootstrap, confidence, seed
        For the interval of the mean: percentile bootstrap over subjects.

    Returns
    -------
    pandas.DataFrame
        Per metric that all subjects have: ``metric, mean, sd, chance, n_subjects, n`` (trials in
        all), ``low, high``. ``sd`` divides by n_subjects - 1 and is NaN for one subject, as are
        ``low`` and ``high``: one subject says nothing about others.
    """
    tables = list(tables.values()) if isinstance(tables, Mapping) else list(tables)
    if not tables:
        raise ValueError("There are no subjects to summarise. Run the chapters before first.")
    shared = [m for m in tables[0]["metric"] if all(m in set(t["metric"]) for t in tables)]
    stacked = [table.set_index("metric").loc[shared] for table in tables]
    values = np.array([table["value"] for table in stacked])
    n_subjects = len(values)
    low = high = spread = np.full(len(shared), np.nan)
    if n_subjects > 1:
        rng = np.random.default_rng(seed)
        means = values[rng.integers(0, n_subjects, (n_bootstrap, n_subjects))].mean(axis=1)
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        spread = values.std(axis=0, ddof=1)
    return pandas.DataFrame(
        {
            "metric": shared,
            "mean": values.mean(axis=0),
            "sd": spread,
            "chance": np.mean([table["chance"] for table in stacked], axis=0),
            "n_subjects": n_subjects,
            "n": np.sum([table["n"] for table in stacked], axis=0),
            "low": low,
            "high": high,
        }
    )


def confusion(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count which class was taken for which.

    Parameters
    ----------
    labels, predicted : array of int, shape (n_trials,)
    n_classes : int

    Returns
    -------
    array of int, shape (n_classes, n_classes)
        True class down, predicted class across.
    """
    labels, predicted = _checked_labels(labels, n_classes), _checked_labels(predicted, n_classes)
    if len(labels) != len(predicted):
        raise ValueError(f"There are {len(labels)} labels but {len(predicted)} predictions.")
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def recall_by_class(
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    confidence: float = 0.95,
) -> pandas.DataFrame:
    """Share of each class's trials that were named rightly.

    Parameters
    ----------
    labels, predicted : array of int, shape (n_trials,)
    class_names : sequence of str
    confidence : float

    Returns
    -------
    pandas.DataFrame
        A row per class: ``class, recall, chance, n, low, high``; NaN where a class has no trial.
        Intervals are Wilson's, which stay within 0 and 1 and are not empty at either.
    """
    counts = confusion(labels, predicted, len(class_names))
    rows = []
    for label, name in enumerate(class_names):
        n_trials, n_right = int(counts[label].sum()), int(counts[label, label])
        recall = low = high = np.nan
        if n_trials:
            test = stats.binomtest(n_right, n_trials)
            low, high = test.proportion_ci(confidence, method="wilson")
            recall = n_right / n_trials
        rows.append((name, recall, 1 / len(class_names), n_trials, low, high))
    return pandas.DataFrame(rows, columns=["class", "recall", "chance", "n", "low", "high"])


# --- pieces ---------------------------------------------------------------------------------


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or not len(probabilities):
        raise ValueError(
            "probabilities must have shape (n_trials, n_classes) with at least 1 trial and 2 "
            f"classes, got {probabilities.shape}."
        )
    labels = _checked_labels(labels, probabilities.shape[1])
    if len(labels) != len(probabilities):
        raise ValueError(f"There are {len(probabilities)} predictions but {len(labels)} labels.")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("probabilities must be finite and not negative. Did training diverge?")
    worst = np.abs(probabilities.sum(axis=1) - 1).max()
    if worst > 1e-3:
        raise ValueError(
            f"Each row of probabilities must sum to 1, one is off by {worst:.3g}. Were logits "
            "given? Apply a softmax first."
        )
    return probabilities, labels


def _checked_labels(labels: np.ndarray, n_classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape (n_trials,), got {labels.dtype} {labels.shape}."
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(
            f"labels must lie in 0 ... {n_classes - 1}, got {labels.min()} ... {labels.max()}."
        )
    return labels.astype(np.int64)


def _hits(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the true class is among the k most probable, for each k."""
    n_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels][:, np.newaxis]
    tied_before = (probabilities == own) & (np.arange(n_classes) < labels[:, np.newaxis])
    rank = (probabilities > own).sum(axis=1) + tied_before.sum(axis=1)
    return {f"top-{k}": rank < k for k in (1, 3, 5) if k < n_classes}


def _chances(labels, n_classes: int, class_shares) -> dict[str, float]:
    chances = {f"top-{k}": k / n_classes for k in (1, 3, 5) if k < n_classes}
    if class_shares is not None:
        shares = np.asarray(class_shares, dtype=float)
        if shares.shape != (n_classes,):
            raise ValueError(f"class_shares must have shape ({n_classes},), got {shares.shape}.")
        commonest = np.argsort(-shares, kind="stable")
        for name in chances:
            chances[name] = float(np.isin(labels, commonest[: int(name[4:])]).mean())
    return chances | {"F1": 1 / n_classes, "kappa": 0.0}


def _agreement(weights, labels, predicted, n_classes: int) -> dict[str, np.ndarray]:
    """Macro F1 and Cohen's kappa for each row of weights, shape (n_rows, n_trials)."""
    classes = np.arange(n_classes)
    is_true = (labels[:, np.newaxis] == classes).astype(np.float32)
    is_named = (predicted[:, np.newaxis] == classes).astype(np.float32)
    weights = np.asarray(weights, dtype=np.float32)
    return _from_counts(weights @ is_true, weights @ is_named, weights @ (is_true * is_named))


def _from_counts(true, named, both) -> dict[str, np.ndarray]:
    true, named, both = (np.asarray(a, dtype=np.float64) for a in (true, named, both))
    occurs = true + named > 0
    f1 = (2 * both / np.where(occurs, true + named, 1)).sum(axis=-1) / occurs.sum(axis=-1)
    total = true.sum(axis=-1)
    observed = both.sum(axis=-1) / total
    expected = (true * named).sum(axis=-1) / total**2
    room = 1 - expected
    kappa = np.where(room > 1e-12, (observed - expected) / np.where(room > 1e-12, room, 1), 0.0)
    return {"F1": f1, "kappa": kappa}


def _resamples(rng: np.random.Generator, n_rows: int, n_trials: int):
    """How often each trial is drawn in each bootstrap resample, in blocks of rows."""
    at_once = max(1, CHUNK // n_trials)
    for start in range(0, n_rows, at_once):
        size = min(at_once, n_rows - start)
        yield rng.multinomial(n_trials, np.full(n_trials, 1 / n_trials), size=size)


def _permutation_tests(rng, labels, predicted, n_classes: int, n_rows: int) -> dict[str, float]:
    """One-sided p-values of F1 and kappa when labels are dealt out at random."""
    counts = confusion(labels, predicted, n_classes)
    true, named = counts.sum(axis=1), counts.sum(axis=0)
    found = _from_counts(true, named, counts.diagonal())
    is_named = (predicted[:, np.newaxis] == np.arange(n_classes)).astype(np.float32)
    larger, at_once = {"F1": 0, "kappa": 0}, max(1, CHUNK // len(labels))
    for start in range(0, n_rows, at_once):
        size = min(at_once, n_rows - start)
        dealt = rng.permuted(np.tile(labels, (size, 1)), axis=1)
        by_chance = _from_counts(true, named, (dealt == predicted).astype(np.float32) @ is_named)
        for name in larger:
            larger[name] += int(np.sum(by_chance[name] >= found[name] - 1e-12))
    return {name: (1 + count) / (1 + n_rows) for name, count in larger.items()}


def _interval(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
