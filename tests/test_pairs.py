"""Appendix C: losses on the pairs of a mini-batch, against their definitions."""

import plain_pairs as plain
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.beyond.pairs import PairwiseLoss, hard_triplet_loss, pairwise_loss

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def random_logits(seed=0):
    torch.manual_seed(seed)
    return 3 * torch.randn(6, 6, dtype=torch.double)


@pytest.mark.parametrize("margin", [None, 0.5, 4.0, 16.0])
def test_both_agree_with_their_definitions(margin):
    logits, more = random_logits(), () if margin is None else (margin,)
    loss = hard_triplet_loss if more else pairwise_loss
    found = loss(logits, LABELS, *more).item()
    expected = getattr(plain, loss.__name__)(logits, LABELS, *more)
    assert found == pytest.approx(expected) and found > 0


def test_triplets_by_hand():
    logits = torch.tensor([[9.0, 2.0, 1.0], [2.0, 9.0, 4.0], [1.0, 4.0, 9.0]])
    # Row 0: 3 - 2 + 1 = 2. Row 1: 3 - 2 + 4 = 5. Row 2 has no partner.
    assert hard_triplet_loss(logits, torch.tensor([5, 5, 8]), 3.0).item() == pytest.approx(7 / 3)


def test_an_image_without_partner_or_stranger_costs_nothing_and_has_no_gradient():
    for labels in (torch.arange(6), torch.zeros(6, dtype=torch.long)):
        logits = random_logits().requires_grad_()
        loss = hard_triplet_loss(logits, labels)
        loss.backward()
        assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize("loss", [pairwise_loss, hard_triplet_loss])
def test_rows_of_a_share_add_up_to_the_batch(loss):
    logits = random_logits()
    shares = [loss(logits[start : start + 2], LABELS, first=start) for start in (0, 2, 4)]
    torch.testing.assert_close(sum(shares) / 3, loss(logits, LABELS))


def test_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    for labels in ([0, 0], [0, 1]):
        loss = pairwise_loss(logits, torch.tensor(labels))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize(
    "logits, labels, first, message",
    [
        (torch.zeros(0, 3), torch.arange(3), 0, "b > 0"),
        (torch.zeros(2, 3, 1), torch.arange(3), 0, r"shape \(b, n\)"),
        (torch.zeros(2, 3), torch.arange(2), 0, r"labels must have shape \(3,\)"),
        (torch.zeros(2, 3), torch.arange(3), 2, r"first must lie in 0\.\.1"),
    ],
)
@pytest.mark.parametrize("loss", [pairwise_loss, hard_triplet_loss])
def test_bad_input_is_named(loss, logits, labels, first, message):
    with pytest.raises(ValueError, match=message):
        loss(logits, labels, first=first)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_bad_margins_are_named(margin):
    with pytest.raises(ValueError, match="margin must be above 0"):
        hard_triplet_loss(random_logits(), LABELS, margin)
    with pytest.raises(ValueError, match="margin must be above 0"):
        PairwiseLoss(4, 2, triplet_margin=margin)


class TestPairwiseLoss:
    @pytest.mark.parametrize("margin", [None, 2.0])
    def test_scores_the_batch_by_qaconv(self, margin):
        torch.manual_seed(0)
        criterion = PairwiseLoss(4, 2, tied=True, triplet_margin=margin).eval()
        maps = F.normalize(torch.randn(6, 5, 4, 2), dim=1)
        logits = criterion.matcher(maps, maps)
        loss, right = criterion(maps, LABELS)
        definition = plain.hard_triplet_loss if margin else plain.pairwise_loss
        plain_loss = definition(logits, LABELS, *filter(None, [margin]))
        assert loss.item() == pytest.approx(plain_loss, rel=1e-5)
        for i, row in enumerate(logits.tolist()):
            best = max((j for j in range(6) if j != i), key=lambda j: row[j])
            assert right[i] == (LABELS[best] == LABELS[i])

    def test_gradients_reach_both_images_of_a_pair(self):
        criterion = PairwiseLoss(4, 2)
        maps = F.normalize(torch.randn(6, 5, 4, 2), dim=1).requires_grad_()
        criterion(maps, LABELS)[0].backward()
        assert maps.grad.flatten(1).any(dim=1).all()
        assert not any("memory" in key for key in criterion.state_dict())
