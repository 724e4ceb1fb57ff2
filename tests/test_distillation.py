"""A student taught by a teacher's similarities."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.beyond.distillation import Distillation, distillation_loss, on_the_scale_of
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.matching import QAConv
from qaconv_lib.models import ReidModel

TAUGHT = {"teacher": "efficientnet_lite0", "identities": 8}


def smoke_model(loss="qaconv", **more):
    torch.manual_seed(1)
    return ReidModel(get_profile("smoke").config(loss, pretrained=False, **more), 8)


def by_definition(student, teacher, temperature):
    total, size = 0.0, len(student)
    for i, j in itertools.permutations(range(size), 2):
        s, u = (1 / (1 + math.exp(-z[i, j].item() / temperature)) for z in (student, teacher))
        total -= u * math.log(s) + (1 - u) * math.log(1 - s)
    return temperature**2 * total / (size * (size - 1))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_agrees_with_the_definition(temperature):
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 5, 5, dtype=torch.double)
    found = distillation_loss(student, teacher, temperature).item()
    assert found == pytest.approx(by_definition(student, teacher, temperature))


def test_the_gradient_is_zero_where_both_agree_and_none_reaches_the_teacher():
    torch.manual_seed(0)
    teacher = torch.randn(5, 5, requires_grad=True)
    student = teacher.detach().clone().requires_grad_()
    distillation_loss(student, teacher).backward()
    assert student.grad.abs().max() < 1e-6 and teacher.grad is None
    moved = (student.detach() + torch.eye(5)).requires_grad_()  # an image with itself
    distillation_loss(moved, teacher).backward()
    assert moved.grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    "shapes, temperature, message",
    [
        (((2, 3), (2, 3)), 4.0, r"\(b, b\)"),
        (((1, 1), (1, 1)), 4.0, "b > 1"),
        (((2, 2), (3, 3)), 4.0, r"\(2, 2\) and \(3, 3\)"),
        (((2, 2), (2, 2)), 0.0, "temperature"),
    ],
)
def test_bad_input_is_named(shapes, temperature, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss(*map(torch.zeros, shapes), temperature)


def test_the_scale_of_the_teacher_is_that_of_pairs_of_two_images():
    student, teacher = torch.randn(5, 5), 3 * torch.randn(5, 5) - 7
    others = ~torch.eye(5, dtype=torch.bool)
    found = on_the_scale_of(student, teacher)[others]
    torch.testing.assert_close(found.mean(), teacher[others].mean())
    torch.testing.assert_close(found.std(), teacher[others].std())
    assert torch.equal(found.argsort(), student[others].argsort())


def taught(teacher, matcher, maps):
    """The loss of a student's matcher on maps (b, d, h, w), and the teacher's logits of images."""
    images = torch.rand(len(maps), 3, 64, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = teacher.criterion.matcher.eval()(*[teacher.eval().backbone(images)] * 2)
    return Distillation(teacher, 2.0, weight=3.0)(matcher, images, maps), wanted


def test_the_student_is_compared_as_in_evaluation():
    matcher, maps = QAConv(4, 2).train(), F.normalize(torch.randn(5, 5, 4, 2), dim=1)
    matcher(maps, maps)  # moves the running statistics
    before = matcher.bn.running_mean.clone()
    found, wanted = taught(smoke_model(), matcher, maps)
    assert matcher.training and torch.equal(matcher.bn.running_mean, before)
    logits = on_the_scale_of(matcher.eval()(maps, maps), wanted)
    torch.testing.assert_close(found, 3 * distillation_loss(logits, wanted, 2.0))


def test_heavier_weights_of_the_matcher_do_not_please_the_teacher():
    torch.manual_seed(0)
    matcher, maps = QAConv(4, 2).train(), F.normalize(torch.randn(6, 5, 4, 2), dim=1)
    losses = []
    for factor in (1, 100):
        matcher.fc.weight.data *= factor
        losses.append(taught(smoke_model(), matcher, maps)[0])
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)
    losses[0].backward()
    slope = (matcher.fc.weight.grad * matcher.fc.weight).sum()
    assert abs(slope) < 1e-3 * matcher.fc.weight.grad.norm() * matcher.fc.weight.norm()


def test_a_student_that_finds_all_pairs_alike_gets_a_finite_loss():
    logits = torch.zeros(4, 4, requires_grad=True)
    teacher = torch.randn(4, 4)
    distillation_loss(on_the_scale_of(logits, teacher), teacher).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"teacher": "resnet"}, "teacher must be one of resnet18"),
        ({"teacher": "resnet50", "loss": "softmax"}, "loss softmax cannot be taught"),
        ({"teacher": "resnet50", "distill_temperature": 0.0}, "distill_temperature must be"),
        ({"teacher": "resnet50", "distill_weight": -1.0}, "distill_weight must be"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(get_profile("smoke").config("qaconv"), **change)


def test_a_teacher_that_does_not_fit_is_named():
    config = get_profile("smoke").config("qaconv", teacher="efficientnet_lite0")
    with pytest.raises(ValueError, match="loss softmax cannot teach"):
        Distillation(smoke_model("softmax"))
    with pytest.raises(ValueError, match="teacher takes images of 32 x 32, the student of 64 x 32"):
        Distillation(smoke_model(height=32))(None, torch.rand(2, 3, 64, 32), None)
    table = Run("qaconv", "mini-market", "smoke", settings={"identities": 8}).table()
    for settings, teacher in ((config, None), (smoke_model().config, smoke_model())):
        with pytest.raises(ValueError, match="go together"):
            settings.trainer(table, teacher=teacher)


def test_a_step_with_a_teacher_adds_its_loss():
    config = Run("qaconv", "mini-market", "smoke", settings=TAUGHT).config()
    table = Run("qaconv", "mini-market", "smoke", settings={"identities": 8}).table()
    teacher, losses = smoke_model(), []
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    for settings, given in ((dataclasses.replace(config, teacher=None), None), (config, teacher)):
        trainer = settings.trainer(table, device="cpu", teacher=given)
        trainer.model.train()
        losses.append(trainer.step(torch.rand(16, 3, 64, 32), torch.arange(16) % 8)[0])
        assert not any("teacher" in key for key in trainer.model.state_dict())
    assert losses[0] == 0 < losses[1]  # the memory is empty still
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_the_teacher_shares_what_must_be_alike():
    settings = {"teacher": "efficientnet_lite2", "neck_channels": 16, "identities": 50}
    teacher = Run("qaconv", "mini-duke", seed=2, settings=settings).teacher()
    name = "qaconv-mini-duke-laptop-backbone=efficientnet_lite2-identities=50-seed2"
    assert teacher.name == name and teacher.teacher() is None
