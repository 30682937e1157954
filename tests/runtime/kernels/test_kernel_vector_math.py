"""Vector functions against numpy and SciPy in wider precision, over the whole range of floats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from tilth.runtime.kernels.pointwise import PointwiseKernel, Writer, places, tasks, words

FUNCTIONS = {
    "exp": (np.exp, 1.0, 1.1),
    "expm1": (np.expm1, 1.4, 1.8),
    "log": (np.log, 0.9, 0.9),
    "log1p": (np.log1p, 0.9, 0.9),
    "tanh": (np.tanh, 2.6, 2.8),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 2.3, 2.4),
    "sinh": (np.sinh, 2.3, 2.4),
    "cosh": (np.cosh, 2.3, 2.3),
    "softplus": (lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), 1.6, 1.6),
    "erf": (special.erf, 2.8, 4.1),
    "sin": (np.sin, 1.6, 1.0),
    "cos": (np.cos, 1.6, 1.0),
}
"""The function in wider precision, and the allowed error in ulps for float32 and float64."""

ODD = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38]


def _apply(drive, names, x, width):
    """The results of several functions by one kernel."""
    writer = Writer()
    dtype = "f32" if x.dtype == np.float32 else "f64"
    a = writer.argument(dtype)
    expression = writer.finish(*(writer.apply(n, [a], {"slope": 1.0, "beta": 1.0}) for n in names))
    where = places(x.shape, [(1,)])
    results = [np.empty_like(x) for _ in names]
    kernel = PointwiseKernel(expression, 0, width)
    drive(kernel, tasks(where), words(expression, where, [x], results, writer.values))
    return dict(zip(names, results, strict=True))


def _ulps(ours, reference):
    """The largest error in units in the last place of the rounded reference, and where it is."""
    with np.errstate(all="ignore"):
        rounded = reference.astype(ours.dtype)
        finite = np.isfinite(rounded) & np.isfinite(ours)
        equal = (rounded == ours) | (np.isnan(rounded) & np.isnan(ours))
        unit = np.where(finite, np.spacing(np.abs(np.where(finite, rounded, 1))), 1)
        gap = np.abs(ours.astype(np.longdouble) - reference) / unit
    errors = np.where(finite, gap, np.where(equal, 0, np.inf))
    return errors.max(), errors.argmax()


def _singles(step):
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = [np.linspace(-110, 110, 50_001), np.linspace(-1.5, 1.5, 50_001), ODD]
    return np.concatenate([bits, *(np.float32(n) for n in near)])


@pytest.mark.parametrize("step", [78_115, pytest.param(1_009, marks=pytest.mark.slow)])
def test_single_precision(drive, width, step):
    x = _singles(step)
    found = _apply(drive, list(FUNCTIONS), x, width)
    for name, (function, most, _) in FUNCTIONS.items():
        with np.errstate(all="ignore"):
            worst, place = _ulps(found[name], function(x.astype(np.float64)))
        assert worst <= most, (name, x[place], found[name][place])


def test_double_precision(drive, width):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    near = [np.linspace(-750, 750, 20_001), np.linspace(-2, 2, 20_001), np.linspace(-30, 30, 5_001)]
    x = np.concatenate([bits, *near, np.array(ODD)])
    found = _apply(drive, list(FUNCTIONS), x, width)
    for name, (function, _, most) in FUNCTIONS.items():
        with np.errstate(all="ignore"):
            wide = x if name in ("erf", "sin", "cos") else x.astype(np.longdouble)
            worst, place = _ulps(found[name], function(wide))
        assert worst <= most, (name, x[place], found[name][place])


def test_gelu_keeps_the_digits_of_its_left_tail(drive, width):
    x = np.linspace(-9, 9, 4_001).astype(np.float32)
    writer = Writer()
    a = writer.argument("f32")
    expression = writer.finish(writer.apply("gelu", [a], {"approximate": "none"}))
    where, y = places(x.shape, [(1,)]), np.empty_like(x)
    kernel = PointwiseKernel(expression, 0, width)
    drive(kernel, tasks(where), words(expression, where, [x], [y], ()))
    wide = x.astype(np.float64)
    reference = 0.5 * wide * special.erfc(-wide * np.sqrt(0.5))
    assert np.max(np.abs(y - reference) / np.maximum(np.abs(reference), 1e-30)) < 5e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power(drive, width, dtype):
    odd = np.array([0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1e30, np.inf, -np.inf, np.nan], dtype)
    rng = np.random.default_rng(2)
    a = np.concatenate([np.repeat(odd, len(odd)), rng.lognormal(0, 4, 3_000).astype(dtype)])
    b = np.concatenate([np.tile(odd, len(odd)), rng.normal(0, 5, 3_000).astype(dtype)])
    writer = Writer()
    kind = "f32" if dtype == np.float32 else "f64"
    names = [writer.argument(kind), writer.argument(kind)]
    expression = writer.finish(writer.apply("pow", names))
    where, y = places(a.shape, [(1,), (1,)]), np.empty_like(a)
    kernel = PointwiseKernel(expression, 0, width)
    drive(kernel, tasks(where), words(expression, where, [a, b], [y], ()))
    with np.errstate(all="ignore"):
        reference = np.power(a.astype(np.longdouble), b.astype(np.longdouble))
        worst, place = _ulps(y, reference)
    assert worst <= 1.0, (a[place], b[place], y[place])
