"""The feature extractor as an ONNX file, for programs that do without PyTorch."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._files import make_folder, write_whole
from qaconv_lib.losses import PooledLoss
from qaconv_lib.models import ReidModel

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-3  # of the largest value; both sides compute in single precision


def export_onnx(model: ReidModel, path: str | Path) -> float:
    """Write the feature extractor of a model as one ONNX file, whole or not at all.

    The graph takes "images", float32 of shape (b, 3, height, width), RGB in [0, 1], of the size the
    model was trained with; any number of images at once. Everything after that is in the graph: the
    statistics of the pixels, the neck, and the unit channels of QAConv. It gives "maps" of shape
    (b, d, h, w), as `match_gallery` takes them. Of a pooled model it gives "vectors" of unit
    length, shape (b, d), whose products are the cosines that the model compares by.

    Before it is written, the graph is run with two images in onnxruntime and held against PyTorch.

    Args:
        model: the model, on any device; it is left as it is.
        path: the file; its folder is made if need be.

    Returns:
        The largest difference found, as a share of the largest value.
    """
    onnx, _, onnxruntime = _packages()
    features = _Features(model)
    config = model.config
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, config.height, config.width, generator=generator)
    with torch.no_grad():
        program = torch.onnx.export(
            features,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
            opset_version=18,
            input_names=["images"],
            output_names=["maps" if features.bn is None else "vectors"],
        )
        expected = features(images).numpy()
    assert program is not None  # as it was to write no file
    graph = program.model_proto
    for node in graph.graph.node:
        node.ClearField("metadata_props")  # where in which file on this machine it comes from
        node.ClearField("doc_string")
    about = {
        "backbone": config.backbone,
        "loss": config.loss,
        "input": f"RGB, values from 0 to 1, {config.height} x {config.width} pixels",
    }
    onnx.helper.set_model_props(graph, {"qaconv_lib": json.dumps(about)})
    onnx.checker.check_model(graph)
    content = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= _TOLERANCE:
        raise ArithmeticError(
            f"{path} was not written: onnxruntime differs from PyTorch by {difference:.2g} of the "
            "largest value"
        )
    make_folder(Path(path).parent)
    write_whole(path, content)
    return difference


class _Features(nn.Module):
    """A copy of what turns images into maps or vectors, on the CPU, ready for evaluation."""

    def __init__(self, model: ReidModel):
        super().__init__()
        backbone = copy.deepcopy(model.backbone)
        self.backbone = backbone.to("cpu").to(memory_format=torch.contiguous_format)
        loss = model.criterion
        self.bn = copy.deepcopy(loss.bn).cpu() if isinstance(loss, PooledLoss) else None
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        if self.bn is None:
            return maps
        return F.normalize(self.bn(maps.mean(dim=(2, 3))), dim=1)


def _packages() -> list[ModuleType]:
    try:
        return [importlib.import_module(name) for name in _PACKAGES]
    except ImportError as error:
        raise ImportError(
            f"an export needs {', '.join(_PACKAGES)}: pip install {' '.join(_PACKAGES)}"
        ) from error
