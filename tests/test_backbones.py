"""Chapter 2: cut networks and their maps."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from qaconv_lib import backbones
from qaconv_lib.backbones import make_backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", *backbones.LITES])
@pytest.mark.parametrize(
    "layer, size", [("layer2", (16, 8)), ("layer3", (8, 4)), ("layer4", (4, 2))]
)
def test_map_has_the_promised_shape_and_unit_channels(name, layer, size):
    backbone = make_backbone(name, final_layer=layer, neck_channels=16).eval()
    maps = backbone(torch.rand(2, 3, 128, 64))
    assert maps.shape == (2, 16, *size)
    assert backbone.map_size(128, 64) == size
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2, *size))


@pytest.mark.parametrize("height, width", [(100, 50), (97, 33), (16, 16)])
def test_map_size_of_odd_images(height, width):
    backbone = make_backbone("efficientnet_lite0", neck_channels=8).eval()
    maps = backbone(torch.rand(1, 3, height, width))
    assert maps.shape[2:] == backbone.map_size(height, width)


def test_resnet_trunk_is_torchvision_up_to_the_cut():
    network = torchvision.models.resnet18().eval()
    backbone = make_backbone("resnet18", neck_channels=None, unit_channels=False, pixels="none")
    weights = {k: v for k, v in network.state_dict().items() if not k.startswith(("layer4", "fc"))}
    backbone.trunk.load_state_dict(weights)
    images = torch.rand(1, 3, 64, 32)
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    expected = network.layer3(network.layer2(network.layer1(x)))
    torch.testing.assert_close(backbone.eval()(images), expected)


@pytest.mark.parametrize("name", backbones.LITES)
def test_shipped_imagenet_weights_tell_a_photograph_from_its_shuffled_pixels(name):
    """The classifier is not shipped, so the check is on the features.

    ImageNet weights separate the two; random weights, to which both are texture, hardly do.
    """
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


def test_frozen_stages_keep_weights_and_statistics():
    backbone = make_backbone("efficientnet_lite0", neck_channels=8, frozen_stages=3).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 64, 32)).square().mean().backward()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.grad is not None:
                parameter += 1
    changed = {
        k.split(".")[0] + k.split(".")[1] + k.split(".")[2] if "blocks" in k else k
        for k, v in backbone.state_dict().items()
        if not torch.equal(v, before[k])
    }
    frozen = ("trunk.conv_stem", "trunk.bn1", "trunkblocks0", "trunkblocks1")
    assert not [key for key in changed if key.startswith(frozen)]
    assert {"trunkblocks2", "trunkblocks4"} <= changed


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="vgg"), "unknown backbone 'vgg'"),
        (dict(name="resnet18", final_layer="layer5"), "final_layer"),
        (dict(name="resnet18", neck_channels=0), "neck_channels"),
        (dict(name="resnet18", neck_size=2), "neck_size"),
        (dict(name="resnet18", pixels="caffe"), "pixels"),
        (dict(name="resnet18", frozen_stages=9), "frozen_stages must lie in 0..4"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_backbone(**options)


def test_missing_weights_say_where_they_were_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, "data_folders", lambda: [tmp_path])
    with pytest.raises(FileNotFoundError, match=str(tmp_path.name)):
        make_backbone("efficientnet_lite0", pretrained=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet50_ibn_b"])
def test_published_weights_are_asked_for_by_their_address(monkeypatch, name):
    asked = []

    def fail(url, network):
        asked.append((url, network))
        raise ConnectionError

    monkeypatch.setattr(backbones, "fetch_weights", fail)
    with pytest.raises(ConnectionError):
        make_backbone(name, pretrained=True)
    ((url, network),) = asked
    assert network == name and url.startswith("https://") and f"/{name}-" in url


def test_frozen_norm_keeps_statistics_and_trains_weights():
    """As opposed to frozen stages, and together with them; the neck's BN learns its statistics."""
    options = dict(neck_channels=8, final_layer="layer2", frozen_norm=True, frozen_stages=2)
    backbone = make_backbone("resnet18_ibn_a", **options).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 64, 32)).square().mean().backward()
    statistics = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert statistics and all(key.startswith("neck.1.") for key in statistics)
    trained = {k for k, p in backbone.named_parameters() if p.grad is not None}
    assert {"trunk.layer2.0.bn1.BN.weight", "trunk.layer2.0.bn1.IN.weight"} <= trained
    assert not any(key.startswith(("trunk.conv1", "trunk.bn1", "trunk.layer1")) for key in trained)
    # In training mode the trunk gives what it gives in evaluation, and without the setting not.
    images = torch.rand(2, 3, 64, 32)
    expected = backbone.eval().trunk(images)
    assert torch.equal(backbone.train().trunk(images), expected)
    backbone.frozen_norm = False
    assert not torch.allclose(backbone.train().trunk(images), expected)


def test_a_neck_without_norm_has_a_bias():
    backbone = make_backbone("resnet18", neck_channels=8, neck_size=3, neck_norm=False)
    assert {k for k in backbone.state_dict() if k.startswith("neck")} == {
        "neck.0.weight",
        "neck.0.bias",
    }


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(5)
    return torchvision.models.resnet18().state_dict()


class TestWeightFiles:
    """`weights`: the state dict of the whole network, or of what is kept of it."""

    def loaded(self, path, **more):
        return make_backbone("resnet18", weights=path, **more).trunk.state_dict()

    def test_a_whole_network(self, tmp_path, tensors):
        torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "w")
        found = self.loaded(tmp_path / "w", pretrained=True)  # the file, not the registry
        assert all(torch.equal(value, tensors[key]) for key, value in found.items())

    def test_a_cut_network_in_half_precision(self, tmp_path, tensors):
        kept = {k: v.half() for k, v in tensors.items() if not k.startswith(("layer4", "fc"))}
        save_file(kept, tmp_path / "w.safetensors")
        found = self.loaded(str(tmp_path / "w.safetensors"))
        assert found["conv1.weight"].dtype == torch.float32
        assert torch.equal(found["conv1.weight"].half(), kept["conv1.weight"])

    def test_old_files_lack_the_counts_of_batches(self, tmp_path, tensors):
        old = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "w.pth")
        found = self.loaded(tmp_path / "w.pth")
        assert torch.equal(found["layer3.1.bn2.weight"], tensors["layer3.1.bn2.weight"])

    @pytest.mark.parametrize(
        "name, message",
        [
            ("resnet34", "missing: layer1.2.conv1.weight"),
            ("resnet50", "misshapen: layer1.0.conv1.weight of shape"),
            ("resnet18_ibn_a", "missing: layer1.0.bn1.IN.weight.*left over: layer1.0.bn1.weight"),
            ("resnet18_ibn_b", "left over: bn1.running_mean"),
            ("efficientnet_lite0", "missing: conv_stem.weight.*left over: conv1.weight"),
        ],
    )
    def test_another_architecture_is_named(self, tmp_path, tensors, name, message):
        torch.save(tensors, tmp_path / "w.pth")
        with pytest.raises(
            ValueError, match=rf"w.pth does not hold the weights of {name}.*{message}"
        ):
            make_backbone(name, weights=tmp_path / "w.pth")

    def test_a_cut_file_does_not_reach_a_later_layer(self, tmp_path, tensors):
        torch.save({k: v for k, v in tensors.items() if k[:6] != "layer4"}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match="missing: layer4.0.conv1.weight"):
            self.loaded(tmp_path / "w.pth", final_layer="layer4")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file of weights at .*none\.pth"):
            self.loaded(tmp_path / "none.pth")
