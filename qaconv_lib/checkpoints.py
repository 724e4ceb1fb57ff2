"""Files of tensors and records that are written whole or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qaconv_lib.archives import write_whole

_DETAILS = "qaconv_lib"  # the metadata entry that holds everything but the tensors
_NUMBERS = re.compile(r"\[\n\s*(-?\d[^\[\]{}\"]*?)\n\s*\]")  # a list of numbers, as json indents it


def write_json(path: str | Path, content: dict) -> None:
    """Write a record as readable JSON, a list of numbers on one line, whole or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    _write(path, (text + "\n").encode())


def write_checkpoint(path: str | Path, tensors: dict[str, Tensor], details: dict) -> None:
    """Write tensors and JSON-able details as one safetensors file."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    _write(path, save(tensors, metadata={_DETAILS: json.dumps(details)}))


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read what `write_checkpoint` wrote. No code in the file is ever run.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: the file is damaged, or was written by something else.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder, not a checkpoint," if path.is_dir() else "no checkpoint"
        raise FileNotFoundError(f"{found} at {path}")
    path.open("rb").close()  # safetensors takes a file that may not be read for one that is missing
    try:
        with safe_open(path, framework="pt") as stream:
            details = json.loads((stream.metadata() or {})[_DETAILS])
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    except (KeyError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} was not written by qaconv_lib: its details are missing"
        ) from error
    if not isinstance(details, dict):
        raise ValueError(f"{path} was not written by qaconv_lib: its details are {details!r}")
    return tensors, details


def make_folder(folder: Path) -> None:
    """Create a folder that files will be written to.

    Raises:
        ValueError: something that is no folder is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{folder} should be a folder, but a file is in the way") from error


def _write(path: str | Path, content: bytes) -> None:
    make_folder(Path(path).parent)
    write_whole(path, content)
