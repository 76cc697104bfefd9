"""The audit on real EEG: trials in random order, and one continuous recording."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from uci import NOT_EEG, SHARED

from eeglib.audit import controls
from eeglib.audit.card import conclude, run_audit
from eeglib.audit.features import audit_trials

CONTINUOUS = SHARED.parents[1] / "eeglab_visual_attention/eeglab_data.set"


def test_the_accuracy_on_randomised_trials_survives_and_invented_blocks_are_reported():
    if not SHARED.is_file():
        pytest.skip("needs ../shared/real/uci_eeg_objects, which is not here")
    with np.load(SHARED, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    eeg = ~np.isin(arrays["ch_names"], NOT_EEG)
    names, whose = np.unique(arrays["subject"], return_inverse=True)
    accuracies, lost = [], []
    for subject in range(0, len(names), 4):
        own = np.flatnonzero(whose == subject)
        own = own[np.argsort(arrays["trial"][own], kind="stable")]
        label = np.unique(arrays["cond"], return_inverse=True)[1][own]
        metadata = pandas.DataFrame(
            {"session": 0, "block": -1, "order": np.arange(len(own)), "image": "", "label": label}
        )
        data = arrays["X"][own][:, eeg]
        data = data - data[:, :, :15].mean(axis=2, keepdims=True)
        trials = audit_trials(data, 256.0, metadata, kind="amplitude")
        card = run_audit(trials, subject, controls=("clock", "comparisons"))
        assert conclude(card).kind == "independent of time"
        assert {r["labels"] for r in card.control("phantom_blocks").rows} == {"real", "phantom"}
        accuracies.append(card.control("accuracy").estimate)
        lost.append(card.control("temporal_distance").estimate)
    assert np.mean(accuracies) > 0.5  # chance 0.33
    assert abs(np.mean(lost)) < 0.15


def test_blocks_invented_in_a_continuous_recording_are_decoded():
    if not CONTINUOUS.is_file():
        pytest.skip("needs ../shared/real/eeglab_visual_attention, which is not here")
    import mne

    raw = mne.io.read_raw_eeglab(CONTINUOUS, preload=True, verbose="error")
    onsets = np.concatenate([35 * block + 0.5 * np.arange(50) for block in range(6)])
    events = np.c_[np.round(onsets * raw.info["sfreq"]), 0 * onsets, 0 * onsets].astype(int)
    epochs = mne.Epochs(
        raw, events, tmin=0, tmax=0.49, baseline=None, preload=True, verbose="error"
    )
    label = np.repeat(np.arange(6), 50)
    metadata = pandas.DataFrame(
        {"session": 0, "block": label, "order": np.arange(300), "image": "", "label": label}
    ).assign(time=onsets)
    trials = audit_trials(epochs.get_data(picks="eeg") * 1e6, raw.info["sfreq"], metadata)
    found = controls.accuracy(trials, controls.predict(trials)[1])
    assert found.p_value < 0.01  # nobody was shown six classes
    assert not controls.phantom_blocks(trials).available
