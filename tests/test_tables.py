"""Published figures only beside the same data; pairs against distillation on STFT."""

import numpy as np
import pandas

from eeglib.datasets.stimuli import CLASSES
from eeglib.decoding.methods import ROWS
from eeglib.evaluation import score
from eeglib.profile import EvaluationSettings
from eeglib.tables import (
    METRICS,
    PUBLISHED,
    groups_of,
    pair_table,
    published_beside,
    score_table,
)


def summary():
    rows = [
        {"method": "lstm", "metric": m, "value": 0.5, "sd": 0.1, "chance": 0.025} for m in METRICS
    ]
    return pandas.DataFrame(rows)


def test_published_figures_stand_beside_the_papers_own_data_only():
    assert published_beside(summary(), "simulated", {}) is None
    table = published_beside(summary(), "eeg_imagenet", {"lstm": "LSTM"})
    assert table.loc["LSTM", ("top-5", "paper")] == "0.8868 (0.1030)"
    assert table.loc["LSTM", ("top-5", "ours")] == "0.5000 (0.1000)"
    assert list(table.index) == ["LSTM"]


def test_the_published_table_has_every_row_and_chance_corrected_kappa():
    of_paper = [name for name, row in ROWS.items() if "(not in the paper)" not in row.title]
    assert list(PUBLISHED) == of_paper
    for values in PUBLISHED.values():
        assert len(values) == 2 * len(METRICS)
        # Kappa of balanced classes is the accuracy rescaled: a slip in a digit would show.
        assert abs((values[0] - 1 / 40) / (1 - 1 / 40) - values[8]) <= 0.01


def test_pairs_are_made_with_distillation_on_stft():
    labels = np.arange(20) % 2
    right = np.eye(2)[labels]
    settings = EvaluationSettings(n_bootstrap=50)
    predictions = {"distillation_stft": right, "lstm": 1 - right, "best": right}
    table = pair_table(predictions, labels, settings, 0)
    assert list(table.index) == ["distillation_stft minus lstm", "distillation_stft minus best"]
    assert table.iloc[0, 0].startswith("+1.000")
    del predictions["distillation_stft"]
    assert list(pair_table(predictions, labels, settings, 0).index) == ["best minus lstm"]


def test_groups_of_known_and_unknown_classes():
    assert groups_of([CLASSES[0].name, "unheard of"]) == [CLASSES[0].group, ""]


def test_every_score_stands_with_interval_chance_n_and_test():
    labels = np.arange(20) % 4
    table = score_table({"lstm": score(np.eye(4)[labels], labels, 50)}, {"lstm": "LSTM"})
    assert table.loc["LSTM", "top-1"] == "1.000 [1.000, 1.000]"
    assert table.loc["LSTM", "n"] == "20"
    assert float(table.loc["LSTM", "p"]) == float(f"{0.25**20:.2g}")
    assert table.loc["chance", "top-3"] == "0.750"
