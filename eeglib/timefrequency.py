"""Trials over time and frequency: short-time Fourier transform and wavelets (chapter 3)."""

import numpy as np
import pywt
from scipy import fft, signal
from sklearn.utils import gen_batches

CHUNK = 2**22  # numbers transformed at a time: bounds the memory beyond the result


def spectrograms(
    trials: np.ndarray,
    sfreq: float,
    window: float = 0.04,
    step: float = 0.02,
    band: tuple[float, float] | None = None,
) -> np.ndarray:
    """Magnitude of the short-time Fourier transform of every trial and channel.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Signals in any unit.
    sfreq : float
        Sampling rate, hertz.
    window, step : float
        Length of a window and distance of neighbouring centres, seconds; ``step <= window``.
    band : tuple of float | None
        Pass band of the filter that the trials went through, hertz: only the frequencies less than
        ``1 / window`` outside it are kept. None: all.

    Returns
    -------
    array of float32, shape (n_trials, n_chans, n_freqs, n_windows)
        Magnitudes in the unit of the signals: a sinusoid of amplitude A shows as A / 2.

    Notes
    -----
    Section 3.2 of the paper: windows of 40 ms moving by 20 ms. Equal to `scipy.signal.stft`
    without boundary or padding, at twice its speed: a Hann window, and only windows that lie
    wholly within the trial. Zeros beyond its ends would be steps in the signal, whose spectrum
    fills all that the filter has emptied. The frequencies are ``1 / window`` apart: 25 Hz for
    40 ms.
    """
    n_trials, n_chans, n_times = trials.shape
    length, hop, n_windows, _, rows = _grid(n_times, sfreq, window, step, band)
    taper = signal.get_window("hann", length).astype(np.float32)
    taper /= taper.sum()
    shape = n_trials, n_chans, np.count_nonzero(rows), n_windows
    result = np.empty(shape, dtype=np.float32)
    for part in gen_batches(n_trials, max(1, CHUNK // (n_chans * n_windows * length))):
        signals = trials[part].astype(np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(signals, length, axis=-1)[..., ::hop, :]
        spectra = fft.rfft(frames * taper, axis=-1)[..., rows]
        np.abs(spectra.swapaxes(-1, -2), out=result[part])
    return result


def spectrogram_axes(
    n_times: int,
    sfreq: float,
    window: float = 0.04,
    step: float = 0.02,
    band: tuple[float, float] | None = None,
    tmin: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (hertz) and centres of the windows of what `spectrograms` gives.

    In seconds after the onset of the image, where the trial begins at `tmin`, ``epochs.tmin``.
    """
    length, hop, n_windows, frequencies, rows = _grid(n_times, sfreq, window, step, band)
    return frequencies[rows], tmin + (length / 2 + np.arange(n_windows) * hop) / sfreq


def wavelet_magnitudes(
    trials: np.ndarray,
    sfreq: float,
    wavelet: str = "db4",
    band: tuple[float, float] | None = None,
    step: int = 1,
) -> np.ndarray:
    """Magnitudes of the wavelet coefficients of every trial and channel, laid out over time.

    Parameters
    ----------
    trials, sfreq
        As for `spectrograms`.
    wavelet : str
        Name of a discrete wavelet of PyWavelets.
    band : tuple of float | None
        Pass band of the filter that the trials went through, hertz: levels whose frequencies lie
        outside it are left out. None: all levels.
    step : int
        Keep every `step`-th time only. What is lost are coefficients of the finest levels.

    Returns
    -------
    array of float32, shape (n_trials, n_chans, n_levels, n_times / step rounded up)
        The lowest frequencies first, as `wavelet_bands` names them. A level has about
        ``n_times / 2**level`` coefficients; every time shows the one that lies nearest to it.

    Notes
    -----
    `pywt.wavedec` with symmetric continuation at the ends, down to `pywt.dwt_max_level`: 5 for 440
    times and db4. Level L holds the frequencies from ``sfreq / 2**(L + 1)`` to ``sfreq / 2**L``.
    The paper names the wavelet (section 3.6), not level, sign nor layout; these are ours. Without
    their signs, because the mean of the coefficients of a rhythm is zero, whatever its power.
    """
    n_trials, n_chans, n_times = trials.shape
    level = pywt.dwt_max_level(n_times, wavelet)
    names = wavelet_bands(n_times, sfreq, wavelet)
    kept = [names.index(name) for name in wavelet_bands(n_times, sfreq, wavelet, band)]
    nearest = [indices[::step] for indices in _nearest_coefficients(wavelet, level, n_times)]
    result = np.empty((n_trials, n_chans, len(kept), len(nearest[0])), dtype=np.float32)
    for part in gen_batches(n_trials, max(1, CHUNK // (n_chans * n_times))):
        levels = pywt.wavedec(trials[part].astype(np.float32), wavelet, level=level, axis=-1)
        for row, index in enumerate(kept):
            result[part, :, row] = np.abs(levels[index][..., nearest[index]])
    return result


def wavelet_bands(
    n_times: int, sfreq: float, wavelet: str = "db4", band: tuple[float, float] | None = None
) -> list[str]:
    """Names of the levels of `wavelet_magnitudes`: ``"A5: 0-16 Hz"``, ``"D5: 16-31 Hz"``, ..."""
    depth, (lowest, highest) = pywt.dwt_max_level(n_times, wavelet), band or (0.0, sfreq)
    levels = [(f"A{depth}", 0.0, sfreq / 2 ** (depth + 1))]
    levels += [(f"D{d}", sfreq / 2 ** (d + 1), sfreq / 2**d) for d in range(depth, 0, -1)]
    kept = (level for level in levels if level[1] < highest and level[2] > lowest)
    return [f"{name}: {low:.0f}-{high:.0f} Hz" for name, low, high in kept]


def _grid(n_times: int, sfreq: float, window: float, step: float, band) -> tuple:
    """Length of a window and of a step in times, number of windows; frequencies, which to keep."""
    length, hop = round(window * sfreq), round(step * sfreq)
    if not 2 <= length <= n_times or not 1 <= hop <= length:
        raise ValueError(
            f"timefrequency.window is {window:g} s, {length} times at {sfreq:g} Hz: choose 2 to "
            f"the {n_times} of a trial. timefrequency.step is {step:g} s, {hop} times: choose 1 to "
            "those of the window, or part of the trial would be unseen."
        )
    frequencies, (low, high) = fft.rfftfreq(length, 1 / sfreq), band or (0.0, sfreq)
    rows = (frequencies > low - sfreq / length) & (frequencies < high + sfreq / length)
    return length, hop, (n_times - length) // hop + 1, frequencies, rows


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
