"""Why two nodes were or were not fused, in words."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from .inference.expand import expand
from .ir.graph import Graph
from .options import Options
from .pipeline import Outcome, run


def why(graph: Graph, a: str | int, b: str | int, options: Options | None = None) -> str:
    """What became of two nodes of a source graph, and what kept them apart.

    Of a probabilistic model it is the graph of tensor ops that answers its questions. A node is
    given by its number, by ``"%7"`` as the graph prints it, or by its name. Raises
    ``KeyError`` with a readable message for a node that does not exist.
    """
    if graph.of_op("site", "factor"):
        graph = expand(graph)
    first, second = find(graph, a), find(graph, b)
    outcome = run(graph, options)
    ends = [_end(outcome, index) for index in (first, second)]
    names = [_label(graph, index) for index in (first, second)]
    for end, name in zip(ends, names, strict=True):
        if end not in outcome.graph:
            return f"{name} is no longer there: nothing needs what it computed"
    if ends[0] == ends[1]:
        merged = outcome.graph.node(ends[0])
        return f"{names[0]} and {names[1]} are one node: {merged.op}"
    for x, y in ((0, 1), (1, 0)):
        for (producer, consumer), reason in outcome.refusals.items():
            if [_end(outcome, producer), _end(outcome, consumer)] == [ends[x], ends[y]]:
                return f"{names[x]} and {names[y]} stay apart: {reason}"
    return _unrelated(outcome.graph, ends, names)


def find(graph: Graph, which: str | int) -> int:
    """The number of a node given by number, by ``"%7"`` as printed, or by name."""
    order = graph.order()
    if isinstance(which, int):
        if which in graph:
            return which
        raise KeyError(f"there is no node {which}")
    if which.startswith("%") and which[1:].isdigit():
        place = int(which[1:])
        if place < len(order):
            return order[place]
        raise KeyError(f"there is no node {which}; the last is %{len(order) - 1}")
    named = [index for index in order if graph.node(index).name == which]
    if not named:
        names = {graph.node(index).name for index in order} - {""}
        close = get_close_matches(which, sorted(names), 3)
        hint = f"; close are {', '.join(close)}" if close else ""
        raise KeyError(f"no node is called {which}{hint}")
    return named[-1]


def _end(outcome: Outcome, index: int) -> int:
    """The node that in the end stands for a node."""
    seen = {index}
    while (after := outcome.became.get(index, index)) not in seen:
        index = after
        seen.add(index)
    return index


def _label(graph: Graph, index: int) -> str:
    node = graph.node(index)
    return f"{node.op} {node.name}".strip() if node.name else f"{node.op} %{index}"


def _unrelated(graph: Graph, ends: list[int], names: list[str]) -> str:
    for x, y in ((0, 1), (1, 0)):
        if any(user == ends[y] for user, _, _ in graph.users(ends[x])):
            ops = [graph.node(ends[place]).op for place in (x, y)]
            return f"{names[x]} and {names[y]} stay apart: no pass fuses {ops[0]} into {ops[1]}"
    readers = [{user for user, _, _ in graph.users(end)} for end in ends]
    common = sorted(readers[0] & readers[1])
    if common:
        reader = _label(graph, common[0])
        return f"{names[0]} and {names[1]} stay apart as values; {reader} reads both"
    for x, y in ((0, 1), (1, 0)):
        between = _between(graph, ends[x], ends[y])
        if between:
            count = f" and {len(between) - 1} more" if len(between) > 1 else ""
            reader, verb = _label(graph, between[0]), "stand" if count else "stands"
            return f"{names[x]} and {names[y]} stay apart: {reader}{count} {verb} between them"
    return f"{names[0]} and {names[1]} stay apart: neither reads what the other computes"


def _between(graph: Graph, start: int, end: int) -> list[int]:
    """Nodes on the ways from one node to another, producers first; none when there is no way."""
    forth = _reached(start, lambda index: [user for user, _, _ in graph.users(index)])
    back = _reached(end, lambda index: [value.node for value in graph.operands(index)])
    return [index for index in graph.order() if index in forth and index in back]


def _reached(start: int, steps: Callable[[int], list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = steps(start)
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += steps(index)
    return found
