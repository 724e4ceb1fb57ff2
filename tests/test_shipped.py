"""The checkpoints and records that come with the book."""

import dataclasses

import pytest

from qaconv_lib.experiments.calibration_records import find_calibrations, transfer_table
from qaconv_lib.experiments.profiles import PROFILES
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.runs import Run, checkpoint_path, settings_name
from qaconv_lib.experiments.search import best_settings
from qaconv_lib.experiments.suite import Trial, find_record
from qaconv_lib.losses import TABLE1_LOSSES
from qaconv_lib.models import load_model

SOURCES = ("mini-market", "mini-duke")


@pytest.mark.parametrize("loss", PROFILES["laptop"].searched)
def test_settings_are_the_ones_the_search_found_best(loss):
    assert PROFILES["laptop"].searched[loss] == best_settings(loss, "laptop")


@pytest.mark.parametrize("loss", PROFILES["laptop"].on_layer3)
def test_settings_on_layer3_are_the_ones_the_search_found_best(loss):
    run = Run(loss, "mini-market", settings=PROFILES["laptop"].on_layer3[loss])
    assert (
        run.settings
        == Run(
            loss, "mini-market", settings=best_settings(loss, "laptop", final_layer="layer3")
        ).settings
    )


def test_settings_of_triplets_are_the_ones_the_search_found_best():
    best = best_settings("pairwise", "laptop", triplet_margin=16.0)
    assert PROFILES["laptop"].triplets | {"triplet_margin": 16.0} == best


def test_what_was_searched_is_what_the_profile_lists():
    """Of the losses with searched settings; of another there must be no record yet."""
    found = {(r["loss"], r["source"], settings_name(r["settings"])) for r in read_records("search")}
    tried = PROFILES["laptop"].tried.items()
    searched = PROFILES["laptop"].searched
    assert set(searched) >= set(TABLE1_LOSSES)
    listed = {
        (k, settings_name(settings)) for k, many in tried if k in searched for settings in many
    }
    assert found == {(loss, source, name) for loss, name in listed for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("loss", ["qaconv", "softmax"])
def test_checkpoints_have_the_profiles_settings(loss, source):
    run, path = Run(loss, source), checkpoint_path(loss, source)
    assert run.checkpoint() == path
    assert load_model(path).config == dataclasses.replace(run.config(), pretrained=False)


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


def test_calibrations_are_those_of_the_shipped_models():
    found = {(r["loss"], r["source"], r["seed"]) for r in read_records("calibration")}
    assert found == {("qaconv", source, 0) for source in SOURCES}
    assert len(read_records("calibration")) == len(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_shipped_models_are_calibrated_on_every_miniature(source):
    record = find_calibrations(load_model(checkpoint_path("qaconv", source)))
    assert record is not None, "the model is another than on record: run `calibrate` again"
    assert record["source"] == source
    domains = set(PROFILES["laptop"].datasets.values())
    assert set(record["fitted"]) == set(record["tried"]) == domains
    assert len(transfer_table(record)) == 2 * len(domains) ** 2
