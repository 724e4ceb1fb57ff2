"""Looks at every page of a built site in headless Chromium, as a reader would meet it.

python book/check_site.py               the site in _build/html
python book/check_site.py FOLDER PAGE   some pages of a site in another folder

Each page is shown at three widths, in the light and the dark theme, and loaded twice: at first, and
on a phone in the dark theme. A fault is: a message in the console, a failed request or one that
leaves this machine, a page that scrolls sideways, a picture that is broken or not described, a
formula that is not typeset, headings out of order, and whatever axe-core finds against levels A and
AA of WCAG 2: colours in every view, the rest where the page is loaded. The search is tried, too.
Two pages are looked at side by side. Ends with status 1 where there is a fault.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Page, sync_playwright

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
WIDTHS = (1440, 768, 360)
THEMES = ("light", "dark")
VIEWS = [(width, theme) for width in WIDTHS for theme in THEMES]
LOADED = (VIEWS[0], VIEWS[-1])  # the other views change the width or the theme of an open page
HEIGHT = 900
TIMEOUT_MS = 180_000
ANSWERED_S = 5.0  # the longest wait for the answers to what a view has requested
WORKERS = 2
# Levels A and AA. Colours take longest; the rest hardly depends on the theme.
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
COLOURS = ["color-contrast", "link-in-text-block"]
COLOUR_RULES = {"runOnly": {"type": "rule", "values": COLOURS}}
OTHER_RULES = {"runOnly": LEVELS, "rules": {rule: {"enabled": False} for rule in COLOURS}}
# A word, and the page that the search must name.
SEARCHES = (("reciprocal", "book/09_reranking"), ("memory", "book/05_class_memory"))

# What does not depend on width and theme. Waits for pictures and formulas.
READ = r"""async () => {
  const faults = [], article = document.querySelector("article") || document.body;
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => {});
    const name = image.getAttribute("src").slice(-60);
    if (!image.complete || !image.naturalWidth) faults.push(`broken picture: ${name}`);
    // Empty is right where a name stands beside the picture.
    const alt = image.getAttribute("alt"), named = alt === "" && image.closest("label, button, a");
    if (article.contains(image) && !(alt || "").trim() && !named)
      faults.push(`picture without a description: ${name}`);
  }
  const formulas = [...document.querySelectorAll(".math")];
  if (formulas.length && !window.MathJax?.startup?.promise)
    faults.push("formulas, but no MathJax");
  else if (formulas.length) await MathJax.startup.promise;
  for (const formula of formulas) {
    const text = formula.textContent.trim().slice(0, 60);
    if (!formula.querySelector("mjx-container")) faults.push(`formula not typeset: ${text}`);
    const wrong = formula.querySelector(
      "[data-mjx-error], [data-mml-node=merror], [data-mml-node=mtext][fill=red]");
    if (wrong) {
      const why = wrong.getAttribute("data-mjx-error") || "an unknown command";
      faults.push(`formula with an error: ${why}`);
    }
  }
  const words = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const {data, parentElement} = words.currentNode;
    if (/\\[([]|\$\$/.test(data) && !parentElement.closest("pre, code, script, style, .math"))
      faults.push(`formula left as text: ${data.trim().slice(0, 60)}`);
  }
  const headings = [...article.querySelectorAll("h1, h2, h3, h4, h5, h6")];
  const shown = headings.filter(heading => heading.checkVisibility());
  if (shown.filter(heading => heading.tagName === "H1").length !== 1)
    faults.push("not one heading of level 1");
  shown.forEach((heading, at) => {
    if (at && heading.tagName[1] - shown[at - 1].tagName[1] > 1)
      faults.push(`heading skips a level: ${heading.textContent.trim()}`);
  });
  return faults;
}"""

# The page hears of a new width or theme when it is next drawn.
SETTLE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"

# What depends on the width and the theme.
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


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def pages_of(site: Path) -> list[str]:
    """Addresses of the site's pages below its folder; indices and forwarding pages are left out."""
    if not (site / "search.html").is_file():
        raise SystemExit(f"check_site: no site in {site}: run `make site` first")
    pages = sorted(path.relative_to(site).as_posix() for path in site.glob("book/*.html"))
    return ["search.html", *pages]


# --------------------------------------------------------------------------- server and browser


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Says nothing: the browser's side is what counts."""

    def end_headers(self) -> None:
        """Has the browser keep nothing: a page that changed within a second would not be seen."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder on this machine alone; yields the address, with a slash at its end."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


class Inspector:
    """A page in a browser, and what it complained of since `told` was last asked.

    Args:
        page: of Playwright.
        address: of the site, with a slash at its end; other hosts are a fault.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.heard: list[str] = []
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
        # A file that is missing is named by its own event.
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
        """What was heard since the last call, with the answers that are on their way."""
        end = time.monotonic() + ANSWERED_S
        while self.awaited and time.monotonic() < end:
            self.page.wait_for_timeout(20)
        heard, self.heard = self.heard, []
        return heard

    def show(self, width: int, theme: str) -> None:
        """Gives the page a width and a theme."""
        self.page.set_viewport_size({"width": width, "height": HEIGHT})
        self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        self.page.evaluate(SETTLE)

    def open(self, name: str) -> list[str]:
        """Loads a page and reads it; returns the faults it has at any width."""
        self._load(name)
        return self.page.evaluate(READ)

    def look(self, theme: str) -> list[str]:
        """Faults of the open page's layout as it is shown."""
        return self.page.evaluate(LOOK, theme)

    def colours(self) -> list[str]:
        """What axe-core finds in the open page's colours as it is shown."""
        self._fetch_axe()
        return self.page.evaluate(f"async rules => ({AXE})([rules, ({KINDS})()])", COLOUR_RULES)

    def others(self) -> list[str]:
        """What axe-core finds by all rules that are not about colours."""
        self._fetch_axe()
        return self.page.evaluate(AXE, [OTHER_RULES, None])

    def _load(self, name: str) -> None:
        self.heard.clear()
        self.awaited.clear()
        self.page.goto(self.address + name, wait_until="load")

    def _fetch_axe(self) -> None:
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_axe_source() + "; undefined")
            self.page.evaluate(THIN)

    def search(self, word: str, expected: str) -> list[str]:
        """Whether a search for a word names a page."""
        self._load(f"search.html?q={word}")
        link = f"#search-results a[href*='{expected}']"
        try:
            self.page.wait_for_selector(link, timeout=TIMEOUT_MS / 6)
        except Error:
            return [*self.told(), f"a search for {word!r} does not name {expected}"]
        return self.told()


@functools.cache
def _axe_source() -> str:
    package = resources.files("axe_playwright_python")
    return package.joinpath("axe.min.js").read_text(encoding="utf-8")


@contextmanager
def inspecting(site: Path) -> Iterator[Inspector]:
    """An inspector of a folder of pages, with a browser and a server of its own."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(f"check_site: no Chromium on this machine, looked for {', '.join(NAMES)}")
    with served(site) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS, timeout=TIMEOUT_MS)
        try:
            yield Inspector(browser.new_page(), address)
        finally:
            browser.close()


def faults_of(inspector: Inspector, name: str) -> list[str]:
    """Every fault of one page, each with where it shows."""
    found: list[str] = []
    known: set[str] = set()  # from the first load, which is said of the page as a whole
    for width, theme in VIEWS:
        loaded = (width, theme) in LOADED
        inspector.show(width, theme)
        read = inspector.open(name) if loaded else []
        seen = [*inspector.look(theme), *inspector.colours()]
        seen += inspector.others() if loaded else []
        said = [*inspector.told(), *read]
        if (width, theme) == VIEWS[0]:
            known.update(said)
            found += [f"{name}: {fault}" for fault in said]
            said = []
        seen = [*(fault for fault in said if fault not in known), *seen]
        found += [f"{name}, {width} px, {theme}: {fault}" for fault in seen]
    return found


Job = Callable[[Inspector], list[str]]


def work(site: Path, jobs: Sequence[Job], tell: Callable[[list[str]], None]) -> None:
    """Does every job, each worker in a browser of its own; `tell` hears the faults of each."""
    left, lock = iter(jobs), threading.Lock()

    def worker() -> None:
        with inspecting(site) as inspector:
            while True:
                with lock:
                    job = next(left, None)
                if job is None:
                    return
                found = job(inspector)
                with lock:
                    tell(found)

    with ThreadPoolExecutor(WORKERS) as pool:
        workers = [pool.submit(worker) for _ in range(min(WORKERS, len(jobs)))]
    for done in workers:
        done.result()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", nargs="?", type=Path, default=SITE, help="the built site's folder")
    parser.add_argument("pages", nargs="*", help="such as book/index.html; default: all of them")
    options = parser.parse_args(arguments)
    pages = options.pages or pages_of(options.site)
    searches = () if options.pages else SEARCHES
    jobs: list[Job] = [functools.partial(faults_of, name=name) for name in pages]
    jobs += [functools.partial(Inspector.search, word=word, expected=at) for word, at in searches]
    total = 0

    def tell(found: list[str]) -> None:
        nonlocal total
        total += len(found)
        for fault in found:
            print(fault, flush=True)

    work(options.site, jobs, tell)
    widths = ", ".join(map(str, WIDTHS))
    faults = "1 fault" if total == 1 else f"{total or 'no'} faults"
    print(f"{len(pages)} pages at {widths} px, light and dark: {faults}")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
