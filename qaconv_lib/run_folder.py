"""The folder of a training run: its log, and what explains it to who finds it (chapter 7)."""

from __future__ import annotations

import csv
import io
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from qaconv_lib.archives import write_whole
from qaconv_lib.checkpoints import write_json
from qaconv_lib.measure import peak_megabytes

STATE, LOG, BOARD = "last.safetensors", "log.csv", "tensorboard"
ABOUT, README = "run.json", "README.md"
#: Columns of `log.csv`; the last three are empty where an epoch was not timed.
LOG_COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
    "peak_megabytes",
)
#: Settings that `train` and `evaluate` have a flag for, with its type and help; see `flag_of`.
SETTING_FLAGS: dict[str, tuple[type, str]] = {
    "backbone": (str, "network, e.g. resnet152"),
    "weights": (str, "file with the weights to start from"),
    "height": (int, "of an image, in pixels"),
    "width": (int, "of an image, in pixels"),
    "batch_size": (int, "images a step"),
    "accumulate": (int, "micro-batches that a batch is taken in, to save memory"),
    "precision": (str, "float32, bfloat16, or on a GPU float16"),
    "clip_norm": (float, "longest gradient, all parameters together"),
    "epochs": (int, "how many"),
    "decay_epochs": (int, "epochs after which the rates fall to a tenth"),
    "workers": (int, "processes that load images"),
}


class Stopwatch:
    """Takes the time of an epoch from the moment it is made.

    Args:
        device: where is trained: its memory is looked at.
    """

    def __init__(self, device: object):
        self.device, self.start = str(device), time.perf_counter()

    def timing(self, images: int) -> dict:
        """Seconds, images a second, and the most memory held so far (see `peak_megabytes`)."""
        seconds = time.perf_counter() - self.start
        return {
            "seconds": round(seconds, 3),
            "images_per_second": round(images / max(seconds, 1e-9), 1),
            "peak_megabytes": peak_megabytes(self.device),
        }


def write_log(folder: Path, history: Sequence[dict], timings: Sequence[dict]) -> None:
    """Write `log.csv`, a row an epoch, whole or not at all; nothing is done if it is right already.

    All of it is written from the state of the run, so no row is there twice, and one of an epoch
    whose state was lost goes.

    Args:
        folder: the run folder.
        history: what the trainer keeps of every epoch.
        timings: what `Stopwatch.timing` gave for it; empty for epochs that nobody timed.
    """
    text = io.StringIO()
    rows = csv.DictWriter(text, LOG_COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    for row, timing in zip(history, timings, strict=True):
        rows.writerow(row | timing)
    content, path = text.getvalue().encode(), folder / LOG
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)


class Board:
    """The log for TensorBoard, in the run folder's `tensorboard`.

    Args:
        folder: the run folder.
        epoch: epochs done; what an interrupted run wrote of later ones is hidden.

    Raises:
        ImportError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, epoch: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "a log for TensorBoard needs its package: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder / BOARD), purge_step=epoch + 1)

    def write(self, row: dict) -> None:
        """Add the numbers of an epoch."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()


def describe_run(folder: Path, about: dict) -> None:
    """Write `run.json` and `README.md` beside the state of a run.

    Args:
        folder: the run folder; it exists.
        about: what `run.json` holds: "command", "evaluate", "model" (where the model will lie),
            "run", "config", "images", "identities", "cameras" and the entries of `provenance`. A
            list "starts" is added: device, versions and commit of each start, and the epoch it
            began after.
    """
    start = {key: about.pop(key) for key in ("epoch", "device", "threads", "versions", "commit")}
    about = {"what": "A training run of qaconv_lib; README.md says more", **about}
    about["starts"] = [*_starts(folder / ABOUT), start]
    write_json(folder / ABOUT, about)
    write_whole(folder / README, _readme(about).encode())


def _starts(path: Path) -> list:
    """Earlier starts of the run; none of a file that is not there or damaged."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return starts if isinstance(starts, list) else []


def _readme(about: dict) -> str:
    run, start = about["run"], about["starts"][-1]
    versions = ", ".join(f"{name} {number}" for name, number in start["versions"].items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in about["config"].items())
    unreadable = about.get("unreadable_images", 0)
    left_out = f" ({unreadable:,} that cannot be read were left out)" if unreadable else ""
    return f"""# {run["loss"]} on {run["source"]}, {run["profile"]} profile, seed {run["seed"]}

This folder belongs to a training run of `qaconv_lib`, the library of the QAConv book. This starts
it, and takes it up again after an interruption:

    {about["command"]}

It was started last on {start["device"]}, with {versions}; commit {start["commit"] or "unknown"}.
It trains on {about["images"]:,} images{left_out} of {about["identities"]:,} identities by \
{about["cameras"]:,} cameras.

| file | what it is |
|---|---|
| `{STATE}` | the state after the last epoch that was done: weights, momentum, memory, history |
| `{LOG}` | a row an epoch: loss, accuracy, rate, seconds, images a second, peak memory in MB |
| `{ABOUT}` | the settings, the versions and the device of every start |
| `{BOARD}` | the log for TensorBoard, if it was asked for |

**To go on** after an interruption, give the command again. It takes up `{STATE}` and, on the same
device with the same versions, ends with the weights of a run that was not interrupted. Other
settings or other images are refused. To start anew, remove `{STATE}`.

**To evaluate**, once the run is through and its model lies at
`{about["model"]}`:

    {about["evaluate"]}

## Settings

| setting | value |
|---|---|
{settings}
"""


def flag_of(setting: str) -> str:
    """The flag of a setting: "--batch-size" of "batch_size"."""
    return "--" + setting.replace("_", "-")


def command_line(command: str, run: dict, *words: str) -> str | None:
    """What to type to have a command on a run; None where a setting has no flag.

    Args:
        command: "train" or "evaluate".
        run: loss, source, profile, seed and settings.
        *words: what follows the source, and further flags.
    """
    if set(run["settings"]) - set(SETTING_FLAGS) or None in run["settings"].values():
        return None
    parts = ["python", "-m", "qaconv_lib", command, run["loss"], run["source"], *words]
    parts += ["--profile", run["profile"], "--seed", str(run["seed"])]
    for name, value in run["settings"].items():
        parts += [flag_of(name), str(value)]
    return shlex.join(parts)
