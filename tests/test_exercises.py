"""The exercises of the book: the checks say what is wrong, and the printed solutions pass them."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from qaconv_lib.exercises import check

BOOK = Path(__file__).resolve().parent.parent / "book"
CASES = [((torch.tensor([1.0, 2.0]),), torch.tensor([2.0, 4.0]))]


def message(function, capsys, cases=CASES, **more):
    check(function, cases, **more)
    return capsys.readouterr().out.strip()


def test_what_a_check_says(capsys):
    def double(x):
        return 2 * x

    assert message(double, capsys) == "double: right"
    assert message(lambda x: None, capsys) == "<lambda>: not written yet, it returns None"
    assert "shape should be (2,), it is ()" in message(lambda x: x.sum(), capsys)
    assert message(lambda x: [2.0, 5.0], capsys) == (
        "<lambda>: for [1., 2.]: 1 of 2 numbers differs; at [1] expected 4, got 5"
    )
    assert "2 of 2 numbers differ; at [0]" in message(lambda x: x, capsys)
    rows = [((np.array([0, 2]),), [1, 2])]
    assert message(lambda x: x, capsys, rows).startswith("<lambda>: for [0, 2]: 1 of 2 numbers")
    cases = [((), [True, False])]
    assert "2 of 2 numbers are not right" in message(lambda: [False, True], capsys, cases)
    cases = [((3,), [True, False])]
    assert "at [1] expected False, got True" in message(lambda x: [1, 1], capsys, cases)
    assert "at [1] expected False, got 0.5" in message(lambda x: [1, 0.5], capsys, cases)
    assert "stops with ZeroDivisionError" in message(lambda x: 1 / 0, capsys)
    assert "one array of shape (2,), it is of type dict" in message(lambda x: {}, capsys)
    assert "it is of type tuple" in message(lambda x: (x, [x, 1]), capsys)


def test_a_check_names_the_case_unless_it_is_long(capsys):
    cases = [((2, 3), 6), ((2, 4), 8)]
    assert message(lambda a, b: 6, capsys, cases) == "<lambda>: for 2, 4: expected 8, got 6"
    long = [((list(range(50)), torch.zeros(2, 60), 7), 1225)]
    assert message(lambda *_: 0, capsys, long) == (
        "<lambda>: for an array of shape (50,), an array of shape (2, 60), 7: expected 1225, got 0"
    )
    assert "(2, 60), 7: stops with ZeroDivisionError" in message(lambda *_: 1 / 0, capsys, long)
    wordy = [(({"a": "b" * 200},), 1)]
    assert message(lambda x: 0, capsys, wordy) == "<lambda>: expected 1, got 0"


def test_a_check_keeps_an_answer_found_by_hand(capsys):
    assert message(lambda: 4, capsys, [((), 3)]) == "<lambda>: 4 is not right"
    assert message(lambda: [1, 5], capsys, [((), [1, 3])]) == (
        "<lambda>: 1 of 2 numbers is not right: 5, at [1]"
    )
    assert message(lambda: [5, 5], capsys, [((), [1, 3])]) == (
        "<lambda>: 2 of 2 numbers are not right; the first of them is 5, at [0]"
    )


def test_a_check_names_a_usual_slip(capsys):
    slips = {"that is the sum": lambda a, b: a + b, "that is nothing": 0}
    cases = [((2, 3), 6), ((2, 4), 8)]
    assert message(lambda a, b: a + b, capsys, cases, slips=slips).endswith("\n  that is the sum")
    assert message(lambda a, b: 0, capsys, cases, slips=slips).endswith("\n  that is nothing")
    assert "that is" not in message(lambda a, b: 1, capsys, cases, slips=slips)
    assert message(lambda a, b: a * b, capsys, cases, slips=slips) == "<lambda>: right"
    with pytest.raises(ValueError, match="no mistake"):
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
