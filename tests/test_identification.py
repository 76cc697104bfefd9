"""The particular image: present where it was put in, absent where it was not."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from eeglib.datasets.stimuli import draw_stimulus
from eeglib.reconstruction import identification
from eeglib.reconstruction.identification import (
    find_images,
    identify_within_class,
    made_up_trials,
    noise_whitener,
    predict_deviations,
    trial_features,
    two_way,
)

N_CLASSES, PER_CLASS, N_DIMS, N_FEATURES = 4, 50, 12, 40
LABELS = np.repeat(np.arange(N_CLASSES), PER_CLASS)
IMAGES = np.array([f"{label}_{i}" for i, label in enumerate(LABELS)])
TEST = np.arange(len(LABELS)) % 5 == 0


def recorded(image_share, seed=0):
    """Features of trials: class, drift of the class's block, and the image if share is above 0."""
    rng = np.random.default_rng(seed)
    within = rng.standard_normal((len(LABELS), N_DIMS))
    embeddings = 5 * rng.standard_normal((N_CLASSES, N_DIMS))[LABELS] + within + 20
    block = 3 * rng.standard_normal((N_CLASSES, N_FEATURES))[LABELS]
    brain = image_share * within @ rng.standard_normal((N_DIMS, N_FEATURES)) / np.sqrt(N_DIMS)
    return block + brain + rng.standard_normal((len(LABELS), N_FEATURES)), embeddings


def around(embeddings, rows=slice(None)):
    means = np.stack([embeddings[rows][LABELS[rows] == c].mean(axis=0) for c in range(N_CLASSES)])
    return embeddings - means[LABELS]


def identified(image_share, seed=0):
    X, Y = recorded(image_share, seed)
    train = ~TEST
    predicted = predict_deviations(
        X[train], Y[train], LABELS[train], IMAGES[train], X[TEST], LABELS[TEST]
    )
    true = around(Y, train)[TEST]
    table = identify_within_class(predicted, true, LABELS[TEST], IMAGES[TEST], 500, seed=seed)
    return table.set_index("metric")


# --- the test -------------------------------------------------------------------------------


def test_two_way_counts_the_images_that_are_farther_and_half_of_ties():
    similarity = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [0.3, 0.1, 0.3]])
    expected = [[1, 0, 0.5], [0.5, 0.5, 0.5], [0.75, 0, 0.75]]
    np.testing.assert_allclose(two_way(similarity), expected)


def test_two_way_of_pairs_by_the_published_formula_and_by_chance():
    rng = np.random.default_rng(3)
    true = rng.standard_normal((30, 50))
    generated = true + 3 * rng.standard_normal((30, 50))
    r = np.corrcoef(true, generated)[:30, 30:]
    published = (r < np.diag(r)).sum(axis=0) / 29
    np.testing.assert_allclose(two_way(r.T).diagonal(), published)
    permuted = [two_way(r.T[rng.permutation(30)]).diagonal().mean() for _ in range(200)]
    error = np.std(permuted) / np.sqrt(200)
    assert np.mean(permuted) == pytest.approx(0.5, abs=4 * error)


def test_perfect_predictions_score_one():
    deviations = around(recorded(1.0)[1])
    table = identify_within_class(2 * deviations, deviations, LABELS, IMAGES)
    assert list(table["value"]) == [1, 1]
    assert list(table["chance"]) == [1 / PER_CLASS, 0.5]
    assert list(table["n"]) == [len(LABELS)] * 2
    assert table["low"].min() > 0.95
    assert list(table["p_value"]) == [1 / 2001] * 2  # the truth is one of the orders that count


def test_class_and_block_are_no_help():
    """Predictions that know the class exactly and the image not at all: chance, and p is 1.

    Every exchange of images is exactly as good as the truth, and must count as such.
    """
    deviations = around(recorded(1.0)[1])
    for same in (np.zeros_like(deviations), np.eye(N_DIMS)[LABELS]):
        table = identify_within_class(same, deviations, LABELS, IMAGES)
        if not same.any():
            assert list(table["value"]) == pytest.approx([1 / PER_CLASS, 0.5])
        assert table["value"][1] == pytest.approx(0.5)
        assert list(table["p_value"]) == [1, 1]


def test_p_values_are_uniform_where_nothing_is_known():
    rng = np.random.default_rng(4)
    labels, images = np.repeat([0, 1, 2], 6), np.arange(18)
    tables = [
        identify_within_class(*rng.standard_normal((2, 18, 5)), labels, images, 200, seed=seed)
        for seed in range(200)
    ]
    p_values = np.array([table["p_value"] for table in tables])
    assert (p_values < 0.05).mean(axis=0) == pytest.approx([0.05, 0.05], abs=0.045)
    assert p_values[:, 1].mean() == pytest.approx(0.5, abs=0.08)


def test_trials_of_one_image_are_averaged_and_counted_once():
    rng = np.random.default_rng(9)
    deviations, rows = around(recorded(1.0)[1]), np.tile(np.arange(len(LABELS)), 8)
    noisy = deviations[rows] + 2 * rng.standard_normal((len(rows), N_DIMS))
    once = identify_within_class(noisy[: len(LABELS)], deviations, LABELS, IMAGES)
    many = identify_within_class(noisy, deviations[rows], LABELS[rows], IMAGES[rows])
    assert (many["n"] == len(LABELS)).all()
    assert many["value"][0] > once["value"][0] + 0.2


def test_classes_of_one_image_have_nothing_to_identify():
    rows = np.eye(3)
    assert identify_within_class(rows, rows, np.arange(3), list("abc")).empty
    table = identify_within_class(rows, rows, np.array([0, 0, 1]), list("abc"))
    assert list(table["n"]) == [2, 2]


# --- the regression -------------------------------------------------------------------------


def test_the_image_is_found_where_it_was_put_in():
    table = identified(1.0)
    top, pairs = table.loc["within-class top-1"], table.loc["within-class two-way"]
    assert top["chance"] == pytest.approx(0.1)
    assert top["n"] == 40
    assert top["low"] > 0.1
    assert pairs["low"] > 0.5
    assert pairs["value"] > 0.7
    assert table["p_value"].max() < 0.01


def test_nothing_is_found_where_nothing_was_put_in():
    """Strong class and drift, no image: p-values must be uniform, not small."""
    tables = [identified(0.0, seed) for seed in range(20)]
    for metric, chance in (("within-class top-1", 0.1), ("within-class two-way", 0.5)):
        values = np.array([t.loc[metric, "value"] for t in tables])
        p_values = np.array([t.loc[metric, "p_value"] for t in tables])
        assert values.mean() == pytest.approx(chance, abs=4 * values.std() / np.sqrt(20))
        assert (p_values < 0.05).sum() <= 4
        assert p_values.mean() > 0.3


def test_folds_do_not_leak_through_the_means_of_classes():
    """Few trials per class: deviations from means that include the fold left out would sum to
    zero with it, and a small penalty would seem to predict it."""
    labels, sizes = np.repeat(np.arange(10), 8), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, Y = rng.standard_normal((80, 400)), rng.standard_normal((80, 6))
        predicted = predict_deviations(X, Y, labels, np.arange(80), X, labels)
        sizes.append(np.sqrt(np.mean(predicted**2)))
    assert np.median(sizes) < 0.3  # a large penalty: nearly nothing is predicted of this noise


def test_trials_of_one_image_stay_in_one_fold():
    """Each image was shown four times and its trials are alike: a trial of an image that trains
    would give the image away that is left out, and a small penalty would seem to predict it."""
    rng = np.random.default_rng(0)
    images, labels = np.repeat(np.arange(40), 4), np.repeat([0, 1], 80)
    X = rng.standard_normal((40, 200))[images] + 0.1 * rng.standard_normal((160, 200))
    Y = rng.standard_normal((40, 5))[images]
    other = rng.standard_normal((40, 200))
    predicted = predict_deviations(X, Y, labels, images, other, labels[::4])
    assert np.sqrt(np.mean(predicted**2)) < 0.2  # of 1: nothing can be said of other images


@pytest.mark.parametrize("n_features", [5, 300])
def test_predictions_are_those_of_ridge_regression(monkeypatch, n_features):
    """More features than trials, or fewer."""
    monkeypatch.setattr(identification, "PENALTIES", np.array([10.0]))
    rng = np.random.default_rng(n_features)
    labels = np.repeat([0, 1], 50)
    X = rng.standard_normal((100, n_features)) + 3 * labels[:, np.newaxis]
    Y = X[:, :3] @ rng.standard_normal((3, 4))
    means = [np.repeat([v[:50].mean(axis=0), v[50:].mean(axis=0)], 50, axis=0) for v in (X, Y)]
    x = (X - means[0]) / (X - means[0]).std(axis=0)
    ridge = Ridge(10.0, fit_intercept=False).fit(x, Y - means[1])
    found = predict_deviations(X, Y, labels, np.arange(100), X, labels)
    np.testing.assert_allclose(found, ridge.predict(x), atol=1e-8)


def test_what_channels_share_is_whitened():
    rng = np.random.default_rng(2)
    mixing, labels = rng.standard_normal((6, 6)), np.repeat([0, 1], 30)
    trials = mixing @ rng.standard_normal((60, 6, 50)) + 9 * labels[:, None, None]
    white = noise_whitener(trials, labels) @ trials
    residual = [white[labels == c] - white[labels == c].mean(axis=0) for c in (0, 1)]
    covariance = np.cov(np.concatenate(residual).swapaxes(1, 2).reshape(-1, 6).T)
    assert covariance == pytest.approx(np.eye(6), abs=0.1)
    trials[:, 0] = 0  # a flat channel
    assert np.isfinite(noise_whitener(trials, labels)).all()


def test_trial_features_hold_means_and_log_power():
    trials = np.zeros((1, 2, 100))
    trials[0, 0, :50] = 3
    trials[0, 1] = 2 * np.sqrt(2) * np.sin(2 * np.pi * 20 * np.arange(100) / 100)
    features = trial_features(trials, sfreq=100, window=0.5)
    assert features.shape == (1, 8)
    means, power = features.reshape(2, 2, 2)
    assert means == pytest.approx(np.array([[3, 0], [0, 0]]), abs=1e-6)
    assert power[0, 0] == pytest.approx(np.log(9))
    assert power[1] == pytest.approx(np.log([4, 4]), abs=1e-5)


# --- trials in which the answer is known ------------------------------------------------------


@pytest.fixture(scope="module")
def drawings():
    labels = np.repeat(np.arange(4), 60)
    pictures = [draw_stimulus(9 * c + 3, i, 16) for i, c in enumerate(labels)]
    pixels = np.stack([np.asarray(picture, dtype=float).ravel() for picture in pictures])
    return pictures, labels, pixels @ np.random.default_rng(0).standard_normal((768, 20))


def found(drawings, image_share, seed):
    pictures, labels, embeddings = drawings
    trials = made_up_trials(pictures, labels, image_share, seed=seed)
    is_test = np.random.default_rng(seed).random(len(labels)) < 0.25
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    names = np.arange(len(labels)).astype(str)
    table = find_images(trials, 200.0, embeddings, labels, names, train, test, seed)
    return table.set_index("metric").loc["within-class two-way"]


def test_the_test_says_yes_where_all_of_the_response_is_the_images_own(drawings):
    pairs = found(drawings, 1.0, seed=1)
    assert pairs["value"] > 0.6
    assert pairs["p_value"] < 0.01


def test_the_test_says_no_where_none_of_the_response_is_the_images_own(drawings):
    """Classes differ as strongly as ever; p-values must be those of chance."""
    pairs = [found(drawings, 0.0, seed) for seed in range(6)]
    assert np.mean([row["value"] for row in pairs]) == pytest.approx(0.5, abs=0.06)
    assert sum(row["p_value"] < 0.05 for row in pairs) <= 1


def test_no_test_image_teaches(drawings):
    """Noise in place of all other test trials changes nothing for the ones that are left."""
    rng = np.random.default_rng(0)
    pictures, labels, embeddings = drawings
    trials, names = made_up_trials(pictures, labels, 1.0), np.arange(len(labels)).astype(str)
    train, test = np.arange(1, 240, 2), np.arange(0, 240, 2)
    kept = test[labels[test] == 0]
    spoiled = trials.copy()
    spoiled[np.setdiff1d(test, kept)] = rng.standard_normal((len(test) - len(kept), 32, 100))
    tables = [
        find_images(data, 200.0, embeddings, labels, names, train, kept)
        for data in (trials, spoiled)
    ]
    assert tables[0].equals(tables[1])
    with pytest.raises(ValueError, match="1 images are in training and test"):
        find_images(trials, 200.0, embeddings, labels, names, [0, 1], [1, 2])
