"""The audit card: is an accuracy about pictures or about time (chapters 8, 9, ``eeglib audit``)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas
import yaml

from eeglib.audit import controls as control
from eeglib.audit.controls import SIGN, Control
from eeglib.audit.features import AuditTrials
from eeglib.audit.share import stimulus_share
from eeglib.evaluation import describe_group, format_p, format_score, summarize_methods

WORDS = yaml.safe_load(Path(__file__).with_name("card.yml").read_text(encoding="utf-8"))
GROUPS = ("clock", "signals", "pictures", "comparisons", "share")
CLOCK_CONTROLS = ("pseudo_class", "temporal_distance", "confusion_distance", "student_confusion")
"""Those that look for a clock; the step from a sign to a clock is taken for all together."""
ALPHA = 0.01


@dataclass(frozen=True)
class AuditCard:
    """All that was found about one subject: the accuracy, the controls, and the share."""

    subject: int
    design: str
    controls: list[Control]
    share: Control

    def control(self, name: str) -> Control:
        """The control of that name; one without figures if it was not run."""
        none = Control(reason=f"{name} was not run.", name=name)
        return next((c for c in self.controls if c.name == name), none)

    def table(self) -> pandas.DataFrame:
        """One row per control: what was done, the figure with chance, interval and n, in words."""
        return control_table(sorted(self.controls, key=lambda c: c.number))

    def scores(self) -> pandas.DataFrame:
        """The available controls, as `eeglib.chapter.Chapter.finish` takes them."""
        names = {"name": "metric", "estimate": "value"}
        columns = ["metric", "value", "chance", "low", "high", "n", "p_value"]
        table = pandas.DataFrame([c for c in self.controls if c.available]).rename(columns=names)
        return table[columns].assign(method="audit")

    def facts(self) -> dict[str, Any]:
        """Everything, for ``metrics.json``; `from_facts` reads it."""
        return asdict(self) | conclude(self)._asdict()

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> AuditCard:
        """The card that `facts` described; what is not a number is null in a file."""
        read = [
            Control(**{name: value for name, value in values.items() if value is not None})
            for values in (facts["share"], *facts["controls"])
        ]
        return cls(facts["subject"], facts["design"], read[1:], read[0])


def control_table(controls: Sequence[Control]) -> pandas.DataFrame:
    """One row per control: what was done, the figure with chance, interval and n, in words."""
    columns = ["number", "title", "estimate", "chance", "low", "high", "n", "p_value", "verdict"]
    table = pandas.DataFrame(controls)[columns]
    table["number"] = [str(c.number or "") for c in controls]
    table["p_value"] = [format_p(c.p_value) for c in controls]
    names = {"number": "control", "title": "what", "estimate": "value", "p_value": "p"}
    return table.rename(columns=names)


def run_audit(
    trials: AuditTrials,
    subject: int,
    controls: Sequence[str] = GROUPS,
    image_features: np.ndarray | None = None,
    network: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> AuditCard:
    """Run the controls that the data support.

    Parameters
    ----------
    trials : AuditTrials
        One subject's.
    subject, seed : int
    controls : sequence of str
        Which of `GROUPS`.
    image_features : array, shape (n_trials, n_image_features) | None
        What each trial's image looks like, such as the teacher's features.
    network : tuple of arrays, shapes (n_test,) and (n_test, n_classes) | None
        Rows of the test trials of the network of chapter 5, and its probabilities.
    """
    _, probabilities = control.predict(trials, seed=seed)
    accuracy = control.accuracy(trials, probabilities)
    results = [accuracy, control.label_from_clock(trials, seed)]
    if network is not None:
        rows, answers = network
        results += [
            control.accuracy(trials, answers, rows, name="student"),
            control.confusion_distance(trials, answers, seed, rows, name="student_confusion"),
        ]
    if "comparisons" in controls:
        results += [
            control.across_subjects({subject: (trials.features, trials.labels)}, subject),
            control.phantom_blocks(trials, seed),
            control.permutation_within_blocks(trials, seed=seed),
        ]
    if "clock" in controls:
        results += [
            control.pseudo_class(trials),
            control.temporal_distance(trials, seed),
            control.leave_block_out(trials),
            control.confusion_distance(trials, probabilities, seed),
        ]
    if "pictures" in controls:
        results += [
            control.image_identification(trials, image_features, seed),
            control.generation_controls(trials, image_features, probabilities.argmax(axis=1)),
        ]
    if "signals" in controls:
        results += [control.power_and_mean(trials, seed), control.time_windows(trials, seed)]
    if "share" not in controls:
        share = Control(reason="the share was not asked for.")
    elif accuracy.p_value >= SIGN:
        share = Control(reason="the accuracy is at chance: there is nothing to share out.")
    else:
        share = stimulus_share(trials, seed=seed)
    return AuditCard(subject, trials.design, results, share)


class Conclusion(NamedTuple):
    """What may be said, as `conclude` puts it."""

    kind: str
    flagged: bool
    sentence: str


def conclude(card: AuditCard) -> Conclusion:
    """Put what was found into a plain sentence; no single control decides.

    The kind is ``nothing decoded``; ``confounded``, ``possibly confounded``, ``confounded by
    design`` (a clock was seen, a sign of one, none, in a design that leaves room for one);
    ``unknown`` (no order); ``independent of time``. Flagged: a clock was seen, and class and time
    go together.

    Controls 3, 4 and 5 look for a clock. A p-value below `SIGN` is a sign, as their own verdicts
    have it; a clock counts as seen where the smallest, times their number (Bonferroni), is below
    `ALPHA`. Only a design in which the time does not tell the class is called independent of it.
    """
    clocks = [c for c in map(card.control, CLOCK_CONTROLS) if c.available]
    least = min(clocks, key=lambda c: c.p_value, default=Control())
    limit = ALPHA / max(1, len(clocks))
    evidence = WORDS["evidence" if clocks else "no evidence"].format(
        n=len(clocks), p_value=format_p(least.p_value), title=least.title, sign=SIGN, limit=limit
    )
    follows = card.control("label_from_clock").p_value < ALPHA
    flagged = least.p_value < limit and follows
    own, network = card.control("accuracy"), card.control("student")
    score, decoded = WORDS["score"].format(own=own), own.p_value < SIGN
    if network.available:
        score += WORDS["score of the network"].format(network=network)
        decoded = min(own.p_value, network.p_value) * 2 < SIGN  # Bonferroni
    if not decoded:
        kind = "nothing decoded"
    elif card.design == "unknown":
        kind = "unknown"
    elif not follows:
        kind = "independent of time"
    elif flagged:
        kind = "confounded"
    else:
        kind = "possibly confounded" if least.p_value < SIGN else "confounded by design"
    share = card.share
    room = WORDS["share" if share.available else "no share"].format(
        low=100 * share.low, high=100 * share.high, reason=share.reason
    )
    sentence = WORDS["subject"][kind].format(score=score, evidence=evidence, room=room)
    if flagged and not decoded:
        sentence += f" A clock can be read all the same, by other means. {evidence}"
    return Conclusion(kind, flagged, sentence)


def read_cards(facts: Mapping[int, Mapping], files: Mapping[int, Path]) -> list[AuditCard]:
    """Cards that chapter 8 left in a run, with control 1 where there are several subjects.

    By subject: the fact ``audit`` of ``metrics.json``, and the file with its features and labels.
    """
    arrays, cards = {s: np.load(file, allow_pickle=False) for s, file in files.items()}, []
    subjects = {s: (of_file["features"], of_file["labels"]) for s, of_file in arrays.items()}
    for card in map(AuditCard.from_facts, facts.values()):
        across = control.across_subjects(subjects, card.subject)
        rest = [across if c.name == across.name else c for c in card.controls]
        cards.append(replace(card, controls=rest))
    return cards


def card_table(cards: Sequence[AuditCard]) -> pandas.DataFrame:
    """One row per subject: accuracy, what a clock does to it, what is left, the conclusion."""
    rows = []
    for card in cards:
        own, share = card.control("accuracy"), card.share
        row = {"accuracy": own.estimate, "chance": own.chance, "n": own.n}
        row |= {title: card.control(name).estimate for name, title in WORDS["columns"].items()}
        interval = f"{share.low:.2f} to {share.high:.2f}" if share.available else "not known"
        row |= {"stimulus-driven share": interval, "conclusion": conclude(card).kind}
        rows.append({"subject": card.subject} | row)
    return pandas.DataFrame(rows).set_index("subject")


def summarize_cards(cards: Sequence[AuditCard], confidence: float = 0.95) -> str:
    """The data set in a few sentences; the accuracy never stands without the clock."""
    if not cards:
        return WORDS["no audit"]
    scores = pandas.concat([c.scores().assign(subject=c.subject) for c in cards])
    means = summarize_methods(scores, confidence).set_index("metric")

    def mean(name: str) -> str:
        return format_score(*means.loc[name, ["value", "low", "high"]])

    people = describe_group(len(cards)) or f"{len(cards)} subjects"
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
    return text + next(words for kind, words in WORDS["group"].items() if kind in kinds)


def report(cards: Sequence[AuditCard]) -> str:
    """The audit card of a data set as plain text with tables in Markdown."""
    parts = ["# Audit card", summarize_cards(cards)]
    for card in cards:
        table = card.table().to_markdown(index=False, floatfmt=".3f", missingval="")
        parts += [f"## Subject {card.subject}", conclude(card).sentence, table]
    return "\n\n".join(parts) + "\n"
