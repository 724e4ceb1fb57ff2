"""Run the notebooks of the book and bring them into the form in which they are committed.

python book/tools/refresh.py                        all notebooks, in place
python book/tools/refresh.py book/05_*.ipynb        some of them
python book/tools/refresh.py --output _build/book   a copy of the book
python book/tools/refresh.py --check                only name notebooks that are not in that form
python book/tools/refresh.py --headline             renew tables, README's image, explorer data
"""

from __future__ import annotations

import argparse
import hashlib
import os
import runpy
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from stored_figures import CAPTION, FIGURE, KERNEL_ARGUMENT, store_compactly

TOOLS = Path(__file__).resolve().parent
BOOK, ROOT = TOOLS.parent, TOOLS.parent.parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
KEPT = ("mystnb", "tags", "tolerance")  # metadata of a cell; the last is read by compare.py
WIDGET = "application/vnd.jupyter.widget-view+json"
FRONT_PEOPLE = (252, 263)  # identities in mini-market
EXPLORED = ("general-small", "mini-market")  # the explorer's model and dataset
# Between two marks of a page: what a command of the library, or a script of this folder, prints.
FILLED = [
    (ROOT / "README.md", "headline", ["tables", "headline"]),
    (BOOK / "index.md", "headline", ["tables", "headline"]),
    (BOOK / "index.md", "chart", ["front_chart.py"]),
    (BOOK / "claims.md", "claims", ["claims_page.py"]),
    (BOOK / "model_card.md", "models", ["model_card.py"]),
    (BOOK / "contributing.md", "mutants", ["mutation.py", "--table"]),
]
CELL_TIMEOUT_SECONDS = 900
JOBS = 2  # notebooks that run at the same time


# ------------------------------------------------------------------------------ normal form


def normalise(notebook: NotebookNode) -> NotebookNode:
    """The notebook in the form in which it is committed; twice is the same as once.

    Dropped: stderr, widgets, timings, metadata other than `KEPT`, and the frames of a stored
    traceback, which hold machine paths. Set: cell ids that follow from the sources, one
    kernelspec, one output per run of prints, captions repeated in the code.
    """
    notebook = deepcopy(notebook)
    kept = {"mystnb": notebook.metadata["mystnb"]} if "mystnb" in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(kept | {"kernelspec": KERNEL, "language_info": LANGUAGE})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken: set[str] = set()
    for cell in notebook.cells:
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        cell.source = _with_caption(cell)
        cell.id = _cell_id(cell, taken)
        metadata = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        if "tags" in metadata:
            metadata["tags"] = sorted(set(metadata["tags"]))
        cell.metadata = nbformat.from_dict(metadata)
        if cell.cell_type == "code":
            cell.outputs = _normalise_outputs(cell.outputs, cell.execution_count)
    return notebook


def _with_caption(cell: NotebookNode) -> str:
    """The source with a figure's caption under its number; Jupyter shows it nowhere else."""
    number, *body = cell.source.split("\n")
    caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
    if not caption or not number.startswith(FIGURE):
        return cell.source
    while body and body[0].startswith(CAPTION):
        body.pop(0)
    lines = textwrap.wrap(caption, 84, break_long_words=False, break_on_hyphens=False)
    return "\n".join([number, *(CAPTION + line for line in lines), *body])


def _cell_id(cell: NotebookNode, taken: set[str]) -> str:
    """An id that depends only on the source and on how often it came before."""
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


def check(paths: Sequence[Path]) -> list[str]:
    """Name the notebooks that are not executed from top to bottom, or not in normal form."""
    complaints = []
    for path in paths:
        notebook = read(path)
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        if counts != list(range(1, len(counts) + 1)):
            complaints.append(f"{path.name}: the code cells are not numbered from 1 to n")
        if path.read_bytes() != nbformat.writes(normalise(notebook)).encode() + b"\n":
            complaints.append(f"{path.name}: not in normal form")
    return complaints


# ------------------------------------------------------------------------------ execution


def read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise SystemExit(f"refresh: no such notebook: {path}") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise SystemExit(f"refresh: {path} is not a notebook: {error}") from None


def write(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def execute(notebook: NotebookNode, folder: Path = BOOK) -> NotebookNode:
    """An executed copy of a notebook, run in `folder` by a kernel of this interpreter."""
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # not a kernel that the user has registered
    notebook = deepcopy(notebook)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
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
    """Run one notebook and write the result to `target`; returns what went wrong, if anything."""
    started = time.perf_counter()
    notebook = read(source)
    try:
        executed = normalise(execute(notebook))
    except CellExecutionError as error:
        return f"{source.name}: {error}"
    except Exception as error:  # the kernel dies, or a cell takes too long
        return f"{source.name}: {type(error).__name__}: {error}"
    write(target, nbformat.writes(executed) + "\n")
    print(f"{source.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return None


def copy_book(output: Path) -> Path:
    """Copy the book and its configuration to `output`; returns the folder of the notebooks."""
    output = output.resolve()
    if output in (ROOT, *ROOT.parents) or output == BOOK or BOOK in output.parents:
        raise SystemExit(f"refresh: --output {output} would overwrite or lie within {BOOK}")
    if output.is_dir() and any(output.iterdir()) and not (output / "_toc.yml").is_file():
        raise SystemExit(f"refresh: --output {output} is not empty and not a copy of the book")
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(BOOK, output / "book", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, output / name)
    return output / "book"


# ------------------------------------------------------------------------------ pages


def printed(command: Sequence[str]) -> str:
    """What a command of FILLED prints."""
    with redirect_stdout(StringIO()) as output:
        if command[0].endswith(".py"):
            with patch("sys.argv", command):
                runpy.run_path(str(TOOLS / command[0]), run_name="__main__")
        else:
            from qaconv_lib.cli import main

            main(command)
    return output.getvalue().strip()


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
    """Write what the commands of FILLED print between the marks of their pages."""
    for path, mark, command in FILLED:
        before, _, after = parts_around(path, mark)
        write(path, f"{before}{printed(command)}\n{after}")


def draw_front_figure() -> None:
    """Draw README's figure: people of mini-market, matched by the model of mini-duke."""
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd

    from qaconv_lib import load_dataset, load_image, load_model
    from qaconv_lib.datasets import load_part_map
    from qaconv_lib.experiments.runs import checkpoint_path
    from qaconv_lib.matches.correspondence import BODY_PARTS, SHOWN, cell_parts
    from qaconv_lib.visualize import show_correspondences

    data, model = load_dataset("mini-market"), load_model(checkpoint_path("qaconv", "mini-duke"))
    figure = plt.figure(figsize=(8.4, 4.4), layout="constrained")
    for person, half in zip(FRONT_PEOPLE, figure.subfigures(1, 2), strict=True):
        query = data.query[data.query["identity"] == person].iloc[0]
        same = data.gallery[data.gallery["identity"] == person]
        pair = pd.DataFrame([query, same[same["camera"] != query["camera"]].iloc[0]])
        maps = model.extract(pair)
        parts = np.array(SHOWN)[cell_parts(load_part_map(query["path"]), *maps.shape[2:])]
        show_correspondences(
            *map(load_image, pair["path"]),
            *maps,
            threshold=0.6,
            mutual=True,
            parts=parts,
            locations=np.flatnonzero(np.isin(parts, BODY_PARTS)),
            into=half,
            alt="README's figure",
        )
    figure.savefig(BOOK / "_static" / "correspondences.png", dpi=160)


def draw_explorer() -> None:
    """Write what the page "The explorer" shows."""
    from qaconv_lib import load_dataset, load_model
    from qaconv_lib.experiments.runs import NAMED
    from qaconv_lib.experiments.suite import Trial, find_record
    from qaconv_lib.matches.explorer_page import write_explorer

    name, target = EXPLORED
    run = NAMED[name]
    record = find_record(Trial(run, target))
    if record is None:
        sys.exit(f"no record of {run.name} on {target}: python -m qaconv_lib evaluate makes it")
    precision = record["stages"]["alone"]["average_precision"]
    model, dataset = load_model(run.checkpoint()), load_dataset(target)
    write_explorer(BOOK / "_static" / "explorer", model, dataset, precision, run.source)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python book/tools/refresh.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in book/")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="run a copy in this folder")
    parser.add_argument("--check", action="store_true", help="run nothing, only look")
    parser.add_argument(
        "--headline",
        action="store_true",
        help="only renew the tables of README.md and of pages, README.md's figure, and the "
        "explorer's data and images",
    )
    options = parser.parse_args(arguments)
    if options.headline:
        fill_pages()
        draw_front_figure()
        draw_explorer()
        return 0

    paths = options.notebooks or sorted(BOOK.glob("*.ipynb"))
    if options.check:
        problems = check(paths)
    else:
        folder = copy_book(options.output) if options.output else None
        targets = [folder / path.name if folder else path for path in paths]
        # One thread per kernel: the kernels share the cores, and sums keep their order.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with ThreadPoolExecutor(JOBS) as pool:
            problems = [problem for problem in pool.map(refresh, paths, targets) if problem]
    for problem in problems:
        print(f"refresh: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
