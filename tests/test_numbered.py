"""Figures and equations of chapters: `book/numbered.py`, in a small site and in the notebooks."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from PIL import Image

pytest.importorskip("myst_nb", reason="what builds the pages is not installed")

BOOK = Path(__file__).resolve().parent.parent / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
MENTION = re.compile(r"\b(Figure|Equation)\s(\d+\.\d+)\b")
WIDE = 600  # pixels as shown; six inches
CONF = f"""
import sys
sys.path.insert(0, {str(BOOK)!r})
extensions = ["myst_parser", "sphinx.ext.mathjax", "numbered"]
numfig = True
myst_enable_extensions = ["dollarmath"]
root_doc = "index"
"""
CHAPTER = """# 7. A chapter

See Figure 7.2, Equation 7.1 and `Figure 7.9`.

```{figure} a.svg
A caption.
```

```{figure} a.svg
```

```{figure} a.svg
Another, with *Figure 7.1* named.
```

```python
# Figure 7.1
#   A caption.
# a remark
show()
```

$$a = b \\tag{7.1}$$
"""
INDEX = """# A book

As in Figure 7.1 and\nEquation 7.1.

```{toctree}
book/07_chapter
```
"""


def build(folder: Path, index: str) -> subprocess.CompletedProcess:
    (folder / "book").mkdir()
    (folder / "conf.py").write_text(CONF)
    (folder / "index.md").write_text(index)
    (folder / "book" / "07_chapter.md").write_text(CHAPTER)
    (folder / "book" / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ".", "out"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_numbers_and_links(tmp_path: Path) -> None:
    done = build(tmp_path, INDEX)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "book" / "07_chapter.html").read_text()
    front = (tmp_path / "out" / "index.html").read_text()
    captions = re.findall(r"<figure [^>]*id=\"([\w-]+)\">.*?<figcaption>(.*?)</figcap", page, re.S)
    texts = [re.sub(r"<.*?>", "", text).strip().rstrip("¶") for _, text in captions]
    assert [place for place, _ in captions] == ["figure-7-1", "figure-7-2"], "one has no caption"
    assert texts == ["Figure 7.1 A caption.", "Figure 7.2 Another, with Figure 7.1 named."]
    code = re.sub(r"<.*?>", "", re.search(r"<pre>(.*?)</pre>", page, re.S)[1])
    assert code.strip().split("\n") == ["# Figure 7.1", "# a remark", "show()"]
    assert page.count('href="#figure-7-1"') >= 1 and 'href="#figure-7-2"' in page
    assert 'id="equation-7-1"' in page and 'href="#equation-7-1"' in page
    assert 'href="book/07_chapter.html#figure-7-1"' in front
    assert 'href="book/07_chapter.html#equation-7-1"' in front
    assert "figure-7-9" not in page, "code is left alone"
    assert page.count("figure-scroll") == 2 and "Fig. " not in page


def test_a_mention_of_what_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    done = build(tmp_path, INDEX + "\nFigure 7.3\n")
    assert done.returncode != 0 and "there is no Figure 7.3" in done.stderr


# ---------------------------------------------------------------------------- the notebooks


def pictures(cell: nbformat.NotebookNode) -> list[tuple[int, int]]:
    """Of each picture of a cell: its pixels across, and those of the page it is shown on."""
    widths = []
    for output in cell.get("outputs", []):
        for kind, data in output.get("data", {}).items():
            if kind.startswith("image/"):
                across = Image.open(BytesIO(base64.b64decode(data))).width
                widths.append((across, output.metadata.get(kind, {}).get("width", across)))
    return widths


def captions(path: Path) -> list[str | None]:
    """The caption of each cell that shows a picture."""
    shown = filter(pictures, nbformat.read(path, as_version=4).cells)
    return [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption") for cell in shown]


def prose(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def tags(path: Path) -> list[str]:
    return re.findall(r"\\tag\{([^}]*)\}", prose(path))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_figures_of_a_chapter_have_captions(path: Path) -> None:
    given = captions(path)
    assert all(given), "a figure without a caption"
    for caption in given:
        assert caption[0].isupper() or caption[0] in "`$*", caption
        assert caption.endswith("."), caption


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_code_of_a_figure_begins_with_its_number(path: Path) -> None:
    """Jupyter and Colab show no captions; a text that names a figure must be followed there too."""
    shown = filter(pictures, nbformat.read(path, as_version=4).cells)
    for number, cell in enumerate(shown, start=1):
        first = cell.source.split("\n")[0]
        assert first == f"# Figure {int(path.name[:2])}.{number}", first
        told = cell.source.split("\n#   ", 1)[1].replace("\n#  ", "")
        assert told.startswith(cell.metadata.mystnb["figure"]["caption"])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_wide_figures_are_marked(path: Path) -> None:
    for cell in filter(pictures, nbformat.read(path, as_version=4).cells):
        figure = cell.metadata.mystnb["figure"]
        _, width = pictures(cell)[0]
        assert (figure.get("classes") == "wide") == (width >= WIDE), cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_figures_are_stored_twice_as_fine_as_they_are_shown(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for across, shown in pictures(cell):
            assert across >= 2 * shown - 1, cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_equations_of_a_chapter_are_numbered_in_order(path: Path) -> None:
    chapter = int(path.name[:2])
    assert tags(path) == [f"{chapter}.{n}" for n in range(1, len(tags(path)) + 1)]


def test_every_mention_has_its_figure_or_equation() -> None:
    there = set()
    for path in CHAPTERS:
        chapter = int(path.name[:2])
        numbers = range(1, sum(map(bool, captions(path))) + 1)
        there |= {("Figure", f"{chapter}.{number}") for number in numbers}
        there |= {("Equation", number) for number in tags(path)}
    texts = [prose(path) for path in CHAPTERS]
    texts += [page.read_text(encoding="utf-8") for page in BOOK.glob("*.md")]
    mentions = {found for text in texts for found in MENTION.findall(text)}
    assert len(mentions) > 10
    assert mentions <= there, sorted(mentions - there)
