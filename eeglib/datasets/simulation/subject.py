"""One simulated subject: the order of the pictures and the signals, session by session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas
import scipy.fft

from eeglib.datasets.simulation import ongoing
from eeglib.datasets.simulation.forward_model import build_head
from eeglib.datasets.simulation.response import INDUCED_BANDS, build_response

if TYPE_CHECKING:
    from eeglib.datasets.simulated import Options

PURPOSES = ("schedule", "response", "noise", "drift", "ongoing", "induced", "artefacts")
PADDING = 4.0
"""Seconds of noise thrown away, so that the end of a session knows nothing of its start."""


def draw_schedule(
    classes: np.ndarray, options: Options, rng: np.random.Generator
) -> pandas.DataFrame:
    """Decide which picture is shown when.

    In design ``block`` the pictures of one class come in a row, classes in random order; in design
    ``randomized`` the same slots hold the pictures shuffled over the whole recording.

    Parameters
    ----------
    classes : int array, shape (n_images,)
        Class of each picture.
    options : eeglib.datasets.simulated.Options
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        One row per trial in the order of presentation: ``stimulus`` (row of ``classes``),
        ``block`` and ``session`` (from 0), ``onset`` (s, in its session).
    """
    own = {c: rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)}
    blocks = [own[c] for c in rng.permutation(list(own))]
    stimulus = np.concatenate(blocks)
    if options.design == "randomized":
        stimulus = rng.permutation(stimulus)
    block = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])
    table = pandas.DataFrame({"stimulus": stimulus, "block": block})
    table["session"], place = np.divmod(block, options.classes_per_session)
    trials_before = table.groupby("session").cumcount()
    onset = (place + 0.5) * options.pause + trials_before * options.image_duration
    table["onset"] = np.round(onset * options.sfreq) / options.sfreq
    return table


class SimulatedSubject:
    """Signals of one subject.

    Parameters
    ----------
    options : eeglib.datasets.simulated.Options
    subject : int
    stimuli : pandas.DataFrame
        ``label`` (in [0, n_classes)) of each picture.
    features : float array, shape (n_images, n_features)
        What each picture looks like.
    """

    def __init__(
        self, options: Options, subject: int, stimuli: pandas.DataFrame, features: np.ndarray
    ):
        self.options, self.subject, self.stimuli = options, subject, stimuli
        classes = stimuli["label"].to_numpy()
        self.head = build_head(options.channels)
        self.schedule = draw_schedule(classes, options, self._rng("schedule"))
        self.n_sessions = int(self.schedule["session"].max()) + 1
        self.response = build_response(
            self.head,
            classes,
            features,
            options.sfreq,
            options.image_share,
            options.stimulus_strength,
            self._rng("response"),
        )
        rng = self._rng("noise")
        self.components = ongoing.noise_components(self.head, rng)
        self.mains = ongoing.draw_mains(len(options.channels), rng)
        longest = max(self.n_times(session) for session in range(self.n_sessions))
        self.drift = ongoing.draw_drift(
            self.head,
            self.n_sessions,
            int(longest / options.sfreq) + 2,
            options.session_gap,
            options.drift_tau,
            options.drift_strength,
            self._rng("drift"),
        )

    def _rng(self, purpose: str, session: int = 0) -> np.random.Generator:
        """Independent random numbers for each subject, purpose and session, all from one seed."""
        key = (self.subject, PURPOSES.index(purpose), session)
        return np.random.default_rng(np.random.SeedSequence(self.options.seed, spawn_key=key))

    def trials(self, session: int) -> pandas.DataFrame:
        """Rows of the schedule that belong to one session."""
        return self.schedule[self.schedule["session"] == session]

    def n_times(self, session: int) -> int:
        """Length of a session in samples, half a pause before and after its trials included."""
        end = self.trials(session)["onset"].max() + self.options.image_duration
        return round((end + self.options.pause / 2) * self.options.sfreq)

    def signals(self, session: int) -> np.ndarray:
        """Draw one session.

        Returns
        -------
        float32 array, shape (n_chans, n_times)
            Volts against the average of the channels (before their gains):
            ``gain * (ongoing + evoked + induced + artefacts + mains) + offset``, where the drift
            moves the gain, the offset and the strength of each band of the ongoing activity.
        """
        sfreq, n_times = self.options.sfreq, self.n_times(session)
        data = self._ongoing(session, n_times)
        for courses in (self._evoked(session, n_times), self._induced(session, n_times)):
            data += self.response.topographies @ courses
        ongoing.add_artefacts(data, self.head, sfreq, self._rng("artefacts", session))
        data += self._mains(n_times)
        if self.options.drift_strength > 0:
            gains = np.exp(self.drift.log_gain[session])
            for row, gain, offset in zip(data, gains, self.drift.offset[session], strict=True):
                row *= ongoing.per_sample(gain, sfreq, n_times)
                row += ongoing.per_sample(offset, sfreq, n_times)
        return data

    def _spectra(self, components: list, n_times: int, rng) -> tuple[np.ndarray, int]:
        sfreq = self.options.sfreq
        n_fft = scipy.fft.next_fast_len(round(n_times + PADDING * sfreq), real=True)
        return ongoing.draw_spectra(components, n_fft, sfreq, rng), n_fft

    def _ongoing(self, session: int, n_times: int) -> np.ndarray:
        """Noise with drifting spectrum."""
        sfreq = self.options.sfreq
        spectra, n_fft = self._spectra(self.components, n_times, self._rng("ongoing", session))
        data = np.empty((len(spectra), n_times), np.float32)
        if self.options.drift_strength == 0:
            for row, spectrum in zip(data, spectra, strict=True):
                row[:] = scipy.fft.irfft(spectrum, n_fft)[:n_times]
            return data
        masks = ongoing.band_masks(n_fft, sfreq)
        strengths = np.exp(self.drift.log_bands[session])
        for channel, spectrum in enumerate(spectra):
            bands = scipy.fft.irfft(masks * spectrum, n_fft)[:, :n_times]
            for band, course in zip(bands, strengths[:, channel], strict=True):
                band *= ongoing.per_sample(course, sfreq, n_times)
            bands.sum(axis=0, out=data[channel])
        return data

    def _windows(self, session: int) -> list[tuple[int, slice]]:
        """Picture, and the samples of its response, of every trial."""
        length = self.response.waves.shape[-1]
        trials = self.trials(session)
        starts = np.round(trials["onset"].to_numpy() * self.options.sfreq).astype(int)
        return [(i, slice(s, s + length)) for i, s in zip(trials["stimulus"], starts, strict=True)]

    def _evoked(self, session: int, n_times: int) -> np.ndarray:
        """Evoked moments of the sources, A m, shape (n_dipoles, n_times)."""
        n_dipoles, _, length = self.response.waves.shape
        evoked = np.zeros((n_dipoles, n_times + length), np.float32)
        for image, window in self._windows(session):
            evoked[:, window] += self.response.source_courses(image)
        return evoked[:, :n_times]

    def _induced(self, session: int, n_times: int) -> np.ndarray:
        """Induced moments of the sources, A m, shape (n_dipoles, n_times)."""
        n_dipoles, n_bands, length = self.response.envelopes.shape
        envelopes = self.response.envelopes.swapaxes(0, 1)
        size = np.zeros((n_bands, n_dipoles, n_times + length), np.float32)
        for image, window in self._windows(session):
            # Independent bursts that overlap add in variance.
            burst = self.response.induced[image].T[:, :, None] * envelopes
            size[:, :, window] = np.hypot(size[:, :, window], burst)
        bursts = np.zeros((n_dipoles, n_times), np.float32)
        rng = self._rng("induced", session)
        for course, (name, (band, _)) in zip(size, INDUCED_BANDS.items(), strict=True):
            noise = ongoing.NoiseComponent(name, np.ones(n_dipoles), ongoing.band_spectrum(*band))
            spectra, n_fft = self._spectra([noise], n_times, rng)
            bursts += course[:, :n_times] * scipy.fft.irfft(spectra, n_fft)[:, :n_times]
        return bursts

    def _mains(self, n_times: int) -> np.ndarray:
        phase = 2j * np.pi * 50.0 * np.arange(n_times) / self.options.sfreq
        turning = np.exp(phase).astype(np.complex64)
        amplitude = self.mains.astype(np.complex64)[:, None]
        return amplitude.real * turning.real - amplitude.imag * turning.imag
