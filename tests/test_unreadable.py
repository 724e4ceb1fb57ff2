"""Images that cannot be read, and files of the same content."""

import warnings

import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.__main__ import _format_warning
from qaconv_lib.datasets import (
    UnreadableImageError,
    content_digests,
    counting_unreadable,
    load_image,
    readable_rows,
    unreadable_images,
)


@pytest.fixture
def table(tmp_path):
    """Images 0 to 4; 1 is damaged and 3 is not there."""
    for number in range(5):
        Image.new("RGB", (4, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"damaged")
    (tmp_path / "3.png").unlink()
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    return pd.DataFrame({"path": paths, "identity": range(5)})


def test_images_that_cannot_be_read_are_found(table):
    assert unreadable_images(table["path"]) == [table["path"][1], table["path"][3]]


def test_their_rows_are_left_out_with_a_warning(table):
    with pytest.warns(
        UserWarning, match=r"set: 2 of 5 images cannot be read: .*1.png, .*3.png; th"
    ):
        kept = readable_rows(table, "set")
    assert kept["identity"].tolist() == [0, 2, 4] and kept.index.tolist() == [0, 1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert readable_rows(kept, "set") is kept


def test_a_table_without_any_readable_image(table):
    with pytest.raises(UnreadableImageError, match="set: 2 of 2 images cannot be read"):
        readable_rows(table.iloc[[1, 3]], "set")


def test_the_first_unreadable_image_makes_all_be_counted(table):
    with pytest.raises(UnreadableImageError, match="set: 2 of 5 images .*--skip-unreadable"):
        with counting_unreadable(table, "set"):
            load_image(table["path"][1])


def test_other_errors_pass_as_they_are(table):
    with pytest.raises(ValueError, match="^something else$"), counting_unreadable(table, "set"):
        raise ValueError("something else")
    with pytest.raises(UnreadableImageError, match="^of another table$"):
        with counting_unreadable(table.iloc[[0]], "set"):
            raise UnreadableImageError("of another table")


def test_digests_tell_contents(table, tmp_path):
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes())
    zero, one, two, three, four = content_digests(table["path"])
    assert zero == two and len({zero, one, four}) == 3 and three == ""


def test_own_warnings_are_one_sentence():
    import qaconv_lib.datasets as images

    assert _format_warning("lost", UserWarning, images.__file__, 3) == "qaconv_lib: lost\n"
    assert _format_warning("old", UserWarning, "/x/y.py", 3) == "/x/y.py: UserWarning: old\n"
