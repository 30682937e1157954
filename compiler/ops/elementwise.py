"""Ops on single elements: arithmetic, comparison, logic, roots, powers, trigonometry, casts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.graph import Value
from ..ir.types import DTYPES, Attrs, TensorType
from .base import OPS, Builder, Layer, Op, Operand, OpError, Setting, define, define_layer, layer_of
from .rules import broadcast_shapes, quiet, require_kind, require_same_dtype
from .special import digamma, lgamma, log_bessel_k, polygamma


def _binary_rule(name: str, family: str, result: str | None) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        require_same_dtype(name, types)
        for kind in types:
            require_kind(name, kind, family)
        joined = broadcast_shapes(name, [kind.shape for kind in types])
        return (TensorType(result or types[0].dtype, joined),)

    return shape


def _unary_rule(name: str, family: str, result: str | None = None) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        require_kind(name, types[0], family)
        return (types[0].with_dtype(result or types[0].dtype),)

    return shape


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if b.dtype.kind in "iu" and np.any(b < 0):
        raise OpError(
            "E408", f"pow: a whole number to a negative power ({b.min()})", "cast to f32 first"
        )
    return np.power(a, b)


_BINARY: tuple[tuple[str, str, Callable[..., Any], str], ...] = (
    ("add", "number", np.add, "a + b."),
    ("sub", "number", np.subtract, "a - b."),
    ("mul", "number", np.multiply, "a * b."),
    ("div", "float", np.divide, "a / b, real division."),
    ("floordiv", "number", np.floor_divide, "floor(a / b); whole numbers by zero give zero."),
    ("mod", "number", np.mod, "a - b * floor(a / b): the sign is that of b."),
    ("pow", "number", _power, "a to the power b."),
    ("minimum", "number", np.minimum, "The smaller of two; nan wins."),
    ("maximum", "number", np.maximum, "The larger of two; nan wins."),
    ("atan2", "float", np.arctan2, "The angle of the point (x=b, y=a), in -pi..pi."),
)
_COMPARISON: tuple[tuple[str, str, Callable[..., Any], str], ...] = (
    ("eq", "any", np.equal, "Whether a = b."),
    ("ne", "any", np.not_equal, "Whether a differs from b."),
    ("lt", "number", np.less, "Whether a < b."),
    ("le", "number", np.less_equal, "Whether a <= b."),
    ("gt", "number", np.greater, "Whether a > b."),
    ("ge", "number", np.greater_equal, "Whether a >= b."),
    ("and", "bool", np.logical_and, "Whether both hold."),
    ("or", "bool", np.logical_or, "Whether at least one holds."),
    ("xor", "bool", np.logical_xor, "Whether exactly one holds."),
)
_UNARY: tuple[tuple[str, str, Callable[..., Any], str], ...] = (
    ("neg", "number", np.negative, "-x."),
    ("exp", "float", np.exp, "e to the power x."),
    ("log", "float", np.log, "The natural logarithm."),
    ("log1p", "float", np.log1p, "log(1 + x), exact near 0."),
    ("expm1", "float", np.expm1, "exp(x) - 1, exact near 0."),
    ("sqrt", "float", np.sqrt, "The square root."),
    ("rsqrt", "float", lambda x: np.reciprocal(np.sqrt(x)), "1 / sqrt(x)."),
    ("reciprocal", "float", np.reciprocal, "1 / x."),
    ("abs", "number", np.abs, "The absolute value."),
    ("sign", "number", np.sign, "-1, 0 or 1."),
    ("square", "number", np.square, "x * x."),
    ("floor", "float", np.floor, "The largest whole number not above x."),
    ("ceil", "float", np.ceil, "The smallest whole number not below x."),
    ("round", "float", np.rint, "The nearest whole number; halves go to the even one."),
    ("sin", "float", np.sin, "The sine."),
    ("cos", "float", np.cos, "The cosine."),
    ("tan", "float", np.tan, "The tangent."),
    ("asin", "float", np.arcsin, "The inverse sine."),
    ("acos", "float", np.arccos, "The inverse cosine."),
    ("atan", "float", np.arctan, "The inverse tangent."),
    ("sinh", "float", np.sinh, "The hyperbolic sine."),
    ("cosh", "float", np.cosh, "The hyperbolic cosine."),
    ("logit", "float", lambda p: np.log(p) - np.log1p(-p), "log(p / (1 - p))."),
    ("lgamma", "float", lgamma, "The logarithm of |gamma(x)|."),
    ("digamma", "float", digamma, "The derivative of lgamma."),
)
_OPERATORS = ("neg", "reciprocal")
"""Unary ops that users reach through an operator, not by name."""

for _name, _family, _function, _doc in _BINARY:
    define(
        Op(
            _name,
            (Operand("a"), Operand("b")),
            _binary_rule(_name, _family, None),
            quiet(_function),
            _doc,
            batching="elementwise",
        )
    )
layer_of(OPS["atan2"])
for _name, _family, _function, _doc in _COMPARISON:
    define(
        Op(
            _name,
            (Operand("a"), Operand("b")),
            _binary_rule(_name, _family, "bool"),
            quiet(_function),
            _doc,
            batching="elementwise",
        )
    )
for _name, _family, _function, _doc in _UNARY:
    _op = define(
        Op(
            _name,
            (Operand("x"),),
            _unary_rule(_name, _family),
            quiet(_function),
            _doc,
            batching="elementwise",
        )
    )
    if _name not in _OPERATORS:
        layer_of(_op)


def _polygamma_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_kind("polygamma", types[0], "float")
    order = attrs["n"]
    if not isinstance(order, int) or order < 1:
        raise OpError("E408", f"polygamma: the order must be 1 or more, found {order}")
    return (types[0],)


define(
    Op(
        "log_bessel_k",
        (Operand("order"), Operand("x")),
        _binary_rule("log_bessel_k", "float", None),
        quiet(log_bessel_k),
        "The logarithm of the modified Bessel function of the second kind, for x > 0.",
    )
)


def _where_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_kind("where", types[0], "bool")
    require_same_dtype("where", types[1:])
    # The branches first: a clash between them is what the user wrote.
    branches = broadcast_shapes("where", [types[1].shape, types[2].shape])
    return (TensorType(types[1].dtype, broadcast_shapes("where", [branches, types[0].shape])),)


def _cast_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    dtype = attrs["dtype"]
    if dtype not in DTYPES:
        raise OpError("E404", f"cast: unknown element type {dtype}; known are {', '.join(DTYPES)}")
    return (types[0].with_dtype(str(dtype)),)


def _cast(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(DTYPES[dtype])


def _clamp_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_kind("clamp", types[0], "number")
    low, high = attrs["min"], attrs["max"]
    for bound in (low, high):
        if bound is not None and not types[0].is_float and float(bound) % 1:  # type: ignore[arg-type]
            raise OpError("E404", f"clamp: whole numbers need a whole bound, found {bound}")
    if low is not None and high is not None and float(low) > float(high):  # type: ignore[arg-type]
        raise OpError("E408", f"clamp: the lower bound {low} is above the upper bound {high}")
    return (types[0],)


def _clamp(x: np.ndarray, min: float | None, max: float | None) -> np.ndarray:
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        low = limits.min if min is None else int(np.clip(min, limits.min, limits.max))
        high = limits.max if max is None else int(np.clip(max, limits.min, limits.max))
    else:
        low, high = min, max
    if low is not None:
        x = np.maximum(x, x.dtype.type(low))
    return x if high is None else np.minimum(x, x.dtype.type(high))


def _clamp_layer(builder: Builder, tensors: Sequence[Value], lo: Any, hi: Any) -> Any:
    return builder.emit("clamp", tensors, {"min": lo, "max": hi})


def _same_type(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    return (types[0],)


layer_of(
    define(
        Op(
            "isnan",
            (Operand("x"),),
            _unary_rule("isnan", "float", "bool"),
            np.isnan,
            "Whether x is not a number.",
            batching="elementwise",
        )
    )
)
define(
    Op(
        "not",
        (Operand("x"),),
        _unary_rule("not", "bool"),
        np.logical_not,
        "Whether x does not hold.",
        batching="elementwise",
    )
)
define(
    Op(
        "polygamma",
        (Operand("x"),),
        _polygamma_shape,
        polygamma,
        "The n-th derivative of digamma, for x > 0; nan elsewhere.",
        attrs=("n",),
        batching="elementwise",
    )
)
layer_of(
    define(
        Op(
            "where",
            (Operand("condition"), Operand("a"), Operand("b")),
            _where_shape,
            np.where,
            "a where the condition holds, else b.",
            batching="elementwise",
        )
    )
)
layer_of(
    define(
        Op(
            "cast",
            (Operand("x"),),
            _cast_shape,
            quiet(_cast),
            "The same values as another element type; to whole numbers towards zero.",
            attrs=("dtype",),
            batching="elementwise",
        )
    ),
    Setting("dtype", "dtype"),
)
define(
    Op(
        "clamp",
        (Operand("x"),),
        _clamp_shape,
        _clamp,
        "x moved into min..max; a bound of none is open, nan stays.",
        attrs=("min", "max"),
        batching="elementwise",
    )
)
define_layer(
    Layer(
        "clamp",
        (Setting("lo", "number", None), Setting("hi", "number", None)),
        (1, 1),
        _clamp_layer,
        "x moved into lo..hi; a bound that is left out is open.",
        batching="elementwise",
    )
)
layer_of(
    define(
        Op(
            "stop_gradient",
            (Operand("x"),),
            _same_type,
            lambda x: x,
            "x itself; gradients do not pass.",
            batching="elementwise",
        )
    ),
    name="stop",
)
define(
    Op(
        "after",
        (Operand("x"), Operand("others", variadic=True)),
        _same_type,
        lambda x, *others: x,
        "x itself, once the others are there: what reads it is not computed earlier.",
    )
)
