"""Sources: known ones are found again, and with them what tells the classes apart."""

import numpy as np
import pytest
from scipy import special

from eeglib.decoding.source_decoder import (
    SourceDecoder,
    bands_within,
    discriminant,
    find_sources,
    power_features,
    shrunk_means,
    wave_features,
)
from eeglib.decoding.splits import Split

SFREQ, N_CHANS, N_TIMES, N_CLASSES, N_TRIALS = 250.0, 12, 110, 4, 200
LABELS = np.arange(N_TRIALS) % N_CLASSES
SPLIT = Split(np.arange(120), np.arange(120, 160), np.arange(160, 200))


def mixing():
    return np.random.default_rng(3).standard_normal((N_CHANS, N_CHANS))


def trials(kind, labels=LABELS):
    """Twelve mixed sources of noise; the first two have bursts, or waves, that differ by class."""
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((len(labels), N_CHANS, N_TIMES))
    size = np.array([[1, 3], [3, 1], [3, 3], [1, 1]])[labels] if kind != "nothing" else 1.5
    late = np.arange(N_TIMES) > 40
    if kind == "wave":
        wave = np.sin(2 * np.pi * 20 * np.arange(N_TIMES) / SFREQ) * late
        sources[:, :2] += 0.5 * np.atleast_2d(size)[..., np.newaxis] * wave
    else:
        gain = np.broadcast_to(size, (len(labels), 2))[..., np.newaxis]
        sources[:, :2] *= np.where(late, gain, 1)
    return mixing() @ sources


def test_joint_diagonalisation_finds_the_sources_that_were_mixed():
    filters = find_sources(trials("power"), LABELS, SFREQ, [(14.0, 70.0)], 2)
    seen = np.abs(filters @ mixing())
    own = np.sort(seen.argmax(axis=1))
    np.testing.assert_array_equal(own, [0, 1])
    # Each filter passes its source at least five times as much as any other.
    ordered = np.sort(seen, axis=1)
    assert (ordered[:, -1] > 5 * ordered[:, -2]).all()


def test_directions_that_are_not_unmixed_span_the_same_two_sources():
    filters = find_sources(trials("power"), LABELS, SFREQ, [(14.0, 70.0)], 2, unmix=False)
    seen = filters @ mixing()
    assert (np.linalg.norm(seen[:, 2:], axis=1) < 0.2 * np.linalg.norm(seen[:, :2], axis=1)).all()


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [
        ("power", 0.9, 1.0),
        ("wave", 0.8, 1.0),
        ("nothing", 0.0, 0.5),
    ],
)
def test_classes_are_told_apart_where_they_differ(kind, lowest, highest):
    found = SourceDecoder(trials(kind), SFREQ).fit_predict(LABELS, SPLIT, N_CLASSES)
    accuracy = (found.probabilities.argmax(axis=1) == LABELS[SPLIT.test]).mean()
    assert lowest <= accuracy <= highest
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    if kind == "power":
        assert "power" in found.views
    assert set(found.losses) == {"power", "waves", "power + waves"}


def test_neither_labels_nor_values_of_test_trials_reach_the_fit():
    data, labels = trials("power"), LABELS.copy()
    one = SourceDecoder(data, SFREQ).fit_predict(labels, SPLIT, N_CLASSES)
    labels[SPLIT.test] = 0
    data[SPLIT.test[1:]] *= 100
    two = SourceDecoder(data, SFREQ).fit_predict(labels, SPLIT, N_CLASSES)
    np.testing.assert_allclose(one.probabilities[0], two.probabilities[0], rtol=1e-6)


def test_a_class_without_known_trials_gets_no_probability():
    labels = LABELS.copy()
    labels[labels == 1] = 4
    found = SourceDecoder(trials("power"), SFREQ).fit_predict(labels, SPLIT, 5)
    assert (found.probabilities[:, 1] == 0).all()
    assert (found.probabilities.argmax(axis=1) == labels[SPLIT.test]).mean() > 0.9


def test_discriminant_is_the_gaussian_likelihood():
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    labels = np.repeat([0, 1, 2], 20000)
    known = means[labels] + rng.standard_normal((len(labels), 2))
    asked = np.array([[0.3, -0.2], [1.5, 0.5]])
    found = special.softmax(discriminant(known, labels, asked, shrink_means=False), axis=1)
    distances = ((asked[:, np.newaxis] - means) ** 2).sum(axis=-1)
    np.testing.assert_allclose(found, special.softmax(-0.5 * distances, axis=1), atol=0.02)


def test_shrunk_means_remove_noise_and_keep_what_stands_out():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 80))
    alone = shrunk_means(0.1 * noise, 0.01)
    assert np.abs(alone - alone[0]).max() < 0.1 * 0.1 * np.abs(noise).max()
    truth = np.outer(rng.standard_normal(40), rng.standard_normal(80))
    shrunk = shrunk_means(truth + noise, 1.0)
    raw_error, error = ((noise**2).mean(), ((shrunk - truth) ** 2).mean())
    assert error < 0.15 * raw_error


def test_power_is_the_logarithm_of_the_mean_square():
    times = np.arange(1000) / SFREQ
    wave = np.stack([np.sin(2 * np.pi * 20 * times), 3 * np.sin(2 * np.pi * 20 * times)])[None]
    found = power_features(wave, SFREQ, [(13.0, 30.0), (30.0, 70.0)])
    assert found.shape == (1, 4)
    np.testing.assert_allclose(found[0, :2], np.log([0.5, 4.5]), atol=0.05)
    assert (found[0, 2:] < found[0, :2] - 4).all()


def test_waves_are_described_by_as_many_patterns_as_asked():
    sources = trials("wave")[:, :3]
    assert wave_features(sources, LABELS, SPLIT.training, 2).shape == (N_TRIALS, 6)


@pytest.mark.parametrize(
    ("band", "sfreq", "expected"),
    [
        ((14.0, 70.0), 1000.0, [(14.0, 30.0), (30.0, 70.0)]),
        (None, 128.0, [(4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 57.6)]),
        ((1.0, 3.0), 250.0, [(1.0, 3.0)]),
    ],
)
def test_bands_stay_within_what_the_filter_let_through(band, sfreq, expected):
    np.testing.assert_allclose(bands_within(band, sfreq), expected)


def test_bad_trials_are_named():
    bad = np.zeros((3, 2, 50))
    bad[1, 0, 7] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 trials have values .* first is trial 1. Drop"):
        SourceDecoder(bad, SFREQ)
    with pytest.raises(ValueError, match=r"\(n_trials, n_chans, n_times\), got \(3, 50\)"):
        SourceDecoder(bad[:, 0], SFREQ)
