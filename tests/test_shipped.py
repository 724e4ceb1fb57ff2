"""The checkpoints and records that come with the book."""

import dataclasses
import json

import pytest

from qaconv_lib import experiments, records
from qaconv_lib.experiments import best_search
from qaconv_lib.profiles import PROFILES, get_profile

SOURCES = ("mini-market", "mini-duke")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("loss", ["qaconv", "softmax"])
def test_settings_are_the_ones_the_search_found_best(loss, source):
    best = best_search(loss, source, "laptop")["settings"]
    rates = {k: v for k, v in best.items() if k not in ("epochs", "decay_epochs")}
    assert PROFILES["laptop"].searched[loss, source] == rates


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("loss", ["qaconv", "softmax"])
def test_records_have_the_profiles_settings(loss, source):
    (record,) = (
        r
        for r in records.read_records("train")
        if (r["loss"], r["source"], r["profile"], r["seed"]) == (loss, source, "laptop", 0)
    )
    config = get_profile("laptop").config(loss, source)
    assert record["config"] == json.loads(json.dumps(dataclasses.asdict(config)))
    model = experiments.load_model(experiments.checkpoint_path(loss, source))
    assert model.config == dataclasses.replace(config, pretrained=False)


@pytest.mark.parametrize("source, target", [SOURCES, SOURCES[::-1]])
def test_qaconv_beats_the_pooled_baseline_across_domains(source, target):
    found = {
        r["loss"]: r["stages"]["alone"]
        for r in records.read_records("cross_domain")
        if (r["source"], r["target"], r["profile"], r["seed"]) == (source, target, "laptop", 0)
    }
    for key in ("rank1", "mean_ap"):
        assert found["qaconv"][key] > found["softmax"][key]
