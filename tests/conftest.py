"""What several test modules share.

Property-based tests draw the same examples everywhere, and are not hurried;
`HYPOTHESIS_PROFILE=explore pytest tests/test_matching.py` draws new and more ones. `make
mutants` draws fewer, and looks for no simpler one where one fails.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
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


def pytest_runtest_setup(item):
    if item.get_closest_marker("browser") and not CHROMIUM:
        pytest.skip("no Chromium on this machine; install it and run `make test-all`")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """As in the processes that tests start and kill: the same sums."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _close():
    """No figure outlives its test."""
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def model():
    """A small QAConv with random weights."""
    import torch

    from qaconv_lib.experiments.profiles import get_profile
    from qaconv_lib.models import ReidModel

    torch.manual_seed(0)
    return ReidModel(get_profile("smoke").config("qaconv", pretrained=False), 2).eval()


@pytest.fixture(scope="session")
def few_people(tmp_path_factory):
    """A folder with mini-market and mini-duke, cut down to 20 people to train on and 10 to find."""
    from qaconv_lib.datasets import load_dataset

    folder = tmp_path_factory.mktemp("few")
    for name in ("mini-market", "mini-duke"):
        data = load_dataset(name)
        sought = data.query["identity"].unique()[:10]
        tables = [data.train[data.train["identity"].isin(data.train["identity"].unique()[:20])]]
        tables += [table[table["identity"].isin(sought)] for table in (data.query, data.gallery)]
        for table in tables:
            for path in map(Path, table["path"]):
                link = folder / name / path.parent.name / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    return folder


@pytest.fixture
def no_records(tmp_path, monkeypatch):
    """A data folder of its own, without records."""
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    return tmp_path
