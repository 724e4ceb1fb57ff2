"""The library's layout: its public names, and imports that point downwards only."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import qaconv_lib

LIBRARY = Path(qaconv_lib.__file__).parent
NAMES = """
    ClassMemory QAConv RankingScores ReidDataset ReidModel Trainer TrainingConfig best_matches
    correlate evaluate_ranking export_onnx find_correspondences focal_loss k_reciprocal_rerank
    load_dataset load_image load_model load_released make_backbone match_gallery query_kernels
    rerank_streaming save_model tfusion tlift vector_distances
""".split()
ABOVE_ALL = {"__init__", "__main__", "cli"}  # may import anything
MODULES = {
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in LIBRARY.rglob("*.py")
}
PACKAGES = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the library that a module imports, also within functions and for type checks."""
    path = MODULES[module]
    package = ["qaconv_lib", *path.relative_to(LIBRARY).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner.removeprefix("qaconv_lib.") in MODULES else source)
    names = {name.removeprefix("qaconv_lib.") for name in found}
    return frozenset((names & MODULES.keys()) - {module})


def package_of(module: str) -> str:
    """The sub-package of a module; empty for the root."""
    top = module.split(".")[0]
    return top if top in PACKAGES else ""


def find_cycle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_public_names() -> None:
    assert sorted(qaconv_lib.__all__) == sorted(NAMES)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ABOVE_ALL))
def test_imports_point_downwards(module: str) -> None:
    package = package_of(module)
    used = {name for name in imports(module) if package_of(name) != package}
    if package == "":
        wrong = {name for name in used if package_of(name) != "layouts"}
        wrong |= imports(module) & ABOVE_ALL
    elif package == "layouts":
        wrong = used - {"_checks", "_files"}
    else:
        wrong = {name for name in used if name in ABOVE_ALL or package_of(name) == "experiments"}
    assert not wrong, f"{module} must not import {', '.join(sorted(wrong))}"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, qaconv_lib.cli as c; c.make_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_main_imports_the_command_line() -> None:
    assert {module for module in MODULES if "cli" in imports(module)} <= {"__main__"}


def test_no_cycle_between_modules() -> None:
    assert not find_cycle(
        {module: set(imports(module)) for module in MODULES.keys() - {"__init__"}}
    )


def test_no_cycle_between_packages() -> None:
    edges: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for module in MODULES.keys() - ABOVE_ALL:
        if package := package_of(module):
            edges[package] |= {package_of(name) for name in imports(module)} - {"", package}
    assert not find_cycle(edges)


def test_the_root_stays_small() -> None:
    assert len(list(LIBRARY.glob("*.py"))) <= 20
