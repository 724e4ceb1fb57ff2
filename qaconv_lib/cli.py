"""Command line: ``python -m qaconv_lib COMMAND``.

Bad input ends with one sentence on stderr and exit status 2. The library is imported by the command
that needs it, so that help comes at once.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaconv_lib._files import data_folders

if TYPE_CHECKING:
    from qaconv_lib.experiments.runs import Run
    from qaconv_lib.models import ReidModel
    from qaconv_lib.photographs.matching import Knowledge

Argument = tuple[tuple[str, ...], dict[str, Any]]
Command = Callable[[Namespace], int | None]
_PLAIN = {"→": "->", "−": "-", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "–": "-"}
#: By name: what runs a command, whose docstring describes it, and its arguments.
COMMANDS: dict[str, tuple[Command, tuple[Argument, ...]]] = {}


def _arg(*flags: str, **how: Any) -> Argument:
    return flags, how


def _given(options: Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _command(*arguments: Argument) -> Callable[[Command], Command]:
    def register(function: Command) -> Command:
        COMMANDS[function.__name__.replace("_", "-")] = function, arguments
        return function

    return register


_DEVICE = _arg("--device", help="cpu or cuda (default: cuda if there is one)")
_QUIET = _arg("--quiet", action="store_false", dest="progress", help="no progress bar")
_SKIP = _arg("--skip-unreadable", action="store_true", help="leave out images that cannot be read")
_PROFILE = _arg("--profile", default="laptop", help="smoke, laptop (default), general or paper")
_RUN = (
    _arg("loss", help="qaconv, softmax, arc, center, class-memory or pairwise"),
    _arg("source", help="dataset to train on, e.g. mini-market"),
    *(_PROFILE, _DEVICE, _QUIET),
)
# Settings of the training that have a flag; without it the profile's value holds.
_SETTINGS: dict[str, Argument] = {
    name: _arg("--" + name.replace("_", "-"), type=kind, help=about)
    for name, kind, about in (
        ("backbone", str, "network, e.g. resnet152"),
        ("weights", str, "file to start from: weights, or a model of `train`"),
        ("height", int, "of an image, in pixels"),
        ("width", int, "of an image, in pixels"),
        ("batch_size", int, "images per step"),
        ("accumulate", int, "micro-batches that a batch is taken in, to save memory"),
        ("precision", str, "float32, bfloat16, or on a GPU float16"),
        ("epochs", int, "how many"),
        ("decay_epochs", int, "epochs after which the rates fall to a tenth"),
        ("learning_rate", float, "of new layers"),
        ("backbone_learning_rate", float, "of the backbone"),
        ("workers", int, "processes that load images"),
    )
}
_ONE_RUN = (*_RUN, _arg("--seed", type=int, default=0, help="default: 0"), *_SETTINGS.values())
_MEANS = ("accumulate", "precision", "workers")  # records made with other values have own names
_RECORDS = (_PROFILE, *(_SETTINGS[name] for name in _MEANS))


# Data ---------------------------------------------------------------------------------------------
@_command(
    _arg("names", nargs="*", metavar="NAME", help="e.g. mini-market, or world"),
    _arg("--identities", type=int, help="training people of world (default: 1500)"),
    _arg("--cameras", type=int, help="its cameras; 10 make mini-world-10 (default: 40)"),
    _arg("--seed", type=int, help="of world (default: 0)"),
    _arg("--out", type=Path, default=Path(__file__).parents[1] / "data", help="folder (data)"),
    _arg("--jobs", type=int, help="processes (default: one per CPU)"),
    _QUIET,
)
def synthesize(options: Namespace) -> None:
    """Draw the miniatures and write their archives: one zip file each, all if none is named. The
    name world stands for mini-world, a larger set that is not shipped: it is drawn into a folder,
    and an interrupted drawing goes on where it stopped."""
    from qaconv_lib.miniatures.drawing import MINIATURES, plan, write_archive
    from qaconv_lib.miniatures.world import World, write_world

    names = [name for name in options.names if name not in ("world", "mini-world")]
    how = _given(options, "out", "jobs", "progress")
    given = _given(options, "identities", "cameras", "seed")
    own = {name: value for name, value in given.items() if value is not None}
    if own and len(names) == len(options.names):
        raise ValueError(f"--{next(iter(own))} is an option of world only; name world as well")
    for name in names:
        plan(name)  # refuses an unknown one before the first is drawn
    for name in names if options.names else MINIATURES:
        archive = write_archive(name, **how)
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")
    if len(names) < len(options.names):
        print(write_world(World(**own), **how))


@_command(
    _arg("name", help="e.g. market1501, dukemtmc, cuhk03-np-detected, msmt17, or people.csv"),
    _arg("--root", help="its folder (default: the data search path)"),
    _arg("--images", action="store_true", dest="read_images", help="open every image too"),
    _SKIP,
)
def check_data(options: Namespace) -> int:
    """Check a public dataset against its published counts: images, identities and cameras of each
    split. Your own images, listed in a CSV file, are counted and checked. Exit status 0 means that
    nothing is wrong, 1 that something is."""
    from qaconv_lib.experiments.checking import check_dataset

    how = _given(options, "root", "read_images", "skip_unreadable")
    table, remarks = check_dataset(options.name, progress=True, **how)
    print(table.to_string(), *table.attrs["notes"], *remarks, sep="\n")
    if not remarks:
        print(f"{options.name}: {table.attrs['verdict']}")
    return 1 if remarks else 0


# One model ----------------------------------------------------------------------------------------
@_command(
    *_ONE_RUN,
    _arg("--run-folder", type=Path, help="keep the state here, and resume from it"),
    _SKIP,
)
def train(options: Namespace) -> None:
    """Train a model on a dataset."""
    from qaconv_lib._processes import process_rank
    from qaconv_lib.experiments.runs import NAMED, train_run

    run, keys = _run(options), ("device", "run_folder", "progress", "skip_unreadable")
    how = _given(options, *keys)
    if not run.settings or run in NAMED.values():  # or it would replace the profile's model
        how["checkpoint"] = run.shipped()
    path = train_run(run, **how)
    if process_rank() == 0:
        print(path)


@_command(*_ONE_RUN, _arg("targets", nargs="+", metavar="TARGET", help="test datasets"), _SKIP)
def evaluate(options: Namespace) -> None:
    """Test a trained model on datasets: alone, with re-ranking and with TLift. A model trained with
    other settings than its profile's is found by the same flags."""
    from qaconv_lib._processes import process_rank
    from qaconv_lib.experiments.runs import load_test, pair_similarities
    from qaconv_lib.experiments.suite import Trial, evaluate_trial

    run, device, skip = _run(options), options.device, options.skip_unreadable
    for target in options.targets:
        if process_rank():  # of several processes, the others help with the similarities only
            pair_similarities(run, load_test(target, skip), device=device)
            continue
        record = evaluate_trial(Trial(run, target, post=True), device=device, skip_unreadable=skip)
        for stage, scores in record["stages"].items():
            print(f"{target} {stage}: {scores['rank1']:.1%} rank-1, {scores['mean_ap']:.1%} mAP")


@_command(*_RUN)
def tune(options: Namespace) -> None:
    """Try settings on held-out training identities: the candidates of the profile. Those that have
    a record are not run again."""
    from qaconv_lib.experiments.search import search

    for record in search(**_given(options, "loss", "source", "profile", "device", "progress")):
        scores = record["scores"]
        print(f"{record['settings']}: {scores['rank1']:.1%} rank-1, {scores['mean_ap']:.1%} mAP")


def _run(options: Namespace) -> Run:
    from qaconv_lib.experiments.runs import Run

    given = _given(options, *_SETTINGS)
    settings = {name: value for name, value in given.items() if value is not None}
    return Run(options.loss, options.source, options.profile, options.seed, settings)


@_command(
    _arg("model", type=Path, metavar="MODEL", help="a .safetensors file of `train`"),
    _arg("out", type=Path, metavar="OUT", help="the .onnx file to write"),
)
def export(options: Namespace) -> None:
    """Write a model's feature extractor as an ONNX file: images to maps, or for a pooled model to
    vectors. It is compared with PyTorch first."""
    from qaconv_lib.beyond.export import export_onnx
    from qaconv_lib.models import load_model

    off = export_onnx(load_model(options.model), options.out)
    print(f"{options.out}: onnxruntime is within {off:.1g} of PyTorch's largest value")


# Experiments --------------------------------------------------------------------------------------
def _profile(options: Namespace) -> str:
    from qaconv_lib.experiments.profiles import profile_with

    return profile_with(options.profile, **_given(options, *_MEANS))


@_command(
    _arg("name", nargs="?", metavar="NAME", help="an experiment (without it: list them)"),
    *_RECORDS,
    _arg("--seeds", type=int, help="how many (default: see the list)"),
    _DEVICE,
    _arg("--jobs", type=int, default=1, help="processes side by side (default: 1)"),
    _SKIP,
)
def run(options: Namespace) -> None:
    """Run an experiment of the paper by name: train, test and record what is missing. What has a
    record is not run again; an interrupted run goes on after its last epoch."""
    from qaconv_lib.experiments import correspondence_records, cost, suite

    name, profile, device = options.name, _profile(options), options.device
    if name is None:
        for key, experiment in suite.EXPERIMENTS.items():
            profile = "general profile, " if key in suite.WITH_WORLD else ""
            plural = "s" * (experiment.seeds > 1)
            print(f"{key:18}{experiment.title} ({profile}{experiment.seeds} seed{plural})")
        print(f"{'correspondence':18}Matches held against part maps (1 seed)")
        print(f"{'cost':18}Time and memory of each step")
    elif name == "correspondence":
        found = correspondence_records.run_correspondence(profile, device, report=_say)
        print(f"{name}: {len(found)} records; chapter 11 shows them")
    elif name == "cost":
        for row in cost.cost_record(profile, device)["steps"]:
            print(f"{row['step']} ({row['loss']}): {row['seconds']} {row['unit']}")
    else:
        how = _given(options, "seeds", "device", "jobs", "skip_unreadable")
        found = suite.run_experiment(name, profile=profile, report=_say, **how)
        print(f"{name}: {len(found)} records; `python -m qaconv_lib tables` prints them")


@_command(
    _arg("names", nargs="*", metavar="NAME", help="headline, within, or an experiment (all)"),
    *_RECORDS,
)
def tables(options: Namespace) -> None:
    """Print the tables from the records: as Markdown."""
    from qaconv_lib.experiments.tables import all_tables

    print(all_tables(_profile(options), options.names))


@_command(*_RECORDS)
def claims(options: Namespace) -> None:
    """Print tests and verdicts of the paper's claims, from the records, as Markdown."""
    from qaconv_lib.experiments.claims import ledger

    print(ledger(_profile(options)))


@_command(_arg("names", nargs="*", metavar="NAME", help="cases (default: all)"))
def bench(options: Namespace) -> None:
    """Measure speed and memory of every step and of its plain form: one record per case. It needs a
    quiet machine, and 10 GB of memory for the plain form of matching."""
    from qaconv_lib.experiments.bench import run_bench

    run_bench(options.names, lambda line: print(line, flush=True))


# Images of your own -------------------------------------------------------------------------------
_OPEN = (
    _arg("--model", type=Path, help="model file (default: the book's, for drawn people only)"),
    _arg("--domain", help="dataset whose calibration is used (see `calibrate`)"),
    _arg("--prior", type=float, help="prior of a match (0.5; in a gallery of n: 1 / (n + 1))"),
    _DEVICE,
)


def _open(options: Namespace) -> tuple[ReidModel, Knowledge]:
    """The model and what is on record; a wrong prior is refused before the work."""
    from qaconv_lib.experiments.calibration_records import find_calibrations
    from qaconv_lib.photographs.matching import known_about, open_model

    if options.prior is not None and not 0 < options.prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {options.prior}")
    model = open_model(options.model, options.device)
    return model, known_about(find_calibrations(model), options.domain)


@_command(
    _arg("query", type=Path, metavar="A", help="image file that shows one person"),
    _arg("gallery", type=Path, metavar="B", help="image file that shows one person"),
    _arg("--output", type=Path, default=Path("match.png"), help=".png, .svg or .pdf (match.png)"),
    _arg("--threshold", type=float, default=0.6, help="least cosine of a line (default: 0.6)"),
    *_OPEN,
    _QUIET,
)
def match(options: Namespace) -> None:
    """Compare two images of people: similarity, probability and a figure of the matches."""
    from qaconv_lib.photographs.matching import describe_match, match_photographs, remarks
    from qaconv_lib.photographs.results import check_output, save_figure

    images = [options.query, options.gallery]
    check_output(options.output, images)
    model, known = _open(options)
    found = match_photographs(model, *images)
    figure = found.show(threshold=options.threshold, title=f"similarity {found.similarity:.2f}")
    for name, text in describe_match(found, known, options.prior or 0.5):
        print(f"{name:<13}{text}")
    save_figure(figure, options.output)
    print(f"figure       {printable(options.output)}")
    _note(remarks(known, images))


@_command(
    _arg("query", type=Path, metavar="QUERY", help="image file, or a folder of them"),
    _arg("--gallery", type=Path, required=True, help="folder of images"),
    _arg("--output", type=Path, default=Path("found"), help="folder of the results (found)"),
    _arg("--length", type=int, default=10, help="length of the lists (default: 10)"),
    _arg("--rerank", action="store_true", help="re-rank by k-reciprocal encoding"),
    _arg("--times", type=Path, help="apply TLift: CSV file with file, camera, seconds of images"),
    _arg("--store", type=Path, help="folder that keeps the gallery's feature maps"),
    *(_SKIP, *_OPEN, _QUIET),
)
def search(options: Namespace) -> None:
    """Rank a folder of images for a query: writes ranks.csv and a figure of each rank list. With
    --times, QUERY should be the folder of all people that the camera has seen."""
    from qaconv_lib.photographs import files
    from qaconv_lib.photographs.gallery import gallery_prior, search_gallery
    from qaconv_lib.photographs.matching import remarks
    from qaconv_lib.photographs.results import check_folder, write_lists

    query, images = options.query, files.list_photographs(options.gallery)
    queries = files.list_photographs(query) if query.is_dir() else [query]
    check_folder(options.output)
    if options.skip_unreadable:
        queries, images = (files.usable_photographs(paths, _say) for paths in (queries, images))
    times = None if options.times is None else files.read_times(options.times)
    model, known = _open(options)
    prior = options.prior or gallery_prior(len(images))
    how = _given(options, "rerank", "store", "length", "progress")
    how |= {"calibration": known.calibration, "prior": prior, "times": times}
    found = search_gallery(model, queries, images, **how)
    for row in found[found["rank"] == 1].itertuples():
        print(f"{printable(row.query)}: {printable(row.image)}, similarity {row.similarity:.2f}")
    write_lists(found, options.output)
    print(f"lists        {printable(options.output / 'ranks.csv')}")
    _note(files.other_files(options.gallery) + remarks(known, [*queries, *images], prior))


@_command(
    _arg("model", nargs="?", type=Path, metavar="MODEL", help="default: the book's QAConv models"),
    _arg("datasets", nargs="*", metavar="DATASET", help="datasets (default: the miniatures)"),
    _DEVICE,
    _QUIET,
)
def calibrate(options: Namespace) -> None:
    """Fit a model's thresholds and probabilities on datasets, for use by `match`."""
    from qaconv_lib.experiments import calibration_records as records
    from qaconv_lib.experiments.profiles import get_profile

    datasets = options.datasets or list(get_profile("laptop").datasets.values())
    book = [run.checkpoint() for run in records.BOOK_RUNS]
    for path in [options.model] if options.model else book:
        if options.progress:
            _say(f"calibrating {path.name} on {', '.join(datasets)}; it takes minutes on a CPU")
        how = _given(options, "device", "progress")
        table = records.transfer_table(records.calibration_record(path, datasets, **how))
        print(printable(path.name), table.to_string(index=False, float_format="%.4f"), sep="\n")


@_command(
    _arg("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine only)"),
    _arg("--port", type=int, default=7860, help="port; 0 for any free one (default: 7860)"),
    *_OPEN,
)
def demo(options: Namespace) -> None:
    """Serve a page in the browser that compares images: two, or one with a gallery."""
    from qaconv_lib.photographs.demo import Answers, serve

    serve(Answers(*_open(options), options.prior), options.host, options.port)


def _note(sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"Note: {printable(sentence)}")


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def printable(path: str | Path) -> str:
    """A file name in one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def make_parser() -> ArgumentParser:
    """Parser with all commands; a docstring up to its first colon or stop is the overview."""
    parser = ArgumentParser("python -m qaconv_lib", description="Tools of the QAConv book")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (function, arguments) in COMMANDS.items():
        text = " ".join((function.__doc__ or "").split())
        overview = text.split(":")[0].split(".")[0]
        own = subparsers.add_parser(name, help=overview[0].lower() + overview[1:], description=text)
        for flags, how in arguments:
            own.add_argument(*flags, **how)
        own.set_defaults(run=function)
    return parser


def _plainly(error: Any) -> tuple[str, int]:
    """What a code page lacks, such as that of a pipe on Windows, in ASCII."""
    character = error.object[error.start]
    return _PLAIN.get(character, ascii(character)[1:-1]), error.start + 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = make_parser().parse_args(arguments)
    codecs.register_error("plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plainly")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for folder in data_folders():
        if not folder.is_dir():
            _say(f"qaconv_lib: QACONV_DATA names {folder}, which is not a folder")
    try:
        if joins := hasattr(options, "device"):
            from qaconv_lib.scale.distributed import connect, disconnect

            options.device = connect(options.device)
        status = options.run(options) or 0
        if joins:
            disconnect()
        print(end="", flush=True)
    except BrokenPipeError:  # as of `... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ArithmeticError, MemoryError, ImportError) as error:
        _say(f"qaconv_lib: {str(error) or 'out of memory'}")
        return 2
    except KeyboardInterrupt:
        _say("qaconv_lib: interrupted")
        return 130
    return status
