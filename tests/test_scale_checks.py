"""What stores and shortlists check."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.scale.checks import check_length, check_rows, check_unit_channels


def unit_maps(*shape):
    return F.normalize(torch.randn(*shape), dim=-3)


class TestSharedChecks:
    """What stores and shortlists check too."""

    def test_channels_of_another_length_are_placed(self):
        maps = unit_maps(3, 4, 2, 3)
        maps[0, :, 1, 2] = 0  # nothing there
        maps[1] *= 1.005
        check_unit_channels(maps)
        maps[1, :, 1, 1] *= 1.5 / 1.005
        maps[2] *= 3
        with pytest.raises(ValueError) as caught:
            check_unit_channels(maps)
        assert str(caught.value) == (
            "the map of row 1 must have channels of unit length; their length is 1.5 at location 4"
        )

    @pytest.mark.parametrize(
        "rows",
        [[[0], [2]], np.array([[0], [2]], np.uint8), torch.tensor([[0], [2]], dtype=torch.int32)],
        ids=["list", "array", "tensor"],
    )
    def test_rows_of_any_kind_become_one_kind(self, rows):
        found = check_rows(rows, 3)
        assert found.dtype == torch.long and found.tolist() == [[0], [2]]

    def test_no_rows_keep_their_shape(self):
        for none in (np.zeros((0, 5)), torch.zeros(0, 5)):
            found = check_rows(none, 3)
            assert found.shape == (0, 5) and found.dtype == torch.long

    @pytest.mark.parametrize(
        ("rows", "size", "error", "message"),
        [
            ([[0, 1], [2]], 3, ValueError, "rows must be an array; its lists differ in length"),
            (np.array([True]), 3, TypeError, "rows must be whole numbers, got bool"),
            (torch.tensor([True]), 3, TypeError, "rows must be whole numbers, got torch.bool"),
            (torch.ones(1), 3, TypeError, "rows must be whole numbers, got torch.float32"),
            (
                torch.ones(1, dtype=torch.complex64),
                3,
                TypeError,
                "rows must be whole numbers, got torch.complex64",
            ),
            ([3], 3, IndexError, "rows must lie in 0..2, got 3 to 3"),
            ([1, -1, 2], 3, IndexError, "rows must lie in 0..2, got -1 to 2"),
            ([4, 5], 0, IndexError, "the gallery is empty, so it has no row 4"),
        ],
    )
    def test_rows_that_are_none_are_named(self, rows, size, error, message):
        with pytest.raises(error) as caught:
            check_rows(rows, size)
        assert str(caught.value) == message

    def test_lengths_from_one_to_the_size_fit(self):
        for length in (1, np.int8(2), 3):
            found = check_length(length, 3)
            assert found == length and type(found) is int

    @pytest.mark.parametrize("length", [0, 4, 2.0, True, "2"])
    def test_other_lengths_are_named(self, length):
        with pytest.raises(ValueError) as caught:
            check_length(length, 3)
        assert str(caught.value) == f"length must lie in 1..3, the gallery's size, got {length!r}"
        with pytest.raises(ValueError, match="^cells must lie in 1..3"):
            check_length(length, 3, "cells")

    def test_an_empty_gallery_has_no_length(self):
        with pytest.raises(ValueError) as caught:
            check_length(1, 0)
        assert str(caught.value) == "the gallery is empty, so no length fits it"
