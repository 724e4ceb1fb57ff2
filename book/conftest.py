"""What `pytest --nbval` leaves out when it compares a notebook's stored outputs with new ones."""

from __future__ import annotations

import pytest


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Leave out stderr: warnings and text progress bars differ between machines and versions."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/svg+xml")
