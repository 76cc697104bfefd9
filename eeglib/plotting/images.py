"""Figures of chapters 7 and 9: pictures side by side, and their scores.

What is right and what is wrong stands in words, so that nobody needs colours to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from eeglib.plotting.style import COLORS, WIDTH, new_figure, wrap

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from PIL.Image import Image


def open_pictures(files: Iterable) -> list[Image]:
    """Read pictures from files, in colour."""
    import PIL.Image

    return [PIL.Image.open(file).convert("RGB") for file in files]


def plot_reconstructions(
    shown: Sequence[Image],
    drawn: Sequence[Image],
    true_names: Sequence[str],
    predicted_names: Sequence[str],
) -> Figure:
    """What was shown above what was drawn from the predicted class, judged in words."""
    bands = -(-len(shown) // 8)
    columns = -(-len(shown) // bands)
    figure, axes = new_figure(2.5 * WIDTH / max(columns, 4) * bands, 2 * bands, columns)
    for ax in axes.flat:
        ax.axis("off")
    for index, (image, drawing, true, predicted) in enumerate(
        zip(shown, drawn, true_names, predicted_names, strict=True)
    ):
        row, column = 2 * (index // columns), index % columns
        axes[row, column].imshow(image)
        axes[row, column].set_title(wrap(f"shown: {true}", 15), fontsize=8)
        axes[row + 1, column].imshow(drawing)
        verdict = "right" if true == predicted else "wrong"
        axes[row + 1, column].set_title(wrap(f"{verdict}: {predicted}", 15), fontsize=8)
    return figure


def plot_strip(pictures: Sequence[Image], titles: Sequence[str]) -> Figure:
    """Pictures in a row: the way from noise to an image."""
    return plot_stimuli(pictures, titles, columns=len(pictures))


def plot_sets(
    sets: Mapping[str, Sequence[Image]], titles: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Sets of pictures below each other: a row per set, a column per trial.

    Parameters
    ----------
    sets : mapping of str to sequence of PIL.Image.Image
        All of one length.
    titles : mapping of str to sequence of str | None
        What stands above each picture, for the sets that have titles.
    """
    columns = len(next(iter(sets.values())))
    side = 0.85 * WIDTH / columns
    figure, axes = new_figure(side * len(sets) + 0.35 * (1 + len(titles or {})), len(sets), columns)
    for row, (name, pictures) in zip(axes, sets.items(), strict=True):
        row[0].set_ylabel(wrap(name, 16), rotation=0, ha="right", va="center", fontsize=8)
        words = (titles or {}).get(name, [""] * columns)
        for ax, picture, text in zip(row, pictures, words, strict=True):
            ax.imshow(picture)
            ax.set_title(wrap(text, 16), fontsize=7)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    return figure


def plot_picture_scores(table: pandas.DataFrame, columns: int = 3) -> Figure:
    """Scores of sets of pictures with their intervals, a panel per score.

    Parameters
    ----------
    table : pandas.DataFrame
        From `eeglib.reconstruction.image_metrics.with_controls`.
    columns : int
        Panels in a row.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    sets = list(dict.fromkeys(table["pictures"]))
    rows = -(-len(metrics) // columns)
    figure, axes = new_figure((0.75 + 0.2 * len(sets)) * rows, rows, columns, sharey=True)
    for ax in axes.flat[len(metrics) :]:
        ax.axis("off")
    for ax, metric in zip(axes.flat, metrics, strict=False):
        of_metric = table[table["metric"] == metric].set_index("pictures").loc[sets]
        reach = np.abs(of_metric[["low", "high"]].to_numpy().T - of_metric["value"].to_numpy())
        ax.errorbar(
            of_metric["value"],
            range(len(sets)),
            xerr=reach,
            fmt="o",
            color=COLORS[0],
            ecolor="0.4",
            capsize=2,
            markersize=4,
        )
        if of_metric["chance"].notna().all():
            ax.plot(
                of_metric["chance"],
                range(len(sets)),
                "|",
                color=COLORS[1],
                markersize=12,
                markeredgewidth=2,
                label="wrong pairs" if ax is axes[0, 0] else None,
            )
        ax.set_title(wrap(f"{metric} ({of_metric['better'].iloc[0]} is better)", 30), fontsize=8)
        ax.set_yticks(range(len(sets)), sets, fontsize=8)
        ax.tick_params(axis="x", labelsize=8)
    axes[0, 0].invert_yaxis()
    figure.legend(loc="outside lower right", fontsize=8)
    return figure


def plot_gallery(drawings: pandas.DataFrame, stimuli: pandas.DataFrame) -> Figure:
    """Figures 3 and 4 of the paper: a row per class; an image shown, then a drawing per subject.

    Parameters
    ----------
    drawings : pandas.DataFrame
        Columns ``subject, image, true, predicted, file``; each subject's first drawing of a class
        is taken. Of more than 6 subjects the first 6 are shown, and the title says so.
    stimuli : pandas.DataFrame
        Columns ``image, file``.
    """
    from PIL import Image

    everybody = sorted(drawings["subject"].unique())
    subjects = everybody[:6]
    classes = list(dict.fromkeys(drawings["true"]))
    files = stimuli.set_index("image")["file"]
    figure, axes = plt.subplots(
        len(classes),
        len(subjects) + 1,
        squeeze=False,
        layout="constrained",
        figsize=(min(WIDTH, 1.6 * (len(subjects) + 1)), 1.6 * len(classes)),
    )
    if len(subjects) < len(everybody):
        figure.suptitle(f"the first {len(subjects)} of {len(everybody)} subjects")
    for ax in axes.flat:
        ax.axis("off")
    for row, name in enumerate(classes):
        of_class = drawings[drawings["true"] == name]
        axes[row, 0].imshow(Image.open(files[of_class["image"].iloc[0]]).convert("RGB"))
        axes[row, 0].set_title(wrap(f"shown: {name}", 18), fontsize=8)
        for column, subject in enumerate(subjects, start=1):
            found = of_class[of_class["subject"] == subject]
            if found.empty:
                axes[row, column].text(0.5, 0.5, "none drawn", ha="center", color="0.4")
                continue
            drawing = found.iloc[0]
            verdict = "right" if drawing["predicted"] == name else "wrong"
            title = f"subject {subject}, {verdict}: {drawing['predicted']}"
            axes[row, column].imshow(Image.open(drawing["file"]).convert("RGB"))
            axes[row, column].set_title(wrap(title, 20), fontsize=8)
    return figure


def plot_stimuli(pictures: Sequence[Image], titles: Sequence[str], columns: int = 8) -> Figure:
    """A sheet of pictures with a title above each."""
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(1.25 * WIDTH / columns * rows, rows, columns)
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture, title in zip(axes.flat, pictures, titles, strict=False):
        ax.imshow(picture)
        ax.set_title(wrap(title, 14), fontsize=8)
    return figure
