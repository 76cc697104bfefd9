"""The audit: is each control right where the answer is known?"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas
import pytest
from scipy import stats

from eeglib import plotting
from eeglib.audit import card as cards
from eeglib.audit import controls, decoders, features, share, simulations
from eeglib.audit.card import AuditCard, card_table, conclude, read_cards, report, run_audit
from eeglib.audit.features import AuditTrials, audit_trials


def make_trials(labels, blocks=None, order=None, features=None, session=0, images=None, seed=0):
    """Trials of noise (or given features) with a timeline of choice."""
    labels = np.asarray(labels)
    n = len(labels)
    if features is None:
        features = np.random.default_rng(seed).standard_normal((n, 10))
    metadata = pandas.DataFrame(
        {
            "session": session,
            "block": -1 if blocks is None else blocks,
            "order": np.arange(n) if order is None else order,
            "image": [f"i{k}" for k in range(n)] if images is None else images,
            "label": labels,
        }
    )
    return AuditTrials(features, metadata)


def clustered(labels, spread=1.0, n_features=10):
    """Features of a constant for each class and noise."""
    rng = np.random.default_rng(0)
    centres = spread * rng.standard_normal((max(labels) + 1, n_features))
    return centres[labels] + rng.standard_normal((len(labels), n_features))


def in_blocks(n_classes=8, size=20, **options):
    return make_trials(np.repeat(np.arange(n_classes), size), **options)


def in_random_order(n_classes=4, size=30, seed=0, **options):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(n_classes), size))
    return make_trials(labels, seed=seed, **options)


@pytest.fixture(scope="module")
def four_causes():
    trials = {
        cause: simulations.simulate_trials(*strengths, seed=4)[0]
        for cause, strengths in simulations.CAUSES.items()
    }
    return trials, {c: run_audit(t, 1, controls=("clock", "share")) for c, t in trials.items()}


def test_a_drift_in_block_design_is_flagged_and_a_stimulus_is_not(four_causes):
    found = {cause: conclude(card) for cause, card in four_causes[1].items()}
    assert found["neither"].kind == "nothing decoded"
    assert found["drift only"].kind == "confounded"
    assert found["stimulus only"].kind == "confounded by design"
    assert {cause for cause, c in found.items() if c.flagged} == {"drift only", "both"}


def test_the_share_is_bounded_from_above_and_never_from_below(four_causes):
    bounds = {cause: card.share for cause, card in four_causes[1].items()}
    assert "chance" in bounds.pop("neither").reason
    assert bounds["stimulus only"].high == 1
    for bound in bounds.values():
        assert np.isnan([bound.estimate, bound.low]).all()
        left = [row["bound"] for row in bound.rows]
        assert left == sorted(left, reverse=True)  # a jump at the pauses explains a part of it
        assert left[0] == bound.high
    sentence = conclude(four_causes[1]["drift only"]).sentence
    assert "if nothing jumps at the pauses" in sentence
    assert "the bound has no lower end" in sentence


def test_the_truth_lies_within_the_bound_over_many_simulations():
    block = simulations.benchmark_tables()[0]["block"].set_index("cause")
    for cause in ("drift only", "stimulus only"):
        inside, n = map(int, block.loc[cause, "truth within bound"].split(" of "))
        assert stats.binomtest(inside, n, 0.95, alternative="less").pvalue > 0.01, cause
    assert block.loc["drift only", "a clock"] >= 0.9 * block.loc["drift only", "seeds"]
    assert block.loc["stimulus only", "a clock"] <= 1


def test_noise_in_many_dimensions_does_not_pass_for_a_stimulus():
    # As many features as trials: an in-sample whitening would find a class in every block.
    rng = np.random.default_rng(0)
    n, p = 300, 250
    drift = np.cumsum(rng.standard_normal((n, p)), axis=0) * 0.06
    trials = in_blocks(10, 30, features=drift + rng.standard_normal((n, p)))
    found = share.stimulus_share(trials)
    assert found.high < 0.7


def test_a_randomised_recording_is_independent_of_time():
    trials, _ = simulations.simulate_trials(2.0, 2.0, "randomized", seed=1)
    card = run_audit(trials, 1, controls=("clock", "comparisons"))
    assert conclude(card).kind == "independent of time"
    assert "the time" in conclude(card).sentence.lower()
    phantom = card.control("phantom_blocks")
    assert phantom.rows[1]["accuracy"] > 0.2  # chance 0.1: the drift decodes as invented classes


def test_designs_are_told_apart():
    assert in_blocks().design == "block"
    assert in_random_order().design == "randomized"
    assert make_trials(np.tile(np.repeat([0, 1, 2], 10), 2)).design == "repeated blocks"
    assert make_trials([0, 1] * 10, order=np.full(20, -1)).design == "unknown"


@pytest.mark.parametrize("gap", [0, 2, 5])
def test_a_gap_in_time_keeps_training_away_from_the_test(gap):
    trials = in_random_order()
    folds = decoders.contiguous_folds(trials, gap=gap)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(120))
    for train, test in folds:
        assert np.abs(trials.position[train][:, None] - trials.position[test]).min() > gap


def test_no_image_and_no_session_is_on_both_sides():
    # Every image four times, in two blocks and two sessions.
    labels = np.tile(np.repeat([0, 1, 2], 8), 2)
    images = np.array([f"c{c}_{k % 8 // 2}" for k, c in enumerate(labels)])
    trials = make_trials(labels, session=np.repeat([0, 1], 24), images=images)
    random, other = (decoders.random_folds(trials, seed=s) for s in (0, 1))
    sessions = decoders.group_folds(trials, trials.session)
    for folds in (random, decoders.contiguous_folds(trials, gap=1), sessions):
        assert folds
        for train, test in folds:
            assert not set(train) & set(test)
            assert not set(images[train]) & set(images[test])
    for train, test in sessions:
        assert not set(trials.session[train]) & set(trials.session[test])
    assert list(random[0][1]) != list(other[0][1])
    assert controls.leave_block_out(trials).n == 48
    assert "no class comes back" in controls.leave_block_out(in_blocks()).reason


def test_less_training_does_not_pass_for_a_clock():
    rng = np.random.default_rng(0)
    centres = 0.6 * rng.standard_normal((8, 40)).repeat(20, axis=0)
    found = [
        controls.temporal_distance(in_blocks(features=centres + rng.standard_normal((160, 40))))
        for _ in range(6)
    ]
    assert np.mean([c.estimate for c in found]) == pytest.approx(0, abs=0.03)


def test_accuracy_has_the_exact_test_and_the_wilson_interval():
    labels = np.repeat(np.arange(10), 10)
    predicted = np.where(np.arange(100) % 5 == 0, labels, (labels + 1) % 10)
    found = controls.accuracy_of(predicted, labels)
    assert (found.estimate, found.chance, found.n) == (0.2, 0.1, 100)
    assert found.p_value == stats.binomtest(20, 100, 0.1, alternative="greater").pvalue
    interval = stats.binomtest(20, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_naming_the_commonest_class_is_chance():
    labels = np.repeat([0, 1], [55, 45])
    found = controls.accuracy_of(np.zeros(100, dtype=int), labels)
    assert found.chance == found.estimate == 0.55
    assert found.p_value > 0.4
    # Where classes are very unequal, each counts alike.
    labels = np.repeat([0, 1], [84, 16])
    found = controls.accuracy_of(np.zeros(100, dtype=int), labels)
    assert found.title == "balanced accuracy"
    assert found.estimate == pytest.approx(found.chance) == 0.5
    assert found.p_value > 0.4
    some = np.where(np.arange(100) % 4 == 0, 1 - labels, labels)
    found = controls.accuracy_of(some, labels)
    assert found.estimate == pytest.approx(0.75)
    assert found.p_value < 0.01
    assert 0.6 < found.low < 0.7 < 0.8 < found.high < 0.9


def test_an_oddball_in_random_order_is_never_called_a_clock():
    kinds = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels = (rng.random(400) < 0.16).astype(int)
        drift = np.cumsum(rng.standard_normal((400, 6)), axis=0) * 0.2
        answer = 0.8 * labels[:, None] * np.ones(6)
        trials = make_trials(labels, features=drift + answer + rng.standard_normal((400, 6)))
        card = run_audit(trials, 1, controls=("clock", "comparisons", "share"), seed=seed)
        assert card.control("accuracy").title.startswith("balanced accuracy")
        assert card.control("label_from_clock").estimate == pytest.approx(0.5, abs=0.12)
        assert not conclude(card).flagged
        assert card.design == "randomized"
        kinds.append(conclude(card).kind)
    assert set(kinds) <= {"independent of time", "nothing decoded"}
    assert kinds.count("independent of time") >= 4


def test_the_interval_of_a_null_is_not_printed_as_one_of_the_estimate():
    trials = in_blocks()
    clocked = np.exp(-np.abs(trials.labels[:, None] - np.arange(8)) / 1.0)
    found = controls.confusion_distance(trials, clocked / clocked.sum(axis=1, keepdims=True))
    assert np.isnan([found.low, found.high]).all()
    assert found.estimate < found.null_low < 0 < found.null_high
    assert "by chance" in cards.control_table([found])["95% interval"].iloc[0]


def test_power_alone_is_compared_with_the_audited_decoder_on_the_same_trials():
    labels, rng = np.repeat(np.arange(8), 20), np.random.default_rng(0)
    power = {"power": clustered(labels, 0.5)}
    trials = replace(in_blocks(), spectra=power)
    own = decoders.predict(trials, None, decoders.logistic, power["power"])[1].argmax(axis=1)
    assert "power is enough" in controls.power_and_mean(trials, own).verdict
    better = np.where(rng.random(160) < 0.5, labels, own)
    assert "something finer" in controls.power_and_mean(trials, better).verdict
    rows = np.arange(0, 160, 2)
    assert "something finer" in controls.power_and_mean(trials, better[rows], rows).verdict


def test_the_interval_of_a_difference_keeps_groups_together():
    rng = np.random.default_rng(0)
    per_group = rng.standard_normal(20).repeat(50)
    wide = controls.difference_of(per_group, 0.0, np.arange(20).repeat(50))
    narrow = controls.difference_of(per_group, 0.0, np.arange(1000))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    "decoder", [decoders.discriminant, decoders.logistic, decoders.nearest_mean]
)
def test_no_other_test_trial_and_no_test_label_changes_a_prediction(decoder):
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 20)
    X = rng.standard_normal((80, 6)) + 2 * np.eye(4, 6)[labels]
    train, test = np.arange(60), np.arange(60, 80)
    _, before = decoders.predict(make_trials(labels, features=X), [(train, test)], decoder)
    noise, permuted = X.copy(), labels.copy()
    noise[test[1:]] = 10 * rng.standard_normal((19, 6))
    permuted[test] = rng.permutation(permuted[test])
    _, after = decoders.predict(make_trials(permuted, features=noise), [(train, test)], decoder)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-9)
    noise[train] += rng.standard_normal((60, 6))
    _, other = decoders.predict(make_trials(labels, features=noise), [(train, test)], decoder)
    assert not np.allclose(other[0], before[0])


def test_halves_of_a_block_differ_where_the_signal_ramps():
    rng = np.random.default_rng(0)
    noise, centres = rng.standard_normal((320, 4)), 20 * rng.standard_normal((8, 4))
    ramp = np.tile(np.linspace(-4, 4, 40), 8)[:, None] * np.ones(4)
    block = centres.repeat(40, axis=0)
    assert controls.pseudo_class(in_blocks(8, 40, features=ramp + noise + block)).low > 0.65
    still = controls.pseudo_class(in_blocks(8, 40, features=noise + block))
    assert still.low < 0.5 < still.high


def test_errors_on_neighbours_show_a_clock():
    trials = in_blocks()
    distance = np.abs(trials.labels[:, None] - np.arange(8))
    clocked = np.exp(-1.0 * distance)
    found = controls.confusion_distance(trials, clocked / clocked.sum(axis=1, keepdims=True))
    assert found.estimate < -0.7
    assert found.p_value < 0.001
    random = np.random.default_rng(0).dirichlet(np.ones(8), len(distance))
    assert controls.confusion_distance(trials, random).p_value > 0.01
    assert not controls.confusion_distance(in_random_order(), random[:120, :4]).available


def test_a_perfect_clock_knows_the_class_in_blocks_only():
    assert controls.label_from_clock(in_blocks()).estimate > 0.9
    p_values = [controls.label_from_clock(in_random_order(seed=s), s).p_value for s in range(40)]
    assert np.mean(np.array(p_values) < 0.05) < 0.15
    unknown = make_trials([0, 1] * 10, order=np.full(20, -1))
    assert "order" in controls.label_from_clock(unknown).reason


def test_invented_blocks_are_decoded_where_there_is_drift_only():
    drift = np.cumsum(np.random.default_rng(0).standard_normal((120, 10)), axis=0) * 0.4
    noise = np.random.default_rng(1).standard_normal((120, 10))
    moving = controls.phantom_blocks(in_random_order(features=drift + noise))
    still = controls.phantom_blocks(in_random_order(features=noise))
    assert moving.rows[1]["accuracy"] > 0.6
    assert "clock can pass" in moving.verdict
    assert still.rows[1]["accuracy"] < 0.4
    assert "invent blocks in" in controls.phantom_blocks(in_blocks()).reason


def test_what_people_share_carries_over_and_a_clock_does_not():
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(8), 20)
    shared, *own = rng.standard_normal((4, 8, 10))
    noise = rng.standard_normal((3, 160, 10))
    same = {s: (shared[labels] + noise[s - 1], labels, None) for s in (1, 2, 3)}
    apart = {s: (own[s - 1][labels] + noise[s - 1], labels, None) for s in (1, 2, 3)}
    assert all(controls.across_subjects(same, s).estimate > 0.4 for s in same)
    assert controls.across_subjects(apart, 2).estimate < 0.35
    assert "one subject" in controls.across_subjects({1: same[1]}, 1).reason


def test_subjects_who_saw_one_order_are_not_compared():
    rng, labels = np.random.default_rng(1), np.repeat(np.arange(8), 20)
    fatigue = np.linspace(-2, 2, 160)[:, None]  # nobody answers to a picture, all get tired
    one, several = {}, {}
    for s in (1, 2, 3):
        features = fatigue + rng.standard_normal((160, 10))
        one[s] = features, labels, np.arange(160)
        own = rng.permutation(8)[labels]
        several[s] = features, own, np.arange(160)
    found = controls.across_subjects(one, 1)
    assert found.p_value < 0.001
    assert found.verdict.startswith("not interpretable: all saw much the same order")
    assert "not interpretable" not in controls.across_subjects(several, 1).verdict


def test_permuting_within_blocks_needs_mixed_blocks():
    labels = in_random_order().labels
    found = controls.permutation_within_blocks(make_trials(labels, features=clustered(labels, 1.5)))
    assert found.estimate > found.null_high + 0.2
    assert found.p_value == pytest.approx(1 / 41)
    assert found.n == 48  # two folds of five are tested
    assert "holds the clock constant" in controls.permutation_within_blocks(in_blocks()).reason


def test_the_image_is_found_within_its_class_only_if_it_drives_the_signal():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((160, 6))
    mixing = rng.standard_normal((6, 10))
    seen = in_blocks(features=image @ mixing + rng.standard_normal((160, 10)))
    found = controls.image_identification(seen, image)
    assert found.estimate > 0.7
    assert found.p_value < 0.01
    blind = controls.image_identification(in_blocks(), image)
    assert blind.low < 0.5 < blind.high
    assert "not known" in controls.image_identification(seen, None).reason


def test_a_drifting_recording_does_not_identify_images():
    trials, looks = simulations.simulate_trials(0.0, 3.0, seed=0)
    assert controls.image_identification(trials, looks).p_value > 0.01


def test_drawing_the_class_gives_what_the_accuracy_predicts():
    trials = in_blocks()
    rng = np.random.default_rng(0)
    look = 2 * rng.standard_normal((8, 5)).repeat(20, axis=0) + rng.standard_normal((160, 5))
    guessed = np.where(rng.random(160) < 0.5, trials.labels, rng.integers(0, 8, 160))
    found = controls.generation_controls(trials, look, guessed)
    assert found.low <= 0 <= found.high
    assert "no further evidence" in found.verdict
    perfect = controls.generation_controls(trials, look, trials.labels)
    assert perfect.estimate == pytest.approx(0)
    rows = np.arange(0, 160, 3)
    assert controls.generation_controls(trials, look, guessed[rows], rows).n == len(rows)


def test_covariances_show_what_power_does_not():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    data = rng.standard_normal((120, 6, 100))
    data[:, 1] += np.where(labels == 1, 1, -1)[:, None] * data[:, 0]  # equal power, other sign
    trials = audit_trials(data, 200.0, make_trials(labels).metadata, band=(14.0, 70.0))
    assert controls.accuracy(trials, controls.predict(trials)[1]).estimate > 0.95
    by_power = controls.predict(trials, features=trials.common)[1]
    assert controls.accuracy(trials, by_power).p_value > 0.01
    with pytest.raises(features.AuditError, match="no signal"):
        audit_trials(0 * data, 200.0, trials.metadata, band=(14.0, 70.0))


def test_a_gain_of_all_channels_moves_the_features_as_the_audit_takes_it_to():
    data = np.random.default_rng(0).standard_normal((120, 6, 100))
    both = np.r_[data, 1.1 * data]
    trials = audit_trials(both, 200.0, make_trials(np.repeat([0, 1], 120)).metadata, band=(14, 70))
    first, second = trials.features[:120].mean(axis=0), trials.features[120:].mean(axis=0)
    np.testing.assert_allclose(second - first, np.log(1.1) * trials.gain, atol=1e-6)


def test_power_is_found_in_the_band_of_a_sinusoid():
    times = np.arange(500) / 500
    tone = np.sin(2 * np.pi * 20 * times)[None, None]
    bands = {"alpha": (8.0, 13.0), "beta": (13.0, 30.0), "low gamma": (30.0, 49.0)}
    power = features.log_power(tone, 500.0, bands)[0, 0]
    assert power.argmax() == 1
    assert power[1] - np.delete(power, 1).max() > 5


def test_windows_count_from_the_image_and_not_from_the_start_of_the_trial():
    data = np.random.default_rng(0).standard_normal((160, 2, 440))
    metadata = in_blocks().metadata
    late = audit_trials(data, 1000.0, metadata, band=(14.0, 70.0), tmin=0.02)
    assert list(late.windows)[:3] == ["20", "50", "100"]
    first = np.log(np.mean(data[:, :, :30] ** 2, axis=2))
    np.testing.assert_allclose(late.windows["20"], first, atol=1e-5)
    assert list(audit_trials(data, 1000.0, metadata).windows)[:2] == ["0", "50"]
    after = audit_trials(data, 1000.0, metadata, band=(14.0, 70.0), tmin=0.1)
    assert "50 ms after the image" in controls.time_windows(after).reason


def test_the_onset_becomes_the_time_of_a_trial_where_the_order_is_known():
    metadata = in_blocks().metadata.iloc[[5, 7]]
    trials = pandas.DataFrame({"order": np.arange(160), "onset": 0.5 * np.arange(160)})
    assert list(features.with_time(metadata, trials)["time"]) == [2.5, 3.5]
    unknown = features.with_time(metadata, trials.assign(order=-1))
    assert "time" not in unknown


@pytest.fixture(scope="module")
def full_card():
    trials, looks = simulations.simulate_trials(2.0, 2.0, seed=0)
    rows = np.arange(0, 400, 5)
    answers = np.exp(-np.abs(trials.labels[rows][:, None] - np.arange(10)))
    return trials, run_audit(trials, 7, image_features=looks, claim=(rows, answers), method="clock")


def test_the_card_holds_every_control_and_survives_its_file(full_card):
    card = full_card[1]
    facts = json.loads(json.dumps(card.facts()).replace("NaN", "null"))
    again = AuditCard.from_facts(facts)
    assert conclude(again) == conclude(card)
    pandas.testing.assert_frame_equal(again.table(), card.table())
    pandas.testing.assert_frame_equal(again.verdicts(), card.verdicts())
    assert {c.number for c in card.controls} == set(range(11))  # the ten of the chapter
    for control in card.controls:
        assert control.verdict.startswith("not available") != control.available
    assert (card.control("claim").estimate, card.control("claim").n) == (1, 80)
    assert card.control("claim").title == "accuracy of the clock"
    assert card.control("claim_errors").title == "errors and time, clock"
    assert card.control("generation_controls").n == 80
    assert conclude(card).sentence.startswith("The accuracy is 1.000 (chance 0.100, n = 80)")
    bands = {r["features"]: r["accuracy"] for r in card.control("power_and_mean").rows}
    assert min(bands["beta"], bands["mean"]) > 0.2  # the drift shows in all


def test_a_row_and_the_conclusion_never_contradict_each_other(full_card):
    card = full_card[1]

    def with_p(p_value):
        errors = replace(card.control("confusion_distance"), p_value=p_value)
        quiet = [
            replace(card.control(name), p_value=0.5)
            for name in ("pseudo_class", "temporal_distance", "claim_errors")
        ]
        rest = [card.control("accuracy"), card.control("label_from_clock")]
        of_p = replace(card, controls=[errors, *quiet, *rest])
        steps.append(of_p.verdicts()["a clock?"].to_dict())
        return conclude(of_p)

    steps = []
    seen, sign, none = with_p(0.001), with_p(0.005), with_p(0.06)
    errors, quiet = "5: errors and time, refitted decoder", "3: first or second half of a block"
    assert [of_p[errors] for of_p in steps] == [
        "a clock, p 0.001",
        "a sign, p 0.005",
        "no sign, p 0.060",
    ]
    assert {of_p[quiet] for of_p in steps} == {"no sign, p 0.500"}
    assert {of_p["accuracy of the refitted decoder"] for of_p in steps} == {""}
    assert (seen.kind, seen.flagged) == ("confounded", True)
    assert (sign.kind, sign.flagged) == ("possibly confounded", False)
    assert (none.kind, none.flagged) == ("confounded by design", False)
    assert "a sign of a clock was seen" in sign.sentence
    assert "0.005 (errors and time" in sign.sentence
    assert "below 0.05 it is a sign, below 0.0025 a clock" in sign.sentence


def test_every_control_with_details_has_a_figure(full_card):
    import matplotlib.pyplot as plt

    card = full_card[1]
    for control in card.controls:
        if control.rows:
            assert plotting.plot_control(control).axes[0].get_title() == control.title
    assert len(plotting.plot_card(card).axes) == 2
    plt.close("all")


def test_without_an_order_nobody_can_tell():
    labels = np.repeat(np.arange(4), 30)
    trials = make_trials(labels, order=np.full(120, -1), features=clustered(labels))
    card = run_audit(trials, 1, controls=("clock", "comparisons", "share"))
    assert conclude(card).kind == "unknown"
    assert "nobody can say" in conclude(card).sentence
    assert not card.control("pseudo_class").available


def test_the_subjects_of_a_data_set_are_read_together(full_card, tmp_path):
    trials, card = full_card
    file = tmp_path / "t.npz"
    order = {"labels": trials.labels, "position": trials.position}
    np.savez(file, features=trials.common, **order)
    cards = read_cards({s: card.facts() | {"subject": s} for s in (1, 2)}, {1: file, 2: file})
    assert cards[0].control("across_subjects").estimate > 0.9  # the same person twice
    text = report(cards)
    assert "2 subjects" in text
    assert "design: block" in text
    assert "trained on the other subjects" in text
    assert "not interpretable: all saw much the same order" in text
    assert text.count("| what was seen") == 2
    assert list(card_table(cards).index) == [1, 2]
    assert "run chapter 8" in report([])
