"""Training a student on EEG, with or without a teacher that saw the images (chapter 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch
from torch import nn
from torch.nn import functional

from eeglib.decoding.calibration import calibrated
from eeglib.decoding.networks import ResidualCNN, count_parameters
from eeglib.decoding.splits import Split
from eeglib.decoding.training import (
    TrainingRun,
    check_outputs,
    determinism,
    distillation_loss,
    find_device,
    seeded,
    train,
)
from eeglib.decoding.training_data import TrainingData, TrainingError, on_device
from eeglib.profile import IngredientSettings, TrainingSettings

__all__ = [
    "Student",
    "TrainingError",
    "average_predictions",
    "count_parameters",
    "distillation_loss",
    "fit",
    "fit_seeds",
    "predict",
    "residual_network",
]


@dataclass(frozen=True)
class Student:
    """A trained network.

    Attributes
    ----------
    network : nn.Module
        With the weights of the epoch that had the lowest validation loss; in evaluation mode.
    history : pandas.DataFrame
        One row per epoch: ``epoch`` (from 1), ``training_loss``, ``validation_loss`` (nats),
        ``validation_accuracy``, ``seconds`` since the start.
    best_epoch : int
        Epoch whose weights were kept.
    seed : int
    """

    network: nn.Module
    history: pandas.DataFrame
    best_epoch: int
    seed: int


def residual_network(
    shape: Sequence[int], n_classes: int, attention: bool = False
) -> Callable[[], ResidualCNN]:
    """Builder of the paper's student for images of a shape (n_chans, n_freqs, n_times)."""
    n_chans, n_freqs, n_times = (int(side) for side in shape)
    return lambda: ResidualCNN(n_chans, n_freqs, n_times, n_classes, attention=attention)


def fit(
    build_network: Callable[[], nn.Module],
    images: np.ndarray,
    labels: np.ndarray,
    split: Split,
    settings: TrainingSettings,
    teacher_logits: np.ndarray | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: Path | None = None,
    deterministic: bool = False,
    ingredients: IngredientSettings | None = None,
    teacher_features: np.ndarray | None = None,
) -> Student:
    """Train a network on a subject's training trials, stopping by the validation trials.

    Parameters
    ----------
    build_network : callable
        Gives a new network; called once, after the seed is set.
    images : array, shape (n_trials, ...)
        Input of all trials; test trials are not looked at.
    labels : array of int, shape (n_trials,)
        Those of test trials are not looked at.
    split : Split
    settings : TrainingSettings
        Section ``training`` of the profile; its ``seeds`` (see `fit_seeds`) and ``ingredients``
        are not used here.
    teacher_logits : array, shape (n_trials, n_classes) | None
        For the image of each trial. None: training on labels alone.
    seed : int
        Of the initial weights, the order of the trials, and dropout.
    progress : bool
        Show a bar on a terminal; elsewhere each epoch is logged at level INFO.
    checkpoint : Path | None
        File that keeps the state after every epoch. If it exists, training goes on from there.
    deterministic : bool
        Use only algorithms that give the same bits in every run on the same machine.
    ingredients : IngredientSettings | None
        What is added to the paper's recipe; see `eeglib.decoding.ingredients`. None: nothing. Of them,
        ``attention`` is for `build_network` to follow.
    teacher_features : array, shape (n_trials, d) | None
        Embedding of the image of each trial, for the ingredient ``embedding``.

    Returns
    -------
    Student

    Raises
    ------
    TrainingError
        If inputs do not fit together or are not finite, the loss diverges, or the checkpoint
        belongs to another training.

    Notes
    -----
    Section 3.6 of the paper: Adam, gradients clipped by norm, early stopping on the validation
    loss, which is the same loss (1) on the validation trials. All trials lie on the device,
    standardised there once, and a batch is an indexing of them. A last batch of a single trial
    joins the one before it, since batch normalisation needs two.
    """
    device = find_device(settings.device)
    data = TrainingData.of(images, labels, split, teacher_logits, teacher_features, device)
    with seeded(seed, device), determinism(deterministic):
        network = build_network().to(device)
        check_outputs(network, data)
        if data.training.images.ndim == 4:
            network = network.to(memory_format=torch.channels_last)
        run = TrainingRun(network, settings, data, seed, checkpoint, ingredients)
        train(run, data, progress)
    network.load_state_dict(run.best_state)
    if run.ingredients.calibration:
        found = predict(network, images[split.validation])
        network = calibrated(network, found, labels[split.validation])
    return Student(network.eval(), pandas.DataFrame(run.history), run.best_epoch, seed)


def fit_seeds(
    build_network: Callable[[], nn.Module],
    images: np.ndarray,
    labels: np.ndarray,
    split: Split,
    settings: TrainingSettings,
    teacher_logits: np.ndarray | None = None,
    **options,
) -> list[Student]:
    """Train one network, from new weights, for each of ``settings.seeds``; options as in `fit`."""
    return [
        fit(build_network, images, labels, split, settings, teacher_logits, seed, **options)
        for seed in settings.seeds
    ]


def predict(network: nn.Module, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Probabilities of the classes.

    Parameters
    ----------
    network : nn.Module
        Used on the device where it is.
    images : array, shape (n_trials, ...)
    batch_size : int
        Trials at a time; without influence on the result but for rounding.

    Returns
    -------
    array of float32, shape (n_trials, n_classes)
        Rows sum to 1.
    """
    images = np.asarray(images)
    if not len(images):
        raise TrainingError("There are no trials to predict.")
    device = next(network.parameters()).device
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = on_device(images[start : start + batch_size], device)
            parts.append(functional.softmax(network(batch).float(), dim=1).cpu().numpy())
    return np.concatenate(parts)


def average_predictions(students: Sequence[Student], images: np.ndarray) -> np.ndarray:
    """Mean of the probabilities of several students, shape (n_trials, n_classes)."""
    return np.mean([predict(student.network, images) for student in students], axis=0)
