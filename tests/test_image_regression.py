"""The particular image from EEG: present where it was put in, absent where it was not."""

import numpy as np
import pytest

from eeglib.reconstruction.identification import identify_within_class, images_per_class
from eeglib.reconstruction.image_regression import (
    fit_regressor,
    nearest_image,
    noise_whitener,
    predict_within_class,
    trial_features,
)

N_CLASSES, PER_CLASS, N_DIMS, N_FEATURES = 4, 50, 12, 40


def recorded(image_share, seed=0, noise=1.0, drift=3.0):
    """Features of trials: class, drift of the class's block, and the image if share is above 0."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(N_CLASSES), PER_CLASS)
    images = [f"{label}_{i}" for i, label in enumerate(labels)]
    within = rng.standard_normal((len(labels), N_DIMS))
    embeddings = 5 * rng.standard_normal((N_CLASSES, N_DIMS))[labels] + within + 20
    block = drift * rng.standard_normal((N_CLASSES, N_FEATURES))[labels]
    brain = image_share * within @ rng.standard_normal((N_DIMS, N_FEATURES)) / np.sqrt(N_DIMS)
    features = block + brain + noise * rng.standard_normal((len(labels), N_FEATURES))
    return features, embeddings, labels, np.array(images)


def identified(image_share, seed=0):
    features, embeddings, labels, images = recorded(image_share, seed)
    test = np.arange(len(labels)) % 5 == 0
    regressor = fit_regressor(*(x[~test] for x in (features, embeddings, labels, images)))
    predicted = regressor.predict(features[test], labels[test])
    table = identify_within_class(
        predicted, embeddings[test], labels[test], images[test], regressor.embedding_means,
        n_permutations=500, seed=seed,
    )  # fmt: skip
    return regressor, table.set_index("metric")


def test_the_image_is_found_where_it_was_put_in():
    _, table = identified(1.0)
    top, two_way = table.loc["within-class top-1"], table.loc["within-class two-way"]
    assert top["chance"] == pytest.approx(0.1)
    assert top["n"] == 40
    assert top["low"] > 0.1
    assert top["p_value"] < 0.01
    assert two_way["low"] > 0.5
    assert two_way["value"] > 0.7


def test_nothing_is_found_where_nothing_was_put_in():
    """Strong class and drift, no image: p-values must be uniform, not small."""
    tables = [identified(0.0, seed)[1] for seed in range(20)]
    for metric, chance in (("within-class top-1", 0.1), ("within-class two-way", 0.5)):
        values = np.array([t.loc[metric, "value"] for t in tables])
        p_values = np.array([t.loc[metric, "p_value"] for t in tables])
        error = values.std() / np.sqrt(len(values))
        assert values.mean() == pytest.approx(chance, abs=4 * error)
        assert (p_values < 0.05).sum() <= 4
        assert p_values.mean() > 0.3


def test_widened_predictions_have_the_spread_of_embeddings_and_the_same_directions():
    features, embeddings, labels, images = recorded(0.3)
    test = np.arange(len(labels)) % 5 == 0
    regressor = fit_regressor(*(x[~test] for x in (features, embeddings, labels, images)))
    predicted = regressor.predict(features[test], labels[test])
    wide, centers = regressor.widen(predicted, labels[test]), regressor.embedding_means[labels]
    narrow, full = predicted - centers[test], wide - centers[test]
    real = embeddings[~test] - centers[~test]
    assert np.sqrt((narrow**2).mean()) < 0.8 * np.sqrt((real**2).mean())
    assert np.sqrt((full**2).mean()) == pytest.approx(np.sqrt((real**2).mean()))
    assert np.ptp(full / narrow) == pytest.approx(0, abs=1e-6)
    assert (regressor.widen(centers, labels) == centers).all()


def test_penalty_grows_as_the_image_fades():
    strong, weak = identified(3.0)[0].penalty, identified(0.2)[0].penalty
    assert strong < weak


def test_folds_do_not_leak_through_the_means_of_classes():
    """Few trials per class: deviations from means that include the fold left out would sum to
    zero with it, and a small penalty would seem to predict it."""
    labels, chosen = np.repeat(np.arange(10), 8), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        noise, embeddings = rng.standard_normal((80, 400)), rng.standard_normal((80, 6))
        chosen.append(fit_regressor(noise, embeddings, labels, np.arange(80)).penalty)
    assert np.median(chosen) > 1000  # 400 features of unit variance: nearly nothing is predicted


def test_both_ways_of_solving_agree():
    """More features than trials, or fewer: the weights are ridge regression's own."""
    from sklearn.linear_model import Ridge

    for n_features in (5, 300):
        rng = np.random.default_rng(n_features)
        labels, images = np.repeat([0, 1], 50), np.arange(100)
        features = rng.standard_normal((100, n_features))
        embeddings = features[:, :3] @ rng.standard_normal((3, 4))
        found = fit_regressor(features, embeddings, labels, images, penalties=[10.0])
        centred = [
            x - np.repeat([x[:50].mean(axis=0), x[50:].mean(axis=0)], 50, axis=0)
            for x in (features, embeddings)
        ]
        ridge = Ridge(10.0, fit_intercept=False).fit(centred[0] / found.feature_scale, centred[1])
        assert found.weights == pytest.approx(ridge.coef_.T, abs=1e-8)


def test_what_channels_share_is_whitened():
    rng = np.random.default_rng(2)
    mixing, labels = rng.standard_normal((6, 6)), np.repeat([0, 1], 30)
    trials = mixing @ rng.standard_normal((60, 6, 50)) + 9 * labels[:, None, None]
    white = noise_whitener(trials, labels) @ trials
    residual = np.concatenate(
        [white[labels == c] - white[labels == c].mean(axis=0) for c in (0, 1)]
    )
    covariance = np.cov(residual.swapaxes(1, 2).reshape(-1, 6).T)
    assert covariance == pytest.approx(np.eye(6), abs=0.1)
    trials[:, 0] = 0  # a flat channel
    assert np.isfinite(noise_whitener(trials, labels)).all()


def test_an_image_in_both_parts_is_refused():
    trials = np.random.default_rng(0).standard_normal((20, 2, 20))
    with pytest.raises(ValueError, match="1 images are in training and test"):
        predict_within_class(
            trials, 100.0, np.ones((20, 3)), np.zeros(20, int), ["a"] * 20, [0, 1], [2, 3]
        )


def test_class_and_block_are_no_help():
    """Predictions that know the class exactly and the image not at all: exactly chance."""
    _, embeddings, labels, images = recorded(1.0)
    means = np.stack([embeddings[labels == c].mean(axis=0) for c in range(N_CLASSES)])
    table = identify_within_class(means[labels], embeddings, labels, images, means)
    assert list(table["value"]) == pytest.approx([1 / PER_CLASS, 0.5])
    assert (table["p_value"] > 0.9).all()


def test_perfect_predictions_score_one():
    _, embeddings, labels, images = recorded(1.0)
    means = np.zeros((N_CLASSES, N_DIMS))
    table = identify_within_class(embeddings, embeddings, labels, images, means)
    assert list(table["value"]) == [1, 1]
    assert table["low"].min() > 0.95
    assert table["p_value"].max() < 0.001


def test_trials_of_one_image_are_averaged_and_counted_once():
    rng = np.random.default_rng(9)
    _, embeddings, labels, images = recorded(1.0)
    means = np.stack([embeddings[labels == c].mean(axis=0) for c in range(N_CLASSES)])
    rows = np.tile(np.arange(len(labels)), 8)
    noisy = embeddings[rows] + 2 * rng.standard_normal((len(rows), N_DIMS))
    once = identify_within_class(noisy[: len(labels)], embeddings, labels, images, means)
    many = identify_within_class(noisy, embeddings[rows], labels[rows], images[rows], means)
    assert (many["n"] == len(labels)).all()
    assert many["value"][0] > once["value"][0] + 0.2


def test_predictions_of_another_class_move_only_the_mean():
    features, embeddings, labels, images = recorded(1.0)
    regressor = fit_regressor(features, embeddings, labels, images)
    shift = regressor.predict(regressor.feature_means[[1, 2]], np.array([1, 2]))
    assert shift == pytest.approx(regressor.embedding_means[[1, 2]])


def test_nearest_image_is_the_one_predicted():
    rng = np.random.default_rng(1)
    embeddings = 30 + rng.standard_normal((20, 8))
    order = rng.permutation(20)
    predicted = embeddings[order] + 0.1 * rng.standard_normal((20, 8))
    assert (nearest_image(predicted, embeddings) == order).all()


def test_trial_features_hold_means_and_log_power():
    trials = np.zeros((1, 2, 100))
    trials[0, 0, :50] = 3
    trials[0, 1] = 2 * np.sqrt(2) * np.sin(2 * np.pi * 20 * np.arange(100) / 100)
    features = trial_features(trials, sfreq=100, window=0.5)
    assert features.shape == (1, 8)
    means, power = features[0, :4].reshape(2, 2), features[0, 4:].reshape(2, 2)
    assert means == pytest.approx(np.array([[3, 0], [0, 0]]), abs=1e-6)
    assert power[0, 0] == pytest.approx(np.log(9))
    assert power[1] == pytest.approx(np.log([4, 4]), abs=1e-5)
    with pytest.raises(ValueError, match="at least 2 values"):
        trial_features(trials, sfreq=100, window=2)


def test_what_cannot_be_fitted_is_refused():
    features, embeddings, labels, images = recorded(1.0)
    with pytest.raises(ValueError, match="one embedding"):
        fit_regressor(features, embeddings[:-1], labels, images)
    with pytest.raises(ValueError, match="finite"):
        fit_regressor(np.full_like(features, np.nan), embeddings, labels, images)
    with pytest.raises(ValueError, match=r"Classes \[1\] have no training trial"):
        fit_regressor(features, embeddings, np.where(labels == 1, 2, labels), images)
    with pytest.raises(ValueError, match="labels must be integers"):
        fit_regressor(features, embeddings, labels.astype(float), images)
    with pytest.raises(ValueError, match="5 folds need as many images, got 1"):
        fit_regressor(features, embeddings, labels, ["a"] * len(labels))
    with pytest.raises(ValueError, match="No class has two test images"):
        identify_within_class(embeddings, embeddings, labels, ["a"] * len(labels), embeddings[:4])


def test_images_of_a_class_are_counted():
    assert images_per_class(np.array([0, 0, 0, 1]), ["a", "a", "b", "c"]) == 2
    assert images_per_class(np.array([0, 1]), ["a", "b"]) == 1
