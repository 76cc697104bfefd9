"""One simulated subject: the order of the pictures and the signals, session by session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas
import scipy.fft

from eeglib.datasets.simulation import ongoing
from eeglib.datasets.simulation.forward_model import build_head
from eeglib.datasets.simulation.response import DURATION, INDUCED_BANDS, build_response
from eeglib.datasets.simulation.truth import Truth, noise_model, part_variance

if TYPE_CHECKING:
    from eeglib.datasets.simulated import Options

PURPOSES = ("schedule", "response", "noise", "drift", "ongoing", "induced", "artefacts")
PADDING = 4.0
"""Seconds of noise thrown away, so that the end of a session knows nothing of its start."""


def random_generator(
    seed: int, subject: int, purpose: str, session: int = 0
) -> np.random.Generator:
    """Independent random numbers for each subject, purpose and session, all from one seed."""
    key = (subject, PURPOSES.index(purpose), session)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_schedule(
    classes: np.ndarray, options: Options, rng: np.random.Generator
) -> pandas.DataFrame:
    """Decide which picture is shown when.

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

    Notes
    -----
    ``block``: the pictures of one class in a row, classes in random order; a class with more
    pictures than `trials_per_block` returns in a later round. ``randomized``: the same slots, the
    pictures shuffled over the whole recording.
    """
    size = options.block_size
    rounds = -(-options.images_per_class // size)
    rows = []
    own = {c: rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)}
    for number in range(rounds):
        for c in rng.permutation(list(own)):
            chunk = own[c][number * size : (number + 1) * size]
            rows.append(pandas.DataFrame({"stimulus": chunk, "block": len(rows)}))
    table = pandas.concat(rows, ignore_index=True)
    table["session"] = table["block"] // options.classes_per_session
    slot = table.groupby("block").cumcount()
    start = pandas.Series(0.0, table.index)
    for _, session in table.groupby("session"):
        lengths = session.groupby("block").size() * options.image_duration + options.pause
        starts = options.pause / 2 + lengths.cumsum() - lengths
        start[session.index] = session["block"].map(starts)
    onset = start + slot * options.image_duration
    table["onset"] = np.round(onset * options.sfreq) / options.sfreq
    if options.design == "randomized":
        table["stimulus"] = rng.permutation(table["stimulus"].to_numpy())
    return table


class SimulatedSubject:
    """Signals of one subject.

    Parameters
    ----------
    options : eeglib.datasets.simulated.Options
    subject : int
    stimuli : pandas.DataFrame
        ``image`` and ``label`` (in [0, n_classes)) of each picture.
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
        lengths = [self.n_times(session) for session in range(self.n_sessions)]
        self.drift = ongoing.draw_drift(
            self.head,
            self.n_sessions,
            int(max(lengths) / options.sfreq) + 2,
            options.session_gap,
            options.drift_tau,
            options.drift_strength,
            self._rng("drift"),
        )
        self._variances: list[dict[str, np.ndarray]] = []
        self._artefacts: dict[str, list] = {"blinks": [], "twitches": []}

    def _rng(self, purpose: str, session: int = 0) -> np.random.Generator:
        return random_generator(self.options.seed, self.subject, purpose, session)

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
            Volts against the average of the channels (before their gains).
        """
        n_times, trials = self.n_times(session), self.trials(session)
        first_block = trials[trials["block"] == trials["block"].iloc[0]]["onset"]
        begin = round(first_block.iloc[0] * self.options.sfreq)
        end = round((first_block.iloc[-1] + self.options.image_duration) * self.options.sfreq)
        seen = slice(begin, end)
        data, steady = self._ongoing(session, n_times, seen)
        parts = {"ongoing": steady}
        for name, part in self._stimulus_driven(session, n_times).items():
            data += part
            parts[name] = part[:, seen].copy()
        before = data[:, seen].copy()
        times = ongoing.add_artefacts(
            data, self.head, self.options.sfreq, self._rng("artefacts", session)
        )
        parts["artefacts"] = data[:, seen] - before
        mains = self._mains(n_times)
        data += mains
        parts["mains"] = mains[:, seen]
        self._apply_gain_and_offset(data, session)
        parts["drift"] = data[:, seen] - sum(parts.values())
        self._note(session, parts, times)
        return data

    def _ongoing(self, session: int, n_times: int, seen: slice) -> tuple[np.ndarray, np.ndarray]:
        """Noise with drifting spectrum; and, of the samples ``seen``, the same without drift."""
        sfreq = self.options.sfreq
        n_fft = scipy.fft.next_fast_len(round(n_times + PADDING * sfreq), real=True)
        rng = self._rng("ongoing", session)
        spectra = ongoing.draw_spectra(self.components, n_fft, sfreq, rng)
        data = np.empty((len(spectra), n_times), np.float32)
        if self.options.drift_strength == 0:
            for row, spectrum in zip(data, spectra, strict=True):
                row[:] = scipy.fft.irfft(spectrum, n_fft)[:n_times]
            return data, data[:, seen].copy()
        steady = np.empty((len(spectra), seen.stop - seen.start), np.float32)
        masks = ongoing.band_masks(n_fft, sfreq)
        for channel, spectrum in enumerate(spectra):
            bands = scipy.fft.irfft(masks * spectrum, n_fft, workers=-1)[:, :n_times]
            steady[channel] = bands[:, seen].sum(axis=0)
            for band, course in zip(
                bands, np.exp(self.drift.log_bands[session, :, channel]), strict=True
            ):
                band *= ongoing.per_sample(course, sfreq, n_times)
            bands.sum(axis=0, out=data[channel])
        return data, steady

    def _stimulus_driven(self, session: int, n_times: int) -> dict[str, np.ndarray]:
        """Evoked and induced activity at the channels, V, each of shape (n_chans, n_times)."""
        response, sfreq = self.response, self.options.sfreq
        n_dipoles, _, length = response.waves.shape
        evoked = np.zeros((n_dipoles, n_times + length), np.float32)
        size = np.zeros((len(INDUCED_BANDS), n_dipoles, n_times + length), np.float32)
        envelopes = response.envelopes.swapaxes(0, 1)
        for trial in self.trials(session).itertuples():
            start = round(trial.onset * sfreq)
            window = slice(start, start + length)
            evoked[:, window] += response.source_courses(trial.stimulus)
            # Independent bursts that overlap add in variance.
            burst = response.induced[trial.stimulus].T[:, :, None] * envelopes
            size[:, :, window] = np.hypot(size[:, :, window], burst)
        bursts = np.zeros((n_dipoles, n_times), np.float32)
        rng = self._rng("induced", session)
        n_fft = scipy.fft.next_fast_len(round(n_times + PADDING * sfreq), real=True)
        for index, (name, (band, _)) in enumerate(INDUCED_BANDS.items()):
            noise = ongoing.NoiseComponent(name, np.eye(n_dipoles), ongoing.band_spectrum(*band))
            spectra = ongoing.draw_spectra([noise], n_fft, sfreq, rng)
            bursts += size[index, :, :n_times] * scipy.fft.irfft(spectra, n_fft)[:, :n_times]
        return {
            "evoked": response.topographies @ evoked[:, :n_times],
            "induced": response.topographies @ bursts,
        }

    def _mains(self, n_times: int) -> np.ndarray:
        phase = 2j * np.pi * 50.0 * np.arange(n_times) / self.options.sfreq
        turning = np.exp(phase).astype(np.complex64)
        amplitude = self.mains.astype(np.complex64)[:, None]
        return amplitude.real * turning.real - amplitude.imag * turning.imag

    def _apply_gain_and_offset(self, data: np.ndarray, session: int) -> None:
        if self.options.drift_strength == 0:
            return
        sfreq, n_times = self.options.sfreq, data.shape[1]
        gains = np.exp(self.drift.log_gain[session])
        for row, gain, offset in zip(data, gains, self.drift.offset[session], strict=True):
            row *= ongoing.per_sample(gain, sfreq, n_times)
            row += ongoing.per_sample(offset, sfreq, n_times)

    def _note(self, session: int, parts: dict[str, np.ndarray], times: dict) -> None:
        sfreq = self.options.sfreq
        self._variances.append({name: part_variance(p, sfreq) for name, p in parts.items()})
        for name, moments in times.items():
            self._artefacts[name] += [(session, moment) for moment in moments]

    def truth(self) -> Truth:
        """What was put into the sessions drawn so far."""
        sfreq = float(self.options.sfreq)
        names = list(self._variances[0])
        return Truth(
            ch_names=np.array(self.options.channels),
            sfreq=sfreq,
            images=self.stimuli["image"].to_numpy(str),
            labels=self.stimuli["label"].to_numpy(int),
            response=self.response,
            source_positions=self.head.sites["visual"],
            mains=self.mains,
            drift=self.drift,
            trial_session=self.schedule["session"].to_numpy(int),
            trial_onset=self.schedule["onset"].to_numpy(float),
            trial_image=self.schedule["stimulus"].to_numpy(int),
            part_names=np.array(names),
            part_variances=np.mean([[v[n] for n in names] for v in self._variances], axis=0),
            **{
                name: np.array(rows, float).reshape(-1, 2) for name, rows in self._artefacts.items()
            },
            **noise_model(self.components, sfreq, round(DURATION * sfreq)),
        )
