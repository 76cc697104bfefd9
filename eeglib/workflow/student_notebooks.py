"""Copies of the notebooks for a class: the same, without the solutions.

An exercise in code is two cells. The first, tagged ``solution``, gives each name that is asked for
the value ``None`` (or a function that returns it); the lines between ``# BEGIN SOLUTION`` and
``# END SOLUTION`` then do the work. A copy has a gap in their place. The second, tagged ``check``,
asserts what a solution must fulfil. The book executes both and folds the first.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import nbformat

from eeglib.chapter import replacing
from eeglib.workflow.dependencies import read_notebook
from eeglib.workflow.stages import WorkflowError

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


def write_student_notebooks(notebooks: Path, folder: Path) -> list[Path]:
    """Write copies of all notebooks; never over a copy that may hold a student's answers."""
    if folder.resolve() == notebooks.resolve():
        raise WorkflowError(f"{folder} holds the chapters themselves. Choose another folder.")
    paths = sorted(notebooks.glob("*.ipynb"))
    copies = {folder / path.name: without_solutions(read_notebook(path)) for path in paths}
    edited = [p.name for p, copied in copies.items() if p.is_file() and read_notebook(p) != copied]
    if edited:
        text = f"{folder} already holds {', '.join(edited)}, with changes"
        raise WorkflowError(f"{text}. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, copied in copies.items():
        with replacing(path) as temporary:
            nbformat.write(copied, temporary)
    return list(copies)
