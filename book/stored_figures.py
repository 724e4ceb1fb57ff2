"""How the figures of the notebooks are stored: twice as fine as they are shown, in few bytes.

Matplotlib's "retina" format draws two pixels for every one of the page, so that figures are sharp
on the screens of phones and laptops, and notes the width at which to show them. As they come, such
files would make the notebooks three times as large.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
from nbformat import NotebookNode, from_dict
from PIL import Image

# How the code of a figure begins, and the lines after that which repeat its caption.
FIGURE, CAPTION = "# Figure ", "#   "
KERNEL_ARGUMENT = '--InlineBackend.figure_formats=["retina"]'
PNG, JPEG = "image/png", "image/jpeg"
COLOURS = 256
# Of 255: what the 256 colours may change in a channel, in all but one pixel of a thousand.
LARGEST_CHANGE = 8
JPEG_QUALITY = 85


def store_compactly(output: NotebookNode) -> None:
    """Replaces, in place, the picture of an output by a file that is smaller and looks the same.

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
    """The kind and the bytes of a file that shows the same picture.

    A chart gets a palette; a figure with many photographs has too many colours for one, and is
    smaller as a JPEG.
    """
    picture = Image.open(BytesIO(png)).convert("RGB")
    charted = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    change = np.abs(np.subtract(picture, charted.convert("RGB"), dtype=np.int16)).max(axis=2)
    if np.quantile(change, 0.999) <= LARGEST_CHANGE:
        return PNG, _encoded(charted, PNG)
    choices = {kind: _encoded(picture, kind) for kind in (PNG, JPEG)}
    return min(choices.items(), key=lambda choice: len(choice[1]))


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    settings = {"quality": JPEG_QUALITY} if kind == JPEG else {}
    picture.save(file, kind.removeprefix("image/"), optimize=True, **settings)
    return file.getvalue()
