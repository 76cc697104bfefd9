"""Recordings in which it is known whether the particular image is there (chapter 7).

A test that finds nothing says little until it has been seen to find something. Here small
recordings are simulated, in memory, of a subject who sees the images of a data set; the part of
the response that belongs to the single image can be all of it, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas

from eeglib.reconstruction.image_regression import WithinClass, predict_within_class

if TYPE_CHECKING:
    from PIL.Image import Image

SFREQ, BAND = 200, (1.0, 70.0)
STRENGTH = 5.0
"""Times what is realistic: at 1 a few hundred single trials are too few for the image."""

TEST_SHARE = 0.25
CHANNELS = (
    "TP9", "CP5", "CP1", "CP2", "CP6", "TP10", "P7", "P3", "Pz", "P4", "P8", "PO9", "O1", "Oz",
    "O2", "PO10", "TP7", "CP3", "CPz", "CP4", "TP8", "P5", "P1", "P2", "P6", "PO7", "PO3", "POz",
    "PO4", "PO8", "TPP9h", "TPP10h",
)  # fmt: skip
"""Over the back of the head, where the simulated responses are."""


@dataclass(frozen=True)
class KnownAnswer:
    """What the test said about a recording whose answer is known.

    Attributes
    ----------
    within : WithinClass
    training, test : array of int
        Rows of the images shown in the trials of each part, in the order of the trials.
    """

    within: WithinClass
    training: np.ndarray
    test: np.ndarray


def choose_images(
    stimuli: pandas.DataFrame, n_classes: int = 10, per_class: int = 40
) -> pandas.DataFrame:
    """Images of a data set to simulate responses to: some classes, some images of each.

    Parameters
    ----------
    stimuli : pandas.DataFrame
        Columns ``image, label, class_name, file``.
    n_classes, per_class : int
        At most so many.

    Returns
    -------
    pandas.DataFrame
        Rows of `stimuli`, renumbered, with labels from 0 on.
    """
    labels = np.unique(stimuli["label"])[:n_classes]
    chosen = stimuli[stimuli["label"].isin(labels)].groupby("label").head(per_class)
    number = {label: i for i, label in enumerate(labels)}
    return chosen.assign(label=chosen["label"].map(number)).reset_index(drop=True)


def simulate_responses(
    pictures: list[Image],
    labels: np.ndarray,
    image_share: float,
    stimulus_strength: float = STRENGTH,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one subject who sees each picture once, in random order, without drift.

    Parameters
    ----------
    pictures : list of PIL.Image.Image
    labels : array of int, shape (n_pictures,)
        Of at most 40 classes.
    image_share : float
        Share of the response's variance over pictures that belongs to the single picture and not
        to its class, in [0, 1].
    stimulus_strength : float
        Factor on all that pictures drive.
    seed : int

    Returns
    -------
    trials : array of float32, shape (n_trials, 32, n_times)
        Volts, filtered to `BAND`, 200 Hz.
    shown : array of int, shape (n_trials,)
        Row of the picture that each trial showed.
    """
    from scipy.signal import butter, sosfiltfilt

    from eeglib.datasets.simulated import Options
    from eeglib.datasets.simulation.subject import SimulatedSubject
    from eeglib.datasets.stimuli import visual_features

    counts = np.bincount(labels)
    options = Options(
        n_classes=len(counts),
        images_per_class=int(counts.max()),
        design="randomized",
        classes_per_session=len(counts),
        drift_strength=0.0,
        pause=1.0,
        channels=CHANNELS,
        stimulus_strength=stimulus_strength,
        image_share=image_share,
        sfreq=SFREQ,
        seed=seed,
    )
    stimuli = pandas.DataFrame({"label": labels, "image": np.arange(len(labels)).astype(str)})
    subject = SimulatedSubject(options, 1, stimuli, visual_features(pictures))
    sos = butter(2, BAND, "bandpass", fs=SFREQ, output="sos")
    signal = sosfiltfilt(sos, subject.signals(0), axis=1).astype(np.float32)
    length = round(options.image_duration * SFREQ)
    starts = np.round(subject.schedule["onset"].to_numpy() * SFREQ).astype(int)
    trials = np.stack([signal[:, start : start + length] for start in starts])
    return trials, subject.schedule["stimulus"].to_numpy()


def find_images(
    pictures: list[Image],
    labels: np.ndarray,
    embeddings: np.ndarray,
    image_share: float,
    stimulus_strength: float = STRENGTH,
    seed: int = 0,
) -> KnownAnswer:
    """Simulate a recording, fit the regression and test it within classes.

    Parameters
    ----------
    pictures, labels, image_share, stimulus_strength, seed
        As in `simulate_responses`; the seed also decides which quarter of the pictures tests.
    embeddings : array, shape (n_pictures, n_dims)
        What CLIP says about the pictures.
    """
    trials, shown = simulate_responses(pictures, labels, image_share, stimulus_strength, seed)
    is_test = np.random.default_rng([seed, 7]).random(len(shown)) < TEST_SHARE
    training, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    within = predict_within_class(
        trials, SFREQ, embeddings[shown], labels[shown], shown, training, test, seed
    )
    return KnownAnswer(within, shown[training], shown[test])
