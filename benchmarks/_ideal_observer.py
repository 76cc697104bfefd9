"""The decoder that knows how the simulated trials were made: a ceiling for all others.

It knows, for every class, the mean wave, the covariance of the noise, of the induced activity and
of the differences between images of the class, and adds up exact Gaussian likelihoods in the time
domain, seen through filters that pick up the simulated sources. It ignores the drift, blinks and
twitches, mains hum, what is left of the trial before, and the share of a source that the spatial
filters miss; a class is one Gaussian, although it holds 50 images. So it may be beaten a little.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, special

from eeglib.butterworth import bandpass_filter
from eeglib.datasets.simulation.truth import Truth


def posterior(truth: Truth, trials: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Probabilities of the classes.

    Parameters
    ----------
    truth : Truth
    trials : array, shape (n_trials, n_chans, n_times)
        Filtered trials from the onset of the image, V; not standardised.
    band : tuple of float
        Band of their filter, Hz.

    Returns
    -------
    array, shape (n_trials, n_classes)
    """
    n_times, sfreq = trials.shape[-1], truth.sfreq
    topographies = truth.response.topographies.astype(float)
    noise = truth.noise_covariances.sum(axis=0)
    noise += 1e-3 * np.trace(noise) / len(noise) * np.eye(len(noise))
    filters = linalg.solve(noise, topographies, assume_a="pos").T
    # Sources that the channels cannot tell apart would give filters that say the same twice.
    size, turned = linalg.eigh(filters @ noise @ filters.T)
    kept = size > 1e-3 * size[-1]
    filters = (turned[:, kept] / np.sqrt(size[kept])).T @ filters
    seen = (filters @ trials).reshape(len(trials), -1)
    common = sum(
        np.kron(filters @ c @ filters.T, linalg.toeplitz(r))
        for c, r in zip(truth.noise_covariances, _in_band(truth.noise_autocorrelations, n_times,
                                                          sfreq, band), strict=True)
    )
    waves = _evoked(truth, filters, n_times, band)
    induced = _in_band(truth.induced_autocorrelation, n_times, sfreq, band)
    mixed = filters @ topographies
    classes = np.unique(truth.labels)
    scores = np.empty((len(trials), len(classes)))
    for column, label in enumerate(classes):
        own = truth.labels == label
        mean = waves[own].mean(axis=0)
        around = (waves[own] - mean) / np.sqrt(own.sum())
        covariance = common + around.T @ around
        size = np.sqrt((truth.response.induced[own] ** 2).mean(axis=0))
        for b, correlation in enumerate(induced):
            courses = size[:, b, np.newaxis] * truth.response.envelopes[:, b, :n_times]
            spread = np.einsum("fd,dt->ftd", mixed, courses).reshape(-1, len(courses))
            block = (spread @ spread.T).reshape(len(mixed), n_times, len(mixed), n_times)
            block *= linalg.toeplitz(correlation)[:, np.newaxis]
            covariance += block.reshape(covariance.shape)
        scores[:, column] = _log_density(seen - mean, covariance)
    return special.softmax(scores, axis=1)


def _log_density(centred: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    level = 1e-3 * np.trace(covariance) / len(covariance)
    factor = linalg.cholesky(covariance + level * np.eye(len(covariance)), lower=True,
                             overwrite_a=True)
    whitened = linalg.solve_triangular(factor, centred.T, lower=True)
    return -0.5 * (whitened**2).sum(axis=0) - np.log(factor.diagonal()).sum()


def _evoked(truth: Truth, filters: np.ndarray, n_times: int, band) -> np.ndarray:
    """Filtered mean waves of every image, (n_images, n_filters * n_times)."""
    padding = n_times
    waves = []
    for image in range(len(truth.images)):
        wave = filters @ truth.evoked_response(image)
        padded = np.pad(wave, ((0, 0), (padding, padding)))
        waves.append(bandpass_filter(padded, truth.sfreq, *band)[:, padding : padding + n_times])
    return np.stack(waves).reshape(len(waves), -1)


def _in_band(correlations: np.ndarray, n_times: int, sfreq: float, band) -> np.ndarray:
    """Autocorrelations (n, n_lags) of the same noise after the filter, at n_times lags."""
    n_lags = correlations.shape[-1]
    both = np.concatenate([correlations, correlations[:, :0:-1]], axis=-1)
    impulse = np.zeros((1, 4 * both.shape[-1]))
    impulse[0, impulse.shape[-1] // 2] = 1
    gain = np.abs(np.fft.rfft(bandpass_filter(impulse, sfreq, *band)[0]))[::4]
    power = np.maximum(np.fft.rfft(both).real, 0)
    size = min(len(gain), power.shape[-1])
    filtered = np.fft.irfft(power[:, :size] * gain[:size] ** 2, both.shape[-1])
    assert n_times <= n_lags
    return filtered[:, :n_times]
