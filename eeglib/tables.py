"""Tables of the book: scores of one subject, pairs of methods, all subjects (chapters 6 and 9)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eeglib.evaluation import paired_difference, summarize_subjects
from eeglib.metrics import load_metrics
from eeglib.run_folder import chapter_folder

if TYPE_CHECKING:
    from eeglib.profile import EvaluationSettings
    from eeglib.results import Chapter


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
        column ``n`` counts the trials.
    """
    rows = {}
    for method, table in scores.items():
        cells = {
            row.metric: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for row in table.itertuples()
        }
        rows[(titles or {}).get(method, method)] = cells | {"n": str(int(table["n"].iloc[0]))}
    first = next(iter(scores.values()))
    rows["chance"] = {r.metric: f"{r.chance:.3f}" for r in first.itertuples()} | {"n": ""}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def pair_table(
    predictions: Mapping[str, np.ndarray], labels: np.ndarray, settings: EvaluationSettings,
    seed: int, titles: Mapping[str, str] | None = None, reference: str | None = None,
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
        Method to compare with; by default the last of `predictions`.

    Returns
    -------
    pandas.DataFrame
        Empty if there is nothing to compare.
    """
    reference = reference or list(predictions)[-1]
    titles = titles or {}
    rows = []
    for method, probabilities in predictions.items():
        if method == reference:
            continue
        pair = paired_difference(
            predictions[reference], probabilities, labels,
            settings.n_bootstrap, settings.confidence, seed,
        )
        top1 = pair[pair["metric"] == "top-1"].iloc[0]
        rows.append(
            (
                f"{titles.get(reference, reference)} minus {titles.get(method, method)}",
                f"{top1['difference']:+.3f} [{top1['low']:+.3f}, {top1['high']:+.3f}]",
                int(top1["n"]), f"{top1['p_value']:.3f}",
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
    """Which subjects finished which chapters: those who did not are missing from the group."""
    table = {
        name: [
            "finished" if subject in chapter.subjects_with(name) else "missing"
            for subject in chapter.profile.dataset.subjects
        ]
        for name in names
    }
    index = pd.Index(chapter.profile.dataset.subjects, name="subject")
    return pd.DataFrame(table, index=index)


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
