"""Pictures of one's own: the model, what is known of it, how two pictures match (chapter 14).

A picture here is a crop of one person. `crops` makes crops from whole frames, `own_gallery`
searches a folder of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from qaconv_lib.datasets import load_image
from qaconv_lib.experiments.calibration_records import find_calibrations
from qaconv_lib.experiments.runs import checkpoint_path
from qaconv_lib.losses import compares_maps
from qaconv_lib.models import ReidModel, default_device, load_model
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.files import check_photographs, photograph_table
from qaconv_lib.visualize import show_correspondences

#: Loss and source of the model that is used where none is named: of the two QAConv models of the
#: book the one that tells people of the other miniatures apart better (`results/calibration`).
DEFAULT_MODEL = ("qaconv", "mini-duke")
#: The domain whose calibration is used where none is named: the most diverse of the miniatures.
DEFAULT_DOMAIN = "mini-msmt17"
DRAWN_WARNING = (
    "This model was trained on drawn people. It is not fit for photographs of real people: its "
    "similarities and probabilities say nothing reliable about them. Train a model of your own on "
    "photographs that you may use, calibrate it, and name it."
)
UNKNOWN_WARNING = (
    "What this model was trained on is not on record. Its numbers say something about pictures "
    "like those that it was trained and calibrated on, and about no others."
)


class Knowledge(NamedTuple):
    """What is on record about a model.

    Attributes:
        source: the dataset it was trained on, or "unknown".
        domain: the dataset its calibration was fitted on, or None.
        calibration: turns its scores into probabilities, or None.
        thresholds: scores that keep the false positive rate at the keys, fitted likewise.
    """

    source: str
    domain: str | None
    calibration: Calibration | None
    thresholds: dict[float, float]

    @property
    def warning(self) -> str:
        """What its user must be told."""
        if self.source.startswith("mini-"):
            return DRAWN_WARNING
        return UNKNOWN_WARNING if self.source == "unknown" else ""


def open_model(path: str | os.PathLike[str] | None = None, device: str | None = None) -> ReidModel:
    """Load a model for photographs.

    Args:
        path: a file that `save_model` wrote; None means the model of `DEFAULT_MODEL`, which comes
            with the book and was trained on drawn people.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.

    Raises:
        FileNotFoundError, ValueError: as `load_model`.
    """
    path = checkpoint_path(*DEFAULT_MODEL) if path is None else path
    return load_model(Path(path), device or default_device())


def known_about(model: ReidModel, domain: str | None = None) -> Knowledge:
    """Look a model up in the records of `calibration_record`.

    Args:
        model: a model.
        domain: take the calibration that was fitted on this dataset. None takes `DEFAULT_DOMAIN`,
            or where there is none of it the first on record.

    Raises:
        ValueError: there is no calibration on the domain named.
    """
    record = find_calibrations(model)
    if record is None:
        if domain is not None:
            raise ValueError(
                f"there is no calibration of this model on {domain}; make it with "
                f"`python -m qaconv_lib calibrate MODEL {domain}`"
            )
        return Knowledge("unknown", None, None, {})
    fitted = record["fitted"]
    if domain is not None and domain not in fitted:
        raise ValueError(f"domain must be one of {', '.join(fitted)}, got {domain!r}")
    domain = domain or (DEFAULT_DOMAIN if DEFAULT_DOMAIN in fitted else next(iter(fitted)))
    fit = fitted[domain]
    thresholds = {point["wanted"]: point["threshold"] for point in fit["thresholds"]}
    return Knowledge(record["source"], domain, Calibration(**fit["calibration"]), thresholds)


class PhotographMatch(NamedTuple):
    """Two pictures and how they match; from `match_photographs`.

    Attributes:
        images: query and gallery image, as they were read.
        maps: their feature maps, unit channels, each (d, h, w).
        score: see `ReidModel.scores`.
        similarity: from 0 to 1. Of QAConv the sigmoid of the score, as in every chapter; it is no
            calibrated probability.
        kernel_size: of the model's kernels.
    """

    images: tuple[Image.Image, Image.Image]
    maps: tuple[Tensor, Tensor]
    score: float
    similarity: float
    kernel_size: int

    def show(
        self,
        *,
        threshold: float = 0.6,
        side: str = "query",
        mutual: bool = True,
        title: str | None = None,
    ) -> Figure:
        """A picture of the correspondences; see `show_correspondences`.

        Raises:
            ValueError: a threshold at or above the largest similarity there can be.
        """
        if not -1 <= threshold < 1:
            raise ValueError(f"threshold must lie in [-1, 1), got {threshold}")
        return show_correspondences(
            *self.images,
            *self.maps,
            threshold=threshold * self.kernel_size**2,
            side=side,
            mutual=mutual,
            kernel_size=self.kernel_size,
            title=title,
            alt=f"Two pictures side by side, similarity {self.similarity:.2f}, and lines between "
            f"locations that match with a cosine above {threshold:g}.",
        )


def match_photographs(
    model: ReidModel, query: str | os.PathLike[str], gallery: str | os.PathLike[str]
) -> PhotographMatch:
    """Compare two pictures.

    With QAConv's untied head the order matters a little: the first is the query.

    Args:
        model: from `open_model`.
        query: image file.
        gallery: image file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is no image, or too small or too large; or scores that are not
            finite.
    """
    table = photograph_table([query, gallery])
    check_photographs(table["path"])
    maps = model.extract(table)
    score = check_scores(model.similarity(maps[:1], maps[1:]))
    similarity = torch.sigmoid(score) if compares_maps(model.config.loss) else score
    return PhotographMatch(
        (load_image(query), load_image(gallery)),
        tuple(F.normalize(maps, dim=1)),
        float(score),
        float(similarity),
        model.config.kernel_size,
    )


def check_scores(scores: Tensor) -> Tensor:
    """Give scores back; ValueError if they are not finite."""
    if not scores.isfinite().all():
        raise ValueError("the model gives scores that are not finite: its file is damaged")
    return scores
