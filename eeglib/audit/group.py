"""The audit card of a data set: all subjects of a run (chapters 8 and 9, ``eeglib audit``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas

from eeglib.audit.card import AuditCard
from eeglib.audit.comparisons import across_all_subjects
from eeglib.audit.conclusion import conclude
from eeglib.audit.subject import CHAPTER, FILE, load_trials
from eeglib.chapter import METRICS, chapter_folder, load_metrics

NO_AUDIT = "No subject of this run was audited, so its accuracies cannot be read: run chapter 8."


def read_cards(run_dir: str | Path, subjects: Sequence[int]) -> list[AuditCard]:
    """Cards that chapter 8 left in a run; subjects for whom it did not finish are missing.

    Where there are several, each gets control 1: trained on the others, tested on this one.

    Parameters
    ----------
    run_dir : str | Path
    subjects : sequence of int
    """
    cards, trials = [], {}
    for subject in subjects:
        folder = chapter_folder(run_dir, CHAPTER, subject)
        if not (folder / METRICS).is_file():
            continue
        facts = load_metrics(folder).facts
        if "audit" in facts:
            cards.append(AuditCard.from_facts(facts["audit"]))
            trials[subject] = load_trials(folder / FILE)
    found = across_all_subjects(trials) if len(trials) > 1 else {}
    return [c.with_control(found[c.subject]) if c.subject in found else c for c in cards]


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
    rows = []
    for card in cards:
        row = {
            "subject": card.subject,
            "accuracy": card.headline.estimate,
            "chance": card.headline.chance,
            "n": card.headline.n,
        }
        for name, column in columns.items():
            known = [c for c in card.controls if c.name == name and c.available]
            row[column] = known[0].estimate if known else float("nan")
        share = card.share
        row["stimulus-driven share"] = (
            "not known" if share is None else f"{share.low:.2f} to {share.high:.2f}"
        )
        row["conclusion"] = conclude(card).kind
        rows.append(row)
    return pandas.DataFrame(rows).set_index("subject") if rows else pandas.DataFrame()


def summarize_cards(
    cards: Sequence[AuditCard], n_bootstrap: int = 2000, confidence: float = 0.95, seed: int = 0
) -> str:
    """The data set in a few sentences; the accuracy never stands without the clock.

    Parameters
    ----------
    cards : sequence of AuditCard
    n_bootstrap, confidence, seed
        Of the interval of the mean, by bootstrap over subjects.
    """
    if not cards:
        return NO_AUDIT
    designs = ", ".join(sorted({c.design for c in cards}))
    accuracies = [c.headline.estimate for c in cards]
    text = f"{_count(len(cards), 'subject')}; design: {designs}. Accuracy within subjects "
    text += _mean(accuracies, n_bootstrap, confidence, seed)
    text += f", chance {cards[0].headline.chance:.3f}"
    across = [
        c.estimate
        for card in cards
        for c in card.controls
        if c.name == "across_subjects" and c.available
    ]
    if across:
        text += "; trained on the other subjects " + _mean(across, n_bootstrap, confidence, seed)
    conclusions = [conclude(card) for card in cards]
    flagged = sum(c.flagged for c in conclusions)
    text += f". A clock that can pass for a class was seen in {flagged} of {len(cards)}. "
    kinds = [c.kind for c in conclusions]
    tally = ", ".join(f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    return f"{text}Conclusions: {tally}. {_warning(kinds)}"


def report(cards: Sequence[AuditCard]) -> str:
    """The audit card of a data set as plain text with tables in Markdown."""
    if not cards:
        return f"# Audit card\n\n{NO_AUDIT}\n"
    parts = ["# Audit card", summarize_cards(cards)]
    for card in cards:
        parts += [f"## Subject {card.subject}", conclude(card).sentence, _markdown(card.table())]
    return "\n\n".join(parts) + "\n"


def _warning(kinds: Sequence[str]) -> str:
    if any("confounded" in kind for kind in kinds):
        return (
            "Class and time go together in this design: the accuracy alone is no evidence that "
            "anything seen was decoded."
        )
    if "unknown" in kinds:
        return "Without the order of presentation nobody can tell how much of it is a clock."
    if all(kind == "nothing decoded" for kind in kinds):
        return "Nothing was decoded."
    return "In this design the time does not tell the class."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _mean(values: Sequence[float], n_bootstrap: int, confidence: float, seed: int) -> str:
    values = np.asarray(values)
    if len(values) < 2:
        return f"{values.mean():.3f}"
    rng = np.random.default_rng(seed)
    draws = values[rng.integers(0, len(values), (n_bootstrap, len(values)))].mean(axis=1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _markdown(table: pandas.DataFrame) -> str:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.3f}"
        return str(value).replace("|", "/")

    lines = [list(table.columns), ["---"] * table.shape[1]]
    lines += [[cell(v) for v in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
