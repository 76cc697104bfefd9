"""A figure for each control (chapter 8)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from eeglib.plotting.style import COLORS, new_figure

if TYPE_CHECKING:
    from eeglib.audit.card import AuditCard
    from eeglib.audit.controls import Control


def plot_control(control: "Control") -> Figure:
    """The details of a control that has some."""
    figure, axes = new_figure(2.8)
    DETAILS.get(control.name, _bars)(axes[0, 0], control)
    axes[0, 0].set_title(control.title)
    return figure


def plot_card(card: "AuditCard") -> Figure:
    """All available controls with interval and chance: accuracies above, differences below."""
    known = [c for c in card.controls if c.available and np.isfinite(c.chance)]
    sides = [[c for c in known if c.chance > 0], [c for c in known if c.chance == 0]]
    sizes = [max(1, len(side)) for side in sides]
    figure, axes = new_figure(1.8 + 0.32 * sum(sizes), 2, 1, height_ratios=sizes)
    labels = ("accuracy or rank", "difference or correlation")
    for ax, controls, label in zip(axes[:, 0], sides, labels, strict=True):
        names = [f"{c.number}: {c.title}" if c.number else c.title for c in controls]
        columns = ("estimate", "low", "high", "chance", "null_low", "null_high")
        table = np.array([[getattr(c, n) for c in controls] for n in columns])
        y, (value, low, high, chance, *null) = np.arange(len(controls)), table
        reach = np.nan_to_num(np.maximum(0, [value - low, high - value]))
        ax.hlines(y, *null, COLORS[1], linewidth=5, alpha=0.4, label="95% range by chance")
        style = {"fmt": "o", "capsize": 3, "ms": 4}
        ax.errorbar(value, y, xerr=reach, label="estimate and 95% interval", **style)
        ax.vlines(chance, y - 0.35, y + 0.35, COLORS[1], linewidth=2, label="chance")
        ax.set_yticks(y, names, fontsize=8)
        ax.set(xlabel=label, ylim=(max(1, len(controls)) - 0.4, -0.6))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


def plot_lags(curves: Mapping[str, np.ndarray], unit: str = "s") -> Figure:
    """Similarity of two trials against the time between them, within and across blocks."""
    figure, axes = new_figure(2.8)
    ax = axes[0, 0]
    for name, style in (("within", "o-"), ("across", "s--")):
        ax.plot(curves["lag"], curves[name], style, label=f"{name} blocks", ms=4)
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.set(xlabel=f"time between the two trials ({unit})", ylabel="similarity")
    ax.legend()
    return figure


def plot_share(shares: Mapping[str, "Control"], truths: Mapping | None = None) -> Figure:
    """The upper bound of the stimulus-driven share by the jump at the pauses, and the truth."""
    figure, axes = new_figure(1.0 + 0.4 * len(shares))
    ax, y, found = axes[0, 0], np.arange(len(shares)), list(shares.values())
    ax.hlines(y, 0, [s.high for s in found], color="0.7")
    for k, row in enumerate(found[0].rows):
        name = f"if amplitudes jump by {row['jump']:.0%} at the pauses" if k else "upper bound"
        ax.plot([s.rows[k]["bound"] for s in found], y, "|<4"[k], ms=8, label=name)
    if truths:
        ax.plot(list(truths.values()), y, "D", ms=7, zorder=0, label="truth")
    ax.set_yticks(y, list(shares))
    ax.set(xlabel="stimulus-driven share", xlim=(-0.03, 1.03), ylim=(len(shares) - 0.4, -0.6))
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def plot_sensitivity(table: DataFrame) -> Figure:
    """Share of simulated recordings in which each control sees a drift, against its strength."""
    figure, axes = new_figure(3.4)
    ax, seen = axes[0, 0], table.drop(columns="accuracy")
    seen.plot(x="drift strength", ax=ax, style=[f"{m}-" for m in "os^Dv*P"], ms=4, legend=False)
    ax.set(ylabel="share of seeds that see it", ylim=(-0.03, 1.03))
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _bars(ax: Axes, control: "Control") -> None:
    """A bar per row, with chance where the rows are accuracies of the control."""
    what, score, *_ = control.rows[0]
    ax.barh([r[what] for r in control.rows], [r[score] for r in control.rows], color=COLORS[5])
    ax.tick_params(axis="y", labelsize=8)
    ax.invert_yaxis()
    if control.chance > 0:
        ax.axvline(control.chance, color=COLORS[1], linewidth=2, label="chance")
        ax.legend(fontsize=8)
    ax.set_xlabel(score)


def _over_distance(ax: Axes, control: "Control") -> None:
    for row in control.rows:
        place = row["distance"], row["accuracy"]
        ax.plot(*place, "o", color=COLORS[0])
        ax.annotate(row["split"], place, fontsize=7.5, textcoords="offset points", xytext=(5, 4))
    ax.set_xlabel("median distance to the nearest training trial of the class (trials)")
    ax.set(ylabel="accuracy", ylim=(0, 1.25 * max(r["accuracy"] for r in control.rows)))
    ax.margins(x=0.15)


def _pairs(ax: Axes, control: "Control") -> None:
    ax.plot(*zip(*(r.values() for r in control.rows), strict=True), "o", markersize=4)
    ax.set_xlabel("time between the blocks of two classes (s)")
    ax.set_ylabel("confusion\n(log-probability, centred)")


def _windows(ax: Axes, control: "Control") -> None:
    *timed, shuffled = control.rows
    starts, accuracies = zip(*((float(r["window"]), r["accuracy"]) for r in timed), strict=True)
    ax.plot(starts, accuracies, "o-", label="50 ms windows")
    ax.axhline(shuffled["accuracy"], color=COLORS[2], linestyle="--", label=shuffled["window"])
    ax.axhline(control.chance, color=COLORS[1], linewidth=2, label="chance")
    ax.set(xlabel="start of the window after the image (ms)", ylabel="accuracy", ylim=(0, None))
    ax.legend(fontsize=8)


DETAILS: dict[str, Callable[[Axes, "Control"], None]] = {
    "temporal_distance": _over_distance,
    "confusion_distance": _pairs,
    "claim_errors": _pairs,
    "time_windows": _windows,
}
