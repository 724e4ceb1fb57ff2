"""Profiles, experiments, records and their commands, at the smoke profile."""

import numpy as np
import pytest

from qaconv_lib import experiments, records, tables
from qaconv_lib.__main__ import main
from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments import best_search, pair_similarities, probabilities, similarity_stages
from qaconv_lib.profiles import get_profile
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A data folder of its own for records and checkpoints; datasets come from the checkout."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def smoke(workplace):
    """Both losses searched, trained on mini-market and tested on mini-duke."""
    for loss in ("softmax", "qaconv"):
        options = [loss, "mini-market", "--profile", "smoke", "--quiet"]
        assert main(["search", *options]) == 0
        assert main(["train", *options]) == 0
        assert main(["evaluate", *options, "mini-duke"]) == 0
    return workplace


def test_the_whole_path_leaves_checkpoints_and_records(smoke):
    names = sorted(p.relative_to(smoke).as_posix() for p in smoke.rglob("*") if p.is_file())
    runs = ["qaconv-mini-market-smoke-seed0", "softmax-mini-market-smoke-seed0"]
    assert names == sorted(
        [f"checkpoints/{run}.safetensors" for run in runs]
        + [f"results/train/{run}.json" for run in runs]
        + [f"results/cross_domain/{run}-on-mini-duke.json" for run in runs]
        + [
            f"results/search/{loss}-mini-market-smoke-default.json"
            for loss in ("qaconv", "softmax")
        ]
    )


def test_records_say_what_made_them(smoke):
    for record in records.read_records("train") + records.read_records("cross_domain"):
        assert record["profile"] == "smoke" and record["seed"] == 0
        assert record["device"] and record["versions"]["torch"] and record["seconds"] >= 0
        assert "commit" in record and record["threads"] >= 1


def test_scores_are_shares_and_beat_chance(smoke):
    for record in records.read_records("cross_domain"):
        assert set(record["stages"]) == set(tables.STAGES)
        for scores in record["stages"].values():
            assert 0.01 < scores["mean_ap"] < scores["rank10"] <= 1
            assert scores["rank1"] <= scores["rank5"] <= scores["rank10"]


def test_the_table_is_drawn_from_the_records(smoke, capsys):
    assert main(["tables", "--profile", "smoke"]) == 0
    printed = capsys.readouterr().out
    for record in records.read_records("cross_domain"):
        for scores in record["stages"].values():
            assert f"{100 * scores['rank1']:.1f} / {100 * scores['mean_ap']:.1f}" in printed
    assert "mini-market → mini-duke" in printed and "CPU" in printed


def test_a_search_is_not_run_twice(smoke, monkeypatch):
    monkeypatch.setattr(experiments, "Trainer", None)  # would fail if a run were started
    (record,) = experiments.search("qaconv", "mini-market", profile="smoke")
    assert record == best_search("qaconv", "mini-market", "smoke")
    assert record["held_out_identities"] == 5


def test_stages_are_the_functions_of_the_library(smoke, monkeypatch):
    pairs = pair_similarities("qaconv", "mini-market", "mini-duke", profile="smoke")
    duke = load_dataset("mini-duke")
    assert pairs["query_gallery"].shape == (len(duke.query), len(duke.gallery))
    stages = similarity_stages(pairs, duke, "qaconv")
    distances = [1 - pairs[k] for k in ("query_gallery", "query_query", "gallery_gallery")]
    moments = [duke.query["camera"], duke.query["seconds"]]
    moments += [duke.gallery["camera"], duke.gallery["seconds"]]
    reranked = 1 - k_reciprocal_rerank(*distances)
    np.testing.assert_allclose(stages["+RR"], reranked)
    np.testing.assert_allclose(stages["+RR+TLift"], tlift(reranked, *moments))
    monkeypatch.setattr(experiments, "load_model", None)  # the second call finds the first's result
    again = pair_similarities("qaconv", "mini-market", "mini-duke", profile="smoke")
    assert all(np.array_equal(again[key], pairs[key]) for key in pairs)


def test_probabilities():
    logits = np.array([-8.0, 0.0, 3.0])
    tempered = (1 / (1 + np.exp(-logits / 10))).astype(np.float32)
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(probabilities(tempered, "qaconv"), expected, rtol=1e-4)
    shifted = probabilities(np.array([0.2, 0.8]), "softmax", (10.0, -5.0))
    np.testing.assert_allclose(shifted, 1 / (1 + np.exp([3.0, -3.0])), rtol=1e-5)


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
            (["train", "qaconv", "mini-market", "--device", "gpu"], "device must be cpu"),
            (["evaluate", "qaconv", "mini-market", "mini-duke", "--profile", "zz"], "profile 'zz'"),
        ],
    )
    def test_one_sentence_and_status_2(self, workplace, capsys, arguments, message):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error

    def test_no_search_names_the_command(self, workplace):
        with pytest.raises(
            FileNotFoundError, match="python -m qaconv_lib search softmax mini-duke"
        ):
            best_search("softmax", "mini-duke", "paper")

    def test_a_damaged_record_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("QACONV_DATA", str(tmp_path))
        path = tmp_path / "results" / "broken" / "x.json"
        path.parent.mkdir(parents=True)
        for content in ("{", "[]", '{"profile": "laptop"}'):
            path.write_text(content)
            with pytest.raises(ValueError, match=r"x\.json is not a record"):
                records.read_records("broken")


def test_the_papers_settings():
    config = get_profile("paper").config("qaconv", "market1501")
    assert (config.height, config.width, config.batch_size) == (384, 128, 32)
    assert (config.epochs, config.decay_epochs) == (60, 40)
    assert (config.learning_rate, config.backbone_learning_rate) == (0.01, 0.001)
    assert (config.final_layer, config.neck_channels, config.kernel_size) == ("layer3", 128, 1)
    assert get_profile("paper").config("softmax", "market1501").final_layer == "layer4"
