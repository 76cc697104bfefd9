"""The audit: is each control right where the answer is known?"""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
from scipy import stats

from eeglib import plotting
from eeglib.audit import (
    AuditError,
    AuditTrials,
    audit_trials,
    clock,
    comparisons,
    conclude,
    designs,
    pictures,
    run_audit,
    share,
    worlds,
)
from eeglib.audit.card import AuditCard
from eeglib.audit.control import accuracy_control, difference_interval
from eeglib.audit.phantom import phantom_trials
from eeglib.audit.subject import load_trials, rows_of, save_trials
from eeglib.audit.trials import log_power


def made(labels, blocks=None, order=None, features=None, session=0, images=None, seed=0, **known):
    """Trials of noise (or given features) with a timeline of choice."""
    labels = np.asarray(labels)
    n = len(labels)
    if features is None:
        features = np.random.default_rng(seed).standard_normal((n, 10))
    metadata = pandas.DataFrame(
        {
            "subject": 1,
            "session": session,
            "block": -1 if blocks is None else blocks,
            "order": np.arange(n) if order is None else order,
            "image": [f"i{k}" for k in range(n)] if images is None else images,
            "label": labels,
            "class_name": [f"c{k}" for k in labels],
        }
    )
    return AuditTrials(features, metadata, int(labels.max()) + 1, **known)


def in_blocks(n_classes=8, size=20, **options):
    return made(np.repeat(np.arange(n_classes), size), **options)


def in_random_order(n_classes=4, size=30, seed=0, **options):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(n_classes), size))
    return made(labels, seed=seed, **options)


@pytest.fixture(scope="module")
def four_worlds():
    made_ = {
        world: worlds.simulate_trials(2.0 * s, 2.0 * d, seed=3)[0]
        for world, (s, d) in worlds.WORLDS.items()
    }
    cards = {w: run_audit(t, 1, controls=("clock", "share")) for w, t in made_.items()}
    return made_, cards


# --- the four worlds ------------------------------------------------------------------------


def test_a_drift_in_block_design_is_flagged_and_a_stimulus_is_not(four_worlds):
    found = {world: conclude(card) for world, card in four_worlds[1].items()}
    assert found["neither"].kind == "nothing decoded"
    assert not found["neither"].flagged
    assert found["drift only"].kind == "confounded"
    assert found["drift only"].flagged
    assert found["stimulus only"].kind == "confounded by design"
    assert not found["stimulus only"].flagged
    assert found["both"].flagged
    assert all("pass" not in c.sentence.split() for c in found.values())


def test_the_share_holds_the_truth_in_each_world(four_worlds):
    trials, cards = four_worlds
    truth = worlds.true_share(trials["both"], trials["drift only"], trials["stimulus only"])
    assert 0.3 < truth < 0.9
    for world, true in (("both", truth), ("drift only", 0.0), ("stimulus only", 1.0)):
        found = cards[world].share
        assert found.low <= true <= found.high, world
    assert cards["drift only"].share.high < cards["stimulus only"].share.estimate
    assert cards["neither"].share is None
    assert "chance" in cards["neither"].share_reason


def test_noise_in_many_dimensions_does_not_pass_for_a_stimulus():
    # As many features as trials: an in-sample whitening would find a class in every block.
    rng = np.random.default_rng(0)
    n, p = 300, 250
    drift = np.cumsum(rng.standard_normal((n, p)), axis=0) * 0.06
    trials = in_blocks(10, 30, features=drift + rng.standard_normal((n, p)))
    found = share.share_of_trials(trials)
    assert found.low == 0
    assert found.estimate < 0.35


def test_a_constant_of_each_class_is_all_stimulus():
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((10, 20)).repeat(30, axis=0)
    found = share.share_of_trials(
        in_blocks(10, 30, features=centres + rng.standard_normal((300, 20)))
    )
    assert found.high == 1
    assert found.low > 0.6


def test_the_randomised_world_is_independent_of_time():
    trials, _ = worlds.simulate_trials(2.0, 2.0, "randomized", seed=1)
    card = run_audit(trials, 1, controls=("clock", "comparisons"))
    assert conclude(card).kind == "independent of time"
    assert "the time" in conclude(card).sentence.lower()
    phantom = card.control("phantom_blocks")
    assert phantom.rows[1]["accuracy"] > 0.2  # chance 0.1: the drift decodes as invented classes


# --- designs and splits ---------------------------------------------------------------------


def test_designs_are_told_apart():
    assert designs.design_of(in_blocks()) == "block"
    assert designs.design_of(in_random_order()) == "randomized"
    assert designs.design_of(made(np.tile(np.repeat([0, 1, 2], 10), 2))) == "repeated blocks"
    assert designs.design_of(made([0, 1] * 10, order=np.full(20, -1))) == "unknown"


@pytest.mark.parametrize("gap", [0, 2, 5])
def test_a_gap_in_time_keeps_training_away_from_the_test(gap):
    trials = in_random_order()
    folds = designs.contiguous_folds(trials, gap=gap)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(120))
    for train, test in folds:
        distance = np.abs(trials.order[train][:, None] - trials.order[test])
        assert distance.min() > gap


def test_no_image_is_on_both_sides_of_any_split():
    # Every image four times, in two blocks and two sessions.
    labels = np.tile(np.repeat([0, 1, 2], 8), 2)
    images = [f"c{c}_{k % 8 // 2}" for k, c in enumerate(labels)]
    trials = made(labels, session=np.repeat([0, 1], 24), images=images)
    every = [
        designs.random_folds(trials),
        designs.contiguous_folds(trials, gap=1),
        designs.block_folds(trials),
        designs.session_folds(trials),
    ]
    names = np.array(images)
    for folds in every:
        assert folds
        for train, test in folds:
            assert not set(train) & set(test)
            assert not set(names[train]) & set(names[test])


def test_blocks_and_sessions_are_left_out_whole():
    trials = made(np.tile(np.repeat([0, 1, 2], 8), 2), session=np.repeat([0, 1], 24))
    for train, test in designs.block_folds(trials):
        assert not set(trials.blocks[train]) & set(trials.blocks[test])
    for train, test in designs.session_folds(trials):
        assert not set(trials.session[train]) & set(trials.session[test])
    with pytest.raises(AuditError, match="several blocks each"):
        designs.block_folds(in_blocks())
    with pytest.raises(AuditError, match="1 sessions and no class"):
        designs.session_folds(in_blocks())


def test_matched_folds_train_on_as_many_trials():
    trials = in_blocks(4, 20)
    folds = designs.contiguous_folds(trials, gap=3)
    for (train, _), (other, test) in zip(folds, designs.matched_folds(trials, folds), strict=True):
        assert (np.bincount(trials.labels[train]) == np.bincount(trials.labels[other])).all()
        assert not set(other) & set(test)


def test_less_training_does_not_pass_for_a_clock():
    rng = np.random.default_rng(0)
    centres = 0.6 * rng.standard_normal((8, 40)).repeat(20, axis=0)
    found = [
        clock.temporal_distance(in_blocks(features=centres + rng.standard_normal((160, 40))))
        for _ in range(6)
    ]
    assert np.mean([c.estimate for c in found]) == pytest.approx(0, abs=0.03)


def test_seeds_decide_the_random_split():
    trials = in_blocks()
    one, same, other = (designs.random_folds(trials, seed=s)[0][1] for s in (1, 1, 2))
    assert list(one) == list(same)
    assert list(one) != list(other)
    with pytest.raises(AuditError, match="one image only"):
        designs.random_folds(made([0, 0, 1, 1], images=["a", "b", "c", "c"]))


# --- single controls ------------------------------------------------------------------------


def test_accuracy_has_the_exact_test_and_the_wilson_interval():
    found = accuracy_control(0, "x", "x", np.arange(100) < 20, 0.1, "above", "at")
    expected = stats.binomtest(20, 100, 0.1, alternative="greater")
    assert (found.estimate, found.chance, found.n) == (0.2, 0.1, 100)
    assert found.p_value == expected.pvalue
    assert found.verdict == "above"
    interval = stats.binomtest(20, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == (interval.low, interval.high)


def test_the_interval_of_a_difference_keeps_groups_together():
    rng = np.random.default_rng(0)
    per_group = rng.standard_normal(20).repeat(50)
    _, low, high = difference_interval(per_group, np.zeros(1000), np.arange(20).repeat(50))
    _, narrow, wide = difference_interval(per_group, np.zeros(1000), np.arange(1000))
    assert high - low > 3 * (wide - narrow)


def test_halves_of_a_block_differ_where_the_signal_ramps():
    rng = np.random.default_rng(0)
    noise, centres = rng.standard_normal((320, 4)), 20 * rng.standard_normal((8, 4))
    ramp = np.tile(np.linspace(-4, 4, 40), 8)[:, None] * np.ones(4)
    block = centres.repeat(40, axis=0)
    assert clock.pseudo_class(in_blocks(8, 40, features=ramp + noise + block)).low > 0.65
    still = clock.pseudo_class(in_blocks(8, 40, features=noise + block))
    assert still.low < 0.5 < still.high


def test_errors_on_neighbours_show_a_clock():
    trials = in_blocks()
    distance = np.abs(trials.labels[:, None] - np.arange(8))
    clocked = np.exp(-1.0 * distance)
    found = clock.confusion_distance(trials, clocked / clocked.sum(axis=1, keepdims=True))
    assert found.estimate < -0.7
    assert found.p_value < 0.001
    random = np.random.default_rng(0).dirichlet(np.ones(8), len(distance))
    assert clock.confusion_distance(trials, random).p_value > 0.01
    assert not clock.confusion_distance(in_random_order(), random[:120, :4]).available


def test_confusion_is_fair_to_a_decoder_without_a_clock():
    trials, p_values = in_blocks(), []
    for seed in range(40):
        random = np.random.default_rng(seed).dirichlet(np.ones(8), len(trials.labels))
        p_values.append(clock.confusion_distance(trials, random, seed).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_a_perfect_clock_knows_the_class_in_blocks_only():
    assert clock.label_from_clock(in_blocks()).estimate > 0.9
    p_values = [clock.label_from_clock(in_random_order(seed=s), s).p_value for s in range(40)]
    assert np.mean(np.array(p_values) < 0.05) < 0.15
    unknown = made([0, 1] * 10, order=np.full(20, -1))
    assert "order" in clock.label_from_clock(unknown).reason


def test_invented_blocks_follow_the_order_alone():
    trials = in_random_order()
    invented = phantom_trials(trials, 6)
    assert (np.diff(invented.labels[np.argsort(trials.order)]) >= 0).all()
    assert invented.n_classes == 6
    assert designs.design_of(invented) == "block"
    with pytest.raises(AuditError, match="at most 24"):
        phantom_trials(trials, 40)


def test_invented_blocks_are_decoded_where_there_is_drift_only():
    drift = np.cumsum(np.random.default_rng(0).standard_normal((120, 10)), axis=0) * 0.4
    noise = np.random.default_rng(1).standard_normal((120, 10))
    moving = comparisons.phantom_blocks(in_random_order(features=drift + noise))
    still = comparisons.phantom_blocks(in_random_order(features=noise))
    assert moving.rows[1]["accuracy"] > 0.6
    assert "clock can pass" in moving.verdict
    assert still.rows[1]["accuracy"] < 0.4
    assert "invent blocks in" in comparisons.phantom_blocks(in_blocks()).reason


def test_what_people_share_carries_over_and_a_clock_does_not():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((8, 10)).repeat(20, axis=0)

    def group(common):
        return {
            s: in_blocks(
                features=rng.standard_normal((160, 10))
                + (shared if common else rng.standard_normal((8, 10)).repeat(20, axis=0))
            )
            for s in (1, 2, 3)
        }

    assert all(c.estimate > 0.4 for c in comparisons.across_all_subjects(group(True)).values())
    assert comparisons.across_subjects(group(False), 2).estimate < 0.35
    assert not comparisons.across_subjects({1: in_blocks()}, 1).available
    with pytest.raises(AuditError, match="not among"):
        comparisons.across_subjects({1: in_blocks()}, 5)


def test_permuting_within_blocks_needs_mixed_blocks():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), 30))
    centres = 1.5 * rng.standard_normal((4, 10))[labels]
    trials = made(labels, features=centres + rng.standard_normal((120, 10)))
    found = comparisons.permutation_within_blocks(trials)
    assert found.low > 0.2
    assert found.p_value == pytest.approx(1 / 41)
    assert "holds the clock constant" in comparisons.permutation_within_blocks(in_blocks()).reason


def test_the_image_is_found_within_its_class_only_if_it_drives_the_signal():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((160, 6))
    mixing = rng.standard_normal((6, 10))
    seen = in_blocks(features=image @ mixing + rng.standard_normal((160, 10)))
    found = pictures.image_identification(seen, image)
    assert found.estimate > 0.7
    assert found.p_value < 0.01
    blind = pictures.image_identification(in_blocks(), image)
    assert blind.low < 0.5 < blind.high
    assert "not known" in pictures.image_identification(seen, None).reason


def test_a_drifting_recording_does_not_identify_images():
    trials, features = worlds.simulate_trials(0.0, 3.0, seed=0)
    assert pictures.image_identification(trials, features).p_value > 0.01


def test_drawing_the_class_gives_what_the_accuracy_predicts():
    trials = in_blocks()
    rng = np.random.default_rng(0)
    look = 2 * rng.standard_normal((8, 5)).repeat(20, axis=0) + rng.standard_normal((160, 5))
    guessed = np.where(rng.random(160) < 0.5, trials.labels, rng.integers(0, 8, 160))
    found = pictures.generation_controls(trials, look, guessed)
    assert found.low <= 0 <= found.high
    assert "no further evidence" in found.verdict
    perfect = pictures.generation_controls(trials, look, trials.labels)
    assert perfect.estimate == pytest.approx(0)


def test_all_teachers_are_compared():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 10)).repeat(30, axis=0)
    trials = in_blocks(4, 30, features=centres + rng.standard_normal((120, 10)))
    found = pictures.teacher_controls(trials, 3 * np.eye(4)[trials.labels])
    assert [r["teacher"] for r in found.rows] == [
        "no teacher",
        "teacher",
        "classes exchanged",
        "random vectors",
        "smoothed labels",
    ]
    by_name = {r["teacher"]: r["accuracy"] for r in found.rows}
    assert by_name["no teacher"] > 0.6
    assert by_name["teacher"] > 0.6
    assert not pictures.teacher_controls(trials, None).available


# --- features, files, card ------------------------------------------------------------------


def test_power_is_found_in_the_band_of_a_sinusoid():
    times = np.arange(500) / 500
    tone = np.sin(2 * np.pi * 20 * times)[None, None]
    bands = {"alpha": (8.0, 13.0), "beta": (13.0, 30.0), "low gamma": (30.0, 49.0)}
    power = log_power(tone, 500.0, bands)[0, 0]
    assert power.argmax() == 1
    assert power[1] - np.delete(power, 1).max() > 5


def test_features_say_what_is_wrong_with_their_input():
    metadata = in_blocks().metadata
    with pytest.raises(AuditError, match="trials x channels x times"):
        audit_trials(np.zeros((3, 2, 50)), 100.0, metadata, 8)
    data = np.random.default_rng(0).standard_normal((160, 2, 50))
    with pytest.raises(AuditError, match="must be in 0 to 3"):
        audit_trials(data, 100.0, metadata, 4)
    data[0] = np.nan
    with pytest.raises(AuditError, match="not finite"):
        audit_trials(data, 100.0, metadata, 8)


def test_translation_of_a_share_into_accuracy_has_its_limits():
    assert share.accuracy_of_share(0.4, 1.0, 10) == pytest.approx(0.4, abs=1e-6)
    assert share.accuracy_of_share(0.4, 0.0, 10) == 0.1
    assert 0.1 < share.accuracy_of_share(0.4, 0.3, 10) < 0.4


def test_dimensions_and_intervals_of_known_cases():
    rng = np.random.default_rng(0)
    assert share.effective_dimensions(rng.standard_normal((400, 5))) == pytest.approx(5, rel=0.1)
    line = rng.standard_normal((50, 1)) * np.ones(5)
    assert share.effective_dimensions(line) == pytest.approx(1, abs=0.15)
    assert share.shortest_interval(np.r_[np.zeros(5), 1, np.zeros(4)], 0.95) == (0.5, 0.6)


@pytest.fixture(scope="module")
def full_card():
    trials, features = worlds.simulate_trials(2.0, 2.0, seed=0, broadband=True)
    logits = np.eye(10)[trials.labels] * 4
    return trials, run_audit(trials, 7, image_features=features, teacher_logits=logits)


def test_the_card_survives_json(full_card):
    card = full_card[1]
    again = AuditCard.from_facts(json.loads(json.dumps(card.facts())))
    assert conclude(again) == conclude(card)
    pandas.testing.assert_frame_equal(again.table(), card.table())
    assert {c.number for c in card.controls} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    for control in card.controls:
        assert control.available != bool(control.reason)
        assert control.verdict


def test_every_available_control_has_a_figure(full_card):
    import matplotlib.pyplot as plt

    card = full_card[1]
    for control in [card.headline, *card.controls]:
        if control.available:
            assert plotting.plot_control(control).axes[0].get_title() == control.title
        else:
            with pytest.raises(ValueError, match=control.name):
                plotting.plot_control(control)
    assert len(plotting.plot_card(card).axes) == 2
    plt.close("all")


def test_a_drift_shows_in_every_band_of_the_table(full_card):
    rows = {r["features"]: r["accuracy"] for r in full_card[1].control("power_and_mean").rows}
    assert set(rows) >= {"power", "mean", "delta", "alpha", "beta", "high gamma"}
    assert rows["beta"] > 0.2
    assert rows["mean"] > 0.5


def test_unknown_controls_and_names_are_refused(full_card):
    with pytest.raises(AuditError, match="there are clock"):
        run_audit(full_card[0], 1, controls=("clocks",))
    with pytest.raises(KeyError, match="It holds"):
        full_card[1].control("nothing")


def test_without_an_order_nobody_can_tell():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    centres = rng.standard_normal((4, 10))[labels]
    trials = made(labels, order=np.full(120, -1), features=centres + rng.normal(size=(120, 10)))
    card = run_audit(trials, 1, controls=("clock", "comparisons", "share"))
    assert conclude(card).kind == "unknown"
    assert "nobody can say" in conclude(card).sentence
    assert not card.control("pseudo_class").available


def test_trials_survive_their_file(full_card, tmp_path):
    trials = full_card[0]
    save_trials(trials, tmp_path / "t.npz")
    again = load_trials(tmp_path / "t.npz")
    assert (again.features == trials.features).all()
    assert again.n_classes == 10
    assert list(again.bands) == list(trials.bands)
    assert list(again.windows) == list(trials.windows)
    assert (again.metadata["image"] == trials.metadata["image"]).all()
    (tmp_path / "broken.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:1000])
    for name in ("broken.npz", "none.npz"):
        with pytest.raises(AuditError, match="cannot be read"):
            load_trials(tmp_path / name)


def test_answers_of_the_network_find_their_trials():
    from eeglib.chapter import Predictions

    trials = in_blocks()
    asked = trials.metadata.iloc[[5, 90, 33]].reset_index(drop=True)
    found = rows_of(Predictions(np.zeros((3, 8)), asked, []), trials.metadata)
    assert list(found) == [5, 90, 33]
    with pytest.raises(AuditError, match="chapter 5"):
        rows_of(Predictions(np.zeros((3, 8)), asked.assign(image="x"), []), trials.metadata)


def test_the_network_is_audited_by_its_answers():
    from eeglib.audit.student import StudentAnswers, student_controls

    trials = in_blocks()
    rows = np.arange(0, 160, 4)
    distance = np.abs(trials.labels[rows][:, None] - np.arange(8))
    found = student_controls(trials, StudentAnswers("cnn_stft", rows, np.exp(-distance)))
    assert found[0].estimate == 1
    assert found[0].n == 40
    assert found[1].name == "student_confusion"
    assert found[1].p_value < 0.01


def test_a_retrained_network_is_set_beside_itself():
    from eeglib.audit.decoders import discriminant
    from eeglib.audit.student import retrained_controls

    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((4, 10))
    labels = rng.permutation(np.repeat(np.arange(4), 30))
    images = centres[labels] + rng.standard_normal((120, 10))
    temporal, phantom = retrained_controls(made(labels), images, discriminant)
    assert temporal.low <= 0 <= temporal.high
    assert phantom.low > 0.3
    block = retrained_controls(in_blocks(), rng.normal(size=(160, 10)), discriminant)
    assert not block[1].available
