"""Zero-phase Butterworth filters and z-scores for arrays (chapter 2)."""

from __future__ import annotations

import numpy as np
from scipy import signal

MATRIX_TIMES = 1024
"""Many trials of at most so many times are filtered by a matrix product."""

CHUNK = 2**22
"""Numbers filtered at a time: bounds the memory that the double-precision work arrays take."""


class SignalError(ValueError):
    """A signal that cannot be processed; the message says what came and what to do."""


def notch_filter(
    data: np.ndarray, sfreq: float, low: float, high: float, order: int = 2
) -> np.ndarray:
    """Take out a narrow band, such as the mains, without shifting the signal in time.

    Parameters
    ----------
    data : array, shape (..., n_times)
        Signals in any unit; filtered along the last axis.
    sfreq : float
        Sampling rate, hertz.
    low, high : float
        Edges of the stop band (-6 dB after both passes), hertz.
    order : int
        Order of the Butterworth prototype.

    Returns
    -------
    array, shape (..., n_times)
        Filtered signals, float32 if `data` are float32, otherwise float64.

    Raises
    ------
    SignalError
        If the band does not fit below ``sfreq / 2``, or the data are too short or not finite.

    Notes
    -----
    Run forwards and backwards (`scipy.signal.sosfiltfilt`), so that the gain is squared and the
    phase zero. The ends are continued by odd reflection over the filter's impulse response, or
    over as much of it as a short signal can give.
    """
    return notch_and_bandpass(data, sfreq, (low, high), None, order)


def bandpass_filter(
    data: np.ndarray, sfreq: float, low: float, high: float, order: int = 2
) -> np.ndarray:
    """Keep a band of frequencies without shifting the signal in time.

    Parameters, result and errors are those of `notch_filter`, with `low` and `high` the edges of
    the pass band (-6 dB after both passes), hertz.
    """
    return notch_and_bandpass(data, sfreq, None, (low, high), order)


def notch_and_bandpass(
    data: np.ndarray,
    sfreq: float,
    notch: tuple[float, float] | None,
    band: tuple[float, float] | None,
    order: int = 2,
) -> np.ndarray:
    """Run both filters one after the other, or one of them; many short trials at once.

    Result and errors are those of `notch_filter` and then `bandpass_filter`.

    Parameters
    ----------
    data : array, shape (..., n_times)
        Signals in any unit; filtered along the last axis.
    sfreq : float
        Sampling rate, hertz.
    notch, band : tuple of float | None
        Edges of the stop band and of the pass band, hertz; None leaves the filter out.
    order : int
        Order of the Butterworth prototypes.
    """
    edges = [("bandstop", notch), ("bandpass", band)]
    filters = [_design(sfreq, *bounds, order, kind) for kind, bounds in edges if bounds is not None]
    return _zero_phase(checked_signal(data), filters)


def filter_response(
    frequencies: np.ndarray, sfreq: float, low: float, high: float, order: int, kind: str
) -> np.ndarray:
    """Gain of the filters above as they are applied, forwards and backwards.

    Parameters
    ----------
    frequencies : array, shape (n_freqs,)
        Hertz.
    sfreq, low, high, order
        As in `notch_filter`.
    kind : {"bandstop", "bandpass"}

    Returns
    -------
    array, shape (n_freqs,)
        Gain, 1 where the signal passes unchanged.
    """
    sos = _design(sfreq, low, high, order, kind)
    _, response = signal.freqz_sos(sos, worN=np.asarray(frequencies), fs=sfreq)
    return np.abs(response) ** 2


def standardize(data: np.ndarray) -> np.ndarray:
    """Give every channel zero mean and unit variance over time.

    Parameters
    ----------
    data : array, shape (..., n_chans, n_times)
        Any unit.

    Returns
    -------
    array, shape (..., n_chans, n_times)
        In standard deviations. A flat channel becomes zeros.
    """
    data = checked_signal(data)
    mean, scale = data.mean(axis=-1, keepdims=True), data.std(axis=-1, keepdims=True)
    return (data - mean) / without_zeros(scale, mean)


def _zero_phase(data: np.ndarray, filters: list[np.ndarray]) -> np.ndarray:
    n_times = data.shape[-1]
    for sos in filters:
        needed = 3 * (2 * len(sos) + 1)
        if n_times <= needed:
            raise SignalError(
                f"A signal of {n_times} times is too short for this filter, which needs more than "
                f"{needed}. Filter before cutting, or leave the filter out (filtering: null)."
            )
    rows = data.reshape(-1, n_times)
    result = np.empty_like(rows)
    at_once = max(1, CHUNK // n_times)
    # Filter and reflection are linear: one matrix does to many short trials at once what takes a
    # recursion through each of them many times longer.
    many_short = n_times <= MATRIX_TIMES and len(rows) > 4 * n_times
    matrix = _run(filters, np.eye(n_times)) if many_short else None
    for start in range(0, len(rows), at_once):
        chunk = rows[start : start + at_once].astype(np.float64)
        result[start : start + at_once] = _run(filters, chunk) if matrix is None else chunk @ matrix
    return result.reshape(data.shape)


def _run(filters: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    for sos in filters:
        pad = min(rows.shape[-1] - 1, max(3 * (2 * len(sos) + 1), _impulse_length(sos)))
        rows = signal.sosfiltfilt(sos, rows, padlen=pad)
    return rows


def _design(sfreq: float, low: float, high: float, order: int, kind: str) -> np.ndarray:
    if not 0 < low < high < sfreq / 2:
        raise SignalError(
            f"The band {low:g}-{high:g} Hz does not fit: edges must ascend and lie between 0 and "
            f"half the sampling rate, {sfreq / 2:g} Hz. Change filtering.notch or filtering.band."
        )
    return signal.butter(order, (low, high), kind, fs=sfreq, output="sos")


def _impulse_length(sos: np.ndarray) -> int:
    """Times after which the response has shrunk to 1/1000, as MNE estimates them for its filters.

    With the same estimate the results are those of `mne.filter.filter_data`.
    """
    from mne.filter import estimate_ringing_samples

    return int(estimate_ringing_samples(sos))


def checked_signal(data: np.ndarray) -> np.ndarray:
    """Signals as floating-point numbers, refused if empty, complex or not finite."""
    data = np.asarray(data)
    if data.ndim == 0 or data.size == 0:
        raise SignalError(f"Expected signals of shape (..., n_times), got shape {data.shape}.")
    if np.iscomplexobj(data) or data.dtype.kind not in "fiu":
        raise SignalError(f"Expected real numbers, got {data.dtype}.")
    if data.dtype not in (np.float32, np.float64):
        data = data.astype(np.float64)
    bad = data.size - np.count_nonzero(np.isfinite(data))
    if bad:
        raise SignalError(
            f"{bad} of {data.size} values are not finite (NaN or infinite). Interpolate or leave "
            "out the channel or the stretch before filtering."
        )
    return data


def without_zeros(scale: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Scales to divide by, next to their means; a flat channel, up to rounding, gets 1."""
    tiny = np.finfo(scale.dtype).eps * 10 * np.abs(mean)
    return np.where(scale > tiny, scale, 1)
