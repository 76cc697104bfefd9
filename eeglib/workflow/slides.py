"""Slides for a lecture: one reveal.js deck per chapter, made from the pages of the book.

On them are the notice on the data, the objectives, each section's first sentences, the figures
with their descriptions, notices, tables of scores, and the summary; nothing needs the network.
"""

import re
import shutil
from importlib.resources import files
from pathlib import Path

from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from eeglib.chapter import write_text
from eeglib.workflow.student_notebooks import plain_markdown

LEFT_OUT = {"solution", "check", "self-check", "remove-output"}  # tags of cells
TO_READ = {"Exercises", "What's next", "References", "Subject by subject"}
SHEETS = {"reset.css", "reveal.css", "white.css", "source-sans-pro.css"}
LISTS = ("- ", "1. ", "|", "> ", "$$")


def write_slides(
    folder: Path, pages: dict[str, NotebookNode], caution: tuple[str, str] | None, site: Path
) -> None:
    """Write a deck for each page, by name, and an ``index.html``; ``mathjax`` must lie beside."""
    dist = Path(str(files("sphinx_revealjs"))) / "_static/revealjs/dist"
    # The sheets of other themes load fonts from the network.
    others = {path.name for path in dist.rglob("*.css")} - SHEETS
    shutil.copytree(dist, folder / "reveal/dist", ignore=shutil.ignore_patterns(*others))
    shutil.copy(site / "book/slides/deck.css", folder)
    style = {"template_file": str(site / "book/slides/deck.html.j2"), "reveal_theme": "white"}
    hidden = dict.fromkeys(("exclude_input", "exclude_output_prompt", "exclude_anchor_links"), True)
    exporter = SlidesExporter(reveal_url_prefix="reveal", **style, **hidden)
    decks = {name: deck_of(page, caution, site) for name, page in pages.items()}
    links = "\n".join(f"- [{deck.metadata.title}]({name}.html)" for name, deck in decks.items())
    decks["index"] = new_notebook(cells=[_slide("Slides", links)], metadata={"title": "Slides"})
    for name, deck in decks.items():
        write_text(folder / f"{name}.html", exporter.from_notebook_node(deck)[0])


def deck_of(page: NotebookNode, caution: tuple[str, str] | None, site: Path) -> NotebookNode:
    """Choose what of a chapter's page goes on slides; ``caution`` is that of its data set."""
    slides, heading = [], ""
    for cell in page.cells:
        if LEFT_OUT & set(cell.metadata.get("tags", [])):
            continue
        parts = re.split(r"^#{1,3} ", cell.source, flags=re.MULTILINE)[1:]
        for part in parts if cell.cell_type == "markdown" else ():
            heading, _, text = part.partition("\n")
            if heading in TO_READ:
                break
            text = plain_markdown(text, site).strip().replace(".ipynb)", ".html)")
            notice = "\n\n> **{}.** {}".format(*caution) if caution and not slides else ""
            slides.append(_slide(heading, lead(text) + notice))
            if aims := re.search(r"\*\*You will\*\*\n\n((?:- .*\n?)+)", text):
                slides.append(_slide("You will", aims[1]))
        if heading in TO_READ or cell.cell_type == "markdown":
            continue
        shown = [[output] for output in cell.outputs if _is_shown(output, caution)] or [[]]
        shown[-1] += [o for o in cell.outputs if o.get("text", "").strip().endswith(".")]
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        after = {"slideshow": {"slide_type": "-"}, "alt": alt}
        for outputs in filter(None, shown):
            slides += [_slide(heading), new_code_cell(outputs=outputs, metadata=after)]
    title = page.cells[0].source.partition("\n")[0].strip("# ")
    return new_notebook(cells=slides, metadata={"title": title, "notice": (caution or [""])[0]})


def lead(text: str) -> str:
    """First sentences of a section, with the list or formula that they announce; or its list."""
    first, *others = text.split("\n\n")
    if not first.startswith(LISTS):
        first = re.match(r"(?:.{,330}|.*?)(?:[.?!](?=\s|$)|:$)|.*", first, re.DOTALL)[0]
    announced = others[:1] if text[len(first) :].strip().startswith(LISTS) else []
    return "\n\n".join([first, *announced])


def _slide(heading: str, text: str = "") -> NotebookNode:
    begins = {"slideshow": {"slide_type": "slide"}}
    return new_markdown_cell(f"## {heading}\n\n{text}", metadata=begins)


def _is_shown(output: NotebookNode, caution: tuple[str, str] | None) -> bool:
    data = output.get("data", {})
    html = data.get("text/html", "")
    if 'class="admonition' in html:
        return not (caution and caution[0] in html)  # that stands on the first slide
    return "image/png" in data or ">chance<" in html or "interval" in html
