"""Reading notebooks: their code, and whether their parameters are those that the run passes."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import nbformat

from eeglib.profile import Profile
from eeglib.workflow.chapters import COMMON_SECTIONS, PASSED, Chapter, WorkflowError

PARAMETERS = "parameters"
INJECTED = "injected-parameters"


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook of format 4.

    Raises
    ------
    WorkflowError
        If it is not there or is not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise WorkflowError(f"No notebook {path}.") from None
    except Exception as error:  # nbformat raises many kinds for broken files
        raise WorkflowError(f"{path} is not a notebook: {error}") from None


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: nbformat.NotebookNode) -> list[str]:
    """Source of the notebook's own code cells, without what papermill put in."""
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and not is_from_papermill(cell)
    ]


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """Checksum of the code; text, tags and outputs do not count."""
    return hashlib.sha256("\0".join(code_cells(notebook)).encode()).hexdigest()[:16]


def check_notebook(path: Path, chapter: Chapter) -> nbformat.NotebookNode:
    """Read a chapter's notebook and check it against the table of chapters.

    Raises
    ------
    WorkflowError
        If there is not exactly one cell tagged ``parameters``, if that cell holds anything but
        literals or lacks a parameter that the run passes, or if the notebook reads a section of
        the profile that the table does not list.
    """
    notebook = read_notebook(path)
    cells = [c for c in notebook.cells if c.cell_type == "code" and PARAMETERS in tags_of(c)]
    if len(cells) != 1:
        raise WorkflowError(
            f"{path} has {len(cells)} code cells tagged '{PARAMETERS}'; it needs exactly one."
        )
    names = _literals(cells[0].source, path)
    missing = [name for name in PASSED if name not in names]
    if missing:
        raise WorkflowError(
            f"{path} has no parameter {', '.join(missing)}; its cell tagged '{PARAMETERS}' "
            f"sets {', '.join(sorted(names)) or 'none'}. Add it there, with a literal."
        )
    undeclared = _sections_read(notebook, path) - {*COMMON_SECTIONS, *chapter.sections}
    if undeclared:
        raise WorkflowError(
            f"{path} reads section {', '.join(sorted(undeclared))} of the profile, which "
            f"eeglib/workflow/chapters.py does not list for {chapter.name}. List it there: "
            "else a change of it would not run the chapter again."
        )
    return notebook


def is_from_papermill(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill put the cell in: the parameters passed, or the mark of an error."""
    return any(tag == INJECTED or tag.startswith("papermill-error") for tag in tags_of(cell))


def _literals(source: str, path: Path) -> set[str]:
    names = set()
    for statement in _parse(source, path).body:
        simple = (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        )
        try:
            if not simple:
                raise ValueError
            ast.literal_eval(statement.value)
        except ValueError:
            raise WorkflowError(
                f"{path}: the cell tagged '{PARAMETERS}' holds lines like `subject = 1`, literals "
                f"only; got `{ast.unparse(statement)}`."
            ) from None
        names.add(statement.targets[0].id)
    return names


def _sections_read(notebook: nbformat.NotebookNode, path: Path) -> set[str]:
    sections = set(Profile.model_fields) - {"name", "title"}
    found = set()
    for source in code_cells(notebook):
        for node in ast.walk(_parse(source, path)):
            if isinstance(node, ast.Attribute) and node.attr in sections:
                owner = node.value
                owner_name = getattr(owner, "attr", getattr(owner, "id", None))
                if owner_name == "profile":
                    found.add(node.attr)
    return found


def _parse(source: str, path: Path) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise WorkflowError(
            f"{path}: a code cell is not plain Python (no % or ! lines): {error}"
        ) from None
