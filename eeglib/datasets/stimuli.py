"""Stimuli drawn by code: the 40 classes of the paper as small colour drawings (chapter 1).

No downloaded picture is needed for the demo. Most shapes are glyphs of the Material Design Icons
and Font Awesome fonts that the package ``qtawesome`` carries; shapes that the fonts lack are in
`eeglib.datasets.shapes`. Colour, place, size, tilt and background vary from image to image.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy import ndimage

from eeglib.datasets import shapes

if TYPE_CHECKING:
    import pandas

OVERSAMPLING = 4
"""Drawings are made this much larger and reduced, which smooths their edges."""

TRAINING_SEEDS = 10_000_000
"""Seeds from here on train the shipped models; data sets draw with smaller ones."""


@dataclass(frozen=True)
class StimulusClass:
    """One of the 40 classes.

    Attributes
    ----------
    wnid : str
        WordNet id, such as ``n07753592``.
    name : str
        Common name, such as ``banana``.
    group : str
        Semantic group: animal, plant, food, vehicle, clothing, device, household or leisure.
    shape : str
        ``font/glyph``, or the name of a function of `eeglib.datasets.shapes`.
    hue : float
        The hue that the class most often has, in [0, 1).
    """

    wnid: str
    name: str
    group: str
    shape: str
    hue: float


_MDI, _FA = "materialdesignicons6", "fontawesome6-solid"
CLASSES = tuple(
    StimulusClass(*row)
    for row in (
        ("n02389026", "sorrel", "animal", f"{_FA}/horse", 0.05),
        ("n03888257", "parachute", "leisure", f"{_MDI}/parachute", 0.97),
        ("n03584829", "iron", "household", f"{_MDI}/iron", 0.58),
        ("n02607072", "anemone fish", "animal", "anemone_fish", 0.07),
        ("n03297495", "espresso maker", "household", f"{_MDI}/coffee-maker", 0.0),
        ("n03063599", "coffee mug", "household", f"{_MDI}/coffee", 0.6),
        ("n03792782", "mountain bike", "vehicle", f"{_MDI}/bike", 0.35),
        ("n04086273", "revolver", "device", "revolver", 0.6),
        ("n02510455", "giant panda", "animal", f"{_MDI}/panda", 0.0),
        ("n11939491", "daisy", "plant", "daisy", 0.14),
        ("n02951358", "canoe", "vehicle", "canoe", 0.04),
        ("n02281787", "lycaenid", "animal", f"{_MDI}/butterfly", 0.62),
        ("n02106662", "German shepherd", "animal", f"{_MDI}/dog-side", 0.08),
        ("n04120489", "running shoe", "clothing", f"{_MDI}/shoe-sneaker", 0.55),
        ("n03590841", "jack-o'-lantern", "plant", "jack_o_lantern", 0.07),
        ("n02992529", "cellular telephone", "device", f"{_MDI}/cellphone", 0.65),
        ("n03445777", "golf ball", "leisure", "golf_ball", 0.3),
        ("n03180011", "desktop computer", "device", f"{_MDI}/desktop-classic", 0.55),
        ("n02906734", "broom", "household", f"{_MDI}/broom", 0.12),
        ("n07873807", "pizza", "food", f"{_MDI}/pizza", 0.1),
        ("n03773504", "missile", "device", "missile", 0.25),
        ("n02492035", "capuchin monkey", "animal", "monkey", 0.07),
        ("n03982430", "pool table", "leisure", "pool_table", 0.38),
        ("n03709823", "mailbag", "clothing", "mailbag", 0.08),
        ("n03100240", "convertible", "vehicle", f"{_MDI}/car-convertible", 0.0),
        ("n03376595", "folding chair", "household", "folding_chair", 0.1),
        ("n03877472", "pajama", "clothing", "pajama", 0.85),
        ("n03775071", "mitten", "clothing", "mitten", 0.95),
        ("n03272010", "electric guitar", "leisure", f"{_MDI}/guitar-electric", 0.02),
        ("n04069434", "reflex camera", "device", f"{_MDI}/camera", 0.7),
        ("n03452741", "grand piano", "leisure", "grand_piano", 0.06),
        ("n03792972", "mountain tent", "leisure", f"{_FA}/tent", 0.3),
        ("n07753592", "banana", "food", "banana", 0.15),
        ("n13054560", "bolete", "plant", "bolete", 0.05),
        ("n03197337", "digital watch", "device", "digital_watch", 0.5),
        ("n02504458", "African elephant", "animal", f"{_MDI}/elephant", 0.62),
        ("n02690373", "airliner", "vehicle", f"{_MDI}/airplane", 0.58),
        ("n03272562", "electric locomotive", "vehicle", "electric_locomotive", 0.98),
        ("n04044716", "radio telescope", "device", "radio_telescope", 0.55),
        ("n02124075", "Egyptian cat", "animal", f"{_FA}/cat", 0.1),
    )
)


def draw_stimulus(label: int, seed: int, size: int = 64) -> Image.Image:
    """Draw one image of a class.

    Parameters
    ----------
    label : int
        Index into `CLASSES`.
    seed : int
        Decides colours, place, size, tilt and background; the same seed gives the same image.
    size : int
        Height and width, pixels.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ValueError
        If `label` is none of the 40, or `size` is below 16 pixels.
    """
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"label must lie in 0 ... {len(CLASSES) - 1}, got {label}.")
    if size < 16:
        raise ValueError(f"A drawing needs at least 16 pixels a side, got {size}.")
    rng = np.random.default_rng(np.random.SeedSequence([label, seed]))
    canvas = size * OVERSAMPLING
    body, detail = _masks(label, canvas, rng)
    foreground, second, background, other = _colors(CLASSES[label].hue, rng)
    picture = _background(canvas, background, other, rng)
    outline = body.filter(ImageFilter.MaxFilter(2 * (canvas // 80) + 1))
    dark = tuple(int(c * 0.35) for c in foreground)
    picture.paste(Image.new("RGB", picture.size, dark), mask=outline)
    picture.paste(Image.new("RGB", picture.size, foreground), mask=body)
    if detail is not None:
        picture.paste(Image.new("RGB", picture.size, second), mask=detail)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def write_stimuli(
    folder: str | Path, labels: Sequence[int], images_per_class: int, seed: int, size: int = 64
) -> pandas.DataFrame:
    """Draw the images of a data set as ``<wnid>/<wnid>_<n>.png``.

    Parameters
    ----------
    folder : str | Path
        Made if it does not exist.
    labels : sequence of int
        Indices into `CLASSES`.
    images_per_class : int
    seed : int
        Another seed gives other images.
    size : int
        Pixels a side.

    Returns
    -------
    pandas.DataFrame
        Columns ``image`` (name without extension), ``label`` (position in `labels`),
        ``class_name``, ``wnid``, ``file`` (path relative to `folder`).
    """
    import pandas

    rows = []
    for position, label in enumerate(labels):
        wnid = CLASSES[label].wnid
        (Path(folder) / wnid).mkdir(parents=True, exist_ok=True)
        for number in range(images_per_class):
            image = f"{wnid}_{number + 1}"
            file = f"{wnid}/{image}.png"
            draw_stimulus(label, image_seed(seed, number), size).save(Path(folder) / file)
            rows.append((image, position, CLASSES[label].name, wnid, file))
    return pandas.DataFrame(rows, columns=["image", "label", "class_name", "wnid", "file"])


def image_seed(seed: int, number: int) -> int:
    """Seed of image `number` of a data set with seed `seed`; never one that trains a model.

    Consecutive from a start that `seed` decides, so that no two images of a class are the same.
    """
    start = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    return (start + number) % TRAINING_SEEDS


def visual_features(images: Sequence[Image.Image]) -> np.ndarray:
    """Describe images by simple visual properties: layout, edges and colour.

    Parameters
    ----------
    images : sequence of PIL.Image.Image

    Returns
    -------
    array, shape (n_images, 204)
        Each feature has mean 0 and variance 1 over the images; each of the three kinds of feature
        has the same weight in a distance.

    Notes
    -----
    Stands in for early visual cortex in the simulated recordings: a coarse map of luminance
    contrast (8 x 8), the energy of edges in 8 orientations over a 4 x 4 grid, and mean and spread
    of the colours over the image and its centre.
    """
    rows = [_describe(image) for image in images]
    features = np.concatenate(
        [_unit_weight(np.stack(kind)) for kind in zip(*rows, strict=True)], axis=1
    )
    return features


def _describe(image: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=float) / 255
    grey = pixels @ [0.299, 0.587, 0.114]
    contrast = np.abs(grey - np.median(grey))
    layout = contrast.reshape(8, 8, 8, 8).mean(axis=(1, 3)).ravel()
    down, across = (
        ndimage.gaussian_filter(grey, 1, order=(1, 0)),
        ndimage.gaussian_filter(grey, 1, order=(0, 1)),
    )
    energy, angle = np.hypot(down, across), np.mod(np.arctan2(down, across), np.pi)
    bins = np.minimum((angle / np.pi * 8).astype(int), 7)
    edges = np.stack([np.where(bins == b, energy, 0) for b in range(8)])
    edges = edges.reshape(8, 4, 16, 4, 16).sum(axis=(2, 4)).ravel()
    centre = pixels[16:48, 16:48]
    color = np.concatenate([f(p, axis=(0, 1)) for p in (pixels, centre) for f in (np.mean, np.std)])
    return layout, np.sqrt(edges), color


def _unit_weight(features: np.ndarray) -> np.ndarray:
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-12, spread, 1)
    return scaled / np.sqrt(features.shape[1])


def _masks(
    label: int, canvas: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image | None]:
    """Where the object is, and where its details are, after tilt, size and place."""
    body, detail = _shape(CLASSES[label].shape, canvas)
    if rng.random() < 0.5:
        body, detail = (m and m.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for m in (body, detail))
    scale = rng.uniform(0.62, 0.88)
    angle = rng.uniform(-12, 12)
    side = int(canvas * scale)
    place = tuple(int(p) for p in rng.uniform(0.25, 0.75, 2) * (canvas - side))

    def moved(mask: Image.Image | None) -> Image.Image | None:
        if mask is None:
            return None
        turned = mask.rotate(angle, Image.Resampling.BICUBIC).resize((side, side))
        placed = Image.new("L", (canvas, canvas))
        placed.paste(turned, place)
        return placed

    return moved(body), moved(detail)


def _shape(name: str, canvas: int) -> tuple[Image.Image, Image.Image | None]:
    if "/" in name:
        return _glyph(name, canvas), None
    body, detail = Image.new("L", (canvas, canvas)), Image.new("L", (canvas, canvas))
    getattr(shapes, name)(shapes.Pen(body), shapes.Pen(detail))
    return body, ImageChops.multiply(detail, body)


def _glyph(name: str, canvas: int) -> Image.Image:
    font_name, glyph = name.split("/")
    font, character = shapes.font_glyph(font_name, glyph, int(canvas * 0.8))
    mask = Image.new("L", (canvas, canvas))
    ImageDraw.Draw(mask).text((canvas / 2, canvas / 2), character, font=font, fill=255, anchor="mm")
    box = mask.getbbox()
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("L", (side, side))
    offset = ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2)
    square.paste(mask.crop(box), offset)
    fitted = Image.new("L", (canvas, canvas))
    inner = int(canvas * 0.88)
    fitted.paste(square.resize((inner, inner)), ((canvas - inner) // 2,) * 2)
    return fitted


def _colors(hue: float, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Colours of object, details and the two parts of the background, well apart in lightness."""
    typical = rng.random() < 0.6
    own = (hue + rng.normal(0, 0.03)) % 1 if typical else rng.random()
    light_object = rng.random() < 0.5
    lightness = rng.uniform(0.58, 0.72) if light_object else rng.uniform(0.3, 0.45)
    foreground = _rgb(own, lightness, rng.uniform(0.6, 0.95))
    second = _rgb(own, 0.93 if lightness < 0.6 else 0.16, 0.35)
    behind = (own + rng.uniform(0.25, 0.75)) % 1
    ground = rng.uniform(0.1, 0.24) if light_object else rng.uniform(0.8, 0.95)
    shade = ground + (0.09 if ground < 0.5 else -0.09)
    saturation = rng.uniform(0.2, 0.7)
    return [foreground, second, _rgb(behind, ground, saturation), _rgb(behind, shade, saturation)]


def _rgb(hue: float, lightness: float, saturation: float) -> tuple[int, int, int]:
    return tuple(int(255 * c) for c in colorsys.hls_to_rgb(hue % 1, lightness, saturation))


def _background(canvas: int, color: tuple, other: tuple, rng: np.random.Generator) -> Image.Image:
    kind = rng.choice(["plain", "gradient", "stripes", "dots"])
    down, across = np.mgrid[0:canvas, 0:canvas] / canvas
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.12, 0.3)
    along = across * np.cos(angle) + down * np.sin(angle)
    if kind == "plain":
        share = np.zeros((canvas, canvas))
    elif kind == "gradient":
        share = (along - along.min()) / np.ptp(along)
    elif kind == "stripes":
        share = (np.mod(along / period, 1) < 0.5).astype(float)
    else:
        share = np.hypot(np.mod(across / period, 1) - 0.5, np.mod(down / period, 1) - 0.5) < 0.25
    mixed = np.asarray(color) + share[..., np.newaxis] * (np.asarray(other) - np.asarray(color))
    return Image.fromarray(mixed.astype(np.uint8))
