"""Chapter 7: the trainer, its schedule, checkpoints and resume; models and records."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, noisy_people

from qaconv_lib import training as steps
from qaconv_lib._checks import ShortOfMemoryError, naming_shortage
from qaconv_lib._files import read_checkpoint, write_checkpoint
from qaconv_lib.config import TrainingConfig, differing_settings
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.losses import LOSSES
from qaconv_lib.models import ReidModel, load_model, load_weights, save_model
from qaconv_lib.training import Trainer, TrainingStep

#: Settings without which a loss has nothing to learn from in batches of four.
OWN = {"pairwise": {"sampler": "pk", "images_per_identity": 2}}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three identities, each a colour, four noisy images of each."""
    return noisy_people(
        tmp_path_factory.mktemp("images"), [0] * 4 + [1] * 4 + [2] * 4, colours=True
    )


def same(found, expected):
    """Whether the tensors of two state dicts are equal."""
    return found.keys() == expected.keys() and all(
        torch.equal(found[k], expected[k]) for k in found
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_training_lowers_the_loss(table, loss):
    config = dataclasses.replace(
        TINY,
        loss=loss,
        epochs=24,
        decay_epochs=20,
        occlusion="none",
        backbone_learning_rate=0.01,
        **OWN.get(loss, {}),
    )
    trainer = config.trainer(table)
    trainer.train()
    losses = [row["loss"] for row in trainer.history]
    assert min(losses[-3:]) < 0.3 * max(losses[:4])
    assert trainer.history[-1]["accuracy"] > 0.8


MORE = [
    {"precision": "bfloat16", "accumulate": 2, "clip_norm": 0.5},
    {"loss": "pairwise", "sampler": "graph", "images_per_identity": 2},
]


@pytest.mark.parametrize("change", [*({"loss": loss} for loss in LOSSES), *MORE], ids=str)
def test_a_resumed_run_equals_one_that_was_not_stopped(table, tmp_path, change):
    config = dataclasses.replace(TINY, **change)
    whole = config.trainer(table)
    whole.train()
    config.trainer(table, run_folder=tmp_path).train(epochs=2)
    torch.rand(7)  # whatever else the process draws must not matter
    resumed = config.trainer(table, run_folder=tmp_path)
    assert resumed.epoch == 2
    resumed.train()
    assert resumed.history == whole.history
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_rates_follow_the_schedule(table):
    config = dataclasses.replace(TINY, learning_rate=0.02, backbone_learning_rate=0.002)
    seen = []

    def note(trainer):
        seen.append([group["lr"] for group in trainer.optimizer.param_groups])

    trainer = config.trainer(table)
    trainer.train(after_epoch=note)
    np.testing.assert_allclose(seen, [[0.002, 0.02], [0.002, 0.02], [0.0002, 0.002]])
    trunk = {id(p) for p in trainer.model.backbone.trunk.parameters()}
    slow, fast = ({id(p) for p in group["params"]} for group in trainer.optimizer.param_groups)
    assert slow == trunk and len(fast) == len(list(trainer.model.parameters())) - len(trunk)


def drop_later_settings(path):
    """A checkpoint as it was written before the settings that came later existed."""
    tensors, details = read_checkpoint(path)
    later = [f.name for f in dataclasses.fields(TrainingConfig) if "later" in f.metadata]
    for name in later:
        del details["config"][name]
    write_checkpoint(path, tensors, details)
    return later


@pytest.mark.parametrize("change", [{"learning_rate": 0.5}, {"frozen_norm": True}])
def test_a_run_of_other_settings_is_refused(table, tmp_path, change):
    TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    with pytest.raises(ValueError, match=rf"settings \({list(change)[0]}\)"):
        dataclasses.replace(TINY, **change).trainer(table, run_folder=tmp_path)
    assert TINY.trainer(table, run_folder=tmp_path).epoch == 1


def test_weights_of_a_file_are_what_training_starts_from(table, tmp_path):
    tensors = TINY.trainer(table).model.backbone.trunk.state_dict()
    torch.save({key: value + 1 for key, value in tensors.items()}, tmp_path / "w.pth")
    config = dataclasses.replace(TINY, weights=tmp_path / "w.pth")
    assert config.weights == str(tmp_path / "w.pth")  # as JSON holds it
    trainer = config.trainer(table)
    found = trainer.model.backbone.trunk.state_dict()
    assert all(torch.equal(value, tensors[key] + 1) for key, value in found.items())
    save_model(tmp_path / "m.safetensors", trainer.model)
    (tmp_path / "w.pth").unlink()  # the trained model does not want it
    load_model(tmp_path / "m.safetensors")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder none may write to")
def test_a_run_folder_that_cannot_be_written_is_refused_before_training(table):
    with pytest.raises(OSError, match="/proc/self"):
        TINY.trainer(table, run_folder="/proc/self")


def test_a_log_that_cannot_be_written_does_not_end_the_training(table, tmp_path):
    (tmp_path / "log.csv").mkdir()  # in the way, as a spreadsheet that has the file open
    with pytest.warns(UserWarning, match="the log is not kept"):
        TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    assert (tmp_path / "last.safetensors").is_file()


def test_other_images_in_the_run_folder_are_refused(table, tmp_path):
    TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    others = table.assign(identity=table["identity"] + 1)
    with pytest.raises(ValueError, match=r"\(images\)"):
        TINY.trainer(others, run_folder=tmp_path)
    moved = table.assign(path=[shutil.copy(path, tmp_path) for path in table["path"]])
    assert TINY.trainer(moved, run_folder=tmp_path).epoch == 1  # the same images elsewhere
    Image.new("RGB", (16, 32)).save(moved["path"][0])  # the same name, another image
    with pytest.raises(ValueError, match=r"\(images\)"):
        TINY.trainer(moved, run_folder=tmp_path)


def test_a_resumed_run_leaves_its_state_file_alone(table, tmp_path):
    """Windows does not replace a file that is mapped."""
    TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    trainer = TINY.trainer(table, run_folder=tmp_path)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or "last.safetensors" not in maps.read_text()
    trainer.train()


def test_training_starts_from_a_model_of_this_library(table, tmp_path):
    first = TINY.trainer(table).model
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    path = tmp_path / "m.safetensors"
    save_model(path, first)
    few = table[table["identity"] < 2]  # other people: another number of classes
    wanted = load_model(path).state_dict()
    found = dataclasses.replace(TINY, weights=path).trainer(few).model.state_dict()
    shared = [key for key in wanted if not key.startswith("criterion.memory.")]
    assert all(torch.equal(found[key], wanted[key]) for key in shared)
    with pytest.warns(UserWarning, match="criterion.matcher of .* does not fit"):
        model = dataclasses.replace(TINY, weights=path, height=48).trainer(few).model
    assert torch.equal(model.backbone.neck[0].weight, wanted["backbone.neck.0.weight"])
    assert not torch.equal(model.criterion.matcher.bn.bias, wanted["criterion.matcher.bn.bias"])


def test_settings_become_what_a_file_can_hold(table, tmp_path):
    config = dataclasses.replace(
        TINY, learning_rate=np.float32(0.25), epochs=np.int64(1), gamma=torch.tensor(2.0)
    )
    assert (config.learning_rate, type(config.epochs), config.gamma) == (0.25, int, 2.0)
    save_model(tmp_path / "m.safetensors", config.trainer(table).model)
    assert load_model(tmp_path / "m.safetensors").config.learning_rate == 0.25
    with pytest.raises(TypeError, match="margin must be a number or text"):
        dataclasses.replace(TINY, margin=[0.5])
    for wrong in ({"learning_rate": "0.1"}, {"gamma": float("nan")}, {"pretrained": "no"}):
        with pytest.raises(
            ValueError, match=f"{list(wrong)[0]} must be .*{list(wrong.values())[0]}"
        ):
            dataclasses.replace(TINY, **wrong)


def test_a_run_goes_on_with_equal_numbers_of_another_kind(table, tmp_path):
    step = {"accumulate": np.int64(2), "clip_norm": np.float32(8)}
    Trainer(TINY, table, run_folder=tmp_path, **step).train(epochs=1)
    assert Trainer(TINY, table, run_folder=tmp_path, accumulate=2, clip_norm=8.0).epoch == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unknown_device_is_named(table, device):
    with pytest.raises(ValueError, match=f"device must be cpu.*{device}"):
        TINY.trainer(table, device=device)


def test_an_interrupted_write_leaves_the_last_whole_state(table, tmp_path, monkeypatch):
    trainer = TINY.trainer(table, run_folder=tmp_path)
    trainer.train(epochs=1)
    monkeypatch.setattr("os.fsync", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(epochs=2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.safetensors", "log.csv"]
    assert TINY.trainer(table, run_folder=tmp_path).epoch == 1


def test_the_papers_model_takes_a_step(table):
    config = get_profile("paper").config("qaconv", batch_size=4, pretrained=False, workers=0)
    trainer = config.trainer(table)
    for _ in range(2):
        value, _ = trainer.step(torch.rand(4, 3, 384, 128), torch.tensor([0, 1, 2, 0]))
    assert value > 0
    assert trainer.model.criterion.memory.features.shape == (3, 128, 24, 8)


def test_a_warm_start_takes_the_trunk_of_a_softmax_model(table):
    config = dataclasses.replace(TINY, warm_start=2)
    softmax = dataclasses.replace(TINY, loss="softmax", epochs=2)
    expected = softmax.trainer(table).train().backbone.trunk.state_dict()
    trainer = config.trainer(table)
    start = {key: value.clone() for key, value in trainer.model.criterion.state_dict().items()}
    trainer._warm_start(progress=False)
    assert same(trainer.model.backbone.trunk.state_dict(), expected)
    assert same(trainer.model.criterion.state_dict(), start)


def test_a_warm_start_is_not_repeated_after_the_first_epoch(table, tmp_path):
    config = dataclasses.replace(TINY, warm_start=1, epochs=2)
    whole = config.trainer(table).train().state_dict()
    config.trainer(table, run_folder=tmp_path).train(epochs=1)
    assert same(config.trainer(table, run_folder=tmp_path).train().state_dict(), whole)


def test_too_few_images_for_a_batch(table):
    with pytest.raises(ValueError, match="12 training images do not fill one batch of 32"):
        dataclasses.replace(TINY, batch_size=32).trainer(table)


def test_a_loss_that_is_not_a_number_stops_the_run(table):
    trainer = TINY.trainer(table)
    trainer.step = lambda images, labels: (float("nan"), 0)
    with pytest.raises(FloatingPointError, match="epoch 1; lower learning_rate"):
        trainer.train()


class TestModelFiles:
    @pytest.mark.parametrize("loss", LOSSES)
    def test_a_saved_model_gives_the_same_similarities(self, table, tmp_path, loss):
        model = dataclasses.replace(TINY, loss=loss).trainer(table).train(epochs=1)
        save_model(tmp_path / "m.safetensors", model, note="test")
        loaded = load_model(tmp_path / "m.safetensors")
        maps, again = model.extract(table), loaded.extract(table)
        torch.testing.assert_close(maps, again, atol=0.02, rtol=0.02)  # stored in half precision
        torch.testing.assert_close(
            model.similarity(maps, maps), loaded.similarity(again, again), atol=0.02, rtol=0.1
        )
        tensors, details = read_checkpoint(tmp_path / "m.safetensors")
        assert details["note"] == "test" and details["config"]["loss"] == loss
        assert not any(
            part in key for key in tensors for part in ("memory", "classifier", "centers")
        )

    def test_extract_restores_the_mode(self, table):
        model = TINY.trainer(table).model.train()
        model.extract(table)
        assert model.training

    def test_values_that_half_precision_cannot_hold_are_saved_if_finite(self, table, tmp_path):
        model = TINY.trainer(table).model
        variance = model.criterion.matcher.logit_bn.running_var.fill_(1e5)
        save_model(tmp_path / "m.safetensors", model)
        found = load_model(tmp_path / "m.safetensors").criterion.matcher.logit_bn.running_var
        assert torch.equal(found, variance)
        (tmp_path / "m.safetensors").unlink()
        variance.fill_(torch.inf)
        with pytest.raises(ValueError, match="logit_bn.running_var cannot be saved"):
            save_model(tmp_path / "m.safetensors", model)
        assert not list(tmp_path.iterdir())

    def test_an_empty_table_has_no_features(self, table):
        with pytest.raises(ValueError, match="no images"):
            TINY.trainer(table).model.extract(table[:0])

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda t: t.pop("criterion.matcher.fc.weight"), "missing.*fc.weight"),
            (lambda t: t.update(extra=torch.zeros(1)), "left over.*extra"),
            (
                lambda t: t.update({"criterion.matcher.fc.weight": torch.zeros(1, 3)}),
                r"fc.weight of shape \(1, 3\), the model has \(1, 16\)",
            ),
        ],
    )
    def test_weights_of_another_shape(self, table, tmp_path, change, message):
        path = tmp_path / "m.safetensors"
        save_model(path, TINY.trainer(table).model)
        tensors, details = read_checkpoint(path)
        change(tensors)
        write_checkpoint(path, tensors, details)
        with pytest.raises(ValueError, match=message):
            load_model(path)

    def test_weights_of_another_number_of_identities(self, table):
        model = TINY.trainer(table).model
        fewer = TINY.trainer(table[table["identity"] < 2]).model
        with pytest.raises(ValueError, match="for 3 training identities, the model has 2"):
            load_weights(fewer, model.state_dict(), "m.safetensors")

    def test_a_model_that_knows_fewer_settings_is_read(self, table, tmp_path):
        path = tmp_path / "m.safetensors"
        save_model(path, TINY.trainer(table).model)
        drop_later_settings(path)
        assert not differing_settings(dataclasses.asdict(TINY), load_model(path).config)

    def test_settings_from_elsewhere(self, table, tmp_path):
        path = tmp_path / "m.safetensors"
        save_model(path, TINY.trainer(table).model)
        tensors, details = read_checkpoint(path)
        write_checkpoint(path, tensors, details | {"config": {"colour": 1}})
        with pytest.raises(ValueError, match="unknown settings: colour"):
            load_model(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"loss": "triplet"}, "loss"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"seed": 10**20}, "seed"),
        ({"precision": "half"}, "precision must be one of float32, bfloat16, float16"),
        *(({"clip_norm": norm}, "clip_norm") for norm in (0.0, -1.0, np.inf, np.nan)),
        *(({"batch_size": 8, "accumulate": parts}, "accumulate") for parts in (3, 8, 0)),
        ({"loss": "pairwise", "accumulate": 2}, "accumulate must be 1 for the loss pairwise"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


class TestComparedSettings:
    """A setting that a file does not name counts as its default; all else must be the same."""

    stored = dataclasses.asdict(TINY)

    def test_a_setting_that_came_later(self):
        older = {key: value for key, value in self.stored.items() if key != "frozen_norm"}
        assert differing_settings(self.stored, TINY) == differing_settings(older, TINY) == []
        changed = dataclasses.replace(TINY, frozen_norm=True)
        assert differing_settings(older, changed) == ["frozen_norm"]

    @pytest.mark.parametrize("change", [{"gamma": 1.0}, {"colour": 1}, {"frozen_norm": True}])
    def test_another_value_or_an_unknown_setting(self, change):
        assert differing_settings(self.stored | change, TINY) == list(change)
        for nothing in (None, [], "qaconv"):
            assert "loss" in differing_settings(nothing, TINY)

    def test_later_settings_leave_the_digest_alone_until_they_are_used(self):
        """Models in a reader's cache stay where they are when a setting is added."""
        assert TrainingConfig().digest() == "b62431da"
        digests = {
            TrainingConfig(**change).digest()
            for change in ({}, {"frozen_norm": True}, {"weights": "a"}, {"weights": "b"})
        }
        assert len(digests) == 4


# One training step ----------------------------------------------------------------------------

EIGHT = dataclasses.replace(TINY, batch_size=8, epochs=2, decay_epochs=1)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


def draw():
    return torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def make_step(device="cpu", loss="qaconv", **options):
    """A step on a model whose memory is full, every call with the same weights."""
    torch.manual_seed(0)
    model = ReidModel(dataclasses.replace(EIGHT, loss=loss), 5).to(device)
    if hasattr(model.criterion, "memory"):
        memory = model.criterion.memory
        memory.features.copy_(torch.nn.functional.normalize(torch.randn_like(memory.features)))
        memory.valid.fill_(True)
    return TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def gradient(step, images=None, labels=LABELS):
    """Loss, right answers and gradient of a step."""
    result = step(draw() if images is None else images, labels)
    given = [p.grad.flatten() for p in step.model.parameters() if p.grad is not None]
    return *result, torch.cat(given).double()


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
            found.append((*gradient(step, draw().double()), remembered(step)))
        (value, right, expected, kept), (value2, right2, grads, kept2) = found
        assert value2 == pytest.approx(value, rel=1e-10) and right2 == right
        assert expected.norm() > 1e-4
        torch.testing.assert_close(grads, expected, rtol=1e-8, atol=1e-10)
        for key, tensor in kept.items():
            torch.testing.assert_close(kept2[key], tensor, rtol=1e-8, atol=1e-10)


class TestClipping:
    def test_a_long_gradient_keeps_its_direction(self):
        *_, whole = gradient(make_step())
        *_, clipped = gradient(make_step(clip_norm=float(whole.norm()) / 3))
        torch.testing.assert_close(clipped, whole / 3, rtol=1e-4, atol=1e-6)


class TestPrecision:
    # One gradient may leave for another maximum, so directions are held against each other.
    @pytest.mark.parametrize("device", ["cpu", GPU])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_bfloat16_gives_nearly_the_gradient(self, loss, device):
        found = {}
        for precision in ("float32", "bfloat16"):
            step = make_step(device, loss=loss, precision=precision)
            step.model.eval()
            value, _, grads = gradient(step, draw().to(device), LABELS.to(device))
            assert all(p.dtype == torch.float32 for p in step.model.parameters())
            assert all(t.dtype != torch.bfloat16 for t in step.model.state_dict().values())
            found[precision] = value, grads
        (value, expected), (near, grads) = found.values()
        assert near == pytest.approx(value, rel=0.05) and near != value
        assert torch.cosine_similarity(expected, grads, dim=0) > 0.9

    def test_float16_wants_a_gpu(self):
        with pytest.raises(ValueError, match='"float16" needs a GPU; on a CPU take "bfloat16"'):
            make_step(precision="float16")


class TestLossScaling:
    """GradScaler works on the CPU as on a GPU; only the check of the device is set aside."""

    @pytest.fixture(autouse=True)
    def on_the_cpu(self, monkeypatch):
        scaler = partial(torch.amp.GradScaler, "cpu")
        monkeypatch.setattr(
            steps, "_scaler", lambda device, precision: scaler(enabled=precision == "float16")
        )

    def test_gradients_are_those_of_the_loss(self):
        """The scale is taken out before clipping and stepping."""
        step = make_step(precision="float16", clip_norm=1e3)
        step.model.eval()
        *_, scaled = gradient(step)
        whole = make_step()
        whole.model.eval()
        *_, expected = gradient(whole)
        assert step.scaler.state_dict()["scale"] == 65536.0
        assert torch.cosine_similarity(expected, scaled, dim=0) > 0.99
        assert float(scaled.norm()) == pytest.approx(float(expected.norm()), rel=0.05)

    def test_it_is_part_of_the_run(self, table, tmp_path):
        config = dataclasses.replace(EIGHT, precision="float16")
        trainer = config.trainer(table, device="cpu", run_folder=tmp_path)
        trainer.step.scaler.load_state_dict(trainer.step.scaler.state_dict() | {"scale": 2.0**120})
        trainer.train(epochs=1)
        scale = trainer.step.scaler.state_dict()["scale"]
        assert scale < 2.0**120
        resumed = config.trainer(table, device="cpu", run_folder=tmp_path)
        assert resumed.step.scaler.state_dict()["scale"] == scale


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
        trainer = EIGHT.trainer(table, device="cpu")
        monkeypatch.setattr(trainer.model.criterion, "forward", Mock(side_effect=error))
        with pytest.raises(ShortOfMemoryError) as caught:
            trainer.train()
        assert "training on 8 images of 32 x 16 pixels" in str(caught.value)
        assert "accumulate" in str(caught.value) and "\n" not in str(caught.value)

    def test_extraction_and_matching_name_theirs(self, table, monkeypatch):
        model = EIGHT.trainer(table, device="cpu").model
        maps = model.extract(table)
        fail = Mock(side_effect=MemoryError)
        monkeypatch.setattr("torch.empty", fail)
        with pytest.raises(ShortOfMemoryError, match="matching images.*fewer queries"):
            model.similarity(maps, maps)
        monkeypatch.undo()
        monkeypatch.setattr(model.backbone, "forward", fail)
        with pytest.raises(ShortOfMemoryError, match="extracting features.*lower batch_size"):
            model.extract(table, batch_size=4)

    def test_a_killed_worker_points_to_the_workers(self):
        text = "DataLoader worker (pid(s) 7) exited unexpectedly: killed by signal: Killed."
        with pytest.raises(ShortOfMemoryError, match="out of memory while a: lower workers"):
            with naming_shortage("a", "b"):
                raise RuntimeError(text)

    def test_the_inner_sentence_stays(self):
        with pytest.raises(ShortOfMemoryError, match="^out of memory while inner: lower it$"):
            with naming_shortage("outer", "x"), naming_shortage("inner", "lower it"):
                raise MemoryError
