"""The methods of the table: the paper's ten, and one beyond (chapter 6)."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eeglib.decoding.kernel_decoder import KernelDecoder
from eeglib.decoding.networks import (
    Conv1dClassifier,
    LSTMClassifier,
    fitting_width,
    residual_network,
)
from eeglib.decoding.splits import Split
from eeglib.decoding.training import fit, predict
from eeglib.timefrequency import spectrograms, wavelet_coefficients

ENOUGH_RATE = 200.0
"""Times a second, at least, that describe signals filtered below 70 Hz."""

WINDOW = 0.08
"""Seconds over which windowed signals are averaged: 80 points at the paper's 1,000 Hz."""

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the penalty that logistic regression may have."""

CEBRA_DIMENSIONS = 32
CEBRA_BATCH = 512
CEBRA_TRAINING = {"max_epochs": 50, "batch_size": 64, "learning_rate": 3e-4, "device": "auto"}
CEBRA_DELTA = 0.3
"""How far from a trial's image, in standard deviations of each component, its partner is drawn."""

NEIGHBOURS = (1, 3, 7, 15, 31)


@dataclass(frozen=True)
class Method:
    """One method of the table.

    Attributes
    ----------
    title : str
        As in the paper's Table 1.
    sees : str
        What of a trial reaches the classifier.
    decode : callable
        From trials, labels, split and the keywords of `fit_predict` to the probabilities of the
        test trials.
    needs_teacher : bool
        Whether it can only be fitted where the images, hence a teacher, are known.
    seeded : bool
        Whether another seed gives another result.
    """

    title: str
    sees: str
    decode: Callable[..., np.ndarray]
    needs_teacher: bool = False
    seeded: bool = True


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
    """Fit a method on training trials, choose on validation trials, predict the test trials.

    Parameters
    ----------
    name : str
        Of `METHODS`.
    trials : array, shape (n_trials, n_chans, n_times)
        Filtered, standardised signals.
    labels : array of int, shape (n_trials,)
        Those of test trials are not looked at.
    split : Split
    sfreq : float
        Hertz.
    n_classes : int
        Of the data set, whether or not this subject has trials of all.
    teacher_logits : array, shape (n_trials, n_classes) | None
        For the image of each trial.
    teacher_features : array, shape (n_trials, d) | None
        CLS token of the image of each trial.
    seeds : sequence of int
        A method that depends on a seed is fitted with each and its probabilities averaged.
    training : mapping | None
        Keywords of `eeglib.decoding.training.fit`, such as ``max_epochs``.
    window, step : float
        Of the short-time Fourier transform, s.
    wavelet : str
    band : tuple of float | None
        Pass band of the filter that the trials went through, Hz.

    Returns
    -------
    array of float32, shape (n_test_trials, n_classes)
        Rows sum to 1.

    Raises
    ------
    ValueError
        If the method needs a teacher and none is given.
    """
    method = METHODS[name]
    if method.needs_teacher and (teacher_logits is None or teacher_features is None):
        raise ValueError(
            f"{method.title} needs the teacher's logits and features of each trial's image. Run "
            "chapter 4, or leave the method out of baselines.methods where there are no images."
        )
    predictions = [
        method.decode(
            trials,
            labels,
            split,
            sfreq=sfreq,
            n_classes=n_classes,
            teacher_logits=teacher_logits,
            teacher_features=teacher_features,
            seed=seed,
            training=training or {},
            window=window,
            step=step,
            wavelet=wavelet,
            band=band,
        )
        for seed in (seeds if method.seeded else (0,))
    ]
    return np.mean(predictions, axis=0).astype(np.float32)


# --- logistic regression ----------------------------------------------------------------------


def power_features(trials: np.ndarray) -> np.ndarray:
    """Mean square of each channel's standardised signal.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)

    Returns
    -------
    array of float32, shape (n_trials, n_chans)

    Notes
    -----
    The paper (section 3.6) says "standardized, squared, and subsequently averaged across
    channels", which leaves one number per time. Its table calls the method "LR on average square
    signal" and gives it an accuracy of .36, as good as an LSTM's. The average over the *times* of
    each channel is the power of the channel, the feature that such a result would come from.
    """
    return np.square(trials, dtype=np.float32).mean(axis=-1)


def window_features(trials: np.ndarray, sfreq: float) -> np.ndarray:
    """Means of each channel over windows of 80 ms that move by half their length.

    Parameters
    ----------
    trials : array, shape (n_trials, n_chans, n_times)
    sfreq : float
        Hertz.

    Returns
    -------
    array of float32, shape (n_trials, n_chans * n_windows)
    """
    n_trials, _, n_times = trials.shape
    length = min(n_times, max(1, round(WINDOW * sfreq)))
    windows = np.lib.stride_tricks.sliding_window_view(trials, length, axis=-1)
    means = windows[..., :: max(1, length // 2), :].mean(axis=-1, dtype=np.float64)
    return means.reshape(n_trials, -1).astype(np.float32)


def logistic_regression(
    features: np.ndarray, labels: np.ndarray, split: Split, n_classes: int, *steps
) -> np.ndarray:
    """Standardise, transform by `steps`, classify; the penalty that validation likes best."""
    model = make_pipeline(StandardScaler(), *steps, LogisticRegression(max_iter=500))
    search = GridSearchCV(
        model,
        {"logisticregression__C": PENALTIES},
        scoring=partial(_score, n_classes=n_classes),
        cv=PredefinedSplit(np.repeat([-1, 0], [len(split.training), len(split.validation)])),
        refit=False,
        error_score="raise",
    )
    both = np.concatenate([split.training, split.validation])
    with warnings.catch_warnings():  # a nearly converged fit is judged by validation anyway
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(features[both], labels[both])
        model.set_params(**search.best_params_)
        model.fit(features[split.training], labels[split.training])
    return _probabilities(model, features[split.test], n_classes)


def _score(model, features: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    probabilities = _probabilities(model, features, n_classes)
    return -log_loss(labels, probabilities, labels=range(n_classes))


def _probabilities(model, features: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities for all classes; 0 for a class without training trials."""
    probabilities = np.zeros((len(features), n_classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _lr_power(trials, labels, split, *, n_classes, **_):
    return logistic_regression(power_features(trials), labels, split, n_classes)


def _lr_windowed(trials, labels, split, *, sfreq, n_classes, **_):
    return logistic_regression(window_features(trials, sfreq), labels, split, n_classes)


def _lr_windowed_pca(trials, labels, split, *, sfreq, n_classes, **_):
    components = PCA(n_components=0.95, svd_solver="full")
    features = window_features(trials, sfreq)
    return logistic_regression(features, labels, split, n_classes, components)


# --- CEBRA ------------------------------------------------------------------------------------


def _cebra_knn(trials, labels, split, *, sfreq, n_classes, teacher_features, seed, training, **_):
    """Nearest neighbours in a space that CEBRA, guided by CLIP, learned from the training trials.

    A trial is ONE row, its channels and times side by side, and its guide is the CLS token of its
    image (the leading 32 principal components over training images, standardised). CEBRA was made
    for continuous recordings in which neighbouring rows are neighbours in time, and its usual
    filters and ``time_delta`` reach over several rows; here neighbouring rows are different
    trials, so the model sees one row at a time (``offset1-model``) and partners are drawn by
    likeness of the guide alone (``conditional="delta"``). The encoder is as large as the other
    networks and is trained for as many steps as they may take.
    """
    factor = _thinning(sfreq, trials.shape[-1])
    length = trials.shape[-1] // factor * factor
    rows = trials[..., :length].reshape(*trials.shape[:2], -1, factor).mean(axis=-1)
    rows = rows.reshape(len(rows), -1).astype(np.float32)
    rows = StandardScaler().fit(rows[split.training]).transform(rows)
    guide = np.asarray(teacher_features, dtype=np.float64)[split.training]
    size = min(CEBRA_DIMENSIONS, guide.shape[1], len(np.unique(guide, axis=0)) - 1)
    guide = PCA(n_components=max(1, size), whiten=True, random_state=0).fit_transform(guide)
    model = _cebra(rows[split.training], guide.astype(np.float32), seed, training)
    train, validation, test = (
        model.transform(rows[part]) for part in (split.training, split.validation, split.test)
    )

    def vote(n_neighbours: int, embedded: np.ndarray) -> np.ndarray:
        model = KNeighborsClassifier(n_neighbours, metric="cosine")
        votes = n_neighbours * _probabilities(
            model.fit(train, labels[split.training]), embedded, n_classes
        )
        return (votes + 1 / n_classes) / (n_neighbours + 1)  # no class is impossible

    def loss(n_neighbours: int) -> float:
        votes = vote(n_neighbours, validation)
        return log_loss(labels[split.validation], votes, labels=range(n_classes))

    return vote(min((k for k in NEIGHBOURS if k <= len(train)), key=loss), test)


def _cebra(rows: np.ndarray, guide: np.ndarray, seed: int, training: Mapping[str, Any]):
    settings = CEBRA_TRAINING | dict(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that cebra uses in ways they deprecate
        import cebra  # which takes seconds

        width = fitting_width(
            lambda units: cebra.models.init("offset1-model", rows.shape[1], units, CEBRA_DIMENSIONS)
        )
        model = cebra.CEBRA(
            model_architecture="offset1-model",
            num_hidden_units=width,
            distance="cosine",
            output_dimension=CEBRA_DIMENSIONS,
            conditional="delta",
            delta=CEBRA_DELTA,
            device=settings["device"].replace("auto", "cuda_if_available"),
            batch_size=min(CEBRA_BATCH, len(rows)),
            learning_rate=settings["learning_rate"],
            max_iterations=settings["max_epochs"] * math.ceil(len(rows) / settings["batch_size"]),
            verbose=False,
        )
        with torch.random.fork_rng(), _seeded_sampling(seed):
            torch.manual_seed(seed)
            return model.fit(rows, guide)


@contextlib.contextmanager
def _seeded_sampling(training_seed: int):
    """Let cebra's samplers start from a seed: else each draws a new one, whatever it is given."""
    from cebra.distributions.base import HasGenerator

    count, start = itertools.count(), HasGenerator.__init__

    def start_from_seed(self, device, seed):
        start(self, device, seed)
        # Samplers must not repeat each other.
        mixed = np.random.SeedSequence((training_seed, next(count)))
        self._seed = int(mixed.generate_state(1)[0])
        self.generator.manual_seed(self._seed)

    with mock.patch.object(HasGenerator, "__init__", start_from_seed):
        yield


# --- networks ---------------------------------------------------------------------------------


def _network(build, inputs, labels, split, *, training, seed, teacher_logits=None, **_):
    trained = fit(
        build, inputs, labels, split, teacher_logits=teacher_logits, seed=seed, **training
    )
    return predict(trained.network, inputs[split.test])


def _thinning(sfreq: float, n_times: int) -> int:
    """Every how many times are enough."""
    return min(max(1, math.floor(sfreq / ENOUGH_RATE)), n_times)


def _lstm(trials, labels, split, *, sfreq, n_classes, seed, training, **_):
    shape = trials.shape[1:]
    step = _thinning(sfreq, shape[1])
    build = lambda: LSTMClassifier(*shape, n_classes, step=step)  # noqa: E731
    return _network(build, trials, labels, split, training=training, seed=seed)


def _conv1d(trials, labels, split, *, n_classes, seed, training, **_):
    build = partial(Conv1dClassifier, *trials.shape[1:], n_classes)
    return _network(build, trials, labels, split, training=training, seed=seed)


def _residual(inputs, labels, split, *, n_classes, **options):
    build = residual_network(inputs.shape[1:], n_classes)
    return _network(build, inputs, labels, split, **options)


def _distillation_eeg(trials, labels, split, **options):
    return _residual(trials[:, np.newaxis], labels, split, **options)


def _distillation_wavelet(trials, labels, split, *, sfreq, wavelet, **options):
    inputs = wavelet_coefficients(trials, wavelet, _thinning(sfreq, trials.shape[-1]))
    return _residual(inputs, labels, split, **options)


def _distillation_stft(trials, labels, split, *, sfreq, window, step, **options):
    inputs = spectrograms(trials, sfreq, window, step)
    return _residual(inputs, labels, split, **options)


def _cnn_stft(trials, labels, split, **options):
    return _distillation_stft(trials, labels, split, **options | {"teacher_logits": None})


def _kernel_decoder(trials, labels, split, *, sfreq, n_classes, band, **_):
    return KernelDecoder(trials, sfreq, band=band).fit_predict(labels, split, n_classes)


_IMAGE = "trained on labels and soft targets"
METHODS: dict[str, Method] = {
    "lr_power": Method(
        "LR on average square signal",
        "the mean power of each channel, nothing within the trial",
        _lr_power,
        seeded=False,
    ),
    "lr_windowed": Method(
        "LR on windowed signal",
        "the mean voltage of each channel in windows of 80 ms",
        _lr_windowed,
        seeded=False,
    ),
    "lr_windowed_pca": Method(
        "LR on PCA of windowed signal",
        "the components that hold 95% of those means' variance",
        _lr_windowed_pca,
        seeded=False,
    ),
    "cebra_knn": Method(
        "CEBRA + kNN",
        "32 dimensions in which trials of images that CLIP finds alike are near",
        _cebra_knn,
        needs_teacher=True,
    ),
    "lstm": Method("LSTM", "the signals of all channels, moment by moment", _lstm),
    "conv1d": Method("Conv1d", "the signals of all channels, by temporal filters", _conv1d),
    "distillation_eeg": Method(
        "Knowledge distillation on EEG (image)",
        f"channels x times as a picture of one colour, {_IMAGE}",
        _distillation_eeg,
        needs_teacher=True,
    ),
    "distillation_wavelet": Method(
        "Knowledge distillation on wavelets",
        f"wavelet coefficients of each channel, {_IMAGE}",
        _distillation_wavelet,
        needs_teacher=True,
    ),
    "cnn_stft": Method(
        "Plain CNN on spectrograms",
        "time-frequency images of each channel, labels only",
        _cnn_stft,
    ),
    "distillation_stft": Method(
        "Knowledge distillation on STFT",
        f"time-frequency images of each channel, {_IMAGE}",
        _distillation_stft,
        needs_teacher=True,
    ),
    "kernel_decoder": Method(
        "Kernel decoder (not in the paper)",
        "wave shapes, spatial covariances of waves, and power with all pairs of channels",
        _kernel_decoder,
        seeded=False,
    ),
}
"""All methods by name: those of the paper's table in its order, then ours."""
