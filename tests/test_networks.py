"""Networks: one size for every shape, right outputs, a beginning that is linear."""

import pytest
import torch

from eeglib.decoding.networks import (
    CellNorm,
    ChannelMixing,
    Conv1dClassifier,
    ImageCNN,
    LogPower,
    LSTMClassifier,
    MixturePower,
    ResidualCNN,
    ShallowConvNet,
    TimesThenChannels,
    Whitening,
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


@pytest.mark.parametrize("kind", [ResidualCNN, LSTMClassifier])
@pytest.mark.parametrize("shape", SHAPES)
def test_networks_over_spectrograms_have_the_size_of_the_paper(kind, shape):
    network = kind(*shape).eval()
    assert 1_100_000 <= count_parameters(network) <= 1_200_000
    assert network(torch.randn(2, *shape[:3])).shape == (2, shape[3])


@pytest.mark.parametrize("kind", [Conv1dClassifier, ImageCNN, ChannelMixing, ShallowConvNet])
@pytest.mark.parametrize(
    "shape", [(128, 88, 40, 200), (61, 256, 3, 256), (4, 20, 2, 100), (63, 50, 200, 250)]
)
def test_networks_over_time_have_the_size_of_the_paper(kind, shape):
    network = kind(*shape[: 3 if kind is ChannelMixing else 4]).eval()
    if kind is not ShallowConvNet:
        assert 1_100_000 <= count_parameters(network) <= 1_200_000
    assert network(torch.randn(2, *shape[:2])).shape == (2, shape[2])


@pytest.mark.parametrize("kind", [Conv1dClassifier, ImageCNN, ShallowConvNet])
def test_filters_last_as_long_at_any_rate(kind):
    def windows(rate: int) -> int:
        network = kind(4, rate // 2, 3, rate).eval()
        shapes = []
        power = next(layer for layer in network.modules() if isinstance(layer, LogPower))
        power.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape[-1]))
        network(torch.randn(1, 4, rate // 2))
        return shapes[0]

    assert windows(200) == windows(1000) > 1


@pytest.mark.parametrize("kind", [Conv1dClassifier, ImageCNN, ShallowConvNet, ChannelMixing])
def test_the_sign_of_a_trial_has_no_say_where_power_is_taken(kind):
    network = kind(4, 100, 3, *([] if kind is ChannelMixing else [200])).eval()
    trials = torch.randn(3, 4, 100)
    torch.testing.assert_close(network(trials), network(-trials))
    assert not torch.allclose(network(trials), network(2 * trials))


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


def test_white_channels_have_variance_1_and_do_not_covary_over_the_training_trials():
    trials = torch.einsum("ij,njt->nit", torch.randn(4, 4), torch.randn(100, 4, 50))
    whiten = Whitening(4)
    torch.testing.assert_close(whiten(trials), trials)
    whiten.fit(trials)
    rows = whiten(trials).transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows @ rows.T / rows.shape[1], torch.eye(4), atol=1e-3, rtol=0)
    silent = Whitening(5)
    silent.fit(torch.nn.functional.pad(trials, (0, 0, 0, 1)))  # a dead channel
    assert torch.isfinite(silent(torch.randn(1, 5, 50))).all()


def test_power_of_windows():
    signal = torch.tensor([[[1.0, -1, 3, 3, 0, 2]]])
    torch.testing.assert_close(LogPower(2, 2)(signal).exp(), torch.tensor([[[1.0, 9, 2]]]))
    torch.testing.assert_close(LogPower(9, 1)(signal).exp(), torch.tensor([[[4.0]]]))


def test_the_power_of_a_mixture_is_that_of_its_filtered_signal():
    layer = MixturePower(3, 39, 5)
    torch.nn.init.normal_(layer.gains)
    trials = torch.randn(2, 3, 39)  # odd, so that no frequency stands alone but that of 0 Hz
    trials = trials - trials.mean(dim=2, keepdim=True)
    mixtures = torch.fft.rfft(torch.einsum("mc,nct->nmt", layer.mixing, trials))
    filtered = torch.fft.irfft(mixtures * layer.gains, n=39)
    ratio = filtered.square().mean(dim=2) / layer(trials).exp()
    torch.testing.assert_close(ratio, ratio.mean().expand(2, 5), atol=1e-3, rtol=1e-3)


def test_filters_over_times_and_then_channels_are_one_convolution():
    both = TimesThenChannels(5, 7, 3)
    trials = torch.randn(2, 3, 40)
    first = torch.nn.functional.conv2d(trials[:, None], both.times[:, None, None])
    second = torch.nn.functional.conv2d(first, both.chans[..., None])
    torch.testing.assert_close(both(trials), second[:, :, 0], atol=1e-5, rtol=1e-4)


def test_all_parameters_learn():
    networks = [kind(3, 40, 2, 100.0) for kind in (Conv1dClassifier, ImageCNN, ShallowConvNet)]
    for network in [*networks, ChannelMixing(3, 40, 2)]:
        network(torch.randn(4, 3, 40)).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())
    for network in (ResidualCNN(3, 8, 8, 2), LSTMClassifier(3, 8, 8, 2)):
        network(torch.randn(4, 3, 8, 8)).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())
