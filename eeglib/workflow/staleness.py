"""What must run again: decided by content, never by the clock.

Each finished job leaves ``inputs.json`` beside its results: checksums of the notebook's code, of
the profile's sections that the chapter reads, of the modules of eeglib that it imports (directly
or through others), and of the results it was computed from. A job is stale if one of them is
different now. Comments, docstrings and the notebooks' text do not count.

A result is damaged if its checksum is not the one in ``metrics.json``. Checksums are computed for
files that have been touched since they were written, and for all that a stale job will read.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import eeglib
from eeglib.chapter import FAILURE, INPUTS, ResultsError, load_metrics, sha256_of
from eeglib.profile import Profile
from eeglib.workflow.chapters import COMMON_SECTIONS, Chapter, Job, needs_hashes
from eeglib.workflow.notebooks import check_notebook, code_cells, code_hash

PACKAGE = Path(eeglib.__file__).parent


def describe_chapter(chapter: Chapter, notebook: Path, profile: Profile) -> dict:
    """Checksums of everything that a chapter's results depend on, but for other results.

    Returns
    -------
    dict
        ``code`` of the notebook, ``profile`` by section, ``modules`` and ``assets`` by name.

    Raises
    ------
    WorkflowError
        If the notebook is not fit to run; see `check_notebook`.
    """
    content = check_notebook(notebook, chapter)
    values = profile.model_dump(mode="json", include={*COMMON_SECTIONS, *chapter.sections})
    roots = {name for source in code_cells(content) for name in _imports(source, "")}
    roots |= {"eeglib.chapter", f"eeglib.datasets.{profile.dataset.name}"}
    return {
        "code": code_hash(content),
        "profile": {name: _short(json.dumps(value)) for name, value in values.items()},
        "modules": module_hashes(roots, PACKAGE),
        "assets": {name: _folder_hash(PACKAGE / name) for name in chapter.assets},
    }


def module_hashes(roots: Iterable[str], package: Path) -> dict[str, str]:
    """Checksums of modules and of all modules of the same package that they import.

    Parameters
    ----------
    roots : iterable of str
        Dotted names; those that are not modules of the package are passed over.
    package : Path
        The package's folder.
    """
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = _module_path(name, package)
        if path is None or name in found:
            continue
        found[name], imported = _read_module(path, name, path.name == "__init__.py")
        parents = name.split(".")[:-1]
        waiting += [".".join(parents[: i + 1]) for i in range(len(parents))]
        waiting += imported
    return dict(sorted(found.items()))


def why_stale(job: Job, description: dict, needs: Iterable[Job], run_dir: Path) -> str | None:
    """Say why a job must run, or None if its results hold."""
    folder = run_dir / job.folder
    if not (run_dir / job.metrics).is_file():
        return "failed before" if (folder / FAILURE).is_file() else "has not run yet"
    try:
        known = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
        written = known.get("outputs", {})
        damage = damaged_output(job, run_dir, written)
    except (OSError, ValueError, ResultsError):
        return "its record is incomplete"
    return damage or _difference(known, {**description, "needs": needs_hashes(needs, run_dir)})


def damaged_output(job: Job, run_dir: Path, written: dict[str, int]) -> str | None:
    """Say which file of a finished job is not what the job wrote.

    Parameters
    ----------
    job : Job
    run_dir : Path
    written : dict of str to int
        By file name the time of last change, ns, at which the content was right; for files that
        still have it the content is not read again.

    Raises
    ------
    ResultsError
        If there is no valid ``metrics.json``.
    """
    folder = run_dir / job.folder
    for name, file in load_metrics(folder).outputs.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file.bytes:
            return f"{name} is missing or damaged"
        if path.stat().st_mtime_ns != written.get(name) and sha256_of(path) != file.sha256:
            return f"{name} is damaged"
    return None


def stale_jobs(
    jobs: Iterable[Job],
    descriptions: dict[str, dict],
    needs: Callable[[Job], list[Job]],
    run_dir: Path,
) -> dict[Job, str]:
    """Find the jobs that must run, in order, with the reason.

    Parameters
    ----------
    jobs : iterable of Job
        All jobs wanted, every one after those that it needs.
    descriptions : dict
        By chapter, from `describe_chapter`.
    needs : callable
        Gives the jobs whose results a job reads.
    run_dir : Path
        Folder of the run.
    """
    jobs = list(jobs)
    reasons = {job: why_stale(job, descriptions[job.chapter], needs(job), run_dir) for job in jobs}
    verified: set[Job] = set()
    while True:
        stale = _with_followers(reasons, needs)
        read = {need for job in stale for need in needs(job)} - verified - set(stale)
        verified |= read
        damages = {job: damaged_output(job, run_dir, {}) for job in read if job in reasons}
        if not any(damages.values()):
            return stale
        reasons |= damages


def _with_followers(
    reasons: dict[Job, str | None], needs: Callable[[Job], list[Job]]
) -> dict[Job, str]:
    """Add the jobs that read results which will be new."""
    stale: dict[Job, str] = {}
    for job, reason in reasons.items():
        again = [need for need in needs(job) if need in stale]
        if reason is None and again:
            reason = f"{again[0]} runs again"
        if reason is not None:
            stale[job] = reason
    return stale


def _difference(known: dict, now: dict) -> str | None:
    if known.get("code") != now["code"]:
        return "the notebook's code has changed"
    for kind, phrase in (
        ("profile", "section {} of the profile has changed"),
        ("modules", "{} has changed"),
        ("assets", "eeglib/{} has changed"),
        ("needs", "the results of {} have changed"),
    ):
        before, after = known.get(kind, {}), now[kind]
        changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
        if changed:
            return phrase.format(changed[0])
    return None


def _module_path(name: str, package: Path) -> Path | None:
    first, *rest = name.split(".")
    if first != package.name:
        return None
    path = package.joinpath(*rest)
    candidates = [path / "__init__.py", *([path.with_suffix(".py")] if rest else [])]
    return next((c for c in candidates if c.is_file()), None)


def _read_module(path: Path, name: str, is_package: bool) -> tuple[str, list[str]]:
    source = path.read_text(encoding="utf-8")
    return _code_only(source), _imports(source, name if is_package else name.rpartition(".")[0])


@cache
def _code_only(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            del body[0]
    return _short(ast.dump(tree))


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(source: str, package: str) -> list[str]:
    """Dotted names that a source imports; relative ones count from ``package``."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            # `from eeglib import filtering` imports a module, `from eeglib.x import f` a name.
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md"):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(sha256_of(path).encode())
    return digest.hexdigest()[:16]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
