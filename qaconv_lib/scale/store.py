"""A gallery on disk: feature maps that are searched without loading them all (appendix A).

Every `append` adds a *part*: maps (float16), their `pool_maps` (float32) and a table. It belongs to
the store once `store.json` names it, and that file is replaced in one step: a crash is harmless.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._files import make_folder, write_json, write_whole
from qaconv_lib.matching import check_tensor
from qaconv_lib.models import training_only

MANIFEST = "store.json"
_HEAD = {"format": "qaconv store", "version": 1}
_STRIPES = 4  # of a pooled vector
_KINDS = ("maps.npy", "vectors.npy", "table.json")


def model_fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that tell one model's weights from another's.

    Weights count as half-precision numbers, which is how `save_model` keeps them, and those that
    only training uses do not count: a model and its copy from a file have one fingerprint.
    """
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if not training_only(key):
            value = value.half() if value.is_floating_point() else value
            digest.update(key.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def pool_maps(maps: Tensor) -> Tensor:
    """Vectors for a shortlist: the average of each of four horizontal stripes of a map.

    Stripes keep the order of head, body and legs, as in the part-based model of Sun et al. (ECCV
    2018), and find far more of what QAConv would rank first than one average over the whole map.
    Maps (n, d, h, w) give vectors (n, d * min(4, h)), float32, of unit length.
    """
    check_tensor("maps", maps, "n, d, h, w")
    stripes = F.adaptive_avg_pool2d(maps.float(), (min(_STRIPES, maps.shape[2]), 1))
    return F.normalize(stripes.flatten(1), dim=1)


class MapStore:
    """Feature maps on disk, appended to safely and read in parts. One process appends at a time.

    Attributes:
        folder: where it lies.
        model: fingerprint of the model that made the maps.
        shape: (d, h, w) of every map.
        table: what is known of the images, one row each, in the order of the maps.
        vectors: the maps pooled by `pool_maps`, float32 (n, d * min(4, h)).

    Args:
        folder: an existing store; `create` makes a new one.
        model: the fingerprint expected; None accepts any.
    """

    def __init__(self, folder: str | Path, model: str | None = None):
        self.folder = Path(folder)
        self.model, self.shape, self._parts = _read_manifest(self.folder)
        if model is not None and model != self.model:
            raise ValueError(
                f"{self.folder} holds maps of model {self.model}, not of {model}: maps of two "
                "models cannot be compared; make a new store"
            )
        vectors, tables = [], []
        width = self.shape[0] * min(_STRIPES, self.shape[1])
        for part in self._parts:
            self._open_maps(part)  # for its checks
            pooled = self._open(part, "vectors.npy", np.float32, width)
            vectors.append(torch.from_numpy(np.array(pooled)))
            tables.append(_read_table(self._path(part, "table.json"), part["images"]))
        self.table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        self.vectors = torch.cat([torch.empty(0, width), *vectors])

    @classmethod
    def create(cls, folder: str | Path, model: str, shape: tuple[int, int, int]) -> MapStore:
        """Make an empty store in a new or empty folder.

        `model` is its `model_fingerprint`, `shape` the (d, h, w) of its maps.
        """
        folder, (channels, height, width) = Path(folder), shape
        make_folder(folder)
        if any(not path.name.startswith(f".{MANIFEST}-") for path in folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; a store needs a folder of its own")
        about = {"model": model, "shape": [channels, height, width], "parts": []}
        write_json(folder / MANIFEST, _HEAD | about)
        return cls(folder)

    def __len__(self) -> int:
        return sum(part["images"] for part in self._parts)

    def append(self, maps: Tensor, table: pd.DataFrame) -> None:
        """Add images: all of them, or on an error none.

        Maps (n, d, h, w) have channels of unit length to within a hundredth, or zero where a
        backbone found nothing; they are kept in half precision. The table has n rows; a column
        holds whole numbers, floats, booleans or strings, the same in all parts.
        """
        check_tensor("maps", maps, "n, d, h, w")
        if tuple(maps.shape[1:]) != self.shape or not len(maps):
            sizes = ", ".join(map(str, self.shape))
            raise ValueError(f"maps must have shape (n, {sizes}), got {tuple(maps.shape)}")
        if len(table) != len(maps):
            raise ValueError(f"{len(maps)} maps need {len(maps)} rows, got {len(table)}")
        half = maps.detach().cpu().half()
        _check_unit_channels(half)
        table, vectors = _plain_table(table, self.table), pool_maps(half)
        contents = {
            "maps.npy": _array_bytes(half),
            "vectors.npy": _array_bytes(vectors),
            "table.json": json.dumps(table.to_dict("list")).encode(),
        }
        if _read_manifest(self.folder) != (self.model, self.shape, self._parts):
            raise ValueError(f"{self.folder} has changed since it was opened; open it again")
        part = {
            "name": f"part-{len(self._parts):06d}",
            "images": len(half),
            "bytes": {kind: len(content) for kind, content in contents.items()},
        }
        for kind, content in contents.items():
            write_whole(self.folder / f"{part['name']}.{kind}", content)
        parts = [*self._parts, part]
        about = {"model": self.model, "shape": list(self.shape), "parts": parts}
        write_json(self.folder / MANIFEST, _HEAD | about)  # now the images belong to the store
        self._parts, self.vectors = parts, torch.cat([self.vectors, vectors])
        tables = [self.table, table] if len(parts) > 1 else [table]
        self.table = pd.concat(tables, ignore_index=True)

    def blocks(self, size: int = 256) -> Iterator[tuple[slice, Tensor]]:
        """Go through the store: the place of up to `size` images, and their maps (n, d, h, w).

        Maps come in half precision, read from the disk as they are asked for.
        """
        start = 0
        for part in self._parts:
            maps = self._open_maps(part)
            for row in range(0, len(maps), size):
                block = np.array(maps[row : row + size])
                yield slice(start + row, start + row + len(block)), torch.from_numpy(block)
            start += len(maps)

    def maps(self, rows: Tensor | np.ndarray | list[int]) -> Tensor:
        """The maps of some images, in the order of `rows`: half precision, (len(rows), d, h, w)."""
        places = check_rows(rows, len(self)).numpy()
        if places.ndim != 1:
            raise ValueError(f"rows must have one axis, got shape {places.shape}")
        found = np.empty((len(places), *self.shape), dtype=np.float16)
        start = 0
        for part in self._parts:
            mine = (start <= places) & (places < start + part["images"])
            if mine.any():
                found[mine] = self._open_maps(part)[places[mine] - start]
            start += part["images"]
        return torch.from_numpy(found)

    def _path(self, part: dict, kind: str) -> Path:
        """A file of a part, with the size on record."""
        path, size = self.folder / f"{part['name']}.{kind}", part["bytes"][kind]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; without it the store cannot be read")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} is damaged: {path.stat().st_size} bytes instead of {size}; restore it "
                "from a copy, or make the store again"
            )
        return path

    def _open(self, part: dict, kind: str, dtype: type, *size: int) -> np.ndarray:
        """An array on the disk; it holds a file descriptor for as long as it is referred to."""
        path = self._path(part, kind)
        try:
            found = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError, SyntaxError, TokenError, OverflowError) as error:
            raise ValueError(f"{path} is damaged: it is not an array of numbers") from error
        if found.shape != (part["images"], *size) or found.dtype != dtype:
            raise ValueError(f"{path} is damaged: it holds {found.dtype} of shape {found.shape}")
        return found

    def _open_maps(self, part: dict) -> np.ndarray:
        return self._open(part, "maps.npy", np.float16, *self.shape)


def _read_manifest(folder: Path) -> tuple[str, tuple[int, int, int], list[dict[str, Any]]]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no store in {folder}: {MANIFEST} is missing")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        head = {key: found[key] for key in _HEAD}
        channels, height, width = map(int, found["shape"])
        model, parts = str(found["model"]), list(found["parts"])
        for number, part in enumerate(parts):
            if part["name"] != f"part-{number:06d}" or set(part["bytes"]) != set(_KINDS):
                raise ValueError(f"part {number} is not one")
        if min(channels, height, width, *(part["images"] for part in parts)) < 1:
            raise ValueError("its shape or a part is empty")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not of a store ({error!r})") from error
    if head != _HEAD:
        raise ValueError(
            f"{path} says format {head['format']!r}, version {head['version']!r}; this library "
            f"reads version {_HEAD['version']}: make the store again"
        )
    return model, (channels, height, width), parts


def _read_table(path: Path, rows: int) -> pd.DataFrame:
    try:
        table = pd.DataFrame(json.loads(path.read_bytes()))
        if len(table) != rows:
            raise ValueError(f"{len(table)} rows, not {rows}")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return table


def _array_bytes(values: Tensor) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values.numpy(), allow_pickle=False)
    return stream.getvalue()


def _plain_table(table: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """A table whose every value comes back from JSON, with the columns of those before it."""
    if known.columns.size and list(table.columns) != list(known.columns):
        both = f"{', '.join(known.columns)}, the new rows {', '.join(map(str, table.columns))}"
        raise ValueError(f"the store has columns {both}")
    for name, column in table.items():
        plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb"
        if not plain and not column.map(lambda value: isinstance(value, str)).all():
            raise TypeError(
                f"column {name!r} holds {column.dtype}; whole numbers, floats, booleans or "
                "strings without missing values can be kept"
            )
    return pd.DataFrame(json.loads(json.dumps(table.to_dict("list"))))


def _check_unit_channels(maps: Tensor) -> None:
    """Raise ValueError unless channels have length 1 everywhere, or 0 where there is nothing."""
    lengths = torch.linalg.vector_norm(maps, dim=1, dtype=torch.float32).flatten(1)
    wrong = ~((lengths - 1).abs() <= 1e-2) & (lengths != 0)  # also NaN
    if wrong.any():
        row, location = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"the map of row {row} must have channels of unit length; their length is "
            f"{lengths[row, location]:.4g} at location {location}"
        )


def check_rows(rows: Tensor | np.ndarray | list, size: int) -> Tensor:
    """Row numbers of a gallery of `size` images as an int64 tensor on the CPU, any shape."""
    rows = torch.as_tensor(rows).cpu()
    if not rows.numel():
        return rows.long()
    if rows.is_floating_point() or rows.dtype == torch.bool:
        raise TypeError(f"rows must be whole numbers, got {rows.dtype}")
    low, high = int(rows.min()), int(rows.max())
    if not 0 <= low <= high < size:
        raise IndexError(f"rows must lie in 0..{size - 1}, got {low} to {high}")
    return rows.long()
