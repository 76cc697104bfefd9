"""Scores against scikit-learn and by hand, coverage of intervals, refusals; tables by hand."""

from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from scipy import special, stats
from sklearn import metrics

from eeglib import evaluation
from eeglib.evaluation import (
    TABLE_1,
    paired_difference,
    recall_by_class,
    score,
    summarize_methods,
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
    assert list(table["chance"]) == [0.1, 0.3, 0.5, 0.1, 0.0]
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


def test_of_unequal_classes_chance_is_naming_the_commonest():
    labels = np.repeat([3, 0, 1], [80, 15, 5])  # nothing of class 2
    table = score(np.tile([0.1, 0.1, 0.1, 0.7], (100, 1)), labels)
    top = row(table, "top-1")
    assert top["value"] == top["chance"] == 0.8
    assert top["p_value"] > 0.4
    assert row(table, "top-3")["chance"] == 1
    assert row(table, "F1")["chance"] == pytest.approx(1 / 3)
    recall = recall_by_class(labels, np.full(100, 3), list("abcd"))
    assert (recall["chance"] == 0.8).all()


def test_seeds_both_ways():
    data = predictions()
    pandas.testing.assert_frame_equal(score(*data, seed=1), score(*data, seed=1))
    assert not score(*data, seed=1)["low"].equals(score(*data, seed=2)["low"])


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (np.full((3, 4), 0.5), [0, 1, 2], "sum to 1"),
        (np.full((3, 4), np.nan), [0, 1, 2], "finite"),
        ([[1.5, -0.5]], [0], "negative"),
        (np.full((3, 4), 0.25), [0, 1, -1], "labels from 0 to 3"),
        (np.full((3, 4), 0.25), [0, 1, 4], "labels from 0 to 3"),
        (np.full((3, 4), 0.25), [0, 1], "3 trials need labels"),
    ],
)
def test_unusable_predictions_are_refused(probabilities, labels, words):
    with pytest.raises(ValueError, match=words):
        score(probabilities, np.asarray(labels))


def test_difference_of_a_method_with_itself_is_nothing():
    probabilities, labels = predictions()
    pair = paired_difference(probabilities, probabilities, labels, n_bootstrap=200)
    assert pair == {"difference": 0, "n": 200, "low": 0, "high": 0, "p_value": 1}


def test_difference_is_that_of_the_scores_and_found_when_it_is_there():
    (strong, labels), (weak, _) = predictions(strength=3), predictions(strength=0.5, seed=1)
    pair = paired_difference(strong, weak, labels)
    a, b = (row(score(p, labels), "top-1")["value"] for p in (strong, weak))
    assert pair["difference"] == pytest.approx(a - b)
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert pair["p_value"] < 0.01
    gains = np.where(np.arange(200) < 150, 1.0, 0.0)  # one is right 150 times, the other never
    right, wrong = np.eye(2)[np.zeros(200, dtype=int)], np.eye(2)[np.ones(200, dtype=int)]
    mixed = np.where(gains[:, np.newaxis] > 0, right, wrong)
    pair = paired_difference(mixed, wrong, np.zeros(200, dtype=int), n_bootstrap=4000)
    assert pair["high"] - pair["low"] == pytest.approx(2 * 1.96 * np.std(gains) / 200**0.5, rel=0.1)


def test_permutation_of_pairs_agrees_with_the_exact_sign_test():
    (one, labels), (two, _) = predictions(strength=1.2), predictions(strength=0.8, seed=1)
    pair = paired_difference(one, two, labels, n_bootstrap=20000)
    right = [p.argmax(axis=1) == labels for p in (one, two)]
    only_one, only_two = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    exact = stats.binomtest(only_one, only_one + only_two).pvalue
    assert pair["p_value"] == pytest.approx(exact, abs=0.02)
    assert pair["p_value"] == paired_difference(two, one, labels, n_bootstrap=20000)["p_value"]


def scores(subjects=(1, 2, 3)):
    tables = [
        score(*predictions(seed=s), n_bootstrap=100).assign(method="lstm", subject=s)
        for s in subjects
    ]
    return pandas.concat(tables)


def test_summary_over_subjects():
    summary = summarize_methods(scores()).set_index("metric")
    values = scores().groupby("metric").get_group("top-1")["value"]
    top = summary.loc["top-1"]
    assert top["value"] == pytest.approx(np.mean(values))
    assert top["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (top["n"], top["n_subjects"], top["chance"]) == (600, 3, pytest.approx(0.1))
    draws = np.random.default_rng(1).choice(values, (20000, 3)).mean(axis=1)
    expected = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose([top["low"], top["high"]], expected, atol=0.005)
    narrow = summarize_methods(scores(), confidence=0.6).set_index("metric").loc["top-1"]
    assert narrow["high"] - narrow["low"] < top["high"] - top["low"]


def test_a_metric_that_a_subject_lacks_is_left_out():
    table = scores()
    lacking = table[(table["metric"] != "top-5") | (table["subject"] != 2)]
    assert list(summarize_methods(lacking)["metric"]) == ["top-1", "top-3", "F1", "kappa"]


def test_one_subject_has_no_spread_and_none_is_an_error():
    summary = summarize_methods(scores([1]))
    assert summary[["sd", "low", "high"]].isna().all(axis=None)
    assert "(" not in evaluation.group_table(summary, {}).loc["lstm", "top-1"]
    with pytest.raises(ValueError, match="no subjects"):
        summarize_methods(pandas.DataFrame())


def test_recall_of_each_class_by_hand():
    table = recall_by_class(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 0]), list("abc"))
    assert table["recall"].tolist()[:2] == [0.75, 0.0]
    assert np.isnan(table["recall"].iloc[2])
    assert table["n"].tolist() == [4, 2, 0]
    assert table["chance"].tolist() == pytest.approx([2 / 3] * 3)
    assert 0.3 < table["low"].iloc[0] < 0.31  # Wilson, 3 of 4
    assert table["low"].iloc[1] == pytest.approx(0, abs=1e-12)
    assert table["high"].iloc[1] > 0.5


# --- tables ---------------------------------------------------------------------------------


def test_every_score_stands_with_interval_chance_n_and_test():
    labels = np.arange(20) % 4
    table = evaluation.score_table({"lstm": score(np.eye(4)[labels], labels, 50)}, {"lstm": "LSTM"})
    assert table.loc["LSTM", "top-1"] == "1.000 [1.000, 1.000]"
    assert table.loc["LSTM", "n"] == "20"
    assert float(table.loc["LSTM", "p"]) == float(f"{0.25**20:.2g}")
    assert table.loc["chance", "top-3"] == "0.750"
    assert table.loc["chance", "n"] == ""


def test_pairs_are_made_with_distillation_on_stft():
    labels = np.arange(20) % 2
    right = np.eye(2)[labels]
    predictions = {"distillation_stft": right, "lstm": 1 - right, "best": right}
    table = evaluation.pair_table(predictions, labels, 50, titles={"lstm": "LSTM"})
    assert list(table.index) == ["distillation_stft minus LSTM", "distillation_stft minus best"]
    assert table.iloc[0].tolist() == ["+1.000 [+1.000, +1.000]", 20, "0.020"]
    del predictions["distillation_stft"]
    table = evaluation.pair_table(predictions, labels, 50, confidence=0.9)
    assert list(table.index) == ["best minus lstm"]
    assert list(table.columns) == ["difference [90% interval]", "n", "p"]


def test_attendance_says_who_is_missing_and_of_many_subjects_only_they_have_rows():
    table = evaluation.attendance([1, 2], {"05": [1, 2], "06": [2]})
    assert table.to_dict("index") == {
        1: {"05": "finished", "06": "missing"},
        2: {"05": "finished", "06": "finished"},
    }
    table = evaluation.attendance(range(1, 61), {"05": range(1, 60)})
    assert table["05"].to_dict() == {"59 subjects": "finished", 60: "missing"}
    assert len(evaluation.attendance(range(1, 41), {"05": range(1, 41)})) == 40


def test_the_group_table_and_the_papers_figures_beside_it():
    results = {
        s: SimpleNamespace(scores=scores([s]).drop(columns="subject").to_dict("records"))
        for s in (1, 2)
    }
    summary = summarize_methods(evaluation.subject_scores(results))
    top = summary.set_index("metric").loc["top-1"]
    ours = f"{top['value']:.4f} ({top['sd']:.4f})"
    table = evaluation.group_table(summary, {"lstm": "LSTM"})
    assert table.loc["LSTM"].tolist()[::5] == [ours, "2"]
    assert table.loc["LSTM", "trials"] == "400"
    assert table.loc["chance", "top-3"] == "0.3000"
    summary = pandas.concat([summary, summary.assign(method="not in the paper")])
    table = evaluation.published_beside(summary, {"lstm": "LSTM"})
    assert list(table.index) == ["LSTM"]
    assert table.loc["LSTM", ("top-1", "ours")] == ours
    assert table.loc["LSTM", ("top-5", "paper")] == "0.8868 (0.1030)"


def test_the_published_kappa_is_chance_corrected_accuracy():
    numbers = TABLE_1.apply(lambda column: column.str.split(" ").str[0].astype(float))
    # Of balanced classes it is the accuracy rescaled: a slip in a digit would show.
    expected = (numbers["top-1"] - 1 / 40) / (1 - 1 / 40)
    assert (expected - numbers["kappa"]).abs().max() <= 0.01
