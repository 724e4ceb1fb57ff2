"""The figures: what is drawn, and that it is described."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from matplotlib.patches import ConnectionPatch
from PIL import Image

from qaconv_lib.matches.shares import show_share_curves, show_shares
from qaconv_lib.matching import find_correspondences
from qaconv_lib.photographs.curves import show_reliability, show_roc
from qaconv_lib.visualize import (
    RankList,
    show_correspondences,
    show_images,
    show_location_match,
    show_rank_list,
    show_rank_lists,
)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    images = [Image.fromarray(np.full((32, 16, 3), value, np.uint8)) for value in (90, 160)]
    return *images, *F.normalize(torch.randn(2, 3, 4, 2), dim=1)


def lines(figure):
    return figure.findobj(ConnectionPatch)


def test_lines_from_either_side(pair):
    found = find_correspondences(*pair[2:])
    forth = set(enumerate(found.gallery_location.tolist()))
    back = {(k, place) for place, k in enumerate(found.query_location.tolist())}
    counts = {}
    for side, expected in (("query", forth), ("gallery", back), ("both", forth | back)):
        drawn = lines(show_correspondences(*pair, threshold=-1, side=side, alt="a pair"))
        ends = {tuple(int(y) * 2 + int(x) for x, y in (line.xy1, line.xy2)) for line in drawn}
        assert ends == expected and len(drawn) == len(expected)
        mutual = show_correspondences(*pair, threshold=-1, side=side, mutual=True, alt="a pair")
        counts[side] = len(lines(mutual))
    assert set(counts.values()) == {len(forth & back)}
    few = show_correspondences(*pair, threshold=0.5, alt="a pair")
    assert len(lines(few)) == int((found.similarity_to_gallery > 0.5).sum())
    some = show_correspondences(*pair, threshold=-1, locations={1, 6}, alt="a pair")
    assert [line.xy1 for line in lines(some)] == [(1.5, 0.5), (0.5, 3.5)]
    with pytest.raises(ValueError, match="side must be"):
        show_correspondences(*pair, side="left", alt="a pair")


def test_wrong_lines_are_dashed_and_crossed(pair):
    found = find_correspondences(*pair[2:])
    right = np.zeros((8, 8), dtype=bool)
    right[0, int(found.gallery_location[0])] = True
    figure = show_correspondences(*pair, threshold=-1, right=right, alt="a pair")
    assert [line.get_linestyle() == "-" for line in lines(figure)] == [True] + 7 * [False]
    marks = [line.get_marker() for line in figure.axes[0].lines]
    assert marks == ["o"] + 7 * ["X"]
    with pytest.raises(ValueError, match="right must have shape"):
        show_correspondences(*pair, right=right[:4], alt="a pair")


def test_lines_in_the_colours_of_body_parts_within_a_figure(pair):
    parts = np.array("head background torso forearm bag thigh foot occluder".split())
    halves = plt.figure().subfigures(1, 2)
    for half in halves:
        drawn = show_correspondences(*pair, threshold=-1, parts=parts, into=half, alt="a half")
        assert drawn is half and len(lines(half)) == 8
    colour = {
        parts[int(y) * 2 + int(x)]: line.get_edgecolor()
        for line in lines(halves[0])
        for x, y in [line.xy1]
    }
    assert colour["torso"] == colour["forearm"] and colour["background"] == colour["occluder"]
    names = halves[0].axes[0].texts
    assert len(set(colour.values())) == 6 == len(names)
    assert {to_rgb(name.get_color()) for name in names} == {to_rgb(c) for c in colour.values()}
    heights = sorted(name.get_position()[1] for name in names)
    assert min(np.diff(heights)) > 0.3  # of the four rows: no name lies on another
    similar = find_correspondences(*pair[2:]).similarity_to_gallery
    widths = [line.get_linewidth() for line in lines(halves[0])]
    assert np.argsort(widths).tolist() == similar.argsort().tolist()
    for wrong in (parts[:7], [*parts[:7], "wing"]):
        with pytest.raises(ValueError, match="parts must"):
            show_correspondences(*pair, parts=wrong, alt="a pair")


def test_rank_lists_tell_right_from_wrong_without_colour(pair):
    kinds = ["match", "wrong", "distractor", "junk", "unknown"]
    figure = show_rank_list(pair[0], [pair[1]] * 5, kinds, [0.9, 0.8, 0.7, 0.6, 0.5], alt="a list")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0].strip() == "query" and titles[5].strip() == "0.50"
    assert len({title.split()[0] for title in titles}) == 6
    lists = {
        "before": RankList([pair[1]] * 3, ["wrong", "match", "junk"], [0.9, 0.8, 0.7]),
        "after": RankList([pair[1]], ["match"], [0.95]),
    }
    titles = [axis.get_title() for axis in show_rank_lists(pair[0], lists, alt="two").axes]
    assert [title for title in titles if "0.95" in title] == ["\N{CHECK MARK}\n0.95"]
    with pytest.raises(ValueError, match="kinds must be .* got 'right'"):
        show_rank_list(pair[0], [pair[1]], ["right"], [1.0], alt="a list")


def test_location_match_names_the_best_similarity(pair):
    figure = show_location_match(*pair, [0, 5], alt="two locations")
    best = find_correspondences(*pair[2:]).similarity_to_gallery
    titles = " ".join(axis.get_title() for axis in figure.axes)
    assert f"{best[0]:.2f}" in titles and f"{best[5]:.2f}" in titles


def test_every_figure_is_white_and_described(pair):
    images = show_images([pair[0]] * 3, ["a", "b", "c"], columns=2, alt="three")
    assert [axis.get_title() for axis in images.axes] == ["a", "b", "c", ""]
    assert [len(axis.images) for axis in images.axes] == [1, 1, 1, 0]
    for figure in (images, show_correspondences(*pair, alt="three")):
        assert figure.get_label() == "three"
        assert figure.get_facecolor() == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="alt must"):
        show_images([pair[0]], alt=" ")
    with pytest.raises(ValueError, match="images must not be empty"):
        show_images([], alt="nothing")


def test_curves_are_drawn_as_they_are():
    rates = {"false_positive_rate": [0, 0.1, 1], "true_positive_rate": [0, 0.5, 1]}
    table = {"stated": [0.1, 0.6], "happened": [0.2, 0.5]}
    figures = (
        show_roc({"a": rates, "b": rates}, alt="two curves"),
        show_reliability({"a": table, "b": pd.DataFrame(table)}, alt="reliability"),
    )
    # The logarithmic axis of the first leaves out a rate of zero.
    for figure, points in zip(
        figures, ([[0.1, 0.5], [1, 1]], [[0.1, 0.2], [0.6, 0.5]]), strict=True
    ):
        curves = [line for line in figure.axes[0].lines if line.get_label() in "ab"]
        assert [curve.get_xydata().tolist() for curve in curves] == [points] * 2


def share_table(index):
    shares = np.linspace(0.2, 0.6, len(index))
    return pd.DataFrame({"share": shares, "low": shares - 0.1, "high": shares + 0.05}, index=index)


def test_shares_are_drawn_with_their_intervals():
    tables = {"a": share_table(["head", "torso"]), "b": share_table(["torso", "foot"])}
    (axis,) = show_shares(tables, label="right, %", alt="shares").axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["head", "torso", "foot"]
    marks, _, (bars,) = axis.containers[1]
    np.testing.assert_allclose(marks.get_xydata(), [[20, 1], [60, 2]], atol=0.4)
    np.testing.assert_allclose(bars.get_segments()[1][:, 0], [50, 65])
    tables = {"a": share_table([0.1, 0.5]), "b": share_table([0.2, 0.4])}
    (axis,) = show_share_curves(tables, across="cosine", label="right, %", alt="curves").axes
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[0.2, 20], [0.4, 60]])
