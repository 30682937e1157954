"""Bodies of loops: their derivative, and copying parts of one graph into another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.graph import Graph, Value
from ..ops.expr import Writer


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


def depending(graph: Graph, roots: Iterable[Value]) -> set[int]:
    """Nodes that depend on values, their own nodes included."""
    found: set[int] = set()
    stack = [value.node for value in roots]
    while stack:
        index = stack.pop()
        if index not in found:
            found.add(index)
            stack += [user for user, _, _ in graph.users(index)]
    return found
