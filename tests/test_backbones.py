"""Chapter 2: cut networks and their maps, and files of weights from elsewhere."""

import hashlib
import re
from argparse import Namespace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from qaconv_lib import backbones
from qaconv_lib.backbones import fold_norms, make_backbone
from qaconv_lib.beyond.weights import fetch_weights, read_weights

LAYERS = {"layer2": (16, 8), "layer3": (8, 4), "layer4": (4, 2)}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", *backbones.LITES])
@pytest.mark.parametrize("layer", LAYERS)
def test_map_has_the_promised_shape_and_unit_channels(name, layer):
    backbone = make_backbone(name, final_layer=layer, neck_channels=16).eval()
    maps = backbone(torch.rand(2, 3, 128, 64))
    assert maps.shape == (2, 16, *LAYERS[layer])
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2, *LAYERS[layer]))
    for size in ((128, 64), (100, 50), (97, 33), (16, 16)):
        assert backbone(torch.rand(1, 3, *size)).shape[2:] == backbone.map_size(*size)


def test_resnet_trunk_is_torchvision_up_to_the_cut():
    network = torchvision.models.resnet18().eval()
    backbone = make_backbone("resnet18", neck_channels=None, unit_channels=False, pixels="none")
    weights = {k: v for k, v in network.state_dict().items() if not k.startswith(("layer4", "fc"))}
    backbone.trunk.load_state_dict(weights)
    images = torch.rand(1, 3, 64, 32)
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    expected = network.layer3(network.layer2(network.layer1(x)))
    torch.testing.assert_close(backbone.eval()(images), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet18_ibn_a", "efficientnet_lite0"])
def test_folded_norms_change_no_map(name):
    torch.manual_seed(0)
    backbone, images = make_backbone(name, neck_channels=16), torch.rand(4, 3, 64, 32)
    before = backbone(images)  # in training: BN gets statistics other than 0 and 1
    folded = fold_norms(backbone)
    assert backbone.training and not folded.training
    left = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all("_ibn_" in name for _ in left)
    torch.testing.assert_close(folded(images), backbone.eval()(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(folded(images), before, atol=1e-2)


@pytest.mark.parametrize("name", backbones.LITES)
def test_shipped_imagenet_weights_tell_a_photograph_from_its_shuffled_pixels(name):
    """ImageNet weights separate the two; random weights, to which both are texture, hardly do."""
    sklearn_images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    photograph = torch.from_numpy(sklearn_images[0].copy()).permute(2, 0, 1)[None].float() / 255
    photograph = torch.nn.functional.interpolate(photograph, (160, 240), mode="area")
    order = torch.randperm(160 * 240, generator=torch.Generator().manual_seed(0))
    shuffled = photograph.flatten(2)[..., order].view_as(photograph)
    torch.manual_seed(0)

    def likeness(pretrained):
        options = dict(final_layer="layer4", neck_channels=None)
        backbone = make_backbone(name, pretrained=pretrained, **options).eval()
        with torch.no_grad():
            pooled = backbone(torch.cat([photograph, shuffled])).mean(dim=(2, 3))
        return torch.cosine_similarity(pooled[:1], pooled[1:]).item()

    assert likeness(pretrained=True) < 0.5 < likeness(pretrained=False)


def changes_of_a_step(backbone):
    """The entries of the state dict that a training step changes."""
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.train()(torch.rand(2, 3, 64, 32)).square().mean().backward()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.grad is not None:
                parameter += 1
    return {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}


def test_frozen_stages_keep_weights_and_statistics():
    changed = changes_of_a_step(
        make_backbone("efficientnet_lite0", neck_channels=8, frozen_stages=3)
    )
    frozen = ("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0", "trunk.blocks.1")
    assert not [key for key in changed if key.startswith(frozen)]
    assert {key.split(".")[2] for key in changed if "blocks" in key} == {"2", "3", "4"}


def test_frozen_norm_keeps_statistics_and_trains_weights():
    """As opposed to frozen stages, and together with them; the neck's BN learns its statistics."""
    options = dict(neck_channels=8, final_layer="layer2", frozen_norm=True, frozen_stages=2)
    backbone = make_backbone("resnet18_ibn_a", **options)
    changed = changes_of_a_step(backbone)
    statistics = {key for key in changed if "running" in key or "num_batches" in key}
    assert statistics and all(key.startswith("neck.1.") for key in statistics)
    assert {"trunk.layer2.0.bn1.BN.weight", "trunk.layer2.0.bn1.IN.weight"} <= changed
    assert not any(key.startswith(("trunk.conv1", "trunk.bn1", "trunk.layer1")) for key in changed)


@pytest.mark.parametrize(
    "options, culprit",
    [
        (dict(name="vgg"), "'vgg'"),
        (dict(name="resnet18", final_layer="layer5"), "final_layer.*'layer5'"),
        (dict(name="resnet18", neck_channels=0), "neck_channels"),
        (dict(name="resnet18", neck_size=2), "neck_size"),
        (dict(name="resnet18", pixels="caffe"), "pixels"),
        (dict(name="resnet18", frozen_stages=9), "frozen_stages.* 4, got 9"),
    ],
)
def test_bad_options_are_named(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        make_backbone(**options)


TENSORS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def equal(found, expected=TENSORS):
    return set(found) == set(expected) and all(torch.equal(found[k], expected[k]) for k in found)


class TestRead:
    """Files of weights: what is read, and what is refused."""

    @pytest.mark.parametrize("entry", [None, "state_dict", "model", "model_state_dict"])
    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model."])
    def test_state_dict_alone_wrapped_or_of_data_parallel(self, tmp_path, entry, prefix):
        content = {prefix + key: value for key, value in TENSORS.items()}
        torch.save({entry: content, "epoch": 3} if entry else content, tmp_path / "w.pth")
        assert equal(read_weights(tmp_path / "w.pth"))

    def test_what_training_scripts_keep_beside_the_weights(self, tmp_path):
        beside = {"rank1": np.float64(0.8), "args": Namespace(out=Path("runs"))}
        torch.save({"state_dict": TENSORS, "epoch": np.int64(60)} | beside, tmp_path / "w.pth")
        assert equal(read_weights(tmp_path / "w.pth"))

    def test_no_code_in_a_file_is_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "sprung",)

        torch.save({"conv.weight": Trap()}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=r"w\.pth.* run code"):
            read_weights(tmp_path / "w.pth")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("save, name", [(torch.save, "w.pth"), (save_file, "w.safetensors")])
    def test_missing_and_damaged_files(self, tmp_path, save, name):
        for missing in (tmp_path / name, tmp_path):
            with pytest.raises(FileNotFoundError, match=missing.name):
                read_weights(missing)
        save(TENSORS, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        assert equal(read_weights(tmp_path / name))
        for content in (whole[: len(whole) // 2], b"", b"<html>404</html>", bytes(range(256))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                read_weights(tmp_path / name)

    @pytest.mark.parametrize(
        "content, found",
        [
            (torch.ones(2), "Tensor"),
            ({}, "a dict"),
            ({"epoch": 3}, "'epoch' is a int"),
            ({"state_dict": {"a": {"b": 1}}}, "'a' is a dictionary with b"),
        ],
    )
    def test_something_else_than_a_state_dict(self, tmp_path, content, found):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=rf"w\.pth .*state dict.*{found}"):
            read_weights(tmp_path / "w.pth")


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(5)
    return torchvision.models.resnet18().state_dict()


class TestFit:
    """`weights`: the state dict of the whole network, or of the part that is kept."""

    @pytest.mark.parametrize("kind", ["whole", "cut", "half", "old"])
    def test_files_that_fit(self, tmp_path, tensors, kind):
        saved = {k: v.half() if kind == "half" else v for k, v in tensors.items()}
        if kind in ("cut", "old"):
            unwanted = re.compile("layer4|fc" if kind == "cut" else ".*num_batches_tracked")
            saved = {k: v for k, v in saved.items() if not unwanted.match(k)}
        torch.save(saved, tmp_path / "w.pth")
        backbone = make_backbone("resnet18", weights=tmp_path / "w.pth", pretrained=True)
        for key, value in backbone.trunk.state_dict().items():
            assert value.dtype == tensors[key].dtype
            expected = saved.get(key, tensors[key])
            assert torch.equal(value.to(expected.dtype), expected)

    @pytest.mark.parametrize(
        "name, message",
        [
            ("resnet50", "misshapen: layer1.0.conv1.weight"),
            ("resnet18_ibn_a", "missing: layer1.0.bn1.IN.weight.*left over: layer1.0.bn1.weight"),
            ("efficientnet_lite0", "missing: conv_stem.weight.*left over: conv1.weight"),
        ],
    )
    def test_another_architecture_is_named(self, tmp_path, tensors, name, message):
        torch.save(tensors, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=f"w.pth .*{name}.*{message}"):
            make_backbone(name, weights=tmp_path / "w.pth")


class TestFetch:
    """Published files, here of a site that is a folder."""

    content = b"weights"
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"

    @pytest.fixture
    def places(self, tmp_path, monkeypatch):
        """A data folder and PyTorch's cache, both empty, and a site with the file."""
        monkeypatch.setenv("QACONV_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr(torch.hub, "_hub_dir", None)
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / self.name).write_bytes(self.content)
        cache = tmp_path / "torch" / "hub" / "checkpoints"
        return tmp_path / "data" / "weights", cache, tmp_path / "site"

    def test_a_fetched_file_is_kept(self, places):
        _, cache, site = places
        assert fetch_weights((site / self.name).as_uri(), "net") == cache / self.name
        (site / self.name).unlink()
        assert fetch_weights((site / self.name).as_uri(), "net").read_bytes() == self.content

    def test_a_file_in_the_data_folder_comes_first(self, places):
        for place in places[:2]:
            place.mkdir(parents=True)
            (place / self.name).write_bytes(self.content)
        assert fetch_weights("https://example.org/" + self.name, "net") == places[0] / self.name

    @pytest.mark.parametrize("name", ["net-00000000.pth", "absent-0123abcd.pth"])
    def test_other_digits_or_no_file(self, places, name):
        *folders, site = places
        (site / "net-00000000.pth").write_bytes(self.content)
        with pytest.raises(ConnectionError) as caught:
            fetch_weights((site / name).as_uri(), "net")
        assert not list(folders[1].iterdir())
        needed = ((site / name).as_uri(), *map(str, folders), "--weights")
        assert all(words in str(caught.value) for words in needed)

    @pytest.mark.parametrize("name", ["resnet18", "resnet50_ibn_b", "efficientnet_lite0"])
    def test_pretrained_weights_that_are_not_there(self, places, monkeypatch, name):
        monkeypatch.setattr(
            torch.hub, "download_url_to_file", Mock(side_effect=OSError("no route"))
        )
        monkeypatch.setattr(backbones, "data_folders", lambda: [places[0].parent])
        with pytest.raises(OSError, match=rf"{name}.*{places[0]}"):
            make_backbone(name, pretrained=True)
