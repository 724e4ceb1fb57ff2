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
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from torch import Tensor, nn

from qaconv_lib._checks import check_whole_numbers
from qaconv_lib._files import make_folder, write_json, write_whole
from qaconv_lib.matching import check_tensor
from qaconv_lib.models import training_only
from qaconv_lib.scale import _store_files as files
from qaconv_lib.scale.checks import check_rows, check_unit_channels

_STRIPES = 4  # of a pooled vector
_FINGERPRINT = re.compile("[0-9a-f]{16}")
_WAIT = 60  # seconds for another process to finish its append


def model_fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that tell one model's weights from another's.

    Weights count as half-precision numbers, which is how `save_model` keeps them, and those that
    only training uses do not count: a model and its copy from a file have one fingerprint.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
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
    check_tensor("maps", maps, "n, d, h, w")
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
    """

    def __init__(self, folder: str | Path, model: str | None = None):
        self.folder = Path(folder)
        self._parts: list[dict] = []
        manifest = files.read_manifest(self.folder)
        self.model, self.shape = manifest.model, manifest.shape
        self.table, self.vectors = pd.DataFrame(), torch.empty(0, self._vector_size)
        self._load(manifest)
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
        """
        folder = Path(folder)
        try:
            channels, height, width = shape
            check_whole_numbers(channels=channels, height=height, width=width)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"shape must be three whole numbers (d, h, w) from 1, got {shape!r}"
            ) from error
        if not isinstance(model, str) or not _FINGERPRINT.fullmatch(model):
            raise ValueError(
                "model must be sixteen hexadecimal digits, as `model_fingerprint` gives them, "
                f"got {model!r}"
            )
        make_folder(folder)
        leftover = f".{files.MANIFEST}-"  # of a process that was killed in this very function
        if any(not path.name.startswith(leftover) for path in folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; a store wants a folder of its own")
        manifest = files.Manifest(model, (int(channels), int(height), int(width)), [])
        write_json(folder / files.MANIFEST, manifest.content())
        return cls(folder)

    @property
    def _vector_size(self) -> int:
        return self.shape[0] * min(_STRIPES, self.shape[1])

    def __len__(self) -> int:
        return sum(part["images"] for part in self._parts)

    def append(self, maps: Tensor, table: pd.DataFrame) -> None:
        """Add images: all of them, or on an error none.

        Args:
            maps: shape (n, d, h, w), finite, with channels of unit length to within a
                hundredth, or zero where a backbone found nothing; kept in half precision.
            table: n rows; columns as in the store, if it has images already. A column holds whole
                numbers, floats, booleans or strings, the same in all parts; its name is a string.
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
        check_tensor("maps", maps, "n, d, h, w")
        half = maps.detach().cpu().half()
        if not half.isfinite().all():
            image = int((~half.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise ValueError(f"the map of row {image} is not finite in half precision")
        check_unit_channels(half)
        try:
            with FileLock(self.folder / "append.lock", timeout=_WAIT):
                self._load(files.read_manifest(self.folder))  # another process may have appended
                self._append(half, table)
        except Timeout as error:
            raise TimeoutError(f"another process is appending to {self.folder}") from error

    def _append(self, half: Tensor, table: pd.DataFrame) -> None:
        content = files.table_bytes(table)
        table, own = files.parse_table(content), pool_maps(half)
        if self._parts:
            files.check_columns(table, self.table)
        vectors, joined = self._joined([own], [table])
        contents = {
            "maps.npy": files.array_bytes(half.numpy()),
            "vectors.npy": files.array_bytes(own.numpy()),
            "table.json": content,
        }
        number = len(self._parts)
        parts = [*self._parts, files.describe_part(number, len(half), contents)]
        for kind, content in contents.items():
            write_whole(self.folder / f"{files.part_name(number)}.{kind}", content)
        # The last step that can fail: after it the images belong to the store.
        write_json(
            self.folder / files.MANIFEST, files.Manifest(self.model, self.shape, parts).content()
        )
        self._parts, self.vectors, self.table = parts, vectors, joined

    def blocks(self, size: int = 256) -> Iterator[tuple[slice, Tensor]]:
        """Go through the store: the place of up to `size` images, and their maps (n, d, h, w).

        Maps come in half precision, read from the disk as they are asked for.
        """
        check_whole_numbers(size=size)
        start = 0
        for part in self._parts:
            maps = self._open_maps(part)
            for row in range(0, len(maps), size):
                block = np.array(maps[row : row + size])
                yield slice(start + row, start + row + len(block)), torch.from_numpy(block)
            start += len(maps)

    def maps(self, rows: Tensor | np.ndarray | list[int]) -> Tensor:
        """The maps of some images, in the order of `rows`: half precision, (len(rows), d, h, w)."""
        rows = check_rows(rows, len(self)).numpy()
        if rows.ndim != 1:
            raise ValueError(f"rows must have one axis, got shape {rows.shape}")
        found = np.empty((len(rows), *self.shape), dtype=np.float16)
        ends = np.cumsum([part["images"] for part in self._parts])
        places = np.searchsorted(ends, rows, side="right")
        for number in np.unique(places):
            mine, part = places == number, self._parts[number]
            first = ends[number] - part["images"]
            found[mine] = self._open_maps(part)[rows[mine] - first]
        return torch.from_numpy(found)

    def verify(self) -> None:
        """Read every file and hold it against its checksum."""
        for part in self._parts:
            files.check_sums(self.folder, part)

    @property
    def _sizes(self) -> str:
        return ", ".join(map(str, self.shape))

    def _load(self, manifest: files.Manifest) -> None:
        known = len(self._parts)
        own = files.Manifest(self.model, self.shape, self._parts)
        if manifest._replace(parts=manifest.parts[:known]) != own:
            raise ValueError(
                f"{self.folder} was made anew since this store was opened; open it again"
            )
        self._read_parts(manifest.parts[known:])  # those known already never change

    def _read_parts(self, parts: list[dict]) -> None:
        vectors, tables = [], []
        for part in parts:
            files.check_sizes(self.folder, part)
            self._open_maps(part)  # for its checks
            shape = (part["images"], self._vector_size)
            own = files.open_array(self.folder, part, "vectors.npy", np.float32, shape)
            vectors.append(torch.from_numpy(np.array(own)))
            tables.append(files.read_table(self.folder, part))
        if parts:  # all at once: a part that cannot be read leaves this object as it was
            self.vectors, self.table = self._joined(vectors, tables)
            self._parts = self._parts + parts

    def _joined(
        self, vectors: list[Tensor], tables: list[pd.DataFrame]
    ) -> tuple[Tensor, pd.DataFrame]:
        tables = [self.table, *tables] if self._parts else tables
        return torch.cat([self.vectors, *vectors]), pd.concat(tables, ignore_index=True)

    def _open_maps(self, part: dict) -> np.ndarray:
        shape = (part["images"], *self.shape)
        return files.open_array(self.folder, part, "maps.npy", np.float16, shape)
