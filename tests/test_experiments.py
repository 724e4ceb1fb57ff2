"""Runs, searches, named experiments, records and their commands, at the smoke profile."""

import dataclasses
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from qaconv_lib.__main__ import main
from qaconv_lib._checks import ShortOfMemoryError
from qaconv_lib._files import cache_folder
from qaconv_lib.beyond.tfusion import tfusion
from qaconv_lib.datasets import UnreadableImageError, load_dataset
from qaconv_lib.experiments import postprocessing, records, runs, search
from qaconv_lib.experiments import suite as experiments
from qaconv_lib.experiments.profiles import PROFILES, get_profile, profile_with
from qaconv_lib.experiments.runs import (
    STAGES,
    Run,
    pair_similarities,
    probabilities,
    similarity_stages,
)
from qaconv_lib.experiments.suite import ABLATIONS, EXPERIMENTS, Trial, find_record, list_trials
from qaconv_lib.experiments.variants import graph_sampling_settings
from qaconv_lib.losses import LOSSES
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

SMOKE = ["--profile", "smoke"]
CACHE = cache_folder()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A data folder of its own for records and checkpoints; datasets come from the checkout."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def own_runs(tmp_path_factory):
    """A cache folder of their own for trained models, with the datasets that are unpacked already.

    An environment variable, because processes that a test starts must see it too.
    """
    folder = tmp_path_factory.mktemp("cache")
    for name in ("mini-market", "mini-duke", "mini-cuhk03"):
        image = Path(load_dataset(name).train["path"][0])
        unpacked = next(path for path in image.parents if path.parent == CACHE)
        (folder / unpacked.name).symlink_to(unpacked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_CACHE", str(folder))
        yield folder / "runs"


@pytest.fixture(scope="module")
def smoke(workplace, own_runs):
    """Both losses searched and trained on mini-market and tested on mini-duke; one ablation."""
    assert main(["tune", "softmax", "mini-market", *SMOKE, "--quiet"]) == 0
    for loss in ("softmax", "qaconv"):
        assert main(["train", loss, "mini-market", *SMOKE, "--quiet"]) == 0
        assert main(["evaluate", loss, "mini-market", "mini-duke", *SMOKE, "--quiet"]) == 0
    assert main(["run", "memory", *SMOKE, "--seeds", "1"]) == 0
    return workplace


def test_the_whole_path_leaves_checkpoints_and_records(smoke, own_runs):
    names = sorted(p.relative_to(smoke).as_posix() for p in smoke.rglob("*") if p.is_file())
    trained = ["qaconv-mini-market-smoke-seed0", "softmax-mini-market-smoke-seed0"]
    ablated = "qaconv-mini-market-smoke-memory_update=ema-seed0"
    assert names == sorted(
        [f"checkpoints/{run}.safetensors" for run in trained]
        + [f"results/train/{run}.json" for run in (*trained, ablated)]
        + [f"results/evaluate/{run}-on-mini-duke.json" for run in (*trained, ablated)]
        + ["results/search/softmax-mini-market-smoke-default.json"]
    )
    # The state of the finished run is gone, and the shipped model was not trained again.
    kept = {path for path in own_runs.rglob("*") if path.is_file()}
    folder = Run("qaconv", "mini-market", "smoke", settings={"memory_update": "ema"}).folder()
    assert folder.name.startswith(ablated)
    about = ("README.md", "log.csv", "run.json")
    assert kept == {folder / name for name in ("model.safetensors", *about)}


def test_records_say_what_made_them(smoke):
    for record in records.read_records("train") + records.read_records("evaluate"):
        assert record["profile"] == "smoke" and record["seed"] == 0
        assert record["device"] and record["versions"]["torch"] and record["seconds"] >= 0
        assert "commit" in record and record["threads"] >= 1
        config = get_profile("smoke").config(record["loss"], **record["settings"])
        assert record["config"] == json.loads(json.dumps(dataclasses.asdict(config)))


def test_scores_are_shares_and_beat_chance(smoke):
    for record in records.read_records("evaluate"):
        for scores in record["stages"].values():
            assert 0.01 < scores["mean_ap"] < scores["rank10"] <= 1
            assert scores["rank1"] <= scores["rank5"] <= scores["rank10"]
            # Means and lists were rounded one by one.
            assert np.mean(scores["average_precision"]) == pytest.approx(
                scores["mean_ap"], abs=1e-4
            )
            first = np.array(scores["first_match_rank"])
            assert scores["identity"] == load_dataset(record["target"]).query["identity"].tolist()
            assert np.mean(first == 1) == pytest.approx(scores["rank1"], abs=1e-4)
            assert np.mean(first <= 10) == pytest.approx(scores["rank10"], abs=1e-4)


def test_what_has_a_record_is_not_run_again(smoke, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "_execute", None)  # would fail if a run were started
    assert main(["run", "memory", *SMOKE, "--seeds", "1"]) == 0
    assert "2 of 2 runs have their records" in capsys.readouterr().err


def test_a_record_of_other_settings_does_not_count(smoke, monkeypatch):
    trial = Trial(Run("qaconv", "mini-market", "smoke"), "mini-duke")
    assert find_record(trial) is not None
    folder = trial.run.folder()
    base = dataclasses.replace(PROFILES["smoke"].base, learning_rate=0.123)
    changed = dataclasses.replace(PROFILES["smoke"], base=base)
    monkeypatch.setitem(PROFILES, "smoke", changed)
    trial = Trial(Run("qaconv", "mini-market", "smoke"), "mini-duke")
    assert find_record(trial) is None and not trial.run.trained(trial.run.checkpoint())
    assert trial.run.folder() != folder  # a half-trained model of the old settings is left alone


def test_an_interrupted_run_goes_on_and_ends_alike(workplace, own_runs, monkeypatch):
    run = Run("class-memory", "mini-market", "smoke", 3, {"epochs": 2, "identities": 8})
    state = own_runs / "state"
    whole = runs.train_run(run, checkpoint=own_runs / "whole.safetensors").read_bytes()
    save = runs.Trainer._save

    def stop(trainer, checkpoint):
        save(trainer, checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.Trainer, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            runs.train_run(run, run_folder=state)
    again = runs.train_run(run, run_folder=state)
    assert again.read_bytes() == whole
    (record,) = (r for r in records.read_records("train") if r["loss"] == "class-memory")
    assert record["num_identities"] == 8 and record["epochs_timed"] == 1
    assert len(record["history"]) == 2


def test_two_processes_do_what_one_does(smoke, own_runs):
    trials = [
        Trial(Run("arc", "mini-market", "smoke", seed, {"identities": 6}), "mini-cuhk03")
        for seed in (0, 1)
    ]
    lines = list(experiments._execute_all([[trial] for trial in trials], "cpu", 2))
    assert [line.split(":")[0] for line in lines] == [trial.run.name for trial in trials]
    together = [find_record(trial)["stages"] for trial in trials]
    assert together[0] != together[1]  # another seed, another model
    alone = experiments.evaluate_trial(trials[1], device="cpu")["stages"]
    assert alone == together[1]


def test_a_killed_process_is_reported_in_one_sentence(workplace, monkeypatch, capsys):
    class Future:
        def result(self):
            raise BrokenProcessPool

    class Pool:
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731
        submit = lambda self, *call: Future()  # noqa: E731

    monkeypatch.setattr(experiments, "ProcessPoolExecutor", lambda *a, **k: Pool())
    assert main(["run", "memory", *SMOKE, "--seeds", "9", "--jobs", "2"]) == 2
    error = capsys.readouterr().err
    assert "one of 2 processes was killed" in error and "Traceback" not in error


def test_a_search_is_not_run_twice(smoke, monkeypatch):
    monkeypatch.setattr(search, "Trainer", None)  # would fail if a run were started
    (record,) = search.search("softmax", "mini-market", profile="smoke")
    assert record["settings"] == search.best_settings("softmax", "smoke") == {}
    assert record["held_out_identities"] == 5
    assert search.calibration_of("softmax", "mini-market", "smoke") == record["calibration"]
    assert search.calibration_of("qaconv", "anywhere", "smoke") is None


def test_the_best_settings_are_best_on_average(monkeypatch):
    def record(source, settings, mean_ap):
        about = {"loss": "arc", "profile": "laptop", "source": source}
        return about | {"settings": settings, "scores": {"mean_ap": mean_ap}}

    low, high, lone = {"margin": 0.2}, {"margin": 0.5}, {"margin": 0.9}
    found = [record("a", low, 0.5), record("a", high, 0.6), record("a", lone, 0.99)]
    found += [record("b", low, 0.7), record("b", high, 0.5)]
    other_layer = high | {"final_layer": "layer3"}
    found += [record(source, other_layer, 0.9) for source in "ab"]
    monkeypatch.setattr(search, "read_records", lambda folder: found)
    assert search.best_settings("arc", "laptop") == low  # the lone one has no record on b


def test_stages_are_the_functions_of_the_library(smoke, monkeypatch):
    run = Run("qaconv", "mini-market", "smoke")
    pairs = pair_similarities(run, "mini-duke")
    duke = load_dataset("mini-duke")
    assert pairs["query_gallery"].shape == (len(duke.query), len(duke.gallery))
    stages = similarity_stages(pairs, duke, "qaconv")
    assert set(stages) == set(STAGES)
    distances = [1 - pairs[k] for k in ("query_gallery", "query_query", "gallery_gallery")]
    reranked = 1 - k_reciprocal_rerank(*distances)
    np.testing.assert_allclose(stages["+RR"], reranked)
    np.testing.assert_allclose(stages["+RR+TLift"], tlift(reranked, *runs.times(duke)))
    monkeypatch.setattr(runs, "load_model", None)  # the second call finds the first's result
    again = pair_similarities(run, "mini-duke")
    assert all(np.array_equal(again[key], pairs[key]) for key in pairs)


def test_tfusion_is_chosen_on_the_source_and_tested_on_the_target(smoke, monkeypatch):
    run, keys = (
        Run("qaconv", "mini-market", "smoke"),
        ("error_positive", "error_negative", "window"),
    )
    grid = [
        dict(zip(keys, values, strict=True)) for values in ((0.0, 0.0, 300.0), (0.5, 0.25, 30.0))
    ]
    monkeypatch.setattr(postprocessing, "TFUSION_GRID", grid)
    record = postprocessing.tfusion_record(run, "mini-duke")
    assert find_record(Trial(run, "mini-duke"), "tfusion") == json.loads(json.dumps(record))
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
    reranked = runs.rerank(pair_similarities(run, "mini-duke"), run.loss)
    fused = tfusion(
        np.clip(reranked, 0, 1),
        *runs.times(duke),
        query_sessions=duke.query["session"],
        gallery_sessions=duke.gallery["session"],
        **grid[1],
        floor=2e-3,
    )
    expected = runs.score(fused, duke.query, duke.gallery).mean_ap
    assert rows[1]["target_mean_ap"] == pytest.approx(expected, abs=1e-5)
    # Nobody in the query's own camera can be right, and labels tell the times.
    assert variants["chosen"]["mean_ap"] < variants["labelled, own camera suppressed"]["mean_ap"]


def test_tlift_is_swept_one_parameter_at_a_time(smoke, monkeypatch):
    run = Run("qaconv", "mini-market", "smoke")
    sweeps = {"tau": (50, 100), "alpha": (0.2,)}
    monkeypatch.setattr(postprocessing, "TLIFT_SWEEPS", sweeps)
    record = postprocessing.tlift_record(run, "mini-duke")
    rows = record["sweeps"]
    assert [(row["parameter"], row["value"]) for row in rows] == [
        ("tau", 50),
        ("tau", 100),
        ("alpha", 0.2),
    ]
    # The defaults are among the values, and give what the evaluation gave.
    stages = find_record(Trial(run, "mini-duke"))["stages"]
    for stage in ("+TLift", "+RR+TLift"):
        at_default = [rows[1]["stages"][stage], rows[2]["stages"][stage]]
        at_default.append(record["variants"]["released"][stage])
        for found in at_default:
            assert found["mean_ap"] == pytest.approx(stages[stage]["mean_ap"], abs=1e-5)
        assert rows[0]["stages"][stage]["mean_ap"] != at_default[0]["mean_ap"]


def test_what_follows_the_trials_is_run_once_and_across_domains_only(smoke, monkeypatch):
    seen = []

    def after(run, target, device):
        seen.append((run.name, target))
        return {}

    experiment = dataclasses.replace(EXPERIMENTS["memory"], after=("nothing", after))
    monkeypatch.setitem(EXPERIMENTS, "memory", experiment)
    experiments.run_experiment("memory", profile="smoke", seeds=1)
    assert [target for _, target in seen] == ["mini-duke"] * 2


def test_probabilities():
    logits = np.array([-8.0, 0.0, 3.0])
    tempered = (1 / (1 + np.exp(-logits / 10))).astype(np.float32)
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(probabilities(tempered, "qaconv"), expected, rtol=1e-4)
    shifted = probabilities(np.array([0.2, 0.8]), "softmax", [10.0, -5.0])
    np.testing.assert_allclose(shifted, 1 / (1 + np.exp([3.0, -3.0])), rtol=1e-5)


class TestRuns:
    def test_settings_of_the_profile_leave_the_name_alone(self):
        plain = Run("qaconv", "mini-market")
        assert Run("qaconv", "mini-market", settings={"occlusion": "occlusion"}) == plain
        assert plain.name == "qaconv-mini-market-laptop-seed0"
        other = Run("qaconv", "mini-market", settings={"tied": True, "gamma": 0.0})
        assert other.name == "qaconv-mini-market-laptop-gamma=0.0-tied=True-seed0"

    def test_a_file_among_the_settings_is_no_folder_in_the_name(self):
        run = Run("qaconv", "mini-market", settings={"weights": Path("/data/other\\net.pth")})
        assert run.name == "qaconv-mini-market-laptop-weights=_data_other_net.pth-seed0"
        assert json.loads(json.dumps(run.about))["settings"] == run.settings

    def test_all_images_of_a_dataset(self):
        table = runs.training_images("mini-cuhk03-all")
        data = load_dataset("mini-cuhk03")
        assert len(table) == len(data.train) + len(data.query) + len(data.gallery)

    def test_the_first_identities(self):
        run = Run("softmax", "mini-market", settings={"identities": 7})
        whole = load_dataset("mini-market").train
        assert run.table()["identity"].nunique() == 7
        assert run.table()["identity"].max() == np.sort(whole["identity"].unique())[6]

    @pytest.mark.parametrize("settings", [{"learning": 1}, {"epochs": 0}])
    def test_unknown_settings_are_refused(self, settings):
        with pytest.raises((TypeError, ValueError)):
            Run("qaconv", "mini-market", settings=settings)


class TestExperiments:
    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_every_experiment_can_be_listed(self, name, profile):
        trials = list_trials(name, profile, seeds=2)
        assert {trial.run.seed for trial in trials} == {0, 1}
        assert len({trial.name for trial in trials}) == len(trials)

    def test_table_1_has_every_loss_both_ways_and_within(self):
        found = {(t.run.loss, t.run.source, t.target) for t in list_trials("table1", seeds=1)}
        assert len(found) == 5 * 2 * 2

    def test_tables_3_and_4_share_their_runs(self):
        third, fourth = (
            {trial.run.name for trial in list_trials(name, seeds=1)}
            for name in ("table3", "table4")
        )
        assert third == fourth and len(third) == 6
        assert sum("mini-msmt17-all" in name for name in third) == 2

    def test_paper_profile_names_the_papers_networks_and_datasets(self):
        trials = list_trials("table3", "paper", seeds=1)
        assert {t.run.config().backbone for t in trials} == {"resnet50", "resnet152"}
        table1 = list_trials("table1", "paper", seeds=1)
        assert {t.run.config().backbone for t in table1} == {"resnet152"}
        assert {t.run.source for t in trials} == {"market1501", "dukemtmc", "msmt17-all"}

    def test_triplets_have_settings_of_their_own(self):
        profile = get_profile("laptop")
        for name, (loss, settings) in graph_sampling_settings(profile).items():
            own = "triplets" in name
            assert (settings.get("triplet_margin") == 16.0) == own, name
            assert (profile.triplets.items() <= settings.items()) == own, name
            run = Run(loss, "mini-market", settings=settings)
            assert run.config().sampler == settings.get("sampler", "shuffle")

    def test_an_ablation_starts_with_the_default_and_changes_something(self):
        for loss, variants in ABLATIONS.values():
            first, *others = variants.values()
            assert first == {}
            names = {Run(loss, "mini-market", settings=v).name for v in (first, *others)}
            assert len(names) == len(variants)


class TestBadInput:
    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["train", "triplet", "mini-market"], "loss must be one of"),
            (["train", "qaconv", "nowhere"], "unknown dataset 'nowhere'"),
            (["train", "qaconv", "mini-market", "--profile", "huge"], "unknown profile 'huge'"),
            (
                ["evaluate", "qaconv", "mini-market", "mini-duke", "--seed", "99"],
                "no checkpoint at",
            ),
            (["tables", "--profile", "huge"], "unknown profile"),
            (["tables", "table9"], "unknown table 'table9'; known are headline"),
            (["run", "table9"], "unknown experiment 'table9'"),
            (["run", "table1", "--seeds", "0"], "seeds must be at least 1"),
            (["run", "table1", "--jobs", "0"], "jobs must be at least 1"),
            (["train", "qaconv", "mini-market", "--device", "gpu"], "device must be cpu"),
            (["evaluate", "qaconv", "mini-market", "mini-duke", "--profile", "zz"], "profile 'zz'"),
        ],
    )
    def test_one_sentence_and_status_2(self, workplace, capsys, arguments, message):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error

    def test_no_search_names_the_command(self, workplace):
        with pytest.raises(FileNotFoundError, match="python -m qaconv_lib tune softmax"):
            search.best_settings("softmax", "paper")

    def test_no_calibration_names_the_command(self, monkeypatch):
        about = {"loss": "softmax", "profile": "smoke", "source": "mini-market", "settings": {}}
        record = about | {"scores": {"mean_ap": 0.5}, "calibration": [1.0, 2.0]}
        monkeypatch.setattr(search, "read_records", lambda folder: [record])
        assert search.calibration_of("softmax", "mini-market", "smoke") == [1.0, 2.0]
        with pytest.raises(FileNotFoundError, match="tune softmax mini-duke --profile smoke"):
            search.calibration_of("softmax", "mini-duke", "smoke")

    def test_a_damaged_record_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("QACONV_DATA", str(tmp_path))
        path = tmp_path / "results" / "broken" / "x.json"
        path.parent.mkdir(parents=True)
        for content in ("{", "[]", '{"profile": "laptop"}'):
            path.write_text(content)
            with pytest.raises(ValueError, match=r"x\.json is not a record"):
                records.read_records("broken")


def test_run_without_a_name_lists_the_experiments(capsys):
    assert main(["run"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPERIMENTS)


@pytest.mark.parametrize("command", ["train", "evaluate", "tune"])
def test_the_help_names_every_loss(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(LOSSES) <= set(words)


def test_the_papers_settings():
    config = get_profile("paper").config("qaconv")
    assert (config.height, config.width, config.batch_size) == (384, 128, 32)
    assert (config.epochs, config.decay_epochs) == (60, 40)
    assert (config.learning_rate, config.backbone_learning_rate) == (0.01, 0.001)
    assert (config.final_layer, config.neck_channels, config.kernel_size) == ("layer3", 128, 1)
    assert get_profile("paper").config("softmax").final_layer == "layer4"


class TestMeansOfComputing:
    def test_they_name_records_of_their_own(self):
        name = profile_with("paper", precision="bfloat16", accumulate=2, workers=4)
        assert name == "paper+accumulate=2+precision=bfloat16"  # four workers it has anyway
        trials = list_trials("table3", name, seeds=1)
        assert {trial.run.config().precision for trial in trials} == {"bfloat16"}
        assert all(name in trial.name and "precision" not in trial.run.settings for trial in trials)
        assert profile_with("paper", accumulate=1) == "paper"

    @pytest.mark.parametrize(
        "wrong", ["batch_size=8", "precision", "workers=x", "workers=1+workers=1"]
    )
    def test_others_are_refused(self, wrong):
        with pytest.raises(ValueError, match="(no means of computing|precision must be)"):
            get_profile(f"laptop+{wrong}")

    def test_run_takes_them_and_unreadable_images(self, monkeypatch):
        seen = {}
        monkeypatch.setattr(
            experiments, "run_experiment", lambda name, **how: seen.update(how) or []
        )
        assert main(["run", "memory", *SMOKE, "--accumulate", "2", "--skip-unreadable"]) == 0
        assert seen["profile"] == "smoke+accumulate=2" and seen["skip_unreadable"]

    def test_memory_that_runs_out_names_the_flags_of_run(self, monkeypatch, capsys):
        def fail(name, **how):
            raise ShortOfMemoryError("out of memory while training")

        monkeypatch.setattr(experiments, "run_experiment", fail)
        assert main(["run", "memory", *SMOKE]) == 2
        assert "`run` takes --accumulate, --precision" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["epochs", "epochs-arc", "image-size", "distill"])
def test_variants_of_the_laptop_are_refused_at_the_papers_size(name):
    with pytest.raises(ValueError, match=f"{name} cannot be run at the paper profile"):
        experiments.run_experiment(name, profile="paper")


def test_an_unreadable_image_of_the_target_stops_before_the_training(
    workplace, own_runs, monkeypatch, tmp_path
):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"damaged")
    duke = load_dataset("mini-duke")
    gallery = duke.gallery.assign(path=[str(bad), *duke.gallery["path"][1:]])
    harmed = dataclasses.replace(duke, gallery=gallery)
    monkeypatch.setattr(runs, "load_test", lambda name: harmed)
    monkeypatch.setattr(experiments, "_execute", None)  # would fail if a run were started
    with pytest.raises(UnreadableImageError, match="query and gallery: 1 of .*--skip-unreadable"):
        experiments.run_experiment("head", profile="smoke", seeds=1)


def test_what_comes_after_leaves_out_unreadable_images_only_if_asked():
    run = Run("qaconv", "mini-market", "smoke")
    trials = [Trial(run, name) for name in ("mini-market", "mini-duke", "mini-cuhk03")]
    lines = []

    def refuse(run, target, device):
        raise UnreadableImageError(f"{target}: 1 image")

    def after(act, skip):
        # A folder without records; no record of a source on itself, or without times.
        return experiments._after_all(trials, "nowhere", act, None, lines.append, skip)

    assert after(lambda run, target, device: {"target": target}, False) == [{"target": "mini-duke"}]
    assert lines.pop() == f"nowhere: {trials[1].name}"
    with pytest.raises(UnreadableImageError, match="mini-duke"):
        after(refuse, False)
    assert after(refuse, True) == []
    assert lines == [
        f"nowhere: left out for {trials[1].name}: it takes all images, unreadable ones too"
    ]


def test_a_loss_without_a_search_stops_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    monkeypatch.setattr(experiments, "_execute", None)  # would fail if a run were started
    monkeypatch.setattr(experiments, "check_readable", lambda names: None)
    with pytest.raises(FileNotFoundError, match="tune arc .* --profile paper"):
        experiments.run_experiment("table1", profile="paper", seeds=1)
