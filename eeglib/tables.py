"""Tables of the book: scores of one subject, pairs of methods, all subjects (chapters 6 and 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eeglib.chapter import FAILURE, chapter_folder, load_metrics
from eeglib.evaluation import paired_difference, summarize_subjects

if TYPE_CHECKING:
    from eeglib.chapter import Chapter
    from eeglib.profile import EvaluationSettings

METRICS = ("top-1", "top-3", "top-5", "F1", "kappa")


def score_table(
    scores: Mapping[str, pd.DataFrame], titles: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Scores of one subject in the layout of the paper's Table 1.

    Parameters
    ----------
    scores : mapping of method to table
        Tables of `eeglib.evaluation.score` for the same trials.
    titles : mapping of method to str | None
        Names to print; the method's own where left out.

    Returns
    -------
    pandas.DataFrame
        A row per method and a last row for chance; each cell reads ``value [low, high]``. The
        column ``n`` counts the trials, ``p`` is the exact test of top-1 accuracy against chance.
    """
    rows = {}
    for method, table in scores.items():
        cells = {
            row.metric: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for row in table.itertuples()
        }
        exact = table.set_index("metric").loc["top-1", "p_value"]
        cells |= {"n": str(int(table["n"].iloc[0])), "p": f"{exact:.2g}"}
        rows[(titles or {}).get(method, method)] = cells
    first = next(iter(scores.values()))
    rows["chance"] = {r.metric: f"{r.chance:.3f}" for r in first.itertuples()}
    rows["chance"] |= {"n": "", "p": ""}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def pair_table(
    predictions: Mapping[str, np.ndarray],
    labels: np.ndarray,
    settings: EvaluationSettings,
    seed: int,
    titles: Mapping[str, str] | None = None,
    reference: str | None = None,
) -> pd.DataFrame:
    """Difference in top-1 accuracy of each method from a reference, on the same trials.

    Parameters
    ----------
    predictions : mapping of method to array, shape (n_trials, n_classes)
    labels : array of int, shape (n_trials,)
    settings : EvaluationSettings
    seed : int
    titles : mapping of method to str | None
    reference : str | None
        Method to compare with; by default distillation on STFT, or else the last of
        `predictions`.

    Returns
    -------
    pandas.DataFrame
        Empty if there is nothing to compare.
    """
    if reference is None:
        known = "distillation_stft" in predictions
        reference = "distillation_stft" if known else list(predictions)[-1]
    titles = titles or {}
    rows = []
    for method, probabilities in predictions.items():
        if method == reference:
            continue
        pair = paired_difference(
            predictions[reference],
            probabilities,
            labels,
            settings.n_bootstrap,
            settings.confidence,
            seed,
        )
        top1 = pair[pair["metric"] == "top-1"].iloc[0]
        rows.append(
            (
                f"{titles.get(reference, reference)} minus {titles.get(method, method)}",
                f"{top1['difference']:+.3f} [{top1['low']:+.3f}, {top1['high']:+.3f}]",
                int(top1["n"]),
                f"{top1['p_value']:.3f}",
            )
        )
    columns = ["top-1 accuracy", "difference [95% interval]", "n", "p"]
    columns[1] = f"difference [{100 * settings.confidence:.0f}% interval]"
    return pd.DataFrame(rows, columns=columns).set_index(columns[0])


def subject_scores(chapter: Chapter, name: str) -> pd.DataFrame:
    """Scores that a chapter found for every subject, read from the results on disk.

    Parameters
    ----------
    chapter : Chapter
        Any chapter of the run.
    name : str
        Chapter whose scores are wanted.

    Returns
    -------
    pandas.DataFrame
        Columns ``subject, method, metric, value, chance, n, low, high, p_value``.
    """
    rows = []
    for subject in chapter.subjects_with(name):
        metrics = load_metrics(chapter_folder(chapter.run_dir, name, subject))
        rows.extend({"subject": subject, **score.model_dump()} for score in metrics.scores)
    return pd.DataFrame(rows)


def attendance(chapter: Chapter, names: list[str]) -> pd.DataFrame:
    """Which subjects finished which chapters: those who did not are missing from the group.

    Returns
    -------
    pandas.DataFrame
        A row per subject, a column per chapter: ``finished``, ``failed`` or ``missing`` (has not
        run). Of more than 40 subjects the complete ones share one row, so that nobody who is
        missing is lost in a long table.
    """
    subjects = chapter.profile.dataset.subjects
    finished = {name: set(chapter.subjects_with(name)) for name in names}

    def state(name: str, subject: int) -> str:
        if subject in finished[name]:
            return "finished"
        failure = chapter_folder(chapter.run_dir, name, subject) / FAILURE
        return "failed" if failure.is_file() else "missing"

    index = pd.Index(subjects, name="subject")
    table = pd.DataFrame({name: [state(name, s) for s in subjects] for name in names}, index=index)
    if len(table) <= 40:
        return table
    complete = (table == "finished").all(axis=1)
    together = pd.DataFrame("finished", [f"{complete.sum()} subjects"], table.columns)
    return pd.concat([together, table[~complete]]).rename_axis("subject")


def summarize_methods(
    scores: pd.DataFrame, settings: EvaluationSettings, seed: int
) -> pd.DataFrame:
    """Mean and spread over subjects for every method.

    Parameters
    ----------
    scores : pandas.DataFrame
        From `subject_scores`.
    settings : EvaluationSettings
    seed : int

    Returns
    -------
    pandas.DataFrame
        Columns ``method, metric, value`` (the mean)``, sd, chance, n_subjects, n, low, high``.
    """
    parts = []
    for method, of_method in scores.groupby("method", sort=False):
        tables = dict(list(of_method.groupby("subject")))
        summary = summarize_subjects(tables, settings.n_bootstrap, settings.confidence, seed)
        parts.append(summary.rename(columns={"mean": "value"}).assign(method=method))
    return pd.concat(parts, ignore_index=True)


def group_table(summary: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Mean (SD) over subjects, in the layout of the paper's Table 1, with chance as last row."""
    rows = {}
    for method, table in summary.groupby("method", sort=False):
        rows[titles.get(method, method)] = {
            row.metric: f"{row.value:.4f}" + ("" if np.isnan(row.sd) else f" ({row.sd:.4f})")
            for row in table.itertuples()
        } | {"subjects": str(table["n_subjects"].iloc[0]), "trials": str(int(table["n"].iloc[0]))}
    first = summary[summary["method"] == summary["method"].iloc[0]]
    rows["chance"] = {r.metric: f"{r.chance:.4f}" for r in first.itertuples()}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("").rename_axis("method")


PUBLISHED = {
    "lr_power": (0.3600, 0.1313, 0.6619, 0.1758, 0.8156, 0.1619, 0.3493, 0.1375, 0.3435, 0.1345),
    "lr_windowed": (0.0205, 0.0058, 0.0636, 0.0083, 0.1092, 0.0110, 0.0156, 0.0054, 0.0009, 0.0061),
    "lr_windowed_pca": (
        0.0175,
        0.0040,
        0.0536,
        0.0084,
        0.0961,
        0.0063,
        0.0097,
        0.0047,
        0.0020,
        0.0039,
    ),
    "cebra_knn": (0.0240, 0.0050, 0.0831, 0.0116, 0.1402, 0.0136, 0.0223, 0.0061, -0.0012, 0.0056),
    "lstm": (0.3605, 0.0938, 0.7376, 0.1226, 0.8868, 0.1030, 0.3392, 0.0894, 0.3437, 0.0960),
    "conv1d": (0.2623, 0.0511, 0.6013, 0.0826, 0.7971, 0.0851, 0.2582, 0.0520, 0.2432, 0.0524),
    "distillation_eeg": (
        0.2819,
        0.0836,
        0.5773,
        0.1379,
        0.7295,
        0.1339,
        0.2742,
        0.0794,
        0.2632,
        0.0857,
    ),
    "distillation_wavelet": (
        0.4060,
        0.1154,
        0.7490,
        0.1282,
        0.8787,
        0.1007,
        0.3889,
        0.1148,
        0.3905,
        0.1183,
    ),
    "cnn_stft": (0.2819, 0.0836, 0.5773, 0.1379, 0.7295, 0.1339, 0.2742, 0.0794, 0.2632, 0.0857),
    "distillation_stft": (
        0.4120,
        0.1131,
        0.7530,
        0.1068,
        0.8782,
        0.0806,
        0.4027,
        0.1133,
        0.3966,
        0.1160,
    ),
}
"""Mean and SD over six subjects of top-1, top-3, top-5, F1 and kappa: the paper's Table 1."""


def published_beside(
    summary: pd.DataFrame, dataset: str, titles: Mapping[str, str]
) -> pd.DataFrame | None:
    """Our means over subjects with the paper's beside them, where the data are the same.

    Parameters
    ----------
    summary : pandas.DataFrame
        From `summarize_methods`.
    dataset : str
        Name of the data set; the paper's is ``eeg_imagenet``.
    titles : mapping of method to str

    Returns
    -------
    pandas.DataFrame | None
        Columns (metric, ours or paper); None for every other data set.
    """
    if dataset != "eeg_imagenet":
        return None
    rows = {}
    for method, table in summary.groupby("method", sort=False):
        if method not in PUBLISHED:
            continue
        ours = {r.metric: f"{r.value:.4f} ({r.sd:.4f})" for r in table.itertuples()}
        pairs = zip(PUBLISHED[method][::2], PUBLISHED[method][1::2], strict=True)
        cells = {}
        for metric, (mean, sd) in zip(METRICS, pairs, strict=True):
            cells[metric, "ours"] = ours.get(metric, "")
            cells[metric, "paper"] = f"{mean:.4f} ({sd:.4f})"
        rows[titles.get(method, method)] = cells
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def groups_of(class_names: Sequence[str]) -> list[str]:
    """Semantic group of each class, such as animal; empty where it is not known."""
    from eeglib.datasets.stimuli import CLASSES

    known = {c.name: c.group for c in CLASSES}
    return [known.get(name, "") for name in class_names]


def read_drawings(chapter: Chapter, name: str) -> pd.DataFrame:
    """What chapter 7 drew for every subject.

    Parameters
    ----------
    chapter : Chapter
    name : str
        Chapter that drew.

    Returns
    -------
    pandas.DataFrame
        Columns ``subject, image, true, predicted, file`` (Path of the drawing); empty where
        nothing was drawn.
    """
    parts = []
    for subject in chapter.subjects_with(name):
        folder = Path(chapter_folder(chapter.run_dir, name, subject))
        if (folder / "drawings.csv").exists():
            table = pd.read_csv(folder / "drawings.csv")
            files = [folder / file for file in table["file"]]
            parts.append(table.assign(subject=subject, file=files))
    columns = ["subject", "image", "true", "predicted", "file"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
