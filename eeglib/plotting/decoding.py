"""Figures of the student: gains, sweeps, confusion by semantic group, recall, attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from eeglib.decoding.teacher_study import ALONE
from eeglib.plotting.style import COLORS, WIDTH, new_figure, shorten

if TYPE_CHECKING:
    import mne
    import pandas
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from eeglib.decoding.attribution import Attribution


def plot_gains(table: pandas.DataFrame) -> Figure:
    """Gain over the labels alone under each teacher, with intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From `eeglib.decoding.teacher_study.gains`; the labels alone, whose gain is 0, are not drawn.
    """
    import matplotlib.pyplot as plt

    shown = table.drop(index=ALONE)
    figure, ax = plt.subplots(figsize=(WIDTH, 1.1 + 0.4 * len(shown)), layout="constrained")
    rows = np.arange(len(shown))
    errors = np.abs(np.stack([shown["gain"] - shown["low"], shown["high"] - shown["gain"]]))
    ax.errorbar(shown["gain"], rows, xerr=errors, fmt="o", color=COLORS[0], capsize=3)
    ax.axvline(0, color=COLORS[1], linewidth=1.5, label="no gain")
    ax.set_yticks(rows, shown.index)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlabel("gain in top-1 accuracy over the labels alone")
    figure.legend(loc="outside upper right")
    return figure


def plot_sweep(table: pandas.DataFrame) -> Figure:
    """Validation accuracy against alpha and against T: a dot per seed, a line through the means.

    Parameters
    ----------
    table : pandas.DataFrame
        From `eeglib.decoding.teacher_study.sweep`.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(table["parameter"]))
    figure, axes = plt.subplots(
        1, len(names), figsize=(WIDTH, 2.8), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], names, strict=True):
        own = table[table["parameter"] == name]
        means = own.groupby("value")["accuracy"].mean()
        ax.plot(own["value"], own["accuracy"], ".", color=COLORS[5], label="one seed")
        ax.plot(means.index, means, "o-", color=COLORS[0], label="mean")
        ax.axhline(own["chance"].iloc[0], color=COLORS[1], linestyle="--", label="chance")
        ax.set_xlabel("$\\alpha$, weight of the labels" if name == "alpha" else "temperature $T$")
        if name == "T":
            ax.set_xscale("log", base=2)
            ax.set_xticks(means.index, [f"{value:g}" for value in means.index])
    axes[0, 0].set_ylabel(f"validation accuracy (n = {table['n'].iloc[0]})")
    axes[0, -1].legend()
    return figure


def plot_confusion_by_group(
    counts: np.ndarray, class_names: Sequence[str], groups: Sequence[str]
) -> Figure:
    """Which class was taken for which, classes of one semantic group side by side.

    Parameters
    ----------
    counts : array of int, shape (n_classes, n_classes)
        True class down, predicted class across.
    class_names, groups : sequence of str, length n_classes
        Name and group of each class, in the order of the rows.
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


def plot_recall(table: pandas.DataFrame) -> Figure:
    """Share of each class's test trials that were named rightly, with intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From `eeglib.evaluation.recall_by_class`.
    """
    import matplotlib.pyplot as plt

    shown = table[table["n"] > 0].sort_values("recall", ascending=False)
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    places = np.arange(len(shown))
    errors = np.abs(np.stack([shown["recall"] - shown["low"], shown["high"] - shown["recall"]]))
    ax.bar(places, shown["recall"], color=COLORS[5], yerr=errors, capsize=2, ecolor="0.25")
    ax.axhline(shown["chance"].iloc[0], color=COLORS[1], linestyle="--", label="chance")
    ax.set_xticks(places, shown["class"], rotation=90, fontsize=8)
    ax.set(ylabel="recall", ylim=(0, 1))
    ax.legend()
    return figure


def plot_attribution(
    found: Attribution, info: mne.Info, frequencies: np.ndarray, times: np.ndarray
) -> Figure:
    """What channels and time-frequency cells added to the logit of the true class.

    Parameters
    ----------
    found : Attribution
    info : mne.Info
        Channels of the images, in their order; without positions they are drawn as bars.
    frequencies, times : array
        Axes of the images: hertz, and seconds after the onset of the image.
    """
    import matplotlib.pyplot as plt
    import mne

    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2), layout="constrained")
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    size = np.abs(found.channels).max() or 1.0
    if np.isfinite(places).all() and np.ptp(places, axis=0).min() > 0:
        shown, _ = mne.viz.plot_topomap(
            found.channels,
            info,
            axes=axes[0],
            show=False,
            vlim=(-size, size),
            cmap="RdBu_r",
            contours=0,
        )
        figure.colorbar(shown, ax=axes[0], label="added to the logit", shrink=0.8)
    else:
        axes[0].barh(info["ch_names"], found.channels, color=COLORS[0])
        axes[0].set_xlabel("added to the logit")
    axes[0].set_title("channels")
    size = np.abs(found.cells).max() or 1.0
    mesh = axes[1].pcolormesh(
        times, frequencies, found.cells, shading="nearest", cmap="RdBu_r", vmin=-size, vmax=size
    )
    axes[1].set(title="time-frequency cells", xlabel="time (s)", ylabel="frequency (Hz)")
    figure.colorbar(mesh, ax=axes[1], label="added to the logit", shrink=0.8)
    return figure


def plot_soft_targets(
    pictures: Sequence[Image],
    probabilities: np.ndarray,
    labels: Sequence[int],
    class_names: Sequence[str],
    n_bars: int = 5,
) -> Figure:
    """Pictures and, under each, the teacher's largest probabilities; the true class in orange."""
    figure, axes = new_figure(4.4, 2, len(pictures), height_ratios=[1, 1.2])
    for column, (picture, row, label) in enumerate(
        zip(pictures, probabilities, labels, strict=True)
    ):
        axes[0, column].imshow(picture)
        axes[0, column].axis("off")
        order = np.argsort(row)[::-1][:n_bars]
        colors = [COLORS[1] if c == label else COLORS[0] for c in order]
        ax = axes[1, column]
        ax.barh(range(len(order)), row[order], color=colors)
        ax.set(xlim=(0, 1), xlabel="probability")
        ax.set_yticks([])
        for y, c in enumerate(order):
            ax.text(
                0.03,
                y,
                shorten(class_names[c], 16),
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.6, "pad": 0.8, "edgecolor": "none"},
            )
        ax.invert_yaxis()
    return figure


def plot_similarity(matrix: np.ndarray, class_names: Sequence[str], label: str) -> Figure:
    """A square matrix over classes."""
    side = min(WIDTH, 3.0 + 0.13 * len(class_names))
    figure, axes = plt.subplots(figsize=(side + 1.2, side), layout="constrained")
    shown = axes.imshow(matrix)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=90, fontsize=8)
    axes.set_yticks(ticks, class_names, fontsize=8)
    figure.colorbar(shown, ax=axes, label=label, shrink=0.8)
    return figure


def plot_training(histories: Mapping[str, pandas.DataFrame], stopped: bool = True) -> Figure:
    """Training and validation loss against the epoch, one panel per network.

    Parameters
    ----------
    histories : mapping of str to pandas.DataFrame
        Columns ``epoch``, ``training_loss``, ``validation_loss``.
    stopped : bool
        Mark the epoch with the lowest validation loss, whose weights are kept.
    """
    figure, axes = new_figure(2.8, 1, len(histories), sharex=True)
    for ax, (name, history) in zip(axes[0], histories.items(), strict=True):
        ax.plot(history["epoch"], history["training_loss"], label="training")
        ax.plot(history["epoch"], history["validation_loss"], "--", label="validation")
        if stopped:
            best = history.loc[history["validation_loss"].idxmin()]
            ax.plot(best["epoch"], best["validation_loss"], "o", color=COLORS[6], label="kept")
        ax.set(title=name, xlabel="epoch", ylabel="loss (nats)")
    axes[0, 0].legend()
    return figure


def plot_scores(table: pandas.DataFrame, xlabel: str = "top-1 accuracy") -> Figure:
    """Bars with intervals, one per method, and the level of chance.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``method`` (title), ``value``, ``low``, ``high``, ``chance``.
    xlabel : str
    """
    figure, axes = new_figure(0.9 + 0.36 * len(table))
    ax = axes[0, 0]
    rows = np.arange(len(table))
    errors = np.abs(np.stack([table["value"] - table["low"], table["high"] - table["value"]]))
    ax.barh(rows, table["value"], color=COLORS[5], xerr=errors, capsize=3, ecolor="0.25")
    for y, chance in zip(rows, table["chance"], strict=True):
        ax.plot(
            [chance, chance],
            [y - 0.45, y + 0.45],
            color=COLORS[1],
            linewidth=2,
            label="chance" if y == 0 else None,
        )
    ax.set_yticks(rows, table["method"])
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    figure.legend(loc="outside upper right")
    return figure
