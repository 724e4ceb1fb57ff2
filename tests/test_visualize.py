"""The pictures: what is drawn, and that it is described."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.patches import ConnectionPatch
from PIL import Image

from qaconv_lib.matching import find_correspondences
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
    return [artist for artist in figure.findobj(ConnectionPatch)]


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.8, 1.0])
def test_one_line_for_every_match_above_the_threshold(pair, threshold):
    found = find_correspondences(*pair[2:])
    figure = show_correspondences(*pair, threshold=threshold, alt="a pair")
    assert len(lines(figure)) == int((found.similarity_to_gallery > threshold).sum())


def test_mutual_matches_only(pair):
    found = find_correspondences(*pair[2:])
    mutual = sum(
        int(found.query_location[place]) == location
        for location, place in enumerate(found.gallery_location.tolist())
    )
    assert (
        len(lines(show_correspondences(*pair, threshold=-1, mutual=True, alt="a pair"))) == mutual
    )


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


def test_a_line_starts_and_ends_in_the_middle_of_its_cells(pair):
    found = find_correspondences(*pair[2:])
    drawn = lines(show_correspondences(*pair, threshold=-1, alt="a pair"))
    for location, line in enumerate(drawn):
        place = int(found.gallery_location[location])
        assert tuple(line.xy1) == (location % 2 + 0.5, location // 2 + 0.5)
        assert tuple(line.xy2) == (place % 2 + 0.5, place // 2 + 0.5)


def test_location_match_marks_the_best_cell(pair):
    figure = show_location_match(*pair, [0, 5], alt="two locations")
    found = find_correspondences(*pair[2:])
    below = [axis for axis in figure.axes if axis.get_title().startswith("best")]
    for axis, location in zip(below, [0, 5], strict=True):
        place = int(found.gallery_location[location])
        assert axis.patches[0].get_xy() == (place % 2, place // 2)
        assert axis.get_title() == f"best: {found.similarity_to_gallery[location]:.2f}"


def test_rank_list_tells_right_from_wrong_without_colour(pair):
    kinds = ["match", "wrong", "distractor", "junk", "unknown"]
    figure = show_rank_list(pair[0], [pair[1]] * 5, kinds, [0.9, 0.8, 0.7, 0.6, 0.5], alt="a list")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0].strip() == "query" and titles[5].strip() == "0.50"
    assert len({title.split()[0] for title in titles}) == 6


def test_rank_lists_stand_below_each_other(pair):
    lists = {
        "before": RankList([pair[1]] * 3, ["wrong", "match", "junk"], [0.9, 0.8, 0.7]),
        "after": RankList([pair[1]], ["match"], [0.95]),
    }
    figure = show_rank_lists(pair[0], lists, alt="two lists")
    assert len(figure.axes) == 8
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["before", "after"]
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    assert len(titles) == 6 and titles[5] == "\N{CHECK MARK}\n0.95"
    with pytest.raises(ValueError, match="no rank lists"):
        show_rank_lists(pair[0], {}, alt="nothing")
    with pytest.raises(ValueError, match="kinds must be among"):
        show_rank_list(pair[0], [pair[1]], ["right"], [1.0], alt="a list")


def test_every_figure_is_white_and_described(pair):
    for figure in (
        show_images([pair[0]] * 3, ["a", "b", "c"], columns=2, alt="three"),
        show_correspondences(*pair, alt="three"),
        show_location_match(*pair, [0], alt="three"),
    ):
        assert figure.get_label() == "three"
        assert figure.get_facecolor() == (1, 1, 1, 1)


def test_a_missing_description_is_refused(pair):
    with pytest.raises(ValueError, match="alt is empty"):
        show_images([pair[0]], alt=" ")


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        show_images([], alt="nothing")
