"""Runs, searches, named experiments, records and their commands, at the smoke profile."""

import dataclasses
import json
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from qaconv_lib._checks import ShortOfMemoryError
from qaconv_lib.beyond.tfusion import tfusion
from qaconv_lib.cli import main
from qaconv_lib.datasets import UnreadableImageError, load_dataset
from qaconv_lib.experiments import postprocessing, records, runs, search, suite
from qaconv_lib.experiments.profiles import PROFILES, RunConfig, get_profile, profile_with
from qaconv_lib.experiments.runs import (
    STAGES,
    Run,
    pair_similarities,
    probabilities,
    similarity_stages,
)
from qaconv_lib.experiments.suite import (
    ABLATIONS,
    EXPERIMENTS,
    Trial,
    find_record,
    graph_sampling_settings,
    list_trials,
)
from qaconv_lib.miniatures.world import VERSION, World
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

SMOKE = ["--profile", "smoke"]
RUN = Run("qaconv", "mini-market", "smoke")


@pytest.fixture(scope="module")
def workplace(few_people, tmp_path_factory):
    """Folders of its own for data, records, checkpoints and trained models.

    Environment variables, because processes that a test starts must see them too.
    """
    folder, cache = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("cache")
    shutil.copytree(few_people, folder, symlinks=True, dirs_exist_ok=True)
    (folder / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_DATA", str(folder))
        patch.setenv("QACONV_CACHE", str(cache))
        yield folder


@pytest.fixture(scope="module")
def smoke(workplace):
    """Both losses searched and trained on mini-market and tested on mini-duke; one ablation."""
    assert main(["tune", "softmax", "mini-market", *SMOKE, "--quiet"]) == 0
    for loss in ("softmax", "qaconv"):
        assert main(["train", loss, "mini-market", *SMOKE, "--quiet"]) == 0
        assert main(["evaluate", loss, "mini-market", "mini-duke", *SMOKE, "--quiet"]) == 0
    assert main(["run", "memory", *SMOKE, "--seeds", "1"]) == 0
    return workplace


@pytest.fixture
def never(monkeypatch):
    """No run may be started."""
    monkeypatch.setattr(suite, "_execute", None)


def test_the_whole_path_leaves_checkpoints_and_records(smoke):
    trained = ["qaconv-mini-market-smoke-seed0", "softmax-mini-market-smoke-seed0"]
    ablated = "qaconv-mini-market-smoke-memory_update=ema-seed0"
    found = {p.relative_to(smoke).as_posix() for p in smoke.glob("[cr]*/**/*") if p.is_file()}
    assert found == {
        *(f"checkpoints/{run}.safetensors" for run in trained),
        *(f"results/train/{run}.json" for run in (*trained, ablated)),
        *(f"results/evaluate/{run}-on-mini-duke.json" for run in (*trained, ablated)),
        "results/search/softmax-mini-market-smoke-default.json",
    }
    folder = Run("qaconv", "mini-market", "smoke", settings={"memory_update": "ema"}).folder()
    assert folder.name.startswith(ablated)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "log.csv"}
    for record in records.read_records("train") + records.read_records("evaluate"):
        assert record["profile"] == "smoke" and record["seed"] == 0
        assert record["device"] and record["versions"]["torch"] and record["seconds"] >= 0
        assert "commit" in record and record["threads"] >= 1
        config = get_profile("smoke").config(record["loss"], **record["settings"])
        assert record["config"] == json.loads(json.dumps(dataclasses.asdict(config)))


def test_scores_are_those_of_the_queries(smoke):
    for record in records.read_records("evaluate"):
        for scores in record["stages"].values():
            assert 0 < scores["rank1"] <= scores["rank5"] <= scores["rank10"] <= 1
            mean = np.mean(scores["average_precision"])  # means and lists were rounded one by one
            assert mean == pytest.approx(scores["mean_ap"], abs=1e-4)
            assert scores["identity"] == load_dataset(record["target"]).query["identity"].tolist()
            found = np.mean(np.array(scores["first_match_rank"]) <= 10)
            assert found == pytest.approx(scores["rank10"], abs=1e-4)


def test_what_has_a_record_is_not_run_again(smoke, never, capsys):
    assert main(["run", "memory", *SMOKE, "--seeds", "1"]) == 0
    assert "2 of 2 runs have their records" in capsys.readouterr().err


def test_a_record_of_other_settings_does_not_count(smoke, monkeypatch):
    assert find_record(Trial(RUN, "mini-duke")) is not None
    folder = RUN.folder()
    base = dataclasses.replace(PROFILES["smoke"].base, learning_rate=0.123)
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], base=base))
    trial = Trial(Run("qaconv", "mini-market", "smoke"), "mini-duke")
    assert find_record(trial) is None and not trial.run.trained(trial.run.checkpoint())
    assert trial.run.folder() != folder  # a half-trained model of the old settings is left alone


@pytest.mark.slow
def test_two_processes_do_what_one_does(smoke, monkeypatch):
    rows = [("arc", "market", "duke", {"identities": 6}, False)]
    monkeypatch.setitem(EXPERIMENTS, "small", suite.Experiment("", 2, lambda profile: rows))
    how = {"profile": "smoke", "device": "cpu"}
    first, second = suite.run_experiment("small", jobs=2, **how)
    assert first["stages"] != second["stages"]  # another seed, another model
    trial = list_trials("small", "smoke")[1]
    assert suite.evaluate_trial(trial, device="cpu")["stages"] == second["stages"]


def test_a_killed_process_is_reported_in_one_sentence(workplace, monkeypatch, capsys):
    monkeypatch.setattr(suite.ProcessPoolExecutor, "map", Mock(side_effect=BrokenProcessPool))
    assert main(["run", "memory", *SMOKE, "--seeds", "9", "--jobs", "2"]) == 2
    error = capsys.readouterr().err
    assert "one of 2 processes was killed" in error and "Traceback" not in error


def test_a_search_is_not_run_twice(smoke, monkeypatch):
    monkeypatch.setattr(RunConfig, "trainer", None)  # would fail if a run were started
    (record,) = search.search("softmax", "mini-market", profile="smoke")
    assert record["settings"] == search.best_settings("softmax", "smoke") == {}
    assert record["held_out_identities"] == 5
    assert search.calibration_of("softmax", "mini-market", "smoke") == record["calibration"]
    assert search.calibration_of("qaconv", "anywhere", "smoke") is None
    with pytest.raises(FileNotFoundError, match="tune softmax mini-duke --profile smoke"):
        search.calibration_of("softmax", "mini-duke", "smoke")


def test_the_best_settings_are_best_on_average(monkeypatch):
    def record(source, settings, mean_ap):
        about = {"loss": "arc", "profile": "laptop", "source": source}
        return about | {"settings": settings, "scores": {"mean_ap": mean_ap}}

    low, high, lone = {"margin": 0.2}, {"margin": 0.5}, {"margin": 0.9}
    found = [record("a", low, 0.5), record("a", high, 0.6), record("a", lone, 0.99)]
    found += [record("b", low, 0.7), record("b", high, 0.5)]
    found += [record(source, high | {"final_layer": "layer3"}, 0.9) for source in "ab"]
    monkeypatch.setattr(records, "read_records", lambda folder: found)
    assert search.best_settings("arc", "laptop") == low  # the lone one has no record on b


def test_stages_are_the_functions_of_the_library(smoke, monkeypatch):
    pairs, duke = pair_similarities(RUN, "mini-duke"), load_dataset("mini-duke")
    assert pairs["query_gallery"].shape == (len(duke.query), len(duke.gallery))
    stages = similarity_stages(pairs, duke, "qaconv")
    assert set(stages) == set(STAGES)
    kinds = ("query_gallery", "query_query", "gallery_gallery")
    reranked = 1 - k_reciprocal_rerank(*(1 / (1 + np.exp(pairs[kind] / 10)) for kind in kinds))
    np.testing.assert_allclose(stages["+RR"], reranked, atol=1e-6)
    turned = {name: pairs[name].T if name != kinds[0] else pairs[name] for name in kinds}
    released = similarity_stages(pairs, duke, "qaconv", transposed=True)["+RR"]
    np.testing.assert_array_equal(released, runs.rerank(turned, "qaconv"))
    assert not np.array_equal(released, stages["+RR"])
    np.testing.assert_allclose(stages["+RR+TLift"], tlift(stages["+RR"], *runs.times(duke)))
    duke.gallery.loc[0, "seconds"] = np.nan
    with pytest.warns(UserWarning, match="1 of .* have no time .* TLift is left out"):
        assert set(similarity_stages(pairs, duke, "qaconv")) == {"alone", "+RR"}
    monkeypatch.setattr(runs, "load_model", None)  # the second call finds the first's result
    again = pair_similarities(RUN, "mini-duke")
    assert all(np.array_equal(again[key], pairs[key]) for key in pairs)


def test_tfusion_is_chosen_on_the_source_and_tested_on_the_target(smoke, monkeypatch):
    keys = ("error_positive", "error_negative", "window")
    values = ((0.0, 0.0, 300.0), (0.5, 0.25, 30.0))
    grid = [dict(zip(keys, row, strict=True)) for row in values]
    monkeypatch.setattr(postprocessing, "TFUSION_GRID", grid)
    record = postprocessing.tfusion_record(RUN, "mini-duke")
    assert find_record(Trial(RUN, "mini-duke"), "tfusion") == json.loads(json.dumps(record))
    rows, variants = record["grid"], record["variants"]
    for same_camera, suffix in (("keep", ""), ("suppress", ", own camera suppressed")):
        half = [row for row in rows if row["same_camera"] == same_camera]
        chosen = max(half, key=lambda row: row["source_mean_ap"])
        found = variants["chosen" + suffix]
        assert [found[key] for key in keys] == [chosen[key] for key in keys]
        assert found["mean_ap"] == chosen["target_mean_ap"]
        assert variants["best" + suffix]["mean_ap"] == max(r["target_mean_ap"] for r in half)
        assert variants["labelled" + suffix]["window"] in (30.0, 300.0)
    duke = load_dataset("mini-duke")
    fused = tfusion(
        np.clip(runs.rerank(pair_similarities(RUN, "mini-duke"), "qaconv"), 0, 1),
        *runs.times(duke),
        query_sessions=duke.query["session"],
        gallery_sessions=duke.gallery["session"],
        **grid[1],
        floor=2e-3,
    )
    expected = runs.score(fused, duke.query, duke.gallery).mean_ap
    assert rows[1]["target_mean_ap"] == pytest.approx(expected, abs=1e-5)


def test_tlift_is_swept_one_parameter_at_a_time(smoke, monkeypatch):
    monkeypatch.setattr(postprocessing, "TLIFT_SWEEPS", {"tau": (50, 100), "alpha": (0.2,)})
    record = postprocessing.tlift_record(RUN, "mini-duke")
    rows = record["sweeps"]
    swept = [(row["parameter"], row["value"]) for row in rows]
    assert swept == [("tau", 50), ("tau", 100), ("alpha", 0.2)]
    # The defaults are among the values, and give what the evaluation gave.
    stages = find_record(Trial(RUN, "mini-duke"))["stages"]
    for stage in ("+TLift", "+RR+TLift"):
        for found in (rows[1]["stages"], rows[2]["stages"], record["variants"]["released"]):
            assert found[stage]["mean_ap"] == pytest.approx(stages[stage]["mean_ap"], abs=1e-5)


def test_what_follows_the_trials_is_run_across_domains_only(smoke, monkeypatch):
    def act(run, target, device, skip_unreadable):
        assert skip_unreadable
        return {"target": target}

    rows = [("qaconv", "market", target, {}, False) for target in ("market", "duke")]
    followed = suite.Experiment("", 1, lambda profile: rows, ("nowhere", act))
    monkeypatch.setitem(EXPERIMENTS, "followed", followed)
    found = suite.run_experiment("followed", profile="smoke", skip_unreadable=True)
    assert found[2:] == [{"target": "mini-duke"}]


def test_probabilities():
    logits = np.array([-8.0, 0.0, 3.0])
    np.testing.assert_allclose(
        probabilities(logits, "qaconv"), 1 / (1 + np.exp(-logits)), rtol=1e-6
    )
    shifted = probabilities(np.array([0.2, 0.8]), "softmax", [10.0, -5.0])
    np.testing.assert_allclose(shifted, 1 / (1 + np.exp([3.0, -3.0])), rtol=1e-5)


class TestRuns:
    def test_names_hold_what_differs_from_the_profile(self):
        plain = Run("qaconv", "mini-market")
        assert Run("qaconv", "mini-market", settings={"occlusion": "occlusion"}) == plain
        assert plain.name == "qaconv-mini-market-laptop-seed0"
        other = Run("qaconv", "mini-market", settings={"tied": True, "gamma": 0.0})
        assert other.name == "qaconv-mini-market-laptop-gamma=0.0-tied=True-seed0"
        run = Run("qaconv", "mini-market", settings={"weights": Path("/data/other\\net.pth")})
        assert run.name == "qaconv-mini-market-laptop-weights=_data_other_net.pth-seed0"
        assert json.loads(json.dumps(run.about))["settings"] == run.settings

    def test_the_first_identities(self, workplace):
        run = Run("softmax", "mini-market", settings={"identities": 7})
        whole = load_dataset("mini-market").train
        assert set(run.table()["identity"]) == set(np.sort(whole["identity"].unique())[:7])

    def test_a_part_that_starts_at_random_and_no_other(self, workplace):
        usual, other = (
            Run("qaconv", "mini-market", "smoke", 0, more).config().trainer(RUN.table()).model
            for more in ({}, {"random_start": "logit_bn"})
        )
        there = other.state_dict()
        changed = [k for k, value in usual.state_dict().items() if not value.equal(there[k])]
        assert changed == ["criterion.matcher.logit_bn.bias"]
        for loss, settings in (
            ("qaconv", {"random_start": "head"}),
            ("softmax", {"random_start": "fc"}),
            ("qaconv", {"random_start": "neck", "neck_channels": None}),
            ("qaconv", {"colour_jitter": -0.1}),
        ):
            with pytest.raises(ValueError, match="random_start|colour_jitter"):
                Run(loss, "mini-market", settings=settings)

    def test_colours_vary_where_asked(self, workplace):
        torch.manual_seed(0)
        config = Run("qaconv", "mini-market", "smoke", 0, {"colour_jitter": 0.3}).config()
        augment = config.trainer(RUN.table()).images.augmentation
        grey = torch.full((3, 8, 4), 0.5)
        seen = {round(augment(grey)[0].min().item(), 3) for _ in range(20)}
        assert len(seen) > 10 and min(seen) > 0.3

    def test_a_world_is_known_by_its_description(self, monkeypatch, tmp_path):
        """Not by its pixels, of which another processor may change a few."""
        monkeypatch.setattr(runs, "load_dataset", lambda name: SimpleNamespace(root=tmp_path))
        usual = runs.WORLDS["mini-world"]
        assert usual == dataclasses.asdict(World()) | {"version": VERSION}
        found, folders = [], set()
        for world in (usual, usual | {"seed": 7}, usual | {"identities": 1600}):
            (tmp_path / "manifest.json").write_text(json.dumps({"world": world}))
            runs.look_again()
            for name in ("mini-world", "mini-world+mini-world"):
                found.append(runs.content_key(name, "train"))
                folders.add(Run("qaconv", name).folder())
        assert found[:2] == [None, None] and len(set(found[2:])) == 4 and len(folders) == 6
        runs.look_again()

    @pytest.mark.parametrize("settings", [{"learning": 1}, {"epochs": 0}])
    def test_unknown_settings_are_refused(self, settings):
        with pytest.raises((TypeError, ValueError)):
            Run("qaconv", "mini-market", settings=settings)


class TestLists:
    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_every_experiment_can_be_listed(self, name, profile):
        profile = "general" if name in suite.WITH_WORLD else profile
        trials = list_trials(name, profile, seeds=2)
        assert {trial.run.seed for trial in trials} == {0, 1}
        assert len({trial.name for trial in trials}) == len(trials)

    def test_paper_profile_has_the_papers_networks_datasets_and_settings(self):
        trials = list_trials("table3", "paper", seeds=1)
        assert {t.run.config().backbone for t in trials} == {"resnet50", "resnet152"}
        assert {t.run.source for t in trials} == {"market1501", "dukemtmc", "msmt17-all"}
        config = get_profile("paper").config("qaconv")
        assert (config.height, config.width, config.batch_size) == (384, 128, 32)
        assert (config.epochs, config.decay_epochs, config.backbone) == (60, 40, "resnet152")
        assert (config.learning_rate, config.backbone_learning_rate) == (0.01, 0.001)
        assert (config.final_layer, config.neck_channels, config.kernel_size) == ("layer3", 128, 1)
        assert get_profile("paper").config("softmax").final_layer == "layer4"

    def test_triplets_have_settings_of_their_own(self):
        profile = get_profile("laptop")
        for name, (_, settings) in graph_sampling_settings(profile).items():
            own = "triplets" in name
            assert (settings.get("triplet_margin") == 16.0) == own, name
            assert (profile.triplets.items() <= settings.items()) == own, name

    def test_the_domain_left_out_is_in_no_training_set(self):
        trials = list_trials("leave-one-out", "general")
        sets = {"mini-market", "mini-duke", "mini-cuhk03", "mini-msmt17", "mini-world"}
        assert [set(t.run.source.split("+")) for t in trials] == [sets - {t.target} for t in trials]
        assert {t.target for t in trials} == sets - {"mini-world"}
        with pytest.raises(ValueError, match="--profile general"):
            suite.check_variants("leave-one-out", get_profile("laptop"))

    def test_an_ablation_starts_with_the_default_and_changes_something(self):
        for loss, variants in ABLATIONS.values():
            assert next(iter(variants.values())) == {}
            names = {Run(loss, "mini-market", settings=v).name for v in variants.values()}
            assert len(names) == len(variants)

    def test_run_without_a_name_lists_them(self, capsys):
        assert main(["run"]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in EXPERIMENTS)


class TestMeansOfComputing:
    def test_they_name_records_of_their_own(self):
        name = profile_with("paper", precision="bfloat16", accumulate=2, workers=4)
        assert name == "paper+accumulate=2+precision=bfloat16"  # four workers it has anyway
        for trial in list_trials("table3", name, seeds=1):
            assert trial.run.config().precision == "bfloat16"
            assert name in trial.name and "precision" not in trial.run.settings
        assert profile_with("paper", accumulate=1) == "paper"
        assert profile_with(name, accumulate=2) == name

    @pytest.mark.parametrize(
        "wrong", ["batch_size=8", "precision", "precision=half", "workers=x", "workers=1+workers=2"]
    )
    def test_others_are_refused(self, wrong):
        with pytest.raises(ValueError, match=wrong.split("=")[0]):
            get_profile(f"laptop+{wrong}")

    def test_run_takes_them(self, monkeypatch, capsys):
        run = Mock(side_effect=ShortOfMemoryError("out of memory while training"))
        monkeypatch.setattr(suite, "run_experiment", run)
        assert main(["run", "memory", *SMOKE, "--accumulate", "2", "--skip-unreadable"]) == 2
        assert run.call_args.kwargs["profile"] == "smoke+accumulate=2"
        assert run.call_args.kwargs["skip_unreadable"]
        assert "out of memory" in capsys.readouterr().err


class TestWhatStopsBeforeTheTraining:
    def test_an_unreadable_image_of_the_target(self, workplace, never, monkeypatch, tmp_path):
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(b"damaged")
        duke = load_dataset("mini-duke")
        gallery = duke.gallery.assign(path=[str(bad), *duke.gallery["path"][1:]])
        harmed = dataclasses.replace(duke, gallery=gallery)
        monkeypatch.setattr(runs, "load_test", lambda name: harmed)
        with pytest.raises(UnreadableImageError, match="query and gallery: 1 of .*--skip-unread"):
            suite.run_experiment("head", profile="smoke", seeds=1)

    def test_a_loss_without_a_search(self, no_records, never):
        with pytest.raises(FileNotFoundError, match="tune arc .* --profile paper"):
            suite.run_experiment("table1", profile="paper", seeds=1)
