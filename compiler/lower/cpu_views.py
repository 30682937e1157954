"""Ops that only move elements: views where strides can say it, copies where they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ...runtime.kernels import layout
from ...runtime.kernels.pointwise import Writer, row_major
from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from .cpu import Lowering, rule
from .cpu_nest import Strided, Walk, copy_into, emit_nest, under
from .storage import Flat


def compact(state: Lowering, view: Flat) -> Flat:
    """A view's elements one after the other."""
    made = state.loose_flat(view.shape, view.dtype)
    copy_view(state, view, made)
    return made


def copy_view(state: Lowering, view: Flat, target: Flat) -> None:
    """Copy a view; where both ends could be read in lines, square tiles go through registers."""
    axes = [(n, s) for n, s in zip(view.shape, view.strides, strict=True) if n != 1]
    steps = [s for _, s in axes]
    turned = axes and steps[-1] != 1 and 1 in steps and min(steps) > 0
    itemsize = DTYPES[view.dtype].itemsize
    if turned and target.contiguous and itemsize in (1, 4, 8):
        where = layout.transposition([n for n, _ in axes], steps)
        kernel = layout.TransposeKernel(
            itemsize, where.columns > 1, len(where.outer), state.target.lanes
        )
        row = layout.transpose_words(where, itemsize, view.place, target.place)
        state.emit_words(kernel, layout.transpose_tasks(where), row, "transpose")
        return
    source = Strided(view.place, view.strides, view.dtype)
    copy_into(state, source, Strided(target.place, target.strides, target.dtype), view.shape)


# ---------------------------------------------------------------- views


@rule("transpose")
def lower_transpose(state: Lowering, index: int, node: Node) -> None:
    """Axes in another order."""
    view, perm = state.view(state.graph.operands(index)[0]), tuple(node.attrs["perm"])  # type: ignore[arg-type]
    steps = tuple(view.strides[a] for a in perm)
    state.stored[Value(index)] = Flat(view.place, state.shape(Value(index)), view.dtype, steps)


@rule("broadcast")
def lower_broadcast(state: Lowering, index: int, node: Node) -> None:
    """Repeated elements: strides of 0."""
    view, shape = state.view(state.graph.operands(index)[0]), state.shape(Value(index))
    state.stored[Value(index)] = Flat(view.place, shape, view.dtype, under(view, shape).strides)


@rule("flip")
def lower_flip(state: Lowering, index: int, node: Node) -> None:
    """Read from the end."""
    view, axes = state.view(state.graph.operands(index)[0]), tuple(node.attrs["axes"])  # type: ignore[arg-type]
    axes = tuple(a % len(view.shape) for a in axes)
    state.stored[Value(index)] = sliced(
        view,
        [n - 1 if a in axes else 0 for a, n in enumerate(view.shape)],
        view.shape,
        [-1 if a in axes else 1 for a in range(len(view.shape))],
    )


def sliced(view: Flat, starts: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> Flat:
    """Every step-th element from a start on, along each axis."""
    offset = sum(a * s for a, s in zip(starts, view.strides, strict=True))
    strides = tuple(k * s for k, s in zip(steps, view.strides, strict=True))
    place = view.place.moved(offset * DTYPES[view.dtype].itemsize)
    return Flat(place, tuple(shape), view.dtype, strides)


def slice_view(state: Lowering, index: int, node: Node) -> None:
    """A slice, or the parts of a split, as views."""
    view = state.view(state.graph.operands(index)[0])
    attrs: Any = node.attrs
    if node.op == "slice":
        shape = state.shape(Value(index))
        state.stored[Value(index)] = sliced(view, attrs["starts"], shape, attrs["steps"])
        return
    start, axis = 0, attrs["axis"]
    for place in range(len(node.types)):
        value = Value(index, place)
        starts = [start if a == axis else 0 for a in range(len(view.shape))]
        shape = state.shape(value)
        state.stored[value] = sliced(view, starts, shape, [1] * len(shape))
        start += shape[axis]


@rule("diagonal")
def lower_diagonal(state: Lowering, index: int, node: Node) -> None:
    """The diagonal of trailing axes: one step along both."""
    view = state.view(state.graph.operands(index)[0])
    *rest, rows, columns = view.strides
    shape = state.shape(Value(index))
    state.stored[Value(index)] = Flat(view.place, shape, view.dtype, (*rest, rows + columns))


@rule("identity", "stop_gradient", "dropout", "drop_path", "after")
def lower_identity(state: Lowering, index: int, node: Node) -> None:
    """The operand itself."""
    value = state.graph.operands(index)[0]
    state.stored[Value(index)] = state.stored[value]


@rule("reshape")
def lower_reshape(state: Lowering, index: int, node: Node) -> None:
    """The same elements: a view where strides allow it."""
    value = state.graph.operands(index)[0]
    state.stored[Value(index)] = reshaped(state, state.view(value), state.shape(Value(index)))


def reshaped(state: Lowering, view: Flat, shape: Sequence[int]) -> Flat:
    """A value under another shape, copied where strides cannot say it."""
    steps = _reshaped_strides(view, shape)
    if steps is None:
        view = compact(state, view)
    return Flat(view.place, tuple(shape), view.dtype, steps)


def _reshaped_strides(view: Flat, shape: Sequence[int]) -> tuple[int, ...] | None:
    if view.contiguous or prod(shape) == 0:
        return row_major(shape)
    # Runs of axes that are one walk; each new axis must be cut out of one run.
    runs: list[list[int]] = []
    for size, step in zip(view.shape, view.strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == step * size:
            runs[-1] = [runs[-1][0] * size, step]
        else:
            runs.append([size, step])
    steps, left = [], [size for size, _ in runs]
    place = 0
    for size in shape:
        while place < len(runs) and left[place] == 1:
            place += 1
        if size == 1:
            steps.append(0)
            continue
        if place == len(runs) or left[place] % size:
            return None
        left[place] //= size
        steps.append(left[place] * runs[place][1])
    return tuple(steps)


# ---------------------------------------------------------------- copies


def fill_with(state: Lowering, target: Strided, sizes: Sequence[int], value: float) -> None:
    """Write one number everywhere."""
    writer = Writer()
    expression = writer.finish(writer.constant(target.dtype, value))
    walk = Walk(tuple(sizes), (), (), (target,), expression, tuple(writer.values))
    emit_nest(state, walk, "fill")


def part_of(target: Flat, starts: Sequence[int], shape: Sequence[int]) -> Flat:
    """A box inside a value."""
    return sliced(target, starts, shape, [1] * len(shape))


def concat_flat(state: Lowering, index: int, node: Node) -> None:
    """Parts copied side by side."""
    out, start = state.new_flat(Value(index)), 0
    axis = int(node.attrs["axis"])  # type: ignore[arg-type]
    for operand in state.graph.operands(index):
        view = state.view(operand)
        starts = [start if a == axis else 0 for a in range(len(view.shape))]
        part = part_of(out, starts, view.shape)
        there = view.contiguous and view.place == part.place
        if prod(view.shape) and not there:
            copy_view(state, view, part)
        start += view.shape[axis]


@rule("tile")
def lower_tile(state: Lowering, index: int, node: Node) -> None:
    """The whole tensor repeated: a view with an axis of stride 0 before each axis."""
    view, reps = state.view(state.graph.operands(index)[0]), tuple(node.attrs["reps"])  # type: ignore[arg-type]
    lead = len(reps) - len(view.shape)
    shape, steps = (1,) * lead + view.shape, (0,) * lead + view.strides
    pairs = [(k, n, s) for k, n, s in zip(reps, shape, steps, strict=True)]
    sizes = [size for k, n, _ in pairs for size in (k, n)]
    strides = tuple(step for _, _, s in pairs for step in (0, s))
    wide = Flat(view.place, tuple(sizes), view.dtype, strides)
    state.stored[Value(index)] = reshaped(state, wide, state.shape(Value(index)))


@rule("pad")
def lower_pad(state: Lowering, index: int, node: Node) -> None:
    """A frame around a value: a number, the mirror without the edge, or the edge."""
    attrs: Any = node.attrs
    view, out = state.view(state.graph.operands(index)[0]), state.new_flat(Value(index))
    before, after, mode = attrs["before"], attrs["after"], attrs["mode"]
    if mode == "constant":
        pad_constant(state, view, out, before, attrs["value"])
        return
    copy_view(state, view, part_of(out, before, view.shape))
    # Axis by axis, each from what is there already, so that corners come last.
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        size = view.shape[axis]
        whole = [n if a < axis else m for a, (n, m) in enumerate(
            zip(out.shape, view.shape, strict=True))]  # fmt: skip
        corner = [0 if a < axis else b for a, b in enumerate(before)]
        for target, source, count in (
            (0, before[axis] + (low if mode == "reflect" else 0), low),
            (low + size, low + size - (2 if mode == "reflect" else 1), high),
        ):
            if not count:
                continue
            box = [count if a == axis else n for a, n in enumerate(whole)]
            to = [target if a == axis else n for a, n in enumerate(corner)]
            start = [source if a == axis else n for a, n in enumerate(corner)]
            step = -1 if mode == "reflect" else 0
            steps = [step if a == axis else 1 for a in range(len(box))]
            copy_view(state, sliced(out, start, box, steps), part_of(out, to, box))


def pad_constant(
    state: Lowering, view: Flat, out: Flat, before: Sequence[int], value: float
) -> None:
    """Fill, then copy inside; the fill covers what is copied over, too: slabs cost more rows."""
    if out.shape != view.shape:
        fill_with(state, Strided(out.place, out.strides, out.dtype), out.shape, value)
    copy_view(state, view, part_of(out, before, view.shape))
