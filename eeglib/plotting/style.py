"""The style of every figure; colours by Okabe and Ito, which colour-blind readers tell apart."""

import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH = 8.0  # of a figure, inches: the text column of the book
plt.style.use(Path(__file__).with_suffix(".mplstyle"))
# Names of classes may be Chinese, Japanese or Korean; where no font has them, boxes are drawn.
EAST_ASIAN = r"CJK|Source Han|WenQuanYi|YaHei|PingFang|Hiragino|SimHei|Malgun|Arial Unicode"
further = sorted(name for name in get_font_names() if re.search(EAST_ASIAN, name))
plt.rcParams["font.family"] = ["sans-serif", *further]
warnings.filterwarnings("ignore", "Glyph .* missing from (font|current)")


def new_figure(
    height: float, rows: int = 1, columns: int = 1, **kwargs
) -> tuple[Figure, np.ndarray]:
    return plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **kwargs)


def message_figure(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure, axes = new_figure(1.2)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center")
    return figure
