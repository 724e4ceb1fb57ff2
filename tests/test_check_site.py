"""The checks of `book/tools/check_site.py`, on small pages that have one fault each."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
check_site = pytest.importorskip("check_site", reason="playwright is not installed")
pytestmark = pytest.mark.browser

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
IMAGE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='40'%3E%3C/svg%3E"
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
{head}</head><body><main><article>{body}</article></main></body></html>"""
FORMULAS = '<script src="tex-svg-full.js"></script>'
SOUND = f"""<h1>A page</h1><p>Text, and <code>\\(code\\)</code>.</p><h2>A part</h2>
<p><img src="{IMAGE}" alt="a square"></p>
<p>A formula: <span class="math">\\(a^2 + b^2\\)</span>.</p>"""
WIDE = '<div style="width: 700px">wide</div>'
DARK, PHONE = "(prefers-color-scheme: dark)", "(max-width: 400px)"
# Complains as soon as a view fits.
WHILE = """<script>
const query = matchMedia("{query}");
const say = () => {{ if (query.matches) {{ console.error("oh"); fetch("none.json"); }} }};
query.onchange = say;
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(STATIC / "mathjax" / "tex-svg-full.js", folder)
    return folder


@pytest.fixture(scope="module")
def inspector(folder: Path) -> Iterator:
    with check_site.inspecting(folder) as inspector:
        yield inspector


@pytest.fixture
def faults(inspector, folder: Path) -> Callable[..., list[str]]:
    def faults_of_page(body: str, head: str = "", name: str = "page.html") -> list[str]:
        (folder / name).write_text(FRAME.format(head=head, body=body), encoding="utf-8")
        return inspector.faults(name)

    return faults_of_page


def test_a_sound_page_has_no_fault_even_after_a_bad_one(faults) -> None:
    assert faults("<p>no heading</p>", '<script>console.error("oh")</script>')
    assert faults(SOUND, FORMULAS) == []


@pytest.mark.parametrize(
    "body, head, fault",
    [
        ("", '<script>console.error("oh")</script>', "console: oh"),
        ("", '<script src="none.js"></script>', "request failed (404): none.js"),
        ("", '<script src="http://10.0.0.1/a.js"></script>', "request to another place: http://10"),
        ('<img src="none.png" alt="x">', "", "broken image: none.png"),
        (f'<img src="{IMAGE}">', "", "axe image-alt"),
        ('<span class="math">\\(a\\)</span>', "", "formulas, but no MathJax"),
        ('<span class="math">a</span>', FORMULAS, "formula not typeset: a"),
        ('<span class="math">\\(\\nosuch\\)</span>', FORMULAS, "formula with an error"),
        ("A formula \\(a\\)", "", "formula left as text: A formula"),
        ("<h3>Deep</h3>", "", "axe heading-order"),
        ("<input>", "", "360 px, dark: axe label"),
        (WIDE, "", "page.html, 360 px, dark: scrolls sideways: 7"),
        ('<p style="color: #bbb">pale</p>', "", "1440 px, light: axe color-contrast"),
        (
            "<p>pale</p>",
            f"<style>body {{ background: #fff }} @media {DARK} {{ p {{ color: #ccc }} }}</style>",
            "1440 px, dark: axe color-contrast",
        ),
        ("", WHILE.format(query=DARK), "1440 px, dark: console: oh"),
        ("", WHILE.format(query=PHONE), "360 px, light: request failed (404): none.json"),
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
    assert [fault.split(",")[1] for fault in found] == [" 360 px", " 360 px"]
    assert not faults(f'<h1>A page</h1><div style="overflow-x: auto" tabindex="0">{WIDE}</div>')


SEARCH = """<h1>Search</h1><div id="search-results"><p class="search-summary"></p></div><script>
const word = new URLSearchParams(location.search).get("q");
const list = document.createElement("ol");
const pages = word === "first" ? ["05_class", "api_x"] : ["api_x", "05_class"];
for (const page of pages) list.innerHTML += `<li><a href="${page}.html">${word}</a></li>`;
document.querySelector("#search-results").append(list);
document.querySelector(".search-summary").innerText = word === "never" ? "" : "Search finished";
</script>"""


def test_a_search_names_the_page_first_and_without_formulas(inspector, folder, monkeypatch) -> None:
    monkeypatch.setattr(check_site, "SEARCH_TIMEOUT_MS", 500)
    (folder / "search.html").write_text(FRAME.format(head="", body=SEARCH), encoding="utf-8")
    assert inspector.search("first", "05_class") == []
    for word, fault in (("last", "first"), ("never", "does not end")):
        assert any(fault in one for one in inspector.search(word, "05_class"))
    assert "formula" in inspector.search("%5C(a%5C)", "api_x")[0]


BUTTONS = """<h1>A page</h1></article><nav>
<button title="theme" onclick="document.documentElement.dataset.theme = 'dark'">1</button>
<button title="menu" onclick="more.hidden = !more.hidden">2</button>
<div id="more" hidden><button title="within">3</button></div>
<button title="dead" onmouseover="tip.hidden = false">4</button>
<p id="tip" class="tooltip" style="position: absolute" hidden>a tip</p></nav><article>"""


def test_buttons_that_change_nothing_are_found(inspector, folder: Path) -> None:
    (folder / "page.html").write_text(FRAME.format(head="", body=BUTTONS), encoding="utf-8")
    found = inspector.buttons("page.html")
    assert sum("dead" in one for one in found) == sum("within" in one for one in found) == 3
    assert not any("theme" in one or "menu" in one for one in found)
    assert inspector.buttons("page.html") == [], "the same buttons are tried once"


def test_a_link_must_lead_to_a_page_and_a_place(faults) -> None:
    links = ("page.html#here", "none.html", "page.html#there", "https://example.org/")
    body = '<h1 id="here">A page</h1>' + "".join(f'<a href="{link}">go</a> ' for link in links)
    found = [one for one in faults(body) if "nowhere" in one]
    assert [one.split()[-1] for one in found] == ["none.html", "page.html#there"]


def test_the_command(folder: Path, capsys) -> None:
    (folder / "good.html").write_text(FRAME.format(head="", body="<h1>A page</h1>"))
    (folder / "bad.html").write_text(FRAME.format(head="", body="<h1>A page</h1><h3>Deep</h3>"))
    assert check_site.main([str(folder), "good.html"]) == 0
    assert check_site.main([str(folder), "good.html", "bad.html"]) == 1
    assert "bad.html" in capsys.readouterr().out


def test_the_pages_of_a_site(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no site in"):
        check_site.main([str(tmp_path)])
    for name in ("search.html", "404.html", "book/b.html", "book/a.html", "book/a.css"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    pages = ["search.html", "404.html", "book/a.html", "book/b.html"]
    assert check_site.pages_of(tmp_path) == pages
