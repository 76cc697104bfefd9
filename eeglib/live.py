"""Decode while it happens: samples of a stream in, posteriors and pictures out (chapter 10).

`CausalTrials` is the one way from samples to trials: a recording goes through it block by block
(`recorded_trials`), a stream of the Lab Streaming Layer (LSL) as it comes (`decisions`).
"""

import json
import shutil
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mne_lsl import lsl

from eeglib.preprocessing import CausalFilter

BUFFER = 5.0  # s of filtered signals that are kept
MEMORY = 60.0  # s, time constant of the running means and variances
PATIENCE = 2.0  # s, age at which a trial is skipped: the decoder is too slow
TOLERANCE = 0.02  # share of a trial by which its samples may be late or lacking
MOST_MARKERS = 1000  # that wait for their samples
MISSING, LATE = "skipped: samples missing", "skipped: too late"
# A process finds its own streams alone, without a network, and in 3 s, not 30, one that is back.
LOOPBACK = """[ports]\nIPv6=disable\nPortRange=128\n[multicast]\nResolveScope=machine
ListenAddress=127.0.0.1\n[lab]\nKnownPeers={{127.0.0.1}}\nSessionID={}
[tuning]\nWatchdogCheckInterval=1\nWatchdogTimeThreshold=1\n[log]\nlevel=-3\n"""


class LiveError(RuntimeError):
    """A stream that cannot be found or does not fit; the message says what to do."""


class CausalTrials:
    """Filter samples as they come, standardise them by what has been, cut trials at markers.

    Parameters
    ----------
    sfreq : float
        Of the stream, hertz.
    epoch, notch, band, order, standardize
        As for `eeglib.preprocessing.preprocess`; but the filters run forwards only, and each
        channel's mean and standard deviation are running ones.

    Notes
    -----
    The running means, of the filtered samples and of their squares, go up to the last sample of
    the trial, weighted by exp(-age / `MEMORY`). They and the filters depend on the samples, not on
    the blocks in which these come. A sample with a value that is not finite counts as missing;
    after a pause longer than the tolerance the filters start anew. `counts` says of every marker
    that no longer waits whether it became a trial, or why not.
    """

    def __init__(self, sfreq, epoch, notch, band, order=2, standardize=True):
        self.sfreq, self.start = sfreq, epoch[0]
        self.n_times = round((epoch[1] - epoch[0]) * sfreq)
        self.tolerance = (max(1, TOLERANCE * self.n_times) + 0.5) / sfreq
        memory = MEMORY if standardize else None
        self.filter = CausalFilter(sfreq, notch, band, order, memory)
        self.size = max(round(BUFFER * sfreq), 4 * self.n_times)
        self.times, self.end, self.is_whole = np.empty(2 * self.size), 0, True
        self.waiting, self.counts = deque(maxlen=MOST_MARKERS), Counter()

    def mark(self, onset: float, marker: str) -> None:
        """Take a marker; the samples of its trial may have come already, or come later."""
        self.counts[MISSING] += len(self.waiting) == MOST_MARKERS  # the oldest gives way
        self.waiting.append((onset, marker))

    def push(self, samples: np.ndarray, times: np.ndarray) -> None:
        """Take samples, (n, n_chans) in any unit, and their times, (n,) in seconds."""
        finite = np.isfinite(samples).all(axis=1)
        samples, times = np.asarray(samples[finite], float), np.asarray(times)[finite]
        if not len(times):
            return
        if not self.end:  # signals, running means of them and of their squares
            self.rows = np.empty((3, 2 * self.size, samples.shape[1]))
        last = self.times[self.end - 1] if self.end else -np.inf
        pauses = np.diff(times, prepend=last) > self.tolerance + 1 / self.sfreq
        cuts = np.union1d(np.flatnonzero(pauses), np.arange(0, len(times), self.size))
        for begin, end in pairwise([*cuts, len(times)]):
            if self.end + end - begin > 2 * self.size:  # the older half makes room
                newer = slice(self.end - self.size, self.end)
                self.rows[:, : self.size] = self.rows[:, newer]
                self.times[: self.size] = self.times[newer]
                self.end, self.is_whole = self.size, False
            new = slice(self.end, self.end + end - begin)
            self.rows[:, new] = self.filter.push(samples[begin:end], pauses[begin])
            self.times[new], self.end = times[begin:end], new.stop

    def trials(self, now: float = -np.inf) -> Iterator[tuple]:
        """Marker, onset, time of the last sample, signals (n_chans, n_times) of complete trials.

        Those that ended more than `PATIENCE` before `now` are skipped; the incomplete wait.
        """
        for _ in range(len(self.waiting)):
            onset, marker = self.waiting.popleft()
            first = self._place(onset + self.start, now)
            if first is None:
                self.waiting.append((onset, marker))
                continue
            self.counts[first if isinstance(first, str) else "decided"] += 1
            if not isinstance(first, str):
                last = first + self.n_times - 1
                mean, square = self.rows[1:, last]
                variance = square - mean**2
                variance[variance <= 1e-12 * square] = 1  # a flat channel
                signals = (self.rows[0, first : last + 1] - mean) / np.sqrt(variance)
                yield marker, onset, float(self.times[last]), signals.T.astype(np.float32)

    def _place(self, start: float, now: float) -> int | str | None:
        """Row of a trial's first sample; or why there is none; or None, for not yet."""
        times, stop = self.times[: self.end], start + (self.n_times - 1) / self.sfreq
        if not len(times) or times[-1] < start:
            return None
        first = int(np.abs(times - start).argmin())
        last = first + self.n_times - 1
        if abs(times[first] - start) > self.tolerance:
            return MISSING if first or self.is_whole else LATE
        if last >= len(times):
            return MISSING if times[-1] > stop + self.tolerance else None
        if abs(times[last] - times[first] - stop + start) > self.tolerance:
            return MISSING
        return LATE if now - stop > PATIENCE else first


def markers_of(trials, sfreq: float, tmin: float = 0.0) -> list[tuple[int, str]]:
    """Sample, as in chapter 2, and text ``class/image`` of each row of a recording's trials."""
    samples = ((trials["onset"] + tmin) * sfreq).round() - round(tmin * sfreq)
    return list(zip(samples.astype(int), trials["class_name"] + "/" + trials["image"], strict=True))


def recorded_trials(
    signals: np.ndarray, sfreq: float, markers: Sequence, block: float = 1.0, **settings
) -> Iterator[tuple]:
    """Trials of a recording as a stream would have given them; see `CausalTrials.trials`.

    Takes signals (n_chans, n_times), a (sample, text) for each marker, in order, and what
    `CausalTrials` takes. They go through it in blocks of so many seconds, at most half of `BUFFER`.
    """
    causal = CausalTrials(sfreq, **settings)
    times, step = np.arange(signals.shape[1]) / sfreq, max(1, round(block * sfreq))
    waiting = deque(markers)
    for begin in range(0, len(times), step):
        while waiting and waiting[0][0] < begin + step:
            sample, text = waiting.popleft()
            causal.mark(sample / sfreq, text)
        causal.push(signals[:, begin : begin + step].T, times[begin : begin + step])
        yield from causal.trials()


def use_loopback() -> None:
    """Keep the streams of this process to itself; to be called before anything else of LSL."""
    lsl.set_config_content(LOOPBACK.format(uuid.uuid4()))


def connect(name, ch_names, sfreq, markers=None, timeout=10.0) -> tuple:
    """Open the stream of a name, and that of its markers, else ``<name>-markers``.

    Gives both inlets, on this machine's clock, and the places of `ch_names` in the stream. Raises
    LiveError if `timeout` seconds find no such stream, or it lacks a channel or the rate `sfreq`.
    """
    inlets = []
    for wanted in (name, markers or f"{name}-markers"):
        found = lsl.resolve_streams(timeout, name=wanted)
        if len(found) != 1:
            others = ", ".join(sorted({stream.name for stream in lsl.resolve_streams(1.0)}))
            text = f"{len(found)} streams are called {wanted!r}; those in reach: {others or 'none'}"
            raise LiveError(f"{text}. Start it, or give the names of stream and markers.")
        inlets.append(lsl.StreamInlet(found[0], max_buffered=20, processing_flags=["clocksync"]))
        inlets[-1].open_stream(timeout)
    info = inlets[0].get_sinfo(timeout)
    names = info.get_channel_names() or []
    if lacking := ", ".join(channel for channel in ch_names if channel not in names):
        text = f"Stream {name!r} has no channel {lacking}; it has {', '.join(names) or 'no names'}"
        raise LiveError(f"{text}. Plug it in, or name the channels as in the training.")
    if info.sfreq != sfreq:
        text = f"Stream {name!r} has {info.sfreq:g} Hz, the student was trained at {sfreq:g} Hz"
        raise LiveError(f"{text}. Set the amplifier to that rate.")
    return *inlets, [names.index(channel) for channel in ch_names]


class Decision(NamedTuple):
    """What was said of a trial, and when, in seconds on the clock of LSL."""

    marker: str
    onset: float
    end: float  # of the trial's last sample
    arrived: float  # when that sample was here
    cut: float  # when the trial was filtered, standardised and cut
    decided: float
    posterior: list[float]

    def said(self, class_names: Sequence[str]) -> str:
        """The class of the highest probability."""
        return class_names[int(np.argmax(self.posterior))]

    def log(self, file) -> None:
        """Add a line of JSON, by one call, to a binary file without a buffer: no end cuts it."""
        file.write((json.dumps(self._asdict()) + "\n").encode())


def decisions(inlets: tuple, causal: CausalTrials, decoder: Callable, idle=5.0) -> Iterator:
    """Give a `Decision` on each trial as it comes, until nothing has come for `idle` seconds."""
    signals, markers, picks = inlets
    heard = lsl.local_clock()
    while True:
        for text, onset in zip(*markers.pull_chunk(timeout=0.0), strict=True):
            causal.mark(float(onset), str(text[0]))
        samples, times = signals.pull_chunk(timeout=0.0, max_samples=causal.size // 4)
        arrived = lsl.local_clock()
        heard = arrived if len(times) else heard
        if arrived - heard > idle:
            return
        causal.push(samples[:, picks], times)
        time.sleep(0.0 if len(times) else 0.001)
        for *about, trial in causal.trials(arrived):
            cut = lsl.local_clock()
            posterior = decoder(trial[np.newaxis])[0].tolist()
            yield Decision(*about, arrived, cut, lsl.local_clock(), posterior)


def replay(signals, sfreq, ch_names, markers, name, speed=1.0, jitter=0.0, drop=0.0, seed=0):
    """Play a recording as a stream and its markers, as soon as somebody listens to both.

    Takes signals (n_chans, n_times) and a (sample, text) for each marker, in order. They come at
    `speed` times the true speed, with the times of the true one, blurred by `jitter` seconds
    (standard deviation) for each chunk of 10 ms; a share `drop` of the chunks is not sent.
    """
    source, step = str(uuid.uuid4()), max(2, round(0.01 * sfreq))
    info = lsl.StreamInfo(name, "EEG", len(ch_names), sfreq, "float64", source)
    info.set_channel_names(list(ch_names))
    texts = lsl.StreamInfo(f"{name}-markers", "Markers", 1, 0.0, "string", source)
    outlets = lsl.StreamOutlet(info), lsl.StreamOutlet(texts)

    def play() -> None:
        for outlet in outlets:
            outlet.wait_for_consumers(60.0)
        rng, waiting, start = np.random.default_rng(seed), deque(markers), lsl.local_clock()
        for begin in range(0, signals.shape[1], step):
            chunk = np.ascontiguousarray(signals[:, begin : begin + step].T)
            end = begin + len(chunk)
            time.sleep(max(0.0, start + end / sfreq / speed - lsl.local_clock()))
            while waiting and waiting[0][0] < end:
                sample, text = waiting.popleft()
                outlets[1].push_sample([text], timestamp=start + sample / sfreq)
            if rng.random() >= drop:
                times = start + np.arange(begin, end) / sfreq + jitter * rng.standard_normal()
                outlets[0].push_chunk(chunk, timestamp=times)
        time.sleep(1.0)  # the last ones are on their way

    (thread := threading.Thread(target=play, daemon=True)).start()
    return thread


class Painter:
    """Calls ``paint(decision)`` beside the decoding; what comes meanwhile is left out."""

    def __init__(self, paint: Callable):
        self.paint, self.pool, self.job, self.n_left_out = paint, ThreadPoolExecutor(1), None, 0

    def ask(self, decision: Decision) -> None:
        if self.job and not self.job.done():
            self.n_left_out += 1
        else:
            self.job = self.pool.submit(self.paint, decision)


class Page:
    """A page at `url`, for this machine alone, that shows what is put into its folder."""

    def __init__(self, folder: Path, port: int = 0):
        self.folder, self.state, self.lock = folder, {}, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_suffix(".html"), folder / "index.html")
        handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(handler, directory=folder))
        self.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def update(self, **values: Any) -> None:
        """Change what the page's script reads; a picture becomes a file that it shows."""
        for name, value in values.items():
            if hasattr(value, "save"):  # in turn into two files, or a browser keeps the old one
                values[name] = f"{name}-{self.state.get(name) != f'{name}-True.png'}.png"
                value.save(self.folder / values[name])
        with self.lock:
            self.state |= values
            part = self.folder / "state.part"
            part.write_text(json.dumps(self.state), encoding="utf-8")
            part.replace(self.folder / "state.json")
