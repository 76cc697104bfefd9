"""Trials on the device, ready to be trained on (chapter 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eeglib.decoding.splits import Split


class TrainingError(ValueError):
    """Data or settings that no network can be trained on; the message says what to do."""


@dataclass
class TrainingPart:
    """Trials of one part of the split.

    Attributes
    ----------
    images : Tensor of float32, shape (n_trials, ...)
    labels : Tensor of int64, shape (n_trials,)
    teacher : Tensor, shape (n_trials, n_classes) | None
        Logits for the image of each trial.
    embeddings : Tensor, shape (n_trials, d) | None
        Of the image of each trial.
    """

    images: Tensor
    labels: Tensor
    teacher: Tensor | None = None
    embeddings: Tensor | None = None

    def batches(self, orders: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows and their images, for a sequence of rows.

        All images stand in one piece of memory, overwritten by the next: fresh memory for each
        batch costs a CPU more time than the copy.
        """
        orders = list(orders)
        space = torch.empty_like(self.images[: max(map(len, orders))])
        for rows in orders:
            images = space[: len(rows)]
            torch.index_select(_as_rows(self.images), 0, rows, out=_as_rows(images))
            yield rows, images


@dataclass
class TrainingData:
    """Training and validation trials on the device; test trials never get here."""

    training: TrainingPart
    validation: TrainingPart

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        split: Split,
        teacher_logits: np.ndarray | None,
        teacher_features: np.ndarray | None,
        device: torch.device,
    ) -> TrainingData:
        """Check what was given and put it on the device."""
        images, labels = np.asarray(images), np.asarray(labels)
        if len(images) != len(labels):
            raise TrainingError(f"There are {len(images)} trials but {len(labels)} labels.")
        if labels.dtype.kind not in "iu":
            raise TrainingError(f"labels must be integers, got {labels.dtype}.")
        teacher = {"logits": teacher_logits, "features": teacher_features}
        for what, values in teacher.items():
            if values is not None and len(values) != len(images):
                raise TrainingError(
                    f"There are {len(images)} trials but teacher {what} for {len(values)}. "
                    f"Give each trial the {what} of its image."
                )
        parts = []
        for name in ("training", "validation"):
            rows = getattr(split, name)
            if len(rows) < 2:
                raise TrainingError(f"The {name} part has {len(rows)} trials; at least 2 needed.")
            found = {"trials": on_device(images[rows], device)} | {
                f"teacher {what}": None
                if values is None
                else on_device(np.asarray(values)[rows], device)
                for what, values in teacher.items()
            }
            for what, values in found.items():
                if values is not None and not torch.isfinite(values).all():
                    raise TrainingError(f"Some {what} of the {name} part are not finite numbers.")
            targets = torch.as_tensor(labels[rows].astype(np.int64), device=device)
            part_images, *of_teacher = found.values()
            parts.append(TrainingPart(part_images, targets, *of_teacher))
        return cls(*parts)

    def fingerprint(self) -> str:
        """Changes with every value of trials, labels and teacher."""
        digest = hashlib.sha256()
        for part in (self.training, self.validation):
            for values in (part.images, part.labels, part.teacher, part.embeddings):
                if values is not None:
                    digest.update(values.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()


def on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """Trials as float32 on a device; images with channels last, as convolutions like them."""
    tensor = torch.as_tensor(np.ascontiguousarray(images, dtype=np.float32), device=device)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _as_rows(images: Tensor) -> Tensor:
    """Each trial as one row of memory, whatever the order of its axes there."""
    n_values = images[0].numel()
    return images.as_strided((len(images), n_values), (n_values, 1))
