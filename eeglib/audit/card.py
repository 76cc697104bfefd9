"""The audit card: is an accuracy about pictures or about time (chapters 8, 9, ``eeglib audit``)?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

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
# Those that look for a clock; the step from a sign to a clock is taken for all together.
CLOCK_CONTROLS = ("pseudo_class", "temporal_distance", "confusion_distance", "claim_errors")
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
        """`control_table` of all that the data support, in the order of their numbers."""
        known = [c for c in self.controls if c.available]
        return control_table(sorted(known, key=lambda c: c.number))

    def verdicts(self) -> pandas.DataFrame:
        """What was seen, control by control, or why the data do not support it."""
        return verdict_table(sorted(self.controls, key=lambda c: c.number))

    def scores(self) -> pandas.DataFrame:
        """The available controls, as `eeglib.chapter.Chapter.finish` takes them."""
        known = pandas.DataFrame(c for c in self.controls if c.available).assign(method="audit")
        table = known.rename(columns={"name": "metric", "estimate": "value"})
        return table[["metric", "value", "chance", "low", "high", "n", "p_value", "method"]]

    def facts(self) -> dict[str, Any]:
        """Everything, for ``metrics.json``; `from_facts` reads it."""
        return asdict(self) | conclude(self)._asdict()

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """The card that `facts` described; what is not a number is null in a file."""
        read = [
            Control(**{name: value for name, value in values.items() if value is not None})
            for values in (facts["share"], *facts["controls"])
        ]
        return cls(facts["subject"], facts["design"], read[1:], read[0])


def control_table(controls: Sequence[Control]) -> pandas.DataFrame:
    """The figure of each control with chance, interval, n and p, as text."""
    rows = []
    for c in controls:
        null = np.isfinite(c.null_low)
        low, high = (c.null_low, c.null_high) if null else (c.low, c.high)
        row = {"control": _numbered(c), "value": f"{c.estimate:.3f}", "chance": f"{c.chance:.3f}"}
        interval = f"{low:.3f} to {high:.3f}".replace(" ", "\N{NO-BREAK SPACE}")
        row["95% interval"] = f"by chance {interval}" if null else interval
        rows.append(row | {"n": c.n, "p": format_p(c.p_value).replace(" ", "\N{NO-BREAK SPACE}")})
    return pandas.DataFrame(rows).set_index("control")


def verdict_table(controls: Sequence[Control]) -> pandas.DataFrame:
    """What was seen, control by control, and where it looks for a clock the step of `conclude`."""
    clocks, limit = _clocks(controls)
    rows = {_numbered(c): {"a clock?": "", "what was seen": c.verdict} for c in controls}
    for c in clocks:
        step = "a clock" if c.p_value < limit else "a sign" if c.p_value < SIGN else "no sign"
        rows[_numbered(c)]["a clock?"] = f"{step}, p {format_p(c.p_value)}"
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("control")


def _clocks(controls: Sequence[Control]) -> tuple[list[Control], float]:
    """Controls that could look for a clock, and the p-value below which it counts as seen."""
    clocks = [c for c in controls if c.name in CLOCK_CONTROLS and c.available]
    return clocks, ALPHA / max(1, len(clocks))


def _numbered(control: Control) -> str:
    return f"{control.number}: {control.title}" if control.number else control.title


def run_audit(
    trials: AuditTrials,
    subject: int,
    controls: Sequence[str] = GROUPS,
    image_features: np.ndarray | None = None,
    claim: tuple[np.ndarray, np.ndarray] | None = None,
    method: str = "audited method",
    seed: int = 0,
) -> AuditCard:
    """Run the controls that the data support.

    Controls that must train again (1 to 4, 6, 8 and 10) refit a discriminant analysis of the
    trials' features. Those that need predictions only (5, 7 and 9) are about the audited method,
    where it is given; 5 is about both.

    Parameters
    ----------
    controls : sequence of str
        Which of `GROUPS`.
    image_features : array, shape (n_trials, n_image_features) | None
        What each trial's image looks like, such as the teacher's features.
    claim : tuple of arrays, shapes (n_test,) and (n_test, n_classes) | None
        Test trials of the audited method, whose title is ``method``, and its probabilities.
    """
    _, probabilities = control.predict(trials, seed=seed)
    accuracy = control.accuracy(trials, probabilities)
    results = [accuracy, control.label_from_clock(trials, seed)]
    answers, rows = probabilities.argmax(axis=1), np.arange(len(trials.labels))
    if claim is not None:
        rows, answers = claim[0], claim[1].argmax(axis=1)
        claimed = [
            control.accuracy(trials, claim[1], rows, name="claim"),
            control.confusion_distance(trials, claim[1], seed, rows, name="claim_errors"),
        ]
        results += [replace(c, title=c.title.replace("audited method", method)) for c in claimed]
    if "comparisons" in controls:
        results += [control.across_subjects({subject: ()}, subject)]
        results += [control.phantom_blocks(trials, seed)]
        results += [control.permutation_within_blocks(trials, seed)]
    if "clock" in controls:
        results += [control.pseudo_class(trials), control.temporal_distance(trials, seed)]
        results += [control.leave_block_out(trials)]
        results += [control.confusion_distance(trials, probabilities, seed)]
    if "pictures" in controls:
        results += [control.image_identification(trials, image_features, seed)]
        results += [control.generation_controls(trials, image_features, answers, rows)]
    if "signals" in controls:
        results += [control.power_and_mean(trials, answers, rows, seed)]
        results += [control.time_windows(trials, seed)]
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
    clocks, limit = _clocks(card.controls)
    least = min(clocks, key=lambda c: c.p_value, default=Control())
    evidence = WORDS["evidence" if clocks else "no evidence"].format(
        n=len(clocks), p_value=format_p(least.p_value), title=least.title, sign=SIGN, limit=limit
    )
    follows = card.control("label_from_clock").p_value < ALPHA
    flagged = least.p_value < limit and follows
    own, claim = card.control("accuracy"), card.control("claim")
    score, decoded = WORDS["score"].format(own=own), own.p_value < SIGN
    if claim.available:
        score = WORDS["score"].format(own=claim) + WORDS["score of the refit"].format(own=own)
        decoded = min(own.p_value, claim.p_value) * 2 < SIGN  # Bonferroni
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
    room = WORDS["no share"].format(reason=card.share.reason)
    if card.share.available:
        bounds, sizes = ([f"{100 * r[k]:.0f}%" for r in card.share.rows] for k in ("bound", "jump"))
        words = {"sizes": " or ".join(sizes[1:]), "left": " or ".join(bounds[1:])}
        jumps = WORDS["jumps"].format(**words) if bounds[1:] else ""
        room = WORDS["share"].format(bound=bounds[0], jumps=jumps)
    sentence = WORDS["subject"][kind].format(score=score, evidence=evidence, room=room)
    if flagged and not decoded:
        sentence += f" A clock can be read all the same, by other means. {evidence}"
    return Conclusion(kind, flagged, sentence)


def read_cards(facts: Mapping[int, Mapping], files: Mapping[int, Path]) -> list[AuditCard]:
    """Cards that chapter 8 left in a run, with control 1 where there are several subjects.

    By subject: the fact ``audit`` of ``metrics.json``, and the file ``audit_trials.npz``.
    """
    cards, subjects = [], {}
    for subject, file in files.items():
        features, labels, position = np.load(file, allow_pickle=False).values()
        tied = "block" in facts[subject]["design"]  # a randomised order is nothing to agree on
        subjects[subject] = features, labels, position if tied else None
    for card in map(AuditCard.from_facts, facts.values()):
        across = control.across_subjects(subjects, card.subject)
        rest = [across if c.name == across.name else c for c in card.controls]
        cards.append(replace(card, controls=rest))
    return cards


def card_table(cards: Sequence[AuditCard]) -> pandas.DataFrame:
    """One row per subject: accuracy, what a clock does to it, what is left, the conclusion."""
    rows = []
    for card in cards:
        claim = card.control("claim")
        own = claim if claim.available else card.control("accuracy")
        row = {"accuracy": f"{own.estimate:.3f} (chance {own.chance:.3f}, n {own.n})"}
        found = {title: card.control(name) for title, name in WORDS["columns"].items()}
        row |= {t: f"{c.estimate:.3f}" if c.available else "none" for t, c in found.items()}
        bound = f"at most {card.share.high:.2f}" if card.share.available else "not known"
        row |= {"left for the stimulus": bound, "conclusion": conclude(card).kind}
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
    own = "claim" if "claim" in means.index else "accuracy"
    text = f"{people}; design: {designs}. Accuracy within subjects {mean(own)}, chance "
    text += f"{means.loc[own, 'chance']:.3f}"
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
        tables = [t.to_markdown(disable_numparse=True) for t in (card.table(), card.verdicts())]
        parts += [f"## Subject {card.subject}", conclude(card).sentence, *tables]
    return "\n\n".join(parts) + "\n"
