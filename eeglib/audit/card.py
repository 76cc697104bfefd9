"""The audit card: one page on whether an accuracy is about pictures or about time (chapter 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from eeglib.audit import clock, comparisons, pictures, signals
from eeglib.audit.control import Control
from eeglib.audit.decoders import Decoder, cross_validate, discriminant
from eeglib.audit.designs import BLOCK, REPEATED, UNKNOWN, design_of, random_folds
from eeglib.audit.phantom import phantom_trials
from eeglib.audit.share import Share, accuracy_of_share, share_of_trials
from eeglib.audit.trials import AuditError, AuditTrials

CHAPTER = "08_audit_confounds"
GROUPS = ("clock", "signals", "pictures", "comparisons", "share", "simulator")
ALPHA = 0.01
"""Of the decision that a clock was seen, over all controls that look for it together."""

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


@dataclass(frozen=True)
class AuditCard:
    """All that was found about one subject.

    Attributes
    ----------
    subject : int
    design : str
        As `eeglib.audit.designs.design_of` says.
    n_classes : int
    headline : Control
        The accuracy that is audited.
    label_from_clock : Control
        What a perfect clock would score.
    controls : list of Control
    share : Share | None
    share_reason : str
        Why there is no share.
    """

    subject: int
    design: str
    n_classes: int
    headline: Control
    label_from_clock: Control
    controls: list[Control] = field(default_factory=list)
    share: Share | None = None
    share_reason: str = ""

    def control(self, name: str) -> Control:
        """The control of that name."""
        for control in self.controls:
            if control.name == name:
                return control
        known = ", ".join(c.name for c in self.controls)
        raise KeyError(f"This card holds no control {name!r}. It holds: {known}.")

    def table(self) -> pandas.DataFrame:
        """One row per control: what was done, the figure with chance, interval and n, in words."""
        rows = [
            {
                "control": c.number or "", "what": c.title, "value": c.estimate,
                "chance": c.chance, "low": c.low, "high": c.high, "n": c.n, "verdict": c.verdict,
            }
            for c in [self.headline, self.label_from_clock,
                      *sorted(self.controls, key=lambda c: c.number)]
        ]
        return pandas.DataFrame(rows)

    def scores(self) -> pandas.DataFrame:
        """The available controls, as `Chapter.finish` takes them."""
        return pandas.DataFrame([
            {"metric": c.name, "value": c.estimate, "chance": c.chance, "low": c.low,
             "high": c.high, "n": c.n, "p_value": c.p_value, "method": "audit"}
            for c in [self.headline, self.label_from_clock, *self.controls] if c.available
        ])

    def facts(self) -> dict[str, Any]:
        """Everything, as ``metrics.json`` keeps it under the fact ``audit``; see `read_card`."""
        conclusion = conclude(self)
        share = None
        if self.share is not None:
            share = {
                "estimate": self.share.estimate, "low": self.share.low, "high": self.share.high,
                "confidence": self.share.confidence, "density": self.share.density.tolist(),
                "method": self.share.method, "assumption": self.share.assumption,
                "n": self.share.n,
            }
        return {
            "subject": self.subject, "design": self.design, "n_classes": self.n_classes,
            "kind": conclusion.kind, "flagged": conclusion.flagged,
            "conclusion": conclusion.sentence, "share": share, "share_reason": self.share_reason,
            "headline": self.headline.as_dict(),
            "label_from_clock": self.label_from_clock.as_dict(),
            "controls": [c.as_dict() for c in self.controls],
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> AuditCard:
        """The card that `facts` described."""
        share = facts["share"]
        if share is not None:
            share = Share(**{**share, "density": np.asarray(share["density"])})
        return cls(
            facts["subject"], facts["design"], facts["n_classes"], _control(facts["headline"]),
            _control(facts["label_from_clock"]), [_control(c) for c in facts["controls"]], share,
            facts["share_reason"],
        )

    def _repr_html_(self) -> str:
        from html import escape

        return (
            f"<p><strong>Audit card, subject {self.subject}.</strong> "
            f"{escape(conclude(self).sentence)}</p>"
            + self.table().to_html(index=False, na_rep="", float_format="{:.3f}".format)
        )


def run_audit(
    trials: AuditTrials, subject: int, decoder: Decoder = discriminant,
    controls: Sequence[str] = GROUPS[:-1], image_features: np.ndarray | None = None,
    teacher_logits: np.ndarray | None = None,
    others: dict[int, AuditTrials] | None = None, phantom: AuditTrials | None = None,
    reference: AuditTrials | None = None, seed: int = 0,
) -> AuditCard:
    """Run the controls that the data support.

    Parameters
    ----------
    trials : AuditTrials
        One subject's.
    subject : int
    decoder : Decoder
        The classifier under audit, for ``trials.features``.
    controls : sequence of str
        Which of `GROUPS`.
    image_features : array, shape (n_trials, n_image_features) | None
        What each trial's image looks like.
    teacher_logits : array, shape (n_trials, n_classes) | None
    others : dict of int to AuditTrials | None
        Further subjects, for leaving one out.
    phantom, reference : AuditTrials | None
        Another recording with phantom labels, and a randomised one.
    seed : int

    Raises
    ------
    AuditError
        If a name in ``controls`` is unknown, or the trials are too few for the headline.
    """
    unknown = sorted(set(controls) - set(GROUPS))
    if unknown:
        raise AuditError(f"No group of controls {unknown[0]!r}; there are {', '.join(GROUPS)}.")
    head, _, probabilities = clock.headline(trials, decoder, seed)
    found: list[Control] = []
    if "comparisons" in controls:
        found += _comparisons(trials, subject, decoder, others, phantom, reference, seed)
    if "clock" in controls:
        found += [
            clock.pseudo_class(trials), clock.temporal_distance(trials, decoder, seed),
            *clock.by_design(trials, decoder), clock.confusion_distance(trials, probabilities, seed),
        ]
    if "pictures" in controls:
        found += _pictures(trials, probabilities, image_features, teacher_logits, decoder, seed)
    if "signals" in controls:
        found += [signals.power_and_mean(trials, seed), signals.time_windows(trials, seed)]
    if "simulator" in controls:
        from eeglib.audit.worlds import simulated_worlds

        found.append(simulated_worlds(seed=seed))
    share, reason = None, "the share was not asked for."
    if "share" in controls:
        share, reason = _share(trials, head, decoder, seed)
    return AuditCard(
        subject, design_of(trials), trials.n_classes, head, clock.label_from_clock(trials), found,
        share, reason,
    )


def conclude(card: AuditCard) -> Conclusion:
    """Put what was found into a plain sentence; no single control decides.

    Notes
    -----
    A clock counts as seen where the smallest p-value of controls 3, 4 and 5, times their number
    (Bonferroni), is below `ALPHA`. Only a design in which the time does not tell the class is
    called independent of time; no other result is.
    """
    head, n_classes = card.headline, card.n_classes
    score = f"The accuracy is {head.estimate:.3f} (chance {head.chance:.3f}, n = {head.n})"
    if not head.p_value < 0.05:
        return Conclusion(
            NOTHING, False, f"{score}: not distinguishable from chance. Nothing was decoded, so "
            "there is nothing for a clock to explain, and nothing to claim."
        )
    if card.design == UNKNOWN:
        return Conclusion(
            OPEN, False, f"{score}. The order of presentation is not known, so that nobody can "
            "say how much of it is the time of the recording."
        )
    follows = card.label_from_clock.p_value < ALPHA
    p_values = [
        c.p_value for c in card.controls
        if c.available and c.name in ("pseudo_class", "temporal_distance", "confusion_distance")
        and math.isfinite(c.p_value)
    ]
    seen = bool(p_values) and min(p_values) * len(p_values) < ALPHA
    if not follows:
        return Conclusion(INDEPENDENT, False, f"{score}. {_independent(card, seen)}")
    room = _room(card, n_classes)
    if seen:
        return Conclusion(
            CONFOUNDED, True, f"{score}, but class and time go together, and the time can be read "
            f"from these trials. {room} The accuracy is no measure of what was seen."
        )
    return Conclusion(
        CONFOUNDED_UNSEEN, False, f"{score}. No clock was seen, but class and time go together in "
        f"this design, and a clock slower than the blocks would go unnoticed. {room} Only classes "
        "in random order can tell."
    )


def card_table(cards: Sequence[AuditCard]) -> pandas.DataFrame:
    """One row per subject: accuracy, what a clock does to it, what is left, the conclusion."""
    rows = []
    for card in cards:
        row = {"subject": card.subject, "design": card.design, "accuracy": card.headline.estimate,
               "chance": card.headline.chance, "n": card.headline.n}
        for name, column in (
            ("across_subjects", "trained on others"), ("pseudo_class", "half of a block"),
            ("temporal_distance", "lost with a gap in time"),
            ("image_identification", "image within class"),
        ):
            found = [c for c in card.controls if c.name == name and c.available]
            row[column] = found[0].estimate if found else float("nan")
        if card.share is not None:
            row["stimulus-driven share"] = (
                f"{card.share.low:.2f} to {card.share.high:.2f}"
            )
        else:
            row["stimulus-driven share"] = "none"
        row["conclusion"] = conclude(card).kind
        rows.append(row)
    return pandas.DataFrame(rows)


def read_card(run_dir: str | Path, subjects: Sequence[int]) -> list[AuditCard]:
    """Cards that chapter 8 left in a run; subjects for whom it did not finish are missing.

    Parameters
    ----------
    run_dir : str | Path
    subjects : sequence of int
    """
    from eeglib.metrics import load_metrics
    from eeglib.run_folder import METRICS, chapter_folder

    cards = []
    for subject in subjects:
        folder = chapter_folder(run_dir, CHAPTER, subject)
        if (folder / METRICS).is_file():
            facts = load_metrics(folder).facts
            if "audit" in facts:
                cards.append(AuditCard.from_facts(facts["audit"]))
    return cards


def _comparisons(trials, subject, decoder, others, phantom, reference, seed) -> list[Control]:
    subjects = {subject: trials, **(others or {})}
    return [
        comparisons.across_subjects(subjects, subject, decoder),
        comparisons.phantom_blocks(trials, decoder, phantom, seed),
        comparisons.randomized_reference(
            trials if reference is None and design_of(trials) == "randomized" else reference,
            decoder, seed,
        ),
        comparisons.permutation_within_blocks(trials, seed=seed),
    ]


def _pictures(trials, probabilities, image_features, teacher_logits, decoder, seed):
    predicted, phantom = probabilities.argmax(axis=1), None
    if image_features is not None and design_of(trials) not in (BLOCK, REPEATED, UNKNOWN):
        invented = phantom_trials(trials)
        _, guessed = cross_validate(
            decoder, invented.features, invented.labels, random_folds(invented, seed=seed)
        )
        phantom = guessed.argmax(axis=1)
    return [
        pictures.image_identification(trials, image_features, seed),
        pictures.teacher_controls(trials, teacher_logits, seed=seed),
        pictures.generation_controls(trials, image_features, predicted, phantom),
    ]


def _share(trials, head, decoder, seed) -> tuple[Share | None, str]:
    if not head.p_value < 0.05:
        return None, "the accuracy is at chance: there is nothing to share out."
    try:
        return share_of_trials(trials, decoder, seed=seed), ""
    except AuditError as error:
        return None, str(error)


def _room(card: AuditCard, n_classes: int) -> str:
    """What the share leaves to the stimulus, in words."""
    if card.share is None:
        return f"How much is driven by the stimulus cannot be estimated: {card.share_reason}"
    low, high = card.share.low, card.share.high
    reach = [accuracy_of_share(card.headline.estimate, s, n_classes) for s in (low, high)]
    sure = f"{100 * card.share.confidence:.0f}%"
    return (
        f"Between {100 * low:.0f}% and {100 * high:.0f}% of what separates the classes is left "
        f"for the stimulus ({sure} interval), which alone would give an accuracy of about "
        f"{reach[0]:.2f} to {reach[1]:.2f}; this assumes that {card.share.assumption}"
    )


def _independent(card: AuditCard, seen: bool) -> str:
    clock_words = (
        "The time can be read from these trials, but it says nothing about the class"
        if seen else "The time says nothing about the class"
    )
    gap = next((c for c in card.controls if c.name == "temporal_distance" and c.available), None)
    near = "" if gap is None else (
        f", and {gap.estimate:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}) of the accuracy is lost "
        "when neighbours in time are left out"
    )
    return (
        f"{clock_words}{near}. What is decoded follows the classes; whether it is what was seen, "
        "or an eye movement or a task that goes with it, is another question."
    )


def _control(facts: dict[str, Any]) -> Control:
    numbers = ("estimate", "chance", "low", "high", "p_value")
    return Control(**{
        k: math.nan if k in numbers and v is None else v for k, v in facts.items()
    })
