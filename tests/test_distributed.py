"""Two processes that work as one, held against one process that does it all."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny import TINY, noisy_people

from qaconv_lib import _processes as distributed
from qaconv_lib.losses import LOSSES
from qaconv_lib.models import ReidModel
from qaconv_lib.scale import distributed as joined
from qaconv_lib.scale.retrieval import extract_in_shares, similarity_in_shares

SMALL = dataclasses.replace(
    TINY, batch_size=8, epochs=2, decay_epochs=1, backbone_learning_rate=0.01
)
CLASSES = 5
# BN layers that hold their activation, as timm's do, and stages that stand still.
LITE = dataclasses.replace(SMALL, backbone="efficientnet_lite0", frozen_stages=2)
# Micro-batches of which each process takes half.
PARTS = dataclasses.replace(SMALL, loss="softmax", accumulate=2, clip_norm=0.5)
CONFIGS = {loss: dataclasses.replace(SMALL, loss=loss) for loss in LOSSES}
CONFIGS |= {"lite": LITE, "micro-batches": PARTS}


def steps(config, table):
    """Weights, memory and losses after three steps on fixed batches, in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        trainer = config.trainer(table, device="cpu")
        trainer.model.train()
        generator, losses = torch.Generator().manual_seed(5), []
        for _ in range(3):
            images = torch.rand(8, 3, 32, 16, generator=generator)
            labels = torch.randint(CLASSES, (8,), generator=generator)
            own = distributed.share(8)
            if config.accumulate > 1 and distributed.process_count() == 1:
                own = torch.tensor([0, 1, 4, 5, 2, 3, 6, 7])  # as two processes take them
            loss, right = trainer.step(images[own], labels[own])
            losses.append(distributed.add_up(loss / distributed.process_count(), right))
        return {"losses": losses, "state": trainer.model.state_dict()}
    finally:
        torch.set_default_dtype(torch.float32)


def retrieval(table):
    """Maps, similarities and the best images of a model that is the same everywhere."""
    torch.manual_seed(1)
    model = ReidModel(SMALL, CLASSES).eval()
    maps = extract_in_shares(model, table)
    scores = similarity_in_shares(model, maps[:3], maps)
    alone = extract_in_shares(model, table.head(1))
    itself = similarity_in_shares(model, maps, maps)
    return {"maps": maps, "scores": scores, "alone": alone, "itself": itself}


def epochs(table, folder):
    """Two epochs by the trainer's own batches, the second after a restart."""
    first = SMALL.trainer(table, device="cpu", run_folder=folder)
    seen = [labels for _, labels in first._batches()]
    first.train(epochs=1)
    distributed.barrier()
    trainer = SMALL.trainer(table, device="cpu", run_folder=folder)
    trainer.train()
    found = {"seen": seen, "resumed": first.epoch, "history": trainer.history}
    return found | {"state": trainer.model.state_dict()}


def drawn(table):
    """Batches along the graph, of this process."""
    more = {"loss": "pairwise", "sampler": "graph", "images_per_identity": 2}
    trainer = dataclasses.replace(SMALL, **more).trainer(table, device="cpu")
    return trainer._batches().batch_sampler


def worker(rank, folder, table):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {name: steps(config, table) for name, config in CONFIGS.items()}
    found["retrieval"] = retrieval(table)
    found["epochs"] = epochs(table, Path(folder) / "run")
    found["drawn"] = drawn(table)
    found["gathered"] = distributed.gather(torch.full((2 + rank, 3), rank), torch.tensor([rank]))
    try:
        dataclasses.replace(SMALL, batch_size=7).trainer(table, device="cpu")
    except ValueError as error:
        found["odd batch"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()  # before one of them goes


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found, and what one finds."""
    folder = tmp_path_factory.mktemp("two")
    table = noisy_people(folder, [number % CLASSES for number in range(17)])
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, str(folder), table)) for rank in (0, 1)]
    for process in processes:
        process.start()
    alone = {name: steps(config, table) for name, config in CONFIGS.items()}
    alone["retrieval"] = retrieval(table)
    alone["drawn"] = drawn(table)
    for process in processes:
        process.join(300)
    together = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    return alone, together, folder, [process.exitcode for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_shares_of_a_batch_train_like_the_batch(both, name):
    alone, together, *_ = both
    for found in together:
        np.testing.assert_allclose(found[name]["losses"], alone[name]["losses"], rtol=1e-8)
        for key, value in alone[name]["state"].items():
            torch.testing.assert_close(found[name]["state"][key], value, rtol=1e-7, atol=1e-9)
    assert alone[name]["losses"][-1][0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["maps", "scores", "alone", "itself"])
def test_retrieval_in_shares_is_that_of_one_process(both, what):
    alone, together, *_ = both
    for found in together:
        torch.testing.assert_close(found["retrieval"][what], alone["retrieval"][what])


@pytest.mark.slow
def test_epochs_share_the_images_and_can_be_resumed(both):
    _, (first, second), folder, _ = both
    assert first["epochs"]["resumed"] == 1
    assert [row["epoch"] for row in first["epochs"]["history"]] == [1, 2]
    assert first["epochs"]["history"] == second["epochs"]["history"]
    for key, value in first["epochs"]["state"].items():
        assert torch.equal(value, second["epochs"]["state"][key])
    batches = [len(labels) for found in (first, second) for labels in found["epochs"]["seen"]]
    assert batches == [4] * 4  # two batches of eight, half of each in either process
    files = sorted(path.name for path in (folder / "run").iterdir())
    assert files == ["last.safetensors", "log.csv"]


@pytest.mark.slow
def test_batches_along_the_graph_are_shared(both):
    alone, (first, second), *_ = both
    joined = [a + b for a, b in zip(first["drawn"], second["drawn"], strict=True)]
    assert joined == alone["drawn"] and [len(batch) for batch in first["drawn"]] == [4, 4]


@pytest.mark.slow
def test_tensors_of_unequal_length_are_gathered_and_odd_batches_named(both):
    for found in both[1]:
        rows, ranks = found["gathered"]
        assert rows[:, 0].tolist() == [0, 0, 1, 1, 1] and ranks.tolist() == [0, 1]
        assert "batch_size 7" in found["odd batch"]


def test_one_process_counts_as_one_of_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert joined.connect() is None and not dist.is_initialized()
    assert joined.connect("cpu") == torch.device("cpu")
    assert (distributed.process_count(), distributed.process_rank()) == (1, 0)
    assert distributed.share(7) == slice(0, 7) and distributed.add_up(2, 3.5) == [2, 3.5]


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_with_the_command_line(few_people, tmp_path):
    """What the launch lines of appendix A start."""
    (tmp_path / "results").mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launch += ["-m", "qaconv_lib"]
    paths = os.pathsep.join(map(str, (tmp_path, few_people)))
    for folder in ("train", "evaluate"):
        targets = ["mini-market"] * (folder == "evaluate")
        done = subprocess.run(
            [*launch, folder, "qaconv", "mini-market", *targets, "--profile", "smoke", "--quiet"],
            env=os.environ | {"QACONV_DATA": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / "results" / folder).glob("*.json")
        assert json.loads(record.read_text())["processes"] == 2
    assert "+RR" in json.loads(record.read_text())["stages"]
    assert done.stdout.count("mini-market alone") == 1  # the first process alone reports


@pytest.mark.parametrize("size", ["two", "", "-1", "1.5", "\u0662"])
def test_a_wrong_number_of_processes_is_named(size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match="WORLD_SIZE must be a whole number"):
        joined.connect()
