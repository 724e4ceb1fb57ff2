"""Where data is looked for and kept, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CHECKOUT = Path(__file__).resolve().parent.parent
_DETAILS = "qaconv_lib"  # the metadata entry that holds everything but the tensors
_NUMBERS = re.compile(r"\[\n\s*(-?\d[^\[\]{}\"]*?)\n\s*\]")  # a list of numbers, as json indents it


def data_folders() -> list[Path]:
    """Folders in which datasets are looked for.

    First those named by the environment variable ``QACONV_DATA`` (separated as in ``PATH``), even
    if they do not exist; then ``data/`` of the checkout, of the working directory and above it.
    """
    named = [part for part in os.environ.get("QACONV_DATA", "").split(os.pathsep) if part]
    here = Path.cwd()
    around = [folder / "data" for folder in (_CHECKOUT, here, *here.parents)]
    found = [Path(os.path.expanduser(part)) for part in named]
    return list(dict.fromkeys(found + [folder for folder in around if folder.is_dir()]))


def cache_folder() -> Path:
    """Folder for unpacked archives: ``QACONV_CACHE``, else the platform's cache folder."""
    if named := os.environ.get("QACONV_CACHE"):
        return Path(os.path.expanduser(named))
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "qaconv_lib"


def make_folder(folder: Path) -> None:
    """Create a folder that files will be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{folder} should be a folder, but a file is in the way") from error


def check_writable(folder: Path) -> None:
    """Create a folder and raise OSError unless files can be written to it, before any work."""
    make_folder(folder)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, f"cannot write to it ({error.strerror})", str(folder)) from error


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically: it is either the old one or the new one, never a part."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:60]}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                try:
                    os.fsync(stream.fileno())
                except OSError as error:  # some network drives cannot
                    if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                        raise
            with suppress(OSError):  # drives without permissions refuse
                os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:  # which names the temporary file
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: str | Path, content: dict) -> None:
    """Write a record as readable JSON, a list of numbers on one line, whole or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    make_folder(Path(path).parent)
    write_whole(path, (text + "\n").encode())


def write_checkpoint(path: str | Path, tensors: dict[str, Tensor], details: dict) -> None:
    """Write tensors and JSON-able details as one safetensors file."""
    from safetensors.torch import save  # imports torch, which the command line does without

    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    make_folder(Path(path).parent)
    write_whole(path, save(tensors, metadata={_DETAILS: json.dumps(details)}))


def check_file(path: str | Path, what: str) -> None:
    """Raise FileNotFoundError unless there is a file at `path`; `what` says which is expected."""
    if not Path(path).is_file():
        found = f"a folder, not a {what}," if Path(path).is_dir() else f"no {what}"
        raise FileNotFoundError(f"{found} at {path}")


def read_tensors(path: str | Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_file(path, what)
    content = Path(path).read_bytes()  # not mapped: Windows refuses to replace a mapped file
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__", {})
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from error


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read a file of `write_checkpoint` without running any code in it."""
    tensors, metadata = read_tensors(path, "checkpoint")
    try:
        details = json.loads(metadata[_DETAILS])
    except (KeyError, json.JSONDecodeError, RecursionError):
        details = None
    if not isinstance(details, dict):
        raise ValueError(f"{path} was not written by qaconv_lib: its details are missing")
    return tensors, details
