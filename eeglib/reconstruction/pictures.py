"""Pictures that are to be compared: brought to one form, refused if they do not belong together.

Used by `eeglib.reconstruction.image_metrics` (chapter 7).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image


class PictureError(ValueError):
    """Pictures that cannot be measured; the message says why and what to do."""


def as_pictures(pictures: Sequence | np.ndarray, what: str = "pictures") -> list[np.ndarray]:
    """Check pictures and bring them to one form.

    Parameters
    ----------
    pictures : sequence
        PIL images, or arrays of shape (height, width, 3), either uint8 or float in [0, 1].
    what : str
        How an error calls them.

    Returns
    -------
    list of array of uint8, shape (side, side, 3)
        Of an oblong picture the square in its middle.

    Raises
    ------
    PictureError
        If there is none, or one is not a picture.
    """
    if isinstance(pictures, (str, bytes, Image.Image)) or not len(pictures):
        raise PictureError(f"{what} must be a sequence of at least one picture.")
    return [_as_picture(picture, f"{what}[{i}]") for i, picture in enumerate(pictures)]


def check_pairs(
    true: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    true_names: Sequence[str] | None = None,
    generated_names: Sequence[str] | None = None,
) -> None:
    """Refuse sets that do not belong together.

    Parameters
    ----------
    true, generated : sequence of array of uint8
        From `as_pictures`.
    true_names, generated_names : sequence of str | None
        Which image each picture is, or is meant to be; give both and the order is checked.

    Raises
    ------
    PictureError
        If the sets differ in length or order, have fewer than two pictures, or a true picture is
        among the generated ones.
    """
    if len(true) != len(generated):
        raise PictureError(
            f"There are {len(true)} true but {len(generated)} generated pictures. Give one "
            "generated picture for each true one, in the same order."
        )
    if len(true) < 2:
        raise PictureError("Pictures are measured in sets; 2 are the fewest, got 1.")
    if (true_names is None) != (generated_names is None):
        raise PictureError("Give the names of both sets, or of neither.")
    if true_names is not None and generated_names is not None:
        _check_names(list(true_names), list(generated_names), len(true))
    known = {_fingerprint(picture) for picture in true}
    copies = [i for i, picture in enumerate(generated) if _fingerprint(picture) in known]
    if copies:
        raise PictureError(
            f"{len(copies)} of {len(generated)} generated pictures are true pictures, pixel for "
            f"pixel (the first: number {copies[0]}). Measuring the truth against itself says "
            "nothing: check which files were given as generated."
        )


def _as_picture(picture: Image.Image | np.ndarray, what: str) -> np.ndarray:
    if isinstance(picture, Image.Image):
        pixels = np.asarray(picture.convert("RGB"))
    else:
        pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < 16:
        raise PictureError(
            f"{what} must have shape (height, width, 3) and at least 16 pixels a side, got "
            f"{pixels.shape}. Colours come last."
        )
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise PictureError(
                f"{what} is of {pixels.dtype} with values {pixels.min():.3g} ... "
                f"{pixels.max():.3g}; floats must lie in [0, 1]. Rescale, or give uint8."
            )
        pixels = np.round(255 * pixels).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise PictureError(f"{what} is of {pixels.dtype}; give uint8, or floats in [0, 1].")
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _check_names(true_names: list[str], generated_names: list[str], n: int) -> None:
    if not len(true_names) == len(generated_names) == n:
        raise PictureError(
            f"There are {n} pictures but {len(true_names)} and {len(generated_names)} names."
        )
    pairs = enumerate(zip(true_names, generated_names, strict=True))
    wrong = [(i, a, b) for i, (a, b) in pairs if a != b]
    if wrong:
        i, a, b = wrong[0]
        raise PictureError(
            f"The two sets are not in the same order: {len(wrong)} of {n} names differ, the "
            f"first at number {i}, where {a!r} meets {b!r}. Sort both by image."
        )


def _fingerprint(picture: np.ndarray) -> tuple:
    return picture.shape, hashlib.sha256(picture.tobytes()).digest()
