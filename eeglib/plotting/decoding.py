"""Figures of teacher and student: training, scores, gains, confusion, recall, attribution."""

from collections.abc import Mapping, Sequence
from typing import Any

import mne
import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from PIL.Image import Image

from eeglib.plotting.style import COLORS, WIDTH, new_figure


def plot_training(histories: Mapping[str, DataFrame]) -> Figure:
    """Training and validation loss against the epoch, one panel per network.

    The epoch with the lowest validation loss, whose weights are kept, is marked.
    """
    figure, axes = new_figure(2.8, 1, len(histories), sharex=True)
    for ax, (name, history) in zip(axes[0], histories.items(), strict=True):
        best = history.loc[history["validation_loss"].idxmin()]
        ax.plot(history["epoch"], history["training_loss"], label="training")
        ax.plot(history["epoch"], history["validation_loss"], "--", label="validation")
        ax.plot(best["epoch"], best["validation_loss"], "o", color=COLORS[6], label="kept")
        ax.set(title=name, xlabel="epoch", ylabel="loss (nats)")
    axes[0, 0].legend()
    return figure


def plot_scores(table: DataFrame, xlabel: str = "top-1 accuracy", line: str = "chance") -> Figure:
    """Bars with intervals, and chance: columns ``method, value, low, high, chance``."""
    figure, axes = new_figure(0.9 + 0.36 * len(table))
    ax, places = axes[0, 0], np.arange(len(table))
    errors = _errors(table, "value")
    ax.barh(places, table["value"], color=COLORS[5], xerr=errors, capsize=3, ecolor="0.25")
    ax.vlines(table["chance"], places - 0.45, places + 0.45, COLORS[1], lw=2, label=line)
    ax.set_yticks(places, table["method"])
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    figure.legend(loc="outside upper right")
    return figure


def plot_group_scores(scores: DataFrame, titles: Mapping[str, str]) -> Figure:
    """Figure 5 of the paper: mean over subjects of the methods in `titles`, and chance, by metric.

    Takes `eeglib.evaluation.subject_scores`. Of three and more subjects a line is the standard
    deviation between them; of fewer, each is a point.
    """
    table = scores.pivot_table("value", ["metric", "subject"], "method", sort=False)
    table = table[list(titles)].rename(columns=titles)
    table["chance"] = scores.groupby(["metric", "subject"])["chance"].first()
    by_metric, n = table.groupby("metric", sort=False), scores["subject"].nunique()
    style = {"color": [COLORS[0], COLORS[5], COLORS[1]][-len(table.T) :], "width": 0.8, "rot": 0}
    style["yerr"] = by_metric.std().assign(chance=np.nan) if n > 2 else None
    figure, axes = new_figure(3.2)
    ax = by_metric.mean().plot.bar(ax=axes[0, 0], capsize=3, legend=False, **style)
    for k, name in enumerate(titles.values() if n < 3 else ()):
        places = np.arange(len(by_metric)) + 0.8 * ((k + 0.5) / len(table.T) - 0.5)
        ax.plot(places, table[name].unstack(sort=False), "o", color="0.2", markersize=4)
    ax.set(xlabel="", ylabel=f"mean over subjects (n = {n})")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def plot_gains(table: DataFrame) -> Figure:
    """Gain over the labels alone under each teacher: `eeglib.decoding.teacher_study.gains`."""
    table = table.assign(method=table.index, value=table["gain"], chance=0.0)
    return plot_scores(table, "gain in top-1 accuracy over the labels alone", "no gain")


def plot_sweep(table: DataFrame) -> Figure:
    """Validation accuracy against alpha and against T: `eeglib.decoding.teacher_study.sweep`."""
    parts = dict(list(table.groupby("parameter", sort=False)))
    figure, axes = new_figure(2.8, 1, len(parts), sharey=True)
    for ax, (name, part) in zip(axes[0], parts.items(), strict=True):
        means = part.groupby("value")["accuracy"].mean()
        ax.plot(part["value"], part["accuracy"], ".", color=COLORS[5], label="one seed")
        ax.plot(means.index, means, "o-", color=COLORS[0], label="mean")
        ax.axhline(part["chance"].iloc[0], color=COLORS[1], linestyle="--", label="chance")
        ax.set_xlabel("$\\alpha$, weight of the labels" if name == "alpha" else "temperature $T$")
        if name == "T":
            ax.set_xscale("log", base=2)
            ax.set_xticks(means.index, [f"{value:g}" for value in means.index])
    axes[0, 0].set_ylabel(f"validation accuracy (n = {table['n'].iloc[0]})")
    axes[0, -1].legend()
    return figure


def plot_similarity(matrix: np.ndarray, class_names: Sequence[str], label: str) -> Figure:
    """A square matrix over classes."""
    side = min(WIDTH, 3.0 + 0.13 * len(class_names))
    figure, axes = new_figure(side)
    figure.set_figwidth(side + 1.2)
    ax, ticks = axes[0, 0], range(len(class_names))
    mesh = ax.imshow(matrix)
    ax.set_xticks(ticks, class_names, rotation=90, fontsize=8)
    ax.set_yticks(ticks, class_names, fontsize=8)
    figure.colorbar(mesh, ax=ax, label=label, shrink=0.8)
    return figure


def plot_confusion_by_group(
    counts: np.ndarray, class_names: Sequence[str], groups: Sequence[str]
) -> Figure:
    """Which class was taken for which, classes of one semantic group side by side.

    `counts` has shape (n_classes, n_classes): true class down, predicted class across.
    """
    order = sorted(range(len(groups)), key=lambda c: (groups[c], c))
    ordered = np.asarray(counts)[np.ix_(order, order)]
    shares = ordered / np.maximum(ordered.sum(axis=1, keepdims=True), 1)
    names = [f"{groups[c]}: {class_names[c]}" if groups[c] else class_names[c] for c in order]
    figure = plot_similarity(shares, names, "share of the true class's trials")
    ax = figure.axes[0]
    ax.set(xlabel="predicted class", ylabel="true class")
    for place in range(1, len(order)):
        if groups[order[place]] != groups[order[place - 1]]:
            ax.axhline(place - 0.5, color="white", linewidth=1)
            ax.axvline(place - 0.5, color="white", linewidth=1)
    return figure


def plot_recall(table: DataFrame) -> Figure:
    """Share of each class's test trials named rightly: `eeglib.evaluation.recall_by_class`."""
    table = table[table["n"] > 0].sort_values("recall", ascending=False)
    figure, axes = new_figure(3.2)
    ax, places = axes[0, 0], np.arange(len(table))
    errors = _errors(table, "recall")
    ax.bar(places, table["recall"], color=COLORS[5], yerr=errors, capsize=2, ecolor="0.25")
    ends = places - 0.45, places + 0.45
    ax.hlines(table["chance"], *ends, color=COLORS[1], linewidth=2, label="share named so")
    ax.set_xticks(places, table["class"], rotation=90, fontsize=8)
    ax.set(ylabel="recall", ylim=(0, 1))
    ax.legend()
    return figure


def plot_attribution(
    attribution: Any, info: mne.Info, frequencies: np.ndarray, times: np.ndarray
) -> Figure:
    """What channels and cells added to the logit of the true class: an `Attribution`.

    Channels without positions in `info` are bars; `frequencies` are in hertz, `times` in seconds
    after the onset of the image.
    """
    figure, axes = new_figure(3.2, 1, 2)
    head, map_ = axes[0]
    label, style = "added to the logit", {"cmap": "RdBu_r"}
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    if np.isfinite(places).all() and np.ptp(places, axis=0).min() > 0:
        size = np.abs(attribution.channels).max() or 1.0
        options = {"axes": head, "show": False, "vlim": (-size, size), "contours": 0}
        mesh, _ = mne.viz.plot_topomap(attribution.channels, info, **options, **style)
        figure.colorbar(mesh, ax=head, label=label, shrink=0.8)
    else:
        head.barh(info["ch_names"], attribution.channels, color=COLORS[0])
        head.set_xlabel(label)
    head.set_title("channels")
    size = np.abs(attribution.cells).max() or 1.0
    limits = {"vmin": -size, "vmax": size, "shading": "nearest"}
    mesh = map_.pcolormesh(times, frequencies, attribution.cells, **limits, **style)
    map_.set(title="time-frequency cells", xlabel="time (s)", ylabel="frequency (Hz)")
    map_.set_ylim(bottom=max(0.0, map_.get_ylim()[0]))
    figure.colorbar(mesh, ax=map_, label=label, shrink=0.8)
    return figure


def plot_soft_targets(
    pictures: Sequence[Image],
    probabilities: np.ndarray,
    labels: Sequence[int],
    class_names: Sequence[str],
) -> Figure:
    """Pictures and, below, the teacher's five largest probabilities; the true class in orange."""
    figure, axes = new_figure(4.4, 2, len(pictures), height_ratios=[1, 1.2])
    box = {"facecolor": "white", "alpha": 0.6, "pad": 0.8, "edgecolor": "none"}
    trials = zip(axes.T, pictures, probabilities, labels, strict=True)
    for (above, ax), picture, shares, label in trials:
        above.imshow(picture)
        above.axis("off")
        order = np.argsort(shares)[:-6:-1]  # the five largest
        colors = [COLORS[1] if c == label else COLORS[0] for c in order]
        ax.barh(range(len(order)), shares[order], color=colors)
        for y, c in enumerate(order):
            name = class_names[c] if len(class_names[c]) <= 16 else class_names[c][:15] + "…"
            ax.text(0.03, y, name, va="center", fontsize=8, bbox=box)
        ax.set(xlim=(0, 1), xlabel="probability")
        ax.set_yticks([])
        ax.invert_yaxis()
    return figure


def _errors(table: DataFrame, value: str) -> np.ndarray:
    """Distances of the interval's ends from the value, shape (2, n)."""
    return np.abs(np.stack([table[value] - table["low"], table["high"] - table[value]]))
