"""The commands ``run``, ``tables``, ``claims`` and ``bench``: experiments and what they found."""

from __future__ import annotations

import argparse
import sys

from qaconv_lib.data_commands import add_skip_option

Subparsers = argparse._SubParsersAction
_MEANS = {
    "accumulate": (int, "micro-batches that a batch is taken in; BN sees each by itself"),
    "precision": (str, "float32, bfloat16, or on a GPU float16"),
    "workers": (int, "processes that load images"),
}


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    group = parser.add_argument_group(
        "how runs are computed (default: the profile's)",
        "Records made with other means have names of their own; give `run`, `tables` and `claims` "
        "the same flags, or the profile as e.g. paper+precision=bfloat16.",
    )
    for name, (kind, about) in _MEANS.items():
        group.add_argument(f"--{name}", type=kind, default=None, help=about)


def _profile(options: argparse.Namespace) -> str:
    from qaconv_lib.experiments.profiles import get_profile, profile_with

    given = {name: getattr(options, name) for name in _MEANS}
    return get_profile(profile_with(options.profile, **given)).name


def add_run(subparsers: Subparsers) -> None:
    """``run``: run a named experiment."""
    parser = subparsers.add_parser(
        "run",
        help="run an experiment of the paper by name",
        description="Run what an experiment still lacks: train, test, write records. What has a "
        "record is not run again; a run that was interrupted goes on after its last epoch.",
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="an experiment (without it: list them)")
    _add_profile(parser)
    add("--seeds", type=int, default=None, help="how many (default: see the list)")
    add("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    add("--jobs", type=int, default=1, help="processes side by side (default: 1)")
    add_skip_option(parser)
    about = "say how much memory a step of each run will take, and run nothing"
    add("--predict-memory", action="store_true", help=about)
    parser.set_defaults(run=run_run)


def run_run(options: argparse.Namespace) -> None:
    """Run an experiment and report on stderr."""
    from qaconv_lib._checks import ShortOfMemoryError
    from qaconv_lib.experiments.profiles import get_profile
    from qaconv_lib.experiments.suite import EXPERIMENTS, list_trials, run_experiment

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    profile = _profile(options)
    if options.name is None:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:16}{experiment.title} ({experiment.seeds} seeds)")
        print(f"{'correspondence':16}Matches held against part maps (1 seed)")
        print(f"{'cost':16}Time and memory of each step")
    elif options.name == "correspondence":
        from qaconv_lib.experiments.correspondence_records import run_correspondence

        found = run_correspondence(profile, options.device, report=report)
        print(f"{options.name}: {len(found)} records; chapter 11 shows them")
    elif options.name == "cost":
        from qaconv_lib.experiments.cost import cost_record

        for row in cost_record(profile, options.device)["steps"]:
            print(f"{row['step']} ({row['loss']}): {row['seconds']} {row['unit']}")
    elif options.predict_memory:
        from qaconv_lib.experiments.step_memory import memory_table
        from qaconv_lib.experiments.variants import check_variants

        check_variants(options.name, get_profile(profile))
        trials = list_trials(options.name, profile, seeds=1)
        for run in {trial.run.name: trial.run for trial in trials}.values():
            print(memory_table(run, options.device))
    else:
        how = {key: getattr(options, key) for key in ("seeds", "device", "jobs", "skip_unreadable")}
        try:
            records = run_experiment(options.name, profile=profile, report=report, **how)
        except ShortOfMemoryError as error:
            raise ShortOfMemoryError(
                f"{error}; of these settings `run` takes --accumulate, --precision and --workers, "
                "and --jobs says how many runs share the memory"
            ) from error
        print(f"{options.name}: {len(records)} records; `python -m qaconv_lib tables` prints them")


def add_tables(subparsers: Subparsers) -> None:
    """``tables``: print the tables that there are records for."""
    parser = subparsers.add_parser(
        "tables",
        help="print the tables from the records",
        description="Print tables from the records, as Markdown.",
    )
    about = "headline, within, or an experiment (default: all that have records)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=about)
    _add_profile(parser)
    parser.set_defaults(run=run_tables)


def run_tables(options: argparse.Namespace) -> None:
    """Print the tables."""
    from qaconv_lib.experiments.tables import all_tables

    print(all_tables(_profile(options), options.names))


def add_claims(subparsers: Subparsers) -> None:
    """``claims``: print the ledger of the paper's claims."""
    parser = subparsers.add_parser(
        "claims",
        help="print what the records say about the paper's claims",
        description="Print the paper's claims, their tests and verdicts, as Markdown.",
    )
    _add_profile(parser)
    parser.set_defaults(run=run_claims)


def run_claims(options: argparse.Namespace) -> None:
    """Print the ledger."""
    from qaconv_lib.experiments.claims import ledger

    print(ledger(_profile(options)))


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
    from qaconv_lib.experiments.bench import run_bench

    run_bench(options.names, report=lambda line: print(line, flush=True))


#: The commands of this module, in the order of the help text.
EXPERIMENT_COMMANDS = [add_run, add_tables, add_claims, add_bench]
