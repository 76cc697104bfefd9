"""Speed of training against the usual way, and of one trial.

``python -m benchmarks training`` trains the student (128 x 21 x 23 images, 1,600 training and 200
validation trials of noise) with the loop of `eeglib.training` and, for comparison, with Lightning
and its usual DataLoader; measures what share of the machine's rate of convolution is reached; and
times one trial of 440 samples on its way to a posterior, on one core. Where PyTorch sees a GPU,
the same is measured there. ``--epochs 5`` is a quick trial; seconds are then scaled to 50.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from eeglib.distillation import fit, predict, residual_network
from eeglib.networks import count_multiplications
from eeglib.profile import TrainingSettings
from eeglib.splits import Split
from eeglib.timefrequency import stft_images

SHAPE, N_CLASSES = (128, 21, 23), 40
N_TRAINING, N_VALIDATION = 1600, 200
SPLIT = Split(np.arange(N_TRAINING), np.arange(N_TRAINING, N_TRAINING + N_VALIDATION), np.array([]))
EPOCHS = 50


def main(arguments: list[str]) -> int:
    """Measure, print the table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the student")
    parser.add_argument("--repeats", type=int, default=3, help="epochs in turns with Lightning")
    parser.add_argument("--trials", type=int, default=500, help="single trials to time")
    options = parser.parse_args(arguments)
    images, labels, teacher = _data()
    closing = _on_device("cpu", images, labels, teacher, options)
    closing["share_of_conv_rate"] = closing.pop("cpu_rate") / _conv_rate()
    closing["trial_p99_ms"] = _one_trial(options.trials)
    if torch.cuda.is_available():
        closing |= _on_device("cuda", images, labels, teacher, options)
    else:
        print("no GPU at hand: nothing measured there")
    closing["student_50_epochs_s"] = closing.pop("cpu_50_epochs_s")
    print("training " + " ".join(f"{key}={value:.4g}" for key, value in closing.items()))
    return 0


def _data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n_trials = N_TRAINING + N_VALIDATION
    images = rng.standard_normal((n_trials, *SHAPE), dtype=np.float32)
    teacher = rng.standard_normal((n_trials, N_CLASSES), dtype=np.float32)
    return images, np.arange(n_trials) % N_CLASSES, teacher


def _on_device(device: str, images, labels, teacher, options) -> dict[str, float]:
    """Whole training, then epochs in turns with Lightning, so that both share the weather."""
    name = "cpu" if device == "cpu" else "gpu"
    build = residual_network(SHAPE, N_CLASSES)
    settings = TrainingSettings(max_epochs=options.epochs, patience=10**6, device=device)
    history = fit(build, images, labels, SPLIT, settings, teacher, progress=False).history
    seconds = float(history["seconds"].iloc[-1]) * EPOCHS / options.epochs
    steps = 3 * 2 * count_multiplications(build(), SHAPE) * N_TRAINING * EPOCHS
    print(f"{name}: student, {EPOCHS} epochs of {N_TRAINING:,} trials: {seconds:.1f} s, "
          f"{steps / seconds / 1e9:.1f} Gflop/s")
    usual = _usual_way(build, images, labels, teacher, device)
    two = settings.model_copy(update={"max_epochs": 3})
    ours_s, usual_s = [], []
    for _ in range(options.repeats):
        times = fit(build, images, labels, SPLIT, two, teacher, progress=False).history["seconds"]
        ours_s.append(float(times.iloc[-1] - times.iloc[0]) / 2)
        usual_s.append(usual())
    ours_s, usual_s = statistics.median(ours_s), statistics.median(usual_s)
    print(f"{name}: one epoch {ours_s:.2f} s here, {usual_s:.2f} s with Lightning's DataLoader")
    return {f"{name}_speedup": usual_s / ours_s, f"{name}_50_epochs_s": seconds,
            f"{name}_rate": steps / seconds}


def _usual_way(build, images, labels, teacher, device: str):
    """An epoch of the same network, loss and optimiser as a Lightning user would write it."""
    import pytorch_lightning
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")

    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = build()

        def _loss(self, batch):
            inputs, targets, logits = batch
            found = self.network(inputs)
            by_teacher = functional.cross_entropy(found, logits.softmax(dim=1))
            return 0.5 * functional.cross_entropy(found, targets) + 0.5 * by_teacher

        def training_step(self, batch, _):
            return self._loss(batch)

        def validation_step(self, batch, _):
            self.log("validation_loss", self._loss(batch))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=3e-4)

    class Clock(pytorch_lightning.Callback):
        def __init__(self):
            self.ends = []

        def on_train_epoch_end(self, *_):
            self.ends.append(time.perf_counter())

    tensors = [torch.as_tensor(a) for a in (images, labels, teacher)]
    training = TensorDataset(*(t[:N_TRAINING] for t in tensors))
    validation = TensorDataset(*(t[N_TRAINING:] for t in tensors))

    def seconds_of_an_epoch() -> float:
        clock = Clock()
        trainer = pytorch_lightning.Trainer(
            max_epochs=3, accelerator="cpu" if device == "cpu" else "gpu", devices=1,
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
            num_sanity_val_steps=0,
        )
        loaders = DataLoader(training, 64, shuffle=True), DataLoader(validation, 64)
        trainer.fit(Module(), *loaders)
        return (clock.ends[-1] - clock.ends[0]) / 2

    return seconds_of_an_epoch


def _conv_rate() -> float:
    """Floating-point operations per second of a convolution that suits the machine, there and back.

    The best of three shapes: 3 x 3 filters on a batch of 64, with 64, 128 or 256 channels.
    """
    rates = []
    for n_chans, side in ((64, 24), (128, 12), (256, 6)):
        layer = nn.Conv2d(n_chans, n_chans, 3, padding=1, bias=False)
        layer = layer.to(memory_format=torch.channels_last)
        maps = torch.randn(64, n_chans, side, side).to(memory_format=torch.channels_last)
        maps.requires_grad_()
        times = []
        for _ in range(12):
            started = time.perf_counter()
            layer(maps).sum().backward()
            times.append(time.perf_counter() - started)
        rates.append(3 * 2 * 9 * n_chans**2 * side**2 * 64 / min(times))
    print(f"cpu: the machine's rate of convolution: {max(rates) / 1e9:.1f} Gflop/s")
    return max(rates)


def _one_trial(n_trials: int) -> float:
    """99th percentile of the time from 440 samples to a posterior on one core, milliseconds."""
    network = residual_network(SHAPE, N_CLASSES)().eval()
    network = network.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    threads, limit = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the STFT
    times = []
    for _ in range(n_trials + 20):
        trial = rng.standard_normal((1, SHAPE[0], 440), dtype=np.float32)
        started = time.perf_counter()
        predict(network, stft_images(trial, 1000.0))
        times.append(1e3 * (time.perf_counter() - started))
    torch.set_num_threads(threads)
    os.environ.pop("OMP_NUM_THREADS")
    if limit is not None:
        os.environ["OMP_NUM_THREADS"] = limit
    p50, p99 = np.percentile(times[20:], [50, 99])
    print(f"cpu: one trial on one core: median {p50:.1f} ms, 99th percentile {p99:.1f} ms")
    return float(p99)
