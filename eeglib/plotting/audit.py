"""A figure for each control (chapter 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from eeglib.plotting.style import COLORS, new_figure

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eeglib.audit.card import AuditCard
    from eeglib.audit.controls import Control


def plot_control(control: Control) -> Figure:
    """The details of a control that has some; `plot_card` has the estimates of all."""
    figure, axes = new_figure(2.8)
    DETAILS.get(control.name, _bars)(axes[0, 0], control)
    axes[0, 0].set_title(control.title)
    return figure


def plot_card(card: AuditCard) -> Figure:
    """All available controls with interval and chance: accuracies above, differences below."""
    known = [c for c in card.controls if c.available and np.isfinite(c.chance)]
    sides = [[c for c in known if c.chance > 0], [c for c in known if c.chance == 0]]
    sizes = [max(1, len(side)) for side in sides]
    figure, axes = new_figure(1.8 + 0.32 * sum(sizes), 2, 1, height_ratios=sizes)
    labels = ("accuracy or rank", "difference or correlation")
    for ax, controls, label in zip(axes[:, 0], sides, labels, strict=True):
        names = [f"{c.number}: {c.title}" if c.number else c.title for c in controls]
        for y, control in enumerate(controls):
            _bar(ax, y, control)
        ax.set_yticks(range(len(controls)), names, fontsize=8)
        ax.set(xlabel=label, ylim=(max(1, len(controls)) - 0.4, -0.6))
    _legend_once(figure, axes[0, 0])
    return figure


def plot_lags(curves: Mapping[str, np.ndarray], unit: str = "s") -> Figure:
    """Similarity of two trials against the time between them, within and across blocks."""
    figure, axes = new_figure(2.8)
    ax = axes[0, 0]
    for name, style, color in (("within", "o-", COLORS[0]), ("across", "s--", COLORS[1])):
        ax.plot(curves["lag"], curves[name], style, color=color, label=f"{name} blocks", ms=4)
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.set(xlabel=f"time between the two trials ({unit})", ylabel="similarity")
    ax.legend()
    return figure


def plot_share(shares: Mapping[str, Control], truths: Mapping[str, float] | None = None) -> Figure:
    """The stimulus-driven share with its interval, and the truth where it is known."""
    figure, axes = new_figure(1.0 + 0.4 * len(shares))
    ax = axes[0, 0]
    for y, (name, share) in enumerate(shares.items()):
        ax.plot([share.low, share.high], [y, y], color=COLORS[0], label="95% interval")
        ax.plot(share.estimate, y, "o", color=COLORS[0], label="estimate")
        if truths and name in truths:
            ax.plot(truths[name], y, "D", color=COLORS[1], markersize=7, zorder=0, label="truth")
    ax.set_yticks(range(len(shares)), list(shares))
    ax.set(xlabel="stimulus-driven share", xlim=(-0.03, 1.03), ylim=(len(shares) - 0.4, -0.6))
    _legend_once(figure, ax)
    return figure


def plot_sensitivity(table: pandas.DataFrame) -> Figure:
    """Share of simulated recordings in which each control sees a drift, against its strength."""
    figure, axes = new_figure(3.4)
    ax, strength = axes[0, 0], table["drift strength"]
    columns = [c for c in table if c not in ("drift strength", "accuracy")]
    for color, marker, name in zip(COLORS, "os^Dv*P", columns, strict=False):
        ax.plot(strength, table[name], f"{marker}-", color=color, label=name, ms=4)
    ax.set(xlabel="drift strength", ylabel="share of seeds that see it", ylim=(-0.03, 1.03))
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _legend_once(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside upper right", ncols=3)


def _bar(ax: Axes, y: int, control: Control) -> None:
    reach = np.maximum(0, [[control.estimate - control.low], [control.high - control.estimate]])
    style = {"fmt": "o", "color": COLORS[0], "capsize": 3, "ms": 4}
    ax.errorbar(control.estimate, y, xerr=reach, label="estimate and 95% interval", **style)
    ends = [y - 0.35, y + 0.35]
    ax.plot([control.chance] * 2, ends, color=COLORS[1], linewidth=2, label="chance")


def _bars(ax: Axes, control: Control) -> None:
    """A bar per row, with chance where the rows are accuracies of the control."""
    what, score, *_ = control.rows[0]
    ax.barh([r[what] for r in control.rows], [r[score] for r in control.rows], color=COLORS[5])
    ax.tick_params(axis="y", labelsize=8)
    ax.invert_yaxis()
    if control.chance > 0:
        ax.axvline(control.chance, color=COLORS[1], linewidth=2, label="chance")
        ax.legend(fontsize=8)
    ax.set_xlabel(score)


def _over_distance(ax: Axes, control: Control) -> None:
    for row in control.rows:
        place = row["distance"], row["accuracy"]
        ax.plot(*place, "o", color=COLORS[0])
        ax.annotate(row["split"], place, fontsize=7.5, textcoords="offset points", xytext=(5, 4))
    ax.set_xlabel("median distance to the nearest training trial of the class (trials)")
    ax.set(ylabel="accuracy", ylim=(0, 1.25 * max(r["accuracy"] for r in control.rows)))
    ax.margins(x=0.15)


def _pairs(ax: Axes, control: Control) -> None:
    distances, confusions = zip(*(r.values() for r in control.rows), strict=True)
    ax.plot(distances, confusions, "o", color=COLORS[0], markersize=4)
    ax.set_xlabel("time between the blocks of two classes (s)")
    ax.set_ylabel("confusion\n(log-probability, centred)")


def _windows(ax: Axes, control: Control) -> None:
    *timed, shuffled = control.rows
    starts = [float(r["window"]) for r in timed]
    accuracies = [r["accuracy"] for r in timed]
    ax.plot(starts, accuracies, "o-", color=COLORS[0], label="50 ms windows")
    ax.axhline(shuffled["accuracy"], color=COLORS[2], linestyle="--", label=shuffled["window"])
    ax.axhline(control.chance, color=COLORS[1], linewidth=2, label="chance")
    ax.set(xlabel="start of the window after the image (ms)", ylabel="accuracy", ylim=(0, None))
    ax.legend(fontsize=8)


DETAILS: dict[str, Callable[[Axes, Control], None]] = {
    "temporal_distance": _over_distance,
    "confusion_distance": _pairs,
    "student_confusion": _pairs,
    "time_windows": _windows,
}
