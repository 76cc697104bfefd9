"""What a chapter's results depend on besides other results: its code and its settings.

Snakemake keeps what `dependencies` gives beside each result (as ``params``), and runs the chapter
again when it is different. Comments, docstrings and the notebooks' text do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat

from eeglib.chapter import sha256_of
from eeglib.profile import Profile
from eeglib.workflow.stages import PACKAGE, WorkflowError

PARAMETERS = ("subject", "profile", "run_dir")
"""Parameters that the run passes to every notebook; a group's chapter gets the first subject."""


def dependencies(notebook: Path, profile: Profile) -> list[str]:
    """Describe what a chapter's results depend on, one text each: ``what: checksum``.

    These are the code of its notebook, the sections of the profile that it reads, and the modules
    of eeglib that it imports, directly or through others. Modules of `eeglib.plotting` are left
    out, for a figure is no result; see `figure_modules`.

    Raises
    ------
    WorkflowError
        If the notebook is not fit to run.
    """
    sources = code_cells(check_notebook(notebook))
    everything = _parse("\n".join(sources), notebook)
    values = profile.model_dump(mode="json", include={"seed", "dataset", *_sections(everything)})
    # Who and where change no result.
    values["dataset"] = {k: values["dataset"][k] for k in ("name", "options")}
    return [
        f"code of the notebook: {_short(chr(0).join(sources))}",
        *(f"section {name} of the profile: {json.dumps(values[name])}" for name in values),
        *_module_texts([*_imports(everything), f"eeglib.datasets.{profile.dataset.name}"]),
    ]


def figure_modules(notebook: Path) -> dict[str, str]:
    """Modules of `eeglib.plotting` that a notebook draws with, with checksums of their files."""
    names = set(re.findall(r"\bplotting\.(\w+)", "\n".join(code_cells(read_notebook(notebook)))))
    modules = {path.stem: path for path in (PACKAGE / "plotting").glob("*.py")} if names else {}
    uses = {stem for stem, path in modules.items() if names & _read_module(path)[2]}
    uses |= {"style"} if uses else set()
    return {f"eeglib.plotting.{stem}": sha256_of(modules[stem])[:16] for stem in sorted(uses)}


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


def check_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook and check that it takes the parameters that a run passes.

    Raises
    ------
    WorkflowError
        If there is not exactly one cell tagged ``parameters``, or it lacks one of them.
    """
    notebook = read_notebook(path)
    cells = [c for c in notebook.cells if c.cell_type == "code" and "parameters" in tags_of(c)]
    if len(cells) != 1:
        raise WorkflowError(
            f"{path} has {len(cells)} code cells tagged 'parameters'; it needs exactly one."
        )
    missing = [p for p in PARAMETERS if not re.search(rf"^{p} = ", cells[0].source, re.MULTILINE)]
    if missing:
        raise WorkflowError(
            f"{path} has no parameter {', '.join(missing)} in its cell tagged 'parameters'. Add "
            "it there, with a literal: `subject = 1`."
        )
    return notebook


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def is_from_papermill(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill put the cell in: the parameters passed, or the mark of an error."""
    return any(t == "injected-parameters" or t.startswith("papermill-") for t in tags_of(cell))


def code_cells(notebook: nbformat.NotebookNode) -> list[str]:
    """Source of the notebook's own code cells, without what papermill put in."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if not is_from_papermill(cell)]


def _sections(tree: ast.AST) -> set[str]:
    """Sections of the profile that code reads: ``….profile.x``, and ``chapter.split(…)``.

    All of them where the code passes the profile on as a whole.
    """
    every = set(Profile.model_fields) - {"name", "title", "resources", "cluster"}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    taken_apart = {id(a.value) for a in attributes}
    if any(a.attr == "profile" and id(a) not in taken_apart for a in attributes):
        return every
    owners = {(getattr(a.value, "attr", getattr(a.value, "id", "")), a.attr) for a in attributes}
    return {name for owner, name in owners if owner in ("profile", "chapter") and name in every}


def _module_texts(roots: list[str]) -> list[str]:
    """Names and checksums of modules, and of all of eeglib that they import."""
    found: dict[str, str] = {}
    waiting = [*roots, "eeglib.chapter"]
    while waiting:
        name = waiting.pop()
        path = _module_path(name)
        if path is None or name in found or name.startswith("eeglib.plotting"):
            continue
        code, imported, _ = _read_module(path)
        found[name] = f"{name}: {code}"
        parents = name.split(".")[:-1]
        waiting += [".".join(parents[: i + 1]) for i in range(len(parents))]
        waiting += imported
    return [found[name] for name in sorted(found)]


def _module_path(name: str) -> Path | None:
    first, *rest = name.split(".")
    path = PACKAGE.joinpath(*rest)
    candidates = [path / "__init__.py", path.with_suffix(".py")] if first == "eeglib" else []
    return next((c for c in candidates if c.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that code imports, but for those that only a type checker follows."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from eeglib import filtering` imports a module, `from eeglib.x import f` a name.
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"):
            yield from _imports(node)


def _parse(source: str, path: Path) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise WorkflowError(
            f"{path}: a code cell is not plain Python (no % or ! lines): {error}"
        ) from None


def _read_module(path: Path) -> tuple[str, tuple[str, ...], frozenset[str]]:
    """Checksum of a module's code, what it imports, and the names of its functions."""
    return _read_version(path, path.stat().st_mtime_ns)


@cache
def _read_version(path: Path, changed: int) -> tuple[str, tuple[str, ...], frozenset[str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = frozenset(getattr(node, "name", "") for node in tree.body)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):  # a docstring
                del body[0]
    return _short(ast.dump(tree)), tuple(_imports(tree)), functions


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
