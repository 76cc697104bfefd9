"""How much of what separates the classes is driven by the stimulus (chapter 8)."""

import numpy as np

from eeglib.audit.controls import Control, control
from eeglib.audit.decoders import one_thread, whitener
from eeglib.audit.features import AuditError, AuditTrials

N_LAGS, N_FOLDS = 20, 5
JUMPS = (0.0, 0.05, 0.1)


@control
def stimulus_share(trials: AuditTrials, n_bootstrap: int = 1000, seed: int = 0) -> Control:
    """Bound from above the share of the separation between classes that a clock leaves over.

    For a block design, one block per class: a block is longer than the pause after it, so that
    pairs of trials within a block and pairs across a pause lie equally far apart in time; what a
    clock does, it does to both.
    C is the mean, over lags, of the similarity within blocks of a session minus that across them
    (weighted by the harmonic mean of the numbers of pairs), T the same for all pairs whatever their
    lag. The bound (``high``) is the 97.5th percentile of ``C / T``, within 0 and 1, over bootstrap
    draws of blocks.

    C holds whatever jumps at the pause. There is therefore neither an estimate nor a lower end: on
    EEG of people who saw nothing they would be above zero. ``rows`` say what is left of the bound
    if all amplitudes jump at every pause, with a standard deviation of `JUMPS`.

    Similarity is the inner product after whitening, by the noise of *other* trials: every fifth
    stretch of trials by that of the rest. Were the noise estimated from the same trials, the excess
    between blocks would pass for a class.
    """
    block, time = trials.blocks, trials.time
    sizes = np.bincount(block)
    if len(sizes) < 4 or sizes.min() < 4:
        raise AuditError("the share needs at least 4 blocks of 4 trials.")
    longest = max(np.ptp(time[block == b]) for b in np.unique(block))
    edges = np.r_[np.linspace(0, longest * (1 + 1e-9), N_LAGS + 1), np.inf]
    count, total = pair_sums(trials, edges)
    n, rng = len(sizes), np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), n_bootstrap)
    equal_lag, separation = _separation(count, total, drawn)
    if not np.isfinite(equal_lag).any():
        raise AuditError("no pair within a block is as far apart in time as a pair across blocks.")
    rows = []
    for jump in JUMPS if trials.gain is not None else (0.0,):
        step = np.log1p(jump) * (whitener(trials.features, block) @ trials.gain) if jump else 0.0
        left = equal_lag - np.mean(np.square(step))
        # Where the blocks drawn differ by less than noise, nothing is excluded.
        shares = np.where(separation > 0, left / separation, 1.0)
        rows.append({"jump": jump, "bound": float(np.clip(np.nanpercentile(shares, 97.5), 0, 1))})
    return Control(high=rows[0]["bound"], n=len(block), rows=rows)


def similarity_by_lag(trials: AuditTrials, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Mean similarity of two trials against the time between them, within and across blocks.

    ``edges``, shape (n_lags + 1,), are those of the lags, in units of `AuditTrials.time`. Gives
    ``lag`` (middle of each bin), ``within`` and ``across``, of shape (n_lags,), NaN without pairs.
    """
    edges = np.asarray(edges, dtype=float)
    count, total = pair_sums(trials, edges)
    own = np.eye(len(count), dtype=bool)
    with np.errstate(invalid="ignore"):
        within, across = (total[p].sum(axis=0) / count[p].sum(axis=0) for p in (own, ~own))
    return {"lag": (edges[1:] + edges[:-1]) / 2, "within": within, "across": across}


@one_thread
def pair_sums(trials: AuditTrials, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of pairs and sum of their similarities, (n_blocks, n_blocks, n_lags), in a session."""
    features, block, time = trials.features.astype(float), trials.blocks, trials.time
    # Two neighbours in time are whitened alike: their noise is not independent.
    stretch = np.empty(len(block), dtype=int)
    stretch[np.lexsort((time, block))] = np.arange(len(block)) // 2 % N_FOLDS
    white = features - features.mean(axis=0)
    for k in range(N_FOLDS):
        fold = stretch == k
        white[fold] = white[fold] @ whitener(features[~fold], block[~fold])
    session, shape = trials.session, (block.max() + 1, block.max() + 1, len(edges) - 1)
    a, b = np.nonzero((session[:, None] == session) & ~np.eye(len(block), dtype=bool))
    lag = np.digitize(np.abs(time[a] - time[b]), edges) - 1
    a, b, lag = (values[lag < shape[2]] for values in (a, b, lag))
    index = np.ravel_multi_index((block[a], block[b], lag), shape)
    similarity = (white @ white.T)[a, b] / white.shape[1]
    count = np.bincount(index, minlength=np.prod(shape))
    total = np.bincount(index, similarity, np.prod(shape))
    return count.reshape(shape), total.reshape(shape)


def _separation(count: np.ndarray, total: np.ndarray, weights: np.ndarray) -> tuple:
    """C and T for each row of weights of the blocks, shape (n_rows, n_blocks)."""
    own = np.eye(len(count), dtype=bool)
    within = [weights @ values[own] for values in (count, total)]
    pairs = (weights[:, :, None] * weights[:, None, :])[:, ~own]
    across = [pairs @ values[~own] for values in (count, total)]
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = within[1] / within[0] - across[1] / across[0]
        weight = within[0] * across[0] / (within[0] + across[0])
        weight[~np.isfinite(gap)] = 0
        equal_lag = np.nansum(weight * gap, axis=1) / weight.sum(axis=1)
        own, other = (total.sum(axis=1) / count.sum(axis=1) for count, total in (within, across))
        return equal_lag, own - other
