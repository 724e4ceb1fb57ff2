"""What a step costs: that every step can be measured, and its memory foretold."""

import dataclasses
import multiprocessing

import pandas as pd
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from qaconv_lib.cli import main
from qaconv_lib.experiments import cost
from qaconv_lib.experiments.bench import measure
from qaconv_lib.experiments.cost import predict_step_memory
from qaconv_lib.experiments.profiles import RunConfig, get_profile
from qaconv_lib.experiments.records import read_record
from qaconv_lib.losses import LOSSES
from qaconv_lib.models import ReidModel


@pytest.mark.parametrize("step", cost.STEPS)
def test_every_step_can_be_measured(step, few_people, monkeypatch):
    monkeypatch.setenv("QACONV_DATA", str(few_people))
    monkeypatch.setattr(cost, "IMAGES", 8)
    for loss in cost.STEPS[step]:
        row = cost.measure_step(step, "smoke", loss, "cpu", calls=1)
        assert row["step"] == step and row["loss"] == loss and row["unit"].startswith("s")
        assert row["seconds"] == 0 if step == "nothing" else row["seconds"] > 0
        assert row["peak_megabytes"] is None or row["peak_megabytes"] > 50


def test_the_record_has_a_row_for_each_step_and_loss(no_records, monkeypatch, capsys):
    monkeypatch.setattr(cost, "STEPS", {"nothing": ("any",)})
    assert main(["run", "cost", "--profile", "smoke", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "nothing (any): 0.0 s\n"
    record = read_record("cost", "smoke-cpu")
    assert [row["step"] for row in record["steps"]] == ["nothing"]
    assert record["class_memory_bytes_of_1000_classes"] == cost.class_memory_bytes("smoke", 1000)


def test_memory_of_the_class_memory_is_what_a_model_holds():
    model = ReidModel(get_profile("smoke").config("qaconv", pretrained=False), 7)
    assert cost.class_memory_bytes("smoke", 7) == model.criterion.memory.features.nbytes
    # 98,304 bytes a class of 24 x 8 x 128: Market-1501's 751 classes take 74 MB.
    assert cost.class_memory_bytes("paper", 751) == 751 * 98_304


SMALL = RunConfig(
    backbone="resnet18", pretrained=False, height=128, width=64, batch_size=16, epochs=1
)
TINY = dataclasses.replace(
    SMALL, final_layer="layer2", neck_channels=8, height=32, width=16, batch_size=8
)
#: How far the prediction may lie from the measured: its share, and MB on the CPU.
TOLERANCE, SLACK = 0.3, 5


def make_trainer(config, classes, device):
    """A trainer with a full memory; its images are never read."""
    count = max(classes, config.batch_size)
    identities = [number % classes for number in range(count)]
    table = pd.DataFrame({"path": "x.png", "identity": identities})
    trainer = config.trainer(table, device=device)
    if hasattr(trainer.model.criterion, "memory"):
        trainer.model.criterion.memory.features.normal_()
        trainer.model.criterion.memory.valid.fill_(True)
    trainer.model.train()
    return trainer


def draw(config, classes, device):
    images = torch.rand(config.batch_size, 3, config.height, config.width, device=device)
    return images, torch.arange(config.batch_size, device=device) % classes


CPU_CASES = {"micro-batches": ({"accumulate": 2}, 50), "many classes": ({}, 400)}


def megabytes_of_steps():
    """What a step holds beyond what was held before it, for every case: the lesser of two."""
    torch.set_num_threads(1)
    found = {}
    for name, (change, classes) in CPU_CASES.items():
        config = dataclasses.replace(SMALL, **change)
        trainer, inputs = make_trainer(config, classes, "cpu"), draw(config, classes, "cpu")
        trainer.step(*inputs)  # makes the momentum, and what libraries set up once
        found[name] = []
        for _ in range(2):
            trainer.optimizer.zero_grad()
            found[name].append(measure(lambda t=trainer, i=inputs: t.step(*i)).megabytes)
    return found


@pytest.fixture(scope="module")
def measured():
    """From a process of its own, whose allocator gives every large block back at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(megabytes_of_steps)


@pytest.mark.parametrize("case", CPU_CASES)
def test_prediction_against_a_step_on_the_cpu(case, measured):
    """A step holds, beyond weights, momentum and memory, all other parts."""
    if None in measured[case]:
        pytest.skip("this system does not tell the memory of a process")
    change, classes = CPU_CASES[case]
    parts = predict_step_memory(dataclasses.replace(SMALL, **change), classes)
    held = ("weights", "momentum", "class memory", "images")
    expected = (parts["sum"] - sum(parts[name] for name in held)) / 1e6
    assert min(measured[case]) == pytest.approx(expected, rel=TOLERANCE, abs=SLACK)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("change", [{}, {"accumulate": 4}, {"precision": "bfloat16"}])
def test_prediction_against_a_step_on_the_gpu(change):
    config = dataclasses.replace(SMALL, height=256, width=128, batch_size=32, **change)
    expected = predict_step_memory(config, 200)["sum"]
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    trainer, inputs = make_trainer(config, 200, "cuda"), draw(config, 200, "cuda")
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        trainer.step(*inputs)
    found = torch.cuda.max_memory_allocated() - before
    assert found == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_momentum_and_memory_are_those_of_the_model(loss):
    config = dataclasses.replace(TINY, loss=loss)
    parts, model = predict_step_memory(config, 9), make_trainer(config, 9, "cpu").model
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert parts["weights"] + parts["class memory"] == held
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert parts["gradients"] == parts["momentum"] == trained
    assert parts["sum"] == sum(size for name, size in parts.items() if name != "sum")


def test_what_each_setting_saves():
    plain = predict_step_memory(TINY, 20)
    half = predict_step_memory(dataclasses.replace(TINY, accumulate=2), 20)
    shared = predict_step_memory(TINY, 20, processes=2)
    for name in ("backbone", "loss", "passing"):
        assert half[name] == shared[name] < plain[name]
    assert half["images"] == plain["images"] == 2 * shared["images"]
    small, coarse = (
        predict_step_memory(dataclasses.replace(SMALL, precision=precision), 20)
        for precision in ("float32", "bfloat16")
    )  # of a network so small as TINY the half-precision copies of the weights outweigh the rest
    assert coarse["backbone"] < 0.8 * small["backbone"] and coarse["loss"] < small["loss"]
    frozen = predict_step_memory(dataclasses.replace(TINY, frozen_stages=2), 20)
    assert frozen["backbone"] < plain["backbone"] and frozen["gradients"] < plain["gradients"]


def test_the_loss_grows_with_the_classes_and_is_exact_between_dry_runs():
    """Scaled from 2 and 3 images and 4 and 8 classes, it is what more of both really keep."""
    sizes = {count: predict_step_memory(TINY, count)["loss"] for count in (10, 30)}
    assert sizes[30] > 2 * sizes[10]
    criterion, kept = make_trainer(TINY, 30, "cpu").model.criterion, {}
    own = {t.untyped_storage().data_ptr() for t in (*criterion.parameters(), *criterion.buffers())}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() * (storage.data_ptr() not in own)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = criterion(torch.rand(8, 8, 4, 2, requires_grad=True), torch.arange(8))
    assert sizes[30] == pytest.approx(sum(kept.values()), rel=0.02) and result[0].requires_grad
