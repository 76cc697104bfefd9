"""How long a posterior takes, and whether an hour of stream loses anything.

``python -m benchmarks live`` plays noise of 128 channels at 1,000 Hz, as a stream of the Lab
Streaming Layer from another process, at its true speed: 1,000 trials, two a second, each decided
by the paper's student for 40 classes, while a thread draws pictures with the demo's model. Given
are the times from the last sample of a trial to its posterior, by LSL's clock, in parts, and from
that sample to the picture. ``--trials 50`` is a quick look.

``--soak SECONDS`` then decodes for so long by the wall clock, at ``--speed`` times true speed, with
one chunk of a thousand lost on the way. Lost are trials that were sent and neither decided, nor
counted as skipped, nor waiting at the end; growth is that of the resident memory between the
second and the last tenth of the time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import uuid

import numpy as np
import psutil
import torch
from mne_lsl import lsl

from eeglib import live
from eeglib.decoding.networks import residual_network
from eeglib.decoding.training import Decoder
from eeglib.reconstruction import drawing
from eeglib.timefrequency import spectrograms

N_CHANS, SFREQ, N_CLASSES, EVERY, FIRST = 128, 1000.0, 40, 500, 1000
NAMES = [f"E{n}" for n in range(N_CHANS)]
HOW = {"epoch": (0.0, 0.5), "notch": (49.0, 51.0), "band": (14.0, 70.0)}


def main(arguments: list[str]) -> int:
    """Measure, print what was found and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks live", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="trials of the latency")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of the soak; 0: none")
    parser.add_argument("--speed", type=float, default=10.0, help="of the soak")
    options = parser.parse_args(arguments)
    session = str(uuid.uuid4())
    lsl.set_config_content(live.LOOPBACK.format(session))
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"cores: {os.cpu_count()}; threads: {threads}; load of the last minute: {load:.1f}")
    decoder = student()
    closing = latency(session, decoder, options.trials)
    if options.soak:
        closing |= soak(session, decoder, options.soak, options.speed)
    else:
        closing |= {"soak_lost": "none_run", "soak_rss_growth": "none_run"}
    print("live " + " ".join(f"{name}={value}" for name, value in closing.items()))
    return 0


def student() -> Decoder:
    """The paper's network with random weights, which take as long as learned ones."""
    grid = {"window": 0.04, "step": 0.02, "band": HOW["band"]}
    shape = spectrograms(np.zeros((1, N_CHANS, 500)), SFREQ, **grid).shape[1:]
    torch.manual_seed(0)
    network = residual_network(shape, N_CLASSES)().eval()
    names = [f"class {n}" for n in range(N_CLASSES)]
    return Decoder([network], names, NAMES, SFREQ, HOW, grid, shape)


class Noise:
    """Ten seconds of noise, over and over: what `live.replay` asks of an array."""

    def __init__(self, n_times: int):
        rng = np.random.default_rng(0)
        self.shape = (N_CHANS, n_times)
        self.signals = 1e-5 * rng.standard_normal((N_CHANS, 10_000)).cumsum(axis=1) / 10

    def __getitem__(self, where) -> np.ndarray:
        return self.signals[:, np.arange(*where[1].indices(self.shape[1])) % 10_000]


def played(session: str, n_trials: int, ready, **options) -> None:
    """The other process: play so many trials."""
    lsl.set_config_content(live.LOOPBACK.format(session))
    markers = [(FIRST + EVERY * n, str(n)) for n in range(n_trials)]
    thread = live.replay(Noise(FIRST + EVERY * (n_trials + 1)), SFREQ, NAMES, markers, **options)
    ready.set()
    thread.join()
    time.sleep(5.0)


def connected(session: str, n_trials: int, **options) -> tuple:
    """Inlets to what another process plays from now on, and that process."""
    context = multiprocessing.get_context("spawn")
    ready, name = context.Event(), f"benchmark-{uuid.uuid4()}"
    sender = context.Process(
        target=played, args=(session, n_trials, ready), kwargs={"name": name, **options}
    )
    sender.start()
    if not ready.wait(120):
        raise RuntimeError("The process that plays the stream did not start.")
    return live.connect(name, NAMES, SFREQ), sender


def latency(session: str, decoder: Decoder, n_trials: int) -> dict[str, str]:
    """Times to the posterior and to the picture."""
    pipeline, drawn = drawing.load_pipeline("demo", device="cpu"), {}

    def paint(decision: live.Decision) -> None:
        drawing.reconstruct(pipeline, ["an image of a cat"], [len(drawn)])
        drawn[decision.end] = lsl.local_clock()

    painter, decisions = live.Painter(paint), []
    (inlets, sender), causal = connected(session, n_trials), live.CausalTrials(SFREQ, **HOW)
    for decision in live.decisions(inlets, causal, decoder, idle=3.0):
        decisions.append(decision)
        painter.ask(decision)
    painter.pool.shutdown()
    sender.join()
    print(f"{n_trials} trials at true speed: {dict(causal.counts)}")
    times = {
        "transport": [d.arrived - d.end for d in decisions],
        "filter": [d.cut - d.arrived for d in decisions],
        "network": [d.decided - d.cut for d in decisions],
        "posterior": [d.decided - d.end for d in decisions],
    }
    for name, seconds in times.items():
        p50, p99, worst = 1e3 * np.percentile(seconds, [50, 99, 100])
        n = len(seconds)
        print(f"{name}: median {p50:.1f} ms, p99 {p99:.1f} ms, worst {worst:.1f} ms of {n}")
    pictures = np.array([clock - end for end, clock in drawn.items()])
    print(
        f"picture: median {np.median(pictures):.2f} s, worst {pictures.max():.2f} s of "
        f"{len(pictures)}; {painter.n_left_out} trials without one"
    )
    p50, p99 = 1e3 * np.percentile(times["posterior"], [50, 99])
    posterior = {"posterior_p50_ms": f"{p50:.1f}", "posterior_p99_ms": f"{p99:.1f}"}
    return posterior | {"picture_s": f"{np.median(pictures):.2f}"}


def soak(session: str, decoder: Decoder, seconds: float, speed: float) -> dict[str, str]:
    """Decode for a long time, much of it; what is lost, and how memory grows."""
    n_trials, process = int(seconds * speed * SFREQ / EVERY), psutil.Process()
    inlets, sender = connected(session, n_trials, speed=speed, drop=0.001)
    causal, started, memory, n_decided = live.CausalTrials(SFREQ, **HOW), time.monotonic(), [], 0
    for _ in live.decisions(inlets, causal, decoder, idle=3.0):
        n_decided += 1
        if time.monotonic() - started > len(memory):
            memory.append(process.memory_info().rss)
    sender.join()
    tenth = max(1, len(memory) // 10)
    first, last = np.median(memory[tenth : 2 * tenth]), np.median(memory[-tenth:])
    skipped = sum(n for what, n in causal.counts.items() if what != "decided")
    lost = n_trials - causal.counts["decided"] - skipped - len(causal.waiting)
    print(
        f"soak: {time.monotonic() - started:.0f} s at {speed:g} times true speed, {n_trials} "
        f"trials sent, {n_decided} decisions, {dict(causal.counts)}, {len(causal.waiting)} "
        f"waiting; memory {first / 1e6:.0f} MB, then {last / 1e6:.0f} MB"
    )
    return {"soak_lost": str(lost), "soak_rss_growth": f"{last / first - 1:.4f}"}
