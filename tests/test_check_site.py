"""The checks of `book/check_site.py`, on small pages that have one fault each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")

BOOK = Path(__file__).resolve().parent.parent / "book"


check_site = pytest.importorskip("check_site")
pytestmark = pytest.mark.skipif(
    check_site.find_chromium() is None, reason="no Chromium on this machine"
)

PICTURE = (
    "data:image/svg+xml,"
    "%3Csvg xmlns='http://www.w3.org/2000/svg' width='40' height='40'%3E%3C/svg%3E"
)
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
{head}</head><body><main><article>{body}</article></main></body></html>"""
FORMULAS = '<script src="tex-svg-full.js"></script>'
SOUND = f"""<h1>A page</h1><p>Text, and <code>\\(code\\)</code>.</p><h2>A part</h2>
<p><img src="{PICTURE}" alt="a square"></p>
<p><label><input type="radio"><img src="{PICTURE}" alt="">named</label></p>
<p>A formula: <span class="math">\\(a^2 + b^2\\)</span>.</p>"""
THEMED = """<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => { document.documentElement.dataset.theme = dark.matches ? "dark" : "light"; };
dark.onchange = follow;
follow();
</script>"""
WIDE = '<div style="width: 700px">wide</div>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(BOOK / "_static" / "mathjax" / "tex-svg-full.js", folder)
    return folder


@pytest.fixture(scope="module")
def inspector(folder: Path) -> Iterator:
    with check_site.inspecting(folder) as inspector:
        yield inspector


@pytest.fixture
def faults(inspector, folder: Path) -> Callable[..., list[str]]:
    def faults_of_page(body: str, head: str = "", name: str = "page.html") -> list[str]:
        (folder / name).write_text(FRAME.format(head=head, body=body), encoding="utf-8")
        return check_site.faults_of(inspector, name)

    return faults_of_page


def test_a_sound_page_has_no_fault(faults) -> None:
    assert faults(SOUND, FORMULAS + THEMED) == []


@pytest.mark.parametrize(
    "body, head, fault",
    [
        ("", '<script>console.error("oh")</script>', "console: oh"),
        ("", "<script>missing()</script>", "console: missing is not defined"),
        ("", '<script src="none.js"></script>', "request failed (404): none.js"),
        ("", '<script src="http://10.0.0.1/a.js"></script>', "request to another place: http://10"),
        ('<img src="none.png" alt="x">', "", "broken picture: none.png"),
        (f'<img src="{PICTURE}">', "", "picture without a description"),
        (f'<img src="{PICTURE}" alt="">', "", "picture without a description"),
        (f'<label><img src="{PICTURE}" alt=" ">a</label>', "", "picture without a description"),
        ('<span class="math">\\(a\\)</span>', "", "formulas, but no MathJax"),
        ('<span class="math">a</span>', FORMULAS, "formula not typeset: a"),
        ('<span class="math">\\(\\nosuch\\)</span>', FORMULAS, "formula with an error"),
        ('<span class="math">\\(\\frac{a}\\)</span>', FORMULAS, "formula with an error"),
        ("A formula \\(a\\)", "", "formula left as text: A formula"),
        ("A formula $$a$$", "", "formula left as text: A formula"),
        ("<h1>Another</h1>", "", "not one heading of level 1"),
        ("<h3>Deep</h3>", "", "heading skips a level: Deep"),
        ('<p style="color: #bbb">pale</p>', "", "1440 px, light: axe color-contrast"),
        ("<input>", "", "360 px, dark: axe label"),
        (WIDE, "", "page.html, 360 px, dark: scrolls sideways: 7"),
        (
            '<p class="dim">dim</p>',
            "<style>@media (prefers-color-scheme: dark) { .dim { color: #ddd } }</style>",
            "1440 px, dark: axe color-contrast",
        ),
        (
            "",
            '<script>document.documentElement.dataset.theme = "light"</script>',
            "the dark theme is wanted, the light one shown",
        ),
    ],
)
def test_a_fault_is_found(faults, body: str, head: str, fault: str) -> None:
    found = faults(f"<h1>A page</h1>{body}", head)
    assert any(fault in one for one in found), found


def test_a_wide_page_is_a_fault_only_where_it_does_not_fit(faults) -> None:
    found = [fault for fault in faults(f"<h1>A page</h1>{WIDE}") if "sideways" in fault]
    assert [fault.split(": ")[0] for fault in found] == [
        "page.html, 360 px, light",
        "page.html, 360 px, dark",
    ]
    inside = f'<h1>A page</h1><div style="overflow-x: auto" tabindex="0">{WIDE}</div>'
    assert faults(inside) == []


DARK = "(prefers-color-scheme: dark)"
PHONE = "(max-width: 400px)"
WHILE = """<script>
const query = matchMedia("{query}");
const say = () => {{ if (query.matches) {{ console.error("oh"); fetch("none.json"); }} }};
query.onchange = say;
</script>"""
AT_FIRST = """<script>
if (matchMedia("{query}").matches) console.error("oh"), fetch("none.json");
</script>"""


@pytest.mark.parametrize(
    "script, query, where",
    [
        (WHILE, DARK, "1440 px, dark"),
        (WHILE, PHONE, "360 px, light"),
        (AT_FIRST, DARK, "360 px, dark"),
        (AT_FIRST, PHONE, "360 px, dark"),
    ],
)
def test_what_is_said_in_one_view_counts(faults, script: str, query: str, where: str) -> None:
    found = faults("<h1>A page</h1>", script.format(query=query))
    assert f"page.html, {where}: console: oh" in found
    assert f"page.html, {where}: request failed (404): none.json" in found


def test_a_picture_that_only_a_phone_fetches_counts(faults) -> None:
    head = f"<style>@media {PHONE} {{ body {{ background: url(none.png) }} }}</style>"
    found = faults("<h1>A page</h1>", head)
    assert "page.html, 360 px, light: request failed (404): none.png" in found
    assert all("360 px" in fault for fault in found)


def test_what_a_page_always_says_is_named_once(faults) -> None:
    found = faults("<p>no heading</p>", '<script>console.error("oh")</script>')
    assert found == ["page.html: console: oh", "page.html: not one heading of level 1"]


@pytest.mark.parametrize("width, query", [(768, "(width: 768px)"), (360, PHONE)])
def test_pale_text_at_one_width_is_found(faults, width: int, query: str) -> None:
    head = f"<style>body {{ background: #fff }} @media {query} {{ p {{ color: #ccc }} }}</style>"
    found = faults("<h1>A page</h1><p>pale</p>", head)
    assert [fault.split(": axe ")[0] for fault in found] == [
        f"page.html, {width} px, light",
        f"page.html, {width} px, dark",
    ]
    assert all("color-contrast" in fault for fault in found)


@pytest.mark.parametrize(
    "style",
    ["color: #ccc", "background: #333", "opacity: 0.3"],
)
def test_one_pale_piece_among_many_is_found(faults, style: str) -> None:
    body = "<p><b>text</b></p>" * 20 + f'<div style="{style}"><p><b>pale</b></p></div>'
    found = faults(f"<h1>A page</h1>{body}")
    assert sum("axe color-contrast" in fault for fault in found) == 6, found


def test_a_link_that_only_its_colour_tells_apart_is_found(faults) -> None:
    style = "color: #111; text-decoration: none"
    link = f'<p style="color: #000">See <a href="#" style="{style}">there</a> now.</p>'
    found = faults(f"<h1>A page</h1>{link}")
    assert sum("axe link-in-text-block" in fault for fault in found) == 6, found


def test_axe_fetches_nothing(faults, folder: Path) -> None:
    (folder / "styles").mkdir(exist_ok=True)
    (folder / "styles" / "a.css").write_text('@import "b.css";')
    (folder / "styles" / "b.css").write_text("")
    assert faults("<h1>A page</h1>", '<link rel="stylesheet" href="styles/a.css">') == []


def test_what_one_page_says_is_not_counted_for_the_next(faults) -> None:
    assert faults("<h1>A page</h1>", '<script>console.error("oh")</script>')
    assert faults("<h1>A page</h1>", name="other.html") == []


SEARCH = """<h1>Search</h1><ul id="search-results"></ul><script>
const word = new URLSearchParams(location.search).get("q");
const results = document.querySelector("#search-results");
if (word === "reciprocal") results.innerHTML = '<li><a href="book/09_reranking.html">9</a></li>';
</script>"""


def test_a_search_names_the_page(inspector, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(check_site, "TIMEOUT_MS", 3000)
    (folder / "search.html").write_text(FRAME.format(head="", body=SEARCH), encoding="utf-8")
    assert inspector.search("reciprocal", "book/09_reranking") == []
    (fault,) = inspector.search("memory", "book/05_class_memory")
    assert "'memory' does not name book/05_class_memory" in fault


def test_the_command(folder: Path, capsys) -> None:
    (folder / "good.html").write_text(FRAME.format(head="", body="<h1>A page</h1>"))
    (folder / "bad.html").write_text(FRAME.format(head="", body="<p>no heading</p>"))
    assert check_site.main([str(folder), "good.html"]) == 0
    assert capsys.readouterr().out == "1 pages at 1440, 768, 360 px, light and dark: no faults\n"
    assert check_site.main([str(folder), "good.html", "bad.html"]) == 1
    assert capsys.readouterr().out.startswith("bad.html: not one heading of level 1\n2 pages")


def test_every_job_is_done_once_and_a_failure_is_not_kept_silent(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(check_site, "inspecting", nullcontext)
    heard: list[list[str]] = []
    check_site.work(folder, [lambda _, at=at: [str(at)] for at in range(9)], heard.append)
    assert sorted(heard) == [[str(at)] for at in range(9)]
    with pytest.raises(ZeroDivisionError):
        check_site.work(folder, [lambda _: 1 / 0, lambda _: []], heard.append)


def test_a_folder_without_a_site(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no site in .*run `make site` first"):
        check_site.main([str(tmp_path)])


def test_the_pages_of_a_site(tmp_path: Path) -> None:
    for name in ("search.html", "index.html", "book/b.html", "book/a.html", "book/a.css"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert check_site.pages_of(tmp_path) == ["search.html", "book/a.html", "book/b.html"]
