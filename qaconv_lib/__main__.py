"""Command line: ``python -m qaconv_lib COMMAND``.

A command is a function that adds its parser and names, by ``set_defaults(run=...)``, what it runs.
Bad input ends with one sentence on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from qaconv_lib.beyond.export import add_export
from qaconv_lib.data_commands import DATA_COMMANDS
from qaconv_lib.experiment_commands import EXPERIMENT_COMMANDS
from qaconv_lib.photograph_commands import PHOTOGRAPH_COMMANDS, printable
from qaconv_lib.training_commands import TRAINING_COMMANDS

Subparsers = argparse._SubParsersAction

#: Commands, in the order of the help text.
COMMANDS: list[Callable[[Subparsers], None]] = [
    *DATA_COMMANDS,
    *TRAINING_COMMANDS,
    *EXPERIMENT_COMMANDS,
    add_export,
    *PHOTOGRAPH_COMMANDS,
]


def make_parser() -> argparse.ArgumentParser:
    """Parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m qaconv_lib", description="Tools of the QAConv book."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    return parser


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of this package as one sentence, others with the place they come from."""
    if Path(__file__).parent in Path(filename).parents:
        return f"qaconv_lib: {message}\n"
    return f"{filename}: {category.__name__}: {message}\n"


def _world_size() -> int:
    value = os.environ.get("WORLD_SIZE", "1")
    if not (value.isascii() and value.isdecimal()):
        raise ValueError(f"WORLD_SIZE must be a whole number, as torchrun sets it, got {value!r}")
    return int(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    parser = make_parser()
    for word in sys.argv[1:] if arguments is None else arguments:
        if word.startswith("-") and word.endswith("=--"):  # argparse makes an empty list of it
            parser.error(f"{word}: -- is no value")
    options = parser.parse_args(arguments)
    warnings.formatwarning = _format_warning
    try:
        several = hasattr(options, "device") and _world_size() > 1
        if several:  # started by torchrun; importing torch takes a second, so not before
            from qaconv_lib.scale.distributed import connect, disconnect

            options.device = connect(options.device)
        elif getattr(options, "device", None) is not None:
            from qaconv_lib.models import choose_device

            options.device = str(choose_device(options.device))
        status = options.run(options) or 0
        if several:
            disconnect()
        sys.stdout.flush()
    except BrokenPipeError:  # as of `... | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes yet
        return 141
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        # In one line, whatever names of files it quotes.
        print(f"qaconv_lib: {printable(str(error) or 'out of memory')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("qaconv_lib: interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
