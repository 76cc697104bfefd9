"""What may be said after all controls: a plain sentence; no single one decides (chapter 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eeglib.audit.designs import UNKNOWN
from eeglib.audit.share import accuracy_of_share

if TYPE_CHECKING:
    from eeglib.audit.card import AuditCard

ALPHA = 0.01
"""Of the decision that a clock was seen, over all controls that look for it together."""

CLOCK_CONTROLS = ("pseudo_class", "temporal_distance", "confusion_distance", "student_confusion")

NOTHING = "nothing decoded"
CONFOUNDED = "confounded"
CONFOUNDED_UNSEEN = "confounded by design"
OPEN = "unknown"
INDEPENDENT = "independent of time"


@dataclass(frozen=True)
class Conclusion:
    """What may be said.

    Attributes
    ----------
    kind : str
        ``nothing decoded``, ``confounded``, ``confounded by design`` (no clock was seen, but the
        design leaves room for one), ``unknown`` (no order), ``independent of time``.
    flagged : bool
        Whether a clock was seen in trials whose classes follow the clock.
    sentence : str
    """

    kind: str
    flagged: bool
    sentence: str


def conclude(card: AuditCard) -> Conclusion:
    """Put what was found into a plain sentence.

    Notes
    -----
    A clock counts as seen where the smallest p-value of controls 3, 4 and 5, times their number
    (Bonferroni), is below `ALPHA`. Only a design in which the time does not tell the class is
    called independent of time; no other result is.
    """
    score, decoded = _score(card)
    seen = _clock_seen(card)
    follows = card.label_from_clock.p_value < ALPHA
    flagged = seen and follows
    if not decoded:
        warning = (
            " A clock can be read from these trials all the same: with more trials, or another "
            "decoder, it would be decoded as class."
            if flagged
            else ""
        )
        return Conclusion(
            NOTHING,
            flagged,
            f"{score}: not distinguishable from chance. Nothing was decoded, so "
            f"there is nothing to claim.{warning}",
        )
    if card.design == UNKNOWN:
        return Conclusion(
            OPEN,
            False,
            f"{score}. The order of presentation is not known, so that nobody can "
            "say how much of it is the time of the recording.",
        )
    if not follows:
        return Conclusion(INDEPENDENT, False, f"{score}. {_independent(card, seen)}")
    room = _room(card)
    if seen:
        return Conclusion(
            CONFOUNDED,
            True,
            f"{score}, but class and time go together, and the time can be read "
            f"from these trials. {room} The accuracy is no measure of what was seen.",
        )
    return Conclusion(
        CONFOUNDED_UNSEEN,
        False,
        f"{score}. No clock was seen, but class and time go together in "
        f"this design, and a clock slower than the blocks would go unnoticed. {room} Only classes "
        "in random order can tell.",
    )


def _score(card: AuditCard) -> tuple[str, bool]:
    """The accuracies in words, and whether one of them is above chance (Bonferroni)."""
    head = card.headline
    text = f"The accuracy is {head.estimate:.3f} (chance {head.chance:.3f}, n = {head.n})"
    p_values = [head.p_value]
    student = next((c for c in card.controls if c.name == "student" and c.available), None)
    if student is not None:
        text += f"; that of the network of chapter 5 is {student.estimate:.3f} (n = {student.n})"
        p_values.append(student.p_value)
    return text, min(p_values) * len(p_values) < 0.05


def _clock_seen(card: AuditCard) -> bool:
    p_values = [
        c.p_value
        for c in card.controls
        if c.available and c.name in CLOCK_CONTROLS and math.isfinite(c.p_value)
    ]
    return bool(p_values) and min(p_values) * len(p_values) < ALPHA


def _room(card: AuditCard) -> str:
    """What the share leaves to the stimulus, in words."""
    if card.share is None:
        return f"How much is driven by the stimulus cannot be estimated: {card.share_reason}"
    low, high = card.share.low, card.share.high
    reach = [accuracy_of_share(card.headline.estimate, s, card.n_classes) for s in (low, high)]
    sure = f"{100 * card.share.confidence:.0f}%"
    return (
        f"Between {100 * low:.0f}% and {100 * high:.0f}% of what separates the classes is left "
        f"for the stimulus ({sure} interval), which alone would give an accuracy of about "
        f"{reach[0]:.2f} to {reach[1]:.2f}; this assumes that {card.share.assumption}"
    )


def _independent(card: AuditCard, seen: bool) -> str:
    clock_words = (
        "The time can be read from these trials, but it says nothing about the class"
        if seen
        else "The time says nothing about the class"
    )
    gap = next((c for c in card.controls if c.name == "temporal_distance" and c.available), None)
    near = (
        ""
        if gap is None
        else (
            f", and {gap.estimate:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}) of the accuracy is lost "
            "when neighbours in time are left out"
        )
    )
    return (
        f"{clock_words}{near}. What is decoded follows the classes; whether it is what was seen, "
        "or an eye movement or a task that goes with it, is another question."
    )
