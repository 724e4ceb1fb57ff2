"""Appendix C: batches of some images of each identity, at random and along the graph."""

import numpy as np
import plain_pairs as plain
import pytest
import torch

from qaconv_lib.beyond.graph_sampling import (
    GraphBatches,
    IdentityBatches,
    check_sampling,
    class_similarities,
    nearest_classes,
)
from qaconv_lib.experiments.runs import Run

SIZES = [3, 1, 5, 4, 4, 8, 2, 6]
LABELS = np.repeat(np.arange(8), SIZES)  # 33 images of 8 classes


def in_a_ring(chosen):
    """Classes on a circle: the nearer, the more alike."""
    places = torch.from_numpy(LABELS[chosen])
    apart = (places[:, None] - places).abs()
    return -torch.minimum(apart, 8 - apart).double()


def drawn(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def make(name, seed=0, batches=None):
    if name == "pk":
        return IdentityBatches(LABELS, 3, 2, seed=seed, batches=batches)
    return GraphBatches(LABELS, 3, 2, in_a_ring, seed=seed, batches=batches)


both = pytest.mark.parametrize("name", ["pk", "graph"])


class TestNearestClasses:
    @pytest.mark.parametrize("count", [1, 3, 8])
    def test_agrees_with_the_plain_form(self, count):
        torch.manual_seed(0)
        similarity = torch.randint(5, (9, 9)).double()  # with many ties
        found = nearest_classes(similarity, count).tolist()
        assert found == plain.nearest_classes(similarity, count)

    @pytest.mark.parametrize(
        "similarity, count, message",
        [
            (torch.zeros(2, 3), 1, r"shape \(c, c\)"),
            (torch.zeros(3, 3), 3, r"1\.\.2"),
            (torch.full((3, 3), torch.nan), 1, "NaN"),
        ],
    )
    def test_bad_input_is_named(self, similarity, count, message):
        with pytest.raises(ValueError, match=message):
            nearest_classes(similarity, count)


@both
def test_a_batch_holds_k_images_of_p_classes(name):
    batches = drawn(make(name))
    assert len(batches) == len(make(name)) == 33 // 6
    for batch in batches:
        classes = LABELS[batch].reshape(3, 2)
        assert (classes[:, 0] == classes[:, 1]).all() and len(np.unique(classes)) == 3
        for pair in np.reshape(batch, (3, 2)):
            assert pair[0] != pair[1] or SIZES[LABELS[pair[0]]] == 1


@both
def test_seed_and_epoch_decide_alone(name):
    sampler = make(name)
    first, third = drawn(sampler), drawn(sampler, 2)
    torch.manual_seed(2), np.random.seed(2)  # must not matter
    assert drawn(make(name), 2) == third and drawn(sampler) == first != third
    assert drawn(make(name, seed=1)) != first


def test_random_people_come_in_rounds():
    batches = [batch for epoch in range(4) for batch in drawn(make("pk", batches=3), epoch)]
    rounds = np.reshape([LABELS[batch[::2]] for batch in batches], (6, 6))  # 2 batches a round
    assert all(len(np.unique(classes)) == 6 for classes in rounds)
    assert len({tuple(classes) for classes in rounds.tolist()}) > 1


def test_images_of_a_class_come_in_rounds():
    sampler = IdentityBatches([0] * 6 + [1] * 6, 2, 2, batches=6)
    for own in np.reshape([batch[:2] for batch in drawn(sampler)], (2, 6)):
        assert len(np.unique(own)) == 6


def test_a_graph_batch_is_an_anchor_and_its_nearest():
    sampler = make("graph", batches=8)
    batches = drawn(sampler)
    anchors = [int(LABELS[batch[0]]) for batch in batches]
    assert sorted(anchors) == list(range(8))  # each is the anchor once
    for anchor, batch in zip(anchors, batches, strict=True):
        assert set(LABELS[batch]) == {anchor, (anchor + 1) % 8, (anchor - 1) % 8}
    nearest = plain.nearest_classes(in_a_ring(np.searchsorted(LABELS, range(8))), 2)
    assert sampler.neighbours.tolist() == nearest


def test_too_few_classes_or_images_are_named():
    with pytest.raises(ValueError, match="9 identities, and there are 8"):
        IdentityBatches(LABELS, 9, 2)
    with pytest.raises(ValueError, match="33 images do not fill a batch of 40"):
        IdentityBatches(LABELS, 4, 10)


@pytest.mark.parametrize(
    "name, size, images, message",
    [
        ("random", 32, 4, "sampler must be one of shuffle, pk, graph"),
        ("pk", 32, 5, r"images_per_identity \(5\) must divide batch_size \(32\)"),
        ("graph", 4, 4, "at least two identities"),
        ("graph", 32, 0, "whole number from 1"),
        ("pk", 32, 2.0, "whole number from 1"),
    ],
)
def test_settings_that_make_no_batch_are_named(name, size, images, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(name, size, images)


def test_similarities_of_classes_are_those_of_an_image_of_each(model):
    table = Run("pairwise", "mini-market", "smoke", settings={"identities": 5}).table()
    firsts = table.drop_duplicates("identity")
    maps = model.extract(firsts)
    torch.testing.assert_close(class_similarities(model, firsts), model.similarity(maps, maps))
