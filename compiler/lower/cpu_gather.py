"""Reading and writing by index: take, gather, scatter-add, segment sums, embeddings."""

from __future__ import annotations

from math import prod
from typing import Any

from ...runtime.kernels import layout, scatter
from ...runtime.kernels.pointwise import Writer, row_major
from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from .cpu import Lowering, rule
from .cpu_nest import Strided, Walk, emit_nest, under
from .cpu_views import compact, copy_view, fill_with
from .storage import Flat

OUTSIDE = "an index of `{name}` lies outside 0..{size}"


def take_flat(state: Lowering, index: int, node: Node) -> None:
    """Slices along an axis at indices that may be known only at call."""
    value, chosen = state.graph.operands(index)
    x = state.flat(value)
    gather_rows(state, x, int(node.attrs["axis"]), state.flat(chosen),  # type: ignore[arg-type]
                state.new_flat(Value(index)), node.name or "take")  # fmt: skip


def gather_rows(state: Lowering, x: Flat, axis: int, chosen: Flat, out: Flat, name: str) -> None:
    """``out`` is ``x`` with ``axis`` replaced by slices at the indices; all contiguous."""
    unit = DTYPES[x.dtype].itemsize
    outer, inner = prod(x.shape[:axis]), prod(x.shape[axis + 1 :]) * unit
    count, size = prod(chosen.shape), x.shape[axis]
    if outer * count * inner == 0:
        return
    kernel = layout.GatherKernel(chosen.dtype, unit, state.target.lanes)
    fault = state.check("E802", OUTSIDE.format(name=name, size=size))
    words = {
        "x": x.place, "index": chosen.place, "y": out.place, "outer": outer, "count": count,
        "size": size, "inner": inner, "fault": fault,
        "per_task": layout.gather_division(outer, count, inner),
    }  # fmt: skip
    tasks = layout.gather_tasks(outer, count, inner)
    state.emit(kernel, tasks, layout.GATHER_WORDS, words, name)


@rule("gather")
def lower_gather(state: Lowering, index: int, node: Node) -> None:
    """Elements at several indices: they become one index into the axes, laid side by side."""
    value, *chosen = state.graph.operands(index)
    axes: Any = node.attrs["axes"]
    x = state.view(value)
    rest = [a for a in range(len(x.shape)) if a not in axes]
    order = [*axes, *rest]
    turned = Flat(x.place, tuple(x.shape[a] for a in order), x.dtype,
                  tuple(x.strides[a] for a in order))  # fmt: skip
    sizes = [x.shape[a] for a in axes]
    rows = turned if turned.contiguous else compact(state, turned)
    table = Flat(rows.place, (prod(sizes), *(x.shape[a] for a in rest)), x.dtype)
    out = state.new_flat(Value(index))
    joined = out.shape[: len(out.shape) - len(rest)]
    place = joined_index(state, [state.view(v) for v in chosen], sizes, joined, node.name)
    gather_rows(state, table, 0, place, out, node.name or "gather")


def joined_index(
    state: Lowering, views: list[Flat], sizes: list[int], shape: tuple[int, ...], name: str
) -> Flat:
    """Row-major positions of several indices as one, -1 where one of them is outside."""
    if len(views) == 1 and views[0].shape == shape:
        return views[0] if views[0].contiguous else compact(state, views[0])
    writer = Writer()
    operands = [under(view, shape) for view in views]
    total, outside = "", ""
    for operand, size in zip(operands, sizes, strict=True):
        number = writer.apply("cast", [writer.argument(operand.dtype)], {"dtype": "i64"})
        low = writer.apply("lt", [number, writer.constant("i64", 0)])
        high = writer.apply("ge", [number, writer.constant("i64", size)])
        wrong = writer.apply("or", [low, high])
        outside = writer.apply("or", [outside, wrong]) if outside else wrong
        if total:
            total = writer.apply("mul", [total, writer.constant("i64", size)])
        total = writer.apply("add", [total, number]) if total else number
    result = writer.apply("where", [outside, writer.constant("i64", -1), total])
    made = state.loose_flat(shape, "i64")
    target = Strided(made.place, row_major(shape), "i64")
    emit_nest(state, Walk(shape, (), tuple(operands), (target,), writer.finish(result),
                          tuple(writer.values)), name or "gather")  # fmt: skip
    return made


@rule("scatter_add")
def lower_scatter_add(state: Lowering, index: int, node: Node) -> None:
    """Rows added where indices say, in the order of the indices."""
    base, chosen, updates = state.graph.operands(index)
    out = state.new_flat(Value(index))
    copy_view(state, state.view(base), out)
    scatter_rows(state, out, state.flat(chosen), state.flat(updates), node.name or "scatter_add")


@rule("segment_sum")
def lower_segment_sum(state: Lowering, index: int, node: Node) -> None:
    """Rows added to the row of their segment."""
    x, segment = state.graph.operands(index)
    out = state.new_flat(Value(index))
    fill_with(state, Strided(out.place, out.strides, out.dtype), out.shape, 0)
    scatter_rows(state, out, state.flat(segment), state.flat(x), node.name or "segment_sum")


def scatter_rows(state: Lowering, out: Flat, chosen: Flat, updates: Flat, name: str) -> None:
    """Add rows of ``updates`` to rows of ``out``."""
    inner, count = prod(out.shape[1:]), prod(chosen.shape)
    if inner * count == 0:
        return
    kernel = scatter.ScatterAddKernel(out.dtype, chosen.dtype)
    words = {
        "y": out.place, "index": chosen.place, "updates": updates.place, "count": count,
        "size": out.shape[0], "inner": inner, "share": scatter.share(inner),
        "fault": state.check("E802", OUTSIDE.format(name=name, size=out.shape[0])),
    }  # fmt: skip
    state.emit(kernel, scatter.tasks(inner), scatter.WORDS, words, name)
