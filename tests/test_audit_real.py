"""The audit on real EEG: trials in random order, and one continuous recording."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from uci import NOT_EEG, SHARED

from eeglib.audit import controls
from eeglib.audit.card import conclude, run_audit
from eeglib.audit.features import audit_trials, with_time
from eeglib.audit.simulations import benchmark_tables
from eeglib.datasets import open_dataset
from eeglib.preprocessing import preprocess
from eeglib.profile import DatasetSettings

CONTINUOUS = SHARED.parents[1] / "eeglab_visual_attention/eeglab_data.set"


def test_the_accuracy_on_randomised_trials_survives_and_invented_blocks_are_reported():
    if not SHARED.is_file():
        pytest.skip("needs ../shared/real/uci_eeg_objects, which is not here")
    with np.load(SHARED, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    eeg = ~np.isin(arrays["ch_names"], NOT_EEG)
    names, whose = np.unique(arrays["subject"], return_inverse=True)
    accuracies, lost = [], []
    for subject in range(0, len(names), 8):
        own = np.flatnonzero(whose == subject)
        own = own[np.argsort(arrays["trial"][own], kind="stable")]
        label = np.unique(arrays["cond"], return_inverse=True)[1][own]
        metadata = pandas.DataFrame(
            {"session": 0, "block": -1, "order": np.arange(len(own)), "image": "", "label": label}
        )
        data = arrays["X"][own][:, eeg]
        data = (data - data[:, :, :15].mean(axis=2, keepdims=True))[:, :, :160]
        trials = audit_trials(data, 256.0, metadata, kind="amplitude")
        card = run_audit(trials, subject, controls=("clock",))
        assert conclude(card).kind == "independent of time"
        accuracies.append(card.control("accuracy").estimate)
        lost.append(card.control("temporal_distance").estimate)
    invented = controls.phantom_blocks(trials)
    assert {r["labels"] for r in invented.rows} == {"real", "phantom"}
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
    data, band = epochs.get_data(picks="eeg") * 1e6, (14.0, 62.0)
    trials = audit_trials(data, raw.info["sfreq"], metadata, band=band)
    found = controls.accuracy(trials, controls.predict(trials)[1])
    assert found.p_value < 0.01  # nobody was shown six classes
    assert not controls.phantom_blocks(trials).available


def test_the_audit_convicts_real_eeg_of_a_person_who_saw_nothing(tmp_path):
    settings = DatasetSettings(
        name="eegmmidb", subjects=(1,), options={"extract": True, "n_classes": 10}
    )
    nobody = open_dataset(settings, tmp_path)
    epochs = preprocess(nobody, 1, notch=(59, 61)).epochs
    metadata = with_time(epochs.metadata, nobody.trials(1))
    data, sfreq = epochs.get_data(copy=False), epochs.info["sfreq"]
    trials = audit_trials(data, sfreq, metadata, band=(14, 70), tmin=epochs.tmin)
    card = run_audit(trials, 1, controls=("clock", "signals", "share"))
    assert card.control("accuracy").low > 0.3  # chance 0.1
    assert conclude(card).kind == "confounded"
    assert card.control("temporal_distance").p_value < 0.01
    assert card.share.high > 0.5  # the bound is right, and worth little


def test_the_table_of_real_cuts_says_which_control_sees_a_clock():
    tables, sources = benchmark_tables()
    seen = tables["real"].set_index("control")
    assert "--real" in sources["real"]
    assert (seen["cuts"] >= 8).all()
    assert (seen["p < 0.01"] <= seen["p < 0.05"]).all()
    # The chapter says so of these cuts.
    assert seen.loc["4: gap in time", "p < 0.05"] >= 0.8 * seen["cuts"].iloc[0]
    assert seen.loc["5: errors and time", "p < 0.05"] < 0.5 * seen["cuts"].iloc[0]
