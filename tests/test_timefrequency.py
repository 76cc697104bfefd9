"""Spectrograms and wavelets: equal to scipy, known answers for sinusoids and impulses."""

import numpy as np
import pytest
from scipy import signal

from eeglib.timefrequency import spectrogram_axes, spectrograms, wavelet_bands, wavelet_coefficients


@pytest.mark.parametrize(
    ("n_times", "sfreq", "window", "step"),
    [
        (440, 1000, 0.04, 0.02),
        (256, 256, 0.04, 0.02),
        (77, 200, 0.055, 0.02),  # odd window, last one not full
    ],
)
def test_spectrograms_and_axes_equal_scipy(n_times, sfreq, window, step, monkeypatch):
    trials = np.random.default_rng(0).standard_normal((5, 3, n_times))
    length, hop = round(window * sfreq), round(step * sfreq)
    frequencies, times, spectra = signal.stft(trials, sfreq, nperseg=length, noverlap=length - hop)
    monkeypatch.setattr("eeglib.timefrequency.CHUNK", 2 * 3 * len(times) * length)
    magnitudes = spectrograms(trials, sfreq, window, step)
    assert magnitudes.dtype == np.float32
    np.testing.assert_allclose(magnitudes, np.abs(spectra), atol=1e-5)
    axes = spectrogram_axes(n_times, sfreq, window, step)
    np.testing.assert_allclose(axes[0], frequencies)
    np.testing.assert_allclose(axes[1], times)


def test_times_count_from_the_image_where_trials_begin_later():
    _, times = spectrogram_axes(440, 1000, tmin=0.02)
    assert (times[0], times[-1]) == pytest.approx((0.02, 0.46))


def test_the_paper_shape():
    assert spectrograms(np.zeros((2, 128, 440)), 1000).shape == (2, 128, 21, 23)


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
        levels = wavelet_coefficients(np.sin(2 * np.pi * frequency * times)[None, None], "db4")[
            0, 0
        ]
        assert (levels[:, 50:-50] ** 2).mean(axis=1).argmax() == row


@pytest.mark.parametrize("wavelet", ["db4", "haar", "sym5"])
def test_wavelets_put_an_impulse_where_it_happened(wavelet):
    shifts = []
    for moment in range(180, 260):
        trial = np.zeros((1, 1, 440))
        trial[0, 0, moment] = 1
        energy = wavelet_coefficients(trial, wavelet)[0, 0, -5:] ** 2
        shifts.append((energy @ np.arange(440)) / energy.sum(axis=1) - moment)
    assert np.abs(np.mean(shifts, axis=0)).max() < 2


def test_wavelet_chunks_do_not_change_the_result(monkeypatch):
    trials = np.random.default_rng(0).standard_normal((5, 3, 256)).astype(np.float32)
    whole = wavelet_coefficients(trials)
    monkeypatch.setattr("eeglib.timefrequency.CHUNK", 2 * 3 * 256)
    np.testing.assert_array_equal(wavelet_coefficients(trials), whole)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(wavelet_coefficients(trials, step=5), whole[..., ::5])


def test_an_unknown_wavelet_is_refused():
    with pytest.raises(ValueError, match="db999"):
        wavelet_coefficients(np.zeros((1, 1, 440)), "db999")
