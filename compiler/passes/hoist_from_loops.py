"""Hoist: what does not change from step to step leaves the loop; what waits for no carry does too.

Before::

    %3 = scan(%h0, %x, %W, %U) {n_carry=1, n_xs=1} (
      h, x_t, W, U: add(linear(x_t, W), linear(h, U))
    )

After::

    %2 = linear(%x, %W)                       # all steps in one product
    %3 = scan(%h0, %2, %U) {n_carry=1, n_xs=1} (
      h, y_t, U: add(y_t, linear(h, U))
    )

Only products and what leads to or follows from them are moved over all steps: the rest costs less
in the loop than its rows cost in memory. Lei et al., Simple Recurrent Units, EMNLP 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir.dims import DimLike
from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from ..ops.base import OPS
from ..ops.control import LOOPS
from ..options import Options
from ..rewrite import Rewriter, captures, n_carry, n_xs, within_loops
from .loops import add_region_input, is_needed_by, replace_loop
from .over_steps import Recipe, over_steps

_NOTHING_TO_MOVE = ("input", "constant", "fill", "iota", "eye", "size_of")


def hoist_from_loops(rewriter: Rewriter, options: Options) -> None:
    """Move out of every loop what depends on captures only, and products of single rows."""
    within_loops(rewriter, lambda inner: hoist_from_loops(inner, options))
    for index in rewriter.of_op(*LOOPS):
        if not options.precise:
            index = _with_sums_apart(rewriter, index)
        index = _without_invariants(rewriter, index)
        if rewriter.node(index).op == "scan":
            _without_row_work(rewriter, index)


# ---------------------------------------------------------------- what never changes


def _without_invariants(rewriter: Rewriter, index: int) -> int:
    """The loop after everything that depends on captures only was computed before it."""
    node = rewriter.node(index)
    region = node.regions[0].copy()
    inner = Rewriter(region, captures(node))
    moving = [i for i in inner.all() if _is_invariant(inner, i)]
    if not moving:
        return index
    outside = dict(zip(map(Value, region.inputs), rewriter.operands(index), strict=True))
    for i in moving:
        _copy_out(rewriter, region, i, outside)
    added = []
    for i in moving:
        for place, kind in enumerate(region.node(i).types):
            value = Value(i, place)
            if is_needed_by(region, value, lambda user: user not in moving):
                added.append(outside[value])
                region.replace_uses(value, add_region_input(region, "capture", kind))
    region.prune()
    operands = [*rewriter.operands(index), *added]
    return replace_loop(rewriter, index, region, operands, n_xs(node))


def _is_invariant(inner: Rewriter, index: int) -> bool:
    node = inner.node(index)
    if node.op in _NOTHING_TO_MOVE or node.op in LOOPS or not inner.steady(Value(index)):
        return False
    return any(
        inner.node(v.node).op == "input" or _is_invariant(inner, v.node)
        for v in inner.operands(index)
    )


def _copy_out(rewriter: Rewriter, region: Graph, index: int, outside: dict[Value, Value]) -> None:
    """Emit a node of the region in the graph around it."""
    node = region.node(index)
    operands = [_outside(rewriter, region, value, outside) for value in region.operands(index)]
    made = rewriter.emit(node.op, operands, node.attrs)
    _label(rewriter, made, node)
    for place in range(len(node.types)):
        outside[Value(index, place)] = Value(made.node, place)


def _outside(rewriter: Rewriter, region: Graph, value: Value, outside: dict[Value, Value]) -> Value:
    """A value of the region in the graph around it; constants are copied on the way."""
    if value not in outside:
        node = region.node(value.node)
        if node.op == "constant":
            outside[value] = rewriter.constant(region.constant(value.node), node.type.dtype)
        else:
            _copy_out(rewriter, region, value.node, outside)
    return outside[value]


def _label(rewriter: Rewriter, value: Value, like: Node) -> None:
    made = rewriter.node(value.node)
    rewriter.graph.set_node(value.node, replace(made, name=like.name, span=like.span))


# ---------------------------------------------------------------- what waits for no carry


def _without_row_work(rewriter: Rewriter, index: int) -> None:
    """Compute products of rows and captures for all steps before the scan."""
    node = rewriter.node(index)
    region = node.regions[0].copy()
    carries, rows = n_carry(node), n_xs(node)
    inner = Rewriter(region, captures(node))
    steps: DimLike = node.attrs["length"]  # type: ignore[assignment]
    recipes = _recipes(inner, set(region.inputs[carries : carries + rows]), steps)
    moving = _worth_moving(inner, recipes)
    if not moving:
        return
    outside = dict(zip(map(Value, region.inputs), rewriter.operands(index), strict=True))
    for i in inner.all():
        if i in recipes and _feeds(inner, i, moving):
            operands = [_outside(rewriter, region, v, outside) for v in region.operands(i)]
            made = recipes[i](rewriter, operands)
            _label(rewriter, made, region.node(i))
            for place in range(len(region.node(i).types)):
                outside[Value(i, place)] = Value(made.node, place)
    _read_rows(rewriter, index, region, moving, outside)


def _recipes(inner: Rewriter, rows: set[int], steps: DimLike) -> dict[int, Recipe]:
    """How to compute over all steps each node that depends on rows and captures only."""
    recipes: dict[int, Recipe] = {}
    for index in inner.all():
        operands = inner.operands(index)
        stacked = [v.node in rows or v.node in recipes for v in operands]
        if all(s or inner.steady(v) for s, v in zip(stacked, operands, strict=True)):
            kinds: list[TensorType] = [inner.type_of(v) for v in operands]
            recipe = over_steps(inner.node(index), kinds, stacked, steps)
            if recipe is not None:
                recipes[index] = recipe
    return recipes


def _worth_moving(inner: Rewriter, recipes: dict[int, Recipe]) -> set[int]:
    """Products, and what follows from them alone without making more rows to keep."""
    moving: set[int] = set()
    for index in inner.all():
        if index not in recipes:
            continue
        if OPS[inner.node(index).op].macs is not None:
            moving.add(index)
            continue
        follows = [v for v in inner.operands(index) if v.node in moving]
        if any(not is_needed_by(inner.graph, v, lambda u: u not in recipes) for v in follows):
            moving.add(index)
    return moving


def _feeds(inner: Rewriter, index: int, moving: set[int]) -> bool:
    """Whether a node is moved or something that is moved depends on it."""
    return index in moving or any(_feeds(inner, u, moving) for u, _, _ in inner.graph.users(index))


def _read_rows(
    rewriter: Rewriter,
    index: int,
    region: Graph,
    moving: set[int],
    outside: dict[Value, Value],
) -> None:
    """Let the scan read what was moved row by row, and its readers read whole stacks."""
    node = rewriter.node(index)
    carries, rows = n_carry(node), n_xs(node)
    for place, (_, value) in enumerate(region.outputs):
        if place >= carries and value.node in moving:
            rewriter.replace(Value(index, place), outside[value])
    added, inputs = [], []
    for i in sorted(moving):
        for place, kind in enumerate(region.node(i).types):
            value = Value(i, place)
            if is_needed_by(region, value, lambda user: user not in moving):
                added.append(outside[value])
                made = add_region_input(region, "x", kind)
                inputs.append(region.inputs.pop())
                region.replace_uses(value, made)
    if index not in rewriter.graph:
        return
    first = carries + rows
    region.inputs[first:first] = inputs
    region.prune()
    operands = list(rewriter.operands(index))
    operands[first:first] = added
    replace_loop(rewriter, index, region, operands, rows + len(added))


# ---------------------------------------------------------------- sums


def _with_sums_apart(rewriter: Rewriter, index: int) -> int:
    """The loop with what waits for a carry apart from what does not.

    ``(a_t + h) + b`` becomes ``(a_t + b) + h``, and ``W [x_t, h]`` becomes ``W1 x_t + W2 h``.
    """
    node = rewriter.node(index)
    region = node.regions[0].copy()
    inner = Rewriter(region, captures(node))
    carried = region.inputs[: n_carry(node)]
    waiting = _dependants(inner, carried)
    joined: dict[tuple[Value, ...], Value] = {}
    for i in inner.of_op("linear"):
        _part_columns(inner, i, waiting, joined)
    waiting = _dependants(inner, carried)
    for i in inner.of_op("add"):
        if i in inner.graph and _is_top_of_sum(inner, i):
            _regroup(inner, i, waiting)
    if not inner.changed:
        return index
    return replace_loop(rewriter, index, region, rewriter.operands(index), n_xs(node))


def _part_columns(
    inner: Rewriter, index: int, waiting: set[int], joined: dict[tuple[Value, ...], Value]
) -> None:
    """A product of joined vectors as a sum of two products: what is early, and what waits.

    ``joined`` holds the vectors that were joined anew, so that products go on to share them.
    """
    x, weight, *bias = inner.operands(index)
    source, axis = inner.node(x.node), inner.type_of(x).rank - 1
    if source.op != "concat" or source.attrs["axis"] != axis:
        return
    parts = inner.operands(x.node)
    early = [not inner.steady(v) and v.node not in waiting for v in parts]
    if not any(early) or all(early):
        return
    sizes = tuple(inner.type_of(v).shape[axis] for v in parts)
    columns = inner.emit("split", (weight,), {"axis": 1, "sizes": sizes}).node
    products = []
    for wanted in (True, False):
        places = [place for place, is_early in enumerate(early) if is_early == wanted]
        chosen = tuple(parts[place] for place in places)
        if chosen not in joined:
            joined[chosen] = _joined(inner, chosen, axis)
        matrix = _joined(inner, [Value(columns, place) for place in places], 1)
        last = bias if wanted else ()
        products.append(inner.emit("linear", (joined[chosen], matrix, *last), like=index))
    inner.replace(Value(index), inner.emit("add", products, like=index))


def _joined(inner: Rewriter, parts: Sequence[Value], axis: int) -> Value:
    return parts[0] if len(parts) == 1 else inner.emit("concat", parts, {"axis": axis})


def _dependants(inner: Rewriter, roots: Sequence[int]) -> set[int]:
    found = set(roots)
    for index in inner.all():
        if any(v.node in found for v in inner.operands(index)):
            found.add(index)
    return found


def _is_top_of_sum(inner: Rewriter, index: int) -> bool:
    reader = inner.only_reader(Value(index))
    return reader is None or inner.node(reader).op != "add"


def _regroup(inner: Rewriter, index: int, waiting: set[int]) -> None:
    terms = _terms(inner, Value(index), top=True)
    early = [value for value in terms if value.node not in waiting]
    late = [value for value in terms if value.node in waiting]
    if len(early) < 2 or not late or not inner.node(index).type.is_float:
        return
    groups = [_sum(inner, early), _sum(inner, late)]
    before = {(inner.node(v.node).op, v) for v in inner.operands(index)}
    if before == {(inner.node(v.node).op, v) for v in groups}:
        return
    inner.replace(Value(index), inner.emit("add", groups, like=index))


def _terms(inner: Rewriter, value: Value, top: bool = False) -> list[Value]:
    alone = top or inner.only_reader(value) is not None
    if inner.node(value.node).op != "add" or not alone:
        return [value]
    return [term for operand in inner.operands(value.node) for term in _terms(inner, operand)]


def _sum(inner: Rewriter, terms: Sequence[Value]) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = inner.emit("add", (total, term))
    return total
