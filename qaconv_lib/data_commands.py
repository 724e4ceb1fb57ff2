"""The commands ``synthesize`` and ``check-data``: the datasets (chapter 1)."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

Subparsers = argparse._SubParsersAction
_CHECKOUT = Path(__file__).resolve().parent.parent
_COUNTS = ("<!-- counts: begin -->", "<!-- counts: end -->")


def add_synthesize(subparsers: Subparsers) -> None:
    """``synthesize``: draw the miniatures."""
    from qaconv_lib.miniatures.plans import MINIATURES

    parser = subparsers.add_parser(
        "synthesize",
        help="draw the miniatures and write their archives",
        description="Draw the miniatures (all if none is named) and write one zip file each.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MINIATURES)}")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="folder for the archives (default: data/ of the checkout)",
    )
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one a CPU)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_synthesize)


def run_synthesize(options: argparse.Namespace) -> None:
    """Draw and write; in a checkout also bring the counts of the data card up to date."""
    from qaconv_lib.miniatures.drawing import MINIATURES, counts_markdown, write_archive

    for name in options.names:
        if name not in MINIATURES:
            raise ValueError(f"unknown miniature {name!r}; known are {', '.join(MINIATURES)}")
    out = options.out or _CHECKOUT / "data"
    _make_writable(out)
    for name in options.names or MINIATURES:
        archive = write_archive(name, out, jobs=options.jobs, progress=not options.quiet)
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")
    card = _CHECKOUT / "book" / "data_card.md"
    if out.resolve() == _CHECKOUT / "data" and card.is_file():
        if all((out / f"{name}.zip").is_file() for name in MINIATURES):
            replace_counts(card, counts_markdown(out))
            print(f"{card}: counts written")


def _make_writable(folder: Path) -> None:
    """Make a folder that archives are written to; what is in the way is said before the work."""
    from qaconv_lib._files import make_folder

    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write archives to {folder} ({error.strerror}); name a folder that can be "
            "written with --out"
        ) from error


def replace_counts(page: Path, counts: str) -> None:
    """Put ``counts`` between the two marks of the page."""
    from qaconv_lib._files import write_whole

    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(_COUNTS[0])
    _, end, tail = rest.partition(_COUNTS[1])
    if not begin or not end:
        raise ValueError(
            f"{page} lacks the lines {_COUNTS[0]} and {_COUNTS[1]} that enclose its counts"
        )
    write_whole(page, f"{head}{begin}\n\n{counts}\n{end}{tail}".encode())


def add_check_data(subparsers: Subparsers) -> None:
    """``check-data``: hold a public dataset against its published counts."""
    parser = subparsers.add_parser(
        "check-data",
        help="hold a public dataset against its published counts",
        description="Count images, identities and cameras of each split of a public dataset, hold "
        "them against the published counts, and say what is missing or extra. One's own images, "
        "listed in a CSV file, are counted and looked over. Exit status 0 means that nothing is "
        "amiss, 1 that something is.",
    )
    parser.add_argument(
        "name", help="e.g. market1501, dukemtmc, cuhk03-np-detected, msmt17, or people.csv"
    )
    parser.add_argument("--root", default=None, help="its folder (default: the data search path)")
    parser.add_argument("--images", action="store_true", help="open every image too")
    parser.add_argument(
        "--duplicates", action="store_true", help="look for files of the same content"
    )
    add_skip_option(parser)
    parser.set_defaults(run=run_check_data)


def run_check_data(options: argparse.Namespace) -> int:
    """Check, print the counts and the remarks."""
    from qaconv_lib.experiments.checking import check_dataset

    table, remarks = check_dataset(
        options.name,
        options.root,
        read_images=options.images,
        find_duplicates=options.duplicates,
        skip_unreadable=options.skip_unreadable,
        progress=True,
    )
    print(table.to_string())
    for line in table.attrs["notes"] + remarks:
        print(line)
    if not remarks:
        print(f"{options.name}: {table.attrs['verdict']}")
    return 1 if remarks else 0


def add_skip_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--skip-unreadable``."""
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="open every image first; leave out those that cannot be read, and say which",
    )


#: The commands of this module, in the order of the help text.
DATA_COMMANDS = [add_synthesize, add_check_data]
