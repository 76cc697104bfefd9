"""The audit card: one page on whether an accuracy is about pictures or about time (chapter 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas

from eeglib.audit import clock, comparisons, pictures, signals
from eeglib.audit.conclusion import conclude
from eeglib.audit.control import Control
from eeglib.audit.decoders import Decoder, cross_validate, discriminant, one_thread
from eeglib.audit.designs import RANDOMIZED, design_of, random_folds
from eeglib.audit.phantom import phantom_trials
from eeglib.audit.share import Share, share_of_trials
from eeglib.audit.student import StudentAnswers, student_controls
from eeglib.audit.trials import AuditError, AuditTrials

GROUPS = ("clock", "signals", "pictures", "comparisons", "share", "simulator")


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

    def with_control(self, control: Control) -> AuditCard:
        """The card with a control added, in the place of one of the same name."""
        others = [c for c in self.controls if c.name != control.name]
        return replace(self, controls=[*others, control])

    def table(self) -> pandas.DataFrame:
        """One row per control: what was done, the figure with chance, interval and n, in words."""
        ordered = sorted(self.controls, key=lambda c: c.number)
        return control_table([self.headline, self.label_from_clock, *ordered])

    def scores(self) -> pandas.DataFrame:
        """The available controls, as `Chapter.finish` takes them."""
        return pandas.DataFrame(
            [
                {
                    "metric": c.name,
                    "value": c.estimate,
                    "chance": c.chance,
                    "low": c.low,
                    "high": c.high,
                    "n": c.n,
                    "p_value": c.p_value,
                    "method": "audit",
                }
                for c in [self.headline, self.label_from_clock, *self.controls]
                if c.available
            ]
        )

    def facts(self) -> dict[str, Any]:
        """Everything, as ``metrics.json`` keeps it under the fact ``audit``; see `read_card`."""
        conclusion = conclude(self)
        share = None
        if self.share is not None:
            share = {
                "estimate": self.share.estimate,
                "low": self.share.low,
                "high": self.share.high,
                "confidence": self.share.confidence,
                "density": self.share.density.tolist(),
                "method": self.share.method,
                "assumption": self.share.assumption,
                "n": self.share.n,
            }
        return {
            "subject": self.subject,
            "design": self.design,
            "n_classes": self.n_classes,
            "kind": conclusion.kind,
            "flagged": conclusion.flagged,
            "conclusion": conclusion.sentence,
            "share": share,
            "share_reason": self.share_reason,
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
            facts["subject"],
            facts["design"],
            facts["n_classes"],
            _control(facts["headline"]),
            _control(facts["label_from_clock"]),
            [_control(c) for c in facts["controls"]],
            share,
            facts["share_reason"],
        )

    def _repr_html_(self) -> str:
        from html import escape

        return (
            f"<p><strong>Audit card, subject {self.subject}.</strong> "
            f"{escape(conclude(self).sentence)}</p>"
            + self.table().to_html(index=False, na_rep="", float_format="{:.3f}".format)
        )


def control_table(controls: Sequence[Control]) -> pandas.DataFrame:
    """One row per control: what was done, the figure with chance, interval and n, in words."""
    return pandas.DataFrame(
        [
            {
                "control": str(c.number or ""),
                "what": c.title,
                "value": c.estimate,
                "chance": c.chance,
                "low": c.low,
                "high": c.high,
                "n": c.n,
                "verdict": c.verdict,
            }
            for c in controls
        ]
    )


@one_thread
def run_audit(
    trials: AuditTrials,
    subject: int,
    decoder: Decoder = discriminant,
    controls: Sequence[str] = GROUPS[:-1],
    image_features: np.ndarray | None = None,
    teacher_logits: np.ndarray | None = None,
    others: dict[int, AuditTrials] | None = None,
    phantom: AuditTrials | None = None,
    reference: AuditTrials | None = None,
    student: StudentAnswers | None = None,
    seed: int = 0,
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
    student : StudentAnswers | None
        What the profile's network said about its test trials.
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
    found = [] if student is None else student_controls(trials, student, seed)
    if "comparisons" in controls:
        found += _comparisons(trials, subject, decoder, others, phantom, reference, seed)
    if "clock" in controls:
        found += _clock(trials, decoder, probabilities, seed)
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
    clock_only = clock.label_from_clock(trials, seed)
    return AuditCard(
        subject, design_of(trials), trials.n_classes, head, clock_only, found, share, reason
    )


def _clock(trials, decoder, probabilities, seed) -> list[Control]:
    return [
        clock.pseudo_class(trials),
        clock.temporal_distance(trials, decoder, seed),
        *clock.by_design(trials, decoder),
        clock.confusion_distance(trials, probabilities, seed),
    ]


def _comparisons(trials, subject, decoder, others, phantom, reference, seed) -> list[Control]:
    subjects = {subject: trials, **(others or {})}
    return [
        comparisons.across_subjects(subjects, subject, decoder),
        comparisons.phantom_blocks(trials, decoder, phantom, seed),
        comparisons.randomized_reference(
            trials if reference is None and design_of(trials) == RANDOMIZED else reference,
            decoder,
            seed,
        ),
        comparisons.permutation_within_blocks(trials, seed=seed),
    ]


def _pictures(trials, probabilities, image_features, teacher_logits, decoder, seed):
    predicted, phantom = probabilities.argmax(axis=1), None
    enough = len(trials.labels) >= 5 * trials.n_classes
    if image_features is not None and enough and design_of(trials) == RANDOMIZED:
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


def _control(facts: dict[str, Any]) -> Control:
    numbers = ("estimate", "chance", "low", "high", "p_value")
    return Control(**{k: math.nan if k in numbers and v is None else v for k, v in facts.items()})
