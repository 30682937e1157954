"""Loops to rows: the body's rows run again and again, and what they read moves on between turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...runtime.abi import LOOP_END, Address, word_of
from ...runtime.kernels.pointwise import Writer
from ...runtime.kernels.turns import DecideKernel, MoveWordsKernel
from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from ..ops import OpError
from .cpu import Lowering, PendingRow, rule
from .cpu_nest import Strided, fold_axes
from .cpu_views import compact, copy_view
from .storage import Flat, Loop, Place, Storage

MOST_VISITS = 1 << 20
"""How often a loop that decides for itself may be entered in one call: each time is logged."""


@rule("scan")
def lower_scan(state: Lowering, index: int, node: Node) -> None:
    """Carries through rows: each turn reads the next row of the stacked inputs."""
    attrs: Any = node.attrs
    carries, stacked, length = attrs["n_carry"], attrs["n_xs"], attrs["length"]
    operands = state.graph.operands(index)
    kept = _carries(state, index, carries)
    stacks = [state.new_flat(Value(index, c)) for c in range(carries, len(node.types))]
    if length == 0:
        return
    loop = _begin(state, length)
    rows = [_row(loop, state.view(v), length, attrs["reverse"])
            for v in operands[carries : carries + stacked]]  # fmt: skip
    captures = [given(state, v) for v in operands[carries + stacked :]]
    goals = [_row(loop, stack, length, attrs["reverse"]) for stack in stacks]
    body = state.inside(node.regions[0], [*kept, *rows, *captures], index)
    outputs = [value for _, value in node.regions[0].outputs]
    body.goals = {value: goal for value, goal in zip(outputs[carries:], goals, strict=True)}
    body.run()
    for value, goal in zip(outputs[carries:], goals, strict=True):
        _deliver(body, value, goal)
    _replace(body, outputs[:carries], kept)
    _end(state, loop)


@rule("iterate")
def lower_iterate(state: Lowering, index: int, node: Node) -> None:
    """Carries replaced until the body says so, or for the most steps."""
    kept, body, loop = _loop(state, index, node)
    if body is None or loop is None:
        return
    *outputs, stop = [value for _, value in node.regions[0].outputs]
    _replace(body, outputs, kept)
    _decide(state, loop, DecideKernel(0), [body.flat(stop)])


@rule("fix")
def lower_fix(state: Lowering, index: int, node: Node) -> None:
    """Carries replaced until none changes by as much as the tolerance."""
    attrs: Any = node.attrs
    kept, body, loop = _loop(state, index, node)
    if body is None or loop is None:
        raise OpError("E408", "fix: no fixed point within 0 steps")
    outputs = [value for _, value in node.regions[0].outputs]
    changes = [
        _change(body, before, body.view(value)) for before, value in zip(kept, outputs, strict=True)
    ]
    _replace(body, outputs, kept)
    where = f" (at {node.span})" if node.span is not None else ""
    text = f"fix: no fixed point within {attrs['max_steps']} steps; the last change is not below"
    fault = state.check("E408", f"{text} {float(attrs['tol']):.3g}{where}",
                        "use `iterate` to stop on a condition of your own")  # fmt: skip
    kernel = DecideKernel(len(changes), changes[0].dtype)
    _decide(state, loop, kernel, changes, float(attrs["tol"]), fault)


# ---------------------------------------------------------------- carries


def _carries(state: Lowering, index: int, count: int) -> list[Flat]:
    """Where the carries live: the loop's results, holding the first values."""
    made = []
    for place, operand in enumerate(state.graph.operands(index)[:count]):
        store = state.new_flat(Value(index, place))
        copy_view(state, state.view(operand), store)
        made.append(store)
    return made


def given(state: Lowering, value: Value) -> Storage | str:
    """What a region captures: where it is stored, or its name in the load phase."""
    return state.load.text(value) if value.node in state.phases else state.stored[value]


def _loop(
    state: Lowering, index: int, node: Node
) -> tuple[list[Flat], Lowering | None, Loop | None]:
    """The carries, and the emitted body of a loop without rows."""
    count: Any = node.attrs["n_carry"]
    kept = _carries(state, index, count)
    if node.attrs["max_steps"] == 0:
        return kept, None, None
    loop = _begin(state, int(node.attrs["max_steps"]))  # type: ignore[arg-type]
    captures = [given(state, v) for v in state.graph.operands(index)[count:]]
    body = state.inside(node.regions[0], [*kept, *captures], index)
    body.run()
    return kept, body, loop


def _row(loop: Loop, stack: Flat, length: int, reverse: bool) -> Flat:
    """The row of a stacked value that a turn reads or writes."""
    step = stack.strides[0] * DTYPES[stack.dtype].itemsize
    place = stack.place.moved((length - 1) * step if reverse else 0)
    place = place.turning(loop, -step if reverse else step)
    return Flat(place, stack.shape[1:], stack.dtype, stack.strides[1:])


def _deliver(body: Lowering, value: Value, goal: Flat) -> None:
    """Put a result of the body where it belongs, if it was not computed there."""
    found = body.view(value)
    if found.place != goal.place or found.strides != goal.strides:
        copy_view(body, found, goal)


def _replace(body: Lowering, outputs: Sequence[Value], kept: Sequence[Flat]) -> None:
    """New carries over the old ones, as if all at once."""
    found = []
    for value, store in zip(outputs, kept, strict=True):
        view = body.view(value)
        unchanged = view.place == store.place and view.contiguous
        mixed = any(_same_memory(view, other) for other in kept)
        found.append(compact(body, view) if mixed and not unchanged else view)
    for view, store in zip(found, kept, strict=True):
        if view.place != store.place:
            copy_view(body, view, store)


def _same_memory(a: Flat, b: Flat) -> bool:
    if not isinstance(a.place, Place) or not isinstance(b.place, Place):
        return False
    if a.place.buffer is None:
        return b.place.buffer is None and a.place.port == b.place.port
    return a.place.buffer is b.place.buffer


def _change(body: Lowering, before: Flat, after: Flat) -> Flat:
    """The largest change of a carry; equal infinities are no change."""
    writer = Writer()
    a, b = (writer.argument(before.dtype) for _ in range(2))
    moved = writer.apply("ne", [a, b])
    gap = writer.apply("abs", [writer.apply("sub", [b, a])])
    result = writer.apply("where", [moved, gap, writer.constant(before.dtype, 0.0)])
    operands = [Strided(x.place, x.strides, x.dtype) for x in (before, after)]
    out = body.loose_flat((), before.dtype)
    axes = range(len(before.shape))
    fold_axes(body, operands, before.shape, list(axes), "max", writer.finish(result),
              writer.values, out, "change")  # fmt: skip
    return out


# ---------------------------------------------------------------- turns


def _begin(state: Lowering, trips: int) -> Loop:
    """Start a loop; inside another one, its words are set anew at each entry."""
    out = state.out
    loop = Loop(out.loop, out.loops, trips, len(out.rows))
    out.loops += 1
    if loop.outer is not None:
        out.rows.append(PendingRow(MoveWordsKernel("set"), 1, [], "loop"))
    out.loop = loop
    return loop


def _end(state: Lowering, loop: Loop, log: Address | int = 0) -> None:
    """Move on what turns with the loop, and go back to its start."""
    out = state.out
    if loop.moving and loop.trips > 1:
        pairs = [
            word for step, number, _, moved in loop.moving
            for word in (Address("rows", number, step), moved)
        ]  # fmt: skip
        words = [len(loop.moving), *pairs]
        state.emit_words(MoveWordsKernel("advance"), 1, words, "loop")
    target = loop.first + (loop.outer is not None)
    state.emit_words(None, LOOP_END, [target, loop.number, loop.trips, log], "loop")
    loop.last = len(out.rows) - 1
    out.loop = loop.outer
    if loop.outer is not None:
        starts: list[Any] = [len(loop.moving)]
        for step, number, start, _ in loop.moving:
            starts += [Address("rows", number, step), start]
        out.rows[loop.first].words = starts
        state.enter_words(loop.first)


def _decide(
    state: Lowering, loop: Loop, kernel: DecideKernel, read: Sequence[Flat],
    tol: float = 0.0, fault: Address | int = 0,
) -> None:  # fmt: skip
    """The end of a loop that watches its values."""
    turn, visit = state.cells(1), state.cells(1)
    visits, outer = 1, loop.outer
    while outer is not None:
        visits, outer = visits * outer.trips, outer.outer
    if visits > MOST_VISITS:
        raise OpError("E804", f"there is no CPU code for a loop entered {visits} times in a call")
    log = state.cells(visits)
    words = [turn, visit, log, loop.trips, word_of(tol), fault, *(x.place for x in read)]
    state.emit_words(kernel, 1, words, "loop")
    _end(state, loop, log)
