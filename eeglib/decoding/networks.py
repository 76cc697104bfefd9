"""Networks of the table, all of one size: residual CNN, LSTM, Conv1d (chapters 5 and 6).

Every network takes the shape of its input and the number of classes, and chooses its width so that
it has 1.1 to 1.2 million parameters (section 3.6 of the paper): no method wins by being bigger.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

N_PARAMETERS = 1_150_000
"""Size that the networks aim at."""

DROPOUT = 0.25

MAP_SIZE = 32
"""Longest side of the map that the residual network works on; larger inputs are cut in patches."""

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


def residual_network(shape: Sequence[int], n_classes: int) -> Callable[[], ResidualCNN]:
    """Builder of the paper's student for inputs of a shape (n_chans, n_freqs, n_times)."""
    return partial(ResidualCNN, *shape, n_classes)


class ResidualCNN(nn.Module):
    """Convolutional network with residual connections for inputs of many channels.

    Each frequency of each channel is standardised; a first convolution mixes the channels; four
    residual blocks follow, each halving the map and all but the first doubling the number of
    filters; then the average over the map, dropout and a linear layer (section 3.3 of the paper).
    There is one channel where the EEG itself is the picture.

    Notes
    -----
    Most parameters stand where the map is small, so that a trial of 128 x 21 x 23 takes 12 million
    multiply-adds. Sides longer than 32 are divided into patches by the first convolution, whose
    kernel then equals its stride. The paper says no more of the network than the first paragraph.
    Residual blocks: with activations first (He et al. 2016, "Identity mappings"), averaging
    shortcuts (He et al. 2019, "Bag of tricks") and a last scale of zero (Goyal et al. 2017).
    """

    def __init__(self, n_chans: int, n_freqs: int, n_times: int, n_outputs: int):
        super().__init__()
        patch = tuple(-(-side // MAP_SIZE) for side in (n_freqs, n_times))

        def build(width: int) -> nn.Sequential:
            widths = [width, width, 2 * width, 4 * width, 8 * width]
            return nn.Sequential(
                nn.Conv2d(n_chans, width, patch, stride=patch, bias=False),
                *(ResidualBlock(a, b) for a, b in pairwise(widths)),
                Norm2d(8 * width),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(DROPOUT),
                nn.Linear(8 * width, n_outputs),
            )

        self.standardize = CellNorm(n_chans, n_freqs)
        self.layers = build(fitting_width(build))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, shape (n_trials, n_outputs), of inputs (n_trials, n_chans, n_freqs, n_times)."""
        return self.layers(self.standardize(inputs))


class CellNorm(nn.Module):
    """Each frequency of each channel to mean 0 and variance 1, over the training trials and times.

    Power falls so steeply with frequency that, with one mean for a whole channel, the input would
    be the same ridge in every trial and what differs between trials a ripple on it.
    """

    def __init__(self, n_chans: int, n_freqs: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, n_chans, n_freqs, 1))
        self.register_buffer("scale", torch.ones(1, n_chans, n_freqs, 1))

    @torch.no_grad()
    def fit(self, inputs: Tensor) -> None:
        """Take means and variances from the training inputs; until then inputs pass as they are."""
        variance, mean = torch.var_mean(inputs, dim=(0, 3), keepdim=True, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.rsqrt(variance + 1e-5))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) * self.scale


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; halves both sides of the map.

    Activations stand before the convolutions, the shortcut averages and mixes, and the block
    starts as its shortcut alone. So a new network is linear in the averages of its input, which is
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


class LSTMClassifier(nn.Module):
    """Four LSTM layers over the times, however many, of trials (n_trials, n_chans, n_times)."""

    def __init__(self, n_chans: int, n_times: int, n_outputs: int):
        super().__init__()

        def build(width: int) -> nn.ModuleList:
            lstm = nn.LSTM(n_chans, width, 4, batch_first=True, dropout=DROPOUT)
            out = nn.Linear(width, n_outputs)
            return nn.ModuleList([Norm1d(n_chans), lstm, nn.Dropout(DROPOUT), out])

        self.layers = build(fitting_width(build))

    def forward(self, trials: Tensor) -> Tensor:
        scale, lstm, drop, out = self.layers
        states, _ = lstm(scale(trials).transpose(1, 2))
        return out(drop(states[:, -1]))


class Conv1dClassifier(nn.Module):
    """Four convolutions over the times of trials (n_trials, n_chans, n_times), then their mean."""

    def __init__(self, n_chans: int, n_times: int, n_outputs: int):
        super().__init__()
        strides = [4 if n_times > 128 else 2, 2, 2, 2]

        def build(width: int) -> nn.Sequential:
            widths = [n_chans, width, 2 * width, 4 * width, 4 * width]
            layers: list[nn.Module] = [Norm1d(n_chans)]
            for (n_in, n_out), stride in zip(pairwise(widths), strides, strict=True):
                layers += [
                    nn.Conv1d(n_in, n_out, 7, stride=stride, padding=3, bias=False),
                    Norm1d(n_out),
                    nn.ReLU(),
                    nn.Dropout(DROPOUT),
                ]
            layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4 * width, n_outputs)]
            return nn.Sequential(*layers)

        self.layers = build(fitting_width(build))

    def forward(self, trials: Tensor) -> Tensor:
        return self.layers(trials)
