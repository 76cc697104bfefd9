"""How much of what separates the classes is driven by the stimulus (chapter 8).

Two trials resemble each other because they are close in time, because they are of one class, or
both. In a block design the two come together, but not quite: a block of 25 s is longer than the
pause of 10 s after it, so that there are pairs *within* a block and pairs *across* a pause that
lie equally far apart in time. What a clock does, it does to both; what is left between them, time
cannot explain. `stimulus_share` turns this into an estimate with an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from eeglib.audit.clock import matched_hits, tested_hits
from eeglib.audit.decoders import Decoder, discriminant, one_thread, whitener
from eeglib.audit.designs import (
    BLOCK,
    REPEATED,
    UNKNOWN,
    block_folds,
    contiguous_folds,
    design_of,
    stretches,
)
from eeglib.audit.trials import AuditError, AuditTrials

TIME_CONSTANTS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Of the clock, in units of `AuditTrials.time`."""

CLOCK_GRID = np.geomspace(1e-4, 30, 26)
CLASS_GRID = np.geomspace(1e-4, 30, 100)
"""Variances relative to the noise of a stretch of trials."""

N_BINS, N_FOLDS = 50, 5
MAX_STRETCHES = 200
"""Trials are averaged into at most this many stretches: bounds the cost."""


@dataclass(frozen=True)
class Share:
    """What `stimulus_share` found.

    Attributes
    ----------
    estimate, low, high : float
        Posterior mean of the stimulus-driven share, and its shortest interval.
    confidence : float
    density : array, shape (n_bins,)
        Posterior probability of the share in equal bins from 0 to 1.
    method : str
        How it was found, in a line.
    assumption : str
        What must hold for the estimate to mean what it says.
    n : int
        Trials.
    n_effective : float
        Independent dimensions in which blocks differ; NaN where the method has none.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    density: np.ndarray = field(repr=False)
    method: str
    assumption: str
    n: int
    n_effective: float = math.nan


METHOD = "similarity of trials within and across blocks at equal distance in time"
ASSUMPTION = (
    "the state of subject and amplifier changes across the pause between two blocks as it changes "
    "within a block. If it jumps at the pause, the jump counts as stimulus and the share is too "
    "high."
)


@one_thread
def stimulus_share(
    features: np.ndarray,
    block: np.ndarray,
    session: np.ndarray,
    time: np.ndarray,
    confidence: float = 0.95,
    scale: float = 1.0,
) -> Share:
    """Estimate which share of the separation between classes is not explained by a clock.

    Parameters
    ----------
    features : array, shape (n_trials, n_features)
    block : array of int, shape (n_trials,)
        Counted from 0; every block of one class, one block per class.
    session : array of int, shape (n_trials,)
        Counted from 0.
    time : array, shape (n_trials,)
        Onset of the trial within its session.
    confidence : float
    scale : float
        Units of ``time`` per second, as 2 where time is counted in trials of 0.5 s.

    Returns
    -------
    Share

    Raises
    ------
    AuditError
        If there are fewer than 4 blocks of 4 trials, or no session has two.

    Notes
    -----
    The share is ``C / (C + D)``: C and D are the mean squared Mahalanobis distances between the
    means of two blocks of one session that class and clock contribute. The two add up because
    class order and clock know nothing of each other.

    Model, per dimension of the features after whitening: noise + clock(time) + class, all
    Gaussian. The clock is an Ornstein-Uhlenbeck process (covariance ``exp(-lag / tau)``), the
    class a constant per block; means of sessions are fixed effects and drop out (residual
    likelihood, Patterson & Thompson 1971). The likelihood of all dimensions together depends on
    the similarities of the trials only. It is computed on a grid of tau and of the two variances,
    the noise profiled out, and raised to ``n_effective / n_features``, because drift moves many
    dimensions together: n_effective is the sphericity ``tr(S)^2 / tr(S^2)`` of the covariance S of
    the block means, estimated without bias (Srivastava 2005). Prior: uniform in the share,
    uniform in log tau and in the logarithm of C + D.

    Every fifth stretch of trials is whitened by the noise of the others. Were the noise estimated
    from the same trials, it would seem smaller within blocks than it is between their means, and
    the excess would pass for a class.
    """
    features = np.asarray(features, dtype=np.float64)
    _, sizes = np.unique(block, return_counts=True)
    if (
        len(sizes) < 4
        or sizes.min() < 4
        or all(len(np.unique(block[session == s])) < 2 for s in np.unique(session))
    ):
        raise AuditError(
            "the share needs at least 4 blocks of 4 trials, two of them in one session; there are "
            f"{len(sizes)} blocks of {sizes.min()} trials or more in {len(np.unique(session))} "
            "sessions."
        )
    stretch = _stretches(block, time)
    _, first = np.unique(block, return_index=True)
    white = _whitened(features, block, stretch)
    means, of_block, when = _stretch_means(white, stretch, block, time)
    n_effective = min(
        effective_dimensions(np.stack([white[block == b].mean(axis=0) for b in np.unique(block)])),
        features.shape[1],
    )
    likelihood, shares = _on_grid(means, of_block, session[first][of_block], when, scale)
    weight = np.exp(n_effective * (likelihood - likelihood.max())) * shares * (1 - shares)
    density = np.histogram(shares, N_BINS, (0, 1), weights=weight)[0]
    density = _smooth(density / density.sum())
    low, high = shortest_interval(density, confidence)
    return Share(
        float((density * _centres()).sum()),
        low,
        high,
        confidence,
        density,
        METHOD,
        ASSUMPTION,
        len(features),
        float(n_effective),
    )


def share_of_trials(
    trials: AuditTrials, decoder: Decoder = discriminant, confidence: float = 0.95, seed: int = 0
) -> Share:
    """The stimulus-driven share in whatever way the design allows.

    Notes
    -----
    One block per class: `stimulus_share`, of the separation between class means. Otherwise time
    and class can be pulled apart by the split, and the share is one of accuracy: what is left above
    chance when whole blocks (several blocks per class) or the surroundings of the tested trials
    (randomised) are left out of the training, over what random splits with as much training give.

    Raises
    ------
    AuditError
        If the order is not known, or the trials are too few.
    """
    design = design_of(trials)
    if design == BLOCK:
        # Where seconds are not known, time counts in trials of half a second.
        scale = 1.0 if "time" in trials.metadata else 2.0
        return stimulus_share(
            trials.features, trials.blocks, trials.session, trials.time, confidence, scale
        )
    if design == UNKNOWN:
        raise AuditError(
            "The order of presentation is not known, so that time and class cannot be compared. "
            "Add the column order to the events."
        )
    blocks = design == REPEATED
    folds = block_folds(trials) if blocks else contiguous_folds(trials, gap=4)
    tested, apart = tested_hits(trials, decoder, folds)
    random = matched_hits(trials, decoder, folds, seed)[tested]
    method = "accuracy when {} are left out, over that of a random split, both above chance"
    return _share_of_accuracy(
        random,
        apart,
        1 / trials.n_classes,
        stretches(trials)[tested],
        confidence,
        seed,
        method.format("whole blocks" if blocks else "neighbours in time"),
    )


def _share_of_accuracy(
    random: np.ndarray,
    apart: np.ndarray,
    chance: float,
    groups: np.ndarray,
    confidence: float,
    seed: int,
    method: str,
) -> Share:
    """Ratio of two accuracies above chance; bootstrap over stretches of trials."""
    if random.mean() <= chance:
        raise AuditError("the accuracy is not above chance, so that there is nothing to share out.")
    index = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(index, h - chance) for h in (random, apart)])
    drawn = np.random.default_rng(seed).integers(0, sums.shape[1], (4000, sums.shape[1]))
    above, left = sums[0][drawn].sum(axis=1), sums[1][drawn].sum(axis=1)
    draws = np.clip(np.where(above > 0, left / np.where(above > 0, above, 1), 1.0), 0, 1)
    density = np.histogram(draws, N_BINS, (0, 1))[0] / len(draws)
    low, high = shortest_interval(density, confidence)
    estimate = float(np.clip((apart.mean() - chance) / (random.mean() - chance), 0, 1))
    return Share(
        estimate,
        low,
        high,
        confidence,
        density,
        method,
        "nothing but time distinguishes the trials left out.",
        len(random),
    )


@one_thread
def similarity_by_lag(
    features: np.ndarray,
    block: np.ndarray,
    session: np.ndarray,
    time: np.ndarray,
    edges: np.ndarray,
) -> dict[str, np.ndarray]:
    """Mean similarity of two trials against the time between them, within and across blocks.

    Parameters
    ----------
    features, block, session, time
        As in `stimulus_share`.
    edges : array, shape (n_lags + 1,)
        Of the lags, in units of ``time``.

    Returns
    -------
    dict
        ``lag`` (middle of each bin), ``within``, ``across``: arrays of shape (n_lags,), the mean
        inner product of whitened trials per feature, after the session's mean; NaN where there is
        no pair.
    """
    edges = np.asarray(edges, dtype=float)
    white = _whitened(np.asarray(features, float), block, _stretches(block, time))
    for s in np.unique(session):
        white[session == s] -= white[session == s].mean(axis=0)
    first, second = np.triu_indices(len(white), 1)
    kept = session[first] == session[second]
    first, second = first[kept], second[kept]
    gram = white @ white.T / white.shape[1]
    lag = np.abs(time[first] - time[second])
    index = np.digitize(lag, edges) - 1
    curves = {"lag": (edges[1:] + edges[:-1]) / 2}
    for name, same in (("within", True), ("across", False)):
        pairs = ((block[first] == block[second]) == same) & (index >= 0) & (index < len(edges) - 1)
        count = np.bincount(index[pairs], minlength=len(edges) - 1).astype(float)
        total = np.bincount(index[pairs], gram[first, second][pairs], len(edges) - 1)
        curves[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return curves


def accuracy_of_share(accuracy: float, share: float, n_classes: int) -> float:
    """Accuracy that a share of the separation alone would give, a rough translation.

    Notes
    -----
    The accuracy is read as that of an observer who picks the largest of ``n_classes`` unit normal
    variables, one of them raised by d' (Green & Swets 1966); d' squared is multiplied by the share.
    """
    chance = 1 / n_classes
    if accuracy <= chance or share <= 0:
        return chance

    def of(d: float) -> float:
        return quad(lambda x: norm.pdf(x - d) * norm.cdf(x) ** (n_classes - 1), -8, d + 8)[0]

    d = brentq(lambda d: of(d) - min(accuracy, 0.9999), 0, 12)
    return of(math.sqrt(share) * d)


def effective_dimensions(rows: np.ndarray) -> float:
    """Dimensions over which the rows vary: ``tr(S)^2 / tr(S^2)`` without the bias of few rows.

    Parameters
    ----------
    rows : array, shape (n_rows, n_dimensions)
        At least 3 rows.
    """
    centred = rows - rows.mean(axis=0)
    dof = len(rows) - 1
    gram = centred @ centred.T / dof
    trace, square = np.trace(gram), np.sum(gram**2)
    factor = dof**2 / ((dof - 1) * (dof + 2))
    of_squares = factor * (square - trace**2 / dof)
    of_trace = factor * (trace**2 * (dof + 1) / dof - 2 * square / dof)
    return float(max(1.0, of_trace / max(of_squares, 1e-12 * of_trace)))


def shortest_interval(density: np.ndarray, confidence: float) -> tuple[float, float]:
    """Shortest run of equal bins of [0, 1] that holds the given probability."""
    total = np.r_[0.0, np.cumsum(density)]
    ends = np.searchsorted(total, total[:-1] + confidence * total[-1] - 1e-12)
    inside = ends <= len(density)
    starts = np.flatnonzero(inside)
    best = starts[np.argmin((ends - np.arange(len(ends)))[inside])]
    return float(best / len(density)), float(ends[best] / len(density))


def _stretches(block: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Number of the stretch of consecutive trials of a block that each trial belongs to."""
    size = max(2, -(-len(block) // MAX_STRETCHES))
    stretch, done = np.empty(len(block), dtype=int), 0
    for b in np.unique(block):
        rows = np.flatnonzero(block == b)
        rows = rows[np.argsort(time[rows])]
        parts = np.array_split(rows, max(1, len(rows) // size))
        for part in parts:
            stretch[part] = done
            done += 1
    return stretch


def _whitened(features: np.ndarray, block: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Trials, centred and whitened by the noise of other trials."""
    centred, white = features - features.mean(axis=0), np.empty_like(features)
    for k in range(N_FOLDS):
        own = stretch % N_FOLDS == k
        white[own] = centred[own] @ whitener(features[~own], block[~own])
    return white


def _stretch_means(
    white: np.ndarray, stretch: np.ndarray, block: np.ndarray, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average, block and mean time of each stretch."""
    _, first, index, size = np.unique(
        stretch, return_index=True, return_inverse=True, return_counts=True
    )
    means = np.zeros((len(first), white.shape[1]))
    np.add.at(means, index, white)
    return means / size[:, None], block[first], np.bincount(index, time) / size


def _on_grid(
    means: np.ndarray, block: np.ndarray, session: np.ndarray, time: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood per dimension and share, each of shape (n_tau, n_clock, n_class)."""
    n = len(means)
    constant = np.eye(session.max() + 1)[session]
    constant = constant[:, constant.any(axis=0)]
    contrasts = np.linalg.qr(np.c_[constant, np.eye(n)])[0][:, constant.shape[1] : n]
    gram = contrasts.T @ (means @ means.T / means.shape[1]) @ contrasts
    member = contrasts.T @ np.eye(block.max() + 1)[block]
    together = session[:, None] == session
    within = (block[:, None] == block) & ~np.eye(n, dtype=bool)
    across = (block[:, None] != block) & together
    shape = (len(TIME_CONSTANTS), len(CLOCK_GRID), len(CLASS_GRID))
    likelihood, shares = np.empty(shape), np.empty(shape)
    for i, tau in enumerate(TIME_CONSTANTS):
        alike = np.exp(-np.abs(time[:, None] - time) / (scale * tau)) * together
        aligned = alike[within].mean() - alike[across].mean()
        kernel = contrasts.T @ alike @ contrasts
        for j, clock in enumerate(CLOCK_GRID):
            likelihood[i, j] = _residual_likelihood(kernel, clock, gram, member)
            shares[i, j] = CLASS_GRID / (CLASS_GRID + clock * aligned)
    return likelihood, shares


def _residual_likelihood(
    kernel: np.ndarray, clock: float, gram: np.ndarray, member: np.ndarray
) -> np.ndarray:
    """Likelihood for all of `CLASS_GRID` at once: the class part has low rank (Woodbury)."""
    from scipy.linalg import solve_triangular

    n = len(kernel)
    root = np.linalg.cholesky(np.eye(n) + clock * kernel)
    classes = solve_triangular(root, member, lower=True)
    white = solve_triangular(root, solve_triangular(root, gram, lower=True).T, lower=True)
    size, directions = np.linalg.eigh(classes.T @ classes)
    size = np.maximum(size, 0)
    along = classes @ directions
    energy = np.einsum("ij,ik,kj->j", along, white, along, optimize=True)
    grid = CLASS_GRID[:, None]
    determinant = 2 * np.log(np.diag(root)).sum() + np.log1p(grid * size).sum(axis=1)
    rest = np.trace(white) - (grid / (1 + grid * size) * energy).sum(axis=1)
    return -0.5 * (determinant + n * np.log(rest))


def _centres() -> np.ndarray:
    return (np.arange(N_BINS) + 0.5) / N_BINS


def _smooth(density: np.ndarray) -> np.ndarray:
    """Average over neighbouring bins, which the grid fills unevenly; mirrored at 0 and 1."""
    width = 2
    padded = np.pad(density, width, mode="symmetric")
    smooth = np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")
    return smooth / smooth.sum()
