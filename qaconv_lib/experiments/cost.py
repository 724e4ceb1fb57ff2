"""What each step costs in time and memory."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch

from qaconv_lib._processes import peak_megabytes
from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.records import provenance, write_record
from qaconv_lib.experiments.runs import Run, times
from qaconv_lib.losses import LOSSES, ClassMemoryLoss, QAConvLoss
from qaconv_lib.models import ReidModel, default_device
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

_IMAGES = 256  # extracted and matched to measure a rate


def training_step(profile: str, loss: str, device: str) -> tuple[float, str]:
    """Seconds of one training step, the memory full."""
    run = Run(loss, get_profile(profile).datasets["duke"], profile)
    trainer = run.config().trainer(run.table(), device=device)
    criterion, batch = trainer.model.criterion, run.config().batch_size
    if isinstance(criterion, QAConvLoss | ClassMemoryLoss):
        features = criterion.memory.features
        features.copy_(torch.nn.functional.normalize(torch.randn_like(features), dim=1))
        criterion.memory.valid.fill_(True)
    images, labels = zip(*(trainer.images[i] for i in range(batch)), strict=True)
    inputs = torch.stack(images).to(device), torch.tensor(labels, device=device)
    trainer.model.train()
    return _seconds(lambda: trainer.step(*inputs), device), "s a step"


def extraction(profile: str, loss: str, device: str) -> tuple[float, str]:
    """Seconds to extract the features of an image, reading its file included."""
    model, table = _model(profile, loss, device)
    return _seconds(lambda: model.extract(table), device) / len(table), "s an image"


def matching(profile: str, loss: str, device: str) -> tuple[float, str]:
    """Seconds to compare a pair of images whose features are there."""
    model, table = _model(profile, loss, device)
    maps = model.extract(table)
    return _seconds(lambda: model.similarity(maps, maps), device) / len(maps) ** 2, "s a pair"


def reranking(profile: str, loss: str, device: str) -> tuple[float, str]:
    """Seconds to re-rank all queries of the target; random distances do."""
    data = load_dataset(get_profile(profile).datasets["duke"])
    rng = np.random.default_rng(0)
    sizes = len(data.query), len(data.gallery)
    tables = [
        rng.random(shape, dtype=np.float32) for shape in (sizes, sizes[:1] * 2, sizes[1:] * 2)
    ]
    for square in tables[1:]:
        np.fill_diagonal(square, 0)
    query_gallery, queries, gallery = tables
    act = partial(k_reciprocal_rerank, query_gallery, queries, gallery)
    return _seconds(act, "cpu"), "s a test set"


def lifting(profile: str, loss: str, device: str) -> tuple[float, str]:
    """Seconds of TLift for all queries of the target; random similarities do."""
    data = load_dataset(get_profile(profile).datasets["duke"])
    similarity = np.random.default_rng(0).random((len(data.query), len(data.gallery)))
    return _seconds(lambda: tlift(similarity, *times(data)), "cpu"), "s a test set"


def nothing(profile: str, loss: str, device: str) -> tuple[float, str]:
    """No work at all: what a process holds that has only started."""
    return 0.0, "s"


Step = Callable[[str, str, str], tuple[float, str]]
#: Steps measured, and for which losses.
STEPS: dict[str, tuple[Step, tuple[str, ...]]] = {
    "nothing": (nothing, ("any",)),
    "training step": (training_step, tuple(LOSSES)),
    "extraction": (extraction, ("qaconv", "softmax")),
    "matching": (matching, ("qaconv", "softmax")),
    "re-ranking": (reranking, ("any",)),
    "TLift": (lifting, ("any",)),
}


def class_memory_bytes(profile: str, num_classes: int) -> int:
    """Bytes of QAConv's class memory in single precision: c * d * h * w * 4."""
    config = get_profile(profile).config("qaconv")
    stride = {"layer2": 8, "layer3": 16, "layer4": 32}[config.final_layer]
    locations = -(-config.height // stride) * -(-config.width // stride)
    assert config.neck_channels is not None  # QAConv has a neck in every profile
    return num_classes * config.neck_channels * locations * 4


def cost_record(profile: str = "laptop", device: str | None = None) -> dict:
    """Measure every step in a process of its own; write the record.

    Memory is the most that the process has held: of the GPU on a GPU, else of the process with its
    libraries and data (None where the system does not tell). The step "nothing" shows what the
    libraries alone take.
    """
    device = device or default_device().type
    rows = []
    for step, (_, losses) in STEPS.items():
        for loss in losses:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(_measure, (step, profile, loss, device)))
    record = {
        "experiment": "cost",
        "loss": "all",
        "settings": {},
        "source": get_profile(profile).datasets["duke"],
        "profile": profile,
        "seed": 0,
        "steps": rows,
        "class_memory_bytes_of_1000_classes": class_memory_bytes(profile, 1000),
        **provenance(device),
    }
    write_record("cost", f"{profile}-{device}", record)
    return record


def _measure(step: str, profile: str, loss: str, device: str) -> dict:
    value, unit = STEPS[step][0](profile, loss, device)
    return {
        "step": step,
        "loss": loss,
        "seconds": float(f"{value:.3g}"),
        "unit": unit,
        "peak_megabytes": peak_megabytes(device),
    }


def _model(profile: str, loss: str, device: str) -> tuple[ReidModel, pd.DataFrame]:
    config = get_profile(profile).config(loss)
    data = load_dataset(get_profile(profile).datasets["duke"])
    return ReidModel(config, 2).to(device).eval(), data.gallery.head(_IMAGES)


def _seconds(act: Callable[[], object], device: str, repeats: int = 5) -> float:
    """Median time of a call, after one to warm up."""
    taken = []
    for number in range(repeats + 1):
        start = time.perf_counter()
        act()
        if device != "cpu":
            torch.cuda.synchronize()
        if number:
            taken.append(time.perf_counter() - start)
    return float(np.median(taken))
