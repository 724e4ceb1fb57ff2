"""The exercises of the book: the checks say what is wrong, and the printed solutions pass them."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from qaconv_lib.exercises import Exercise, check, find

BOOK = Path(__file__).resolve().parent.parent / "book"
CASES = [((torch.tensor([1.0, 2.0]),), torch.tensor([2.0, 4.0]))]


def message(function, capsys, cases=CASES, **more):
    check(Exercise(cases, **more), function)
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
    with pytest.raises(ValueError, match="that is the sum"):
        Exercise([((2, 2), 4)], slips)


def test_a_function_that_changes_its_argument_can_be_corrected_and_checked_again(capsys):
    exercise = Exercise([((torch.zeros(2),), torch.ones(2))])
    for function in (lambda x: x.add_(2), lambda x: x + 1):
        check(exercise, function)
    wrong, right = capsys.readouterr().out.strip().splitlines()
    assert "expected 1, got 2" in wrong and right.endswith(": right")


@pytest.mark.parametrize("number", ["1.1", "15.2", "D.2", "two", ""])
def test_an_exercise_without_a_check_is_named(number):
    with pytest.raises(ValueError, match=f"'{number}'"):
        check(number, len)


def exercises():
    """Of every exercise with a check: its cell, the cell of the check, and the solution."""
    for path in sorted(BOOK.glob("*_*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        for cell, after, text in zip(cells, cells[1:], cells[2:], strict=False):
            if "exercise" in cell.metadata.get("tags", []):
                name = re.search(r"^def (\w+)", cell.source, re.M).group(1)
                solution = re.search(
                    r"<details>.*?```python\n(.*?)```.*?</details>", text.source, re.S
                )
                assert solution, f"{path.name}: no solution after\n{cell.source}"
                identifier = f"{path.stem.split('_')[0]}-{name}"
                yield pytest.param(cell.source, after, name, solution[1], id=identifier)


@pytest.mark.parametrize("stub, check_cell, name, solution", list(exercises()))
def test_printed_solution_passes_its_check_and_the_stub_does_not_yet(
    stub, check_cell, name, solution, capsys
):
    number = re.fullmatch(rf'check\("([^"]+)", {name}\)', check_cell.source)
    assert number and "exercise-check" in check_cell.metadata.get("tags", [])
    assert find(number[1]).slips
    assert "qaconv_lib" not in stub
    for source, says in ((solution, "right"), (stub, "not written yet, it returns None")):
        written: dict = {}
        exec(source, written)  # on its own: it imports what it uses
        check(number[1], written[name])
        assert capsys.readouterr().out == f"{name}: {says}\n"
