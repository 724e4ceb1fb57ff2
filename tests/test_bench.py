"""The plain formulations equal the library's, and the benchmark measures what it says."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qaconv_lib._processes import peak_megabytes
from qaconv_lib.cli import main
from qaconv_lib.datasets import load_dataset
from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.experiments import bench, plain
from qaconv_lib.experiments.records import read_records
from qaconv_lib.losses import QAConvLoss
from qaconv_lib.matching import QAConv, best_matches, match_gallery
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift


@pytest.fixture(autouse=True, scope="module")
def _quick_collection():
    """`measure` collects garbage each time; what was there before need not be searched."""
    gc.freeze()
    yield
    gc.unfreeze()


def small_maps(count, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, 5, 4, 3, generator=generator)
    return torch.nn.functional.normalize(maps, dim=1)


class TestPlainForms:
    """The plain forms and the library's check each other."""

    @pytest.mark.parametrize("tied", [False, True])
    def test_matching(self, tied):
        maps, matcher = (small_maps(3, 0), small_maps(7, 1)), QAConv(4, 3, tied=tied).eval()
        torch.testing.assert_close(plain.best_matches(*maps), best_matches(*maps))
        theirs = plain.match_gallery(matcher, *maps)
        torch.testing.assert_close(theirs, match_gallery(matcher, *maps))

    def test_training_loss(self):
        criterion, labels = QAConvLoss(4, 5, 4, 3), torch.tensor([2, 0, 2])
        criterion.memory.features.copy_(small_maps(4, 1))
        criterion.memory.valid.fill_(True)
        maps = small_maps(3, 0).requires_grad_()
        loss = criterion(maps, labels)[0]
        other = plain.qaconv_loss(criterion.matcher, maps, criterion.memory.features, labels)
        torch.testing.assert_close(other, loss)
        mine, theirs = (torch.autograd.grad(value, maps)[0] for value in (loss, other))
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize(("k1", "k2"), [(7, 3), (20, 6), (5, 1)])
    def test_re_ranking(self, k1, k2):
        whole = 0.5 - 0.5 * (vectors := bench.clustered_vectors(90)) @ vectors.T
        whole = whole.clip(0)
        parts = whole[:20, 20:], whole[:20, :20], whole[20:, 20:]
        mine, theirs = (f(*parts, k1, k2) for f in (k_reciprocal_rerank, plain.k_reciprocal_rerank))
        np.testing.assert_allclose(mine, theirs, atol=1e-5)

    def test_tlift(self):
        rng = np.random.default_rng(0)
        scene = [rng.integers(1, 6, (15, 40)) / 7]  # with ties
        for count in (15, 40):
            scene += [rng.integers(0, 3, count), rng.random(count) * 900]
        np.testing.assert_allclose(tlift(*scene), plain.tlift(*scene), atol=1e-12)

    def test_evaluation(self):
        rng = np.random.default_rng(0)
        arguments = [rng.random((15, 60))]
        arguments += [rng.integers(1, 5, 15), rng.integers(-1, 5, 60)]
        arguments += [rng.integers(0, 3, 15), rng.integers(0, 3, 60)]
        mine = evaluate_ranking(*arguments)
        cmc, mean_ap, mean_inp = plain.evaluate_ranking(*arguments)
        np.testing.assert_allclose(mine.cmc, cmc)
        assert mine.mean_ap == pytest.approx(mean_ap)
        assert mine.mean_inp == pytest.approx(mean_inp)


SMALL = {
    "machine": [partial(bench.bench_machine, size=64, count=1000)],
    "matching": [partial(bench.bench_matching, 2, 5)],
    "threads": [partial(bench.on_one_thread, partial(bench.bench_matching, 2, 5))],
    "small": [partial(bench.bench_matching, 2, 5, shape=(8, 4, 2))],
    "network": [bench.bench_network],
    "optimisations": [partial(bench.bench_optimisations, 2, 5)],
    "itself": [partial(bench.bench_itself, 5, True)],
    "training": [partial(bench.bench_training, 33, beside) for beside in (True, False)],
    "tlift": [partial(bench.bench_tlift, 30, 90)],
    "evaluation": [partial(bench.bench_evaluation, 30, 4000)],
    "reranking": [partial(bench.bench_reranking, 90, beside) for beside in (True, False)],
    "streaming": [partial(bench.bench_streaming, 96)],
}


class TestBench:
    @pytest.fixture(autouse=True)
    def own_records(self, no_records, monkeypatch):
        monkeypatch.setattr(bench, "CASES", SMALL)
        monkeypatch.setattr(bench, "SHAPE", (16, 6, 2))
        monkeypatch.setattr(bench, "TURNS", 1)

    def test_every_case_has_its_record(self, capsys):
        assert main(["bench"]) == 0
        records = {record["case"]: record for record in read_records("bench")}
        rows = {name: len(cases) for name, cases in SMALL.items()} | {
            "optimisations": 7,
            "network": 2,
        }
        assert {name: len(record["rows"]) for name, record in records.items()} == rows
        shipped = Path(bench.__file__).parents[2] / "data" / "results" / "bench"
        for name, record in records.items():
            assert record["device"].startswith("CPU")
            old = json.loads((shipped / f"{name}.json").read_text())
            assert record.keys() == old.keys()
            assert record["rows"][0].keys() == old["rows"][0].keys()
            for row in record["rows"]:
                assert row.get("seconds", 1) > 0
                if "plain_seconds" in row:
                    ratio = row["plain_seconds"] / row["seconds"]
                    assert row["ratio"] == pytest.approx(ratio, rel=0.02)
        assert len(capsys.readouterr().out.splitlines()) == sum(rows.values())

    def test_an_unknown_case_is_named(self, capsys):
        assert main(["bench", "tlift", "speed"]) == 2
        error = capsys.readouterr().err
        assert "'speed'" in error and "tlift" in error
        assert read_records("bench") == []

    def test_forms_that_disagree_end_it(self, monkeypatch, capsys):
        monkeypatch.setattr(plain, "tlift", lambda *scene: scene[0])
        assert main(["bench", "tlift"]) == 2
        assert "TLift at 30 x 90" in capsys.readouterr().err
        assert read_records("bench") == []


class TestOnTheMiniatures:
    """The shipped model on a few queries and images."""

    @pytest.fixture(autouse=True)
    def few_images(self, monkeypatch):
        def few(name):
            data = load_dataset(name)
            known = data.gallery["identity"].isin(data.query["identity"][:1])
            gallery = pd.concat([data.gallery[known], data.gallery[~known][:12]])
            return dataclasses.replace(data, query=data.query[:4], gallery=gallery)

        monkeypatch.setattr(bench, "load_dataset", few)
        monkeypatch.setattr(bench, "TURNS", 1)

    def test_a_row_a_step(self):
        rows = bench.bench_test("mini-market", "mini-duke")
        steps = [row["step"] for row in rows]
        assert steps[:3] == ["extraction", "matching, bfloat16", "matching"]
        assert {"re-ranking", "TLift", "scores"} < set(steps)
        precision = {row["step"]: row["mean_ap"] for row in rows if "mean_ap" in row}
        assert precision["matching, bfloat16"] == pytest.approx(precision["matching"], abs=0.02)
        assert all(0.2 < value <= 1 for value in precision.values())

    @pytest.mark.parametrize("distractors", [0, 50])
    def test_a_longer_shortlist_comes_closer(self, distractors, monkeypatch):
        monkeypatch.setattr(bench, "LENGTHS", (1, 10, 10_000))
        *rows, whole = bench.bench_shortlist("mini-market", "mini-duke", distractors)
        kinds = ["four stripes"] * 2 + ["one average"] * 2 * (not distractors)
        assert [row["pooling"] for row in rows] == kinds
        for one, ten in zip(rows[::2], rows[1::2], strict=True):
            assert (one["length"], ten["length"]) == (1, 10)  # no list longer than the gallery
            assert ten["mean_ap"] >= one["mean_ap"] > 0
        assert whole["length"] == whole["gallery"] and whole["queries"] == 4
        assert whole["rank1"] > 0.2

    def test_mixed_maps_are_halves_of_two_images(self):
        maps = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 2)
        mixed = bench.mixed_maps(maps, 40)
        assert mixed.shape == (40, 2, 4, 2)
        for half in (mixed[:, :, :2], mixed[:, :, 2:]):
            assert torch.equal(half, half[:, :1, :1, :1].expand_as(half))
        assert (mixed[:, 0, 0, 0] != mixed[:, 0, 3, 0]).any()


class TestMeasure:
    def test_memory_is_what_was_held_beyond_the_start(self):
        held = np.ones(20_000_000)  # 160 MB that were there before
        found = bench.measure(lambda: np.ones(10_000_000).sum())
        assert found.result == 1e7 and held.sum() == 2e7 and found.seconds > 0
        if found.megabytes is not None:  # Linux
            assert found.megabytes == pytest.approx(80, abs=10)

    def test_the_fastest_of_three_turns_counts(self):
        waits = iter([0.02, 0.001, 0.02])

        def act():
            time.sleep(next(waits))
            return 7

        (found,) = bench.in_turns(only=act).values()
        assert found.result == 7 and 0.001 <= found.seconds < 0.02

    def test_where_the_system_does_not_tell(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "win32")
        found = bench.measure(lambda: 1)
        assert found.megabytes is None
        row = bench.compare("step", "size", {"library": found._replace(seconds=0.123456)})
        assert row == {"step": "step", "size": "size", "seconds": 0.123, "megabytes": None}

    def test_the_most_that_was_held_grows_with_what_is_held(self):
        if (first := peak_megabytes("cpu")) is not None:  # Windows does not tell
            held = np.ones(30_000_000)
            assert peak_megabytes("cpu") >= first and held[-1] == 1
