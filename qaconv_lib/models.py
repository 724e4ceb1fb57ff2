"""A model and its settings, and the file that holds both (chapter 7)."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from qaconv_lib._checks import naming_shortage
from qaconv_lib._files import read_checkpoint, write_checkpoint
from qaconv_lib.backbones import Backbone, check_fit, extension, fold_norms, make_backbone
from qaconv_lib.config import TrainingConfig
from qaconv_lib.losses import MatchingLoss, PooledLoss, compares_maps, loss_class
from qaconv_lib.transforms import ReidImages

_BACKBONE_SETTINGS = (
    *("pretrained", "weights", "final_layer", "neck_channels", "neck_size", "neck_norm"),
    *("pixels", "frozen_stages", "frozen_norm"),
)


class ReidModel(nn.Module):
    """A backbone and the training loss that holds its matcher, as `config` says.

    `num_classes` counts the training identities; `criterion` replaces the loss `config.loss`.
    """

    def __init__(
        self,
        config: TrainingConfig,
        num_classes: int,
        criterion: MatchingLoss | PooledLoss | None = None,
    ):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.backbone = make_backbone(
            config.backbone,
            unit_channels=compares_maps(config.loss),
            **{name: getattr(config, name) for name in _BACKBONE_SETTINGS},
        ).to(memory_format=torch.channels_last)  # faster on a CPU (appendix A)
        self.criterion = criterion or make_criterion(config, num_classes, self.backbone)
        if config.weights is not None:
            extension("weights").take_over(self, config.weights)

    @torch.no_grad()
    @naming_shortage(
        "extracting features",
        "lower batch_size of `extract`, height or width, or extract fewer images at once",
    )
    def extract(
        self, table: pd.DataFrame, *, batch_size: int = 64, progress: bool = False
    ) -> Tensor:
        """Feature maps of the images of a table, in its order: shape (n, d, h, w), on the CPU."""
        if not len(table):
            raise ValueError("the table has no images to extract features from")
        images = ReidImages(table, self.config.height, self.config.width, keep_in_memory=False)
        loader = DataLoader(images, batch_size, num_workers=self.config.workers)
        device = next(self.parameters()).device
        backbone = fold_norms(self.backbone)
        maps = [
            backbone(batch.to(device)).cpu()
            for batch, _ in tqdm(loader, desc="features", unit="batch", disable=not progress)
        ]
        return torch.cat(maps).contiguous()

    def similarity(
        self, query_maps: Tensor, gallery_maps: Tensor, *, progress: bool = False
    ) -> Tensor:
        """Score every query against every gallery image: shape (q, g), float32.

        Models that compare maps give logits, whose sigmoid is a probability; pooled models give
        (1 + cosine) / 2, which is not one.
        """
        return self.criterion.similarity(query_maps, gallery_maps, progress=progress)


def make_criterion(
    config: TrainingConfig, num_classes: int, backbone: Backbone
) -> MatchingLoss | PooledLoss:
    """The training loss of a configuration, for a backbone's maps and a number of identities."""
    sizes = [num_classes, backbone.channels, *backbone.map_size(config.height, config.width)]
    head = {"kernel_size": config.kernel_size, "tied": config.tied}
    memory = {"gamma": config.gamma, "update": config.memory_update}
    arguments: dict[str, tuple[list[int], dict[str, Any]]] = {
        "qaconv": (sizes, head | memory),
        "softmax": (sizes[:2], {}),
        "arc": (sizes[:2], {"margin": config.margin, "scale": config.scale}),
        "center": (sizes[:2], {"weight": config.center_weight}),
        "class-memory": (sizes[:2], memory),
        "pairwise": (sizes[2:], head),
    }
    positional, named = arguments[config.loss]
    return loss_class(config.loss)(*positional, **named)


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_device(name: str | torch.device | None) -> torch.device:
    """A device by name, or the default one; ValueError if this machine does not have it."""
    with suppress(RuntimeError, AssertionError, TypeError):
        device = default_device() if name is None else torch.device(name)
        torch.empty(0, device=device)
        if device.type in ("cpu", "cuda"):
            return device
    raise ValueError(f"device must be cpu, or cuda on a machine with a GPU, got {name!r}")


def save_model(path: str | Path, model: ReidModel, **details: Any) -> None:
    """Write what evaluation needs, floats rounded to half precision, as one safetensors file.

    Class memory, classifier and centres serve training only and are left out. `details` are kept
    beside the configuration. The file is replaced whole or not at all.
    """
    tensors = {k: _rounded(v) for k, v in model.state_dict().items() if not training_only(k)}
    about = {"config": dataclasses.asdict(model.config), "num_classes": model.num_classes}
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} cannot be saved: it is not finite")
    write_checkpoint(path, tensors, details | about)


def _rounded(tensor: Tensor) -> Tensor:
    """In half precision, if its range suffices."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.isfinite().all() else tensor


def load_model(path: str | Path, device: str | torch.device = "cpu") -> ReidModel:
    """Read a model that `save_model` wrote, ready for evaluation."""
    tensors, details = read_checkpoint(path)
    try:
        config = TrainingConfig.from_dict(details["config"])
        config = dataclasses.replace(config, pretrained=False, weights=None)
        model = ReidModel(config, details["num_classes"])
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{path} does not describe a model of this library: {error}") from error
    load_weights(model, tensors, str(path))
    return model.to(device).eval()


def load_weights(model: ReidModel, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a model; ValueError names missing, extra and misshapen ones."""
    wanted = model.state_dict()
    for key in filter(training_only, tensors):  # one row for every training identity
        if key in wanted and len(tensors[key]) != len(wanted[key]):
            people = f"{len(tensors[key])} training identities, the model has {len(wanted[key])}"
            raise ValueError(f"{source} holds {key} for {people}")
    name = f"a model with {model.config.backbone} and {model.config.loss}"
    check_fit(tensors, wanted, source, name, may_lack=set(filter(training_only, wanted)))
    model.load_state_dict(tensors, strict=False)


def training_only(key: str) -> bool:
    """Whether an entry of the state dict serves only training."""
    return key.startswith(("criterion.memory.", "criterion.classifier.", "criterion.centers"))
