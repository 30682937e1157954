"""Gradients of reading and writing by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.dims import product
from ..base import gradient_of
from ..expr import Expr, Pullback


def _added_at(d: Expr, index: Expr, rows: Any, rest: Sequence[Any]) -> Expr:
    """Zeros ``[rows, rest...]`` with ``d`` ``[index..., rest...]`` added at the rows it names."""
    count = index.type.elements
    base = d.writer.fill((rows, *rest), 0, d.dtype)
    return base.op("scatter_add", index.reshape((count,)), d.reshape((count, *rest)))


@gradient_of("take")
def _take(pull: Pullback) -> Sequence[Expr | None]:
    x, index = pull.x
    axis: Any = pull.attrs["axis"]
    placed = range(axis, axis + index.rank)
    order = [*placed, *(a for a in range(pull.d.rank) if a not in placed)]
    rest = [size for a, size in enumerate(x.shape) if a != axis]
    made = _added_at(pull.d.transpose(order), index, x.shape[axis], rest)
    return [made.moved(0, axis)]


@gradient_of("gather")
def _gather(pull: Pullback) -> Sequence[Expr | None]:
    x, *indices = pull.x
    axes: Any = pull.attrs["axes"]
    rest = [axis for axis in range(x.rank) if axis not in axes]
    # One number a place: indices along several axes as a position in row-major order.
    flat = indices[0].cast("i64")
    for axis, index in zip(axes[1:], indices[1:], strict=True):
        flat = flat * index.writer.size(x.shape[axis], "i64") + index.cast("i64")
    joined = pull.y[0].shape[: pull.y[0].rank - len(rest)]
    flat = flat.broadcast(joined)
    rows = product(x.shape[axis] for axis in axes)
    made = _added_at(pull.d, flat, rows, [x.shape[axis] for axis in rest])
    order = [*axes, *rest]
    made = made.reshape([x.shape[axis] for axis in order])
    return [made.transpose([order.index(axis) for axis in range(x.rank)])]


@gradient_of("scatter_add")
def _scatter_add(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d, None, pull.d.op("take", pull.x[1], axis=0)]


@gradient_of("segment_sum")
def _segment_sum(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("take", pull.x[1], axis=0)]


@gradient_of("densify")
def _densify(pull: Pullback) -> Sequence[Expr | None]:
    indptr, index, value = pull.x
    # The row of each entry: how many rows end at or before it.
    place = pull.writer.make("iota", size=value.shape[0], dtype="i64").unsqueeze(1)
    ends = indptr.cast("i64").slice(0, 1, indptr.shape[0]).unsqueeze(0)
    row = (place >= ends).cast("i64").sum([1])
    return [None, None, pull.d.op("gather", row, index, axes=(0, 1))]
