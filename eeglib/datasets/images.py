"""Find the pictures that were shown, in whatever folders they lie (chapter 1)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from eeglib.datasets import DatasetError

EXTENSIONS = (".jpeg", ".jpg", ".png")


def find_pictures(
    folder: Path, names: Iterable[str], note: Callable[..., None]
) -> dict[str, Path] | None:
    """Find pictures by name, in a flat folder or in folders of classes, at any depth.

    Returns the path by name of the pictures that can be opened; ``note`` (`Dataset._note`) is told
    which are missing. None where there is no such folder. Where a name occurs more than once, a
    file in a folder whose name begins like the image's counts first, then the first in
    alphabetical order.
    """
    if not folder.is_dir():
        note(f"No pictures in {folder}: chapters 4 and 7 will end early.")
        return None

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}.") from None

    paths: dict[str, list[Path]] = {}
    for place, _, files in os.walk(folder, onerror=refuse):
        for file in files:
            stem, extension = os.path.splitext(file)
            if extension.lower() in EXTENSIONS:
                paths.setdefault(stem, []).append(Path(place, file))
    if not paths:
        raise DatasetError(
            f"{folder} holds no picture ({', '.join(EXTENSIONS)}). Unpack the pictures there, or "
            "remove the folder to go on without them."
        )
    pictures, missing = {}, []
    for name in dict.fromkeys(names):
        candidates = sorted(
            paths.get(name, ()), key=lambda p, n=name: (not n.startswith(p.parent.name), str(p))
        )
        if candidates and can_open(candidates[0]):
            pictures[name] = candidates[0]
        else:
            missing.append(name)
    report_missing(missing, folder, note)
    return pictures


def report_missing(missing: list[str], folder: Path, note: Callable[..., None]) -> None:
    """Say which pictures are missing, if any."""
    if missing:
        note(
            f"{len(missing)} pictures are missing in {folder} or cannot be opened; trials of these "
            f"images are left out: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}",
            warn=True,
        )


def can_open(path: Path) -> bool:
    """Whether a file is there and is a whole picture.

    Only its head and end are read; it is decoded where the end is not that of a picture.
    """
    try:
        with Image.open(path) as image, open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 64))
            end = file.read()
            if b"\xff\xd9" not in end and b"IEND" not in end:
                image.load()
            return min(image.size) > 0
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return False
