"""Copies for a class: the chapters without their solutions, and nothing else missing."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from eeglib.workflow.stages import WorkflowError, site_folder
from eeglib.workflow.student_notebooks import (
    GAP,
    plain_markdown,
    without_solutions,
    write_student_notebooks,
)

NOTEBOOKS = sorted((site_folder() / "notebooks").glob("*.ipynb"))
MYST = re.compile(r"\{[\w:-]+\}`|^ *(:{3,}|`{3,}\{)|^:[\w-]+:|^\([\w-]+\)=$", re.MULTILINE)


def cells(path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("für die Klasse") / "copies"
    write_student_notebooks(site_folder() / "notebooks", folder)
    return folder


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_copy_differs_from_its_source_only_in_the_solutions(source, copies):
    before, after = cells(source), cells(copies / source.name)
    assert len(before) == len(after)
    exercises = {"solution", "check"}
    solutions = [c for c in before if exercises & set(c["metadata"].get("tags", []))]
    changed = [b for b, a in zip(before, after, strict=True) if b != a]
    assert all(cell in changed for cell in solutions)
    for cell in changed:
        # Other text changes only where it is MyST.
        assert cell in solutions or MYST.search("".join(cell["source"])), cell
    for b, a in zip(before, after, strict=True):
        if b in solutions:
            assert {**b, "source": None, "metadata": None} == {
                **a,
                "source": None,
                "metadata": None,
            }
            assert "hide-cell" not in a["metadata"]["tags"]
            assert "SOLUTION" not in "".join(a["source"])
            assert ("".join(a["source"]) == "*Your answer:*") == (b["cell_type"] == "markdown")
    whole = [json.loads(p.read_text(encoding="utf-8")) for p in (source, copies / source.name)]
    assert {**whole[0], "cells": None} == {**whole[1], "cells": None}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_jupyter_can_show_all_text_of_a_copy(source, copies):
    for cell in cells(copies / source.name):
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            assert not MYST.search(text), text


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("See {doc}`chapter 2 </notebooks/02_filter>`.", "See [chapter 2](02_filter.ipynb)."),
        ("See {doc}`/notebooks/02_filter`.", "See [02 filter](02_filter.ipynb)."),
        ("The {doc}`words </book/glossary>`, {doc}`/book/glossary`.", "The words, glossary."),
        ("An {term}`epoch`, or {term}`trials <trial>`.", "An epoch, or trials."),
        (
            "As in {cite:t}`one,three`.",
            "As in [Gö (2015)](https://doi.org/10.1/x), Ey et al. (2021).",
        ),
        ("Known {cite}`two`.", "Known (Bee and Cey, 2020)."),
        ("Known {cite:p}`nobody`.", "Known ([A data set, 2024](https://zenodo.org/1))."),
        ("$a_1 * b$ and `{x}` stay", "$a_1 * b$ and `{x}` stay"),
        ("(label)=\n## Title", "## Title"),
        (
            ":::{exercise} 1.2 Ask\n:label: e-1\n:nonumber:\n\nWhy?\n:::",
            "**Exercise 1.2 Ask**\n\nWhy?",
        ),
        (
            "::::{admonition} Mind\n:class: tip\nA {term}`trial`.\n\n:::{note}\nTwo.\n:::\n::::"
            "\nEnd.",
            "> **Mind**\n> \n> A trial.\n> \n> > **Note**\n> > \n> > Two.\nEnd.",
        ),
        (
            ":::{dropdown} **Yes?** Is $a_1$ *so* {cite:t}`two`?\nNo.\n:::",
            "<details><summary><strong>Yes?</strong> Is $a_1$ <em>so</em> Bee and Cey (2020)?"
            "</summary>\n\nNo.\n\n</details>",
        ),
    ],
)
def test_myst_becomes_plain_markdown(myst, plain, tmp_path):
    (tmp_path / "book").mkdir()
    works = [
        'one, author = {G{\\"o}, A.}, title = {T}, year = {2015}, doi = {10.1/x}',
        "two, author = {Bee, A. and Cey, B.}, title = {T}, year = {2020}",
        "three, author = {Ey, A. and Bee, A. and Cey, B.}, title = {T}, year = {2021}",
        "nobody, title = {A data set}, year = {2024}, url = {https://zenodo.org/1}",
    ]
    entries = "\n".join(f"@article{{{work}}}" for work in works)
    (tmp_path / "book" / "references.bib").write_text(entries)
    assert plain_markdown(myst, tmp_path) == plain


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_fits_the_page(source):
    lines = [li for c in cells(source) if c["cell_type"] == "code" for li in c["source"]]
    assert [li for li in lines if len(li.rstrip("\n")) > 76] == []


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_names_only_what_the_package_has(source):
    """A function that moved is found here, and not after an hour in the last chapter of a run."""
    code = ["".join(c["source"]) for c in cells(source) if c["cell_type"] == "code"]
    nodes = [node for cell in code for node in ast.walk(ast.parse(cell))]
    ours = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "eeglib":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found = pkgutil.resolve_name(name)  # raises where there is none
                ours[alias.asname or alias.name] = found
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if inspect.ismodule(of := ours.get(node.value.id)):
                assert hasattr(of, node.attr), f"{of.__name__} has no {node.attr}"


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_solution_is_tagged(source):
    for cell in cells(source):
        text = "".join(cell["source"])
        if "{dropdown} Solution" in text or "{solution}" in text:
            assert "solution" in cell["metadata"].get("tags", []), text[:200]
            # The exercise itself must stay: nothing but the folded solution is in the cell.
            assert text.startswith((":::", "```")), text[:200]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_check_of_an_exercise_fails_on_the_gap(source, copies):
    """That it passes on the solution is seen whenever the chapter runs: both cells are in it."""
    own = [c for c in cells(source) if c["cell_type"] == "code"]
    copied = [c for c in cells(copies / source.name) if c["cell_type"] == "code"]
    for number, cell in enumerate(own):
        if "solution" not in cell["metadata"].get("tags", []):
            continue
        assert len(GAP.findall("".join(cell["source"]))) == 1, cell["id"]
        assert "check" in own[number + 1]["metadata"].get("tags", []), cell["id"]
        gap, check = ("".join(c["source"]) for c in copied[number : number + 2])
        names: dict = {}
        exec(gap, names)
        with pytest.raises(AssertionError, match=r"\w+ \w+"):
            exec(check, names)


def test_a_gap_keeps_what_stands_around_the_solution():
    source = "def add(a, b):\n    total = None\n    # BEGIN SOLUTION\n    total = a + b\n"
    source += "    # END SOLUTION\n    return total"
    tags = {"tags": ["solution", "hide-cell"]}
    solution = new_code_cell(source, metadata=tags, execution_count=3)
    notebook = new_notebook(cells=[new_markdown_cell("Why?"), solution])
    copied = without_solutions(notebook).cells[1]
    gap = "def add(a, b):\n    total = None\n    ...  # your lines here\n    return total"
    assert (copied.source, copied.execution_count) == (gap, None)
    assert notebook.cells[1].source == source


def test_answers_are_never_overwritten(copies):
    write_student_notebooks(site_folder() / "notebooks", copies)
    path = copies / NOTEBOOKS[0].name
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(new_markdown_cell("My answer."))
    nbformat.write(notebook, path)
    with pytest.raises(WorkflowError, match=rf"{path.name}.*Choose another folder"):
        write_student_notebooks(site_folder() / "notebooks", copies)
    assert nbformat.read(path, as_version=4) == notebook


def test_the_chapters_themselves_are_never_overwritten():
    with pytest.raises(WorkflowError, match="the chapters themselves"):
        write_student_notebooks(site_folder() / "notebooks", site_folder() / "notebooks")
