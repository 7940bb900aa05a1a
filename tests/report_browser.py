"""Opens a report in headless Chromium and lists what is wrong with it: python tests/report_browser.py PAGE...

Looked at: messages on the console, requests to anywhere, scrolling sideways, findings of axe-core, what the keyboard
reaches, and what paper shows. With --out it leaves pictures of the page at each width. It needs Chromium (or Chrome, or
$CHROMIUM), and `pip install playwright axe-playwright-python` in any environment; the package itself needs neither.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTHS = {1280: 900, 390: 844}  # width to height, CSS pixels: a laptop and a telephone
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGES = ("playwright", "axe_playwright_python")
SEVERE = ("serious", "critical")
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CLIPPED = """[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
  && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80))"""
FOCUS = """() => { const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
  return {name: e.tagName + ' ' + (e.innerText || e.getAttribute('aria-label') || '').slice(0, 40),
    href: e.getAttribute('href'), outline: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2,
    seen: b.width > 0 && b.height > 0 && b.bottom > 0 && b.top < innerHeight} }"""
SHEET = 703  # CSS pixels between the margins of A4
OVER = """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
  && ['TABLE', 'IMG', 'PRE'].includes(e.tagName)).map(e => e.outerHTML.slice(0, 120))"""
FOLDED = "[...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility()).length"


def missing() -> str | None:
    """What keeps this machine from the check, None where nothing does."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return None if browser() else f"none of {', '.join(BROWSERS)} is on the path, and $CHROMIUM is not set"


def browser() -> str | None:
    """Path of a Chromium."""
    return os.environ.get("CHROMIUM") or next((p for p in map(shutil.which, BROWSERS) if p), None)


@contextmanager
def opened() -> Iterator[Any]:
    """A playwright browser."""
    api = importlib.import_module("playwright.sync_api")
    with api.sync_playwright() as playwright:
        # no sandbox: it does not work for root in a container, and the page is our own
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


def problems(chromium: Any, path: str, out: str | None = None) -> list[str]:
    """What is wrong with a page at each width, none where all is well.

    Args:
      chromium: an open browser.
      path: the page.
      out: folder for pictures, which is made; None for none.
    """
    found: list[str] = []
    for width, height in WIDTHS.items():
        page = chromium.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
        said: list[str] = []
        page.on("console", lambda m, said=said: said.append(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda e, said=said: said.append(f"page error: {e}"))
        page.on("request", lambda r, said=said: said.append(f"request: {r.url}") if outside(r.url) else None)
        page.goto(Path(path).resolve().as_uri())
        if out is not None:
            picture(page, Path(out), f"{Path(path).resolve().parent.name}_{width}")
        said += keyboard(page)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        if (over := page.evaluate(WIDE)) > 0:
            said.append(f"the page is {over} px wider than the window")
        said += [f"scrolls, but not with the keyboard: {e}" for e in page.evaluate(CLIPPED)]
        said += accessibility(page)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
        said += paper(page)
        found += [f"{width} px: {s}" for s in dict.fromkeys(said)]
        page.close()
    return found


def outside(url: str) -> bool:
    """Whether a request leaves the page's own file."""
    return not url.startswith(("data:", "file:")) or url.endswith((".js", ".css"))


def accessibility(page: Any) -> list[str]:
    """Serious and critical findings of axe-core, by element."""
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    results = axe.run(page).response
    return [
        f"axe {v['impact']} {v['id']}: {v['help']}: {node['html'][:160]}"
        for v in results["violations"]
        if v["impact"] in SEVERE
        for node in v["nodes"]
    ]


def keyboard(page: Any) -> list[str]:
    """What is wrong with the way through the page by the tab key: the skip link first, and every stop outlined."""
    found = []
    count = page.evaluate("document.querySelectorAll('a, summary, [tabindex=\"0\"]').length")
    for stop in range(count + 1):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUS)
        if at["name"].startswith("BODY"):
            break
        if stop == 0 and at["href"] != "#main":
            found.append(f"the first stop of the tab key is {at['name']!r}, not a link to the content")
        if not at["outline"]:
            found.append(f"no visible focus: {at['name']!r}")
        if not at["seen"]:
            found.append(f"focus out of sight: {at['name']!r}")
    return found


def paper(page: Any) -> list[str]:
    """What paper would not show: folded parts, and what is wider than the sheet."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": SHEET, "height": 1000})
    found = []
    if folded := page.evaluate(FOLDED):
        found.append(f"{folded} folded parts are not printed")
    found += [f"wider than the paper: {e}" for e in page.evaluate(OVER)]
    return found


def picture(page: Any, folder: Path, name: str) -> None:
    """Pictures of the window and of the whole page, and the page as paper."""
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")
    page.screenshot(path=folder / f"{name}_whole.png", full_page=True)
    page.pdf(path=folder / f"{name}.pdf", format="A4", prefer_css_page_size=True)


def main() -> int:
    """The command: prints what is wrong, a line each; the exit status is 1 if anything is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--out", help="folder for pictures")
    options = parser.parse_args()
    if reason := missing():
        print(f"cannot check: {reason}", file=sys.stderr)
        return 2
    with opened() as chromium:
        found = [f"{page} {p}" for page in options.pages for p in problems(chromium, page, options.out)]
    print("\n".join(found) or f"nothing wrong with {len(options.pages)} pages at {' and '.join(map(str, WIDTHS))} px")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
