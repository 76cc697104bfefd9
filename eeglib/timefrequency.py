"""Trials over time and frequency: short-time Fourier transform and wavelets (chapter 3)."""

from __future__ import annotations

import numpy as np
import pywt
from scipy import fft, signal

CHUNK = 2**22  # numbers transformed at a time: bounds the memory beyond the result


def spectrograms(
    trials: np.ndarray, sfreq: float, window: float = 0.04, step: float = 0.02
) -> np.ndarray:
    """Magnitude of the short-time Fourier transform of every trial and channel.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Signals in any unit.
    sfreq : float
        Sampling rate, hertz.
    window : float
        Length of a window, seconds.
    step : float
        Distance between the centres of neighbouring windows, seconds; at most `window`.

    Returns
    -------
    array of float32, shape (n_trials, n_chans, n_freqs, n_windows)
        Magnitudes in the unit of the signals: a sinusoid of amplitude A shows as A / 2.

    Notes
    -----
    Section 3.2 of the paper: windows of 40 ms moving by 20 ms. Equal to `scipy.signal.stft`, at
    twice its speed: a Hann window, half a window of zeros at both ends, and zeros after the end
    until the last window is full. The frequencies are ``1 / window`` apart: 25 Hz for 40 ms.
    """
    n_trials, n_chans, n_times = trials.shape
    length, hop, n_windows = _windows(n_times, sfreq, window, step)
    taper = signal.get_window("hann", length).astype(np.float32)
    taper /= taper.sum()
    result = np.empty((n_trials, n_chans, length // 2 + 1, n_windows), dtype=np.float32)
    start = length // 2
    ends = (start, (n_windows - 1) * hop + length - start - n_times)
    for part in _parts(n_trials, n_chans * n_windows * length):
        padded = np.pad(trials[part].astype(np.float32), ((0, 0), (0, 0), ends))
        frames = np.lib.stride_tricks.sliding_window_view(padded, length, axis=-1)[..., ::hop, :]
        spectra = fft.rfft(frames * taper, axis=-1)
        np.abs(spectra.swapaxes(-1, -2), out=result[part])
    return result


def spectrogram_axes(
    n_times: int, sfreq: float, window: float = 0.04, step: float = 0.02, tmin: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (hertz) and centres of the windows of what `spectrograms` gives.

    In seconds after the onset of the image, where the trial begins at `tmin`, ``epochs.tmin``.
    """
    length, hop, n_windows = _windows(n_times, sfreq, window, step)
    return fft.rfftfreq(length, 1 / sfreq), tmin + np.arange(n_windows) * hop / sfreq


def wavelet_coefficients(trials: np.ndarray, wavelet: str = "db4", step: int = 1) -> np.ndarray:
    """Discrete wavelet coefficients of every trial and channel, laid out over time.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Signals in any unit.
    wavelet : str
        Name of a discrete wavelet of PyWavelets.
    step : int
        Keep every `step`-th time only. What is lost are coefficients of the finest levels.

    Returns
    -------
    array of float32, shape (n_trials, n_chans, n_levels + 1, n_times / step rounded up)
        Signed coefficients. Level 0 is the approximation (lowest frequencies), then the details
        from coarse to fine. A level has about ``n_times / 2**level`` coefficients; every time
        shows the one that lies nearest to it.

    Notes
    -----
    `pywt.wavedec` with symmetric continuation at the ends, down to `pywt.dwt_max_level`: 5 for 440
    times and db4. Level L holds the frequencies from ``sfreq / 2**(L + 1)`` to ``sfreq / 2**L``.
    The paper names the wavelet (section 3.6), not the level nor the layout; these are ours.
    """
    n_trials, n_chans, n_times = trials.shape
    level = pywt.dwt_max_level(n_times, wavelet)
    nearest = [indices[::step] for indices in _nearest_coefficients(wavelet, level, n_times)]
    result = np.empty((n_trials, n_chans, level + 1, len(nearest[0])), dtype=np.float32)
    for part in _parts(n_trials, n_chans * n_times):
        levels = pywt.wavedec(trials[part].astype(np.float32), wavelet, level=level, axis=-1)
        for row, (values, indices) in enumerate(zip(levels, nearest, strict=True)):
            result[part, :, row] = values[..., indices]
    return result


def wavelet_bands(n_times: int, sfreq: float, wavelet: str = "db4") -> list[str]:
    """Names of the levels of `wavelet_coefficients`: ``"A5: 0-16 Hz"``, ``"D5: 16-31 Hz"``, ..."""
    level = pywt.dwt_max_level(n_times, wavelet)
    bands = [f"A{level}: 0-{sfreq / 2 ** (level + 1):.0f} Hz"]
    for depth in range(level, 0, -1):
        bands.append(f"D{depth}: {sfreq / 2 ** (depth + 1):.0f}-{sfreq / 2**depth:.0f} Hz")
    return bands


def _parts(n_trials: int, numbers_per_trial: int) -> list[slice]:
    at_once = max(1, CHUNK // numbers_per_trial)
    return [slice(first, first + at_once) for first in range(0, n_trials, at_once)]


def _windows(n_times: int, sfreq: float, window: float, step: float) -> tuple[int, int, int]:
    """Length of a window and of a step in times, and the number of windows."""
    length, hop = round(window * sfreq), round(step * sfreq)
    if not 2 <= length <= n_times or not 1 <= hop <= length:
        raise ValueError(
            f"timefrequency.window is {window:g} s, {length} times at {sfreq:g} Hz: choose 2 to "
            f"the {n_times} of a trial. timefrequency.step is {step:g} s, {hop} times: choose 1 to "
            "those of the window, or part of the trial would be unseen."
        )
    extended = n_times + 2 * (length // 2)
    return length, hop, -(-(extended - length) // hop) + 1


def _nearest_coefficients(wavelet: str, level: int, n_times: int) -> list[np.ndarray]:
    """For each level, which coefficient lies nearest to each time.

    A coefficient lies at the centre of the energy of the piece of signal that it weighs: filters
    shift by different amounts, so that no rule for one family would do.
    """
    times = np.arange(n_times)
    nearest = []
    for weights in pywt.wavedec(np.eye(n_times), wavelet, level=level, axis=-1):
        energy = weights**2
        total = energy.sum(axis=0)
        centres = np.full(len(total), np.inf)  # some hold nothing but the signal's continuation
        np.divide(times @ energy, total, out=centres, where=total > 1e-9)
        nearest.append(np.abs(times[:, np.newaxis] - centres).argmin(axis=1))
    return nearest
