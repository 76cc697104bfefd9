"""A stream is decoded as a recording would be, and nothing is lost without being counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.signal import sosfilt

from eeglib import live
from eeglib.chapter import open_chapter
from eeglib.cli import main
from eeglib.decoding.networks import residual_network
from eeglib.decoding.training import Decoder
from eeglib.preprocessing import filter_signals, forward_filters
from eeglib.profile import load_profile
from eeglib.timefrequency import spectrograms

SFREQ, N_CHANS = 200.0, 6
NAMES = [f"E{n}" for n in range(N_CHANS)]
HOW = {"epoch": (0.0, 0.5), "notch": (49.0, 51.0), "band": (14.0, 70.0)}
RNG = np.random.default_rng(0)
SIGNALS = 1e-5 * RNG.standard_normal((N_CHANS, 4000)) + 1e-2 * RNG.standard_normal((N_CHANS, 1))
MARKERS = [(sample, f"cat/{sample}") for sample in range(200, 3800, 100)]
TIMES = np.arange(SIGNALS.shape[1]) / SFREQ
live.use_loopback()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    grid = {"window": 0.1, "step": 0.05, "band": HOW["band"]}
    shape = spectrograms(np.zeros((1, N_CHANS, 100)), SFREQ, **grid).shape[1:]
    network = residual_network(shape, 3)().eval()
    how = HOW | {"order": 2, "standardize": True}
    return Decoder([network], ["cat", "dog", "cup"], NAMES, SFREQ, how, grid, shape)


def recorded(signals=SIGNALS, markers=MARKERS, **options) -> dict[str, np.ndarray]:
    trials = live.recorded_trials(signals, SFREQ, markers, **{**HOW, **options})
    return {marker: trial for marker, *_, trial in trials}


def stream(**options) -> live.CausalTrials:
    return live.CausalTrials(SFREQ, **{**HOW, **options})


def decide(signals=SIGNALS, names=NAMES, decoder=lambda trials: np.ones((1, 3)) / 3, **options):
    """Play signals as a stream and decode it; the decisions and the object they went through."""
    options = {"speed": 8.0, "name": f"test-{time.monotonic_ns()}", **options}
    live.replay(signals, SFREQ, names, MARKERS, **options)
    inlets, causal = live.connect(options["name"], NAMES, SFREQ), stream()
    return list(live.decisions(inlets, causal, decoder, idle=1.5)), causal


def accounted(causal: live.CausalTrials) -> int:
    return sum(causal.counts.values()) + len(causal.waiting)


def test_a_causal_filter_is_silent_before_its_cause_and_twice_it_is_chapter_2s():
    sections = forward_filters(SFREQ, HOW["notch"], HOW["band"])
    pulse = np.eye(1, 2001, 1000)[0]
    once = sosfilt(sections, pulse)
    assert not once[:1000].any()
    both_ways = sosfilt(sections, once[::-1])[::-1]
    np.testing.assert_allclose(
        both_ways, filter_signals(pulse, SFREQ, (49, 51), (14, 70)), atol=1e-9
    )


@pytest.mark.parametrize("block", [0.005, 0.137, 2.5])
def test_trials_do_not_depend_on_the_blocks(block):
    for standardize in (True, False):
        one, other = (recorded(block=b, standardize=standardize) for b in (1.0, block))
        assert list(one) == list(other) == [text for _, text in MARKERS]
        for marker in one:
            np.testing.assert_allclose(one[marker], other[marker], rtol=1e-5, atol=1e-6)


def test_running_statistics_are_weighted_means_of_the_past_alone():
    sample, text = MARKERS[12]
    last = sample + 99
    sections = forward_filters(SFREQ, HOW["notch"], HOW["band"])
    filtered = sosfilt(sections, SIGNALS - SIGNALS[:, :1])[:, : last + 1]
    weights = np.exp(-np.arange(last, -1, -1) / (live.MEMORY * SFREQ))
    mean = np.average(filtered, axis=1, weights=weights)
    sd = np.sqrt(np.average(filtered**2, axis=1, weights=weights) - mean**2)
    expected = (filtered[:, sample:] - mean[:, np.newaxis]) / sd[:, np.newaxis]
    np.testing.assert_allclose(recorded()[text], expected, rtol=1e-3, atol=1e-4)
    changed = SIGNALS.copy()
    changed[:, last + 1 :] *= 100
    np.testing.assert_array_equal(recorded(changed)[text], recorded()[text])


def test_values_that_are_not_finite_cost_the_trials_that_hold_them():
    broken = SIGNALS.copy()
    broken[2, 1000:1020] = np.nan
    broken[0, 2000] = np.inf  # a single sample of 100 is within the tolerance
    found = recorded(broken)
    lost = {text for _, text in MARKERS} - set(found)
    assert lost == {"cat/1000"}
    assert all(np.isfinite(trial).all() for trial in found.values())


def test_samples_that_never_came_are_counted_with_their_trials():
    causal, here = stream(), np.r_[0:1000, 1500:3000]
    for sample, text in MARKERS:
        causal.mark(sample / SFREQ, text)
    found = []
    for part in np.array_split(here, 40):
        causal.push(SIGNALS[:, part].T, TIMES[part])
        found += [marker for marker, *_ in causal.trials()]
    assert "cat/900" in found
    assert "cat/1500" in found
    assert causal.counts[live.MISSING] == 5  # 1000 to 1400
    assert len(causal.waiting) == 8  # from 3000 on: not yet
    assert accounted(causal) == len(MARKERS)


def test_a_marker_may_come_after_its_samples_but_not_too_late():
    causal = stream()
    for begin in range(0, 4000, 100):
        causal.push(SIGNALS[:, begin : begin + 100].T, TIMES[begin : begin + 100])
    causal.mark(3700 / SFREQ, "cat/3700")
    causal.mark(200 / SFREQ, "cat/200")
    ((marker, *_, trial),) = causal.trials()
    assert marker == "cat/3700"
    np.testing.assert_array_equal(trial, recorded()[marker])
    assert causal.counts == Counter({"decided": 1, live.LATE: 1})


def test_who_is_too_slow_loses_counted_trials_and_no_memory():
    causal, n_found = stream(), 0
    for begin in range(0, 4000, 100):
        for sample, text in MARKERS:
            if begin <= sample < begin + 100:
                causal.mark(sample / SFREQ, text)
        causal.push(SIGNALS[:, begin : begin + 100].T, TIMES[begin : begin + 100])
        # From the tenth second on, the decoder is three seconds behind.
        now = (begin + 100) / SFREQ + (3.0 if begin >= 2000 else 0.0)
        n_found += len(list(causal.trials(now)))
    assert n_found == causal.counts["decided"] == 18
    assert causal.counts[live.LATE] == len(MARKERS) - n_found
    size = causal.rows.nbytes
    causal.push(np.tile(SIGNALS.T, (5, 1)), 20 + np.arange(20_000) / SFREQ)
    for number in range(3 * live.MOST_MARKERS):
        causal.mark(1e6 + number, "never")
    assert causal.rows.nbytes == size
    assert len(causal.waiting) == live.MOST_MARKERS
    assert accounted(causal) == len(MARKERS) + 3 * live.MOST_MARKERS


def test_markers_stand_where_chapter_2_puts_them():
    table = pd.DataFrame({"onset": [0.5, 1.0024], "class_name": ["a", "b"], "image": ["x", "y"]})
    assert live.markers_of(table, 200.0) == [(100, "a/x"), (200, "b/y")]


def test_a_decoder_is_the_same_after_it_was_saved(decoder, tmp_path):
    decoder.save(tmp_path / "student.pt")
    loaded = Decoder.load(tmp_path / "student.pt")
    trials = np.stack(list(recorded().values()))
    np.testing.assert_array_equal(decoder(trials), loaded(trials))
    assert loaded[1:] == decoder[1:]


def test_live_equals_offline(decoder):
    found, causal = decide(decoder=decoder)
    assert [d.marker for d in found] == [text for _, text in MARKERS]
    offline = decoder(np.stack(list(recorded().values())))
    np.testing.assert_allclose([d.posterior for d in found], offline, atol=1e-5)
    assert all(d.arrived <= d.cut <= d.decided for d in found)
    assert causal.counts == Counter(decided=len(MARKERS))


def test_channels_may_stand_in_another_order_with_more_beside_them(decoder):
    order = [4, 0, 5, 2, 1, 3]
    more = np.vstack([SIGNALS[order], np.full((1, 4000), np.nan)])
    found, _ = decide(more, [*(NAMES[n] for n in order), "AUX"], decoder)
    offline = decoder(np.stack(list(recorded().values())))
    np.testing.assert_allclose([d.posterior for d in found], offline, atol=1e-5)


def test_what_gets_lost_or_blurred_on_the_way_is_accounted_for():
    found, causal = decide(jitter=0.002, drop=0.02, seed=3)
    assert 0 < len(found) < len(MARKERS)
    assert causal.counts["decided"] == len(found)
    assert accounted(causal) == len(MARKERS)


def test_a_stream_that_does_not_fit_is_refused_by_name():
    live.replay(SIGNALS, SFREQ, NAMES, MARKERS, "unfit")
    with pytest.raises(live.LiveError, match=r"no channel E9; it has E0, .*Plug it in"):
        live.connect("unfit", [*NAMES, "E9"], SFREQ)
    with pytest.raises(live.LiveError, match=r"200 Hz, the student was trained at 1000 Hz"):
        live.connect("unfit", NAMES, 1000.0)
    with pytest.raises(live.LiveError, match=r"0 streams are called 'nobody'.*unfit"):
        live.connect("nobody", NAMES, SFREQ, timeout=0.5)
    # Another process on this machine does not see it.
    code = "from eeglib import live; live.use_loopback(); print(live.lsl.resolve_streams(1.5))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_stream_that_vanishes_and_returns_goes_on():
    lsl, found = live.lsl, []

    def outlet(dtype, name, kind, n_chans, sfreq):
        info = lsl.StreamInfo(name, kind, n_chans, sfreq, dtype, f"amplifier-{kind}")
        if kind == "EEG":
            info.set_channel_names(NAMES)
        return lsl.StreamOutlet(info)

    signals = outlet("float64", "weak", "EEG", N_CHANS, SFREQ)
    markers = outlet("string", "weak-markers", "Markers", 1, 0.0)
    inlets, causal = live.connect("weak", NAMES, SFREQ), stream()
    start = lsl.local_clock()

    def send(begin, end):
        for sample, text in MARKERS:
            if begin <= sample < end:
                markers.push_sample([text], timestamp=start + sample / SFREQ)
        part = slice(begin, end)
        signals.push_chunk(SIGNALS[:, part].T.copy(), timestamp=start + TIMES[part])

    def hear(seconds):
        uniform = np.ones((1, 3)) / 3
        found.extend(live.decisions(inlets, causal, lambda trials: uniform, idle=seconds))

    send(0, 1000)
    hear(1.0)
    del signals
    signals = outlet("float64", "weak", "EEG", N_CHANS, SFREQ)
    assert signals.wait_for_consumers(20.0)
    send(1500, 3000)
    hear(1.0)
    samples = [int(d.marker.split("/")[1]) for d in found]
    assert samples == [*range(200, 1000, 100), *range(1500, 3000, 100)]


def test_a_file_of_decisions_is_whole_after_kill_9(tmp_path):
    path = tmp_path / "decisions.jsonl"
    code = (
        "import sys; from eeglib.live import Decision\n"
        "with open(sys.argv[1], 'ab', buffering=0) as file:\n"
        "    for n in range(10**9):\n"
        "        Decision(f'm{n}', n, n, n, n, n, [0.25] * 40).log(file)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not path.exists() or path.stat().st_size < 100_000:
        time.sleep(0.01)
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    text = path.read_text()
    assert text.endswith("\n")
    assert [json.loads(line)["marker"] for line in text.splitlines()] == [
        f"m{n}" for n in range(text.count("\n"))
    ]


def test_drawing_delays_nobody_and_leaves_out_what_it_cannot_do():
    drawn = []

    def paint(decision):
        time.sleep(0.3)
        drawn.append(decision)

    painter, started = live.Painter(paint), time.perf_counter()
    for number in range(5):
        painter.ask(number)
    assert time.perf_counter() - started < 0.2
    painter.pool.shutdown()
    assert drawn == [0]
    assert painter.n_left_out == 4


def test_the_page_shows_what_is_put_up(tmp_path):
    page = live.Page(tmp_path / "page")
    page.update(title="Subject 1", posterior=[0.2, 0.8])
    page.update(drawn=Image.new("RGB", (8, 8)))
    first = page.state["drawn"]
    page.update(drawn=Image.new("RGB", (8, 8), "white"))
    assert page.state["drawn"] != first  # or a browser would keep the old one

    def get(name):
        with urllib.request.urlopen(page.url + name, timeout=5) as answer:
            return answer.read()

    assert page.url.startswith("http://127.0.0.1:")
    assert json.loads(get("state.json"))["posterior"] == [0.2, 0.8]
    assert get(page.state["drawn"])[:4] == b"\x89PNG"
    html = get("").decode()
    for needed in ('lang="en"', 'name="viewport"', "prefers-color-scheme: dark", "state.json"):
        assert needed in html
    assert "http" not in html.split("<script>")[1]


def test_the_command_replays_a_recording_and_writes_what_it_decided(tmp_path, capsys, decoder):
    profile = str(Path(__file__).parent / "profiles" / "small.yml")
    small = load_profile(profile, {"dataset.options.n_classes": 2})
    chapter = open_chapter("10_close_the_loop", small, tmp_path / "run", 1)
    names = ["Oz", "O1", "O2", "Pz", "P3", "P4"]
    chapter.dataset.prepare()
    classes = [*chapter.dataset.class_names, "cup"]
    decoder = decoder._replace(class_names=classes, ch_names=names)
    trials = {**HOW, "epoch": (0.0, 0.4), "order": 2, "standardize": True}
    decoder._replace(sfreq=250.0, preprocessing=trials).save(chapter.folder / "student.pt")
    command = ["live", "--profile", profile, "--run-dir", str(tmp_path / "run"), "--port", "0"]
    command += ["--set", "dataset.options.n_classes=2"]
    with pytest.raises(SystemExit):
        main(command)
    assert "--replay to try it without an amplifier" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*command, "--replay", "--speed", "6"])
    assert end.value.code == 0
    (path,) = (chapter.folder / "live").glob("decisions-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 24  # two blocks of twelve
    assert "decided: 24" in capsys.readouterr().out
    state = json.loads((chapter.folder / "live" / "state.json").read_text())
    assert state["marker"] == lines[-1]["marker"].split("/")[0]
    assert "simulated" in state["notice"]
    assert {"shown", "drawn"} <= set(state)
