"""Scores: against scikit-learn and by hand, coverage of the intervals, refusals."""

import numpy as np
import pandas
import pytest
from scipy import special, stats
from sklearn import metrics

from eeglib.evaluation import (
    confusion,
    paired_difference,
    recall_by_class,
    score,
    summarize_subjects,
)


def predictions(n_trials=200, n_classes=10, strength=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n_trials) % n_classes
    logits = rng.standard_normal((n_trials, n_classes))
    logits[np.arange(n_trials), labels] += strength
    return special.softmax(logits, axis=1), labels


def row(table, metric):
    return table.set_index("metric").loc[metric]


def test_scores_equal_scikit_learn():
    probabilities, labels = predictions()
    table = score(probabilities, labels)
    named = probabilities.argmax(axis=1)
    for k in (1, 3, 5):
        expected = metrics.top_k_accuracy_score(labels, probabilities, k=k)
        assert row(table, f"top-{k}")["value"] == pytest.approx(expected)
    assert row(table, "F1")["value"] == pytest.approx(
        metrics.f1_score(labels, named, average="macro")
    )
    assert row(table, "kappa")["value"] == pytest.approx(metrics.cohen_kappa_score(labels, named))
    assert list(table["chance"]) == pytest.approx([0.1, 0.3, 0.5, 0.1, 0.0])
    assert (table["n"] == 200).all()
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()


def test_exact_test_and_interval_of_accuracy():
    probabilities, labels = predictions(n_trials=400)
    top = row(score(probabilities, labels, n_bootstrap=4000), "top-1")
    hits = round(top["value"] * 400)
    assert top["p_value"] == pytest.approx(
        stats.binomtest(hits, 400, 0.1, alternative="greater").pvalue
    )
    spread = np.sqrt(top["value"] * (1 - top["value"]) / 400)
    assert top["high"] - top["low"] == pytest.approx(2 * 1.96 * spread, rel=0.08)


def test_random_predictions_are_at_chance_and_p_values_are_uniform():
    p_values, covered = [], []
    for seed in range(80):
        table = score(*predictions(strength=0, seed=seed), n_bootstrap=300)
        p_values.append(row(table, "kappa")["p_value"])
        covered.append((table["low"] <= table["chance"]) & (table["chance"] <= table["high"]))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean([c.to_numpy()[[0, 1, 2, 4]] for c in covered]) > 0.88


def test_perfect_and_constant_predictions():
    labels = np.arange(40) % 4
    perfect = score(np.eye(4)[labels], labels).set_index("metric")
    assert (perfect["value"] == 1).all()
    assert list(perfect.index) == ["top-1", "top-3", "F1", "kappa"]
    constant = score(np.full((40, 4), 0.25), labels).set_index("metric")
    assert constant.loc["top-1", "value"] == 0.25
    assert constant.loc["top-3", "value"] == 0.75
    assert constant.loc["kappa", "value"] == 0
    alone = score(np.eye(2)[np.zeros(5, dtype=int)], np.zeros(5, dtype=int))
    assert row(alone, "kappa")["value"] == 0


def test_unequal_classes_are_compared_with_the_commonest():
    labels = np.repeat([0, 1, 2], [80, 10, 10])
    table = score(np.tile([0.8, 0.1, 0.1], (100, 1)), labels, class_shares=[0.8, 0.1, 0.1])
    assert row(table, "top-1")["value"] == row(table, "top-1")["chance"] == 0.8
    assert row(table, "top-1")["p_value"] > 0.4


def test_seeds_both_ways():
    data = predictions()
    pandas.testing.assert_frame_equal(score(*data, seed=1), score(*data, seed=1))
    assert not score(*data, seed=1)["low"].equals(score(*data, seed=2)["low"])


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (np.full((3, 4), 0.5), [0, 1, 2], "sum to 1"),
        (np.full((3, 4), np.nan), [0, 1, 2], "finite"),
        (np.full((3, 4), 0.25), [0, 1, 4], "0 ... 3"),
        (np.full((3, 4), 0.25), [0, 1], "3 predictions but 2"),
        (np.full((3, 4), 0.25), [0.0, 1.0, 2.0], "integers"),
        (np.full((3, 1), 1.0), [0, 0, 0], "2 classes"),
        (np.zeros((0, 4)), np.zeros(0, dtype=int), "at least 1 trial"),
        ([[1.5, -0.5]], [0], "negative"),
    ],
)
def test_unusable_predictions_are_refused(probabilities, labels, words):
    with pytest.raises(ValueError, match=words):
        score(probabilities, np.asarray(labels))


def test_difference_of_a_method_with_itself_is_nothing():
    probabilities, labels = predictions()
    table = paired_difference(probabilities, probabilities, labels, n_bootstrap=200)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table["p_value"] == 1).all()


def test_difference_is_that_of_the_scores_and_found_when_it_is_there():
    (strong, labels), (weak, _) = predictions(strength=3), predictions(strength=0.5, seed=1)
    table = paired_difference(strong, weak, labels).set_index("metric")
    a, b = (score(p, labels).set_index("metric")["value"] for p in (strong, weak))
    np.testing.assert_allclose(table["difference"], a - b, atol=1e-7)
    assert (table["low"] > 0).all()
    assert (table["p_value"] < 0.01).all()


def test_permutation_of_pairs_agrees_with_the_exact_sign_test():
    (one, labels), (two, _) = predictions(strength=1.2), predictions(strength=0.8, seed=1)
    top = paired_difference(one, two, labels, n_bootstrap=20000).set_index("metric").loc["top-1"]
    right = [p.argmax(axis=1) == labels for p in (one, two)]
    only_one, only_two = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    exact = stats.binomtest(only_one, only_one + only_two).pvalue
    assert top["p_value"] == pytest.approx(exact, abs=0.02)


def test_summary_over_subjects():
    tables = {s: score(*predictions(seed=s), n_bootstrap=100) for s in (1, 2, 3)}
    summary = summarize_subjects(tables).set_index("metric")
    values = [row(t, "top-1")["value"] for t in tables.values()]
    assert summary.loc["top-1", "mean"] == pytest.approx(np.mean(values))
    assert summary.loc["top-1", "sd"] == pytest.approx(np.std(values, ddof=1))
    assert summary.loc["top-1", "n"] == 600
    assert summary.loc["top-1", "n_subjects"] == 3
    assert min(values) <= summary.loc["top-1", "low"] <= summary.loc["top-1", "high"] <= max(values)


def test_one_subject_has_no_spread_and_none_is_an_error():
    summary = summarize_subjects([score(*predictions(), n_bootstrap=100)])
    assert summary["sd"].isna().all()
    assert summary["low"].isna().all()
    with pytest.raises(ValueError, match="no subjects"):
        summarize_subjects([])


def test_confusion_counts():
    counts = confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [1, 0, 0]])


def test_recall_of_each_class_by_hand():
    table = recall_by_class(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 0]), list("abc"))
    assert table["recall"].tolist()[:2] == [0.75, 0.0]
    assert np.isnan(table["recall"].iloc[2])
    assert table["n"].tolist() == [4, 2, 0]
    assert table["chance"].tolist() == pytest.approx([1 / 3] * 3)
    assert 0.3 < table["low"].iloc[0] < 0.31  # Wilson, 3 of 4
    assert table["low"].iloc[1] == pytest.approx(0, abs=1e-12)
    assert table["high"].iloc[1] > 0.5
