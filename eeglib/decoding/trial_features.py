"""Features of the classical rows: power of channels, means over windows (chapter 6)."""

from __future__ import annotations

import numpy as np

WINDOW = 0.08
"""Seconds over which the windowed rows average: 80 points at the paper's 1,000 Hz."""


def power_features(trials: np.ndarray, average_over: str = "times") -> np.ndarray:
    """Mean square of standardised signals.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
    average_over : {"times", "channels"}

    Returns
    -------
    array of float32, shape (n_trials, n_chans) or (n_trials, n_times)

    Notes
    -----
    The paper (section 3.6) says "standardized, squared, and subsequently averaged across
    channels", which leaves one number per time. Its table calls the row "LR on average square
    signal" and gives it an accuracy of .36, as good as an LSTM's. The average over the *times* of
    each channel is the power of the channel, the feature that such a result would come from; it
    is the default here. The other reading is kept for comparison.
    """
    axes = {"times": -1, "channels": -2}
    if average_over not in axes:
        raise ValueError(f"average_over must be times or channels, got {average_over!r}.")
    return np.square(trials, dtype=np.float32).mean(axis=axes[average_over])


def window_features(trials: np.ndarray, sfreq: float) -> np.ndarray:
    """Means of each channel over windows of 80 ms that move by half their length.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
    sfreq : float
        Hertz.

    Returns
    -------
    array of float32, shape (n_trials, n_chans * n_windows)
    """
    n_trials, _, n_times = trials.shape
    length = min(n_times, max(1, round(WINDOW * sfreq)))
    sums = np.cumsum(trials, axis=-1, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)
    starts = np.arange(0, n_times - length + 1, max(1, length // 2))
    means = (sums[..., starts + length] - sums[..., starts]) / length
    return means.reshape(n_trials, -1).astype(np.float32)
