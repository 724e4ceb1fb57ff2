"""What `make test` accepts as the same output, and what not: `book/tools/compare.py`."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import refresh
from compare import Tolerance, differences, text_differences, tolerance_of
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
TENSOR = "tensor([[0.2500, 0.5000],\n        [0.7500, 0.1250]])"
TABLE = pd.DataFrame(
    {"rank-1": [42.3, 51.6], "mAP": [30.0, 33.25], "images": [12, 7]}, index=["softmax", "QAConv"]
)


def changed(row: str, column: str, value: float) -> pd.DataFrame:
    table = TABLE.copy()
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    "stored, new",
    [
        ("rank-1 42.3 / mAP 30.1", "rank-1 42.4 / mAP 30.0"),
        (TENSOR, TENSOR.replace("0.5000", "0.5001")),
        ("loss 0.0 and -0.00", "loss -0.0 and +0.00"),
        ("9.99", "10.00"),
        ("999.9 images", "1,000.0 images"),
        ("−1.25", "−1.24"),
        ("42.3%, 42.3 %", "42.4%, 42.2 %"),
        ("1.58e-06", "1.59e-06"),
        ("[0.3]", "[0.299]"),
        ("took 0.5s (2.1.0)", "took 0.6s (2.1.0)"),
    ],
)
def test_last_digits_may_differ(stored: str, new: str) -> None:
    assert not text_differences(stored, new)
    assert not text_differences(new, stored)


@pytest.mark.parametrize(
    "stored, new",
    [
        ("42.3", "42.5"),
        ("0.5", "-0.5"),
        ("0.1", "-0.0"),
        ("0.250", "nan"),
        ("inf", "0.5"),
        ("0.25 0.50", "0.50 0.25"),
        ("0.25 0.50", "0.25"),
        ("a 0.5 b", "a b 0.5"),
        ("12 images", "13 images"),
        ("12,345", "12,346"),
        ("(3, 64)", "(3, 65)"),
        ("[1., 0.]", "[1., 1.]"),
        ("rank-1", "rank-2"),
        ("v2.1", "v2.2"),
        ("12.5 %", "12.5"),
        ("1.58e-06", "1.58e-05"),
        ("1.58e-06", "-1.58e-06"),
        (TENSOR, TENSOR.replace("0.5000", "0.5002")),
        (TENSOR, TENSOR.replace("[[", "[")),
    ],
)
def test_a_change_is_found(stored: str, new: str) -> None:
    assert text_differences(stored, new)
    assert text_differences(new, stored)


@pytest.mark.parametrize("form", ["to_string", "to_html"])
def test_tables(form: str) -> None:
    def found(table: pd.DataFrame) -> list[str]:
        return text_differences(getattr(TABLE, form)(), getattr(table, form)())

    assert not found(changed("softmax", "mAP", 30.01))
    for column, value in (("mAP", 30.02), ("rank-1", float("nan")), ("images", 8)):
        assert found(changed("QAConv", column, value)), column
    assert found(TABLE.iloc[::-1])
    assert found(TABLE.iloc[:1])
    assert found(TABLE[["mAP", "rank-1", "images"]])
    assert found(TABLE.set_axis(["mAP", "rank-1", "images"], axis=1))


def test_outputs_are_compared_by_kind_without_figures_and_stderr() -> None:
    figure = {"text/plain": "<Figure size 640x480 with 1 Axes>", "image/png": "aaaa"}
    stored = [
        new_output("stream", name="stdout", text="loss 0.51\n"),
        new_output("display_data", figure),
        new_output("error", ename="ValueError", evalue="got (3, 64)", traceback=["x.py, line 1"]),
    ]
    other = [
        new_output("stream", name="stderr", text="slow"),
        new_output("display_data", figure | {"image/png": "bbbb"}),
        new_output("stream", name="stdout", text="loss 0.50\n"),
        new_output("error", ename="ValueError", evalue="got (3, 64)", traceback=["y.py, line 2"]),
    ]
    assert not differences(stored, other)
    assert "text/plain" in differences(stored, [*other[:1], *other[2:]])[0]
    other[2].text, other[3].evalue = "loss 0.53\n", "got (3, 65)"
    assert len(differences(stored, other)) == 2


def test_a_table_may_break_its_lines_elsewhere() -> None:
    stored = new_output("execute_result", {"text/plain": "a \\\nb", "text/html": "<td>0.5</td>"})
    new = new_output("execute_result", {"text/plain": "a b", "text/html": "<td>0.6</td>"})
    assert not differences([stored], [new])
    new.data["text/html"] = "<td>0.7</td>"
    assert differences([stored], [new])


def test_a_cell_may_state_a_wider_tolerance() -> None:
    wide = Tolerance("training", absolute=3.0)
    assert not text_differences("mAP 42.3", "mAP 45.3", wide)
    assert text_differences("mAP 42.3", "mAP 45.4", wide)
    assert text_differences("mAP 1.0", "mAP -1.0", wide), "signs agree nevertheless"
    for key, value in (("reason", ""), ("relative", -1), ("rel", 0.1)):
        with pytest.raises(ValueError, match="tolerance|rel"):
            tolerance_of({"tolerance": {"relative": 0.1, "reason": "training", key: value}})
    assert text_differences("rank 12", "rank 13", wide)
    assert not text_differences("rank 12", "rank 15", Tolerance("ranks", 3.0, integers=True))
    assert text_differences("rank 12", "rank 16", Tolerance("ranks", 3.0, integers=True))
    assert not text_differences("loss 4.00", "loss 4.40", Tolerance("training", relative=0.1))
    assert text_differences("loss 4.00", "loss 4.41", Tolerance("training", relative=0.1))


@pytest.mark.slow
def test_notebooks_are_compared_that_way(tmp_path: Path) -> None:
    """The whole way: refresh keeps the tolerance, nbval compares with it."""
    stated = {"absolute": 1.0, "reason": "a test"}
    sources = ["print(0.51)", "print(0.54)", "print(2.5)", "print(4.5)"]
    cells = [new_code_cell(source, metadata={"tolerance": stated}) for source in sources]
    del cells[0].metadata["tolerance"], cells[1].metadata["tolerance"]
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert refresh.refresh(path, path) is None
    stored = nbformat.read(path, as_version=4)
    assert stored.cells[2].metadata.tolerance == stated
    for cell, text in zip(stored.cells, ["0.52", "0.52", "3.5", "2.5"], strict=True):
        cell.outputs[0].text = text
    nbformat.write(stored, path)
    shutil.copy(ROOT / "book" / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "-p", "no:cacheprovider"]
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, path]
    run = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    assert [line.split("::")[1].split()[1] for line in failed] == ["1", "3"], run.stdout
    assert "'0.52' became '0.54'" in run.stdout
