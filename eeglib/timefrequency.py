"""Time-frequency images of trials: short-time Fourier transform and wavelets (chapter 3)."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
import pywt
from scipy import fft, signal

CHUNK = 2**22
"""Numbers transformed at a time: bounds the memory beyond the result."""


def stft_images(
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

    Raises
    ------
    ValueError
        If a window holds fewer than 2 times or more than a trial, or windows do not overlap or
        touch.

    Notes
    -----
    Section 3.2 of the paper: windows of 40 ms moving by 20 ms. Equal to the magnitude of
    ``scipy.signal.stft(trials, sfreq, nperseg=window, noverlap=window - step)``: a Hann window,
    half a window of zeros at both ends, and zeros after the end until the last window is full.
    The frequencies are ``1 / window`` apart: 25 Hz for 40 ms.
    """
    trials = _checked_trials(trials)
    n_trials, n_chans, n_times = trials.shape
    length, hop, n_windows = _windows(n_times, sfreq, window, step)
    taper = signal.get_window("hann", length).astype(np.float32)
    taper /= taper.sum()
    result = np.empty((n_trials, n_chans, length // 2 + 1, n_windows), dtype=np.float32)
    at_once = max(1, CHUNK // (n_chans * n_windows * length))
    padded = np.zeros((at_once, n_chans, (n_windows - 1) * hop + length), dtype=np.float32)
    start = length // 2
    for first in range(0, n_trials, at_once):
        chunk = trials[first : first + at_once]
        block = padded[: len(chunk)]
        block[..., start : start + n_times] = chunk
        frames = np.lib.stride_tricks.sliding_window_view(block, length, axis=-1)[..., ::hop, :]
        spectra = fft.rfft(frames * taper, axis=-1, workers=_workers())
        np.abs(spectra.swapaxes(-1, -2), out=result[first : first + at_once])
    return result


def stft_axes(
    n_times: int, sfreq: float, window: float = 0.04, step: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and times of the images that `stft_images` gives.

    Parameters
    ----------
    n_times : int
        Times of a trial.
    sfreq, window, step
        As in `stft_images`.

    Returns
    -------
    frequencies : array, shape (n_freqs,)
        Hertz.
    times : array, shape (n_windows,)
        Centres of the windows, seconds after the start of the trial.
    """
    length, hop, n_windows = _windows(n_times, sfreq, window, step)
    return fft.rfftfreq(length, 1 / sfreq), np.arange(n_windows) * hop / sfreq


def tone_with_burst(n_times: int, sfreq: float) -> np.ndarray:
    """A trial whose time-frequency content is known: a tone all along, and a short burst.

    Parameters
    ----------
    n_times : int
        Length of the trial.
    sfreq : float
        Sampling rate, hertz. The tone lies at 0.02, the burst at 0.1 of it.

    Returns
    -------
    array, shape (1, 1, n_times)
        Tone of amplitude 1; burst of amplitude 2 with a Gaussian envelope of 10 times (standard
        deviation) in the middle.
    """
    times = np.arange(n_times)
    envelope = np.exp(-0.5 * ((times - n_times / 2) / 10) ** 2)
    tone = np.sin(2 * np.pi * 0.02 * times)
    burst = 2 * envelope * np.sin(2 * np.pi * 0.1 * times)
    return (tone + burst)[np.newaxis, np.newaxis]


def wavelet_images(trials: np.ndarray, wavelet: str = "db4", step: int = 1) -> np.ndarray:
    """Discrete wavelet coefficients of every trial and channel, laid out as an image.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Signals in any unit.
    wavelet : str
        Name of a discrete wavelet of PyWavelets.
    step : int
        Show every `step`-th time only. What is lost are coefficients of the finest levels, which
        are near zero if the signals were filtered far below half the sampling rate.

    Returns
    -------
    array of float32, shape (n_trials, n_chans, n_levels + 1, n_times / step rounded up)
        Signed coefficients. Row 0 is the approximation (lowest frequencies), then the details
        from coarse to fine, the last row being the finest. A level has about ``n_times / 2**level``
        coefficients; every time shows the one that lies nearest to it.

    Raises
    ------
    ValueError
        If PyWavelets does not know the wavelet, or the trials are too short for one level.

    Notes
    -----
    `pywt.wavedec` with symmetric continuation at the ends, down to the deepest level at which a
    coefficient is not mere continuation (`pywt.dwt_max_level`): 5 for 440 times and db4. Level L
    holds the frequencies from ``sfreq / 2**(L + 1)`` to ``sfreq / 2**L``. The paper names the
    wavelet (section 3.6), not the level nor the layout; these are ours.
    """
    trials = _checked_trials(trials)
    n_trials, n_chans, n_times = trials.shape
    filters, level = _wavelet(wavelet, n_times)
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}.")
    sources = [source[::step] for source in _nearest_coefficients(wavelet, n_times)]
    result = np.empty((n_trials, n_chans, level + 1, len(sources[0])), dtype=np.float32)
    at_once = max(1, CHUNK // (n_chans * n_times))
    for first in range(0, n_trials, at_once):
        chunk = trials[first : first + at_once].astype(np.float32)
        levels = pywt.wavedec(chunk, filters, level=level, axis=-1)
        for row, (values, source) in enumerate(zip(levels, sources, strict=True)):
            result[first : first + at_once, :, row] = values[..., source]
    return result


def wavelet_bands(n_times: int, sfreq: float, wavelet: str = "db4") -> list[str]:
    """Names of the rows of `wavelet_images`, with the frequencies that each holds.

    Parameters
    ----------
    n_times : int
        Times of a trial.
    sfreq : float
        Sampling rate, hertz.
    wavelet : str

    Returns
    -------
    list of str
        Such as ``"A5: 0-16 Hz"``, then ``"D5: 16-31 Hz"``, in the order of the rows.
    """
    _, level = _wavelet(wavelet, n_times)
    bands = [f"A{level}: 0-{sfreq / 2 ** (level + 1):.0f} Hz"]
    for depth in range(level, 0, -1):
        bands.append(f"D{depth}: {sfreq / 2 ** (depth + 1):.0f}-{sfreq / 2**depth:.0f} Hz")
    return bands


def _checked_trials(trials: np.ndarray) -> np.ndarray:
    trials = np.asarray(trials)
    if trials.ndim != 3 or 0 in trials.shape[1:]:
        raise ValueError(
            f"Expected trials of shape (n_trials, n_chans, n_times), got {trials.shape}."
        )
    if trials.dtype.kind not in "fiu":
        raise ValueError(f"Expected trials of real numbers, got {trials.dtype}.")
    return trials


def _windows(n_times: int, sfreq: float, window: float, step: float) -> tuple[int, int, int]:
    """Length of a window and of a step in times, and the number of windows."""
    length, hop = round(window * sfreq), round(step * sfreq)
    if not 2 <= length <= n_times:
        raise ValueError(
            f"timefrequency.window is {window:g} s, which is {length} times at {sfreq:g} Hz; it "
            f"must hold at least 2 and at most the {n_times} times of a trial."
        )
    if not 1 <= hop <= length:
        raise ValueError(
            f"timefrequency.step is {step:g} s, which is {hop} times at {sfreq:g} Hz; it must be "
            f"at least 1 and at most the window's {length}, or part of the trial would be unseen."
        )
    extended = n_times + 2 * (length // 2)
    return length, hop, -(-(extended - length) // hop) + 1


def _wavelet(name: str, n_times: int) -> tuple[pywt.Wavelet, int]:
    if name not in pywt.wavelist(kind="discrete"):
        raise ValueError(
            f"timefrequency.wavelet is {name!r}, which is no discrete wavelet of PyWavelets. "
            "Choose one of pywt.wavelist(kind='discrete'), such as db4."
        )
    wavelet = pywt.Wavelet(name)
    level = pywt.dwt_max_level(n_times, wavelet)
    if level < 1:
        raise ValueError(
            f"A trial of {n_times} times is too short for one level of {name}, whose filter has "
            f"{wavelet.dec_len} taps. Choose a shorter wavelet, such as haar."
        )
    return wavelet, level


@lru_cache(maxsize=8)
def _nearest_coefficients(name: str, n_times: int) -> tuple[np.ndarray, ...]:
    """For each row of an image, which coefficient lies nearest to each time.

    A coefficient lies at the centre of the energy of the piece of signal that it weighs. The
    pieces are the transforms of impulses: filters shift by different amounts, so this is safer
    than a rule for one family.
    """
    wavelet, level = _wavelet(name, n_times)
    times = np.arange(n_times)
    sources = []
    for weights in pywt.wavedec(np.eye(n_times), wavelet, level=level, axis=-1):
        energy = weights**2
        total = energy.sum(axis=0)
        centres = np.full(len(total), np.inf)  # some hold nothing but the signal's continuation
        np.divide(times @ energy, total, out=centres, where=total > 1e-9)
        sources.append(np.abs(times[:, np.newaxis] - centres).argmin(axis=1))
    return tuple(sources)


def _workers() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else os.cpu_count() or 1
