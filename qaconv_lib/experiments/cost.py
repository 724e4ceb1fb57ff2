"""What a step costs: its time and memory measured, and a training step's memory predicted."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from qaconv_lib._processes import peak_megabytes, process_count
from qaconv_lib.backbones import map_size
from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments import records
from qaconv_lib.experiments.profiles import RunConfig, get_profile
from qaconv_lib.experiments.runs import Run, times
from qaconv_lib.losses import LOSSES, ClassMemoryLoss, QAConvLoss, compares_maps
from qaconv_lib.models import ReidModel, choose_device, default_device, make_criterion
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

IMAGES = 256  # extracted and matched to measure a rate
#: Steps measured, and for which losses. The first shows what the libraries alone take.
STEPS = {
    "nothing": ("any",),
    "training step": tuple(LOSSES),
    "extraction": ("qaconv", "softmax"),
    "matching": ("qaconv", "softmax"),
    "re-ranking": ("any",),
    "TLift": ("any",),
}
_DRY_IMAGES, _DRY_CLASSES = (2, 3), (4, 8)  # of the dry runs


def cost_record(profile: str = "laptop", device: str | None = None) -> dict:
    """Measure every step in a process of its own; write the record.

    Memory is the most that the process has held: of the GPU on a GPU, else of the process with its
    libraries and data (None where the system does not tell).
    """
    device, rows = torch.device(device or default_device()).type, []
    for step, losses in STEPS.items():
        for loss in losses:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure_step, (step, profile, loss, device)))
    about = {"experiment": "cost", "loss": "all", "settings": {}, "profile": profile, "seed": 0}
    record = about | {
        "source": get_profile(profile).datasets["duke"],
        "steps": rows,
        "class_memory_bytes_of_1000_classes": class_memory_bytes(profile, 1000),
        **records.provenance(device),
    }
    records.write_record("cost", f"{profile}-{device}", record)
    return record


def class_memory_bytes(profile: str, num_classes: int) -> int:
    """Bytes of QAConv's class memory in single precision: c * d * h * w * 4."""
    config = get_profile(profile).config("qaconv")
    height, width = map_size(config.height, config.width, config.final_layer)
    assert config.neck_channels is not None  # QAConv has a neck in every profile
    return num_classes * config.neck_channels * height * width * 4


def measure_step(step: str, profile: str, loss: str, device: str, calls: int = 5) -> dict:
    """A row of the record: the mean time of some calls, after two to warm up."""
    from torch.utils.benchmark import Timer

    seconds, unit = 0.0, "s"
    if step != "nothing":
        act, count, unit = _prepare(step, profile, loss, device)
        timer = Timer("act()", globals={"act": act}, num_threads=torch.get_num_threads())
        seconds = float(f"{timer.timeit(calls).mean / count:.3g}")
    about = {"step": step, "loss": loss, "seconds": seconds, "unit": unit}
    return about | {"peak_megabytes": peak_megabytes(device)}


def _prepare(
    step: str, profile: str, loss: str, device: str
) -> tuple[Callable[[], object], int, str]:
    """A call, how many units it does, and their name. Random scores serve for post-processing."""
    run = Run("qaconv" if loss == "any" else loss, get_profile(profile).datasets["duke"], profile)
    if step == "training step":
        return _training_step(run, device), 1, "s a step"
    data = load_dataset(run.source)
    if step in ("extraction", "matching"):
        model, table = ReidModel(run.config(), 2).to(device).eval(), data.gallery.head(IMAGES)
        if step == "extraction":  # reading the files included
            return lambda: model.extract(table), len(table), "s an image"
        maps = model.extract(table)
        return lambda: model.similarity(maps, maps), len(maps) ** 2, "s a pair"
    rng, q, g = np.random.default_rng(0), len(data.query), len(data.gallery)
    scores, queries, gallery = (
        rng.random(size, dtype=np.float32) for size in ((q, g), (q, q), (g, g))
    )
    if step == "TLift":
        return lambda: tlift(scores, *times(data)), 1, "s a test set"
    for square in (queries, gallery):
        np.fill_diagonal(square, 0)
    return lambda: k_reciprocal_rerank(scores, queries, gallery), 1, "s a test set"


def _training_step(run: Run, device: str) -> Callable[[], object]:
    """One training step, the memory full."""
    trainer = run.config().trainer(run.table(), device=device)
    criterion = trainer.model.criterion
    if isinstance(criterion, QAConvLoss | ClassMemoryLoss):
        features = criterion.memory.features
        features.copy_(F.normalize(torch.randn_like(features), dim=1))
        criterion.memory.valid.fill_(True)
    batch = [trainer.images[i] for i in range(run.config().batch_size)]
    images, labels = zip(*batch, strict=True)
    inputs = torch.stack(images).to(device), torch.tensor(labels, device=device)
    trainer.model.train()
    return lambda: trainer.step(*inputs)


# Predicted ----------------------------------------------------------------------------------------


def memory_table(run: Run, device: str | None) -> str:
    """What a training step of a run will hold, in MB, one part per line."""
    table, config = run.table(), run.config()
    identities = table["identity"].nunique()
    parts = predict_step_memory(config, identities, processes=process_count())
    kept = 0 if config.workers else len(table) * 3 * config.height * config.width
    parts["images kept by the loader, in main memory"] = kept
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
    """Bytes that a training step holds at its peak, part by part (chapter 14).

    What autograd keeps is measured in dry runs on a few random images, on the CPU, and scaled to
    the batch, which `processes` share; the rest is counted. Libraries, the GPU's context, cuDNN's
    working space and the loader's images are left out.

    Returns:
        "weights" (with BN statistics), "gradients", "momentum", "class memory", "images" (of the
        batch), "backbone" (kept for the backward pass, for a micro-batch), "loss" (likewise, with
        the matching), "passing" (the largest layer's input and output) and "sum".
    """
    model = ReidModel(dataclasses.replace(config, pretrained=False, weights=None), 2).train()
    backbone, share = model.backbone, config.batch_size // processes
    micro, half, largest = share // config.accumulate, config.precision != "float32", 0
    shape = backbone.channels, *backbone.map_size(config.height, config.width)

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, _size(t for t in (*inputs, output) if isinstance(t, Tensor)))

    def kept_by_backbone(images: int) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):  # float16 takes as much
            return _kept(model, backbone, torch.rand(images, 3, config.height, config.width))

    def full_criterion(classes: int) -> tuple[nn.Module, int]:
        """With the memory full, and the bytes of that."""
        criterion = make_criterion(config, classes, backbone)
        if not isinstance(criterion, QAConvLoss | ClassMemoryLoss):
            return criterion, 0
        criterion.memory.valid.fill_(True)
        return criterion, criterion.memory.features.nbytes

    def kept_by_loss(images: int, classes: int) -> float:
        maps = torch.rand(images, *shape)
        maps = maps.to(torch.bfloat16 if half and compares_maps(config.loss) else torch.float32)
        criterion, labels = full_criterion(classes)[0], torch.arange(images) % classes
        return _kept(criterion, criterion, maps.requires_grad_(), labels)

    def loss_of_a_micro_batch(classes: int) -> float:
        return _line(lambda images: kept_by_loss(images, classes), _DRY_IMAGES, micro)

    for module in backbone.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    head, memory = full_criterion(num_classes)
    parameters = [*backbone.parameters(), *head.parameters()]
    trained = _size(p for p in parameters if p.requires_grad)
    parts = {
        "weights": _size([*parameters, *backbone.buffers(), *head.buffers()]) - memory,
        "gradients": trained,
        "momentum": trained if config.momentum else 0,
        "class memory": memory,
        "images": share * 3 * config.height * config.width * 4,
        "backbone": round(_line(kept_by_backbone, _DRY_IMAGES, micro)),
        # It grows with the images, the classes, and the product of both.
        "loss": round(_line(loss_of_a_micro_batch, _DRY_CLASSES, num_classes)),
        "passing": largest * micro // _DRY_IMAGES[-1],
    }
    return parts | {"sum": sum(parts.values())}


def _line(found: Callable[[int], float], places: tuple[int, int], wanted: int) -> float:
    """The value at a place on the line through the values at two others."""
    low, high = map(found, places)
    return low + (wanted - places[0]) * (high - low) / (places[1] - places[0])


def _kept(owner: nn.Module, act: Callable[..., object], *inputs: Tensor) -> int:
    """Bytes that autograd keeps after a forward pass, the owner's own tensors left out."""
    own = {t.untyped_storage().data_ptr() for t in (*owner.parameters(), *owner.buffers())}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() * (storage.data_ptr() not in own)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = act(*inputs)  # holds what was kept, so that no two share an address
    del result
    return sum(kept.values())


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
