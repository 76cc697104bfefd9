"""Figures of the student show what they are given, in the right order."""

import matplotlib.pyplot as plt
import mne
import numpy as np
import pandas
import pytest

from eeglib.decoding.attribution import Attribution
from eeglib.decoding.teacher_study import TEACHER
from eeglib.plotting.decoding import (
    plot_attribution,
    plot_confusion_by_group,
    plot_gains,
    plot_group_scores,
    plot_recall,
    plot_sweep,
)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_classes_of_a_group_stand_together():
    counts = np.arange(9).reshape(3, 3)
    figure = plot_confusion_by_group(counts, ["cat", "pizza", "dog"], ["animal", "food", "animal"])
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["animal: cat", "animal: dog", "food: pizza"]
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn[0], [0, 2 / 3, 1 / 3])
    assert len(figure.axes[0].lines) == 2  # one border between two groups, each way


def test_gains_are_drawn_even_if_they_are_nothing():
    row = {"accuracy": 0.5, "gain": 0.0, "low": 0.0, "high": 0.0}
    figure = plot_gains(pandas.DataFrame({TEACHER: row}).T)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [TEACHER]


def test_sweep_and_recall():
    rows = [("alpha", v, s, 0.1 * v + s, 0.1, 20) for v in (0.0, 1.0) for s in (0, 1)]
    rows += [("T", v, 0, 0.2, 0.1, 20) for v in (1.0, 4.0)]
    columns = ["parameter", "value", "seed", "accuracy", "chance", "n"]
    table = pandas.DataFrame(rows, columns=columns)
    means = plot_sweep(table).axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(means, [0.5, 0.6])
    recall = pandas.DataFrame(
        {
            "class": ["a", "b", "c"],
            "recall": [0.2, 0.8, np.nan],
            "chance": 0.3,
            "n": [5, 5, 0],
            "low": 0.1,
            "high": 0.9,
        }
    )
    ticks = [t.get_text() for t in plot_recall(recall).axes[0].get_xticklabels()]
    assert ticks == ["b", "a"]


def test_attribution_with_and_without_positions():
    names = ["Fz", "Cz", "Pz", "Oz", "T7", "T8"]
    info = mne.create_info(names, 250, "eeg")
    found = Attribution(np.arange(6.0), np.ones((3, 4)), 0.0)
    axes = np.array([0, 25, 50.0]), np.arange(4) / 10
    assert len(plot_attribution(found, info, *axes).axes[0].patches) == 6  # bars
    info.set_montage("biosemi64", on_missing="ignore")
    assert len(plot_attribution(found, info, *axes).axes[0].images) == 1  # a head


@pytest.mark.parametrize("n_subjects", [1, 2, 3])
def test_the_mean_over_people_has_a_spread_only_where_there_is_a_group(n_subjects):
    rows = [
        (subject, method, metric, 0.2 * subject, 0.1)
        for subject in range(n_subjects)
        for method in ("cnn_stft", "distillation_stft", "lstm")
        for metric in ("top-1", "F1")
    ]
    scores = pandas.DataFrame(rows, columns=["subject", "method", "metric", "value", "chance"])
    titles = {"distillation_stft": "ours", "cnn_stft": "plain"}
    ax = plot_group_scores(scores, titles).axes[0]
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert names == ["ours", "plain", "chance"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["top-1", "F1"]
    height = 0.1 * (n_subjects - 1)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], 4 * [height] + 2 * [0.1])
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(points) == (2 * n_subjects if n_subjects < 3 else 0)
    spreads = [line for c in ax.collections for line in c.get_segments()]
    lengths = [np.ptp(line[:, 1]) for line in spreads if len(line) == 2]
    np.testing.assert_allclose(lengths, [0.4] * 4 if n_subjects == 3 else [])
