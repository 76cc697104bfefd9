"""What must not be in the built pages."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


def page_faults(html: Path) -> list[str]:
    """Figures without alternative text, and what a browser would load from the network."""
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
        alternative = values.get("alt", "").strip()
        if tag == "img" and (not alternative or alternative.startswith(("../", "_images"))):
            self.faults.append(f"figure {values.get('src', '')[:80]} has no alternative text")
