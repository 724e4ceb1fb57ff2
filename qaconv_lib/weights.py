"""Weights from elsewhere: found, fetched, read and held against a network. No code in them runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qaconv_lib.archives import data_folders


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a network from a file.

    Args:
        path: a `.safetensors` file, or what `torch.save` wrote: a state dict, alone or as the entry
            "state_dict" or "model". The prefix "module." of `torch.nn.DataParallel` is taken off.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else than a state dict.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        content = read_saved(path)
    else:
        _check_exists(path)
        try:
            content = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    for entry in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    return state_dict_of(content, str(path))


def read_saved(path: str | Path) -> object:
    """Read what `torch.save` wrote, if it is made of tensors, plain values and containers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or wants code of its own to be run.
    """
    path = Path(path)
    _check_exists(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # from arbitrary bytes an unpickler raises almost anything
        raise ValueError(
            f"{path} is damaged, no file of torch.save, or holds objects that run code when they "
            "are read; a state dict is wanted (torch.save of model.state_dict(), or safetensors)"
        ) from error


def state_dict_of(content: object, source: str) -> dict[str, Tensor]:
    """Check that `content` is a state dict, and take off the prefix of `DataParallel`.

    Raises:
        ValueError: it is something else; `source` names it.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{source} holds no state dict, but {_describe(content)}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{source} holds no state dict: {key!r} is {_describe(value)}, not a tensor"
            )
    wrapped = all(key.startswith("module.") for key in content)
    return {key.removeprefix("module.") if wrapped else key: v for key, v in content.items()}


def fetch_weights(url: str, network: str) -> Path:
    """Find a published file of weights, or fetch it.

    It is looked for in the folder `weights` of every data folder, then in PyTorch's cache folder,
    where it is put once it was fetched. The file's name ends in the first digits of its SHA-256; a
    download with others is thrown away.

    Args:
        url: where the file is published.
        network: what it holds, for the message.

    Raises:
        ConnectionError: the file is not there and could not be fetched.
    """
    name = Path(urlparse(url).path).name
    cache = Path(torch.hub.get_dir()) / "checkpoints"
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


def check_fit(
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: str,
    model: str,
    *,
    may_lack: Callable[[str], bool],
    may_add: Callable[[str], bool] = lambda key: False,
) -> None:
    """Raise ValueError unless tensors have the names and shapes of a model's state dict.

    Args:
        tensors: what was read.
        wanted: the model's state dict.
        source: where the tensors come from.
        model: what the model is called.
        may_lack: whether an entry of the model may be missing.
        may_add: whether an entry that the model lacks may be there.
    """
    missing = [key for key in wanted if key not in tensors and not may_lack(key)]
    extra = [key for key in tensors if key not in wanted and not may_add(key)]
    misshapen = [
        f"{key} of shape {tuple(tensors[key].shape)}, the model wants {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    faults = {"missing": missing, "left over": extra, "misshapen": misshapen}
    found = "; ".join(f"{fault}: {_few(keys)}" for fault, keys in faults.items() if keys)
    if found:
        raise ValueError(f"{source} does not hold the weights of {model}; {found}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _describe(value: object) -> str:
    if isinstance(value, Mapping):
        return (
            f"a dictionary with {_few(list(map(str, value)))}" if value else "an empty dictionary"
        )
    return f"a {type(value).__name__}"


def _check_exists(path: Path) -> None:
    if not path.is_file():
        found = "a folder, not a file of weights," if path.is_dir() else "no file of weights"
        raise FileNotFoundError(f"{found} at {path}")
