"""Loop nests to rows: whatever walks axes by strides, folded or not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...runtime.kernels import nest
from ...runtime.kernels.nest_kernel import WIDE, NestKernel
from ...runtime.kernels.pointwise import Expression, Writer, row_major
from ..ir.graph import Graph, Node, Value
from ..ops import OpError
from .cpu import Lowering, rule
from .storage import Flat

KINDS = ("f32", "f64", "i32", "i64", "bool")
"""Element types that kernels compute with."""


@dataclass(frozen=True)
class Strided:
    """An operand or result of a nest: its word, strides in elements along the axes, its type."""

    word: Any
    strides: tuple[int, ...]
    dtype: str


BITS = ("add", "sub", "mul", "where", "eq", "ne")
"""Ops that do the same to the bits of a whole number whether or not it has a sign."""


def signed(part: Strided, ops: Collection[str] = ()) -> Strided:
    """A u64 operand or result (keys of random numbers) of ``ops`` as the i64 of its bits.

    Raises ``OpError`` E804 for ops that ask for more than bits.
    """
    if part.dtype != "u64":
        return part
    for op in ops:
        if op not in BITS:
            raise OpError("E804", f"there is no CPU kernel for `{op}` of u64")
    return replace(part, dtype="i64")


def readable(part: Strided, ops: Collection[str]) -> Strided:
    """An operand as :func:`signed` has it; where all ``ops`` are casts, a u64 is read as such."""
    return part if set(ops) == {"cast"} else signed(part, ops)


def under(view: Flat, shape: Sequence[int]) -> Strided:
    """A value broadcast to a shape as numpy does."""
    lead = len(shape) - len(view.shape)
    along = [0 if size == 1 else step for size, step in zip(view.shape, view.strides, strict=True)]
    return Strided(view.place, (0,) * lead + tuple(along), view.dtype)


@dataclass(frozen=True)
class Walk:
    """What a nest does: the axes, which of them are folded and how, on what."""

    sizes: tuple[int, ...]
    reduced: tuple[int, ...]
    operands: tuple[Strided, ...]
    results: tuple[Strided, ...]
    expression: Expression
    values: tuple[float, ...] = ()
    fold: str = ""
    divisor: float = 1.0
    wide: bool = True


def emit_nest(state: Lowering, walk: Walk, label: str) -> None:
    """Append the rows of a nest: one, or two when it is folded in parts."""
    for part in (*walk.operands, *walk.results):
        if part.dtype not in KINDS:
            raise OpError("E804", f"there is no CPU kernel for {part.dtype} yet")
    if prod(walk.sizes[a] for a in range(len(walk.sizes)) if a not in walk.reduced) == 0:
        return
    shape, kernel = _arranged(state, walk)
    if shape.parts == 1:
        _append(state, walk, shape, kernel, label)
        return
    kept = [a for a in range(len(walk.sizes)) if a not in walk.reduced]
    sizes = [walk.sizes[a] for a in kept]
    (result,) = walk.results
    source = walk.expression.dtype(walk.expression.outputs[0])
    wide = walk.wide and walk.fold in WIDE and source == "f32"
    dtype = "f64" if wide else result.dtype
    own = row_major(sizes)
    steps = [0] * len(walk.sizes)
    for axis, step in zip(kept, own, strict=True):
        steps[axis] = step
    between = state.loose_flat((shape.parts, *sizes), dtype)
    partial = Strided(between.place, tuple(steps), dtype)
    first = Walk(walk.sizes, walk.reduced, walk.operands, (partial,), walk.expression,
                 walk.values, walk.fold, 1.0, walk.wide)  # fmt: skip
    again, kernel = _arranged(state, first)
    _append(state, first, again, kernel, label)
    writer = Writer()
    joined = writer.finish(writer.argument(dtype))
    second = Walk((shape.parts, *sizes), (0,),
                  (Strided(between.place, row_major((shape.parts, *sizes)), dtype),),
                  (Strided(result.word, (0, *(result.strides[a] for a in kept)), result.dtype),),
                  joined, (), walk.fold, walk.divisor)  # fmt: skip
    emit_nest(state, second, label)


def _arranged(state: Lowering, walk: Walk) -> tuple[nest.Nest, NestKernel]:
    e, width = walk.expression, state.target.lanes
    targets = tuple(result.dtype for result in walk.results)
    blank = NestKernel(e, walk.fold, "", 0, 0, (), (), (1, 1), targets, walk.wide, False, width)
    strides = [part.strides for part in (*walk.operands, *walk.results)]
    shape = nest.arrange(
        walk.sizes, walk.reduced, strides, len(walk.operands), blank.lanes,
        ordered=walk.fold in ("argmax", "argmin"), tiled=blank.is_vector,
    )  # fmt: skip
    count = len(walk.operands)
    scattered = any(s != 1 for s in shape.lanes.strides[count:]) and shape.lanes.size > 1
    if scattered and blank.is_vector:
        shape = nest.arrange(walk.sizes, walk.reduced, strides, count, blank.lanes,
                             ordered=walk.fold in ("argmax", "argmin"), tiled=False)  # fmt: skip
        scattered = any(s != 1 for s in shape.lanes.strides[count:])
    access, by_row = nest.accesses(shape, count)
    kernel = NestKernel(
        e, walk.fold, shape.inner, len(shape.outer), len(shape.reduced), access, by_row,
        shape.tile, targets, walk.wide, scattered and shape.inner == "kept", width,
    )  # fmt: skip
    return shape, kernel


def _append(state: Lowering, walk: Walk, shape: nest.Nest, kernel: NestKernel, label: str) -> None:
    addresses = [part.word for part in (*walk.operands, *walk.results)]
    row = nest.words(shape, walk.expression, kernel.targets, addresses, walk.values,
                     kernel.lanes, walk.divisor)  # fmt: skip
    state.emit_words(kernel, nest.tasks(shape, kernel.lanes), row, label)


def copy_into(state: Lowering, source: Strided, target: Strided, sizes: Sequence[int]) -> None:
    """Copy elements, converted to the target's type."""
    ops = ("cast",) if source.dtype != target.dtype else ()
    source, target = readable(source, ops), signed(target, ops)
    writer = Writer()
    name = writer.argument(source.dtype)
    if source.dtype != target.dtype:
        name = writer.apply("cast", [name], {"dtype": target.dtype})
    emit_nest(state, Walk(tuple(sizes), (), (source,), (target,), writer.finish(name)), "copy")


# ---------------------------------------------------------------- reductions

FOLD_OF = {"mean": "sum"}


def fold_axes(
    state: Lowering,
    operands: Sequence[Strided],
    shape: Sequence[int],
    axes: Sequence[int],
    kind: str,
    expression: Expression,
    values: Sequence[float],
    out: Flat,
    label: str,
) -> None:
    """``out`` is the fold of an expression over axes of ``shape``."""
    kept = [a for a in range(len(shape)) if a not in axes]
    steps = [0] * len(shape)
    for axis, step in zip(kept, row_major([shape[a] for a in kept]), strict=True):
        steps[axis] = step
    divisor = float(prod(shape[a] for a in axes)) if kind == "mean" else 1.0
    result = Strided(out.place, tuple(steps), out.dtype)
    walk = Walk(tuple(shape), tuple(axes), tuple(operands), (result,), expression,
                tuple(values), FOLD_OF.get(kind, kind), divisor)  # fmt: skip
    emit_nest(state, walk, label)


def reduce_flat(state: Lowering, index: int, node: Node, kind: str, axes: Sequence[int]) -> None:
    """A reduction of one value by strides."""
    view = state.view(state.graph.operands(index)[0])
    writer = Writer()
    expression = writer.finish(writer.argument(view.dtype))
    source = Strided(view.place, view.strides, view.dtype)
    out = state.new_flat(Value(index))
    fold_axes(state, [source], view.shape, axes, kind, expression, (), out, node.name or kind)


@rule("argmax", "argmin")
def lower_position(state: Lowering, index: int, node: Node) -> None:
    """The first position of an extreme."""
    reduce_flat(state, index, node, node.op, (int(node.attrs["axis"]),))  # type: ignore[arg-type]


def region_constant(region: Graph, index: int) -> float | None:
    """The number behind a scalar constant or fill of a region."""
    node = region.node(index)
    if node.op == "constant":
        number = region.constant(index)
        return number.item() if number.size == 1 else None
    return node.attrs["value"] if node.op == "fill" else None  # type: ignore[return-value]
