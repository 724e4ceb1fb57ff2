"""Command line: ``python -m qaconv_lib COMMAND``.

A command is a function that adds its parser and names, by ``set_defaults(run=...)``, what it runs.
Bad input ends with one sentence on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Subparsers = argparse._SubParsersAction
_CHECKOUT = Path(__file__).resolve().parent.parent
_COUNTS = ("<!-- counts: begin -->", "<!-- counts: end -->")


def add_synthesize(subparsers: Subparsers) -> None:
    """``synthesize``: draw the miniatures."""
    from qaconv_lib.synthetic.plans import MINIATURES

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
    from qaconv_lib.synthetic.miniatures import MINIATURES, counts_markdown, write_archive

    for name in options.names:
        if name not in MINIATURES:
            raise ValueError(f"unknown miniature {name!r}; known are {', '.join(MINIATURES)}")
    out = options.out or _CHECKOUT / "data"
    for name in options.names or MINIATURES:
        archive = write_archive(name, out, jobs=options.jobs, progress=not options.quiet)
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")
    card = _CHECKOUT / "book" / "data_card.md"
    if out.resolve() == _CHECKOUT / "data" and card.is_file():
        if all((out / f"{name}.zip").is_file() for name in MINIATURES):
            replace_counts(card, counts_markdown(out))
            print(f"{card}: counts written")


def replace_counts(page: Path, counts: str) -> None:
    """Put ``counts`` between the two marks of the page."""
    from qaconv_lib.archives import write_whole

    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(_COUNTS[0])
    _, end, tail = rest.partition(_COUNTS[1])
    if not begin or not end:
        raise ValueError(
            f"{page} lacks the lines {_COUNTS[0]} and {_COUNTS[1]} that enclose its counts"
        )
    write_whole(page, f"{head}{begin}\n\n{counts}\n{end}{tail}".encode())


#: Commands, in the order of the help text.
COMMANDS: list[Callable[[Subparsers], None]] = [add_synthesize]


def make_parser() -> argparse.ArgumentParser:
    """Parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m qaconv_lib", description="Tools of the QAConv book."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"qaconv_lib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("qaconv_lib: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
