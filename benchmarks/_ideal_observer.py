"""The decoder that knows how the simulated trials were made: a ceiling for all others.

It knows, for every class, the mean wave, the covariance of the noise, of the induced activity and
of the differences between images of the class, and what the image before leaves behind, and takes
exact Gaussian likelihoods: of the waves through their means, of induced activity, whose sign is
random, through its covariance, a quadratic form. Trials are seen through spatial filters, the best
for each source in a lower and a higher band, and in a temporal basis of what the filter of
chapter 2 lets through. It ignores the drift, blinks and twitches, the rounding of the file, and the
share of a source that the spatial filters miss; a class is one Gaussian, although it holds 50
images. So it may be beaten a little.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, special

from benchmarks._truth import Truth
from eeglib.preprocessing import filter_signals
from eeglib.profile import FilteringSettings

SPLIT_AT = 30.0
"""Hertz, where the lower band ends and the higher begins."""

N_FFT = 1 << 14


def posterior(truth: Truth, trials: np.ndarray, settings: FilteringSettings) -> np.ndarray:
    """Probabilities of the classes.

    Parameters
    ----------
    truth : Truth
    trials : array, shape (n_trials, n_chans, n_times)
        Filtered trials from the onset of the image, V; not standardised. Responses of the image
        before are expected one trial's length earlier.
    settings : FilteringSettings
        The filter that they went through.

    Returns
    -------
    array, shape (n_trials, n_classes)
    """
    observer = Observer(truth, trials.shape[-1], settings)
    seen = observer.seen(trials)
    scores = np.empty((len(trials), truth.labels.max() + 1))
    for label in range(scores.shape[1]):
        own = truth.labels == label
        scores[:, label] = _log_density(seen - observer.mean(own), observer.covariance(own))
    return special.softmax(scores, axis=1)


class Observer:
    """Means and covariances of what is seen: filters x temporal basis, flattened."""

    def __init__(self, truth: Truth, n_times: int, settings: FilteringSettings):
        self.truth, self.n_times, self.settings = truth, n_times, settings
        impulse = np.zeros((1, N_FFT))
        impulse[0, N_FFT // 2] = 1
        self.gain = np.abs(np.fft.rfft(self._filtered(impulse)[0])) ** 2
        white = np.fft.irfft(self.gain, N_FFT)[:n_times]
        values, vectors = linalg.eigh(linalg.toeplitz(white))
        self.basis = vectors[:, values > 1e-2 * values[-1]].T
        self.filters = self._spatial_filters()
        self.mixed = self.filters @ truth.response.topographies.astype(float)
        self.power = truth.response.induced.astype(float) ** 2
        noise = zip(
            truth.noise_covariances, self._in_band(truth.noise_autocorrelations), strict=True
        )
        self.common = sum(
            np.kron(self.filters @ c @ self.filters.T, self._seen_times(linalg.toeplitz(r)))
            for c, r in noise
        )
        self.induced = self._induced_courses(0)
        self.waves, before = self._waves(0), self._waves(n_times)
        self.before = before.mean(axis=0)
        around = (before - self.before) / np.sqrt(len(before))
        self.common += around.T @ around
        self.common += self._bursts(self.power.mean(axis=0), self._induced_courses(n_times))

    def seen(self, trials: np.ndarray) -> np.ndarray:
        return (self.filters @ trials @ self.basis.T).reshape(len(trials), -1)

    def mean(self, own: np.ndarray) -> np.ndarray:
        return self.waves[own].mean(axis=0) + self.before

    def covariance(self, own: np.ndarray) -> np.ndarray:
        around = (self.waves[own] - self.waves[own].mean(axis=0)) / np.sqrt(own.sum())
        bursts = self._bursts(self.power[own].mean(axis=0), self.induced)
        return self.common + around.T @ around + bursts

    def _filtered(self, traces: np.ndarray) -> np.ndarray:
        how = self.settings
        return filter_signals(traces, self.truth.sfreq, how.notch, how.band, how.order)

    def _spectra(self, correlations: np.ndarray) -> np.ndarray:
        """Power after the filter at each frequency, from correlations at lags 0, 1, ..."""
        both = np.zeros((len(correlations), N_FFT))
        n_lags = correlations.shape[-1]
        both[:, :n_lags], both[:, 1 - n_lags :] = correlations, correlations[:, :0:-1]
        return np.maximum(np.fft.rfft(both).real, 0) * self.gain

    def _in_band(self, correlations: np.ndarray) -> np.ndarray:
        return np.fft.irfft(self._spectra(correlations), N_FFT)[:, : self.n_times]

    def _seen_times(self, covariance: np.ndarray) -> np.ndarray:
        return self.basis @ covariance @ self.basis.T

    def _spatial_filters(self) -> np.ndarray:
        truth = self.truth
        spectra = self._spectra(truth.noise_autocorrelations)
        lower = np.fft.rfftfreq(N_FFT, 1 / truth.sfreq) < SPLIT_AT
        topographies = truth.response.topographies.astype(float)
        found = []
        for part in (lower, ~lower):
            noise = np.tensordot(spectra[:, part].sum(axis=1), truth.noise_covariances, 1)
            noise += 1e-3 * np.trace(noise) / len(noise) * np.eye(len(noise))
            filters = linalg.solve(noise, topographies, assume_a="pos").T
            found.append(filters / np.linalg.norm(filters))
        filters = np.concatenate(found)
        # Filters that say the same twice would make the covariances singular.
        noise = np.tensordot(spectra.sum(axis=1), truth.noise_covariances, 1)
        size, turned = linalg.eigh(filters @ noise @ filters.T)
        kept = size > 3e-3 * size[-1]
        return (turned[:, kept] / np.sqrt(size[kept])).T @ filters

    def _waves(self, start: int) -> np.ndarray:
        """Every image's filtered wave from a sample on, (n_images, n_seen)."""
        found = []
        for image in range(len(self.truth.labels)):
            wave = self.filters @ self.truth.evoked_response(image)
            padded = self._filtered(np.pad(wave, ((0, 0), (self.n_times, 2 * self.n_times))))
            first = self.n_times + start
            found.append(padded[:, first : first + self.n_times] @ self.basis.T)
        return np.stack(found).reshape(len(found), -1)

    def _induced_courses(self, start: int) -> np.ndarray:
        """Temporal covariance of each source's bursts, (n_dipoles, n_bands, n_basis, n_basis)."""
        envelopes = self.truth.response.envelopes[..., start : start + self.n_times]
        short = self.n_times - envelopes.shape[-1]
        envelopes = np.pad(envelopes.astype(float), ((0, 0), (0, 0), (0, short)))
        correlations = [
            linalg.toeplitz(r) for r in self._in_band(self.truth.induced_autocorrelation)
        ]
        return np.array(
            [
                [
                    self._seen_times(r * np.outer(e, e))
                    for e, r in zip(own, correlations, strict=True)
                ]
                for own in envelopes
            ]
        )

    def _bursts(self, power: np.ndarray, courses: np.ndarray) -> np.ndarray:
        """Covariance of bursts of this power, (n_dipoles, n_bands)."""
        in_time = np.einsum("db,dbkl->dkl", power, courses)
        n_filters, n_basis = len(self.filters), len(self.basis)
        in_space = np.einsum("fd,gd->fgd", self.mixed, self.mixed).reshape(-1, len(in_time))
        both = in_space @ in_time.reshape(len(in_time), -1)
        shape = (n_filters, n_filters, n_basis, n_basis)
        return both.reshape(shape).swapaxes(1, 2).reshape(self.common_shape)

    @property
    def common_shape(self) -> tuple[int, int]:
        side = len(self.filters) * len(self.basis)
        return side, side


def _log_density(centred: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    level = 1e-6 * np.trace(covariance) / len(covariance)
    factor = linalg.cholesky(
        covariance + level * np.eye(len(covariance)), lower=True, overwrite_a=True
    )
    whitened = linalg.solve_triangular(factor, centred.T, lower=True)
    return -0.5 * (whitened**2).sum(axis=0) - np.log(factor.diagonal()).sum()
