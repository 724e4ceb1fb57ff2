"""The checkpoints and records that come with the book."""

import dataclasses
from pathlib import Path

import pytest

from qaconv_lib.config import TrainingConfig
from qaconv_lib.experiments.calibration_records import find_calibrations, transfer_table
from qaconv_lib.experiments.profiles import PROFILES
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.runs import NAMED, Run, settings_name
from qaconv_lib.experiments.search import best_settings, tried_settings
from qaconv_lib.experiments.suite import Trial, find_record, list_trials
from qaconv_lib.losses import TABLE1_LOSSES
from qaconv_lib.models import load_model

SOURCES = ("mini-market", "mini-duke")
RUNS = [Run(loss, source) for loss in ("qaconv", "softmax") for source in SOURCES]
RUNS += NAMED.values()


def test_settings_are_the_ones_the_search_found_best():
    profile = PROFILES["laptop"]
    for loss, settings in profile.searched.items():
        assert settings == best_settings(loss, "laptop")
    for loss, settings in profile.on_layer3.items():
        best = best_settings(loss, "laptop", final_layer="layer3")
        assert Run(loss, "x", settings=settings) == Run(loss, "x", settings=best)
    best = best_settings("pairwise", "laptop", triplet_margin=16.0)
    assert profile.triplets | {"triplet_margin": 16.0} == best


def test_what_was_searched_is_what_the_profile_lists():
    found = {(r["loss"], r["source"], settings_name(r["settings"])) for r in read_records("search")}
    profile = PROFILES["laptop"]
    assert set(profile.searched) >= set(TABLE1_LOSSES)
    assert found == {
        (loss, source, settings_name(settings))
        for loss in profile.searched
        for settings in tried_settings(loss, "laptop")
        for source in SOURCES
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.shipped().stem)
def test_checkpoints_have_the_profiles_settings(run):
    path = run.shipped()
    assert run.checkpoint() == path
    expected = TrainingConfig.from_dict(dataclasses.asdict(run.config()) | {"pretrained": False})
    assert load_model(path).config == expected


@pytest.mark.parametrize("folder", ["train", "evaluate", "tfusion", "tlift"])
def test_every_record_has_the_settings_its_run_has_now(folder):
    """Also those that were written before a setting existed."""
    keys = "loss", "source", "profile", "seed", "settings"
    stale = [r for r in read_records(folder) if not Run(*(r[key] for key in keys)).made(r)]
    assert not stale


@pytest.mark.parametrize("source, target", [SOURCES, SOURCES[::-1]])
def test_qaconv_beats_the_pooled_baseline_across_domains(source, target):
    found = {
        loss: find_record(Trial(Run(loss, source), target, post=True))["stages"]["alone"]
        for loss in ("qaconv", "softmax")
    }
    for key in ("rank1", "mean_ap"):
        assert found["qaconv"][key] > found["softmax"][key]


def test_the_front_pages_quote_the_models_that_left_one_miniature_out():
    records = {t.target: find_record(t) for t in list_trials("leave-one-out", "general")}
    for page in ("README.md", "book/index.md"):
        text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
        for target in SOURCES:
            found = records[target]["stages"]["alone"]
            quoted = f"{100 * found['rank1']:.1f} / {100 * found['mean_ap']:.1f} on `{target}`"
            assert quoted in text


def test_the_model_card_quotes_the_records():
    text = (Path(__file__).parents[1] / "book" / "model_card.md").read_text(encoding="utf-8")
    text = " ".join(text.split())
    record = find_calibrations(load_model(NAMED["general"].shipped()))
    rates = {
        row["to"]: f"{100 * row['thresholds'][0]['false_positive_rate']:.1f}"
        for row in record["transfer"]
        if row["from"] == "mini-msmt17"
    }
    home, *others = (rates[f"mini-{n}"] for n in ("msmt17", "world", "market", "duke", "cuhk03"))
    assert f"lets {home} % pass on the other half" in text
    assert f"{', '.join(others[:3])} and {others[3]} % on `mini-world`, `mini-market`" in text
    usual, half, three, plain = (
        100 * find_record(trial)["stages"]["alone"]["mean_ap"]
        for trial in list_trials("world-settings", "general")
    )
    assert f"three times the rates lost {usual - three:.1f} points" in text
    assert abs(half - usual) < 0.5 and abs(plain - usual) < 0.5


@pytest.mark.parametrize(
    "run", [run for run in RUNS if run.loss != "softmax"], ids=lambda run: run.shipped().stem
)
def test_shipped_models_are_calibrated_on_every_miniature(run):
    record = find_calibrations(load_model(run.shipped()))
    assert record is not None, "the model is another than on record: run `calibrate` again"
    assert record["source"] == run.source
    domains = set(PROFILES["laptop"].datasets.values())
    domains |= {"mini-world"} if run in NAMED.values() else set()
    assert set(record["fitted"]) == set(record["tried"]) == domains
    assert len(transfer_table(record)) == 2 * len(domains) ** 2
