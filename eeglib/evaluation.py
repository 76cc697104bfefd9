"""Scores with chance, n, an interval and a test, and the tables of chapters 5, 6 and 9.

The scores are those of the paper (section 4.1): top-1, top-3 and top-5 accuracy, macro F1, and
Cohen's kappa.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas
from scipy import stats
from sklearn.metrics import confusion_matrix

CHUNK = 2**22
"""Numbers drawn at a time by the bootstrap: bounds its memory."""


def score(
    probabilities: np.ndarray,
    labels: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
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

    Returns
    -------
    pandas.DataFrame
        One row for each of top-1, top-3, top-5 (those below n_classes), F1 and kappa; columns
        ``metric, value, chance, n, low, high, p_value``.

    Notes
    -----
    Chance of a top-k accuracy is what always naming the k commonest classes of these trials
    scores, which is k / n_classes where classes are equally frequent. Chance of F1 is one over the
    number of classes that occur (naming each as often as it occurs, at random), that of kappa 0.
    Ties count in favour of the lower class number, so that constant predictions score what always
    naming class 0 scores. F1 is the mean over the classes that occur among true or predicted
    classes; a class never hit has F1 0. Kappa is 0 where only one class occurs. Intervals:
    percentile bootstrap over trials. Tests are one-sided: exact binomial for the top-k accuracies,
    permutation of the labels for F1 and kappa.
    """
    probabilities, labels = _checked(probabilities, labels), np.asarray(labels)
    n_trials, n_classes = probabilities.shape
    hits, predicted = _hits(probabilities, labels), probabilities.argmax(axis=1)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        top = {name: weights @ hit / n_trials for name, hit in hits.items()}
        return top | _agreement(weights, labels, predicted, n_classes)

    rng = np.random.default_rng(seed)
    draws = [scores(weights) for weights in _resamples(rng, n_bootstrap, n_trials)]
    p_values = _permutation_tests(rng, labels, predicted, n_classes, n_bootstrap)
    counts = np.sort(np.bincount(labels))[::-1]
    chances = {"F1": 1 / np.count_nonzero(counts), "kappa": 0.0}
    for name, hit in hits.items():
        chances[name] = float(counts[: int(name[4:])].sum() / n_trials)
        test = stats.binomtest(int(hit.sum()), n_trials, chances[name], alternative="greater")
        p_values[name] = test.pvalue
    rows = []
    for name, (value,) in scores(np.ones((1, n_trials))).items():
        low, high = _interval(np.concatenate([d[name] for d in draws]), confidence)
        rows.append((name, float(value), chances[name], n_trials, low, high, float(p_values[name])))
    columns = ["metric", "value", "chance", "n", "low", "high", "p_value"]
    return pandas.DataFrame(rows, columns=columns)


def paired_difference(
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    labels: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the top-1 accuracies of two methods on the same trials, as ``difference`` (a - b).

    Arguments as in `score`. The interval is a bootstrap over trials that keeps the pairs together.
    The two-sided p-value is that of a permutation test which swaps the two methods at random,
    trial by trial.
    """
    hits = [_hits(_checked(p, labels), labels)["top-1"] for p in (probabilities_a, probabilities_b)]
    gains = hits[0].astype(float) - hits[1]
    rng, draws, swaps = np.random.default_rng(seed), [], []
    for weights in _resamples(rng, n_bootstrap, len(labels)):
        draws.append(weights @ gains / len(labels))
        swaps.append((2 * rng.integers(0, 2, weights.shape) - 1) @ gains / len(labels))
    low, high = _interval(np.concatenate(draws), confidence)
    as_large = np.sum(np.abs(np.concatenate(swaps)) >= abs(gains.mean()) - 1e-12)
    return {
        "difference": float(gains.mean()),
        "n": len(labels),
        "low": low,
        "high": high,
        "p_value": float((1 + as_large) / (1 + n_bootstrap)),
    }


def recall_by_class(
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    confidence: float = 0.95,
) -> pandas.DataFrame:
    """Share of each class's trials that were named rightly.

    Takes labels and predicted classes, int of shape (n_trials,); gives a row per class: ``class,
    recall, chance, n, low, high``; NaN where a class has no trial. Chance is that of top-1
    accuracy. Intervals are Wilson's, which stay within 0 and 1 and are not empty at either.
    """
    counts = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    chance = counts.sum(axis=1).max() / counts.sum()
    rows = []
    for label, name in enumerate(class_names):
        n_trials, n_right = int(counts[label].sum()), int(counts[label, label])
        recall = low = high = np.nan
        if n_trials:
            recall = n_right / n_trials
            low, high = stats.binomtest(n_right, n_trials).proportion_ci(confidence, "wilson")
        rows.append((name, recall, chance, n_trials, low, high))
    return pandas.DataFrame(rows, columns=["class", "recall", "chance", "n", "low", "high"])


# --- tables ---------------------------------------------------------------------------------


def score_table(
    scores: Mapping[str, pandas.DataFrame], titles: Mapping[str, str] | None = None
) -> pandas.DataFrame:
    """Scores of one subject in the layout of the paper's Table 1.

    Takes for each method its table of `score`, for the same trials, and the names to print. Gives
    a row per method and a last row for chance; each cell reads ``value [low, high]``. The column
    ``n`` counts the trials, ``p`` is the exact test of top-1 accuracy against chance.
    """
    rows = {}
    for method, table in scores.items():
        cells = {
            row.metric: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for row in table.itertuples()
        }
        top1 = table.set_index("metric").loc["top-1"]
        cells |= {"n": str(int(top1["n"])), "p": f"{top1['p_value']:.2g}"}
        rows[(titles or {}).get(method, method)] = cells
    first = next(iter(scores.values()))
    rows["chance"] = {r.metric: f"{r.chance:.3f}" for r in first.itertuples()}
    return pandas.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("method")


def pair_table(
    predictions: Mapping[str, np.ndarray],
    labels: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    titles: Mapping[str, str] | None = None,
) -> pandas.DataFrame:
    """Difference in top-1 accuracy of each method from a reference, on the same trials.

    Takes for each method its probabilities, shape (n_trials, n_classes); the reference is
    ``distillation_stft`` or, without it, the last. Other arguments as in `score` and
    `score_table`. The table is empty if there is nothing to compare.
    """
    ours = "distillation_stft"
    reference = ours if ours in predictions else list(predictions)[-1]
    titles, rows = titles or {}, []
    for method, probabilities in predictions.items():
        if method == reference:
            continue
        pair = paired_difference(
            predictions[reference], probabilities, labels, n_bootstrap, confidence, seed
        )
        rows.append(
            (
                f"{titles.get(reference, reference)} minus {titles.get(method, method)}",
                f"{pair['difference']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]",
                pair["n"],
                f"{pair['p_value']:.3f}",
            )
        )
    columns = ["top-1 accuracy", f"difference [{100 * confidence:.0f}% interval]", "n", "p"]
    return pandas.DataFrame(rows, columns=columns).set_index(columns[0])


def attendance(subjects: Sequence[int], finished: Mapping[str, Sequence[int]]) -> pandas.DataFrame:
    """Which subjects finished which chapters; those who did not are missing from the group.

    A row per subject, a column per chapter; of more than 40 subjects the complete share one row.
    """
    index = pandas.Index(subjects, name="subject")
    table = pandas.DataFrame(
        {name: np.where(index.isin(own), "finished", "missing") for name, own in finished.items()},
        index=index,
    )
    if len(table) <= 40:
        return table
    complete = (table == "finished").all(axis=1)
    together = pandas.DataFrame("finished", [f"{complete.sum()} subjects"], table.columns)
    return pandas.concat([together, table[~complete]]).rename_axis("subject")


def subject_scores(results: Mapping[int, object]) -> pandas.DataFrame:
    """Scores of ``chapter.results(name)`` in one table, with the subject of each."""
    return pandas.DataFrame(
        [{"subject": s, **dict(row)} for s, metrics in results.items() for row in metrics.scores]
    )


def summarize_methods(
    scores: pandas.DataFrame, n_bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0
) -> pandas.DataFrame:
    """Mean and standard deviation over subjects for every method, as in the paper's Table 1.

    Takes `subject_scores`, and draws, level and seed of the intervals: percentile bootstrap over
    subjects. Gives, per method and metric that all its subjects have, ``method, metric, value``
    (the mean)``, sd, chance, n_subjects, n`` (trials in all)``, low, high``. ``sd`` divides by
    n_subjects - 1 and is NaN for one subject, as are ``low`` and ``high``: one subject says
    nothing about others.
    """
    if scores.empty:
        raise ValueError("There are no subjects to summarise. Run the chapters before first.")
    groups = scores.groupby(["method", "metric"], sort=False)
    summary = groups.agg(
        value=("value", "mean"),
        sd=("value", "std"),
        chance=("chance", "mean"),
        n_subjects=("value", "size"),
        n=("n", "sum"),
    )
    summary[["low", "high"]] = [
        _interval_of_mean(values.to_numpy(), n_bootstrap, confidence, seed)
        for _, values in groups["value"]
    ]
    of_method = scores.groupby("method")["subject"].nunique()
    everybody = of_method[summary.index.get_level_values("method")].to_numpy()
    return summary[summary["n_subjects"] == everybody].reset_index()


def group_table(summary: pandas.DataFrame, titles: Mapping[str, str]) -> pandas.DataFrame:
    """Mean (SD) over subjects, in the layout of the paper's Table 1, with chance as last row."""
    rows = {}
    for method, table in summary.groupby("method", sort=False):
        subjects, trials = table["n_subjects"].iloc[0], table["n"].iloc[0]
        rows[titles.get(method, method)] = _mean_and_sd(table) | {
            "subjects": str(subjects),
            "trials": str(trials),
        }
    first = summary[summary["method"] == summary["method"].iloc[0]]
    rows["chance"] = {r.metric: f"{r.chance:.4f}" for r in first.itertuples()}
    return pandas.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("method")


TABLE_1 = pandas.read_csv(Path(__file__).with_name("table_1.csv"), index_col="method")
"""Mean (SD) over six subjects: the paper's Table 1."""


def published_beside(summary: pandas.DataFrame, titles: Mapping[str, str]) -> pandas.DataFrame:
    """Our means of `summarize_methods` with the paper's beside them; for the paper's own data only.

    A row per method of `TABLE_1`; columns (metric, ours or paper).
    """
    rows = {}
    for method, table in summary.groupby("method", sort=False):
        if method in TABLE_1.index:
            ours = _mean_and_sd(table)
            rows[titles.get(method, method)] = {
                (metric, who): cell
                for metric, paper in TABLE_1.loc[method].items()
                for who, cell in (("ours", ours.get(metric, "")), ("paper", paper))
            }
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("method")


# --- pieces ---------------------------------------------------------------------------------


def _mean_and_sd(table: pandas.DataFrame) -> dict[str, str]:
    return {
        row.metric: f"{row.value:.4f}" + ("" if np.isnan(row.sd) else f" ({row.sd:.4f})")
        for row in table.itertuples()
    }


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    n_trials, n_classes = probabilities.shape
    if len(labels) != n_trials or not set(labels) <= set(range(n_classes)):
        raise ValueError(f"{n_trials} trials need labels from 0 to {n_classes - 1}, got {labels}.")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("probabilities must be finite and not negative. Did training diverge?")
    if (worst := np.abs(probabilities.sum(axis=1) - 1).max()) > 1e-3:
        raise ValueError(
            f"Each row of probabilities must sum to 1, one is off by {worst:.3g}. Were logits "
            "given? Apply a softmax first."
        )
    return probabilities


def _hits(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the true class is among the k most probable, for each k."""
    n_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels][:, np.newaxis]
    tied_before = (probabilities == own) & (np.arange(n_classes) < labels[:, np.newaxis])
    rank = (probabilities > own).sum(axis=1) + tied_before.sum(axis=1)
    return {f"top-{k}": rank < k for k in (1, 3, 5) if k < n_classes}


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


def _permutation_tests(rng, labels, predicted, n_classes: int, n_rows: int) -> dict[str, float]:
    """One-sided p-values of F1 and kappa when labels are dealt out at random."""
    true, named, right = (
        np.bincount(classes, minlength=n_classes)
        for classes in (labels, predicted, labels[labels == predicted])
    )
    values = _from_counts(true, named, right)
    is_named = (predicted[:, np.newaxis] == np.arange(n_classes)).astype(np.float32)
    larger = {"F1": 0, "kappa": 0}
    for size in _blocks(n_rows, len(labels)):
        dealt = rng.permuted(np.tile(labels, (size, 1)), axis=1)
        by_chance = _from_counts(true, named, (dealt == predicted).astype(np.float32) @ is_named)
        for name in larger:
            larger[name] += int(np.sum(by_chance[name] >= values[name] - 1e-12))
    return {name: (1 + count) / (1 + n_rows) for name, count in larger.items()}


def _resamples(rng: np.random.Generator, n_rows: int, n_trials: int):
    """How often each trial is drawn in each bootstrap resample, in blocks of rows."""
    for size in _blocks(n_rows, n_trials):
        yield rng.multinomial(n_trials, np.full(n_trials, 1 / n_trials), size=size)


def _blocks(n_rows: int, n_trials: int) -> list[int]:
    """Numbers of resamples that are drawn at a time."""
    at_once = max(1, CHUNK // n_trials)
    return [min(at_once, n_rows - start) for start in range(0, n_rows, at_once)]


def _interval_of_mean(values, n_bootstrap: int, confidence: float, seed: int):
    """Interval of the mean over people; NaN for one person, who says nothing about others."""
    if len(values) == 1:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).integers(0, len(values), (n_bootstrap, len(values)))
    return _interval(values[drawn].mean(axis=1), confidence)


def _interval(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
