"""Which channels and which cells of the spectrogram a student went by (chapter 5)."""

from typing import NamedTuple

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import nn

from eeglib.decoding.training import on_device


class Attribution(NamedTuple):
    """What each part of the spectrogram added to the logit of the true class, mean over trials."""

    channels: np.ndarray  # (n_chans,): summed over the cells
    cells: np.ndarray  # (n_freqs, n_windows): summed over channels
    missed: float  # share of the change of the logits that the attributions do not account for


def attribute(
    network: nn.Module, spectrograms: np.ndarray, labels: np.ndarray, reference: np.ndarray
) -> Attribution:
    """Integrated gradients of the true class, summed over cells or over channels.

    Parameters
    ----------
    network : nn.Module
        A trained student, in evaluation mode.
    spectrograms : array, shape (n_trials, n_chans, n_freqs, n_windows)
        With `labels` (n_trials,), whose logit is explained.
    reference : array, shape (n_chans, n_freqs, n_windows)
        The spectrogram without information: the mean over training trials.

    Notes
    -----
    Sundararajan, Taly & Yan (2017), with captum: the gradient of the logit, averaged along the
    line from the reference to the trial and multiplied by their difference. It shows what the
    *network* used; a channel may serve only to cancel its neighbours' noise (Haufe et al. 2014).
    """
    device = next(network.parameters()).device
    values, deltas = IntegratedGradients(network).attribute(
        on_device(spectrograms, device),
        on_device(reference[np.newaxis], device),
        target=torch.as_tensor(labels, device=device),
        n_steps=16,
        internal_batch_size=max(256, len(spectrograms)),
        return_convergence_delta=True,
    )
    change = values.flatten(1).sum(dim=1).abs().sum()
    missed = float(deltas.abs().sum() / change.clamp(min=1e-12))
    mean = values.detach().mean(dim=0).cpu().numpy()
    return Attribution(mean.sum(axis=(1, 2)), mean.sum(axis=0), missed)
