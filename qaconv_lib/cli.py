"""Command line: ``python -m qaconv_lib COMMAND``.

Bad input ends with one sentence on stderr and exit status 2. The library is imported by the command
that needs it, so that help comes at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qaconv_lib.experiments.runs import Run
    from qaconv_lib.models import ReidModel
    from qaconv_lib.photographs.matching import Knowledge

Options = argparse.Namespace
Argument = tuple[tuple[str, ...], dict[str, Any]]
_CHECKOUT = Path(__file__).resolve().parent.parent
#: By name: what runs a command, its description, and its arguments.
COMMANDS: dict[str, tuple[Callable[[Options], int | None], str, tuple[Argument, ...]]] = {}


def _arg(*flags: str, **how: Any) -> Argument:
    return flags, how


def _flag(flag: str, about: str) -> Argument:
    return (flag,), {"action": "store_true", "help": about}


def _command(name: str, text: str, *arguments: Argument) -> Callable:
    """Register a command; the text up to its first colon or full stop stands in the overview."""

    def register(function: Callable[[Options], int | None]) -> Callable[[Options], int | None]:
        COMMANDS[name] = function, text, arguments
        return function

    return register


_DEVICE = _arg("--device", help="cpu or cuda (default: cuda if there is one)")
_QUIET = _flag("--quiet", "no progress bar")
_SKIP = _flag("--skip-unreadable", "open every image first; leave out and name those that fail")
_LOSS = _arg("loss", help="qaconv, softmax, arc, center, class-memory or pairwise")
_SOURCE = _arg("source", help="dataset to train on, e.g. mini-market")
_PROFILE = _arg("--profile", default="laptop", help="smoke, laptop (default) or paper")
_RUN = (_LOSS, _SOURCE, _PROFILE, _DEVICE, _QUIET)
_SEED = _arg("--seed", type=int, default=0, help="default: 0")
_PREDICT = _flag("--predict-memory", "say how much memory a training step takes, and do not train")
# Settings of the training that have a flag; without it the profile's value holds.
_SETTINGS: dict[str, tuple[type, str]] = {
    "backbone": (str, "network, e.g. resnet152"),
    "weights": (str, "file with the weights to start from"),
    "height": (int, "of an image, in pixels"),
    "width": (int, "of an image, in pixels"),
    "batch_size": (int, "images per step"),
    "accumulate": (int, "micro-batches that a batch is taken in, to save memory"),
    "precision": (str, "float32, bfloat16, or on a GPU float16"),
    "clip_norm": (float, "longest gradient, all parameters together"),
    "epochs": (int, "how many"),
    "decay_epochs": (int, "epochs after which the rates fall to a tenth"),
    "workers": (int, "processes that load images"),
}
_MEANS = ("accumulate", "precision", "workers")  # records made with others have their own names


def _settings(*names: str) -> tuple[Argument, ...]:
    return tuple(
        _arg("--" + name.replace("_", "-"), type=_SETTINGS[name][0], help=_SETTINGS[name][1])
        for name in names
    )


# Data ---------------------------------------------------------------------------------------------


@_command(
    "synthesize",
    "Draw the miniatures and write their archives: one zip file each, all if none is named.",
    _arg("names", nargs="*", metavar="NAME", help="e.g. mini-market"),
    _arg("--out", type=Path, default=_CHECKOUT / "data", help="folder (default: the checkout's)"),
    _arg("--jobs", type=int, help="processes (default: one per CPU)"),
    _QUIET,
)
def synthesize(options: Options) -> None:
    from qaconv_lib._files import make_folder
    from qaconv_lib.miniatures.drawing import MINIATURES, write_archive

    for name in options.names:
        if name not in MINIATURES:
            raise ValueError(f"unknown miniature {name!r}; known are {', '.join(MINIATURES)}")
    try:
        make_folder(options.out)
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        raise OSError(
            f"cannot write archives to {options.out} ({error.strerror}); name another folder with "
            "--out"
        ) from error
    for name in options.names or MINIATURES:
        archive = write_archive(name, options.out, jobs=options.jobs, progress=not options.quiet)
        print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


@_command(
    "check-data",
    "Check a public dataset against its published counts: images, identities and cameras of each "
    "split. Your own images, listed in a CSV file, are counted and checked. Exit status 0 means "
    "that nothing is wrong, 1 that something is.",
    _arg("name", help="e.g. market1501, dukemtmc, cuhk03-np-detected, msmt17, or people.csv"),
    _arg("--root", help="its folder (default: the data search path)"),
    _flag("--images", "open every image too"),
    _flag("--duplicates", "look for files of the same content"),
    _SKIP,
)
def check_data(options: Options) -> int:
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


# One model ----------------------------------------------------------------------------------------


@_command(
    "train",
    "Train a model on a dataset.",
    *_RUN,
    _SEED,
    _arg("--run-folder", type=Path, help="keep the state here, and resume from it"),
    _flag("--tensorboard", "write a log for TensorBoard there, too"),
    _PREDICT,
    *_settings(*_SETTINGS),
    _SKIP,
)
def train(options: Options) -> None:
    from qaconv_lib._processes import process_rank
    from qaconv_lib.experiments.runs import checkpoint_path, train_run

    run = _run(options)
    if options.predict_memory:
        from qaconv_lib.experiments.step_memory import memory_table

        if process_rank() == 0:
            print(memory_table(run, options.device))
        return
    # A run with other settings must not take the place of the profile's model.
    shipped = checkpoint_path(run.loss, run.source, run.profile, run.seed)
    path = train_run(
        run,
        checkpoint=None if run.settings else shipped,
        device=options.device,
        run_folder=options.run_folder,
        progress=not options.quiet,
        skip_unreadable=options.skip_unreadable,
        tensorboard=options.tensorboard,
    )
    if process_rank() == 0:
        print(path)


@_command(
    "evaluate",
    "Test a trained model on datasets: alone, with re-ranking and with TLift. A model trained with "
    "other settings than its profile's is found by the same flags.",
    *_RUN,
    _SEED,
    _arg("targets", nargs="+", metavar="TARGET", help="datasets to test on"),
    *_settings(*_SETTINGS),
    _SKIP,
)
def evaluate(options: Options) -> None:
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


@_command(
    "tune",
    "Try settings on held-out training identities: the candidates of the profile. Those that have "
    "a record are not run again.",
    *_RUN,
)
def tune(options: Options) -> None:
    from qaconv_lib.experiments.search import search

    how = {"profile": options.profile, "device": options.device, "progress": not options.quiet}
    for record in search(options.loss, options.source, **how):
        scores = record["scores"]
        print(f"{record['settings']}: {scores['rank1']:.1%} rank-1, {scores['mean_ap']:.1%} mAP")


def _run(options: Options) -> Run:
    from qaconv_lib.experiments.runs import Run

    given = {name: getattr(options, name) for name in _SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    return Run(options.loss, options.source, options.profile, options.seed, settings)


@_command(
    "export",
    "Write a model's feature extractor as an ONNX file: images to maps, or for a pooled model to "
    "vectors. It is compared with PyTorch first.",
    _arg("model", type=Path, metavar="MODEL", help="a .safetensors file of `train`"),
    _arg("out", type=Path, metavar="OUT", help="the .onnx file to write"),
)
def export(options: Options) -> None:
    from qaconv_lib.beyond.export import export_onnx
    from qaconv_lib.models import load_model

    difference = export_onnx(load_model(options.model), options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB; onnxruntime differs from PyTorch by at most")
    print(f"{difference:.1g} of the largest value")


# Experiments --------------------------------------------------------------------------------------


def _profile(options: Options) -> str:
    from qaconv_lib.experiments.profiles import get_profile, profile_with

    given = {name: getattr(options, name) for name in _MEANS}
    return get_profile(profile_with(options.profile, **given)).name


@_command(
    "run",
    "Run an experiment of the paper by name: train, test and record what is missing. What has a "
    "record is not run again; an interrupted run goes on after its last epoch.",
    _arg("name", nargs="?", metavar="NAME", help="an experiment (without it: list them)"),
    _PROFILE,
    *_settings(*_MEANS),
    _arg("--seeds", type=int, help="how many (default: see the list)"),
    _DEVICE,
    _arg("--jobs", type=int, default=1, help="processes side by side (default: 1)"),
    _SKIP,
    _PREDICT,
)
def run_experiments(options: Options) -> None:
    from qaconv_lib._checks import ShortOfMemoryError
    from qaconv_lib.experiments import suite

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    profile = _profile(options)
    if options.name is None:
        for name, experiment in suite.EXPERIMENTS.items():
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
        from qaconv_lib.experiments.profiles import get_profile
        from qaconv_lib.experiments.step_memory import memory_table
        from qaconv_lib.experiments.variants import check_variants

        check_variants(options.name, get_profile(profile))
        trials = suite.list_trials(options.name, profile, seeds=1)
        for run in {trial.run.name: trial.run for trial in trials}.values():
            print(memory_table(run, options.device))
    else:
        how = {key: getattr(options, key) for key in ("seeds", "device", "jobs", "skip_unreadable")}
        try:
            records = suite.run_experiment(options.name, profile=profile, report=report, **how)
        except ShortOfMemoryError as error:
            raise ShortOfMemoryError(
                f"{error}; of these settings `run` takes --accumulate, --precision and --workers, "
                "and --jobs says how many runs share the memory"
            ) from error
        print(f"{options.name}: {len(records)} records; `python -m qaconv_lib tables` prints them")


@_command(
    "tables",
    "Print the tables from the records: as Markdown.",
    _arg("names", nargs="*", metavar="NAME", help="headline, within, or an experiment (all)"),
    _PROFILE,
    *_settings(*_MEANS),
)
def tables(options: Options) -> None:
    from qaconv_lib.experiments.tables import all_tables

    print(all_tables(_profile(options), options.names))


@_command(
    "claims",
    "Print what the records say about the paper's claims: their tests and verdicts, as Markdown.",
    _PROFILE,
    *_settings(*_MEANS),
)
def claims(options: Options) -> None:
    from qaconv_lib.experiments.claims import ledger

    print(ledger(_profile(options)))


@_command(
    "bench",
    "Measure speed and memory of every step beside its plain form: one record per case. It needs a "
    "quiet machine, and 10 GB of memory for the plain form of matching.",
    _arg("names", nargs="*", metavar="NAME", help="cases (default: all)"),
)
def bench(options: Options) -> None:
    from qaconv_lib.experiments.bench import run_bench

    run_bench(options.names, report=lambda line: print(line, flush=True))


# Images of your own -------------------------------------------------------------------------------

_DRAWN = (
    " The model that comes with the book was trained on drawn people and is not fit for "
    "photographs of real people; name one of your own with --model."
)
_MODEL = (
    _arg("--model", type=Path, help="model file (default: the book's)"),
    _arg("--domain", help="dataset whose calibration is used (see `calibrate`)"),
    _arg("--prior", type=float, help="probability of one person before images are compared "
         "(default: 0.5 for two images, 1 / (n + 1) for each of a gallery of n)"),
    _DEVICE,
)  # fmt: skip


def _open(options: Options) -> tuple[ReidModel, Knowledge]:
    """The model and what is on record; a wrong prior is refused before the work."""
    from qaconv_lib.experiments.calibration_records import find_calibrations
    from qaconv_lib.photographs.matching import known_about, open_model

    if options.prior is not None and not 0 < options.prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {options.prior}")
    model = open_model(options.model, options.device)
    return model, known_about(find_calibrations(model), options.domain)


@_command(
    "match",
    "Compare two images of people: similarity, probability and a figure of what matched." + _DRAWN,
    _arg("query", type=Path, metavar="A", help="image file that shows one person"),
    _arg("gallery", type=Path, metavar="B", help="image file that shows one person"),
    _arg("--output", type=Path, default=Path("match.png"), help=".png, .svg or .pdf (match.png)"),
    _arg("--threshold", type=float, default=0.6, help="least cosine of a line (default: 0.6)"),
    _flag("--all", "also lines that are the best of one side only"),
    *_MODEL,
    _QUIET,
)
def match(options: Options) -> None:
    from qaconv_lib.photographs.matching import describe_match, match_photographs, remarks
    from qaconv_lib.photographs.results import check_output, save_figure

    images = [options.query, options.gallery]
    if not -1 <= options.threshold < 1:
        raise ValueError(f"threshold must lie in [-1, 1), got {options.threshold}")
    check_output(options.output, images)
    model, known = _open(options)
    found = match_photographs(model, *images)
    title = f"similarity {found.similarity:.2f}"
    figure = found.show(threshold=options.threshold, mutual=not options.all, title=title)
    for name, text in describe_match(found, known, options.prior or 0.5):
        print(f"{name:<13}{text}")
    save_figure(figure, options.output)
    print(f"picture      {printable(options.output)}")
    _note(remarks(known, images))


@_command(
    "search",
    "Rank a folder of images for a query: writes ranks.csv and a figure of each rank list."
    + _DRAWN,
    _arg("query", type=Path, metavar="QUERY", help="image file, or a folder of them"),
    _arg("--gallery", type=Path, required=True, help="folder of images"),
    _arg("--output", type=Path, default=Path("found"), help="folder of the results (found)"),
    _arg("--length", type=int, default=10, help="how long the lists are (default: 10)"),
    _flag("--rerank", "re-rank by k-reciprocal encoding"),
    _arg("--depth", type=int, help="how many images re-ranking looks at (default: 500)"),
    _arg("--times", type=Path, help="CSV file with the columns file, camera, seconds of all "
         "images: applies TLift. QUERY should then be the folder of all people seen by the camera"),
    _arg("--store", type=Path, help="folder that keeps the gallery's feature maps"),
    _flag("--skip-unreadable", "leave out files that cannot be used"),
    *_MODEL,
    _QUIET,
)  # fmt: skip
def search(options: Options) -> None:
    from qaconv_lib.photographs import files, gallery
    from qaconv_lib.photographs.matching import describe_prior, remarks
    from qaconv_lib.photographs.results import check_folder, write_lists

    query, folder = options.query, options.gallery
    queries = files.list_photographs(query) if query.is_dir() else [query]
    images = files.list_photographs(folder)
    check_folder(options.output)
    if options.depth is not None and not options.rerank:
        raise ValueError("--depth says how many images --rerank looks at; --rerank is missing")
    if options.skip_unreadable:
        for paths in (queries, images):
            bad = files.find_bad_photographs(paths, whole=True)
            for reason in bad.values():
                print(f"left out: {printable(reason)}", file=sys.stderr)
            if len(bad) == len(paths):
                raise ValueError(f"none of the {len(paths):,} files can be used")
            paths[:] = [path for path in paths if str(path) not in bad]
    times = None if options.times is None else files.read_times(options.times)
    model, known = _open(options)
    found = gallery.search_gallery(
        model,
        queries,
        images,
        calibration=known.calibration,
        prior=options.prior,
        rerank=options.rerank,
        depth=gallery.DEPTH if options.depth is None else options.depth,
        times=times,
        store=options.store,
        length=options.length,
        progress=not options.quiet,
    )
    if found.empty:
        raise ValueError(f"{folder} holds nothing but the query")
    write_lists(found, options.output)
    for row in found[found["rank"] == 1].itertuples():
        print(f"{printable(row.query)}: {printable(row.image)}, similarity {row.similarity:.2f}")
    print(f"lists        {printable(options.output / 'ranks.csv')}")
    notes = []
    if others := files.other_files(folder):
        notes.append(f"files of other kinds: {len(others):,} ({', '.join(sorted(set(others)))}).")
    if known.calibration is not None:
        prior = gallery.gallery_prior(len(images)) if options.prior is None else options.prior
        notes.append(describe_prior(known, prior))
    _note(notes + remarks(known, [*queries, *images]))


@_command(
    "calibrate",
    "Fit thresholds and probabilities of a model on datasets: writes what `match` looks up.",
    _arg("model", nargs="?", type=Path, metavar="MODEL", help="default: the book's QAConv models"),
    _arg("datasets", nargs="*", metavar="DATASET", help="datasets (default: the miniatures)"),
    _DEVICE,
    _QUIET,
)
def calibrate(options: Options) -> None:
    from qaconv_lib.experiments import calibration_records
    from qaconv_lib.experiments.profiles import get_profile

    if options.model is not None and not options.model.exists():
        raise FileNotFoundError(
            f"no checkpoint at {options.model}; the model's file comes first, then the datasets"
        )
    datasets = options.datasets or list(get_profile("laptop").datasets.values())
    book = [run.checkpoint() for run in calibration_records.BOOK_RUNS]
    how = {"device": options.device, "progress": not options.quiet}
    for path in [options.model] if options.model else book:
        if not options.quiet:
            what = f"calibrating {path.name} on the test images of {', '.join(datasets)}"
            print(printable(f"{what}; without a GPU this takes minutes"), file=sys.stderr)
        record = calibration_records.calibration_record(path, datasets, **how)
        table = calibration_records.transfer_table(record)
        print(printable(path.name))
        print(table.to_string(index=False, float_format="%.4f"))


@_command(
    "demo",
    "Serve a page in the browser that compares images: two, or one with a gallery." + _DRAWN,
    _arg("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine alone)"),
    _arg("--port", type=int, default=7860, help="port; 0 for any free one (default: 7860)"),
    _arg("--gallery", type=Path, help="folder that is searched if no gallery is uploaded"),
    *_MODEL,
)
def demo(options: Options) -> None:
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


# ----------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """Parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m qaconv_lib", description="Tools of the QAConv book."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (function, text, arguments) in COMMANDS.items():
        overview = text.split(":")[0].split(".")[0]
        own = subparsers.add_parser(name, help=overview[0].lower() + overview[1:], description=text)
        for flags, how in arguments:
            own.add_argument(*flags, **how)
        own.set_defaults(run=function)
    return parser


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object
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
            parser.error(f"{word}: -- is not a value")
    options = parser.parse_args(arguments)
    warnings.formatwarning = _format_warning
    try:
        several = hasattr(options, "device") and _world_size() > 1
        if several:  # started by torchrun
            from qaconv_lib.scale.distributed import connect, disconnect

            options.device = connect(options.device)
        elif getattr(options, "device", None) is not None:
            from qaconv_lib.models import choose_device

            options.device = str(choose_device(options.device))
        status = options.run(options) or 0
        if several:
            disconnect()
        sys.stdout.flush()
    except BrokenPipeError:  # as of `... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ArithmeticError, MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and (error.name or "").startswith("qaconv_lib"):
            raise
        # In one line, whatever names of files it quotes.
        print(f"qaconv_lib: {printable(str(error) or 'out of memory')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("qaconv_lib: interrupted", file=sys.stderr)
        return 130
    return status
