"""Filters and trials: known answers for sinusoids, joints, edges, and unusable input."""

from types import SimpleNamespace

import mne
import numpy as np
import pandas
import pytest
from mne.io.constants import FIFF
from scipy import signal

from eeglib.datasets import METADATA, Recording
from eeglib.preprocessing import (
    SignalError,
    filter_gains,
    filter_signals,
    filter_trials,
    posterior_channel,
    preprocess,
    spread_channels,
)

SFREQ = 1000.0


def recording(seconds=20.0, sfreq=SFREQ, onsets=(1.0, 2.5, 4.0), n_chans=3, seed=0):
    rng = np.random.default_rng(seed)
    names, kinds = [f"E{i}" for i in range(n_chans)] + ["eye"], ["eeg"] * n_chans + ["eog"]
    data = 1e-5 * rng.standard_normal((n_chans + 1, round(seconds * sfreq))) + 3e-5
    raw = mne.io.RawArray(data, mne.create_info(names, sfreq, kinds), verbose=False)
    number = np.arange(len(onsets))
    fixed = {"subject": 1, "session": 0, "block": 0}
    trials = pandas.DataFrame({"onset": onsets, **fixed, "order": number, "label": number % 2})
    trials["image"] = [f"picture_{n}" for n in number]
    trials["class_name"] = [("dog", "cup")[n % 2] for n in number]
    return Recording(raw, trials[["onset", *METADATA]])


def dataset(*recordings, epochs=None, processed=()):
    """What `preprocess` asks a data set for."""
    trials = pandas.concat([r.trials for r in recordings]) if recordings else epochs.metadata
    return SimpleNamespace(
        continuous=epochs is None,
        processed=processed,
        recordings=lambda subject: list(recordings),
        epochs=lambda subject: epochs,
        trials=lambda subject: trials,
        report=lambda: [],
    )


def cut_trials(n_trials=8, n_times=800, tmin=0.0):
    trials = recording(onsets=np.arange(n_trials)).trials.drop(columns="onset")
    events = np.column_stack([np.arange(n_trials), np.zeros(n_trials, int), trials["label"]])
    data = 1e-5 * np.random.default_rng(0).standard_normal((n_trials, 3, n_times))
    return mne.EpochsArray(
        data, mne.create_info(3, SFREQ, "eeg"), events, tmin, {"dog": 0, "cup": 1},
        metadata=trials, verbose=False,
    )  # fmt: skip


def independent(data, sfreq=SFREQ, notch=(49, 51), band=(14, 70), order=2):
    """Both filters by scipy alone, ends continued as far as the filter rings (to 1/1000)."""
    for kind, bounds in (("bandstop", notch), ("bandpass", band)):
        if bounds is not None:
            sos = signal.butter(order, bounds, kind, fs=sfreq, output="sos")
            ringing = mne.filter.estimate_ringing_samples(sos)
            data = signal.sosfiltfilt(sos, data, padlen=min(ringing, data.shape[-1] - 1))
    return data


@pytest.mark.parametrize("frequency", [5, 7, 30, 150])
def test_a_sinusoid_passes_as_the_formula_says_and_is_not_delayed(frequency):
    wave = np.sin(2 * np.pi * frequency * np.arange(10_000) / SFREQ)
    middle = slice(4000, 6000)
    # Four poles, warped by the bilinear transform, forwards and backwards.
    f, low, high = np.tan(np.pi * np.array([frequency, 14, 70]) / SFREQ)
    gain = 1 / (1 + ((f**2 - low * high) / (f * (high - low))) ** 4)
    filtered = filter_signals(wave, SFREQ, None, (14, 70))
    np.testing.assert_allclose(filtered[middle], gain * wave[middle], atol=1e-4)
    gains = filter_gains(np.array([frequency]), SFREQ, None, (14, 70))
    assert gains["band-pass 14–70 Hz"] == pytest.approx(gain)


def test_the_notch_removes_the_mains_and_leaves_its_neighbours():
    mains, near = np.sin(2 * np.pi * np.outer([50, 40], np.arange(10_000) / SFREQ))
    filtered = filter_signals(mains + near, SFREQ, (49, 51), None)
    assert np.abs(filtered - near)[3000:7000].max() < 0.01


@pytest.mark.parametrize(
    "filters", [{}, {"notch": None, "band": (0.5, 40)}, {"band": None}, {"order": 3}]
)
def test_recordings_and_trials_are_filtered_as_scipy_does(filters):
    source = recording()
    expected = independent(source.raw.get_data(picks="eeg"), **filters)
    done = preprocess(dataset(source), 1, **filters, standardize=False)
    np.testing.assert_allclose(done.after.get_data(), expected, rtol=0, atol=1e-12 * 1e-5)
    np.testing.assert_allclose(done.epochs.get_data()[1], expected[:, 2500:3000], atol=1e-17)
    trials = np.random.default_rng(0).standard_normal((4, 3, 400))
    expected = independent(trials, **filters)
    filter_trials(trials, SFREQ, **{"notch": (49, 51), "band": (14, 70), **filters})
    np.testing.assert_allclose(trials, expected, rtol=0, atol=1e-12)


def test_a_recording_is_left_as_it_was():
    source = recording()
    before = source.raw.get_data().copy()
    done = preprocess(dataset(source), 1)
    np.testing.assert_array_equal(source.raw.get_data(), before)
    np.testing.assert_array_equal(done.before.get_data(), before[:3])


def test_stretches_on_both_sides_of_a_joint_are_filtered_by_themselves():
    pieces = [recording(seconds=5, seed=seed) for seed in (0, 1)]
    pieces[1].raw.apply_function(lambda x: x + 1e-3)  # a jump that would ring
    alone = [preprocess(dataset(piece), 1).after.get_data() for piece in pieces]
    joined = mne.concatenate_raws([piece.raw.copy() for piece in pieces], verbose=False)
    together = preprocess(dataset(Recording(joined, pieces[0].trials)), 1).after.get_data()
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-17)


@pytest.mark.parametrize("epoch", [(0.0, 0.5), (0.02, 0.46), (-0.1, 0.4)])
@pytest.mark.parametrize("already_cut", [False, True])
def test_times_count_from_the_image_and_the_end_is_not_included(epoch, already_cut):
    source = dataset(epochs=cut_trials(tmin=-0.2)) if already_cut else dataset(recording())
    done = preprocess(source, 1, epoch=epoch)
    assert done.epochs.tmin == epoch[0]
    assert len(done.epochs.times) == round((epoch[1] - epoch[0]) * SFREQ)
    whole = preprocess(source, 1, epoch=(-0.1, 0.5), standardize=False).epochs
    part = preprocess(source, 1, epoch=epoch, standardize=False).epochs
    first = round((epoch[0] + 0.1) * SFREQ)
    expected = whole.get_data()[..., first : first + len(part.times)]
    np.testing.assert_allclose(part.get_data(), expected, atol=1e-17)


def test_metadata_and_labels_travel_with_the_trials():
    epochs = preprocess(dataset(recording()), 1).epochs
    assert list(epochs.metadata.columns) == list(METADATA)
    assert epochs.event_id == {"0": 0, "1": 1}
    np.testing.assert_array_equal(epochs.events[:, 2], epochs.metadata["label"])
    assert epochs.ch_names == ["E0", "E1", "E2"]


def test_any_name_of_a_class_comes_back_from_the_file(tmp_path):
    names = ["face/famous; old: 1", "苹果", "50%_off $x^2$ <b>"]
    source = recording()
    source.trials["class_name"] = np.resize(names, len(source.trials))
    source.trials["label"] = np.arange(len(source.trials)) % 3
    epochs = preprocess(dataset(source), 1).epochs
    epochs.save(tmp_path / "x-epo.fif")
    read = mne.read_epochs(tmp_path / "x-epo.fif", verbose="error")
    assert set(read.metadata["class_name"]) <= set(names)
    assert list(read.metadata["class_name"]) == list(epochs.metadata["class_name"])


def test_each_channel_is_standardised_over_its_recording_and_a_flat_one_is_zero():
    source = recording()
    source.raw.apply_function(lambda x: np.full_like(x, 0.1), picks=["E1"])
    epochs = preprocess(dataset(source), 1, notch=None, band=None).epochs
    data = source.raw.get_data(picks="eeg")
    expected = (data - data.mean(1, keepdims=True)) / data.std(1, keepdims=True)
    expected[1] = 0
    np.testing.assert_allclose(epochs.get_data()[0], expected[:, 1000:1500], atol=1e-12)


def test_trials_already_cut_are_filtered_one_by_one_and_standardised_together():
    epochs = cut_trials()
    done = preprocess(dataset(epochs=epochs), 1, epoch=(0.1, 0.6))
    data = done.epochs.get_data()
    assert 1e-6 < done.after.get_data().std() < 1e-5  # volts still
    assert data.shape == (8, 3, 500)
    np.testing.assert_allclose(data.mean(axis=(0, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(data.std(axis=(0, 2)), 1)
    plain = {"epoch": (0.1, 0.6), "standardize": False}
    one = preprocess(dataset(epochs=epochs[2:3]), 1, **plain).epochs.get_data()
    same = preprocess(dataset(epochs=epochs), 1, **plain).epochs.get_data()
    np.testing.assert_allclose(one[0], same[2], atol=1e-17)


def test_trials_outside_across_a_joint_or_bad_are_left_out_and_counted():
    source, empty = (
        recording(9, onsets=(-0.2, 1, 2.8, 4.8, 5.0, 7.2, 8, 8.6)),
        recording(onsets=(50,)),
    )
    marks = ["EDGE boundary", "EDGE boundary", "BAD movement"]
    source.raw.set_annotations(mne.Annotations([3.0, 5.0, 7.0], [0, 0, 0.5], marks))
    done = preprocess(dataset(source, empty), 1)
    assert done.epochs.metadata["order"].tolist() == [1, 4, 6]
    assert [bool(reasons) for reasons in done.epochs.drop_log] == [1, 0, 1, 1, 0, 1, 0, 1, 1]
    assert done.report[-2:] == [
        "Trials kept: 3 of 9.",
        "Trials left out: 3 outside the recording, 2 across a joint, 1 BAD movement.",
    ]


def test_bad_stretches_have_no_part_in_the_scores():
    source = recording()
    clean = preprocess(dataset(source), 1).epochs.get_data()
    source.raw._data[:, 10_000:15_000] *= 100
    source.raw.set_annotations(mne.Annotations(10.0, 5.0, "BAD movement"))
    marked = preprocess(dataset(source), 1).epochs.get_data()
    np.testing.assert_allclose(marked.std(), clean.std(), rtol=0.05)
    source.raw.set_annotations(mne.Annotations(0.0, 20.0, "BAD all"))
    with pytest.raises(SignalError, match=r"No trial .* is left: 3 BAD all"):
        preprocess(dataset(source), 1)


def test_a_filling_of_zeros_where_recording_paused_does_not_ring():
    source = recording(onsets=(1.0, 4.5))
    source.raw.apply_function(lambda x: x + 1e-2)
    source.raw._data[:, 5000:7000] = 0
    source.raw.set_annotations(mne.Annotations(5.0, 2.0, "BAD_ACQ_SKIP"))
    done = preprocess(dataset(source), 1, standardize=False)
    assert np.abs(done.epochs.get_data()).max() < 1e-4


@pytest.mark.parametrize("already_cut", [False, True])
def test_trials_above_the_limit_are_left_out_and_counted(already_cut):
    def loud(source):
        times = np.arange(500) / SFREQ
        return source + 1e-3 * np.sin(2 * np.pi * 20 * times) * np.hanning(500)

    if already_cut:
        epochs = cut_trials(3, 500)
        epochs._data[1] = loud(epochs._data[1])
        source = dataset(epochs=epochs)
    else:
        one = recording()
        one.raw._data[:, 2500:3000] = loud(one.raw._data[:, 2500:3000])
        source = dataset(one)
    assert len(preprocess(source, 1).epochs) == 3
    done = preprocess(source, 1, reject=500.0)
    assert done.epochs.metadata["order"].tolist() == [0, 2]
    assert done.report[-1] == "Trials left out: 1 above 500 µV from peak to peak."
    with pytest.raises(SignalError, match="is left"):
        preprocess(source, 1, reject=0.1)


def test_microvolts_are_no_limit_for_signals_without_a_unit():
    epochs = cut_trials()
    for channel in epochs.info["chs"]:
        channel["unit"] = FIFF.FIFF_UNIT_NONE
    with pytest.raises(SignalError, match="no unit"):
        preprocess(dataset(epochs=epochs), 1, reject=100.0)


@pytest.mark.parametrize("already_cut", [False, True])
def test_trials_with_the_very_signals_of_another_count_once(already_cut):
    if already_cut:
        epochs = cut_trials(6)
        epochs._data[4] = epochs._data[2]
        source, kept, n_twins = dataset(epochs=epochs), [0, 1, 2, 3, 5], 1
    else:
        later = recording()
        later.raw.crop(0.5)  # the same recording, begun later
        later.trials["onset"] -= 0.5
        source, kept, n_twins = dataset(recording(), later), [0, 1, 2], 3
    done = preprocess(source, 1)
    assert done.epochs.metadata["order"].tolist() == kept
    assert f"{n_twins} with the very signals of an earlier one" in done.report[-1]


def test_the_same_signals_under_two_classes_are_refused():
    other = recording()
    other.trials["label"], other.trials["class_name"] = [1, 0, 1], ["cup", "dog", "cup"]
    with pytest.raises(SignalError, match=r"'dog' \(trial 0\) and one of 'cup' \(trial 0\)"):
        preprocess(dataset(recording(), other), 1)


def test_flat_trials_are_no_twins_and_two_events_at_one_sample_are_one():
    flat = recording()
    flat.raw._data[:] = 0
    assert len(preprocess(dataset(flat), 1).epochs) == 3
    near = recording(onsets=(1.0, 1.0001, 3.0))
    assert preprocess(dataset(near), 1).report[-1] == (
        "Trials left out: 1 at the sample of another."
    )


def test_trials_that_share_samples_are_counted():
    report = preprocess(dataset(recording(onsets=(1.0, 1.4, 1.9, 3.0))), 1).report
    assert "Trials that share samples with the one before: 1 (see split.by)." in report
    assert not any("share" in line for line in preprocess(dataset(recording()), 1).report)


def test_steps_that_the_data_have_been_through_are_not_repeated():
    source = dataset(recording(), processed=("notch 49-51 Hz", "band 14-70 Hz", "standardize"))
    done = preprocess(source, 1)
    np.testing.assert_array_equal(done.after.get_data(), done.before.get_data())
    assert done.report[:2] == [
        "Before it was distributed: notch 49-51 Hz.",
        "Before it was distributed: band 14-70 Hz.",
    ]


def test_a_subject_is_put_together_from_recordings_and_survives_the_disk(tmp_path):
    source = dataset(recording(onsets=(-1.0, 1.0)), recording(seed=1))
    volts = preprocess(source, 1, standardize=False)
    np.testing.assert_allclose(volts.evoked.data, volts.epochs.get_data().mean(axis=0), atol=1e-17)
    done = preprocess(source, 1)
    done.epochs.save(tmp_path / "epochs-epo.fif", verbose=False)
    again = mne.read_epochs(tmp_path / "epochs-epo.fif", verbose=False)
    pandas.testing.assert_frame_equal(again.metadata, done.epochs.metadata, check_dtype=False)
    np.testing.assert_allclose(again.get_data(), done.epochs.get_data(), atol=1e-5)


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        (recording(sfreq=100), {}, "half the sampling rate, 50 Hz"),
        (recording(), {"band": (70, 14)}, "ascend"),
        (recording(onsets=(50.0, 60.0)), {}, "No trial of subject 1 is left: 2 outside"),
    ],
)
def test_what_cannot_be_processed_is_refused(source, settings, words):
    one = dataset(recording())
    one.recordings = lambda subject: [source]
    with pytest.raises(SignalError, match=words):
        preprocess(one, 1, **settings)


def test_a_channel_that_is_not_finite_is_named():
    source = recording()
    source.raw.apply_function(lambda x: np.where(np.arange(len(x)) == 7, np.nan, x), picks=["E1"])
    with pytest.raises(SignalError, match="Channel E1 holds values that are not finite"):
        preprocess(dataset(source), 1)


def test_an_epoch_outside_the_distributed_trials_is_refused():
    with pytest.raises(SignalError, match=r"run from 0 to 0\.8 s"):
        preprocess(dataset(epochs=cut_trials()), 1, epoch=(0, 1.0))


def test_channels_are_chosen_by_where_they_lie():
    def info(*names):
        return mne.create_info(list(names), 250.0, "eeg").set_montage("biosemi64")

    channels = info("O1", "Cz", "Fp1", "Pz", "Fz")
    assert spread_channels(channels, 3) == ["Fp1", "Cz", "O1"]
    assert spread_channels(channels, 9) == ["Fp1", "Fz", "Cz", "Pz", "O1"]
    assert posterior_channel(info("Iz", "Cz", "Oz")) == "Oz"
    assert posterior_channel(info("Pz", "PO7", "Fz")) == "PO7"
