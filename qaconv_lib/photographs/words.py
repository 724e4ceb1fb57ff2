"""What the commands and the demo say about a match or a search (chapter 14)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

from qaconv_lib.photographs.files import wide_photographs
from qaconv_lib.photographs.matching import DRAWN_WARNING, Knowledge, PhotographMatch

NO_CALIBRATION = (
    "there is no calibration of this model, so no probability; make one with "
    "`python -m qaconv_lib calibrate MODEL DATASET`."
)


def describe_match(
    found: PhotographMatch, known: Knowledge, prior: float = 0.5
) -> list[tuple[str, str]]:
    """What is said about a match: lines of a name and a text.

    Args:
        found: from `match_photographs`.
        known: from `known_about`; without a calibration nothing is said of probabilities.
        prior: how probable "one person" was before the pictures were compared.

    Raises:
        ValueError: a prior outside (0, 1).
    """
    lines = [("similarity", f"{found.similarity:.2f}")]
    if known.calibration is not None:
        probability = float(known.calibration.probability(found.score, prior))
        text = (
            f"{percent(probability)} that both show one person, if it was {percent(prior)} before; "
            f"calibrated on {known.domain}"
        )
        lines.append(("probability", text))
    for rate, threshold in sorted(known.thresholds.items(), reverse=True):
        verdict = "above" if found.score >= threshold else "below"
        text = (
            f"{verdict} the threshold that {percent(rate)} of the pairs of different people reach "
            f"on {known.domain}"
        )
        lines.append(("decision", text))
    return lines


def describe_prior(known: Knowledge, prior: float) -> str:
    """What the probabilities of a search start from."""
    return (
        f"probabilities are calibrated on {known.domain}, for images each of which had a "
        f"probability of {percent(prior)} to show the person before they were compared."
    )


def remarks(
    known: Knowledge, pictures: Iterable[str | os.PathLike[str]], *, shipped: bool
) -> list[str]:
    """What the reader of the numbers must know, in sentences; the first letter may be small.

    Args:
        known: from `known_about`.
        pictures: image files; those that look like whole frames are remarked upon.
        shipped: the model is the one that comes with the book.
    """
    found = [] if known.calibration is not None else [NO_CALIBRATION]
    if wide := wide_photographs(pictures):
        more = f" and {len(wide) - 1:,} more" if len(wide) > 1 else ""
        found.append(
            f"wider than high are {wide[0]}{more}. A crop of one person is expected; `crop` cuts "
            "people out of whole frames."
        )
    warning = DRAWN_WARNING if shipped else known.warning
    return [*found, warning] if warning else found


def percent(share: float) -> str:
    """A percentage with the digits that matter: 0.012 %, 57 %, 99.98 %."""
    if not 1e-6 <= share <= 1 - 1e-6:
        return "under 0.0001 %" if share < 0.5 else "over 99.9999 %"
    if share < 0.99:
        return f"{100 * share:.2g} %"
    digits = -math.floor(math.log10(100 * (1 - share)))
    return f"{100 * share:.{digits}f} %"
