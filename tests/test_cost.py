"""What a step costs: that every step can be measured."""

import pytest

from qaconv_lib.cli import main
from qaconv_lib.experiments import cost
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.records import read_record
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
