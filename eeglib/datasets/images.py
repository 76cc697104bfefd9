"""Find the pictures that were shown, in whatever folders they lie (chapter 1)."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image

from eeglib.datasets import DatasetError

EXTENSIONS = (".jpeg", ".jpg", ".png")
COLUMNS = ["image", "label", "class_name", "file"]  # of `Dataset.stimuli`


def find_pictures(folder: Path, table: pd.DataFrame, note: Callable[..., None]) -> pd.DataFrame:
    """Rows of the pictures that can be opened, with `COLUMNS`; none where there is no folder."""
    if not folder.is_dir():
        note(f"No pictures in {folder}: chapters 4 and 7 will end early.")
        return pd.DataFrame(columns=COLUMNS)
    files = [path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS]
    # Found by name, at any depth; of several, one in the folder of its class counts.
    files.sort(key=lambda path: (path.stem.startswith(path.parent.name), path))
    paths = {path.stem: path for path in files}
    names = table["image"].unique()
    paths = usable_pictures({n: paths.get(n, folder / n) for n in names}, folder, note)
    table = table[table["image"].isin(list(paths))].drop_duplicates("image")
    return table.assign(file=table["image"].map(paths))[COLUMNS].reset_index(drop=True)


def usable_pictures(
    paths: dict[str, Path], folder: Path, note: Callable[..., None]
) -> dict[str, Path]:
    """Those of some pictures, path by name, that can be opened; ``note`` gets the others."""
    usable = {name: path for name, path in paths.items() if can_open(path)}
    missing = [name for name in paths if name not in usable]
    if missing and not usable:
        text = f"None of the {len(paths)} pictures can be opened in {folder}, such as {missing[0]}."
        raise DatasetError(f"{text} Put them there, or remove the folder to do without pictures.")
    if missing:
        some = f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        text = f"{len(missing)} pictures are missing in {folder} or cannot be opened"
        note(f"{text}; trials of these images are left out: {some}", warn=True)
    return usable


def can_open(path: Path) -> bool:
    """Whether a file is a whole picture; it is decoded only if its end looks otherwise."""
    try:
        with Image.open(path) as image, open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 64))
            end = file.read()
            if b"\xff\xd9" not in end and b"IEND" not in end:
                image.load()
            return min(image.size) > 0
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return False
