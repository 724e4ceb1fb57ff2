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


def page(name: str) -> str:
    return (BOOK / name).read_text(encoding="utf-8")


def numbers(path: Path) -> list[str]:
    """Numbers of a chapter's equations."""
    cells = nbformat.read(path, as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return re.findall(r"\\tag\{(\d+\.\d+)\}", "\n".join(texts))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_notation_names_every_equation(path: Path) -> None:
    named = set(re.findall(r"\bEquation\s(\d+\.\d+)\b", page("notation.md")))
    missing = [number for number in numbers(path) if number not in named]
    assert not missing, f"no row of notation.md says Equation {', '.join(missing)}"


def test_every_part_with_numbered_chapters_has_its_questions() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    captions = [
        part["caption"]
        for part in toc["parts"]
        if any(re.search(r"/\d\d_", chapter["file"]) for chapter in part["chapters"])
    ]
    assert re.findall(r"^## (.+)$", page("recall.md"), re.MULTILINE) == captions


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
