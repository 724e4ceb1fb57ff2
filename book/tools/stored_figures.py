"""How the figures of the notebooks are stored: twice as fine as they are shown, in few bytes.

Matplotlib's "retina" format draws two pixels for each one of the page, so that figures are sharp
on phones and laptops. Stored as they come, they would make the notebooks three times as large.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
from nbformat import NotebookNode, from_dict
from PIL import Image

# How the code of a figure begins, and the lines after that, which repeat its caption.
FIGURE, CAPTION = "# Figure ", "#   "
KERNEL_ARGUMENT = '--InlineBackend.figure_formats=["retina"]'
PNG, JPEG = "image/png", "image/jpeg"
COLOURS = 256
# Of 255: the largest change of a channel by the palette, in all but one pixel of a thousand.
LARGEST_CHANGE = 8
JPEG_QUALITY = 85


def store_compactly(output: NotebookNode) -> None:
    """Replace the image of an output, in place, by a smaller file that looks the same.

    Only the width stays in the metadata: the page sets the height.
    """
    if PNG not in output.get("data", {}):
        return
    about = output.metadata.pop(PNG, {})
    kind, content = compact(b64decode(output.data.pop(PNG)))
    output.data[kind] = b64encode(content).decode("ascii")
    if "width" in about:
        output.metadata[kind] = from_dict({"width": about["width"]})


def compact(png: bytes) -> tuple[str, bytes]:
    """Kind and bytes of the file: a palette for charts, else the smaller of PNG and JPEG."""
    image = Image.open(BytesIO(png)).convert("RGB")
    charted = image.quantize(COLOURS, dither=Image.Dither.NONE)
    change = np.abs(np.subtract(image, charted.convert("RGB"), dtype=np.int16)).max(axis=2)
    if np.quantile(change, 0.999) <= LARGEST_CHANGE:
        return PNG, _encoded(charted, PNG)
    return min(((kind, _encoded(image, kind)) for kind in (PNG, JPEG)), key=lambda it: len(it[1]))


def _encoded(image: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    settings = {"quality": JPEG_QUALITY} if kind == JPEG else {}
    image.save(file, kind.removeprefix("image/"), optimize=True, **settings)
    return file.getvalue()
