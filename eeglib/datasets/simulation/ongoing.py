"""What is in the simulated EEG without any picture: noise, artefacts and drift (chapter 1).

Everything here forgets itself within about half a second, with one exception: the drift. So the
drift, and nothing else, lets a decoder tell *when* a trial was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eeglib.datasets.simulation.forward_model import Head

DRIFT_BANDS = {  # Hz
    "delta": (0.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "low gamma": (30.0, 60.0),
    "high gamma": (60.0, np.inf),
}
GAIN_DRIFT = 0.012
"""Standard deviation of the log-gain of a channel at drift strength 1."""
BAND_DRIFT = 0.03
"""Standard deviation of the log-amplitude of a band in a channel at drift strength 1."""
OFFSET_DRIFT = 15e-6
"""Standard deviation of a channel's slow potential at drift strength 1, V."""

ONGOING_RMS = 14e-6
ALPHA_RMS = 5e-6
SENSOR_RMS = 1.2e-6
TONE_RMS = 4e-6
"""Of steady muscle tone at the rim, V."""


@dataclass(frozen=True)
class NoiseComponent:
    """Stationary Gaussian noise whose covariance over space and over time factorise.

    ``mixing``, V: shape (n_chans, n_sources), or (n_chans,) for noise of each channel's own.
    ``spectrum`` gives the power at frequencies (Hz), up to a factor.
    """

    name: str
    mixing: np.ndarray
    spectrum: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Drift:
    """Slow changes, one value per second of recording, linear in between; float32.

    Attributes
    ----------
    log_gain : array, shape (n_sessions, n_chans, n_seconds)
        Natural logarithm of the gain that acts on all that a channel picks up.
    log_bands : array, shape (n_sessions, n_bands, n_chans, n_seconds)
        The same for the ongoing activity of one of `DRIFT_BANDS`.
    offset : array, shape (n_sessions, n_chans, n_seconds)
        Slow electrode potential, V.
    """

    log_gain: np.ndarray
    log_bands: np.ndarray
    offset: np.ndarray


def one_over_f(frequencies: np.ndarray) -> np.ndarray:
    """Power falling as 1/f^1.5 above 1 Hz and flat below, so that memory ends within a second."""
    return (1 + frequencies**2) ** -0.75


def band_spectrum(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Power of band-limited noise: flat between low and high (Hz), cosine edges of 2 Hz."""
    return lambda f: (
        np.cos(np.pi / 4 * np.clip(np.abs(f - (low + high) / 2) - (high - low) / 2, 0, 2)) ** 2
    )


def _tone_spectrum(frequencies: np.ndarray) -> np.ndarray:
    return frequencies**2 / (frequencies**2 + 40.0**2) * (1 + (frequencies / 150.0) ** 2) ** -1.0


def noise_components(head: Head, rng: np.random.Generator) -> list[NoiseComponent]:
    """Draw one subject's stationary noise.

    Sources all over the brain with a 1/f spectrum, parieto-occipital alpha whose narrow band makes
    it wax and wane, amplifier noise, muscle tone at the rim, and one noisy channel.
    """
    n_chans = len(head.ch_names)
    background = head.random_directions("background", 3.0, rng)
    background = _rescale(head.topographies("background", background), ONGOING_RMS)
    # Sources that share a spectrum are seen through the sum of their patterns only, so as many
    # independent courses as channels give the same signal at a fraction of the cost.
    values, vectors = np.linalg.eigh(background @ background.T)
    keep = values > values.max() * 1e-9
    alpha = head.topographies("alpha", head.random_directions("alpha", 0.5, rng))
    peak = rng.uniform(9.0, 11.0)
    noisy = np.zeros((n_chans, 1))
    noisy[rng.integers(n_chans)] = 15e-6
    return [
        NoiseComponent("ongoing", vectors[:, keep] * np.sqrt(values[keep]), one_over_f),
        NoiseComponent(
            "alpha",
            _rescale(alpha, ALPHA_RMS),
            lambda f: np.exp(-0.5 * ((f - peak) / 0.9) ** 2),
        ),
        NoiseComponent("sensor", np.full(n_chans, SENSOR_RMS), np.ones_like),
        NoiseComponent("muscle tone", TONE_RMS * head.muscle, _tone_spectrum),
        NoiseComponent("noisy channel", noisy, np.ones_like),
    ]


def _rescale(patterns: np.ndarray, rms: float) -> np.ndarray:
    return patterns * (rms / np.sqrt(np.mean(np.sum(patterns**2, axis=1))))


def draw_spectra(
    components: list[NoiseComponent], n_fft: int, sfreq: float, rng: np.random.Generator
) -> np.ndarray:
    """Fourier coefficients of the sum of stationary noises; ``irfft`` makes volts of them.

    Returns
    -------
    complex64 array, shape (n_chans, n_fft // 2 + 1)
    """
    n_freqs = n_fft // 2 + 1
    frequencies = np.fft.rfftfreq(n_fft, 1 / sfreq)
    coefficients = np.zeros((len(components[0].mixing), n_freqs), np.complex64)
    for component in components:
        power = component.spectrum(frequencies)
        power[0] = 0
        amplitude = (n_fft * np.sqrt(power / (4 * power.sum()))).astype(np.float32)
        mixing = component.mixing.astype(np.float32)
        for chunk in np.array_split(np.arange(n_freqs), max(1, n_freqs // 16384)):
            part = slice(chunk[0], chunk[-1] + 1)
            if not amplitude[part].any():
                continue
            white = rng.standard_normal((mixing.shape[-1], 2 * len(chunk)), dtype=np.float32)
            white *= np.repeat(amplitude[part], 2)
            noise = mixing @ white if mixing.ndim == 2 else mixing[:, None] * white
            coefficients[:, part] += noise.view(np.complex64)
    return coefficients


def band_masks(n_fft: int, sfreq: float) -> np.ndarray:
    """Weights that cut a spectrum into `DRIFT_BANDS`; they add up to 1 at every frequency."""
    frequencies = np.fft.rfftfreq(n_fft, 1 / sfreq)
    below = []
    for _, high in list(DRIFT_BANDS.values())[:-1]:
        phase = np.clip((frequencies - 0.9 * high) / (0.2 * high), 0, 1)
        below.append(0.5 + 0.5 * np.cos(np.pi * phase))
    edges = np.stack([np.zeros_like(frequencies), *below, np.ones_like(frequencies)])
    return np.diff(edges, axis=0).astype(np.float32)


def draw_drift(
    head: Head,
    n_sessions: int,
    n_seconds: int,
    gap: float,
    tau: float,
    strength: float,
    rng: np.random.Generator,
) -> Drift:
    """Draw the slow changes of a whole recording.

    Each is an Ornstein-Uhlenbeck process with time constant ``tau`` (s), half of whose variance is
    shared by channels within some centimetres. ``gap`` seconds between sessions let it jump.
    """
    n_chans, n_processes = len(head.ch_names), 2 + len(DRIFT_BANDS)
    nearby = np.exp(-0.5 * (head.distances / 0.05) ** 2)
    shape = np.linalg.cholesky(0.5 * nearby + (0.5 + 1e-6) * np.eye(n_chans))
    state = shape @ rng.standard_normal((n_processes, n_chans, 1))
    course = np.empty((n_sessions, n_processes, n_chans, n_seconds), np.float32)
    for session in range(n_sessions):
        for second in range(n_seconds):
            course[session, :, :, second] = state[..., 0]
            step = 1.0 if second < n_seconds - 1 else gap + 1.0
            memory = np.exp(-step / tau)
            fresh = shape @ rng.standard_normal((n_processes, n_chans, 1))
            state = memory * state + np.sqrt(1 - memory**2) * fresh
    course *= strength
    return Drift(
        log_gain=GAIN_DRIFT * course[:, 0],
        log_bands=BAND_DRIFT * course[:, 2:],
        offset=OFFSET_DRIFT * course[:, 1],
    )


def per_sample(values: np.ndarray, sfreq: float, n_times: int) -> np.ndarray:
    """Linear interpolation of values given once a second, shape (n_times,), float32."""
    ramp = np.arange(round(sfreq), dtype=np.float32) / round(sfreq)
    course = values[:-1, None] + np.diff(values)[:, None] * ramp
    return course.astype(np.float32, copy=False).ravel()[:n_times]


def add_artefacts(data: np.ndarray, head: Head, sfreq: float, rng: np.random.Generator) -> None:
    """Add blinks and short muscle twitches at random times, in place; volts, float32."""
    n_times = data.shape[1]
    minutes = n_times / sfreq / 60
    blink = head.topographies("eyes", head.outward["eyes"]).sum(axis=1) * 3e-7
    course = np.hanning(round(0.3 * sfreq)).astype(np.float32)
    starts = np.sort(rng.uniform(0, n_times / sfreq, rng.poisson(12 * minutes)))
    for start in (starts * sfreq).astype(int):
        window = data[:, start : start + len(course)]
        size = rng.uniform(0.6, 1.2)
        window += (size * blink[:, None] * course[: window.shape[1]]).astype(np.float32)
    starts = np.sort(rng.uniform(0, n_times / sfreq, rng.poisson(10 * minutes)))
    for start in (starts * sfreq).astype(int):
        length = round(rng.uniform(0.1, 0.4) * sfreq)
        window = data[:, start : start + length]
        noise = rng.standard_normal((len(data), length + 1), dtype=np.float32)
        burst = np.diff(noise, axis=1) * np.hanning(length) * (12e-6 * head.muscle[:, None])
        window += burst[:, : window.shape[1]].astype(np.float32)


def draw_mains(n_chans: int, rng: np.random.Generator) -> np.ndarray:
    """Complex amplitude (V) of the 50 Hz mains in every channel."""
    size = 2e-6 * rng.lognormal(0, 0.6, n_chans)
    return size * np.exp(1j * (rng.uniform(0, 2 * np.pi) + 0.4 * rng.standard_normal(n_chans)))
