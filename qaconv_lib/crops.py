"""From whole frames to crops of people: by a detector, or by boxes from a file (chapter 14).

Frames are image files. A video is turned into frames by another program first, for instance
`ffmpeg -i video.mp4 -vf fps=2 frames/%06d.jpg`: two frames a second.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import detection
from torchvision.transforms import v2
from tqdm.auto import tqdm

from qaconv_lib._files import make_folder
from qaconv_lib.datasets import load_image
from qaconv_lib.photographs.files import SMALLEST_SIDE, check_photographs, read_csv, to_numbers

#: Detectors of torchvision, the default first. All are trained on COCO.
DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_fpn",
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_resnet50_fpn_v2",
)
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_PERSON, _CLASSES = 1, 91  # COCO's, with the background
_CSV = "crops.csv"


class Box(NamedTuple):
    """A rectangle in a frame, in pixels; x and y are those of its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    score: float = 1.0


Detector = Callable[[Image.Image], Sequence[Box]]


def make_detector(
    name: str = DETECTORS[0],
    *,
    weights: str | os.PathLike[str] | None = None,
    least_score: float = 0.8,
    device: str | torch.device = "cpu",
) -> Detector:
    """A function that finds the people in a frame.

    Args:
        name: one of `DETECTORS`.
        weights: file with the detector's weights, as torchvision offers it for download, or as
            safetensors. None lets torchvision fetch it once and keep it.
        least_score: boxes that the detector is less sure of are left out.
        device: e.g. "cpu" or "cuda".

    Returns:
        A function from an image to its boxes, surest first.

    Raises:
        ValueError: an unknown name, a score outside [0, 1], or a file of something else.
        FileNotFoundError: there is no such file.
        ConnectionError: the weights are not there and cannot be fetched.
    """
    if name not in DETECTORS:
        raise ValueError(f"the detector must be one of {', '.join(DETECTORS)}, got {name!r}")
    if not 0 <= least_score <= 1:
        raise ValueError(f"least_score must lie in [0, 1], got {least_score}")
    network = _fetch(name) if weights is None else _read(name, Path(weights))
    network.to(device).eval()

    @torch.no_grad()
    def detect(image: Image.Image) -> list[Box]:
        pixels = v2.functional.to_dtype(v2.functional.pil_to_tensor(image), scale=True)
        found = network([pixels.to(device)])[0]
        sure = (found["labels"] == _PERSON) & (found["scores"] >= least_score)
        rows = zip(found["boxes"][sure].tolist(), found["scores"][sure].tolist(), strict=True)
        boxes = [Box(x, y, right - x, lower - y, score) for (x, y, right, lower), score in rows]
        return sorted(boxes, key=lambda box: -box.score)

    return detect


def _fetch(name: str) -> nn.Module:
    try:
        return detection.__dict__[name](weights="DEFAULT")
    except OSError as error:  # urllib's errors are OSErrors
        raise ConnectionError(
            f"the weights of the detector {name} could not be fetched ({error}); connect once, "
            "name a file that has them (--weights), or give the boxes in a file (--boxes)"
        ) from error


def _read(name: str, path: Path) -> nn.Module:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with weights of a detector")
    network = detection.__dict__[name](weights=None, weights_backbone=None, num_classes=_CLASSES)
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        missing, extra = network.load_state_dict(tensors, strict=False)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        EOFError,
    ) as error:
        raise ValueError(f"{path} does not hold weights of the detector {name}") from error
    # Trained weights have frozen BN layers, which count no batches.
    if extra or any(not key.endswith("num_batches_tracked") for key in missing):
        raise ValueError(f"{path} does not hold weights of the detector {name}")
    return network


def read_boxes(path: str | os.PathLike[str]) -> dict[str, list[Box]]:
    """Read boxes from a CSV with the columns `file`, `x`, `y`, `width` and `height`, in pixels.

    Returns:
        Boxes by name of the frame's file, its folder left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or value is missing, is no number, or a box has no width or height.
    """
    path, sides = Path(path), ("x", "y", "width", "height")
    table = read_csv(path, ("file", *sides))
    numbers = pd.DataFrame({side: to_numbers(path, table, side) for side in sides})
    flat = np.flatnonzero((numbers["width"] <= 0) | (numbers["height"] <= 0))
    if len(flat):
        raise ValueError(f"{path} has a box without width or height in row {flat[0] + 1}")
    found: dict[str, list[Box]] = {}
    for name, row in zip(table["file"], numbers.itertuples(index=False), strict=True):
        found.setdefault(Path(name.replace("\\", "/")).name, []).append(Box(*row))
    return found


def cut_boxes(image: Image.Image, boxes: Iterable[Box]) -> list[tuple[Box, Image.Image]]:
    """Cut boxes out of a frame.

    Args:
        image: the frame.
        boxes: what lies outside the frame is cut off; boxes of which less than `SMALLEST_SIDE`
            pixels are left in a direction are left out.

    Returns:
        The boxes as they were cut, in whole pixels, and the crops.
    """
    found = []
    for box in boxes:
        left, top = max(0, round(box.x)), max(0, round(box.y))
        right = min(image.width, round(box.x + box.width))
        lower = min(image.height, round(box.y + box.height))
        if min(right - left, lower - top) >= SMALLEST_SIDE:
            cut = Box(left, top, right - left, lower - top, box.score)
            found.append((cut, image.crop((left, top, right, lower))))
    return found


def check_frames(frames: Sequence[str | os.PathLike[str]]) -> None:
    """Raise an error that names the first frame that cannot be used.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is a video or no image, or too small or too large.
    """
    for frame in map(Path, frames):
        if frame.suffix.lower() in VIDEOS:
            raise ValueError(
                f"{frame} is a video; make frames of it first, e.g. with "
                f"`ffmpeg -i {frame.name} -vf fps=2 frames/%06d.jpg`"
            )
    check_photographs(frames)


def crop_frames(
    frames: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    boxes: Detector | dict[str, list[Box]],
    *,
    camera: str = "0",
    frames_per_second: float | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Cut the people out of frames, and write crops and a table of them.

    Args:
        frames: image files of one camera, in order of time.
        folder: a new or empty folder; it gets all crops or none.
        boxes: from `make_detector` or `read_boxes`; a frame without boxes there has no people.
        camera: what to call the camera in the table.
        frames_per_second: then the table has the time of each frame, the first at 0 s.
        progress: show a progress bar.

    Returns:
        The table that is written as `crops.csv`: `file`, `frame` (its file), `x`, `y`, `width`,
        `height`, `score`, `camera`, and `seconds` if the rate is given. `read_times` takes it.

    Raises:
        FileNotFoundError: a frame is not there.
        FileExistsError: there is something in the folder.
        ValueError: a file is a video or no image, the rate is not positive, boxes are for frames
            that are not there, or nobody was found.
    """
    pictures, folder = [Path(frame) for frame in frames], Path(folder)
    if frames_per_second is not None and not 0 < frames_per_second < float("inf"):
        raise ValueError(f"frames_per_second must be positive, got {frames_per_second}")
    check_frames(pictures)
    if isinstance(boxes, dict):
        _check_names(boxes, pictures)
    new = not folder.is_dir()
    make_folder(folder)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; crops want a folder of their own")
    work = Path(tempfile.mkdtemp(prefix=".crops-", dir=folder))
    try:
        table = _write_crops(pictures, work, boxes, camera, frames_per_second, progress)
        for path in sorted(work.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if new and not any(folder.iterdir()):
            folder.rmdir()
    return table


def _write_crops(
    frames: Sequence[Path],
    folder: Path,
    boxes: Detector | dict[str, list[Box]],
    camera: str,
    frames_per_second: float | None,
    progress: bool,
) -> pd.DataFrame:
    rows: list[dict] = []
    outside: list[Path] = []
    for number, frame in enumerate(tqdm(frames, unit="frame", disable=not progress)):
        image = load_image(frame)
        found = boxes.get(frame.name, []) if isinstance(boxes, dict) else boxes(image)
        cut = cut_boxes(image, found)
        outside += [frame] * (len(found) - len(cut))
        for count, (box, crop) in enumerate(cut, start=1):
            name = f"{number + 1:06d}_{count:02d}.png"
            (folder / name).write_bytes(_png(crop))
            row = {"file": name, "frame": str(frame), **box._asdict(), "camera": camera}
            if frames_per_second is not None:
                row["seconds"] = round(number / frames_per_second, 3)
            rows.append(row)
    hint = ""
    if outside and isinstance(boxes, dict):
        hint = (
            f"{len(outside):,} of {len(rows) + len(outside):,} boxes show less than "
            f"{SMALLEST_SIDE} pixels of their frame, the first of {outside[0]}; were they made for "
            "frames of another size?"
        )
    if not rows:
        raise ValueError(hint or f"nobody was found in {len(frames):,} frames")
    if hint:
        warnings.warn(hint, stacklevel=3)
    table = pd.DataFrame(rows)
    (folder / _CSV).write_bytes(table.to_csv(index=False).encode("utf-8", "backslashreplace"))
    return table


def _check_names(boxes: dict[str, list[Box]], frames: Sequence[Path]) -> None:
    names = Counter(frame.name for frame in frames)
    if twice := [name for name in names if names[name] > 1 and name in boxes]:
        raise ValueError(f"several frames are called {twice[0]}; boxes need frames of other names")
    if unknown := set(boxes) - set(names):
        raise ValueError(f"there are boxes for {sorted(unknown)[0]}, which is not among the frames")


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
