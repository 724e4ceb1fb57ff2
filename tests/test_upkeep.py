"""Upkeep: workflows, hooks, templates and the Makefile run what exists and agree."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml

import qaconv_lib
from qaconv_lib.__main__ import make_parser
from qaconv_lib.experiments.suite import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
TOOLS = BOOK / "tools"
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def triggers(workflow: dict) -> dict:
    return workflow[True]  # how YAML 1.1 reads the key "on"


def steps(workflow: dict) -> Iterator[tuple[dict, dict]]:
    """Every step, with the variables that its commands see."""
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            variables = [part.get("env", {}) for part in (workflow, job, step)]
            yield step, {key: str(value) for part in variables for key, value in part.items()}


def inputs_filled(value: str, workflow: dict) -> str:
    """A value with each `${{ inputs.NAME }}` replaced by that input's default."""
    given = (triggers(workflow).get("workflow_dispatch") or {}).get("inputs", {})
    return re.sub(
        r"\$\{\{ inputs\.(\w+) \}\}", lambda found: str(given[found[1]]["default"]), value
    )


def commands(workflow: dict) -> Iterator[list[str]]:
    """Every simple command of the steps, as words."""
    for step, variables in steps(workflow):
        for line in step.get("run", "").replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", inputs_filled(value, workflow))
            yield shlex.split(line, comments=True)


def after(words: list[str], *start: str) -> list[str] | None:
    """What follows the first place where `start` stands in the words, up to a redirection."""
    for place in range(len(words)):
        if words[place : place + len(start)] == list(start):
            rest = words[place + len(start) :]
            stops = [k for k, word in enumerate(rest) if word in (">", ">>", "|", "||", "&&", ";")]
            return rest[: stops[0]] if stops else rest
    return None


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE)) | {".venv/.installed"}


@each_workflow
def test_workflow_is_bounded_and_asks_for_little(path: Path) -> None:
    workflow = load(path)
    assert set(workflow["permissions"].values()) <= {"read"} or path.stem == "pages"
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] > 0 and "write-all" not in str(job.get("permissions", {}))


@each_workflow
def test_what_a_starter_types_is_never_part_of_a_script(path: Path) -> None:
    for step, _ in steps(load(path)):
        assert not re.search(r"\$\{\{\s*(inputs|github\.(event|head_ref))", step.get("run", ""))


@each_workflow
def test_commands_of_workflows_exist(path: Path) -> None:
    parser, targets = make_parser(), make_targets()
    for words in commands(load(path)):
        if (arguments := after(words, "-m", "qaconv_lib")) is not None:
            parser.parse_args(arguments)  # exits with status 2 where it does not fit
        if (arguments := after(words, "make")) is not None:
            assert set(arguments) <= targets, arguments
        for word in words:
            if word.startswith((".ci/", "tests/", "/repository/.ci/")):
                file = ROOT / word.removeprefix("/repository/")
                assert file.is_file(), word
                assert file.parent.name != ".ci" or os.access(file, os.X_OK) or os.name == "nt"


def test_paper_workflow_offers_experiments_that_exist() -> None:
    given = triggers(load(GITHUB / "workflows" / "paper.yml"))["workflow_dispatch"]["inputs"]
    offered = given["experiment"]["options"]
    assert set(offered) <= {*EXPERIMENTS, "cost"} and len(offered) == len(set(offered))


# ------------------------------------------------------------------------------------ instructions

AVX512 = ("avx512f", "avx512dq", "avx512bw", "avx512vl")


def with_instructions(
    folder: Path, wanted: str, flags: tuple[str, ...]
) -> subprocess.CompletedProcess:
    """What `.ci/with_instructions` does on a processor with these flags, and what torch is told."""
    (folder / "cpuinfo").write_text(f"model name\t: x\nflags\t\t: {' '.join(flags)}\n")
    tell = ["bash", "-c", "echo told $ATEN_CPU_CAPABILITY"]
    variables = os.environ | {"CPUINFO": str(folder / "cpuinfo")}
    command = ["bash", str(ROOT / ".ci" / "with_instructions"), wanted, *tell]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


@pytest.mark.skipif(os.name == "nt", reason="the runner is Linux")
def test_torch_is_told_only_what_the_processor_has(tmp_path: Path) -> None:
    everything = ("fpu", "avx2", "fma", *AVX512)
    for wanted in ("default", "avx2", "avx512"):
        assert with_instructions(tmp_path, wanted, everything).stdout == f"told {wanted}\n"
    assert with_instructions(tmp_path, "default", ("fpu",)).stdout == "told default\n"
    run = with_instructions(tmp_path, "avx512", (*everything[:-1], f"{AVX512[-1]}x"))
    assert run.returncode == 0 and run.stdout.startswith("::notice ") and "told" not in run.stdout
    assert with_instructions(tmp_path, "avx513", everything).returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="Colab is Linux")
def test_every_notebook_that_opens_in_colab_is_played_there() -> None:
    script = (ROOT / ".ci" / "colab").read_text(encoding="utf-8")
    (chosen,) = re.findall(r"^for notebook in \$\((.+)\); do$", script, re.MULTILINE)
    run = subprocess.run(
        ["bash", "-c", chosen.replace("/repository/", "")], cwd=ROOT, capture_output=True, text=True
    )
    opened = {
        path.relative_to(ROOT).as_posix()
        for path in BOOK.glob("*.ipynb")
        if "https://colab.research.google.com/github/" in path.read_text(encoding="utf-8")
    }
    assert set(run.stdout.split()) == opened and "book/just_the_code.ipynb" in opened


def test_version_is_one() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    citation = load(ROOT / "CITATION.cff")
    assert version == qaconv_lib.__version__ == citation["version"]
    changelog = (BOOK / "changelog.md").read_text(encoding="utf-8")
    assert re.search(
        rf"^## {re.escape(version)} – (unreleased|\d{{4}}-\d\d-\d\d)$", changelog, re.M
    )


# ------------------------------------------------------------------------------------------ hooks


def hook(name: str) -> dict:
    (local,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    (found,) = (entry for entry in local["hooks"] if entry["id"] == name)
    return found


def run_hook(name: str, file: Path) -> subprocess.CompletedProcess:
    """Runs a hook's command on a file, with the interpreter of the tests."""
    program, *arguments = shlex.split(hook(name)["entry"])
    program = [sys.executable] if program == "python" else [sys.executable, "-m", program]
    command = [*program, *arguments, str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_hook_lets_committed_notebooks_pass() -> None:
    path = BOOK / "04_global_max_pooling.ipynb"
    assert re.search(hook("notebooks")["files"], path.relative_to(ROOT).as_posix())
    assert run_hook("notebooks", path).returncode == 0


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


@pytest.mark.parametrize("trace", ["error stream", "indentation", "not run"])
def test_hook_catches_a_notebook_out_of_normal_form(tmp_path: Path, trace: str) -> None:
    source = BOOK / "04_global_max_pooling.ipynb"
    notebook = nbformat.read(source, as_version=4)
    cell = next(c for c in notebook.cells if c.cell_type == "code" and c.outputs)
    if trace == "error stream":
        cell.outputs.insert(0, nbformat.v4.new_output("stream", name="stderr", text="50 %"))
    if trace == "not run":
        cell.execution_count = None
    path = tmp_path / "untidy.ipynb"
    indent = 4 if trace == "indentation" else 1
    path.write_text(nbformat.writes(notebook, indent=indent), encoding="utf-8")
    run = run_hook("notebooks", path)
    assert run.returncode == 1 and "untidy.ipynb" in run.stderr


@pytest.mark.parametrize("name", ["ruff-check", "ruff-format"])
def test_hook_of_style_catches_what_it_should(tmp_path: Path, name: str) -> None:
    path = tmp_path / "untidy.py"
    path.write_text("import os, sys\nx = {  'a':1 }\n", encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    run = run_hook(name, path)
    assert run.returncode != 0 or path.read_text(encoding="utf-8") != before


# -------------------------------------------------------------------------------------- templates


def test_issue_templates_are_complete_forms() -> None:
    folder = GITHUB / "ISSUE_TEMPLATE"
    for path in sorted(set(folder.glob("*.yml")) - {folder / "config.yml"}):
        form = load(path)
        assert form["name"] and form["description"]
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields) > 0
        assert all(field["attributes"]["label"] for field in fields)
    for link in load(folder / "config.yml")["contact_links"]:
        assert (ROOT / link["url"].removeprefix(f"{REPOSITORY}/blob/main/")).is_file()


def test_pull_requests_and_contributing_have_one_checklist() -> None:
    def items(path: Path) -> list[str]:
        text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", path.read_text(encoding="utf-8"))
        found = re.findall(r"^- \[ \] (.+(?:\n  .+)*)", text, re.MULTILINE)
        return [" ".join(item.split()) for item in found]

    wanted = items(BOOK / "contributing.md")
    template = GITHUB / "PULL_REQUEST_TEMPLATE.md"
    assert items(template) == wanted != []
    for page in re.findall(rf"{REPOSITORY}/blob/main/([\w/.]+)", template.read_text("utf-8")):
        assert (ROOT / page).is_file(), page
