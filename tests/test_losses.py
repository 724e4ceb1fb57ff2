"""Chapters 6 and 8: the focal loss against Eq. (1), and the training losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.losses import (
    LOSSES,
    ArcLoss,
    CenterLoss,
    ClassMemoryLoss,
    QAConvLoss,
    SoftmaxLoss,
    compares_maps,
    focal_loss,
    loss_class,
)


def focal_loss_by_definition(logits, targets, gamma, valid=None):
    """Eq. (1) and (2), one pair at a time."""
    total = 0.0
    for i, row in enumerate(logits.tolist()):
        for j, logit in enumerate(row):
            if valid is not None and not valid[j]:
                continue
            p = 1 / (1 + math.exp(-logit))
            p_hat = p if targets[i] == j else 1 - p
            total -= (1 - p_hat) ** gamma * math.log(p_hat)
    return total / len(logits)


class TestFocalLoss:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
    @pytest.mark.parametrize("masked", [False, True])
    def test_agrees_with_definition(self, gamma, masked):
        torch.manual_seed(0)
        logits, targets = torch.randn(5, 7, dtype=torch.double) * 3, torch.randint(0, 7, (5,))
        valid = torch.rand(7) < 0.5 if masked else None
        expected = focal_loss_by_definition(logits, targets, gamma, valid)
        assert focal_loss(logits, targets, gamma, valid).item() == pytest.approx(expected)

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_extreme_logits_stay_finite(self, gamma):
        logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
        for target in range(3):
            loss = focal_loss(logits, torch.tensor([target]), gamma)
            (gradient,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite() and gradient.isfinite().all()

    @pytest.mark.parametrize(
        "logits, targets, options, message",
        [
            (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), {}, "b > 0"),
            (torch.zeros(2, 3), torch.tensor([0]), {}, r"targets must have shape \(2,\)"),
            (torch.zeros(2, 3), torch.tensor([0, 3]), {}, "0..2"),
            (torch.zeros(2, 3), torch.tensor([0, 1]), {"gamma": float("nan")}, "gamma"),
            (torch.zeros(1, 3), torch.tensor([0]), {"valid": torch.ones(2).bool()}, "valid"),
            (torch.zeros(1, 3), torch.tensor([0]), {"valid": torch.tensor([1, 1, 0])}, "bool"),
            (torch.zeros(1, 3), torch.tensor([0.0]), {}, "integers"),
        ],
    )
    def test_bad_input_is_named(self, logits, targets, options, message):
        with pytest.raises(ValueError, match=message):
            focal_loss(logits, targets, **options)


def unit_maps(count):
    return F.normalize(torch.randn(count, 6, 4, 2), dim=1)


class TestQAConvLoss:
    def test_unseen_classes_enter_neither_loss_nor_statistics(self):
        torch.manual_seed(0)
        criterion, smaller = QAConvLoss(5, 6, 4, 2), QAConvLoss(2, 6, 4, 2)
        seen, maps = unit_maps(2), unit_maps(3)
        criterion.after_step(seen, torch.tensor([1, 4]))
        smaller.after_step(seen, torch.tensor([0, 1]))
        loss, _ = criterion(maps, torch.tensor([1, 4, 4]))
        expected, _ = smaller(maps, torch.tensor([0, 1, 1]))
        torch.testing.assert_close(loss, expected)
        assert torch.equal(criterion.matcher.bn.running_mean, smaller.matcher.bn.running_mean)

    def test_memory_changes_only_after_the_step(self):
        criterion, maps = QAConvLoss(5, 6, 4, 2), unit_maps(2)
        criterion(maps, torch.tensor([0, 1]))
        assert not criterion.memory.valid.any()
        criterion.after_step(maps, torch.tensor([0, 1]))
        assert criterion.memory.valid.tolist() == [True, True, False, False, False]

    def test_right_answers(self):
        criterion, maps = QAConvLoss(3, 6, 4, 2), unit_maps(3)
        criterion.after_step(maps, torch.arange(3))
        _, right = criterion(maps, torch.tensor([0, 1, 0]))
        assert right.tolist() == [True, True, False]


class TestSoftmaxLoss:
    def test_is_cross_entropy_of_the_normalised_mean(self):
        criterion, maps = SoftmaxLoss(5, 6), torch.randn(8, 6, 4, 2)
        loss, _ = criterion(maps, torch.arange(8) % 5)
        pooled = maps.mean(dim=(2, 3))
        deviation = torch.sqrt(pooled.var(dim=0, unbiased=False) + criterion.bn.eps)
        logits = (pooled - pooled.mean(dim=0)) / deviation @ criterion.classifier.weight.T
        torch.testing.assert_close(loss, F.cross_entropy(logits, torch.arange(8) % 5))

    def test_similarity_is_a_shifted_cosine(self):
        criterion = SoftmaxLoss(5, 6).eval()
        queries, gallery = torch.randn(2, 6, 4, 2), torch.randn(3, 6, 4, 2)
        a, b = criterion.embed(queries)[:, None], criterion.embed(gallery)[None]
        expected = (1 + F.cosine_similarity(a, b, dim=2)) / 2
        torch.testing.assert_close(criterion.similarity(queries, gallery), expected)


class TestArcLoss:
    @pytest.mark.parametrize(
        ("angle", "true"),
        [
            (math.pi / 2, -math.sin(0.5)),  # before the turning point: cos(pi / 2 + 0.5)
            (math.pi - 0.6, -math.cos(0.1)),  # just before it
            (math.pi - 0.4, math.cos(math.pi - 0.4) - 0.5 * math.sin(0.5)),  # just beyond it
            (math.pi, -1 - 0.5 * math.sin(0.5)),  # and not cos(pi + 0.5) = -0.878
        ],
    )
    def test_by_hand_before_and_beyond_the_turning_point(self, angle, true):
        """Two classes at right angles; the logit of the other one is 2 * sin(angle)."""
        criterion = ArcLoss(2, 2, margin=0.5, scale=2.0).eval()
        criterion.classifier.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        maps = torch.tensor([math.cos(angle), math.sin(angle)]).view(1, 2, 1, 1)
        loss, _ = criterion(maps, torch.tensor([0]))
        expected = math.log(1 + math.exp(2 * math.sin(angle) - 2 * true))
        assert loss.item() == pytest.approx(expected, abs=2e-4)

    def test_gradients_are_finite_where_the_angle_is_zero(self):
        criterion = ArcLoss(2, 2).eval()
        criterion.classifier.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        maps = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
        criterion(maps, torch.tensor([0]))[0].backward()
        assert maps.grad.isfinite().all()


class TestCenterLoss:
    def test_adds_half_the_squared_distance(self):
        torch.manual_seed(0)
        criterion, maps = CenterLoss(3, 6, weight=0.1), torch.randn(4, 6, 4, 2)
        labels = torch.tensor([0, 1, 1, 2])
        criterion.centers.normal_()
        loss, _ = criterion(maps, labels)
        vectors = criterion.embed(maps)
        distance = ((vectors - criterion.centers[labels]) ** 2).sum() / 2
        expected = F.cross_entropy(criterion.classifier(vectors), labels)
        torch.testing.assert_close(loss, expected + 0.1 * distance / 4)

    def test_centres_move_as_the_equation_says(self):
        criterion, maps = CenterLoss(3, 6, rate=0.5), torch.randn(3, 6, 4, 2)
        labels = torch.tensor([0, 2, 2])
        criterion(maps, labels)
        vectors = criterion.embed(maps).detach()
        criterion.after_step(maps, labels)
        # From zero: class 0 by half of one vector over 2, class 2 by half of two vectors over 3.
        torch.testing.assert_close(criterion.centers[0], 0.5 * vectors[0] / 2)
        torch.testing.assert_close(criterion.centers[2], 0.5 * (vectors[1] + vectors[2]) / 3)
        assert not criterion.centers[1].any()


class TestClassMemoryLoss:
    def test_is_the_focal_loss_of_normalised_cosines(self):
        torch.manual_seed(0)
        criterion, maps = ClassMemoryLoss(4, 6), torch.randn(3, 6, 4, 2)
        first = torch.randn(2, 6, 4, 2)
        criterion(first, torch.tensor([0, 3]))
        stored = F.normalize(criterion.embed(first), dim=1).detach()
        criterion.after_step(first, torch.tensor([0, 3]))
        loss, _ = criterion(maps, torch.tensor([0, 3, 3]))
        cosine = F.normalize(criterion.embed(maps), dim=1) @ stored.T
        spread = torch.sqrt(cosine.var(unbiased=False) + criterion.logit_bn.eps)
        logits = (cosine - cosine.mean()) / spread - 4
        torch.testing.assert_close(
            loss, focal_loss(logits, torch.tensor([0, 1, 1])), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("criterion", [QAConvLoss(5, 6, 4, 2), ClassMemoryLoss(5, 6)])
def test_empty_memory_costs_nothing_and_still_goes_backward(criterion):
    loss, right = criterion(unit_maps(3).requires_grad_(), torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0 and not right.any()
    layer = criterion.matcher.bn if isinstance(criterion, QAConvLoss) else criterion.logit_bn
    assert int(layer.num_batches_tracked) == 0


@pytest.mark.parametrize(
    "loss, name, value",
    [
        *((ArcLoss, "margin", -0.1), (ArcLoss, "margin", 2.0), (ArcLoss, "scale", 0.0)),
        *((CenterLoss, "weight", -1.0), (CenterLoss, "rate", 0.0), (CenterLoss, "rate", 1.5)),
    ],
)
def test_bad_settings_are_named(loss, name, value):
    with pytest.raises(ValueError, match=name):
        loss(5, 6, **{name: value})


@pytest.mark.parametrize("name", [name for name in LOSSES if not compares_maps(name)])
def test_pooled_losses_share_embedding_and_similarity(name):
    torch.manual_seed(0)
    criterion, softmax = loss_class(name)(5, 6), SoftmaxLoss(5, 6)
    maps = torch.randn(4, 6, 4, 2)
    torch.testing.assert_close(criterion.embed(maps), softmax.embed(maps))
    torch.testing.assert_close(criterion.similarity(maps, maps), softmax.similarity(maps, maps))
    assert not criterion.bn.bias.requires_grad
