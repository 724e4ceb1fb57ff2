"""Open a model, compare two photographs, say what the numbers mean (appendix B)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import Image
from scipy.special import expit
from torch import Tensor

from qaconv_lib._files import data_folders
from qaconv_lib.datasets import image_size, load_image
from qaconv_lib.losses import compares_maps
from qaconv_lib.models import ReidModel, default_device, load_model
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.files import check_photographs, photograph_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The model used unless you name one: trained on the most varied drawings (see the model card).
DEFAULT_MODEL = "general.safetensors"
#: The domain whose calibration is used unless you name one: that of the most diverse miniature is
#: the least wrong on the others (`results/calibration`).
DEFAULT_DOMAIN = "mini-msmt17"
DRAWN_WARNING = (
    "This model was trained on drawn people. It is not fit for photographs of real people: its "
    "similarities and probabilities say nothing reliable about them. Train a model of your own on "
    "photographs that you may use, calibrate it, and name it."
)
UNKNOWN_WARNING = (
    "There is no record of what this model was trained on. Its numbers hold for images like those "
    "it was trained and calibrated on, and for no others."
)


class Knowledge(NamedTuple):
    """What is on record about a model."""

    source: str  # the dataset it was trained on, or "unknown"
    domain: str | None  # the dataset its calibration was fitted on
    calibration: Calibration | None  # turns its scores into probabilities
    thresholds: dict[float, float]  # scores that keep the false positive rate at the keys

    @property
    def warning(self) -> str:
        """What the user of the model must be told."""
        if self.source.startswith("mini-"):
            return DRAWN_WARNING
        return UNKNOWN_WARNING if self.source == "unknown" else ""


def open_model(path: str | os.PathLike[str] | None = None, device: str | None = None) -> ReidModel:
    """Load a model from a file of `save_model`; None means the one that comes with the book."""
    if path is None:
        places = [folder / "checkpoints" / DEFAULT_MODEL for folder in data_folders()]
        if not places:
            raise FileNotFoundError("no data folder found; set QACONV_DATA to the book's data")
        path = next((place for place in places if place.is_file()), places[0])
    return load_model(Path(path), device or default_device())


def known_about(record: dict | None, domain: str | None = None) -> Knowledge:
    """What a model's record from `find_calibrations` says, calibrated on `domain`.

    None means `DEFAULT_DOMAIN` or, where it is not on record, the first one that is.
    """
    if record is None:
        if domain is not None:
            hint = f"make it with `python -m qaconv_lib calibrate MODEL {domain}`"
            raise ValueError(f"there is no calibration of this model on {domain}; {hint}")
        return Knowledge("unknown", None, None, {})
    fitted = record["fitted"]
    if domain is not None and domain not in fitted:
        raise ValueError(f"domain must be one of {', '.join(fitted)}, got {domain!r}")
    domain = domain or (DEFAULT_DOMAIN if DEFAULT_DOMAIN in fitted else next(iter(fitted)))
    fit = fitted[domain]
    thresholds = {point["wanted"]: point["threshold"] for point in fit["thresholds"]}
    return Knowledge(record["source"], domain, Calibration(**fit["calibration"]), thresholds)


def score_maps(model: ReidModel, query_maps: Tensor, gallery_maps: Tensor) -> np.ndarray:
    """What thresholds and calibrations take, (q, g): logits or, of pooled models, similarities."""
    return check_scores(model.similarity(query_maps, gallery_maps))


def check_scores(scores: Tensor) -> np.ndarray:
    """Scores as float64; ValueError if they are not finite."""
    if not scores.isfinite().all():
        raise ValueError("the model gives scores that are not finite: its file is damaged")
    return scores.double().numpy(force=True)


def to_similarity(model: ReidModel, scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Similarities in [0, 1]: the sigmoid of logits divided by `temperature`."""
    return expit(scores / temperature) if compares_maps(model.config.loss) else scores


class PhotographMatch(NamedTuple):
    """Query and gallery image and how they match; from `match_photographs`."""

    images: tuple[Image.Image, Image.Image]
    maps: tuple[Tensor, Tensor]  # unit channels, each (d, h, w)
    score: float  # see `score_maps`
    similarity: float  # see `to_similarity`; it is not a calibrated probability
    kernel_size: int

    def show(
        self, *, threshold: float = 0.6, side: str = "query", mutual: bool = True,
        title: str | None = None,
    ) -> Figure:  # fmt: skip
        """Lines between locations whose cosine is above `threshold`; see `show_correspondences`."""
        from qaconv_lib.visualize import show_correspondences

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
            alt=f"Two images side by side, similarity {self.similarity:.2f}, and lines between "
            f"locations that match with a cosine above {threshold:g}.",
        )


def match_photographs(
    model: ReidModel, query: str | os.PathLike[str], gallery: str | os.PathLike[str]
) -> PhotographMatch:
    """Compare two image files. With QAConv's untied head the order matters a little."""
    table = photograph_table([query, gallery])
    check_photographs(table["path"])
    maps = model.extract(table)
    score = score_maps(model, maps[:1], maps[1:])[0, 0]
    return PhotographMatch(
        (load_image(query), load_image(gallery)),
        tuple(F.normalize(maps, dim=1)),
        float(score),
        float(to_similarity(model, score)),
        model.config.kernel_size,
    )


def describe_match(
    found: PhotographMatch, known: Knowledge, prior: float = 0.5
) -> list[tuple[str, str]]:
    """What the numbers of a match mean: pairs of a name and a text."""
    lines = [("similarity", f"{found.similarity:.2f}")]
    if known.calibration is not None:
        probability = percent(float(known.calibration.probability(found.score, prior)))
        text = f"{probability} that both show one person, if it was {percent(prior)} before"
        lines.append(("probability", f"{text}; calibrated on {known.domain}"))
    for rate, threshold in sorted(known.thresholds.items(), reverse=True):
        verdict = "above" if found.score >= threshold else "below"
        text = f"the threshold that {percent(rate)} of the pairs of different people reach"
        lines.append(("decision", f"{verdict} {text} on {known.domain}"))
    return lines


def remarks(
    known: Knowledge, images: Iterable[str | os.PathLike[str]], prior: float | None = None
) -> list[str]:
    """Sentences that the reader of the numbers must know; of a search, also the prior."""
    found = []
    if prior is not None and known.calibration is not None:
        found.append(
            f"probabilities are calibrated on {known.domain}, for images each of which had a "
            f"probability of {percent(prior)} to show the person before they were compared."
        )
    if known.calibration is None:
        found.append(
            "there is no calibration of this model, so no probability; make one with "
            "`python -m qaconv_lib calibrate MODEL DATASET`."
        )
    sizes = {str(path): image_size(path) for path in images}
    if wide := [path for path, (width, height) in sizes.items() if width > height]:
        more = f" and {len(wide) - 1:,} more" if len(wide) > 1 else ""
        wanted = "An image should show one person, cut out of its frame."
        found.append(f"wider than high: {wide[0]}{more}. {wanted}")
    return [*found, known.warning] if known.warning else found


def percent(share: float) -> str:
    """A percentage with the digits that matter: 0.012 %, 57 %, 99.98 %."""
    if not 1e-6 <= share <= 1 - 1e-6:
        return "under 0.0001 %" if share < 0.5 else "over 99.9999 %"
    if share < 0.99:
        return f"{100 * share:.2g} %"
    digits = -math.floor(math.log10(100 * (1 - share)))
    return f"{100 * share:.{digits}f} %"
