"""One training step: precision, micro-batches, clipping, loss scaling, and memory that runs out."""

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaconv_lib import training as steps
from qaconv_lib._checks import ShortOfMemoryError, naming_shortage
from qaconv_lib.experiments.profiles import RunConfig
from qaconv_lib.losses import LOSSES
from qaconv_lib.models import ReidModel
from qaconv_lib.training import TrainingStep

TINY = RunConfig(
    backbone="resnet18",
    pretrained=False,
    final_layer="layer2",
    neck_channels=8,
    height=32,
    width=16,
    batch_size=8,
    epochs=2,
    decay_epochs=1,
)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


def draw(seed=1):
    return torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(seed))


def make_step(device="cpu", loss="qaconv", **options):
    """A step on a model whose memory is full, every call with the same weights."""
    torch.manual_seed(0)
    model = ReidModel(dataclasses.replace(TINY, loss=loss), 5).to(device)
    if hasattr(model.criterion, "memory"):
        memory = model.criterion.memory
        memory.features.copy_(torch.nn.functional.normalize(torch.randn_like(memory.features)))
        memory.valid.fill_(True)
    return TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def gradient(step, images):
    step(images, LABELS)
    given = [p.grad.flatten() for p in step.model.parameters() if p.grad is not None]
    return torch.cat(given).double()


def remembered(step):
    """What the loss keeps of earlier batches."""
    state = step.model.criterion.state_dict()
    return {key: value for key, value in state.items() if "memory" in key or "centers" in key}


class TestMicroBatches:
    @pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"pairwise"}))
    @pytest.mark.parametrize("parts", [2, 4])
    def test_without_training_norm_they_give_the_batch(self, loss, parts):
        """Loss, gradient, and what is remembered."""
        found = []
        for accumulate in (1, parts):
            step = make_step(loss=loss, accumulate=accumulate)
            step.model.double().eval()
            value, right = step(draw().double(), LABELS)
            grads = [p.grad.flatten() for p in step.model.parameters() if p.grad is not None]
            found.append((value, right, torch.cat(grads), remembered(step)))
        (value, right, expected, kept), (value2, right2, grads, kept2) = found
        assert value2 == pytest.approx(value, rel=1e-10) and right2 == right
        assert expected.norm() > 1e-4
        torch.testing.assert_close(grads, expected, rtol=1e-8, atol=1e-10)
        for key, tensor in kept.items():
            torch.testing.assert_close(kept2[key], tensor, rtol=1e-8, atol=1e-10)

    def test_with_training_norm_they_do_not(self):
        whole, parts = (gradient(make_step(accumulate=k), draw()) for k in (1, 4))
        assert (parts - whole).norm() > 1e-3 * whole.norm()

    def test_the_memory_is_refreshed_once_with_the_later_image(self):
        step = make_step(accumulate=4)
        seen = []
        after = step.model.criterion.after_step
        step.model.criterion.after_step = lambda *given: (seen.append(given), after(*given))
        step(draw(), LABELS)
        ((maps, labels),) = seen
        assert len(maps) == 8 and torch.equal(labels, LABELS)
        features = step.model.criterion.memory.features
        for label, image in enumerate([5, 6, 7, 3, 4]):  # each label's last place
            assert torch.equal(features[label], maps[image])

    def test_running_statistics_move_once_for_each(self):
        counts = []
        for accumulate in (1, 4):
            step = make_step(accumulate=accumulate)
            step.model.train()
            step(draw(), LABELS)
            counts.append(int(step.model.criterion.matcher.bn.num_batches_tracked))
        assert counts == [1, 4]

    @pytest.mark.parametrize("size, parts", [(8, 3), (8, 8), (8, 0)])
    def test_what_does_not_divide_the_batch_is_refused(self, size, parts):
        with pytest.raises(ValueError, match="accumulate"):
            dataclasses.replace(TINY, batch_size=size, accumulate=parts)

    def test_pairs_are_not_split(self):
        with pytest.raises(ValueError, match="accumulate must be 1 for the loss pairwise"):
            dataclasses.replace(TINY, loss="pairwise", accumulate=2)


class TestClipping:
    def test_a_long_gradient_keeps_its_direction(self):
        whole = gradient(make_step(), draw())
        length = float(whole.norm())
        clipped = gradient(make_step(clip_norm=length / 3), draw())
        torch.testing.assert_close(clipped, whole / 3, rtol=1e-4, atol=1e-6)

    def test_a_short_one_is_left_alone(self):
        whole = gradient(make_step(), draw())
        assert torch.equal(gradient(make_step(clip_norm=2 * float(whole.norm())), draw()), whole)

    @pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), float("nan")])
    def test_impossible_lengths(self, norm):
        with pytest.raises(ValueError, match="clip_norm must be positive"):
            dataclasses.replace(TINY, clip_norm=norm)


class TestPrecision:
    # One gradient may leave for another maximum, so directions are held against each other.
    @pytest.mark.parametrize("device", ["cpu", GPU])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_bfloat16_gives_nearly_the_gradient(self, loss, device):
        found = {}
        for precision in ("float32", "bfloat16"):
            step = make_step(device, loss=loss, precision=precision)
            step.model.eval()
            value, _ = step(draw().to(device), LABELS.to(device))
            grads = [p.grad.flatten() for p in step.model.parameters() if p.grad is not None]
            assert all(p.dtype == torch.float32 for p in step.model.parameters())
            assert all(t.dtype != torch.bfloat16 for t in step.model.state_dict().values())
            found[precision] = value, torch.cat(grads)
        (value, expected), (near, grads) = found.values()
        assert near == pytest.approx(value, rel=0.05) and near != value
        assert torch.cosine_similarity(expected, grads, dim=0) > 0.9

    def test_maps_have_unit_channels_all_the_same(self):
        step = make_step(precision="bfloat16")
        with torch.autocast("cpu", torch.bfloat16):
            maps = step.model.backbone(draw())
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps.norm(dim=1), torch.ones(8, 4, 2), rtol=0, atol=1e-5)

    def test_matching_is_what_becomes_coarse(self, monkeypatch):
        step = make_step(precision="bfloat16")
        seen = []
        matcher = step.model.criterion.matcher
        head = matcher.head
        monkeypatch.setattr(
            matcher, "head", lambda matches: (seen.append(matches), head(matches))[1]
        )
        step(draw(), LABELS)
        assert seen[0].dtype == torch.bfloat16
        assert head(seen[0]).dtype == torch.float32

    def test_float16_wants_a_gpu(self):
        with pytest.raises(ValueError, match='"float16" needs a GPU; on a CPU take "bfloat16"'):
            make_step(precision="float16")

    def test_unknown_precision(self):
        with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, float16"):
            dataclasses.replace(TINY, precision="half")


class TestLossScaling:
    """GradScaler works on the CPU as on a GPU; only the check of the device is set aside."""

    @pytest.fixture(autouse=True)
    def on_the_cpu(self, monkeypatch):
        if not hasattr(torch.amp, "GradScaler"):
            pytest.skip("this PyTorch scales on GPUs only")
        scaler = partial(torch.amp.GradScaler, "cpu")
        monkeypatch.setattr(
            steps, "_scaler", lambda device, precision: scaler(enabled=precision == "float16")
        )

    def test_gradients_are_those_of_the_loss(self):
        """The scale is taken out before clipping and stepping."""
        step = make_step(precision="float16", clip_norm=1e3)
        step.model.eval()
        scaled = gradient(step, draw())
        whole = make_step()
        whole.model.eval()
        expected = gradient(whole, draw())
        assert step.scaler.state_dict()["scale"] == 65536.0
        assert torch.cosine_similarity(expected, scaled, dim=0) > 0.99
        assert float(scaled.norm()) == pytest.approx(float(expected.norm()), rel=0.05)

    def test_an_overflow_leaves_the_step_out_and_halves_the_scale(self):
        step = make_step(precision="float16")
        step.scaler.load_state_dict(step.scaler.state_dict() | {"scale": 2.0**120})
        before = [p.clone() for p in step.model.parameters()]
        value, _ = step(draw(), LABELS)
        assert value == value
        assert all(torch.equal(p, b) for p, b in zip(step.model.parameters(), before, strict=True))
        assert step.scaler.state_dict()["scale"] == 2.0**119

    def test_it_is_part_of_the_run(self, table, tmp_path):
        config, table = dataclasses.replace(TINY, precision="float16"), table[:8]
        trainer = config.trainer(table, device="cpu", run_folder=tmp_path)
        trainer.step.scaler.load_state_dict(trainer.step.scaler.state_dict() | {"scale": 2.0**120})
        trainer.train(epochs=1)
        scale = trainer.step.scaler.state_dict()["scale"]
        assert scale < 2.0**120
        resumed = config.trainer(table, device="cpu", run_folder=tmp_path)
        assert resumed.step.scaler.state_dict()["scale"] == scale


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixteen noisy images of four people by two cameras."""
    folder, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for number in range(16):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (32, 16, 3)).astype(np.uint8)).save(path)
        rows.append({"path": str(path), "identity": number % 4, "camera": number % 2})
    return pd.DataFrame(rows)


ALL = {"precision": "bfloat16", "accumulate": 2, "clip_norm": 0.5}


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_resumed_run_with_everything_equals_one_that_was_not_stopped(table, tmp_path, device):
    config = dataclasses.replace(TINY, **ALL)
    if device == "cuda":
        config = dataclasses.replace(config, precision="float16")
    whole = config.trainer(table, device=device)
    whole.train()
    config.trainer(table, device=device, run_folder=tmp_path).train(epochs=1)
    resumed = config.trainer(table, device=device, run_folder=tmp_path)
    resumed.train()
    assert resumed.history == whole.history
    expected = whole.model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in resumed.model.state_dict().items())


class TestShortage:
    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        ],
    )
    def test_every_form_of_it_names_what_to_lower(self, table, monkeypatch, error):
        def fail(*_):
            raise error

        trainer = TINY.trainer(table, device="cpu")
        monkeypatch.setattr(trainer.model.criterion, "forward", fail)
        with pytest.raises(ShortOfMemoryError) as caught:
            trainer.train()
        message = str(caught.value)
        assert "out of memory while training on 8 images of 32 x 16 pixels" in message
        for setting in ("accumulate", "precision to bfloat16", "batch_size", "height or width"):
            assert setting in message
        assert "\n" not in message

    def test_extraction_and_matching_name_theirs(self, table, monkeypatch):
        model = TINY.trainer(table, device="cpu").model
        maps = model.extract(table)

        def fail(*_, **__):
            raise MemoryError

        monkeypatch.setattr("qaconv_lib.matching._match_blocks", fail)
        with pytest.raises(ShortOfMemoryError, match="matching 16 x 16 images.*fewer queries"):
            model.similarity(maps, maps)
        monkeypatch.setattr(model.backbone, "forward", fail)
        with pytest.raises(ShortOfMemoryError, match="features of 16 images.*lower batch_size"):
            model.extract(table, batch_size=4)

    def test_other_errors_pass(self):
        with pytest.raises(RuntimeError, match="shapes"):
            with naming_shortage("a", "b"):
                raise RuntimeError("shapes do not fit")

    def test_a_killed_worker_points_to_the_workers(self):
        text = "DataLoader worker (pid(s) 7) exited unexpectedly: killed by signal: Killed."
        with pytest.raises(ShortOfMemoryError, match="out of memory while a: lower workers"):
            with naming_shortage("a", "b"):
                raise RuntimeError(text)

    def test_the_inner_sentence_stays(self):
        with pytest.raises(ShortOfMemoryError, match="^out of memory while inner: lower it$"):
            with naming_shortage("outer", "x"), naming_shortage("inner", "lower it"):
                raise MemoryError
