"""Figures and equations: `book/tools/numbered.py`, in a small site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_nb", reason="what builds the pages is not installed")

BOOK = Path(__file__).resolve().parent.parent / "book"
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

As in Figure 7.1 and\nEquation 7.1, Figure B.1 and Equation B.1.

```{toctree}
book/07_chapter
book/b_appendix
```
"""


def build(folder: Path, index: str) -> subprocess.CompletedProcess:
    (folder / "book").mkdir()
    (folder / "conf.py").write_text(CONF)
    (folder / "index.md").write_text(index)
    (folder / "book" / "07_chapter.md").write_text(CHAPTER)
    (folder / "book" / "b_appendix.md").write_text(CHAPTER.replace("7.", "B."))
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
    assert 'href="book/b_appendix.html#figure-B-1"' in front
    assert 'href="book/b_appendix.html#equation-B-1"' in front
    assert "figure-7-9" not in page, "code is left alone"
    assert page.count("figure-scroll") == 2 and "Fig. " not in page


def test_a_mention_of_what_does_not_exist_is_a_warning(tmp_path: Path) -> None:
    done = build(tmp_path, INDEX + "\nFigure 7.3\n")
    assert done.returncode != 0 and "there is no Figure 7.3" in done.stderr
