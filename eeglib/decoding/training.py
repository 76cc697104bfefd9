"""The training loop of every network here: data on the device, checkpoints (chapter 5)."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from eeglib.decoding.ingredients import augment, embedding_head, embedding_loss, mixed
from eeglib.decoding.networks import ResidualCNN
from eeglib.decoding.training_data import TrainingData, TrainingError, TrainingPart
from eeglib.profile import IngredientSettings

logger = logging.getLogger(__name__)


def distillation_loss(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    alpha: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """Loss of a student that learns from labels and from a teacher; mean over trials.

    Parameters
    ----------
    student_logits : Tensor, shape (n_trials, n_classes)
    labels : Tensor of int64, shape (n_trials,)
    teacher_logits : Tensor, shape (n_trials, n_classes) | None
        For the image of each trial. None: the labels alone, whatever `alpha` is.
    alpha : float
        Weight of the labels, 0 to 1.
    temperature : float
        Evens out the teacher's probabilities, above 0.

    Returns
    -------
    Tensor, shape ()
        Nats.

    Notes
    -----
    Equations (1) and (2) of the paper:

    .. math::
        L = \\alpha L_{CE}(f_s, y) + (1 - \\alpha) L_{KD}(f_s, f_t), \\quad
        L_{KD} = -\\sum_c \\mathrm{softmax}_c(f_t / T) \\log \\mathrm{softmax}_c(f_s / T)

    Hinton et al. (2015) multiply the second part by :math:`T^2`, because its gradient shrinks as
    :math:`1 / T^2`. The paper's equation has no such factor, and neither has this function. At the
    paper's T = 1 the two agree; at another T, what is called alpha here corresponds to
    :math:`\\alpha / (\\alpha + (1 - \\alpha) / T^2)` there.
    """
    if not 0 <= alpha <= 1 or not temperature > 0:
        raise TrainingError(
            f"alpha must lie in 0 ... 1 and temperature above 0, got {alpha} and {temperature}."
        )
    by_labels = functional.cross_entropy(student_logits, labels)
    if teacher_logits is None:
        return by_labels
    if teacher_logits.shape != student_logits.shape:
        raise TrainingError(
            f"Teacher and student must have logits of one shape, got "
            f"{tuple(teacher_logits.shape)} and {tuple(student_logits.shape)}."
        )
    soft_targets = functional.softmax(teacher_logits / temperature, dim=1)
    by_teacher = functional.cross_entropy(student_logits / temperature, soft_targets)
    return alpha * by_labels + (1 - alpha) * by_teacher


class TrainingRun:
    """Everything that changes during training, and its checkpoint."""

    def __init__(self, network, settings, data, seed, checkpoint, ingredients=None):
        self.network, self.settings, self.checkpoint = network, settings, checkpoint
        self.ingredients = ingredients or IngredientSettings()
        self.head = embedding_head(network, data) if self.ingredients.embedding else None
        self.learned = nn.ModuleList([network] if self.head is None else [network, self.head])
        self.average = None
        if decay := self.ingredients.averaging:
            # Running means of batch normalisation are averaged like the weights they belong to.
            self.average = AveragedModel(
                network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
            )
        self.optimizer = torch.optim.Adam(
            self.learned.parameters(), lr=settings.learning_rate, fused=True
        )
        self.shuffle = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.seconds_before = 0.0
        if checkpoint is not None:
            left_out = {"seeds", "device", "max_epochs", "ingredients"}
            asked = settings.model_dump(mode="json", exclude=left_out)
            self.identity = f"{data.fingerprint()} seed {seed} {asked} {self.ingredients} {network}"
            if Path(checkpoint).exists():
                self._resume()

    @property
    def finished(self) -> bool:
        """Whether the epochs or the patience are used up."""
        epochs = len(self.history)
        waited = epochs - self.best_epoch
        return epochs >= self.settings.max_epochs or waited >= self.settings.patience

    @property
    def judged(self) -> nn.Module:
        """The network that validation judges: the trained one, or the average over its steps."""
        return self.network if self.average is None else self.average.module

    def add(self, row: dict[str, float]) -> None:
        """Note an epoch; keep the weights if its validation loss is the lowest so far."""
        lowest = min((r["validation_loss"] for r in self.history), default=float("inf"))
        self.history.append(row)
        if row["validation_loss"] < lowest:
            self.best_epoch = int(row["epoch"])
            self.best_state = {k: v.clone() for k, v in self.judged.state_dict().items()}
        if self.checkpoint is not None:
            self._save()

    def _save(self) -> None:
        state = {
            "identity": self.identity,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "learned": self.learned.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "shuffle": self.shuffle.get_state(),
            "random": torch.get_rng_state(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if torch.cuda.is_available():
            state["random_cuda"] = torch.cuda.get_rng_state()
        path = Path(self.checkpoint)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        torch.save(state, temporary)
        temporary.replace(path)

    def _resume(self) -> None:
        advice = f"Delete {self.checkpoint} to train from the start."
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            identity = state["identity"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
            raise TrainingError(f"The checkpoint cannot be read. {advice}") from None
        if identity != self.identity:
            raise TrainingError(
                f"The checkpoint is of another network, seed, setting or data. {advice}"
            )
        self.learned.load_state_dict(state["learned"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.best_epoch = state["history"], state["best_epoch"]
        self.best_state = state["best_state"]
        self.shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        if "random_cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random_cuda"])
        self.seconds_before = self.history[-1]["seconds"]


def train(run: TrainingRun, data: TrainingData, progress: bool) -> None:
    """Go through the training trials, epoch by epoch, until the run is finished."""
    started = time.perf_counter()
    bar = _bar(run.settings.max_epochs, len(run.history)) if progress else None
    _standardize_once(run, data)
    while not run.finished:
        epoch = len(run.history) + 1
        found = torch.stack([_one_epoch(run, data.training), *_validate(run, data.validation)])
        training_loss, validation_loss, accuracy = found.tolist()  # a GPU is waited for only here
        if not np.isfinite([training_loss, validation_loss]).all():
            raise TrainingError(
                f"The loss is {training_loss} in epoch {epoch}: training diverged. Lower "
                "training.learning_rate, or look for extreme values in the trials."
            )
        seconds = run.seconds_before + time.perf_counter() - started
        run.add(
            {
                "epoch": epoch,
                "training_loss": training_loss,
                "validation_loss": validation_loss,
                "validation_accuracy": accuracy,
                "seconds": seconds,
            }
        )
        if bar is not None:
            bar.set_postfix(training=f"{training_loss:.3f}", validation=f"{validation_loss:.3f}")
            bar.update()
        logger.info(
            "Epoch %d: training loss %.3f, validation loss %.3f, validation accuracy %.3f, %.1f s",
            epoch,
            training_loss,
            validation_loss,
            accuracy,
            seconds,
        )
    if bar is not None:
        bar.close()


@torch.no_grad()
def _standardize_once(run: TrainingRun, data: TrainingData) -> None:
    """Do with all trials, once, what a network does with its input without learning."""
    if not isinstance(run.network, ResidualCNN):
        return
    run.network.standardize.fit(data.training.images)
    for part in (data.training, data.validation):
        for images in part.images.split(256):
            images.copy_(run.network.standardize(images))


def _layers(network: nn.Module) -> nn.Module:
    """What is left of a network when its trials are standardised."""
    return network.layers if isinstance(network, ResidualCNN) else network


def _one_epoch(run: TrainingRun, part: TrainingPart) -> Tensor:
    run.learned.train()
    n_trials, device = len(part.labels), part.labels.device
    order = torch.randperm(n_trials, generator=run.shuffle, pin_memory=device.type == "cuda")
    batches = list(order.to(device, non_blocking=True).split(run.settings.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    total = torch.zeros((), device=device)
    for rows, images in part.batches(batches):
        loss = _loss_of_batch(run, part, rows, images)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(run.learned.parameters(), run.settings.gradient_clip)
        run.optimizer.step()
        if run.average is not None:
            run.average.update_parameters(run.network)
        total += loss.detach() * len(rows)
    return total / n_trials


def _loss_of_batch(run: TrainingRun, part: TrainingPart, rows: Tensor, images: Tensor) -> Tensor:
    augment(images, run.ingredients)
    parts = [(1.0, rows)]
    if run.ingredients.mixup:
        images, share, order = mixed(images, run.ingredients.mixup)
        parts = [(share, rows), (1 - share, rows[order])]
    layers = _layers(run.network)
    if run.head is None:
        logits = layers(images)
        return sum(share * _loss(run, part, logits, own) for share, own in parts)
    features = layers[:-1](images)
    logits, embedding = layers[-1](features), run.head(features)
    return sum(
        share
        * (
            _loss(run, part, logits, own)
            + run.ingredients.embedding * embedding_loss(embedding, part.embeddings[own])
        )
        for share, own in parts
    )


def _loss(run: TrainingRun, part: TrainingPart, logits: Tensor, rows) -> Tensor:
    teacher = None if part.teacher is None else part.teacher[rows]
    alpha, temperature = run.settings.alpha, run.settings.temperature
    return distillation_loss(logits, part.labels[rows], teacher, alpha, temperature)


def _validate(run: TrainingRun, part: TrainingPart) -> tuple[Tensor, Tensor]:
    layers = _layers(run.judged.eval())
    with torch.no_grad():
        logits = torch.cat([layers(batch) for batch in part.images.split(256)])
        loss = _loss(run, part, logits, slice(None))
        accuracy = (logits.argmax(dim=1) == part.labels).float().mean()
    return loss, accuracy


def find_device(name: str) -> torch.device:
    """Device that the profile asks for; ``auto`` is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device is cuda, but PyTorch sees no GPU. Set it to auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def check_outputs(network: nn.Module, data: TrainingData) -> None:
    """Make sure that network, labels and teacher agree on the classes."""
    network.eval()
    with torch.no_grad():
        n_outputs = network(data.training.images[:1]).shape[1]
    labels = torch.cat([data.training.labels, data.validation.labels])
    if int(labels.min()) < 0 or int(labels.max()) >= n_outputs:
        raise TrainingError(
            f"The network has {n_outputs} outputs, but labels run from {int(labels.min())} to "
            f"{int(labels.max())}."
        )
    teacher = data.training.teacher
    if teacher is not None and teacher.shape[1] != n_outputs:
        raise TrainingError(
            f"The network has {n_outputs} outputs, the teacher {teacher.shape[1]} classes."
        )


@contextlib.contextmanager
def seeded(seed: int, device: torch.device):
    """Set PyTorch's seed inside, and leave the caller's random numbers as they were."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def determinism(wanted: bool):
    """Allow only deterministic algorithms inside, where wanted."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _bar(total: int, initial: int):
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, unit="epoch")
