"""Colab: the set-up cell, played where there is nothing but the notebook and Colab's packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
#: Beside what the library depends on: what runs the cell, and what pip builds with.
TOOLS = ("ipython", "pip", "setuptools")
#: What a reader does next; everything that matters ends up in one line.
NEXT = """
import json, pathlib, sys
import qaconv_lib

data = qaconv_lib.load_dataset("mini-duke")
image = qaconv_lib.load_image(data.query["path"].iloc[0])
found = {"library": qaconv_lib.__file__, "data": os.environ["QACONV_DATA"],
         "size": image.size, "train": len(data.train), "modules": sorted(sys.modules)}
print("FOUND " + json.dumps(found))
"""


def setup_cell() -> str:
    """The cell that every chapter begins with; `test_book` holds them to be the same."""
    first = nbformat.read(sorted(BOOK.glob("0*.ipynb"))[0], as_version=4)
    (cell,) = (c for c in first.cells if "colab-setup" in c.metadata.get("tags", []))
    return cell.source


def with_dependencies(names: list[str]) -> dict[str, Distribution]:
    """Installed distributions by name, with all that they depend on."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found[name] = distribution(name)
            needed = map(Requirement, found[name].requires or ())
            waiting += [
                n.name for n in needed if n.marker is None or n.marker.evaluate({"extra": ""})
            ]
    return found


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine like Colab's: its interpreter, its variables, and GitHub in a folder."""
    home = tmp_path_factory.mktemp("colab")
    packages = home / "packages"
    packages.mkdir()
    installed = with_dependencies(["qaconv-book", *TOOLS])
    del installed["qaconv-book"]
    for package in installed.values():
        for part in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (packages / part).exists():
                (packages / part).symlink_to(package.locate_file(part))
    venv.create(home / "python", symlinks=True)
    (site,) = (home / "python").glob("lib/python*/site-packages")
    (site / "colab.pth").write_text(f"{packages}\n", encoding="utf-8")

    settings = f"""
[user]\n name = A reader\n email = reader@example.com
[core]\n compression = 0\n bigFileThreshold = 1m
[safe]\n directory = *
[url "{(home / "origin").as_uri()}"]\n insteadOf = {REPOSITORY}
"""
    (home / "gitconfig").write_text(settings, encoding="utf-8")
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
    variables = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(home),
        "QACONV_CACHE": str(home / "cache"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        # No network: on Colab pip fetches setuptools to build with, here it takes what is there.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # sets the option "build isolation" to 0
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    # What the cell needs of the files as they are now; nothing is written into the checkout.
    git = ["git", f"--git-dir={home / 'origin'}", f"--work-tree={ROOT}"]
    files = ["pyproject.toml", "README.md", "qaconv_lib", "data/mini-duke.zip"]
    for command in (["init", "--quiet"], ["add", *files], ["commit", "--quiet", "-m", "now"]):
        subprocess.run([*git, *command], check=True, env=variables, cwd=ROOT)
    return variables


def run_cell(variables: dict[str, str], folder: Path, code: str) -> subprocess.CompletedProcess:
    """Runs code as IPython reads it, in a folder."""
    (folder / "cell.ipy").write_text(code, encoding="utf-8")
    python = Path(variables["HOME"]) / "python" / "bin" / "python"
    command = [str(python), "-m", "IPython", "--no-banner", "--colors=NoColor", "cell.ipy"]
    return subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=600
    )


def outcome(run: subprocess.CompletedProcess) -> dict:
    lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    assert run.returncode == 0 and len(lines) == 1, run.stdout + run.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Colab is Linux; links want rights on Windows"),
    pytest.mark.skipif(shutil.which("git") is None, reason="the cell calls git"),
]


def test_setup_from_nothing_but_the_notebook(colab: dict[str, str], tmp_path: Path) -> None:
    found = outcome(run_cell(colab, tmp_path, setup_cell() + NEXT))
    assert Path(found["library"]).is_relative_to(Path(colab["HOME"]) / "python")
    assert found["data"] == str(tmp_path / "qaconv-book" / "data")
    assert found["size"] == [64, 128] and found["train"] > 0
    assert not {"faiss", "h5py", "onnx", "onnxruntime"} & set(found["modules"])
    # Again in the same place, as after "Restart session": no clone, no pip, the same data.
    again = outcome(run_cell(colab, tmp_path, setup_cell() + NEXT))
    assert again["data"] == found["data"] and again["library"] == found["library"]
