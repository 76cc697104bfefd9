"""What must not be in the built pages, as far as their text tells: no browser is needed."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


def page_faults(html: Path) -> list[str]:
    """Faults of every page of a built book, each with its page."""
    readers = {path: read_page(path) for path in pages_of(html)}
    faults = [(path, fault) for path, reader in readers.items() for fault in reader.faults]
    for path, reader in readers.items():
        faults += [(path, fault) for fault in _broken_links(path, reader.links, readers)]
    for path in sorted(html.rglob("*.css")):
        text = path.read_text(encoding="utf-8", errors="replace").replace('"', "").replace("'", "")
        if "url(http" in text or "url(//" in text or "@import http" in text:
            faults.append((path, "loads from the network"))
    return [f"{path.relative_to(html)}: {fault}" for path, fault in faults]


def pages_of(html: Path) -> list[Path]:
    """Pages of the book itself: not slides, nor the patterns that the theme leaves in its files."""
    pages = {path: path.relative_to(html).parts for path in sorted(html.rglob("*.html"))}
    return [path for path, parts in pages.items() if parts[0] not in ("_static", "slides")]


def read_page(path: Path) -> PageReader:
    """Read one page and what is wrong within it."""
    reader = PageReader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def _broken_links(path: Path, links: list[str], readers: dict[Path, PageReader]) -> list[str]:
    """Links to files or places that are not there; of outside ones only the form is looked at."""
    faults = []
    for link in dict.fromkeys(links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            good = parts.scheme == "mailto" or (parts.scheme == "https" and "." in parts.netloc)
            good = good or (parts.scheme == "http" and "." in parts.netloc)
        else:
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            good = target.is_file()
            if good and place and target in readers:
                good = place in readers[target].ids
        if not good:
            faults.append(f"broken link {link}")
    return faults


class PageReader(HTMLParser):
    """Collects the faults of one page, its links, its ids and its exercises."""

    LOADING = frozenset({"script", "img", "iframe", "source", "video", "audio", "embed", "object"})
    NAMING = frozenset({"canonical", "next", "prev", "search", "index", "author", "license"})

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.exercises = self.code_exercises = 0
        self._heading: str | None = None  # text of the table heading that is being read
        self._task: str | None = None  # text of the first emphasis in an exercise

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        address = values.get("src") or values.get("data") or ""
        if tag == "link" and values.get("rel") not in self.NAMING:
            address = values.get("href", "")
        if tag in self.LOADING | {"link"} and address.startswith(("http:", "https:", "//")):
            self.faults.append(f"loads {address}")
        alternative = values.get("alt", "").strip()
        if tag == "img" and (not alternative or alternative.startswith(("../", "_images"))):
            self.faults.append(f"figure {values.get('src', '')[:80]} has no alternative text")
        if tag == "a" and values.get("href", "#") not in ("#", ""):
            self.links.append(values["href"])
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "name" in values:
            self.ids.add(values["name"])
        if tag == "th":
            self._heading = ""
        if tag == "div" and "exercise" in values.get("class", "").split():
            self.exercises += 1
            self._task = ""

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading += data
        if self._task is not None:
            self._task += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "th" and self._heading is not None:
            if not self._heading.strip():
                self.faults.append("empty heading in a table")
            self._heading = None
        if tag == "em" and self._task is not None:
            self.code_exercises += ", in code" in self._task
            self._task = None
