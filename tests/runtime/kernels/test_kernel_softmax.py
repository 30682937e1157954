"""Softmax and log-softmax along any axis against the op table's references."""

from __future__ import annotations

import numpy as np
import pytest
from tilth.compiler.ops import OPS
from tilth.runtime.kernels import softmax

CASES = [
    ((5, 37), 1),
    ((3, 21, 70), 1),
    ((9,), 0),
    ((2, 1), 1),
    ((4, 3), 0),
    ((2, 3, 4, 5), 1),
    ((1, 1_000), 1),
    ((200, 16), 1),
    ((3, 5, 64), 1),
]


def _run(drive, x, kind, axis, width, beta, short=False):
    found = np.zeros_like(x)
    dtype = "f32" if x.dtype == np.float32 else "f64"
    last = int(np.prod(x.shape[axis + 1 :])) == 1
    count = softmax.short(x.shape, axis, dtype, width) if short else 0
    assert bool(count) == short
    kernel = softmax.SoftmaxKernel(kind, dtype, last, width, count)
    row = softmax.words(x.shape, axis, x, found, beta)
    assert len(row) == len(softmax.WORDS)
    drive(kernel, softmax.tasks(x.shape, axis), row)
    return found


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "shape, axis", [*CASES[:2], *(pytest.param(*c, marks=pytest.mark.slow) for c in CASES[2:])]
)
def test_matches_the_reference(drive, agree, width, kind, shape, axis, dtype):
    x = (np.random.default_rng(0).standard_normal(shape) * 20).astype(dtype)
    wide = x.astype(np.float64)
    if kind == "softmax":
        reference = OPS["softmax"].reference(wide, axis=axis, beta=0.5)
        ours = _run(drive, x, kind, axis, width, 0.5)
    else:
        reference = OPS["log_softmax"].reference(wide, axis=axis)
        ours = _run(drive, x, kind, axis, width, 1.0)
    agree(ours, reference, 5e-7 if dtype == np.float32 else 2e-15)


@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_minus_infinity(drive, agree, width, kind, axis):
    x = np.random.default_rng(1).standard_normal((40, 40)).astype(np.float32)
    x[2:9, 3:39] = -np.inf
    x[11], x[:, 12] = -np.inf, -np.inf
    x[20, 5] = np.inf
    x[30, 6] = np.nan
    attrs = {"axis": axis, "beta": 1.0} if kind == "softmax" else {"axis": axis}
    with np.errstate(all="ignore"):
        reference = OPS[kind].reference(x, **attrs)
    agree(_run(drive, x, kind, axis, width, 1.0), reference, 5e-7)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
@pytest.mark.parametrize("size", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_rows_that_stay_in_registers(drive, agree, width, kind, size, dtype):
    x = (np.random.default_rng(2).standard_normal((9, size)) * 20).astype(dtype)
    x[2, 0], x[4], x[5, -1] = -np.inf, -np.inf, np.nan
    attrs = {"axis": 1, "beta": 1.0} if kind == "softmax" else {"axis": 1}
    with np.errstate(all="ignore"):
        reference = OPS[kind].reference(x.astype(np.float64), **attrs)
    ours = _run(drive, x, kind, 1, width, 1.0, short=True)
    agree(ours, reference, 5e-7 if dtype == np.float32 else 2e-15)
