"""The kernel decoder finds waves and power, is at chance on dealt labels, and cannot cheat."""

import numpy as np
import pytest

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
    return data


def accuracy(found, labels=LABELS):
    return (found.probabilities.argmax(axis=1) == labels[SPLIT.test]).mean()


@pytest.mark.parametrize("kind", ["wave", "power"])
def test_waves_and_power_are_found(kind):
    found = KernelDecoder(trials(kind), SFREQ).fit_predict(LABELS, SPLIT, N_CLASSES)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert accuracy(found) > 0.85
    assert len(found.losses) == 2**4 - 1
    assert found.losses[found.views] == min(found.losses.values())
    if kind == "power":
        assert found.losses["power"] < found.losses["waves"] - 0.5


def test_dealt_labels_give_chance():
    rng, right = np.random.default_rng(1), []
    decoder = KernelDecoder(trials("wave"), SFREQ)
    for _ in range(3):
        dealt = rng.permutation(LABELS)
        right.append(accuracy(decoder.fit_predict(dealt, SPLIT, N_CLASSES), dealt))
    assert 0.15 < np.mean(right) < 0.5


def test_test_labels_and_without_groups_test_trials_have_no_influence():
    data = trials("wave")
    one = KernelDecoder(data, SFREQ).fit_predict(LABELS, SPLIT, N_CLASSES)
    changed, labels = data.copy(), LABELS.copy()
    labels[SPLIT.test] = 0
    changed[SPLIT.test[1:]] *= 7  # all but the first test trial
    two = KernelDecoder(changed, SFREQ).fit_predict(labels, SPLIT, N_CLASSES)
    np.testing.assert_allclose(one.probabilities[0], two.probabilities[0], rtol=1e-6)


def test_a_subjects_gains_are_removed_where_subjects_are_told():
    data = trials("power")
    groups = np.repeat(np.arange(5), 30)
    gains = np.random.default_rng(2).lognormal(0, 2, (5, 5))
    data *= gains[groups][..., np.newaxis]
    found = KernelDecoder(data, SFREQ, groups).fit_predict(LABELS, SPLIT, N_CLASSES)
    assert accuracy(found) > 0.8


def test_bad_trials_are_refused():
    with pytest.raises(ValueError, match="3 of 3 trials have values that are not finite"):
        KernelDecoder(np.full((3, 2, 50), np.nan), SFREQ)
    with pytest.raises(ValueError, match="3 trials but 2 groups"):
        KernelDecoder(np.zeros((3, 2, 50)), SFREQ, np.zeros(2))
