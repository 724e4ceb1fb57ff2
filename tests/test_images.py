"""Reading image files as photographs come: turned, transparent, grey, huge, broken."""

import os

import numpy as np
import pytest
from PIL import Image

from qaconv_lib.datasets import image_size, load_image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_noted_rotation_is_carried_out(tmp_path, orientation):
    undone = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # the camera lay on its side: turn clockwise to see it upright
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(undone[orientation](PIXELS))
    note = Image.Exif()
    note[274] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(stored), exif=note)
    assert np.array_equal(np.asarray(load_image(path)), PIXELS)
    assert image_size(path) == (6, 12)


def test_an_unreadable_note_is_ignored(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS), exif=b"Exif\x00\x00nonsense")
    assert np.array_equal(np.asarray(load_image(path)), PIXELS)


def test_transparent_parts_become_white(tmp_path):
    alpha = np.zeros((12, 6), np.uint8)
    alpha[:6] = 255
    image = Image.fromarray(np.dstack([PIXELS, alpha]), "RGBA")
    found = np.asarray(load_image(saved(tmp_path / "a.png", image)))
    assert np.array_equal(found[:6], PIXELS[:6]) and (found[6:] == 255).all()


def test_a_transparent_colour_of_a_palette_becomes_white(tmp_path):
    image = Image.new("P", (6, 12), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    found = load_image(saved(tmp_path / "a.png", image, transparency=1))
    assert found.getpixel((0, 0)) == (0, 0, 0) and found.getpixel((1, 1)) == (255, 255, 255)


def test_16_bits_keep_their_range(tmp_path):
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    found = np.asarray(load_image(saved(tmp_path / "a.png", deep)))
    assert all(np.array_equal(found[..., channel], PIXELS[..., 0]) for channel in range(3))


@pytest.mark.parametrize("mode, name", [("L", "a.png"), ("CMYK", "a.tif"), ("1", "a.png")])
def test_other_pixels_become_rgb(tmp_path, mode, name):
    image = Image.fromarray(PIXELS).convert(mode)
    found = load_image(saved(tmp_path / name, image))
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("limit", [71, 30])  # Pillow warns above the limit, refuses above twice
def test_too_many_pixels(tmp_path, monkeypatch, limit):
    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 72)
    assert load_image(path).size == (6, 12)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for read in (load_image, image_size):
        with pytest.raises(ValueError, match=f"a.png has more than {limit} pixels"):
            read(path)


@pytest.mark.parametrize("name", ["two words.png", "人物 写真.png", "фото.png", "a%20{b}#c.png"])
def test_names_in_any_script(tmp_path, name):
    assert load_image(saved(tmp_path / name, Image.fromarray(PIXELS))).size == (6, 12)


def test_damage_is_a_value_error(tmp_path):
    rng = np.random.default_rng(1)
    for kind in ("a.png", "a.jpg", "a.tif", "a.gif", "a.bmp"):
        content = saved(tmp_path / kind, Image.fromarray(PIXELS)).read_bytes()
        for _ in range(60):
            broken = bytearray(content)
            for place in rng.integers(0, len(broken), 5):
                broken[place] = rng.integers(0, 256)
            (tmp_path / kind).write_bytes(broken)
            try:
                assert load_image(tmp_path / kind).mode == "RGB"
            except ValueError as error:
                assert kind in str(error)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path)


def test_fractions_are_refused(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.full((8, 4), 0.5, np.float32)))
    with pytest.raises(ValueError, match="a.tif: its pixels are fractions"):
        load_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png is no regular file"):
        load_image(tmp_path / "a.png")
