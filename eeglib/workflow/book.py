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
from eeglib.profile import Profile, load_profile
from eeglib.workflow import pages
from eeglib.workflow.dependencies import read_notebook
from eeglib.workflow.run import Request
from eeglib.workflow.stages import STAGES, Job, Stage, jobs_of, site_folder
from eeglib.workflow.status import read_status

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
SUBJECTS_LINK = "## Subject by subject\n\nWhat each chapter found: {doc}`/subjects/index`."
SUBJECT_PAGES = 50
"""With more subjects than this the book lists them but gives them no pages of their own."""


class BookError(RuntimeError):
    """The book cannot be built, or its pages have faults; the message names the pages."""


def build_book(
    run_dir: str | Path, site: Path | None = None, chapters: tuple[Stage, ...] = STAGES
) -> Path:
    """Build the HTML book of a run.

    Parameters
    ----------
    run_dir : str | Path
        Folder of the run.
    site : Path | None
        Folder with ``_config.yml``, ``_toc.yml``, ``book`` and ``notebooks``; the project's own
        where left out.
    chapters : tuple of Chapter
        The table of chapters.

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
    staging = stage_book(run_dir, site or site_folder(), chapters)
    log = run_dir / "book.log"
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(staging)]
    command += ["--warningiserror", "--keep-going", "--quiet"]
    environment = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    write_text(log, done.stdout + done.stderr)
    html = staging / "_build" / "html"
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()
        told = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-15:]
        raise BookError(f"The book was not built without warnings ({log}):\n" + "\n".join(told))
    faults = page_faults(html)
    if faults:
        raise BookError("Pages with faults:\n" + "\n".join(faults))
    return html / "index.html"


def stage_book(run_dir: Path, site: Path, chapters: tuple[Stage, ...] = STAGES) -> Path:
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
    sources = {c.name: read_notebook(site / "notebooks" / f"{c.name}.ipynb") for c in chapters}
    subjects = _subjects_run(profile, run_dir)
    one_by_one = len(subjects) <= SUBJECT_PAGES
    results = {
        job: pages.read_result(job, run_dir, one_by_one or job.subject in (None, subjects[0]))
        for c in chapters
        for job in jobs_of(c, subjects)
    }
    for chapter in chapters:
        job = jobs_of(chapter, subjects[:1])[0]
        page = pages.chapter_page(sources[chapter.name], results[job])
        if chapter == chapters[-1]:
            page.cells.append(new_markdown_cell(SUBJECTS_LINK))
        _write_page(staging / "notebooks" / f"{chapter.name}.ipynb", page)
    titles = {name: pages.title_of(source, name) for name, source in sources.items()}
    with_pages = subjects if one_by_one else []
    part = _stage_subjects(staging, sources, titles, with_pages, results)
    everybody = profile.dataset.subjects
    request = Request(profile, run_dir, everybody, site / "notebooks", chapters)
    index = pages.subjects_index(read_status(request), with_pages)
    write_text(_made(staging / "subjects") / "index.md", index)
    times = pages.execution_times(list(results.values()), titles, one_by_one)
    write_text(staging / "execution_times.md", times)
    toc = yaml.safe_load((site / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"].insert(1, part)
    write_text(staging / "_toc.yml", yaml.safe_dump(toc, sort_keys=False))
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


def _stage_subjects(
    staging: Path,
    sources: dict[str, nbformat.NotebookNode],
    titles: dict[str, str],
    subjects: list[int],
    results: dict[Job, pages.Result],
) -> dict:
    """Write the subjects' pages; return their part of the table of contents."""
    of_subject = {s: [r for r in results.values() if r.job.subject == s] for s in subjects}
    sections = []
    for subject in subjects:
        folder = f"subjects/{subject_folder(subject)}"
        overview = pages.subject_overview(subject, of_subject[subject], titles)
        write_text(_made(staging / folder) / "index.md", overview)
        shown = [result for result in of_subject[subject] if result.status != "not run"]
        for result in shown:
            name = result.job.chapter
            page = pages.subject_page(sources[name], result)
            _write_page(staging / folder / f"{name}.ipynb", page)
        entries = [{"file": f"{folder}/{result.job.chapter}"} for result in shown]
        sections.append({"file": f"{folder}/index", **({"sections": entries} if entries else {})})
    index = {"file": "subjects/index", **({"sections": sections} if sections else {})}
    return {"caption": "This run", "chapters": [index, {"file": "execution_times"}]}


def _subjects_run(profile: Profile, run_dir: Path) -> list[int]:
    subjects = [s for s in profile.dataset.subjects if (run_dir / subject_folder(s)).is_dir()]
    return subjects or list(profile.dataset.subjects[:1])


def _write_page(path: Path, page: nbformat.NotebookNode) -> None:
    nbformat.validate(page)
    write_text(_made(path.parent) / path.name, json.dumps(page, ensure_ascii=False, indent=1))


def _output_faults(pages_folder: Path) -> list[str]:
    """Warnings and errors in the outputs of the staged notebooks, a few lines each."""
    faults = []
    for path in sorted(pages_folder.rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error" or output.get("name") == "stderr":
                    told = output.get("text") or f"{output.get('ename')}: {output.get('evalue')}"
                    where = path.relative_to(pages_folder)
                    first = cell.source.strip().split("\n")[0]
                    faults.append(f"{where}, cell that begins `{first}`:\n  {told.strip()[:500]}")
    return faults


def _copy_mathjax(folder: Path) -> None:
    """Copy MathJax with its fonts, so that formulas show without a network."""
    source = Path(str(files("mathjax"))) / "static" / "mathjax" / "es5"
    fonts = Path("output") / "chtml" / "fonts" / "woff-v2"
    shutil.copytree(source / fonts, folder / fonts)
    shutil.copy(source / "tex-chtml-full.js", folder)
    shutil.copy(source.parent / "LICENSE", folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
