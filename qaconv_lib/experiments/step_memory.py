"""How much memory a training step will take, told before the run (chapter 7).

What autograd keeps for the backward pass is measured in a dry run on a few random images, on the
CPU, and scaled to the batch; the rest is counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from qaconv_lib._processes import process_count
from qaconv_lib.backbones import Backbone
from qaconv_lib.experiments.profiles import RunConfig
from qaconv_lib.experiments.runs import Run
from qaconv_lib.losses import ClassMemoryLoss, QAConvLoss, compares_maps
from qaconv_lib.models import ReidModel, choose_device, make_criterion

_IMAGES = (2, 3)  # of the dry runs; the difference is what one image takes
_CLASSES = (4, 8)


def memory_table(run: Run, device: str | None) -> str:
    """What a training step of a run will hold, in MB, one part a line."""
    table, config = run.table(), run.config()
    identities = table["identity"].nunique()
    parts = predict_step_memory(config, identities, processes=process_count())
    parts["images kept by the loader, in main memory"] = loader_bytes(config, len(table))
    place = choose_device(device)
    if place.type == "cuda":
        parts["all that this GPU has"] = torch.cuda.get_device_properties(place).total_memory
    micro = config.batch_size // config.accumulate
    lines = [
        f"{run.name}: a step on {config.batch_size} images, {micro} at a time, of {config.height} "
        f"x {config.width} pixels; {identities:,} identities; {config.precision}"
    ]
    return "\n".join(lines + [f"{size / 1e6:12,.1f} MB  {name}" for name, size in parts.items()])


def predict_step_memory(
    config: RunConfig, num_classes: int, *, processes: int = 1
) -> dict[str, int]:
    """Bytes that a training step holds at its peak, part by part.

    Not in it are the libraries and the GPU's context, cuDNN's own working space, and images that
    the loader keeps (see `loader_bytes`).

    Args:
        config: the settings; no weights are read or fetched.
        num_classes: training identities.
        processes: how many share a batch, each on a device of its own.

    Returns:
        "weights" (with BN statistics), "gradients", "momentum", "class memory", "images" (of the
        batch), "backbone" (kept for the backward pass, for a micro-batch), "loss" (likewise, with
        the matching), "passing" (the largest layer's input and output) and "sum".
    """
    model = ReidModel(dataclasses.replace(config, pretrained=False, weights=None), 2).train()
    share = config.batch_size // processes
    backbone, passing = _backbone_bytes(model, config.precision, share // config.accumulate)
    head = make_criterion(config, num_classes, model.backbone)
    memory = 0
    if isinstance(head, QAConvLoss | ClassMemoryLoss):
        memory = head.memory.features.nbytes
    parameters = [*model.backbone.parameters(), *head.parameters()]
    trained = _size(p for p in parameters if p.requires_grad)
    buffers = _size([*model.backbone.buffers(), *head.buffers()])
    parts = {
        "weights": _size(parameters) + buffers - memory,
        "gradients": trained,
        "momentum": trained if config.momentum else 0,
        "class memory": memory,
        "images": share * 3 * config.height * config.width * 4,
        "backbone": backbone,
        "loss": _loss_bytes(config, model.backbone, share // config.accumulate, num_classes),
        "passing": passing,
    }
    return parts | {"sum": sum(parts.values())}


def loader_bytes(config: RunConfig, num_images: int) -> int:
    """Bytes of the resized images that a loader without workers keeps in the main memory."""
    return 0 if config.workers else num_images * 3 * config.height * config.width


def _backbone_bytes(model: ReidModel, precision: str, images: int) -> tuple[int, int]:
    """What is kept of a micro-batch, and its largest layer's input and output."""
    config, largest, kept = model.config, 0, []

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, _size(t for t in (*inputs, output) if isinstance(t, Tensor)))

    leaves = [module for module in model.backbone.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(note) for module in leaves]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):  # float16: as much
        for count in _IMAGES:
            pixels = torch.rand(count, 3, config.height, config.width)
            kept.append(_kept_bytes(partial(model.backbone, pixels), model))
    for hook in hooks:
        hook.remove()
    return round(_line(_IMAGES, kept, images)), largest * images // _IMAGES[-1]


def _loss_bytes(config: RunConfig, backbone: Backbone, images: int, classes: int) -> int:
    """What the loss keeps: grows with the images, the classes, and the product of both."""
    half = compares_maps(config.loss) and config.precision != "float32"
    shape = backbone.channels, *backbone.map_size(config.height, config.width)

    def kept(count: int, some: int) -> int:
        criterion = make_criterion(config, some, backbone)
        if isinstance(criterion, QAConvLoss | ClassMemoryLoss):
            criterion.memory.valid.fill_(True)
        maps = torch.rand(count, *shape).to(torch.bfloat16 if half else torch.float32)
        labels = torch.arange(count) % some
        return _kept_bytes(partial(criterion, maps.requires_grad_(), labels), criterion)

    few, more = (_line(_IMAGES, [kept(b, c) for b in _IMAGES], images) for c in _CLASSES)
    return round(_line(_CLASSES, [few, more], classes))


def _line(places: tuple[int, int], values: list, wanted: int) -> float:
    """The value at a place on the line through two others."""
    (first, second), (low, high) = places, values
    return low + (wanted - first) * (high - low) / (second - first)


def _kept_bytes(act: Callable[[], object], module: nn.Module) -> int:
    """Bytes that autograd keeps after a forward pass, a module's own tensors left out."""
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = act()  # holds what was kept, so that no two share an address
    del result
    return sum(kept.values())


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
