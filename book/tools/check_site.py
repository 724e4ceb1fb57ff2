"""Look at every page of a built site in headless Chromium, as a reader would meet it.

python book/tools/check_site.py               the site in _build/html
python book/tools/check_site.py FOLDER PAGE   some pages of a site in another folder

Each page is shown at three widths, in the light and the dark theme, and loaded twice: at first, and
on a phone in the dark theme. A fault is a message in the console, a failed request or one that
leaves this machine, a page that scrolls sideways, a broken image, a formula that is not typeset, or
whatever axe-core finds against levels A and AA of WCAG 2 and the order of headings. Links within
the site must lead to a page and a place that exist. Every button around the text is clicked at each
width and must change something; where pages have the same buttons, this is done once. A search must
name the expected chapter before any page of the library. Ends with status 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

from playwright.sync_api import Error, Page, sync_playwright

SITE = Path(__file__).resolve().parent.parent.parent / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
VIEWS = [(width, theme) for width in (1440, 768, 360) for theme in ("light", "dark")]
LOADED = (VIEWS[0], VIEWS[-1])  # the other views change the width or the theme of an open page
HEIGHT = 900
TIMEOUT_MS = 180_000
SEARCH_TIMEOUT_MS = 30_000
ANSWERED_S = 5.0  # the longest wait for the answers to the requests of a view
WORKERS = 2
COLOURS = ["color-contrast", "link-in-text-block"]
COLOUR_RULES = {"runOnly": {"type": "rule", "values": COLOURS}}
OTHER_RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {rule: {"enabled": False} for rule in COLOURS}
    | {rule: {"enabled": True} for rule in ("heading-order", "page-has-heading-one")},
}
# A word, and the page that the search must name before any page of the library.
SEARCHES = {"reciprocal": "09_reranking", "QAConv": "03_query_adaptive", "ClassMemory": "05_class"}
CHANGED_MS = 2_000  # the longest wait for what a click changes

# Faults that do not depend on width and theme. Waits for images and formulas.
READ = r"""async () => {
  const faults = [], article = document.querySelector("article") || document.body;
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    if (!image.complete || !image.naturalWidth)
      faults.push(`broken image: ${image.getAttribute("src").slice(-60)}`);
  }
  const formulas = [...document.querySelectorAll(".math")];
  if (formulas.length && !window.MathJax?.startup?.promise)
    faults.push("formulas, but no MathJax");
  else if (formulas.length) await MathJax.startup.promise;
  const wrong = "[data-mjx-error], [data-mml-node=merror], [data-mml-node=mtext][fill=red]";
  for (const formula of formulas) {
    const text = formula.textContent.trim().slice(0, 60);
    if (!formula.querySelector("mjx-container")) faults.push(`formula not typeset: ${text}`);
    if (formula.querySelector(wrong)) faults.push(`formula with an error: ${text}`);
  }
  const words = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const {data, parentElement} = words.currentNode;
    if (/\\[([]|\$\$/.test(data) && !parentElement.closest("pre, code, script, style, .math"))
      faults.push(`formula left as text: ${data.trim().slice(0, 60)}`);
  }
  return faults;
}"""

LINKS = "() => [...new Set([...document.links].map(link => link.href))]"

# The buttons around the text that can be seen, by their number among all buttons.
BUTTONS = """() => [...document.querySelectorAll("button, [role=button]")].flatMap((node, number) =>
  node.checkVisibility({visibilityProperty: true, opacityProperty: true}) &&
  node.getClientRects().length && !node.closest("article, .bd-search-container") ? [number] : []
)"""

# What a click can change: what is shown and where, the theme, the whole screen, a printed page.
STATE = """() => {
  const shown = [...document.querySelectorAll("body *")].filter(
    node => node.checkVisibility({visibilityProperty: true}) && !node.closest(".tooltip"));
  const places = shown.map(node => {
    const {x, y, width, height} = node.getBoundingClientRect();
    return node.tagName + [x, y, width, height].map(Math.round);
  });
  const {mode, theme} = document.documentElement.dataset;
  const typing = document.activeElement?.matches("input");
  return [mode, theme, typing, !document.fullscreenElement, window.printed, ...places].join();
}"""
CHANGED = f"before => ({STATE})() !== before"
PRINT = "window.print = () => { window.printed = true; };"  # the dialog would wait for a person

# The page hears of a new width or theme when it is next drawn.
SETTLE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"

# Faults of one width and theme.
LOOK = r"""theme => {
  const faults = [], wide = document.documentElement.scrollWidth, width = window.innerWidth;
  const shown = document.documentElement.dataset.theme;
  if (shown && shown !== theme) faults.push(`the ${theme} theme is wanted, the ${shown} one shown`);
  if (wide > width) {
    const held = node => node && node !== document.body &&
      (getComputedStyle(node).overflowX !== "visible" || held(node.parentElement));
    const page = document.querySelector("article") || document.body;
    const out = [...page.querySelectorAll("*")].filter(
      node => node.getBoundingClientRect().right > width + 1 && !held(node.parentElement));
    const what = out.map(node => [node.tagName.toLowerCase(), ...node.classList].join("."));
    faults.push(`scrolls sideways: ${wide} px, ${what.pop() || "?"}`);
  }
  return faults;
}"""

# Colours of code repeat thousands of times; one token of each kind stays for axe-core to look at.
THIN = r"""() => {
  const seen = new Set();
  for (const token of document.querySelectorAll(".highlight pre span[class]")) {
    const kind = `${token.closest("[class*=cell_], .highlight").className}|${token.className}`;
    if (seen.has(kind)) token.replaceWith(...token.childNodes);
    seen.add(kind);
  }
  for (const code of document.querySelectorAll(".highlight pre")) code.normalize();
}"""

# Three pieces of text of each kind: alike in their letters, and in all colours and grounds around.
KINDS = r"""() => {
  const grounds = new Map(), seen = new Map(), pieces = new Set(), kept = [];
  const ground = node => {
    if (!node) return "";
    if (!grounds.has(node)) {
      const {color, backgroundColor, backgroundImage, opacity, filter} = getComputedStyle(node);
      const own = `|${[color, backgroundColor, backgroundImage, opacity, filter]}`;
      const around = ground(node.parentElement);
      grounds.set(node, around.endsWith(own) ? around : around + own);
    }
    return grounds.get(node);
  };
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const {data, parentElement} = words.currentNode;
    if (data.trim()) pieces.add(parentElement.closest("a") || parentElement);
  }
  for (const field of document.querySelectorAll("input, select, textarea")) pieces.add(field);
  for (const piece of pieces) {
    if (!piece.checkVisibility({visibilityProperty: true})) continue;
    const {fontSize, fontWeight, textDecorationLine} = getComputedStyle(piece);
    const kind = [piece.tagName, ground(piece), fontSize, fontWeight, textDecorationLine].join();
    const count = (seen.get(kind) || 0) + 1;
    seen.set(kind, count);
    if (count <= 3) kept.push(piece);
  }
  return kept;
}"""

AXE = r"""async ([options, nodes]) => {
  if (nodes && !nodes.length) return [];
  const place = nodes ? {include: nodes} : document;
  // It would fetch imported style sheets from wrong places, for rules that are not asked for.
  const asked = {resultTypes: ["violations"], preload: false, ...options};
  const {violations} = await axe.run(place, asked);
  return violations.map(({id, help, nodes}) => {
    const [{target, any, all, none}] = nodes, why = [...any, ...all, ...none][0]?.message || "";
    return `axe ${id}: ${help} (${nodes.length}), ${target.join(" ")}: ${why}`;
  });
}"""


TEX = re.compile(r"\\[(\[a-z].{0,40}")


@functools.cache
def _anchors(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8") if path.suffix == ".html" else ""
    return {unescape(name) for name in re.findall(r"""\b(?:id|name)=["']([^"']+)""", text)}


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pages_of(site: Path) -> list[str]:
    """The pages of a site, without indices and forwarding pages."""
    if not (site / "search.html").is_file():
        raise SystemExit(f"check_site: no site in {site}: run `make site` first")
    return [
        "search.html",
        "404.html",
        *sorted(f"book/{path.name}" for path in site.glob("book/*.html")),
    ]


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def end_headers(self) -> None:
        """Forbid caching: a page that changed within a second would not be seen."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


class Inspector:
    """A page in a browser, and the complaints heard since `told` was last asked.

    Args:
        page: of Playwright.
        address: of the site, with a slash at its end; a request to another host is a fault.
        site: the folder that is served there.
    """

    def __init__(self, page: Page, address: str, site: Path) -> None:
        self.page, self.address, self.site = page, address, site
        self.heard: list[str] = []
        self.tried: set[tuple] = set()
        page.add_init_script(PRINT)
        self.awaited: set[Any] = set()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.heard.append(f"console: {error}"))
        page.on("request", self._request)
        page.on("requestfailed", lambda request: self._failed(request.url, request.failure))
        for end in ("requestfinished", "requestfailed"):
            page.on(end, lambda request: self.awaited.discard(request))
        page.on("response", lambda answer: answer.ok or self._failed(answer.url, answer.status))

    def _console(self, message: Any) -> None:
        # A missing file has an event of its own.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.heard.append(f"console: {message.text[:200]}")

    def _request(self, request: Any) -> None:
        self.awaited.add(request)
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.heard.append(f"request to another place: {request.url[:120]}")

    def _failed(self, url: str, why: Any) -> None:
        if url.startswith(self.address) and why not in ("net::ERR_ABORTED", 304):
            self.heard.append(f"request failed ({why}): {url.removeprefix(self.address)}")

    def told(self) -> list[str]:
        """What was heard since the last call, once the requests under way are answered."""
        end = time.monotonic() + ANSWERED_S
        while self.awaited and time.monotonic() < end:
            self.page.wait_for_timeout(20)
        heard, self.heard = self.heard, []
        return heard

    def load(self, name: str) -> None:
        self.heard.clear()
        self.awaited.clear()
        self.page.goto(self.address + name, wait_until="load")

    def view(self, name: str, width: int, theme: str) -> tuple[list[str], list[str]]:
        """Faults of a page that do not depend on the view, and those of its look in this one."""
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        self.page.evaluate(SETTLE)
        read: list[str] = []
        loaded = (width, theme) in LOADED
        if loaded:
            self.load(name)
            read = self.page.evaluate(READ)
            read += filter(None, map(self._dead_link, self.page.evaluate(LINKS)))
            self.page.evaluate(_axe_source() + "; undefined")
            self.page.evaluate(THIN)
        seen = self.page.evaluate(LOOK, theme)
        seen += self.page.evaluate(f"async rules => ({AXE})([rules, ({KINDS})()])", COLOUR_RULES)
        if loaded:
            seen += self.page.evaluate(AXE, [OTHER_RULES, None])
        return [*self.told(), *read], seen

    def faults(self, name: str) -> list[str]:
        """Every fault of one page, each with the view that shows it."""
        known, found = self.view(name, *VIEWS[0])
        places = [f"{name}, {width} px, {theme}: " for width, theme in VIEWS]
        found = [f"{name}: {fault}" for fault in known] + [places[0] + fault for fault in found]
        for place, (width, theme) in zip(places[1:], VIEWS[1:], strict=True):
            said, seen = self.view(name, width, theme)
            found += [place + fault for fault in [*(set(said) - set(known)), *seen]]
        return found

    def _dead_link(self, address: str) -> str | None:
        if not address.startswith(self.address):
            return None
        place, anchor = urldefrag(address.removeprefix(self.address))
        path = self.site / (unquote(place.partition("?")[0]) or "index.html")
        if path.is_file() and (not anchor or unquote(anchor) in _anchors(path)):
            return None
        return f"link to nowhere: {address.removeprefix(self.address)}"

    def buttons(self, name: str) -> list[str]:
        """Buttons around the text of a page that cannot be clicked, or change nothing.

        Buttons that only another button shows are tried, too. What was tried on a page with the
        same buttons is not tried again.
        """
        found = []
        for width in sorted({width for width, _ in VIEWS}):
            self.page.set_viewport_size({"width": width, "height": HEIGHT})
            self._open(name)
            first = self.page.evaluate(BUTTONS)
            names = [self._name(number) for number in first]
            if (width, *names) in self.tried:
                continue
            self.tried.add((width, *names))
            seen, ways = set(first), [[number] for number in first]
            while ways:
                way = ways.pop()
                self._open(name)
                try:
                    self._click(way)
                except Error:
                    what = self._name(way[-1])
                    found.append(f"{name}, {width} px: a click on {what!r} changes nothing")
                more = set(self.page.evaluate(BUTTONS)) - seen
                seen |= more
                ways += [[*way, number] for number in sorted(more)]
        return [*self.told(), *found]

    def _open(self, name: str) -> None:
        """Load a page and scroll down and a little up, which shows the button back to the top."""
        self.load(name)
        for place in (HEIGHT, HEIGHT // 2):
            self.page.evaluate(f"window.scrollTo({{top: {place}, behavior: 'instant'}})")
            self.page.wait_for_timeout(50)
        self.page.evaluate("document.activeElement?.blur()")

    def _name(self, number: int) -> str:
        button = self.page.locator("button, [role=button]").nth(number)
        return button.evaluate("({title, ariaLabel, innerText}) => title || ariaLabel || innerText")

    def _click(self, way: list[int]) -> None:
        for number in way:
            before = self.page.evaluate(STATE)
            button = self.page.locator("button, [role=button]").nth(number)
            button.click(timeout=CHANGED_MS)
            self.page.wait_for_function(CHANGED, arg=before, timeout=CHANGED_MS)

    def search(self, word: str, expected: str) -> list[str]:
        """Whether a search names a page before those of the library, and shows no formulas."""
        self.load(f"search.html?q={word}")
        done = "() => document.querySelector('.search-summary')?.innerText.startsWith('Search fin')"
        try:
            self.page.wait_for_function(done, timeout=SEARCH_TIMEOUT_MS)
        except Error:
            return [*self.told(), f"a search for {word!r} does not end"]
        links = self.page.locator("#search-results li a").evaluate_all(
            "all => all.map(a => a.href)"
        )
        found, text = self.told(), self.page.inner_text("#search-results")
        first = next((link for link in links if expected in link or "/api" in link), "")
        if expected not in first:
            found.append(f"a search for {word!r} does not name {expected} first")
        return found + [
            f"a search for {word!r} shows a formula: {f}" for f in TEX.findall(text)[:1]
        ]


@functools.cache
def _axe_source() -> str:
    package = resources.files("axe_playwright_python")
    return package.joinpath("axe.min.js").read_text(encoding="utf-8")


@contextmanager
def inspecting(site: Path) -> Iterator[Inspector]:
    """An inspector of a folder of pages, with a browser and a local server of its own."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(f"check_site: no Chromium here, looked for {', '.join(BROWSERS)}")
    handler = functools.partial(_Handler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS, timeout=TIMEOUT_MS)
        try:
            yield Inspector(browser.new_page(), f"http://127.0.0.1:{server.server_port}/", site)
        finally:
            browser.close()
            server.shutdown()


def check(site: Path, pages: Sequence[str], searches: dict[str, str]) -> int:
    """Look at pages and try searches in one browser; print the faults and return their number."""
    total = 0
    with inspecting(site) as inspector:
        tried = (inspector.search(word, expected) for word, expected in searches.items())
        buttons = map(inspector.buttons, pages)
        for faults in chain(map(inspector.faults, pages), buttons, tried):
            total += len(faults)
            for fault in faults:
                print(fault, flush=True)
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", nargs="?", type=Path, default=SITE, help="the built site's folder")
    parser.add_argument("pages", nargs="*", help="such as book/index.html; default: all of them")
    options = parser.parse_args(arguments)
    pages = options.pages or pages_of(options.site)
    with ThreadPoolExecutor(WORKERS) as pool:  # a browser each
        shares = [pages[first::WORKERS] for first in range(min(WORKERS, len(pages)))]
        searches = [{} if options.pages else SEARCHES, *({} for _ in shares[1:])]
        total = sum(pool.map(check, [options.site] * len(shares), shares, searches))
    print(f"{len(pages)} pages at three widths, light and dark: {total} faults")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
