"""Chapter 2: cut networks and their maps."""

import pytest
import torch
import torchvision

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


def test_no_network_gives_advice(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", fail)
    with pytest.raises(ConnectionError, match="pretrained=False"):
        make_backbone("resnet18", pretrained=True)
