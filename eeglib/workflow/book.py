"""Building the book from what a run left: stage the pages, build them, look for faults.

Jupyter Book builds a staging folder inside the run's folder: the prose, the chapters with the
outputs of the run's first subject, a section of pages for every subject, and the execution times.
Nothing is executed and nothing is fetched: MathJax comes from a package and is copied beside the
pages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell

from eeglib.chapter import subject_folder, write_text
from eeglib.profile import load_profile
from eeglib.workflow import pages
from eeglib.workflow.dependencies import read_notebook
from eeglib.workflow.run import Request
from eeglib.workflow.stages import STAGES, Stage, jobs_of, site_folder
from eeglib.workflow.status import read_status

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
SUBJECTS_LINK = "## Subject by subject\n\nWhat each chapter found: {doc}`/subjects/index`."
Stages = tuple[Stage, ...]
SUBJECT_PAGES = 50
"""With more subjects than this the book lists them but gives them no pages of their own."""


class BookError(RuntimeError):
    """The book cannot be built, or its pages have faults; the message names the pages."""


def build_book(run_dir: str | Path, site: Path | None = None, stages: Stages = STAGES) -> Path:
    """Build the HTML book of a run.

    Parameters
    ----------
    run_dir : str | Path
        Folder of the run.
    site : Path | None
        Folder with ``_config.yml``, ``_toc.yml``, ``book`` and ``notebooks``; the project's own
        where left out.
    stages : tuple of Stage
        The table of stages.

    Returns
    -------
    Path
        The book's ``index.html``.

    Raises
    ------
    BookError
        If nothing has run, if a page has error output or a warning in it, if the builder warns,
        or if a page would load something from the network.
    """
    run_dir = Path(run_dir).resolve()
    if not (run_dir / "profile.yml").is_file():
        raise BookError(f"Nothing has run in {run_dir}. Run it first: eeglib run --run-dir ...")
    staging = stage_book(run_dir, site or site_folder(), stages)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(staging)]
    command += ["--warningiserror", "--keep-going", "--quiet"]
    environment = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    log = run_dir / "book.log"
    write_text(log, done.stdout + done.stderr)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()
        faults = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-15:]
        raise BookError(f"The book was not built without warnings ({log}):\n" + "\n".join(faults))
    html = staging / "_build" / "html"
    faults = page_faults(html)
    if faults:
        raise BookError("Pages with faults:\n" + "\n".join(faults))
    return html / "index.html"


def stage_book(run_dir: Path, site: Path, stages: Stages = STAGES) -> Path:
    """Write everything that Jupyter Book builds, into ``<run_dir>/book``.

    Raises
    ------
    BookError
        If a notebook has error output or a warning in it.
    """
    profile = load_profile(run_dir / "profile.yml")
    staging = run_dir / "book"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(site / "book", staging / "book")
    shutil.copy(site / "_config.yml", staging)
    _copy_mathjax(staging / "_static" / "mathjax")
    sources = {s.name: read_notebook(site / "notebooks" / f"{s.name}.ipynb") for s in stages}
    titles = {name: pages.title_of(source, name) for name, source in sources.items()}
    everybody = profile.dataset.subjects
    subjects = [s for s in everybody if (run_dir / subject_folder(s)).is_dir()] or everybody[:1]
    with_pages = subjects if len(subjects) <= SUBJECT_PAGES else []
    results = {
        job: pages.read_result(job, run_dir, bool(with_pages) or job.subject in (None, subjects[0]))
        for stage in stages
        for job in jobs_of(stage, subjects)
    }
    for stage in stages:
        page = pages.chapter_page(sources[stage.name], results[jobs_of(stage, subjects)[0]])
        if stage == stages[-1]:
            page.cells.append(new_markdown_cell(SUBJECTS_LINK))
        _write(staging / "notebooks" / f"{stage.name}.ipynb", page)
    sections = []
    for subject in with_pages:
        folder = f"subjects/{subject_folder(subject)}"
        own = [result for job, result in results.items() if job.subject == subject]
        overview = pages.subject_overview(subject, own, titles)
        _write(staging / folder / "index.md", overview)
        ran = [result for result in own if result.status != "not run"]
        for result in ran:
            page = pages.subject_page(sources[result.job.chapter], result)
            _write(staging / "subjects" / f"{result.job}.ipynb", page)
        entries = [{"file": f"subjects/{result.job}"} for result in ran]
        sections.append({"file": f"{folder}/index", **({"sections": entries} if entries else {})})
    request = Request(profile, run_dir, everybody, site / "notebooks", stages)
    _write(
        staging / "subjects" / "index.md", pages.subjects_index(read_status(request), with_pages)
    )
    times = pages.execution_times([*results.values()], titles, bool(with_pages))
    _write(staging / "execution_times.md", times)
    toc = yaml.safe_load((site / "_toc.yml").read_text(encoding="utf-8"))
    index = {"file": "subjects/index", **({"sections": sections} if sections else {})}
    run_part = {"caption": "This run", "chapters": [index, {"file": "execution_times"}]}
    toc["parts"].insert(1, run_part)
    _write(staging / "_toc.yml", yaml.safe_dump(toc, sort_keys=False))
    faults = _output_faults(staging)
    if faults:
        raise BookError(
            "Cells show warnings or errors. Mend the causes and run the chapters again.\n"
            + "\n".join(faults)
        )
    return staging


def page_faults(html: Path) -> list[str]:
    """Look for what must not be in the built pages.

    Returns
    -------
    list of str
        One line per fault: error output, a warning, a figure without alternative text, or
        something that a browser would load from the network.
    """
    faults = []
    for path in sorted(html.rglob("*.html")):
        reader = _PageReader()
        reader.feed(path.read_text(encoding="utf-8"))
        faults += [f"{path.relative_to(html)}: {fault}" for fault in reader.faults]
    for path in sorted(html.rglob("*.css")):
        text = path.read_text(encoding="utf-8", errors="replace").replace('"', "").replace("'", "")
        if "url(http" in text or "url(//" in text or "@import http" in text:
            faults.append(f"{path.relative_to(html)}: loads from the network")
    return faults


class _PageReader(HTMLParser):
    """Collects the faults of one page."""

    LOADING = frozenset({"script", "img", "iframe", "source", "video", "audio", "embed", "object"})
    NAMING = frozenset({"canonical", "next", "prev", "search", "index", "author", "license"})

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        address = values.get("src") or values.get("data") or ""
        if tag == "link" and values.get("rel") not in self.NAMING:
            address = values.get("href", "")
        if tag in self.LOADING | {"link"} and address.startswith(("http:", "https:", "//")):
            self.faults.append(f"loads {address}")
        classes = values.get("class", "").split()
        if {"output", "traceback"} <= set(classes):
            self.faults.append("shows a traceback")
        if {"output", "stderr"} <= set(classes):
            self.faults.append("shows a warning")
        alternative = values.get("alt", "").strip()
        if tag == "img" and (not alternative or alternative.startswith(("../", "_images"))):
            self.faults.append(f"figure {values.get('src', '')[:80]} has no alternative text")


def _write(path: Path, page: nbformat.NotebookNode | str) -> None:
    """Write a page, whose cells have ids that are the same at every build."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(page, str):
        page.nbformat_minor = max(5, page.nbformat_minor)
        for number, cell in enumerate(page.cells):
            cell["id"] = f"cell-{number}"
        nbformat.validate(page)
        page = json.dumps(page, ensure_ascii=False, indent=1)
    write_text(path, page)


def _output_faults(pages_folder: Path) -> list[str]:
    """Warnings and errors in the outputs of the staged notebooks, a few lines each."""
    faults = []
    for path in sorted(pages_folder.rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error" or output.get("name") == "stderr":
                    text = output.get("text") or f"{output.get('ename')}: {output.get('evalue')}"
                    where = path.relative_to(pages_folder)
                    first = cell.source.strip().split("\n")[0]
                    faults.append(f"{where}, cell that begins `{first}`:\n  {text.strip()[:500]}")
    return faults


def _copy_mathjax(folder: Path) -> None:
    """Copy MathJax with its fonts, so that formulas show without a network."""
    source = Path(str(files("mathjax"))) / "static" / "mathjax" / "es5"
    fonts = Path("output") / "chtml" / "fonts" / "woff-v2"
    shutil.copytree(source / fonts, folder / fonts)
    shutil.copy(source / "tex-chtml-full.js", folder)
    shutil.copy(source.parent / "LICENSE", folder)
