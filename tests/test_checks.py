"""What evaluation, re-ranking and the temporal functions take, refuse, and give back."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from qaconv_lib.beyond.tfusion import tfusion
from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

RNG = np.random.default_rng(0)
VALUES = np.round(RNG.random((5, 12)), 2)
CAMERAS, SECONDS = [RNG.integers(0, 3, n) for n in (5, 12)], [RNG.random(n) * 99 for n in (5, 12)]
TIMED = CAMERAS[0], SECONDS[0], CAMERAS[1], SECONDS[1]
ZEROS = [np.zeros((n, n)) for n in (5, 12)]
KINDS = {
    "array": lambda values: values,
    "float32": lambda values: values.astype(np.float32),
    "float16": lambda values: values.astype(np.float16),
    "longdouble": lambda values: values.astype(np.longdouble),
    "swapped": lambda values: values.astype(values.dtype.newbyteorder()),
    "strided": lambda values: np.asfortranarray(np.repeat(values, 2, axis=1))[:, ::2],
    "tensor": lambda values: torch.from_numpy(values.copy()).requires_grad_(),
    "half": lambda values: torch.from_numpy(values).half(),
    "bfloat16": lambda values: torch.from_numpy(values).bfloat16(),
    "list": lambda values: values.tolist(),
    "frame": lambda values: pd.DataFrame(values),
}
COLUMNS = {
    "tensor": torch.from_numpy,
    "list": lambda values: values.tolist(),
    "tensors": lambda values: list(torch.from_numpy(values)),
    "series": lambda values: pd.Series(values, index=values[::-1]),
    "nullable": lambda values: pd.Series(values).convert_dtypes(),
    "narrow": lambda values: values.astype(np.uint8 if values.dtype.kind == "i" else np.float32),
}


def rerank(similarity):
    return k_reciprocal_rerank(similarity, *ZEROS, 4, 2)


@pytest.mark.parametrize("function", [tlift, tfusion, rerank])
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_of_the_kind_given(function, kind):
    timed = () if function is rerank else TIMED
    given = KINDS[kind](VALUES)
    copy = VALUES.copy()
    result = function(given, *timed)
    np.testing.assert_array_equal(VALUES, copy)
    plain = given.detach().double().numpy() if isinstance(given, torch.Tensor) else given
    expected = function(np.asarray(plain, dtype=float), *timed)
    if isinstance(given, torch.Tensor):
        assert isinstance(result, torch.Tensor) and not result.requires_grad
        assert result.dtype == given.dtype
        result = result.double().numpy()
    else:
        assert isinstance(result, np.ndarray) and result.dtype == np.asarray(given).dtype
    coarse = 1e-2 if kind in ("float16", "half", "bfloat16") else 1e-5
    np.testing.assert_allclose(result.astype(float), expected, rtol=coarse, atol=coarse)


@pytest.mark.parametrize("kind", [*KINDS, *COLUMNS])
def test_any_kind_of_input_gives_the_same_scores(kind):
    values = np.floor(VALUES * 99)  # whole numbers below 256 survive bfloat16
    labels = [RNG.integers(1, 4, n) for n in (5, 12)] + CAMERAS
    expected = evaluate_ranking(values, *labels)
    column = COLUMNS.get(kind, lambda values: values)
    scores = evaluate_ranking(KINDS.get(kind, lambda values: values)(values), *map(column, labels))
    pd.testing.assert_frame_equal(scores.per_query, expected.per_query)
    np.testing.assert_array_equal(scores.cmc, expected.cmc)
    seconds = [np.floor(times) for times in SECONDS]
    given = [column(part) for pair in zip(CAMERAS, seconds, strict=True) for part in pair]
    plain = [part for pair in zip(CAMERAS, seconds, strict=True) for part in pair]
    np.testing.assert_array_equal(tlift(VALUES, *given), tlift(VALUES, *plain))


def test_integers_become_floating_point():
    whole = np.ones((5, 12), dtype=int)
    assert tlift(whole, *TIMED).dtype == np.float64
    assert tlift(torch.from_numpy(whole), *TIMED).dtype == torch.get_default_dtype()


GOOD = dict(
    similarity=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]],
    query_cameras=[0, 0],
    query_seconds=[0.0, 1.0],
    gallery_cameras=[1, 1, 1],
    gallery_seconds=[0, 1, 2],
)
BAD = [
    (dict(similarity=[[0, 0, 0], [0, 0, -0.5]]), ValueError, "similarity must be .* got -0.5"),
    (dict(similarity=np.full((2, 3), np.nan)), ValueError, "similarity is nan at row 0, column 0"),
    (dict(similarity=np.full((2, 3), np.inf)), ValueError, "similarity is inf .* finite"),
    (dict(similarity=[0.1, 0.2]), ValueError, "similarity must have two axes"),
    (dict(query_seconds=[0, np.nan]), ValueError, "query_seconds has nan at entry 1; every image"),
    (dict(gallery_seconds=[0, np.inf, 1]), ValueError, "gallery_seconds has inf at entry 1"),
    (dict(gallery_seconds=["a", "b", "c"]), TypeError, "gallery_seconds must be numbers"),
    (
        dict(query_seconds=pd.Series([0, None], dtype="Float64")),
        ValueError,
        "query_seconds has nan",
    ),
    (dict(query_seconds=[0, pd.Timestamp(0)]), TypeError, "query_seconds must be numbers .*Timest"),
    (dict(similarity=[[1, 2, 3], [1]]), ValueError, "similarity must be an array"),
    (dict(similarity=np.ma.masked_equal([[0, 1, 1]] * 2, 0)), ValueError, "similarity has masked"),
    (dict(gallery_cameras=[0.5, 1, 1]), TypeError, "gallery_cameras must be integers"),
    (dict(query_cameras=[1] * 7), ValueError, r"query_cameras must have shape \(2,\).*got \(7,\)"),
    (dict(query_seconds=[1] * 7), ValueError, r"query_seconds must have shape \(2,\)"),
    (dict(gallery_cameras=[1] * 7), ValueError, r"gallery_cameras must have shape \(3,\)"),
    (dict(gallery_seconds=[1] * 7), ValueError, r"gallery_seconds must have shape \(3,\)"),
]


@pytest.mark.parametrize("function", [tlift, tfusion])
@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_is_named(function, changes, error, message):
    function(**GOOD)
    with pytest.raises(error, match=message):
        function(**{**GOOD, **changes})


SMALL = [[[0.1, 0.9]], [0], [3.0], [1, 1], [1.0, 2.0]]
SQUARE = [[[0.1, 0.9]], [[0.0]], [[0.0, 0.5], [0.5, 0.0]]]
CALLS = [
    (evaluate_ranking, [[[0.1, 0.9]], [1], [1, 2], [0], [1, 1]]),
    (tlift, SMALL),
    (tfusion, SMALL),
    (k_reciprocal_rerank, SQUARE),
]
TOTALLY_WRONG = [
    None, "text", b"bytes", 3, {}, {1, 2}, object(), [[]], [None], ["1", "2"], [[1, 2], [3]],
    [torch.ones(2), torch.ones(3)], np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
    np.array([[1 + 2j, 0]]), np.array([["2020-01-01"] * 2], dtype="M8[s]"), [[True, "x"]],
    pd.Series([1, None], dtype="Float64"), float("nan"), torch.ones(1, 2, 1), lambda: 0,
]  # fmt: skip


@pytest.mark.parametrize("function, good", CALLS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("wrong", TOTALLY_WRONG, ids=lambda value: type(value).__name__)
def test_arguments_of_the_wrong_kind_are_named(function, good, wrong) -> None:
    names = list(inspect.signature(function).parameters)
    function(*good)
    for place in range(len(good)):
        arguments = [*good[:place], wrong, *good[place + 1 :]]
        with pytest.raises((TypeError, ValueError), match=names[place]):
            function(*arguments)


@pytest.mark.parametrize("wrong", ["10", None, [1], np.ones(2), True, 1 + 2j, float("nan")])
def test_parameters_of_the_wrong_kind_are_named(wrong) -> None:
    for name in ("tau", "sigma", "alpha", "k"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            tlift(*SMALL, **{name: wrong})
    for name in ("k1", "k2", "lambda_value"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            k_reciprocal_rerank(*SQUARE, **{name: wrong})
    for name in ("window", "floor", "num_matches", "num_random", "error_positive"):
        with pytest.raises(ValueError, match=name):
            tfusion(*SMALL, **{name: wrong})


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (np.array([1.7e9, 1.7e9 + 40], np.float32), "rounded to 128 seconds"),
        (torch.tensor([1.7e9, 1.7e9 + 40]), "rounded to 128 seconds"),
        ([1.7e12, 1.7e12 + 1], "must be in seconds"),
    ],
)
def test_times_that_cannot_be_seconds_are_refused(seconds, message):
    with pytest.raises(ValueError, match=message):
        tlift(np.ones((1, 2)), [0], [0.0], [0, 0], seconds)
    tlift(np.ones((1, 2)), [0], [1.7e9], [0, 0], [1.7e9, 1.7e9 + 40])
