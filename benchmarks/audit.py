"""Is the audit right where the truth is known? ``python -m benchmarks audit``.

Simulates small recordings, in block and in random order, with and without stimulus and drift, over
many seeds, and counts what the audit says of them; then lowers the drift until no control sees it.
Every recording's row is kept in ``--folder``, so that a run that was interrupted goes on. With
``--write`` the tables go into the package, where chapter 8 reads them.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas

import eeglib
from eeglib.audit import controls, simulations
from eeglib.audit.card import conclude, run_audit

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Of the drift, in the sensitivity curve."""

SEEN_BY = {
    "accuracy": "accuracy above chance",
    "power_and_mean": "7: power only above chance",
    "pseudo_class": "3: halves of a block",
    "temporal_distance": "4: gap in time",
    "confusion_distance": "5: errors and time",
    "time_windows": "8: first 50 ms",
    "flagged": "audit: flagged",
}


def main(arguments: list[str]) -> int:
    """Simulate, audit, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks audit", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/audit_benchmark"))
    parser.add_argument("--write", action="store_true", help="put the tables into the package")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    rows = [_kept(options.folder, *job) for job in _jobs(options.seeds)]
    table = pandas.DataFrame([row for several in rows for row in several])
    tables = {
        "block": _block_table(table[table["part"] == "block"]),
        "randomized": _randomized_table(table[table["part"] == "randomized"]),
        "sensitivity": _sensitivity_table(table[table["part"] == "sensitivity"]),
    }
    for name, shown in tables.items():
        print(f"\n{name}\n{shown.to_string(index=False, float_format='{:.3f}'.format)}")
    source = (
        f"python -m benchmarks audit --seeds {options.seeds} --write, "
        f"{datetime.now(UTC):%d %B %Y}, eeglib {eeglib.__version__}"
    )
    if options.write:
        content = {"source": source, "tables": {n: t.to_dict("records") for n, t in tables.items()}}
        simulations.BENCHMARK.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"audit seeds={options.seeds} seconds={time.perf_counter() - started:.0f}")
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
    trials, rows = {}, []
    for cause, strengths in simulations.CAUSES.items():
        trials[cause] = simulations.simulate_trials(*strengths, seed=seed)[0]
        card = run_audit(trials[cause], 1, controls=("clock", "share"), seed=seed)
        found, share = conclude(card), card.share
        rows.append(
            {
                "cause": cause,
                "accuracy": card.control("accuracy").estimate,
                "kind": found.kind,
                "flagged": found.flagged,
                "decoded": card.control("accuracy").p_value < 0.05,
                "share": share.estimate,
                "low": share.low,
                "high": share.high,
            }
        )
    truth = {
        "drift only": 0.0,
        "stimulus only": 1.0,
        "both": simulations.true_share(
            trials["both"], trials["drift only"], trials["stimulus only"]
        ),
    }
    return [{**row, "truth": truth.get(row["cause"])} for row in rows]


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
    card = run_audit(trials, 1, controls=("clock",), seed=seed)
    found = {c.name: c for c in card.controls}
    found["power_and_mean"] = controls.power_and_mean(trials, seed)
    found["time_windows"] = controls.time_windows(trials, seed)
    seen = {n: bool(found[n].p_value < 0.05) for n in SEEN_BY if n != "flagged"}
    return [{"value": card.control("accuracy").estimate, **seen, "flagged": conclude(card).flagged}]


def _block_table(rows: pandas.DataFrame) -> pandas.DataFrame:
    table = []
    for cause in simulations.CAUSES:
        own = rows[rows["cause"] == cause]
        row = {
            "cause": cause,
            "seeds": len(own),
            "accuracy": own["accuracy"].mean(),
            "above chance": int(own["decoded"].sum()),
            "flagged": int(own["flagged"].sum()),
        }
        shared = own[own["low"].notna() & own["truth"].notna()]
        if len(shared):
            # A bound of 0 or 1 is the end of the scale, not an estimate of it.
            inside = (shared["low"] <= shared["truth"]) & (shared["truth"] <= shared["high"])
            row |= {
                "true share": shared["truth"].mean(),
                "estimated share": shared["share"].mean(),
                "truth in interval": f"{int(inside.sum())} of {len(shared)}",
                "width of interval": (shared["high"] - shared["low"]).mean(),
            }
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
                "flagged": int(own["flagged"].sum()),
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
