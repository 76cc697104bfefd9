"""The methods of the table: the paper's ten, and three beyond (chapter 6)."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from eeglib.decoding import networks
from eeglib.decoding.kernel_decoder import KernelDecoder
from eeglib.decoding.splits import Split
from eeglib.decoding.training import fit, predict
from eeglib.timefrequency import spectrograms, wavelet_magnitudes

ENOUGH_RATE = 200.0  # times a second, at least, that describe signals filtered below 70 Hz
WINDOW = 0.08  # s over which windowed signals are averaged: 80 points at the paper's 1,000 Hz
PENALTIES = (0.001, 0.01, 0.1, 1.0)  # inverse strengths that logistic regression may choose from
NEIGHBOURS = (1, 3, 7, 15, 31)
CEBRA_DIMENSIONS = 32


class Method(NamedTuple):
    """One method of the table."""

    title: str  # as in the paper's Table 1
    sees: str  # what of a trial reaches the classifier
    needs_teacher: bool  # whether the images, hence a teacher, must be known
    seeded: bool  # whether another seed gives another result
    decode: Callable[..., np.ndarray]  # to the probabilities of the test trials


def fit_predict(
    name: str,
    trials: np.ndarray,
    labels: np.ndarray,
    split: Split,
    *,
    sfreq: float,
    n_classes: int,
    teacher_logits: np.ndarray | None = None,
    teacher_features: np.ndarray | None = None,
    seeds: Sequence[int] = (0,),
    training: Mapping[str, Any] | None = None,
    window: float = 0.04,
    step: float = 0.02,
    wavelet: str = "db4",
    band: tuple[float, float] | None = None,
) -> np.ndarray:
    """Fit one of `METHODS` on training trials, choose on validation ones, predict the test trials.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
        Filtered, standardised signals at `sfreq`, Hz.
    labels : array of int, shape (n_trials,)
        Those of test trials are not looked at.
    n_classes : int
        Of the data set, whether or not this subject has trials of all.
    teacher_logits, teacher_features : array, shape (n_trials, n_classes) and (n_trials, d) | None
        The teacher's, for the image of each trial.
    seeds : sequence of int
        A method that depends on a seed is fitted with each and its probabilities averaged.
    training, window, step, wavelet
        Keywords of `eeglib.decoding.training.fit`, and of `eeglib.timefrequency`.
    band : tuple of float | None
        Pass band of the filter that the trials went through, Hz.

    Returns
    -------
    array of float32, shape (n_test_trials, n_classes)
        Rows sum to 1.
    """
    method = METHODS[name]
    options = {"sfreq": sfreq, "n_classes": n_classes, "training": dict(training or {})}
    options |= {"teacher_logits": teacher_logits if method.needs_teacher else None}
    options |= {"teacher_features": teacher_features, "band": band}
    options |= {"window": window, "step": step, "wavelet": wavelet}
    if method.needs_teacher and (teacher_logits is None or teacher_features is None):
        text = f"{method.title} needs the teacher's logits and features of each trial's image"
        raise ValueError(f"{text}: run chapter 4, or leave it out of baselines.methods.")
    seeds = seeds if method.seeded else (0,)
    predictions = [method.decode(trials, labels, split, seed=s, **options) for s in seeds]
    return np.mean(predictions, axis=0).astype(np.float32)


def _probabilities(model, features: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities for all classes; 0 for a class without training trials."""
    probabilities = np.zeros((len(features), n_classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _chosen(candidates: Sequence[Callable], labels, split: Split, n_classes: int) -> np.ndarray:
    """What the candidate with the best validation log-loss says about the test trials."""

    def loss(candidate) -> float:
        true, probabilities = labels[split.validation], candidate(split.validation)
        return log_loss(true, probabilities, labels=range(n_classes))

    return min(candidates, key=loss)(split.test)


def power_features(trials: np.ndarray) -> np.ndarray:
    """Mean square over the times of each channel, float32, shape (n_trials, n_chans)."""
    return np.square(trials, dtype=np.float32).mean(axis=-1)


def window_features(trials: np.ndarray, sfreq: float) -> np.ndarray:
    """Means of each channel over windows of 80 ms that move by half their length, side by side."""
    n_trials, _, n_times = trials.shape
    length = min(n_times, max(1, round(WINDOW * sfreq)))
    windows = np.lib.stride_tricks.sliding_window_view(trials, length, axis=-1)
    means = windows[..., :: max(1, length // 2), :].mean(axis=-1, dtype=np.float64)
    return means.reshape(n_trials, -1).astype(np.float32)


def _logistic_regression(
    describe, trials, labels, split: Split, *, sfreq, n_classes, variance=None, **_
):
    """Standardise features, or components that hold their variance, and classify these."""
    train, features = split.training, describe(trials, sfreq)
    steps = [] if variance is None else [PCA(variance, svd_solver="full")]
    features = make_pipeline(StandardScaler(), *steps).fit(features[train]).transform(features)
    models = [LogisticRegression(C=penalty, max_iter=500) for penalty in PENALTIES]
    with warnings.catch_warnings():  # a nearly converged fit is judged by validation anyway
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model in models:
            model.fit(features[train], labels[train])
    candidates = [lambda part, m=m: _probabilities(m, features[part], n_classes) for m in models]
    return _chosen(candidates, labels, split, n_classes)


def cebra_knn(trials, labels, split, *, n_classes, teacher_features, seed, training, **options):
    """Nearest neighbours in a space that CEBRA, guided by CLIP, learned from the training trials.

    A row is a trial's mean spectrum at each channel: of its voltages, the encoder makes nothing.
    Partners are drawn by likeness of the guide alone, the leading components of the images' CLS
    tokens. This is as large as the other networks and takes as many steps as they may.
    """
    grid = {name: options[name] for name in ("sfreq", "window", "step", "band")}
    rows = spectrograms(trials, **grid).mean(axis=-1).reshape(len(trials), -1)
    train = split.training
    rows = StandardScaler().fit(rows[train]).transform(rows)
    guide = np.asarray(teacher_features, dtype=np.float64)[train]
    size = min(CEBRA_DIMENSIONS, guide.shape[1], len(np.unique(guide, axis=0)) - 1)
    guide = PCA(n_components=max(1, size), whiten=True, random_state=0).fit_transform(guide)
    model = _cebra(rows[train], guide.astype(np.float32), seed, **training)
    embedded = model.transform(rows)

    def candidate(n_neighbours: int, part: np.ndarray) -> np.ndarray:
        model = KNeighborsClassifier(n_neighbours, metric="cosine")
        model.fit(embedded[train], labels[train])
        votes = n_neighbours * _probabilities(model, embedded[part], n_classes)
        return (votes + 1 / n_classes) / (n_neighbours + 1)  # no class is impossible

    candidates = [partial(candidate, k) for k in NEIGHBOURS if k <= len(train)]
    return _chosen(candidates, labels, split, n_classes)


def _cebra(rows, guide, seed, max_epochs=50, batch_size=64, learning_rate=3e-4, device="auto", **_):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that cebra uses in ways they deprecate
        import cebra  # which takes seconds

        name = "offset1-model"
        width = networks.fitting_width(
            lambda units: cebra.models.init(name, rows.shape[1], units, CEBRA_DIMENSIONS)
        )
        model = cebra.CEBRA(
            model_architecture=name,
            num_hidden_units=width,
            distance="cosine",
            output_dimension=CEBRA_DIMENSIONS,
            conditional="delta",
            delta=0.3,  # standard deviations of the guide between a trial and its partner
            device=device.replace("auto", "cuda_if_available"),
            batch_size=min(512, len(rows)),
            learning_rate=learning_rate,
            max_iterations=max_epochs * math.ceil(len(rows) / batch_size),
            verbose=False,
        )
        with _seeded_cebra(seed):
            return model.fit(rows, guide)


@contextlib.contextmanager
def _seeded_cebra(training_seed: int):
    """Let cebra's samplers start from a seed: else each draws a new one, whatever it is given."""
    from cebra.distributions.base import HasGenerator

    numbers, start = itertools.count(), HasGenerator.__init__

    def start_from_seed(self, device, seed):
        start(self, device, seed)
        mixed = np.random.SeedSequence((training_seed, next(numbers)))  # no sampler repeats another
        self._seed = int(mixed.generate_state(1)[0])
        self.generator.manual_seed(self._seed)

    patch = mock.patch.object(HasGenerator, "__init__", start_from_seed)
    with patch, torch.random.fork_rng():
        torch.manual_seed(training_seed)
        yield


def _thinning(sfreq: float) -> int:
    """How many neighbouring times may be taken for one."""
    return max(1, math.floor(sfreq / ENOUGH_RATE))


def _thinned(trials: np.ndarray, sfreq: float) -> np.ndarray:
    trials = torch.as_tensor(trials, dtype=torch.float32)
    return functional.avg_pool1d(trials, _thinning(sfreq)).numpy()


def _network(kind, inputs, labels, split, *more, n_classes, training, seed, teacher_logits, **_):
    build, test = partial(kind, *inputs.shape[1:], n_classes, *more), inputs[split.test]
    options = {"teacher_logits": teacher_logits, "seed": seed, **training}
    return predict(fit(build, inputs, labels, split, **options).network, test)


def _over_time(kind, trials, labels, split, *, sfreq, **options):
    inputs, rate = _thinned(trials, sfreq), sfreq / _thinning(sfreq)
    return _network(kind, inputs, labels, split, rate, **options)


def _over_spectrograms(kind, trials, labels, split, *, sfreq, window, step, band, **options):
    inputs = spectrograms(trials, sfreq, window, step, band)
    return _network(kind, inputs, labels, split, **options)


def distillation_wavelet(trials, labels, split, *, sfreq, wavelet, band, **options):
    inputs = wavelet_magnitudes(trials, sfreq, wavelet, band, _thinning(sfreq))
    return _network(networks.ResidualCNN, inputs, labels, split, **options)


def channel_mixing(trials, labels, split, *, sfreq, **options):
    return _network(networks.ChannelMixing, _thinned(trials, sfreq), labels, split, **options)


lr_power = partial(_logistic_regression, lambda trials, sfreq: power_features(trials))
lr_windowed = partial(_logistic_regression, window_features)
lr_windowed_pca = partial(lr_windowed, variance=0.95)
lstm = partial(_over_spectrograms, networks.LSTMClassifier)
cnn_stft = distillation_stft = partial(_over_spectrograms, networks.ResidualCNN)
conv1d = partial(_over_time, networks.Conv1dClassifier)
distillation_eeg = partial(_over_time, networks.ImageCNN)
shallow_convnet = partial(_over_time, networks.ShallowConvNet)


def kernel_decoder(trials, labels, split, *, sfreq, n_classes, **_):
    return KernelDecoder(trials, sfreq).fit_predict(labels, split, n_classes)


_TABLE = pandas.read_csv(Path(__file__).with_suffix(".csv"), index_col="name").itertuples()
METHODS = {name: Method(*row, globals()[name]) for name, *row in _TABLE}
"""All methods by name, which is that of a function here: the paper's in its order, then ours."""
