"""Weights from files that other programs wrote, and from the network (chapter 2).

`make_backbone` finds this module by name, because it lies above the core chapters.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

from qaconv_lib._files import check_file, data_folders, read_tensors
from qaconv_lib.backbones import name_few

_ENTRIES = ("state_dict", "model", "model_state_dict", "net")
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or a file of `torch.save`.

    In the latter it is alone or one of `_ENTRIES`. The prefixes of modules around the network
    (`_WRAPPERS`) are removed.
    """
    safe = Path(path).suffix == ".safetensors"
    content = read_tensors(path, "file of weights")[0] if safe else read_saved(path)
    for entry in 2 * _ENTRIES:  # one may lie in the other
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    return state_dict_of(content, str(path))


def read_saved(path: str | Path) -> object:
    """Read a file of `torch.save` that consists of tensors, plain values and containers."""
    check_file(path, "file of weights")
    try:
        with _harmless():
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # from arbitrary bytes an unpickler raises almost anything
        held = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"{path} is damaged, not a file of torch.save, or holds objects that run code when "
            f"they are read{f' ({held[1]})' if held else ''}; save model.state_dict() with "
            "torch.save or safetensors"
        ) from error


def _harmless() -> AbstractContextManager[None]:
    """Reads what training scripts keep beside the weights: NumPy's values, paths, and options."""
    number, array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    kinds: list[Any] = [np.dtype, np.ndarray, argparse.Namespace]
    kinds += {type(np.dtype(code)) for code in np.typecodes["All"]}
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2
        kinds += [(number, f"{core}.scalar"), (array, f"{core}._reconstruct")]
    for module in ("pathlib", "pathlib._local"):  # before Python 3.13, and since
        kinds.append((PurePosixPath, f"{module}.PosixPath"))
        kinds.append((PureWindowsPath, f"{module}.WindowsPath"))
    return torch.serialization.safe_globals(kinds)


def state_dict_of(content: object, source: str) -> dict[str, Tensor]:
    """Check that `content` is a state dict, and remove the prefixes of `_WRAPPERS`."""
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{source} must hold a state dict, got {_describe(content)}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = f"its entry {key!r} is {_describe(value)}"
            raise ValueError(f"{source} must hold a state dict; {found}")
    tensors = dict(content)
    while around := [p for p in _WRAPPERS if all(key.startswith(p) for key in tensors)]:
        tensors = {key.removeprefix(around[0]): value for key, value in tensors.items()}
    return tensors


def take_over(model: nn.Module, path: str) -> None:
    """Start from the neck and the matcher of a model of `save_model`, where they fit."""
    tensors, mine = read_weights(path), model.state_dict()
    for part in ("backbone.neck.", "criterion.matcher."):
        found = {key: value for key, value in tensors.items() if key.startswith(part)}
        wanted = {key: value for key, value in mine.items() if key.startswith(part)}
        if {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}:
            model.load_state_dict(found, strict=False)
        elif found and wanted:
            warnings.warn(
                f"{part.strip('.')} of {path} does not fit the settings of this training "
                "(another image size, number of channels or kind of head) and starts anew",
                stacklevel=3,
            )


def fetch_weights(url: str, network: str) -> Path:
    """Find published weights in the folders `weights` of the data or in PyTorch's cache, or fetch.

    The file's name ends in the first digits of its SHA-256; a download with others is deleted.
    """
    name, cache = Path(urlparse(url).path).name, Path(torch.hub.get_dir()) / "checkpoints"
    folders = [folder / "weights" for folder in data_folders()] + [cache]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    digits = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cache / name), digits and digits[1], progress=False)
    except (OSError, RuntimeError) as error:  # no network, or other digits
        raise ConnectionError(
            f"the ImageNet weights of {network} could not be fetched ({error}). Fetch {url} "
            f"elsewhere and put the file into one of {', '.join(map(str, folders))}; or name a "
            "file with --weights (in Python, weights=); or, in Python, build with pretrained=False"
        ) from error
    return cache / name


def _describe(value: object) -> str:
    if isinstance(value, Mapping) and value:
        return f"a dictionary with {name_few(list(map(str, value)))}"
    return f"a {type(value).__name__}"
