"""Convert the UCI recordings (real EEG, trials already cut) to a BIDS data set for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mne_bids
import numpy as np
import pandas

from eeglib.datasets.bids_writer import write_recording

SHARED = Path(__file__).resolve().parents[2] / "shared/real/uci_eeg_objects/uci_eeg_objects.npz"
NOT_EEG = ("X", "Y", "nd")  # two channels of the eyes, and the reference, which is zero


def write_uci_bids(shared_npz: Path, folder: Path, subjects: Sequence[int] | None = None) -> Path:
    """Write subjects of the UCI data as one recording each, trials one after the other.

    ``subjects`` count from 1 in the order of their labels, which they keep; all by default.
    """
    with np.load(shared_npz, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    eeg = ~np.isin(arrays["ch_names"], NOT_EEG)
    names, sfreq = arrays["ch_names"][eeg].tolist(), float(arrays["sfreq"])
    labels = np.unique(arrays["subject"])
    for number in subjects or range(1, len(labels) + 1):
        own = np.flatnonzero(arrays["subject"] == labels[number - 1])
        own = own[np.argsort(arrays["trial"][own], kind="stable")]
        signals = arrays["X"][own][:, eeg] * np.float32(1e-6)
        n_trials, n_chans, n_times = signals.shape
        length = n_times / sfreq
        events = pandas.DataFrame(
            {
                "onset": np.arange(n_trials) * length,
                "duration": length,
                "trial_type": arrays["cond"][own],
                "trial": arrays["trial"][own],
            }
        )
        path = mne_bids.BIDSPath(
            root=folder,
            subject=str(labels[number - 1]),
            task="objects",
            datatype="eeg",
            suffix="eeg",
            extension=".vhdr",
        )
        write_recording(
            path,
            signals.transpose(1, 0, 2).reshape(n_chans, -1),
            names,
            sfreq,
            events,
            {"trial": "Number of the trial in the experiment"},
            {"RecordingType": "epoched", "EpochLength": length, "PowerLineFrequency": 60},
            resolution=0.05,
        )
    description = {
        "Name": "UCI EEG Database: pictures of objects",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "License": "see the UCI repository",
    }
    text = json.dumps(description, indent=2)
    (Path(folder) / "dataset_description.json").write_text(text, encoding="utf-8")
    return Path(folder)
