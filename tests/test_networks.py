"""Networks: one size for every shape, right outputs, a beginning that is linear."""

import pytest
import torch

from eeglib.decoding.networks import (
    CellNorm,
    Conv1dClassifier,
    LSTMClassifier,
    ResidualCNN,
    count_parameters,
)

SHAPES = [
    (128, 21, 23, 40),
    (128, 21, 26, 10),
    (61, 6, 53, 3),
    (1, 128, 440, 40),
    (128, 6, 88, 40),
    (8, 5, 6, 2),
    (300, 21, 23, 200),
    (1, 1, 1, 2),
    (17, 40, 100, 200),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_residual_networks_have_the_size_of_the_paper(shape):
    network = ResidualCNN(*shape).eval()
    assert 1_100_000 <= count_parameters(network) <= 1_200_000
    assert network(torch.randn(2, *shape[:3])).shape == (2, shape[3])


@pytest.mark.parametrize("shape", [(128, 440, 40), (61, 256, 3), (4, 20, 2), (63, 250, 200)])
def test_networks_over_time_have_the_size_of_the_paper(shape):
    n_chans, n_times, n_outputs = shape
    for network in (Conv1dClassifier(*shape), LSTMClassifier(*shape)):
        assert 1_100_000 <= count_parameters(network) <= 1_200_000
        assert network.eval()(torch.randn(2, n_chans, n_times)).shape == (2, n_outputs)


def test_shortcuts_reach_the_output():
    network = ResidualCNN(4, 9, 9, 3).eval()
    first, second = network(torch.randn(2, 4, 9, 9))  # at first the other ways add nothing
    assert not torch.allclose(first, second)


def test_a_new_student_is_linear_in_its_image():
    network = ResidualCNN(4, 9, 12, 3).eval()
    one, other = torch.randn(2, 5, 4, 9, 12)
    middle = (network(one) + network(other)) / 2
    torch.testing.assert_close(network((one + other) / 2), middle, atol=1e-5, rtol=1e-4)


def test_every_cell_of_channel_and_frequency_is_standardised_by_the_training_trials():
    norm = CellNorm(2, 3)
    size = torch.tensor([1.0, 10.0, 100.0])[:, None]
    images = torch.randn(200, 2, 3, 8) * size + 5 * size
    torch.testing.assert_close(norm(images), images)
    norm.fit(images)
    for out in (norm.train()(images), norm.eval()(images)):
        assert float(out.mean(dim=(0, 3)).abs().max()) < 1e-4
        assert float((out.var(dim=(0, 3)) - 1).abs().max()) < 1e-2
    other = norm(images[:1] + 3 * size)
    torch.testing.assert_close(other, norm(images[:1]) + 3, atol=0.3, rtol=0)


def test_all_parameters_learn():
    for network, shape in [
        (ResidualCNN(3, 8, 8, 2), (4, 3, 8, 8)),
        (LSTMClassifier(3, 12, 2), (4, 3, 12)),
        (Conv1dClassifier(3, 40, 2), (4, 3, 40)),
    ]:
        network(torch.randn(shape)).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())
