"""What each step costs: its time and memory, measured (appendix A)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from qaconv_lib._processes import peak_megabytes
from qaconv_lib.backbones import map_size
from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments import records
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run, times
from qaconv_lib.losses import LOSSES, ClassMemoryLoss, QAConvLoss
from qaconv_lib.models import ReidModel, default_device
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
