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

from qaconv_lib.export import add_export
from qaconv_lib.photograph_commands import PHOTOGRAPH_COMMANDS
from qaconv_lib.preparation_commands import PREPARATION_COMMANDS

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
    _add_skip_option(parser)
    parser.set_defaults(run=run_check_data)


def run_check_data(options: argparse.Namespace) -> int:
    """Check, print the counts and the remarks."""
    from qaconv_lib.checking import check_dataset

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


def add_train(subparsers: Subparsers) -> None:
    """``train``: train a model and write its checkpoint and record."""
    parser = subparsers.add_parser(
        "train", help="train a model on a dataset", description="Train a model on a dataset."
    )
    _add_run_options(parser)
    parser.add_argument(
        "--run-folder",
        type=Path,
        default=None,
        help="keep the state after each epoch here, and go on from it if there is one",
    )
    _add_skip_option(parser)
    parser.set_defaults(run=run_train)


def run_train(options: argparse.Namespace) -> None:
    """Train, and say where the checkpoint is."""
    from qaconv_lib.distributed import process_rank
    from qaconv_lib.runs import Run, checkpoint_path, train_run

    key = options.loss, options.source, options.profile, options.seed
    path = train_run(
        Run(*key),
        checkpoint=checkpoint_path(*key),
        device=options.device,
        run_folder=options.run_folder,
        progress=not options.quiet,
        skip_unreadable=options.skip_unreadable,
    )
    if process_rank() == 0:
        print(path)


def add_evaluate(subparsers: Subparsers) -> None:
    """``evaluate``: test a trained model on other datasets and write the records."""
    parser = subparsers.add_parser(
        "evaluate",
        help="test a trained model on datasets",
        description="Test a trained model, alone and with re-ranking and TLift.",
    )
    _add_run_options(parser)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="datasets to test on")
    _add_skip_option(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate on every target and print rank-1 and mAP of each stage."""
    from qaconv_lib.datasets import load_test
    from qaconv_lib.distributed import process_rank
    from qaconv_lib.experiments import Trial, evaluate_trial
    from qaconv_lib.runs import Run, pair_similarities

    run = Run(options.loss, options.source, options.profile, options.seed)
    for target in options.targets:
        if process_rank():  # of several processes, the others help with the similarities only
            dataset = load_test(target, options.skip_unreadable)
            pair_similarities(run, dataset, device=options.device)
            continue
        record = evaluate_trial(
            Trial(run, target, post=True),
            device=options.device,
            skip_unreadable=options.skip_unreadable,
        )
        for stage, scores in record["stages"].items():
            print(f"{target} {stage}: {scores['rank1']:.1%} rank-1, {scores['mean_ap']:.1%} mAP")


def add_tune(subparsers: Subparsers) -> None:
    """``tune``: choose settings on a validation split of the source."""
    parser = subparsers.add_parser(
        "tune",
        help="try settings on held-out training identities",
        description="Try the profile's candidate settings on a validation split of the source. "
        "Candidates that have a record are not run again.",
    )
    _add_run_options(parser, seed=False)
    parser.set_defaults(run=run_tune)


def run_tune(options: argparse.Namespace) -> None:
    """Try, and print every candidate with its validation scores."""
    from qaconv_lib.search import search

    found = search(
        options.loss,
        options.source,
        profile=options.profile,
        device=options.device,
        progress=not options.quiet,
    )
    for record in found:
        scores = record["scores"]
        print(f"{record['settings']}: {scores['rank1']:.1%} rank-1, {scores['mean_ap']:.1%} mAP")


def add_run(subparsers: Subparsers) -> None:
    """``run``: run a named experiment."""
    parser = subparsers.add_parser(
        "run",
        help="run an experiment of the paper by name",
        description="Run what an experiment still lacks: train, test, write records. What has a "
        "record is not run again; a run that was interrupted goes on after its last epoch.",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="an experiment (without it: list them)"
    )
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    parser.add_argument("--seeds", type=int, default=None, help="how many (default: see the list)")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default: 1)")
    parser.set_defaults(run=run_run)


def run_run(options: argparse.Namespace) -> None:
    """Run an experiment and report on stderr."""
    from qaconv_lib.experiments import EXPERIMENTS, run_experiment

    if options.name is None:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:16}{experiment.title}; {experiment.seeds} seeds")
        print(f"{'cost':16}Time and memory of each step")
        return
    if options.name == "cost":
        from qaconv_lib.cost import cost_record

        for row in cost_record(options.profile, options.device)["steps"]:
            print(f"{row['step']} ({row['loss']}): {row['seconds']} {row['unit']}")
        return
    records = run_experiment(
        options.name,
        profile=options.profile,
        seeds=options.seeds,
        device=options.device,
        jobs=options.jobs,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(f"{options.name}: {len(records)} records; `python -m qaconv_lib tables` prints them")


def add_tables(subparsers: Subparsers) -> None:
    """``tables``: print the tables that there are records for."""
    parser = subparsers.add_parser(
        "tables",
        help="print the tables from the records",
        description="Print tables from the records, as Markdown.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="headline, within, or an experiment (default: all that have records)",
    )
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    parser.set_defaults(run=run_tables)


def run_tables(options: argparse.Namespace) -> None:
    """Print the tables."""
    from qaconv_lib.profiles import get_profile
    from qaconv_lib.tables import all_tables

    print(all_tables(get_profile(options.profile).name, options.names))


def add_claims(subparsers: Subparsers) -> None:
    """``claims``: print the ledger of the paper's claims."""
    parser = subparsers.add_parser(
        "claims",
        help="print what the records say about the paper's claims",
        description="Print the paper's claims, their tests and verdicts, as Markdown.",
    )
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    parser.set_defaults(run=run_claims)


def run_claims(options: argparse.Namespace) -> None:
    """Print the ledger."""
    from qaconv_lib.claims import ledger
    from qaconv_lib.profiles import get_profile

    print(ledger(get_profile(options.profile).name))


def add_bench(subparsers: Subparsers) -> None:
    """``bench``: measure speed and memory beside the plain formulations."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and memory beside the plain formulations",
        description="Measure speed and memory of every step beside its plain formulation, and "
        "write one record a case. Wants a quiet machine, and memory for the plain formulations "
        "(10 GB for matching).",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases (default: all)")
    parser.set_defaults(run=run_bench)


def run_bench(options: argparse.Namespace) -> None:
    """Measure, and print every row."""
    from qaconv_lib.bench import run_bench

    run_bench(options.names, report=lambda line: print(line, flush=True))


def _add_run_options(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    parser.add_argument("loss", help="qaconv, softmax, arc, center, class-memory or pairwise")
    parser.add_argument("source", help="dataset to train on, e.g. mini-market")
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_skip_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="open every image first; leave out those that cannot be read, and say which",
    )


#: Commands, in the order of the help text.
COMMANDS: list[Callable[[Subparsers], None]] = [
    add_synthesize,
    add_check_data,
    add_train,
    add_evaluate,
    add_tune,
    add_run,
    add_tables,
    add_claims,
    add_bench,
    add_export,
    *PHOTOGRAPH_COMMANDS,
    *PREPARATION_COMMANDS,
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


def _format_warning(message: Warning | str, category: type[Warning], place: str, *_) -> str:
    """A warning of this package as one sentence, others with the place they come from."""
    if Path(__file__).parent in Path(place).parents:
        return f"qaconv_lib: {message}\n"
    return f"{place}: {category.__name__}: {message}\n"


def _world_size() -> int:
    value = os.environ.get("WORLD_SIZE", "1")
    if not value.isdecimal():
        raise ValueError(f"WORLD_SIZE must be a whole number, as torchrun sets it, got {value!r}")
    return int(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = make_parser().parse_args(arguments)
    warnings.formatwarning = _format_warning
    try:
        several = hasattr(options, "device") and _world_size() > 1
        if several:  # started by torchrun; importing torch takes a second, so not before
            from qaconv_lib.distributed import connect, disconnect

            options.device = connect(options.device)
        status = options.run(options) or 0
        if several:
            disconnect()
        sys.stdout.flush()
    except BrokenPipeError:  # as of `... | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes yet
        return 141
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"qaconv_lib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("qaconv_lib: interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
