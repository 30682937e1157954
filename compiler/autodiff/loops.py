"""Gradients of loops: back through time, through a fixed point, through an open loop.

A loop's derivative is a loop that runs the other way. What the body's derivative reads of the
forward run is stacked by the forward loop, or computed again from the carries that it stacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from ..ops.base import OPS, gradient_of
from ..ops.expr import Expr, Pullback, Writer


@dataclass(frozen=True)
class Body:
    """A loop's body with its derivative.

    ``graph`` computes the body's outputs and, from inputs ``d`` that hold the cotangents of the
    floating-point ones (by place), ``found``: cotangents of the body's inputs (by place). What is
    numbered from ``mark`` on the derivative added.
    """

    graph: Graph
    outputs: tuple[Value, ...]
    inputs: tuple[Value, ...]
    d: dict[int, Value]
    found: dict[int, Value]
    mark: int


def differentiated(region: Graph, wanted: Iterable[int], given: Iterable[int], pull: Any) -> Body:
    """The derivative of a body: of the outputs at ``given``, by the inputs at ``wanted``."""
    graph = region.copy()
    mark = max(graph.order(), default=-1) + 1
    outputs = tuple(value for _, value in graph.outputs)
    inputs = tuple(Value(index) for index in graph.inputs)
    d = {p: graph.add_input(f"d{p}", graph.type_of(outputs[p])) for p in given}
    writer = Writer(graph)
    seeds: dict[Value, Value] = {}
    for place, cotangent in d.items():
        value = outputs[place]
        if value in seeds:
            cotangent = (writer.expr(seeds[value]) + writer.expr(cotangent)).value
        seeds[value] = cotangent
    places = [p for p in wanted if graph.type_of(inputs[p]).is_float]
    found = pull(writer, seeds, [inputs[p] for p in places])
    made = {p: value for p, value in zip(places, found, strict=True) if value is not None}
    # An inner loop may have been replaced by one that also puts out what its derivative reads.
    outputs = tuple(value for _, value in graph.outputs)
    return Body(graph, outputs, inputs, d, made, mark)


def copy_into(
    graph: Graph, source: Graph, wanted: Sequence[Value], known: Mapping[Value, Value]
) -> list[Value]:
    """Add what computes ``wanted`` in ``source`` to ``graph``, given values that it has already."""
    made = dict(known)
    needed: set[int] = set()
    stack = [value for value in wanted if value not in made]
    while stack:
        index = stack.pop().node
        if index not in needed:
            needed.add(index)
            stack += [value for value in source.operands(index) if value not in made]
    for index in source.order():
        if index not in needed:
            continue
        node = source.node(index)
        operands = [made[value] for value in source.operands(index)]
        if node.op == "constant":
            graph.constants[str(node.attrs["hash"])] = source.constant(index)
        new = graph.add(
            node.op, operands, node.attrs, node.types, node.name, node.span, node.regions
        )
        for place in range(len(node.types)):
            made.setdefault(Value(index, place), Value(new, place))
    return [made[value] for value in wanted]


# ---------------------------------------------------------------- scan


@gradient_of("scan")
def _scan(pull: Pullback) -> Sequence[Expr | None]:
    node = pull.writer.graph.node(pull.index)
    carries, stacked = int(node.attrs["n_carry"]), int(node.attrs["n_xs"])  # type: ignore[arg-type]
    region = node.regions[0]
    kinds = [region.type_of(value) for _, value in region.outputs]
    floats = [p for p in range(carries) if kinds[p].is_float]
    given = floats + [
        p for p in range(carries, len(kinds)) if pull.dy[p] is not None and kinds[p].is_float
    ]
    wanted = floats + [p for p in range(carries, len(pull.x)) if pull.needs[p]]
    body = differentiated(region, wanted, given, pull.pull)
    saved = _saved(body, carries, carries + stacked, pull.how.recompute)
    forward = _forward(pull, node, body, saved)
    return _backward(pull, node, body, saved, forward)


def _saved(body: Body, carries: int, steady_from: int, recompute: bool) -> list[Value]:
    """Values of the forward step that the derivative reads and that differ from step to step.

    Captures are read again, and what depends on them alone is computed again. So are, from what is
    saved, the element-wise ops that the derivative added. With ``recompute``, all is computed
    again from the carries.
    """
    graph = body.graph
    backward = _depending(graph, body.d.values())
    steady = _steady(graph, body.inputs[:steady_from], body.d.values())
    read = [value for value in body.found.values() if value.node not in backward]
    for index in graph.order():
        if index in backward:
            read += [value for value in graph.operands(index) if value.node not in backward]
    kept: dict[Value, None] = {}
    rows = set(body.inputs[carries:steady_from])
    seen: set[Value] = set()
    while read:
        value = read.pop(0)
        if value in seen or value.node in steady or value in rows:
            continue
        seen.add(value)
        node = graph.node(value.node)
        again = recompute or (value.node >= body.mark and OPS[node.op].batching == "elementwise")
        if node.op != "input" and again:
            read += graph.operands(value.node)
        else:
            kept[value] = None
    return list(kept)


def _depending(graph: Graph, roots: Iterable[Value]) -> set[int]:
    found: set[int] = set()
    stack = [value.node for value in roots]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack += [user for user, _, _ in graph.users(index)]
    return found


def _steady(graph: Graph, moving: Sequence[Value], d: Iterable[Value]) -> set[int]:
    """Nodes that are the same at every step."""
    return set(graph.order()) - _depending(graph, [*moving, *d])


def _forward(pull: Pullback, node: Node, body: Body, saved: Sequence[Value]) -> list[Expr]:
    """The stacks of what is saved, from a loop put in the loop's place where it lacks some."""
    graph, source = pull.writer.graph, node.regions[0]
    carries = int(node.attrs["n_carry"])  # type: ignore[arg-type]
    rows = dict(zip(body.outputs[carries:], pull.y[carries:], strict=True))
    fresh = [value for value in saved if value not in rows]
    if not fresh:
        return [rows[value] for value in saved]
    region = Graph(source.name)
    known: dict[Value, Value] = {}
    for index, value in zip(source.inputs, body.inputs, strict=True):
        known[value] = region.add_input(source.node(index).name, source.node(index).type)
    outputs = copy_into(region, body.graph, [*body.outputs, *fresh], known)
    names = [name for name, _ in source.outputs]
    names += [f"saved{len(names) + i}" for i in range(len(fresh))]
    for name, value in zip(names, outputs, strict=True):
        region.set_output(name, value)
    made = pull.writer.loop("scan", pull.x, node.attrs, region)
    for old, new in zip(pull.y, made, strict=False):
        graph.replace_uses(old.value, new.value)
    # A value that is a carry and a row is read as a row, which comes later.
    rows = dict(zip([*body.outputs, *fresh], made, strict=True))
    return [rows[value] for value in saved]


def _backward(
    pull: Pullback, node: Node, body: Body, saved: Sequence[Value], stacks: Sequence[Expr]
) -> Sequence[Expr | None]:
    """The loop that runs the other way, and the cotangents that it gives."""
    attrs: Any = node.attrs
    carries, stacked = attrs["n_carry"], attrs["n_xs"]
    first = carries + stacked
    floats = [p for p in range(carries) if p in body.d]
    summed = [p for p in range(first, len(pull.x)) if p in body.found]
    region, known = Graph("backward"), {}
    inner, writer = Writer(region), pull.writer
    operands: list[Expr] = []

    def read(name: str, operand: Expr, kind: TensorType) -> Value:
        operands.append(operand)
        return region.add_input(name, kind)

    for p in floats:
        known[body.d[p]] = read(f"d{p}", pull.cotangent(p), pull.y[p].type)
    totals = {p: read(f"total{p}", pull.x[p].filled(0), pull.x[p].type) for p in summed}
    before = len(operands)
    for p, value in body.d.items():
        if p >= carries:
            known[value] = read(f"d{p}", pull.cotangent(p), body.graph.type_of(value))
    for i, (value, stack) in enumerate(zip(saved, stacks, strict=True)):
        known[value] = read(f"saved{i}", stack, body.graph.type_of(value))
    for p in range(carries, first):
        known.setdefault(
            body.inputs[p], read(f"x{p}", pull.x[p], body.graph.type_of(body.inputs[p]))
        )
    mask = _truncation(pull, attrs)
    cut = None if mask is None else read("open", mask, TensorType("bool", ()))
    rows = len(operands) - before
    for p in range(first, len(pull.x)):
        known[body.inputs[p]] = read(f"capture{p}", pull.x[p], pull.x[p].type)
    row_places = [p for p in range(carries, first) if p in body.found]
    wanted = [p for p in (*floats, *summed, *row_places) if p in body.found]
    values = copy_into(region, body.graph, [body.found[p] for p in wanted], known)
    made = {p: inner.expr(value) for p, value in zip(wanted, values, strict=True)}
    for p in floats:
        kind = pull.y[p].type
        d = made.get(p) or inner.fill(kind.shape, 0, kind.dtype)
        d = d if cut is None else inner.expr(cut).where(d, 0)
        region.set_output(f"d{p}", d.value)
    for p in summed:
        region.set_output(f"total{p}", (inner.expr(totals[p]) + made[p]).value)
    for p in row_places:
        region.set_output(f"dx{p}", made[p].value)
    how = {
        "n_carry": len(floats) + len(summed),
        "n_xs": rows,
        "length": attrs["length"],
        "reverse": not attrs["reverse"],
    }
    results = iter(writer.loop("scan", operands, how, region))
    found: list[Expr | None] = [None] * len(pull.x)
    for p in (*floats, *summed, *row_places):
        found[p] = next(results)
    return found


def _truncation(pull: Pullback, attrs: Any) -> Expr | None:
    """Where the cotangent of a step's carry goes on to the step before, ``bool[T]``."""
    steps = pull.how.truncate
    if steps is None:
        return None
    at = pull.writer.make("iota", size=attrs["length"], dtype="i64")
    at = at.flip(0) if attrs["reverse"] else at
    return ~at.op("mod", steps).same(0) | at.same(0)


# ---------------------------------------------------------------- fix


@gradient_of("fix")
def _fix(pull: Pullback) -> Sequence[Expr | None]:
    # x = f(x, a) and cotangent v of x: u = v + u df/dx is a fixed point too, and u df/da the
    # cotangent of a (implicit function theorem; Christianson, OMS 1994, two-phase method).
    node = pull.writer.graph.node(pull.index)
    attrs: Any = node.attrs
    carries = attrs["n_carry"]
    captures = range(carries, len(pull.x))
    region = node.regions[0]
    at = [*pull.y, *pull.x[carries:]]
    by_state = differentiated(region, range(carries), range(carries), pull.pull)
    back, known, operands = Graph("adjoint"), {}, []
    inner = Writer(back)
    for p in range(carries):
        known[by_state.d[p]] = back.add_input(f"u{p}", pull.y[p].type)
    v = [pull.cotangent(p) for p in range(carries)]
    starts = [back.add_input(f"v{p}", x.type) for p, x in enumerate(v)]
    operands += [*v, *v]
    for p, x in enumerate(at):
        known[by_state.inputs[p]] = back.add_input(f"a{p}", x.type)
        operands.append(x)
    places = list(by_state.found)
    values = copy_into(back, by_state.graph, [by_state.found[p] for p in places], known)
    made = dict(zip(places, values, strict=True))
    for p in range(carries):
        total = inner.expr(starts[p])
        total = total + inner.expr(made[p]) if p in made else total
        back.set_output(f"u{p}", total.value)
    u = pull.writer.loop("fix", operands, attrs, back)
    wanted = [p for p in captures if pull.needs[p]]
    by_capture = differentiated(region, wanted, range(carries), pull.pull)
    given = {by_capture.d[p]: u[p].value for p in range(carries)}
    given |= {value: x.value for value, x in zip(by_capture.inputs, at, strict=True)}
    places = list(by_capture.found)
    sources = [by_capture.found[p] for p in places]
    values = copy_into(pull.writer.graph, by_capture.graph, sources, given)
    found: list[Expr | None] = [None] * len(pull.x)
    for p, value in zip(places, values, strict=True):
        found[p] = pull.writer.expr(value)
    return found


# ---------------------------------------------------------------- iterate


@gradient_of("iterate")
def _iterate(pull: Pullback) -> Sequence[Expr | None]:
    # Carries are stored step by step in buffers of max_steps rows; the derivative counts back.
    node = pull.writer.graph.node(pull.index)
    attrs: Any = node.attrs
    carries, most = attrs["n_carry"], attrs["max_steps"]
    count, buffers = _recorded(pull, node)
    region = node.regions[0]
    floats = [p for p in range(carries) if pull.y[p].type.is_float]
    wanted = floats + [p for p in range(carries, len(pull.x)) if pull.needs[p]]
    body = differentiated(region, wanted, floats, pull.pull)
    summed = [p for p in range(carries, len(pull.x)) if p in body.found]
    back, known = Graph("backward"), {}
    inner = Writer(back)
    operands = [pull.cotangent(p) for p in floats]
    operands += [pull.x[p].filled(0) for p in summed]
    for p in floats:
        known[body.d[p]] = back.add_input(f"d{p}", pull.y[p].type)
    totals = {p: inner.expr(back.add_input(f"total{p}", pull.x[p].type)) for p in summed}
    left = inner.expr(back.add_input("left", TensorType("i64", ())))
    operands.append(count)
    row = left - 1
    for p, buffer in enumerate(buffers):
        held = inner.expr(back.add_input(f"buffer{p}", buffer.type))
        known[body.inputs[p]] = held.op("take", row, axis=0).value
        operands.append(buffer)
    for p in range(carries, len(pull.x)):
        known[body.inputs[p]] = back.add_input(f"capture{p}", pull.x[p].type)
        operands.append(pull.x[p])
    places = list(body.found)
    values = copy_into(back, body.graph, [body.found[p] for p in places], known)
    made = {p: inner.expr(value) for p, value in zip(places, values, strict=True)}
    for p in floats:
        kind = pull.y[p].type
        d = made.get(p) or inner.fill(kind.shape, 0, kind.dtype)
        back.set_output(f"d{p}", d.value)
    for p in summed:
        back.set_output(f"total{p}", (totals[p] + made[p]).value)
    back.set_output("left", row.value)
    back.set_output("stop", (row <= 0).value)
    how = {"n_carry": len(floats) + len(summed) + 1, "max_steps": most}
    results = pull.writer.loop("iterate", operands, how, back)
    found: list[Expr | None] = [None] * len(pull.x)
    for p, d in zip((*floats, *summed), results, strict=False):
        found[p] = d
    return found


def _recorded(pull: Pullback, node: Node) -> tuple[Expr, list[Expr]]:
    """Put a loop in the loop's place that also counts its steps and stores what each began with."""
    attrs: Any = node.attrs
    carries, most = attrs["n_carry"], attrs["max_steps"]
    source, region, writer = node.regions[0], Graph(node.regions[0].name), pull.writer
    inner, known = Writer(region), {}
    types = [source.node(index).type for index in source.inputs]
    before = [region.add_input(f"carry{p}", types[p]) for p in range(carries)]
    step = inner.expr(region.add_input("step", TensorType("i64", ())))
    held = [
        inner.expr(region.add_input(f"buffer{p}", kind.with_shape((most, *kind.shape))))
        for p, kind in enumerate(types[:carries])
    ]
    captures = [region.add_input(f"capture{p}", types[p]) for p in range(carries, len(types))]
    for index, value in zip(source.inputs, [*before, *captures], strict=True):
        known[Value(index)] = value
    outputs = copy_into(region, source, [value for _, value in source.outputs], known)
    for p in range(carries):
        region.set_output(f"carry{p}", outputs[p])
    region.set_output("step", (step + 1).value)
    for p, (buffer, value) in enumerate(zip(held, before, strict=True)):
        row = inner.expr(value).unsqueeze(0)
        region.set_output(f"buffer{p}", buffer.op("scatter_add", step.unsqueeze(0), row).value)
    region.set_output("stop", outputs[carries])
    start = writer.fill((), 0, "i64")
    empty = [writer.fill((most, *kind.shape), 0, kind.dtype) for kind in types[:carries]]
    operands = [*pull.x[:carries], start, *empty, *pull.x[carries:]]
    how = {"n_carry": 2 * carries + 1, "max_steps": most}
    made = writer.loop("iterate", operands, how, region)
    for old, new in zip(pull.y, made, strict=False):
        writer.graph.replace_uses(old.value, new.value)
    return made[carries], list(made[carries + 1 :])
