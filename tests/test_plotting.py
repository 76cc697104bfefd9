"""Figures of data that lack something."""

import mne
import numpy as np
import pandas as pd
import pytest

from eeglib import plotting
from eeglib.datasets.epochs import channel_info
from eeglib.datasets.montage import montage_1005


def texts(figure):
    found = [text.get_text().strip() for ax in figure.axes for text in ax.texts]
    return [text for text in found if text]


def info(names):
    made = mne.create_info(names, 250.0, "eeg")
    return made.set_montage(montage_1005(), on_missing="ignore", verbose="error")


def test_channels_without_positions_are_left_out_or_said():
    assert texts(plotting.plot_channels(info(["Cz", "Oz", "E1"]))) == ["Cz", "Oz"]
    assert texts(plotting.plot_channels(info(["E1", "E2"]))) == ["2 channels, positions unknown"]


@pytest.mark.parametrize(("last", "n_maps"), [("C4", 4), ("E1", 0)])
def test_maps_are_drawn_only_where_all_positions_are_known(last, n_maps):
    signals = np.random.default_rng(0).normal(0, 1e-6, (6, 50))
    channels = info(["Fz", "Cz", "Oz", "Pz", "C3", last])
    figure = plotting.plot_evoked(mne.EvokedArray(signals, channels))
    assert len(figure.axes) == 1 + (n_maps + 1 if n_maps else 0)


def test_an_unknown_order_is_no_timeline():
    trials = pd.DataFrame({"label": [0, 1, 0], "session": -1, "order": -1})
    assert texts(plotting.plot_timeline(trials, ["a", "b"])) == [
        "The order of presentation is unknown"
    ]
    (axes,) = plotting.plot_timeline(trials.assign(order=[2, 0, 1]), ["a", "b"]).axes
    assert axes.lines[0].get_xdata().tolist() == [2, 0, 1]


def test_times_and_frequencies_of_a_trial_stand_with_their_units():
    frequencies, times = np.array([0.0, 25.0, 50.0]), np.array([0.02, 0.04, 0.06, 0.08])
    figures = [
        plotting.plot_filter_response(frequencies, {"notch": np.ones(3)}),
        plotting.plot_spectrograms({"one": np.ones((3, 4))}, [(frequencies, times)]),
        plotting.plot_energy(frequencies, np.array([0.25, 0.5, 0.25]), frequencies[:2]),
        plotting.plot_wavelets(np.ones((2, 4)), ["A1", "D1"], 0.02, 0.1),
    ]
    labels = [(f.axes[0].get_xlabel(), f.axes[0].get_ylabel()) for f in figures]
    assert labels == [
        ("frequency (Hz)", "gain (dB)"),
        ("time (s)", "frequency (Hz)"),
        ("frequency (Hz)", "share of the energy (%)"),
        ("time (s)", "level"),
    ]
    bars = figures[2].axes[0].patches
    assert [bar.get_height() for bar in bars] == [25, 50, 25]
    colors = [bar.get_facecolor() for bar in bars]
    assert colors[0] == colors[1] != colors[2]
    assert figures[3].axes[0].get_xlim() == (0.02, 0.1)


@pytest.mark.parametrize(("unitless", "factor", "unit"), [(False, 1e6, "µV"), (True, 1, "no unit")])
def test_signals_without_a_unit_are_not_shown_in_microvolts(unitless, factor, unit):
    channels = channel_info(["Fz", "Cz", "Oz", "Pz", "C3", "C4"], 250.0, unitless)
    signals = np.random.default_rng(0).normal(0, 1, (6, 10_000))
    figure = plotting.plot_evoked(mne.EvokedArray(signals, channels, verbose="error"))
    assert unit in figure.axes[0].get_ylabel()
    assert np.allclose(figure.axes[0].lines[0].get_ydata(), signals[0] * factor)
    raw = mne.io.RawArray(signals, channels, verbose="error")
    figure = plotting.plot_traces({"before": raw, "after": raw}, ["Cz"])
    assert unit in figure.axes[0].get_ylabel()
    spectra = plotting.plot_spectra(raw, raw)
    median = np.median(spectra.axes[0].lines[-1].get_ydata())
    # White noise of variance 1 has a density of 2 / sfreq.
    assert median == pytest.approx(10 * np.log10(factor**2 * 2 / 250), abs=1)
    assert ("µV²/Hz" in spectra.axes[0].get_ylabel()) != unitless
