"""Attributions of a network whose use of its input is known."""

import ast
import json
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from torch import nn

from eeglib import timefrequency
from eeglib.decoding.attribution import attribute
from eeglib.profile import TimeFrequencySettings

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_distill_student.ipynb"


class OneCell(nn.Module):
    """Class 1 is twice one cell of one channel; class 0 is nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        logit = self.weight * images[:, 2, 1, 3]
        return torch.stack([0 * logit, logit], dim=1)


def test_a_linear_network_is_explained_exactly():
    images = np.random.default_rng(0).standard_normal((7, 4, 3, 5)).astype(np.float32)
    reference = images.mean(axis=0) + 1
    found = attribute(OneCell(), images, np.ones(7, int), reference)
    expected = 2 * (images[:, 2, 1, 3] - reference[2, 1, 3]).mean()
    channels, cells = np.zeros(4), np.zeros((3, 5))
    channels[2] = cells[1, 3] = expected
    np.testing.assert_allclose(found.channels, channels, atol=1e-5)
    np.testing.assert_allclose(found.cells, cells, atol=1e-5)
    assert found.missed < 1e-5


def test_the_map_of_chapter_5_counts_its_times_from_the_image():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    (cell,) = (cell for cell in cells if "plot_attribution" in cell)
    (call,) = (n for n in ast.parse(cell).body if "spectrogram_axes" in ast.unparse(n))
    info = mne.create_info(2, 250.0, "eeg")
    epochs = mne.EpochsArray(np.zeros((1, 2, 110)), info, tmin=0.02, verbose=False)
    names = {"epochs": epochs, "timefrequency": timefrequency, "grid": TimeFrequencySettings()}
    names |= {"band": (14, 70)}
    exec(ast.unparse(call), names)
    assert names["times"][0] == pytest.approx(0.04)  # half a window after the begin of a trial
