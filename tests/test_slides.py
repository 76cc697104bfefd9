"""Slides: what a lecturer needs is on them, what a student must not see is not."""

from __future__ import annotations

import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tiny_project import STAGES

from benchmarks._page_faults import page_faults
from eeglib.workflow.book import SLIDES, stage_book
from eeglib.workflow.slides import deck_of, lead
from eeglib.workflow.stages import site_folder

CAUTION = ("Simulated data", "No person was recorded.")


def table(head: str) -> nbformat.NotebookNode:
    html = f"<table class='dataframe'><th>{head}</th></table>"
    return new_output("execute_result", {"text/html": html})


@pytest.fixture(scope="module")
def deck():
    notice = '<div class="admonition warning"><p class="admonition-title">{}</p></div>'
    figure = {"mystnb": {"image": {"alt": "A curve"}}}
    said = new_output("stream", name="stdout", text="It is within the noise.\n")
    log = new_output("stream", name="stdout", text="128 channels\n")
    boxes = [notice.format(title) for title in ("Simulated data", "Verdict")]
    cells = [
        new_markdown_cell("# 1. Title\n\nWhy. So.\n\n**You will**\n\n- read\n- write\n\n| a | b |"),
        new_code_cell("x = 1", outputs=[new_output("display_data", {"text/html": boxes[0]})]),
        new_markdown_cell("## Scores\n\nLook at {doc}`chapter 2 </notebooks/02_x>`. Then."),
        new_code_cell("x = 2", outputs=[table("chance"), said]),
        new_code_cell("x = 3", outputs=[table("channel"), log]),
        new_code_cell(
            "x", metadata=figure, outputs=[new_output("display_data", {"image/png": "AAAA"})]
        ),
        new_code_cell("x = 4", outputs=[new_output("display_data", {"text/html": boxes[1]})]),
        new_markdown_cell("An answer.", metadata={"tags": ["self-check"]}),
        new_code_cell("x = 5", metadata={"tags": ["solution"]}, outputs=[said]),
        new_markdown_cell("## Summary\n\n- one\n- two\n\n## Exercises\n\n## Hidden\n\nHidden"),
    ]
    return deck_of(new_notebook(cells=cells), CAUTION, site_folder())


def test_a_deck_holds_headings_scores_figures_and_notices(deck):
    text = [cell.source for cell in deck.cells if cell.cell_type == "markdown"]
    assert text == [
        "## 1. Title\n\nWhy. So.\n\n> **Simulated data.** No person was recorded.",
        "## You will\n\n- read\n- write\n",
        "## Scores\n\nLook at [chapter 2](02_x.html). Then.",
        *["## Scores\n\n"] * 3,
        "## Summary\n\n- one\n- two",
    ]
    scores, figure, verdict = (cell for cell in deck.cells if cell.cell_type == "code")
    assert "chance" in scores.outputs[0].data["text/html"]
    assert scores.outputs[1].text.startswith("It is within")
    assert (figure.metadata.alt, list(figure.outputs[0].data)) == ("A curve", ["image/png"])
    assert "Verdict" in verdict.outputs[0].data["text/html"]
    assert deck.metadata == {"title": "1. Title", "notice": "Simulated data"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.\n\nThree.", "One. Two."),
        (f"First. {'x' * 330}.", "First."),
        (f"{'x' * 400}. Second.", f"{'x' * 400}."),
        ("- one\n- two\n\nText", "- one\n- two"),
        ("There are two:\n\n- a\n- b\n\nText", "There are two:\n\n- a\n- b"),
        ("It minimises\n\n$$\nx\n$$\n\nText.", "It minimises\n\n$$\nx\n$$"),
        ("One. Two have a reason: " + 330 * "x" + ". Three.", "One."),
        ("About 0.05 of them.", "About 0.05 of them."),
        ("", ""),
    ],
)
def test_of_a_section_its_first_sentences_are_shown(text, expected):
    assert lead(text) == expected


def test_slides_of_a_run_load_nothing_and_the_book_links_them(tiny_site, tiny_run, tmp_path):
    run_dir, site = tmp_path / "run", tmp_path / "site"
    shutil.copytree(tiny_run, run_dir)
    shutil.copytree(tiny_site, site)
    staging = stage_book(run_dir, site, STAGES)
    assert not (run_dir / SLIDES).exists()
    assert not (staging / "slides.md").exists()
    shutil.copytree(site_folder() / "book/slides", site / "book/slides")
    stage_book(run_dir, site, STAGES, slides=True)
    stage_book(run_dir, site, STAGES)  # a book without new slides keeps those that are there
    names = [f"{stage.name}.html" for stage in STAGES]
    links = (staging / "slides.md").read_text(encoding="utf-8")
    assert all(f'href="slides/{name}"' in links for name in names)
    assert {path.name for path in (run_dir / SLIDES).glob("*.html")} == {*names, "index.html"}
    assert page_faults(run_dir / SLIDES) == []
    text = (run_dir / SLIDES / names[2]).read_text(encoding="utf-8")
    assert 'alt="' in text
    assert "One half" not in text
    assert "save_figure" not in text
