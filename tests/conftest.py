"""What several test modules share.

Property-based tests draw the same examples everywhere, and are not hurried;
`HYPOTHESIS_PROFILE=explore pytest tests/test_properties.py` draws new and more ones. `make
mutants` draws fewer, and looks for no simpler one where one fails.
"""

from __future__ import annotations

import os
import sys

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.models import ReidModel

settings.register_profile("book", derandomize=True, deadline=None, database=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.register_profile(
    "mutants",
    parent=settings.get_profile("book"),
    max_examples=5,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.differing_executors],  # the tests run more than once
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "book"))


@pytest.fixture(autouse=True)
def _close():
    """No figure outlives its test."""
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


@pytest.fixture(scope="module")
def model():
    """A small QAConv with random weights."""
    torch.manual_seed(0)
    return ReidModel(get_profile("smoke").config("qaconv", pretrained=False), 2).eval()
