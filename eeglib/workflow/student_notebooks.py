"""Copies of the notebooks for a class: without the solutions, in Markdown that Jupyter shows.

An exercise in code is two cells. The first, tagged ``solution``, gives each name that is asked for
the value ``None`` (or a function that returns it); the lines between ``# BEGIN SOLUTION`` and
``# END SOLUTION`` then do the work. A copy has a gap in their place. The second, tagged ``check``,
asserts what a solution must fulfil. The book executes both and folds the first.
Jupyter knows no MyST, in which the pages are written: copies have plain Markdown in its place.
"""

import copy
import re
from functools import cache
from pathlib import Path
from textwrap import indent

import nbformat
from nbconvert.filters import markdown2html
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

from eeglib.chapter import replacing
from eeglib.workflow.dependencies import read_notebook
from eeglib.workflow.stages import WorkflowError

ROLE = re.compile(r"\{([\w:-]+)\}`([^`]+?)(?:\s*<([^`>]+)>)?`")
DIRECTIVE = re.compile(
    r"^(:{3,}|`{3,})\{([\w-]+)\} ?([^\n]*)\n((?::[\w-]+:[^\n]*\n)*)(.*?)^\1[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
references = cache(parse_file)
GAP = re.compile(r"^( *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION$", re.DOTALL | re.MULTILINE)


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a notebook with a gap in the place of every solution, in words or in code."""
    found = copy.deepcopy(notebook)
    for cell in found.cells:
        tags = cell.metadata.get("tags", [])
        if {"solution", "check"} & set(tags):
            # In Jupyter as on the page this tag would fold the cell away.
            cell.metadata["tags"] = [tag for tag in tags if tag != "hide-cell"]
        if "solution" in tags and cell.cell_type == "markdown":
            cell.source = "*Your answer:*"
        elif "solution" in tags:
            cell.source = GAP.sub(r"\1...  # your lines here", cell.source)
            cell.outputs, cell.execution_count = [], None
    return found


def plain_markdown(text: str, site: Path) -> str:
    """Turn MyST's roles and directives into plain Markdown; works cited are those of ``site``."""

    def block(found: re.Match) -> str:
        _, name, title, _, body = found.groups()
        title, body = plain_markdown(title, site), plain_markdown(body, site).strip()
        if name == "exercise":
            return f"**Exercise {title}**\n\n{body}"
        if name == "dropdown":
            # No Markdown is read inside this tag.
            title = markdown2html(title).strip().removeprefix("<p>").removesuffix("</p>")
            return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
        title = title if name == "admonition" else f"{name.capitalize()} {title}".strip()
        return indent(f"**{title}**\n\n{body}", "> ", lambda line: True)

    def role(found: re.Match) -> str:
        name, text, target = found.groups()
        if name.startswith("cite"):
            entries = references(str(site / "book" / "references.bib")).entries
            cited = [_citation(entries[key.strip()], name == "cite:t") for key in text.split(",")]
            return ", ".join(cited) if name == "cite:t" else f"({'; '.join(cited)})"
        if name != "doc":
            return text
        page = Path(target or text)
        title = text if target else page.name.replace("_", " ")
        return f"[{title}]({page.name}.ipynb)" if page.parent.name == "notebooks" else title

    text = re.sub(r"^\([\w-]+\)=\n", "", DIRECTIVE.sub(block, text), flags=re.MULTILINE)
    return ROLE.sub(role, text)


def _citation(entry: Entry, as_noun: bool) -> str:
    people = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
    who = f"{people[0]} et al." if len(people) > 2 else " and ".join(people)
    name = Text.from_latex(who or entry.fields["title"])
    text = ("{} ({})" if as_noun else "{}, {}").format(name, entry.fields["year"])
    doi = entry.fields.get("doi")
    address = f"https://doi.org/{doi}" if doi else entry.fields.get("url")
    return f"[{text}]({address})" if address else text


def write_student_notebooks(notebooks: Path, folder: Path) -> list[Path]:
    """Write copies of all notebooks; never over a copy that may hold a student's answers."""
    if folder.resolve() == notebooks.resolve():
        raise WorkflowError(f"{folder} holds the chapters themselves. Choose another folder.")
    copies = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        copied = copies[folder / path.name] = without_solutions(read_notebook(path))
        for cell in copied.cells:
            if cell.cell_type == "markdown":
                cell.source = plain_markdown(cell.source, notebooks.parent)
    edited = [p.name for p, copied in copies.items() if p.is_file() and read_notebook(p) != copied]
    if edited:
        text = f"{folder} already holds {', '.join(edited)}, with changes"
        raise WorkflowError(f"{text}. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, copied in copies.items():
        with replacing(path) as temporary:
            nbformat.write(copied, temporary)
    return list(copies)
