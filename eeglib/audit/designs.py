"""How classes lie in time, and splits that respect it (chapter 8)."""

from __future__ import annotations

import numpy as np

from eeglib.audit.trials import AuditError, AuditTrials

Folds = list[tuple[np.ndarray, np.ndarray]]

BLOCK, REPEATED, RANDOMIZED, UNKNOWN = "block", "repeated blocks", "randomized", "unknown"


def design_of(trials: AuditTrials) -> str:
    """Say how the classes were presented.

    Returns
    -------
    str
        ``block``: every class in one unbroken run; ``repeated blocks``: every block of one class,
        several blocks per class; ``randomized``: classes mixed within blocks; ``unknown``: no
        order.
    """
    blocks = trials.blocks
    if blocks is None or trials.order is None:
        return UNKNOWN
    classes_in = [len(np.unique(trials.labels[blocks == b])) for b in np.unique(blocks)]
    if max(classes_in) > 1:
        return RANDOMIZED
    # Numbered or not, runs of length one or two are a shuffled order, not blocks.
    if len(trials.labels) / len(classes_in) < 3:
        return RANDOMIZED
    blocks_of = [len(np.unique(blocks[trials.labels == c])) for c in np.unique(trials.labels)]
    return BLOCK if max(blocks_of) == 1 else REPEATED


def random_folds(trials: AuditTrials, n_folds: int = 5, seed: int = 0) -> Folds:
    """Random split by image: the usual one, blind to time.

    Each image's trials are in one fold, every class is spread over the folds. Where a class has
    fewer images than ``n_folds``, there are as many folds as it has images.

    Raises
    ------
    AuditError
        If a class has one image only.
    """
    keys, labels = _image_keys(trials), trials.labels
    counts = {c: len(np.unique(keys[labels == c])) for c in np.unique(labels)}
    fewest = min(counts, key=counts.get)
    if counts[fewest] < 2:
        raise AuditError(
            f"Label {fewest} has one image only, which cannot be in training and test. Leave the "
            "class out."
        )
    n_folds = min(n_folds, counts[fewest])
    fold = _image_parts(keys, labels, n_folds, seed)
    return [_fold(fold != k, fold == k) for k in range(n_folds)]


def matched_folds(trials: AuditTrials, folds: Folds, seed: int = 0) -> Folds:
    """Random folds by image that train on as few trials of each class as the given ones.

    A split by time leaves trials out of the training and loses accuracy by that alone; only next
    to a random split with as much training does its loss speak of time.

    Parameters
    ----------
    trials : AuditTrials
    folds : list of (train, test)
        Of a split by time; the n-th random fold trains on as many trials as the n-th of these.
    seed : int
    """
    labels, rng = trials.labels, np.random.default_rng(seed)
    n_classes = trials.n_classes
    # Classes that a fold does not train are not tested there and set no limit.
    sizes = np.stack([np.bincount(labels[train], minlength=n_classes) for train, _ in folds])
    sizes[sizes == 0] = len(labels)
    matched = []
    for k, (train, test) in enumerate(random_folds(trials, seed=seed)):
        kept = [
            rng.permutation(rows)[: sizes[k % len(folds)][label]]
            for label in np.unique(labels)
            for rows in [train[labels[train] == label]]
        ]
        matched.append((np.sort(np.concatenate(kept)), test))
    return matched


def contiguous_folds(trials: AuditTrials, n_folds: int = 5, gap: int = 2) -> Folds:
    """Split each class by time: a stretch of its trials is tested, its surroundings are left out.

    Parameters
    ----------
    trials : AuditTrials
    n_folds : int
        Stretches per class.
    gap : int
        Trials of any class that are left out of the training before and after a tested one, in
        the order of presentation.
    """
    position = _positions(trials)
    fold = np.empty(len(position), dtype=int)
    for label in np.unique(trials.labels):
        rows = np.flatnonzero(trials.labels == label)
        rows = rows[np.argsort(position[rows])]
        for k, part in enumerate(np.array_split(rows, n_folds)):
            fold[part] = k
    folds = [_fold(~_near(position, fold == k, gap), fold == k) for k in range(n_folds)]
    return _without_shared_images(trials, folds)


def block_folds(trials: AuditTrials) -> Folds:
    """Leave whole blocks out: the n-th block of every class is tested together.

    Raises
    ------
    AuditError
        If a class has one block only: then nothing would be left to train it on.
    """
    if design_of(trials) != REPEATED:
        raise AuditError(
            "Leaving blocks out needs classes with several blocks each, every block of one class; "
            f"this design is: {design_of(trials)}."
        )
    blocks, rank = trials.blocks, np.empty(len(trials.labels), dtype=int)
    for label in np.unique(trials.labels):
        rows = trials.labels == label
        rank[rows] = np.unique(blocks[rows], return_inverse=True)[1]
    lone = [c for c in np.unique(trials.labels) if rank[trials.labels == c].max() == 0]
    if lone:
        raise AuditError(f"Label {lone[0]} has one block only; leave the class out.")
    folds = [_fold(rank != k, rank == k) for k in np.unique(rank)]
    return _without_shared_images(trials, folds)


def session_folds(trials: AuditTrials) -> Folds:
    """Leave one session out; trials of classes that no other session has are not tested.

    Raises
    ------
    AuditError
        If there is one session, or no class is in two.
    """
    session = trials.session
    folds = []
    for left in np.unique(session):
        train = session != left
        test = (session == left) & np.isin(trials.labels, np.unique(trials.labels[train]))
        if train.any() and test.any():
            folds.append(_fold(train, test))
    if not folds:
        raise AuditError(
            f"There are {len(np.unique(session))} sessions and no class is in two of them, so a "
            "session cannot be left out. Present every class in every session."
        )
    return _without_shared_images(trials, folds)


def subject_folds(subjects: np.ndarray) -> Folds:
    """Leave one subject out.

    Raises
    ------
    AuditError
        If there is one subject only.
    """
    subjects = np.asarray(subjects)
    if len(np.unique(subjects)) < 2:
        raise AuditError("Leaving a subject out needs at least two subjects, got one.")
    return [_fold(subjects != s, subjects == s) for s in np.unique(subjects)]


def stretches(trials: AuditTrials, length: int = 10) -> np.ndarray:
    """Number of the stretch of ``length`` consecutive trials that each trial belongs to."""
    return _positions(trials) // length


def _image_keys(trials: AuditTrials) -> np.ndarray:
    """Name of each trial's image; where images are not known, every trial is one."""
    images = trials.metadata["image"].fillna("").astype(str).to_numpy()
    return images if (images != "").all() else np.arange(len(images)).astype(str)


def _image_parts(keys: np.ndarray, labels: np.ndarray, n_parts: int, seed: int) -> np.ndarray:
    """Part of each trial: images of a class are dealt out at random."""
    rng = np.random.default_rng(seed)
    part = np.empty(len(keys), dtype=int)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        distinct, index = np.unique(keys[rows], return_inverse=True)
        part[rows] = rng.permutation(np.arange(len(distinct)) % n_parts)[index]
    return part


def _without_shared_images(trials: AuditTrials, folds: Folds) -> Folds:
    """Split further where an image was shown several times, so that none is on both sides."""
    keys, apart = _image_keys(trials), []
    part = _image_parts(keys, trials.labels, 5, seed=0)
    for train, test in folds:
        if not len(np.intersect1d(keys[train], keys[test])):
            apart.append((train, test))
            continue
        pairs = [(train[part[train] != k], test[part[test] == k]) for k in range(5)]
        apart += [(a, b) for a, b in pairs if len(a) and len(b)]
    return apart


def _positions(trials: AuditTrials) -> np.ndarray:
    """Rank of each trial in the order of presentation."""
    if trials.order is None:
        raise AuditError(
            "The order of presentation is not known, so trials cannot be split by time. Add the "
            "column order to the events."
        )
    position = np.empty(len(trials.labels), dtype=int)
    position[np.lexsort((trials.order, trials.session))] = np.arange(len(position))
    return position


def _near(position: np.ndarray, test: np.ndarray, gap: int) -> np.ndarray:
    tested = np.zeros(position.max() + 1 + 2 * gap, dtype=bool)
    tested[position[test] + gap] = True
    near = np.convolve(tested, np.ones(2 * gap + 1), mode="same") > 0
    return near[position + gap]


def _fold(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(train), np.flatnonzero(test)
