"""Reading and writing by index, against loops; indices out of range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OpError, infer

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (2, 1), (1, 0, 2)])
def test_gather_matches_a_loop(run_op, axes, dtype) -> None:
    x = RNG.standard_normal((3, 4, 5)).astype(dtype)
    shapes = [(2, 1), (1, 6), (6,)]
    indices = [
        RNG.integers(0, x.shape[a], s).astype(np.int32) for a, s in zip(axes, shapes, strict=False)
    ]
    got = run_op("gather", x, *indices, axes=axes)
    joined = np.broadcast_arrays(*indices)
    rest = [a for a in range(3) if a not in axes]
    assert got.shape == (*joined[0].shape, *(x.shape[a] for a in rest))
    for place in np.ndindex(joined[0].shape):
        for inner in itertools.product(*(range(x.shape[a]) for a in rest)):
            at = dict(zip(axes, (int(i[place]) for i in joined), strict=True))
            at |= dict(zip(rest, inner, strict=True))
            assert got[place + inner] == x[at[0], at[1], at[2]]


@pytest.mark.parametrize("axis", [0, 1])
def test_take(run_op, run_layer, axis) -> None:
    x, index = RNG.standard_normal((4, 3)), np.array([[2, 0], [1, 1]], np.int64)
    expected = np.stack([np.stack([x.take(i, axis) for i in row]) for row in index])
    got = run_op("take", x, index, axis=axis)
    np.testing.assert_array_equal(got, expected if axis == 0 else np.moveaxis(expected, 2, 0))
    np.testing.assert_array_equal(run_layer("take", x, index, axis=axis - 2), got)


@pytest.mark.parametrize("bad", [-1, 4])
def test_out_of_range(run_op, bad) -> None:
    x, index = np.zeros((4, 2)), np.array([0, bad], np.int32)
    calls = [
        ("gather", (x, index), {"axes": (0,)}),
        ("take", (x, index), {"axis": 0}),
        ("scatter_add", (x, index, np.ones((2, 2))), {}),
        ("segment_sum", (np.ones((2, 2)), index), {"segments": 4}),
    ]
    for op, arrays, attrs in calls:
        with pytest.raises(OpError, match=rf"index {bad} is not in 0\.\.4") as caught:
            run_op(op, *arrays, **attrs)
        assert caught.value.code == "E504"


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_scatter_and_segments_add_repeated_indices(run_op, run_layer, dtype) -> None:
    base = RNG.integers(0, 9, (5, 2)).astype(dtype)
    index = RNG.integers(0, 5, (3, 4)).astype(np.int32)
    updates = RNG.integers(0, 9, (3, 4, 2)).astype(dtype)
    expected = base.copy()
    for place in np.ndindex(index.shape):
        expected[index[place]] += updates[place]
    before = base.copy()
    np.testing.assert_array_equal(run_op("scatter_add", base, index, updates), expected)
    np.testing.assert_array_equal(base, before)
    rows, segment = updates.reshape(12, 2), index.reshape(12)
    sums = run_op("segment_sum", rows, segment, segments=5)
    np.testing.assert_array_equal(sums, expected - before)
    np.testing.assert_array_equal(run_layer("segment_sum", rows, segment, segments=5), sums)


def test_embedding(run_layer) -> None:
    weight = RNG.standard_normal((7, 3)).astype(np.float32)
    token = np.array([[0, 6], [2, 2]], np.int32)
    got = run_layer("embedding", token, count=7, dim=3, _params={"weight": weight})
    np.testing.assert_array_equal(got, weight[token])


@pytest.mark.parametrize(
    ("op", "types", "attrs", "code"),
    [
        ("gather", [("f32", (3, 4)), ("f32", (2,))], {"axes": (0,)}, "E104"),
        ("gather", [("f32", (3, 4)), ("i32", (2,))], {"axes": (0, 1)}, "E407"),
        ("gather", [("f32", (3, 4)), ("i32", (2,)), ("i32", (3,))], {"axes": (0, 1)}, "E103"),
        ("gather", [("f32", (3, 4)), ("i32", (2,))], {"axes": (2,)}, "E107"),
        ("take", [("f32", (3,)), ("bool", (2,))], {"axis": 0}, "E104"),
        ("scatter_add", [("f32", (3,)), ("i32", (2,)), ("f32", (3,))], {}, "E103"),
        ("scatter_add", [("f32", (3,)), ("i32", (2,)), ("f64", (2,))], {}, "E104"),
        ("segment_sum", [("f32", (3,)), ("i32", (2,))], {"segments": 2}, "E103"),
    ],
)
def test_faults(op, types, attrs, code) -> None:
    with pytest.raises(OpError) as caught:
        infer(op, [TensorType(dtype, shape) for dtype, shape in types], attrs)
    assert caught.value.code == code
