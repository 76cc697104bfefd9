"""Stimuli drawn by code: the 40 classes of the paper as small colour drawings (chapter 1)."""

import colorsys
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas
from PIL import Image, ImageChops, ImageDraw, ImageFont
from scipy import ndimage

from eeglib.datasets.files import whole_folder

OVERSAMPLING = 4  # drawings are made larger and reduced, which smooths their edges
TRAINING_SEEDS = 10_000_000  # from here on they train the shipped models, below they draw data sets


class StimulusClass(NamedTuple):
    """One of the 40 classes."""

    wnid: str  # WordNet id, such as n07753592
    name: str  # common name, such as banana
    group: str  # animal, plant, food, vehicle, clothing, device, household or leisure
    hue: float  # that the class most often has, in [0, 1)
    shape: str | list  # font/glyph of the package ``qtawesome``, or strokes for `_stroke`


STORED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
CLASSES = tuple(StimulusClass(**entry) for entry in STORED)


def draw_stimulus(label: int, seed: int, size: int = 64) -> Image.Image:
    """Draw an RGB image of ``CLASSES[label]``, of `size` pixels; the same for the same `seed`."""
    rng = np.random.default_rng(np.random.SeedSequence([label, seed]))
    canvas = size * OVERSAMPLING
    body, detail = _masks(label, canvas, rng)
    foreground, second, background, other = _colors(CLASSES[label].hue, rng)
    picture = _background(canvas, background, other, rng)
    outline = ndimage.maximum_filter(np.asarray(body), 2 * (canvas // 80) + 1, mode="nearest")
    picture.paste(tuple(int(c * 0.35) for c in foreground), mask=Image.fromarray(outline))
    picture.paste(foreground, mask=body)
    picture.paste(second, mask=detail)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def spread_classes(n_classes: int) -> list[int]:
    """Which of the `CLASSES` are used where not all are: some that are spread over the list."""
    return np.linspace(0, len(CLASSES) - 1, n_classes).round().astype(int).tolist()


def drawn_stimuli(
    folder: Path, labels: Sequence[int], images_per_class: int, seed: int
) -> pandas.DataFrame:
    """Images of some `CLASSES`, ``<wnid>/<wnid>_<n>.png``, drawn on all cores if not there."""
    if not folder.is_dir():
        with whole_folder(folder) as partial:
            rows, drawings = [], []
            for position, label in enumerate(labels):
                wnid, name = CLASSES[label][:2]
                (partial / wnid).mkdir()
                for number in range(images_per_class):
                    image, file = f"{wnid}_{number + 1}", f"{wnid}/{wnid}_{number + 1}.png"
                    rows.append((image, position, name, wnid, file))
                    drawings.append((partial / file, label, image_seed(seed, number)))
            list(each(_save_drawing, drawings, least=100))
            columns = ["image", "label", "class_name", "wnid", "file"]
            table = pandas.DataFrame(rows, columns=columns)
            table.to_csv(partial / "stimuli.tsv", sep="\t", index=False, lineterminator="\n")
    return pandas.read_csv(folder / "stimuli.tsv", sep="\t")


def _save_drawing(drawing: tuple[Path, int, int]) -> None:
    file, label, seed = drawing
    draw_stimulus(label, seed).save(file)


def each(function: Callable, items: Sequence, *arguments: Any, least: int = 1) -> Iterator:
    """Results of ``function(item, *arguments)`` in order, on all cores, ``least`` items on each."""
    n_jobs = max(1, min(joblib.cpu_count(), len(items) // least))
    pool = joblib.Parallel(n_jobs, inner_max_num_threads=1, backend="loky", return_as="generator")
    return pool(joblib.delayed(function)(item, *arguments) for item in items)


def image_seed(seed: int, number: int) -> int:
    """Seed of image `number` of a data set: other images, other seeds; never one that trains."""
    start = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    return (start + number) % TRAINING_SEEDS


def visual_features(images: Sequence[Image.Image]) -> np.ndarray:
    """Describe images by contrast, edges and colour, as early visual cortex might; (n, 204)."""
    kinds = [np.stack(k) for k in zip(*each(_describe, images, least=100), strict=True)]
    for kind in kinds:
        spread = kind.std(axis=0)
        kind -= kind.mean(axis=0)
        kind /= np.where(spread > 1e-12, spread, 1)
        kind /= np.sqrt(kind.shape[1])
    return np.concatenate(kinds, axis=1)


def _describe(image: Image.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=float) / 255
    grey = pixels @ [0.299, 0.587, 0.114]
    contrast = np.abs(grey - np.median(grey))
    layout = contrast.reshape(8, 8, 8, 8).mean(axis=(1, 3)).ravel()
    down, across = (ndimage.gaussian_filter(grey, 1, order) for order in ((1, 0), (0, 1)))
    energy, angle = np.hypot(down, across), np.mod(np.arctan2(down, across), np.pi)
    bins = np.minimum((angle / np.pi * 8).astype(int), 7)
    edges = np.stack([np.where(bins == b, energy, 0) for b in range(8)])
    edges = edges.reshape(8, 4, 16, 4, 16).sum(axis=(2, 4)).ravel()
    centre = pixels[16:48, 16:48]
    color = np.concatenate([f(p, axis=(0, 1)) for p in (pixels, centre) for f in (np.mean, np.std)])
    return layout, np.sqrt(edges), color


def _masks(label: int, canvas: int, rng: np.random.Generator) -> list[Image.Image]:
    """Where the object is, and where its details are, after tilt, size and place."""
    masks = _shape(label, canvas)
    if rng.random() < 0.5:
        masks = [mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for mask in masks]
    scale, angle = rng.uniform(0.62, 0.88), rng.uniform(-12, 12)
    side = int(canvas * scale)
    place = tuple(int(p) for p in rng.uniform(0.25, 0.75, 2) * (canvas - side))
    moved = [Image.new("L", (canvas, canvas)) for _ in masks]
    for mask, target in zip(masks, moved, strict=True):
        if mask.getbbox():
            turned = mask.rotate(angle, Image.Resampling.BICUBIC).resize((side, side))
            target.paste(turned, place)
    return moved


@cache
def _shape(label: int, canvas: int) -> list[Image.Image]:
    """Masks of a class's body and of its details, before they are moved."""
    shape = CLASSES[label].shape
    body, detail = (Image.new("L", (canvas, canvas)) for _ in range(2))
    if isinstance(shape, str):
        return [_glyph(*shape.split("/"), canvas), detail]
    for mask, kind, numbers in shape:
        pen = ImageDraw.Draw(detail if mask.endswith("detail") else body)
        _stroke(pen, kind, numbers, canvas, 0 if mask.startswith("erase") else 255)
    return [body, ImageChops.multiply(detail, body)]


def _stroke(pen: ImageDraw.ImageDraw, kind: str, numbers: list, canvas: int, ink: int) -> None:
    """Draw or erase a shape whose numbers are shares of the canvas, x to the right and y down."""
    if kind == "polygon":
        pen.polygon([(x * canvas, y * canvas) for x, y in numbers], fill=ink)
    elif kind == "ellipse":
        x, y, rx, ry = numbers
        pen.ellipse([c * canvas for c in (x - rx, y - ry, x + rx, y + ry)], fill=ink)
    elif kind == "box":
        *corners, radius = (c * canvas for c in numbers)
        pen.rounded_rectangle(corners, radius, fill=ink)
    else:
        width, *points = numbers
        scaled = [(x * canvas, y * canvas) for x, y in points]
        pen.line(scaled, fill=ink, width=int(width * canvas), joint="curve")
        for x, y in points:
            _stroke(pen, "ellipse", [x, y, width / 2, width / 2], canvas, ink)


def _glyph(font_name: str, glyph: str, canvas: int) -> Image.Image:
    # Only the font files are wanted; importing the package would ask for a Qt binding.
    folder = Path(importlib.util.find_spec("qtawesome").origin).parent / "fonts"
    file = next(folder.glob(f"{font_name}-webfont-[0-9]*.ttf"))
    characters = json.loads(next(folder.glob(f"{font_name}-webfont-charmap*.json")).read_text())
    character, font = chr(int(characters[glyph], 16)), ImageFont.truetype(file, int(canvas * 0.8))
    mask = Image.new("L", (canvas, canvas))
    ImageDraw.Draw(mask).text((canvas / 2, canvas / 2), character, font=font, fill=255, anchor="mm")
    cut = mask.crop(mask.getbbox())
    side = max(cut.size)
    square = Image.new("L", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    fitted, inner = Image.new("L", (canvas, canvas)), int(canvas * 0.88)
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
    down, across = (axis / canvas for axis in np.ogrid[0:canvas, 0:canvas])
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.12, 0.3)
    along = across * np.cos(angle) + down * np.sin(angle)
    if kind == "plain":
        return Image.new("RGB", (canvas, canvas), color)
    if kind == "gradient":
        share = (along - along.min()) / np.ptp(along)
        mixed = np.asarray(color) + share[..., np.newaxis] * (np.asarray(other) - color)
        return Image.fromarray(mixed.astype(np.uint8))
    if kind == "stripes":
        is_other = np.mod(along / period, 1) < 0.5
    else:
        is_other = np.hypot(np.mod(across / period, 1) - 0.5, np.mod(down / period, 1) - 0.5) < 0.25
    return Image.fromarray(np.array([color, other], np.uint8)[is_other.astype(int)])
