"""Time and memory of each step: that every step runs and is named, not how fast it is."""

import pytest

from qaconv_lib.__main__ import main
from qaconv_lib.experiments import cost
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.records import read_record
from qaconv_lib.models import ReidModel


@pytest.mark.parametrize("step", cost.STEPS)
def test_every_step_can_be_measured(step, monkeypatch):
    monkeypatch.setattr(cost, "_IMAGES", 8)
    monkeypatch.setattr(cost, "_seconds", lambda act, device: (act(), 0.5)[1])
    for loss in cost.STEPS[step][1]:
        row = cost._measure(step, "smoke", loss, "cpu")
        assert row["step"] == step and row["loss"] == loss and row["unit"].startswith("s")
        assert row["seconds"] == 0 if step == "nothing" else row["seconds"] > 0
        assert row["peak_megabytes"] is None or row["peak_megabytes"] > 50


def test_the_record_has_a_row_for_each_step_and_loss(tmp_path, monkeypatch, capsys):
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    monkeypatch.setattr(cost, "STEPS", {"nothing": cost.STEPS["nothing"]})
    assert main(["run", "cost", "--profile", "smoke", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "nothing (any): 0.0 s\n"
    record = read_record("cost", "smoke-cpu")
    (row,) = record["steps"]
    assert row["step"] == "nothing"
    assert row["peak_megabytes"] is None or row["peak_megabytes"] > 50  # in another process
    assert record["class_memory_bytes_of_1000_classes"] == cost.class_memory_bytes("smoke", 1000)


def test_memory_of_the_class_memory_is_what_a_model_holds():
    for profile, images in (("laptop", 1000), ("smoke", 7)):
        model = ReidModel(get_profile(profile).config("qaconv", pretrained=False), images)
        features = model.criterion.memory.features
        assert cost.class_memory_bytes(profile, images) == features.numel() * 4


def test_the_papers_class_memory():
    # 98,304 bytes a class of 24 x 8 x 128: Market-1501's 751 classes take 74 MB.
    assert cost.class_memory_bytes("paper", 751) == 751 * 98_304


def test_median_of_the_calls_after_the_first():
    calls = []
    assert cost._seconds(lambda: calls.append(1), "cpu", repeats=3) >= 0
    assert len(calls) == 4
