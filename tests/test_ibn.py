"""IBN-Net, held against networks of functions and against the names of its release.

`published` and `run_published` are used by `test_released` too.
"""

import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.backbones import make_backbone
from qaconv_lib.beyond.ibn import IBN_WEIGHTS


def batch_norm(name, channels):
    values = {part: torch.rand(channels) for part in ("weight", "bias", "running_mean")}
    values |= {"running_var": torch.rand(channels) + 0.5}
    values |= {"num_batches_tracked": torch.tensor(7)}
    return {f"{name}.{part}": value for part, value in values.items()}


def instance_norm(name, channels):
    return {f"{name}.{part}": torch.rand(channels) for part in ("weight", "bias")}


def published(name):
    """A state dict with the names and shapes that are published, and random numbers.

    Written down from IBN-Net's paper and release and from torchvision, apart from the library.
    """
    plain, _, variant = name.partition("_ibn_")
    depths = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
    depth, deep = depths.get(plain, (3, 4, 23, 3)), plain in ("resnet50", "resnet101")
    found = {"conv1.weight": torch.randn(64, 3, 7, 7) / 12}
    found |= instance_norm("bn1", 64) if variant == "b" else batch_norm("bn1", 64)
    before = 64
    for layer, blocks in enumerate(depth, start=1):
        width = 32 << layer
        after = width * (4 if deep else 1)
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            kernels = [(before, 1), (width, 3), (width, 1)] if deep else [(before, 3), (width, 3)]
            for number, (inputs, size) in enumerate(kernels, start=1):
                outputs = after if number == len(kernels) else width
                scale = (inputs * size * size) ** -0.5
                kernel = torch.randn(outputs, inputs, size, size) * scale
                found[f"{at}.conv{number}.weight"] = kernel
                if number == 1 and variant == "a" and layer < 4:
                    found |= instance_norm(f"{at}.bn1.IN", width // 2)
                    found |= batch_norm(f"{at}.bn1.BN", width // 2)
                else:
                    found |= batch_norm(f"{at}.bn{number}", outputs)
            if block == 0 and (deep or layer > 1):
                kernel = torch.randn(after, before, 1, 1) * before**-0.5
                found[f"{at}.downsample.0.weight"] = kernel
                found |= batch_norm(f"{at}.downsample.1", after)
            if variant == "b" and layer < 3 and block == blocks - 1:
                found |= instance_norm(f"{at}.IN", after)
            before = after
    return found | {"fc.weight": torch.rand(1000, before), "fc.bias": torch.rand(1000)}


def run_published(weights, images, last_layer):
    """The network of a state dict, by functions alone: what `make_backbone` is held against."""

    def norm(x, at):
        if f"{at}.BN.weight" in weights:
            half = x.shape[1] // 2
            return torch.cat([norm(x[:, :half], f"{at}.IN"), norm(x[:, half:], f"{at}.BN")], 1)
        affine = weights[f"{at}.weight"], weights[f"{at}.bias"]
        if f"{at}.running_mean" in weights:
            mean, var = weights[f"{at}.running_mean"], weights[f"{at}.running_var"]
            return F.batch_norm(x, mean, var, *affine)
        var, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        scale, shift = (value.view(1, -1, 1, 1) for value in affine)
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(x, at, stride=1):
        kernel = weights[f"{at}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = norm(conv(images, "conv1", 2), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for layer in range(1, last_layer + 1):
        blocks = {int(k.split(".")[1]) for k in weights if k.startswith(f"layer{layer}.")}
        for block in sorted(blocks):
            at = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            count = 3 if f"{at}.conv3.weight" in weights else 2
            y = x
            for number in range(1, count + 1):
                # The stride is where torchvision and IBN-Net have it: at the 3x3 kernel.
                steps = stride if number == count - 1 else 1
                y = norm(conv(y, f"{at}.conv{number}", steps), f"{at}.bn{number}")
                y = y.relu() if number < count else y
            if f"{at}.downsample.0.weight" in weights:
                x = norm(conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1")
            x = x + y
            x = (norm(x, f"{at}.IN") if f"{at}.IN.weight" in weights else x).relu()
    return x


@pytest.mark.parametrize("name", IBN_WEIGHTS)
def test_names_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):  # no numbers
        trunk = make_backbone(name, final_layer="layer4", neck_channels=None).trunk
        expected = {k: v.shape for k, v in published(name).items() if not k.startswith("fc.")}
    assert {key: value.shape for key, value in trunk.state_dict().items()} == expected


@pytest.mark.parametrize(
    "name, layer", [("resnet18_ibn_a", 4), ("resnet18_ibn_b", 2), ("resnet50_ibn_b", 3)]
)
def test_a_published_state_dict_gives_the_published_network(tmp_path, name, layer):
    torch.manual_seed(1)
    weights = published(name)
    torch.save(weights, tmp_path / "w.pth")
    options = dict(neck_channels=None, unit_channels=False, pixels="none")
    options |= dict(weights=tmp_path / "w.pth", final_layer=f"layer{layer}")
    backbone = make_backbone(name, **options).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = run_published(weights, images, layer)
        torch.testing.assert_close(backbone(images), expected, rtol=1e-3, atol=1e-3)
