"""A project of four chapters that take no time, for tests of running and building."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from eeglib.profile import Profile, load_profile
from eeglib.workflow.run import Request
from eeglib.workflow.stages import Stage, site_folder

STAGES = (
    Stage("01_download_data", False),
    Stage("02_filter_signals", True, ("01_download_data",)),
    Stage("05_distill_student", True, ("02_filter_signals",)),
    Stage("09_summarize_group", False, ("05_distill_student",)),
)

WORK = {
    "01_download_data": (
        "assert subject == chapter.profile.dataset.subjects[0]\n"
        'chapter.output("stimuli.csv").write_text("image,label")'
    ),
    "02_filter_signals": (
        'data = chapter.input("01_download_data", "stimuli.csv").read_text()\n'
        'chapter.output("epochs.txt").write_text(f"{data} {subject}")'
    ),
    # Fails for the subject whose number is the profile's seed.
    "05_distill_student": (
        'chapter.input("02_filter_signals", "epochs.txt")\nshare = 1 / (subject - profile_seed)'
    ),
    "09_summarize_group": 'subjects = list(chapter.results("05_distill_student"))',
}
FINISH = {
    "05_distill_student": (
        "import pandas as pd\n\n"
        'row = {"metric": "top-1 accuracy", "method": "student", "n": 80}\n'
        'row |= {"value": 0.5, "chance": 0.1, "low": 0.4, "high": 0.6}\n'
        "chapter.finish(pd.DataFrame([row]));"
    ),
    "09_summarize_group": 'chapter.finish(facts={"subjects": subjects});',
}
FIGURE = """import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([0, share], label="a line")
axes.set(xlabel="time (s)", ylabel="voltage (uV)")
chapter.save_figure(figure, "line")"""
PARAMETERS = 'subject = 7\nprofile = "demo"\nrun_dir = "runs/demo"'
TEXT = """## What it means

(tiny-label)=
## A labelled section

An equation $\\alpha^2$ and one that stands alone:

$$ L = \\alpha L_1 + (1 - \\alpha) L_2 $$ (tiny-loss)

:::{exercise}
:label: tiny-exercise
What is $\\alpha$ in {eq}`tiny-loss`?
:::

:::{solution} tiny-exercise
:class: dropdown
One half.
:::
"""


def write_notebooks(folder: Path) -> Path:
    """Write the four notebooks."""
    folder.mkdir(parents=True, exist_ok=True)
    for chapter in STAGES:
        per_subject = chapter.per_subject
        opening = f'chapter = open_chapter("{chapter.name}", profile, run_dir'
        opening += ", subject)" if per_subject else ")"
        cells = [
            new_markdown_cell(f"# Chapter {chapter.name[:2]}\n\nA sentence."),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell(f"from eeglib.chapter import open_chapter\n\n{opening}"),
            new_code_cell("profile_seed = chapter.profile.seed"),
            new_code_cell(WORK[chapter.name]),
        ]
        if chapter.name == "05_distill_student":
            image = {"mystnb": {"image": {"alt": "A straight line that rises."}}}
            cells += [new_markdown_cell(TEXT), new_code_cell(FIGURE, metadata=image)]
        cells.append(new_code_cell(FINISH.get(chapter.name, "chapter.finish();")))
        notebook = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
        nbformat.write(notebook, folder / f"{chapter.name}.ipynb")
    return folder


def write_site(folder: Path) -> Path:
    """Write a book of the four chapters, with the project's own configuration."""
    write_notebooks(folder / "notebooks")
    (folder / "book").mkdir()
    shutil.copy(site_folder() / "_config.yml", folder)
    shutil.copy(site_folder() / "book" / "references.bib", folder / "book")
    shutil.copytree(site_folder() / "book" / "_static", folder / "book" / "_static")
    (folder / "book" / "introduction.md").write_text("# A tiny book\n\nWelcome.\n")
    chapters = [{"file": f"notebooks/{chapter.name}"} for chapter in STAGES]
    toc = {"format": "jb-book", "root": "book/introduction"}
    toc["parts"] = [{"caption": "Chapters", "chapters": chapters}]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    return folder


def tiny_profile(**overrides) -> Profile:
    """The demo's profile, changed by dotted keys."""
    return load_profile("demo", {key.replace("__", "."): v for key, v in overrides.items()})


def tiny_request(notebooks: Path, run_dir: Path, **changes) -> Request:
    """A request to run the four chapters for two subjects, two at a time."""
    values = {"profile": tiny_profile(), "subjects": (1, 2), "stages": STAGES, "jobs": 2}
    return Request(run_dir=run_dir, notebooks=notebooks, **{**values, **changes})


def edit_cell(notebook: Path, old: str, new: str) -> None:
    """Replace text in every cell of a notebook; it must occur."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in content["cells"]]
    assert any(old in source for source in sources)
    for cell, source in zip(content["cells"], sources, strict=True):
        cell["source"] = source.replace(old, new)
    notebook.write_text(json.dumps(content), encoding="utf-8")
