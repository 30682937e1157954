"""Activations computed again on the way back, so that training fits a memory budget.

Before::

    forward a -> b -> c -> d;  backward reads d, c, b, a

After::

    forward a -> b -> c -> d;  backward of c, d
    b again from after(a, cotangent);  backward of a, b

The forward run is cut into segments where little is alive. What is alive at a cut is kept; the rest
of a segment is computed again once the backward run arrives there (Griewank and Walther, ACM TOMS
2000; Chen, Xu, Zhang and Guestrin, 2016, arXiv:1604.06174). ``after`` keeps the second run from
starting early and from being merged with the first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ..cost import bytes_of, cost
from ..ir.dims import DimLike
from ..ir.graph import Graph, Value
from ..ops.base import OPS, OpError
from ..ops.expr import Writer
from .body import copy_into, depending

MOST_SEGMENTS = 64
"""More cuts than this are not tried: what is kept at them outweighs what they save."""


def memory_of(graph: Graph, sizes: Mapping[str, DimLike] | None = None) -> int:
    """Bytes that a graph needs: weights, and the most values alive at once in canonical order.

    Raises :class:`OpError` E805 for a size that is not known.
    """
    found = cost(graph, sizes)
    total = (found.peak_bytes or 0) + found.parameter_bytes + found.buffer_bytes
    if not isinstance(total, int):
        raise OpError("E805", f"the memory depends on sizes without a value: {total}")
    return total


def fit_memory(
    graph: Graph,
    forward: Collection[int],
    budget: int,
    sizes: Mapping[str, DimLike] | None = None,
    measure: Callable[[Graph], int] | None = None,
) -> Graph:
    """The graph, or one that computes activations again so that it needs ``budget`` bytes at most.

    ``forward`` are the nodes that the loss is computed from. Fewer segments are tried first, as
    they cost less time. ``measure`` tells the bytes that a graph needs (:func:`memory_of` where it
    is not given). Raises :class:`OpError` E703 when no cutting is enough; it tells the least memory
    found.
    """
    measured = measure or (lambda made: memory_of(made, sizes))
    least = measured(graph)
    if least <= budget:
        return graph
    segments = 2
    while segments <= MOST_SEGMENTS:
        made = _in_segments(graph, forward, segments, sizes)
        found = measured(made)
        if found <= budget:
            return made
        least = min(least, found)
        segments *= 2
    raise OpError(
        "E703",
        f"training needs {least / 1e6:.4g} MB at least, more than the {budget / 1e6:.4g} MB"
        " allowed",
        "train on smaller batches, or allow more",
    )


@dataclass(frozen=True)
class _Forward:
    """The forward run: its nodes in order without leaves, and the bytes alive after each."""

    order: tuple[int, ...]
    place: dict[int, int]
    alive: tuple[int, ...]
    read_back: dict[Value, int]


def _in_segments(
    graph: Graph, forward: Collection[int], count: int, sizes: Mapping[str, DimLike] | None
) -> Graph:
    """A copy in which all segments of the forward run but the last are computed again."""
    result = graph.copy()
    run = _forward_run(result, set(forward), sizes or {})
    cuts = _cuts(run, count)
    bounds = list(zip([0, *cuts], cuts, strict=False))
    for start, stop in reversed(bounds):
        _again(result, run, set(forward), start, stop)
    return result


def _forward_run(graph: Graph, forward: set[int], sizes: Mapping[str, DimLike]) -> _Forward:
    order = tuple(i for i in graph.order() if i in forward and graph.operands(i))
    place = {index: at for at, index in enumerate(order)}
    bound = {"N": 1, **sizes}
    change = [0] * (len(order) + 1)
    read_back: dict[Value, int] = {}
    for at, index in enumerate(order):
        for result, kind in enumerate(graph.node(index).types):
            readers = [u for u, _, r in graph.users(index) if r == result]
            size = bytes_of([kind.bind(bound)])
            assert isinstance(size, int)
            last = max((place.get(u, -1) for u in readers), default=-1)
            if last > at:
                change[at] += size
                change[last] -= size
            if any(u not in forward for u in readers):
                read_back[Value(index, result)] = size
    alive, total = [], 0
    for step in change[: len(order)]:
        total += step
        alive.append(total)
    return _Forward(order, place, tuple(alive), read_back)


def _cuts(run: _Forward, count: int) -> list[int]:
    """Where segments end: each holds its share of what is read back, cut where least is alive."""
    held = [0] * len(run.order)
    for value, size in run.read_back.items():
        held[run.place[value.node]] += size
    share, total, cuts, window = sum(held) / count, 0.0, [], []
    goal = share
    for at, size in enumerate(held[:-1]):
        total += size
        if abs(total - goal) <= share / 2:
            window.append(at)
        if total > goal + share / 2 or at == len(held) - 2:
            if window:
                cuts.append(min(window, key=lambda i: (run.alive[i], i)) + 1)
            window, goal = [at], goal + share
    return sorted(set(cuts))


def _again(graph: Graph, run: _Forward, forward: set[int], start: int, stop: int) -> None:
    """Compute what the backward run reads of one segment again, when it gets there."""
    inside = {run.order[at] for at in range(start, stop)}
    wanted = [
        value
        for value in run.read_back
        if value.node in inside and not _kept(graph, run, value, stop)
    ]
    readers = {
        user
        for value in wanted
        for user, _, result in graph.users(value.node)
        if result == value.result and user not in forward
    }
    trigger = _entering(graph, forward, readers)
    if trigger is None:
        return
    writer, known = Writer(graph), {}
    for value in _reads(graph, wanted, inside):
        node = graph.node(value.node)
        # Weights and numbers are there all the time.
        waits = node.op == "input" or bool(graph.operands(value.node))
        known[value] = writer.emit("after", [value, trigger])[0] if waits else value
    made = copy_into(graph, graph, wanted, known)
    for old, new in zip(wanted, made, strict=True):
        for user, position, result in graph.users(old.node):
            if result == old.result and user in readers:
                operands = list(graph.operands(user))
                operands[position] = new
                graph.set_operands(user, operands)


def _kept(graph: Graph, run: _Forward, value: Value, stop: int) -> bool:
    """Whether the forward run reads a value after the segment, so that it is alive at the cut."""
    readers = [u for u, _, result in graph.users(value.node) if result == value.result]
    return any(run.place.get(u, -1) >= stop for u in readers)


def _reads(graph: Graph, wanted: Sequence[Value], inside: set[int]) -> list[Value]:
    """Values from outside the segment that what is wanted is computed from."""
    found: dict[Value, None] = {}
    seen: set[int] = set()
    stack = [value.node for value in wanted]
    while stack:
        index = stack.pop()
        if index in seen:
            continue
        seen.add(index)
        for value in graph.operands(index):
            if value.node in inside:
                stack.append(value.node)
            else:
                found[value] = None
    return list(found)


def _entering(graph: Graph, forward: set[int], readers: set[int]) -> Value | None:
    """The cotangent with which the backward run enters a segment: read beside its values."""
    below = depending(graph, [Value(index) for index in readers])
    for index in graph.order():
        if index not in below:
            continue
        for value in graph.operands(index):
            back = value.node not in forward and value.node not in below
            if back and graph.type_of(value).is_float and _moves(graph, value, forward):
                return value
    return None


def _moves(graph: Graph, value: Value, forward: set[int]) -> bool:
    """Whether a value is computed in the backward run, and from more than numbers."""
    node = graph.node(value.node)
    return bool(graph.operands(value.node)) and OPS[node.op].reference is not None
