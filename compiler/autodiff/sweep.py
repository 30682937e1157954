"""The reverse sweep: cotangents of values, from those of what depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from ..ir.graph import Graph, Node, Value
from ..ops.base import OPS, OpError
from ..ops.expr import Expr, How, Pullback, Writer, same_shape

PLAIN = How()


def pull_back(
    writer: Writer, seeds: Mapping[Value, Value], wrt: Sequence[Value], how: How = PLAIN
) -> list[Value | None]:
    """Cotangents of ``wrt``, given those of some values; ``None`` where nothing depends on one.

    Reverse-mode accumulation (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3) that
    adds nodes to the writer's graph. Whole numbers and truth values carry no derivative. Raises
    :class:`OpError` E809 for an op on the way that cannot be differentiated.
    """
    graph = writer.graph
    order, needed = _between(graph, wrt, seeds)
    terms: dict[Value, list[Expr]] = {}
    for value, seed in seeds.items():
        terms.setdefault(value, []).append(writer.expr(seed))
    for index in reversed(order):
        node = graph.node(index)
        results = [Value(index, place) for place in range(len(node.types))]
        local = replace(writer, name=node.name, span=node.span)
        cotangents = tuple(_total(terms, value) for value in results)
        operands = graph.operands(index)
        needs = tuple(value.node in needed and graph.type_of(value).is_float for value in operands)
        if not any(needs) or all(d is None for d in cotangents):
            continue
        pull = Pullback(
            local,
            tuple(local.expr(value) for value in operands),
            tuple(local.expr(value) for value in results),
            tuple(d and replace(d, writer=local) for d in cotangents),
            node.attrs,
            needs,
            index,
            partial(pull_back, how=how),
            how,
        )
        for value, need, d in zip(operands, needs, _gradient(node, pull), strict=True):
            if d is not None and need:
                _check(node, d, graph.type_of(value).shape, graph.type_of(value).dtype)
                terms.setdefault(value, []).append(d)
    totals = [_total(terms, value) for value in wrt]
    return [None if total is None else total.value for total in totals]


def _between(
    graph: Graph, sources: Sequence[Value], seeds: Mapping[Value, Value]
) -> tuple[list[int], set[int]]:
    """Nodes on paths from sources to seeds, producers first, and all that depend on sources."""
    depends: set[int] = set()
    stack = [value.node for value in sources]
    while stack:
        index = stack.pop()
        if index not in depends:
            depends.add(index)
            stack += [user for user, _, _ in graph.users(index)]
    order: list[int] = []
    seen: set[int] = set()
    for seed in seeds:
        # Depth first without recursion: a node is put out after all that it reads.
        path = [(seed.node, False)]
        while path:
            index, done = path.pop()
            if done:
                order.append(index)
            elif index in depends and index not in seen:
                seen.add(index)
                path.append((index, True))
                path += [(value.node, False) for value in graph.operands(index)]
    return order, depends


def _total(terms: dict[Value, list[Expr]], value: Value) -> Expr | None:
    """The sum of a value's cotangents, in the order in which they came; made once."""
    parts = terms.get(value)
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    terms[value] = [total]
    return total


def _gradient(node: Node, pull: Pullback) -> Sequence[Expr | None]:
    gradient = OPS[node.op].gradient
    if gradient is None:
        reason = OPS[node.op].why_no_gradient
        place = f" (at {node.span})" if node.span is not None else ""
        raise OpError(
            "E809",
            f"{node.op} cannot be differentiated: {reason}{place}",
            "keep gradients from it with `stop(..)`",
        )
    found = list(gradient(pull))
    return found + [None] * (len(pull.x) - len(found))


def _check(node: Node, d: Expr, shape: Sequence, dtype: str) -> None:
    if d.dtype != dtype or not same_shape(d.shape, shape):
        raise AssertionError(f"the gradient of {node.op} gives {d.type} for {dtype}{list(shape)}")
