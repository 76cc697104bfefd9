"""Copies of the notebooks for a class: the same, without the solutions."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat

from eeglib.chapter import replacing
from eeglib.workflow.dependencies import read_notebook
from eeglib.workflow.stages import WorkflowError


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy of a notebook with an empty cell in the place of every cell tagged ``solution``."""
    found = copy.deepcopy(notebook)
    for cell in found.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.source = "*Your answer:*" if cell.cell_type == "markdown" else "# Your answer:"
            if cell.cell_type == "code":
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
