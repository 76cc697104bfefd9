"""Is the audit right where the truth is known? ``python -m benchmarks audit``.

Simulates small recordings, in block and in random order, with and without stimulus and drift, over
many seeds, and counts what the audit says of them; then lowers the drift until no control sees it.
Every recording's row is kept in ``--folder``, so that a run that was interrupted goes on.

``--real FOLDER`` instead cuts EEG of a person who saw no pictures (EEGMMIDB, in the layout of
``mne.datasets.eegbci``) into invented blocks, and counts which controls see the clock.

With ``--write`` the tables go into the package, where chapter 8 reads them.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas

import eeglib
from eeglib.audit import features, simulations
from eeglib.audit.card import AuditCard, conclude, run_audit
from eeglib.audit.simulations import BAND
from eeglib.datasets import open_dataset
from eeglib.preprocessing import preprocess
from eeglib.profile import DatasetSettings

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Of the drift, in the sensitivity curve."""

SEEN_BY = {
    "accuracy": "accuracy above chance",
    "pseudo_class": "3: halves of a block",
    "temporal_distance": "4: gap in time",
    "confusion_distance": "5: errors and time",
    "power_and_mean": "7: power only",
    "time_windows": "8: first 50 ms",
    "flagged": "audit: a clock",
}

CUTS = ((25.0, 40), (12.5, 40), (40.0, 30))
"""Length of blocks (s), and how many are invented; ten in a row are audited at a time."""


def main(arguments: list[str]) -> int:
    """Simulate, audit, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks audit", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/audit_benchmark"))
    parser.add_argument("--real", type=Path, help="folder of EEGMMIDB")
    parser.add_argument("--subject", type=int, default=1, help="of EEGMMIDB")
    parser.add_argument("--write", action="store_true", help="put the tables into the package")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    if options.real:
        tables, command = {"real": _real_table(options.real, options.subject)}, "--real FOLDER"
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        rows = [_kept(options.folder, *job) for job in _jobs(options.seeds)]
        table = pandas.DataFrame([row for several in rows for row in several])
        made = {"block": _block_table, "randomized": _randomized_table}
        made["sensitivity"] = _sensitivity_table
        tables = {name: make(table[table["part"] == name]) for name, make in made.items()}
        command = f"--seeds {options.seeds}"
    for name, shown in tables.items():
        print(f"\n{name}\n{shown.to_string(index=False, float_format='{:.3f}'.format)}")
    if options.write:
        source = f"python -m benchmarks audit {command} --write"
        source += f", {datetime.now(UTC):%d %B %Y}, eeglib {eeglib.__version__}"
        content = json.loads(simulations.BENCHMARK.read_text(encoding="utf-8"))
        content |= {n: {"source": source, "rows": t.to_dict("records")} for n, t in tables.items()}
        simulations.BENCHMARK.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"audit {command} seconds={time.perf_counter() - started:.0f}")
    return 0


def _jobs(n_seeds: int) -> list[tuple[str, float, int]]:
    jobs = [(part, 1.0, seed) for seed in range(n_seeds) for part in ("block", "randomized")]
    return jobs + [("sensitivity", s, seed) for s in STRENGTHS for seed in range(n_seeds)]


def _kept(folder: Path, part: str, strength: float, seed: int) -> list[dict]:
    """Rows of one job, from the folder if it was done before."""
    file = folder / f"{part}-{strength:g}-{seed}.json"
    if not file.is_file():
        started = time.perf_counter()
        rows = {"block": _block, "randomized": _random, "sensitivity": _drift}[part](strength, seed)
        rows = [{"part": part, "strength": strength, "seed": seed, **row} for row in rows]
        file.write_text(json.dumps(rows), encoding="utf-8")
        print(f"{file.stem}: {time.perf_counter() - started:.1f} s", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def _block(_: float, seed: int) -> list[dict]:
    """The four simulations of one seed in block design."""
    rows = []
    for cause, strengths in simulations.CAUSES.items():
        trials, _ = simulations.simulate_trials(*strengths, seed=seed)
        card = run_audit(trials, 1, controls=("clock", "share"), seed=seed)
        found = conclude(card)
        rows.append(
            {
                "cause": cause,
                "accuracy": card.control("accuracy").estimate,
                "kind": found.kind,
                "flagged": found.flagged,
                "decoded": card.control("accuracy").p_value < 0.05,
                "bound": card.share.high,
            }
        )
    return rows


def _random(_: float, seed: int) -> list[dict]:
    """The simulations with drift of one seed in random order."""
    rows = []
    for cause in ("drift only", "both"):
        strengths = simulations.CAUSES[cause]
        trials, _ = simulations.simulate_trials(*strengths, "randomized", seed=seed)
        card = run_audit(trials, 1, controls=("clock", "comparisons"), seed=seed)
        gap, phantom = card.control("temporal_distance"), card.control("phantom_blocks")
        near, far = (r["accuracy"] for r in gap.rows if r["split"] in ("random", "gap 4"))
        rows.append(
            {
                "cause": cause,
                "kind": conclude(card).kind,
                "flagged": conclude(card).flagged,
                "decoded": card.control("accuracy").p_value < 0.05,
                "random": near,
                "apart": far,
                "agree": gap.low <= 0 <= gap.high,
                "phantom": phantom.rows[1]["accuracy"],
            }
        )
    return rows


def _drift(strength: float, seed: int) -> list[dict]:
    """Which controls see a drift of a strength, in block design and without stimulus."""
    trials, _ = simulations.simulate_trials(0.0, strength, seed=seed)
    card = run_audit(trials, 1, controls=("clock", "signals"), seed=seed)
    return [{"value": card.control("accuracy").estimate, **_seen(card)}]


def _seen(card: AuditCard, p_value: float = 0.05) -> dict[str, bool]:
    seen = {n: bool(card.control(n).p_value < p_value) for n in SEEN_BY if n != "flagged"}
    return seen | {"flagged": conclude(card).flagged}


def _real_table(folder: Path, subject: int) -> pandas.DataFrame:
    """In how many cuts of a real recording each control sees the clock, and the bounds."""
    cards = []
    for seconds, n_classes in CUTS:
        settings = DatasetSettings(
            name="eegmmidb",
            subjects=(subject,),
            root=folder,
            options={"n_classes": n_classes, "block_seconds": seconds},
        )
        dataset = open_dataset(settings, folder)
        epochs = preprocess(dataset, subject, notch=(59.0, 61.0), band=BAND).epochs
        data = epochs.get_data(copy=False)
        metadata = features.with_time(epochs.metadata, dataset.trials(subject))
        for first in range(0, n_classes, 10):
            rows = metadata["block"].between(first, first + 9).to_numpy()
            part = metadata[rows]
            part = part.assign(label=np.unique(part["label"], return_inverse=True)[1])
            trials = features.audit_trials(data[rows], epochs.info["sfreq"], part, band=BAND)
            cards.append(run_audit(trials, subject, controls=("clock", "signals", "share")))
            print(f"\n{len(cards)}: {seconds:g} s, blocks {first} to {first + 9}")
            print(f"{cards[-1].table().to_string()}\n{conclude(cards[-1]).sentence}", flush=True)
    counted = {}
    for title, p_value in (("p < 0.05", 0.05), ("p < 0.01", 0.01)):
        counted[title] = pandas.DataFrame([_seen(card, p_value) for card in cards]).sum()
    counts = pandas.DataFrame(counted).rename(SEEN_BY).rename_axis("control").reset_index()
    accuracies = [card.control("accuracy").estimate for card in cards]
    print(f"accuracy {min(accuracies):.3f} to {max(accuracies):.3f}")
    print("bounds", *(f"{card.share.high:.2f}" for card in cards))
    return counts.assign(cuts=len(cards))


def _block_table(rows: pandas.DataFrame) -> pandas.DataFrame:
    table = []
    for cause in simulations.CAUSES:
        own = rows[rows["cause"] == cause]
        row = {
            "cause": cause,
            "seeds": len(own),
            "accuracy": own["accuracy"].mean(),
            "above chance": int(own["decoded"].sum()),
            "a clock": int(own["flagged"].sum()),
        }
        truth = {"drift only": 0.0, "stimulus only": 1.0}.get(cause)
        if own["bound"].notna().any():
            row |= {"true share": truth, "bound": own["bound"].mean()}
        if truth is not None:
            row["truth within bound"] = f"{int((own['bound'] >= truth).sum())} of {len(own)}"
        table.append(row)
    return pandas.DataFrame(table).astype(object).where(lambda t: t.notna(), None)


def _randomized_table(rows: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.DataFrame(
        [
            {
                "cause": cause,
                "seeds": len(own),
                "random split": own["random"].mean(),
                "neighbours left out": own["apart"].mean(),
                "difference within noise": int(own["agree"].sum()),
                "above chance": int(own["decoded"].sum()),
                "a clock": int(own["flagged"].sum()),
                "invented blocks": own["phantom"].mean(),
            }
            for cause, own in rows.groupby("cause", sort=False)
        ]
    )


def _sensitivity_table(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Share of seeds in which each control sees the drift (p < 0.05)."""
    table = rows.groupby("strength")[["value", *SEEN_BY]].mean().reset_index()
    names = {"strength": "drift strength", "value": "accuracy"}
    return table.astype(float).rename(columns={**SEEN_BY, **names})


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
