"""The table without pictures: ``python -m benchmarks phantom`` writes it for the book.

Takes the results of ``eeglib run --profile phantom --subjects 1`` from the run's folder, sets every
method beside the paper's Table 1, lists what the audit found and shows some of the drawn pictures;
nothing is computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas
from PIL import Image

from eeglib.audit.card import AuditCard, conclude
from eeglib.chapter import Metrics, chapter_folder, load_metrics
from eeglib.decoding.methods import METHODS
from eeglib.evaluation import TABLE_1

PAGES = Path(__file__).parents[1] / "book" / "phantom"


def main(arguments: list[str]) -> int:
    """Print both tables and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks phantom", description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/phantom"))
    parser.add_argument("--subject", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=PAGES, help="where the tables are written")
    options = parser.parse_args(arguments)
    results = {
        chapter: load_metrics(chapter_folder(options.run_dir, chapter, options.subject))
        for chapter in ("06_compare_baselines", "08_audit_confounds")
    }
    tables = {
        "methods": method_table(results["06_compare_baselines"]),
        "audit": audit_table(results["08_audit_confounds"]),
    }
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        print(f"\n{table.to_string(index=False)}")
        table.to_csv(options.folder / f"{name}.csv", index=False, lineterminator="\n")
    drawn = chapter_folder(options.run_dir, "07_reconstruct_images", options.subject)
    with Image.open(drawn / "figures" / "reconstructions.png") as figure:
        part = figure.convert("RGB").crop((0, 0, figure.width, figure.height * 2 // 5))
    part.quantize(128).save(options.folder / "pictures.png")
    top1 = tables["methods"].set_index("Method")["Phantom, top-1"]
    print(f"phantom best={top1.index[0]!r} top1={top1.iloc[0]}")
    return 0


def method_table(metrics: Metrics) -> pandas.DataFrame:
    """Every method on the invented blocks, with 95% intervals, and in the paper; best first."""
    scores = pandas.DataFrame([dict(score) for score in metrics.scores])
    scores = scores[scores["metric"].isin(["top-1", "top-5"])]
    order = scores[scores["metric"] == "top-1"].sort_values("value", ascending=False)["method"]
    rows = []
    for method in order:
        own = scores[scores["method"] == method].set_index("metric")
        row = {"Method": METHODS[method].title.removesuffix(" (not in the paper)")}
        for metric in ("top-1", "top-5"):
            value, low, high = own.loc[metric, ["value", "low", "high"]]
            row[f"Phantom, {metric}"] = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        for metric in ("top-1", "top-5"):
            row[f"Paper, {metric}"] = TABLE_1[metric].get(method, "")
        rows.append(row)
    chance = own["chance"]
    last = {"Method": f"Chance (n {own['n'].iloc[0]})"}
    for who in ("Phantom", "Paper"):
        last |= {f"{who}, {metric}": f"{chance[metric]:.3f}" for metric in ("top-1", "top-5")}
    return pandas.DataFrame([*rows, last])


def audit_table(metrics: Metrics) -> pandas.DataFrame:
    """What each control that ran said, and the conclusion."""
    card = AuditCard.from_facts(metrics.facts["audit"])
    table = (
        card.table()[["value", "chance", "p"]].join(card.verdicts()["what was seen"]).reset_index()
    )
    table.columns = ["Control", "Value", "Chance", "p", "What was seen"]
    table["Control"] = table["Control"].str.replace(" (not in the paper)", "", regex=False)
    last = {"Control": "Conclusion", "What was seen": conclude(card).sentence}
    return pandas.concat([table, pandas.DataFrame([last])]).fillna("")
