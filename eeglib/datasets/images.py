"""Find the pictures that were shown, in whatever folders they lie (chapter 1)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from eeglib.datasets import DatasetError

EXTENSIONS = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Pictures:
    """What a search found.

    Attributes
    ----------
    files : dict
        Path of the picture, by the image's name.
    missing : list of str
        Names without a picture, in order.
    unreadable : list of str
        Names whose file is not a picture that can be opened; also among ``missing``.
    """

    files: dict[str, Path]
    missing: list[str]
    unreadable: list[str]


def find_pictures(folder: Path, names: Iterable[str]) -> Pictures:
    """Find pictures by name, in a flat folder or in folders of classes, at any depth.

    Parameters
    ----------
    folder : Path
        Such as ``<wnid>/<wnid>_<n>.JPEG``, ``<wnid>_<n>.JPEG`` or ``<concept>/<image>.jpg``.
        Pictures that were not asked for do not matter.
    names : iterable of str
        Names without extension; upper and lower case count.

    Returns
    -------
    Pictures

    Raises
    ------
    DatasetError
        If the folder does not exist, cannot be read, or holds no picture at all.

    Notes
    -----
    Where a name occurs more than once, a file in a folder
    whose name begins like the image's counts first, then the first in alphabetical order.
    """
    found = _index(Path(folder))
    if not found:
        raise DatasetError(
            f"{folder} holds no picture ({', '.join(EXTENSIONS)}). Unpack the pictures there, or "
            "set dataset.options.images to the folder that holds them."
        )
    files, missing, unreadable = {}, [], []
    for name in dict.fromkeys(names):
        path = min(found.get(name, ()), key=lambda p: _rank(p, name), default=None)
        if path is not None and can_open(path):
            files[name] = path
            continue
        missing.append(name)
        if path is not None:
            unreadable.append(name)
    return Pictures(files, missing, unreadable)


def _index(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}. Set dataset.options.images.")

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename} cannot be read: {error.strerror}.") from None

    found: dict[str, list[Path]] = {}
    for place, _, names in os.walk(folder, onerror=refuse, followlinks=False):
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension.lower() in EXTENSIONS:
                found.setdefault(stem, []).append(Path(place, name))
    return found


def _rank(path: Path, name: str) -> tuple[bool, str]:
    return not name.startswith(path.parent.name), str(path)


def can_open(path: Path) -> bool:
    """Whether a file is there and is a whole picture.

    Only its head and end are read; it is decoded where the end is not that of a picture.
    """
    try:
        with Image.open(path) as image:
            if not _is_complete(path):
                image.load()
            return min(image.size) > 0
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return False


def _is_complete(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        end = file.read()
    return b"\xff\xd9" in end or b"IEND" in end
