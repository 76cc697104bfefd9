"""What Lightning costs, and what its usual way of loading trials would cost.

``python -m benchmarks training`` trains the student (128 x 4 x 21 inputs, 1,600 training and 200
validation trials of noise) in three ways that take turns, so that all share the machine's weather:

- ``here``: `eeglib.decoding.training.fit`, Lightning with a batch by one indexing;
- ``bare loop``: PyTorch without Lightning, over the same batches of the same standardised trials;
- ``DataLoader``: Lightning with its usual loader, which fetches trial by trial and standardises
  every batch;
- on a GPU also ``kernel by kernel``: as ``here``, without the CUDA graph of a step.

Given are the medians of the ratios. It also measures what share of the machine's rate of
convolution the training reaches, and times one trial of 440 samples on its way to a posterior, on
one core. Where PyTorch sees a GPU, the same is measured there, and all ten methods of one subject
(for as many epochs as the student; no early stopping) and the share of an epoch's time that the
GPU computes. ``--epochs 5`` is a quick trial; the student's seconds are then scaled to 50.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from eeglib.decoding.networks import residual_network
from eeglib.decoding.splits import Split
from eeglib.decoding.training import (
    Student,
    StudentOnGPU,
    distillation_loss,
    fit,
    on_device,
    predict,
)
from eeglib.timefrequency import spectrograms

SHAPE, N_CLASSES = (128, 4, 21), 40
N_TIMES, SFREQ, BAND = 440, 1000.0, (14.0, 70.0)
N_TRAINING, N_VALIDATION = 1600, 200
EPOCHS, BATCH = 50, 64
LOSS = {"alpha": 0.5, "temperature": 1.0}


def main(arguments: list[str]) -> int:
    """Measure, print the table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the student")
    parser.add_argument("--repeats", type=int, default=5, help="turns of the three ways")
    parser.add_argument("--trials", type=int, default=500, help="single trials to time")
    options = parser.parse_args(arguments)
    print(f"threads: {torch.get_num_threads()}; load of the last minute: {os.getloadavg()[0]:.1f}")
    data = _data()
    cpu = _on_device("cpu", data, options)
    closing = {
        "vs_bare_loop": cpu["vs_bare_loop"],
        "vs_dataloader": cpu["vs_dataloader"],
        "student_50_epochs_s": cpu["student_s"],
        "share_of_conv_rate": cpu["rate"] / _conv_rate(),
        "trial_p99_ms": _one_trial(options.trials),
    }
    if torch.cuda.is_available():
        gpu = _on_device("cuda", data, options)
        closing |= {
            "gpu_vs_bare_loop": gpu["vs_bare_loop"],
            "gpu_vs_dataloader": gpu["vs_dataloader"],
            "gpu_student_s": gpu["student_s"],
            "gpu_methods_s": _methods_seconds("cuda", options.epochs),
            "gpu_busy_share": _busy_share("cuda", data),
        }
    else:
        print("no GPU at hand: nothing measured there")
    print("training " + " ".join(f"{key}={value:.4g}" for key, value in closing.items()))
    return 0


def _data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n_trials = N_TRAINING + N_VALIDATION
    inputs = rng.standard_normal((n_trials, *SHAPE), dtype=np.float32)
    teacher = rng.standard_normal((n_trials, N_CLASSES), dtype=np.float32)
    return inputs, np.arange(n_trials) % N_CLASSES, teacher


def _split() -> Split:
    n_trials = N_TRAINING + N_VALIDATION
    return Split(np.arange(N_TRAINING), np.arange(N_TRAINING, n_trials), np.array([], dtype=int))


def _on_device(device: str, data, options) -> dict[str, float]:
    """Whole training, then epochs of the three ways in turns."""
    seconds = _here(data, options.epochs, device)[-1] * EPOCHS / options.epochs
    multiplications = _multiplications(residual_network(SHAPE, N_CLASSES)())
    rate = 3 * 2 * multiplications * N_TRAINING * EPOCHS / seconds
    print(
        f"{device}: student, {EPOCHS} epochs of {N_TRAINING:,} trials: {seconds:.1f} s, "
        f"{rate / 1e9:.1f} Gflop/s",
        flush=True,
    )
    ways: dict[str, Callable] = {"here": _here, "bare loop": _bare, "DataLoader": _dataloader}
    ways |= {"kernel by kernel": _without_graph} if device == "cuda" else {}
    times = np.array(
        [
            [_seconds_of_an_epoch(way(data, 3, device)) for way in ways.values()]
            for _ in range(options.repeats)
        ]
    )
    for way, own in zip(ways, times.T, strict=True):
        print(
            f"{device}: one epoch, {way}: median {np.median(own):.3f} s of {len(own)}, "
            f"{own.min():.3f} to {own.max():.3f} s; "
            f"{1e3 * np.median(own) / -(-N_TRAINING // BATCH):.2f} ms a step, validation included"
        )
    here, bare, loader = times.T[:3]
    return {
        "vs_bare_loop": float(np.median(here / bare)),
        "vs_dataloader": float(np.median(loader / here)),
        "student_s": seconds,
        "rate": rate,
    }


def _seconds_of_an_epoch(ends: list[float]) -> float:
    """What an epoch adds, apart from what the start of training takes."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _here(data, epochs: int, device: str) -> list[float]:
    """Ends of the epochs, seconds, of `fit`."""
    inputs, labels, teacher = data
    options = {"teacher_logits": teacher, "max_epochs": epochs, "patience": 10**6}
    build = residual_network(SHAPE, N_CLASSES)
    trained = fit(build, inputs, labels, _split(), batch_size=BATCH, device=device, **options)
    return trained.history["seconds"].tolist()


def _without_graph(data, epochs: int, device: str) -> list[float]:
    """The same on a GPU, but no step is captured."""
    with mock.patch.object(StudentOnGPU, "WARM_UP", 10**9):
        return _here(data, epochs, device)


def _bare(data, epochs: int, device: str) -> list[float]:
    """The same network, loss, optimiser and batches in a loop of a few lines."""
    split, device = _split(), torch.device(device)
    training, validation = (
        [on_device(array[part], device) for array in data]
        for part in (split.training, split.validation)
    )
    network = residual_network(SHAPE, N_CLASSES)().to(device)
    network.standardize.fit(training[0])
    training[0], validation[0] = map(network.standardize, (training[0], validation[0]))
    layers = network.layers.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(layers.parameters(), lr=3e-4, fused=True)
    ends = []
    for _ in range(epochs):
        layers.train()
        for index in torch.randperm(N_TRAINING, device=device).split(BATCH):
            inputs, labels, teacher = (tensor[index] for tensor in training)
            loss = distillation_loss(layers(inputs), labels, teacher, **LOSS)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
            optimizer.step()
        layers.eval()
        with torch.inference_mode():
            inputs, labels, teacher = validation
            float(distillation_loss(layers(inputs), labels, teacher, **LOSS))
        ends.append(time.perf_counter())
    return ends


def _dataloader(data, epochs: int, device: str) -> list[float]:
    """The same module as a Lightning user would feed it: trial by trial, standardised in steps."""
    ends = []

    class Clock(lightning.Callback):
        def on_train_epoch_end(self, *_):
            ends.append(time.perf_counter())

    network = residual_network(SHAPE, N_CLASSES)()
    training, validation = (
        TensorDataset(*(torch.as_tensor(array[part]) for array in data))
        for part in (_split().training, _split().validation)
    )
    network.standardize.fit(training.tensors[0])
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu" if device == "cpu" else "gpu",
        devices=1,
        plugins=[LightningEnvironment()],
        gradient_clip_val=1.0,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(
            Student(network, **LOSS, learning_rate=3e-4),
            DataLoader(training, BATCH, shuffle=True),
            DataLoader(validation, BATCH),
        )
    return ends


def _multiplications(network: nn.Module) -> int:
    """Multiply-adds of one trial's way forward; a training step takes about three times as many."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *SHAPE))
    return counter.get_total_flops() // 2


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
            band=BAND,
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

    activity = ProfilerActivity.CPU if device == "cpu" else ProfilerActivity.CUDA
    own = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"

    def computing(epochs: int) -> float:
        with profile(activities=[activity], acc_events=True) as watched:
            _here(data, epochs, device)
        return 1e-6 * sum(getattr(e, own) for e in watched.events() if e.device_type == kind)

    seconds = _seconds_of_an_epoch(_here(data, 3, device))
    share = (computing(3) - computing(1)) / 2 / seconds
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
        predict(network, spectrograms(trial, SFREQ, band=BAND))
        times.append(1e3 * (time.perf_counter() - started))
    torch.set_num_threads(threads)
    os.environ.pop("OMP_NUM_THREADS")
    if limit is not None:
        os.environ["OMP_NUM_THREADS"] = limit
    p50, p99 = np.percentile(times[20:], [50, 99])
    print(f"cpu: one trial on one core: median {p50:.1f} ms, 99th percentile {p99:.1f} ms")
    return float(p99)
