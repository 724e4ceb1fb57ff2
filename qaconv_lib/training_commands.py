"""The commands ``train``, ``evaluate`` and ``tune``: one model (chapters 7 and 8)."""

from __future__ import annotations

import argparse
from pathlib import Path

from qaconv_lib.data_commands import add_skip_option

Subparsers = argparse._SubParsersAction


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
    add_skip_option(parser)
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
    add_skip_option(parser)
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


def _add_run_options(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    parser.add_argument("loss", help="qaconv, softmax, arc, center or class-memory")
    parser.add_argument("source", help="dataset to train on, e.g. mini-market")
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


#: The commands of this module, in the order of the help text.
TRAINING_COMMANDS = [add_train, add_evaluate, add_tune]
