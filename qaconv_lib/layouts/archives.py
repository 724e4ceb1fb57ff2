"""Where data is looked for, and how a shipped archive becomes a folder.

The miniatures ship as one zip file each. On first use an archive is unpacked into a cache folder
whose name holds the archive's content hash, so a new archive never meets the files of an old one.
Unpacking goes to a temporary folder that is renamed when it is whole: a run that is interrupted,
or two runs at once, leave nothing that could be taken for a complete dataset.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from qaconv_lib._files import cache_folder

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_GROWTH, _ALWAYS_ALLOWED = 20, 1 << 20  # images hardly grow; a bomb grows a thousandfold


def unpack_archive(
    archive: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None
) -> Path:
    """Unpack a zip archive once and return the folder that holds its files.

    Args:
        archive: the zip file.
        cache: where to unpack; ``cache_folder()`` if None.

    Returns:
        ``cache/<archive stem>-<first 16 digits of its SHA-256>``. Files that went missing there
        since the first call, or have lost a part, are put back.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: the archive is damaged, an entry would land outside the folder, names differ
            only in case, or it would unpack to more than twenty times its size.
        OSError: the cache folder cannot be written.
    """
    archive = Path(archive)
    if not archive.is_file():
        raise FileNotFoundError(f"no archive at {archive}")
    cache = cache_folder() if cache is None else Path(cache)
    folder = cache / f"{archive.stem}-{_content_hash(archive)}"
    try:
        with zipfile.ZipFile(archive) as bundle:
            names = _checked_names(bundle, archive)
            missing = [name for name in names if not _is_whole(bundle, name, folder)]
            if missing:
                _place(bundle, names if len(missing) == len(names) else missing, folder)
    except _DAMAGE as error:
        raise ValueError(
            f"{archive} is damaged ({error}); fetch the file again, or draw it anew with "
            f"`python -m qaconv_lib synthesize {archive.stem}`"
        ) from error
    return folder


def _place(bundle: zipfile.ZipFile, names: list[str], folder: Path) -> None:
    """Unpack ``names`` beside ``folder``, then rename; file by file where it exists already."""
    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
    except OSError as error:
        raise OSError(
            f"cannot write the cache folder {cache} ({error}); "
            "set QACONV_CACHE to a folder that can be written"
        ) from error
    try:
        for name in names:
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with bundle.open(name) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
        work.chmod(0o755)  # mkdtemp makes it private
        if not folder.exists():
            try:
                os.replace(work, folder)
                return
            except OSError:  # another process was first: its folder is as good as ours
                if not folder.is_dir():
                    raise
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not _is_whole(bundle, name, folder):
                os.replace(work / name, folder / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _is_whole(bundle: zipfile.ZipFile, name: str, folder: Path) -> bool:
    """Whether the file is there with the length that the archive gives it."""
    path = folder / name
    return path.is_file() and path.stat().st_size == bundle.getinfo(name).file_size


def _checked_names(bundle: zipfile.ZipFile, archive: Path) -> list[str]:
    """Names of the files in the archive; refuses those that would leave their folder."""
    names = []
    for entry in bundle.infolist():
        path = PurePosixPath(entry.filename)
        is_link = stat.S_ISLNK(entry.external_attr >> 16)
        outside = (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or ":" in entry.filename
            or "\\" in entry.filename
        )
        if is_link or outside:
            raise ValueError(
                f"{archive} was not unpacked: its entry {entry.filename!r} leaves its folder"
            )
        if entry.compress_type not in _PACKINGS:
            raise ValueError(f"{archive} was not unpacked: {entry.filename!r} is packed unusually")
        if not entry.is_dir():
            names.append(entry.filename)
    if not names:
        raise ValueError(f"{archive} is empty; an archive with image folders is expected")
    files = {PurePosixPath(name) for name in names}
    if both := files & {folder for path in files for folder in path.parents}:
        raise ValueError(f"{archive} was not unpacked: {min(both)!s} is a file and a folder in it")
    spelt: dict[str, PurePosixPath] = {}
    for path in sorted(files.union(*(file.parents for file in files))):
        if (other := spelt.setdefault(str(path).casefold(), path)) != path:
            raise ValueError(
                f"{archive} was not unpacked: {str(other)!r} and {str(path)!r} differ only in "
                "case, and are one and the same on Windows and macOS"
            )
    size = sum(entry.file_size for entry in bundle.infolist())
    if size > max(_MOST_GROWTH * archive.stat().st_size, _ALWAYS_ALLOWED):
        raise ValueError(
            f"{archive} was not unpacked: it would grow from {archive.stat().st_size:,} bytes to "
            f"{size:,}, which no archive of images does"
        )
    return names


def _content_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
