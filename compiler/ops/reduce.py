"""Reductions along axes, positions of extremes, running sums, and the layers for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike, product
from ..ir.graph import Value
from ..ir.types import Attrs, TensorType
from .base import (
    OPS,
    Builder,
    Layer,
    Op,
    Operand,
    OpError,
    Setting,
    define,
    define_layer,
)
from .rules import axes_attr, axes_in, axis_attr, axis_in, quiet, require_kind
from .special import logsumexp

KINDS: dict[str, str] = {
    "sum": "number",
    "prod": "number",
    "max": "number",
    "min": "number",
    "mean": "float",
    "lse": "float",
    "any": "bool",
    "all": "bool",
}
"""Kinds of reduction and the family of element types each takes."""


def reduced_shape(
    shape: tuple[DimLike, ...], axes: tuple[int, ...], keepdims: bool
) -> tuple[DimLike, ...]:
    """The shape after reducing ``axes``."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _reduce_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    kind = str(attrs["kind"])
    if kind not in KINDS:
        raise OpError("E404", f"reduce: unknown kind {kind}; known are {', '.join(KINDS)}")
    require_kind(kind, types[0], KINDS[kind])
    axes = axes_attr(kind, attrs, types[0])
    return (types[0].with_shape(reduced_shape(types[0].shape, axes, bool(attrs["keepdims"]))),)


_NUMPY: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "any": np.any,
    "all": np.all,
}


@quiet
def _reduce(x: np.ndarray, kind: str, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    if kind == "lse":
        return logsumexp(x, axes, keepdims)
    # sum and prod widen small integers unless told the element type.
    extra = {"dtype": x.dtype} if kind in ("sum", "prod") else {}
    return np.asarray(_NUMPY[kind](x, axis=axes, keepdims=keepdims, **extra))


def _position_rule(name: str) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        require_kind(name, types[0], "number")
        axis = axis_attr(name, attrs, types[0])
        kept = reduced_shape(types[0].shape, (axis,), bool(attrs["keepdims"]))
        return (TensorType("i32", kept),)

    return shape


def _position(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def call(x: np.ndarray, axis: int, keepdims: bool) -> np.ndarray:
        return np.asarray(function(x, axis=axis, keepdims=keepdims)).astype(np.int32)

    return call


def _running_rule(name: str) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        require_kind(name, types[0], "number")
        axis_attr(name, attrs, types[0])
        return (types[0],)

    return shape


def _running(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    @quiet
    def call(x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
        if reverse:
            return np.flip(function(np.flip(x, axis), axis=axis, dtype=x.dtype), axis)
        return function(x, axis=axis, dtype=x.dtype)

    return call


def _var_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_kind("var", types[0], "float")
    axes = axes_attr("var", attrs, types[0])
    return (types[0].with_shape(reduced_shape(types[0].shape, axes, bool(attrs["keepdims"]))),)


@quiet
def _var(x: np.ndarray, axes: tuple[int, ...], keepdims: bool, unbiased: bool) -> np.ndarray:
    count = math.prod(x.shape[a] for a in axes) - (1 if unbiased else 0)
    deviation = x - np.mean(x, axis=axes, keepdims=True)
    total = np.sum(deviation * deviation, axis=axes, keepdims=keepdims)
    return np.asarray(np.divide(total, x.dtype.type(count)))


define(
    Op(
        "reduce",
        (Operand("x"),),
        _reduce_shape,
        _reduce,
        "All elements along axes joined: sum, prod, max, min, mean, lse (log-sum-exp), any, all.",
        attrs=("kind", "axes", "keepdims"),
        batching="axis",
        axis_attrs=("axes",),
    )
)
for _name, _function, _word in (
    ("argmax", np.argmax, "largest"),
    ("argmin", np.argmin, "smallest"),
):
    define(
        Op(
            _name,
            (Operand("x"),),
            _position_rule(_name),
            _position(_function),
            f"The position of the {_word} element along an axis; the first one on ties.",
            attrs=("axis", "keepdims"),
            batching="axis",
        )
    )
for _name, _function, _word in (
    ("cumsum", np.cumsum, "sum"),
    ("cumprod", np.cumprod, "product"),
):
    define(
        Op(
            _name,
            (Operand("x"),),
            _running_rule(_name),
            _running(_function),
            f"The running {_word} along an axis, from its end when reverse.",
            attrs=("axis", "reverse"),
            batching="axis",
        )
    )
define(
    Op(
        "var",
        (Operand("x"),),
        _var_shape,
        _var,
        "The mean squared deviation along axes, over n - 1 when unbiased.",
        attrs=("axes", "keepdims", "unbiased"),
        batching="axis",
        axis_attrs=("axes",),
    )
)


# ---------------------------------------------------------------- layers


def _reduce_layer(kind: str) -> Callable[..., Any]:
    def build(builder: Builder, tensors: Sequence[Value], axis: Any, keepdims: bool) -> Any:
        axes = axes_in(kind, axis, builder.type_of(tensors[0]).rank)
        return builder.emit("reduce", tensors, {"kind": kind, "axes": axes, "keepdims": keepdims})

    return build


def _position_layer(name: str) -> Callable[..., Any]:
    def build(builder: Builder, tensors: Sequence[Value], axis: int, keepdims: bool) -> Any:
        axis = axis_in(name, axis, builder.type_of(tensors[0]).rank)
        return builder.emit(name, tensors, {"axis": axis, "keepdims": keepdims})

    return build


def _running_layer(name: str) -> Callable[..., Any]:
    def build(builder: Builder, tensors: Sequence[Value], axis: int, reverse: bool) -> Any:
        axis = axis_in(name, axis, builder.type_of(tensors[0]).rank)
        return builder.emit(name, tensors, {"axis": axis, "reverse": reverse})

    return build


def _var_layer(
    builder: Builder, tensors: Sequence[Value], axis: Any, keepdims: bool, unbiased: bool
) -> Any:
    kind = builder.type_of(tensors[0])
    axes = axes_in("var", axis, kind.rank)
    if unbiased and product(kind.shape[a] for a in axes) == 1:
        raise OpError("E408", f"var: an unbiased variance needs two elements or more, found {kind}")
    attrs = {"axes": axes, "keepdims": keepdims, "unbiased": unbiased}
    return builder.emit("var", tensors, attrs)


def _std_layer(builder: Builder, tensors: Sequence[Value], **settings: Any) -> Any:
    return builder.emit("sqrt", [_var_layer(builder, tensors, **settings)])


def _norm_layer(builder: Builder, tensors: Sequence[Value], ord: float, axis: Any) -> Any:
    kind = builder.type_of(tensors[0])
    axes = axes_in("norm", axis, kind.rank)

    def joined(how: str, value: Value) -> Value:
        return builder.emit("reduce", [value], {"kind": how, "axes": axes, "keepdims": False})

    if ord == 2:
        return builder.emit("sqrt", [joined("sum", builder.emit("square", tensors))])
    size = builder.emit("abs", tensors)
    if ord == 1:
        return joined("sum", size)
    if ord == math.inf:
        return joined("max", size)
    if ord <= 0:
        raise OpError("E408", f"norm: the order must be positive, found {ord}")
    power, root = (
        builder.emit("fill", [], {"shape": (), "value": value, "dtype": kind.dtype})
        for value in (float(ord), 1.0 / ord)
    )
    return builder.emit("pow", [joined("sum", builder.emit("pow", [size, power])), root])


_AXES = Setting("axis", "ints", None)
_KEEP = Setting("keepdims", "bool", False)
_REDUCE_DOCS = {
    "sum": "The sum along axes (all by default).",
    "prod": "The product along axes (all by default).",
    "max": "The largest element along axes (all by default).",
    "min": "The smallest element along axes (all by default).",
    "mean": "The mean along axes (all by default).",
    "lse": "log(sum(exp(x))) along axes (all by default), without overflow.",
    "any": "Whether any element holds along axes (all by default).",
    "all": "Whether every element holds along axes (all by default).",
}
for _name, _doc in _REDUCE_DOCS.items():
    define_layer(Layer(_name, (_AXES, _KEEP), (1, 1), _reduce_layer(_name), _doc, batching="axis"))
for _name in ("argmax", "argmin"):
    define_layer(
        Layer(
            _name,
            (Setting("axis", "int"), _KEEP),
            (1, 1),
            _position_layer(_name),
            OPS[_name].doc,
            batching="axis",
        )
    )
for _name in ("cumsum", "cumprod"):
    define_layer(
        Layer(
            _name,
            (Setting("axis", "int"), Setting("reverse", "bool", False)),
            (1, 1),
            _running_layer(_name),
            OPS[_name].doc,
            batching="axis",
        )
    )
for _name, _build, _doc in (
    ("var", _var_layer, "The variance along axes (all by default), over n unless unbiased."),
    ("std", _std_layer, "The root of the variance along axes, over n unless unbiased."),
):
    define_layer(
        Layer(
            _name,
            (_AXES, _KEEP, Setting("unbiased", "bool", False)),
            (1, 1),
            _build,
            _doc,
            batching="axis",
        )
    )
define_layer(
    Layer(
        "norm",
        (Setting("ord", "number", 2), _AXES),
        (1, 1),
        _norm_layer,
        "The p-norm of all elements along axes; 2 by default, inf for the largest size.",
        batching="axis",
    )
)
