"""Chapter 5: the class memory."""

import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.memory import ClassMemory


def unit_maps(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 3, 2, 2, generator=generator), dim=1)


def test_replace_keeps_the_newest():
    memory, first, second = ClassMemory(4, 3, 2, 2), unit_maps(2, 1), unit_maps(1, 2)
    memory.update(first, torch.tensor([1, 3]))
    memory.update(second, torch.tensor([1]))
    assert torch.equal(memory.features[1], second[0])
    assert torch.equal(memory.features[3], first[1])
    assert memory.valid.tolist() == [False, True, False, True]
    assert not memory.features[[0, 2]].any()


def test_replace_keeps_the_last_of_two_in_one_batch():
    memory, maps = ClassMemory(4, 3, 2, 2), unit_maps(3)
    memory.update(maps, torch.tensor([2, 0, 2]))
    assert torch.equal(memory.features[2], maps[2])


def test_ema_averages_in_the_order_of_the_batch():
    memory = ClassMemory(4, 3, 2, 2, update="ema", momentum=0.8)
    maps = unit_maps(3)
    memory.update(maps, torch.tensor([2, 2, 2]))
    expected = maps[0]
    for new in maps[1:]:
        expected = F.normalize(0.8 * expected + 0.2 * new, dim=0)
    torch.testing.assert_close(memory.features[2], expected)


def test_no_gradient_reaches_the_memory():
    memory, maps = ClassMemory(4, 3, 2, 2), unit_maps(1).requires_grad_()
    memory.update(maps, torch.tensor([0]))
    assert not memory.features.requires_grad and not list(memory.parameters())


@pytest.mark.parametrize(
    "maps, labels, message",
    [
        (torch.zeros(2, 3, 2, 1), torch.tensor([0, 1]), r"\(b, 3, 2, 2\)"),
        (torch.zeros(2, 3, 2, 2), torch.tensor([0]), r"\(2,\)"),
        (torch.zeros(2, 3, 2, 2), torch.tensor([0, 4]), "label 4"),
        (torch.zeros(2, 3, 2, 2), torch.tensor([-1, 0]), "label -1"),
        (torch.zeros(2, 3, 2, 2), torch.tensor([True, False]), "labels must be integers"),
        (torch.zeros(2, 3, 2, 2), torch.tensor([0.0, 1.0]), "labels must be integers"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(maps, labels, message):
    memory = ClassMemory(4, 3, 2, 2)
    with pytest.raises(ValueError, match=message):
        memory.update(maps, labels)
    assert not memory.valid.any()


@pytest.mark.parametrize(
    "options", [dict(num_classes=0), dict(update="mean"), dict(momentum=1.0), dict(momentum=-0.1)]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError):
        ClassMemory(**(dict(num_classes=4, channels=3, height=2, width=2) | options))
