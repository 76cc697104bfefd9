"""Spectrograms and wavelets: equal to scipy, known answers for sinusoids and impulses."""

import numpy as np
import pytest
from scipy import signal

from eeglib.timefrequency import spectrogram_axes, spectrograms, wavelet_bands, wavelet_magnitudes


@pytest.mark.parametrize(
    ("n_times", "sfreq", "window", "step"),
    [
        (440, 1000, 0.04, 0.02),
        (256, 256, 0.04, 0.02),
        (77, 200, 0.055, 0.02),  # odd window, a rest that fills none
    ],
)
def test_spectrograms_and_axes_equal_scipy(n_times, sfreq, window, step, monkeypatch):
    trials = np.random.default_rng(0).standard_normal((5, 3, n_times))
    length, hop = round(window * sfreq), round(step * sfreq)
    options = {"nperseg": length, "noverlap": length - hop, "boundary": None, "padded": False}
    frequencies, times, spectra = signal.stft(trials, sfreq, **options)
    monkeypatch.setattr("eeglib.timefrequency.CHUNK", 2 * 3 * len(times) * length)
    magnitudes = spectrograms(trials, sfreq, window, step)
    assert magnitudes.dtype == np.float32
    np.testing.assert_allclose(magnitudes, np.abs(spectra), atol=1e-5)
    axes = spectrogram_axes(n_times, sfreq, window, step)
    np.testing.assert_allclose(axes[0], frequencies)
    np.testing.assert_allclose(axes[1], times)


def test_times_count_from_the_image_where_trials_begin_later():
    _, times = spectrogram_axes(440, 1000, tmin=0.02)
    assert (times[0], times[-1]) == pytest.approx((0.04, 0.44))


@pytest.mark.parametrize(
    ("sfreq", "window", "rows"),
    [
        (1000, 0.04, [0, 25, 50, 75]),
        (160, 0.2, [10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70]),
        (100, 0.5, [14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 50]),
    ],
)
def test_the_rows_are_those_of_the_pass_band(sfreq, window, rows):
    trials = np.random.default_rng(0).standard_normal((2, 3, int(0.5 * sfreq)))
    grid = {"window": window, "step": window / 2}
    frequencies, times = spectrogram_axes(trials.shape[2], sfreq, band=(14, 70), **grid)
    np.testing.assert_allclose(frequencies, rows)
    everything, _ = spectrogram_axes(trials.shape[2], sfreq, **grid)
    cropped = spectrograms(trials, sfreq, band=(14, 70), **grid)
    assert cropped.shape == (2, 3, len(frequencies), len(times))
    kept = np.isin(everything, frequencies)
    np.testing.assert_array_equal(cropped, spectrograms(trials, sfreq, **grid)[:, :, kept])


def test_nothing_lies_where_the_filter_left_nothing():
    times = np.arange(500) / 1000
    energy = spectrograms(np.cos(2 * np.pi * 20 * times)[None, None], 1000)[0, 0] ** 2
    assert energy[5:].sum() < 1e-5 * energy.sum()  # from 125 Hz; with zeros beyond the ends, .04


def test_a_sinusoid_shows_half_its_amplitude_at_its_frequency():
    times = np.arange(500) / 1000
    spectrogram = spectrograms(3 * np.sin(2 * np.pi * 50 * times)[None, None], 1000)[0, 0]
    frequencies, _ = spectrogram_axes(500, 1000)
    middle = spectrogram[:, 3:-3].mean(axis=1)
    assert frequencies[middle.argmax()] == 50
    assert middle.max() == pytest.approx(1.5, rel=1e-3)


@pytest.mark.parametrize(
    ("window", "step", "words"),
    [
        (0.001, 0.001, r"window is 0\.001 s, 1 times"),
        (0.6, 0.02, "600 times at 1000 Hz: choose 2 to the 500"),
        (0.04, 0.05, r"step is 0\.05 s, 50 times.* unseen"),
        (0.04, 0.0001, "0 times: choose 1 to"),
    ],
)
def test_impossible_windows_are_refused(window, step, words):
    with pytest.raises(ValueError, match=words):
        spectrograms(np.zeros((1, 1, 500)), 1000, window, step)


def test_wavelets_put_a_sinusoid_into_the_row_that_names_its_frequency():
    times = np.arange(440) / 1000
    bands = wavelet_bands(440, 1000, "db4")
    assert bands[:2] == ["A5: 0-16 Hz", "D5: 16-31 Hz"]
    assert bands[-1] == "D1: 250-500 Hz"
    for frequency, row in [(8, 0), (23, 1), (45, 2), (90, 3), (180, 4), (370, 5)]:
        trial = np.sin(2 * np.pi * frequency * times)[None, None]
        levels = wavelet_magnitudes(trial, 1000)[0, 0]
        assert (levels[:, 50:-50] ** 2).mean(axis=1).argmax() == row


@pytest.mark.parametrize(
    ("n_times", "sfreq", "rows"),
    [(80, 160, ["D3", "D2", "D1"]), (440, 1000, ["A5", "D5", "D4", "D3"])],
)
def test_the_levels_are_those_of_the_pass_band(n_times, sfreq, rows):
    trials = np.random.default_rng(0).standard_normal((2, 3, n_times))
    names = wavelet_bands(n_times, sfreq, band=(14, 70))
    assert [name.partition(":")[0] for name in names] == rows
    everything = wavelet_bands(n_times, sfreq)
    kept = [everything.index(name) for name in names]
    cropped = wavelet_magnitudes(trials, sfreq, band=(14, 70))
    np.testing.assert_array_equal(cropped, wavelet_magnitudes(trials, sfreq)[:, :, kept])


def test_the_sign_of_a_trial_does_not_reach_its_magnitudes():
    trials = np.random.default_rng(0).standard_normal((2, 3, 125))
    magnitudes = wavelet_magnitudes(trials, 250)
    assert magnitudes.min() >= 0
    np.testing.assert_array_equal(magnitudes, wavelet_magnitudes(-trials, 250))


@pytest.mark.parametrize("wavelet", ["db4", "haar", "sym5"])
def test_wavelets_put_an_impulse_where_it_happened(wavelet):
    shifts = []
    for moment in range(180, 260):
        trial = np.zeros((1, 1, 440))
        trial[0, 0, moment] = 1
        energy = wavelet_magnitudes(trial, 1000, wavelet)[0, 0, -5:] ** 2
        shifts.append((energy @ np.arange(440)) / energy.sum(axis=1) - moment)
    assert np.abs(np.mean(shifts, axis=0)).max() < 2


def test_wavelet_chunks_do_not_change_the_result(monkeypatch):
    trials = np.random.default_rng(0).standard_normal((5, 3, 256)).astype(np.float32)
    whole = wavelet_magnitudes(trials, 256)
    monkeypatch.setattr("eeglib.timefrequency.CHUNK", 2 * 3 * 256)
    np.testing.assert_array_equal(wavelet_magnitudes(trials, 256), whole)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(wavelet_magnitudes(trials, 256, step=5), whole[..., ::5])


def test_an_unknown_wavelet_is_refused():
    with pytest.raises(ValueError, match="db999"):
        wavelet_magnitudes(np.zeros((1, 1, 440)), 1000, "db999")
