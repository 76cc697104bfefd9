"""Filters and trials: known answers for sinusoids, joints, edges, and unusable input."""

import logging

import mne
import numpy as np
import pandas
import pytest

from eeglib.datasets import METADATA, Recording
from eeglib.filtering import (
    SignalError,
    bandpass_filter,
    cut_epochs,
    filter_epochs,
    filter_recording,
    filter_response,
    notch_and_bandpass,
    notch_filter,
    standardize,
)
from eeglib.profile import FilteringSettings

SFREQ = 1000.0


def sinusoid(frequency, seconds=4.0, sfreq=SFREQ):
    times = np.arange(round(seconds * sfreq)) / sfreq
    return np.sin(2 * np.pi * frequency * times)


def recording(seconds=20.0, sfreq=SFREQ, onsets=(1.0, 2.0, 3.0), n_chans=3, seed=0, **columns):
    rng = np.random.default_rng(seed)
    info = mne.create_info(
        [f"E{i}" for i in range(n_chans)] + ["eye"], sfreq, ["eeg"] * n_chans + ["eog"]
    )
    data = 1e-5 * rng.standard_normal((n_chans + 1, round(seconds * sfreq))) + 3e-5
    raw = mne.io.RawArray(data, info, verbose=False)
    n = len(onsets)
    trials = pandas.DataFrame(
        {
            "onset": onsets,
            "subject": 1,
            "session": 0,
            "block": 0,
            "order": range(n),
            "image": [f"picture_{i}" for i in range(n)],
            "label": [i % 2 for i in range(n)],
            "class_name": [("dog", "cup")[i % 2] for i in range(n)],
        }
        | columns
    )
    return Recording(raw, trials)


@pytest.mark.parametrize(
    ("frequency", "low", "high"), [(5, 0, 0.01), (30, 0.98, 1.02), (150, 0, 0.05)]
)
def test_bandpass_keeps_only_its_band(frequency, low, high):
    wave = sinusoid(frequency)
    middle = slice(1000, 3000)
    gain = bandpass_filter(wave, SFREQ, 14, 70)[middle].std() / wave[middle].std()
    assert low <= gain <= high


def test_bandpass_does_not_shift_in_time():
    wave = sinusoid(30)
    filtered = bandpass_filter(wave, SFREQ, 14, 70)
    assert np.abs(filtered - wave)[1000:3000].max() < 0.02


def test_notch_removes_mains_and_leaves_neighbours():
    mains, near = sinusoid(50, 10), sinusoid(40, 10)
    middle = slice(3000, 7000)
    filtered = notch_filter(mains + near, SFREQ, 49, 51)
    assert np.abs(filtered - near)[middle].max() < 0.01


@pytest.mark.parametrize(
    ("kind", "apply", "band"),
    [("bandpass", bandpass_filter, (14, 70)), ("bandstop", notch_filter, (49, 51))],
)
def test_response_is_what_the_filter_does_and_halves_at_the_edges(kind, apply, band):
    impulse = np.zeros(20001)
    impulse[10000] = 1
    spectrum = np.abs(np.fft.rfft(apply(impulse, SFREQ, *band)))
    frequencies = np.fft.rfftfreq(len(impulse), 1 / SFREQ)
    gain = filter_response(frequencies, SFREQ, *band, 2, kind)
    np.testing.assert_allclose(spectrum, gain, atol=2e-3)
    np.testing.assert_allclose(filter_response(band, SFREQ, *band, 2, kind), 0.5, atol=1e-6)


def test_chunks_and_precision_do_not_change_the_result(monkeypatch):
    data = np.random.default_rng(0).standard_normal((5, 7, 600))
    whole = bandpass_filter(data, SFREQ, 14, 70)
    monkeypatch.setattr("eeglib.butterworth.CHUNK", 600)
    np.testing.assert_array_equal(bandpass_filter(data, SFREQ, 14, 70), whole)
    single = bandpass_filter(data.astype(np.float32), SFREQ, 14, 70)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, whole, atol=1e-5)


def test_short_trials_are_filtered_with_what_padding_they_can_give():
    wave = sinusoid(30, seconds=1, sfreq=256)
    filtered = notch_filter(bandpass_filter(wave, 256, 14, 70), 256, 49, 51)
    assert np.abs(filtered - wave)[25:-25].max() < 0.02


@pytest.mark.parametrize(
    ("data", "sfreq", "band", "words"),
    [
        (np.zeros(1000), 100, (14, 70), "half the sampling rate"),
        (np.zeros(1000), 1000, (70, 14), "ascend"),
        (np.zeros(1000), 1000, (0, 70), "between 0"),
        (np.zeros(10), 1000, (14, 70), "too short"),
        (np.full(1000, np.nan), 1000, (14, 70), "1000 of 1000 values are not finite"),
        (np.array(3.0), 1000, (14, 70), "shape"),
        (np.zeros(1000, dtype=complex), 1000, (14, 70), "real numbers"),
    ],
)
def test_unusable_signals_are_refused(data, sfreq, band, words):
    with pytest.raises(SignalError, match=words):
        bandpass_filter(data, sfreq, *band)


def test_standardize_gives_zero_mean_unit_variance_and_survives_flat_channels():
    data = np.random.default_rng(0).normal(5, 3, (4, 2, 500))
    data[1, 0] = 0.1
    scaled = standardize(data)
    np.testing.assert_allclose(scaled.mean(axis=-1), 0, atol=1e-10)
    expected = np.ones((4, 2))
    expected[1, 0] = 0
    np.testing.assert_allclose(scaled.std(axis=-1), expected, atol=1e-10)


def test_recording_is_filtered_in_volts_and_left_alone_itself():
    source = recording().raw
    before = source.get_data().copy()
    filtered = filter_recording(source, FilteringSettings())
    np.testing.assert_array_equal(source.get_data(), before)
    expected = bandpass_filter(notch_filter(before[:3], SFREQ, 49, 51), SFREQ, 14, 70)
    np.testing.assert_allclose(filtered.get_data(picks="eeg"), expected, atol=1e-12)
    np.testing.assert_array_equal(filtered.get_data(picks="eog"), before[3:])


def test_stretches_on_both_sides_of_a_joint_are_filtered_by_themselves():
    pieces = [recording(seconds=5, seed=seed).raw for seed in (0, 1)]
    pieces[1].apply_function(lambda x: x + 1e-3)  # a jump that would ring
    alone = [filter_recording(piece, FilteringSettings()).get_data() for piece in pieces]
    joined = mne.concatenate_raws([piece.copy() for piece in pieces], verbose=False)
    together = filter_recording(joined, FilteringSettings()).get_data()
    np.testing.assert_allclose(together[:3], np.concatenate(alone, axis=1)[:3], atol=1e-15)


def test_a_bad_channel_is_named():
    raw = recording().raw
    raw.apply_function(lambda x: np.where(np.arange(len(x)) == 7, np.nan, x), picks=["E1"])
    with pytest.raises(SignalError, match="Channel E1: 1 of"):
        filter_recording(raw, FilteringSettings())


def test_no_eeg_channel_is_an_error():
    raw = recording().raw.pick("eog")
    with pytest.raises(SignalError, match="no EEG channel"):
        filter_recording(raw, FilteringSettings())


def test_trials_are_cut_end_exclusive_with_metadata_and_labels_as_codes():
    source = recording(onsets=(1.0, 2.5, 4.0))
    settings = FilteringSettings(standardize=False)
    epochs = cut_epochs([source], settings)
    assert epochs.get_data(copy=False).shape == (3, 3, 500)
    expected = source.raw.get_data(picks="eeg")[:, 2500:3000]
    np.testing.assert_allclose(epochs.get_data(copy=False)[1], expected)
    assert list(epochs.metadata.columns) == list(METADATA)
    assert epochs.event_id == {"dog": 0, "cup": 1}
    np.testing.assert_array_equal(epochs.events[:, 2], epochs.metadata["label"])
    assert epochs.times[0] == 0


def test_trials_are_standardised_by_recording():
    source = recording(onsets=(1.0, 2.5))
    epochs = cut_epochs([source], FilteringSettings())
    expected = standardize(source.raw.get_data(picks="eeg"))[:, 1000:1500]
    np.testing.assert_allclose(epochs.get_data(copy=False)[0], expected)


def test_trials_outside_on_a_joint_or_bad_are_left_out_and_counted(caplog):
    joined = mne.concatenate_raws(
        [recording(seconds=5).raw, recording(seconds=5).raw], verbose=False
    )
    joined.annotations.append(7.0, 0.5, "BAD movement")
    onsets = (-0.2, 1.0, 4.8, 5.0, 7.2, 8.0, 9.6)
    trials = recording(onsets=onsets).trials
    with caplog.at_level(logging.WARNING):
        epochs = cut_epochs([Recording(joined, trials)], FilteringSettings())
    assert epochs.metadata["order"].tolist() == [1, 3, 5]
    assert [log for log in epochs.drop_log if log] == [
        ("OUTSIDE",),
        ("JOINT",),
        ("BAD",),
        ("OUTSIDE",),
    ]
    assert "4 of 7 trials: 2 outside the recording, 1 across a joint" in caplog.text


def test_a_subject_is_put_together_from_recordings_and_survives_the_disk(tmp_path):
    epochs = cut_epochs([recording(seed=0), recording(seed=1)], FilteringSettings())
    assert len(np.unique(epochs.events[:, 0])) == 6
    epochs.save(tmp_path / "epochs-epo.fif", verbose=False)
    again = mne.read_epochs(tmp_path / "epochs-epo.fif", verbose=False)
    pandas.testing.assert_frame_equal(
        again.metadata.reset_index(drop=True),
        epochs.metadata.reset_index(drop=True),
        check_dtype=False,
    )
    np.testing.assert_allclose(again.get_data(copy=False), epochs.get_data(copy=False), atol=1e-5)


def test_an_epoch_before_the_image_starts_before_the_event():
    epochs = cut_epochs([recording()], FilteringSettings(epoch=(-0.1, 0.4), standardize=False))
    assert epochs.tmin == -0.1
    assert epochs.events[0, 0] == 1000
    assert len(epochs.times) == 500


def test_recordings_that_do_not_go_together_are_refused():
    with pytest.raises(SignalError, match="Recording 1 has 500 Hz"):
        cut_epochs([recording(), recording(sfreq=500.0)], FilteringSettings())
    with pytest.raises(SignalError, match="differ in their EEG channels"):
        cut_epochs([recording(), recording(n_chans=2)], FilteringSettings())
    with pytest.raises(SignalError, match="no recording"):
        cut_epochs([], FilteringSettings())
    with pytest.raises(SignalError, match="2 outside the recording"):
        cut_epochs([recording(onsets=(50.0, 60.0))], FilteringSettings())
    incomplete = recording()
    with pytest.raises(SignalError, match="lack the columns"):
        cut_epochs(
            [Recording(incomplete.raw, incomplete.trials.drop(columns="image"))],
            FilteringSettings(),
        )


def test_distributed_trials_are_filtered_one_by_one():
    epochs = cut_epochs(
        [recording(onsets=np.arange(1, 9))], FilteringSettings(standardize=False, epoch=(0, 0.8))
    )
    settings = FilteringSettings(epoch=(0.1, 0.6))
    result = filter_epochs(epochs, settings)
    data = result.get_data(copy=False)
    assert data.shape == (8, 3, 500)
    assert result.tmin == 0.1
    np.testing.assert_allclose(data.mean(axis=(0, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(data.std(axis=(0, 2)), 1)
    one = filter_epochs(epochs[2:3], FilteringSettings(epoch=(0.1, 0.6), standardize=False))
    same = filter_epochs(epochs, FilteringSettings(epoch=(0.1, 0.6), standardize=False))
    np.testing.assert_allclose(one.get_data(copy=False)[0], same.get_data(copy=False)[2])
    with pytest.raises(SignalError, match=r"run from 0 to 0\.8 s"):
        filter_epochs(epochs, FilteringSettings(epoch=(0, 1.0)))


@pytest.mark.parametrize("n_trials", [3, 2500])
@pytest.mark.parametrize("bands", [((49, 51), (14, 70)), (None, (14, 70)), ((49, 51), None)])
def test_both_filters_at_once_are_one_after_the_other(n_trials, bands):
    data = np.random.default_rng(0).normal(0, 1, (n_trials, 400))
    expected = data
    if bands[0]:
        expected = notch_filter(expected, SFREQ, *bands[0])
    if bands[1]:
        expected = bandpass_filter(expected, SFREQ, *bands[1])
    np.testing.assert_allclose(notch_and_bandpass(data, SFREQ, *bands), expected, atol=1e-9)


def test_no_filter_leaves_signals_as_they_are():
    data = np.random.default_rng(0).normal(0, 1, (3, 20)).astype(np.float32)
    unchanged = notch_and_bandpass(data, SFREQ, None, None)
    assert unchanged.dtype == np.float32
    np.testing.assert_array_equal(unchanged, data)
