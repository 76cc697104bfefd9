"""Figures of decoding while it happens (chapter 10)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas
from matplotlib.figure import Figure

from eeglib.plotting.style import COLORS, new_figure

__all__ = ["plot_latency", "plot_pulse"]


def plot_pulse(times: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """What each way to filter makes of a pulse at time 0; seconds, and curves by name."""
    figure, axes = new_figure(2.8)
    for color, style, (name, curve) in zip(COLORS, ("-", "--"), curves.items(), strict=False):
        axes[0, 0].plot(1e3 * times, curve, style, color=color, label=name)
    axes[0, 0].axvline(0, color="grey", linewidth=0.8)
    axes[0, 0].set(xlabel="time after the pulse (ms)", ylabel="filtered (no unit)")
    axes[0, 0].legend()
    return figure


def plot_latency(parts: pandas.DataFrame) -> Figure:
    """Milliseconds of each part, a column each: a dot at the median, a line to 99 of 100."""
    figure, axes = new_figure(0.9 + 0.35 * parts.shape[1])
    medians, highs = parts.median(), parts.quantile(0.99)
    rows = np.arange(parts.shape[1])
    axes[0, 0].hlines(rows, medians, highs, color=COLORS[0])
    axes[0, 0].plot(medians, rows, "o", color=COLORS[0])
    for row, (median, high) in enumerate(zip(medians, highs, strict=True)):
        median, high = (f"{value:,.{0 if value >= 100 else 1}f}" for value in (median, high))
        axes[0, 0].text(highs.iloc[row], row, f"  {median} ms, 99%: {high} ms", va="center")
    axes[0, 0].set(xscale="log", xlabel="milliseconds", yticks=rows, yticklabels=list(parts))
    axes[0, 0].set_xlim(0.8 * medians.min(), 30 * highs.max())
    axes[0, 0].invert_yaxis()
    return figure
