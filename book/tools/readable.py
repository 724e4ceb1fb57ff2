"""Sphinx extension: notebooks and tables as a reader of the site wants them.

The notebooks stay as they are in Jupyter. On the site

- the code of a figure is folded under "Code for Figure 1.5", the imports of a chapter under
  "Set-up", and cells tagged `results` may use the right margin;
- tables have one header row and right-aligned numbers; a column of cells such as
  "53.7 ± 2.2 / 37.2 ± 1.8 (5)" becomes two, rank-1 and mAP, under one heading, and the number of
  runs moves to the caption if it is the same in all cells;
- tables of sentences are marked `wide`, and their cells carry the heading for narrow screens.
"""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree as ET

from docutils import nodes
from sphinx.application import Sphinx

FIGURE = re.compile(r"# (Figure \S+)")
TABLE = re.compile(r"<table\b(?![^>]*(?:bars|explorer)).*?</table>", re.DOTALL)
SCORE = r"\d+\.\d(?: ± \d+\.\d)?"
PAIR = re.compile(rf"({SCORE}) / ({SCORE})(?: \((\d+)\))?")
SENTENCES = 60  # letters of the longest cells of a table in a row; a phone shows about 40
NUMBER = re.compile(r"[-−+]?[\d,]*\.?\d+(?:e[-+]\d+)?\b.{0,24}|[–-]?|NaN", re.DOTALL)


def fold(app: Sphinx, page: str, source: list[str]) -> None:
    """Tag the cells of a notebook that the site folds or widens."""
    if not app.env.doc2path(page).endswith(".ipynb"):
        return
    notebook, is_setup = json.loads(source[0]), True
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        about, text = cell["metadata"], "".join(cell["source"])
        tags, figure = about.setdefault("tags", []), FIGURE.match(text)
        label = f"Code for {figure[1]}" if figure else None
        if "colab-setup" in tags:
            label = "Set-up on Colab"
        elif is_setup:
            label, is_setup = "Set-up", False
        if label:
            tags += [] if {"hide-cell", "hide-input"} & set(tags) else ["hide-input"]
            about.setdefault("mystnb", {}).update(code_prompt_show=label, code_prompt_hide=label)
        if "results" in tags:
            tags.append("full-width")
    source[0] = json.dumps(notebook)


def mend_tables(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if "body" in context:
        context["body"] = TABLE.sub(lambda found: readable(found[0]), context["body"])


def readable(text: str) -> str:
    """A table of HTML with one header row, split pairs of scores, and aligned numbers."""
    try:
        table = ET.fromstring(text)
    except ET.ParseError:
        return text
    head, body = table.find("thead"), table.find("tbody")
    if head is None or body is None:
        return text
    rows = list(body.iter("tr"))
    columns = [list(column) for column in zip(*(row.findall("td") for row in rows), strict=False)]
    if len(head) == 2 and not text_of(head[1][-1]):  # the second row names the index
        for above, below in zip(head[0], list(head[1]), strict=False):
            above.text = text_of(above) or text_of(below)
        head.remove(head[1])
    if len(head) == 1 and columns:
        headings = list(head[0])[-len(columns) :]
        for heading, column in zip(headings, columns, strict=True):
            if all(NUMBER.fullmatch(text_of(cell)) for cell in column):
                for cell in (heading, *column):
                    cell.set("class", cell.get("class", "") + " number")
        if "dataframe" not in table.get("class", ""):
            _mark_sentences(table, headings, columns)
        _split_scores(table, head, rows, headings, columns)
    for heading in table.iter("th"):  # a dataset's name stays on one line
        heading.text = (heading.text or "").replace("mini-", "mini\u2011")
    return ET.tostring(table, encoding="unicode", method="html")


def text_of(cell: ET.Element) -> str:
    return "".join(cell.itertext()).strip()


def _mark_sentences(
    table: ET.Element, headings: list[ET.Element], columns: list[list[ET.Element]]
) -> None:
    """Let the cells of a row lie below each other on a phone, each after its heading."""
    longest = [max(len(text_of(cell)) for cell in column) for column in columns]
    numbers = any("number" in heading.get("class", "") for heading in headings)
    if numbers or sum(longest) <= SENTENCES or "chapters" in table.get("class", ""):
        return
    table.set("class", table.get("class", "") + " wide")
    for heading, column in list(zip(headings, columns, strict=True))[1:] if columns[2:] else []:
        for cell in column:
            cell.set("data-label", text_of(heading))


def _split_scores(
    table: ET.Element,
    head: ET.Element,
    rows: list[ET.Element],
    headings: list[ET.Element],
    columns: list[list[ET.Element]],
) -> None:
    """Make two columns of each that holds pairs of scores."""
    texts = [[text_of(cell) for cell in column] for column in columns]
    found = [[PAIR.fullmatch(text) for text in column] for column in texts]
    paired = [
        any(matches)
        and all(m or text in ("", "–") for m, text in zip(matches, column, strict=True))
        for matches, column in zip(found, texts, strict=True)
    ]
    if not any(paired):
        return
    counts = {match[3] for column in found for match in column if match and match[3]}
    below = ET.SubElement(head, "tr")
    for cell in head[0]:
        cell.set("rowspan", "2")
    for heading, column, matches, is_pair in zip(headings, columns, found, paired, strict=True):
        if not is_pair:
            continue
        del heading.attrib["rowspan"]
        heading.attrib.update({"colspan": "2", "class": "pair", "scope": "colgroup"})
        for name in ("rank-1", "mAP"):
            ET.SubElement(below, "th", {"class": "number", "scope": "col"}).text = name
        for row, cell, match in zip(rows, column, matches, strict=True):
            first, second, count = match.groups() if match else ("–", "–", None)
            more = f" ({count})" if count and len(counts) > 1 else ""
            added = ET.Element("td", {"class": "number"})
            added.text = second + more
            row.insert(list(row).index(cell) + 1, added)
            cell.attrib["class"] = "number"
            cell[:], cell.text = [], first
    caption = table.find("caption")
    if len(counts) == 1 and caption is None:
        caption = ET.Element("caption")
        caption.text = f"In percent; n = {counts.pop()} runs"
        table.insert(0, caption)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", fold, priority=400)
    app.connect("html-page-context", mend_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
