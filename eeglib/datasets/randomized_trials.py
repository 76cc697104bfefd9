"""Randomised EEG trials of Ahmed et al. (2021): one subject, 40 classes, 1,000 trials of each."""

from eeglib.datasets.eeg_imagenet import RandomizedTrials as Loader  # noqa: F401
