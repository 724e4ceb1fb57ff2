"""The commands ``match`` and ``search``, for pictures of one's own (chapter 14)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qaconv_lib.photographs._written import check_folder, check_output, save_figure, write_lists

if TYPE_CHECKING:
    from qaconv_lib.models import ReidModel
    from qaconv_lib.photographs.matching import Knowledge

Subparsers = argparse._SubParsersAction
_FEW = 100  # images; re-ranking takes 20 neighbours of each


def add_match(subparsers: Subparsers) -> None:
    """``match``: compare two pictures."""
    parser = subparsers.add_parser(
        "match",
        help="compare two pictures of people",
        description="Compare two pictures, each a crop of one person: similarity, probability, and "
        "a picture of what matched. The model that comes with the book was trained on drawn people "
        "and is not fit for photographs of real people; name one of your own with --model.",
    )
    parser.add_argument("query", type=Path, metavar="A", help="image file")
    parser.add_argument("gallery", type=Path, metavar="B", help="image file")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("match.png"),
        help="where to write the picture: .png, .svg or .pdf (default: match.png)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.6, help="least cosine of a line (default: 0.6)"
    )
    parser.add_argument(
        "--all", action="store_true", help="lines that are the best of one side only, too"
    )
    add_model_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_match)


def run_match(options: argparse.Namespace) -> None:
    """Compare, print the numbers, write the picture."""
    from qaconv_lib.photographs.matching import match_photographs, open_model
    from qaconv_lib.photographs.words import describe_match

    pictures = [options.query, options.gallery]
    check_output(options.output, pictures)
    if not -1 <= options.threshold < 1:
        raise ValueError(f"threshold must lie in [-1, 1), got {options.threshold}")
    model = open_model(options.model, options.device)
    known = known_for(model, options)
    prior = 0.5 if options.prior is None else options.prior
    found = match_photographs(model, *pictures)
    for name, text in describe_match(found, known, prior):
        print(f"{name:<13}{text}")
    title = f"similarity {found.similarity:.2f}"
    figure = found.show(threshold=options.threshold, mutual=not options.all, title=title)
    save_figure(figure, options.output)
    print(f"picture      {printable(options.output)}")
    _remark(options, known, pictures)


def add_search(subparsers: Subparsers) -> None:
    """``search``: rank a folder of pictures."""
    parser = subparsers.add_parser(
        "search",
        help="rank a folder of pictures for a query",
        description="Rank the pictures of a folder, each a crop of one person, by similarity to a "
        "query. Writes ranks.csv and a picture of each rank list. The model that comes with the "
        "book was trained on drawn people and is not fit for photographs of real people; name one "
        "of your own with --model.",
    )
    parser.add_argument("query", type=Path, metavar="QUERY", help="image file, or a folder of them")
    parser.add_argument("--gallery", type=Path, required=True, help="folder of pictures")
    parser.add_argument(
        "--output", type=Path, default=Path("found"), help="folder for the results (default: found)"
    )
    parser.add_argument(
        "--length", type=int, default=10, help="how long the lists are (default: 10)"
    )
    parser.add_argument("--rerank", action="store_true", help="re-rank by k-reciprocal encoding")
    parser.add_argument(
        "--depth", type=int, default=None, help="how many images re-ranking looks at (default: 500)"
    )
    parser.add_argument(
        "--times",
        type=Path,
        default=None,
        help="CSV with the columns file, camera, seconds, of queries and gallery: TLift is "
        "applied. QUERY is then best the folder of all people that the query's camera saw",
    )
    parser.add_argument(
        "--store", type=Path, default=None, help="folder that keeps the gallery's feature maps"
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out files that cannot be used"
    )
    add_model_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_search)


def run_search(options: argparse.Namespace) -> None:
    """Search, write the lists, and print the first of each."""
    from qaconv_lib.photographs.files import list_photographs, other_files, read_times
    from qaconv_lib.photographs.matching import open_model
    from qaconv_lib.photographs.own_gallery import DEPTH, gallery_prior, search_gallery
    from qaconv_lib.photographs.words import describe_prior

    queries = list_photographs(options.query) if options.query.is_dir() else [options.query]
    gallery = list_photographs(options.gallery)
    check_folder(options.output)
    if options.depth is not None and not options.rerank:
        raise ValueError("--depth says how many images --rerank looks at; --rerank is missing")
    if options.skip_unreadable:
        queries, gallery = _without_bad(queries), _without_bad(gallery)
    times = None if options.times is None else read_times(options.times)
    model = open_model(options.model, options.device)
    known = known_for(model, options)
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
    alone = [query for query in queries if str(query) not in set(found["query"])]
    if len(alone) == len(queries):
        raise ValueError(f"{options.gallery} holds nothing but the query")
    write_lists(found, options.output)
    for query in alone:
        print(f"{printable(query)}: the gallery holds nothing but this picture")
    for row in found[found["rank"] == 1].itertuples():
        print(f"{printable(row.query)}: {printable(row.image)}, similarity {row.similarity:.2f}")
    print(f"lists        {printable(options.output / 'ranks.csv')}")
    others = other_files(options.gallery)
    if others:
        kinds = ", ".join(sorted(ending or "no ending" for ending in set(others)))
        print(f"Note: files that are no pictures or of other kinds: {len(others):,} ({kinds}).")
    if known.calibration is not None:
        prior = gallery_prior(len(gallery)) if options.prior is None else options.prior
        print(f"Note: {describe_prior(known, prior)}")
    if options.rerank and len(gallery) < _FEW:
        print(
            f"Note: re-ranking trusts the neighbours of each image. Of {len(gallery)} images most "
            "neighbours show somebody else; compare with the list without --rerank."
        )
    if times is not None and len(queries) == 1:
        print(
            "Note: TLift asks where those who walked near the query turn up. There is one query "
            "only; name the folder of all people that its camera saw."
        )
    _remark(options, known, [*queries, *gallery])


def _without_bad(paths: list[Path]) -> list[Path]:
    from qaconv_lib.photographs.files import find_damaged_photographs

    bad = find_damaged_photographs(paths)
    for reason in bad.values():
        print(f"left out: {reason}", file=sys.stderr)
    kept = [path for path in paths if str(path) not in bad]
    if not kept:
        raise ValueError(f"none of the {len(paths):,} files can be used")
    return kept


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, what is known of it, and where it runs."""
    parser.add_argument(
        "--model",
        type=Path,
        default=None,
        help="model file (default: one that comes with the book)",
    )
    parser.add_argument(
        "--domain", default=None, help="dataset whose calibration is taken (see `calibrate`)"
    )
    parser.add_argument(
        "--prior",
        type=float,
        default=None,
        help="probability of one person before the pictures are compared (default: 0.5 for two "
        "pictures, 1 / (n + 1) for each of a gallery of n)",
    )
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")


def known_for(model: ReidModel, options: argparse.Namespace) -> Knowledge:
    """What is on record; a wrong prior is refused here, before the work."""
    from qaconv_lib.photographs.matching import known_about

    if options.prior is not None and not 0 < options.prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {options.prior}")
    return known_about(model, options.domain)


def _remark(options: argparse.Namespace, known: Knowledge, pictures: list[Path]) -> None:
    """What the reader of the numbers must know."""
    from qaconv_lib.photographs.words import remarks

    for sentence in remarks(known, pictures, shipped=options.model is None):
        print(f"Note: {printable(sentence)}")


def printable(path: str | Path) -> str:
    """A file name in one line that any terminal can take."""
    encoding = sys.stdout.encoding or "utf-8"
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
    return line.encode(encoding, "backslashreplace").decode(encoding)


#: The commands of this module, in the order of the help text.
PHOTOGRAPH_COMMANDS = [add_match, add_search]
