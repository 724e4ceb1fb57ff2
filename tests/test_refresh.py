"""Tests of book/tools/refresh.py: running notebooks and bringing them into normal form."""

from pathlib import Path

import nbformat
import pytest
import refresh
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


def untidy_notebook() -> nbformat.NotebookNode:
    widget = {refresh.WIDGET: {"model_id": "1"}, "text/plain": "Box()"}
    picture = new_output(
        "display_data",
        {"image/png": "aGVsbG8=", "text/plain": "<Figure>"},
        metadata={"image/png": {"width": 100}, "needs_background": "light"},
    )
    error = new_output("error", ename="ValueError", evalue="no", traceback=["/home/me/x.py", "no"])
    cell = new_code_cell(
        "print(1)   \n\n",
        execution_count=7,
        metadata={"tags": ["b", "a"], "collapsed": True, "mystnb": {"image": {"alt": "a dog"}}},
        outputs=[
            new_output("stream", name="stdout", text="1\n"),
            new_output("stream", name="stderr", text="100%|###|"),
            new_output("stream", name="stdout", text="2\n"),
            new_output("display_data", widget),
            picture,
            new_output("execute_result", {"text/plain": "3"}, execution_count=6),
            error,
        ],
    )
    same = [new_markdown_cell("same"), new_markdown_cell("same")]
    notebook = new_notebook(cells=[new_markdown_cell("# A"), cell, *same])
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "mine"}, "widgets": {}})
    return notebook


def test_normal_form() -> None:
    untidy = untidy_notebook()
    tidy = refresh.normalise(untidy)
    nbformat.validate(tidy)
    assert tidy.metadata == {"kernelspec": refresh.KERNEL, "language_info": refresh.LANGUAGE}
    cell = tidy.cells[1]
    assert cell.source == "print(1)"
    assert cell.metadata == {"tags": ["a", "b"], "mystnb": {"image": {"alt": "a dog"}}}
    kinds = [output.output_type for output in cell.outputs]
    assert kinds == ["stream", "display_data", "execute_result", "error"]
    stream, picture, result, error = cell.outputs
    assert (stream.name, stream.text) == ("stdout", "1\n2\n")
    assert picture.metadata == {"image/png": {"width": 100}}
    assert result.execution_count == cell.execution_count == 7
    assert error.traceback == ["ValueError: no"]
    assert untidy.metadata.kernelspec.name == "mine", "the argument is not changed"


def test_normal_form_is_a_fixed_point_with_ids_that_follow_from_sources() -> None:
    once = refresh.normalise(untidy_notebook())
    assert refresh.normalise(once) == once
    ids = [cell.id for cell in once.cells]
    assert len(set(ids)) == len(ids)
    longer = untidy_notebook()
    longer.cells.insert(0, new_markdown_cell("new"))
    assert [cell.id for cell in refresh.normalise(longer).cells][1:] == ids


def test_execution(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ipynb", tmp_path / "out" / "a.ipynb"
    cells = [
        new_code_cell("import sys, warnings\nprint('seen')\nwarnings.warn('unseen')"),
        new_code_cell("sys.executable"),
        new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
    ]
    nbformat.write(new_notebook(cells=cells), source)
    before = source.read_bytes()
    assert refresh.refresh(source, target) is None
    assert source.read_bytes() == before
    first, second, third = nbformat.read(target, as_version=4).cells
    assert [output.text for output in first.outputs] == ["seen\n"]
    assert Path(refresh.sys.executable).name in second.outputs[0].data["text/plain"]
    assert third.outputs[0].ename == "ZeroDivisionError"
    assert refresh.check([target]) == []
    assert "a.ipynb" in refresh.check([source])[0]


def test_bad_notebooks_are_named_and_not_written(tmp_path: Path, capsys) -> None:
    source = tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("raise KeyError('lost')")]), source)
    before = source.read_bytes()
    assert refresh.main([str(source)]) == 1
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ipynb"]
    printed = capsys.readouterr().err
    assert "bad.ipynb" in printed and "lost" in printed
    damaged = tmp_path / "damaged.ipynb"
    damaged.write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit, match="damaged.ipynb"):
        refresh.read(damaged)
    with pytest.raises(SystemExit, match="absent.ipynb"):
        refresh.read(tmp_path / "absent.ipynb")


def test_output_works_on_a_copy_and_replaces_nothing_else(tmp_path: Path, monkeypatch) -> None:
    root, output = tmp_path / "root", tmp_path / "built"
    for name in ("_config.yml", "_toc.yml", "book/index.md", "mine/letter.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    monkeypatch.setattr(refresh, "ROOT", root)
    monkeypatch.setattr(refresh, "BOOK", root / "book")
    for place in (".", "book", "..", "mine"):
        with pytest.raises(SystemExit, match="--output"):
            refresh.copy_book(root / place)
    for _ in ("at first", "over an older copy"):
        assert refresh.copy_book(output) == output / "book"
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert files == {"_config.yml", "_toc.yml", "book/index.md"}
    assert (root / "mine" / "letter.txt").exists() and (root / "book" / "index.md").exists()


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    page, start, end = tmp_path / "page.md", "<!-- table:start -->", "<!-- table:end -->"
    page.write_text(f"above\n{start}\nold\n{end}\nbelow\n", encoding="utf-8")
    outside = f"above\n{start}\n", f"{end}\nbelow\n"
    assert refresh.parts_around(page, "table") == (outside[0], "old\n", outside[1])
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match="table"):
        refresh.parts_around(page, "table")
