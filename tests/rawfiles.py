"""Write small files of amplifiers and of EEGLAB, right or wrong in one thing, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.io import savemat


def write_edf(
    path: Path,
    signals: Mapping[str, np.ndarray],
    sfreq: float,
    unit: str = "uV",
    kind: str = "",
    n_records: int | None = None,
) -> None:
    """Write signals as EDF or, by the name, BDF: steps of 0.1 ``unit``, records of a second.

    A signal of another length has another rate. A channel named Status is written in steps of 1.
    """
    is_bdf = path.suffix.lower() == ".bdf"
    seconds = len(next(iter(signals.values()))) // int(sfreq)
    top = 2**23 - 1 if is_bdf else 2**15 - 1
    steps = [1.0 if name == "Status" else 0.1 for name in signals]
    samples = [len(values) // seconds for values in signals.values()]
    n = len(signals)
    head = [b"\xffBIOSEMI" if is_bdf else b"0       ", b" " * 80, b" " * 80]
    head += [b"01.01.24", b"10.00.00", f"{256 * (n + 1):<8}".encode(), f"{kind:<44}".encode()]
    records = seconds if n_records is None else n_records
    head += [f"{records:<8}{1:<8}{n:<4}".encode()]
    columns = [(16, list(signals)), (80, [""] * n), (8, [unit] * n)]
    columns += [(8, [f"{-(top + 1) * s:.8g}"[:8] for s in steps])]
    columns += [(8, [f"{top * s:.8g}"[:8] for s in steps])]
    columns += [(8, [-top - 1] * n), (8, [top] * n), (80, [""] * n), (8, samples), (32, [""] * n)]
    for width, cells in columns:
        head += [f"{cell:<{width}}".encode() for cell in cells]
    blocks = []
    for second in range(seconds):
        for values, size, step in zip(signals.values(), samples, steps, strict=True):
            part = values[second * size : (second + 1) * size] / step
            whole = np.round(part).clip(-top - 1, top).astype("<i4")
            raw = whole.tobytes()
            width = 3 if is_bdf else 2
            blocks.append(np.frombuffer(raw, np.uint8).reshape(-1, 4)[:, :width].tobytes())
    path.write_bytes(b"".join([*head, *blocks]))


def write_set(
    path: Path,
    signals: np.ndarray,
    sfreq: float = 250.0,
    names: tuple[str, ...] = ("Fz", "Cz", "Oz"),
    types: tuple[str, ...] = (),
    data_file: str | None = None,
    tmin: float = -0.2,
) -> None:
    """Write microvolts, (n_chans, n_times) or (n_chans, n_times, n_trials), as EEGLAB's .set.

    The classes of trials are banana and canoe in turn. With ``data_file`` signals go there.
    """
    n_chans, n_times, *n_trials = signals.shape
    channels = np.zeros(n_chans, dtype=[(key, object) for key in ("labels", "type")])
    for number, name in enumerate(names):
        channels[number] = (name, types[number] if types else "")
    trials = n_trials[0] if n_trials else 1
    keys = ("type", "latency", "duration", "epoch")
    events = np.zeros(trials if n_trials else 0, dtype=[(key, object) for key in keys])
    for number in range(len(events)):
        latency = number * n_times + 1 - tmin * sfreq
        events[number] = (("banana", "canoe")[number % 2], latency, 0.0, number + 1)
    keys = ("event", "eventlatency", "eventtype", "eventduration")
    epochs = np.zeros(len(events), dtype=[(key, object) for key in keys])
    for number in range(len(events)):
        epochs[number] = (number + 1, 0.0, events[number][0], 0.0)
    start = tmin if n_trials else 0.0
    eeg = {
        "setname": "x", "srate": sfreq, "nbchan": n_chans, "pnts": n_times, "trials": trials,
        "xmin": start, "xmax": start + (n_times - 1) / sfreq,
        "times": (start + np.arange(n_times) / sfreq) * 1000,
        "data": data_file or signals.astype("float32"), "chanlocs": channels, "event": events,
        "epoch": epochs, "icawinv": [], "icaweights": [], "icasphere": [], "icachansind": [],
    }  # fmt: skip
    savemat(path, {"EEG": eeg}, appendmat=False)
    if data_file:
        path.with_name(data_file).write_bytes(signals.T.astype("<f4").tobytes())
