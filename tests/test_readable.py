"""What `book/tools/readable.py` makes of notebooks and tables."""

from __future__ import annotations

import json
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

readable = pytest.importorskip("readable", reason="what builds the pages is not installed")


def folded(*sources: str, tags: tuple[str, ...] = ()) -> list[dict]:
    cells = [
        {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": [source]}
        for source in sources
    ]
    text = [json.dumps({"cells": cells})]
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda page: f"{page}.ipynb"))
    readable.fold(app, "chapter", text)
    return [cell["metadata"] for cell in json.loads(text[0])["cells"]]


def test_figures_and_the_first_cell_are_folded() -> None:
    setup, plain, figure = folded("import re", "a = 1", "# Figure 1.5\nplot()")
    assert setup["mystnb"]["code_prompt_show"] == "Set-up" and "hide-input" in setup["tags"]
    assert figure["mystnb"]["code_prompt_show"] == "Code for Figure 1.5"
    assert plain == {"tags": []}
    (hidden,) = folded("import re", tags=("hide-cell", "results"))
    assert hidden["tags"] == ["hide-cell", "results", "full-width"]


def shown(table: pd.DataFrame) -> str:
    return readable.readable(table.to_html())


SCORES = pd.DataFrame(
    {"a → b": ["53.7 ± 2.2 / 37.2 ± 1.8 (5)", "–"], "words": ["x", "y"], "gain": ["+1.2", "-0.3"]},
    index=pd.Index(["QAConv", "softmax"], name="method"),
)


def test_scores_become_two_columns_and_their_number_a_caption() -> None:
    rows = [[cell.text for cell in row] for row in ET.fromstring(shown(SCORES)).iter("tr")]
    assert rows[:2] == [["method", "a → b", "words", "gain"], ["rank-1", "mAP"]]
    assert rows[2] == ["QAConv", "53.7 ± 2.2", "37.2 ± 1.8", "x", "+1.2"]
    assert rows[3] == ["softmax", "–", "–", "y", "-0.3"] and len(rows) == 4
    assert "n = 5 runs" in shown(SCORES)
    two = shown(SCORES.assign(other=["1.0 / 2.0 (3)", "3.0 / 4.0 (5)"]))
    assert "4.0 (5)" in two and "runs" not in two


def test_numbers_are_aligned_and_other_tables_left_alone() -> None:
    text = shown(pd.DataFrame({"n": [1, 20], "who": ["ann", "ben"]}))
    assert text.count("number") == 3, "a heading and two cells"
    broken = "<table><tr><td>1 & 2</td></tr></table>"
    assert readable.readable(broken) == broken


def test_cells_of_tables_of_sentences_carry_their_heading() -> None:
    words = ["a", "what the paper says of it at length", "what its code does instead of that"]
    row = "".join(f"<td>{text}</td>" for text in words)
    head = "".join(f"<th>{text}</th>" for text in ("", "paper", "code"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
    found = ET.fromstring(readable.readable(table))
    assert "wide" in found.attrib["class"]
    assert [cell.get("data-label") for cell in found.iter("td")] == [None, "paper", "code"]
    assert "wide" not in readable.readable(table.replace(words[2], "7"))
    assert "wide" not in readable.readable(table.replace(words[2], "yes"))


def test_names_of_datasets_stay_on_one_line() -> None:
    text = shown(pd.DataFrame({"mini-duke": [1]}, index=["mini-market"]))
    assert "mini\u2011duke" in text and "mini\u2011market" in text
