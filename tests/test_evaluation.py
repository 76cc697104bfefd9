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
    top = row(score(probabilities, labels), "top-1")
    hits = round(top["value"] * 400)
    assert top["p_value"] == pytest.approx(
        stats.binomtest(hits, 400, 0.1, alternative="greater").pvalue
    )
    wilson = stats.binomtest(hits, 400).proportion_ci(method="wilson")
    assert (top["low"], top["high"]) == pytest.approx(tuple(wilson))


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
    assert (perfect["high"] == 1).all()
    assert perfect["low"].tolist() == pytest.approx([40 / (40 + 1.96**2)] * 4, abs=1e-3)
    assert list(perfect.index) == ["top-1", "top-3", "F1", "kappa"]
    constant = score(np.full((40, 4), 0.25), labels).set_index("metric")
    assert constant.loc["top-1", "value"] == 0.25
    assert constant.loc["top-3", "value"] == 0.75
    assert constant.loc["kappa", "value"] == 0
    assert constant.loc["kappa", "low"] < 0 < constant.loc["kappa", "high"]
    alone = score(np.eye(2)[np.zeros(5, dtype=int)], np.zeros(5, dtype=int))
    assert row(alone, "kappa")["value"] == 0
    eight = score(np.eye(2)[np.arange(8) % 2], np.arange(8) % 2)
    assert eight["low"].between(0.6, 0.7).all()
    assert eight["p_value"].max() < 0.05
    one = score(np.eye(2)[[0]], np.array([0]))
    assert (one["low"] < one["high"]).all()


def test_of_unequal_classes_chance_is_naming_the_commonest():
    labels = np.repeat([3, 0, 1], [80, 15, 5])  # nothing of class 2
    table = score(np.tile([0.1, 0.1, 0.1, 0.7], (100, 1)), labels)
    top = row(table, "top-1")
    assert top["value"] == top["chance"] == 0.8
    assert top["p_value"] > 0.4
    # Top-3 of three classes that occur says nothing; the balanced accuracy says what top-1 hides.
    assert list(table["metric"]) == ["top-1", "F1", "kappa", "balanced accuracy"]
    assert row(table, "F1")["chance"] == pytest.approx(1 / 3)
    balanced = row(table, "balanced accuracy")
    assert balanced["value"] == balanced["chance"] == pytest.approx(1 / 3)
    assert balanced["p_value"] == 1
    recall = recall_by_class(labels, np.full(100, 3), list("abcd"))
    assert recall["recall"].tolist()[3] == recall["chance"].tolist()[3] == 1


def oddball(n_trials=300, strength=0.0, seed=0):
    """Probabilities of a decoder that knows that targets are rare, and knows some of them."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n_trials) < 0.16).astype(int)
    target = special.expit(rng.standard_normal(n_trials) + strength * labels - 1.7)
    return np.stack([1 - target, target], axis=1), labels


def test_of_two_unequal_classes_the_area_under_the_curve_sees_what_top_1_does_not():
    probabilities, labels = oddball(strength=1.5)
    table = score(probabilities, labels)
    assert list(table["metric"]) == ["top-1", "F1", "kappa", "balanced accuracy", "AUC"]
    area = row(table, "AUC")
    assert area["value"] == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))
    assert area["low"] > area["chance"] == 0.5
    assert area["p_value"] < 0.01
    assert row(table, "top-1")["p_value"] > 0.05
    beside = evaluation.score_table({"one": table}).loc["one"]
    assert beside["p (AUC)"] == "< 0.001"
    assert float(beside["p"]) > 0.05
    assert row(table, "balanced accuracy")["value"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    )
    rounded = probabilities.round(1)
    assert row(score(rounded, labels, 50), "AUC")["value"] == pytest.approx(
        metrics.roc_auc_score(labels, rounded[:, 1])
    )
    p_values = [row(score(*oddball(seed=s), 200), "AUC")["p_value"] for s in range(60)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_pairs_of_unequal_classes_compare_balanced_accuracies():
    probabilities, labels = oddball(strength=1.5)
    always = np.tile([0.9, 0.1], (len(labels), 1))
    table = evaluation.pair_table({"always": always, "decoder": probabilities}, labels)
    assert table.index.name == "balanced accuracy"
    cell, n, *_ = table.iloc[0]
    gain = metrics.balanced_accuracy_score(labels, probabilities.argmax(axis=1)) - 0.5
    assert (cell[:6], n) == (f"{gain:+.3f}", len(labels))


def test_trials_of_one_image_are_no_independent_witnesses():
    rng, chosen = np.random.default_rng(0), []
    labels, images = np.repeat(np.arange(50) % 10, 4), np.repeat([f"n{i}" for i in range(50)], 4)
    for _ in range(200):  # what is said depends on the image alone
        probabilities = np.eye(10)[np.repeat(rng.integers(0, 10, 50), 4)]
        tables = [score(probabilities, labels, 60, images=i) for i in (images, [""] * 200)]
        chosen.append([row(table, "top-1")["p_value"] < 0.05 for table in tables])
    by_image, by_trial = np.mean(chosen, axis=0)
    assert by_image < 0.08 < 0.12 < by_trial
    widths = [t["high"] - t["low"] for t in tables]
    assert (widths[0] > 1.5 * widths[1]).all()
    pairs = [
        paired_difference(probabilities, np.roll(probabilities, 4, axis=0), labels, images=i)
        for i in (images, None)
    ]
    assert np.ptp([p["difference"] for p in pairs]) == pytest.approx(0)
    assert pairs[0]["high"] - pairs[0]["low"] > 1.3 * (pairs[1]["high"] - pairs[1]["low"])
    # Repetitions that answer each for itself are worth nearly as much as single images.
    independent, _ = predictions(200)
    tables = [score(independent, labels, 60, images=i) for i in (images, None)]
    assert row(tables[0], "top-1")["low"] == pytest.approx(row(tables[1], "top-1")["low"], abs=0.03)


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
    assert (pair["difference"], pair["n"], pair["p_value"]) == (0, 200, 1)
    # Nothing differed in 200 trials: in 2% of all it may.
    assert -pair["low"] == pair["high"] == pytest.approx(1.96**2 / (200 + 1.96**2), abs=1e-3)


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
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (top["low"], top["high"]) == pytest.approx(tuple(expected))
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
    assert summarize_methods(scores([1, 2]))[["low", "high"]].isna().all(axis=None)
    assert evaluation.describe_group(2) == "2 subjects: no interval to speak of"
    assert evaluation.describe_group(1).startswith("1 subject:")
    assert evaluation.describe_group(4)
    assert not evaluation.describe_group(6)
    with pytest.raises(ValueError, match="no subjects"):
        summarize_methods(pandas.DataFrame())


def test_intervals_over_subjects_hold_the_mean_of_all_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for n in (3, 6):
        groups = {"method": np.repeat(range(2000), n), "subject": np.tile(range(n), 2000)}
        values = rng.normal(scale=0.1, size=2000 * n)
        table = pandas.DataFrame(
            {**groups, "value": values, "metric": "kappa", "chance": 0, "n": 1}
        )
        summary = summarize_methods(table)
        assert 0.935 < np.mean((summary["low"] < 0) & (summary["high"] > 0)) < 0.965


def test_no_score_leaves_the_range_that_it_can_have():
    values = pandas.DataFrame({"subject": [1, 2, 3], "value": [0.1, 0.9, 0.99], "n": 10})
    values = pandas.concat(
        values.assign(method="x", metric=m, chance=c) for m, c in (("top-1", 0.5), ("kappa", 0.0))
    )
    table = summarize_methods(values).set_index("metric")
    assert table.loc["top-1", ["low", "high"]].tolist() == [0, 1]
    assert table.loc["kappa", "low"] < 0


def test_p_values_are_read_alike_and_never_zero():
    words = [evaluation.format_p(p) for p in (0, 1 / 2001, 0.0012, 0.0364, 1, np.nan)]
    assert words == ["< 0.001", "< 0.001", "0.001", "0.036", "1.000", ""]
    table = evaluation.format_scores(score(*predictions(strength=3)))
    assert (table["p_value"] == "< 0.001").all()


def test_p_values_are_corrected_for_their_number():
    np.testing.assert_allclose(evaluation.holm([0.04, 0.01, 0.03, 0.5]), [0.09, 0.04, 0.09, 0.5])
    assert evaluation.holm([0.036]).tolist() == [0.036]
    assert evaluation.holm([0.9, 0.8]).tolist() == [1, 1]


def test_recall_of_each_class_by_hand():
    table = recall_by_class(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 0]), list("abc"))
    assert table["recall"].tolist()[:2] == [0.75, 0.0]
    assert np.isnan(table["recall"].iloc[2])
    assert table["n"].tolist() == [4, 2, 0]
    assert table["chance"].tolist() == pytest.approx([5 / 6, 1 / 6, 0])  # how often named
    assert 0.3 < table["low"].iloc[0] < 0.31  # Wilson, 3 of 4
    assert table["low"].iloc[1] == pytest.approx(0, abs=1e-12)
    assert table["high"].iloc[1] > 0.5


# --- tables ---------------------------------------------------------------------------------


def test_every_score_stands_with_interval_chance_n_and_test():
    labels = np.arange(20) % 4
    table = evaluation.score_table({"lstm": score(np.eye(4)[labels], labels, 50)}, {"lstm": "LSTM"})
    assert table.loc["LSTM", "top-1"] == table.loc["LSTM", "F1"] == "1.000 [0.839, 1.000]"
    assert table.loc["LSTM", "n"] == "20"
    assert table.loc["LSTM", "p"] == "< 0.001"
    assert table.loc["chance", "top-3"] == "0.750"
    assert table.loc["chance", "n"] == ""


def test_pairs_are_made_with_distillation_on_stft():
    labels = np.arange(20) % 2
    right = np.eye(2)[labels]
    predictions = {"distillation_stft": right, "lstm": 1 - right, "best": right}
    table = evaluation.pair_table(predictions, labels, {"lstm": "LSTM"}, n_bootstrap=50)
    assert list(table.index) == ["distillation_stft minus LSTM", "distillation_stft minus best"]
    assert table.iloc[0].tolist() == ["+1.000 [+0.839, +1.000]", 20, "0.020", "0.039"]
    del predictions["distillation_stft"]
    table = evaluation.pair_table(predictions, labels, n_bootstrap=50, confidence=0.9)
    assert list(table.index) == ["best minus lstm"]
    assert list(table.columns) == ["difference [90% interval]", "n", "p", "p (Holm)"]


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
