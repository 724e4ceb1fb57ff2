"""`make gpu` at smoke scale, on the CPU."""

import gpu
import pytest
import torch

from qaconv_lib.experiments.records import read_records


@pytest.mark.parametrize("step, forms", [("matching", 5), ("training", 3), ("extraction", 1)])
def test_rates_name_device_and_forms(no_records, step, forms):
    gpu.run_step(step, smoke=True, seconds=10)
    (record,) = read_records("gpu")
    assert record["step"] == step and record["device"].startswith("CPU")
    assert len(record["rows"]) == forms
    assert all(row["seconds"] > 0 for row in record["rows"].values())
    if step != "extraction":
        assert all(row["gflop_per_second"] > 0 for row in record["rows"].values())


def test_the_model_is_trained_and_tested(no_records):
    gpu.run_step("model", smoke=True, seconds=10)
    (record,), (trained,), (tested,) = map(read_records, ("gpu", "train", "evaluate"))
    assert trained["source"] == gpu.SOURCE and tested["target"] == "mini-duke"
    alone = tested["stages"]["alone"]
    assert record["tests"]["mini-duke"] == {name: alone[name] for name in ("rank1", "mean_ap")}


@pytest.mark.slow
def test_a_notebook_is_run_and_not_changed(no_records):
    (path,) = gpu.refresh.BOOK.glob("03_*.ipynb")
    before = path.read_bytes()
    gpu.run_step("notebooks", smoke=True, seconds=60)
    (record,) = read_records("gpu")
    assert record["rows"][path.stem]["error"] is None and path.read_bytes() == before


def test_what_fails_or_takes_too_long_is_named_after_the_rest(no_records, capfd):
    assert gpu.main(["--smoke", "--minutes", "0.001", "matching", "training"]) == 1
    *lines, last = capfd.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["matching", "training"]
    assert "time" in lines[0] and last.endswith("matching, training")


def test_bad_calls_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--smoke", "juggling"])
    assert "juggling" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "GPU" in capsys.readouterr().err
