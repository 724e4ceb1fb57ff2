"""The feature extractor as an ONNX file, for programs that do without PyTorch."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._files import make_folder, write_whole
from qaconv_lib.losses import PooledLoss
from qaconv_lib.models import ReidModel

_TOLERANCE = 1e-3  # of the largest value; both sides compute in single precision


def export_onnx(model: ReidModel, path: str | Path) -> float:
    """Write the feature extractor of a model as one ONNX file, whole or not at all.

    The graph takes any number of "images" (b, 3, height, width), float32, RGB in [0, 1], of the
    size the model was trained with. It gives "maps" (b, d, h, w), as `match_gallery` takes them, or
    for a pooled model "vectors" (b, d) of unit length, whose products are the model's cosines.

    Before it is written, the graph is run with two images in onnxruntime. Returns the largest
    difference from PyTorch, as a share of the largest value.
    """
    names = ("onnx", "onnxscript", "onnxruntime")  # torch.onnx needs the second
    try:
        onnx, _, onnxruntime = map(importlib.import_module, names)
    except ImportError as error:
        raise ImportError(
            f"an export needs three packages: pip install {' '.join(names)}"
        ) from error
    features, config = _Features(model), model.config
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
    assert program is not None  # for the type checker
    graph = program.model_proto
    for node in graph.graph.node:
        node.ClearField("metadata_props")  # paths of source files on this machine
        node.ClearField("doc_string")
    size = f"RGB, values from 0 to 1, {config.height} x {config.width} pixels"
    about = {"backbone": config.backbone, "loss": config.loss, "input": size}
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
