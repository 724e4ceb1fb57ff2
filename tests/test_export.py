"""The feature extractor in onnxruntime, held against PyTorch."""

import json
import types

import numpy as np
import pytest
import torch

from qaconv_lib.beyond import export
from qaconv_lib.beyond.export import export_onnx
from qaconv_lib.cli import main
from qaconv_lib.config import TrainingConfig
from qaconv_lib.models import ReidModel, save_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TINY = TrainingConfig(
    backbone="resnet18_ibn_a",
    pretrained=False,
    final_layer="layer2",
    neck_channels=8,
    height=32,
    width=16,
    frozen_stages=1,
)


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
def model():
    return make_model()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model):
    """What the command writes for a saved model, in a folder that was not there."""
    folder = tmp_path_factory.mktemp("export")
    save_model(folder / "m.safetensors", model)
    assert main(["export", str(folder / "m.safetensors"), str(folder / "new" / "m.onnx")]) == 0
    return folder / "new" / "m.onnx"


@pytest.mark.parametrize("count", [1, 5])
def test_maps_are_those_of_the_model_for_any_number_of_images(exported, model, count):
    images = torch.rand(count, 3, 32, 16)
    with torch.no_grad():
        expected = model.eval().backbone(images).numpy()
    found = run(exported, images)
    np.testing.assert_allclose(found, expected, atol=0.01)  # stored in half precision
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
    def no_tracing(self, monkeypatch, exported):
        """Tracing takes seconds: take the graph that is there."""
        monkeypatch.setattr(export, "_trace", lambda *_: exported.read_bytes())

    def test_where_the_runtime_differs(self, tmp_path):
        other = make_model()
        with torch.no_grad():
            other.backbone.neck[0].weight.neg_()
        with pytest.raises(ArithmeticError, match=r"m\.onnx was not written: onnxruntime differs"):
            export_onnx(other, tmp_path / "m.onnx")
        assert not list(tmp_path.iterdir())

    def test_half(self, tmp_path, model, monkeypatch):
        (tmp_path / "m.onnx").write_bytes(b"old")

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("os.fsync", interrupt)
        monkeypatch.setattr(export, "_TOLERANCE", 1.0)  # half precision in the file, none here
        with pytest.raises(KeyboardInterrupt):
            export_onnx(model, tmp_path / "m.onnx")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]

    def test_without_the_packages(self, tmp_path, model, monkeypatch, capsys):
        def missing(name):
            raise ModuleNotFoundError(name)

        fake = types.SimpleNamespace(import_module=missing)
        monkeypatch.setattr(export, "importlib", fake)
        with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
            export_onnx(model, tmp_path / "m.onnx")
        save_model(tmp_path / "m.safetensors", model)
        assert main(["export", str(tmp_path / "m.safetensors"), str(tmp_path / "m.onnx")]) == 2
        assert "pip install onnx" in capsys.readouterr().err
        assert not (tmp_path / "m.onnx").exists()

    def test_of_no_model(self, tmp_path, capsys):
        assert main(["export", str(tmp_path / "none"), str(tmp_path / "m.onnx")]) == 2
        assert "no checkpoint at" in capsys.readouterr().err
