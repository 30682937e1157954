"""Reductions of flat tensors against the op table's references."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ops import OPS
from tilth.runtime.kernels import rows

NAMES = {
    np.dtype(np.float32): "f32",
    np.dtype(np.float64): "f64",
    np.dtype(np.int32): "i32",
    np.dtype(np.int64): "i64",
    np.dtype(bool): "bool",
}
TYPES = {v: k for k, v in NAMES.items()}


def _reduce(drive, x, axes, kind, width):
    """A reduction as the lowering does it: in parts when results are few."""
    dtype = NAMES[x.dtype]
    mean, kind = kind == "mean", "sum" if kind == "mean" else kind
    target = "i32" if kind.startswith("arg") else dtype
    where = rows.collapse(x.shape, axes)
    where = where if kind.startswith("arg") else rows.cut(where)
    count = 1 if kind.startswith("arg") else rows.parts(where)
    divisor = float(where.folded) if mean else 1.0
    partial = "f64" if count > 1 and kind in ("sum", "prod", "lse") and dtype == "f32" else target
    found = np.zeros(count * where.results, TYPES[partial if count > 1 else target])
    one = rows.ReduceKernel(
        kind,
        dtype,
        partial if count > 1 else target,
        where.inner,
        len(where.kept),
        len(where.reduced),
        width,
    )
    row = rows.words(where, dtype, x, found, count, 1.0 if count > 1 else divisor)
    drive(one, rows.tasks(where, count), row)
    if count > 1:
        parts, last = found, rows.collapse((count, where.results), (0,))
        found = np.zeros(where.results, TYPES[target])
        two = rows.ReduceKernel(
            kind, partial, target, last.inner, len(last.kept), len(last.reduced), width
        )
        drive(two, rows.tasks(last), rows.words(last, partial, parts, found, 1, divisor))
    kept = [size for axis, size in enumerate(x.shape) if axis not in axes]
    return found.reshape(kept)


def _reference(x, axes, kind):
    if kind.startswith("arg"):
        return OPS[kind].reference(x, axis=axes[0], keepdims=False)
    wide = x.astype(np.float64) if x.dtype == np.float32 else x
    return OPS["reduce"].reference(wide, kind=kind, axes=axes, keepdims=False)


FLOAT_KINDS = ("sum", "mean", "prod", "max", "min", "lse")
CASES = [
    ((7, 37), (1,)),
    ((7, 37), (0,)),
    ((3, 5, 90), (1,)),
    ((4, 3, 6, 5), (0, 2)),
    ((4, 3, 6, 5), (1, 3)),
    ((2, 3, 1, 4, 1), (1, 3)),
    ((9,), (0,)),
    ((5, 1), (1,)),
    ((3, 2, 1), (2,)),
    ((2, 200, 3), (0, 1, 2)),
    ((1, 1), (0, 1)),
]


def _default_first(cases, many=2):
    return [*cases[:many], *(pytest.param(*c, marks=pytest.mark.slow) for c in cases[many:])]


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FLOAT_KINDS)
@pytest.mark.parametrize("shape, axes", _default_first(CASES))
def test_floats(drive, agree, width, shape, axes, kind, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    ours = _reduce(drive, x, axes, kind, width)
    agree(ours, _reference(x, axes, kind), 2e-7 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("kind", ["max", "min", "lse", "sum", "argmax", "argmin"])
@pytest.mark.parametrize("axes", [(1,), pytest.param((0,), marks=pytest.mark.slow)])
def test_infinities_and_nan(drive, agree, width, kind, axes):
    x = np.random.default_rng(1).standard_normal((40, 40)).astype(np.float32)
    x[3], x[:, 3] = -np.inf, -np.inf
    x[5, 7], x[6, 8], x[9, 30], x[9, 31] = np.inf, np.nan, np.nan, np.nan
    x[12, 20:24] = x[20:24, 12] = 9.0
    with np.errstate(all="ignore"):
        reference = _reference(x, axes, kind)
    agree(_reduce(drive, x, axes, kind, width), reference, 2e-7)


@pytest.mark.parametrize("kind", ["argmax", pytest.param("argmin", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        *(pytest.param(d, marks=pytest.mark.slow) for d in (np.float64, np.int32, np.int64)),
    ],
)
def test_positions(drive, width, kind, dtype):
    rng = np.random.default_rng(2)
    for shape, axis in [((6, 70), 1), ((70, 6), 0), ((3, 21, 50), 1), ((4, 1), 1), ((1, 4), 0)]:
        x = rng.integers(-5, 5, shape).astype(dtype)
        ours = _reduce(drive, x, (axis,), kind, width)
        np.testing.assert_array_equal(ours, _reference(x, (axis,), kind))


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", [np.int32, pytest.param(np.int64, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_whole_numbers(drive, kind, dtype):
    x = np.random.default_rng(3).integers(-9, 9, (4, 30, 5)).astype(dtype)
    for axes in ((1,), (2,), (0, 2), (0, 1, 2)):
        ours = _reduce(drive, x, axes, kind, 4)
        np.testing.assert_array_equal(ours, _reference(x, axes, kind))


@pytest.mark.parametrize("kind", ["any", pytest.param("all", marks=pytest.mark.slow)])
def test_truths(drive, kind):
    x = np.random.default_rng(4).integers(0, 3, (9, 4)) < (2 if kind == "all" else 1)
    for axes in ((1,), (0,)):
        np.testing.assert_array_equal(_reduce(drive, x, axes, kind, 4), _reference(x, axes, kind))


@pytest.mark.parametrize(
    "kind",
    ["mean", *(pytest.param(k, marks=pytest.mark.slow) for k in ("sum", "lse", "max", "min"))],
)
@pytest.mark.parametrize(
    "shape, axes", [((99, 700), (0, 1)), ((5_003, 17), (0,)), ((70, 5, 300), (0, 2))]
)
def test_long_reductions_go_in_parts(drive, agree, width, kind, shape, axes):
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    where = rows.cut(rows.collapse(shape, axes))
    assert rows.parts(where) > 1
    agree(_reduce(drive, x, axes, kind, width), _reference(x, axes, kind), 3e-7)


def test_sums_of_float32_keep_float64_digits(drive, width):
    x = np.full((2, 100_003), 0.1, np.float32)
    x[:, 0] = 1e8
    ours = _reduce(drive, x, (1,), "sum", width)
    np.testing.assert_allclose(ours, x.astype(np.float64).sum(axis=1), 1e-7)
    np.testing.assert_array_equal(ours, x.astype(np.float64).sum(axis=1).astype(np.float32))


def test_axes_collapse():
    assert rows.collapse((2, 3, 4, 5), (1, 2)) == rows.Reduction(((2, 60),), ((12, 5),), 5, "kept")
    assert rows.collapse((2, 3), (0, 1)) == rows.Reduction((), (), 6, "reduced")
    assert rows.collapse((2, 3), ()) == rows.Reduction((), ((1, 0),), 6, "kept")
    assert rows.collapse((), ()).results == 1
