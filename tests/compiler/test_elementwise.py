"""Arithmetic, comparison, logic and special functions against plain Python and SciPy."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
import scipy.special as sp
from tilth.compiler.ir.dims import symbol
from tilth.compiler.ir.types import TensorType
from tilth.compiler.ops import OPS, OpError, infer
from tilth.compiler.ops.special import log_bessel_k, polygamma

RNG = np.random.default_rng(0)
FLOAT_DTYPES = (np.float16, np.float32, np.float64)
N = symbol("N")

BINARY = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "minimum": min,
    "maximum": max,
    "atan2": math.atan2,
}
COMPARE = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
UNARY = {
    "neg": operator.neg,
    "exp": math.exp,
    "expm1": math.expm1,
    "abs": abs,
    "sign": lambda x: math.copysign(1, x),
    "square": lambda x: x * x,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "reciprocal": lambda x: 1 / x,
}
POSITIVE = {
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
}
UNIT = {
    "asin": math.asin,
    "acos": math.acos,
    "logit": lambda p: math.log(p / (1 - p)),
}


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_binary_matches_python_and_broadcasts(run_op, name, dtype) -> None:
    a = RNG.uniform(-3, 3, (3, 1, 5)).astype(dtype)
    b = RNG.uniform(0.5, 3, (7, 1)).astype(dtype)
    expected = [
        [[BINARY[name](float(a[i, 0, k]), float(b[j, 0])) for k in range(5)] for j in range(7)]
        for i in range(3)
    ]
    got = run_op(name, a, b)
    assert got.dtype == dtype
    # A quotient that rounds to a whole number may floor either way.
    tolerance = np.finfo(dtype).eps * 8
    np.testing.assert_allclose(got.astype(float), expected, rtol=tolerance, atol=tolerance * 4)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "floordiv", "mod", "minimum", "maximum"])
def test_integers_stay_integers(run_op, name) -> None:
    a = np.array([7, -7, 3, 0], np.int32)
    b = np.array([2, 2, -2, 5], np.int32)
    got = run_op(name, a, b)
    assert got.dtype == np.int32
    assert got.tolist() == [BINARY[name](int(x), int(y)) for x, y in zip(a, b, strict=True)]


def test_integer_division_by_zero_is_silent_zero(run_op) -> None:
    assert run_op("floordiv", np.array([3], np.int32), np.array([0], np.int32)).tolist() == [0]


@pytest.mark.parametrize("name", COMPARE)
def test_comparisons(run_op, name) -> None:
    a, b = RNG.integers(0, 3, (2, 11)).astype(np.int64)
    got = run_op(name, a, b)
    assert got.dtype == bool
    assert got.tolist() == [COMPARE[name](x, y) for x, y in zip(a, b, strict=True)]


def test_logic(run_op) -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    assert run_op("and", a, b).tolist() == [False, False, False, True]
    assert run_op("or", a, b).tolist() == [False, True, True, True]
    assert run_op("xor", a, b).tolist() == [False, True, True, False]
    assert run_op("not", a).tolist() == [True, True, False, False]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *POSITIVE, *UNIT])
def test_unary_matches_math(run_op, name, dtype) -> None:
    low, high = (0.05, 4) if name in POSITIVE else (0.05, 0.95) if name in UNIT else (-4, 4)
    x = RNG.uniform(low, high, 37).astype(dtype)
    function = (UNARY | POSITIVE | UNIT)[name]
    got = run_op(name, x)
    assert got.dtype == dtype
    tolerance = np.finfo(dtype).eps * 8
    np.testing.assert_allclose(
        got.astype(float), [function(float(v)) for v in x], rtol=tolerance, atol=tolerance
    )


def test_round_sends_halves_to_even(run_op) -> None:
    assert run_op("round", np.array([0.5, 1.5, 2.5, -0.5])).tolist() == [0, 2, 2, -0.0]


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_pow(run_op, dtype) -> None:
    base, exponent = np.array([2, 9, 0.5, 4], dtype), np.array([3, 0.5, -2, 0], dtype)
    assert run_op("pow", base, exponent).tolist() == [8, 3, 4, 1]
    with pytest.raises(OpError, match="negative power") as caught:
        run_op("pow", np.array([2], np.int32), np.array([-1], np.int32))
    assert caught.value.code == "E408"


def test_special_values_come_without_warnings(run_op, recwarn) -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert np.isinf(run_op("div", one, zero))
    assert np.isneginf(run_op("log", zero))
    assert np.isnan(run_op("sqrt", -one))
    assert not recwarn.list


GRID = np.concatenate(
    [
        np.linspace(1e-3, 30, 3001),
        np.geomspace(1e-10, 1e10, 501),
        np.linspace(-9.9912, -0.0123, 701),
    ]
)


@pytest.mark.parametrize(("name", "truth"), [("lgamma", sp.gammaln), ("digamma", sp.digamma)])
def test_gamma_functions(run_op, name, truth) -> None:
    expected = truth(GRID)
    error = np.abs(run_op(name, GRID) - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < 1e-13
    single = run_op(name, GRID[:3001].astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(
        single, truth(GRID[:3001].astype(np.float32).astype(float)), rtol=1e-6, atol=1e-6
    )


def test_gamma_functions_at_poles(run_op) -> None:
    poles = np.array([0.0, -1.0, -2.0])
    assert np.isposinf(run_op("lgamma", poles)).all()
    assert np.isneginf(run_op("digamma", poles)[0])
    assert np.isnan(run_op("digamma", poles)[1:]).all()
    assert run_op("lgamma", np.array([np.inf]))[0] == np.inf


@pytest.mark.parametrize("n", [1, 2, 5])
def test_polygamma(run_op, n) -> None:
    x = GRID[(GRID > 1e-3) & (GRID < 1e4)]
    np.testing.assert_allclose(run_op("polygamma", x, n=n), sp.polygamma(n, x), rtol=1e-13)
    assert np.isnan(polygamma(np.array([-0.5, 0.0]), n)).all()


def test_log_bessel_k() -> None:
    order = np.array([0, 0.01, 0.5, 1, 2.3, 10, 50, 300.0])[:, None]
    x = np.geomspace(1e-8, 1e4, 41)
    truth = np.log(sp.kve(order, x)) - x
    known = np.isfinite(truth)
    assert known.mean() > 0.8
    error = np.abs(log_bessel_k(order, x) - truth)[known]
    assert (error / np.maximum(1, np.abs(truth[known]))).max() < 1e-13
    np.testing.assert_array_equal(log_bessel_k(-order, x), log_bessel_k(order, x))


def test_where_cast_clamp_stop(run_op) -> None:
    a, b = np.arange(3, dtype=np.float32), -np.ones(1, np.float32)
    assert run_op("where", np.array([True, False, True]), a, b).tolist() == [0, -1, 2]
    assert run_op("cast", np.array([1.9, -1.9, 0.2]), dtype="i32").tolist() == [1, -1, 0]
    assert run_op("cast", np.array([0.0, 0.5]), dtype="bool").tolist() == [False, True]
    assert run_op("clamp", a, min=0.5, max=1.5).tolist() == [0.5, 1, 1.5]
    assert run_op("clamp", a, min=None, max=1).tolist() == [0, 1, 1]
    assert run_op("clamp", np.array([0, 200], np.uint8), min=-5, max=100).tolist() == [0, 100]
    assert np.isnan(run_op("clamp", np.array([np.nan]), min=0, max=1))
    assert run_op("stop_gradient", a).tolist() == a.tolist()
    assert run_op("isnan", np.array([np.nan, 1.0])).tolist() == [True, False]


def test_layers(run_layer) -> None:
    x = np.array([-2.0, 0.5, 3.0], np.float32)
    np.testing.assert_array_equal(run_layer("clamp", x, lo=-1, hi=1), [-1, 0.5, 1])
    np.testing.assert_allclose(run_layer("exp", x), np.exp(x))
    np.testing.assert_array_equal(run_layer("cast", x, dtype="i32"), [-2, 0, 3])
    np.testing.assert_array_equal(run_layer("stop", x), x)


def fails(code: str, op: str, *types: TensorType, **attrs: object) -> str:
    with pytest.raises(OpError) as caught:
        infer(op, types, attrs)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value.message


def test_shapes_that_never_broadcast_are_refused() -> None:
    message = fails("E103", "add", TensorType("f32", (N, 3)), TensorType("f32", (N, 4)))
    assert "[N, 3]" in message and "[N, 4]" in message


def test_undecided_sizes_take_the_left_one() -> None:
    left, right = TensorType("f32", (N, 3)), TensorType("f32", (symbol("M"), 1))
    assert infer("add", [left, right], {}) == (left,)
    assert infer("add", [TensorType("f32", (1, 3)), right], {})[0].shape == (symbol("M"), 3)


def test_element_types() -> None:
    f32, f64, i32 = (TensorType(dtype, (2,)) for dtype in ("f32", "f64", "i32"))
    message = fails("E104", "mul", f32, f64)
    assert "f32" in message and "f64" in message
    fails("E104", "div", i32, i32)
    fails("E104", "exp", i32)
    fails("E104", "and", i32, i32)
    fails("E104", "add", TensorType("bool", (2,)), TensorType("bool", (2,)))
    fails("E104", "where", f32, f32, f32)
    fails("E404", "cast", f32, dtype="f128")
    fails("E404", "clamp", i32, min=0.5, max=None)
    fails("E408", "clamp", f32, min=2, max=1)
    fails("E408", "polygamma", f32, n=0)


def test_every_elementwise_op_broadcasts_as_declared() -> None:
    for op in OPS.values():
        if op.batching == "elementwise" and len(op.operands) == 2 and op.reference is not None:
            for dtype in ("f32", "bool"):
                a, b = TensorType(dtype, (2, 1)), TensorType(dtype, (3,))
                try:
                    (result,) = infer(op.name, [a, b], {})
                except (OpError, KeyError):
                    continue
                assert result.shape == (2, 3), op.name
