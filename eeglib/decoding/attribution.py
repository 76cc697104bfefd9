"""Which channels and which cells of the time-frequency image a student went by (chapter 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from eeglib.decoding.training import on_device

STEPS = 16
"""Points on the way from the reference to the trial; the rest of completeness is reported."""


@dataclass(frozen=True)
class Attribution:
    """Mean over trials of what each part of the image added to the logit of the true class.

    Attributes
    ----------
    channels : array, shape (n_chans,)
        Summed over the cells of the image.
    cells : array, shape (n_freqs, n_windows)
        Summed over channels.
    missed : float
        Share of the change of the logits that the attributions do not account for.
    """

    channels: np.ndarray
    cells: np.ndarray
    missed: float


def attribute(
    network: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    batch_size: int = 32,
) -> Attribution:
    """Integrated gradients of the true class, summed over cells or over channels.

    Parameters
    ----------
    network : nn.Module
        A trained student, in evaluation mode.
    images : array, shape (n_trials, n_chans, n_freqs, n_windows)
    labels : array of int, shape (n_trials,)
        Whose logit is explained.
    reference : array, shape (n_chans, n_freqs, n_windows)
        The image without information: the mean over training trials.
    batch_size : int
        Trials at a time.

    Returns
    -------
    Attribution

    Raises
    ------
    ValueError
        If there are no trials, or shapes differ.

    Notes
    -----
    Sundararajan, Taly & Yan (2017), with captum: the gradient of the logit, averaged along the
    line from the reference to the trial and multiplied by their difference. Summed over the whole
    image it gives the change of the logit; of how exactly it does, `missed` tells. It shows what
    the *network* used, not where the brain holds the information: a channel may serve only to
    cancel noise of its neighbours (Haufe et al. 2014).
    """
    from captum.attr import IntegratedGradients

    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or not len(images) or len(images) != len(labels):
        raise ValueError(
            "Expected at least one image (n_trials, n_chans, n_freqs, n_windows) and as many "
            f"labels, got {images.shape} and {labels.shape}."
        )
    if images.shape[1:] != reference.shape:
        raise ValueError(f"The reference has shape {reference.shape}, trials {images.shape[1:]}.")
    device = next(network.parameters()).device
    baseline = on_device(reference[np.newaxis], device)
    method = IntegratedGradients(network.eval(), multiply_by_inputs=True)
    total, missed, change = np.zeros(reference.shape), 0.0, 0.0
    for start in range(0, len(images), batch_size):
        batch = on_device(images[start : start + batch_size], device)
        target = torch.as_tensor(labels[start : start + batch_size].astype(np.int64), device=device)
        values, delta = method.attribute(
            batch,
            baseline,
            target=target,
            n_steps=STEPS,
            internal_batch_size=256,
            return_convergence_delta=True,
        )
        total += values.detach().cpu().numpy().sum(axis=0)
        missed += float(delta.abs().sum())
        change += float(values.detach().flatten(1).sum(dim=1).abs().sum())
    mean = total / len(images)
    return Attribution(mean.sum(axis=(1, 2)), mean.sum(axis=0), missed / max(change, 1e-12))
