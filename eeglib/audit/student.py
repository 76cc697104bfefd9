"""The profile's own network under audit: its answers, and new trainings where they are asked for.

Training a network takes minutes, so that the controls refit a linear decoder; the network is judged
by the answers it gave to its test trials (chapter 5), and retrained only if the profile says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from eeglib.audit.clock import confusion_distance
from eeglib.audit.control import Control, accuracy_control, unavailable
from eeglib.audit.decoders import Decoder
from eeglib.audit.designs import RANDOMIZED, contiguous_folds, design_of, matched_folds
from eeglib.audit.phantom import phantom_trials
from eeglib.audit.trials import AuditError, AuditTrials


@dataclass(frozen=True)
class StudentAnswers:
    """What the network of chapter 5 said about its test trials.

    Attributes
    ----------
    method : str
        Such as ``distillation_stft``.
    rows : array of int, shape (n_test,)
        Of the audited trials.
    probabilities : array, shape (n_test, n_classes)
    """

    method: str
    rows: np.ndarray
    probabilities: np.ndarray


def student_controls(trials: AuditTrials, answers: StudentAnswers, seed: int = 0) -> list[Control]:
    """The network's accuracy on its test trials, and control 5 for its errors."""
    hits = answers.probabilities.argmax(axis=1) == trials.labels[answers.rows]
    accuracy = accuracy_control(
        0,
        "student",
        f"accuracy of the network of chapter 5 ({answers.method})",
        hits,
        1 / trials.n_classes,
        "above chance: recordings of different classes differ, for whatever reason",
        "at chance: there is nothing to explain",
    )
    errors = confusion_distance(trials, answers.probabilities, seed, answers.rows)
    title = "correlation of the network's confusion with distance in time"
    return [accuracy, replace(errors, name="student_confusion", title=title)]


def retrained_controls(
    trials: AuditTrials, images: np.ndarray, decoder: Decoder, seed: int = 0
) -> list[Control]:
    """Controls 4 and 2 for the network itself: three or four trainings from new weights.

    Parameters
    ----------
    trials : AuditTrials
    images : array, shape (n_trials, n_chans, n_freqs, n_windows)
        What the network sees.
    decoder : Decoder
        See `eeglib.audit.decoders.network_decoder`.
    seed : int

    Notes
    -----
    One fold of five each, for time. The difference is one of two accuracies on different test
    trials; its interval is that of two independent shares.
    """
    name, title = "student_temporal", "network: random split minus a contiguous stretch with a gap"
    if trials.order is None:
        return [unavailable(4, name, title, "the order of presentation is not known.")]
    folds = contiguous_folds(trials, gap=4)
    if any(len(np.unique(trials.labels[a])) < len(np.unique(trials.labels)) for a, _ in folds):
        return [unavailable(4, name, title, "a stretch leaves a class without training.")]
    near = _answers(trials, images, decoder, matched_folds(trials, folds, seed)[:1])
    found = [
        _difference(
            4,
            name,
            title,
            near,
            _answers(trials, images, decoder, folds[:1]),
            "the network loses accuracy with the distance in time: part of it came from neighbours",
            "no loss of the network seen when neighbours in time are left out",
        )
    ]
    name, title = "student_phantom", "network: real classes minus invented blocks"
    if design_of(trials) != RANDOMIZED:
        return [*found, unavailable(2, name, title, "blocks cannot be invented in this design.")]
    try:
        invented = phantom_trials(trials)
    except AuditError as error:
        return [*found, unavailable(2, name, title, str(error))]
    fake = _answers(invented, images, decoder, matched_folds(invented, folds, seed)[:1])
    return [
        *found,
        _difference(
            2,
            name,
            title,
            near,
            fake,
            "the network does better on the classes than on the clock",
            "the network does no better on the classes than on invented blocks",
        ),
    ]


def _answers(trials: AuditTrials, images: np.ndarray, decoder: Decoder, folds: list) -> np.ndarray:
    ((train, test),) = folds
    known = np.unique(trials.labels)
    probabilities = decoder(images, trials.labels, train, test)
    return known[probabilities.argmax(axis=1)] == trials.labels[test]


def _difference(
    number: int, name: str, title: str, first: np.ndarray, second: np.ndarray, above: str, at: str
) -> Control:
    value = float(first.mean() - second.mean())
    spread = float(np.sqrt(first.var() / len(first) + second.var() / len(second)))
    reach = norm.ppf(0.975) * spread
    p_value = float(norm.sf(value / spread)) if spread > 0 else 1.0
    rows = [
        {"split": s, "accuracy": float(h.mean()), "n": len(h)}
        for s, h in (("first", first), ("second", second))
    ]
    return Control(
        number,
        name,
        title,
        value,
        0.0,
        value - reach,
        value + reach,
        len(first) + len(second),
        p_value,
        above if value - reach > 0 else at,
        rows=rows,
    )
