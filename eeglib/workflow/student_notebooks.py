"""Copies of the notebooks for a class: the same, without the solutions."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat

from eeglib.chapter import replacing
from eeglib.workflow.dependencies import read_notebook, tags_of
from eeglib.workflow.stages import WorkflowError

SOLUTION = "solution"
"""Tag of the cells that hold a solution."""
PLACE = "*Your answer:*"


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a notebook with an empty cell of the same kind in the place of every solution."""
    found = copy.deepcopy(notebook)
    for cell in found.cells:
        if SOLUTION in tags_of(cell):
            cell.source = PLACE if cell.cell_type == "markdown" else "# Your answer:"
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
    return found


def write_student_notebooks(notebooks: Path, folder: Path) -> list[Path]:
    """Write copies of all notebooks without their solutions.

    Parameters
    ----------
    notebooks : Path
        Folder of the chapters.
    folder : Path
        Where to write; made where it does not exist.

    Returns
    -------
    list of Path
        The copies.

    Raises
    ------
    WorkflowError
        If the folder is that of the chapters, or a copy is there already and differs: it may hold
        a student's answers.
    """
    if folder.resolve() == notebooks.resolve():
        raise WorkflowError(f"{folder} holds the chapters themselves. Choose another folder.")
    copies = {
        folder / path.name: without_solutions(read_notebook(path))
        for path in sorted(notebooks.glob("*.ipynb"))
    }
    edited = [p.name for p, copied in copies.items() if p.is_file() and read_notebook(p) != copied]
    if edited:
        raise WorkflowError(
            f"{folder} already holds {', '.join(edited)}, with changes. Choose another folder, or "
            "move them away."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, copied in copies.items():
        with replacing(path) as temporary:
            nbformat.write(copied, temporary)
    return list(copies)
