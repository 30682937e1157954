"""Gradients of reductions and running sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.dims import product
from ...ir.graph import Graph
from ...ir.types import TensorType
from ..base import gradient_of, zero_gradient
from ..expr import Expr, Pullback, Writer

zero_gradient("positions are whole numbers and carry no derivative", "argmax", "argmin")


def first_extreme(x: Expr, axes: Sequence[int], position: str) -> Expr:
    """1 at the first extreme element along axes (row-major), 0 elsewhere; like ``x``."""
    axes = tuple(axes)
    kept = [axis for axis in range(x.rank) if axis not in axes]
    last = len(kept)
    size = product(x.shape[axis] for axis in axes)
    flat = x.transpose([*kept, *axes]).reshape([*(x.shape[a] for a in kept), size])
    hot = flat.op(position, axis=last, keepdims=False).op("one_hot", size=size, dtype=x.dtype)
    order = [*kept, *axes]
    spread = hot.reshape([x.shape[axis] for axis in order])
    return spread.transpose([order.index(axis) for axis in range(x.rank)])


@gradient_of("reduce")
def _reduce(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    kind, axes, keepdims = attrs["kind"], tuple(attrs["axes"]), attrs["keepdims"]
    x = pull.x[0]
    if not axes:
        return [pull.d]
    d, y = (v.spread(x, axes, keepdims) for v in (pull.d, pull.y[0]))
    if kind == "sum":
        return [d.broadcast(x.shape)]
    if kind == "mean":
        return [(d / x.count(axes)).broadcast(x.shape)]
    if kind == "lse":
        # exp(x - lse(x)); an element of -inf weighs nothing, even where all are
        return [d * x.same(float("-inf")).where(0, (x - y).exp())]
    if kind == "prod":
        return [d * _product_of_others(x, axes)]
    return [d * first_extreme(x, axes, f"arg{kind}")]


def _product_of_others(x: Expr, axes: tuple[int, ...]) -> Expr:
    """For each element the product of the others along axes, zeros among them or not."""
    kept = [axis for axis in range(x.rank) if axis not in axes]
    order = [*kept, *axes]
    last, size = len(kept), product(x.shape[axis] for axis in axes)
    flat = x.transpose(order).reshape([*(x.shape[a] for a in kept), size])
    others = _exclusive(flat, last, False) * _exclusive(flat, last, True)
    spread = others.reshape([x.shape[axis] for axis in order])
    return spread.transpose([order.index(axis) for axis in range(x.rank)])


def _exclusive(x: Expr, axis: int, reverse: bool) -> Expr:
    """The running product of what comes before each element (after it, when reverse)."""
    size = x.shape[axis]
    running = x.op("cumprod", axis=axis, reverse=reverse)
    one = [1 if a == axis else 0 for a in range(x.rank)]
    none = [0] * x.rank
    if size == 1:
        return x.filled(1)
    part = running.slice(axis, 1, size) if reverse else running.slice(axis, 0, size - 1)
    return part.pad(none, one, 1) if reverse else part.pad(one, none, 1)


@gradient_of("cumsum")
def _cumsum(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    return [pull.d.op("cumsum", axis=attrs["axis"], reverse=not attrs["reverse"])]


@gradient_of("cumprod")
def _cumprod(pull: Pullback) -> Sequence[Expr | None]:
    # dx[i] = (product before i) * r[i] with r[i] = d[i] + x[i+1] r[i+1], exact with zeros
    attrs: Any = pull.attrs
    axis, reverse, x = attrs["axis"], bool(attrs["reverse"]), pull.x[0]
    size = x.shape[axis]
    one = [1 if a == axis else 0 for a in range(x.rank)]
    none = [0] * x.rank
    if size == 1:
        return [pull.d]
    following = x.slice(axis, 0, size - 1) if reverse else x.slice(axis, 1, size)
    following = following.pad(one, none) if reverse else following.pad(none, one)
    rows = [v.moved(axis, 0) for v in (pull.d, following)]
    sums = _linear_recurrence(pull.writer, *rows, backwards=not reverse).moved(0, axis)
    return [_exclusive(x, axis, reverse) * sums]


def _linear_recurrence(writer: Writer, a: Expr, b: Expr, backwards: bool) -> Expr:
    """r[t] = a[t] + b[t] r[t-1] along axis 0, from 0 (or from the end)."""
    region = Graph("recurrence")
    row = TensorType(a.dtype, a.shape[1:])
    inner = Writer(region)
    before, add, factor = (inner.expr(region.add_input(n, row)) for n in ("r", "a", "b"))
    after = add + factor * before
    region.set_output("r", after.value)
    region.set_output("row", after.value)
    attrs = {"n_carry": 1, "n_xs": 2, "length": a.shape[0], "reverse": backwards}
    start = writer.fill(row.shape, 0, a.dtype)
    return writer.loop("scan", [start, a, b], attrs, region)[1]


@gradient_of("var")
def _var(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    x, axes = pull.x[0], tuple(attrs["axes"])
    count = x.count(axes)
    count = count - 1.0 if attrs["unbiased"] else count
    d = pull.d.spread(x, axes, attrs["keepdims"]) * 2.0 / count
    return [d * (x - x.mean(axes, keepdims=True))]
