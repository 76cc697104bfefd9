"""Read the tables of a BIDS data set as people save them (chapter 1)."""

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eeglib.datasets import DatasetError

if TYPE_CHECKING:
    import mne_bids

EMPTY = ("n/a", "N/A", "NA", "nan", "NaN", "")


def find_sidecar(path: "mne_bids.BIDSPath", suffix: str, extension: str = ".tsv") -> Path | None:
    """The table or description of this kind that counts for a recording, if there is one."""
    return path.find_matching_sidecar(suffix, extension, on_error="ignore")


def check_content(file: Path) -> None:
    """Raise if a recording's files (all with its name) are not here but links to it."""
    for other in file.parent.glob(f"{file.stem.removesuffix('eeg')}*"):
        pointer = b"/annex/|version https://git-lfs"
        if not other.exists() or re.match(pointer, other.open("rb").read(64)):
            raise DatasetError(f"{other} is a link to what is not here (`datalad get` fetches it).")


def read_json(file: Path | None) -> dict:
    """Read a sidecar; a missing one is empty."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig")) if file and file.is_file() else {}
    except ValueError as error:
        raise DatasetError(f"{file} is not valid JSON: {error}.") from None


def read_table(file: Path) -> pd.DataFrame:
    """Read text with tabs, or else semicolons or commas; the index holds the line numbers."""
    content = file.read_bytes()
    try:
        text = content.decode("utf-16" if b"\0" in content[:9] else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # of Excel in Western Europe
    first = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter=max("\t;,", key=first.count))
    rows = {}
    for row in filter(any, reader):
        rows[reader.line_num] = [cell.strip() for cell in row]
    header = rows.pop(min(rows, default=0), [])
    while header and not header[-1]:
        header.pop()
    if len(set(header)) < len(header):
        raise ValueError(f"line 1 names a column twice: {', '.join(header)}")
    for line, row in rows.items():
        if any(row[len(header) :]):
            raise ValueError(f"line {line} has {len(row)} cells for {len(header)} columns: {row}")
        rows[line] = row[: len(header)] + [""] * (len(header) - len(row))
    return pd.DataFrame.from_dict(rows, "index", str, header)


def read_numbers(column: pd.Series) -> pd.Series:
    """Numbers in a column of `read_table`, NaN for n/a; a comma may stand for the point."""
    cells = column.where(~column.isin(EMPTY))
    if cells.dropna().str.fullmatch(r"[-+]?\d*,?\d+").all():
        cells = cells.str.replace(",", ".")
    values = pd.to_numeric(cells, errors="coerce")
    wrong = column[cells.notna() & ~np.isfinite(values)]
    if len(wrong):
        line, cell = wrong.index[0], wrong.iloc[0]
        raise ValueError(f"line {line}: {cell!r} in column {column.name!r} is no number")
    return values.astype(float)
