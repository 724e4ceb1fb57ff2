"""The commands ``match``, ``search``, ``calibrate`` and ``demo``, for images of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qaconv_lib.models import ReidModel
    from qaconv_lib.photographs.matching import Knowledge

Subparsers = argparse._SubParsersAction
_DRAWN = (
    "The model that comes with the book was trained on drawn people and is not fit for photographs "
    "of real people; name one of your own with --model."
)


def _add(
    subparsers: Subparsers, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> Callable[..., argparse.Action]:
    """Add a command, described by `text`; give back what adds its arguments."""
    parser = subparsers.add_parser(name, help=text.split(":")[0].lower(), description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is)")
    if name != "calibrate":
        parser.add_argument("--model", type=Path, help="model file (default: the book's)")
        parser.add_argument("--domain", help="dataset whose calibration is used (see `calibrate`)")
        prior = "probability of one person before the images were compared (default: 0.5 for two "
        prior += "images, 1 / (n + 1) for each of a gallery of n)"
        parser.add_argument("--prior", type=float, help=prior)
    if name != "demo":
        parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.add_argument


def _open(options: argparse.Namespace) -> tuple[ReidModel, Knowledge]:
    """The model and what is on record; a wrong prior is refused before the work."""
    from qaconv_lib.experiments.calibration_records import find_calibrations
    from qaconv_lib.photographs.matching import known_about, open_model

    if options.prior is not None and not 0 < options.prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {options.prior}")
    model = open_model(options.model, options.device)
    return model, known_about(find_calibrations(model), options.domain)


def add_match(subparsers: Subparsers) -> None:
    """``match``: compare two images."""
    text = "Compare two images of people: similarity, probability and a figure of what matched. "
    add = _add(subparsers, "match", run_match, text + _DRAWN)
    add("query", type=Path, metavar="A", help="image file that shows one person")
    add("gallery", type=Path, metavar="B", help="image file that shows one person")
    output = "file of the figure: .png, .svg or .pdf (default: match.png)"
    add("--output", type=Path, default=Path("match.png"), help=output)
    add("--threshold", type=float, default=0.6, help="least cosine of a line (default: 0.6)")
    add("--all", action="store_true", help="also lines that are the best of one side only")


def run_match(options: argparse.Namespace) -> None:
    """Compare, print the numbers, write the figure."""
    from qaconv_lib.photographs.matching import describe_match, match_photographs, remarks
    from qaconv_lib.photographs.results import check_output, save_figure

    images = [options.query, options.gallery]
    check_output(options.output, images)
    model, known = _open(options)
    found = match_photographs(model, *images)
    figure = found.show(
        threshold=options.threshold,
        mutual=not options.all,
        title=f"similarity {found.similarity:.2f}",
    )
    save_figure(figure, options.output)
    for name, text in describe_match(found, known, options.prior or 0.5):
        print(f"{name:<13}{text}")
    print(f"picture      {printable(options.output)}")
    _note(remarks(known, images))


def add_search(subparsers: Subparsers) -> None:
    """``search``: rank a folder of images."""
    text = "Rank a folder of images for a query: writes ranks.csv and a figure of each rank list. "
    add = _add(subparsers, "search", run_search, text + _DRAWN)
    add("query", type=Path, metavar="QUERY", help="image file, or a folder of them")
    add("--gallery", type=Path, required=True, help="folder of images")
    add("--output", type=Path, default=Path("found"), help="folder of the results (default: found)")
    add("--length", type=int, default=10, help="how long the lists are (default: 10)")
    add("--rerank", action="store_true", help="re-rank by k-reciprocal encoding")
    add("--depth", type=int, help="how many images re-ranking looks at (default: 500)")
    times = (
        "CSV file with the columns file, camera, seconds of all images: applies TLift, for which "
    )
    times += "QUERY should be the folder of all people whom the query's camera saw"
    add("--times", type=Path, help=times)
    add("--store", type=Path, help="folder that keeps the gallery's feature maps")
    add("--skip-unreadable", action="store_true", help="leave out files that cannot be used")


def run_search(options: argparse.Namespace) -> None:
    """Search, write the lists, and print the first of each."""
    from qaconv_lib.photographs.files import (
        find_bad_photographs,
        list_photographs,
        other_files,
        read_times,
    )
    from qaconv_lib.photographs.gallery import DEPTH, gallery_prior, search_gallery
    from qaconv_lib.photographs.matching import describe_prior, remarks
    from qaconv_lib.photographs.results import check_folder, write_lists

    queries = list_photographs(options.query) if options.query.is_dir() else [options.query]
    gallery = list_photographs(options.gallery)
    check_folder(options.output)
    if options.depth is not None and not options.rerank:
        raise ValueError("--depth says how many images --rerank looks at; --rerank is missing")
    if options.skip_unreadable:
        for paths in (queries, gallery):
            bad = find_bad_photographs(paths, whole=True)
            for reason in bad.values():
                print(f"left out: {printable(reason)}", file=sys.stderr)
            if len(bad) == len(paths):
                raise ValueError(f"none of the {len(paths):,} files can be used")
            paths[:] = [path for path in paths if str(path) not in bad]
    times = None if options.times is None else read_times(options.times)
    model, known = _open(options)
    found = search_gallery(
        model,
        queries,
        gallery,
        calibration=known.calibration,
        prior=options.prior,
        rerank=options.rerank,
        depth=DEPTH if options.depth is None else options.depth,
        times=times,
        store=options.store,
        length=options.length,
        progress=not options.quiet,
    )
    if found.empty:
        raise ValueError(f"{options.gallery} holds nothing but the query")
    write_lists(found, options.output)
    for row in found[found["rank"] == 1].itertuples():
        print(f"{printable(row.query)}: {printable(row.image)}, similarity {row.similarity:.2f}")
    print(f"lists        {printable(options.output / 'ranks.csv')}")
    notes = []
    if others := other_files(options.gallery):
        notes.append(f"files of other kinds: {len(others):,} ({', '.join(sorted(set(others)))}).")
    if known.calibration is not None:
        prior = gallery_prior(len(gallery)) if options.prior is None else options.prior
        notes.append(describe_prior(known, prior))
    _note(notes + remarks(known, [*queries, *gallery]))


def add_calibrate(subparsers: Subparsers) -> None:
    """``calibrate``: fit thresholds and probabilities, and try them on other datasets."""
    text = "Fit thresholds and probabilities of a model on datasets: writes what `match` looks up."
    add = _add(subparsers, "calibrate", run_calibrate, text)
    add("model", nargs="?", type=Path, metavar="MODEL", help="default: the book's QAConv models")
    add("datasets", nargs="*", metavar="DATASET", help="datasets (default: the miniatures)")


def run_calibrate(options: argparse.Namespace) -> None:
    """Say on stderr what is done, calibrate, and print the drop from dataset to dataset."""
    from qaconv_lib.experiments.calibration_records import calibration_record, transfer_table
    from qaconv_lib.experiments.profiles import get_profile
    from qaconv_lib.experiments.runs import Run

    if options.model is not None and not options.model.exists():
        raise FileNotFoundError(
            f"no checkpoint at {options.model}; the model's file comes first, then the datasets"
        )
    datasets = options.datasets or list(get_profile("laptop").datasets.values())
    runs = [Run("qaconv", source) for source in ("mini-market", "mini-duke")]
    shipped = {run.checkpoint().resolve(): run for run in runs}
    for path in [options.model] if options.model else shipped:
        if not options.quiet:
            what = f"calibrating {path.name} on the test images of {', '.join(datasets)}"
            print(printable(f"{what}; without a GPU this takes minutes"), file=sys.stderr)
        record = calibration_record(
            path,
            datasets,
            shipped.get(path.resolve()),
            device=options.device,
            progress=not options.quiet,
        )
        print(f"{printable(path.name)}")
        print(transfer_table(record).to_string(index=False, float_format="%.4f"))


def add_demo(subparsers: Subparsers) -> None:
    """``demo``: a page in the browser."""
    text = "Serve a page in the browser that compares images: two of them, or one with a gallery. "
    add = _add(subparsers, "demo", run_demo, text + _DRAWN)
    add("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine alone)")
    add("--port", type=int, default=7860, help="port; 0 for any free one (default: 7860)")
    add("--gallery", type=Path, help="folder that is searched if no gallery is uploaded")


def run_demo(options: argparse.Namespace) -> None:
    """Serve the page until it is stopped."""
    from qaconv_lib.photographs.demo import Answers, serve
    from qaconv_lib.photographs.files import check_photographs, list_photographs

    gallery = [] if options.gallery is None else list_photographs(options.gallery)
    check_photographs(gallery)
    serve(Answers(*_open(options), options.prior, gallery), options.host, options.port)


def _note(sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"Note: {printable(sentence)}")


def printable(path: str | Path) -> str:
    """A file name in one line that any terminal can take."""
    encoding = sys.stdout.encoding or "utf-8"
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
    return line.encode(encoding, "backslashreplace").decode(encoding)


#: The commands of this module, in the order of the help text.
PHOTOGRAPH_COMMANDS = [add_match, add_search, add_calibrate, add_demo]
