"""The ledger of claims: the rule of its verdicts, and that every row can be drawn."""

import pytest

from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments import claims, records
from qaconv_lib.experiments.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    MISSING,
    NOT_SHOWN,
    OPEN,
    PARTLY,
    SUGGESTIVE,
    UNTESTED,
    Claim,
    verdict,
)
from qaconv_lib.experiments.statistics import Difference
from qaconv_lib.experiments.suite import EXPERIMENTS


def found(*intervals, seeds=5):
    return [("here", None if i is None else Difference(sum(i) / 2, *i, seeds)) for i in intervals]


BETTER, FAR, EQUAL = {}, {"far": 5.0}, {"margin": 2.0}
NO_WORSE = EQUAL | {"one_sided": True}


@pytest.mark.parametrize(
    "rule, intervals, expected",
    [
        (BETTER, [(1, 2), (0.1, 3)], HOLDS),
        (BETTER, [(1, 2), (-0.1, 3)], PARTLY),
        (BETTER, [(-1, 2), (1, 3), (-3, -1)], PARTLY),
        (BETTER, [(-1, 2), (-3, -1)], NOT_SHOWN),
        (FAR, [(4, 6), (5, 9)], HOLDS),
        (FAR, [(4, 6), (1, 3)], PARTLY),
        (FAR, [(-1, 9), (5, 9)], PARTLY),
        (FAR, [(-9, -6)], FAILS),
        (BETTER, [(0, 2)], NOT_SHOWN),  # zero is not above zero
        (BETTER, [(-2, 0)], NOT_SHOWN),  # nor below
        (BETTER, [(-2, -1), (-3, -0.1)], FAILS),
        (BETTER, [(1, 2), None], MISSING),
        (BETTER, [], MISSING),
        (EQUAL, [(-1, 1), (0, 2)], HOLDS),
        (EQUAL, [(-1, 1), (1, 3)], OPEN),
        (EQUAL, [(-4, -3), (2.5, 3)], FAILS),
        (EQUAL, [(2.5, 3), (-1, 1)], PARTLY),
        (EQUAL, [(2.5, 3), (1, 3)], OPEN),
        (NO_WORSE, [(-1, 1), (3, 5)], HOLDS),  # better is no worse
        (NO_WORSE, [(-2, 1)], HOLDS),
        (NO_WORSE, [(-2.1, 1)], OPEN),
        (NO_WORSE, [(-5, -3), (0, 1)], PARTLY),
        (NO_WORSE, [(-5, -3)], FAILS),
    ],
)
def test_verdicts(rule, intervals, expected):
    claim = Claim("1", "table1", lambda profile: [], "A and B", **rule)
    assert verdict(claim, found(*intervals)) == expected


@pytest.mark.parametrize(
    "intervals, expected",
    [([(1, 2)], HOLDS), ([(1, 2), (-1, 1)], PARTLY), ([(-2, -1)], FAILS), ([(-1, 1)], NOT_SHOWN)],
)
def test_three_seeds_only_suggest_what_holds_or_does_not(intervals, expected):
    claim = Claim("1", "table1", lambda profile: [], "A and B")
    suggestive = expected if expected == NOT_SHOWN else expected + SUGGESTIVE
    assert verdict(claim, found(*intervals, seeds=4)) == expected
    assert verdict(claim, found(*intervals, seeds=3)) == suggestive
    assert verdict(claim, found(*intervals) + found(intervals[0], seeds=1)) == suggestive


def test_what_has_no_comparison_cannot_be_tested():
    assert verdict(Claim("1", "a GPU", None, "A"), []) == UNTESTED


def test_the_ledger_has_a_row_a_claim_and_the_compute_spent():
    rows = [line for line in claims.ledger("laptop").splitlines() if line.startswith("| ")]
    assert len(rows) == len(CLAIMS) + 1
    assert all(line.count("|") == 6 for line in rows)
    assert "models were trained, in" in claims.ledger("paper")  # where nothing has been run
    for claim in CLAIMS:
        if claim.compare is not None:
            assert set(claim.experiment.split(", ")) <= {*EXPERIMENTS, "correspondence"}
            assert claim.remark or claim.margin is None  # a margin must be stated to the reader
            assert claim.margin is not None or not claim.one_sided


def test_the_people_of_the_stored_records_are_those_of_the_dataset():
    stored = [r for r in records.read_records("evaluate") if r["target"] != "mini-world"]
    people = {
        name: load_dataset(name).query["identity"].tolist()
        for name in {record["target"] for record in stored}
    }
    for record in stored:
        for scores in record["stages"].values():
            assert scores["identity"] == people[record["target"]]  # all of these have a match


def scores(*precision):
    return [
        {
            "mean_ap": sum(p) / len(p),
            "average_precision": list(p),
            "identity": list(range(len(p))),
            "run": f"run of {p}",
        }
        for p in precision
    ]


def test_qaconv_is_compared_with_the_best_pooled_loss(monkeypatch):
    table = {
        "qaconv": scores((0.9, 0.7)),
        "softmax": scores((0.1, 0.1)),
        "arc": scores((0.5, 0.3)),
        "center": scores((0.2, 0.2)),
        "class-memory": scores((0.3, 0.3)),
    }

    def found(profile, source, target, loss="qaconv", settings=None, **more):
        return table.get(f"{loss}, layer3", []) if settings else table[loss]

    monkeypatch.setattr(claims.comparisons, "scores_of", found)
    (label, difference), _ = claims.best_pooled("laptop")
    assert label == "market → duke, over Arc loss" and difference.mean == pytest.approx(40)
    table["softmax, layer3"] = scores((0.5, 0.5))
    (label, difference), _ = claims.best_pooled("laptop")
    assert label.endswith("over softmax on layer3") and difference.mean == pytest.approx(30)
    assert dict(claims.pooled_layers("laptop"))["softmax, market → duke"].mean == pytest.approx(-40)
    table["center"] = []
    assert claims.best_pooled("laptop")[0][1] is None


def test_gain_of_reranking_is_a_difference_of_differences(monkeypatch):
    table = {("qaconv", "alone"): scores((0.5, 0.5)), ("qaconv", "+RR"): scores((0.9, 0.7))}
    for loss, gain in (("softmax", 0.1), ("arc", 0.2), ("center", 0.25), ("class-memory", 0.3)):
        table[loss, "alone"] = scores((0.4, 0.2))
        table[loss, "+RR"] = scores((0.4 + gain, 0.2 + gain))
    monkeypatch.setattr(
        claims.comparisons, "scores_of", lambda profile, s, t, loss, stage: table[loss, stage]
    )
    found = dict(claims.gain_of_reranking("laptop"))
    for loss, mean in (("softmax", 20), ("Arc loss", 10), ("center loss", 5)):
        assert found[f"over {loss}, duke → market"].mean == pytest.approx(mean)
    assert found["over class memory, pooled, market → duke"].mean == pytest.approx(0)
