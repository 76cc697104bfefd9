"""Small readers of the tables of a BIDS data set (chapter 1)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eeglib.datasets import DatasetError

if TYPE_CHECKING:
    import mne
    import mne_bids
    import pandas


def read_tsv(file: Path) -> pandas.DataFrame:
    """Read a table of tab-separated text; every cell stays text."""
    import pandas

    try:
        return pandas.read_csv(
            file, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} is not a table of tab-separated text: {error}") from None


def read_json(file: Path) -> dict:
    """Read a sidecar; a missing one is empty."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{file} must hold keys and values, got a {type(content).__name__}.")
    return content


def sidecar_file(path: mne_bids.BIDSPath, suffix: str, extension: str) -> Path | None:
    """Find the table that goes with a recording, beside it or further up."""
    found = path.find_matching_sidecar(suffix=suffix, extension=extension, on_error="ignore")
    return None if found is None else Path(found)


def require_column(table: pandas.DataFrame, column: str, file: Path) -> None:
    """Raise unless a table has a column."""
    if column not in table:
        raise DatasetError(
            f"{file} has no column {column!r}; it has: {', '.join(table.columns)}. Add it, or "
            "name another one in dataset.options."
        )


def onsets_of(column: pandas.Series, file: Path) -> pandas.Series:
    """Turn text into seconds; ``n/a`` becomes NaN."""
    import pandas

    seconds = pandas.to_numeric(column, errors="coerce")
    wrong = column[seconds.isna() & ~column.str.lower().isin(["n/a", "nan", ""])]
    if len(wrong):
        raise DatasetError(
            f"{file}, row {wrong.index[0] + 1}: onset is {wrong.iloc[0]!r}; seconds or n/a allowed."
        )
    return seconds.where(np.isfinite(seconds))


def integers_of(column: pandas.Series | None, index: pandas.Index) -> pandas.Series:
    """Turn text into whole numbers, -1 where there are none."""
    import pandas

    if column is None:
        return pandas.Series(-1, index)
    return pandas.to_numeric(column, errors="coerce").fillna(-1).astype(int)


def numbers_of(labels: list[str]) -> list[int]:
    """Number each label: its own number where all are different numbers above 0, else 1, 2, ..."""
    if all(re.fullmatch(r"[0-9]+", label) for label in labels):
        own = [int(label) for label in labels]
        if len(set(own)) == len(own) and min(own) > 0:
            return own
    return list(range(1, len(labels) + 1))


def sort_key(label: str | None) -> tuple:
    """Key that sorts labels with numbers in them as people do (``2`` before ``10``)."""
    parts = re.split(r"([0-9]+)", label or "")
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)


def image_names(files: pandas.Series) -> pandas.Series:
    """Name each image by its file without folder and extension, where that tells them apart."""
    short = files.map(lambda f: Path(f).stem)
    different = files.groupby(short).nunique().max() <= 1
    return short if different else files.map(lambda f: str(Path(f).with_suffix("")) if f else "")


def copy_channel_facts(known: mne.Info, raw: mne.io.BaseRaw) -> None:
    """Give a recording the channel types, bad channels and positions of another description."""
    kinds = dict(zip(known["ch_names"], known.get_channel_types(), strict=True))
    raw.set_channel_types(kinds, on_unit_change="ignore")
    raw.info["bads"] = list(known["bads"])
    montage = known.get_montage()
    if montage is not None:
        raw.set_montage(montage, on_missing="ignore")
