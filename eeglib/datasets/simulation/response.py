"""What a picture does to the sources of the simulated brain (chapter 1).

Two kinds of activity follow a picture. *Evoked* waves have the same shape and sign at every
repetition, earlier in occipital than in temporal cortex. *Induced* bursts have a random phase, so
that only their power, not their mean, tells the pictures apart. How strongly each source answers
follows what the picture looks like: pictures that look alike give alike answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eeglib.datasets.simulation.forward_model import OCCIPITAL, TEMPORAL, Head

DURATION = 0.8
"""Length of a response, s: it reaches into the next trial, as it does in a real recording."""

ONSET = 0.06
"""Nothing is driven by a picture before this time, s."""

WAVES = {  # peak (s) and width (s) at occipital sites, mean moment and modulation (A m)
    "P1": (0.100, 0.009, +5e-9, 4e-9),
    "N1": (0.150, 0.012, -6e-9, 5e-9),
    "P2": (0.215, 0.016, +4e-9, 4e-9),
    "late": (0.360, 0.060, +3e-9, 3e-9),
}
TEMPORAL_DELAY = 0.045
"""Seconds by which the temporal sources follow the occipital ones."""

INDUCED_BANDS = {  # band (Hz), standard deviation of the moment (A m)
    "beta": ((15.0, 28.0), 5e-9),
    "gamma": ((35.0, 65.0), 4e-9),
}
INDUCED_MODULATION = 0.6
"""Standard deviation over pictures of the log-power of induced activity."""


@dataclass(frozen=True)
class VisualResponse:
    """Everything that pictures do in one subject, as factors; float32.

    Attributes
    ----------
    topographies : array, shape (n_chans, n_dipoles)
        Volts at the channels per A m of each source.
    waves : array, shape (n_dipoles, n_waves, n_times)
        Time courses of the evoked waves, peak 1, from the onset of the picture.
    evoked : array, shape (n_images, n_dipoles, n_waves)
        Moments of the waves, A m.
    envelopes : array, shape (n_dipoles, n_bands, n_times)
        Course of the standard deviation of induced activity, peak 1.
    induced : array, shape (n_images, n_dipoles, n_bands)
        Largest standard deviation of induced activity, A m.
    """

    topographies: np.ndarray
    waves: np.ndarray
    evoked: np.ndarray
    envelopes: np.ndarray
    induced: np.ndarray

    def source_courses(self, image: int) -> np.ndarray:
        """Evoked moments of all sources for one picture, A m, shape (n_dipoles, n_times)."""
        return np.einsum("dw,dwt->dt", self.evoked[image], self.waves)


def build_response(
    head: Head,
    classes: np.ndarray,
    features: np.ndarray,
    sfreq: float,
    image_share: float,
    strength: float,
    rng: np.random.Generator,
) -> VisualResponse:
    """Draw one subject's sources and how they answer to each picture.

    ``features``, shape (n_images, n_features), says what each picture looks like;
    ``image_share`` of the answers' variance over pictures differs within a class; ``strength`` is
    a factor on every moment.
    """
    directions = head.random_directions("visual", 0.6, rng)
    n_sites = len(directions)
    times = np.arange(round(DURATION * sfreq)) / sfreq
    delay = np.repeat([0.0, TEMPORAL_DELAY], [len(OCCIPITAL), len(TEMPORAL)])
    delay = delay + rng.uniform(0.0, 0.012, n_sites)
    mean = np.array([w[2] for w in WAVES.values()]) * rng.lognormal(0, 0.3, (n_sites, len(WAVES)))
    spread = np.array([w[3] for w in WAVES.values()])
    moments = np.array([moment for _, moment in INDUCED_BANDS.values()])
    # Neighbouring sources answer to much the same; it falls within 2.5 cm.
    sites = head.sites["visual"]
    distances = np.linalg.norm(sites[:, None] - sites, axis=-1)
    alike = np.exp(-0.5 * (distances / 0.025) ** 2) + 1e-6 * np.eye(n_sites)
    wave_scores, band_scores = (
        similarity_scores(classes, features, alike, n_outputs, image_share, rng)
        for n_outputs in (len(WAVES), len(INDUCED_BANDS))
    )
    log_power = INDUCED_MODULATION * band_scores
    return VisualResponse(
        topographies=head.topographies("visual", directions).astype(np.float32),
        waves=_waves(times, delay),
        evoked=(strength * (mean + spread * wave_scores)).astype(np.float32),
        envelopes=_envelopes(times, delay),
        induced=(strength * moments * np.exp(0.5 * log_power)).astype(np.float32),
    )


def similarity_scores(
    classes: np.ndarray,
    features: np.ndarray,
    alike: np.ndarray,
    n_outputs: int,
    image_share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Project what pictures look like onto random axes, shape (n_images, n_sites, n_outputs).

    ``alike``, shape (n_sites, n_sites), says how much the axes of two sites have in common. A
    part of variance ``1 - image_share`` over pictures and sites is shared by all pictures of a
    class, one of variance ``image_share`` is the single picture's. A random projection keeps
    distances (Johnson & Lindenstrauss), so classes that look alike stay close.
    """
    _, index = np.unique(classes, return_inverse=True)
    centred = features - features.mean(axis=0)
    means = np.stack([centred[index == c].mean(axis=0) for c in range(index.max() + 1)])
    axes = rng.standard_normal((features.shape[1], len(alike), n_outputs))
    projection = np.einsum("fso,st->fto", axes, np.linalg.cholesky(alike).T)
    of_class = _unit_variance(np.tensordot(means - means.mean(axis=0), projection, 1))
    of_image = _unit_variance(np.tensordot(centred - means[index], projection, 1))
    return np.sqrt(1 - image_share) * of_class[index] + np.sqrt(image_share) * of_image


def _unit_variance(scores: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.mean(scores**2))
    return scores / size if size > 0 else scores  # one class, or one picture per class


def _ramp(times: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Raised cosine from 0 at start to 1 at stop (either order)."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((times - start) / (stop - start), 0, 1))


def _waves(times: np.ndarray, delay: np.ndarray) -> np.ndarray:
    courses = [
        np.exp(-0.5 * ((times - peak - delay[:, None]) / width) ** 2)
        for peak, width, _, _ in WAVES.values()
    ]
    window = _ramp(times, ONSET, ONSET + 0.02) * _ramp(times, DURATION, DURATION - 0.1)
    return (np.stack(courses, axis=1) * window).astype(np.float32)


def _envelopes(times: np.ndarray, delay: np.ndarray) -> np.ndarray:
    shifted = times - delay[:, None]
    course = _ramp(shifted, 0.09, 0.17) * _ramp(shifted, 0.60, 0.40)
    course *= _ramp(times, ONSET, ONSET + 0.02)
    return np.repeat(course[:, None], len(INDUCED_BANDS), axis=1).astype(np.float32)
