"""What is put into a simulated recording, as the ideal observer wants to know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from eeglib.datasets.simulation import (
    DURATION,
    INDUCED_BANDS,
    Response,
    SimulatedSubject,
    band_spectrum,
)


@dataclass(frozen=True)
class Truth:
    """Second-order description of one simulated subject, without drift and artefacts.

    ``evoked_response(image)`` is placed at the onset of each trial and outlasts it by 0.3 s.
    Induced activity is Gaussian given the image: source d, band b contributes
    ``topographies[:, d] * induced[image, d, b] * envelopes[d, b, t] * noise(t)`` with noise of unit
    variance and autocorrelation ``induced_autocorrelation[b]``.

    Attributes
    ----------
    sfreq : float
    labels : array, shape (n_images,)
        Classes of the pictures; axis 0 of the response's arrays.
    response : Response
    noise_covariances : array, shape (n_components, n_chans, n_chans)
        V^2; each component's covariance over time is ``noise_autocorrelations``.
    noise_autocorrelations, induced_autocorrelation : arrays, shape (n_components, n_lags)
        At lags 0, 1, ... samples, starting with 1; one response long.
    """

    sfreq: float
    labels: np.ndarray
    response: Response
    noise_covariances: np.ndarray
    noise_autocorrelations: np.ndarray
    induced_autocorrelation: np.ndarray

    def evoked_response(self, image: int) -> np.ndarray:
        """Noise-free evoked response to one picture, V, shape (n_chans, n_times)."""
        courses = np.einsum("dw,dwt->dt", self.response.evoked[image], self.response.waves)
        return self.response.topographies @ courses


def truth_of(subject: SimulatedSubject) -> Truth:
    """The truth of a subject; everything follows from options, subject and pictures."""
    sfreq = float(subject.options.sfreq)
    n_lags = round(DURATION * sfreq)
    noises = subject.noises
    induced = [band_spectrum(*band) for band, _ in INDUCED_BANDS.values()]
    return Truth(
        sfreq=sfreq,
        labels=subject.stimuli["label"].to_numpy(int),
        response=subject.response,
        noise_covariances=np.stack([n.mixing @ n.mixing.T for n in noises]),
        noise_autocorrelations=np.stack(
            [autocorrelation(n.spectrum, sfreq, n_lags) for n in noises]
        ),
        induced_autocorrelation=np.stack([autocorrelation(s, sfreq, n_lags) for s in induced]),
    )


def autocorrelation(spectrum, sfreq: float, n_lags: int) -> np.ndarray:
    """Correlation of a noise of this spectrum with itself at lags 0, 1, ... samples."""
    n_fft = scipy.fft.next_fast_len(max(4 * n_lags, round(64 * sfreq)), real=True)
    power = spectrum(np.fft.rfftfreq(n_fft, 1 / sfreq))
    power[0] = 0
    correlation = scipy.fft.irfft(power, n_fft)[:n_lags]
    return correlation / correlation[0]
