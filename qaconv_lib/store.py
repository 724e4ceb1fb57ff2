"""A gallery on disk: feature maps that are searched without loading them all (chapter 13).

A store is a folder. Every `append` adds a *part*: three files that are never changed afterwards.

    store.json            format, model, shape of the maps, and the list of parts with their sizes
    part-000000.maps.npy     feature maps, float16, (n, d, h, w)
    part-000000.vectors.npy  the maps pooled by `pool_maps`, float32
    part-000000.table.json   one row an image: whatever the caller knows about it

A part belongs to the store once `store.json` names it, and that file is replaced in one step. So
a crash at any moment leaves the store as it was before or after the append. Files of a part that
was never finished are not read, and the next append writes over them.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from torch import Tensor, nn

from qaconv_lib.archives import write_whole
from qaconv_lib.arrays import check_whole_numbers
from qaconv_lib.checkpoints import make_folder, write_json
from qaconv_lib.models import training_only

VERSION = 1
_MANIFEST = "store.json"
_KINDS = ("maps.npy", "vectors.npy", "table.json")
_STRIPES = 4  # of a pooled vector
_WAIT = 60  # seconds for another process to finish its append


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

    Args:
        maps: shape (n, d, h, w).

    Returns:
        Shape (n, d * min(4, h)), float32, of unit length.
    """
    stripes = F.adaptive_avg_pool2d(maps.float(), (min(_STRIPES, maps.shape[2]), 1))
    return F.normalize(stripes.flatten(1), dim=1)


class MapStore:
    """Feature maps on disk, appended to safely and read in parts.

    Attributes:
        folder: where it lies.
        model: fingerprint of the model that made the maps.
        shape: (d, h, w) of every map.
        table: what is known of the images, one row each, in the order of the maps.
        vectors: the maps pooled by `pool_maps`, float32 (n, d * min(4, h)).

    Args:
        folder: an existing store; `create` makes a new one.
        model: the fingerprint expected, from `model_fingerprint`; None accepts any.

    Raises:
        FileNotFoundError: there is no store, or a file of it is missing.
        ValueError: the store is of another model or version, or a file of it is damaged.
    """

    def __init__(self, folder: str | Path, model: str | None = None):
        self.folder = Path(folder)
        self._parts: list[dict] = []
        self._maps: list[np.ndarray] = []
        self.table, self.vectors = pd.DataFrame(), None
        self._load()
        if model is not None and model != self.model:
            raise ValueError(
                f"{self.folder} holds maps of model {self.model}, not of {model}: maps of two "
                "models cannot be compared; make a new store"
            )

    @classmethod
    def create(cls, folder: str | Path, model: str, shape: tuple[int, int, int]) -> MapStore:
        """Make an empty store.

        Args:
            folder: a new or empty folder.
            model: fingerprint of the model, from `model_fingerprint`.
            shape: (d, h, w) of the maps.

        Raises:
            FileExistsError: there is something in the folder.
            ValueError: an impossible shape.
        """
        folder = Path(folder)
        try:
            channels, height, width = shape
            check_whole_numbers(channels=channels, height=height, width=width)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"shape must be three whole numbers (d, h, w) from 1, got {shape!r}"
            ) from error
        make_folder(folder)
        leftover = f".{_MANIFEST}-"  # of a process that was killed in this very function
        if any(not path.name.startswith(leftover) for path in folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; a store wants a folder of its own")
        manifest = {"format": "qaconv store", "version": VERSION, "model": str(model)}
        write_json(folder / _MANIFEST, manifest | {"shape": [int(n) for n in shape], "parts": []})
        return cls(folder)

    @property
    def _vector_size(self) -> int:
        return self.shape[0] * min(_STRIPES, self.shape[1])

    def __len__(self) -> int:
        return sum(part["images"] for part in self._parts)

    def append(self, maps: Tensor, table: pd.DataFrame) -> None:
        """Add images: all of them, or on an error none.

        Args:
            maps: shape (n, d, h, w), finite; kept in half precision.
            table: n rows; columns as in the store, if it has images already. A column holds whole
                numbers, floats, booleans or strings; its name is a string.

        Raises:
            TypeError: maps that are no tensor, or a table or column of another kind.
            ValueError: maps or rows that do not fit the store, numbers that are not finite, or a
                store that was made anew since this one was opened.
            TimeoutError: another process is appending, and was not done within a minute.
        """
        if not isinstance(maps, Tensor) or not isinstance(table, pd.DataFrame):
            raise TypeError(
                "maps must be a torch.Tensor and table a pandas.DataFrame, got "
                f"{type(maps).__name__} and {type(table).__name__}"
            )
        if tuple(maps.shape[1:]) != self.shape or not len(maps):
            raise ValueError(f"maps must have shape (n, {self._sizes}), got {tuple(maps.shape)}")
        if len(table) != len(maps):
            raise ValueError(f"{len(maps)} maps need {len(maps)} rows, got {len(table)}")
        half = maps.detach().cpu().half()
        if not half.isfinite().all():
            image = int((~half.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise ValueError(f"the map of row {image} is not finite in half precision")
        try:
            with FileLock(self.folder / "append.lock", timeout=_WAIT):
                self._load()  # another process may have appended
                self._append(half, table)
        except Timeout as error:
            raise TimeoutError(f"another process is appending to {self.folder}") from error

    def _append(self, half: Tensor, table: pd.DataFrame) -> None:
        if self._parts and list(table.columns) != list(self.table.columns):
            raise ValueError(
                f"the store has columns {', '.join(self.table.columns)}, "
                f"the new rows {', '.join(map(str, table.columns))}"
            )
        name = _part_name(len(self._parts))
        contents = {
            "maps.npy": _npy_bytes(half.numpy()),
            "vectors.npy": _npy_bytes(pool_maps(half).numpy()),
            "table.json": _table_bytes(table),
        }
        part = {"name": name, "images": len(half), "bytes": {}, "crc32": {}}
        for kind, content in contents.items():
            write_whole(self.folder / f"{name}.{kind}", content)
            part["bytes"][kind], part["crc32"][kind] = len(content), zlib.crc32(content)
        manifest = self._manifest | {"parts": [*self._parts, part]}
        write_json(self.folder / _MANIFEST, manifest)
        self._load()

    def blocks(self, size: int = 256) -> Iterator[tuple[slice, Tensor]]:
        """Go through the store: the place of up to `size` images, and their maps (n, d, h, w).

        Maps come in half precision, read from the disk as they are asked for.
        """
        check_whole_numbers(size=size)
        start = 0
        for maps in self._maps:
            for row in range(0, len(maps), size):
                block = np.array(maps[row : row + size])
                yield slice(start + row, start + row + len(block)), torch.from_numpy(block)
            start += len(maps)

    def maps(self, rows: Tensor | np.ndarray | list[int]) -> Tensor:
        """The maps of some images, in the order of `rows`: half precision, (len(rows), d, h, w).

        Raises:
            TypeError: rows that are not whole numbers.
            IndexError: a row that the store does not have.
        """
        rows = check_rows(rows, len(self)).numpy()
        found = np.empty((len(rows), *self.shape), dtype=np.float16)
        ends = np.cumsum([len(maps) for maps in self._maps])
        parts = np.searchsorted(ends, rows, side="right")
        for part in np.unique(parts):
            mine = parts == part
            first = ends[part] - len(self._maps[part])
            found[mine] = self._maps[part][rows[mine] - first]
        return torch.from_numpy(found)

    def verify(self) -> None:
        """Read every file and hold it against its checksum; ValueError names a damaged one."""
        for part in self._parts:
            for kind in _KINDS:
                path, check = self.folder / f"{part['name']}.{kind}", 0
                with path.open("rb") as stream:
                    while chunk := stream.read(1 << 22):
                        check = zlib.crc32(chunk, check)
                if check != part["crc32"][kind]:
                    raise ValueError(f"{path} is damaged: its checksum is not the recorded one")

    @property
    def _sizes(self) -> str:
        return ", ".join(map(str, self.shape))

    def _load(self) -> None:
        path = self.folder / _MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"no store in {self.folder}: {_MANIFEST} is missing")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            version, kind = manifest["version"], manifest["format"]
            model, shape = manifest["model"], tuple(manifest["shape"])
            parts, known = manifest["parts"], len(self._parts)
            sound = version != VERSION or _is_sound(model, shape, parts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or not of a store ({error!r})") from error
        if kind != "qaconv store" or version != VERSION:
            raise ValueError(
                f"{path} says format {kind!r}, version {version!r}; this library reads version "
                f"{VERSION}: make the store again"
            )
        if not sound:
            raise ValueError(f"{path} is damaged: its shape or its parts are not those of a store")
        if self.vectors is None:
            self.model, self.shape = model, shape
            self.vectors = torch.empty(0, self._vector_size)
        if (model, shape, parts[:known]) != (self.model, self.shape, self._parts):
            raise ValueError(
                f"{self.folder} was made anew since this store was opened; open it again"
            )
        self._manifest = manifest
        self._read_parts(parts[known:])  # those known already never change

    def _read_parts(self, parts: list[dict]) -> None:
        all_maps, vectors = list(self._maps), [self.vectors]
        tables = [self.table] if self._parts else []
        for part in parts:
            for kind in _KINDS:
                self._check_size(f"{part['name']}.{kind}", part["bytes"][kind])
            count = part["images"]
            all_maps.append(self._read(part, "maps.npy", np.float16, (count, *self.shape)))
            own = self._read(part, "vectors.npy", np.float32, (count, self._vector_size))
            vectors.append(torch.from_numpy(np.array(own)))
            tables.append(_read_table(self.folder / f"{part['name']}.table.json", count))
        if parts:  # all at once: a part that cannot be read leaves this object as it was
            self.table, self.vectors = pd.concat(tables, ignore_index=True), torch.cat(vectors)
            self._maps, self._parts = all_maps, self._parts + parts

    def _check_size(self, name: str, size: int) -> None:
        path = self.folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; without it the store cannot be read")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path} is damaged: {path.stat().st_size} bytes instead of {size}; restore it "
                "from a copy, or make the store again"
            )

    def _read(self, part: dict, kind: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / f"{part['name']}.{kind}"
        try:
            found = np.load(path, mmap_mode="r")
        except (ValueError, OSError, EOFError, SyntaxError, TokenError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if found.shape != shape or found.dtype != dtype:
            raise ValueError(f"{path} is damaged: it holds {found.dtype} of shape {found.shape}")
        return found


def _is_sound(model: object, shape: tuple, parts: object) -> bool:
    """Whether a manifest says what `append` writes: no other file names, and whole numbers."""

    def whole(value: object, least: int) -> bool:
        return type(value) is int and least <= value < 2**40

    if not isinstance(model, str) or not isinstance(parts, list) or len(shape) != 3:
        return False
    return all(whole(size, 1) for size in shape) and all(
        part["name"] == _part_name(number)
        and whole(part["images"], 1)
        and all(whole(part[key][kind], 0) for key in ("bytes", "crc32") for kind in _KINDS)
        for number, part in enumerate(parts)
    )


def _part_name(number: int) -> str:
    return f"part-{number:06d}"


def check_rows(rows: Tensor | np.ndarray | list[int], size: int) -> Tensor:
    """Row numbers of a gallery of `size` images as an int64 tensor on the CPU, any shape.

    Raises:
        TypeError: rows that are not whole numbers.
        IndexError: a row that the gallery does not have, such as -1.
    """
    found = rows.cpu() if isinstance(rows, Tensor) else torch.as_tensor(np.asarray(rows))
    if found.numel() == 0:
        return found.long()
    if found.dtype.is_floating_point or found.dtype == torch.bool:
        raise TypeError(f"rows must be whole numbers, got {found.dtype}")
    if not 0 <= int(found.min()) <= int(found.max()) < size:
        raise IndexError(
            f"rows must lie in 0..{size - 1}, got {int(found.min())} to {int(found.max())}"
        )
    return found.long()


def _table_bytes(table: pd.DataFrame) -> bytes:
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
        if table[name].dtype.kind not in "iufb" and not all(isinstance(v, str) for v in values):
            raise TypeError(
                f"column {name!r} holds {table[name].dtype}; whole numbers, floats, booleans or "
                "strings can be kept"
            )
        columns[name] = values
    return json.dumps(columns).encode()


def _read_table(path: Path, count: int) -> pd.DataFrame:
    try:
        columns = json.loads(path.read_bytes())
        table = pd.DataFrame({str(name): list(column) for name, column in columns.items()})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(table) != count:
        raise ValueError(f"{path} is damaged: {len(table)} rows, not {count}")
    return table


def _npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
