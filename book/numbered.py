"""Sphinx extension: numbers the figures of a chapter, links what refers to figures and equations.

Notebooks are also read in Jupyter and on Colab, so they hold nothing that only Sphinx understands.
A figure has its caption in the cell's metadata and gets its number here: Figure 3.2 is the second
one of chapter 3. `refresh.py` repeats the caption in the code, for Jupyter and Colab, which show no
metadata; here, where it stands below the figure, it is taken out of the code again. An equation
has its number in LaTeX, `\\tag{3.1}`. Where a text says "Figure 3.2" or "Equation 3.1", a link is
made of it; a number that does not exist is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from stored_figures import CAPTION, FIGURE

CHAPTER = re.compile(r"book/(\d\d)_")
TAG = re.compile(r"\\tag\{(\d+\.\d+)\}")
MENTION = re.compile(r"\b(Figure|Equation)[ \n\u00a0](\d+\.\d+)\b")
# Where a mention stays text.
NO_LINK = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.raw, nodes.math)

logger = logging.getLogger(__name__)


def anchor(kind: str, number: str) -> str:
    """The place of a figure or an equation in its page: `figure-3-2`."""
    return f"{kind.lower()}-{number.replace('.', '-')}"


def number_figures(document: nodes.document, chapter: int) -> list[str]:
    """Numbers the figures that have a caption; returns their places."""
    places = []
    figures = [figure for figure in document.findall(nodes.figure) if _caption(figure)]
    for count, figure in enumerate(figures, start=1):
        number = f"{chapter}.{count}"
        label = nodes.inline("", f"Figure {number}", classes=["caption-number"])
        _caption(figure).insert(0, [label, nodes.Text(" ")])
        figure["ids"].insert(0, anchor("Figure", number))
        places.append(figure["ids"][0])
        _let_scroll(figure)
    return places


def drop_captions_from_code(document: nodes.document) -> None:
    """Takes the lines that repeat a caption out of the code above the figure."""
    for block in document.findall(nodes.literal_block):
        first, *body = block.astext().split("\n")
        if first.startswith(FIGURE):
            while body and body[0].startswith(CAPTION):
                body.pop(0)
            block.rawsource = "\n".join([first, *body])
            block.clear()
            block += nodes.Text(block.rawsource)


def _let_scroll(figure: nodes.figure) -> None:
    """Puts what stands above the caption into a box that scrolls by itself on a phone.

    The second class has the theme make the box reachable with the keyboard while it scrolls.
    """
    pictures = [child for child in figure.children if not isinstance(child, nodes.caption)]
    box = nodes.container(classes=["figure-scroll", "pst-scrollable-table-container"])
    for picture in pictures:
        figure.remove(picture)
    box += pictures
    figure.insert(0, box)


def _caption(figure: nodes.figure) -> nodes.caption | None:
    return next((child for child in figure.children if isinstance(child, nodes.caption)), None)


def mark_equations(document: nodes.document) -> list[str]:
    """Gives every formula with a number in its LaTeX a place to link to; returns the places."""
    places = []
    for formula in document.findall(nodes.math_block):
        text = formula.astext()
        found = [anchor("Equation", number) for number in TAG.findall(text)]
        if found:
            # As it stands: what Sphinx puts around a formula of several lines allows no number.
            formula["nowrap"] = True
            formula.children = [nodes.Text(f"\\begin{{equation}}{text}\\end{{equation}}")]
            formula["ids"] += found
            places += found
    return places


def read_page(app: Sphinx, document: nodes.document) -> None:
    """Numbers one page as it is read, and notes what others may refer to."""
    page = app.env.docname
    chapter = CHAPTER.match(page)
    if chapter:
        drop_captions_from_code(document)
        found = [*number_figures(document, int(chapter[1])), *mark_equations(document)]
        _places(app.env)[page] = found


def link_mentions(app: Sphinx, document: nodes.document, page: str) -> None:
    """Makes links of the mentions in one page."""
    pages = {place: name for name, places in _places(app.env).items() for place in places}
    for text in list(document.findall(nodes.Text)):
        if MENTION.search(text) and not _is_inside(text, NO_LINK):
            text.parent.replace(text, _linked(app, page, text, pages))


def _linked(app: Sphinx, page: str, text: nodes.Text, pages: dict[str, str]) -> list[nodes.Node]:
    """The text in pieces, mentions as links; `pages` names the page of each place."""
    pieces: list[nodes.Node] = []
    end = 0
    for found in MENTION.finditer(text):
        place = anchor(found[1], found[2])
        if place not in pages:
            logger.warning("there is no %s %s", found[1], found[2], location=text.parent)
            continue
        address = "" if pages[place] == page else app.builder.get_relative_uri(page, pages[place])
        pieces.append(nodes.Text(text[end : found.start()]))
        pieces.append(nodes.reference("", found[0], internal=True, refuri=f"{address}#{place}"))
        end = found.end()
    return [*pieces, nodes.Text(text[end:])]


def _is_inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds) or "caption-number" in parent.get("classes", []):
            return True
        parent = parent.parent
    return False


def _places(env: BuildEnvironment) -> dict[str, list[str]]:
    if not hasattr(env, "numbered_places"):
        env.numbered_places = {}  # type: ignore[attr-defined]
    return env.numbered_places  # type: ignore[attr-defined]


def forget_page(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _places(env).pop(page, None)


def merge_pages(
    app: Sphinx, env: BuildEnvironment, pages: Iterable[str], other: BuildEnvironment
) -> None:
    _places(env).update({page: _places(other)[page] for page in pages if page in _places(other)})


def number_here_only(app: Sphinx, config: Config) -> None:
    """Switches off Sphinx's own numbers, which an extension of Jupyter Book switches on."""
    config["numfig"] = False


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", number_here_only, priority=900)
    app.connect("doctree-read", read_page)
    app.connect("doctree-resolved", link_mentions)
    app.connect("env-purge-doc", forget_page)
    app.connect("env-merge-info", merge_pages)
    return {"env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
