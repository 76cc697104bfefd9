"""The plan of the package: its rooms, who may import whom, and how large it may grow."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import eeglib

PACKAGE = Path(eeglib.__file__).parent
MAY_IMPORT = {
    "profile": {"profile"},
    "datasets": {"datasets", "profile"},
    "chapter": {"chapter", "datasets", "decoding.splits", "profile"},
    "preprocessing": set(),
    "timefrequency": set(),
    "evaluation": set(),
    "plotting": {"plotting"},
    "decoding": {"decoding", "evaluation", "timefrequency"},
    "reconstruction": {"reconstruction", "datasets", "decoding", "evaluation"},
    "audit": {"audit", "datasets", "decoding", "evaluation", "preprocessing", "reconstruction"},
    "live": {"preprocessing"},
    "workflow": {"workflow", "chapter", "datasets", "profile"},
    "cli": {"profile", "datasets", "chapter", "decoding", "reconstruction", "audit", "live"}
    | {"workflow"},
}
"""The rooms, and what each may import of ours besides the package itself."""
ALONE = {"decoding.splits", "decoding.networks"}
"""Modules that a reader may take away: they import nothing of ours."""


def imports_of_package() -> dict[str, set[str]]:
    """Modules of ours that each module imports when it is used, also inside functions."""
    modules = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    modules["__init__"] = PACKAGE / "__init__.py"
    found = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                node.body = []
        found[module] = set()
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if node.module.split(".")[0] != "eeglib":
                continue
            base = node.module.removeprefix("eeglib").lstrip(".")
            for name in node.names:
                whole = f"{base}.{name.name}".lstrip(".")
                found[module].add(whole if whole in modules else base or "__init__")
    return found


def test_rooms_import_as_planned():
    for module, imports in imports_of_package().items():
        room = module.split(".")[0]
        if room == "__init__":
            continue
        assert room in MAY_IMPORT, f"{module} is in no room of the plan"
        allowed = set() if module in ALONE else MAY_IMPORT[room]
        for other in imports - {"__init__", module}:
            assert {other, other.split(".")[0]} & allowed, f"{module} may not import {other}"


def test_no_circle_of_imports():
    tuple(TopologicalSorter(imports_of_package()).static_order())


def test_package_stays_small():
    assert len(MAY_IMPORT) <= 13
    n_lines = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py"))
    assert n_lines <= 11_000


@pytest.mark.parametrize("module", ["chapter", "profile", "cli", "workflow"])
def test_starts_fast(module):
    import subprocess
    import sys

    heavy = {"torch", "mne", "matplotlib", "sklearn", "diffusers"}
    code = f"import sys, eeglib.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not heavy & set(loaded)
