"""Colab: the set-up cell, played where there is nothing but the notebook and installed packages."""

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
#: What a reader does next; everything that matters ends up in one line.
NEXT = """
import json, sys

data = qaconv_lib.load_dataset("mini-duke")
image = qaconv_lib.load_image(data.query["path"].iloc[0])
found = {"library": qaconv_lib.__file__, "data": os.environ["QACONV_DATA"],
         "size": image.size, "train": len(data.train), "modules": sorted(sys.modules)}

from qaconv_lib.exercises import find
found["cases"] = len(find("8.3").cases)
print("FOUND " + json.dumps(found))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Colab is Linux"),
    pytest.mark.skipif(shutil.which("git") is None, reason="the cell calls git"),
]


@pytest.fixture
def colab(tmp_path: Path) -> dict[str, str]:
    """The variables of a machine with installed packages but this one, and GitHub in a folder."""
    venv.create(tmp_path / "python", symlinks=True)
    (site,) = (tmp_path / "python").glob("lib/python*/site-packages")
    # As a plain path: the files there that would lead to the checkout are not read.
    (site / "colab.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    settings = f"""
[user]\n name = A reader\n email = reader@example.com
[core]\n compression = 0\n bigFileThreshold = 1m
[safe]\n directory = *
[url "{(tmp_path / "origin").as_uri()}"]\n insteadOf = {REPOSITORY}
"""
    (tmp_path / "gitconfig").write_text(settings, encoding="utf-8")
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
    variables = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(tmp_path),
        "QACONV_CACHE": str(tmp_path / "cache"),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        # No network: on Colab pip fetches setuptools to build with, here it takes what is there.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # sets the option "build isolation" to 0
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    # What the cell needs of the files as they are now; nothing is written into the checkout.
    git = ["git", f"--git-dir={tmp_path / 'origin'}", f"--work-tree={ROOT}"]
    files = ["pyproject.toml", "README.md", "qaconv_lib", "book/exercises", "data/mini-duke.zip"]
    for command in (["init", "--quiet"], ["add", *files], ["commit", "--quiet", "-m", "now"]):
        subprocess.run([*git, *command], check=True, env=variables, cwd=ROOT)
    return variables


def run_cell(variables: dict[str, str], folder: Path, code: str) -> dict:
    """Run code as IPython reads it, in a folder; returns what `NEXT` prints."""
    (folder / "cell.ipy").write_text(code, encoding="utf-8")
    python = Path(variables["HOME"]) / "python" / "bin" / "python"
    command = [str(python), "-m", "IPython", "--no-banner", "--colors=NoColor", "cell.ipy"]
    run = subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=600
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    assert run.returncode == 0 and len(lines) == 1, run.stdout + run.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


def test_setup_from_nothing_but_the_notebook(colab: dict[str, str], tmp_path: Path) -> None:
    first = nbformat.read(next((ROOT / "book").glob("01_*.ipynb")), as_version=4)
    (cell,) = (c for c in first.cells if "colab-setup" in c.metadata.get("tags", []))
    (content := tmp_path / "content").mkdir()
    found = run_cell(colab, content, cell.source + NEXT)
    assert Path(found["library"]).is_relative_to(tmp_path / "python")
    assert found["data"] == str(content / "qaconv-book" / "data")
    assert found["size"] == [64, 128] and found["train"] > 0 and found["cases"]
    assert not {"faiss", "h5py", "onnx", "onnxruntime"} & set(found["modules"])
    # Again in the same place, as after "Restart session".
    assert run_cell(colab, content, cell.source + NEXT)["data"] == found["data"]
