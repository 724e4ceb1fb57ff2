"""Chapters 6 and 8: the focal loss against Eq. (1), and the training losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.losses import QAConvLoss, SoftmaxLoss, focal_loss


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

    def test_by_hand(self):
        # p = 0.5 for both classes: 2 pairs of 0.25 * ln 2.
        loss = focal_loss(torch.zeros(1, 2), torch.tensor([0]))
        assert loss.item() == pytest.approx(0.5 * math.log(2))

    def test_gamma_zero_is_binary_cross_entropy_summed_over_classes(self):
        logits, targets = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
        expected = F.binary_cross_entropy_with_logits(
            logits, F.one_hot(targets, 6).float(), reduction="sum"
        )
        torch.testing.assert_close(focal_loss(logits, targets, gamma=0.0), expected / 4)

    def test_gradient(self):
        logits = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
        targets, valid = torch.tensor([0, 3, 1]), torch.tensor([True, True, False, True])
        assert torch.autograd.gradcheck(lambda x: focal_loss(x, targets, 2.0, valid), logits)

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
            (torch.zeros(2, 3), torch.tensor([0, 1]), {"gamma": -1}, "gamma"),
            (torch.zeros(1, 3), torch.tensor([0]), {"valid": torch.ones(2).bool()}, "valid"),
            (torch.zeros(1, 3), torch.tensor([0]), {"valid": torch.tensor([1, 1, 0])}, "bool"),
            (torch.zeros(1, 3), torch.tensor([0.0]), {}, "integers"),
            (torch.zeros(1, 3), torch.tensor([0]), {"gamma": float("nan")}, "gamma"),
        ],
    )
    def test_bad_input_is_named(self, logits, targets, options, message):
        with pytest.raises(ValueError, match=message):
            focal_loss(logits, targets, **options)


def unit_maps(count):
    return F.normalize(torch.randn(count, 6, 4, 2), dim=1)


class TestQAConvLoss:
    def test_empty_memory_costs_nothing_and_still_goes_backward(self):
        criterion, maps = QAConvLoss(5, 6, 4, 2), unit_maps(3).requires_grad_()
        loss, right = criterion(maps, torch.tensor([0, 1, 2]))
        loss.backward()
        assert loss.item() == 0 and not right.any()
        assert int(criterion.matcher.bn.num_batches_tracked) == 0

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

    def test_temperature_keeps_similarities_between_0_and_1(self):
        with pytest.raises(ValueError, match="temperature"):
            SoftmaxLoss(5, 6).similarity(
                torch.ones(1, 6, 4, 2), torch.ones(1, 6, 4, 2), temperature=0
            )

    def test_similarity_is_a_shifted_cosine(self):
        criterion = SoftmaxLoss(5, 6).eval()
        queries, gallery = torch.randn(2, 6, 4, 2), torch.randn(3, 6, 4, 2)
        a, b = criterion.embed(queries)[:, None], criterion.embed(gallery)[None]
        expected = (1 + F.cosine_similarity(a, b, dim=2)) / 2
        torch.testing.assert_close(criterion.similarity(queries, gallery), expected)
