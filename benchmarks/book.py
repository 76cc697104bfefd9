"""The built book as a reader meets it: ``python -m benchmarks book`` looks at every page.

A Chromium opens each page of ``<run-dir>/book`` in light and dark, on a desktop and on a phone,
unfolds what is folded, and lists the faults: of axe-core (accessibility), code and tables that do
not fit, pages that scroll sideways, text that overlaps, errors of scripts, requests to the network;
and from the text of the pages broken links, empty headings of tables and figures without an
alternative. ``--screenshots DIR`` keeps pictures of the pages, for a person to look at.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._page_faults import page_faults, pages_of, read_page

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--hide-scrollbars"]
QUIET += ["--allow-file-access-from-files"]  # as a web server would; axe and fonts need it
AXE = {"resultTypes": ["violations"], "preload": False}
THEMES = {"light": AXE, "dark": {**AXE, "runOnly": ["color-contrast", "link-in-text-block"]}}
"""What axe-core looks at: between the themes only colours differ."""
COUNTED = ("axe_critical", "axe_serious", "code_cells_cut", "tables_cut")
COUNTED += ("sideways", "overlaps", "scripts", "network")
"""Faults that must not be; what axe-core calls moderate or minor is listed and no more."""

FORMULAS = """() => !document.querySelector("script[src*=mathjax]")
  || window.MathJax?.startup?.document"""
UNFOLD = """() => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  document.querySelectorAll(".toggle-hidden").forEach(e => e.classList.remove("toggle-hidden"));
  document.getAnimations().forEach(a => a.finish());
}"""
FITS = """phone => {
  const found = [], page = document.querySelector(".bd-article") || document.body;
  const name = e => e.innerText.trim().slice(0, 60).replace(/\\s+/g, " ");
  const seen = e => e.getClientRects().length && e.offsetWidth > 1;
  const box = e => { while (e && e !== page) {
    if (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX)) return e;
    e = e.parentElement; } return page; };
  if (!phone) for (const e of page.querySelectorAll("pre"))
    if (seen(e) && e.scrollWidth > e.clientWidth + 1)
      found.push(["code_cells_cut", `${e.scrollWidth} of ${e.clientWidth} px: ${name(e)}`]);
  for (const e of page.querySelectorAll("table")) {
    if (!seen(e)) continue;
    const around = box(e.parentElement), style = getComputedStyle(around);
    const room = around.getBoundingClientRect().right - parseFloat(style.paddingRight);
    const inside = around !== page && /auto|scroll/.test(style.overflowX);
    const wide = Math.round(e.getBoundingClientRect().right - room);
    if (wide > 1 && !(phone && inside))
      found.push(["tables_cut", `${e.offsetWidth} px, ${wide} too many: ${name(e)}`]);
  }
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth + 1)
    found.push(["sideways", `the page is ${root.scrollWidth} px wide`]);
  for (const part of page.querySelectorAll("section, .cell, .cell_output, .admonition")) {
    let last = null;
    for (const e of part.children) {
      const style = getComputedStyle(e);
      if (!seen(e) || style.position !== "static" || style.float !== "none") continue;
      const rect = e.getBoundingClientRect();
      if (last && rect.top < last.bottom - 2 && rect.left < last.right - 2)
        found.push(["overlaps", name(e)]);
      last = rect;
    }
  }
  return found;
}"""


def main(arguments: list[str]) -> int:
    """Print every fault and the counts; the exit status is 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks book", description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--pages", nargs="*", help="only pages whose path has one of these in it")
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="write pictures of pages")
    options = parser.parse_args(arguments)
    html = options.run_dir.resolve() / "book" / "_build" / "html"
    if not (html / "index.html").is_file():
        parser.error(f"no book in {html}. Build it first: eeglib book --run-dir {options.run_dir}")
    if not browser():
        parser.error(
            f"no browser: none of {', '.join(BROWSERS)} is on the PATH. On Debian and Ubuntu: "
            "apt install chromium; anywhere: playwright install chromium."
        )
    pages = [
        path
        for path in pages_of(html)
        if path != html / "index.html"  # it only leads on to the introduction
        and (
            not options.pages
            or any(part in path.relative_to(html).as_posix() for part in options.pages)
        )
    ]
    counts, faults = Counter(), page_faults(html)
    counts["broken_links"] = sum("broken link" in fault for fault in faults)
    print("\n".join(faults))
    for kind, fault in look_at(html, pages, options.screenshots):
        counts[kind] += 1
        faults += [fault] * (kind in COUNTED)
        print(f"{fault} [{kind}]", flush=True)
    readers = [read_page(path) for path in html.glob("notebooks/*.html")]
    counts["exercises"] = sum(reader.exercises for reader in readers)
    counts["code_exercises"] = sum(reader.code_exercises for reader in readers)
    print(
        f"{len(pages)} pages, {len(faults)} faults;",
        *(f"{kind}={counts[kind]}" for kind in COUNTED[4:]),
    )
    shown = ["axe_critical", "axe_serious", "code_cells_cut", "tables_cut", "exercises"]
    shown += ["code_exercises", "broken_links"]
    print("book", *(f"{kind}={counts[kind]}" for kind in shown))
    return int(bool(faults))


def browser() -> str | None:
    """Path of a Chromium, or None: of the system, or of Playwright's own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        with playwright() as player:
            own = Path(player.chromium.executable_path)
            found = str(own) if own.is_file() else None
    return found


@contextmanager
def playwright() -> Iterator[Any]:
    """Playwright; a plain message where the package is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("Playwright is missing: pip install 'eeglib[benchmarks]'.") from None
    with sync_playwright() as player:
        yield player


def look_at(
    html: Path, pages: Iterable[Path], screenshots: Path | None = None
) -> Iterator[tuple[str, str]]:
    """Open pages in a browser and yield the kind and the text of every fault."""
    from axe_playwright_python.sync_playwright import Axe

    path = browser()
    with playwright() as player:
        chromium = player.chromium.launch(executable_path=path, args=QUIET)
        for size, (width, height) in SIZES.items():
            context = chromium.new_context(viewport={"width": width, "height": height})
            page, events = context.new_page(), []
            _listen(page, events)
            for path in pages:
                where = f"{path.relative_to(html)}, {size}"
                page.goto(path.as_uri())
                page.wait_for_function(FORMULAS)
                page.evaluate("() => window.MathJax?.startup?.promise.then(() => null)")
                page.evaluate(UNFOLD)
                events += page.evaluate(FITS, size == "phone")
                for theme, how in THEMES.items():
                    page.evaluate("t => document.documentElement.dataset.theme = t", theme)
                    page.evaluate(UNFOLD)
                    for violation in Axe().run(page, options=how).response["violations"]:
                        for node in violation["nodes"]:
                            html_part = " ".join(node["html"].split())[:160]
                            text = f"{theme}: {violation['id']}, {html_part}"
                            if "color-contrast" in violation["id"]:
                                text += (
                                    ": "
                                    + node["any"][0]["message"].partition("contrast of ")[2][:70]
                                )
                            events.append((f"axe_{violation['impact']}", text))
                    if screenshots and (size, theme) != ("phone", "dark"):
                        page.evaluate("() => window.scrollTo(0, 0)")  # axe looked elsewhere
                        kind = "phone" if size == "phone" else theme
                        name = path.relative_to(html).with_suffix("").as_posix().replace("/", "_")
                        page.screenshot(path=screenshots / f"{name}.{kind}.png", full_page=True)
                yield from ((kind, f"{where}: {text}") for kind, text in events)
                events.clear()
            context.close()
        chromium.close()


def _listen(page: Any, events: list[tuple[str, str]]) -> None:
    """Note errors of scripts, and what a page asks of the network."""
    page.on("pageerror", lambda error: events.append(("scripts", str(error))))
    page.on("console", lambda m: m.type == "error" and events.append(("scripts", m.text)))
    page.on("request", lambda r: r.url.startswith("http") and events.append(("network", r.url)))
