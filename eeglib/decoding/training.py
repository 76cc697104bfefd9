"""Train a student on EEG, with or without a teacher that saw the images (chapter 5)."""

import logging
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import joblib
import numpy as np
import pandas
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.seed import isolate_rng
from sklearn.utils import gen_batches
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import RandomSampler

from eeglib.decoding.networks import Network, residual_network
from eeglib.decoding.splits import Split
from eeglib.timefrequency import spectrograms

logger = logging.getLogger(__name__)
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # its tips and banners


class TrainingError(ValueError):
    """A training that cannot be done as asked; the message says what to do."""


def distillation_loss(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None = None,
    alpha: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """Loss of a student that learns from labels and from a teacher; nats, mean over trials.

    Logits have the shape (n_trials, n_classes); the teacher's are for the image of each trial, or
    None: the labels alone, whatever `alpha`, their weight, is. Equations (1) and (2) of the paper:

    .. math::
        L = \\alpha L_{CE}(f_s, y) + (1 - \\alpha) L_{KD}(f_s, f_t), \\quad
        L_{KD} = -\\sum_c \\mathrm{softmax}_c(f_t / T) \\log \\mathrm{softmax}_c(f_s / T)

    Hinton et al. (2015) multiply the second part by :math:`T^2`; the paper does not, nor is it done
    here. At the paper's T = 1 the two agree.
    """
    by_labels = functional.cross_entropy(student_logits, labels)
    if teacher_logits is None:
        return by_labels
    soft_targets = functional.softmax(teacher_logits / temperature, dim=1)
    by_teacher = functional.cross_entropy(student_logits / temperature, soft_targets)
    return alpha * by_labels + (1 - alpha) * by_teacher


class Student(lightning.LightningModule):
    """A network that learns from labels and, where a batch has its logits, from a teacher."""

    def __init__(self, network, learning_rate, weight_decay=0.0, **weights):
        super().__init__()
        self.network, self.loss = network, partial(distillation_loss, **weights)
        self.rates = {"lr": learning_rate, "weight_decay": weight_decay}

    def training_step(self, batch, batch_index):
        inputs, labels, *teacher = batch
        loss = self.loss(self.network(inputs), labels, *teacher)
        self.log("training_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch, batch_index):
        inputs, labels, *teacher = batch
        logits = self.network(inputs)
        loss = self.loss(logits, labels, *teacher)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        values = {"validation_loss": loss, "validation_accuracy": accuracy}
        self.log_dict(values, batch_size=len(labels))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), fused=True, **self.rates)


class StudentOnGPU(Student):
    """The same where a GPU is: a step, from the batch to the new weights, is one CUDA graph.

    To start its 150 kernels one by one takes longer than they compute. The first steps, and a
    smaller last one, do run so; the others replay what was captured (see PyTorch's notes).
    """

    WARM_UP = 3
    stream = None  # one for all, since cuBLAS keeps memory for each

    def __init__(self, *args, gradient_clip: float | None, **options):
        super().__init__(*args, **options)
        self.gradient_clip, self.graph, self.batch, self.n_steps = gradient_clip, None, None, 0

    def step(self, inputs, labels, *teacher):
        """What Lightning does with the loss of a batch."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        loss = self.loss(self.network(inputs), labels, *teacher)
        optimizer.zero_grad()
        loss.backward()
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.gradient_clip)
        optimizer.step()
        self.total += loss.detach() * len(labels)

    def training_step(self, batch, batch_index):
        if self.batch is None:
            self.batch = [part.clone() for part in batch]
            StudentOnGPU.stream = StudentOnGPU.stream or torch.cuda.Stream()
            self.total = torch.zeros((), device=self.device)
        self.n_steps += 1
        is_whole = len(batch[0]) == len(self.batch[0])
        if self.graph is None and is_whole and self.n_steps > self.WARM_UP:
            self.capture()
        if self.graph is None or not is_whole:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(*batch)
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            for static, part in zip(self.batch, batch, strict=True):
                static.copy_(part)
            self.graph.replay()
        if batch_index + 1 == self.trainer.num_training_batches:
            loss = self.total / self.trainer.train_dataloader.n
            self.log("training_loss", loss, on_step=False, on_epoch=True)
            self.total.zero_()
        # Without a loss to return, Lightning makes no step of its own.

    def capture(self):
        self.optimizers(use_pl_optimizer=False).param_groups[0]["capturable"] = True
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):  # computes nothing yet
                self.step(*self.batch)
            self.graph = graph
        except RuntimeError as error:  # a layer that cannot be captured is slower, not wrong
            logger.warning("No CUDA graph, kernels are started one by one: %s", error)
            self.WARM_UP = math.inf

    def on_train_end(self):
        self.graph = self.batch = None  # and with them the memory that they hold


class _Epochs(Callback):
    """Seed each epoch, note its losses, and stop if they are no numbers."""

    def __init__(self, seed: int):
        self.seed, self.rows, self.started = seed, [], time.perf_counter()

    def on_train_epoch_start(self, trainer, student):
        # A training that is taken up in some epoch draws what the whole one would have drawn.
        torch.manual_seed(1_000_003 * (self.seed + 1) + trainer.current_epoch)

    def on_train_epoch_end(self, trainer, student):
        names = ["training_loss", "validation_loss", "validation_accuracy"]
        row = {name: float(trainer.callback_metrics[name]) for name in names}
        values = ", ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in names)
        epoch, seconds = trainer.current_epoch + 1, time.perf_counter() - self.started
        logger.info("Epoch %d: %s, %.1f s", epoch, values, seconds)
        if not np.isfinite(list(row.values())).all():
            text = f"Training diverged in epoch {epoch}: {values}. Lower training.learning_rate"
            raise TrainingError(f"{text}, or look for extreme values in the trials.")
        self.rows.append({"epoch": epoch, **row, "seconds": seconds})

    def state_dict(self):
        return {"rows": self.rows}

    def load_state_dict(self, state):
        self.rows = state["rows"]
        self.started -= self.rows[-1]["seconds"]


class Trained(NamedTuple):
    """A trained network."""

    network: nn.Module  # with the weights of the best epoch; in evaluation mode
    history: pandas.DataFrame  # epoch, training_loss, validation_loss, validation_accuracy, seconds
    best_epoch: int  # that of the lowest validation loss, from 1


def fit(
    build_network: Callable[[], nn.Module],
    inputs: np.ndarray,
    labels: np.ndarray,
    split: Split,
    *,
    teacher_logits: np.ndarray | None = None,
    seed: int = 0,
    alpha: float = 0.5,
    temperature: float = 1.0,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.0,
    batch_size: int = 64,
    gradient_clip: float | None = 1.0,
    max_epochs: int = 50,
    patience: int = 10,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> Trained:
    """Train a new network on a subject's training trials, stopping by the validation trials.

    Parameters
    ----------
    inputs : array, shape (n_trials, ...)
        With `labels` (n_trials,). Test trials and their labels are not looked at.
    teacher_logits : array, shape (n_trials, n_classes) | None
        For the image of each trial. None: training on labels alone.
    seed : int
        Of the initial weights, the order of the trials, and dropout.
    alpha ... device
        As in `eeglib.profile.TrainingSettings`. A single trial left over from the batches sits out,
        since batch normalisation needs two; it is another one in each epoch.
    checkpoint : Path | None
        Begin of the name of a folder where the state is kept after every epoch, until training has
        finished: the same call, trials, settings and seed, goes on there if it was interrupted.

    Notes
    -----
    Section 3.6 of the paper: Adam, gradients clipped by norm, early stopping on the same loss (1)
    of the validation trials. A loss that is no number ends the training with a TrainingError.
    """
    arrays = [array for array in (inputs, labels, teacher_logits) if array is not None]
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device is cuda, but PyTorch sees no GPU. Set it to auto.")
    device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    options = {"alpha": alpha, "temperature": temperature}
    options |= {"learning_rate": learning_rate, "weight_decay": weight_decay}
    with isolate_rng(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch|lightning_fabric")
        torch.manual_seed(seed)
        network = build_network().to(device)
        training, validation = parts = [
            [on_device(array[rows], device) for array in arrays]
            for rows in (split.training, split.validation)
        ]
        if checkpoint is not None:
            settings = (options, batch_size, gradient_clip, patience, seed)
            folder = f"{checkpoint}-{joblib.hash([arrays, split, settings, str(network)])}"
        trained = network
        if isinstance(network, Network):
            trained = network.layers.to(memory_format=torch.channels_last)
            network.standardize.fit(training[0])
            for tensors in parts:
                tensors[0] = network.standardize(tensors[0])
        student, clipped = Student(trained, **options), gradient_clip
        if device.type == "cuda":  # which clips in its own step
            student, clipped = StudentOnGPU(trained, gradient_clip=clipped, **options), None
        epochs, last = _Epochs(seed), Path(folder, "last.ckpt")
        saving = {"save_last": checkpoint is not None, "save_weights_only": checkpoint is None}
        saving |= {"save_on_train_epoch_end": True, "enable_version_counter": False}
        trainer = lightning.Trainer(
            max_epochs=max_epochs,
            gradient_clip_val=clipped,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            plugins=[LightningEnvironment()],  # else, under Slurm, it would ask for Slurm's tasks
            callbacks=[
                epochs,
                EarlyStopping("validation_loss", patience=patience, check_on_train_epoch_end=True),
                ModelCheckpoint(folder, "best", "validation_loss", **saving),
            ],
            logger=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
        )
        try:
            trainer.fit(
                student,
                _Batches(training, batch_size, shuffle=True),
                _Batches(validation, 256, shuffle=False),
                ckpt_path=str(last) if last.exists() else None,
                weights_only=True,
            )
        except SIGTERMException:
            raise
        except SystemExit as stopped:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from stopped
        best = torch.load(Path(folder, "best.ckpt"), map_location="cpu", weights_only=True)
        student.load_state_dict(best["state_dict"])
        if checkpoint is not None:
            shutil.rmtree(folder)
    history = pandas.DataFrame(epochs.rows)
    best_epoch = int(history["epoch"][history["validation_loss"].idxmin()])
    return Trained(network.to(device).eval(), history, best_epoch)


class _Batches:
    """Batches of tensors, each taken by one indexing; a single trial left over sits out."""

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, shuffle: bool):
        self.tensors, self.batch_size, n = tensors, batch_size, len(tensors[0])
        self.order = RandomSampler(range(n)) if shuffle else range(n)
        self.n = n - 1 if shuffle and n % batch_size == 1 else n

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        # The whole order at once, for the device waits whenever it is handed an index.
        order = torch.tensor(list(self.order), device=self.tensors[0].device)
        for rows in order[: self.n].split(self.batch_size):
            yield [tensor[rows] for tensor in self.tensors]


def fit_seeds(*args, seeds: Sequence[int] = (0,), **options) -> list[Trained]:
    """Train one network, from new weights, for each seed; arguments as in `fit`."""
    return [fit(*args, seed=seed, **options) for seed in seeds]


@torch.inference_mode()
def predict(network: nn.Module, inputs: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Probabilities of the classes: float32, shape (n_trials, n_classes)."""
    network.eval()
    device = next(network.parameters()).device
    batches = (on_device(inputs[part], device) for part in gen_batches(len(inputs), batch_size))
    return torch.cat([network(batch).float().softmax(dim=1).cpu() for batch in batches]).numpy()


class Decoder(NamedTuple):
    """A student with all that it takes from a recording, or a stream, to its posterior.

    Its `networks` are averaged; `preprocessing` is what `eeglib.preprocessing.preprocess` was
    told, `grid` what `eeglib.timefrequency.spectrograms` was, `shape` that of an input.
    """

    networks: list[nn.Module]
    class_names: list[str]
    ch_names: list[str]
    sfreq: float
    preprocessing: dict
    grid: dict
    shape: tuple[int, ...]

    def __call__(self, trials: np.ndarray) -> np.ndarray:
        """Probabilities (n_trials, n_classes) of trials (n_trials, n_chans, n_times)."""
        inputs = spectrograms(trials, self.sfreq, **self.grid)
        return np.mean([predict(network, inputs) for network in self.networks], axis=0)

    def save(self, path: Path) -> None:
        """Write it into one file, for `load`."""
        weights = [network.state_dict() for network in self.networks]
        torch.save({**self._asdict(), "networks": weights}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; on the CPU."""
        decoder = cls(**torch.load(path, map_location="cpu", weights_only=True))
        build = residual_network(decoder.shape, len(decoder.class_names))
        for place, weights in enumerate(decoder.networks):
            decoder.networks[place] = build()
            decoder.networks[place].load_state_dict(weights)
        return decoder


def average_predictions(trained: Sequence[Trained], inputs: np.ndarray) -> np.ndarray:
    """Mean of the probabilities of several networks, shape (n_trials, n_classes)."""
    return np.mean([predict(one.network, inputs) for one in trained], axis=0)


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Labels as int64, all else as float32; images with channels last, as convolutions like it."""
    dtype = np.int64 if np.asarray(array).dtype.kind in "iu" else np.float32
    tensor = torch.as_tensor(np.ascontiguousarray(array, dtype=dtype), device=device)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
