"""The kernel decoder finds waves, power and delays, and is at chance on dealt labels."""

import numpy as np
import pytest

from eeglib.decoding import kernel_decoder
from eeglib.decoding.kernel_decoder import KernelDecoder
from eeglib.decoding.splits import Split

SFREQ, N_TRIALS, N_CLASSES = 100.0, 150, 3
LABELS = np.arange(N_TRIALS) % N_CLASSES
SPLIT = Split(np.arange(75), np.arange(75, 105), np.arange(105, 150))


def trials(kind):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((N_TRIALS, 5, 100))
    times = np.arange(100) / SFREQ
    if kind == "wave":
        bump = np.exp(-0.5 * ((times - 0.3) / 0.05) ** 2)
        data[np.arange(N_TRIALS), LABELS] += 2 * bump
    if kind == "power":  # a random phase: no average wave
        phase = rng.uniform(0, 2 * np.pi, (N_TRIALS, 1))
        data[np.arange(N_TRIALS), LABELS] += 1.5 * np.sin(2 * np.pi * 10 * times + phase)
    if (
        kind == "phase"
    ):  # two channels share a source in phase, in opposite phase, or one sample later
        source = 2 * rng.standard_normal((N_TRIALS, 100))
        shared = {0: source, 1: -source, 2: np.roll(source, 1, axis=1)}
        data[:, 0] += source
        data[:, 1] += [shared[label][trial] for trial, label in enumerate(LABELS)]
    return data


def accuracy(probabilities, labels=LABELS):
    return (probabilities.argmax(axis=1) == labels[SPLIT.test]).mean()


@pytest.mark.parametrize(("kind", "lowest"), [("wave", 0.85), ("power", 0.85), ("phase", 0.85)])
def test_waves_power_and_what_lies_between_channels_are_found(kind, lowest):
    decoder = KernelDecoder(trials(kind), SFREQ)
    probabilities = decoder.fit_predict(LABELS, SPLIT, N_CLASSES)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert accuracy(probabilities) > lowest


def test_dealt_labels_give_chance():
    rng, right = np.random.default_rng(1), []
    decoder = KernelDecoder(trials("wave"), SFREQ)
    for _ in range(3):
        dealt = rng.permutation(LABELS)
        right.append(accuracy(decoder.fit_predict(dealt, SPLIT, N_CLASSES), dealt))
    assert 0.15 < np.mean(right) < 0.5


def test_a_rare_class_is_named_as_rarely_as_it_comes():
    labels = (np.random.default_rng(1).random(N_TRIALS) < 0.16).astype(int)
    noise = np.random.default_rng(2).standard_normal((N_TRIALS, 5, 100))
    probabilities = KernelDecoder(noise, SFREQ).fit_predict(labels, SPLIT, 2)
    assert probabilities[:, 1].mean() < 0.3
    assert (probabilities.argmax(axis=1) == 1).mean() < 0.25


def test_a_subjects_gains_are_removed_where_subjects_are_told_apart():
    data = trials("power")
    groups = np.repeat(np.arange(5), 30)
    gains = np.random.default_rng(2).lognormal(0, 2, (5, 5))
    data *= gains[groups][..., np.newaxis]
    decoder = KernelDecoder(data, SFREQ, groups)
    probabilities = decoder.fit_predict(LABELS, SPLIT, N_CLASSES)
    assert accuracy(probabilities) > 0.8
    # A second split uses what is kept of the first, and gets what a new decoder would.
    other = Split(SPLIT.training, SPLIT.test, SPLIT.validation)
    again = KernelDecoder(data, SFREQ, groups).fit_predict(LABELS, other, N_CLASSES)
    np.testing.assert_array_equal(decoder.fit_predict(LABELS, other, N_CLASSES), again)


def test_the_unit_of_the_signals_does_not_matter():
    one, many = (
        KernelDecoder(trials("wave") * unit, SFREQ).fit_predict(LABELS, SPLIT, N_CLASSES)
        for unit in (1, 1e-6)
    )
    np.testing.assert_allclose(one, many, atol=1e-3)


def test_many_classes_share_filters_and_waves():
    labels = np.arange(N_TRIALS) % 5
    data = trials("nothing")
    bump = np.exp(-0.5 * ((np.arange(100) / SFREQ - 0.3) / 0.05) ** 2)
    data[np.arange(N_TRIALS), labels] += 2 * bump
    probabilities = KernelDecoder(data, SFREQ).fit_predict(labels, SPLIT, 5)
    assert accuracy(probabilities, labels) > 0.8


def test_ridge_regression_by_hand():
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((12, 3)), np.arange(12) % 2
    train, test = np.arange(8), np.arange(8, 12)
    scores = kernel_decoder._ridge(inputs @ inputs.T, labels, train, test, 2, (0.5,))[0.5]
    targets = np.eye(2)[labels[train]] - 0.5
    weights = np.linalg.solve(inputs[train].T @ inputs[train] + 0.5 * np.eye(3), inputs[train].T)
    np.testing.assert_allclose(scores, np.sqrt(2) * (0.5 + inputs[test] @ weights @ targets))


def test_whitened_channels_are_uncorrelated_on_average_over_the_training_trials():
    data = np.random.default_rng(0).standard_normal((N_TRIALS, 6, 200))
    data = np.random.default_rng(1).standard_normal((6, 6)) @ data
    train = SPLIT.training
    white = kernel_decoder._whitened(data, [(slice(None), train)])[train]
    mean = np.mean([w @ w.T / w.shape[1] for w in white], axis=0)
    # But for the shrinkage of 5%, which matters most where there was least power.
    np.testing.assert_allclose(mean, np.diag(mean.diagonal()), atol=0.5)
    assert (np.linalg.eigvalsh(mean) < 1).all()
    assert np.linalg.eigvalsh(mean)[-1] > 0.95
