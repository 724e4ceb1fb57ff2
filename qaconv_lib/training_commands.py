"""The commands ``train``, ``evaluate`` and ``tune``: one model (chapters 7 and 8)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qaconv_lib.data_commands import add_skip_option

if TYPE_CHECKING:
    from qaconv_lib.experiments.runs import Run

Subparsers = argparse._SubParsersAction


def add_train(subparsers: Subparsers) -> None:
    """``train``: train a model and write its checkpoint and record."""
    parser = subparsers.add_parser(
        "train", help="train a model on a dataset", description="Train a model on a dataset."
    )
    _add_run_options(parser)
    about = "keep the state after each epoch here, and go on from it if there is one"
    parser.add_argument("--run-folder", type=Path, default=None, help=about)
    about = "write a log for TensorBoard there, too"
    parser.add_argument("--tensorboard", action="store_true", help=about)
    about = "say how much memory a step will take, and do not train"
    parser.add_argument("--predict-memory", action="store_true", help=about)
    _add_settings(parser)
    parser.set_defaults(run=run_train)


def run_train(options: argparse.Namespace) -> None:
    """Train, and say where the checkpoint is."""
    from qaconv_lib._processes import process_rank
    from qaconv_lib.experiments.runs import checkpoint_path, train_run

    run = _run(options)
    if options.predict_memory:
        from qaconv_lib.experiments.step_memory import memory_table

        if process_rank() == 0:
            print(memory_table(run, options.device))
        return
    # What has other settings than its profile must not take the place of what has the profile's.
    shipped = checkpoint_path(run.loss, run.source, run.profile, run.seed)
    try:
        path = train_run(
            run,
            checkpoint=None if run.settings else shipped,
            device=options.device,
            run_folder=options.run_folder,
            progress=not options.quiet,
            skip_unreadable=options.skip_unreadable,
            tensorboard=options.tensorboard,
        )
    except ImportError as error:
        raise ValueError(str(error)) from error
    if process_rank() == 0:
        print(path)


def add_evaluate(subparsers: Subparsers) -> None:
    """``evaluate``: test a trained model on other datasets and write the records."""
    parser = subparsers.add_parser(
        "evaluate",
        help="test a trained model on datasets",
        description="Test a trained model, alone and with re-ranking and TLift. One that was "
        "trained with other settings than its profile's is found by the same flags.",
    )
    _add_run_options(parser)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="datasets to test on")
    _add_settings(parser)
    parser.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate on every target and print rank-1 and mAP of each stage."""
    from qaconv_lib._processes import process_rank
    from qaconv_lib.datasets import load_test
    from qaconv_lib.experiments.runs import pair_similarities
    from qaconv_lib.experiments.suite import Trial, evaluate_trial

    run, device, skip = _run(options), options.device, options.skip_unreadable
    for target in options.targets:
        if process_rank():  # of several processes, the others help with the similarities only
            pair_similarities(run, load_test(target, skip), device=device)
            continue
        record = evaluate_trial(Trial(run, target, post=True), device=device, skip_unreadable=skip)
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
    from qaconv_lib.experiments.search import search

    how = {"profile": options.profile, "device": options.device, "progress": not options.quiet}
    for record in search(options.loss, options.source, **how):
        scores = record["scores"]
        print(f"{record['settings']}: {scores['rank1']:.1%} rank-1, {scores['mean_ap']:.1%} mAP")


def _run(options: argparse.Namespace) -> Run:
    from qaconv_lib.experiments.runs import SETTING_FLAGS, Run

    given = {name: getattr(options, name) for name in SETTING_FLAGS}
    settings = {name: value for name, value in given.items() if value is not None}
    return Run(options.loss, options.source, options.profile, options.seed, settings)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Flags for settings of the training; without them the profile's hold."""
    from qaconv_lib.experiments.runs import SETTING_FLAGS, flag_of

    group = parser.add_argument_group("settings of the training (default: the profile's)")
    for name, (kind, about) in SETTING_FLAGS.items():
        group.add_argument(flag_of(name), type=kind, default=None, help=about)
    add_skip_option(parser)


def _add_run_options(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    parser.add_argument("loss", help="qaconv, softmax, arc, center, class-memory or pairwise")
    parser.add_argument("source", help="dataset to train on, e.g. mini-market")
    parser.add_argument("--profile", default="laptop", help="smoke, laptop (default) or paper")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


#: The commands of this module, in the order of the help text.
TRAINING_COMMANDS = [add_train, add_evaluate, add_tune]
