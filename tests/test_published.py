"""The published numbers: they agree with each other, and support what chapter 8 says of them."""

from __future__ import annotations

import numpy as np
import pytest

from qaconv_lib.experiments.published import TABLE1, TABLE2, TABLES34


@pytest.mark.parametrize("direction", [("market", "duke"), ("duke", "market")])
def test_qaconv_has_the_same_numbers_in_every_table(direction: tuple[str, str]) -> None:
    assert TABLE1["qaconv"][direction] == TABLE2["alone"][direction]
    for stage in ("alone", "+RR+TLift"):
        assert TABLES34[("large", stage, *direction)] == TABLE2[stage][direction]


def gains(source: str, target: str) -> dict[str, np.ndarray]:
    """What each of three changes adds to rank-1 and mAP, with ResNet-152."""
    alone = np.array(TABLE1["qaconv"][source, target])
    return {
        "matcher": alone - TABLE1["softmax"][source, target],
        "re-ranking": TABLE2["+RR"][source, target] - alone,
        "source": TABLES34["large", "alone", "msmt17", target] - alone,
    }


@pytest.mark.parametrize(
    "direction, rank1, mean_ap",
    [(("market", "duke"), "matcher", "source"), (("duke", "market"), "matcher", "re-ranking")],
)
def test_no_effect_is_the_largest_throughout(direction, rank1, mean_ap) -> None:
    found = gains(*direction)
    assert max(found, key=lambda name: found[name][0]) == rank1
    assert max(found, key=lambda name: found[name][1]) == mean_ap


def test_the_source_adds_as_chapter_8_says() -> None:
    np.testing.assert_allclose(gains("market", "duke")["source"], [17.8, 19.8])
    np.testing.assert_allclose(gains("duke", "market")["source"], [11.1, 15.0])
    rank1 = [TABLES34["large", "alone", s, "cuhk03"][0] for s in ("msmt17", "market", "duke")]
    assert rank1 == [32.6, 14.1, 11.0]
