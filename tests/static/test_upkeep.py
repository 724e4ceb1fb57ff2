"""Upkeep: workflows, hooks, templates and the Makefile run what exists and agree."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import qaconv_lib
from qaconv_lib.cli import make_parser

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
TOOLS = BOOK / "tools"
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def scripts(workflow: dict) -> list[str]:
    """What the steps of a workflow run, with lines that continue joined."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step.get("run", "").replace("\\\n", " ") for step in steps]


@each_workflow
def test_workflow_is_bounded_and_asks_for_little(path: Path) -> None:
    workflow = load(path)
    assert set(workflow["permissions"].values()) <= {"read"} or path.stem == "pages"
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] > 0 and "write-all" not in str(job.get("permissions", {}))
    for script in scripts(workflow):  # what a stranger typed is never part of a script
        assert not re.search(r"\$\{\{\s*(inputs|github\.(event|head_ref))", script)


@each_workflow
def test_commands_of_workflows_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.MULTILINE), ".venv/.installed"}
    text = "\n".join(scripts(load(path)))
    for command in re.findall(r"-m qaconv_lib (.*)", text):
        filled = command.replace("$EXPERIMENT", "table1").replace("$SEEDS", "1").split(">>")[0]
        make_parser().parse_args(shlex.split(filled))  # exits with status 2 if it does not fit
    assert set(re.findall(r"^make (\S+)$", text, re.MULTILINE)) <= targets
    for file in re.findall(r"(?<!\w)(?:\.ci|tests)/[\w.]+", text):
        assert (ROOT / file).is_file(), file


def test_version_is_one() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    citation = load(ROOT / "CITATION.cff")
    assert version == qaconv_lib.__version__ == citation["version"]
    changelog = (BOOK / "changelog.md").read_text(encoding="utf-8")
    assert re.search(
        rf"^## {re.escape(version)} – (unreleased|\d{{4}}-\d\d-\d\d)$", changelog, re.M
    )


def hook(name: str) -> dict:
    (local,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    (found,) = (entry for entry in local["hooks"] if entry["id"] == name)
    return found


def test_hook_installs_what_its_program_imports() -> None:
    """The hook has an environment of its own, without this library."""
    packages = {"PIL": "pillow"}
    wanted = set()
    for name in ("refresh.py", "stored_figures.py"):
        for node in ast.parse((TOOLS / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                wanted |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                wanted.add(str(node.module).split(".")[0])
    wanted -= {*sys.stdlib_module_names, "stored_figures"}
    named = {re.split("[<>=]", line)[0] for line in hook("notebooks")["additional_dependencies"]}
    assert {packages.get(name, name) for name in wanted} == named
