"""The rows of the table: the paper's ten decoders, and three beyond (chapter 6)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from eeglib.decoding.kernel_decoder import KernelDecoder
from eeglib.decoding.source_decoder import SourceDecoder
from eeglib.decoding.splits import Split
from eeglib.decoding.trial_features import power_features, window_features
from eeglib.profile import Profile
from eeglib.timefrequency import spectrograms, wavelet_coefficients

if TYPE_CHECKING:
    import mne
    from torch import nn

    from eeglib.decoding.teacher import Teacher

logger = logging.getLogger(__name__)

ENOUGH_RATE = 200.0
"""Times a second, at least, that describe signals filtered below 70 Hz."""


class BaselineError(ValueError):
    """A row that cannot be fitted; the message says what is missing."""


@dataclass(frozen=True)
class Trials:
    """What a row is given.

    Attributes
    ----------
    data : array, shape (n_trials, n_chans, n_times)
        Filtered, standardised signals.
    sfreq : float
        Hertz.
    labels : array of int, shape (n_trials,)
    split : Split
    profile : Profile
    n_classes : int
    teacher_logits : array, shape (n_trials, n_classes) | None
        For the image of each trial.
    teacher_features : array, shape (n_trials, d) | None
        CLS token of the image of each trial.
    seed : int
    """

    data: np.ndarray
    sfreq: float
    labels: np.ndarray
    split: Split
    profile: Profile
    n_classes: int
    teacher_logits: np.ndarray | None = None
    teacher_features: np.ndarray | None = None
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One method of the table.

    Attributes
    ----------
    title : str
        As in the paper's Table 1.
    sees : str
        What of a trial reaches the classifier.
    decode : callable
        From `Trials` to the probabilities of the test trials.
    needs_teacher : bool
        Whether it can only be fitted where the images, hence a teacher, are known.
    seeded : bool
        Whether another seed gives another result.
    """

    title: str
    sees: str
    decode: Callable[[Trials], np.ndarray]
    needs_teacher: bool = False
    seeded: bool = True

    def fit_predict(
        self,
        trials: np.ndarray,
        sfreq: float,
        labels: np.ndarray,
        split: Split,
        profile: Profile,
        teacher_logits: np.ndarray | None = None,
        teacher_features: np.ndarray | None = None,
        seed: int = 0,
        n_classes: int | None = None,
    ) -> np.ndarray:
        """Fit on the training trials, choose on the validation trials, predict the test trials.

        Parameters
        ----------
        trials, sfreq, labels, split, profile, teacher_logits, teacher_features, seed
            As in `Trials`. Labels of test trials are not looked at.
        n_classes : int | None
            By default one more than the largest label.

        Returns
        -------
        array of float32, shape (n_test_trials, n_classes)
            Rows sum to 1.

        Raises
        ------
        BaselineError
            If the row needs a teacher and none is given, or the parts do not go together.
        """
        if self.needs_teacher and (teacher_logits is None or teacher_features is None):
            raise BaselineError(
                f"{self.title} needs the teacher's logits and features of each trial's image. "
                "Run chapter 4, or leave the row out of baselines.rows where there are no images."
            )
        trials, labels = np.asarray(trials), np.asarray(labels)
        if trials.ndim != 3 or len(trials) != len(labels):
            raise BaselineError(
                "Expected trials (n_trials, n_chans, n_times) and as many labels, got "
                f"{trials.shape} and {labels.shape}."
            )
        n_classes = int(labels.max()) + 1 if n_classes is None else n_classes
        found = self.decode(
            Trials(
                trials,
                sfreq,
                labels,
                split,
                profile,
                n_classes,
                teacher_logits,
                teacher_features,
                seed,
            )
        )
        return np.asarray(found, dtype=np.float32)


def fit_rows(
    names: Iterable[str],
    epochs: mne.BaseEpochs,
    split: Split,
    profile: Profile,
    teacher: Teacher | None = None,
    n_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Fit several rows on one subject's trials.

    Parameters
    ----------
    names : iterable of str
        Of `ROWS`.
    epochs : mne.BaseEpochs
        The subject's trials, with metadata.
    split : Split
    profile : Profile
        Rows that depend on a seed are fitted once for each of ``training.seeds`` and their
        probabilities averaged.
    teacher : Teacher | None
        `Teacher.of_trials` for the same trials. Without it, rows that need it are left out.
    n_classes : int | None
        By default one more than the largest label.

    Returns
    -------
    dict of str to array, shape (n_test_trials, n_classes)

    Raises
    ------
    BaselineError
        If there is no row of some name.
    """
    names = list(names)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise BaselineError(f"baselines.rows names {unknown[0]!r}; there are: {', '.join(ROWS)}.")
    data = epochs.get_data(copy=False)
    labels = epochs.metadata["label"].to_numpy()
    found = {}
    for name in names:
        row = ROWS[name]
        if row.needs_teacher and teacher is None:
            logger.warning("%s is left out: it needs a teacher, and there are no images.", name)
            continue
        seeds = profile.training.seeds if row.seeded else (0,)
        parts = [
            row.fit_predict(
                data,
                epochs.info["sfreq"],
                labels,
                split,
                profile,
                None if teacher is None else teacher.logits,
                None if teacher is None else teacher.features,
                seed,
                n_classes,
            )
            for seed in seeds
        ]
        found[name] = np.mean(parts, axis=0)
    return found


# --- classical rows -------------------------------------------------------------------------


def _logistic_regression(features: np.ndarray, given: Trials, *steps) -> np.ndarray:
    """Standardise, transform by `steps`, classify; the penalty that validation likes best."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    split, labels = given.split, given.labels
    prepare = make_pipeline(StandardScaler(), *steps).fit(features[split.training])
    training, validation = (
        prepare.transform(features[r]) for r in (split.training, split.validation)
    )
    best, lowest = None, np.inf
    for inverse_penalty in (0.001, 0.01, 0.1, 1.0):
        model = LogisticRegression(C=inverse_penalty, max_iter=500)
        with warnings.catch_warnings():  # a nearly converged fit is judged by validation anyway
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(training, labels[split.training])
        loss = log_loss(
            labels[split.validation],
            _spread_over(model, validation, given.n_classes),
            labels=range(given.n_classes),
        )
        if loss < lowest:
            best, lowest = model, loss
    return _spread_over(best, prepare.transform(features[split.test]), given.n_classes)


def _spread_over(model, features: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities for all classes; 0 for a class without training trials."""
    found = model.predict_proba(features)
    probabilities = np.zeros((len(features), n_classes))
    probabilities[:, model.classes_] = found
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _lr_power(given: Trials) -> np.ndarray:
    return _logistic_regression(power_features(given.data), given)


def _lr_windowed(given: Trials) -> np.ndarray:
    return _logistic_regression(window_features(given.data, given.sfreq), given)


def _lr_windowed_pca(given: Trials) -> np.ndarray:
    from sklearn.decomposition import PCA

    features = window_features(given.data, given.sfreq)
    return _logistic_regression(features, given, PCA(n_components=0.95, svd_solver="full"))


# --- networks -------------------------------------------------------------------------------


def _fit_network(
    build: Callable[[], nn.Module],
    images: np.ndarray,
    given: Trials,
    with_teacher: bool,
) -> np.ndarray:
    from eeglib.decoding.training import fit, predict

    student = fit(
        build,
        images,
        given.labels,
        given.split,
        teacher_logits=given.teacher_logits if with_teacher else None,
        seed=given.seed,
        **given.profile.training.model_dump(exclude={"seeds"}),
    )
    return predict(student.network, images[given.split.test])


def _residual(images: np.ndarray, given: Trials, with_teacher: bool) -> np.ndarray:
    from eeglib.decoding.networks import residual_network

    build = residual_network(images.shape[1:], given.n_classes)
    return _fit_network(build, images, given, with_teacher)


def _step(sfreq: float) -> int:
    return max(1, math.floor(sfreq / ENOUGH_RATE))


def _lstm(given: Trials) -> np.ndarray:
    from eeglib.decoding.networks import LSTMClassifier

    shape = given.data.shape[1:]
    step = min(_step(given.sfreq), shape[1])
    return _fit_network(
        lambda: LSTMClassifier(*shape, given.n_classes, step=step), given.data, given, False
    )


def _conv1d(given: Trials) -> np.ndarray:
    from eeglib.decoding.networks import Conv1dClassifier

    shape = given.data.shape[1:]
    return _fit_network(lambda: Conv1dClassifier(*shape, given.n_classes), given.data, given, False)


def _distillation_eeg(given: Trials) -> np.ndarray:
    return _residual(given.data[:, np.newaxis], given, with_teacher=True)


def _distillation_wavelet(given: Trials) -> np.ndarray:
    wavelet = given.profile.timefrequency.wavelet
    images = wavelet_coefficients(given.data, wavelet, _step(given.sfreq))
    return _residual(images, given, with_teacher=True)


def _stft(given: Trials) -> np.ndarray:
    grid = given.profile.timefrequency
    return spectrograms(given.data, given.sfreq, grid.window, grid.step)


def _cnn_stft(given: Trials) -> np.ndarray:
    return _residual(_stft(given), given, with_teacher=False)


def _distillation_stft(given: Trials) -> np.ndarray:
    return _residual(_stft(given), given, with_teacher=True)


def _cebra_knn(given: Trials) -> np.ndarray:
    from eeglib.decoding.cebra_rows import cebra_knn  # cebra takes seconds to import

    return cebra_knn(given, _step(given.sfreq))


def _in_closed_form(kind: type, given: Trials) -> np.ndarray:
    decoder = kind(given.data, given.sfreq, band=given.profile.filtering.band)
    return decoder.fit_predict(given.labels, given.split, given.n_classes).probabilities


_IMAGE = "trained on labels and soft targets"
ROWS: dict[str, Row] = {
    "lr_power": Row(
        "LR on average square signal",
        "the mean power of each channel, nothing within the trial",
        _lr_power,
        seeded=False,
    ),
    "lr_windowed": Row(
        "LR on windowed signal",
        "the mean voltage of each channel in windows of 80 ms",
        _lr_windowed,
        seeded=False,
    ),
    "lr_windowed_pca": Row(
        "LR on PCA of windowed signal",
        "the components that hold 95% of those means' variance",
        _lr_windowed_pca,
        seeded=False,
    ),
    "cebra_knn": Row(
        "CEBRA + kNN",
        "32 dimensions in which trials of images that CLIP finds alike are near",
        _cebra_knn,
        needs_teacher=True,
    ),
    "lstm": Row("LSTM", "the signals of all channels, moment by moment", _lstm),
    "conv1d": Row("Conv1d", "the signals of all channels, by temporal filters", _conv1d),
    "distillation_eeg": Row(
        "Knowledge distillation on EEG (image)",
        f"channels x times as a picture of one colour, {_IMAGE}",
        _distillation_eeg,
        needs_teacher=True,
    ),
    "distillation_wavelet": Row(
        "Knowledge distillation on wavelets",
        f"wavelet coefficients of each channel, {_IMAGE}",
        _distillation_wavelet,
        needs_teacher=True,
    ),
    "cnn_stft": Row(
        "Plain CNN on spectrograms",
        "time-frequency images of each channel, labels only",
        _cnn_stft,
    ),
    "distillation_stft": Row(
        "Knowledge distillation on STFT",
        f"time-frequency images of each channel, {_IMAGE}",
        _distillation_stft,
        needs_teacher=True,
    ),
    "kernel_decoder": Row(
        "Kernel decoder (not in the paper)",
        "wave shapes, spatial covariances of waves, and power with all pairs of channels",
        partial(_in_closed_form, KernelDecoder),
        seeded=False,
    ),
    "source_decoder": Row(
        "Source decoder (not in the paper)",
        "power and waves of sources that joint diagonalisation has found",
        partial(_in_closed_form, SourceDecoder),
        seeded=False,
    ),
}
"""All rows by name: those of the paper's table in its order, then ours."""
