"""CEBRA guided by CLIP, then nearest neighbours: one row of the table (chapter 6).

Apart from `baselines` because importing cebra takes seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from eeglib.decoding.networks import fitting_width

if TYPE_CHECKING:
    from eeglib.decoding.methods import Trials

DIMENSIONS = 32
BATCH = 512
NEIGHBOURS = (1, 3, 7, 15, 31)
DELTA = 0.3
"""How far from a trial's image, in standard deviations of each component, its partner is drawn."""


def cebra_knn(given: Trials, step: int) -> np.ndarray:
    """Decode by nearest neighbours in a space that CEBRA learned.

    Parameters
    ----------
    given : Trials
    step : int
        Neighbouring times that are averaged into one first.

    Returns
    -------
    array, shape (n_test_trials, n_classes)

    Notes
    -----
    Layout: a trial is ONE row, its channels and times side by side, and its guide is the CLS
    token of its image (the leading 32 principal components over training images, standardised).
    CEBRA was made for continuous recordings in which neighbouring rows are neighbours in time,
    and its usual filters and ``time_delta`` reach over several rows; here neighbouring rows are
    different trials, so the model sees one row at a time (``offset1-model``) and partners are
    drawn by likeness of the guide alone (``conditional="delta"``). Only training trials teach it.
    The encoder is as large as the other networks and is trained for as many steps as they may
    take. The number of neighbours (cosine distance) is chosen on the validation trials.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    rows = _flat(given.data, step)
    split = given.split
    scaler = StandardScaler().fit(rows[split.training])
    guide = np.asarray(given.teacher_features, dtype=np.float64)[split.training]
    size = min(DIMENSIONS, guide.shape[1], len(np.unique(guide, axis=0)) - 1)
    guide = PCA(n_components=max(1, size), whiten=True, random_state=0).fit_transform(guide)
    model = _fit(scaler.transform(rows[split.training]), guide.astype(np.float32), given)
    training, validation, test = (
        model.transform(scaler.transform(rows[r]))
        for r in (split.training, split.validation, split.test)
    )
    return _vote(training, validation, test, given)


def _flat(data: np.ndarray, step: int) -> np.ndarray:
    n_trials, n_chans, n_times = data.shape
    n_kept = n_times // step
    means = data[..., : n_kept * step].reshape(n_trials, n_chans, n_kept, step).mean(axis=-1)
    return means.reshape(n_trials, -1).astype(np.float32)


def _fit(rows: np.ndarray, guide: np.ndarray, given: Trials):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that cebra uses in ways they deprecate
        import cebra

        settings = given.profile.training
        n_steps = settings.max_epochs * -(-len(rows) // settings.batch_size)
        width = fitting_width(
            lambda units: cebra.models.init("offset1-model", rows.shape[1], units, DIMENSIONS)
        )
        device = settings.device if settings.device != "auto" else "cuda_if_available"
        model = cebra.CEBRA(
            model_architecture="offset1-model",
            num_hidden_units=width,
            distance="cosine",
            output_dimension=DIMENSIONS,
            conditional="delta",
            delta=DELTA,
            device=device,
            batch_size=min(BATCH, len(rows)),
            learning_rate=settings.learning_rate,
            max_iterations=n_steps,
            verbose=False,
        )
        with torch.random.fork_rng(), _seeded_sampling(given.seed):
            torch.manual_seed(given.seed)
            model.fit(rows, guide)
    return model


@contextlib.contextmanager
def _seeded_sampling(ours: int):
    """Let cebra's samplers start from a seed: it draws a new one each time, whatever it is told."""
    from cebra.distributions.base import HasGenerator

    made, start = itertools.count(), HasGenerator.__init__

    def seeded(self, device, seed):
        start(self, device, seed)
        mixed = np.random.SeedSequence((ours, next(made)))  # samplers must not repeat each other
        self._seed = int(mixed.generate_state(1)[0])
        self.generator.manual_seed(self._seed)

    with mock.patch.object(HasGenerator, "__init__", seeded):
        yield


def _vote(training, validation, test, given: Trials) -> np.ndarray:
    from sklearn.metrics import log_loss
    from sklearn.neighbors import KNeighborsClassifier

    split, labels = given.split, given.labels

    def probabilities(n_neighbours: int, embedded: np.ndarray) -> np.ndarray:
        model = KNeighborsClassifier(n_neighbours, metric="cosine")
        model.fit(training, labels[split.training])
        votes = np.zeros((len(embedded), given.n_classes))
        votes[:, model.classes_] = n_neighbours * model.predict_proba(embedded)
        return (votes + 1 / given.n_classes) / (n_neighbours + 1)  # no class is impossible

    allowed = [k for k in NEIGHBOURS if k <= len(training)]
    losses = [
        log_loss(
            labels[split.validation], probabilities(k, validation), labels=range(given.n_classes)
        )
        for k in allowed
    ]
    return probabilities(allowed[int(np.argmin(losses))], test)
