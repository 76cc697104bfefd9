"""What a chapter's results depend on besides other results: its code and its settings.

Snakemake keeps what `dependencies` gives beside each result (as ``params``), and runs the chapter
again when it is different. Comments, docstrings and the notebooks' text do not count.
"""

import ast
import hashlib
import json
import re
from functools import cache
from pathlib import Path

import nbformat

from eeglib.profile import Profile
from eeglib.workflow.stages import PACKAGE, WorkflowError

PARAMETERS = (
    "subject",
    "profile",
    "run_dir",
)  # of every notebook; a group's gets the first subject
DATA = {".csv", ".json", ".npz", ".yml"}  # that a module may have beside it, by its name


def dependencies(notebook: Path, profile: Profile) -> list[str]:
    """What a chapter's results depend on, as ``what: checksum``; of plotting only what it calls."""
    sources = code_cells(read_notebook(notebook))
    code = "\n".join(sources)
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        text = f"{notebook}: a code cell is not plain Python (no % or ! lines): {error}"
        raise WorkflowError(text) from None
    sections = {*re.findall(r"\bprofile\.(\w+)", code), *re.findall(r"\bchapter\.(split)\b", code)}
    values = profile.model_dump(mode="json", include={"seed", "dataset", *sections})
    # Who and where change no result.
    values["dataset"] = {k: values["dataset"][k] for k in ("name", "options")}
    always = {"eeglib.chapter", f"eeglib.datasets.{profile.dataset.name}"}
    modules = _modules(_imports(tree) | always)
    drawn = {*re.findall(r"\bplotting\.(\w+)", code)}
    for path in sorted((PACKAGE / "plotting").glob("[!_]*.py")) if drawn else []:
        checksum, _, functions = _read_module(path, path.stat().st_mtime_ns)
        if path.stem == "style" or drawn & functions:
            modules[f"eeglib.plotting.{path.stem}"] = checksum
    return [
        f"code of the notebook: {_short(chr(0).join(sources))}",
        *(f"section {name} of the profile: {json.dumps(values[name])}" for name in values),
        *(f"{name}: {modules[name]}" for name in sorted(modules)),
    ]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook of format 4, and check that it takes the parameters that a run passes."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds for broken files
        raise WorkflowError(f"{path} is no notebook that can be read: {error}") from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise WorkflowError(f"{path} has {len(cells)} code cells tagged 'parameters', not one.")
    missing = [p for p in PARAMETERS if not re.search(rf"^{p} = ", cells[0].source, re.MULTILINE)]
    if missing:
        text = f"{path} has no parameter {', '.join(missing)} in its cell tagged 'parameters'"
        raise WorkflowError(f"{text}. Add it there, with a literal: `subject = 1`.")
    return notebook


def is_from_papermill(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill put the cell in: the parameters passed, or the mark of an error."""
    tags = cell.metadata.get("tags", [])
    return any(tag.startswith(("injected-parameters", "papermill-")) for tag in tags)


def code_cells(notebook: nbformat.NotebookNode) -> list[str]:
    """Source of the notebook's own code cells, without what papermill put in."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if not is_from_papermill(cell)]


def _modules(names: set[str]) -> dict[str, str]:
    """Checksums of modules of eeglib by name, and of all that they import; no plotting."""
    found: dict[str, str] = {}
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        path = PACKAGE.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        ours = f"{name}.".startswith("eeglib.") and not name.startswith("eeglib.plotting")
        if ours and name not in found and path.is_file():
            checksum, imported, _ = _read_module(path, path.stat().st_mtime_ns)
            tables = sorted(p for p in path.parent.glob(f"{path.stem}.*") if p.suffix in DATA)
            checksums = [checksum, *(hashlib.sha256(p.read_bytes()).hexdigest() for p in tables)]
            found[name] = _short("".join(checksums)) if tables else checksum
            waiting |= {name.rpartition(".")[0], *imported}
    return found


def _imports(tree: ast.AST) -> set[str]:
    """Dotted names that code imports; ``from eeglib.x import y`` may name a module or not."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@cache
def _read_module(path: Path, changed: int) -> tuple[str, set[str], set[str]]:
    """Checksum of a module's code, what it imports, and the names of its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {getattr(node, "name", "") for node in tree.body}
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant()), *_]:  # a docstring
                del node.body[0]
    return _short(ast.dump(tree)), _imports(tree), functions


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
