"""Chapter 7: the trainer, its schedule, checkpoints and resume; models and records."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaconv_lib._files import read_checkpoint, write_checkpoint
from qaconv_lib.config import TrainingConfig, differing_settings
from qaconv_lib.experiments.profiles import RunConfig, get_profile
from qaconv_lib.losses import LOSSES
from qaconv_lib.models import load_model, load_weights, save_model

TINY = RunConfig(
    backbone="resnet18",
    pretrained=False,
    final_layer="layer2",
    neck_channels=8,
    height=32,
    width=16,
    batch_size=4,
    epochs=3,
    decay_epochs=2,
)
#: Settings without which a loss has nothing to learn from in batches of four.
OWN = {"pairwise": {"sampler": "pk", "images_per_identity": 2}}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three identities, each a colour, four noisy images of each."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    rows = []
    for identity in range(3):
        for number in range(4):
            pixels = rng.integers(0, 90, (32, 16, 3))
            pixels[..., identity] += 150
            path = folder / f"{identity}_{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            rows.append({"path": str(path), "identity": identity})
    return pd.DataFrame(rows)


def weights(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


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


@pytest.mark.parametrize("loss", LOSSES)
def test_a_resumed_run_equals_one_that_was_not_stopped(table, tmp_path, loss):
    config = dataclasses.replace(TINY, loss=loss)
    whole = config.trainer(table)
    whole.train()
    config.trainer(table, run_folder=tmp_path).train(epochs=2)
    torch.rand(7)  # whatever else the process draws must not matter
    resumed = config.trainer(table, run_folder=tmp_path)
    assert resumed.epoch == 2
    resumed.train()
    assert resumed.history == whole.history
    expected = weights(whole)
    assert all(torch.equal(value, expected[key]) for key, value in weights(resumed).items())


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


def test_the_memory_is_updated_after_the_parameters(table, monkeypatch):
    trainer, order = TINY.trainer(table), []
    step, after = trainer.optimizer.step, trainer.model.criterion.after_step
    monkeypatch.setattr(trainer.optimizer, "step", lambda: (order.append("step"), step()))
    monkeypatch.setattr(
        trainer.model.criterion, "after_step", lambda *a: (order.append("memory"), after(*a))
    )
    trainer.step(torch.rand(4, 3, 32, 16), torch.tensor([0, 1, 2, 0]))
    assert order == ["step", "memory"]


def test_other_settings_in_the_run_folder_are_refused(table, tmp_path):
    TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    with pytest.raises(ValueError, match="learning_rate"):
        dataclasses.replace(TINY, learning_rate=0.5).trainer(table, run_folder=tmp_path)


def drop_later_settings(path):
    """A checkpoint as it was written before the settings that came later existed."""
    tensors, details = read_checkpoint(path)
    later = [f.name for f in dataclasses.fields(TrainingConfig) if "later" in f.metadata]
    for name in later:
        del details["config"][name]
    write_checkpoint(path, tensors, details)
    return later


def test_a_run_that_knows_fewer_settings_is_taken_up(table, tmp_path):
    TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    assert {"weights", "frozen_norm"} <= set(drop_later_settings(tmp_path / "last.safetensors"))
    with pytest.raises(ValueError, match=r"other settings \(frozen_norm\)"):
        dataclasses.replace(TINY, frozen_norm=True).trainer(table, run_folder=tmp_path)
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


def test_other_images_in_the_run_folder_are_refused(table, tmp_path):
    TINY.trainer(table, run_folder=tmp_path).train(epochs=1)
    others = table.assign(identity=table["identity"] + 1)
    with pytest.raises(ValueError, match="other images"):
        TINY.trainer(others, run_folder=tmp_path)


def test_a_file_in_the_place_of_the_run_folder_is_found_at_once(table, tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ValueError, match="run should be a folder"):
        TINY.trainer(table, run_folder=tmp_path / "run")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unknown_device_is_named(table, device):
    with pytest.raises(ValueError, match=f"device must be cpu.*{device}"):
        TINY.trainer(table, device=device)


def test_an_interrupted_write_leaves_the_last_whole_state(table, tmp_path, monkeypatch):
    trainer = TINY.trainer(table, run_folder=tmp_path)
    trainer.train(epochs=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(epochs=2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.safetensors", "log.csv"]
    assert TINY.trainer(table, run_folder=tmp_path).epoch == 1


@pytest.mark.parametrize("loss", ["qaconv", "softmax"])
def test_the_papers_model_takes_a_step(table, loss):
    config = get_profile("paper").config(loss, batch_size=4, pretrained=False)
    trainer = dataclasses.replace(config, workers=0).trainer(table)
    images, labels = torch.rand(4, 3, 384, 128), torch.tensor([0, 1, 2, 0])
    for _ in range(2):
        value, _ = trainer.step(images, labels)
    assert value > 0
    if loss == "qaconv":
        assert trainer.model.criterion.memory.features.shape == (3, 128, 24, 8)


def test_a_warm_start_takes_the_trunk_of_a_softmax_model(table):
    config = dataclasses.replace(TINY, warm_start=2)
    softmax = dataclasses.replace(TINY, loss="softmax", epochs=2)
    expected = softmax.trainer(table).train().backbone.trunk.state_dict()
    trainer = config.trainer(table)
    start = weights(trainer)
    trainer._warm_start(progress=False)
    found = trainer.model.backbone.trunk.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert any(not torch.equal(v, start[f"backbone.trunk.{k}"]) for k, v in found.items())
    criterion = trainer.model.criterion.state_dict()
    assert all(torch.equal(value, start[f"criterion.{key}"]) for key, value in criterion.items())


def test_a_warm_start_is_not_repeated_after_the_first_epoch(table, tmp_path):
    config = dataclasses.replace(TINY, warm_start=1, epochs=2)
    whole = config.trainer(table).train().state_dict()
    config.trainer(table, run_folder=tmp_path).train(epochs=1)
    resumed = config.trainer(table, run_folder=tmp_path).train().state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())


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

    def test_values_that_half_precision_cannot_hold_are_not_saved(self, table, tmp_path):
        model = TINY.trainer(table).model
        model.criterion.matcher.logit_bn.running_var.fill_(1e5)
        with pytest.raises(ValueError, match="logit_bn.running_var cannot be saved"):
            save_model(tmp_path / "m.safetensors", model)
        assert not list(tmp_path.iterdir())

    def test_an_empty_table_has_no_features(self, table):
        with pytest.raises(ValueError, match="no images"):
            TINY.trainer(table).model.extract(table[:0])

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
            load_model(tmp_path / "none.safetensors")

    def test_damaged_file(self, table, tmp_path):
        path = tmp_path / "m.safetensors"
        save_model(path, TINY.trainer(table).model)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"m\.safetensors is damaged"):
            load_model(path)

    def test_file_of_something_else(self, tmp_path):
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match="not written by qaconv_lib"):
            load_model(tmp_path / "x.safetensors")

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda t: t.pop("criterion.matcher.fc.weight"), "missing.*fc.weight"),
            (lambda t: t.update(extra=torch.zeros(1)), "left over.*extra"),
            (
                lambda t: t.update({"criterion.matcher.fc.weight": torch.zeros(1, 3)}),
                r"fc.weight of shape \(1, 3\), the model wants \(1, 16\)",
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
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


class TestComparedSettings:
    """A setting that a file does not name counts as its default; all else must be the same."""

    stored = dataclasses.asdict(TINY)

    def test_the_same(self):
        assert differing_settings(self.stored, TINY) == []

    def test_a_setting_that_came_later(self):
        older = {key: value for key, value in self.stored.items() if key != "frozen_norm"}
        assert differing_settings(older, TINY) == []
        changed = dataclasses.replace(TINY, frozen_norm=True)
        assert differing_settings(older, changed) == ["frozen_norm"]

    @pytest.mark.parametrize("change", [{"gamma": 1.0}, {"colour": 1}, {"frozen_norm": True}])
    def test_another_value_or_an_unknown_setting(self, change):
        assert differing_settings(self.stored | change, TINY) == list(change)

    @pytest.mark.parametrize("stored", [None, [], "qaconv"])
    def test_no_settings_at_all(self, stored):
        assert "loss" in differing_settings(stored, TINY)

    def test_later_settings_leave_the_digest_alone_until_they_are_used(self):
        """Models in a reader's cache stay where they are when a setting is added."""
        assert TrainingConfig().digest() == "b62431da"
        digests = {
            TrainingConfig(**change).digest()
            for change in ({}, {"frozen_norm": True}, {"weights": "a"}, {"weights": "b"})
        }
        assert len(digests) == 4
