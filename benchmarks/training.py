"""Speed of training against the usual way, and of one trial.

``python -m benchmarks training`` trains the student (128 x 21 x 23 images, 1,600 training and 200
validation trials of noise) with the loop of `eeglib.decoding.training` and, for comparison, with Lightning
and its usual DataLoader: the same network, whose way forward standardises each batch, and, to
separate the two gains, the network without its first layer on trials standardised beforehand. The
three take turns, so that all share the machine's weather, and medians over the turns are given. It
measures what share of the machine's rate of convolution is reached, and times one trial of 440
samples on its way to a posterior, on one core.

Where PyTorch sees a GPU, the same is measured there, and all ten methods of one subject (as many
epochs as the student; no early stopping) and the share of an epoch's time that the GPU computes.
``--epochs 5`` is a quick trial; the student's seconds are then scaled to 50.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from eeglib.decoding.networks import residual_network
from eeglib.decoding.splits import Split
from eeglib.decoding.training import fit, predict
from eeglib.timefrequency import spectrograms

SHAPE, N_CLASSES = (128, 21, 23), 40
N_TIMES, SFREQ = 440, 1000.0
N_TRAINING, N_VALIDATION = 1600, 200
EPOCHS = 50


def main(arguments: list[str]) -> int:
    """Measure, print the table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the student")
    parser.add_argument("--repeats", type=int, default=5, help="turns with Lightning")
    parser.add_argument("--trials", type=int, default=500, help="single trials to time")
    options = parser.parse_args(arguments)
    print(f"threads: {torch.get_num_threads()}; load of the last minute: {os.getloadavg()[0]:.1f}")
    data = _data()
    cpu = _on_device("cpu", data, options)
    closing = {
        "cpu_speedup": cpu["speedup"],
        "cpu_speedup_standardized": cpu["speedup_standardized"],
        "student_50_epochs_s": cpu["student_s"],
        "share_of_conv_rate": cpu["rate"] / _conv_rate(),
        "trial_p99_ms": _one_trial(options.trials),
    }
    if torch.cuda.is_available():
        gpu = _on_device("cuda", data, options)
        closing |= {
            "gpu_speedup": gpu["speedup"],
            "gpu_student_s": gpu["student_s"],
            "gpu_rows_s": _methods_seconds("cuda", options.epochs),
            "gpu_busy_share": _busy_share("cuda", data),
        }
    else:
        print("no GPU at hand: nothing measured there")
    print("training " + " ".join(f"{key}={value:.4g}" for key, value in closing.items()))
    return 0


def _data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n_trials = N_TRAINING + N_VALIDATION
    images = rng.standard_normal((n_trials, *SHAPE), dtype=np.float32)
    teacher = rng.standard_normal((n_trials, N_CLASSES), dtype=np.float32)
    return images, np.arange(n_trials) % N_CLASSES, teacher


def _fit(data, epochs: int, device: str) -> float:
    """Seconds of the loop here."""
    build = residual_network(SHAPE, N_CLASSES)
    images, labels, teacher = data
    options = {"max_epochs": epochs, "patience": 10**6, "device": device}
    history = fit(build, images, labels, _split(), teacher_logits=teacher, **options).history
    return float(history["seconds"].iloc[-1])


def count_multiplications(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of one trial's way forward; a training step takes about three times as many."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def _split() -> Split:
    n_trials = N_TRAINING + N_VALIDATION
    return Split(np.arange(N_TRAINING), np.arange(N_TRAINING, n_trials), np.array([], dtype=int))


def _per_epoch(measure: Callable[[int], float]) -> float:
    """What an epoch adds, apart from what the start of training takes."""
    return (measure(3) - measure(1)) / 2


def _on_device(device: str, data, options) -> dict[str, float]:
    """Whole training, then epochs in turns with Lightning."""
    name = "cpu" if device == "cpu" else "gpu"
    seconds = _fit(data, options.epochs, device) * EPOCHS / options.epochs
    network = residual_network(SHAPE, N_CLASSES)()
    steps = 3 * 2 * count_multiplications(network, SHAPE) * N_TRAINING * EPOCHS
    print(
        f"{name}: student, {EPOCHS} epochs of {N_TRAINING:,} trials: {seconds:.1f} s, "
        f"{steps / seconds / 1e9:.1f} Gflop/s",
        flush=True,
    )
    ways = {
        "here": lambda: _per_epoch(lambda epochs: _fit(data, epochs, device)),
        "Lightning": _usual_way(data, device, standardized=False),
        "Lightning, standardised trials": _usual_way(data, device, standardized=True),
    }
    times = np.array([[way() for way in ways.values()] for _ in range(options.repeats)])
    for way, found in zip(ways, times.T, strict=True):
        print(
            f"{name}: one epoch, {way}: median {np.median(found):.3f} s of {len(found)}, "
            f"{found.min():.3f} to {found.max():.3f} s"
        )
    ratios = np.median(times[:, 1:] / times[:, :1], axis=0)
    return {
        "speedup": ratios[0],
        "speedup_standardized": ratios[1],
        "student_s": seconds,
        "rate": steps / seconds,
    }


def _usual_way(data, device: str, standardized: bool) -> Callable[[], float]:
    """An epoch of the same network, loss and optimiser as a Lightning user would write it."""
    import pytorch_lightning
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    images, labels, teacher = (torch.as_tensor(array) for array in data)
    fitted = residual_network(SHAPE, N_CLASSES)()
    fitted.standardize.fit(images[:N_TRAINING])
    if standardized:
        images = fitted.standardize(images)

    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = residual_network(SHAPE, N_CLASSES)()
            self.network.load_state_dict(fitted.state_dict())
            if standardized:
                self.network = self.network.layers

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

    tensors = images, labels, teacher
    training = TensorDataset(*(t[:N_TRAINING] for t in tensors))
    validation = TensorDataset(*(t[N_TRAINING:] for t in tensors))

    def seconds_of_an_epoch() -> float:
        clock = Clock()
        trainer = pytorch_lightning.Trainer(
            max_epochs=3,
            accelerator="cpu" if device == "cpu" else "gpu",
            devices=1,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
            num_sanity_val_steps=0,
        )
        loaders = DataLoader(training, 64, shuffle=True), DataLoader(validation, 64)
        trainer.fit(Module(), *loaders)
        return (clock.ends[-1] - clock.ends[0]) / 2

    return seconds_of_an_epoch


def _methods_seconds(device: str, epochs: int) -> float:
    """Seconds of the paper's ten methods for one subject, none of them stopping early."""
    from eeglib.decoding.methods import fit_predict
    from eeglib.profile import BaselineSettings

    rng = np.random.default_rng(0)
    n_trials = N_TRAINING + 2 * N_VALIDATION
    split = _split()
    split = Split(split.training, split.validation, np.arange(n_trials - N_VALIDATION, n_trials))
    trials = rng.standard_normal((n_trials, SHAPE[0], N_TIMES), dtype=np.float32)
    started = time.perf_counter()
    for name in BaselineSettings().methods:
        before = time.perf_counter()
        fit_predict(
            name,
            trials,
            np.arange(n_trials) % N_CLASSES,
            split,
            sfreq=SFREQ,
            n_classes=N_CLASSES,
            teacher_logits=rng.standard_normal((n_trials, N_CLASSES), dtype=np.float32),
            teacher_features=rng.standard_normal((n_trials, 768), dtype=np.float32),
            training={"max_epochs": epochs, "patience": 10**6, "device": device},
        )
        print(f"{device}: method {name}: {time.perf_counter() - before:.1f} s", flush=True)
    return time.perf_counter() - started


def _busy_share(device: str, data) -> float:
    """Share of an epoch in which the device computes.

    Time of its kernels, as torch.profiler sees them, over the time of an epoch that is not
    watched, since watching slows the processor that starts the kernels.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    kind = DeviceType.CPU if device == "cpu" else DeviceType.CUDA

    def computing(epochs: int) -> float:
        activity = ProfilerActivity.CPU if device == "cpu" else ProfilerActivity.CUDA
        with profile(activities=[activity], acc_events=True) as watched:
            _fit(data, epochs, device)
        own = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
        return 1e-6 * sum(getattr(e, own) for e in watched.events() if e.device_type == kind)

    share = _per_epoch(computing) / _per_epoch(lambda epochs: _fit(data, epochs, device))
    print(f"{device}: computes {share:.1%} of an epoch's time")
    return share


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
        trial = rng.standard_normal((1, SHAPE[0], N_TIMES), dtype=np.float32)
        started = time.perf_counter()
        predict(network, spectrograms(trial, SFREQ))
        times.append(1e3 * (time.perf_counter() - started))
    torch.set_num_threads(threads)
    os.environ.pop("OMP_NUM_THREADS")
    if limit is not None:
        os.environ["OMP_NUM_THREADS"] = limit
    p50, p99 = np.percentile(times[20:], [50, 99])
    print(f"cpu: one trial on one core: median {p50:.1f} ms, 99th percentile {p99:.1f} ms")
    return float(p99)
