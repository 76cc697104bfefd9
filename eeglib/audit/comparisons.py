"""Controls that set the accuracy beside another one (chapter 8)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from eeglib.audit.control import Control, accuracy_control, unavailable
from eeglib.audit.decoders import Decoder, cross_validate, discriminant
from eeglib.audit.designs import BLOCK, RANDOMIZED, REPEATED, design_of, random_folds, subject_folds
from eeglib.audit.phantom import phantom_trials
from eeglib.audit.trials import AuditError, AuditTrials


def across_subjects(
    subjects: Mapping[int, AuditTrials], subject: int, decoder: Decoder = discriminant
) -> Control:
    """Control 1: train on the other subjects, test on this one; always read beside the headline.

    A clock does not carry over between people; a response to images partly does. Each subject's
    features are standardised before.
    """
    if subject not in subjects:
        raise AuditError(f"Subject {subject} is not among {sorted(subjects)}.")
    return across_all_subjects(subjects, decoder)[subject]


def across_all_subjects(
    subjects: Mapping[int, AuditTrials], decoder: Decoder = discriminant
) -> dict[int, Control]:
    """Control 1 for every subject, by one cross-validation.

    Raises
    ------
    AuditError
        If the subjects have different numbers of classes.
    """
    name, title = "across_subjects", "accuracy when trained on the other subjects"
    reason = ""
    if len(subjects) < 2:
        reason = "only one subject is at hand; the group page has it where there are several."
    sizes = {trials.features.shape[1] for trials in subjects.values()}
    if len(sizes) > 1:
        reason = f"subjects have different numbers of features: {sorted(sizes)}."
    if reason:
        return {s: unavailable(1, name, title, reason) for s in subjects}
    if len({trials.n_classes for trials in subjects.values()}) > 1:
        raise AuditError("Subjects have different numbers of classes; audit them apart.")
    features = np.concatenate([_standardised(t.features) for t in subjects.values()])
    labels = np.concatenate([t.labels for t in subjects.values()])
    whose = np.repeat(list(subjects), [len(t.labels) for t in subjects.values()])
    rows, probabilities = cross_validate(decoder, features, labels, subject_folds(whose))
    hits = probabilities.argmax(axis=1) == labels[rows]
    table = [
        {
            "subject": int(s),
            "accuracy": float(hits[whose == s].mean()),
            "n": int((whose == s).sum()),
        }
        for s in subjects
    ]
    return {
        s: accuracy_control(
            1,
            name,
            title,
            hits[whose == s],
            1 / trials.n_classes,
            "above chance: something is shared between people, which their clocks hardly are",
            "at chance: what is decoded within this subject does not carry over to others",
            rows=table,
        )
        for s, trials in subjects.items()
    }


def phantom_blocks(
    trials: AuditTrials,
    decoder: Decoder = discriminant,
    recording: AuditTrials | None = None,
    seed: int = 0,
) -> Control:
    """Control 2: accuracy on real classes minus accuracy on invented blocks.

    Parameters
    ----------
    trials : AuditTrials
    decoder : Decoder
    recording : AuditTrials | None
        Trials with phantom labels from another recording (`phantom_recording`,
        `phantom_trials`). Left out, the trials themselves are relabelled, if their design is
        randomised.
    seed : int
    """
    name, title = "phantom_blocks", "accuracy on the real classes minus on invented blocks"
    if recording is None:
        if design_of(trials) != RANDOMIZED:
            return unavailable(
                2,
                name,
                title,
                "in a block design every stretch of time belongs to a class; give a continuous or "
                "randomised recording to invent blocks in.",
            )
        try:
            recording = phantom_trials(trials)
        except AuditError as error:
            return unavailable(2, name, title, str(error))
    if recording.n_classes != trials.n_classes:
        return unavailable(
            2,
            name,
            title,
            f"{recording.n_classes} phantom classes cannot be set beside "
            f"{trials.n_classes} real ones; invent as many.",
        )
    real, fake = (_hits(t, decoder, seed) for t in (trials, recording))
    value = float(real.mean() - fake.mean())
    spread = float(np.sqrt(real.var() / len(real) + fake.var() / len(fake)))
    rows = [
        {"labels": "real", "accuracy": float(real.mean()), "n": len(real)},
        {"labels": "phantom", "accuracy": float(fake.mean()), "n": len(fake)},
    ]
    chance = 1 / trials.n_classes
    invented = accuracy_control(2, name, title, fake, chance, "above", "at")
    verdict = (
        "phantom classes are decoded: with these trials a clock can pass for a class"
        if invented.verdict == "above"
        else "phantom classes are at chance: no clock was seen in these trials"
    )
    return Control(
        2,
        name,
        title,
        value,
        0.0,
        value - 1.96 * spread,
        value + 1.96 * spread,
        len(real),
        float(norm.sf(value / spread)) if spread > 0 else 1.0,
        verdict,
        rows=rows,
    )


def randomized_reference(
    reference: AuditTrials | None, decoder: Decoder = discriminant, seed: int = 0
) -> Control:
    """Control 11: the same code on a recording with classes in random order."""
    name, title = "randomized_reference", "accuracy of the same code on a randomised recording"
    if reference is None:
        return unavailable(
            11, name, title, "this data set holds no randomised recording; give one as reference."
        )
    if design_of(reference) != RANDOMIZED:
        return unavailable(
            11, name, title, f"the reference is not randomised but: {design_of(reference)}."
        )
    return accuracy_control(
        11,
        name,
        title,
        _hits(reference, decoder, seed),
        1 / reference.n_classes,
        "above chance where no clock can help: this decoder can read stimuli",
        "at chance where no clock can help: what it reads elsewhere may be the clock",
    )


def permutation_within_blocks(
    trials: AuditTrials, decoder: Decoder = discriminant, n_permutations: int = 40, seed: int = 0
) -> Control:
    """Control 12: permute the labels within blocks, train and test again.

    Notes
    -----
    The estimate is the accuracy minus the mean of the permuted ones; its interval is theirs laid
    around it, on two folds of five for speed. With ``n_permutations`` refits the smallest p-value
    is ``1 / (n_permutations + 1)``.
    """
    name, title = "permutation_within_blocks", "accuracy minus that of labels permuted in blocks"
    design = design_of(trials)
    if design in (BLOCK, REPEATED):
        return unavailable(
            12,
            name,
            title,
            "all trials of a block have one label, so that permuting within "
            "blocks changes nothing: this design has no test that holds the clock constant.",
        )
    blocks = trials.blocks
    if blocks is None:
        return unavailable(12, name, title, "neither blocks nor order are known.")
    if len(np.unique(blocks)) > len(blocks) / 3:
        blocks = trials.session
    folds = random_folds(trials, seed=seed)[:2]
    accuracy = _accuracy(trials, trials.labels, decoder, folds)
    rng = np.random.default_rng(seed)
    drawn = np.empty(n_permutations)
    for k in range(n_permutations):
        labels = trials.labels.copy()
        for block in np.unique(blocks):
            labels[blocks == block] = rng.permutation(labels[blocks == block])
        drawn[k] = _accuracy(trials, labels, decoder, folds)
    value = accuracy - drawn.mean()
    low, high = value + np.percentile(drawn - drawn.mean(), [2.5, 97.5])
    p_value = (1 + np.sum(drawn >= accuracy)) / (1 + n_permutations)
    return Control(
        12,
        name,
        title,
        float(value),
        0.0,
        float(low),
        float(high),
        len(trials.labels),
        float(p_value),
        "better than labels permuted within blocks: not the block alone is decoded"
        if p_value < 0.05
        else "no better than labels permuted within blocks",
    )


def _hits(trials: AuditTrials, decoder: Decoder, seed: int) -> np.ndarray:
    rows, probabilities = cross_validate(
        decoder, trials.features, trials.labels, random_folds(trials, seed=seed)
    )
    return probabilities.argmax(axis=1) == trials.labels[rows]


def _accuracy(trials: AuditTrials, labels: np.ndarray, decoder: Decoder, folds: list) -> float:
    rows, probabilities = cross_validate(decoder, trials.features, labels, folds)
    return float((probabilities.argmax(axis=1) == labels[rows]).mean())


def _standardised(features: np.ndarray) -> np.ndarray:
    scale = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(scale > 0, scale, 1)
