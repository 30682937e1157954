"""Why two nodes were or were not fused, in words."""

from __future__ import annotations

from difflib import get_close_matches

from .ir.graph import Graph
from .options import Options
from .pipeline import Outcome, run


def why(graph: Graph, a: str | int, b: str | int, options: Options | None = None) -> str:
    """What became of two nodes of a source graph, and what kept them apart.

    A node is given by its number, by ``"%7"`` as the graph prints it, or by its name. Raises
    ``KeyError`` with a readable message for a node that does not exist.
    """
    first, second = find(graph, a), find(graph, b)
    outcome = run(graph, options)
    ways = [_way(outcome, index) for index in (first, second)]
    names = [_label(graph, index) for index in (first, second)]
    if ways[0][-1] == ways[1][-1] and ways[0][-1] in outcome.graph:
        merged = outcome.graph.node(ways[0][-1])
        return f"{names[0]} and {names[1]} are one node: {merged.op}"
    for way, name in zip(ways, names, strict=True):
        if way[-1] not in outcome.graph:
            return f"{name} is no longer there: nothing needs what it computed"
    for x, y in ((0, 1), (1, 0)):
        for pair, reason in outcome.refusals.items():
            if pair[0] in ways[x] and pair[1] in ways[y]:
                return f"{names[x]} and {names[y]} stay apart: {reason}"
    return _unrelated(outcome, ways, names)


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


def _way(outcome: Outcome, index: int) -> list[int]:
    """A node and all that took its place, in turn."""
    way = [index]
    while way[-1] in outcome.became and outcome.became[way[-1]] not in way:
        way.append(outcome.became[way[-1]])
    return way


def _label(graph: Graph, index: int) -> str:
    node = graph.node(index)
    return f"{node.op} {node.name}".strip() if node.name else f"{node.op} %{index}"


def _unrelated(outcome: Outcome, ways: list[list[int]], names: list[str]) -> str:
    graph = outcome.graph
    a, b = ways[0][-1], ways[1][-1]
    ops = [graph.node(index).op for index in (a, b)]
    for x, y in ((0, 1), (1, 0)):
        source, reader = (a, b)[x], (a, b)[y]
        if any(user == reader for user, _, _ in graph.users(source)):
            return f"{names[x]} and {names[y]} stay apart: no pass fuses {ops[x]} into {ops[y]}"
    return f"{names[0]} and {names[1]} stay apart: neither reads what the other computes"
