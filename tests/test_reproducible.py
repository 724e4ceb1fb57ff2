"""The same results on one thread and on two, and on every code path of the processor.

This file is also the program that computes them: `python test_reproducible.py FILE THREADS...`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.config import TrainingConfig
from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.models import ReidModel
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

pytestmark = pytest.mark.slow
#: Largest absolute differences allowed between two ways of computing. Scores lie from 0 to 1.2,
#: losses from 0 to 20, all in single precision. Sums in another order differ in the last digits.
TOLERANCES = {"matching": 2e-6, "self": 2e-6, "rerank": 2e-6, "tlift": 2e-6, "losses": 2e-5}
#: Weights after a training step, of size 0.05, in most starts and in all. Where two locations match
#: almost alike, the last digit decides which of them the gradient goes to.
USUAL, LARGEST = 1e-6, 2e-3
STARTS = 5
#: What asks torch and the libraries below it for a code path. torch takes it at its word, so a
#: process finds the widest path only without these.
_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
_DEFAULT = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
_VARIABLES = {*_AVX2, *_DEFAULT}
FIRST, OTHERS = "widest, 1", ("widest, 2", "narrower, 1")


def draw(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Normal numbers from numpy, which are the same on every code path of torch."""
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def retrieval(rng: np.random.Generator) -> dict[str, object]:
    """Matching, re-ranking and TLift."""
    queries, gallery = (F.normalize(draw(rng, n, 32, 12, 4), dim=1) for n in (20, 60))
    matcher = QAConv(12, 4)
    with torch.no_grad():
        matcher.fc.weight.copy_(draw(rng, 1, 96))
        matcher.logit_bn.bias.zero_()
    people = rng.normal(size=(20, 6))
    points = people[rng.integers(0, 20, 170)] + rng.normal(size=(170, 6)) / 2
    distances = np.linalg.norm(points[:, None] - points, axis=2).astype(np.float32)
    queried = rng.random((60, 400)).astype(np.float32), rng.integers(0, 3, 60)
    return {
        "matching": match_gallery(matcher, queries, gallery),
        "self": match_gallery(matcher, gallery, gallery),
        "rerank": k_reciprocal_rerank(
            distances[:20, 20:], distances[:20, :20], distances[20:, 20:]
        ),
        "tlift": tlift(
            *queried, rng.uniform(0, 3000, 60), rng.integers(0, 3, 400), rng.uniform(0, 3000, 400)
        ),
    }


def training(rng: np.random.Generator) -> dict[str, object]:
    """Two training steps, of which the first fills the memory, from each of several starts."""
    config = TrainingConfig(
        backbone="resnet18", pretrained=False, final_layer="layer2", neck_channels=16,
        height=32, width=16, batch_size=8,
    )  # fmt: skip
    losses, weights = [], []
    for _ in range(STARTS):
        model = ReidModel(config, 6)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(draw(rng, *parameter.shape) / parameter[0].numel() ** 0.5)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(2):
            images = draw(rng, 8, 3, 32, 16).sigmoid()
            maps, labels = model.backbone(images), torch.from_numpy(rng.integers(0, 6, 8))
            loss, _ = model.criterion(maps, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.criterion.after_step(maps, labels)
        losses.append(float(loss.detach()))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return {"losses": losses, "weights": torch.stack(weights)}


def write_results(path: str, threads: list[int]) -> None:
    """Compute everything with each number of threads, and write an npz file for each."""
    for number in threads:
        torch.set_num_threads(number)
        rng = np.random.default_rng(0)
        found = retrieval(rng) | training(rng)
        found["path"] = torch.backends.cpu.get_cpu_capability()
        found["threads"] = torch.get_num_threads()
        np.savez(f"{path}, {number}", **{name: np.asarray(value) for name, value in found.items()})


def compute(place: Path, threads: list[int], wishes: dict[str, str]) -> dict[str, dict]:
    """What a process computes with each number of threads; only `wishes` asks for a code path."""
    outside = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    places = [str(Path(__file__).resolve().parents[1]), outside.get("PYTHONPATH", "")]
    outside |= {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", __file__, str(place), *map(str, threads)]
    subprocess.run(command, env=outside | wishes, check=True)
    return {path.stem: dict(np.load(path)) for path in place.parent.glob(f"{place.name}, *.npz")}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What is computed in each way."""
    folder = tmp_path_factory.mktemp("results")
    found = compute(folder / "widest", [1, 2], {})
    wishes = _AVX2 if found[FIRST]["path"] == "AVX512" else _DEFAULT
    return found | compute(folder / "narrower", [1], wishes)


@pytest.mark.parametrize("way", OTHERS)
def test_results_do_not_depend_on_the_way(results: dict, way: str) -> None:
    for name, tolerance in TOLERANCES.items():
        expected, found = results[FIRST][name], results[way][name]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)
    differences = np.abs(results[way]["weights"] - results[FIRST]["weights"]).max(axis=1)
    assert np.median(differences) <= USUAL and differences.max() <= LARGEST


def test_results_are_worth_comparing(results: dict) -> None:
    """Neither constant nor saturated, and computed in the ways they are named by."""
    first = results[FIRST]
    assert all(first[name].std() > 0.05 for name in ("matching", "self", "rerank", "tlift"))
    assert 0 < first["losses"].min() and first["losses"].max() < 20
    assert first["weights"].std() > 0.01 and len(first["weights"]) == STARTS
    assert [results[way]["threads"] for way in (FIRST, *OTHERS)] == [1, 2, 1]
    if platform.machine().lower() in ("x86_64", "amd64"):
        paths = [str(results[way]["path"]) for way in (FIRST, "narrower, 1")]
        assert paths in (["AVX512", "AVX2"], ["AVX2", "DEFAULT"], ["DEFAULT", "DEFAULT"])


if __name__ == "__main__":
    write_results(sys.argv[1], [int(number) for number in sys.argv[2:]])
