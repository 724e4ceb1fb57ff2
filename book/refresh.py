"""Executes the notebooks of the book and brings them into the form in which they are committed.

python book/refresh.py                        all notebooks, in place
python book/refresh.py book/05_*.ipynb        some of them
python book/refresh.py --output _build/book   a copy of the book
python book/refresh.py --check                name what is not executed or normalised (also a hook)
python book/refresh.py --headline             renew tables, README.md's picture, the explorer's data
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import ipykernel.kernelspec
import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from stored_figures import CAPTION, FIGURE, KERNEL_ARGUMENT, store_compactly

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
CELL_METADATA = ("mystnb", "tags")
# A check knows the usual mistakes, and so nearly the answer: folded on the site and in an editor.
FOLDED = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "mystnb": {
        "code_prompt_hide": "Fold the check",
        "code_prompt_show": "The check: its code names the usual slips",
    },
}
FOLDED_TAG = "hide-input"
WIDGET = "application/vnd.jupyter.widget-view+json"
FRONT_PERSON = 203  # identity in mini-market
# What `python -m qaconv_lib COMMAND`, or a script of this folder, prints stands between two marks.
FILLED = [
    (ROOT / "README.md", "headline", ["tables", "headline"]),
    (BOOK / "index.md", "headline", ["tables", "headline"]),
    (BOOK / "claims.md", "claims", ["claims"]),
    (BOOK / "model_card.md", "models", ["model_card.py"]),
    (BOOK / "contributing.md", "mutants", ["mutation.py", "--table"]),
]
CELL_TIMEOUT_SECONDS = 900


class CurrentInterpreter(KernelSpecManager):
    """Every kernel is of the interpreter that runs this program, whatever is registered."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            resource_dir=ipykernel.kernelspec.RESOURCES, **ipykernel.kernelspec.get_kernel_dict()
        )


class CurrentKernelManager(AsyncKernelManager):
    def __init__(self, **settings: object) -> None:
        super().__init__(**{"kernel_spec_manager": CurrentInterpreter(), **settings})


# ------------------------------------------------------------------------------ normal form


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Returns the notebook in the form in which it is committed; twice is the same as once.

    Dropped: stderr, widgets and their state, timings and every metadata entry but tags and those
    of MyST-NB; the frames of a stored traceback (they hold machine paths). Set: cell ids that
    follow from the cells' sources, one kernelspec, one stdout output a run of prints, the code of
    an exercise's check folded, a figure's caption under its number in the code.
    All else in sources, execution counts and all other outputs stay.
    """
    notebook = deepcopy(notebook)
    kept = {key: notebook.metadata[key] for key in ("mystnb",) if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {**kept, "kernelspec": KERNEL, "language_info": LANGUAGE}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken: set[str] = set()
    for cell in notebook.cells:
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        cell.source = _with_caption(cell)
        cell.id = _cell_id(cell, taken)
        metadata = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        if "exercise-check" in metadata.get("tags", []):
            metadata |= deepcopy(FOLDED) | {"tags": [*metadata["tags"], FOLDED_TAG]}
        if "tags" in metadata:
            metadata["tags"] = sorted(set(metadata["tags"]))
        cell.metadata = nbformat.from_dict(metadata)
        if cell.cell_type == "code":
            cell.outputs = _normalise_outputs(cell.outputs, cell.execution_count)
    return notebook


def _with_caption(cell: NotebookNode) -> str:
    """The source, with the caption of a figure under its number; Jupyter shows it nowhere else."""
    number, *body = cell.source.split("\n")
    caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
    if not caption or not number.startswith(FIGURE):
        return cell.source
    while body and body[0].startswith(CAPTION):
        body.pop(0)
    whole = textwrap.TextWrapper(96, break_long_words=False, break_on_hyphens=False)
    told = [CAPTION + line for line in whole.wrap(caption)]
    return "\n".join([number, *told, *body])


def _cell_id(cell: NotebookNode, taken: set[str]) -> str:
    """An id that depends on nothing but the source and how often it came before."""
    repeat = 0
    while True:
        text = f"{cell.cell_type}\n{repeat}\n{cell.source}"
        identifier = hashlib.sha256(text.encode()).hexdigest()[:12]
        if identifier not in taken:
            taken.add(identifier)
            return identifier
        repeat += 1


def _normalise_outputs(outputs: list[NotebookNode], count: int | None) -> list[NotebookNode]:
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        else:
            if WIDGET in output.data:
                continue
            output.metadata = nbformat.from_dict(
                {mime: value for mime, value in output.metadata.items() if mime in output.data}
            )
            if output.output_type == "execute_result":
                output.execution_count = count
        kept.append(output)
    return kept


def is_executed(notebook: NotebookNode) -> bool:
    """Whether the code cells carry the counts 1 to n, as after one run from top to bottom."""
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    return counts == list(range(1, len(counts) + 1))


# -------------------------------------------------------------------------- files, execution


def read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise SystemExit(f"refresh: no such notebook: {path}") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise SystemExit(f"refresh: {path} is not a notebook: {error}") from None


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def written(notebook: NotebookNode) -> str:
    """The text of a notebook's file."""
    text = nbformat.writes(notebook, version=nbformat.NO_CONVERT)
    return text if text.endswith("\n") else text + "\n"


def write(path: Path, notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    write_whole(path, written(notebook))


def execute(notebook: NotebookNode, folder: Path = BOOK) -> NotebookNode:
    """Runs a notebook from top to bottom in a new kernel of this interpreter.

    Args:
        notebook: It is not changed.
        folder: The kernel's working directory.

    Returns:
        The executed notebook, its figures stored compactly, not yet normalised.

    Raises:
        CellExecutionError: A cell failed that is not tagged `raises-exception`.
    """
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=CurrentKernelManager,
        extra_arguments=["--log-level=ERROR", KERNEL_ARGUMENT],
        timeout=CELL_TIMEOUT_SECONDS,
        startup_timeout=300,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            store_compactly(output)
    return notebook


def refresh(source: Path, target: Path) -> str | None:
    """Executes one notebook into `target`; returns what went wrong, if anything did."""
    started = time.perf_counter()
    notebook = read(source)
    try:
        executed = normalise(execute(notebook))
    except CellExecutionError as error:
        return f"{source.name}: {error}"
    except Exception as error:  # a kernel that dies, a cell that never ends
        return f"{source.name}: {type(error).__name__}: {error}"
    write(target, executed)
    print(f"{source.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return None


def check(paths: Sequence[Path]) -> list[str]:
    """Names the notebooks that are not executed from top to bottom, or not normalised."""
    complaints = []
    for path in paths:
        notebook = read(path)
        if not is_executed(notebook):
            complaints.append(f"{path.name}: code cells without the counts 1 to n")
        if path.read_bytes() != written(normalise(notebook)).encode():
            complaints.append(f"{path.name}: not normalised")
    return complaints


def copy_book(output: Path) -> Path:
    """Copies the book and its configuration to `output`; returns the folder of its notebooks."""
    output = output.resolve()
    if output in (ROOT, *ROOT.parents) or output == BOOK or BOOK in output.parents:
        raise SystemExit(f"refresh: --output {output} is not a place for a copy of {BOOK}")
    if output.is_dir() and any(output.iterdir()) and not (output / "_toc.yml").is_file():
        raise SystemExit(f"refresh: --output {output} holds something else than a copy of the book")
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, output / name)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(BOOK, output / "book", ignore=ignored)
    return output / "book"


def printed(command: Sequence[str]) -> str:
    """What `python -m qaconv_lib`, or a script of the book's folder, prints for a command."""
    script = command[0].endswith(".py")
    program = [str(BOOK / command[0])] if script else ["-m", "qaconv_lib", command[0]]
    whole = [sys.executable, *program, *command[1:]]
    run = subprocess.run(whole, check=True, capture_output=True, text=True, cwd=ROOT)
    return run.stdout.strip()


def parts_around(path: Path, mark: str) -> tuple[str, str, str]:
    """A page's text before, between and after its two marks, which stay with the outer parts."""
    start, end = f"<!-- {mark}:start -->\n", f"<!-- {mark}:end -->"
    text = path.read_text(encoding="utf-8")
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"refresh: {path.name} must have {start.strip()} and {end} once each")
    before, rest = text.split(start)
    between, after = rest.split(end)
    return before + start, between, end + after


def fill_pages() -> None:
    """Writes what the commands of FILLED print between the marks of their pages."""
    for path, mark, command in FILLED:
        before, _, after = parts_around(path, mark)
        write_whole(path, f"{before}{printed(command)}\n{after}")


def draw_front_picture() -> None:
    """Draws the README's picture: a person of mini-market, matched by the model of mini-duke."""
    import pandas as pd

    from qaconv_lib import load_dataset, load_image, load_model
    from qaconv_lib.experiments.runs import checkpoint_path
    from qaconv_lib.visualize import show_correspondences

    data = load_dataset("mini-market")
    query = data.query[data.query["identity"] == FRONT_PERSON].iloc[0]
    same = data.gallery[data.gallery["identity"] == FRONT_PERSON]
    pair = pd.DataFrame([query, same[same["camera"] != query["camera"]].iloc[0]])
    maps = load_model(checkpoint_path("qaconv", "mini-duke")).extract(pair)
    figure = show_correspondences(
        *map(load_image, pair["path"]), *maps, threshold=0.6, mutual=True, alt="the front picture"
    )
    figure.savefig(BOOK / "_static" / "correspondences.png", dpi=160)


def draw_explorer() -> None:
    """Writes what the page "The explorer" shows."""
    from qaconv_lib.matches.explorer_page import write_explorer

    write_explorer(BOOK / "_static" / "explorer")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python book/refresh.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in book/")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="work on a copy of the book in this folder"
    )
    parser.add_argument("--check", action="store_true", help="execute nothing, only look")
    parser.add_argument(
        "--headline",
        action="store_true",
        help="only renew the tables of README.md and of pages, README.md's picture, and the "
        "explorer's data and pictures",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="notebooks that run at the same time (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    if options.headline:
        fill_pages()
        draw_front_picture()
        draw_explorer()
        return 0

    paths = options.notebooks or sorted(BOOK.glob("*.ipynb"))
    if options.check:
        problems = check(paths)
    else:
        folder = copy_book(options.output) if options.output else None
        targets = [folder / path.name if folder else path for path in paths]
        # One thread a kernel: the kernels share the cores, and sums keep their order.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with ThreadPoolExecutor(options.jobs) as pool:
            problems = [problem for problem in pool.map(refresh, paths, targets) if problem]
    for problem in problems:
        print(f"refresh: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
