"""Ops that order elements along an axis: sort, argsort, top k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.graph import Value
from ..ir.types import Attrs, TensorType
from .base import OPS, Builder, Layer, Op, Operand, OpError, Setting, define, define_layer
from .rules import axis_attr, axis_in, require_kind


def _sort_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_kind("sort", types[0], "number")
    axis_attr("sort", attrs, types[0])
    return (types[0],)


def _argsort_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    return (_sort_shape(types, attrs)[0].with_dtype("i32"),)


def _topk_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = types[0]
    require_kind("topk", x, "number")
    axis, k = axis_attr("topk", attrs, x), attrs["k"]
    spare = x.shape[axis] - k  # type: ignore[operator]
    if (isinstance(k, int) and k < 1) or (isinstance(spare, int) and spare < 0):
        raise OpError("E408", f"topk: k = {k} does not fit axis {axis} of {x}")
    kept = x.with_shape([*x.shape[:axis], k, *x.shape[axis + 1 :]])  # type: ignore[list-item]
    return (kept, kept.with_dtype("i32"))


def _order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """Positions of the elements in order; equal ones keep theirs, in both directions."""
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(backwards, axis)


def _sort(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    return np.take_along_axis(x, _order(x, axis, descending), axis)


def _argsort(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    return _order(x, axis, descending).astype(np.int32)


def _topk(x: np.ndarray, k: int, axis: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    first = np.take(_order(x, axis, largest), np.arange(k), axis)
    return np.take_along_axis(x, first, axis), first.astype(np.int32)


define(
    Op(
        "sort",
        (Operand("x"),),
        _sort_shape,
        _sort,
        "Elements along an axis in order; nan counts as the largest.",
        attrs=("axis", "descending"),
        batching="axis",
    )
)
define(
    Op(
        "argsort",
        (Operand("x"),),
        _argsort_shape,
        _argsort,
        "Positions of the elements in order; equal ones keep their order.",
        attrs=("axis", "descending"),
        batching="axis",
    )
)
define(
    Op(
        "topk",
        (Operand("x"),),
        _topk_shape,
        _topk,
        "The k largest (or smallest) elements along an axis, in order, and their positions.",
        attrs=("k", "axis", "largest"),
        batching="axis",
    )
)


def _sort_layer(name: str) -> Any:
    def build(builder: Builder, tensors: Sequence[Value], axis: int, descending: bool) -> Any:
        axis = axis_in(name, axis, builder.type_of(tensors[0]).rank)
        return builder.emit(name, tensors, {"axis": axis, "descending": descending})

    return build


def _topk_layer(
    builder: Builder, tensors: Sequence[Value], k: Any, axis: int, largest: bool
) -> Any:
    axis = axis_in("topk", axis, builder.type_of(tensors[0]).rank)
    return builder.emit("topk", tensors, {"k": k, "axis": axis, "largest": largest})


for _name in ("sort", "argsort"):
    define_layer(
        Layer(
            _name,
            (Setting("axis", "int", -1), Setting("descending", "bool", False)),
            (1, 1),
            _sort_layer(_name),
            OPS[_name].doc,
            batching="axis",
        )
    )
define_layer(
    Layer(
        "topk",
        (Setting("k", "int"), Setting("axis", "int", -1), Setting("largest", "bool", True)),
        (1, 1),
        _topk_layer,
        OPS["topk"].doc,
        batching="axis",
    )
)
