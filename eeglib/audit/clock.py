"""Controls that ask whether a clock can be read, and whether it helps the decoder (chapter 8)."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata

from eeglib.audit.control import Control, accuracy_control, difference_interval, unavailable
from eeglib.audit.decoders import Decoder, cross_validate, discriminant, one_thread, whitener
from eeglib.audit.designs import (
    BLOCK,
    RANDOMIZED,
    REPEATED,
    block_folds,
    contiguous_folds,
    design_of,
    matched_folds,
    random_folds,
    session_folds,
    stretches,
)
from eeglib.audit.trials import AuditError, AuditTrials

NO_ORDER = "the order of presentation is not known; add the column order to the events."
N_PERMUTATIONS = 5000
N_RANDOM_SPLITS = 3
GAPS = (0, 2, 4, 8, 16)
"""Trials left out before and after a tested stretch."""


def headline(
    trials: AuditTrials, decoder: Decoder = discriminant, seed: int = 0
) -> tuple[Control, np.ndarray, np.ndarray]:
    """Accuracy of the decoder on a random split by image: the figure that is audited.

    Returns
    -------
    control : Control
    rows : array of int
        Trials tested, all of them.
    probabilities : array, shape (n_trials, n_classes)
    """
    rows, probabilities = cross_validate(
        decoder, trials.features, trials.labels, random_folds(trials, seed=seed)
    )
    hits = probabilities.argmax(axis=1) == trials.labels[rows]
    control = accuracy_control(
        0,
        "headline",
        "accuracy on a random split by image",
        hits,
        1 / trials.n_classes,
        "above chance: recordings of different classes differ, for whatever reason",
        "at chance: there is nothing to explain",
    )
    return control, rows, probabilities


def label_from_clock(trials: AuditTrials, seed: int = 0) -> Control:
    """Accuracy of naming the class of the last training trial before; no EEG is looked at.

    Belongs to the description of the design: it says what a perfect clock would score.

    Notes
    -----
    Before, not nearest: two neighbours that name each other would count twice in the test.
    """
    name, title = "label_from_clock", "accuracy of a perfect clock that has no EEG"
    if trials.order is None:
        return unavailable(0, name, title, NO_ORDER)
    hits = np.zeros(len(trials.labels), dtype=bool)
    for train, test in random_folds(trials, seed=seed):
        for row in test:
            same = trials.session[train] == trials.session[row]
            pool = train[same] if same.any() else train
            ahead = trials.order[row] - trials.order[pool]
            ahead = np.where(ahead > 0, ahead, np.abs(ahead) + len(trials.labels))
            hits[row] = trials.labels[pool[ahead.argmin()]] == trials.labels[row]
    return accuracy_control(
        0,
        name,
        title,
        hits,
        1 / trials.n_classes,
        "the class can be told from the time alone: every score in this design is open to a clock",
        "the time says nothing about the class: a clock cannot help",
    )


@one_thread
def pseudo_class(trials: AuditTrials, n_folds: int = 4, guard: int = 2) -> Control:
    """Control 3: tell the first half of a block from its second half, within one class.

    Parameters
    ----------
    trials : AuditTrials
    n_folds : int
        Stretches of each half; one of each half is tested at a time.
    guard : int
        Trials next to a tested one that are left out of the training.

    Notes
    -----
    Class and image are on both sides alike; only the time differs. Nearest mean after whitening,
    in the space spanned by the class means, where the audited decoder looks.
    """
    name, title = "pseudo_class", "first or second half of a block, within a class"
    if trials.order is None:
        return unavailable(3, name, title, NO_ORDER)
    blocks = trials.blocks if design_of(trials) != RANDOMIZED else _equal_runs(trials)
    space = _class_space(trials, blocks)
    hits, rows = [], []
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        members = members[np.argsort(trials.order[members])]
        if len(members) < 4 * n_folds:
            continue
        half = (np.arange(len(members)) >= len(members) / 2).astype(int)
        right = _halves(space[members], half, n_folds, guard)
        hits.append(right)
        rows.append({"block": int(block), "accuracy": float(right.mean()), "n": len(right)})
    if not hits:
        return unavailable(
            3, name, title, f"blocks hold fewer than {4 * n_folds} trials; longer ones are needed."
        )
    return accuracy_control(
        3,
        name,
        title,
        np.concatenate(hits),
        0.5,
        "above chance: the clock can be read from these trials, within seconds",
        "at chance: no clock was seen within blocks; a slower one may exist",
        rows=rows,
    )


def temporal_distance(
    trials: AuditTrials, decoder: Decoder = discriminant, seed: int = 0
) -> Control:
    """Control 4: what is lost when training trials near in time are left out.

    Each class is tested in contiguous stretches, with wider and wider gaps to the training
    trials; the estimate is the accuracy on random splits minus that on stretches with a gap of
    4 trials, on the same trials.

    Notes
    -----
    The random splits train on no more trials of a class than the stretches leave
    (`eeglib.audit.designs.matched_folds`), else the smaller training would pass for a clock; their
    hits are averaged over three draws. Interval: bootstrap over stretches of ten trials. Test: the
    difference over the spread of that bootstrap, one-sided, normal.
    """
    name, title = "temporal_distance", "random split minus contiguous stretches with a gap"
    if trials.order is None:
        return unavailable(4, name, title, NO_ORDER)
    labels, by_gap, rows = trials.labels, {}, []
    for gap in GAPS:
        folds = contiguous_folds(trials, gap=gap)
        if any(len(np.unique(labels[train])) < len(np.unique(labels)) for train, _ in folds):
            break
        tested, hits = tested_hits(trials, decoder, folds)
        by_gap[gap] = folds, tested, hits
        rows.append(_distance_row(trials, f"gap {gap}", hits, folds))
    if not by_gap:
        return unavailable(4, name, title, "a contiguous stretch leaves a class without training.")
    folds, tested, hits = by_gap[max(g for g in by_gap if g <= 4)]
    random_hits = matched_hits(trials, decoder, folds, seed)
    matched = matched_folds(trials, folds, seed)
    rows.insert(0, _distance_row(trials, "random", random_hits, matched))
    value, low, high = difference_interval(random_hits[tested], hits, stretches(trials)[tested])
    spread = (high - low) / (2 * norm.ppf(0.975))
    return Control(
        4,
        name,
        title,
        value,
        0.0,
        low,
        high,
        len(tested),
        float(norm.sf(value / spread)) if spread > 0 else 1.0,
        "accuracy falls with the distance in time: part of it came from neighbours"
        if low > 0
        else "no loss seen when neighbours in time are left out",
        rows=rows,
    )


def confusion_distance(
    trials: AuditTrials, probabilities: np.ndarray, seed: int = 0, rows: np.ndarray | None = None
) -> Control:
    """Control 5: are classes confused the more, the closer they were presented?

    Parameters
    ----------
    trials : AuditTrials
    probabilities : array, shape (n_trials, n_classes)
        Of the headline.
    seed : int
        Of the permutations.
    rows : array of int | None
        Trials that ``probabilities`` are about; all where left out.

    Notes
    -----
    Spearman correlation, over pairs of classes of one session, between the distance in time of
    their blocks and the mean log-probability that trials of one get as the other, after removing
    what each class gets and gives on average. Test: the times of the blocks are permuted within
    sessions (Mantel 1967). Interval: that permutation distribution laid around the estimate.
    """
    name, title = "confusion_distance", "correlation of confusion with distance in time"
    design = design_of(trials)
    if design != BLOCK:
        return unavailable(
            5, name, title, f"classes have no single moment in this design ({design})."
        )
    labels, known = trials.labels, np.unique(trials.labels)
    told = labels if rows is None else labels[rows]
    if set(told) != set(known):
        return unavailable(5, name, title, "some class has no test trial.")
    session = np.array([trials.session[labels == c][0] for c in known])
    when = np.array([trials.time[labels == c].mean() for c in known])
    log = np.log(np.maximum(probabilities[:, known], 1e-6))
    given = np.stack([log[told == c].mean(axis=0) for c in known])
    pairs = (session[:, None] == session) & ~np.eye(len(known), dtype=bool)
    if pairs.sum() < 12:
        return unavailable(5, name, title, "fewer than four blocks share a session.")
    confusion = _double_centred((given + given.T) / 2, pairs)
    distance = np.abs(when[:, None] - when)
    value = _rank_correlation(distance, confusion, pairs)
    drawn = _permuted_correlations(distance, confusion, pairs, session, seed)
    p_value = (1 + np.sum(drawn <= value)) / (1 + N_PERMUTATIONS)
    low, high = value + np.percentile(drawn, [2.5, 97.5])
    table = [
        {"distance": float(distance[a, b]), "confusion": float(confusion[a, b])}
        for a, b in zip(*np.nonzero(np.triu(pairs)), strict=True)
    ]
    return Control(
        5,
        name,
        title,
        value,
        0.0,
        max(-1.0, float(low)),
        min(1.0, float(high)),
        int(pairs.sum() // 2),
        float(p_value),
        "errors fall on classes presented nearby: the decoder reads the clock"
        if p_value < 0.05
        else "confusions show no relation to the distance in time",
        rows=table,
    )


def by_design(trials: AuditTrials, decoder: Decoder = discriminant) -> list[Control]:
    """Accuracy of the same decoder when blocks, or sessions, are left out."""
    found = []
    for name, title, folds in (
        ("leave_block_out", "accuracy when whole blocks are left out", block_folds),
        ("leave_session_out", "accuracy when a session is left out", session_folds),
    ):
        try:
            _, hits = tested_hits(trials, decoder, folds(trials))
        except AuditError as error:
            found.append(unavailable(4, name, title, str(error)))
            continue
        found.append(
            accuracy_control(
                4,
                name,
                title,
                hits,
                1 / trials.n_classes,
                "above chance with no training trial nearby in time",
                "at chance once no training trial is nearby in time",
            )
        )
    return found


def tested_hits(
    trials: AuditTrials, decoder: Decoder, folds: list
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that the folds test, and whether each was named rightly."""
    rows, probabilities = cross_validate(decoder, trials.features, trials.labels, folds)
    return rows, probabilities.argmax(axis=1) == trials.labels[rows]


def matched_hits(trials: AuditTrials, decoder: Decoder, folds: list, seed: int = 0) -> np.ndarray:
    """Share of random splits, with as much training as the folds have, that name each trial."""
    draws = [
        tested_hits(trials, decoder, matched_folds(trials, folds, seed + k))[1]
        for k in range(N_RANDOM_SPLITS)
    ]
    return np.mean(draws, axis=0)


def _class_space(trials: AuditTrials, blocks: np.ndarray) -> np.ndarray:
    """Whitened trials, projected on the axes along which the class means differ."""
    white = (trials.features - trials.features.mean(axis=0)) @ whitener(trials.features, blocks)
    groups = blocks if design_of(trials) in (BLOCK, REPEATED) else trials.labels
    means = np.stack([white[groups == g].mean(axis=0) for g in np.unique(groups)])
    _, size, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    return white @ axes[size > 1e-9 * size.max()].T


def _equal_runs(trials: AuditTrials, length: int = 50) -> np.ndarray:
    """Runs of consecutive trials, where blocks mean nothing for the classes."""
    length = min(length, max(16, len(trials.labels) // 4))
    return stretches(trials, length)


def _halves(space: np.ndarray, half: np.ndarray, n_folds: int, guard: int) -> np.ndarray:
    """Right or wrong for each trial of one block, in order, by the nearer mean of two halves."""
    place = np.arange(len(half))
    fold = np.empty(len(half), dtype=int)
    for side in (0, 1):
        for k, part in enumerate(np.array_split(place[half == side], n_folds)):
            fold[part] = k
    hits = np.empty(len(half), dtype=bool)
    for k in range(n_folds):
        test = fold == k
        near = np.convolve(test, np.ones(2 * guard + 1), mode="same") > 0.5
        train = ~near
        first, second = (space[train & (half == side)].mean(axis=0) for side in (0, 1))
        axis = second - first
        hits[test] = ((space[test] - (first + second) / 2) @ axis > 0) == (half[test] == 1)
    return hits


def _distance_row(trials: AuditTrials, split: str, hits: np.ndarray, folds: list) -> dict:
    """Accuracy, and the median distance in trials to the nearest training trial of the class."""
    distances = []
    for train, test in folds:
        for row in test:
            same = (trials.labels[train] == trials.labels[row]) & (
                trials.session[train] == trials.session[row]
            )
            if same.any():
                distances.append(np.abs(trials.order[train[same]] - trials.order[row]).min())
    middle = float(np.median(distances)) if distances else float("nan")
    return {"split": split, "accuracy": float(hits.mean()), "n": len(hits), "distance": middle}


def _double_centred(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Remove row and column means over the chosen pairs, by sweeps."""
    centred = np.where(pairs, values, 0.0)
    for _ in range(20):
        centred -= pairs * (centred.sum(axis=1) / np.maximum(pairs.sum(axis=1), 1))[:, None]
        centred -= pairs * (centred.sum(axis=0) / np.maximum(pairs.sum(axis=0), 1))
    return centred


def _rank_correlation(first: np.ndarray, second: np.ndarray, pairs: np.ndarray) -> float:
    """Spearman's over the pairs of the upper triangle."""
    upper = np.triu(pairs)
    return float(np.corrcoef(rankdata(first[upper]), rankdata(second[upper]))[0, 1])


def _permuted_correlations(
    distance: np.ndarray, confusion: np.ndarray, pairs: np.ndarray, session: np.ndarray, seed: int
) -> np.ndarray:
    """Rank correlations after the times of the blocks were permuted within sessions.

    A permutation moves whole rows and columns, so that the ranks of the distances stay the same
    set and are computed once.
    """
    upper = np.triu(pairs)
    ranks = np.zeros(distance.shape)
    ranks[upper] = rankdata(distance[upper])
    ranks += ranks.T
    target = rankdata(confusion[upper])
    target = (target - target.mean()) / np.linalg.norm(target - target.mean())
    rows, columns = np.nonzero(upper)
    spread = np.linalg.norm(ranks[upper] - ranks[upper].mean())
    rng = np.random.default_rng(seed)
    drawn = np.empty(N_PERMUTATIONS)
    moved = np.arange(len(distance))
    for k in range(N_PERMUTATIONS):
        for s in np.unique(session):
            own = np.flatnonzero(session == s)
            moved[own] = rng.permutation(own)
        drawn[k] = target @ ranks[moved[rows], moved[columns]] / spread
    return drawn
