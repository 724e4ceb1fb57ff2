"""Checkpoints of the authors' code, generated with the names and shapes of each version."""

import pytest
import torch
import torch.nn.functional as F
from test_ibn import batch_norm, published, run_published

from qaconv_lib.beyond.released import load_released
from qaconv_lib.models import load_model, save_model

HEIGHT, WIDTH, CHANNELS = 64, 32, 16
SIZE = {"height": HEIGHT, "width": WIDTH}
LOCATIONS = 4 * 2  # of layer3


def released(version, backbone="resnet18"):
    """What a version's checkpoint holds, numbers drawn at random."""
    torch.manual_seed(2)
    base = published(backbone)
    inputs = base["layer3.0.downsample.0.weight"].shape[0]
    model = {f"base.{key}": value for key, value in base.items()}
    model["neck_conv.weight"] = torch.randn(CHANNELS, inputs, 3, 3) / (9 * inputs) ** 0.5
    head = batch_norm("bn", 1) | batch_norm("logit_bn", 1) | {"fc.bias": torch.randn(1)}
    if version == "v2.1":
        model["neck_conv.bias"] = torch.randn(CHANNELS)
        head["fc.weight"] = torch.randn(1, LOCATIONS)
    else:
        model |= batch_norm("neck_bn", CHANNELS)
        head["fc.weight"] = torch.randn(1, 2 * LOCATIONS)
    memory = {"class_memory": torch.rand(5, CHANNELS, 4, 2)}
    inside = {f"matcher.{key}": value for key, value in head.items()}
    criterion = {
        "v1.0": memory | head,
        "v1.1": memory | {"valid_class": torch.ones(5)} | head,
        "v2.0": inside,
        "v2.1": inside,
    }[version]
    content = {"model": model, "criterion": criterion, "optim": {"state": {}}, "epoch": 60}
    if version == "v2.1":
        content |= {"final_epochs": 15, "base_loss": 12.5, "lr_stepped": True}
    return content


def scores_as_released(content, queries, gallery):
    """The released forward pass by functions alone: sigmoid of a tenth of the logit, (q, g)."""
    model, criterion = content["model"], content["criterion"]
    base = {k.removeprefix("base."): v for k, v in model.items() if k.startswith("base.")}
    head = {k.removeprefix("matcher."): v for k, v in criterion.items()}

    def norm(x, weights, at):
        parts = [weights[f"{at}.{part}"] for part in ("running_mean", "running_var")]
        return F.batch_norm(x, *parts, weights[f"{at}.weight"], weights[f"{at}.bias"])

    def maps(images):
        x = run_published(base, images, 3)
        x = F.conv2d(x, model["neck_conv.weight"], model.get("neck_conv.bias"), padding=1)
        if "neck_bn.weight" in model:
            x = norm(x, model, "neck_bn")
        return (x / x.norm(dim=1, keepdim=True)).flatten(2)  # (n, d, hw)

    found = []
    for query in maps(queries):
        for image in maps(gallery):
            cosines = query.T @ image  # (query hw, gallery hw)
            halves = [cosines.amax(dim=0), cosines.amax(dim=1)]
            if head["fc.weight"].shape[1] == LOCATIONS:  # v2.1: one layer for either half
                logit = sum(
                    head["fc.weight"] @ norm(half.view(-1, 1), head, "bn") + head["fc.bias"]
                    for half in halves
                )
            else:
                matches = norm(torch.cat(halves).view(-1, 1), head, "bn")
                logit = head["fc.weight"] @ matches + head["fc.bias"]
            found.append(norm(logit.view(1, 1), head, "logit_bn").item())
    return torch.sigmoid(torch.tensor(found) / 10).view(len(queries), len(gallery))


@pytest.mark.parametrize(
    "version, backbone, tied",
    [
        ("v1.0", "resnet18", False),
        ("v1.1", "resnet18_ibn_b", False),
        ("v2.0", "resnet18_ibn_a", False),
        ("v2.1", "resnet50_ibn_b", True),
    ],
)
def test_a_released_checkpoint_gives_the_released_scores(tmp_path, version, backbone, tied):
    content = released(version, backbone)
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    model = load_released(tmp_path / "checkpoint.pth.tar", **SIZE)
    config = model.config
    assert (config.backbone, config.final_layer, config.tied) == (backbone, "layer3", tied)
    assert (config.neck_channels, config.neck_size, config.pixels) == (CHANNELS, 3, "none")
    assert config.neck_norm is (version != "v2.1") and not model.training
    rows, columns = torch.arange(HEIGHT)[:, None] / 8, torch.arange(WIDTH) / 8
    textures = [torch.rand(HEIGHT, WIDTH), rows.sin(), columns.sin(), rows - columns, rows % 2]
    images = torch.stack([texture.expand(3, HEIGHT, WIDTH) for texture in textures])
    with torch.no_grad():
        maps = model.backbone(images)
        expected = scores_as_released(content, images[:2], images[2:])
    found = torch.sigmoid(model.similarity(maps[:2], maps[2:]) / 10)
    assert (found - expected).abs().max() < 0.01 * expected.std()
    # Once loaded it is a model like any other.
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors")
    torch.testing.assert_close(again.backbone(images), maps, rtol=0.02, atol=0.02)


def test_names_of_data_parallel(tmp_path):
    content = released("v1.0")
    content = {key: content[key] for key in ("model", "criterion")}
    wrapped = {k: {f"module.{key}": v for key, v in part.items()} for k, part in content.items()}
    torch.save(wrapped, tmp_path / "c.pth")
    state = load_released(tmp_path / "c.pth", **SIZE).state_dict()
    kernel = content["model"]["base.layer3.1.conv2.weight"]
    assert torch.equal(state["backbone.trunk.layer3.1.conv2.weight"], kernel)
    assert torch.equal(state["criterion.matcher.fc.weight"], content["criterion"]["fc.weight"])


def test_without_a_neck_and_at_another_layer(tmp_path):
    content = released("v1.0")
    for key in [key for key in content["model"] if key.startswith("neck")]:
        del content["model"][key]
    torch.save(content, tmp_path / "c.pth")
    assert load_released(tmp_path / "c.pth", **SIZE).backbone.channels == 256
    deeper = load_released(tmp_path / "c.pth", height=128, width=64, final_layer="layer4")
    assert deeper.backbone.channels == 512
    with pytest.raises(ValueError, match="final_layer must be one of layer2.*'layer9'"):
        load_released(tmp_path / "c.pth", final_layer="layer9")


def without(entry, key):
    return lambda content: content[entry].pop(key)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("criterion"), "checkpoint of the released QAConv.*has epoch, model"),
        (lambda c: c.update(model=3), "entry model,.*state dict, got a int"),
        (without("criterion", "fc.weight"), "is not a QAConv: its criterion lacks fc.weight"),
        (without("model", "base.conv1.weight"), "missing: backbone.trunk.conv1.weight"),
        (lambda c: c["model"].update(x=torch.ones(1)), "left over: backbone.trunk.x"),
        (
            lambda c: c["model"].update({"neck_conv.weight": torch.ones(16, 99, 3, 3)}),
            "misshapen: backbone.neck.0.weight",
        ),
    ],
)
def test_files_of_something_else(tmp_path, change, message):
    content = released("v1.0")
    change(content)
    content.pop("optim")
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=rf"c\.pth.*{message}"):
        load_released(tmp_path / "c.pth", **SIZE)


def test_images_of_another_size(tmp_path):
    torch.save(released("v1.0"), tmp_path / "c.pth")
    message = "head of 16 weights; images of 384 x 128 need 192 or 384.*height and width"
    with pytest.raises(ValueError, match=message):
        load_released(tmp_path / "c.pth")
