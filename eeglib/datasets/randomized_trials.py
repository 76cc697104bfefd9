"""Randomised EEG trials of Ahmed et al. (2021): one subject, 40 classes, 1,000 trials of each.

Chapter 1. The dict of trials is that of EEG-ImageNet, and so is the loader; the order of the
images was random, which takes away the confound that chapter 8 is about.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from eeglib.datasets import eeg_imagenet


class Options(eeg_imagenet.Options):
    """Options of this data set."""

    file: str = Field("imagenet40-1000-1.pth", description="name of the data file")
    cut: tuple[int, int] = Field((0, 512), description="samples of a trial that are kept")
    lengths: tuple[int, int] = Field(
        (512, 100_000), description="trials of other lengths, in samples, are left out"
    )
    unit: Literal["microvolt", "none"] = Field(
        "none", description="of the numbers; the preprocessed file is standardised"
    )
    processed: tuple[str, ...] = Field(
        ("standardize",), description="what the signals have been through"
    )
    split_file: str = Field("imagenet40-1000-1_split.pth", description="published splits")
    sfreq: float = Field(1024.0, gt=0, description="hertz, after the authors' decimation by 4")


class Loader(eeg_imagenet.Loader):
    """Randomised trials, as their authors preprocessed them."""

    Options = Options
    download_name: ClassVar[str] = "randomized_trials"
    # The file names no channels, and the cap of 96 is documented by positions only.
    channels: ClassVar[list[str] | None] = None
    resolution: ClassVar[np.ndarray | None] = None
