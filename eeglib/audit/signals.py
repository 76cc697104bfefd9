"""Controls that ask what in the signal carries the class (chapter 8)."""

from __future__ import annotations

import numpy as np

from eeglib.audit.control import Control, accuracy_control, unavailable
from eeglib.audit.decoders import Decoder, cross_validate, discriminant, logistic
from eeglib.audit.designs import RANDOMIZED, design_of, random_folds
from eeglib.audit.trials import AuditTrials


def power_and_mean(trials: AuditTrials, seed: int = 0) -> Control:
    """Control 7: logistic regression that sees one number per channel, the trial's power or mean.

    The table adds each frequency band by discriminant analysis: a drift of power shows in all of
    them, and a band-pass does not cure it.
    """
    name, title = "power_and_mean", "logistic regression on the power per channel"
    if trials.power is None or trials.mean is None:
        return unavailable(7, name, title, "power and mean per channel were not computed.")
    rows = []
    power = _hits(trials, trials.power, logistic, seed)
    rows.append({"features": "power", "accuracy": float(power.mean()), "n": len(power)})
    for label, values, decoder in [
        ("mean", trials.mean, logistic),
        *((band, values, discriminant) for band, values in trials.bands.items()),
    ]:
        hits = _hits(trials, values, decoder, seed)
        rows.append({"features": label, "accuracy": float(hits.mean()), "n": len(hits)})
    return accuracy_control(
        7,
        name,
        title,
        power,
        1 / trials.n_classes,
        "one number per channel is enough: nothing finer than the power is needed",
        "power per channel alone does not tell the classes apart",
        rows=rows,
    )


def time_windows(trials: AuditTrials, seed: int = 0) -> Control:
    """Control 8: decode from 50 ms at a time; the first are over before visual cortex answers.

    The table ends with the features of trials whose samples were put in random order, which keeps
    power and nothing of its course.
    """
    name, title = "time_windows", "accuracy from the first 50 ms after the image"
    if not trials.windows:
        return unavailable(8, name, title, "windows were not computed.")
    rows, first = [], None
    for start, values in trials.windows.items():
        hits = _hits(trials, values, discriminant, seed)
        first = hits if first is None else first
        rows.append(
            {
                "window": f"{start} ms",
                "start": float(start) / 1000,
                "accuracy": float(hits.mean()),
                "n": len(hits),
            }
        )
    if trials.shuffled is not None:
        hits = _hits(trials, trials.shuffled, discriminant, seed)
        rows.append(
            {
                "window": "samples in random order",
                "start": float("nan"),
                "accuracy": float(hits.mean()),
                "n": len(hits),
            }
        )
    if design_of(trials) == RANDOMIZED:
        above = "above chance before cortex can answer: look for artefacts or a filter that smears"
    else:
        above = (
            "above chance before cortex can answer this image: what is read was there before, the "
            "clock or the answer to the image before, which had the same class"
        )
    return accuracy_control(
        8,
        name,
        title,
        first,
        1 / trials.n_classes,
        above,
        "nothing before cortex can answer",
        rows=rows,
    )


def _hits(trials: AuditTrials, features: np.ndarray, decoder: Decoder, seed: int) -> np.ndarray:
    rows, probabilities = cross_validate(
        decoder, features, trials.labels, random_folds(trials, seed=seed)
    )
    return probabilities.argmax(axis=1) == trials.labels[rows]
