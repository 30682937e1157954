"""Rules of algebra: neutral elements, known numbers, and the shortest name of a function."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from ..ops.base import OPS, as_arrays
from ..phase import node_symbols
from ..rewrite import Apply, Match, Number, Rewriter, Rule, Wild, op

FOLD_ELEMENTS = 4096
"""The largest tensor that is computed while compiling."""

_X, _Y = Wild("x"), Wild("y")


def _same_type(name: str = "x"):
    return lambda m: m.type_of(name) == m.type


def _keep(m: Match):
    return m["x"]


def _unary(name: str, **attrs):
    return lambda m: m.emit(name, m["x"], **attrs)


# ---------------------------------------------------------------- known numbers

_SOURCES = ("constant", "fill", "iota", "eye")


def _is_known(m: Match) -> bool:
    rw, node = m.rewriter, m.rewriter.node(m.root)
    operands = rw.operands(m.root)
    row = OPS.get(node.op)
    if row is None or row.reference is None or row.random or len(node.types) != 1:
        return False
    if not operands or any(rw.node(value.node).op not in _SOURCES for value in operands):
        return False
    sources = [rw.node(value.node) for value in operands]
    if any(node_symbols(known) for known in (node, *sources)):
        return False
    sizes = (node.type.elements, *(known.type.elements for known in sources))
    return all(isinstance(size, int) and size <= FOLD_ELEMENTS for size in sizes)


def _fold(m: Match) -> Value:
    rw = m.rewriter
    arrays = [_array(rw, value) for value in rw.operands(m.root)]
    (array,) = _run(rw.node(m.root), arrays)
    return rw.constant(array.astype(DTYPES[m.type.dtype]), m.type.dtype)


def _array(rw: Rewriter, value: Value) -> np.ndarray:
    found = rw.vector(value)
    return found if found is not None else _run(rw.node(value.node), ())[0]


def _run(node: Node, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    reference = OPS[node.op].reference
    assert reference is not None
    return as_arrays(reference(*arrays, **node.attrs))


# ---------------------------------------------------------------- conditions and helpers


def _is_float(m: Match) -> bool:
    return m.type.is_float


def _is_power_of_two(m: Match) -> bool:
    # Halving and doubling are exact unless the inverse leaves the range of normal numbers.
    c = m["c"]
    return c != 0 and math.isfinite(c) and abs(math.frexp(c)[0]) == 0.5 and abs(c) < 2.0**100


def _has_inverse(m: Match) -> bool:
    return _is_float(m) and m["c"] != 0 and math.isfinite(1 / m["c"]) and math.isfinite(m["c"])


def _times_inverse(m: Match):
    return m.emit("mul", m["x"], m.number(1 / m["c"]))


def _is_lossless_round_trip(m: Match) -> bool:
    wide = DTYPES[str(m["wide"])]
    return m.type_of("x") == m.type and np.can_cast(DTYPES[m.type.dtype], wide, "safe")


def _is_clamp(low: float, high: float | None):
    return lambda m: (m["low"], m["high"]) == (low, high)


EXACT = (
    Rule("constant folding", Apply((), None), _fold, _is_known),
    # x * 1 = x / 1 = x^1 = x
    Rule("times one", op("mul", _X, Number("one", 1)), _keep, _same_type()),
    Rule("over one", op("div", _X, Number("one", 1)), _keep, _same_type()),
    Rule("power one", op("pow", _X, Number("one", 1)), _keep, _same_type()),
    # x - 0 = x
    Rule("minus zero", op("sub", _X, Number("zero", 0)), _keep, _same_type()),
    # -(-x) = x; not not x = x
    Rule("double negation", op("neg", op("neg", _X)), _keep),
    Rule("double not", op("not", op("not", _X)), _keep),
    # | |x| | = |x|; relu(relu(x)) = relu(x)
    Rule("double abs", op("abs", op("abs", _X, name="y")), lambda m: m["y"]),
    Rule("double relu", op("relu", op("relu", _X, name="y")), lambda m: m["y"]),
    # -1 * x = -x
    Rule(
        "times minus one",
        op("mul", _X, Number("c", -1)),
        _unary("neg"),
        _same_type(),
    ),
    # x + (-y) = x - y; x - (-y) = x + y
    Rule("plus negative", op("add", _X, op("neg", _Y)), lambda m: m.emit("sub", m["x"], m["y"])),
    Rule("minus negative", op("sub", _X, op("neg", _Y)), lambda m: m.emit("add", m["x"], m["y"])),
    # x * x = x^2
    Rule("x times x", op("mul", _X, _X), _unary("square")),
    Rule("power two", op("pow", _X, Number("two", 2)), _unary("square"), _same_type()),
    # x / 2^n = x * 2^-n
    Rule(
        "over a power of two",
        op("div", _X, Number("c")),
        _times_inverse,
        lambda m: _has_inverse(m) and _is_power_of_two(m) and m.type_of("x") == m.type,
    ),
    # 1 / sqrt(x) = rsqrt(x)
    Rule("reciprocal root", op("reciprocal", op("sqrt", _X)), _unary("rsqrt")),
    # max(x, 0) = relu(x)
    Rule("maximum is relu", op("maximum", _X, Number("zero", 0)), _unary("relu"), _same_type()),
    Rule(
        "clamp is relu",
        op("clamp", _X, min="low", max="high"),
        _unary("relu"),
        _is_clamp(0, None),
    ),
    # min(max(x, 0), 6) = relu6(x)
    Rule(
        "clamp is relu6",
        op("clamp", _X, min="low", max="high"),
        _unary("relu6"),
        _is_clamp(0, 6),
    ),
    # Casting up and back again changes nothing.
    Rule("cast to itself", op("cast", _X), _keep, _same_type()),
    Rule(
        "cast there and back",
        op("cast", op("cast", _X, dtype="wide")),
        _keep,
        _is_lossless_round_trip,
    ),
)  # fmt: skip
"""Rules that keep every bit of a finite result."""

ROUNDING = (
    # x + 0 = x, but for the sign of zero
    Rule("plus zero", op("add", _X, Number("zero", 0)), _keep, _same_type()),
    # x / c = x * (1/c)
    Rule(
        "over a constant",
        op("div", _X, Number("c")),
        _times_inverse,
        lambda m: _has_inverse(m) and m.type_of("x") == m.type,
    ),
    # x / sqrt(y) = x * rsqrt(y)
    Rule(
        "over a root",
        op("div", _X, op("sqrt", _Y)),
        lambda m: m.emit("mul", m["x"], m.emit("rsqrt", m["y"])),
    ),
    # x^(1/2) = sqrt(x); x^(-1/2) = 1/sqrt(x); x^(-1) = 1/x
    Rule(
        "power half",
        op("pow", _X, Number("half", 0.5)),
        _unary("sqrt"),
        _same_type(),
    ),
    Rule(
        "power minus half",
        op("pow", _X, Number("half", -0.5)),
        _unary("rsqrt"),
        _same_type(),
    ),
    Rule(
        "power minus one",
        op("pow", _X, Number("minus_one", -1)),
        _unary("reciprocal"),
        lambda m: m.type_of("x") == m.type and _is_float(m),
    ),
    # x * sigmoid(x) = swish(x)
    Rule(
        "gated by itself",
        op("mul", _X, op("sigmoid", _X, slope="slope")),
        _unary("swish"),
        lambda m: m["slope"] == 1,
    ),
    # log(softmax(x)) = log_softmax(x)
    Rule(
        "log of softmax",
        op("log", op("softmax", _X, axis="axis", beta="beta")),
        lambda m: m.emit("log_softmax", m["x"], axis=m["axis"]),
        lambda m: m["beta"] == 1,
    ),
)  # fmt: skip
"""Rules whose result differs in the last digits."""

INFERENCE = (
    # Outside training, noise is off and nothing asks for gradients.
    Rule("no dropout", op("dropout drop_path stop_gradient", _X), _keep),
)
"""Rules that hold only when nothing is learnt."""
