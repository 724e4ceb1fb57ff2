"""The feature extractor in onnxruntime, held against PyTorch."""

import json
import sys
import types
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from qaconv_lib.beyond.export import export_onnx
from qaconv_lib.cli import main
from qaconv_lib.config import TrainingConfig
from qaconv_lib.models import ReidModel, load_model, save_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TINY = TrainingConfig(
    backbone="resnet18_ibn_a", pretrained=False, final_layer="layer2", neck_channels=8,
    height=32, width=16, frozen_stages=1,
)  # fmt: skip


def make_model(**settings):
    """A model whose BN statistics are not those of the start."""
    torch.manual_seed(0)
    model = ReidModel(TrainingConfig(**(vars(TINY) | settings)), num_classes=3).train()
    for _ in range(3):
        model.backbone(torch.rand(4, 3, 32, 16))
    return model


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "m.safetensors"
    save_model(path, make_model())
    return path


@pytest.fixture(scope="module")
def exported(saved):
    """What the command writes, in a folder that was not there."""
    assert main(["export", str(saved), str(saved.parent / "new" / "m.onnx")]) == 0
    return saved.parent / "new" / "m.onnx"


@pytest.mark.parametrize("count", [1, 5])
def test_maps_are_those_of_the_model_for_any_number_of_images(exported, saved, count):
    images = torch.rand(count, 3, 32, 16)
    with torch.no_grad():
        expected = load_model(saved).backbone(images).numpy()
    found = run(exported, images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert np.ptp(expected, axis=(2, 3)).max() > 0.1  # the maps are not all alike


def test_the_file_says_what_it_takes_and_not_where_it_was_made(exported):
    graph = onnx.load(exported)
    about = json.loads({p.key: p.value for p in graph.metadata_props}["qaconv_lib"])
    assert about["backbone"] == "resnet18_ibn_a" and "32 x 16" in about["input"]
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, 32, 16]
    assert [output.name for output in graph.graph.output] == ["maps"]
    assert b".py" not in exported.read_bytes()
    assert [path.name for path in exported.parent.iterdir()] == ["m.onnx"]


def test_a_pooled_model_gives_vectors_whose_products_are_its_cosines(tmp_path):
    model = make_model(loss="softmax", neck_channels=None, backbone="resnet18")
    images = torch.rand(3, 3, 32, 16)
    for _ in range(2):
        model.criterion.train()(model.backbone(images), torch.tensor([0, 1, 2]))
    assert export_onnx(model, tmp_path / "m.onnx") < 1e-4
    assert model.training  # left as it was
    with torch.no_grad():
        maps = model.eval().backbone(images)
    vectors = run(tmp_path / "m.onnx", images)
    similarity = (1 + vectors @ vectors.T) / 2
    np.testing.assert_allclose(similarity, model.similarity(maps, maps), atol=1e-4)


class TestNothingIsWritten:
    @pytest.fixture(autouse=True)
    def traced(self, monkeypatch, exported):
        """Tracing takes seconds: take the graph that is there."""
        program = types.SimpleNamespace(model_proto=onnx.load(exported))
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)

    def test_where_the_runtime_differs(self, tmp_path):
        other = make_model()
        with torch.no_grad():
            other.backbone.neck[0].weight.neg_()
        with pytest.raises(ArithmeticError, match=r"m\.onnx was not written"):
            export_onnx(other, tmp_path / "m.onnx")
        assert not list(tmp_path.iterdir())

    def test_half(self, tmp_path, saved, monkeypatch):
        (tmp_path / "m.onnx").write_bytes(b"old")
        monkeypatch.setattr("os.fsync", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_onnx(load_model(saved), tmp_path / "m.onnx")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]

    def test_without_the_packages(self, tmp_path, saved, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert main(["export", str(saved), str(tmp_path / "m.onnx")]) == 2
        assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
