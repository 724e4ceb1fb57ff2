"""`pytest --nbval` compares the notebooks' outputs with `book/tools/compare.py`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from compare import differences, tolerance_of


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give each cell that nbval runs the book's comparison."""
    if not hasattr(item, "compare_outputs"):
        return

    def compare_outputs(new: Sequence, stored: Sequence) -> bool:
        item.comparison_traceback = differences(stored, new, tolerance_of(item.cell.metadata))
        return not item.comparison_traceback

    item.compare_outputs = compare_outputs
