"""What the book says about the library: it runs, and its tables are those of the records."""

import pkgutil
import re
from pathlib import Path

import pytest
import refresh
import yaml

import qaconv_lib
from qaconv_lib.experiments.suite import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent


def test_public_names_can_be_imported() -> None:
    assert all(hasattr(qaconv_lib, name) for name in qaconv_lib.__all__)


def test_the_example_in_the_readme_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(example, names)
    assert tuple(names["logits"].shape) == (2, 2)


@pytest.mark.parametrize("path, mark, command", refresh.FILLED, ids=lambda part: str(part)[-20:])
def test_tables_drawn_from_records_are_current(path: Path, mark: str, command: list[str]) -> None:
    stored = refresh.parts_around(path, mark)[1].strip()
    assert stored == refresh.printed(command), "run `python book/tools/refresh.py --headline`"


def test_the_pages_of_the_library_describe_every_public_module() -> None:
    api_pages = pytest.importorskip("api_pages", reason="what builds the pages is not installed")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("api_*.md")]
    groups = re.findall(r"^<!-- modules: (\w+) -->$", "\n".join(texts), re.MULTILINE)
    described = {f"qaconv_lib.{name}" for group in groups for name in api_pages.modules_of(group)}
    there = {module.name for module in pkgutil.walk_packages(qaconv_lib.__path__, "qaconv_lib.")}
    assert {name for name in there if "._" not in name and name != "qaconv_lib.cli"} == described
    rows = api_pages.describe_names()
    assert all(f".{name}`" in rows for name in qaconv_lib.__all__)
    assert "usage: python -m qaconv_lib train" in api_pages.describe_commands()


def test_paper_workflow_offers_experiments_that_exist() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/paper.yml").read_text(encoding="utf-8"))
    triggers = workflow[True]  # how YAML 1.1 reads the key "on"
    offered = triggers["workflow_dispatch"]["inputs"]["experiment"]["options"]
    assert set(offered) <= {*EXPERIMENTS, "cost"}
