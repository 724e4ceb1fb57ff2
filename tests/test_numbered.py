"""Figures and equations: `book/tools/numbered.py`, in a small site and in the notebooks."""

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
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
CONF = f"""
import sys
sys.path.insert(0, {str(BOOK / "tools")!r})
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


def prose(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def tags(path: Path) -> list[str]:
    return re.findall(r"\\tag\{([^}]*)\}", prose(path))


@each_chapter
def test_figures_of_a_chapter(path: Path) -> None:
    """A caption that the code repeats under a number, and twice as many pixels as are shown."""
    shown = filter(pictures, nbformat.read(path, as_version=4).cells)
    for number, cell in enumerate(shown, start=1):
        figure = cell.metadata.mystnb["figure"]
        assert figure["caption"].endswith(".")
        first, told = cell.source.split("\n#   ", 1)
        assert first == f"# Figure {int(path.name[:2])}.{number}", first
        assert told.replace("\n#  ", "").startswith(figure["caption"])
        for across, width in pictures(cell):
            assert across >= 2 * width - 1, cell.source
            assert (figure.get("classes") == "wide") == (width >= WIDE), cell.source


@each_chapter
def test_equations_of_a_chapter_are_numbered_in_order(path: Path) -> None:
    chapter = int(path.name[:2])
    assert tags(path) == [f"{chapter}.{n}" for n in range(1, len(tags(path)) + 1)]
