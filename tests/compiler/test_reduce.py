"""Reductions against loops, log-sum-exp at its edges, positions, running sums, variances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import logsumexp
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OpError, infer

RNG = np.random.default_rng(1)
AXES = [(), (0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)]
PLAIN = {
    "sum": math.fsum,
    "prod": math.prod,
    "max": max,
    "min": min,
    "mean": lambda v: math.fsum(v) / len(v),
    "lse": lambda v: math.log(math.fsum(math.exp(x) for x in v)),
}


def by_loop(x: np.ndarray, axes: tuple[int, ...], keepdims: bool, function) -> np.ndarray:
    kept = [range(1) if a in axes else range(n) for a, n in enumerate(x.shape)]
    out = np.empty([len(r) for r in kept])
    for place in itertools.product(*kept):
        cut = tuple(slice(None) if a in axes else slice(i, i + 1) for a, i in enumerate(place))
        out[place] = function([float(v) for v in x[cut].reshape(-1)])
    shape = [n for a, n in enumerate(x.shape) if a not in axes]
    return out if keepdims else out.reshape(shape)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("kind", PLAIN)
def test_reduce_matches_a_loop(run_op, kind, axes, keepdims, dtype) -> None:
    x = RNG.uniform(-2, 2, (3, 5, 7)).astype(dtype)
    got = run_op("reduce", x, kind=kind, axes=axes, keepdims=keepdims)
    expected = by_loop(x, axes, keepdims, PLAIN[kind])
    assert got.dtype == dtype
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got.astype(float), expected, rtol=60 * eps, atol=30 * eps)


def test_reduce_keeps_small_integers(run_op) -> None:
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert run_op("reduce", x, kind="sum", axes=(1,), keepdims=False).tolist() == [3, 12]
    assert run_op("reduce", x + 1, kind="prod", axes=(0, 1), keepdims=False) == 720


def test_any_all(run_op) -> None:
    x = np.array([[True, False], [True, True]])
    assert run_op("reduce", x, kind="any", axes=(0,), keepdims=False).tolist() == [True, True]
    assert run_op("reduce", x, kind="all", axes=(1,), keepdims=True).tolist() == [[False], [True]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lse_edges(run_op, recwarn, dtype) -> None:
    x = np.array([[-np.inf, -np.inf], [-np.inf, 3], [1e4, 1e4], [np.inf, 0], [-1e4, -1e4]], dtype)
    got = run_op("reduce", x, kind="lse", axes=(1,), keepdims=False)
    np.testing.assert_allclose(got, logsumexp(x, axis=1), rtol=1e-6)
    assert got[0] == -np.inf and got[3] == np.inf
    assert not recwarn.list


def test_positions_take_the_first_of_equals(run_op) -> None:
    x = np.array([[2, 5, 5, 1], [1, 1, 0, 0]], np.float32)
    assert run_op("argmax", x, axis=1, keepdims=False).tolist() == [1, 0]
    assert run_op("argmin", x, axis=1, keepdims=True).tolist() == [[3], [2]]
    assert run_op("argmax", x, axis=0, keepdims=False).dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("axis", [0, 1])
def test_running(run_op, axis, dtype) -> None:
    x = RNG.integers(1, 4, (4, 5)).astype(dtype)
    for name, join in (("cumsum", lambda a, b: a + b), ("cumprod", lambda a, b: a * b)):
        for reverse in (False, True):
            lines = np.moveaxis(x, axis, -1)
            expected = np.array(
                [list(itertools.accumulate(r[::-1] if reverse else r, join)) for r in lines]
            )
            expected = np.moveaxis(expected[:, ::-1] if reverse else expected, -1, axis)
            np.testing.assert_array_equal(run_op(name, x, axis=axis, reverse=reverse), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_variance(run_op, run_layer, axes, unbiased, dtype) -> None:
    x = (RNG.standard_normal((3, 4, 5)) + 100).astype(dtype)
    expected = np.var(x.astype(float), axis=axes, ddof=int(unbiased))
    got = run_op("var", x, axes=axes, keepdims=False, unbiased=unbiased)
    np.testing.assert_allclose(got, expected, rtol=200 * np.finfo(dtype).eps)
    std = run_layer("std", x, axis=axes, unbiased=unbiased)
    np.testing.assert_allclose(std, np.sqrt(expected), rtol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("order", [1, 2, 3, 0.5, math.inf])
@pytest.mark.parametrize("axis", [None, 1, (0, 1)])
def test_norm(run_layer, axis, order) -> None:
    x = RNG.standard_normal((4, 6)).astype(np.float32)
    flat = np.abs(x.astype(float))
    axes = (0, 1) if axis is None else axis
    expected = (
        flat.max(axis=axes) if order == math.inf else (flat**order).sum(axis=axes) ** (1 / order)
    )
    np.testing.assert_allclose(run_layer("norm", x, ord=order, axis=axis), expected, rtol=1e-5)


def test_layers_default_to_all_axes_and_count_from_the_end(run_layer) -> None:
    x = np.arange(6, dtype=np.float64).reshape(2, 3)
    assert run_layer("sum", x) == 15
    assert run_layer("mean", x, axis=-1).tolist() == [1, 4]
    assert run_layer("max", x, axis=(0, -1), keepdims=True).tolist() == [[5]]
    assert run_layer("argmax", x, axis=-1).tolist() == [2, 2]
    assert run_layer("cumsum", x, axis=-1).tolist() == [[0, 1, 3], [3, 7, 12]]
    np.testing.assert_allclose(run_layer("lse", x), logsumexp(x))


def test_faults(run_layer) -> None:
    x = TensorType("f32", (2, 3))
    for attrs, code in (
        ({"kind": "sum", "axes": (2,), "keepdims": False}, "E107"),
        ({"kind": "sum", "axes": (0, 0), "keepdims": False}, "E107"),
        ({"kind": "any", "axes": (0,), "keepdims": False}, "E104"),
        ({"kind": "median", "axes": (0,), "keepdims": False}, "E404"),
    ):
        with pytest.raises(OpError) as caught:
            infer("reduce", [x], attrs)
        assert caught.value.code == code
    for settings in ({"axis": 2}, {"axis": (0, -2)}):
        with pytest.raises(OpError) as caught:
            run_layer("sum", np.zeros((2, 3)), **settings)
        assert caught.value.code == "E107"
    with pytest.raises(OpError) as caught:
        run_layer("var", np.zeros((1, 1)), unbiased=True)
    assert caught.value.code == "E408"
