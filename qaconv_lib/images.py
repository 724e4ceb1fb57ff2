"""Reading image files: every picture that the library opens comes through here (chapters 1, 14).

The public datasets hold plain RGB files. Photographs of one's own come grey, transparent, in CMYK,
with 16 bits, or lying on their side with a note that they should be turned.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

_ORIENTATION = 274  # the EXIF tag
#: What turns an image upright, by the value of the tag (EXIF 2.32, section 4.6.4).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
_PART_MAPS = "part_maps"
# Others may start programs, as EPS does.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_OPENING = threading.Lock()


class UnreadableImageError(ValueError):
    """A file is no image, a damaged one, or one too large."""


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image as RGB, upright.

    A rotation that the file notes (EXIF) is carried out, transparent parts become white, grey, CMYK
    and 16-bit pixels become RGB. Of an animation the first picture is read.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is no readable image, or has more pixels than Pillow's limit
            (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        image = _to_rgb(image)
        return image if turn is None else image.transpose(turn)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image as `load_image` gives it, from the head of the file alone.

    Raises:
        FileNotFoundError, UnreadableImageError: as `load_image`; damage further on in the file
            goes unseen.
    """
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in _LYING else (width, height)


def load_part_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Body part shown by each pixel of a query or gallery image of a miniature.

    Args:
        path: the image (not the map), as in the column ``path``.

    Returns:
        (H, W) uint8 of indices into ``qaconv_lib.synthetic.domains.PART_NAMES``; 0 is the
        background.

    Raises:
        FileNotFoundError: the image has no part map: it is a training image, or of no miniature.
    """
    path = Path(path)
    for folder in path.parents:
        if (folder / _PART_MAPS).is_dir():
            part_map = (folder / _PART_MAPS / path.relative_to(folder)).with_suffix(".png")
            if part_map.is_file():
                with _opened(part_map) as image:
                    return np.asarray(image, dtype=np.uint8)
            break
    raise FileNotFoundError(
        f"no part map for {path}; the query and gallery images of the miniatures have one"
    )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An open image; whatever goes wrong in the block is said in one sentence."""
    name = os.fspath(path)
    if os.path.exists(name) and not (os.path.isfile(name) or os.path.isdir(name)):
        raise UnreadableImageError(
            f"{name} is no regular file"
        )  # reading a pipe could wait forever
    try:
        with _OPENING, warnings.catch_warnings():  # filters are shared by all threads
            warnings.filterwarnings("ignore", module="PIL")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {name}") from None
    except IsADirectoryError:
        raise UnreadableImageError(f"{name} is a folder, not an image") from None
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name} is no image, or of a kind that cannot be read; JPEG and PNG can"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first"
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise UnreadableImageError(f"cannot read the image {name}: {error}") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF tag; 1, upright, where there is none or it cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError):
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        paper = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(paper, coloured).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are fractions; whole numbers of 8 or 16 bits are wanted")
    if image.mode.startswith("I"):  # one channel of 16 bits, which Pillow would cut off at 255
        pixels = np.asarray(image).astype(np.int64)
        scale = 257 if pixels.max() > 255 else 1
        return Image.fromarray((pixels // scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
