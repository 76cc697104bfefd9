"""Do probabilities mean what they say? Calibration by temperature (chapter 6)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn


class Calibrated(nn.Module):
    """A network whose logits are divided by a temperature; which class comes first stays."""

    def __init__(self, network: nn.Module, temperature: float):
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, trials: Tensor) -> Tensor:
        """Logits, shape (n_trials, n_outputs)."""
        return self.network(trials) / self.temperature


def calibrated(network: nn.Module, probabilities: np.ndarray, labels: np.ndarray) -> Calibrated:
    """Network with the temperature that suits its predictions of the validation trials."""
    return Calibrated(network, fit_temperature(probabilities, labels)).eval()


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Temperature of the lowest log-loss.

    Parameters
    ----------
    probabilities : array, shape (n_trials, n_classes)
        Of trials that the network was not trained on.
    labels : array of int, shape (n_trials,)

    Returns
    -------
    float
        From 0.05 to 20. Above 1 where the network was too sure of itself.

    Notes
    -----
    Guo et al. (2017), "On calibration of modern neural networks": one number for all classes,
    which changes no ranking.
    """
    from scipy.optimize import minimize_scalar

    logits, rows = _log(probabilities), np.arange(len(labels))

    def log_loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        largest = scaled.max(axis=1, keepdims=True)
        total = largest[:, 0] + np.log(np.exp(scaled - largest).sum(axis=1))
        return float(np.mean(total - scaled[rows, labels]))

    found = minimize_scalar(log_loss, bounds=np.log([0.05, 20]), method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, n_bins: int = 15
) -> float:
    """How far, on average, the confidence in the named class is from its accuracy.

    Parameters
    ----------
    probabilities : array, shape (n_trials, n_classes)
    labels : array of int, shape (n_trials,)
    n_bins : int
        Equal parts of the confidences from 0 to 1.

    Returns
    -------
    float
        0 (calibrated) to 1. Of few trials it is above 0 by luck alone.

    Notes
    -----
    Equation (3) of Guo et al. (2017).
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    excess = np.bincount(bins, weights=confidence - right, minlength=n_bins)
    return float(np.abs(excess).sum() / len(labels))


def _log(probabilities: np.ndarray) -> np.ndarray:
    values = np.asarray(probabilities, dtype=np.float64)
    return np.log(np.maximum(values, np.finfo(np.float32).tiny))
