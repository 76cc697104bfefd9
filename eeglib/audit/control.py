"""What a control found, in numbers and in words (chapter 8)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Control:
    """Result of one control.

    Attributes
    ----------
    number : int
        1 to 13, as in the list of chapter 8; 0 for the accuracy that is audited.
    name : str
        Name of the function.
    title : str
        What was done, in a line.
    estimate, chance, low, high : float
        The figure, what it would be by chance, and its interval; NaN where unavailable.
    n : int
        Trials (or pairs, where the title says so) behind it.
    p_value : float
        Against chance.
    verdict : str
        In words. Never a "pass": it says what was seen, and what that speaks for.
    available : bool
        Whether the data support this control.
    reason : str
        Why not, and what would be needed.
    rows : list of dict
        Details, for a table or a figure.
    """

    number: int
    name: str
    title: str
    estimate: float = math.nan
    chance: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    p_value: float = math.nan
    verdict: str = ""
    available: bool = True
    reason: str = ""
    rows: list[dict] = field(default_factory=list)

    def as_dict(self) -> dict:
        """All fields, as ``metrics.json`` keeps them; numbers that are not finite become None."""
        return {k: _plain(v) for k, v in asdict(self).items()}


def unavailable(number: int, name: str, title: str, reason: str) -> Control:
    """A control that the data do not support; ``reason`` says why and what would be needed."""
    return Control(
        number, name, title, verdict=f"not available: {reason}", available=False, reason=reason
    )


def accuracy_control(
    number: int,
    name: str,
    title: str,
    hits: np.ndarray,
    chance: float,
    above: str,
    at: str,
    confidence: float = 0.95,
    rows: list[dict] | None = None,
) -> Control:
    """Make a control of right and wrong answers.

    Parameters
    ----------
    number, name, title
        As in `Control`.
    hits : array of bool, shape (n_trials,)
    chance : float
    above, at : str
        Verdicts for an accuracy above chance and for one that is not.
    confidence : float
        Of the interval.
    rows : list of dict | None

    Notes
    -----
    Exact binomial test against chance, one-sided; interval after Wilson (1927).
    """
    hits = np.asarray(hits, dtype=bool)
    test = stats.binomtest(int(hits.sum()), len(hits), chance, alternative="greater")
    both = stats.binomtest(int(hits.sum()), len(hits), chance)
    bounds = both.proportion_ci(confidence, method="wilson")
    verdict = above if test.pvalue < 0.05 else at
    return Control(
        number,
        name,
        title,
        float(hits.mean()),
        float(chance),
        float(bounds.low),
        float(bounds.high),
        len(hits),
        float(test.pvalue),
        verdict,
        rows=rows or [],
    )


def difference_interval(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of ``first - second`` over trials, and a bootstrap interval that keeps groups together.

    Parameters
    ----------
    first, second : arrays, shape (n_trials,)
        Two scores of the same trials.
    groups : array, shape (n_trials,)
        Trials of one group, such as a stretch of consecutive trials, are drawn together.

    Returns
    -------
    value, low, high : float
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, difference)
    sizes = np.bincount(index)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), (n_bootstrap, len(sums)))
    draws = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(difference.mean()), float(low), float(high)


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
