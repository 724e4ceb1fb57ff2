"""The state of a training run in one file, and going on from it (chapter 7)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from qaconv_lib.checkpoints import read_checkpoint, write_checkpoint
from qaconv_lib.models import differing_settings, load_weights

if TYPE_CHECKING:
    from qaconv_lib.training import Trainer


def write_state(path: Path, trainer: Trainer) -> None:
    """Write everything the next epoch depends on: weights, memory, momentum, loss scaling."""
    tensors = {f"model.{key}": value for key, value in trainer.model.state_dict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
    details = {
        "config": dataclasses.asdict(trainer.config),
        "num_classes": trainer.model.num_classes,
        "images": trainer.images_hash,
        "epoch": trainer.epoch,
        "history": trainer.history,
        "timings": trainer.timings,
    }
    if scaling := trainer.step.state():
        details["scaling"] = scaling
    write_checkpoint(path, tensors, details)


def read_state(path: Path, trainer: Trainer) -> None:
    """Put a trainer where the run in the file was.

    Raises:
        ValueError: the file is damaged, or of a run with other settings or on other images.
    """
    tensors, details = read_checkpoint(path)
    if not isinstance(details.get("config"), dict):
        raise ValueError(f"{path} is damaged: it does not say its settings")
    if other := differing_settings(details.get("config"), trainer.config):
        raise ValueError(
            f"{path} belongs to a run with other settings ({', '.join(other)}); "
            "give another run folder, or remove this one"
        )
    if details.get("images") != trainer.images_hash:
        raise ValueError(
            f"{path} belongs to a run on other images; give another run folder, or remove this one"
        )
    epoch: Any = details.get("epoch")
    history: Any = details.get("history")
    if not _rows(history, epoch) or epoch > trainer.config.epochs:
        raise ValueError(f"{path} is damaged: it does not say which epochs are done")
    load_weights(trainer.model, _part(tensors, "model."), str(path))
    state, buffers = trainer.optimizer.state_dict(), _part(tensors, "momentum.")
    wanted = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    shapes = {str(index): parameter.shape for index, parameter in enumerate(wanted)}
    if any(shapes.get(index) != buffer.shape for index, buffer in buffers.items()):
        raise ValueError(f"{path} is damaged: its momentum is of another model")
    state["state"] = {int(i): {"momentum_buffer": buffer} for i, buffer in buffers.items()}
    trainer.optimizer.load_state_dict(state)
    try:
        trainer.step.restore(details.get("scaling", {}))
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    timings: Any = details.get("timings")  # which older files lack
    trainer.timings = timings if _rows(timings, epoch) else [{} for _ in history]
    trainer.epoch, trainer.history = epoch, history


def _rows(values: object, count: object) -> bool:
    """Whether values are a list of so many dictionaries."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(row, dict) for row in values)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
