"""Ops along one axis: softmax, running sums and products, sorting."""

from __future__ import annotations

from math import prod
from typing import Any

from ...runtime.abi import word_of
from ...runtime.kernels import along, softmax
from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from ..ops import OpError
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule


@rule("softmax", "log_softmax")
def lower_softmax(state: Lowering, index: int, node: Node) -> None:
    """Softmax along any axis."""
    attrs: Any = node.attrs
    x = state.flat(state.graph.operands(index)[0])
    out = state.new_flat(Value(index))
    if not prod(x.shape):
        return
    axis = attrs["axis"] % len(x.shape)
    last = prod(x.shape[axis + 1 :]) == 1
    lanes = state.target.lanes
    short = softmax.short(x.shape, axis, x.dtype, lanes)
    kernel = softmax.SoftmaxKernel(node.op, x.dtype, last, lanes, short)
    shape = x.shape[: axis + 1] if last else x.shape
    row = softmax.words(shape, axis, x.place, out.place)
    values: dict[str, Any] = dict(zip(softmax.WORDS, row, strict=True))
    values["beta"] = word_of(float(attrs.get("beta", 1.0)))
    tasks = softmax.tasks(shape, axis)
    state.emit(kernel, tasks, softmax.WORDS, values, node.name or node.op)


@rule("cumsum", "cumprod")
def lower_running(state: Lowering, index: int, node: Node) -> None:
    """Running sums and products."""
    attrs: Any = node.attrs
    x, out = state.flat(state.graph.operands(index)[0]), state.new_flat(Value(index))
    if not prod(x.shape):
        return
    axis, unit = attrs["axis"], DTYPES[x.dtype].itemsize
    inner, size = prod(x.shape[axis + 1 :]), x.shape[axis]
    start, step = (size - 1, -1) if attrs["reverse"] else (0, 1)
    words = {
        "x": x.place.moved(start * inner * unit), "y": out.place.moved(start * inner * unit),
        "lines": prod(x.shape) // size, "inner": inner, "size": size,
        "outer_step": size * inner * unit, "step": step * inner * unit,
        "per_task": along.per_task(size),
    }  # fmt: skip
    kernel = along.RunningKernel(node.op, x.dtype)
    tasks = along.tasks(prod(x.shape) // size, size)
    state.emit(kernel, tasks, along.RUNNING_WORDS, words, node.name or node.op)


@rule("sort", "argsort", "topk")
def lower_sort(state: Lowering, index: int, node: Node) -> None:
    """Elements in order, and where they stood."""
    attrs: Any = node.attrs
    x = state.flat(state.graph.operands(index)[0])
    if x.dtype not in along.SORTED:
        raise OpError("E804", f"there is no CPU kernel to sort {x.dtype}")
    axis, unit = attrs["axis"], DTYPES[x.dtype].itemsize
    inner, size = prod(x.shape[axis + 1 :]), x.shape[axis]
    kept = attrs.get("k", size)
    down = attrs["largest"] if node.op == "topk" else attrs["descending"]
    values = None if node.op == "argsort" else state.new_flat(Value(index))
    places = None if node.op == "sort" else state.new_flat(Value(index, len(node.types) - 1))
    if not prod(x.shape):
        return
    words = {
        "x": x.place, "values": values.place if values else 0,
        "places": places.place if places else 0, "lines": prod(x.shape) // size,
        "inner": inner, "size": size, "kept": kept, "outer_step": size * inner * unit,
        "step": inner * unit, "per_task": along.per_task(size * 8), "scratch": SCRATCH,
        "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = along.SortKernel(x.dtype, bool(down), values is not None, places is not None)
    tasks = along.tasks(prod(x.shape) // size, size * 8)
    state.emit(kernel, tasks, along.SORT_WORDS, words, node.name or node.op,
               along.sort_scratch(size))  # fmt: skip
