"""Time lines and curves: what is drawn."""

import numpy as np
import pandas as pd
import pytest

from qaconv_lib.photographs.calibration import reliability, roc_curve
from qaconv_lib.temporal import tlift_pivots
from qaconv_lib.visualize import (
    show_reliability,
    show_roc,
    show_share_curves,
    show_shares,
    show_time_line,
)

# The example that chapter 10 works out by hand.
SIMILARITY = np.array(
    [
        [0.50, 0.10, 0.20, 0.60],
        [0.10, 0.90, 0.20, 0.05],
        [0.10, 0.15, 0.80, 0.10],
        [0.70, 0.20, 0.10, 0.95],
    ]
)
TIMED = SIMILARITY, [0] * 4, [0, 40.0, 90.0, 300.0], [1] * 4, [1000.0, 960.0, 1040.0, 1400.0]


def test_a_time_line_shows_pivots_and_probability():
    figure = show_time_line(*TIMED, 0, 1, k=3, marked={"X4": 3, "X1": 0}, alt="a time line")
    above, below = figure.axes
    nearby = next(line for line in above.lines if line.get_marker() == "o")
    assert nearby.get_xdata().tolist() == [0, 40, 90]
    pivots = next(line for line in below.lines if line.get_label() == "pivots")
    found = tlift_pivots(*TIMED, 0, 1, k=3)
    assert pivots.get_xdata().tolist() == [TIMED[4][image] for image in found.gallery]
    curve = next(line for line in below.lines if line.get_label() == "temporal probability")
    at = dict(zip(curve.get_xdata(), curve.get_ydata(), strict=True))
    expected = (np.exp(-4.84) + np.exp(-3.24) + 1) / 3  # of X4, as in the chapter
    assert at[1400.0] == pytest.approx(expected)
    marked = [line for line in below.lines if line.get_marker() in ("o", "s")]
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in marked]
    assert places == [(1400.0, 0.60), (1000.0, 0.50)]
    assert marked[0].get_color() != marked[1].get_color()
    assert figure.get_label() == "a time line"


def test_a_camera_without_images_is_refused():
    with pytest.raises(ValueError, match="no gallery images of camera 7"):
        show_time_line(*TIMED, 0, 7, alt="nothing")


def test_a_roc_starts_above_zero_and_ends_at_one():
    rng = np.random.default_rng(0)
    same = rng.random(500) < 0.3
    roc = roc_curve(rng.normal(same), same)
    figure = show_roc({"a": roc._asdict(), "b": roc._asdict()}, alt="two curves")
    (axis,) = figure.axes
    curves = [line for line in axis.lines if line.get_label() in "ab"]
    assert len(curves) == 2 and len({line.get_linestyle() for line in curves}) == 2
    for line in curves:
        assert (
            line.get_xdata().min()
            == roc.false_positive_rate[1:][roc.false_positive_rate[1:] > 0].min()
        )
        assert (line.get_xdata()[-1], line.get_ydata()[-1]) == (1, 1)
    assert axis.get_xscale() == "log"


def test_reliability_is_drawn_as_it_is():
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    table = reliability(probability, rng.random(500) < probability)
    figure = show_reliability({"a": table, "b": table.to_dict("list")}, alt="reliability")
    lines = [line for line in figure.axes[0].lines if line.get_label() in "ab"]
    for line in lines:
        assert line.get_xdata().tolist() == table["stated"].tolist()
        assert line.get_ydata().tolist() == table["happened"].tolist()


def test_nothing_to_show_is_refused():
    for function in (show_roc, show_reliability):
        with pytest.raises(ValueError, match="to show"):
            function({}, alt="nothing")


def share_table(index):
    shares = np.linspace(0.2, 0.6, len(index))
    return pd.DataFrame({"share": shares, "low": shares - 0.1, "high": shares + 0.05}, index=index)


def test_shares_stand_on_their_lines_with_their_intervals():
    tables = {"a": share_table(["head", "torso"]), "b": share_table(["torso", "foot"])}
    figure = show_shares(tables, label="right, %", alt="shares")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["head", "torso", "foot"]
    marks, _, (bars,) = axis.containers[1]
    np.testing.assert_allclose(marks.get_xdata(), [20, 60])
    assert [round(y) for y in marks.get_ydata()] == [1, 2]
    np.testing.assert_allclose(bars.get_segments()[1][:, 0], [50, 65])
    assert marks.get_marker() != axis.containers[0][0].get_marker()
    with pytest.raises(ValueError, match="no shares"):
        show_shares({}, label="right, %", alt="nothing")


def test_share_curves_have_bands():
    figure = show_share_curves(
        {"a": share_table([0.1, 0.5]), "b": share_table([0.2, 0.4])},
        across="cosine",
        label="right, %",
        alt="curves",
    )
    (axis,) = figure.axes
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[0.2, 20], [0.4, 60]])
    heights = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((10, 65))
    assert axis.get_xlabel() == "cosine" and figure.get_label() == "curves"
    with pytest.raises(ValueError, match="no curves"):
        show_share_curves({}, across="cosine", label="right, %", alt="nothing")
