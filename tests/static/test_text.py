"""The text of the book: what every committed notebook and page is held to."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml
from compare import tolerance_of
from nbformat import NotebookNode
from road_map import road_map

from qaconv_lib.experiments.published import TABLES34

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"(\d\d|[a-z])_", path.name)]
PAGES = sorted(BOOK.glob("*.md"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
REPOSITORY = CONFIG["repository"]["url"]
OTHER_REPOSITORIES = {"ShengcaiLiao/QAConv", "huggingface/pytorch-image-models"}

LARGEST_LENIENT_SHARE = 0.1
MACHINE_PATH = re.compile(r"(?:/(?:work|home|root|Users|tmp|content)/|[A-Z]:\\\\?Users)")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def number_of(path: Path) -> str:
    """What the figures of a chapter are numbered by: 3, or A for the first appendix."""
    return path.name.split("_")[0].lstrip("0").upper()


@cache
def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_image(cell: NotebookNode) -> bool:
    kinds = (kind for output in cell.outputs for kind in output.get("data", {}))
    return any(kind.startswith("image/") for kind in kinds)


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def without_code(markdown: str) -> str:
    """The text without fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S))


def local_links(markdown: str) -> set[str]:
    found = re.findall(r"\]\(([^)\s]+)", without_code(markdown))
    found += re.findall(r"\b(?:src|href)=\"([^\"]+)\"", markdown)
    return {link.split("#")[0] for link in found if "://" not in link and not link.startswith("#")}


# ------------------------------------------------------------------------ state of a notebook


@each_notebook
def test_outputs_hold_no_errors_paths_or_stderr(path: Path) -> None:
    for cell in code_cells(read(path)):
        meant_to_fail = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.outputs:
            assert output.get("name") != "stderr"
            assert output.output_type != "error" or meant_to_fail, cell.source
            texts = [output.get("text", ""), output.get("evalue", "")]
            texts += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
            for text in texts:
                assert not MACHINE_PATH.search(str(text)), text


@each_notebook
def test_pictures_have_a_description(path: Path) -> None:
    for cell in code_cells(read(path)):
        if has_image(cell):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert alt.strip(), f"no mystnb.image.alt in the metadata of\n{cell.source}"
    text = prose(read(path))
    assert not re.search(r"!\[\s*\]\(", text)
    for tag in re.findall(r"<img\b[^>]*>", text):
        assert re.search(r"\balt=\"[^\"]+\"", tag), tag


@each_notebook
def test_few_cells_are_exempt_from_comparison_or_state_a_tolerance(path: Path) -> None:
    cells = code_cells(read(path))
    lenient = [
        cell
        for cell in cells
        if re.search(r"nbval[-_](ignore|skip)", f"{cell.metadata} {cell.source}", re.IGNORECASE)
        or tolerance_of(cell.metadata).reason
    ]
    most = max(1, LARGEST_LENIENT_SHARE * len(cells))
    assert len(lenient) <= most, f"{len(lenient)} of {len(cells)}"


# ----------------------------------------------------------------------- content of a notebook


@each_chapter
def test_first_cell(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    lines = first.source.split("\n")
    assert re.fullmatch(rf"# {number_of(path)}\. \S.*", lines[0]), lines[0]
    branch = CONFIG["repository"]["branch"]
    place = REPOSITORY.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/{branch}/book/{path.name}"
    assert f"[Open in Colab]({link})" in lines
    assert re.search(
        r"^\*\*Needs\*\* .*\*\*Time\*\* .*\*\*Hardware\*\* ", first.source, re.MULTILINE
    )
    assert road_map(path) in first.source, "run `python book/tools/road_map.py`"


@each_chapter
def test_setup_cell(path: Path) -> None:
    contributing = (BOOK / "contributing.md").read_text(encoding="utf-8")
    (expected,) = re.findall(r"```ipython3\n(# On Colab.*?)\n```", contributing, re.DOTALL)
    assert f"git clone --quiet --depth 1 {REPOSITORY}\n" in expected
    assert "--no-deps" in expected
    cells = code_cells(read(path))
    assert cells[0].source == expected, "the cell stands in book/contributing.md"
    assert set(cells[0].metadata.tags) == {"colab-setup", "hide-cell"}
    assert not cells[0].outputs
    assert sum("colab-setup" in cell.metadata.get("tags", []) for cell in cells) == 1


@each_chapter
def test_captions_repeat_in_the_code_under_the_figures_number(path: Path) -> None:
    shown = [cell for cell in code_cells(read(path)) if has_image(cell)]
    for number, cell in enumerate(shown, start=1):
        first, told = cell.source.split("\n#   ", 1)
        assert first == f"# Figure {number_of(path)}.{number}", first
        assert told.replace("\n#  ", "").startswith(cell.metadata.mystnb["figure"]["caption"])


@each_chapter
def test_equations_are_numbered_in_order_and_named_by_the_notation(path: Path) -> None:
    numbers = re.findall(r"\\tag\{([^}]*)\}", prose(read(path)))
    assert numbers == [f"{number_of(path)}.{n}" for n in range(1, len(numbers) + 1)]
    notation = (BOOK / "notation.md").read_text(encoding="utf-8")
    assert set(numbers) <= set(re.findall(r"\bEquation\s(\w+\.\d+)\b", notation))


@each_notebook
def test_no_directives_in_notebooks(path: Path) -> None:
    found = re.findall(r"^(?:`{3,}|:{3,})\{.*|\{[a-z:]+\}`[^`]*`", prose(read(path)), re.MULTILINE)
    assert not found, "these show raw in Jupyter and on Colab"


# ------------------------------------------------------------------- pages to look things up in


def test_the_glossary_is_in_order() -> None:
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    terms = [term.lower() for term in re.findall(r"^(.*)\n: ", text, re.MULTILINE)]
    assert terms == sorted(terms)


def plain_title(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", re.sub(r"[{}]", "", title).lower()).strip()


@each_chapter
def test_every_reference_of_a_chapter_has_an_entry(path: Path) -> None:
    references = prose(read(path)).split("\n## References")[1]
    titles = [plain_title(title) for title in re.findall(r"\*([^*]+)\*", references)]
    bibliography = (BOOK / "references.bib").read_text(encoding="utf-8")
    known = [plain_title(title) for title in re.findall(r"^ *title *= (.+),?$", bibliography, re.M)]
    missing = [title for title in titles if not any(work.startswith(title) for work in known)]
    assert not missing, f"not in references.bib: {missing}"


# ------------------------------------------------------------------------- files and addresses


def test_toc_and_files_agree() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    files = [path.relative_to(ROOT).with_suffix("").as_posix() for path in NOTEBOOKS + PAGES]
    assert sorted([toc["root"], *chapters]) == sorted(files)
    numbered = [entry for entry in chapters if re.match(r"book/(\d\d|[a-z])_", entry)]
    assert numbered == sorted(numbered), "chapters stand in the order of their numbers"
    parts = [p["caption"] for p in toc["parts"] if p["chapters"][0]["file"] in numbered]
    recall = (BOOK / "recall.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", recall, re.MULTILINE) == parts, "each part has its questions"


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CITATION.cff", ROOT / "pyproject.toml", *PAGES, *NOTEBOOKS],
    ids=lambda path: path.name,
)
def test_the_repository_is_named_alike_everywhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"github(?:\.com|usercontent\.com)?/([\w-]+/[\w-]+)", text))
    assert found - OTHER_REPOSITORIES <= {REPOSITORY.removeprefix("https://github.com/")}


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "README.md", *NOTEBOOKS], ids=lambda path: path.name
)
def test_local_links(path: Path) -> None:
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else prose(read(path))
    for link in local_links(text):
        assert (path.parent / link).exists(), link


def test_the_front_page_has_the_minutes_of_each_chapter() -> None:
    rows = re.findall(
        r"^\| (?:\d+|[A-Z]) \| \[.*\((\w+\.ipynb)\).*\| (\d+) \|$",
        (BOOK / "index.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert [name for name, _ in rows] == [path.name for path in CHAPTERS]
    for name, minutes in rows:
        assert f"**Time** {minutes} minutes" in read(BOOK / name).cells[0].source, name


def test_the_published_column_is_that_of_the_tables() -> None:
    rows = re.findall(
        r"^\| (\S+) → ([\w-]+)[^|]* \| [^|]+ \| (\d.*?) \|",
        (BOOK / "after.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    names = {"Market-1501": "market", "DukeMTMC-reID": "duke", "CUHK03-NP": "cuhk03"}
    for source, target, published in rows:
        source, target = names.get(source, "msmt17"), names.get(target, "msmt17")
        rank1, mean_ap = TABLES34["small", "alone", source, target]
        assert published == f"{rank1} / {mean_ap}", (source, target)
    assert rows
