"""Sliding windows of any rank and element type as strided views: what no image kernel covers.

A window op is a nest: the windows of the padded input are a view of it, and a convolution is the
contraction of that view with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...runtime.kernels.pointwise import Writer, row_major
from ..ir.graph import Node, Value
from .cpu import Lowering
from .cpu_contract import contract
from .cpu_nest import Strided, Walk, emit_nest, fold_axes
from .cpu_views import pad_constant
from .storage import Flat

KERNEL, PLACE = "ijk", "xyz"
"""Letters of taps and of output positions."""


@dataclass(frozen=True)
class Windows:
    """Windows over spatial axes; ``counts`` is how many there are along each."""

    kernel: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    pad: Sequence[tuple[int, int]]
    counts: Sequence[int]


def windows(state: Lowering, x: Flat, where: Windows, filler: float) -> Flat:
    """[N, C, *counts, *kernel] as a view of the padded input."""
    extents = [
        max((count - 1) * s + (k - 1) * d + 1, size + before)
        for count, s, k, d, size, (before, _) in zip(
            where.counts, where.stride, where.kernel, where.dilation, x.shape[2:], where.pad,
            strict=True,
        )
    ]  # fmt: skip
    shape = (*x.shape[:2], *extents)
    if shape != x.shape:
        framed = state.loose_flat(shape, x.dtype)
        pad_constant(state, x, framed, (0, 0, *(before for before, _ in where.pad)), filler)
        x = framed
    lead, steps = x.strides[:2], x.strides[2:]
    strides = (
        *lead,
        *(s * step for s, step in zip(where.stride, steps, strict=True)),
        *(d * step for d, step in zip(where.dilation, steps, strict=True)),
    )
    return Flat(x.place, (*shape[:2], *where.counts, *where.kernel), x.dtype, strides)


def conv_by_windows(state: Lowering, index: int, node: Node) -> None:
    """A convolution without a bias, in groups of any size."""
    attrs: Any = node.attrs
    x, weight = (state.view(v) for v in state.graph.operands(index)[:2])
    out = state.new_flat(Value(index))
    kernel, groups = weight.shape[2:], attrs["groups"]
    n = len(kernel)
    where = Windows(kernel, attrs["stride"], attrs["dilation"], attrs["pad"], out.shape[2:])
    view = windows(state, x, where, 0.0)
    taps, places = KERNEL[:n], PLACE[:n]
    contract(
        state,
        [
            (f"ngc{places}{taps}", in_groups(view, 1, groups)),
            (f"gfc{taps}", in_groups(weight, 0, groups)),
        ],
        f"ngf{places}", in_groups(out, 1, groups), "sum_product", node.name or "conv",
    )  # fmt: skip


def backward_weight_by_windows(state: Lowering, index: int, node: Node) -> None:
    """The product of windows and cotangents over images and places."""
    attrs: Any = node.attrs
    x, d = (state.view(v) for v in state.graph.operands(index))
    out = state.new_flat(Value(index))
    kernel, groups = attrs["kernel"], attrs["groups"]
    n = len(kernel)
    where = Windows(kernel, attrs["stride"], attrs["dilation"], attrs["pad"], d.shape[2:])
    taps, places = KERNEL[:n], PLACE[:n]
    terms = [
        (f"ngc{places}{taps}", in_groups(windows(state, x, where, 0.0), 1, groups)),
        (f"ngf{places}", in_groups(d, 1, groups)),
    ]
    target = in_groups(out, 0, groups)
    contract(state, terms, f"gfc{taps}", target, "sum_product", node.name or node.op)


def in_groups(view: Flat, axis: int, groups: int) -> Flat:
    """An axis as groups of equal size."""
    size, step = view.shape[axis] // groups, view.strides[axis]
    shape = (*view.shape[:axis], groups, size, *view.shape[axis + 1 :])
    steps = (*view.strides[:axis], size * step, step, *view.strides[axis + 1 :])
    return Flat(view.place, shape, view.dtype, steps)


def pool_by_windows(state: Lowering, index: int, node: Node) -> None:
    """Max or average pooling of any rank and element type."""
    attrs: Any = node.attrs
    x, out = state.view(state.graph.operands(index)[0]), state.new_flat(Value(index))
    n = len(attrs["kernel"])
    dilation = attrs.get("dilation", (1,) * n)
    where = Windows(attrs["kernel"], attrs["stride"], dilation, attrs["pad"], out.shape[2:])
    axes = range(2 + n, 2 + 2 * n)
    label = node.name or node.op
    if node.op == "maxpool":
        view = windows(state, x, where, lowest(x.dtype))
        fold_axes(state, *whole(view), axes, "max", *identity(x.dtype), out, label)
        return
    view = windows(state, x, where, 0.0)
    total = state.loose_flat(out.shape, x.dtype)
    fold_axes(state, *whole(view), axes, "sum", *identity(x.dtype), total, label)
    scale = state.load.pack("counts", _shares(where, x.shape[2:], attrs["count_pad"], x.dtype),
                            prod(out.shape[2:]) * (4 if x.dtype == "f32" else 8))  # fmt: skip
    writer = Writer()
    product = writer.apply("mul", [writer.argument(x.dtype), writer.argument(x.dtype)])
    operands = (
        Strided(total.place, row_major(out.shape), x.dtype),
        Strided(scale, (0, 0, *row_major(out.shape[2:])), x.dtype),
    )
    result = Strided(out.place, row_major(out.shape), x.dtype)
    emit_nest(state, Walk(out.shape, (), operands, (result,), writer.finish(product)), label)


def lowest(dtype: str) -> float:
    """What no element is below."""
    if dtype in ("f32", "f64"):
        return float("-inf")
    return int(np.iinfo({"i32": np.int32, "i64": np.int64}[dtype]).min)


def whole(view: Flat) -> tuple[list[Strided], tuple[int, ...]]:
    """A view as the one operand of a walk over its shape."""
    return [Strided(view.place, view.strides, view.dtype)], view.shape


def identity(dtype: str) -> tuple[Any, Sequence[float]]:
    """The expression that is its operand, and its constants."""
    writer = Writer()
    return writer.finish(writer.argument(dtype)), ()


def _shares(where: Windows, sizes: Sequence[int], count_pad: bool, dtype: str) -> str:
    """One over the elements that each window averages, as text of the load phase."""
    counts = []
    for size, count, k, s, (before, after) in zip(
        sizes, where.counts, where.kernel, where.stride, where.pad, strict=True
    ):
        start = np.arange(count) * s - before
        end = np.minimum(start + k, size + after)
        if not count_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        counts.append((end - start).tolist())
    return f"pack.window_shares({counts!r}, np.{'float32' if dtype == 'f32' else 'float64'})"
