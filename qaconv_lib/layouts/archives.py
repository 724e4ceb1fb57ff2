"""Shipped archives: each miniature is one zip file, unpacked into the cache on first use."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qaconv_lib._files import cache_folder

# UnicodeDecodeError is a ValueError, NotImplementedError a RuntimeError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, IndexError, RuntimeError, ValueError)


def unpack_archive(archive: Path, cache: Path | None = None) -> Path:
    """Unpack a zip archive on first use; its folder in the cache is named after its content."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:16]
    folder = (cache or cache_folder()) / f"{archive.stem}-{digest}"
    if folder.is_dir():
        return folder
    try:
        with zipfile.ZipFile(archive) as bundle, whole_folder(folder) as work:
            bundle.extractall(work)  # verifies checksums and lets no entry leave the folder
    except OSError as error:
        wrong = f"cannot unpack {archive} into the cache folder {folder.parent} ({error})"
        raise OSError(f"{wrong}; set QACONV_CACHE to a folder that can be written") from error
    except _DAMAGE as error:
        hint = f"draw it anew with `python -m qaconv_lib synthesize {archive.stem}`"
        raise ValueError(
            f"{archive} is damaged ({error}); fetch the file again, or {hint}"
        ) from error
    return folder


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which takes the place of ``folder`` if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as outer:
        work = Path(outer, folder.name)  # unlike the outer one, not private
        work.mkdir()
        yield work
        try:
            work.replace(folder)
        except OSError:  # another process was first: its folder is as good as ours
            if not folder.is_dir():
                raise
