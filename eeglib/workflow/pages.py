"""Pages of the book that are made from a run: chapters, subjects, execution times."""

from __future__ import annotations

import copy
import re
from collections.abc import Container, Iterable, Sequence
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
    """What a run left of one job; None for what is not there."""

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
    done = (folder / METRICS).is_file() and failure is None
    notebook = None
    if with_notebook and (done or failure) and (folder / NOTEBOOK).is_file():
        try:
            notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
        except Exception:  # nbformat raises many kinds for broken files
            # A full disk leaves half a notebook; what failed is known without it.
            if done:
                raise
    metrics = load_metrics(folder) if done else None
    return Result(job, metrics, load_provenance(folder) if done else None, failure, notebook)


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
        broken = ("error", "stderr") if result.failure else ()
        for target, cell in zip(targets, executed, strict=True):
            target.execution_count = cell.execution_count
            target.outputs = [
                output
                for output in cell.outputs
                if output.output_type not in broken and output.get("name") not in broken
            ]
    if note:
        page.cells.insert(1, new_markdown_cell(note))
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
    cells, heading = [new_markdown_cell(intro)], None
    for cell in page.cells:
        if cell.cell_type == "markdown":
            heading = (_headings(cell.source) or [heading])[-1]
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


def subject_overview(subject: int, results: list[Result], titles: dict[str, str]) -> str:
    """Markdown of a subject's own page: scores, chapters, how long they took."""
    rows = [
        [
            titles[result.job.chapter],
            getattr(score, "method", ""),
            score.metric,
            _number(score.value),
            _number(score.chance),
            score.n,
            "" if score.low is None else f"{_number(score.low)} to {_number(score.high)}",
        ]
        for result in results
        if result.metrics
        for score in result.metrics.scores
    ]
    head = ["chapter", "method", "score", "value", "chance", "n", "interval"]
    scores = f"\n\n## Scores\n\n{_table(head, rows)}" if rows else ""
    return f"# Subject {subject}\n\n## Chapters\n\n{_times(results, titles, True)}{scores}\n"


def subjects_index(statuses: Sequence[JobStatus], with_pages: Container[int]) -> str:
    """Markdown of the page that shows where the run stands: all subjects, all chapters.

    Subjects ``with_pages`` of their own are linked.
    """
    of_subject: dict[int | None, list[JobStatus]] = {}
    for status in statuses:
        of_subject.setdefault(status.job.subject, []).append(status)
    group = [[_chapter(s.job), s.text] for s in of_subject.pop(None, [])]
    rows = [
        [f"{{doc}}`/subjects/sub-{s:02d}/index`" if s in with_pages else s, *(x.text for x in xs)]
        for s, xs in of_subject.items()
    ]
    chapters = [_chapter(status.job) for status in next(iter(of_subject.values()), [])]
    parts = [f"# All subjects\n\nChapters: {count_states(statuses)}."]
    parts += [_table(["once for all subjects", ""], group), _table(["subject", *chapters], rows)]
    reasons = [s for s in statuses if s.state in ("failed", "stale")]
    if reasons:
        lines = [f"- `{s.job}`: {s.state}: `{_one_line(s.reason)}`" for s in reasons]
        parts += ["## What failed or is stale", "\n".join(lines)]
    parts.append("A chapter is *stale* if what it was computed from has changed since.")
    return "\n\n".join(parts) + "\n"


def execution_times(results: list[Result], titles: dict[str, str], one_by_one: bool) -> str:
    """Markdown of the page of execution times: of each job, or of each chapter over subjects."""
    done = [result for result in results if result.provenance]
    total = sum(result.seconds or 0 for result in done)
    peak = max((result.provenance.peak_memory_mb for result in done), default=0)
    devices = sorted({result.provenance.device for result in done})
    rows = []
    for chapter, title in titles.items():
        costs = [r.provenance for r in done if r.job.chapter == chapter]
        if costs:
            seconds = [cost.seconds for cost in costs]
            memory = max(cost.peak_memory_mb for cost in costs)
            numbers = [f"{median(seconds):.1f}", f"{max(seconds):.1f}", f"{memory:.0f}"]
            rows.append([title, len(costs), *numbers])
    over = _table(["chapter", "n", "median, s", "longest, s", "most memory, MB"], rows)
    return (
        "# Execution times\n\n"
        f"All chapters together took {total:.0f} s, one after the other; the largest needed "
        f"{peak:.0f} MB. Device: {', '.join(devices) or 'none'}. *Total* is from the start of a "
        "kernel to its end, *computing* from the chapter's first call to its last.\n\n"
        f"{_times(results, titles, link=False) if one_by_one else over}\n"
    )


def title_of(source: NotebookNode, chapter: str) -> str:
    """First heading of a notebook."""
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    title = re.search(r"^# (.+)", text, re.MULTILINE)
    return title[1].strip() if title else chapter


def _times(results: list[Result], titles: dict[str, str], link: bool) -> str:
    rows = []
    for result in results:
        title, cost = titles[result.job.chapter], result.provenance
        if link and result.status != "not run":
            title = f"{{doc}}`{title} </subjects/{result.job}>`"
        rows.append(
            [
                title,
                result.job.subject or "all",
                "" if result.seconds is None else f"{result.seconds:.1f}",
                f"{cost.seconds:.1f}" if cost else "",
                f"{cost.peak_memory_mb:.0f}" if cost else "",
                result.status,
            ]
        )
    head = ["chapter", "subject", "total, s", "computing, s", "memory, MB", "status"]
    return _table(head, rows)


def _table(head: list[str], rows: Iterable[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _chapter(job: Job) -> str:
    return f"chapter {int(job.chapter[:2])}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())[:200]


def _note(result: Result) -> str:
    """Markdown box that says that a chapter failed or has not run; empty if it is done."""
    whose = "" if result.job.subject is None else f" for subject {result.job.subject}"
    if result.failure is not None:
        failure = result.failure
        text = f"{failure.error}: {failure.message}\n\n{failure.traceback}".rstrip()
        where = f"Cell In [{failure.cell}], line {failure.line}.\n\n" if failure.cell else ""
        return _box(
            "error",
            f"This chapter failed{whose}",
            f"{where}The executed notebook is kept in the run's folder as "
            f"`{result.job}/{NOTEBOOK}`.\n\n`````text\n{text}\n`````",
        )
    if result.metrics is None:
        return _box("warning", f"This chapter has not run{whose}", "Run it with `eeglib run`.")
    return ""


def _box(kind: str, title: str, text: str) -> str:
    return f"::::{{admonition}} {title}\n:class: {kind}\n\n{text}\n::::\n"


def _headings(markdown: str) -> list[str]:
    """Headings below the title, outside code and directives."""
    text = re.sub(r"^\s*(`{3,}|:{3,}).*?^\s*\1\s*$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#{2,6}\s+(.+?)\s*#*$", text, re.MULTILINE)
