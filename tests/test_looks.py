"""One palette for the figures, the pages and the drawings."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from qaconv_lib.visualize import COLOURS

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
PALETTE = {name: colour.lower() for name, colour in COLOURS.items()}
GROUND = {"#a9b4bd", "#14324a"}  # empty cells of the logo, and what the favicon stands on


def colours_in(text: str) -> set[str]:
    return set(re.findall(r"#[0-9a-f]{6}\b", text.lower()))


def test_pages_have_the_colours_of_the_figures() -> None:
    style = (STATIC / "custom.css").read_text(encoding="utf-8")
    assert dict(re.findall(r"--book-(\w+): (#\w+);", style)) == PALETTE


@pytest.mark.parametrize("name", ["logo.svg", "favicon.svg"])
def test_drawings_have_the_colours_of_the_figures(name: str) -> None:
    found = colours_in((STATIC / name).read_text(encoding="utf-8"))
    assert found <= {*PALETTE.values(), *GROUND} and len(found & set(PALETTE.values())) >= 2


THEMES = ("light", "dark")
SHEETS = (
    ("pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/styles/theme.css"),
    ("pydata_sphinx_theme", "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"),
    ("sphinx_book_theme", "theme/sphinx_book_theme/static/styles/sphinx-book-theme.css"),
    ("myst_nb", "static/mystnb.css"),
)
ARTICLE = """<!doctype html><html data-theme="light"><meta charset="utf-8"><style>{style}</style>
<body><div class="bd-main"><div class="bd-content"><article class="bd-article">
<p>Text, <code>code</code> and <a href="#">a link</a>.</p>
<details><summary>Solution</summary></details>
<div class="admonition note"><p class="admonition-title">Note</p><p>Text.</p></div>
<div class="cell"><div class="cell_input"><div class="highlight"><pre>{code}</pre></div></div>
<div class="cell_output"><div class="output text_html"><table class="dataframe">
<thead><tr><th>a</th><th>b</th></tr></thead>
<tbody><tr><th>1</th><td>2</td></tr><tr><th>3</th><td>4</td></tr></tbody></table></div>
<div class="output text_plain"><div class="highlight"><pre>{code}</pre></div></div>
<img alt="" src="data:,"></div></div></article></div></div></body></html>"""
COLOURS_SHOWN = """theme => {
  document.documentElement.dataset.theme = theme;
  return ["html", "article", "article *"].flatMap(where => [...document.querySelectorAll(where)])
    .filter(node => node.tagName !== "IMG")
    .map(node => [getComputedStyle(node), `${node.tagName} ${node.className}`])
    .map(([s, name]) => [name, s.color, s.backgroundColor, s.borderLeftColor, s.borderBottomColor,
                         s.textShadow, s.colorScheme].join("; "));
}"""
PICTURE_SHOWN = """theme => {
  document.documentElement.dataset.theme = theme;
  const {filter, backgroundColor, padding, borderRadius} = getComputedStyle(document.images[0]);
  return {filter, backgroundColor, padding, borderRadius};
}"""


def page_of_code() -> str:
    """A page in the styles of the site, with every kind of token in its code."""
    tokens = pytest.importorskip("pygments.token").STANDARD_TYPES
    formatters = pytest.importorskip("pygments.formatters")
    sheets = []
    for package, path in SHEETS:
        pytest.importorskip(package)
        sheets.append((resources.files(package) / path).read_text(encoding="utf-8"))
    for theme in THEMES:
        formatter = formatters.HtmlFormatter(style=f"a11y-high-contrast-{theme}")
        sheets.append(formatter.get_style_defs(f'html[data-theme="{theme}"] .highlight'))
    sheets.append((STATIC / "custom.css").read_text(encoding="utf-8"))
    code = "".join(f'<span class="{kind}">x</span>' for kind in sorted(tokens.values()))
    return ARTICLE.format(style="\n".join(sheets), code=code)


@pytest.mark.browser
def test_a_page_is_printed_in_the_light_theme(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    check_site = pytest.importorskip("check_site")
    (tmp_path / "page.html").write_text(page_of_code(), encoding="utf-8")
    with check_site.inspecting(tmp_path) as inspector:
        page = inspector.page
        page.goto(inspector.address + "page.html")
        assert page.evaluate(COLOURS_SHOWN, "light") != page.evaluate(COLOURS_SHOWN, "dark")
        page.emulate_media(media="print", color_scheme="dark", reduced_motion="reduce")
        assert page.evaluate(COLOURS_SHOWN, "dark") == page.evaluate(COLOURS_SHOWN, "light")
        assert page.evaluate(PICTURE_SHOWN, "dark") == page.evaluate(PICTURE_SHOWN, "light")
