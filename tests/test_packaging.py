"""Installation: the lock, the two environments that follow it, the wheel, make."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
LOCK = [Requirement(line) for line in LINES]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
MACHINES = [
    {"python_full_version": f"{version}.9", "python_version": version, **system}
    for version in ("3.11", "3.12", "3.13")
    for system in (
        {"sys_platform": "linux", "platform_machine": "x86_64"},
        {"sys_platform": "darwin", "platform_machine": "arm64"},
    )
]


def locked(environment: dict) -> dict[str, str]:
    """Versions that one machine would install, by name."""
    found: dict[str, str] = {}
    for requirement in LOCK:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is locked twice"
            found[name] = str(requirement.specifier).removeprefix("==")
    return found


def test_the_lock_pins_versions_and_names_no_host():
    for line, requirement in zip(LINES, LOCK, strict=True):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), line
        assert requirement.url is None
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(
    "machine", MACHINES, ids=lambda m: f"{m['python_version']}-{m['sys_platform']}"
)
def test_the_lock_holds_every_dependency_within_its_range(machine):
    versions = locked(machine)
    for text in PROJECT["dependencies"] + EXTRAS:
        requirement = Requirement(text)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), text


FOR_FILES_OR_COMMANDS = {
    "django-static-mathjax", "ipykernel", "jupyter-book", "pydata-sphinx-theme", "qtawesome",
    "snakemake", "snakemake-executor-plugin-slurm", "sphinx-book-theme", "sphinx-exercise",
    "sphinx-revealjs",
}  # fmt: skip
"""Dependencies that nothing here imports: their files are read, or others import or start them."""


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "eeglib").rglob("*.py")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources += ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    tops = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops.add(node.module.split(".")[0])
    homes = packages_distributions()
    tops -= {"eeglib", *sys.stdlib_module_names}
    imported = {canonicalize_name(homes[top][0]) for top in tops}
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert declared == imported | FOR_FILES_OR_COMMANDS


def test_torch_and_torchvision_belong_together():
    versions = locked(MACHINES[0])
    minor = {name: int(versions[name].split(".")[1]) for name in ("torch", "torchvision")}
    # torch 2.N goes with torchvision 0.(N + 15).
    assert minor["torchvision"] == minor["torch"] + 15


def test_conda_installs_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    assert python.removeprefix("python=") in {m["python_version"] for m in MACHINES}
    least = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, python.removeprefix("python=").split("."))) >= tuple(
        map(int, least.split("."))
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in the wheel of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    skip = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=skip)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (path,) = folder.glob("eeglib-*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_carries_all_that_the_command_needs(wheel):
    needed = ["eeglib/cli.py", "eeglib/workflow/Snakefile", "eeglib/profiles/demo.yml"]
    needed += ["eeglib/datasets/eegmmidb.npz", "eeglib/datasets/eegmmidb.txt"]
    needed += ["eeglib/_site/_config.yml", "eeglib/_site/_toc.yml"]
    for folder in ("book", "notebooks"):
        needed += [f"eeglib/_site/{p.relative_to(ROOT)}" for p in (ROOT / folder).glob("*.*")]
    sources = ROOT.joinpath("eeglib").rglob("*.py")
    needed += [p.relative_to(ROOT).as_posix() for p in sources]
    weights = ROOT.joinpath("eeglib", "pretrained").rglob("*.safetensors")
    needed += [p.relative_to(ROOT).as_posix() for p in weights]
    assert sorted(set(needed) - set(wheel)) == []


def test_the_wheel_carries_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {"eeglib", f"eeglib-{_version()}.dist-info"}
    site = [name for name in wheel if name.startswith("eeglib/_site/")]
    allowed = ("_config.yml", "_toc.yml", "book/", "notebooks/")
    assert [n for n in site if not n.removeprefix("eeglib/_site/").startswith(allowed)] == []


@pytest.mark.parametrize("goal", ["book", "test", "clean", "environment"])
def test_make_knows_the_goal(goal):
    done = subprocess.run(
        ["make", "--dry-run", goal], cwd=ROOT, capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stderr


def test_an_old_python_is_refused_with_a_remedy(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "environment", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment())
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stdout
    assert "Python 3.9.2" in done.stdout
    assert "PYTHON=python3.12" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_ci_runs_the_tests_that_a_reader_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -eu" in script
    assert re.search(r"^make test$", script, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == _version()
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def _version() -> str:
    from eeglib import __version__

    return __version__


def _environment() -> dict[str, str]:
    # `make test` sets variables for the makes below it.
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def test_waiting_threads_sleep_unless_the_user_decides():
    ask = "import eeglib, os; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        surroundings = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        surroundings |= {} if given is None else {"OMP_WAIT_POLICY": given}
        found = subprocess.run(
            [sys.executable, "-c", ask],
            env=surroundings,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == expected
