"""The audit card: one page on whether an accuracy is about pictures or about time (chapter 8).

`run_audit` makes the card of a subject, `conclude` puts it into a sentence; `read_cards`,
`card_table` and `report` are for the subjects of a data set together (chapter 9, ``eeglib audit``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from eeglib.audit import controls as control
from eeglib.audit.controls import Control
from eeglib.audit.decoders import Decoder, discriminant, one_thread
from eeglib.audit.features import (
    RANDOMIZED,
    UNKNOWN,
    AuditError,
    AuditTrials,
    load_trials,
    phantom_trials,
)
from eeglib.audit.share import ASSUMPTION, Share, stimulus_share
from eeglib.evaluation import summarize_methods

GROUPS = ("clock", "signals", "pictures", "comparisons", "share")
CLOCK_CONTROLS = ("pseudo_class", "temporal_distance", "confusion_distance", "student_confusion")
"""Those that look for a clock; the step from a sign to a clock is taken for all together."""
ALPHA, SIGN = 0.01, 0.05

NOTHING, OPEN, INDEPENDENT = "nothing decoded", "unknown", "independent of time"
CONFOUNDED = {
    "a clock": "confounded",
    "a sign of a clock": "possibly confounded",
    "no sign of a clock": "confounded by design",
}
NO_AUDIT = "No subject of this run was audited, so its accuracies cannot be read: run chapter 8."


@dataclass(frozen=True)
class AuditCard:
    """All that was found about one subject; ``share_reason`` says why there is no share."""

    subject: int
    design: str
    n_classes: int
    accuracy: Control
    label_from_clock: Control
    controls: list[Control] = field(default_factory=list)
    share: Share | None = None
    share_reason: str = ""

    def control(self, name: str) -> Control | None:
        """The control of that name, if the data support it."""
        return next((c for c in self.controls if c.name == name and c.available), None)

    def with_control(self, new: Control) -> AuditCard:
        """The card with a control added, in the place of one of the same name."""
        return replace(self, controls=[*(c for c in self.controls if c.name != new.name), new])

    def table(self) -> pandas.DataFrame:
        """One row per control: what was done, the figure with chance, interval and n, in words."""
        ordered = sorted(self.controls, key=lambda c: c.number)
        return control_table([self.accuracy, self.label_from_clock, *ordered])

    def scores(self) -> pandas.DataFrame:
        """The available controls, as `eeglib.chapter.Chapter.finish` takes them."""
        columns = ["name", "estimate", "chance", "low", "high", "n", "p_value"]
        every = [self.accuracy, self.label_from_clock, *self.controls]
        table = pandas.DataFrame([asdict(c) for c in every if c.available])[columns]
        table = table.rename(columns={"name": "metric", "estimate": "value"})
        return table.assign(method="audit")

    def facts(self) -> dict[str, Any]:
        """Everything, for ``metrics.json``; `from_facts` reads it."""
        return asdict(self) | asdict(conclude(self))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> AuditCard:
        """The card that `facts` described."""

        def read(values: dict) -> Control:
            numbers = ("estimate", "chance", "low", "high", "p_value")
            return Control(**values | {k: math.nan for k in numbers if values[k] is None})

        return cls(
            facts["subject"],
            facts["design"],
            facts["n_classes"],
            read(facts["accuracy"]),
            read(facts["label_from_clock"]),
            [read(values) for values in facts["controls"]],
            facts["share"] and Share(**facts["share"]),
            facts["share_reason"],
        )

    def _repr_html_(self) -> str:
        table = self.table().to_html(index=False, na_rep="", float_format="{:.3f}".format)
        return f"<p>Subject {self.subject}. {escape(conclude(self).sentence)}</p>{table}"


def control_table(controls: Sequence[Control]) -> pandas.DataFrame:
    """One row per control: what was done, the figure with chance, interval and n, in words."""
    columns = ["number", "title", "estimate", "chance", "low", "high", "n", "p_value", "verdict"]
    table = pandas.DataFrame([asdict(c) for c in controls])[columns]
    table["number"] = [str(c.number or "") for c in controls]
    table["p_value"] = ["" if math.isnan(p) else f"{p:.3f}" for p in table["p_value"]]
    table["p_value"] = table["p_value"].replace("0.000", "<0.001")
    names = {"number": "control", "title": "what", "estimate": "value", "p_value": "p"}
    return table.rename(columns=names)


@one_thread
def run_audit(
    trials: AuditTrials,
    subject: int,
    controls: Sequence[str] = GROUPS,
    decoder: Decoder = discriminant,
    image_features: np.ndarray | None = None,
    network: tuple[np.ndarray, np.ndarray] | None = None,
    reference: AuditTrials | None = None,
    seed: int = 0,
) -> AuditCard:
    """Run the controls that the data support.

    Parameters
    ----------
    trials : AuditTrials
        One subject's.
    subject : int
    controls : sequence of str
        Which of `GROUPS`.
    decoder : Decoder
        The classifier under audit, for ``trials.features``.
    image_features : array, shape (n_trials, n_image_features) | None
        What each trial's image looks like, such as the teacher's features.
    network : tuple of arrays, shapes (n_test,) and (n_test, n_classes) | None
        Rows of the test trials of the network of chapter 5, and its probabilities.
    reference : AuditTrials | None
        A randomised recording.
    seed : int

    Raises
    ------
    AuditError
        If the trials are too few for the accuracy.
    """
    _, probabilities = control.predict(trials, decoder=decoder, seed=seed)
    accuracy = control.accuracy(trials, probabilities)
    found = []
    if network is not None:
        rows, answers = network
        right = control.accuracy(trials, answers, rows)
        errors = control.confusion_distance(trials, answers, seed, rows)
        title = "correlation of the network's confusion with distance in time"
        found += [
            replace(right, name="student", title="accuracy of the network of chapter 5"),
            replace(errors, name="student_confusion", title=title),
        ]
    if "comparisons" in controls:
        randomized, phantom = reference, None
        if trials.design == RANDOMIZED:
            randomized = reference or trials
        elif reference is not None:
            phantom = phantom_trials(reference, trials.n_classes)
        found += [
            control.across_subjects({subject: trials}, subject),
            control.phantom_blocks(trials, decoder, phantom, seed),
            control.randomized_reference(randomized, decoder, seed),
            control.permutation_within_blocks(trials, decoder, seed=seed),
        ]
    if "clock" in controls:
        found += [
            control.pseudo_class(trials),
            control.temporal_distance(trials, decoder, seed),
            control.leave_block_out(trials, decoder),
            control.leave_session_out(trials, decoder),
            control.confusion_distance(trials, probabilities, seed),
        ]
    if "pictures" in controls:
        predicted = probabilities.argmax(axis=1)
        found += [
            control.image_identification(trials, image_features, seed),
            control.generation_controls(trials, image_features, predicted),
        ]
    if "signals" in controls:
        found += [control.power_and_mean(trials, seed), control.time_windows(trials, seed)]
    share, reason = None, "the share was not asked for."
    if "share" in controls:
        try:
            if accuracy.p_value >= SIGN:
                raise AuditError("the accuracy is at chance: there is nothing to share out.")
            share, reason = stimulus_share(trials, seed=seed), ""
        except AuditError as error:
            reason = str(error)
    clock = control.label_from_clock(trials, seed)
    return AuditCard(
        subject, trials.design, trials.n_classes, accuracy, clock, found, share, reason
    )


# --- what may be said -----------------------------------------------------------------------


@dataclass(frozen=True)
class Conclusion:
    """What may be said.

    ``kind`` is ``nothing decoded``; ``confounded``, ``possibly confounded``, ``confounded by
    design`` (a clock was seen, a sign of one, none, in a design that leaves room for one);
    ``unknown`` (no order); ``independent of time``. ``flagged``: a clock was seen, and class and
    time go together.
    """

    kind: str
    flagged: bool
    sentence: str


def conclude(card: AuditCard) -> Conclusion:
    """Put what was found into a plain sentence; no single control decides.

    Notes
    -----
    Controls 3, 4 and 5 look for a clock. A p-value below `SIGN` is a sign, as their own verdicts
    have it; a clock counts as seen where the smallest, times their number (Bonferroni), is below
    `ALPHA`. Only a design in which the time does not tell the class is called independent of it.
    """
    step, evidence = _clock(card)
    follows = card.label_from_clock.p_value < ALPHA
    flagged = step == "a clock" and follows
    score, decoded = _score(card)
    if not decoded:
        kind = NOTHING
        text = f"{score}: not distinguishable from chance. There is nothing to claim."
        if flagged:
            text += f" A clock can be read all the same, by other means. {evidence}"
    elif card.design == UNKNOWN:
        kind = OPEN
        text = (
            f"{score}. The order of presentation is not known, so that nobody can say how much of "
            "it is the time of the recording."
        )
    elif not follows:
        kind = INDEPENDENT
        text = (
            f"{score}. The time says nothing about the class. {evidence} What is decoded follows "
            "the classes; whether it is what was seen, or an eye movement or a task that goes with "
            "it, is another question."
        )
    else:
        kind = CONFOUNDED[step]
        end = {
            "a clock": "The accuracy is no measure of what was seen.",
            "a sign of a clock": "Only classes in random order can tell.",
            "no sign of a clock": "A clock slower than the blocks would go unnoticed; only classes "
            "in random order can tell.",
        }[step]
        text = (
            f"{score}, but class and time go together in this design, and {step} was seen. "
            f"{evidence} {_room(card)} {end}"
        )
    return Conclusion(kind, flagged, text)


def _score(card: AuditCard) -> tuple[str, bool]:
    """The accuracies in words, and whether one of them is above chance (Bonferroni)."""
    own, network = card.accuracy, card.control("student")
    text = f"The accuracy is {own.estimate:.3f} (chance {own.chance:.3f}, n = {own.n})"
    p_values = [own.p_value]
    if network is not None:
        text += f"; that of the network of chapter 5 is {network.estimate:.3f} (n = {network.n})"
        p_values.append(network.p_value)
    return text, min(p_values) * len(p_values) < SIGN


def _clock(card: AuditCard) -> tuple[str, str]:
    """How sure a clock is, and by which p-value."""
    found = [c for c in map(card.control, CLOCK_CONTROLS) if c is not None]
    if not found:
        return "no sign of a clock", "No control that looks for a clock could be run."
    least = min(found, key=lambda c: c.p_value)
    limit = ALPHA / len(found)
    step = "a clock" if least.p_value < limit else "a sign of a clock"
    step = step if least.p_value < SIGN else "no sign of a clock"
    return step, (
        f"The smallest p-value of the {len(found)} controls that look for one is "
        f"{least.p_value:.2g} ({least.title}); below {SIGN:g} it is a sign, below {limit:.2g} "
        "a clock."
    )


def _room(card: AuditCard) -> str:
    """What the share leaves to the stimulus, in words."""
    if card.share is None:
        return f"How much is driven by the stimulus cannot be estimated: {card.share_reason}"
    low, high = card.share.low, card.share.high
    return (
        f"Between {100 * low:.0f}% and {100 * high:.0f}% of what separates the classes is left "
        f"for the stimulus (95% interval); this assumes that {ASSUMPTION}"
    )


# --- all subjects ---------------------------------------------------------------------------


def read_cards(
    facts: Mapping[int, Mapping[str, Any]], files: Mapping[int, Path]
) -> list[AuditCard]:
    """Cards that chapter 8 left in a run, with control 1 where there are several subjects.

    By subject: the fact ``audit`` of ``metrics.json``, and the file that `save_trials` wrote.
    """
    cards = [AuditCard.from_facts(own) for own in facts.values()]
    trials = {subject: load_trials(files[subject]) for subject in facts}
    return [card.with_control(control.across_subjects(trials, card.subject)) for card in cards]


def card_table(cards: Sequence[AuditCard]) -> pandas.DataFrame:
    """One row per subject: accuracy, what a clock does to it, what is left, the conclusion."""
    columns = {
        "across_subjects": "trained on others",
        "student": "network",
        "power_and_mean": "power only",
        "phantom_blocks": "real minus phantom",
        "pseudo_class": "half of a block",
        "temporal_distance": "lost with a gap in time",
        "confusion_distance": "errors and time (rho)",
        "image_identification": "image within class",
    }
    if not cards:
        return pandas.DataFrame()
    scores = pandas.concat([card.scores().assign(subject=card.subject) for card in cards])
    own = scores[scores["metric"] == "accuracy"].set_index("subject")
    table = own[["value", "chance", "n"]].rename(columns={"value": "accuracy"})
    values = scores.pivot(index="subject", columns="metric", values="value")
    table = table.join(values.reindex(columns=list(columns)).rename(columns=columns))
    shares = [card.share for card in cards]
    table["stimulus-driven share"] = [
        "not known" if share is None else f"{share.low:.2f} to {share.high:.2f}" for share in shares
    ]
    return table.assign(conclusion=[conclude(card).kind for card in cards])


def summarize_cards(cards: Sequence[AuditCard], **bootstrap: Any) -> str:
    """The data set in a few sentences; the accuracy never stands without the clock.

    ``bootstrap`` goes to `eeglib.evaluation.summarize_methods`.
    """
    if not cards:
        return NO_AUDIT
    scores = pandas.concat([c.scores().assign(subject=c.subject) for c in cards])
    means = summarize_methods(scores, **bootstrap).set_index("metric")

    def mean(name: str) -> str:
        value, low, high = means.loc[name, ["value", "low", "high"]]
        return f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")

    people = "1 subject" if len(cards) == 1 else f"{len(cards)} subjects"
    designs = ", ".join(sorted({card.design for card in cards}))
    text = f"{people}; design: {designs}. Accuracy within subjects {mean('accuracy')}, chance "
    text += f"{means.loc['accuracy', 'chance']:.3f}"
    if "across_subjects" in means.index:
        text += f"; trained on the other subjects {mean('across_subjects')}"
    conclusions = [conclude(card) for card in cards]
    kinds, flagged = [c.kind for c in conclusions], sum(c.flagged for c in conclusions)
    tally = ", ".join(f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    text += f". A clock that can pass for a class was seen in {flagged} of {len(cards)}. "
    text += f"Conclusions: {tally}. "
    if set(kinds) & set(CONFOUNDED.values()):
        return text + (
            "Class and time go together in this design: the accuracy alone is no evidence that "
            "anything seen was decoded."
        )
    if OPEN in kinds:
        return text + "Without the order of presentation nobody can tell what a clock did."
    if set(kinds) == {NOTHING}:
        return text + "Nothing was decoded."
    return text + "In this design the time does not tell the class."


def report(cards: Sequence[AuditCard]) -> str:
    """The audit card of a data set as plain text with tables in Markdown."""
    parts = ["# Audit card", summarize_cards(cards)]
    for card in cards:
        table = card.table().to_markdown(index=False, floatfmt=".3f", missingval="")
        parts += [f"## Subject {card.subject}", conclude(card).sentence, table]
    return "\n\n".join(parts) + "\n"
