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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qaconv_lib
from qaconv_lib.__main__ import make_parser
from qaconv_lib.experiments.suite import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
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
    assert workflow["name"] and triggers(workflow)
    top = workflow["permissions"]
    assert set(top.values()) <= {"read"} or path.stem == "pages", "a job asks for more itself"
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 7200, name
        assert "write-all" not in str(job.get("permissions", {}))


@each_workflow
def test_actions_are_pinned_to_major_versions(path: Path) -> None:
    used = [step["uses"] for step, _ in steps(load(path)) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", action), action


@each_workflow
def test_what_a_starter_types_is_never_part_of_a_script(path: Path) -> None:
    for step, _ in steps(load(path)):
        assert not re.search(r"\$\{\{\s*(inputs|github\.(event|head_ref))", step.get("run", ""))


@each_workflow
def test_commands_of_workflows_exist(path: Path) -> None:
    parser, targets, seen = make_parser(), make_targets(), 0
    for words in commands(load(path)):
        if (arguments := after(words, "-m", "qaconv_lib")) is not None:
            parser.parse_args(arguments)  # exits with status 2 where it does not fit
            seen += 1
        if (arguments := after(words, "make")) is not None:
            assert set(arguments) <= targets, arguments
        for word in words:
            if word.startswith((".ci/", "tests/", "/repository/.ci/")):
                file = ROOT / word.removeprefix("/repository/")
                assert file.is_file(), word
                assert file.parent.name != ".ci" or os.access(file, os.X_OK) or os.name == "nt"
    assert seen or path.stem not in ("ci", "paper", "release")


def runs(workflow: dict, *command: str) -> bool:
    """Whether a step is this command and nothing else."""
    return list(command) in list(commands(workflow))


def test_every_workflow_that_upkeep_promises_is_there() -> None:
    assert {path.stem for path in WORKFLOWS} >= {
        *("ci", "pages"),
        *("links", "colab", "ranges", "mutants"),
        *("release", "paper"),
    }
    for name in ("links", "colab", "ranges", "mutants"):
        (schedule,) = triggers(load(GITHUB / "workflows" / f"{name}.yml"))["schedule"]
        minute, hour, day, month, weekday = schedule["cron"].split()
        assert (day, month) == ("*", "*") and weekday in "0123456", "once a week"
    assert set(triggers(load(GITHUB / "workflows" / "paper.yml"))) == {"workflow_dispatch"}


def test_paper_workflow_offers_experiments_that_exist() -> None:
    given = triggers(load(GITHUB / "workflows" / "paper.yml"))["workflow_dispatch"]["inputs"]
    offered = given["experiment"]["options"]
    assert set(offered) <= {*EXPERIMENTS, "cost"} and len(offered) == len(set(offered))
    assert {"table1", "table2", "table3", "table4"} <= set(offered)


def test_checks_run_by_hand_and_by_the_workflow_are_the_same() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.split("\nlint:")[1].split("\n\n")[0]
    for check in ("ruff check", "ruff format --check", "mypy", "refresh.py --check"):
        assert check in lint
    ci = load(GITHUB / "workflows" / "ci.yml")
    assert runs(ci, "make", "lint") and runs(ci, "make", "coverage") and runs(ci, ".ci/run")
    assert {"push", "pull_request"} <= set(triggers(ci))


def test_nothing_is_published_before_it_is_tested_and_tried() -> None:
    jobs = load(GITHUB / "workflows" / "release.yml")["jobs"]
    before = {name: {"jobs": {name: jobs[name]}} for name in jobs["publish"]["needs"]}
    assert set(before) == {"test", "build"} and jobs["announce"]["needs"] == "publish"
    assert runs(before["test"] | {True: {}}, ".ci/run")
    ci = load(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]
    assert jobs["test"]["strategy"]["matrix"] == ci["strategy"]["matrix"]
    called = [after(words, "-m", "qaconv_lib") for words in commands(before["build"] | {True: {}})]
    done = [arguments[0] for arguments in called if arguments]
    assert done.index("train") < done.index("evaluate"), "the wheel is tried before it is kept"


@pytest.mark.parametrize("key", ["disallow_untyped_defs", "disallow_incomplete_defs"])
def test_types_are_demanded_of_the_whole_library(key: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("\n[tool.mypy]\n")[1].split("\n[")[0]
    assert 'files = ["qaconv_lib"]' in section and f"\n{key} = true\n" in section
    assert text.count(key) == 1, "no module is exempt"


def test_drawn_tests_are_run_weekly_with_new_input() -> None:
    workflow = load(GITHUB / "workflows" / "mutants.yml")
    (found,) = (
        variables for step, variables in steps(workflow) if "-m hypothesis" in step.get("run", "")
    )
    assert found["HYPOTHESIS_PROFILE"] == "explore"
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    assert 'register_profile("explore"' in conftest


@pytest.fixture
def marks(request: pytest.FixtureRequest) -> set[str]:
    return {mark.name for mark in request.node.iter_markers()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=1)
@given(st.none())
def test_drawn_tests_carry_the_mark_that_the_weekly_run_looks_for(
    marks: set[str], nothing: None
) -> None:
    assert "hypothesis" in marks


def test_link_check_is_of_a_version_that_reads_its_settings() -> None:
    config = (GITHUB / "lychee.toml").read_text(encoding="utf-8")
    (value,) = re.findall(r"^include_fragments = (.+)$", config, re.MULTILINE)
    (given,) = (
        step["with"]
        for step, _ in steps(load(GITHUB / "workflows" / "links.yml"))
        if step.get("uses", "").startswith("lycheeverse/lychee-action@")
    )
    version = [int(part) for part in given["lycheeVersion"].removeprefix("v").split(".")]
    assert len(version) == 3 and (version >= [0, 24, 0]) == value.startswith('"')


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
    for flag in AVX512:
        fewer = tuple(name for name in everything if name != flag) + (f"{flag}x",)
        run = with_instructions(tmp_path, "avx512", fewer)
        assert run.returncode == 0 and "told" not in run.stdout
        assert run.stdout.startswith("::notice ") and flag in run.stdout
    assert with_instructions(tmp_path, "avx513", everything).returncode == 2


def test_no_workflow_tells_torch_unasked() -> None:
    for path in WORKFLOWS:
        assert "ATEN_CPU_CAPABILITY" not in path.read_text(encoding="utf-8"), path.stem
    ranges = load(GITHUB / "workflows" / "ranges.yml")
    asked = ranges["jobs"]["processors"]["strategy"]["matrix"]["instructions"]
    assert set(asked) == {"default", "avx2", "avx512"}
    assert any(words[:1] == [".ci/with_instructions"] for words in commands(ranges))


def test_scripts_for_colab_name_the_repository() -> None:
    script = (ROOT / ".ci" / "colab").read_text(encoding="utf-8")
    assert f"insteadOf {REPOSITORY}\n" in script
    workflow = load(GITHUB / "workflows" / "colab.yml")
    (image,) = (found["IMAGE"] for step, found in steps(workflow) if ".ci/colab" in str(step))
    assert image.startswith("us-docker.pkg.dev/colab-images/public/")


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
    brought = {"jupyter_client": "nbclient", "PIL": "pillow"}
    wanted = set()
    for name in ("refresh.py", "stored_figures.py"):
        for node in ast.parse((BOOK / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                wanted |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                wanted.add(str(node.module).split(".")[0])
    wanted -= {*sys.stdlib_module_names, "stored_figures"}
    named = {re.split("[<>=]", line)[0] for line in hook("notebooks")["additional_dependencies"]}
    assert {brought.get(name, name) for name in wanted} == named


@pytest.mark.parametrize("trace", ["timing", "error stream", "indentation", "not run"])
def test_hook_catches_a_notebook_that_would_blur_a_difference(tmp_path: Path, trace: str) -> None:
    source = BOOK / "04_global_max_pooling.ipynb"
    notebook = nbformat.read(source, as_version=4)
    cell = next(c for c in notebook.cells if c.cell_type == "code" and c.outputs)
    if trace == "timing":
        cell.metadata["execution"] = {"iopub.execute_input": "2020-01-01T00:00:00Z"}
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
    forms = sorted(path for path in folder.glob("*.yml") if path.stem != "config")
    assert [path.stem for path in forms] == ["book_error", "library_bug", "question"]
    for path in forms:
        form = load(path)
        assert form["name"] and form["description"]
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert any(field.get("validations", {}).get("required") for field in fields)
        for field in fields:
            assert field["attributes"]["label"]
            assert field["type"] != "dropdown" or len(set(field["attributes"]["options"])) > 1
    config = load(folder / "config.yml")
    assert config["blank_issues_enabled"] is False
    for link in config["contact_links"]:
        page = link["url"].removeprefix(f"{REPOSITORY}/blob/main/")
        assert (ROOT / page).is_file() and link["name"] and link["about"]


def test_pull_requests_and_contributing_have_one_checklist() -> None:
    def items(path: Path) -> list[str]:
        text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", path.read_text(encoding="utf-8"))
        found = re.findall(r"^- \[ \] (.+(?:\n  .+)*)", text, re.MULTILINE)
        return [" ".join(item.split()) for item in found]

    wanted = items(BOOK / "contributing.md")
    template = GITHUB / "PULL_REQUEST_TEMPLATE.md"
    assert len(wanted) >= 8 and items(template) == wanted
    for page in re.findall(rf"{REPOSITORY}/blob/main/([\w/.]+)", template.read_text("utf-8")):
        assert (ROOT / page).is_file(), page


def test_dependabot_watches_actions_and_packages() -> None:
    updates = load(GITHUB / "dependabot.yml")["updates"]
    assert {entry["package-ecosystem"] for entry in updates} == {"github-actions", "pip"}
    assert all((ROOT / entry["directory"].strip("/")).is_dir() for entry in updates)
