"""Memory and time of the loaders and features against the way of the field.

``python -m benchmarks data`` writes full-size twins of the real files (noise with their structure;
about 15 GB of disk for a while) and measures, each in a process of its own: one subject of
EEG-ImageNet in both forms that torch writes, after the one-time conversion that the first use
makes, against ``torch.load`` of the whole file; filters,
standardisation and STFT of 2,000 trials against a loop of ``mne.filter`` and
``scipy.signal.stft``; and one subject of THINGS-EEG2. ``--size 0.05`` is a quick trial.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RAW = "eeg_signals_raw_with_mean_std.pth"
SUBJECT = 4
ALLOWANCE = 300e6
"""Memory that Python and its libraries may take, bytes."""


def main(arguments: list[str]) -> int:
    """Write the twins, measure, print the table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks data", description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--folder", type=Path, help="where the twins are written for a while")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        print(json.dumps(STEPS[options.step[0]](*options.step[1:])))
        return 0
    with tempfile.TemporaryDirectory(prefix="eeglib-data-", dir=options.folder) as folder:
        closing = _imagenet(Path(folder), options.size)
        closing |= _features(Path(folder), options.size)
        _things(Path(folder), options.size)
    print("data " + " ".join(f"{key}={value:.4g}" for key, value in closing.items()))
    return 0


def _imagenet(folder: Path, size: float) -> dict[str, float]:
    results = {}
    for form in ("zip", "legacy"):
        _run("write_imagenet", folder / form, size, form)
        _warm(folder / form / RAW)
        first = _run("first_use", folder / form)
        ours = _run("one_subject", folder / form)
        theirs = _run("torch_load", folder / form / RAW)
        if ours["sum"] != theirs["sum"]:
            raise SystemExit(f"{form}: eeglib and torch do not read the same numbers")
        (folder / form / RAW).unlink()
        results[form] = (ours, theirs)
        gigabytes = theirs["bytes"] / 1e9
        print(f"EEG-ImageNet, {form} form, file {gigabytes:.2f} GB, one subject "
              f"{ours['bytes'] / 1e6:.0f} MB in the file, {ours['trials']} trials:")  # fmt: skip
        _row("eeglib, first use: checksum, conversion", first)
        _row("eeglib, one subject", ours)
        _row("torch.load of the whole", theirs)
    shares = [(o["peak"] - ALLOWANCE) / o["bytes"] for o, _ in results.values()]
    return {
        "load_rss_share": max(shares),
        "load_rss_vs_torch": min(t["peak"] / o["peak"] for o, t in results.values()),
        "load_s": max(o["seconds"] for o, _ in results.values()),
    }


def _features(folder: Path, size: float) -> dict[str, float]:
    n_trials = max(20, int(2000 * size))
    ours = _run("features", "eeglib", n_trials, folder / "ours.npy")
    theirs = _run("features", "field", n_trials, folder / "theirs.npy")
    a, b = (np.load(folder / name, mmap_mode="r") for name in ("ours.npy", "theirs.npy"))
    largest = max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))
    print(f"Filter, standardise and STFT of {n_trials} x 128 x 500:")
    _row("eeglib", ours)
    _row("loop of mne.filter and scipy.signal.stft", theirs)
    memory = (ours["peak"] - ours["before"]) / ours["bytes"]
    print(f"  memory beyond the input: {memory:.2f} x the output; largest difference {largest:.1e}")
    return {
        "features_speedup": theirs["seconds"] / ours["seconds"], "features_max_diff": largest
    }  # fmt: skip


def _things(folder: Path, size: float) -> None:
    _run("write_things", folder / "things", size)
    path = folder / "things" / "sub-01" / "preprocessed_eeg_training.npy"
    _warm(path)
    ours = _run("things_subject", folder / "things")
    print(f"THINGS-EEG2 training file, {path.stat().st_size / 1e9:.2f} GB:")
    _row(f"eeglib, {ours['trials']} presentations in single precision", ours)
    print("  np.load(allow_pickle=True) holds the whole file, while it loads twice; not run")
    path.unlink()


def write_imagenet(folder: str, size: str, form: str) -> dict:
    """Write the twin of the raw EEG-ImageNet file."""
    twins = _twins()
    Path(folder).mkdir(parents=True)
    images = max(3, round(50 * float(size)))
    full = images == 50
    content = twins.eeg_imagenet(
        **twins.FULL | {"images_per_class": images},
        lengths=None, missing_images=4 if full else 0, missing_trials=11 if full else 0,
    )  # fmt: skip
    twins.write_torch(Path(folder) / RAW, content, form == "zip")
    return {"trials": len(content["dataset"])}


def first_use(folder: str) -> dict:
    """Check a file that was just downloaded, as chapter 1 does once."""
    started = time.perf_counter()
    from eeglib.datasets import open_dataset
    from eeglib.profile import DatasetSettings

    open_dataset(DatasetSettings(name="eeg_imagenet"), Path(folder)).prepare()
    return {"seconds": time.perf_counter() - started, "peak": _peak()}


def one_subject(folder: str) -> dict:
    """Open the data set and hold every trial of a subject, in single precision."""
    started = time.perf_counter()
    from eeglib.datasets import open_dataset
    from eeglib.profile import DatasetSettings

    dataset = open_dataset(DatasetSettings(name="eeg_imagenet"), Path(folder))
    epochs = dataset.epochs(SUBJECT)
    seconds, peak = time.perf_counter() - started, _peak()
    signals = np.fromfile(dataset._converted / f"sub-{SUBJECT}.float32", np.float32)
    table = dataset._table[dataset._table["subject"] == SUBJECT]
    n_chans = len(epochs.ch_names)
    first, last = (n_chans * table["length"].iloc[row] for row in (0, -1))
    return {
        "seconds": seconds, "peak": peak, "trials": len(epochs), "bytes": signals.nbytes,
        "sum": _sum(signals[:first], signals[-last:]),
    }  # fmt: skip


def torch_load(path: str) -> dict:
    """Load the whole file, as public code for these data does, and pick a subject's trials."""
    started = time.perf_counter()
    import torch

    content = torch.load(path, weights_only=True)
    own = [trial for trial in content["dataset"] if trial["subject"] == SUBJECT]
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds, "peak": _peak(), "bytes": Path(path).stat().st_size,
        "sum": _sum(own[0]["eeg"].numpy(), own[-1]["eeg"].numpy()),
    }  # fmt: skip


def features(way: str, n_trials: str, path: str) -> dict:
    """Notch, band-pass, z-scores and STFT; the result goes to ``path``."""
    import mne
    from scipy import signal

    from eeglib import preprocessing, timefrequency

    rng = np.random.default_rng(0)
    trials = rng.standard_normal((int(n_trials), 128, 500), dtype=np.float32)
    design = {"order": 2, "ftype": "butter", "output": "sos"}
    whole = {"boundary": None, "padded": False}
    mne.filter.filter_data(trials[0, :1].astype(float), 1000, 14, 70, method="iir", verbose="error")
    before, started = _peak(), time.perf_counter()
    result = np.empty((len(trials), 128, 21, 24), np.float32)
    at_once = 100 if way == "eeglib" else 1
    for first in range(0, len(trials), at_once):
        part = slice(first, first + at_once)
        if way == "eeglib":
            clean = trials[part]
            preprocessing.filter_trials(clean, 1000, notch=(49, 51), band=(14, 70))
            clean = (clean - clean.mean(-1, keepdims=True)) / clean.std(-1, keepdims=True)
            result[part] = timefrequency.spectrograms(clean, 1000)
            continue
        clean = trials[first].astype(np.float64)
        for low, high in ((51, 49), (14, 70)):
            clean = mne.filter.filter_data(
                clean, 1000, low, high, method="iir", iir_params=dict(design), verbose="error"
            )
        clean = (clean - clean.mean(-1, keepdims=True)) / clean.std(-1, keepdims=True)
        result[first] = np.abs(signal.stft(clean, 1000, nperseg=40, noverlap=20, **whole)[2])
    seconds, peak = time.perf_counter() - started, _peak()
    np.save(path, result)
    return {"seconds": seconds, "peak": peak, "before": before, "bytes": result.nbytes}


def write_things(folder: str, size: str) -> dict:
    """Write the twin of a THINGS-EEG2 training file and its image lists."""
    twins = _twins()
    n_concepts = max(3, round(1654 * float(size)))
    path = Path(folder) / "sub-01" / "preprocessed_eeg_training.npy"
    twins.write_full_things(path, (10 * n_concepts, 4, 63, 250))
    concepts = [f"concept {n:04d}" for n in range(n_concepts)]
    twins.write_image_metadata(Path(folder) / "image_metadata.npy", concepts, 10)
    return {}


def things_subject(folder: str) -> dict:
    """Open one subject and hold every presentation, in single precision."""
    started = time.perf_counter()
    from eeglib.datasets import open_dataset
    from eeglib.profile import DatasetSettings

    dataset = open_dataset(DatasetSettings(name="things_eeg2", subjects=(1,)), Path(folder))
    epochs = dataset.epochs(1)
    return {"seconds": time.perf_counter() - started, "peak": _peak(), "trials": len(epochs)}


STEPS = {
    f.__name__: f
    for f in (
        write_imagenet, first_use, one_subject, torch_load, features, write_things, things_subject
    )
}  # fmt: skip


def _run(step: str, *arguments: object) -> dict:
    command = [sys.executable, "-m", "benchmarks", "data", "--step", step, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _peak() -> float:
    """Largest resident memory of this process, bytes (of this program, not of its parent)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _warm(path: Path) -> None:
    """Read a file once, so that all ways find it in the page cache."""
    with open(path, "rb") as file:
        while file.read(2**24):
            pass


def _sum(*arrays: np.ndarray) -> float:
    return float(sum(array.astype(np.float64).sum() for array in arrays))


def _row(name: str, result: dict) -> None:
    print(f"  {name:<50} {result['seconds']:8.2f} s {result['peak'] / 1e6:10.0f} MB at most")


def _twins():
    sys.path.insert(0, str(ROOT / "tests"))
    import twins

    return twins
