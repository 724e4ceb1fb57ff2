"""The exercises of the book: the checks say what is wrong, and the printed solutions pass them."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from qaconv_lib.exercises import check

BOOK = Path(__file__).resolve().parent.parent / "book"
CASES = [((torch.tensor([1.0, 2.0]),), torch.tensor([2.0, 4.0]))]


def message(function, capsys, cases=CASES, **more):
    check(function, cases, **more)
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "function, cases, words",
    [
        (lambda x: 2 * x, CASES, ["right"]),
        (lambda x: None, CASES, ["not written yet"]),
        (lambda x: x.sum(), CASES, ["(2,)", "()"]),
        (lambda x: [2.0, 5.0], CASES, ["[1., 2.]", "1 of 2 numbers", "[1] expected 4, got 5"]),
        (lambda x: 1 / 0, CASES, ["ZeroDivisionError"]),
        (lambda x: {}, CASES, ["(2,)", "dict"]),
        (lambda x: (x, [x, 1]), CASES, ["tuple"]),
        (lambda x: [1, 1], [((3,), [True, False])], ["[1] expected False, got True"]),
        (lambda a, b: 6, [((2, 3), 6), ((2, 4), 8)], ["2, 4", "expected 8, got 6"]),
        (lambda *_: 0, [((torch.zeros(2, 60), 7), 1225)], ["(2, 60), 7", "expected 1225, got 0"]),
        # An answer found by hand is not given away.
        (lambda: 4, [((), 3)], ["4 is not right"]),
        (lambda: [1, 5], [((), [1, 3])], ["1 of 2 numbers", "5, at [1]"]),
        (lambda: [False, True], [((), [True, False])], ["2 of 2 numbers"]),
    ],
)
def test_what_a_check_says(capsys, function, cases, words):
    said = message(function, capsys, cases)
    assert all(word in said for word in words), said


def test_a_check_names_a_usual_slip(capsys):
    slips = {"that is the sum": lambda a, b: a + b, "that is nothing": 0}
    cases = [((2, 3), 6), ((2, 4), 8)]
    assert message(lambda a, b: a + b, capsys, cases, slips=slips).endswith("\n  that is the sum")
    assert message(lambda a, b: 0, capsys, cases, slips=slips).endswith("\n  that is nothing")
    assert "that is" not in message(lambda a, b: 1, capsys, cases, slips=slips)
    assert message(lambda a, b: a * b, capsys, cases, slips=slips) == "<lambda>: right"
    with pytest.raises(ValueError, match="is correct in all"):
        check(lambda a, b: 0, [((2, 2), 4)], slips=slips)


# What an editor shows of a cell that it has folded.
FIRST_LINE = "# The check: run this cell after yours.\n"


def exercises(give: str = "solution"):
    """The check of every exercise that has one, and its solution or its stub."""
    for path in sorted(BOOK.glob("*_*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        for index, cell in enumerate(cells):
            if "exercise" in cell.metadata.get("tags", []):
                assert "exercise-check" in cells[index + 1].metadata.get("tags", []), cell.source
                solutions = re.findall(
                    r"<details>.*?```python\n(.*?)```.*?</details>", cells[index + 2].source, re.S
                )
                assert solutions, f"{path.name}: no solution after\n{cell.source}"
                name = re.search(r"^def (\w+)", cell.source, re.M).group(1)
                source = cells[index + 1].source
                given = solutions[0] if give == "solution" else cell.source
                yield pytest.param(source, given, id=f"{path.stem.split('_')[0]}-{name}")


@pytest.mark.parametrize("check_source, solution", list(exercises()))
def test_printed_solution_passes_its_check_which_knows_the_usual_slips(
    check_source, solution, capsys
):
    assert check_source.startswith(FIRST_LINE) and "slips={" in check_source
    written: dict = {}
    exec(solution, written)  # on its own: it imports what it uses
    lines = what_the_check_says(check_source, written, capsys)
    assert lines and all(line.endswith(": right") for line in lines), lines


def what_the_check_says(source: str, written: dict, capsys) -> list[str]:
    namespace: dict = {}
    exec("import numpy as np\nimport torch\nimport torch.nn.functional as F", namespace)
    exec("from qaconv_lib import *\nfrom qaconv_lib.exercises import check", namespace)
    exec(source, namespace | written)
    return capsys.readouterr().out.strip().splitlines()


@pytest.mark.parametrize("check_source, stub", list(exercises(give="stub")))
def test_a_stub_uses_nothing_of_the_library_and_is_not_right_yet(check_source, stub, capsys):
    assert "qaconv_lib" not in stub
    written: dict = {}
    exec(stub, written)
    lines = what_the_check_says(check_source, written, capsys)
    assert len(lines) == 1 and lines[0].endswith("not written yet, it returns None"), lines
