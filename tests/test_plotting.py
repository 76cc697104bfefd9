"""Figures of data that lack something."""

import mne
import numpy as np
import pandas as pd
import pytest

from eeglib import plotting


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def info(names):
    made = mne.create_info(names, 250.0, "eeg")
    montage = mne.channels.make_standard_montage("standard_1005")
    return made.set_montage(montage, on_missing="ignore", verbose="error")


def test_channels_without_positions_are_left_out_or_said():
    assert texts(plotting.plot_channels(info(["Cz", "Oz", "E1"]))) == ["Cz", "Oz"]
    assert texts(plotting.plot_channels(info(["E1", "E2"]))) == ["2 channels, positions unknown"]


@pytest.mark.parametrize(("names", "n_maps"), [(["Fz", "Cz", "Oz", "Pz", "C3", "C4"], 4),
                                               (["Fz", "Cz", "Oz", "Pz", "C3", "E1"], 0)])  # fmt: skip
def test_maps_are_drawn_only_where_all_positions_are_known(names, n_maps):
    signals = np.random.default_rng(0).normal(0, 1e-6, (6, 50))
    figure = plotting.plot_evoked(mne.EvokedArray(signals, info(names)))
    assert len(figure.axes) == 1 + (n_maps + 1 if n_maps else 0)


def test_an_unknown_order_is_no_timeline():
    trials = pd.DataFrame({"label": [0, 1, 0], "session": -1, "order": -1})
    assert texts(plotting.plot_timeline(trials, ["a", "b"])) == [
        "The order of presentation is unknown"
    ]
    (axes,) = plotting.plot_timeline(trials.assign(order=[2, 0, 1]), ["a", "b"]).axes
    assert axes.lines[0].get_xdata().tolist() == [2, 0, 1]
