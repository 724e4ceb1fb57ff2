"""The pages to look things up in: what they say of the chapters, the parts and the paper."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from qaconv_lib.experiments.published import TABLES34

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
FEWEST_QUESTIONS = 3


def page(name: str) -> str:
    return (BOOK / name).read_text(encoding="utf-8")


def numbers(path: Path) -> list[str]:
    """Numbers of a chapter's equations."""
    cells = nbformat.read(path, as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return re.findall(r"\\tag\{(\d+\.\d+)\}", "\n".join(texts))


# ----------------------------------------------------------------------------------- notation


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_notation_names_every_equation(path: Path) -> None:
    """So each is mentioned outside its formula, and can be found by its symbols."""
    named = set(re.findall(r"\bEquation\s(\d+\.\d+)\b", page("notation.md")))
    missing = [number for number in numbers(path) if number not in named]
    assert not missing, f"no row of notation.md says Equation {', '.join(missing)}"


def test_an_equation_of_the_notation_stands_beside_its_chapter() -> None:
    for row in re.findall(r"^\| .*\|$", page("notation.md"), re.MULTILINE):
        for chapter in re.findall(r"\bEquation\s(\d+)\.\d+\b", row):
            assert f"]({int(chapter):02}_" in row, row


# ---------------------------------------------------------------------------- questions to recall


def parts() -> list[tuple[str, list[str]]]:
    """Caption and files of each part of the book that has chapters with a number."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = []
    for part in toc["parts"]:
        files = [Path(chapter["file"]).name for chapter in part["chapters"]]
        chapters = [f"{name}.ipynb" for name in files if re.match(r"\d\d_", name)]
        if chapters:
            found.append((part["caption"], chapters))
    return found


def test_every_part_has_its_questions() -> None:
    headings = re.findall(r"^## (.+)$", page("recall.md"), re.MULTILINE)
    assert headings == [caption for caption, _ in parts()]


@pytest.mark.parametrize(("caption", "chapters"), parts(), ids=lambda value: str(value)[:20])
def test_a_part_names_its_chapters_and_asks_enough(caption: str, chapters: list[str]) -> None:
    section = page("recall.md").split(f"\n## {caption}\n")[1].split("\n## ")[0]
    assert section.count("```{dropdown} ") >= FEWEST_QUESTIONS
    opening = section.split("```")[0]
    assert set(re.findall(r"\]\(([^)]+)\)", opening)) == {chapters[0], chapters[-1]}


def test_every_question_has_a_short_answer() -> None:
    asked = re.findall(r"^```\{dropdown\} (.+)\n((?:.+\n)+?)```$", page("recall.md"), re.MULTILINE)
    assert len(asked) == page("recall.md").count("```{dropdown}")
    for question, answer in asked:
        assert re.search(r"[?.]$", question), question
        assert len(answer.split()) <= 90, question


# -------------------------------------------------------------------------------- what came after


def test_the_published_column_is_that_of_the_tables() -> None:
    names = {
        "Market-1501": "market",
        "DukeMTMC-reID": "duke",
        "CUHK03-NP": "cuhk03",
        "MSMT17": "msmt17",
        "MSMT17, all images": "msmt17",
    }
    checked = 0
    for row in re.findall(r"^\| (.+ → .+) \|$", page("after.md"), re.MULTILINE):
        direction, *columns = row.split(" | ")
        source, target = (names.get(name) for name in direction.split(" → "))
        if source and columns[1] != "–":
            rank1, mean_ap = TABLES34["small", "alone", source, target]
            assert columns[1] == f"{rank1} / {mean_ap}", direction
            checked += 1
    assert checked >= 6
