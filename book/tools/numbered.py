"""Sphinx extension: numbers the figures of a chapter, and links mentions of figures and equations.

Notebooks are also read in Jupyter and on Colab, so they hold nothing that only Sphinx understands.
A figure has its caption in the cell's metadata and gets its number here: Figure 3.2 is the second
one of chapter 3, Figure A.1 the first of appendix A. `refresh.py` repeats the caption in the code;
here, where it stands below the figure, it is removed from the code again. An equation has its
number in LaTeX, `\\tag{3.1}`. Where a text says "Figure 3.2" or "Equation 3.1", it becomes a link;
an unknown number is a warning.
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

CHAPTER = re.compile(r"book/(\d\d|[a-z])_")
TAG = re.compile(r"\\tag\{((?:\d+|[A-Z])\.\d+)\}")
MENTION = re.compile(r"\b(Figure|Equation)[ \n\u00a0]((?:\d+|[A-Z])\.\d+)\b")
# Where a mention stays text.
NO_LINK = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.raw, nodes.math)

logger = logging.getLogger(__name__)


def anchor(kind: str, number: str) -> str:
    """The id of a figure or an equation in its page: `figure-3-2`."""
    return f"{kind.lower()}-{number.replace('.', '-')}"


def number_figures(document: nodes.document, chapter: str) -> list[str]:
    """Number the figures that have a caption; returns their ids."""
    ids: list[str] = []
    for figure in list(document.findall(nodes.figure)):
        *content, caption = figure.children
        if not isinstance(caption, nodes.caption):
            continue
        number = f"{chapter}.{len(ids) + 1}"
        label = nodes.inline("", f"Figure {number}", classes=["caption-number"])
        caption.insert(0, [label, nodes.Text(" ")])
        ids.append(anchor("Figure", number))
        figure["ids"].insert(0, ids[-1])
        # A box that scrolls on a phone; its second class lets the theme give it to the keyboard.
        box = nodes.container(classes=["figure-scroll", "pst-scrollable-table-container"])
        box += content
        figure.children = []
        figure += [box, caption]
    return ids


def drop_captions_from_code(document: nodes.document) -> None:
    """Remove the lines that repeat a caption from the code above the figure."""
    for block in document.findall(nodes.literal_block):
        first, *body = block.astext().split("\n")
        if first.startswith(FIGURE):
            while body and body[0].startswith(CAPTION):
                body.pop(0)
            block.rawsource = "\n".join([first, *body])
            block.clear()
            block += nodes.Text(block.rawsource)


def mark_equations(document: nodes.document) -> list[str]:
    """Give every formula with a number in its LaTeX an id to link to; returns the ids."""
    ids: list[str] = []
    for formula in document.findall(nodes.math_block):
        text = formula.astext()
        found = [anchor("Equation", number) for number in TAG.findall(text)]
        if found:
            # What Sphinx puts around a formula of several lines allows no number.
            formula["nowrap"] = True
            formula.children = [nodes.Text(f"\\begin{{equation}}{text}\\end{{equation}}")]
            formula["ids"] += found
            ids += found
    return ids


def read_page(app: Sphinx, document: nodes.document) -> None:
    """Number one page as it is read, and keep the ids that others may refer to."""
    page = app.env.docname
    if chapter := CHAPTER.match(page):
        drop_captions_from_code(document)
        ids = [*number_figures(document, chapter[1].lstrip("0").upper()), *mark_equations(document)]
        _ids(app.env)[page] = ids


def link_mentions(app: Sphinx, document: nodes.document, page: str) -> None:
    """Turn the mentions in one page into links."""
    pages = {place: name for name, ids in _ids(app.env).items() for place in ids}
    for text in list(document.findall(nodes.Text)):
        if MENTION.search(text) and not _stays_text(text):
            text.parent.replace(text, _linked(app, page, text, pages))


def _linked(app: Sphinx, page: str, text: nodes.Text, pages: dict[str, str]) -> list[nodes.Node]:
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


def _stays_text(node: nodes.Node) -> bool:
    while (node := node.parent) is not None:
        if isinstance(node, NO_LINK) or "caption-number" in node.get("classes", []):
            return True
    return False


def _ids(env: BuildEnvironment) -> dict[str, list[str]]:
    """The ids of the figures and equations of each page."""
    if not hasattr(env, "numbered_ids"):
        env.numbered_ids = {}  # type: ignore[attr-defined]
    return env.numbered_ids  # type: ignore[attr-defined]


def forget_page(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _ids(env).pop(page, None)


def merge_pages(
    app: Sphinx, env: BuildEnvironment, pages: Iterable[str], other: BuildEnvironment
) -> None:
    _ids(env).update({page: _ids(other)[page] for page in pages if page in _ids(other)})


def switch_off_numfig(app: Sphinx, config: Config) -> None:
    """An extension of Jupyter Book switches Sphinx's own numbers on."""
    config["numfig"] = False


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", switch_off_numfig, priority=900)
    app.connect("doctree-read", read_page)
    app.connect("doctree-resolved", link_mentions)
    app.connect("env-purge-doc", forget_page)
    app.connect("env-merge-info", merge_pages)
    return {"env_version": 2, "parallel_read_safe": True, "parallel_write_safe": True}
