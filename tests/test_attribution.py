"""Attributions of a network whose use of its input is known."""

import numpy as np
import pytest
import torch
from torch import nn

from eeglib.decoding.attribution import attribute


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
    found = attribute(OneCell(), images, np.ones(7, int), reference, batch_size=3)
    expected = 2 * (images[:, 2, 1, 3] - reference[2, 1, 3]).mean()
    channels, cells = np.zeros(4), np.zeros((3, 5))
    channels[2] = cells[1, 3] = expected
    np.testing.assert_allclose(found.channels, channels, atol=1e-5)
    np.testing.assert_allclose(found.cells, cells, atol=1e-5)
    assert found.missed < 1e-5


def test_what_does_not_fit_is_refused():
    images = np.zeros((2, 4, 3, 5), np.float32)
    with pytest.raises(ValueError, match="as many labels"):
        attribute(OneCell(), images, np.zeros(3, int), images[0])
    with pytest.raises(ValueError, match="The reference has shape"):
        attribute(OneCell(), images, np.zeros(2, int), images[0, :3])
