"""How the power of channels drifts in real EEG, and in the simulation that is fitted to it.

``python -m benchmarks simulator --data FOLDER`` cuts subject 1 of PhysioNet's EEGMMIDB, below whose
folder ``MNE-eegbci-data`` lies, into the blocks of the profile ``phantom``, simulates recordings of
the same design and channels without a response (``stimulus_strength`` 0, ``drift_strength`` 1), and
prints four numbers of both: for the whole, and median and range of stretches of ten blocks. They
are those of `eeglib.preprocessing.power_drift`, which says what they mean; what a whole recording
adds to a stretch are the breaks between its sessions. ``DRIFT`` and ``WHOLE`` in
`eeglib.datasets.simulation` were fitted by hand until they agreed. Without ``--data`` the real
stretch is the one that comes with the package. ``--figure FILE`` draws the blocks of both.

The pauses of the real blocks are invented, so that ``PAUSE_DRIFT`` cannot be measured here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas

from eeglib.datasets import open_dataset
from eeglib.plotting import plot_power_drift
from eeglib.preprocessing import power_drift, preprocess
from eeglib.profile import DatasetSettings, load_profile

STRETCH = 10
"""Blocks."""

EXTRA: dict[str, object] = {}
"""Other options of the simulation; tests make it small."""


def main(arguments: list[str]) -> int:
    """Measure both, print the table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks simulator", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="to simulate")
    parser.add_argument("--figure", type=Path, help="file to draw the blocks into")
    options = parser.parse_args(arguments)
    filtering = load_profile("phantom").filtering
    with tempfile.TemporaryDirectory(prefix="eeglib-simulator-") as scratch:
        real = _real(options.data, Path(scratch))
        recordings = {"real EEG": preprocess(real, 1, **_volts(filtering.notch)).epochs}
        for seed in options.seeds:
            simulated = _simulated(recordings["real EEG"], seed, Path(scratch, str(seed)))
            recordings[f"simulated, seed {seed}"] = preprocess(simulated, 1, **_volts()).epochs
    rows, blocks = {}, {}
    for name, epochs in recordings.items():
        whole, blocks[name] = power_drift(epochs)
        first = range(0, len(blocks[name]) - STRETCH + 1, STRETCH)
        stretches = pandas.DataFrame(
            power_drift(epochs[epochs.metadata["block"].between(k, k + STRETCH - 1).to_numpy()])[0]
            for k in first
        )
        rows[name, f"{len(blocks[name])} blocks"] = {k: f"{v:.3f}" for k, v in whole.items()}
        rows[name, f"{len(stretches)} x {STRETCH} blocks"] = {
            k: f"{v.median():.3f} ({v.min():.3f} to {v.max():.3f})" for k, v in stretches.items()
        }
    print(pandas.DataFrame(rows).to_string())
    if options.figure:
        plot_power_drift(dict(list(blocks.items())[:2])).savefig(options.figure)
    real, *simulated = (power_drift(epochs)[0] for epochs in recordings.values())
    mean = pandas.DataFrame(simulated).mean()
    closing = (f"{name.replace(' ', '_')}={mean[name]:.3f}/{real[name]:.3f}" for name in real)
    print("simulator " + " ".join(closing))
    return 0


def _volts(notch: tuple[float, float] = (49.0, 51.0)) -> dict[str, object]:
    return {"notch": notch, "standardize": False}


def _real(data: Path | None, scratch: Path):
    folder = data and next(data.rglob("MNE-eegbci-data"), None)
    options = {} if folder else {"extract": True, "n_classes": 10}
    root = folder and folder.parent.resolve()
    settings = DatasetSettings(name="eegmmidb", subjects=(1,), root=root, options=options)
    return open_dataset(settings, scratch)


def _simulated(real, seed: int, folder: Path):
    """A simulation of as many blocks, on the same channels."""
    options = {
        "n_classes": real.metadata["block"].nunique(),
        "classes_per_session": 4,  # as blocks fit into a run
        "pause": 6.0,
        "sfreq": 200,
        "channels": tuple(real.ch_names),
        "stimulus_strength": 0.0,
        "seed": seed,
        **EXTRA,
    }
    settings = DatasetSettings(name="simulated", subjects=(1,), options=options)
    dataset = open_dataset(settings, folder)
    dataset.prepare()
    return dataset
