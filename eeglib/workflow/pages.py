"""What the tools that build the book leave out."""

import re
from typing import Any

import eeglib

HEAD = re.compile(r"<thead>.*?</thead>", re.DOTALL)
BUTTONS = re.compile(r'<div class="dropdown dropdown-(?:launch|source)-b.*?</div>', re.DOTALL)


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
