"""Copies for a class: the chapters without their solutions, and nothing else missing."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from eeglib.workflow.stages import WorkflowError, site_folder
from eeglib.workflow.student_notebooks import without_solutions, write_student_notebooks

NOTEBOOKS = sorted((site_folder() / "notebooks").glob("*.ipynb"))


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
    solutions = [c for c in before if "solution" in c["metadata"].get("tags", [])]
    changed = [b for b, a in zip(before, after, strict=True) if b != a]
    assert changed == solutions
    for b, a in zip(before, after, strict=True):
        if b in solutions:
            assert {**b, "source": None} == {**a, "source": None}
            assert "".join(a["source"]) == "*Your answer:*"
    whole = [json.loads(p.read_text(encoding="utf-8")) for p in (source, copies / source.name)]
    assert {**whole[0], "cells": None} == {**whole[1], "cells": None}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_solution_is_tagged(source):
    for cell in cells(source):
        text = "".join(cell["source"])
        if "{dropdown} Solution" in text or "{solution}" in text:
            assert "solution" in cell["metadata"].get("tags", []), text[:200]
            # The exercise itself must stay: nothing but the folded solution is in the cell.
            assert text.startswith((":::", "```")), text[:200]


def test_a_solution_in_code_goes_with_its_outputs():
    solution = new_code_cell("answer = 42", metadata={"tags": ["solution"]}, execution_count=3)
    notebook = new_notebook(cells=[new_markdown_cell("Why?"), solution])
    copied = without_solutions(notebook)
    assert [cell.source for cell in copied.cells] == ["Why?", "# Your answer:"]
    assert copied.cells[1].execution_count is None
    assert notebook.cells[1].source == "answer = 42"


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
