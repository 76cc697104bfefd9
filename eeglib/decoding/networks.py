"""Networks of the table: residual CNN, LSTM, Conv1d, and two of our day (chapters 5 and 6).

All but the shallow ConvNet, which is as published, choose their width so that they have 1.1 to 1.2
million parameters (section 3.6 of the paper): no method wins by being bigger. What the paper leaves
open was chosen on validation trials of real recordings (chapter 6).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Permute

N_PARAMETERS = 1_150_000  # that the networks aim at
DROPOUT = 0.25
MAP_SIZE = 32  # longest side of the residual network's map; larger inputs are cut in patches
KERNEL, POOL, STRIDE = 0.08, 0.1, 0.05  # s: filters over time, windows of their power and the step

# Share of each batch in the running means of batch normalisation. With PyTorch's 0.1, a small data
# set's first epochs are too few steps, and the validation loss says nothing.
Norm1d, Norm2d = (partial(kind, momentum=0.3) for kind in (nn.BatchNorm1d, nn.BatchNorm2d))


def count_parameters(network: nn.Module) -> int:
    """Number of trained parameters of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def fitting_width(build: Callable[[int], nn.Module]) -> int:
    """Width that brings networks that grow with it closest to the common size."""

    def size(width: int) -> int:
        with torch.device("meta"):  # nothing is allocated
            return count_parameters(build(width))

    above = bisect_left(range(10_000), N_PARAMETERS, lo=2, key=size)
    return min((above - 1, above), key=lambda width: abs(size(width) - N_PARAMETERS))


def residual_network(shape: Sequence[int], n_classes: int) -> Callable[[], nn.Module]:
    """Builder of the paper's student for inputs of a shape (n_chans, n_freqs, n_times)."""
    return partial(ResidualCNN, *shape, n_classes)


class Network(nn.Module):
    """Layers behind a standardisation, to which `fit` shows the training inputs beforehand."""

    def __init__(self, standardize: nn.Module, layers: nn.Module):
        super().__init__()
        self.standardize, self.layers = standardize, layers

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, shape (n_trials, n_outputs), of inputs (n_trials, n_chans, ...)."""
        return self.layers(self.standardize(inputs))


class CellNorm(nn.Module):
    """Each channel, or frequency of each channel, to mean 0 and variance 1, over trials and times.

    Power falls so steeply with frequency that, with one mean for a whole channel, every trial would
    be the same ridge with a ripple on it.
    """

    def __init__(self, *cells: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, *cells, 1))
        self.register_buffer("scale", torch.ones(1, *cells, 1))

    @torch.no_grad()
    def fit(self, inputs: Tensor) -> None:
        """Take means and variances from the training inputs; until then inputs pass as they are."""
        variance, mean = torch.var_mean(inputs, dim=(0, -1), keepdim=True, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.rsqrt(variance + 1e-5))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) * self.scale


class Whitening(nn.Module):
    """Channels to mixtures of variance 1 that do not covary, over the training trials and times.

    Neighbouring electrodes hear nearly the same; what distinguishes them becomes as loud.
    """

    def __init__(self, n_chans: int):
        super().__init__()
        self.register_buffer("matrix", torch.eye(n_chans))

    @torch.no_grad()
    def fit(self, inputs: Tensor) -> None:
        """Take the covariance from the training inputs; until then inputs pass as they are."""
        rows = inputs.transpose(0, 1).flatten(1).double()
        values, vectors = torch.linalg.eigh(rows @ rows.T / rows.shape[1])
        scale = torch.rsqrt(values.clamp(min=1e-4 * values.mean() + 1e-12))
        self.matrix.copy_(vectors * scale @ vectors.T)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.matrix @ inputs


class LogPower(nn.Module):
    """Logarithm of the mean square over windows of the last axis.

    An oscillation's own mean is zero: a network of sums and thresholds does not find its power in
    a few hundred trials.
    """

    def __init__(self, length: int, step: int):
        super().__init__()
        self.length, self.step = length, step

    def forward(self, maps: Tensor) -> Tensor:
        windows = min(self.length, maps.shape[-1]), self.step
        power = functional.avg_pool1d(maps.square().flatten(0, -3), *windows)
        return torch.log(power.clamp(min=1e-6)).unflatten(0, maps.shape[:-2])


class ResidualCNN(Network):
    """Convolutional network with residual connections for inputs of many channels.

    Each frequency of each channel is standardised; a first convolution mixes the channels; four
    residual blocks follow, each halving the map and all but the first doubling the number of
    filters; then the average over the map, dropout and a linear layer (section 3.3 of the paper).

    The paper says no more of it. Blocks have their activations first (He et al. 2016, "Identity
    mappings"), averaging shortcuts (He et al. 2019, "Bag of tricks") and a last scale of zero
    (Goyal et al. 2017).
    """

    def __init__(self, n_chans: int, n_freqs: int, n_times: int, n_outputs: int):
        layers = _residual_layers(n_chans, n_freqs, n_times, n_outputs)
        super().__init__(CellNorm(n_chans, n_freqs), layers)


def _residual_layers(n_chans: int, n_freqs: int, n_times: int, n_outputs: int) -> nn.Sequential:
    patch = tuple(-(-side // MAP_SIZE) for side in (n_freqs, n_times))

    def build(width: int) -> nn.Sequential:
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        layers = [nn.Conv2d(n_chans, width, patch, stride=patch, bias=False)]
        layers += [ResidualBlock(a, b) for a, b in pairwise(widths)]
        layers += [Norm2d(8 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT)]
        return nn.Sequential(*layers, nn.Linear(8 * width, n_outputs))

    return build(fitting_width(build))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; halves both sides of the map.

    It starts as its shortcut alone: a new network is linear in the averages of its input, which is
    what few trials can teach, and grows its non-linear parts from there.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.way = nn.Sequential(
            Norm2d(n_in),
            nn.ReLU(),
            nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False),
            Norm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            Norm2d(n_out),
        )
        nn.init.zeros_(self.way[-1].weight)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(n_in, n_out, 1, bias=False),
            Norm2d(n_out),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return self.way(maps) + self.shortcut(maps)


class ImageCNN(Network):
    """The EEG itself as a picture of channels x times: filters along its rows, then `ResidualCNN`.

    All channels share 8 temporal filters, whose power stands in place of a spectrogram's rows.
    """

    def __init__(self, n_chans: int, n_times: int, n_outputs: int, sfreq: float):
        kernel, *windows = _lengths(sfreq, n_times, KERNEL, POOL, STRIDE)
        layers = [nn.Unflatten(1, (1, n_chans)), nn.Conv2d(1, 8, (1, kernel), bias=False)]
        layers += [Norm2d(8), LogPower(*windows), Permute([0, 2, 1, 3]), nn.Flatten(1, 2)]
        layers += [Norm1d(8 * n_chans), nn.Unflatten(1, (n_chans, 8))]
        n_windows = _n_windows(n_times - kernel + 1, *windows)
        layers += _residual_layers(n_chans, 8, n_windows, n_outputs)
        super().__init__(CellNorm(n_chans), nn.Sequential(*layers))


class LSTMClassifier(Network):
    """Four residual LSTM layers over the windows of spectrograms, then the mean of their states."""

    def __init__(self, n_chans: int, n_freqs: int, n_windows: int, n_outputs: int):
        def build(width: int) -> nn.Sequential:
            layers = [nn.Flatten(1, 2), nn.Conv1d(n_chans * n_freqs, width, 1)]
            layers += [ResidualLSTM(width) for _ in range(4)]
            layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(DROPOUT)]
            return nn.Sequential(*layers, nn.Linear(width, n_outputs))

        super().__init__(CellNorm(n_chans, n_freqs), build(fitting_width(build)))


class ResidualLSTM(nn.Module):
    """One LSTM layer beside a shortcut: stacked without it, four forget what the first was told."""

    def __init__(self, width: int):
        super().__init__()
        self.lstm, self.dropout = nn.LSTM(width, width, batch_first=True), nn.Dropout(DROPOUT)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.dropout(self.lstm(states.mT)[0]).mT


class Conv1dClassifier(Network):
    """Four convolutions over time: 80 filters over all channels, three over the power of these."""

    def __init__(self, n_chans: int, n_times: int, n_outputs: int, sfreq: float):
        kernel, *windows = _lengths(sfreq, n_times, KERNEL, POOL, STRIDE)

        def build(width: int) -> nn.Sequential:
            layers = [nn.Conv1d(n_chans, 80, kernel, bias=False), Norm1d(80)]
            layers += [LogPower(*windows), Norm1d(80), nn.Dropout(0.5)]
            for n_in, n_out in pairwise([80, width, width, width]):
                convolution = nn.Conv1d(n_in, n_out, 3, padding=1, bias=False)
                layers += [convolution, Norm1d(n_out), nn.ReLU(), nn.Dropout(0.5)]
            layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, n_outputs)]
            return nn.Sequential(*layers)

        super().__init__(CellNorm(n_chans), build(fitting_width(build)))


class ShallowConvNet(Network):
    """40 filters, each over times and then all channels; their log power over time; one layer.

    Schirrmeister et al. (2017), with filters and windows of the same duration at any rate.
    """

    def __init__(self, n_chans: int, n_times: int, n_outputs: int, sfreq: float):
        kernel, *windows = _lengths(sfreq, n_times, KERNEL, 0.24, STRIDE)
        layers = [TimesThenChannels(40, kernel, n_chans), Norm1d(40), LogPower(*windows)]
        n_windows = _n_windows(n_times - kernel + 1, *windows)
        layers += [nn.Flatten(), nn.Dropout(0.5), nn.Linear(40 * n_windows, n_outputs)]
        super().__init__(CellNorm(n_chans), nn.Sequential(*layers))


class TimesThenChannels(nn.Module):
    """Filters over times, then as many over these and all channels, as one: equal, and faster."""

    def __init__(self, n_filters: int, kernel: int, n_chans: int):
        super().__init__()
        shapes = (n_filters, kernel), (n_filters, n_filters, n_chans)
        weights = (nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape))) for shape in shapes)
        self.times, self.chans = weights

    def forward(self, trials: Tensor) -> Tensor:
        weights = torch.einsum("ofc,fk->ock", self.chans, self.times)
        return functional.conv1d(trials, weights)


class ChannelMixing(Network):
    """What we would do today: mix the channels *before* the square, and take the mixtures' power.

    Whitened channels are mixed to 1,024 virtual ones, whose log power goes to a network with one
    hidden layer. Magnitudes of each channel by itself have lost how channels covary.
    """

    def __init__(self, n_chans: int, n_times: int, n_outputs: int):
        n = min(1024, N_PARAMETERS // (n_chans + n_times))

        def build(width: int) -> nn.Sequential:
            layers = [MixturePower(n_chans, n_times, n), Norm1d(n), nn.Dropout(0.8)]
            layers += [nn.Linear(n, width), Norm1d(width), nn.ReLU(), nn.Dropout(0.8)]
            return nn.Sequential(*layers, nn.Linear(width, n_outputs))

        super().__init__(Whitening(n_chans), build(fitting_width(build)))


class MixturePower(nn.Module):
    """Log power of mixtures of all channels, each through a filter of its own.

    The mean square of a filtered signal is the sum over frequencies of the signal's power times
    the filter's (Parseval's theorem): a filter is learned as its gain at each frequency.
    """

    def __init__(self, n_chans: int, n_times: int, n_mixtures: int):
        super().__init__()
        self.mixing = nn.Parameter(nn.init.orthogonal_(torch.empty(n_mixtures, n_chans)))
        self.gains = nn.Parameter(torch.ones(n_mixtures, n_times // 2 + 1))

    def forward(self, trials: Tensor) -> Tensor:
        spectra = torch.view_as_real(torch.fft.rfft(trials, norm="ortho")).flatten(2)
        power = (self.mixing @ spectra).square().unflatten(2, (-1, 2)).sum(dim=3)
        return torch.log((power * self.gains.square()).mean(dim=2) + 1e-6)


def _lengths(sfreq: float, n_times: int, *seconds: float) -> list[int]:
    """Durations as numbers of times, at least one and at most half a trial."""
    return [max(1, min(round(duration * sfreq), n_times // 2)) for duration in seconds]


def _n_windows(n_times: int, length: int, step: int) -> int:
    return (n_times - min(length, n_times)) // step + 1
