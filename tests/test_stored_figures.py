"""Figures are stored twice as fine as they are shown: `book/tools/stored_figures.py`."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from nbformat.v4 import new_output
from PIL import Image
from stored_figures import JPEG, LARGEST_CHANGE, PNG, compact, store_compactly

SIZE = 240


def encoded(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def photograph() -> np.ndarray:
    """Soft shades of every colour with a little noise: what a camera sees."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=float)
    return np.clip(soft + rng.normal(0, 3, soft.shape), 0, 255).astype(np.uint8)


def change(before: bytes, after: bytes) -> np.ndarray:
    both = (np.asarray(Image.open(BytesIO(file)).convert("RGB"), int) for file in (before, after))
    return np.abs(np.subtract(*both)).max(axis=2)


def test_a_chart_becomes_a_smaller_png_that_looks_the_same() -> None:
    figure, axis = plt.subplots()
    axis.plot([1, 3, 2])
    file = BytesIO()
    figure.savefig(file, format="png")
    kind, after = compact(file.getvalue())
    assert kind == PNG and len(after) < 0.75 * len(file.getvalue())
    assert np.quantile(change(file.getvalue(), after), 0.999) <= LARGEST_CHANGE


def test_a_photograph_becomes_a_jpeg_that_keeps_its_colours() -> None:
    before = encoded(photograph())
    kind, after = compact(before)
    assert kind == JPEG and len(after) < 0.5 * len(before)
    assert change(before, after).mean() < 6


def test_the_width_to_show_moves_to_the_new_kind() -> None:
    data = {PNG: b64encode(encoded(photograph())).decode(), "text/plain": "<Figure>"}
    output = new_output("display_data", data, metadata={PNG: {"width": 120, "height": 120}})
    store_compactly(output)
    assert set(output.data) == {JPEG, "text/plain"}
    assert output.metadata == {JPEG: {"width": 120}}


def test_other_outputs_stay() -> None:
    output = new_output("display_data", {"image/svg+xml": "<svg/>"})
    store_compactly(output)
    assert output.data == {"image/svg+xml": "<svg/>"}
