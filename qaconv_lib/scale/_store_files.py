"""The files of a store: how `store.MapStore` writes, reads and checks them."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

VERSION = 1
MANIFEST = "store.json"
FORMAT = "qaconv store"
_KINDS = ("maps.npy", "vectors.npy", "table.json")
_LARGEST = 2**40  # beyond any size of a store


class Manifest(NamedTuple):
    """What `store.json` says."""

    model: str
    shape: tuple[int, int, int]
    parts: list[dict]

    def content(self) -> dict:
        """As it is written."""
        head = {"format": FORMAT, "version": VERSION, "model": self.model}
        return head | {"shape": list(self.shape), "parts": self.parts}


def read_manifest(folder: Path) -> Manifest:
    """Read `store.json`, all of it checked: its parts have no names but those `part_name` gives."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no store in {folder}: {MANIFEST} is missing")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind, version = found["format"], found["version"]
        manifest = Manifest(found["model"], tuple(found["shape"]), found["parts"])
        sound = version != VERSION or _is_sound(*manifest)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not of a store ({error!r})") from error
    if kind != FORMAT or version != VERSION:
        raise ValueError(
            f"{path} says format {kind!r}, version {version!r}; this library reads version "
            f"{VERSION}: make the store again"
        )
    if not sound:
        raise ValueError(
            f"{path} is damaged: its model, shape or parts are not those of a store; restore it "
            "from a copy, or make the store again"
        )
    return manifest


def _is_sound(model: Any, shape: tuple, parts: Any) -> bool:
    """Whether a manifest says what `append` writes; KeyError or TypeError for much that is not."""

    def whole(value: Any, least: int) -> bool:
        return type(value) is int and least <= value < _LARGEST

    if not isinstance(model, str) or not isinstance(parts, list) or len(shape) != 3:
        return False
    return all(whole(size, 1) for size in shape) and all(
        part["name"] == part_name(number)
        and whole(part["images"], 1)
        and all(whole(part[key][kind], 0) for key in ("bytes", "crc32") for kind in _KINDS)
        for number, part in enumerate(parts)
    )


def part_name(number: int) -> str:
    """The name of a part, from its place in the store."""
    return f"part-{number:06d}"


def describe_part(number: int, images: int, contents: dict[str, bytes]) -> dict:
    """The entry of a part in the manifest; `contents` are its files, by kind."""
    return {
        "name": part_name(number),
        "images": images,
        "bytes": {kind: len(content) for kind, content in contents.items()},
        "crc32": {kind: zlib.crc32(content) for kind, content in contents.items()},
    }


def check_sizes(folder: Path, part: dict) -> None:
    """Raise FileNotFoundError or ValueError unless a part's files have their recorded sizes."""
    for kind in _KINDS:
        path, size = _existing(folder, part, kind), part["bytes"][kind]
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} is damaged: {path.stat().st_size} bytes instead of {size}; restore it "
                "from a copy, or make the store again"
            )


def check_sums(folder: Path, part: dict) -> None:
    """Raise FileNotFoundError or ValueError unless a part's files are the recorded ones."""
    for kind in _KINDS:
        path, check = _existing(folder, part, kind), 0
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                check = zlib.crc32(chunk, check)
        if check != part["crc32"][kind]:
            raise ValueError(f"{path} is damaged: its checksum is not the recorded one")


def _existing(folder: Path, part: dict, kind: str) -> Path:
    path = folder / f"{part['name']}.{kind}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; without it the store cannot be read")
    return path


def open_array(
    folder: Path, part: dict, kind: str, dtype: type, shape: tuple[int, ...]
) -> np.ndarray:
    """An array on the disk. Each holds a file descriptor for as long as it is referred to."""
    path = _existing(folder, part, kind)
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, SyntaxError, TokenError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: it is no readable array of numbers") from error
    if found.shape != shape or found.dtype != dtype:
        raise ValueError(f"{path} is damaged: it holds {found.dtype} of shape {found.shape}")
    return found


def array_bytes(array: np.ndarray) -> bytes:
    """An array as the content of a file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def table_bytes(table: pd.DataFrame) -> bytes:
    """A table as JSON, column by column, so that every value comes back as it was."""
    names = list(table.columns)
    if (
        not names
        or len(set(names)) < len(names)
        or not all(isinstance(n, str) and n for n in names)
    ):
        raise TypeError(f"columns must have names, all different, that are strings; got {names!r}")
    columns = {}
    for name in names:
        values = table[name].tolist()
        if any(value is pd.NA for value in values):
            raise ValueError(f"column {name!r} has missing values; fill them or leave it out")
        if table[name].dtype.kind not in "iufb" and not all(isinstance(v, str) for v in values):
            raise TypeError(
                f"column {name!r} holds {table[name].dtype}; whole numbers, floats, booleans or "
                "strings can be kept"
            )
        columns[name] = values
    return json.dumps(columns).encode()


def parse_table(content: bytes) -> pd.DataFrame:
    """The table that `table_bytes` wrote; ValueError, TypeError or the like if it did not."""
    columns = json.loads(content)
    return pd.DataFrame({str(name): list(column) for name, column in columns.items()})


def read_table(folder: Path, part: dict) -> pd.DataFrame:
    """The table of a part; ValueError names a damaged file."""
    path = _existing(folder, part, "table.json")
    content = path.read_bytes()
    try:
        table = parse_table(content)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(table) != part["images"]:
        raise ValueError(f"{path} is damaged: {len(table)} rows, not {part['images']}")
    return table


def check_columns(table: pd.DataFrame, known: pd.DataFrame) -> None:
    """Raise ValueError unless a table has the columns of those before it, of the same kinds."""
    if list(table.columns) != list(known.columns):
        raise ValueError(
            f"the store has columns {', '.join(known.columns)}, "
            f"the new rows {', '.join(map(str, table.columns))}"
        )
    for name in table.columns:
        if table[name].dtype.kind != known[name].dtype.kind:
            raise ValueError(
                f"column {name!r} holds {known[name].dtype} in the store, {table[name].dtype} in "
                "the new rows; joined, values would change"
            )
