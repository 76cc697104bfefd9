"""Figures of chapters 7 and 9: pictures, and their scores; right and wrong stand in words."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from eeglib.plotting.style import COLORS, WIDTH, new_figure


def plot_reconstructions(
    shown: Sequence[Image.Image],
    drawn: Sequence[Image.Image],
    true_names: Sequence[str],
    predicted_names: Sequence[str],
) -> Figure:
    """What was shown above what was drawn from the predicted class, judged in words."""
    bands = -(-len(shown) // 8)
    columns = -(-len(shown) // bands)
    figure, axes = new_figure(2.5 * WIDTH / max(columns, 4) * bands, 2 * bands, columns)
    for ax in axes.flat:
        ax.axis("off")
    cells = zip(shown, drawn, true_names, predicted_names, strict=True)
    for index, (image, drawing, true, predicted) in enumerate(cells):
        row, column = 2 * (index // columns), index % columns
        verdict = "right" if true == predicted else "wrong"
        _show(axes[row, column], image, fill(f"label: {true}", 15))
        _show(axes[row + 1, column], drawing, fill(f"{verdict}: {predicted}", 15))
    return figure


def plot_sets(
    sets: Mapping[str, Sequence[Image.Image]], titles: Mapping[str, Sequence[str]]
) -> Figure:
    """Sets of pictures: a row per set, a column per trial, titles above where a set has them."""
    columns = len(next(iter(sets.values())))
    side = 0.85 * WIDTH / columns
    figure, axes = new_figure(side * len(sets) + 0.35 * (1 + len(titles)), len(sets), columns)
    for row, (name, pictures) in zip(axes, sets.items(), strict=True):
        row[0].set_ylabel(fill(name, 16), rotation=0, ha="right", va="center", fontsize=8)
        words = titles.get(name, [""] * columns)
        for ax, picture, text in zip(row, pictures, words, strict=True):
            ax.imshow(picture)
            ax.set_title(fill(text, 16), fontsize=7)
            ax.set(xticks=[], yticks=[], frame_on=False)
    return figure


def plot_picture_scores(table: pandas.DataFrame, columns: int = 3) -> Figure:
    """A panel per score, with intervals: `eeglib.reconstruction.image_metrics.with_controls`."""
    metrics, sets = (list(table[name].unique()) for name in ("metric", "pictures"))
    rows, place = -(-len(metrics) // columns), np.arange(len(sets))
    figure, axes = new_figure(0.4 + 1.7 * rows, rows, columns, sharey=True)
    for ax in axes.flat[len(metrics) :]:
        ax.axis("off")
    for ax, metric in zip(axes.flat, metrics, strict=False):
        own = table[table["metric"] == metric].set_index("pictures").loc[sets]
        strokes = ax.plot(own["chance"], place, "|", color=COLORS[1], ms=14, mew=2)
        reach = np.abs(own[["low", "high"]].to_numpy().T - own["value"].to_numpy())
        ax.errorbar(own["value"], place, xerr=reach, fmt="o", ecolor="0.4", capsize=2, markersize=4)
        ax.set_title(f"{metric}\n({own['better'].iloc[0]} is better)", fontsize=8)
        ax.set_yticks(place, sets, fontsize=8)
        ax.set_ylim(len(sets) - 0.5, -0.5)
        ax.tick_params(axis="x", labelsize=8)
        ax.locator_params(axis="x", nbins=4)
    figure.legend(strokes, ["paired with wrong images"], loc="outside lower right", fontsize=8)
    return figure


def plot_gallery(drawings: pandas.DataFrame, stimuli: pandas.DataFrame) -> Figure:
    """Figures 3 and 4 of the paper: a row per class; an image shown, then a drawing per subject.

    `drawings` holds ``subject, image, true, predicted, file``, `stimuli` ``image, file``. Of more
    than 6 subjects the first 6 are shown, and the title says so.
    """
    everybody = sorted(drawings["subject"].unique())
    subjects, classes = everybody[:6], list(drawings["true"].unique())
    files = stimuli.set_index("image")["file"]
    size = (min(WIDTH, 1.6 * (len(subjects) + 1)), 1.6 * len(classes))
    figure, axes = plt.subplots(len(classes), len(subjects) + 1, squeeze=False, figsize=size)
    if len(subjects) < len(everybody):
        figure.suptitle(f"the first {len(subjects)} of {len(everybody)} subjects")
    for row, name in zip(axes, classes, strict=True):
        of_class = drawings[drawings["true"] == name]
        _show(row[0], Image.open(files[of_class["image"].iloc[0]]), fill(f"label: {name}", 18))
        for ax, subject in zip(row[1:], subjects, strict=True):
            own = of_class[of_class["subject"] == subject]
            if own.empty:
                ax.text(0.5, 0.5, "none drawn", ha="center", color="0.4")
                ax.axis("off")
                continue
            predicted, file = own.iloc[0][["predicted", "file"]]
            verdict = "right" if predicted == name else "wrong"
            _show(ax, Image.open(file), fill(f"subject {subject}, {verdict}: {predicted}", 20))
    return figure


def plot_stimuli(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Figure:
    """A sheet of pictures, eight in a row, with a title above each."""
    rows = -(-len(pictures) // 8)
    figure, axes = new_figure(1.25 * WIDTH / 8 * rows, rows, 8)
    for ax in axes.flat[len(pictures) :]:
        ax.axis("off")
    for ax, picture, title in zip(axes.flat, pictures, titles, strict=False):
        _show(ax, picture, fill(title, 14))
    return figure


def _show(ax: Axes, picture: Image.Image, title: str) -> None:
    ax.imshow(picture.convert("RGB"))
    ax.set_title(title, fontsize=8)
    ax.axis("off")
