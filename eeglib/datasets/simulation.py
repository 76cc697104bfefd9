"""The model behind a simulated recording: a spherical head, and a subject who has it (chapter 1).

Two kinds of activity follow a picture. *Evoked* waves have the same shape and sign at every
repetition, earlier in occipital than in temporal cortex. *Induced* bursts have a random phase, so
that only their power, not their mean, tells the pictures apart. How strongly each source answers
follows what the picture looks like: pictures that look alike give alike answers.

What happens without any picture forgets itself within about half a second, with one exception: the
drift: parts of the brain, muscles and electrodes wax and wane over seconds and over minutes, as in
real EEG. So the drift, and nothing else, lets a decoder tell *when* a trial was recorded.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mne
import numpy as np
import scipy.fft
import yaml
from numpy.random import Generator
from pandas import DataFrame

from eeglib.datasets.montage import montage_1005

if TYPE_CHECKING:
    from eeglib.datasets.simulated import Options

MODEL = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
OCCIPITAL, TEMPORAL = MODEL["occipital"], MODEL["temporal"]
MUSCLES, SPOTS, WAVES, DRIFT = (MODEL[name] for name in ("muscles", "spots", "waves", "drift"))
INDUCED_BANDS = MODEL["induced bands"]
SITES = {"visual": OCCIPITAL + TEMPORAL, "alpha": MODEL["alpha"], "eyes": MODEL["eyes"]}
N_BACKGROUND = 130
PURPOSES = ("schedule", "response", "noise", "drift", "ongoing", "induced", "artefacts")
DURATION = 0.8  # s, of a response: it reaches into the next trial, as in a real recording
KNOT = 0.1  # s, between the values of a drift, which is linear in between
PAUSE_DRIFT = 4.0  # a person moves in a pause: so many times as fast as in a block
WHOLE = 0.2  # of the drift of a part of the brain, what the whole brain does
PADDING = 4.0  # s of noise thrown away: the end of a session knows nothing of its start


class Head(NamedTuple):
    """Lead field of one set of channels; its groups of sources are `SITES` and ``background``."""

    ch_names: tuple[str, ...]
    sites: dict[str, np.ndarray]  # (n_sites, 3), m, MNE's head coordinates
    outward: dict[str, np.ndarray]  # (n_sites, 3), unit vectors from the centre of the head
    gain: dict[str, np.ndarray]  # (n_chans, n_sites, 3), V per A m, against the mean of channels
    muscle: np.ndarray  # (n_chans, n_muscles), closeness to `MUSCLES`, 0 to 1
    spots: np.ndarray  # (n_background, n_spots), closeness of the sources to `SPOTS`, 0 to 1

    def topographies(self, group: str, directions: np.ndarray) -> np.ndarray:
        """Scalp patterns, V per A m, (n_chans, n_sites), of dipoles along unit vectors."""
        return np.einsum("csx,sx->cs", self.gain[group], directions)

    def random_directions(self, group: str, spread: float, rng: Generator) -> np.ndarray:
        """Unit vectors, outward but for a random part of the size of ``spread``."""
        outward = self.outward[group]
        return _unit(outward + spread * rng.standard_normal(outward.shape))


@lru_cache(maxsize=4)
def build_head(ch_names: tuple[str, ...]) -> Head:
    """Lead field of a sphere of four shells (Mosher et al., 1999, *IEEE Trans. BME* 46, 245)."""
    montage = montage_1005()
    unknown = sorted(set(ch_names) - set(montage.ch_names))
    if unknown or len(set(ch_names)) != len(ch_names):
        got = f"got {len(ch_names)} names, unknown: {', '.join(unknown) or 'none'}."
        raise ValueError(f"Channels must be different names of the 10-05 system, such as Oz; {got}")
    whole = mne.create_info(montage.ch_names, 1000.0, "eeg")
    with mne.utils.use_log_level("error"):
        whole.set_montage(montage)
        radius, centre, _ = mne.bem.fit_sphere_to_headshape(whole, dig_kinds=("eeg",), units="m")
    electrodes = DataFrame([c["loc"][:3] - centre for c in whole["chs"]], whole.ch_names)
    outward = {group: _unit(electrodes.loc[names].to_numpy()) for group, names in SITES.items()}
    sites = {group: centre + radius * MODEL["depth"] * unit for group, unit in outward.items()}
    # Background sources fill the upper part of the brain evenly, the same in every head.
    rng = np.random.default_rng(20240)
    unit = _unit(rng.standard_normal((4 * N_BACKGROUND, 3)))
    outward["background"] = unit = unit[unit[:, 2] > -0.45][:N_BACKGROUND]
    depths = rng.uniform(0.45, 0.84, len(unit))
    sites["background"] = centre + radius * depths[:, None] * unit
    places = np.concatenate(list(sites.values()))
    with mne.utils.use_log_level("error"):
        up = np.tile([0.0, 0.0, 1.0], (len(places), 1))
        space = mne.setup_volume_source_space(pos={"rr": places, "nn": up})
        info = mne.pick_info(whole, [montage.ch_names.index(n) for n in ch_names])
        sphere = mne.make_sphere_model(centre, radius)
        forward = mne.make_forward_solution(info, None, space, sphere, meg=False, mindist=0.0)
    gain = forward["sol"]["data"].reshape(len(ch_names), len(places), 3)
    ends = np.cumsum([len(s) for s in sites.values()])[:-1]
    gains = np.split(gain - gain.mean(axis=0), ends, axis=1)
    channels, muscles, spots = (electrodes.loc[[*names]] for names in (ch_names, MUSCLES, SPOTS))
    muscle = _closeness(channels.to_numpy(), muscles.to_numpy(), 0.03)
    spots = _closeness(sites["background"], centre + MODEL["depth"] * spots.to_numpy(), 0.03)
    return Head(ch_names, sites, outward, dict(zip(sites, gains, strict=True)), muscle, spots)


def _closeness(places: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """Bell curve of the distance, m, shape (n_places, n_centres)."""
    distances = np.linalg.norm(places[:, None] - centres, axis=-1)
    return np.exp(-0.5 * (distances / width) ** 2)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Noise(NamedTuple):
    """Gaussian noise of independent sources with one spectrum, stationary but for the drift."""

    mixing: np.ndarray  # V, (n_chans, n_sources)
    spectrum: Callable[[np.ndarray], np.ndarray]  # power at frequencies (Hz), up to a factor
    drift: str  # which of `DRIFT` it follows
    loadings: np.ndarray  # (n_sources, n_processes), how much of each is in the log-amplitudes


class Response(NamedTuple):
    """What pictures do in one subject, as factors; float32."""

    topographies: np.ndarray  # (n_chans, n_dipoles), V per A m
    waves: np.ndarray  # (n_dipoles, n_waves, n_times), peak 1, from the onset of the picture
    evoked: np.ndarray  # (n_images, n_dipoles, n_waves), moments of the waves, A m
    envelopes: np.ndarray  # (n_dipoles, n_bands, n_times), of induced activity, peak 1
    induced: np.ndarray  # (n_images, n_dipoles, n_bands), its largest standard deviation, A m


class SimulatedSubject:
    """Signals of one subject, to whom each of `stimuli` (its ``label``) looks as `features` say."""

    def __init__(self, options: "Options", subject: int, stimuli: DataFrame, features: np.ndarray):
        self.options, self.subject, self.stimuli = options, subject, stimuli
        classes = stimuli["label"].to_numpy()
        self.head = build_head(options.channels)
        self.schedule = draw_schedule(classes, options, self._rng("schedule"))
        self.n_sessions = int(self.schedule["session"].max()) + 1
        self.response = draw_response(self.head, classes, features, options, self._rng("response"))
        rng = self._rng("noise")
        self.noises = draw_noises(self.head, rng)
        size = 2e-6 * rng.lognormal(0, 0.6, len(options.channels))
        phase = rng.uniform(0, 2 * np.pi) + 0.4 * rng.standard_normal(len(size))
        self.mains = (size * np.exp(1j * phase)).astype(np.complex64)  # V, at 50 Hz
        groups = {noise.drift: noise.loadings.shape[1] for noise in self.noises}
        groups["potential"] = len(size)
        self.drift = draw_drift(groups, self.schedule, options, self._rng("drift"))

    def _rng(self, purpose: str, session: int = 0) -> Generator:
        """Independent random numbers for each subject, purpose and session, all from one seed."""
        key = (self.subject, PURPOSES.index(purpose), session)
        return np.random.default_rng(np.random.SeedSequence(self.options.seed, spawn_key=key))

    def trials(self, session: int) -> DataFrame:
        """Rows of the schedule that belong to one session."""
        return self.schedule[self.schedule["session"] == session]

    def signals(self, session: int) -> np.ndarray:
        """Draw one session: V, float32, shape (n_chans, n_times)."""
        sfreq, end = self.options.sfreq, self.trials(session)["onset"].max()
        n_times = round((end + self.options.image_duration + self.options.pause / 2) * sfreq)
        data = self._ongoing(session, n_times)
        for courses in self._driven(session, n_times):
            data += self.response.topographies @ courses
        add_artefacts(data, self.head, sfreq, self._rng("artefacts", session))
        mains = np.exp(2j * np.pi * 50.0 * np.arange(n_times) / sfreq).astype(np.complex64)
        potentials = self.drift["potential"][session]
        for row, amplitude, potential in zip(data, self.mains, potentials, strict=True):
            row += amplitude.real * mains.real - amplitude.imag * mains.imag
            row += per_sample(potential, sfreq, n_times)
        return data

    def _ongoing(self, session: int, n_times: int) -> np.ndarray:
        """Noise of all kinds, waxing and waning with the drift, V."""
        sfreq, rng = self.options.sfreq, self._rng("ongoing", session)
        data = np.zeros((len(self.mains), n_times), np.float32)
        for noise in self.noises:
            variance = np.square(self.options.drift_strength * np.array(DRIFT[noise.drift])).sum()
            logs = noise.loadings @ self.drift[noise.drift][session]
            logs -= variance * np.square(noise.loadings).sum(axis=1, keepdims=True)  # mean power 1
            levels, mixing = np.exp(logs), noise.mixing.astype(np.float32)
            for part in np.array_split(np.arange(len(levels)), len(levels) // 32 + 1):
                courses = draw_sources(noise.spectrum, len(part), n_times, sfreq, rng)
                if self.options.drift_strength > 0:
                    for course, level in zip(courses, levels[part], strict=True):
                        course *= per_sample(level, sfreq, n_times)
                data += mixing[:, part] @ courses
        return data

    def _driven(self, session: int, n_times: int) -> tuple[np.ndarray, np.ndarray]:
        """Evoked and induced moments of the sources, A m, each of shape (n_dipoles, n_times)."""
        sfreq, response = self.options.sfreq, self.response
        n_dipoles, n_bands, length = response.envelopes.shape
        evoked = np.zeros((n_dipoles, n_times + length), np.float32)
        size = np.zeros((n_bands, n_dipoles, n_times + length), np.float32)
        for trial in self.trials(session).itertuples():
            start = round(trial.onset * sfreq)
            window = slice(start, start + length)
            moments = response.evoked[trial.stimulus]
            evoked[:, window] += np.einsum("dw,dwt->dt", moments, response.waves)
            # Independent bursts that overlap add in variance.
            burst = response.induced[trial.stimulus][..., None] * response.envelopes
            size[..., window] = np.hypot(size[..., window], burst.swapaxes(0, 1))
        bursts = np.zeros((n_dipoles, n_times), np.float32)
        rng = self._rng("induced", session)
        for course, (band, _) in zip(size, INDUCED_BANDS.values(), strict=True):
            noise = draw_sources(band_spectrum(*band), n_dipoles, n_times, sfreq, rng)
            bursts += course[:, :n_times] * noise
        return evoked[:, :n_times], bursts


def draw_schedule(classes: np.ndarray, options: "Options", rng: Generator) -> DataFrame:
    """The trials: ``stimulus`` (place in `classes`), ``block``, ``session``, ``onset`` (s)."""
    own = {c: rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)}
    blocks = [own[c] for c in rng.permutation(list(own))]
    stimulus = np.concatenate(blocks)
    if options.design == "randomized":
        stimulus = rng.permutation(stimulus)
    block = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])
    table = DataFrame({"stimulus": stimulus, "block": block})
    table["session"], place = np.divmod(block, options.classes_per_session)
    trials_before = table.groupby("session").cumcount()
    onset = (place + 0.5) * options.pause + trials_before * options.image_duration
    return table.assign(onset=np.round(onset * options.sfreq) / options.sfreq)


def draw_response(
    head: Head, classes: np.ndarray, features: np.ndarray, options: "Options", rng: Generator
) -> Response:
    """Draw one subject's sources and how they answer to each picture."""
    directions = head.random_directions("visual", 0.6, rng)
    n_sites = len(directions)
    times = np.arange(round(DURATION * options.sfreq)) / options.sfreq
    delay = np.repeat([0.0, MODEL["temporal delay"]], [len(OCCIPITAL), len(TEMPORAL)])
    delay = (delay + rng.uniform(0.0, 0.012, n_sites))[:, None]
    peak, width, mean, spread = np.array(list(WAVES.values())).T
    mean = mean * rng.lognormal(0, 0.3, (n_sites, len(WAVES)))
    # Neighbouring sources answer to much the same; it falls within 2.5 cm.
    sites = head.sites["visual"]
    alike = _closeness(sites, sites, 0.025) + 1e-6 * np.eye(n_sites)
    scores = []
    for n_outputs in (len(WAVES), len(INDUCED_BANDS)):
        axes = rng.standard_normal((features.shape[1], n_sites, n_outputs))
        axes = np.einsum("fso,st->fto", axes, np.linalg.cholesky(alike).T)
        scores.append(similarity_scores(classes, features, axes, options.image_share))
    moments = np.array([moment for _, moment in INDUCED_BANDS.values()])
    induced = moments * np.exp(0.5 * (MODEL["induced modulation"] * scores[1]))
    begin = _ramp(times, MODEL["onset"], MODEL["onset"] + 0.02)
    shifted = times - delay
    waves = np.exp(-0.5 * ((shifted[:, None] - peak[:, None]) / width[:, None]) ** 2)
    envelope = _ramp(shifted, 0.09, 0.17) * _ramp(shifted, 0.60, 0.40) * begin
    return Response(
        topographies=head.topographies("visual", directions).astype(np.float32),
        waves=(waves * (begin * _ramp(times, DURATION, DURATION - 0.1))).astype(np.float32),
        evoked=(options.stimulus_strength * (mean + spread * scores[0])).astype(np.float32),
        envelopes=np.repeat(envelope[:, None], len(INDUCED_BANDS), axis=1).astype(np.float32),
        induced=(options.stimulus_strength * induced).astype(np.float32),
    )


def similarity_scores(
    classes: np.ndarray, features: np.ndarray, axes: np.ndarray, image_share: float
) -> np.ndarray:
    """Project what pictures look like onto random axes, shape (n_images, n_sites, n_outputs)."""
    # A random projection keeps distances (Johnson & Lindenstrauss): what looks alike stays close.
    _, index = np.unique(classes, return_inverse=True)
    centred = features - features.mean(axis=0)
    means = np.stack([centred[index == c].mean(axis=0) for c in range(index.max() + 1)])
    of_class = _unit_variance(np.tensordot(means - means.mean(axis=0), axes, 1))
    of_image = _unit_variance(np.tensordot(centred - means[index], axes, 1))
    return np.sqrt(1 - image_share) * of_class[index] + np.sqrt(image_share) * of_image


def _unit_variance(scores: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.mean(scores**2))
    return scores / size if size > 0 else scores  # one class, or one picture per class


def _ramp(times: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Raised cosine from 0 at start to 1 at stop (either order)."""
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((times - start) / (stop - start), 0, 1))


def band_spectrum(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Power of band-limited noise: flat between low and high (Hz), cosine edges of 2 Hz."""
    middle, half = (low + high) / 2, (high - low) / 2
    return lambda f: np.cos(np.pi / 4 * np.clip(np.abs(f - middle) - half, 0, 2)) ** 2


def draw_noises(head: Head, rng: Generator) -> list[Noise]:
    """Draw one subject's noise: 1/f, waxing alpha, amplifier, muscle tone, one noisy channel."""
    n_chans, rms, cut = len(head.ch_names), MODEL["rms"], MODEL["cut"]
    directions = head.random_directions("background", 3.0, rng)
    background = _rescale(head.topographies("background", directions), rms["ongoing"])
    alpha = head.topographies("alpha", head.random_directions("alpha", 0.5, rng))
    alpha = _rescale(alpha, rms["alpha"])
    own, noisy, peak = np.eye(n_chans), [rng.integers(n_chans)], rng.uniform(9.0, 11.0)
    n_spots, tone = len(SPOTS), head.muscle.max(axis=1)
    parts = np.zeros((2, N_BACKGROUND, 1 + 2 * n_spots))
    parts[:, :, 0] = WHOLE
    parts[0, :, 1 : 1 + n_spots] = parts[1, :, 1 + n_spots :] = head.spots
    tense = tone > 0.02
    tension = (head.muscle / head.muscle.sum(axis=1, keepdims=True))[tense]

    def pink(f: np.ndarray) -> np.ndarray:
        return (1 + f**2) ** -0.75  # flat below 1 Hz, so that memory ends within a second

    def hum(f: np.ndarray) -> np.ndarray:
        return f**2 / (f**2 + 40**2) / (1 + (f / 90) ** 4)

    def wax(f: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((f - peak) / 0.9) ** 2)

    low, high = (lambda f: pink(f) * (f < cut)), (lambda f: pink(f) * (f >= cut))
    frequencies = np.arange(0.0, 500.0, 0.1)
    share = high(frequencies).sum() / pink(frequencies).sum()
    return [
        Noise(np.sqrt(1 - share) * background, low, "brain", parts[0]),
        Noise(np.sqrt(share) * background, high, "brain", parts[1]),
        Noise(alpha, wax, "brain", parts[0, : alpha.shape[1]]),
        Noise(rms["sensor"] * own, np.ones_like, "electrode", own),
        Noise(rms["tone"] * (own * tone)[:, tense], hum, "muscle", tension),
        Noise(rms["noisy"] * own[:, noisy], np.ones_like, "electrode", own[noisy]),
    ]


def _rescale(patterns: np.ndarray, rms: float) -> np.ndarray:
    return patterns * (rms / np.sqrt(np.mean(np.sum(patterns**2, axis=1))))


def draw_sources(
    spectrum: Callable, n_sources: int, n_times: int, sfreq: float, rng: Generator
) -> np.ndarray:
    """Draw Gaussian noise of variance 1, float32, shape (n_sources, n_times)."""
    n_fft = scipy.fft.next_fast_len(round(n_times + PADDING * sfreq), real=True)
    power = spectrum(np.fft.rfftfreq(n_fft, 1 / sfreq))
    power[0] = 0
    amplitude = (n_fft * np.sqrt(power / (4 * power.sum()))).astype(np.float32)
    white = rng.standard_normal((n_sources, 2 * len(power)), dtype=np.float32)
    white *= np.repeat(amplitude, 2)
    return scipy.fft.irfft(white.view(np.complex64), n_fft)[:, :n_times]


def draw_drift(
    groups: dict[str, int], schedule: DataFrame, options: "Options", rng: Generator
) -> dict[str, np.ndarray]:
    """Draw so many courses of `DRIFT`, one value per `KNOT`, (n_sessions, n_courses, n_knots)."""
    sizes = np.concatenate([np.tile(DRIFT[name], (n, 1)) for name, n in groups.items()]).T
    tau = np.array([[options.drift_tau], [MODEL["drift seconds"]], [1e-9]])
    state = rng.standard_normal(sizes.shape)

    def later(state: np.ndarray, seconds: float) -> np.ndarray:  # Ornstein-Uhlenbeck
        memory = np.exp(-seconds / tau)
        return memory * state + np.sqrt(1 - memory**2) * rng.standard_normal(sizes.shape)

    n_seconds = schedule["onset"].max() + options.image_duration + options.pause / 2
    step = round(KNOT * options.sfreq) / options.sfreq
    times = step * np.arange(int(n_seconds / step) + 2)
    courses = np.zeros((schedule["session"].max() + 1, len(times), sizes.shape[1]), np.float32)
    for session, trials in schedule.groupby("session"):
        onsets = trials["onset"].to_numpy()
        since = times - onsets[np.maximum(0, np.searchsorted(onsets, times, "right") - 1)]
        shown = (since >= 0) & (since < options.image_duration)
        for knot, pace in enumerate(np.where(shown, 1.0, PAUSE_DRIFT)):
            courses[session, knot] = (sizes * state).sum(axis=0)
            state = later(state, pace * step)
        state = later(state, options.session_gap)
    courses = options.drift_strength * courses.swapaxes(1, 2)
    ends = np.cumsum(list(groups.values()))[:-1]
    return dict(zip(groups, np.split(courses, ends, axis=1), strict=True))


def per_sample(values: np.ndarray, sfreq: float, n_times: int) -> np.ndarray:
    """Linear interpolation of values given once per `KNOT`, shape (n_times,), float32."""
    n_steps = round(KNOT * sfreq)
    ramp = np.arange(n_steps, dtype=np.float32) / n_steps
    course = values[:-1, None] + np.diff(values)[:, None] * ramp
    return course.astype(np.float32, copy=False).ravel()[:n_times]


def add_artefacts(data: np.ndarray, head: Head, sfreq: int, rng: Generator) -> None:
    """Add blinks and short muscle twitches at random times, in place; volts, float32."""
    seconds = data.shape[1] / sfreq
    blink = head.topographies("eyes", head.outward["eyes"]).sum(axis=1) * 3e-7
    course = np.hanning(round(0.3 * sfreq)).astype(np.float32)
    starts = np.sort(rng.uniform(0, seconds, rng.poisson(12 * (seconds / 60))))
    for start in (starts * sfreq).astype(int):
        window = data[:, start : start + len(course)]
        size = rng.uniform(0.6, 1.2)
        window += (size * blink[:, None] * course[: window.shape[1]]).astype(np.float32)
    twitch = 12e-6 * head.muscle.max(axis=1, keepdims=True)
    starts = np.sort(rng.uniform(0, seconds, rng.poisson(10 * (seconds / 60))))
    for start in (starts * sfreq).astype(int):
        length = round(rng.uniform(0.1, 0.4) * sfreq)
        window = data[:, start : start + length]
        white = rng.standard_normal((len(data), length + 1), dtype=np.float32)
        burst = np.diff(white, axis=1) * np.hanning(length) * twitch
        window += burst[:, : window.shape[1]].astype(np.float32)
