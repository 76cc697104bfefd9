"""Shapes of the drawn stimuli that no icon font has, and the fonts' glyphs (chapter 1).

Every function draws with two pens on a unit square, x to the right and y down: the first pen
draws the object, the second its details, which show only where the object is.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


class Pen:
    """Draws filled shapes, or erases them, in unit coordinates on a mask."""

    def __init__(self, mask: Image.Image):
        self._draw = ImageDraw.Draw(mask)
        self._size = mask.width

    def _scaled(self, points) -> list[tuple[float, float]]:
        return [(x * self._size, y * self._size) for x, y in points]

    def polygon(self, *points: tuple[float, float], ink: bool = True) -> None:
        self._draw.polygon(self._scaled(points), fill=255 * ink)

    def ellipse(self, x: float, y: float, rx: float, ry: float, ink: bool = True) -> None:
        box = self._scaled([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse(box, fill=255 * ink)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, radius: float = 0, ink: bool = True
    ) -> None:
        box = self._scaled([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle(box, radius * self._size, fill=255 * ink)

    def line(self, *points: tuple[float, float], width: float = 0.05, ink: bool = True) -> None:
        self._draw.line(
            self._scaled(points), fill=255 * ink, width=int(width * self._size), joint="curve"
        )
        for x, y in points:
            self.ellipse(x, y, width / 2, width / 2, ink)


@cache
def font_glyph(font: str, glyph: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font of the package qtawesome at a size in pixels, and the character of a glyph."""
    # Only the font files are wanted; importing the package would ask for a Qt binding.
    spec = importlib.util.find_spec("qtawesome")
    if spec is None:
        raise ImportError(
            "The drawn stimuli need the icon fonts of the package qtawesome: pip install qtawesome."
        )
    folder = Path(spec.submodule_search_locations[0]) / "fonts"
    file = next(folder.glob(f"{font}-webfont-[0-9]*.ttf"))
    characters = json.loads(next(folder.glob(f"{font}-webfont-charmap*.json")).read_text())
    return ImageFont.truetype(str(file), size), chr(int(characters[glyph], 16))


def _arc(x, y, rx, ry, start, stop, n=40):
    angles = np.linspace(np.radians(start), np.radians(stop), n)
    return [(x + rx * np.cos(a), y + ry * np.sin(a)) for a in angles]


def anemone_fish(body: Pen, detail: Pen) -> None:
    body.ellipse(0.45, 0.5, 0.36, 0.24)
    body.polygon((0.72, 0.5), (0.96, 0.28), (0.9, 0.5), (0.96, 0.72))
    body.polygon((0.3, 0.32), (0.5, 0.14), (0.66, 0.34))
    body.polygon((0.38, 0.7), (0.5, 0.86), (0.6, 0.68))
    for x, width in ((0.27, 0.07), (0.5, 0.08), (0.71, 0.06)):
        detail.polygon(*_arc(x, 0.5, width, 0.3, 0, 360))
    detail.ellipse(0.27, 0.5, 0.035, 0.3, ink=True)
    body.ellipse(0.17, 0.45, 0.035, 0.035, ink=False)


def revolver(body: Pen, detail: Pen) -> None:
    body.box(0.05, 0.26, 0.62, 0.37)
    body.box(0.42, 0.24, 0.78, 0.52, 0.03)
    body.polygon((0.66, 0.3), (0.84, 0.22), (0.88, 0.3), (0.8, 0.4))
    body.polygon((0.64, 0.46), (0.8, 0.42), (0.97, 0.86), (0.78, 0.9))
    body.line(*_arc(0.54, 0.55, 0.1, 0.1, 10, 175), width=0.035)
    body.box(0.07, 0.2, 0.11, 0.27)
    for y in (0.3, 0.38, 0.46):
        detail.box(0.46, y - 0.018, 0.66, y + 0.018, 0.015)
    detail.line((0.78, 0.55), (0.88, 0.82), width=0.04)


def daisy(body: Pen, detail: Pen) -> None:
    for angle in np.arange(0, 360, 30):
        a = np.radians(angle)
        x, y = 0.5 + 0.28 * np.cos(a), 0.5 + 0.28 * np.sin(a)
        petal = np.array(_arc(0, 0, 0.18, 0.075, 0, 360))
        turned = petal @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
        body.polygon(*[(x + px, y + py) for px, py in turned])
    detail.ellipse(0.5, 0.5, 0.14, 0.14)


def canoe(body: Pen, detail: Pen) -> None:
    hull = [
        (0.02, 0.42),
        (0.1, 0.5),
        *_arc(0.5, 0.5, 0.38, 0.04, 180, 0),
        (0.9, 0.5),
        (0.98, 0.42),
        (0.9, 0.68),
        (0.78, 0.76),
        (0.22, 0.76),
        (0.1, 0.68),
    ]
    body.polygon(*hull)
    body.line((0.3, 0.2), (0.66, 0.62), width=0.04)
    body.ellipse(0.28, 0.18, 0.06, 0.1)
    detail.line((0.12, 0.61), (0.88, 0.61), width=0.035)


def jack_o_lantern(body: Pen, detail: Pen) -> None:
    for x, rx in ((0.3, 0.24), (0.7, 0.24), (0.5, 0.26)):
        body.ellipse(x, 0.57, rx, 0.34)
    body.polygon((0.46, 0.27), (0.44, 0.08), (0.58, 0.06), (0.54, 0.27))
    for x in (0.32, 0.68):
        detail.polygon((x - 0.1, 0.54), (x + 0.1, 0.54), (x, 0.38))
    detail.polygon((0.46, 0.62), (0.54, 0.62), (0.5, 0.55))
    detail.polygon(
        (0.2, 0.65),
        (0.32, 0.7),
        (0.38, 0.66),
        (0.44, 0.72),
        (0.5, 0.68),
        (0.56, 0.72),
        (0.62, 0.66),
        (0.68, 0.7),
        (0.8, 0.65),
        (0.68, 0.81),
        (0.5, 0.84),
        (0.32, 0.81),
    )


def golf_ball(body: Pen, detail: Pen) -> None:
    body.ellipse(0.5, 0.4, 0.34, 0.34)
    body.polygon((0.36, 0.72), (0.64, 0.72), (0.54, 0.8), (0.52, 0.98), (0.48, 0.98), (0.46, 0.8))
    for row, y in enumerate(np.arange(0.13, 0.7, 0.1)):
        for x in np.arange(0.15 + 0.06 * (row % 2), 0.9, 0.12):
            if np.hypot(x - 0.5, y - 0.4) < 0.3:
                detail.ellipse(x, y, 0.026, 0.026)


def missile(body: Pen, detail: Pen) -> None:
    along, across = np.array([0.7, -0.7]), np.array([0.7, 0.7])

    def at(length, side):
        return tuple(np.array([0.1, 0.9]) + along * length + across * side)

    body.polygon(at(0.08, -0.07), at(0.85, -0.07), at(1.12, 0.0), at(0.85, 0.07), at(0.08, 0.07))
    body.polygon(at(0.02, -0.2), at(0.12, -0.2), at(0.34, -0.06), at(0.06, -0.06))
    body.polygon(at(0.02, 0.2), at(0.12, 0.2), at(0.34, 0.06), at(0.06, 0.06))
    body.polygon(at(0.58, -0.17), at(0.64, -0.17), at(0.76, -0.06), at(0.6, -0.06))
    body.polygon(at(0.58, 0.17), at(0.64, 0.17), at(0.76, 0.06), at(0.6, 0.06))
    detail.polygon(at(0.82, -0.08), at(0.88, -0.08), at(0.88, 0.08), at(0.82, 0.08))
    detail.polygon(at(0.4, -0.08), at(0.45, -0.08), at(0.45, 0.08), at(0.4, 0.08))


def monkey(body: Pen, detail: Pen) -> None:
    body.ellipse(0.5, 0.5, 0.33, 0.37)
    for x in (0.13, 0.87):
        body.ellipse(x, 0.48, 0.12, 0.14)
        detail.ellipse(x, 0.48, 0.06, 0.08)
    detail.ellipse(0.39, 0.42, 0.13, 0.14)
    detail.ellipse(0.61, 0.42, 0.13, 0.14)
    detail.ellipse(0.5, 0.65, 0.22, 0.17)
    for x in (0.4, 0.6):
        detail.ellipse(x, 0.43, 0.05, 0.06, ink=False)
    for x in (0.46, 0.54):
        detail.ellipse(x, 0.6, 0.02, 0.025, ink=False)
    detail.line(*_arc(0.5, 0.66, 0.13, 0.08, 20, 160), width=0.03, ink=False)


def pool_table(body: Pen, detail: Pen) -> None:
    body.polygon((0.14, 0.26), (0.86, 0.26), (0.99, 0.62), (0.01, 0.62))
    for x in (0.08, 0.86):
        body.box(x, 0.6, x + 0.07, 0.88)
    detail.polygon((0.2, 0.31), (0.8, 0.31), (0.9, 0.56), (0.1, 0.56))
    for x, y in ((0.34, 0.48), (0.6, 0.4), (0.66, 0.47), (0.72, 0.42), (0.66, 0.36)):
        detail.ellipse(x, y, 0.035, 0.032, ink=False)
    for x, y in ((0.2, 0.31), (0.5, 0.31), (0.8, 0.31), (0.1, 0.56), (0.5, 0.56), (0.9, 0.56)):
        detail.ellipse(x, y, 0.04, 0.035, ink=False)


def mailbag(body: Pen, detail: Pen) -> None:
    body.line(*_arc(0.5, 0.42, 0.36, 0.36, 180, 360), width=0.05)
    body.box(0.08, 0.4, 0.92, 0.92, 0.08)
    detail.box(0.28, 0.52, 0.72, 0.8)
    detail.line((0.28, 0.53), (0.5, 0.69), (0.72, 0.53), width=0.035, ink=False)


def folding_chair(body: Pen, detail: Pen) -> None:
    body.line((0.27, 0.08), (0.74, 0.92), width=0.06)
    body.line((0.7, 0.5), (0.3, 0.92), width=0.06)
    body.polygon((0.22, 0.06), (0.36, 0.03), (0.5, 0.34), (0.36, 0.38))
    body.polygon((0.4, 0.5), (0.85, 0.44), (0.88, 0.53), (0.45, 0.6))
    body.line((0.36, 0.86), (0.69, 0.86), width=0.04)
    detail.line((0.3, 0.13), (0.38, 0.11), width=0.03)
    detail.line((0.36, 0.24), (0.43, 0.22), width=0.03)


def pajama(body: Pen, detail: Pen) -> None:
    body.polygon(
        (0.32, 0.04),
        (0.68, 0.04),
        (0.97, 0.3),
        (0.86, 0.42),
        (0.72, 0.32),
        (0.72, 0.56),
        (0.28, 0.56),
        (0.28, 0.32),
        (0.14, 0.42),
        (0.03, 0.3),
    )
    body.polygon(
        (0.28, 0.6),
        (0.72, 0.6),
        (0.76, 0.97),
        (0.55, 0.97),
        (0.5, 0.72),
        (0.45, 0.97),
        (0.24, 0.97),
    )
    detail.polygon((0.42, 0.04), (0.58, 0.04), (0.5, 0.2))
    for x in (0.34, 0.42, 0.58, 0.66):
        detail.line((x, 0.26), (x, 0.95), width=0.022)
    for y in (0.28, 0.38, 0.48):
        detail.ellipse(0.5, y, 0.025, 0.025)


def mitten(body: Pen, detail: Pen) -> None:
    body.box(0.28, 0.05, 0.74, 0.7, 0.22)
    body.box(0.3, 0.4, 0.72, 0.76)
    body.line((0.36, 0.62), (0.16, 0.38), width=0.19)
    body.box(0.25, 0.74, 0.77, 0.95, 0.04)
    for x in np.arange(0.3, 0.76, 0.09):
        detail.box(x, 0.77, x + 0.035, 0.92)
    for x, y in ((0.42, 0.28), (0.6, 0.28), (0.51, 0.44)):
        detail.polygon((x - 0.06, y), (x, y - 0.08), (x + 0.06, y), (x, y + 0.08))


def grand_piano(body: Pen, detail: Pen) -> None:
    body.polygon((0.06, 0.44), (0.3, 0.06), (0.93, 0.02), (0.6, 0.44))
    body.polygon((0.06, 0.47), (0.94, 0.47), (0.94, 0.62), (0.06, 0.62))
    body.box(0.02, 0.53, 0.3, 0.66)
    for x in (0.12, 0.52, 0.86):
        body.box(x, 0.6, x + 0.05, 0.95)
    detail.box(0.04, 0.55, 0.29, 0.62)
    for x in (0.09, 0.14, 0.19, 0.24):
        detail.box(x, 0.55, x + 0.014, 0.6, ink=False)
    detail.line((0.58, 0.46), (0.72, 0.14), width=0.02)


def banana(body: Pen, detail: Pen) -> None:
    outer = _arc(0.4, 0.2, 0.55, 0.66, 5, 130)
    inner = _arc(0.36, 0.12, 0.44, 0.5, 125, 12)
    body.polygon(*outer, *inner)
    body.polygon((0.78, 0.24), (0.96, 0.28), (0.92, 0.08), (0.82, 0.08))
    detail.line(*_arc(0.38, 0.16, 0.5, 0.58, 25, 110), width=0.02)


def bolete(body: Pen, detail: Pen) -> None:
    body.polygon(*_arc(0.5, 0.5, 0.46, 0.4, 180, 360))
    body.box(0.04, 0.46, 0.96, 0.56, 0.05)
    body.polygon((0.38, 0.5), (0.62, 0.5), (0.72, 0.86), (0.6, 0.96), (0.4, 0.96), (0.28, 0.86))
    detail.polygon((0.38, 0.58), (0.62, 0.58), (0.72, 0.86), (0.6, 0.96), (0.4, 0.96), (0.28, 0.86))


def digital_watch(body: Pen, detail: Pen) -> None:
    body.box(0.34, 0.01, 0.66, 0.99, 0.05)
    body.box(0.2, 0.27, 0.8, 0.73, 0.09)
    detail.box(0.27, 0.35, 0.73, 0.65, 0.03)
    for x in (0.33, 0.55):
        for y in (0.39, 0.5, 0.61):
            detail.box(x, y - 0.015, x + 0.11, y + 0.015, ink=False)
        detail.box(x + 0.085, 0.39, x + 0.115, 0.61, ink=False)
    for y in (0.45, 0.55):
        detail.ellipse(0.495, y, 0.018, 0.018, ink=False)


def electric_locomotive(body: Pen, detail: Pen) -> None:
    body.polygon((0.02, 0.76), (0.04, 0.5), (0.16, 0.32), (0.84, 0.32), (0.96, 0.5), (0.98, 0.76))
    body.line((0.4, 0.32), (0.52, 0.19), (0.4, 0.07), width=0.03)
    body.line((0.26, 0.06), (0.56, 0.06), width=0.035)
    for x in (0.16, 0.34, 0.66, 0.84):
        body.ellipse(x, 0.82, 0.09, 0.09)
        detail.ellipse(x, 0.82, 0.04, 0.04)
    detail.polygon((0.1, 0.5), (0.19, 0.38), (0.27, 0.38), (0.27, 0.5))
    detail.polygon((0.9, 0.5), (0.81, 0.38), (0.73, 0.38), (0.73, 0.5))
    for x in (0.36, 0.5):
        detail.box(x, 0.39, x + 0.1, 0.5)
    detail.box(0.03, 0.6, 0.97, 0.64)


def radio_telescope(body: Pen, detail: Pen) -> None:
    dish = np.array(_arc(0, 0, 0.42, 0.3, 0, 180))
    turn = np.radians(-38)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    body.polygon(*[(0.48 + x, 0.3 + y) for x, y in dish @ rotation])
    tip = (0.26, 0.05)
    for x in (-0.38, 0.38):
        corner = np.array([x, 0.0]) @ rotation
        body.line((0.48 + corner[0], 0.3 + corner[1]), tip, width=0.022)
    body.ellipse(*tip, 0.05, 0.05)
    body.polygon((0.55, 0.5), (0.68, 0.5), (0.86, 0.96), (0.38, 0.96))
    detail.polygon((0.61, 0.66), (0.72, 0.9), (0.5, 0.9))
