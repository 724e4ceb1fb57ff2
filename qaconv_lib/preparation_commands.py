"""The commands ``crop`` and ``calibrate``, which come before ``match`` (chapter 14)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qaconv_lib.photograph_commands import printable

Subparsers = argparse._SubParsersAction


def add_crop(subparsers: Subparsers) -> None:
    """``crop``: cut people out of whole frames."""
    parser = subparsers.add_parser(
        "crop",
        help="cut people out of whole frames",
        description="Cut the people out of the frames of one camera, by a detector of torchvision "
        "(its weights are fetched once) or by boxes from a file. Writes one picture a person, and "
        "crops.csv, which `search --times` takes if --fps is given.",
    )
    parser.add_argument("frames", type=Path, metavar="FRAMES", help="folder of images, or one")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for the crops")
    parser.add_argument(
        "--boxes", type=Path, default=None, help="CSV with the columns file, x, y, width, height"
    )
    parser.add_argument("--detector", default=None, help="name of a detector of torchvision")
    parser.add_argument(
        "--weights", type=Path, default=None, help="file with the detector's weights"
    )
    parser.add_argument(
        "--least-score", type=float, default=0.8, help="how sure the detector must be (default 0.8)"
    )
    parser.add_argument("--camera", default="0", help="what to call the camera (default: 0)")
    parser.add_argument("--fps", type=float, default=None, help="frames a second, for the times")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_crop)


def run_crop(options: argparse.Namespace) -> None:
    """Cut, and say how many crops there are."""
    from qaconv_lib.crops import (
        DETECTORS,
        VIDEOS,
        Box,
        Detector,
        check_frames,
        crop_frames,
        make_detector,
        read_boxes,
    )
    from qaconv_lib.models import default_device
    from qaconv_lib.photographs.files import ENDINGS, list_photographs

    if options.boxes is not None and (options.detector or options.weights):
        raise ValueError("give boxes or a detector, not both")
    frames = [options.frames]
    if options.frames.is_dir():
        films = [path for path in sorted(options.frames.iterdir()) if path.suffix.lower() in VIDEOS]
        pictures = any(path.suffix.lower() in ENDINGS for path in options.frames.rglob("*"))
        frames = films if films and not pictures else list_photographs(options.frames)
    check_frames(frames)  # now, and not after weights are fetched
    boxes: Detector | dict[str, list[Box]]
    if options.boxes is not None:
        boxes = read_boxes(options.boxes)
    else:
        boxes = make_detector(
            options.detector or DETECTORS[0],
            weights=options.weights,
            least_score=options.least_score,
            device=options.device or default_device(),
        )
    table = crop_frames(
        frames,
        options.output,
        boxes,
        camera=options.camera,
        frames_per_second=options.fps,
        progress=not options.quiet,
    )
    print(f"{printable(options.output)}: {len(table):,} crops of {len(frames):,} frames")


def add_calibrate(subparsers: Subparsers) -> None:
    """``calibrate``: fit thresholds and probabilities, and try them on other datasets."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit thresholds and probabilities of a model on datasets",
        description="Fit thresholds and a calibration on the test set of each dataset, try them on "
        "all of the datasets, and write the record that `match` and `search` look up.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help="model file (default: the QAConv models that come with the book)",
    )
    parser.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="datasets (default: the miniatures)"
    )
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_calibrate)


def run_calibrate(options: argparse.Namespace) -> None:
    """Say on stderr what is done, calibrate, and print the drop from dataset to dataset."""
    from qaconv_lib.experiments.calibration_records import calibration_record, transfer_table
    from qaconv_lib.experiments.profiles import get_profile
    from qaconv_lib.experiments.runs import Run

    if options.model is not None and not options.model.exists():
        raise FileNotFoundError(
            f"no checkpoint at {options.model}; the model's file comes first, then the datasets"
        )
    datasets = options.datasets or list(get_profile("laptop").datasets.values())
    runs = [Run("qaconv", source) for source in ("mini-market", "mini-duke")]
    shipped = {run.checkpoint().resolve(): run for run in runs}
    models = [options.model] if options.model else list(shipped)
    if not options.quiet:
        print(_announcement(models, datasets), file=sys.stderr, flush=True)
    for path in models:
        record = calibration_record(
            path,
            datasets,
            shipped.get(path.resolve()),
            device=options.device,
            progress=not options.quiet,
        )
        print(f"{printable(path.name)}")
        print(transfer_table(record).to_string(index=False, float_format="%.4f"))


def _announcement(models: list[Path], datasets: list[str]) -> str:
    """What `calibrate` is about to do, and how long that is."""
    names = " and ".join(printable(path.name) for path in models)
    images = f"the test images of {', '.join(map(printable, datasets))}"
    return f"calibrating {names} on {images}; without a GPU this takes minutes"


#: The commands of this module, in the order of the help text.
PREPARATION_COMMANDS = [add_crop, add_calibrate]
