"""Pages of the book that are made from a run: chapters, subjects, execution times."""

from __future__ import annotations

import copy
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from eeglib.chapter import METRICS, NOTEBOOK, Metrics, Provenance, load_metrics, load_provenance
from eeglib.workflow.dependencies import code_cells, is_from_papermill
from eeglib.workflow.job import Failure, load_failure
from eeglib.workflow.stages import Job
from eeglib.workflow.status import JobStatus, count_states


@dataclass(frozen=True)
class Result:
    """What a run left of one job.

    Attributes
    ----------
    job : Job
        Chapter and subject.
    metrics : Metrics | None
    provenance : Provenance | None
        None if the chapter did not finish.
    failure : Failure | None
        Why, if it failed.
    notebook : NotebookNode | None
        The executed notebook, if there is one.
    """

    job: Job
    metrics: Metrics | None
    provenance: Provenance | None
    failure: Failure | None
    notebook: NotebookNode | None

    @property
    def status(self) -> str:
        """One of done, skipped, failed, not run."""
        if self.failure is not None:
            return "failed"
        if self.metrics is None:
            return "not run"
        return "skipped" if "skipped" in self.metrics.facts else "done"

    @property
    def seconds(self) -> float | None:
        """From the start of the kernel to its end, s."""
        if self.notebook is not None:
            return self.notebook.metadata.get("papermill", {}).get("duration")
        return self.provenance.seconds if self.provenance else None


def read_result(job: Job, run_dir: Path, with_notebook: bool = True) -> Result:
    """Read what a run left of one job; its notebook only where a page will show it."""
    folder = run_dir / str(job)
    failure = load_failure(folder)
    metrics = load_metrics(folder) if (folder / METRICS).is_file() and failure is None else None
    executed = folder / NOTEBOOK
    shown = with_notebook and executed.is_file() and (metrics is not None or failure is not None)
    try:
        notebook = nbformat.read(executed, as_version=4) if shown else None
    except Exception:  # nbformat raises many kinds for broken files
        # A full disk leaves half a notebook; what failed is known without it.
        if failure is None:
            raise
        notebook = None
    provenance = load_provenance(folder) if metrics else None
    return Result(job, metrics, provenance, failure, notebook)


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
        for target, cell in zip(targets, executed, strict=True):
            target.execution_count = cell.execution_count
            target.outputs = _outputs(cell, result)
    if note:
        page.cells.insert(1, new_markdown_cell(note))
    _number_cells(page)
    page.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
    )
    return page


def subject_page(source: NotebookNode, result: Result) -> NotebookNode:
    """Make a subject's page of a chapter: headings and outputs; the text stands in the chapter."""
    chapter = result.job.chapter
    page = chapter_page(source, result)
    intro = (
        f"# {title_of(source, chapter)}: subject {result.job.subject}\n\n"
        f"What was done and how to read it: {{doc}}`/notebooks/{chapter}`.\n\n{_note(result)}"
    )
    cells = [new_markdown_cell(intro)]
    heading = None
    for cell in page.cells:
        if cell.cell_type == "markdown":
            heading = (_headings(cell.source) or [heading])[-1]
        elif cell.cell_type == "code" and cell.outputs:
            if heading:
                cells.append(new_markdown_cell(f"## {heading}"))
                heading = None
            tags = {*cell.metadata.get("tags", []), "remove-input"}
            settings = copy.deepcopy(cell.metadata.get("mystnb", {}))
            # A label may stand once in the book, and it stands in the chapter.
            settings.get("figure", {}).pop("name", None)
            settings.get("image", {}).pop("name", None)
            cell.metadata = NotebookNode(tags=sorted(tags), mystnb=settings)
            cells.append(cell)
    page.cells = cells
    _number_cells(page)
    return page


def subject_overview(subject: int, results: list[Result], titles: dict[str, str]) -> str:
    """Markdown of a subject's own page: scores, chapters, how long they took."""
    lines = [f"# Subject {subject}", "", "## Chapters", "", _times(results, titles, link=True)]
    rows = [
        _score_row(titles[result.job.chapter], score.model_dump())
        for result in results
        if result.metrics
        for score in result.metrics.scores
    ]
    if rows:
        head = "| chapter | method | score | value | chance | n | interval |"
        lines += ["", "## Scores", "", head, "|" + " --- |" * 7, *rows]
    return "\n".join(lines) + "\n"


def subjects_index(statuses: Sequence[JobStatus], with_pages: Container[int]) -> str:
    """Markdown of the page that shows where the run stands: all subjects, all chapters.

    Parameters
    ----------
    statuses : sequence of JobStatus
        From `eeglib.workflow.status.read_status`.
    with_pages : container of int
        Subjects that have pages of their own.
    """
    lines = ["# All subjects", "", f"Chapters: {count_states(statuses)}.", ""]
    group = [s for s in statuses if s.job.subject is None]
    lines += ["| once for all subjects | |", "| --- | --- |"]
    lines += [f"| chapter {int(s.job.chapter[:2])} | {s.text} |" for s in group]
    of_subject: dict[int, list[JobStatus]] = {}
    for status in statuses:
        if status.job.subject is not None:
            of_subject.setdefault(status.job.subject, []).append(status)
    chapters = [s.job.chapter for s in next(iter(of_subject.values()), [])]
    head = ["subject", *(f"chapter {int(name[:2])}" for name in chapters)]
    lines += ["", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for subject, states in of_subject.items():
        name = f"{{doc}}`/subjects/sub-{subject:02d}/index`" if subject in with_pages else subject
        lines.append("| " + " | ".join([str(name), *(s.text for s in states)]) + " |")
    told = [s for s in statuses if s.state in ("failed", "stale")]
    if told:
        lines += ["", "## What failed or is stale", ""]
        lines += [f"- `{s.job}`: {s.state}: `{_one_line(s.reason)}`" for s in told]
    lines += ["", "A chapter is *stale* if what it was computed from has changed since."]
    return "\n".join(lines) + "\n"


def execution_times(results: list[Result], titles: dict[str, str], one_by_one: bool) -> str:
    """Markdown of the page of execution times: of each job, or of each chapter over subjects."""
    done = [result for result in results if result.metrics]
    total = sum(result.seconds or 0 for result in done)
    peak = max((result.provenance.peak_memory_mb for result in done), default=0)
    devices = sorted({result.provenance.device for result in done})
    return (
        "# Execution times\n\n"
        f"All chapters together took {total:.0f} s, one after the other; the largest needed "
        f"{peak:.0f} MB. Device: {', '.join(devices) or 'none'}. *Total* is from the start of a "
        "kernel to its end, *computing* from the chapter's first call to its last.\n\n"
        + (_times(results, titles, link=False) if one_by_one else _times_over(results, titles))
        + "\n"
    )


def title_of(source: NotebookNode, chapter: str) -> str:
    """First heading of a notebook."""
    for cell in source.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return chapter


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())[:200]


def _times(results: list[Result], titles: dict[str, str], link: bool) -> str:
    head = ["chapter", "subject", "total, s", "computing, s", "memory, MB", "status"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for result in results:
        job = result.job
        title = titles[job.chapter]
        if link and result.status != "not run":
            title = f"{{doc}}`{title} </subjects/{job}>`"
        known = result.provenance
        cells = [
            title,
            "all" if job.subject is None else str(job.subject),
            "" if result.seconds is None else f"{result.seconds:.1f}",
            f"{known.seconds:.1f}" if known else "",
            f"{known.peak_memory_mb:.0f}" if known else "",
            result.status,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _times_over(results: list[Result], titles: dict[str, str]) -> str:
    """One row per chapter: how long it took and how much it needed, over subjects."""
    head = ["chapter", "n", "median, s", "longest, s", "most memory, MB"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for chapter, title in titles.items():
        known = [r.provenance for r in results if r.metrics and r.job.chapter == chapter]
        if known:
            seconds = [k.seconds for k in known]
            cells = [title, str(len(known)), f"{median(seconds):.1f}", f"{max(seconds):.1f}"]
            cells.append(f"{max(k.peak_memory_mb for k in known):.0f}")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _score_row(title: str, score: dict) -> str:
    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    interval = f"{text(score['low'])} to {text(score['high'])}" if score["low"] is not None else ""
    cells = [title, str(score.get("method", "")), score["metric"], text(score["value"])]
    cells += [text(score["chance"]), str(score["n"]), interval]
    return "| " + " | ".join(cells) + " |"


def _number_cells(page: NotebookNode) -> None:
    """Give every cell an id that is the same at every build."""
    page.nbformat_minor = max(5, page.nbformat_minor)
    for number, cell in enumerate(page.cells):
        cell["id"] = f"cell-{number}"


def _outputs(cell: NotebookNode, result: Result) -> list[NotebookNode]:
    if result.failure is None:
        return copy.deepcopy(cell.outputs)
    # The note at the top tells the failure; the page itself stays free of error output.
    broken = ("error", "stderr")
    return [
        copy.deepcopy(output)
        for output in cell.outputs
        if output.output_type not in broken and output.get("name") not in broken
    ]


def _note(result: Result) -> str:
    """Markdown box that says that a chapter failed or has not run; empty if it is done."""
    whose = "" if result.job.subject is None else f" for subject {result.job.subject}"
    if result.failure is not None:
        failure = result.failure
        text = f"{failure.error}: {failure.message}\n\n{failure.traceback}".rstrip()
        fence = "`" * 5
        where = f"Cell In [{failure.cell}], line {failure.line}.\n\n" if failure.cell else ""
        return _box(
            "error",
            f"This chapter failed{whose}",
            f"{where}The executed notebook is kept in the run's folder as "
            f"`{result.job}/{NOTEBOOK}`.\n\n{fence}text\n{text}\n{fence}",
        )
    if result.metrics is None:
        return _box("warning", f"This chapter has not run{whose}", "Run it with `eeglib run`.")
    return ""


def _box(kind: str, title: str, text: str) -> str:
    return f"::::{{admonition}} {title}\n:class: {kind}\n\n{text}\n::::\n"


def _headings(markdown: str) -> list[str]:
    """Headings below the title, outside code and directives."""
    found, fence = [], None
    for line in markdown.splitlines():
        mark = re.match(r"\s*(`{3,}|:{3,})", line)
        if mark and fence is None:
            fence = mark.group(1)
        elif mark and line.strip() == fence:
            fence = None
        elif fence is None and (match := re.match(r"#{2,6}\s+(.+?)\s*#*$", line)):
            found.append(match.group(1))
    return found
