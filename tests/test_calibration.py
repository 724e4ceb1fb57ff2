"""ROC, thresholds and calibration against what is known, and their records."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from qaconv_lib.datasets import ReidDataset
from qaconv_lib.experiments import calibration_records
from qaconv_lib.experiments.calibration_records import (
    Pairs,
    calibration_record,
    cross_camera_pairs,
    find_calibrations,
    halves,
    transfer_table,
)
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.models import ReidModel, save_model
from qaconv_lib.photographs.calibration import (
    Calibration,
    calibration_cost,
    fit_calibration,
    operating_point,
    rates_at,
    reliability,
    roc_curve,
)


@pytest.fixture(scope="module")
def gaussian():
    """Scores N(1, 1) of one person, N(-1, 1) of others: the log likelihood ratio is 2 * score."""
    rng = np.random.default_rng(0)
    same = rng.random(40_000) < 0.1
    return rng.normal(np.where(same, 1.0, -1.0)), same


def test_roc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, same = rng.integers(0, 8, 60), rng.random(60) < 0.4  # many ties
    roc = roc_curve(scores, same)
    assert roc.thresholds[0] == np.inf and (np.diff(roc.thresholds) < 0).all()
    for threshold, false, true in zip(*roc, strict=True):
        assert false == (scores[~same] >= threshold).mean()
        assert true == (scores[same] >= threshold).mean()
    area = np.trapezoid(roc.true_positive_rate, roc.false_positive_rate)
    assert area == pytest.approx(roc_auc_score(same, scores))


@pytest.mark.parametrize("wanted", [0.5, 0.05, 0.01])
def test_operating_point_is_the_lowest_threshold_that_keeps_the_rate(wanted):
    rng = np.random.default_rng(1)
    scores, same = rng.integers(0, 300, 400), rng.random(400) < 0.5
    found = operating_point(roc_curve(scores, same), wanted)
    allowed = [t for t in range(301) if (scores[~same] >= t).mean() <= wanted]
    assert (scores >= found.threshold).tolist() == (scores >= min(allowed)).tolist()
    assert found == rates_at(scores, same, found.threshold)


def test_a_rate_that_cannot_be_kept_is_refused():
    roc = roc_curve([3, 2, 1, 0], np.array([False, True, False, True]))
    with pytest.raises(ValueError, match="more pairs are needed"):
        operating_point(roc, 0.1)
    with pytest.raises(ValueError, match="lowest above 0 that these pairs show is 0.25"):
        operating_point(roc_curve([5, 4, 3, 2, 1], np.arange(5) < 1), 0.1)  # 4 cannot tell 0.1
    with pytest.raises(ValueError, match="between 0 and 1"):
        operating_point(roc, 1.0)


def test_calibration_finds_the_likelihood_ratio(gaussian):
    found = fit_calibration(*gaussian)
    assert found.slope == pytest.approx(2, abs=0.1)
    assert found.offset == pytest.approx(0, abs=0.1)


def test_the_prior_enters_by_the_rule_of_bayes():
    calibration = Calibration(2.0, -1.0)
    scores, prior = np.array([-1.0, 0.5, 2.0]), 0.03
    ratio = np.exp(2 * scores - 1)
    assert calibration.probability(scores, prior) == pytest.approx(
        ratio * prior / (ratio * prior + 1 - prior)
    )
    with pytest.raises(ValueError, match="prior"):
        calibration.probability(scores, 1.0)


def test_cost_of_good_empty_and_misleading_ratios(gaussian):
    scores, same = gaussian
    true = calibration_cost(2 * scores, same)
    assert calibration_cost(np.zeros(len(scores)), same) == pytest.approx(1)
    assert 0 < true < 0.6
    assert calibration_cost(6 * scores, same) > true < calibration_cost(2 * scores + 2, same)
    assert calibration_cost(-2 * scores, same) > 1


def test_reliability_of_true_probabilities_is_the_diagonal(gaussian):
    scores, same = gaussian
    table = reliability(expit(2 * scores), same, bins=5)
    assert table["pairs"].sum() == len(scores)
    assert np.abs(table["stated"] - table["happened"]).max() < 0.05
    wrong = reliability(expit(2 * scores + 2), same, bins=5)
    assert (wrong["stated"] > wrong["happened"]).all()


@pytest.mark.parametrize(
    "scores, same, message",
    [
        ([1.0, 2.0], np.array([True]), "one shape"),
        ([1.0, np.nan], np.array([True, False]), "finite"),
        ([1.0, 2.0], np.array([True, True]), "both pairs"),
        ([1.0, 2.0], np.array([1, 0]), "bool"),
    ],
)
def test_bad_pairs_are_refused(scores, same, message):
    for function in (roc_curve, fit_calibration, calibration_cost, reliability):
        with pytest.raises(ValueError, match=message):
            function(scores, same)


def test_pairs_are_of_two_cameras_and_distractors_are_nobody():
    def table(identities, cameras):
        return pd.DataFrame({"path": "", "identity": identities, "camera": cameras})

    class Model:
        def extract(self, table, progress):
            return torch.tensor(table["identity"].to_numpy() * 10.0 + table["camera"].to_numpy())

        def similarity(self, query, gallery, progress):
            return query[:, None] * 1000 + gallery[None]

    gallery = table([1, 1, 0, 2, -1], [0, 1, 1, 0, 2])
    dataset = ReidDataset("x", None, None, table([1, 2], [0, 1]), gallery)
    pairs = cross_camera_pairs(Model(), dataset)
    assert pairs.scores.tolist() == [10_011, 10_001, 21_010, 21_020]
    assert pairs.same.tolist() == [True, False, False, True]
    assert pairs.identities.tolist() == [1, 1, 2, 2]
    assert pairs.others.tolist() == [1, 0, 1, 2]


def shifted_pairs(shift, seed):
    """Scores of 40 people; `shift` moves all of them, as another domain may."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(1, 41), 1000)
    others = rng.integers(0, 41, len(identities))
    others[others == 0] = -1  # distractors
    same = rng.random(len(identities)) < 0.05
    others[same] = identities[same]
    same |= others == identities
    return Pairs(rng.normal(np.where(same, 2.0, -2.0)) + shift, same, identities, others)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Domain "a" is what the model knows; in "b" all pairs look more alike."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "results").mkdir()
    torch.manual_seed(0)
    model = ReidModel(get_profile("smoke").config("qaconv", pretrained=False), 2)
    save_model(folder / "own model.safetensors", model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_DATA", str(folder))
        patch.setattr(calibration_records, "load_dataset", lambda name: name)
        patch.setattr(calibration_records, "content_key", lambda name, part: None)
        patch.setattr(
            calibration_records,
            "cross_camera_pairs",
            lambda model, name, progress: shifted_pairs(*{"a": (0, 1), "b": (1.5, 2)}[name]),
        )
        found = calibration_record(folder / "own model.safetensors", ["a", "b"], device="cpu")
        (path,) = (folder / "results/calibration").glob("own model-*.json")
        written = json.loads(path.read_text())
        assert written == json.loads(json.dumps(found))
        assert find_calibrations(model.eval()) == written
        with torch.no_grad():
            model.backbone.neck[0].weight.mul_(2)
        assert find_calibrations(model) is None
    return found


def test_halves_share_nobody():
    whole = shifted_pairs(0, 1)
    first, second = (set(half.identities) | set(half.others) for half in halves(whole))
    assert not first & second and first | second == set(range(1, 41))
    for half, people in zip(halves(whole), (first, second), strict=True):
        inside = np.isin(whole.identities, list(people)) & np.isin(whole.others, list(people))
        assert half.scores.tolist() == whole.scores[inside].tolist()


def test_a_threshold_holds_on_other_people_and_breaks_on_another_domain(record):
    table = transfer_table(record).set_index(["fitted on", "tried on", "wanted"])
    assert len(table) == 8
    rates = table["false positive rate"]
    assert rates["a", "a", 0.01] == pytest.approx(0.01, rel=0.3)
    assert rates["a", "b", 0.01] > 0.05  # 1.5 standard deviations nearer
    assert rates["b", "a", 0.01] < 0.002
    costs = table["cost"]
    assert costs["a", "b", 0.01] > 1.5 * costs["b", "b", 0.01]


def test_intervals_hold_the_rates(record):
    for row in record["transfer"]:
        for found in row["thresholds"]:
            for kind in ("true", "false"):
                low, high = found[f"{kind}_interval"]
                assert low <= found[f"{kind}_positive_rate"] <= high
                assert low < high or low in (0, 1)


def test_a_dataset_with_too_few_pairs_is_named(record, tmp_path, monkeypatch):
    model = ReidModel(get_profile("smoke").config("qaconv", pretrained=False), 2)
    save_model(tmp_path / "own.safetensors", model)
    monkeypatch.setattr(calibration_records, "load_dataset", lambda name: name)
    few = shifted_pairs(0, 1).of(np.arange(40_000) % 100 == 0)
    monkeypatch.setattr(
        calibration_records, "cross_camera_pairs", lambda model, name, progress: few
    )
    with pytest.raises(ValueError, match="one half of the people of few.csv: .* more pairs"):
        calibration_record(tmp_path / "own.safetensors", ["few.csv"], device="cpu")
