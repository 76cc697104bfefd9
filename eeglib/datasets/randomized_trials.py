"""Randomised EEG trials of Ahmed et al. (2021): one subject, 40 classes, 1,000 trials of each.

Chapter 1. The file is like that of EEG-ImageNet, and so is the loader; the order of the images was
random, which takes away the confound that chapter 8 is about.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from eeglib.datasets import eeg_imagenet


class Options(eeg_imagenet.Options):
    """Options of this data set; the preprocessed file is standardised."""

    file: str = "imagenet40-1000-1.pth"
    cut: tuple[int, int] = (0, 512)
    unit: Literal["microvolt", "none"] = "none"
    processed: tuple[str, ...] = ("standardize",)
    sfreq: float = Field(1024.0, gt=0)  # hertz, after the authors' decimation by 4


class Loader(eeg_imagenet.Loader):
    """Randomised trials, as their authors preprocessed them."""

    Options = Options
    # The file names no channels, and the cap of 96 is documented by positions only.
    channels: ClassVar[list[str] | None] = None
    longest: ClassVar[float] = math.inf
    split_file: ClassVar[str] = "imagenet40-1000-1_split.pth"
