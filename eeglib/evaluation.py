"""Scores with chance, n, an interval and a test, and the tables of chapters 5, 6 and 9."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from scipy import stats
from sklearn.metrics import confusion_matrix
from sklearn.utils.class_weight import compute_sample_weight

CHUNK = 2**22  # numbers that bootstrap and permutations draw at a time


def score(
    probabilities: np.ndarray,
    labels: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    images: Sequence[str] | None = None,
) -> pandas.DataFrame:
    """Score the predictions for one subject's test trials, as in the paper's section 4.1.

    Parameters
    ----------
    probabilities : array, shape (n_trials, n_classes)
        Rows sum to 1.
    labels : array of int, shape (n_trials,)
    n_bootstrap, confidence, seed
        Of the intervals; so many draws and this seed for the permutation tests, too.
    images : sequence of str, length n_trials | None
        Trials of one image are no independent witnesses: they are drawn and exchanged together. An
        empty name is an image of its own.

    Returns
    -------
    pandas.DataFrame
        One row for each of top-1, top-3, top-5 (those below the number of classes that occur), F1
        and kappa, for two or unequal classes balanced accuracy, for two AUC; columns ``metric,
        value, chance, n, low, high, p_value``.

    Notes
    -----
    Chance of a top-k accuracy is what always naming the k commonest classes of these trials
    scores; that of F1 and of balanced accuracy, the mean recall, one over the number of classes
    that occur; that of kappa 0, of the area under the ROC curve 0.5. Ties count in favour of the
    lower class number. F1 is the mean over the classes that occur among true or predicted classes.
    Kappa is 0 where only one class occurs.

    Intervals: Wilson's for the top-k accuracies, `bootstrap_interval` over trials for the rest.
    Tests are one-sided: exact binomial for the top-k accuracies, permutation of the labels for the
    rest. Where images repeat, the binomial formulas count trials over the design effect (Korn and
    Graubard, 1998, *Survey Methodology* 24, 193).
    """
    probabilities, labels = _checked(probabilities, labels), np.asarray(labels)
    unit, n_trials = _units(images, len(labels)), len(labels)
    counts = np.sort(np.bincount(labels))[::-1]
    n_occurring = np.count_nonzero(counts)
    rows = []
    for name, hit in _hits(probabilities, labels).items():
        if (k := int(name[4:])) < max(2, n_occurring):
            chance, share, n = counts[:k].sum() / n_trials, hit.mean(), _effective_n(hit, unit)
            interval = proportion_interval(share * n, n, confidence)
            # The upper tail of the binomial distribution, which also knows an n that is not whole.
            p_value = stats.beta.cdf(chance, share * n, n - share * n + 1) if share > 0 else 1.0
            rows.append((name, share, chance, n_trials, *interval, p_value))
    chances = {"F1": 1 / n_occurring, "kappa": 0.0}
    if unequal(labels) or probabilities.shape[1] == 2:
        chances["balanced accuracy"] = 1 / n_occurring
    if probabilities.shape[1] == 2:
        chances["AUC"] = 0.5
    n_units, of_unit = unit.max() + 1, labels[np.unique(unit, return_index=True)[1]]

    def resampled(units: np.ndarray, axis: int = -1) -> np.ndarray:
        weights = _tally(units, np.ones(units.shape), n_units)[..., unit]
        return _agreement(chances, probabilities, labels, weights)

    def permuted(labels: np.ndarray, axis: int = -1) -> np.ndarray:
        true = labels[..., unit]
        return np.moveaxis(_agreement(chances, probabilities, true, np.ones(true.shape)), 0, -1)

    how = {"n_bootstrap": n_bootstrap, "seed": seed}
    floor = np.where([name == "kappa" for name in chances], -1, 0)
    found = bootstrap_interval(resampled, n_units, confidence=confidence, floor=floor, **how)
    p_values = permutation_test(of_unit, permuted, "pairings", **how)
    for name, value, low, high, p_value in zip(chances, *found, p_values, strict=True):
        rows.append((name, value, chances[name], n_trials, low, high, p_value))
    columns = ["metric", "value", "chance", "n", "low", "high", "p_value"]
    return pandas.DataFrame(rows, columns=columns)


def unequal(labels: np.ndarray) -> bool:
    """Whether the commonest class has over a quarter more trials than a class has on average."""
    counts = np.unique(labels, return_counts=True)[1]
    return bool(counts.max() > 1.25 * counts.mean())


def paired_difference(
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str] | None = None,
    balanced: bool = False,
    **bootstrap: Any,
) -> dict[str, float]:
    """Compare two methods on the same trials, as ``difference`` of top-1 accuracy (a - b).

    Arguments as in `score`; with ``balanced`` of balanced accuracy. The bootstrap keeps the pairs
    together; the two-sided permutation test swaps the methods at random, trial by trial.
    """
    hits = [_hits(_checked(p, labels), labels)["top-1"] for p in (probabilities_a, probabilities_b)]
    weights = compute_sample_weight("balanced" if balanced else None, labels)
    unit = _units(images, len(labels))
    gains = np.bincount(unit, weights * (hits[0].astype(float) - hits[1]))
    sizes = np.bincount(unit, weights)

    def mean(rows, axis=-1):
        return gains[rows].sum(axis) / sizes[rows].sum(axis)

    def size(x, axis=-1):
        return np.abs(x.sum(axis))

    difference, low, high = bootstrap_interval(mean, len(gains), **bootstrap)
    found = {"difference": difference, "n": len(labels), "low": low, "high": high}
    return found | {"p_value": float(permutation_test(gains, size, "samples", **bootstrap))}


def proportion_interval(n_right: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) interval of a share of ``n``: not empty at 0 and at 1, and within them."""
    z, share = stats.norm.ppf((1 + confidence) / 2), n_right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - reach, 0), np.minimum(middle + reach, 1)


def bootstrap_interval(
    statistic: Callable,
    *sizes: int,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    floor: Any = -1,
) -> tuple[Any, Any, Any]:
    """Value and BCa interval (Efron, 1987, *JASA* 82, 171) of scores between ``floor`` and 1.

    ``statistic`` takes rows drawn from each of ``sizes``, shape (..., n) each, and ``axis``; it
    gives the scores in shape (...) or, of several, (n_scores, ...). Where resamples do not differ,
    the interval reaches as far as Wilson's of none among as many.
    """
    rows = [np.arange(n) for n in sizes]
    value = np.asarray(statistic(*rows))
    low = high = np.full(value.shape, np.nan)
    if min(sizes) > 1:
        options = {"n_resamples": n_bootstrap, "confidence_level": confidence}
        options |= {"batch": max(1, CHUNK // np.prod(sizes)), "vectorized": True}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(rows, statistic, rng=np.random.default_rng(seed), **options)
        low, high = found.confidence_interval
    reach = proportion_interval(0, sizes[-1], confidence)[1]
    low = np.where(np.isfinite(low), low, np.maximum(value - reach, floor))
    high = np.where(np.isfinite(high), high, np.minimum(value + reach, 1))
    return value[()], low[()], high[()]


def permutation_test(data, statistic: Callable, kind: str, n_bootstrap=2000, seed=0, **_):
    """One-sided p-value of `scipy.stats.permutation_test`; exact where draws are few."""
    if len(data) < 2:
        return np.ones_like(statistic(data))
    options = {"permutation_type": kind, "n_resamples": n_bootstrap, "alternative": "greater"}
    options |= {"batch": max(1, CHUNK // len(data)), "rng": np.random.default_rng(seed)}
    return stats.permutation_test((data,), statistic, vectorized=True, **options).pvalue


def mean_with_interval(values: np.ndarray, **bootstrap: Any) -> tuple[Any, Any, Any]:
    """Mean of values that lie between -1 or ``floor`` and 1, and its `bootstrap_interval`."""
    values = np.asarray(values, dtype=float)
    return bootstrap_interval(lambda row, axis=-1: values[row].mean(axis), len(values), **bootstrap)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number (Holm, 1979, *Scandinavian J. of Statistics* 6, 65)."""
    p_values = np.asarray(p_values, dtype=float)
    order, n = np.argsort(p_values), len(p_values)
    corrected = np.empty(n)
    corrected[order] = np.maximum.accumulate(p_values[order] * np.arange(n, 0, -1))
    return corrected.clip(max=1)


def format_p(p_value: float) -> str:
    """A p-value to read: three digits, ``< 0.001`` below them, empty where there is no test."""
    return "" if np.isnan(p_value) else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_score(value: float, low: float, high: float, sign: str = "") -> str:
    """``value [low, high]``, or the value alone where there is no interval."""
    interval = "" if np.isnan(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{value:{sign}.3f}{interval}"


def format_scores(table: pandas.DataFrame) -> pandas.DataFrame:
    """A table with a column ``p_value``, such as that of `score`, to read."""
    return table.round(3).assign(p_value=table["p_value"].map(format_p))


def describe_group(n_subjects: int) -> str:
    """What so few people allow to say about others; empty for five and more."""
    people = "1 subject" if n_subjects == 1 else f"{n_subjects} subjects"
    if n_subjects < 3:
        return f"{people}: no interval to speak of"
    return f"{people}: the interval rests on few" if n_subjects < 5 else ""


def recall_by_class(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]
) -> pandas.DataFrame:
    """Share of each class's trials that were named rightly.

    A row per class: ``class, recall, chance, n, low, high``; NaN where it has no trial. Chance is
    the share of all trials that were named so: a class that is always named has recall 1.
    """
    counts = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    right, n = counts.diagonal(), counts.sum(axis=1)
    table = {"class": class_names, "recall": right / np.where(n, n, np.nan)}
    table |= {"chance": counts.sum(axis=0) / len(labels), "n": n}
    table["low"], table["high"] = proportion_interval(right, np.where(n, n, np.nan))
    return pandas.DataFrame(table)


def score_table(
    scores: Mapping[str, pandas.DataFrame], titles: Mapping[str, str] | None = None
) -> pandas.DataFrame:
    """Scores of one subject in the layout of the paper's Table 1.

    Takes for each method its table of `score`, for the same trials, and the names to print. Each
    cell reads ``value [low, high]``; ``p`` is the exact test of top-1 accuracy against chance;
    balanced accuracy and AUC have their own.
    """
    rows = {}
    for method, table in scores.items():
        p = table.set_index("metric")["p_value"].map(format_p)
        cells = {r.metric: format_score(r.value, r.low, r.high) for r in table.itertuples()}
        cells |= {"n": str(table["n"].iloc[0]), "p": p["top-1"]}
        cells |= {f"p ({name})": p[name] for name in ("balanced accuracy", "AUC") if name in p}
        rows[(titles or {}).get(method, method)] = cells
    first = next(iter(scores.values()))
    rows["chance"] = {r.metric: f"{r.chance:.3f}" for r in first.itertuples()}
    return pandas.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("method")


def pair_table(
    predictions: Mapping[str, np.ndarray],
    labels: np.ndarray,
    titles: Mapping[str, str] | None = None,
    **options: Any,
) -> pandas.DataFrame:
    """Difference in top-1 accuracy of each method from a reference, on the same trials.

    Takes the probabilities of each, shape (n_trials, n_classes); the reference is
    ``distillation_stft`` or, without it, the last. Other arguments as in `paired_difference` and
    `score_table`. Where classes are `unequal`, balanced accuracies are compared.
    """
    ours = "distillation_stft"
    reference = ours if ours in predictions else list(predictions)[-1]
    titles, balanced = titles or {}, unequal(labels)
    rows, p_values = {}, []
    for method in [method for method in predictions if method != reference]:
        both = predictions[reference], predictions[method]
        pair = paired_difference(*both, labels, balanced=balanced, **options)
        cell = format_score(pair["difference"], pair["low"], pair["high"], "+")
        name = f"{titles.get(reference, reference)} minus {titles.get(method, method)}"
        rows[name] = cell, pair["n"], format_p(pair["p_value"])
        p_values.append(pair["p_value"])
    difference = f"difference [{100 * options.get('confidence', 0.95):.0f}% interval]"
    table = pandas.DataFrame.from_dict(rows, orient="index", columns=[difference, "n", "p"])
    table["p (Holm)"] = [format_p(p_value) for p_value in holm(p_values)]
    return table.rename_axis("balanced accuracy" if balanced else "top-1 accuracy")


def attendance(subjects: Sequence[int], finished: Mapping[str, Sequence[int]]) -> pandas.DataFrame:
    """Which subjects finished which chapters; those who did not are missing from the group.

    A row per subject, a column per chapter; of more than 40 subjects the complete share one row.
    """
    index = pandas.Index(subjects, name="subject")
    table = pandas.DataFrame({name: index.isin(own) for name, own in finished.items()}, index)
    complete = table.all(axis=1)
    table = table.replace({True: "finished", False: "missing"})
    if len(table) > 40:
        together = pandas.DataFrame("finished", [f"{complete.sum()} subjects"], table.columns)
        table = pandas.concat([together, table[~complete]]).rename_axis("subject")
    return table


def subject_scores(results: Mapping[int, object]) -> pandas.DataFrame:
    """Scores of ``chapter.results(name)`` in one table, with the subject of each."""
    return pandas.DataFrame(
        [{"subject": s, **dict(row)} for s, metrics in results.items() for row in metrics.scores]
    )


def summarize_methods(scores: pandas.DataFrame, confidence: float = 0.95) -> pandas.DataFrame:
    """Mean and standard deviation over subjects for every method, as in the paper's Table 1.

    Takes `subject_scores`. Gives, per method and metric that all its subjects have, ``method,
    metric, value`` (the mean)``, sd, chance, n_subjects, n`` (trials in all)``, low, high``, by
    Student's t: NaN for one or two people, who say next to nothing; ``sd`` is that of a sample.
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
    n, mean = summary["n_subjects"], summary["value"]
    reach = stats.t.ppf((1 + confidence) / 2, n - 1) * (summary["sd"] / np.sqrt(n)).where(n > 2)
    summary["low"] = (mean - reach).clip(lower=np.where(summary["chance"] > 0, 0, -1))
    summary["high"] = (mean + reach).clip(upper=1)
    of_method = scores.groupby("method")["subject"].nunique()
    everybody = of_method[summary.index.get_level_values("method")].to_numpy()
    return summary[summary["n_subjects"] == everybody].reset_index()


def group_table(summary: pandas.DataFrame, titles: Mapping[str, str]) -> pandas.DataFrame:
    """Mean (SD) over subjects, in the layout of the paper's Table 1, with chance as last row."""
    counts = summary.drop_duplicates("method").set_index("method")[["n_subjects", "n"]].astype(str)
    table = _means(summary).assign(subjects=counts["n_subjects"], trials=counts["n"])
    chance = summary.drop_duplicates("metric").set_index("metric")["chance"]
    table = table.rename(index=titles)
    table.loc["chance"] = chance.map("{:.4f}".format)
    return table.fillna("")


TABLE_1 = pandas.read_csv(Path(__file__).with_name("table_1.csv"), index_col="method")
"""Mean (SD) over six subjects: the paper's Table 1."""


def published_beside(summary: pandas.DataFrame, titles: Mapping[str, str]) -> pandas.DataFrame:
    """Our means of `summarize_methods` beside those of `TABLE_1`; for the paper's own data only."""
    both = {"ours": _means(summary), "paper": TABLE_1}
    table = pandas.concat(both, axis=1, join="inner").swaplevel(axis=1)
    columns = pandas.MultiIndex.from_product([TABLE_1.columns, both])
    return table.reindex(columns=columns).fillna("").rename(index=titles)


def _means(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Mean (SD), to read: a row per method, a column per metric, in the order of the summary."""
    sd = np.where(summary["sd"].isna(), "", summary["sd"].map(" ({:.4f})".format))
    cells = summary.assign(cell=summary["value"].map("{:.4f}".format) + sd)
    table = cells.pivot(index="method", columns="metric", values="cell")
    ordered = table.loc[summary["method"].unique(), summary["metric"].unique()]
    return ordered.rename_axis(columns=None)


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    n_trials, n_classes = probabilities.shape
    if len(labels) != n_trials or not set(labels) <= set(range(n_classes)):
        raise ValueError(f"{n_trials} trials need labels from 0 to {n_classes - 1}, got {labels}.")
    if not (np.abs(probabilities.sum(axis=1) - 1).max() < 1e-3 and probabilities.min() >= 0):
        text = "Probabilities must be finite, not negative, and sum to 1 for each trial"
        raise ValueError(f"{text}. Did training diverge? Of logits, take the softmax first.")
    return probabilities


def _hits(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Whether the true class is among the k most probable, for each k."""
    ranks = stats.rankdata(-probabilities, method="ordinal", axis=1)
    rank = ranks[np.arange(len(labels)), labels]
    return {f"top-{k}": rank <= k for k in (1, 3, 5) if k < probabilities.shape[1]}


def _agreement(names, probabilities, true, weights) -> np.ndarray:
    """Scores by name, (n_names, ...), of all trials with weights, (..., n_trials)."""
    n_classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    right = weights * (true == predicted)
    n_true, n_named = (_tally(c, weights, n_classes) for c in (true, predicted))
    n_right, total = _tally(true, right, n_classes), weights.sum(-1)
    scores, occurs = {}, n_true + n_named > 0
    scores["F1"] = (2 * n_right / np.maximum(n_true + n_named, 1)).sum(-1) / occurs.sum(-1)
    scores["balanced accuracy"] = (n_right / np.maximum(n_true, 1)).sum(-1) / (n_true > 0).sum(-1)
    expected = (n_true * n_named).sum(-1) / total**2
    room = np.where(expected < 1 - 1e-12, 1 - expected, np.inf)
    scores["kappa"] = (right.sum(-1) / total - expected) / room
    if "AUC" in names:
        # Share of pairs of both classes in which class 1 got the higher answer; ties count half.
        rank = np.unique(probabilities[:, 1], return_inverse=True)[1]
        zeros, ones = (_tally(rank, weights * (true == c), rank.max() + 1) for c in (0, 1))
        below, pairs = np.cumsum(zeros, axis=-1) - zeros / 2, ones.sum(-1) * zeros.sum(-1)
        shares = (ones * below).sum(-1) / np.maximum(pairs, 1)
        scores["AUC"] = np.where(pairs > 0, shares, 0.5)
    return np.stack([scores[name] for name in names])


def _tally(classes: np.ndarray, weights: np.ndarray, n_classes: int) -> np.ndarray:
    """Weight of each class, (..., n_classes); weights have the shape (..., n_trials)."""
    shape = *weights.shape[:-1], n_classes
    rows = np.arange(np.prod(shape[:-1], dtype=int)).reshape(*shape[:-1], 1)
    places = (rows * n_classes + classes).ravel()
    return np.bincount(places, weights.ravel(), np.prod(shape)).reshape(shape)


def _units(images: Sequence[str] | None, n_trials: int) -> np.ndarray:
    """Number of the image of each trial; of its own where it has no name."""
    names = np.full(n_trials, "") if images is None else np.asarray(images).astype(str)
    own = [f"\0{row}" if name == "" else name for row, name in enumerate(names)]
    return np.unique(own, return_inverse=True)[1]


def _effective_n(hits: np.ndarray, unit: np.ndarray) -> float:
    """Trials over the design effect: as many as there are, at least as many as images."""
    n, sizes, p = len(hits), np.bincount(unit), hits.mean()
    if len(sizes) == n:
        return n
    residuals = np.bincount(unit, hits) - p * sizes
    between = (residuals**2).sum() / max(1, len(sizes) - 1) * len(sizes) / n
    effect = between / (p * (1 - p)) if 0 < p < 1 else n
    return n / np.clip(effect, 1, n / len(sizes))
