"""Where maxima stand, and what goes to and comes from there: pooling and its reversal."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...runtime.kernels import places
from ...runtime.kernels.pointwise import Writer, row_major
from ..ir.graph import Node, Value
from .cpu import Lowering, rule
from .cpu_nest import Strided, Walk, emit_nest, fold_axes
from .cpu_resample import cells
from .cpu_views import fill_with
from .cpu_windows import Windows, identity, lowest, whole, windows
from .storage import Flat


@rule("maxpool_with_indices")
def lower_maxpool_with_indices(state: Lowering, index: int, node: Node) -> None:
    """The maximum of each window, and its flat place in the channel."""
    attrs: Any = node.attrs
    x, n = state.view(state.graph.operands(index)[0]), len(attrs["kernel"])
    values, found = state.new_flat(Value(index)), state.new_flat(Value(index, 1))
    counts = values.shape[2:]
    where = Windows(attrs["kernel"], attrs["stride"], attrs["dilation"], attrs["pad"], counts)
    view = windows(state, x, where, lowest(x.dtype))
    axes = range(2 + n, 2 + 2 * n)
    label = node.name or node.op
    fold_axes(state, *whole(view), axes, "max", *identity(x.dtype), values, label)
    steps = row_major(x.shape[2:])
    first = [np.arange(c) * s - low for c, s, (low, _) in
             zip(counts, attrs["stride"], attrs["pad"], strict=True)]  # fmt: skip
    taps = [np.arange(k) * d for k, d in zip(attrs["kernel"], attrs["dilation"], strict=True)]
    _positions(state, view, axes, found, _outer(first, steps), _outer(taps, steps), label)


@rule("adaptive_maxpool_places")
def lower_adaptive_places(state: Lowering, index: int, node: Node) -> None:
    """The place of each cell's first maximum: cells of one size, short ones repeat their last."""
    x, out = state.flat(state.graph.operands(index)[0]), state.new_flat(Value(index))
    n, label = len(x.shape) - 2, node.name or node.op
    listed = [cells(a, b) for a, b in zip(x.shape[2:], out.shape[2:], strict=True)]
    steps = row_major(x.shape[2:])
    # Flat places of every cell's elements: [cells..., elements...].
    grids = np.meshgrid(*(np.arange(c.shape[0]) for c in listed),
                        *(np.arange(c.shape[1]) for c in listed), indexing="ij")  # fmt: skip
    table = np.zeros(grids[0].shape, np.int64)
    for axis, c in enumerate(listed):
        table += c[grids[axis], grids[n + axis]] * steps[axis]
    flat = Flat(x.place, (prod(x.shape[:2]), prod(x.shape[2:])), x.dtype)
    chosen = state.known(np.ascontiguousarray(table.reshape(-1), np.int64), "i64")
    from .cpu_gather import gather_rows

    read = state.loose_flat((flat.shape[0], table.size), x.dtype)
    gather_rows(state, flat, 1, chosen, read, label)
    view = Flat(read.place, (*x.shape[:2], *table.shape), x.dtype)
    first = _outer([c[:, 0] for c in listed], steps)
    taps = _outer([np.arange(c.shape[1]) for c in listed], steps)
    _positions(state, view, range(2 + n, 2 + 2 * n), out, first, taps, label)


def _outer(parts: Sequence[np.ndarray], steps: Sequence[int]) -> np.ndarray:
    """Sums of every combination of positions, each along its axis."""
    total = np.zeros((), np.int64)
    for part, step in zip(parts, steps, strict=True):
        total = np.add.outer(total, part * step)
    return total


def _positions(
    state: Lowering, view: Flat, axes: Sequence[int], out: Flat, first: np.ndarray,
    taps: np.ndarray, label: str,
) -> None:  # fmt: skip
    """``out`` is the flat place of the largest element over the last axes of a window view."""
    number = state.loose_flat(out.shape, "i32")
    fold_axes(state, *whole(view), axes, "argmax", *identity(view.dtype), number, label)
    away = state.loose_flat((prod(out.shape),), "i64")
    from .cpu_gather import gather_rows

    count = prod(out.shape)
    flat = Flat(number.place, (count,), "i32")
    gather_rows(state, state.known(taps.reshape(-1), "i64"), 0, flat, away, label)
    writer = Writer()
    total = writer.apply("add", [writer.argument("i64"), writer.argument("i64")])
    base = state.known(first, "i64")
    operands = (
        Strided(away.place, row_major(out.shape), "i64"),
        Strided(base.place, (0, 0, *row_major(out.shape[2:])), "i64"),
    )
    result = Strided(out.place, row_major(out.shape), "i64")
    emit_nest(state, Walk(out.shape, (), operands, (result,), writer.finish(total)), label)


@rule("add_at_places", "maxunpool", "take_at_places")
def lower_at_places(state: Lowering, index: int, node: Node) -> None:
    """Values to or from flat places of their channel."""
    x, chosen = (state.flat(v) for v in state.graph.operands(index))
    out = state.new_flat(Value(index))
    how = {"add_at_places": "add", "maxunpool": "put"}.get(node.op, "take")
    lines, count = prod(chosen.shape[:2]), prod(chosen.shape[2:])
    size = prod(x.shape[2:]) if how == "take" else prod(out.shape[2:])
    label = node.name or node.op
    if how != "take":
        fill_with(state, Strided(out.place, out.strides, out.dtype), out.shape, 0)
    words = {
        "x": x.place, "places": chosen.place, "y": out.place, "lines": lines, "count": count,
        "size": size, "per_task": places.per_task(count),
        "fault": state.check("E802", f"a place of `{label}` lies outside 0..{size}"),
    }  # fmt: skip
    kernel = places.PlacesKernel(how, x.dtype, chosen.dtype)
    state.emit(kernel, places.tasks(lines, count), places.WORDS, words, label)
