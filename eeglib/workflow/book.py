"""Building the book from what a run left: write its pages, look for faults, build them.

Jupyter Book builds a staging folder inside the run's folder: the prose, the chapters with the
outputs of the run's first subject, a section of pages for every subject, and the execution times.
Nothing is executed and nothing is fetched: MathJax comes from a package and is copied beside the
pages.
"""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from tabulate import tabulate

import eeglib
from eeglib.chapter import NOTEBOOK, Score, data_folder, subject_folder, write_text
from eeglib.datasets import open_dataset
from eeglib.profile import load_profile
from eeglib.workflow.dependencies import code_cells, is_from_papermill, read_notebook
from eeglib.workflow.run import Request
from eeglib.workflow.stages import STAGES, Stage, site_folder
from eeglib.workflow.status import Result, describe_status, read_status

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
SUBJECTS_LINK = "## Subject by subject\n\nWhat each chapter found: {doc}`/subjects/index`."
Stages = tuple[Stage, ...]
SLIDES = "slides"
HEAD = re.compile(r"<thead>.*?</thead>", re.DOTALL)
BUTTONS = re.compile(r'<div class="dropdown dropdown-(?:launch|source)-b.*?</div>', re.DOTALL)
SUBJECT_PAGES = 50  # with more subjects the book lists them but gives them no pages of their own


class BookError(RuntimeError):
    """The book cannot be built, or its pages have faults; the message names the pages."""


def build_book(
    run_dir: str | Path, site: Path | None = None, stages: Stages = STAGES, slides: bool = False
) -> Path:
    """Build the HTML book of a run, with ``slides`` if asked for; returns its ``index.html``.

    The folder ``site`` has ``_config.yml``, ``_toc.yml``, ``book`` and ``notebooks``; it is the
    project's own where left out. Raises BookError if nothing has run, if a page has error output
    or a warning in it, or the builder warns.
    """
    run_dir, site = Path(run_dir).resolve(), site or site_folder()
    if not (run_dir / "profile.yml").is_file():
        raise BookError(f"Nothing has run in {run_dir}. Run it first: eeglib run --run-dir ...")
    staging = stage_book(run_dir, site, stages, slides)
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
    for path in html.rglob("*.html"):
        source = site / path.relative_to(html)
        made = not any(source.with_suffix(kind).is_file() for kind in (".md", ".ipynb"))
        write_text(path, mend_page(path.read_text(encoding="utf-8"), made))
    if (run_dir / SLIDES).is_dir():
        shutil.copytree(run_dir / SLIDES, html / SLIDES)
    return html / "index.html"


def stage_book(run_dir: Path, site: Path, stages: Stages = STAGES, slides: bool = False) -> Path:
    """Write everything that Jupyter Book builds into ``<run_dir>/book``, slides beside it."""
    profile = load_profile(run_dir / "profile.yml")
    staging = run_dir / "book"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(site / "book", staging / "book")
    config = yaml.safe_load((site / "_config.yml").read_text(encoding="utf-8"))
    write_text(staging / "_config.yml", yaml.safe_dump(complete_config(config)))
    # MathJax with its fonts, so that formulas show without a network.
    mathjax, target = Path(str(files("mathjax"))) / "static/mathjax", staging / "_static/mathjax"
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(mathjax / "es5" / fonts, target / fonts)
    for file in ("es5/tex-chtml-full.js", "LICENSE"):
        shutil.copy(mathjax / file, target)
    sources = {s.name: read_notebook(site / "notebooks" / f"{s.name}.ipynb") for s in stages}
    # Each begins with its title.
    titles = {n: s.cells[0].source.partition("\n")[0].strip("# ") for n, s in sources.items()}
    everybody = profile.dataset.subjects
    dataset = open_dataset(profile.dataset, data_folder(run_dir))
    statuses = read_status(Request(profile, run_dir, everybody, site / "notebooks", stages))
    subjects = [s for s in everybody if (run_dir / subject_folder(s)).is_dir()] or everybody[:1]
    results = [result for result in statuses if result.job.subject in (None, *subjects)]
    with_pages = subjects if len(subjects) <= SUBJECT_PAGES else []
    pages = {}
    for name, source in sources.items():
        first = next(result for result in results if result.job.chapter == name)
        page = pages[name] = chapter_page(source, first)
        if name == stages[-1].name:
            page.cells.append(new_markdown_cell(SUBJECTS_LINK))
        _write(staging / "notebooks" / f"{name}.ipynb", page)
    if slides:
        from eeglib.workflow.slides import write_slides

        shutil.rmtree(run_dir / SLIDES, ignore_errors=True)
        shutil.copytree(target, run_dir / SLIDES / "mathjax")
        write_slides(run_dir / SLIDES, pages, dataset.caution, site)
    index: dict[str, Any] = {"file": "subjects/index"}
    for subject in with_pages:
        folder = f"subjects/{subject_folder(subject)}"
        own = [result for result in results if result.job.subject == subject]
        overview = subject_overview(subject, own, titles, dataset.caution)
        _write(staging / folder / "index.md", overview)
        section: dict[str, Any] = {"file": f"{folder}/index"}
        for result in own:
            if result.state != "not yet":
                page = subject_page(sources[result.job.chapter], result, titles)
                _write(staging / "subjects" / f"{result.job}.ipynb", page)
                section.setdefault("sections", []).append({"file": f"subjects/{result.job}"})
        index.setdefault("sections", []).append(section)

    def link(subject: int) -> str:
        page = f"{{doc}}`/subjects/{subject_folder(subject)}/index`"
        return page if subject in with_pages else str(subject)

    table = describe_status(statuses, "pipe", link)
    stale = "A chapter is *stale* if what it was computed from has changed since."
    _write(staging / "subjects" / "index.md", f"# All subjects\n\n{table}\n\n{stale}\n")
    _write(staging / "execution_times.md", execution_times(results, titles))
    toc = yaml.safe_load((site / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [index, {"file": "execution_times"}]
    if (run_dir / SLIDES).is_dir():
        lines = [f'- <a href="{SLIDES}/{name}.html">{title}</a>' for name, title in titles.items()]
        _write(staging / f"{SLIDES}.md", "\n".join(["# Slides", "", *lines, ""]))
        chapters.append({"file": SLIDES})
    toc["parts"].insert(1, {"caption": "This run", "chapters": chapters})
    _write(staging / "_toc.yml", yaml.safe_dump(toc, sort_keys=False))
    if faults := _output_faults(staging):
        raise BookError("\n".join(["Cells show warnings or errors; run them again:", *faults]))
    return staging


def _write(path: Path, page: NotebookNode | str) -> None:
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


def chapter_page(source: NotebookNode, result: Result) -> NotebookNode:
    """Put the outputs of the executed notebook into the chapter's current text.

    Editing a sentence of a chapter runs nothing again; so the text comes from the source, the
    outputs from what was executed. If the code differs, the executed notebook is shown as it is.
    """
    page = copy.deepcopy(source)
    note = _note(result)
    if result.notebook is not None:
        own = [cell for cell in result.notebook.cells if not is_from_papermill(cell)]
        executed = [cell for cell in own if cell.cell_type == "code"]
        if [cell.source for cell in executed] != code_cells(source):
            page.cells = copy.deepcopy(own)
            note = note or _box("warning", "Edited since", "The chapter's code has changed since.")
        targets = [cell for cell in page.cells if cell.cell_type == "code"]
        # The note at the top tells the failure; the page itself stays free of error output.
        broken = {"error", "stderr"} if result.failure else set()
        for target, cell in zip(targets, executed, strict=True):
            kept = [o for o in cell.outputs if not broken & {o.output_type, o.get("name")}]
            target.execution_count, target.outputs = cell.execution_count, kept
    if note:
        page.cells.insert(1, new_markdown_cell(note))
    page.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
    )
    return page


def subject_page(source: NotebookNode, result: Result, titles: dict[str, str]) -> NotebookNode:
    """Make a subject's page of a chapter: headings and outputs; the text stands in the chapter."""
    chapter, page = result.job.chapter, chapter_page(source, result)
    intro = f"# {titles[chapter]}: subject {result.job.subject}\n\n"
    intro += f"What was done and how to read it: {{doc}}`/notebooks/{chapter}`.\n\n{_note(result)}"
    cells, heading = [new_markdown_cell(intro)], None
    for cell in page.cells:
        if cell.cell_type == "markdown":
            heading = (_headings(cell.source) or [heading])[-1]
        elif {"solution", "check"} & set(cell.metadata.get("tags", [])):
            continue
        elif cell.cell_type == "code" and cell.outputs:
            if heading:
                cells.append(new_markdown_cell(f"## {heading}"))
                heading = None
            tags = sorted({*cell.metadata.get("tags", []), "remove-input"})
            settings = copy.deepcopy(cell.metadata.get("mystnb", {}))
            for kind in ("figure", "image"):
                # A label may stand once in the book, and it stands in the chapter.
                settings.get(kind, {}).pop("name", None)
            cell.metadata = NotebookNode(tags=tags, mystnb=settings)
            cells.append(cell)
    page.cells = cells
    return page


def subject_overview(
    subject: int,
    results: Sequence[Result],
    titles: dict[str, str],
    caution: tuple[str, str] | None,
) -> str:
    """Markdown of a subject's own page: its chapters, how long they took, and their scores."""
    chapters, scores = [], []
    for result in results:
        title, cost = titles[result.job.chapter], result.provenance or {}
        link = title if result.state == "not yet" else f"{{doc}}`{title} </subjects/{result.job}>`"
        row = {"chapter": link, "status": result.state, "total, s": result.seconds}
        row |= {"computing, s": cost.get("seconds"), "memory, MB": cost.get("peak_memory_mb")}
        chapters.append(row)
        for score in result.metrics.scores if result.metrics else []:
            row = {name: getattr(score, name, "") for name in ("method", *Score.model_fields)}
            scores.append({"chapter": result.job.chapter[:2].lstrip("0"), **row})
    box = _box("warning", *caution) if caution else ""
    text = f"# Subject {subject}\n\n{box}\n## Chapters\n\n{_table(chapters, '.1f')}\n"
    return text + (f"\n## Scores\n\n{_table(scores, '.3f')}\n" if scores else "")


def execution_times(results: Sequence[Result], titles: dict[str, str]) -> str:
    """Markdown of the page of execution times: of each chapter, over subjects."""
    rows = []
    for chapter, title in titles.items():
        costs = [r.provenance for r in results if r.job.chapter == chapter and r.provenance]
        if costs:
            seconds = [cost["seconds"] for cost in costs]
            row = {"chapter": title, "n": len(costs), "device": costs[0]["device"]}
            row |= {"median, s": median(seconds), "longest, s": max(seconds)}
            rows.append(row | {"most memory, MB": max(cost["peak_memory_mb"] for cost in costs)})
    total = sum(result.provenance["seconds"] for result in results if result.provenance)
    text = f"All chapters together took {total:.0f} s, one after the other. "
    text += "How long each subject took stands on the subject's own page."
    return f"# Execution times\n\n{text}\n\n{_table(rows, '.1f')}\n"


def _table(rows: list[dict], form: str) -> str:
    return tabulate(rows, "keys", "pipe", floatfmt=form, missingval="")


def _note(result: Result) -> str:
    """Markdown box that says that a chapter failed or has not run; empty if it is done."""
    whose = "" if result.job.subject is None else f" for subject {result.job.subject}"
    if (failure := result.failure) is not None:
        text = f"Cell In [{failure.cell}], line {failure.line}.\n\n" if failure.cell else ""
        text += f"The executed notebook is in the run's folder: `{result.job}/{NOTEBOOK}`."
        cause = f"{failure.error}: {failure.message}\n\n{failure.traceback}".rstrip()
        text += f"\n\n`````text\n{cause}\n`````"
        return _box("error", f"This chapter failed{whose}", text)
    if result.metrics is None:
        return _box("warning", f"This chapter has not run{whose}", "Run it with `eeglib run`.")
    return ""


def _box(kind: str, title: str, text: str) -> str:
    return f"::::{{admonition}} {title}\n:class: {kind}\n\n{text}\n::::\n"


def _headings(markdown: str) -> list[str]:
    """Headings below the title, outside code and directives."""
    text = re.sub(r"^\s*(`{3,}|:{3,}).*?^\s*\1\s*$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#{2,6}\s+(.+?)\s*#*$", text, re.MULTILINE)


def complete_config(config: dict[str, Any]) -> dict[str, Any]:
    """Name the version below the pages; without a repository no button leads to one."""
    config["html"]["extra_footer"] = f"<p>eeglib {eeglib.__version__}, MIT licence.</p>"
    if not config["repository"]["url"]:
        del config["launch_buttons"]
        for what in ("repository", "edit_page", "issues"):
            del config["html"][f"use_{what}_button"]
    return config


def mend_page(text: str, made: bool = False) -> str:
    """Give the HTML of a page what a screen reader needs; ``made`` pages have no source to edit."""
    text = HEAD.sub(_head, text)
    empty = r'<th(?: scope="col")?([^>]*)>\s*(?:&nbsp;|<p>\s*</p>)?</th>'
    text = re.sub(empty, r"<td\1></td>", text)
    text = text.replace("<th>", '<th scope="row">')
    # What scrolls sideways must be reached with the keys.
    for box in ("pst-scrollable-table-container", "output text_html"):
        text = text.replace(f'<div class="{box}">', f'<div class="{box}" tabindex="0">')
    text = text.replace('role="doc-biblioentry"', 'role="listitem"')  # what a list must hold
    sidebar = '<div class="bd-sidebar-primary bd-sidebar"'
    text = text.replace(sidebar, f'{sidebar} role="complementary" aria-label="Contents"')
    # MathJax that is loaded twice stops with an error.
    if re.search(r'<script defer="defer" src="[^"]*mathjax', text):
        text = re.sub(r'<script src="[^"]*mathjax[^"]*"></script>', "", text)
    text = re.sub(r"(>([^<>]*)</a><details[^>]*><summary)>", r'\1 aria-label="Pages of \2">', text)
    return BUTTONS.sub("", text) if made else text


def _head(head: re.Match) -> str:
    """Say what the headings belong to, in one row where pandas writes the index below it."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", head[0], re.DOTALL)
    rows = [re.findall(r"<th[^>]*>(.*?)</th>", row, re.DOTALL) for row in found]
    text = head[0]
    if len(rows) == 2 and len(rows[0]) == len(rows[1]):
        pairs = list(zip(*rows, strict=True))
        if not any(above and below for above, below in pairs):
            cells = "".join(f"<th>{above or below}</th>" for above, below in pairs)
            text = f"<thead><tr>{cells}</tr></thead>"
    return re.sub(r"<th(?=[ >])", '<th scope="col"', text)
