"""The teacher: CLIP's view of each image and a linear classifier on top of it (chapter 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eeglib.chapter import replacing
from eeglib.decoding.clip import Clip, TeacherError, cls_tokens, load_clip
from eeglib.profile import TeacherSettings

if TYPE_CHECKING:
    import pandas

    from eeglib.chapter import Chapter

__all__ = [
    "Clip",
    "Teacher",
    "TeacherError",
    "cls_tokens",
    "fit_teacher",
    "load_clip",
    "logits_of_trials",
    "softmax",
    "teacher_of_trials",
]

CHAPTER = "04_train_teacher"
FILE = "teacher.npz"
WEIGHT_DECAY = 1e-3
"""Share of the weights' squares in the loss: keeps a separable problem from growing for ever."""


@dataclass(frozen=True)
class Teacher:
    """A linear classifier of images, and what it says about every one of them.

    Attributes
    ----------
    logits : array of float32, shape (n_images, n_classes)
    features : array of float32, shape (n_images, d)
        What it sees of each image: the CLS tokens.
    history : pandas.DataFrame
        One row per epoch: ``epoch, training_loss, validation_loss`` (nats),
        ``validation_accuracy``. The weights of the lowest validation loss are kept.
    images : list of str
        Names of the images, in the order of the rows; empty until saved and loaded.
    """

    logits: np.ndarray
    features: np.ndarray
    history: pandas.DataFrame
    images: list[str] = field(default_factory=list)

    def save(self, path: Path, images: Sequence[str], features: np.ndarray | None = None) -> None:
        """Write names, features, logits and history to an npz file.

        Parameters
        ----------
        path : Path
        images : sequence of str, length n_images
            Distinct names, in the order of the rows.
        features : array, shape (n_images, d) | None
            In place of the own ones.
        """
        features = self.features if features is None else np.asarray(features, dtype=np.float32)
        if not len(images) == len(set(images)) == len(self.logits) == len(features):
            raise TeacherError(
                f"{len(images)} names ({len(set(images))} distinct), {len(features)} features and "
                f"{len(self.logits)} logits do not go together: each image has one of each."
            )
        history = {f"history_{name}": self.history[name].to_numpy() for name in self.history}
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                images=np.asarray(images, dtype=str),
                features=features,
                logits=self.logits,
                **history,
            )

    @classmethod
    def load(cls, path: Path) -> Teacher:
        """Read what `save` wrote.

        Raises
        ------
        TeacherError
            If the file is missing or damaged.
        """
        import pandas

        try:
            with np.load(path, allow_pickle=False) as file:
                history = {k[8:]: file[k] for k in file.files if k.startswith("history_")}
                images = [str(name) for name in file["images"]]
                found = cls(file["logits"], file["features"], pandas.DataFrame(history), images)
        except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
            raise TeacherError(
                f"{path} is no teacher's file ({type(error).__name__}). Run chapter 4 again."
            ) from None
        if not len(images) == len(found.logits) == len(found.features):
            raise TeacherError(f"{path} is damaged: its parts differ in length. Run chapter 4.")
        return found

    def of_trials(self, trials: pandas.DataFrame) -> Teacher:
        """The teacher's rows for each trial's image, in the order of the trials.

        Raises
        ------
        TeacherError
            If it has not seen the image of some trial.
        """
        row_of = {name: row for row, name in enumerate(self.images)}
        unknown = sorted({str(name) for name in trials["image"]} - set(row_of))
        if unknown:
            raise TeacherError(
                f"The teacher has not seen {len(unknown)} of the images shown, such as "
                f"{unknown[0]!r}. Run chapter 4 with the same data set, or leave these trials out."
            )
        rows = np.array([row_of[str(name)] for name in trials["image"]], dtype=int)
        images = [self.images[row] for row in rows]
        return Teacher(self.logits[rows], self.features[rows], self.history, images)


def fit_teacher(
    features: np.ndarray,
    labels: np.ndarray,
    training: np.ndarray,
    validation: np.ndarray,
    settings: TeacherSettings,
    seed: int = 0,
) -> Teacher:
    """Train a linear classifier of images on their features.

    Parameters
    ----------
    features : array, shape (n_images, d)
    labels : array of int, shape (n_images,)
        Of images outside training and validation they are not looked at.
    training, validation : array of int
        Rows to learn from, and rows that decide when to stop.
    settings : TeacherSettings
        ``learning_rate`` of Adam, ``max_epochs``, ``patience``.
    seed : int
        Of the initial weights.

    Returns
    -------
    Teacher
        With logits for all images.

    Notes
    -----
    Softmax regression on features that are standardised by the training images, trained with all
    of them in one batch, with a small weight decay.
    """
    import pandas
    import torch
    from torch.nn import functional

    features, labels = _checked(features, labels, training, validation)
    scaled = _standardized(features, training)
    n_classes = int(labels[np.concatenate([training, validation])].max()) + 1
    inputs, targets = torch.from_numpy(scaled), torch.from_numpy(labels.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    weight = 0.01 * torch.randn(n_classes, scaled.shape[1], generator=generator)
    weight, bias = weight.requires_grad_(), torch.zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=settings.learning_rate)
    history, best, lowest, best_epoch = [], None, float("inf"), 0
    for epoch in range(1, settings.max_epochs + 1):
        loss = functional.cross_entropy(inputs[training] @ weight.T + bias, targets[training])
        optimizer.zero_grad()
        (loss + WEIGHT_DECAY * weight.square().sum()).backward()
        optimizer.step()
        with torch.no_grad():
            logits = inputs[validation] @ weight.T + bias
            validation_loss = float(functional.cross_entropy(logits, targets[validation]))
            accuracy = float((logits.argmax(1) == targets[validation]).float().mean())
        history.append((epoch, loss.item(), validation_loss, accuracy))
        if validation_loss < lowest:
            lowest, best_epoch = validation_loss, epoch
            best = (weight.detach().clone(), bias.detach().clone())
        if epoch - best_epoch >= settings.patience:
            break
    if best is None:
        raise TeacherError("The teacher's loss is not finite. Lower teacher.learning_rate.")
    columns = ["epoch", "training_loss", "validation_loss", "validation_accuracy"]
    logits = (inputs @ best[0].T + best[1]).numpy()
    return Teacher(logits, features, pandas.DataFrame(history, columns=columns))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the classes, along the last axis: ``exp(logits / T)`` over its sum."""
    from scipy import special

    return special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1)


def teacher_of_trials(chapter: Chapter, trials: pandas.DataFrame) -> Teacher | None:
    """What chapter 4's teacher says about the image of each trial.

    Parameters
    ----------
    chapter : Chapter
        Of the same run.
    trials : pandas.DataFrame
        With ``image``.

    Returns
    -------
    Teacher | None
        Its rows are the trials. None where the data set has no pictures, hence no teacher.

    Raises
    ------
    ResultsError
        If chapter 4 has not run.
    TeacherError
        If the teacher has not seen some image.
    """
    if chapter.dataset.stimuli().empty:
        return None
    return Teacher.load(chapter.input(CHAPTER, FILE)).of_trials(trials)


def logits_of_trials(chapter: Chapter, trials: pandas.DataFrame) -> np.ndarray | None:
    """The teacher's logits for each trial, shape (n_trials, n_classes), or None without one."""
    found = teacher_of_trials(chapter, trials)
    return None if found is None else found.logits


def _checked(features, labels, training, validation) -> tuple[np.ndarray, np.ndarray]:
    features, labels = np.asarray(features, dtype=np.float32), np.asarray(labels)
    if features.ndim != 2 or len(features) != len(labels):
        raise TeacherError(
            f"Expected features (n_images, d) and as many labels, got {features.shape} and "
            f"{labels.shape}."
        )
    if not np.isfinite(features).all():
        raise TeacherError("Some features are not finite numbers; look at those images.")
    if not len(training) or not len(validation):
        raise TeacherError("Training and validation need at least one image each.")
    if set(map(int, training)) & set(map(int, validation)):
        raise TeacherError("An image is in training and validation. Split by image.")
    absent = set(labels[validation]) - set(labels[training])
    if absent:
        raise TeacherError(f"Label {min(absent)} has no training image.")
    return features, labels


def _standardized(features: np.ndarray, training: np.ndarray) -> np.ndarray:
    mean, scale = features[training].mean(axis=0), features[training].std(axis=0)
    return (features - mean) / np.where(scale > 1e-6, scale, 1)
