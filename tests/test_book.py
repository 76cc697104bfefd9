"""The book: staging, building with warnings as errors, pages without faults or network."""

from __future__ import annotations

import re
import shutil
from collections import Counter

import nbformat
import pytest
from tiny_project import STAGES, edit_cell

import eeglib
from benchmarks._page_faults import page_faults, pages_of
from benchmarks.book import COUNTED, browser, look_at
from eeglib.chapter import FAILURE
from eeglib.workflow import book
from eeglib.workflow.book import BookError, build_book, mend_page, stage_book
from eeglib.workflow.stages import Job, site_folder

DATA, FILTER, STUDENT, GROUP = (stage.name for stage in STAGES)
TRACEBACK = "ZeroDivisionError Traceback\\n````\\n:::: Cell In[6], line 2"


@pytest.fixture(scope="module")
def built(tiny_site, tiny_run, tmp_path_factory):
    """The book of a run in which chapter 5 failed for subject 2."""
    run_dir = tmp_path_factory.mktemp("Büch er") / "run"
    shutil.copytree(tiny_run, run_dir)
    folder = run_dir / str(Job(STUDENT, 2))
    (folder / "metrics.json").unlink()
    (folder / FAILURE).write_text(
        '{"cell": 6, "line": 2, "error": "ZeroDivisionError", "message": "division by zero",'
        f' "traceback": "{TRACEBACK}"}}'
    )
    return build_book(run_dir, tiny_site, STAGES)


@pytest.fixture
def project(tiny_site, tiny_run, tmp_path):
    """Copies of the tiny book and its run."""
    shutil.copytree(tiny_site, tmp_path / "site")
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run", tmp_path / "site"


def html(built, page: str) -> str:
    return (built.parent / f"{page}.html").read_text(encoding="utf-8")


def test_the_book_has_a_page_for_everything_that_ran(built):
    found = {
        p.relative_to(built.parent).with_suffix("").as_posix() for p in built.parent.rglob("*.html")
    }
    expected = {"book/introduction", "execution_times", "subjects/index", "search"}
    expected |= {f"notebooks/{chapter.name}" for chapter in STAGES}
    for subject in ("sub-01", "sub-02"):
        expected |= {f"subjects/{subject}/{n}" for n in ("index", FILTER, STUDENT)}
    assert expected <= found


def test_nothing_is_loaded_from_the_network(built):
    assert page_faults(built.parent) == []
    page = html(built, f"notebooks/{STUDENT}")
    assert re.search(r'<script[^>]* src="\.\./_static/mathjax/tex-chtml-full\.js', page)
    static = built.parent / "_static" / "mathjax"
    assert (static / "tex-chtml-full.js").stat().st_size > 1e6
    assert len(list(static.rglob("*.woff"))) > 10
    assert "unpkg.com" not in page
    assert "cdnjs" not in page


def test_there_is_one_search_button(built):
    assert (
        html(built, f"notebooks/{STUDENT}").count(
            '<button class="btn btn-sm pst-navbar-icon search-button'
        )
        == 1
    )


def test_figures_carry_their_alternative_text(built):
    for page in (f"notebooks/{STUDENT}", f"subjects/sub-01/{STUDENT}"):
        assert html(built, page).count('alt="A straight line that rises."') == 1
        assert html(built, page).count("<img") == 1


def test_a_chapter_has_text_code_outputs_and_exercises(built):
    page = html(built, f"notebooks/{STUDENT}")
    assert "A labelled section" in page
    assert "Exercise 1" in page
    assert "subplots" in page
    assert "injected-parameters" not in page


def test_a_subjects_page_has_outputs_and_headings_only(built):
    page = html(built, f"subjects/sub-01/{STUDENT}")
    assert "Chapter 05: subject 1" in page
    assert "subplots" not in page
    assert "Exercise 1" not in page
    overview = html(built, "subjects/sub-01/index")
    assert "<p>0.400</p></td>" in overview
    assert "<p>80</p></td>" in overview
    assert 'class="warning admonition"' in overview
    assert "The signals of this run are simulated" in overview


def test_a_failed_chapter_is_shown_as_failed(built):
    page = html(built, f"subjects/sub-02/{STUDENT}")
    assert "This chapter failed for subject 2" in page
    assert "division by zero" in page
    assert f"sub-02/{STUDENT}/notebook.ipynb" in page
    for name in ("subjects/sub-02/index", "subjects/index"):
        assert "failed" in html(built, name)
    assert "failed" not in html(built, f"subjects/sub-01/{STUDENT}")


def test_the_group_page_leads_to_every_subject(built):
    assert 'href="../subjects/index.html"' in html(built, f"notebooks/{GROUP}")


def test_new_text_stands_on_the_page_without_a_run(project):
    run_dir, site = project
    edit_cell(site / "notebooks" / f"{FILTER}.ipynb", "A sentence.", "Quite new.")
    staged = nbformat.read(
        stage_book(run_dir, site, STAGES) / "notebooks" / f"{FILTER}.ipynb", as_version=4
    )
    assert "Quite new." in staged.cells[0].source
    assert not any("Edited since" in cell.source for cell in staged.cells)


def test_edited_code_is_not_shown_with_old_outputs(project):
    run_dir, site = project
    edit_cell(site / "notebooks" / f"{STUDENT}.ipynb", "1 / (subject", "3 / (subject")
    staged = nbformat.read(
        stage_book(run_dir, site, STAGES) / "notebooks" / f"{STUDENT}.ipynb", as_version=4
    )
    text = "\n".join(cell.source for cell in staged.cells)
    assert "Edited since" in text
    assert "1 / (subject" in text
    assert "3 / (subject" not in text


def test_a_chapter_that_has_not_run_says_so(project):
    run_dir, site = project
    shutil.rmtree(run_dir / "group" / GROUP)
    staged = stage_book(run_dir, site, STAGES) / "notebooks" / f"{GROUP}.ipynb"
    assert "has not run" in staged.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "output",
    [
        {"output_type": "stream", "name": "stderr", "text": "FutureWarning: old"},
        {"output_type": "error", "ename": "OldError", "evalue": "old", "traceback": ["old"]},
    ],
)
def test_warnings_and_errors_in_a_page_stop_the_build(project, output):
    run_dir, site = project
    path = run_dir / "sub-01" / FILTER / "notebook.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].outputs = [nbformat.from_dict(output)]
    nbformat.write(notebook, path)
    with pytest.raises(BookError, match=rf"{FILTER}.*(?s:.*)old"):
        stage_book(run_dir, site, STAGES)


def test_warnings_of_the_builder_stop_the_build(project):
    run_dir, site = project
    (site / "book" / "introduction.md").write_text("# Title\n\n{doc}`/nowhere`\n")
    with pytest.raises(BookError, match="nowhere"):
        build_book(run_dir, site, STAGES)


def test_without_a_run_there_is_no_book(tmp_path):
    with pytest.raises(BookError, match="eeglib run"):
        build_book(tmp_path)


def test_many_subjects_are_listed_without_pages(project, monkeypatch):
    monkeypatch.setattr(book, "SUBJECT_PAGES", 1)
    staging = stage_book(*project, STAGES)
    assert not (staging / "subjects" / "sub-01").exists()
    index = (staging / "subjects" / "index.md").read_text()
    assert re.search(r"\| *2 *\| done \d+ s \d\.\d GB *\| done", index)
    times = (staging / "execution_times.md").read_text()
    assert re.search(r"\| Chapter 05 *\| *2 *\|", times)


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', "loads //fonts.example"),
        ('<link rel="preconnect" href="https://fonts.example">', "loads https://fonts.example"),
        ('<img alt="a" src="http://x.example/a.png">', "loads http://x.example/a.png"),
        ('<iframe src="https://x.example"></iframe>', "loads https://x.example"),
        ('<img src="_images/a.png">', "no alternative text"),
        ('<img src="a.png" alt="../_images/a.png">', "no alternative text"),
        ('<a href="gone.html">x</a>', "broken link gone.html"),
        ('<a href="page.html#gone">x</a><p id="there">', "broken link page.html#gone"),
        ('<a href="#gone">x</a>', "broken link #gone"),
        ('<a href="https:///x">x</a>', "broken link https:///x"),
        ("<table><tr><th> <p></p></th></tr></table>", "empty heading in a table"),
    ],
)
def test_faults_of_pages_are_found(tmp_path, page, fault):
    (tmp_path / "page.html").write_text(f"<html><body>{page}</body></html>")
    assert len(found := page_faults(tmp_path)) == 1
    assert found[0].startswith("page.html: ")
    assert fault in found[0]


def test_links_and_local_files_are_no_faults(tmp_path):
    (tmp_path / "style.css").write_text("a {background: url(data:image/png;base64,x)}")
    (tmp_path / "page.html").write_text(
        '<a href="https://doi.org/x">x</a><a href="#p">x</a><a href="mailto:a@b.org">x</a>'
        '<p id="p"><a href="page.html#p">x</a><a href="style.css">x</a><table><th>a</th></table>'
        '<script src="a.js"></script><img alt="a" src="b.png">'
        '<link rel="canonical" href="https://x.example">'
    )
    assert page_faults(tmp_path) == []
    (tmp_path / "style.css").write_text("@font-face {src: url('https://fonts.example/a.woff')}")
    assert page_faults(tmp_path) == ["style.css: loads from the network"]


def test_references_have_a_link():
    text = (site_folder() / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"@\w+\{(\w+),(.*?)\n\}", text, re.DOTALL)
    assert len(entries) == text.count("\n@") + text.startswith("@") > 20
    without = [n for n, entry in entries if not re.search(r"^  (doi|url) = \{", entry, re.M)]
    assert without == []


def test_without_a_repository_no_button_leads_to_one(built):
    page = html(built, f"notebooks/{STUDENT}")
    assert "launch-buttons" not in page
    assert "source-buttons" not in page
    assert f'href="../_sources/notebooks/{STUDENT}.ipynb"' in page
    assert (built.parent / "_sources" / "notebooks" / f"{STUDENT}.ipynb").is_file()
    assert f"eeglib {eeglib.__version__}, MIT licence" in page


def test_one_setting_gives_the_buttons(project):
    run_dir, site = project
    config = (site / "_config.yml").read_text()
    address = "https://github.com/somebody/something"
    (site / "_config.yml").write_text(config.replace('url: ""', f"url: {address}"))
    folder = build_book(run_dir, site, STAGES).parent
    page = (folder / "notebooks" / f"{STUDENT}.html").read_text(encoding="utf-8")
    place = f"main/notebooks/{STUDENT}.ipynb"
    assert f"https://colab.research.google.com/github/somebody/something/blob/{place}" in page
    assert "https://mybinder.org/v2/gh/somebody/something/main?urlpath=" in page
    for part in ("/edit/" + place, "/issues/new", ""):
        assert f'href="{address}{part}' in page
    # What a run made lies in no repository.
    assert address not in (folder / "subjects" / "sub-01" / f"{STUDENT}.html").read_text()


def test_tables_are_mended():
    table = (
        '<thead>\n<tr style="text-align: right;">\n<th></th>\n<th>value</th>\n</tr>\n<tr>\n'
        "<th>control</th>\n<th></th>\n</tr>\n</thead><tbody><tr><th>one</th><td>1</td></tr></tbody>"
    )
    head = '<thead><tr><th scope="col">control</th><th scope="col">value</th></tr></thead>'
    body = '<tbody><tr><th scope="row">one</th><td>1</td></tr></tbody>'
    other = '<thead><tr class="row-odd"><th>a</th></tr></thead>'
    assert mend_page(other + table).endswith("</thead>" + head + body)
    two = "<thead><tr><th></th><th>a</th></tr><tr><th>x</th><th>b</th></tr></thead>"
    mended = mend_page(two)
    assert mended.count("<tr>") == 2
    assert "<td></td>" in mended


@pytest.mark.skipif(not browser(), reason="needs a Chromium, which is not here")
def test_a_browser_finds_no_fault(built):
    pages = [path for path in pages_of(built.parent) if path != built]
    assert [fault for kind, fault in look_at(built.parent, pages) if kind in COUNTED] == []


@pytest.mark.skipif(not browser(), reason="needs a Chromium, which is not here")
def test_a_browser_finds_what_is_wrong(tmp_path):
    (tmp_path / "page.html").write_text(
        '<html lang="en"><title>x</title><main class="bd-article" style="width: 600px"><h1>x</h1>'
        f"<pre style='overflow: auto'>{'x' * 200}</pre><table style='width: 2000px'><td>x</table>"
        '<section><p>over</p><p style="margin-top: -30px">lap</p></section>'
        '<p style="color: #222; background: #222">blank</p></main><script>gone()</script>'
        '<img src="http://127.0.0.1:9/x.png">'
    )
    found = Counter(kind for kind, _ in look_at(tmp_path, [tmp_path / "page.html"]))
    assert {*COUNTED} <= {*found}


def test_headings_are_found_outside_code():
    hidden = "```python\n## no heading\n```\n\n:::{note}\n## neither\n:::"
    markdown = f"# Title\n\n## One ##\n\n{hidden}\n### Two"
    assert book._headings(markdown) == ["One", "Two"]
