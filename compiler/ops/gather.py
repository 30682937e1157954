"""Ops that read or write by index: gather, take, scatter-add, segment sums, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike
from ..ir.graph import Value
from ..ir.types import Attrs, TensorType
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer
from .rules import (
    axes_attr,
    axis_attr,
    axis_in,
    broadcast_shapes,
    check_index,
    require_equal,
    require_kind,
    require_rank,
    require_same_dtype,
)


def _gather_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices = types[0], types[1:]
    axes = axes_attr("gather", attrs, x)
    if not axes or len(indices) != len(axes):
        raise OpError("E407", f"gather: {len(indices)} index tensors for {len(axes)} axes of {x}")
    for kind in indices:
        require_kind("gather", kind, "integer")
    joined = broadcast_shapes("gather", [kind.shape for kind in indices])
    rest = [size for axis, size in enumerate(x.shape) if axis not in axes]
    return (x.with_shape([*joined, *rest]),)


def _gather(x: np.ndarray, *indices: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    for axis, index in zip(axes, indices, strict=True):
        check_index("gather", index, x.shape[axis])
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    return np.asarray(x.transpose([*axes, *rest])[tuple(indices)])


def _take_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, index = types
    require_kind("take", index, "integer")
    axis = axis_attr("take", attrs, x)
    return (x.with_shape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]]),)


def _take(x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    check_index("take", index, x.shape[axis])
    return np.take(x, index, axis)


def _scatter_add_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    base, index, updates = types
    require_kind("scatter_add", base, "number")
    require_kind("scatter_add", index, "integer")
    require_same_dtype("scatter_add", [base, updates])
    require_rank("scatter_add", base, 1)
    wanted = (*index.shape, *base.shape[1:])
    require_rank("scatter_add updates", updates, len(wanted), len(wanted))
    for a, b in zip(wanted, updates.shape, strict=True):
        require_equal("scatter_add", a, b, types)
    return (base,)


def _scatter_add(base: np.ndarray, index: np.ndarray, updates: np.ndarray) -> np.ndarray:
    check_index("scatter_add", index, base.shape[0])
    result = base.copy()
    np.add.at(result, index, updates)
    return result


def _segment_sum_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, segment = types
    require_kind("segment_sum", x, "number")
    require_kind("segment_sum", segment, "integer")
    require_rank("segment_sum", x, 1)
    require_rank("segment_sum segments", segment, 1, 1)
    require_equal("segment_sum", x.shape[0], segment.shape[0], types)
    segments: Any = attrs["segments"]
    return (x.with_shape([segments, *x.shape[1:]]),)


def _segment_sum(x: np.ndarray, segment: np.ndarray, segments: int) -> np.ndarray:
    return _scatter_add(np.zeros((segments, *x.shape[1:]), x.dtype), segment, x)


define(
    Op(
        "gather",
        (Operand("x"), Operand("indices", variadic=True)),
        _gather_shape,
        _gather,
        "Elements of x at indices along axes; the result has the indices' shape, then the rest.",
        attrs=("axes",),
        axis_attrs=("axes",),
    )
)
define(
    Op(
        "take",
        (Operand("x"), Operand("index")),
        _take_shape,
        _take,
        "Slices of x at indices along an axis, which the index's axes replace.",
        attrs=("axis",),
    )
)
define(
    Op(
        "scatter_add",
        (Operand("base"), Operand("index"), Operand("updates")),
        _scatter_add_shape,
        _scatter_add,
        "base with updates[i] added to row index[i], in the order of i.",
    )
)
define(
    Op(
        "segment_sum",
        (Operand("x"), Operand("segment")),
        _segment_sum_shape,
        _segment_sum,
        "Row s of the result is the sum of the rows of x whose segment is s.",
        attrs=("segments",),
    )
)


def _take_layer(builder: Builder, tensors: Sequence[Value], axis: int) -> Any:
    axis = axis_in("take", axis, builder.type_of(tensors[0]).rank)
    return builder.emit("take", tensors, {"axis": axis})


def _segment_sum_layer(builder: Builder, tensors: Sequence[Value], segments: DimLike) -> Any:
    return builder.emit("segment_sum", tensors, {"segments": segments})


def _embedding_layer(
    builder: Builder, tensors: Sequence[Value], count: DimLike, dim: DimLike, init: Any
) -> Any:
    weight = builder.param("weight", (count, dim), init)
    return builder.emit("take", [weight, tensors[0]], {"axis": 0})


define_layer(
    Layer(
        "take",
        (Setting("axis", "int", 0),),
        (2, 2),
        _take_layer,
        "Slices of a tensor at indices along an axis.",
    )
)
define_layer(
    Layer(
        "segment_sum",
        (Setting("segments", "int"),),
        (2, 2),
        _segment_sum_layer,
        "Rows summed by the segment each belongs to.",
    )
)
define_layer(
    Layer(
        "embedding",
        (
            Setting("count", "int"),
            Setting("dim", "int"),
            Setting("init", "rule", ("normal", 0.0, 1.0)),
        ),
        (1, 1),
        _embedding_layer,
        "A learnt vector for each of `count` tokens.",
        batching="elementwise",
        has_weights=True,
    )
)
