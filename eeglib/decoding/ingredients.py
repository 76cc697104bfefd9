"""What the field has learned since, as additions to the paper's recipe (chapter 6).

The row ``best_network`` of the table uses those that its profile turns on, in
``training.ingredients``; ``python -m benchmarks ingredients`` measures what each contributes:

- ``time_shift``: images move in time by up to some columns (Mohsenvand et al. 2020; compared with
  other augmentations by Rommel et al. 2022);
- ``channel_dropout``: some channels are set to zero (Saeed et al. 2021; Rommel et al. 2022);
- ``noise``: Gaussian noise is added (Wang et al. 2018);
- ``mixup``: two trials and their targets are mixed (Zhang et al. 2018);
- ``averaging``: validation judges, and the student keeps, a running average of the weights
  (Polyak & Juditsky 1992; as exponential average, Tarvainen & Valpola 2017);
- ``embedding``: a linear head predicts the CLIP embedding of the image that was seen (Romero et al.
  2015 call such targets hints; Song et al. 2024 align EEG with CLIP);
- ``attention``: blocks weigh their filters by the trial (Hu et al. 2018), see
  `eeglib.decoding.networks.SqueezeExcitation`;
- ``calibration``: see `eeglib.decoding.calibration` (Guo et al. 2017).

Augmentation and mixup touch training trials only, after they are standardised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from eeglib.decoding.networks import ResidualCNN
from eeglib.decoding.training_data import TrainingError
from eeglib.profile import IngredientSettings

if TYPE_CHECKING:
    from eeglib.decoding.training_data import TrainingData


@torch.no_grad()
def augment(images: Tensor, ingredients: IngredientSettings) -> None:
    """Change the images of a batch in place, as the ingredients say.

    Parameters
    ----------
    images : Tensor, shape (n_trials, n_chans, ..., n_times)
        Standardised, in random order.
    ingredients : IngredientSettings

    Raises
    ------
    TrainingError
        If channels of images of one channel are to be dropped.
    """
    if ingredients.time_shift:
        shift_in_time(images, ingredients.time_shift)
    if share := ingredients.channel_dropout:
        if images.shape[1] < 2:
            raise TrainingError(
                "ingredients.channel_dropout would drop the only channel; set it to 0."
            )
        kept = torch.rand(images.shape[:2], device=images.device) >= share
        # Scaled like dropout, so that sums over channels keep their mean.
        images.mul_((kept / (1 - share)).reshape(*kept.shape, *[1] * (images.ndim - 2)))
    if ingredients.noise:
        images.add_(torch.randn_like(images), alpha=ingredients.noise)


def shift_in_time(images: Tensor, largest: int) -> None:
    """Shift images along the last axis, in place, each by -`largest` to `largest` columns.

    What enters is 0, the mean of a standardised cell. Trials come in random order, so the shifts
    are dealt out in turns, which no device has to wait for.
    """
    n_times, n_shifts = images.shape[-1], 2 * largest + 1
    if largest >= n_times:
        raise TrainingError(
            f"ingredients.time_shift is {largest}, but an image has only {n_times} columns."
        )
    for turn in range(n_shifts):
        own, shift = images[turn::n_shifts], turn - largest
        if shift > 0:
            own[..., shift:] = own[..., :-shift].clone()
            own[..., :shift] = 0
        elif shift < 0:
            own[..., :shift] = own[..., -shift:].clone()
            own[..., shift:] = 0


def mixed(images: Tensor, alpha: float) -> tuple[Tensor, float, Tensor]:
    """Mix each trial of a batch with another.

    Parameters
    ----------
    images : Tensor, shape (n_trials, ...)
    alpha : float
        Both parameters of the beta distribution from which the share is drawn.

    Returns
    -------
    images : Tensor, shape (n_trials, ...)
        ``share * images + (1 - share) * images[order]``.
    share : float
        Of the trial itself, the same for all trials of the batch.
    order : Tensor of int64, shape (n_trials,)

    Notes
    -----
    Cross-entropy is linear in its targets: the loss of mixed targets is the mixed loss.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images), device=images.device)
    return torch.lerp(images[order], images, share), share, order


def embedding_head(network: nn.Module, data: TrainingData) -> nn.Linear:
    """Head beside the last layer of a residual network, for the embedding of the image.

    The mean over training images, which all embeddings of CLIP share, is taken from the targets.
    """
    targets = data.training.embeddings
    if targets is None:
        raise TrainingError(
            "ingredients.embedding needs the teacher's features of each trial's image; give "
            "teacher_features or set it to 0."
        )
    if not isinstance(network, ResidualCNN):
        raise TrainingError(
            f"ingredients.embedding is for the residual network, not for {type(network).__name__}."
        )
    mean = targets.mean(dim=0)
    for part in (data.training, data.validation):
        part.embeddings = part.embeddings - mean
    return nn.Linear(network.layers[-1].in_features, targets.shape[1]).to(targets.device)


def embedding_loss(found: Tensor, targets: Tensor) -> Tensor:
    """One less the cosine between embeddings (n_trials, d); mean over trials."""
    return 1 - functional.cosine_similarity(found, targets, dim=1).mean()
