"""The rewrite engine: one graph under change, and rules as data run to a bounded fixpoint.

A :class:`Rewriter` mutates one working copy and keeps topological ranks, so that whether a fusion
is legal asks numbers and not paths. A :class:`Rule` is a pattern over ops, a condition and a
replacement; :func:`rewrite` applies a table of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from .ir.graph import Graph, Node, Value
from .ir.types import AttrValue, TensorType
from .ops.base import OPS
from .ops.control import LOOPS, WITH_REGION, region_result_types
from .phase import is_load, weight_sizes

COMMUTATIVE = (
    *("add", "mul", "minimum", "maximum", "eq", "ne", "and", "or", "xor"),
)  # fmt: skip
"""Ops of two operands whose order does not matter, to the last bit."""


class RewriteError(Exception):
    """A rule that never comes to rest or that changes a type; the message names it."""


# ---------------------------------------------------------------- the graph under change


class Rewriter:
    """A graph while passes change it.

    Ranks number the nodes so that every operand ranks below its readers. ``became`` maps a node
    that was replaced to the node that took its place; ``refusals`` holds why two nodes, by number,
    were not fused. ``steady`` inputs (what a region captures) count as known beforehand.
    """

    def __init__(self, graph: Graph, steady: Collection[int] = ()) -> None:
        self.graph = graph
        self.changed = False
        self.became: dict[int, int] = {}
        self.refusals: dict[tuple[int, int], str] = {}
        self.touched: list[int] = []
        self._steady_inputs = frozenset(steady)
        self._sizes = graph.symbols if steady else weight_sizes(graph)
        self._rank: dict[int, int] = {}
        self._steady: dict[int, bool] = {}
        self._by_op: dict[str, set[int]] = {}
        for index in graph.order():
            self._enter(index, graph.operands(index))

    # ------------------------------------------------------------ reading

    def node(self, index: int) -> Node:
        """The node numbered ``index``."""
        return self.graph.node(index)

    def operands(self, index: int) -> tuple[Value, ...]:
        """What a node reads."""
        return self.graph.operands(index)

    def type_of(self, value: Value) -> TensorType:
        """The type of a value."""
        return self.graph.type_of(value)

    def rank(self, index: int) -> int:
        """A topological number: higher than that of every operand."""
        return self._rank[index]

    def of_op(self, *ops: str) -> list[int]:
        """Nodes of the given ops, producers first."""
        found = [index for op in ops for index in self._by_op.get(op, ())]
        return sorted(found, key=lambda index: (self._rank[index], index))

    def all(self) -> list[int]:
        """All nodes, producers first."""
        return sorted(self._rank, key=lambda index: (self._rank[index], index))

    def readers(self, value: Value) -> list[tuple[int, int]]:
        """``(consumer, operand position)`` of every reader of a value."""
        return [(u, place) for u, place, r in self.graph.users(value.node) if r == value.result]

    def is_output(self, value: Value) -> bool:
        """Whether the graph puts the value out."""
        return any(value == found for _, found in self.graph.outputs)

    def only_reader(self, value: Value) -> int | None:
        """The one node that reads a value once, when nothing else does."""
        found = self.graph.users(value.node)
        readers = [u for u, _, r in found if r == value.result]
        return readers[0] if len(readers) == 1 and not self.is_output(value) else None

    def steady(self, value: Value) -> bool:
        """Whether a value is known before the call: weights, constants, what a loop captures."""
        return self._steady[value.node]

    def scalar(self, value: Value) -> int | float | bool | None:
        """The number behind a ``fill`` or a constant of one element, else ``None``."""
        node = self.node(value.node)
        if node.op == "fill":
            number = node.attrs["value"]
            return number if isinstance(number, int | float) else None
        if node.op == "constant":
            array = self.graph.constant(value.node)
            return array.item() if array.size == 1 else None
        return None

    def vector(self, value: Value) -> np.ndarray | None:
        """The array behind a constant."""
        is_constant = self.node(value.node).op == "constant"
        return self.graph.constant(value.node) if is_constant else None

    # ------------------------------------------------------------ changing

    def emit(
        self,
        op: str,
        operands: Sequence[Value],
        attrs: Mapping[str, AttrValue] | None = None,
        like: int | None = None,
        regions: Sequence[Graph] = (),
    ) -> Value:
        """Add a node with types by its rule, named after ``like``; its first result."""
        types = [self.type_of(value) for value in operands]
        attrs = attrs or {}
        if op in WITH_REGION:
            results = region_result_types(op, types, attrs, regions[0])
        else:
            results = tuple(OPS[op].shape(types, attrs))
        origin = self.node(like) if like is not None else None
        name, span = (origin.name, origin.span) if origin is not None else ("", None)
        index = self.graph.add(op, operands, attrs, results, name, span, regions)
        self._enter(index, operands)
        self._touch(index)
        return Value(index)

    def constant(self, array: np.ndarray, dtype: str, name: str = "") -> Value:
        """Add a constant."""
        value = self.graph.add_constant(array, dtype)
        if name:
            self.graph.set_node(value.node, replace(self.node(value.node), name=name))
        self._enter(value.node, ())
        self._touch(value.node)
        return value

    def number(self, value: int | float, dtype: str) -> Value:
        """Add a scalar. It is a ``fill``, so that it keeps all its digits in every element type."""
        return self.emit("fill", (), {"shape": (), "value": value, "dtype": dtype})

    def replace(self, old: Value, new: Value) -> None:
        """Let all readers of ``old`` read ``new``; what nothing reads any more goes away."""
        if old == new:
            return
        if self.type_of(old) != self.type_of(new):
            found, wanted = self.type_of(new), self.type_of(old)
            raise RewriteError(f"%{old.node} {self.node(old.node).op}: {wanted} became {found}")
        readers = [user for user, _ in self.readers(old)]
        self.graph.replace_uses(old, new)
        self.became[old.node] = new.node
        for user in readers:
            self._raise(user, self._rank[new.node] + 1)
            self._refresh(user)
            self._touch(user)
        self._touch(new.node)
        self.sweep(old.node)

    def replace_node(self, old: int, new: int) -> None:
        """Let every result of ``new`` take the place of the same result of ``old``."""
        for place in range(len(self.node(old).types)):
            if old in self._rank:
                self.replace(Value(old, place), Value(new, place))

    def set_operands(self, index: int, operands: Sequence[Value]) -> None:
        """Rewire what a node reads; types must stay what they are."""
        before = self.operands(index)
        self.graph.set_operands(index, operands)
        self._raise(index, 1 + max((self._rank[v.node] for v in operands), default=-1))
        self._refresh(index)
        self._touch(index)
        for value in before:
            self.sweep(value.node)

    def set_region(self, index: int, region: Graph) -> None:
        """Put another region into a loop; its interface must stay what it is."""
        self.graph.set_node(index, replace(self.node(index), regions=(region,)))
        self._touch(index)

    def rename(self, index: int, name: str) -> None:
        """Give a node a name."""
        self.graph.set_node(index, replace(self.node(index), name=name))

    def sweep(self, index: int) -> None:
        """Delete a node that nothing reads, and what only it read; inputs and outputs stay."""
        stack = [index]
        while stack:
            index = stack.pop()
            put_out = any(index == value.node for _, value in self.graph.outputs)
            if index not in self._rank or put_out or self.node(index).op == "input":
                continue
            if self.graph.users(index):
                continue
            stack += [value.node for value in self.operands(index)]
            self._by_op[self.node(index).op].discard(index)
            self.graph.remove(index)
            del self._rank[index], self._steady[index]
            self.changed = True

    def forget(self) -> None:
        """Take note that the graph was pruned from outside."""
        for index in [index for index in self._rank if index not in self.graph]:
            del self._rank[index], self._steady[index]
            for held in self._by_op.values():
                held.discard(index)
            self.changed = True

    def refuse(self, producer: int, consumer: int, reason: str) -> None:
        """Record why two nodes stay apart."""
        self.refusals.setdefault((producer, consumer), reason)

    # ------------------------------------------------------------ helpers

    def _enter(self, index: int, operands: Sequence[Value]) -> None:
        self._rank[index] = 1 + max((self._rank[v.node] for v in operands), default=-1)
        self._by_op.setdefault(self.node(index).op, set()).add(index)
        self._steady[index] = self._is_steady(index, operands)

    def _is_steady(self, index: int, operands: Sequence[Value]) -> bool:
        known = (self._steady[v.node] for v in operands)
        return index in self._steady_inputs or is_load(self.node(index), known, self._sizes)

    def _refresh(self, index: int) -> None:
        """See again whether a node is steady now that it reads something else."""
        stack = [index]
        while stack:
            index = stack.pop()
            found = self._is_steady(index, self.operands(index))
            if found != self._steady[index]:
                self._steady[index] = found
                stack += [user for user, _, _ in self.graph.users(index)]

    def _raise(self, index: int, floor: int) -> None:
        stack = [(index, floor)]
        while stack:
            index, floor = stack.pop()
            if self._rank[index] < floor:
                self._rank[index] = floor
                stack += [(user, floor + 1) for user, _, _ in self.graph.users(index)]

    def _touch(self, index: int) -> None:
        self.changed = True
        self.touched.append(index)


def within_loops(rewriter: Rewriter, action: Callable[[Rewriter], None]) -> None:
    """Do ``action`` to the region of every loop."""
    for index in rewriter.of_op(*LOOPS):
        within_loop(rewriter, index, action)


def within_loop(rewriter: Rewriter, index: int, action: Callable[[Rewriter], None]) -> None:
    """Do ``action`` to the region of a loop; what the loop captures counts as steady."""
    node = rewriter.node(index)
    region = node.regions[0].copy()
    inner = Rewriter(region, captures(node))
    action(inner)
    if inner.changed:
        rewriter.set_region(index, region)


def captures(loop: Node) -> list[int]:
    """Inputs of a loop's region that are the same at every step."""
    return loop.regions[0].inputs[n_carry(loop) + n_xs(loop) :]


def n_carry(loop: Node) -> int:
    """How many carries a loop has."""
    return int(loop.attrs["n_carry"])  # type: ignore[arg-type]


def n_xs(loop: Node) -> int:
    """How many stacked inputs a loop reads row by row."""
    return int(loop.attrs.get("n_xs", 0))  # type: ignore[arg-type]


# ---------------------------------------------------------------- patterns


@dataclass(frozen=True)
class Wild:
    """Any value; the same name twice must be the same value."""

    name: str


@dataclass(frozen=True)
class Number:
    """A scalar known now; captures the number, or demands ``value``."""

    name: str
    value: float | None = None


@dataclass(frozen=True)
class Apply:
    """The only result of a node of one of ``ops``; ``attrs`` maps attributes to capture names.

    ``operands=None`` matches any operands; ``alone`` demands that nothing else reads the value;
    ``name`` captures the value.
    """

    ops: tuple[str, ...]
    operands: tuple[Wild | Number | Apply, ...] | None
    attrs: tuple[tuple[str, str], ...] = ()
    alone: bool = False
    name: str = ""


def op(
    names: str,
    *operands: Wild | Number | Apply,
    alone: bool = False,
    name: str = "",
    **attrs: str,
) -> Apply:
    """A pattern: ``op("transpose", op("transpose", Wild("x"), perm="p"), perm="q")``."""
    return Apply(tuple(names.split()), operands, tuple(attrs.items()), alone, name)


@dataclass
class Match:
    """Where a pattern fits: the root node and what was captured."""

    rewriter: Rewriter
    root: int
    bound: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]

    @property
    def type(self) -> TensorType:
        """The type of the root's result."""
        return self.rewriter.node(self.root).type

    def type_of(self, name: str) -> TensorType:
        """The type of a captured value."""
        return self.rewriter.type_of(self.bound[name])

    def emit(self, op: str, *operands: Value, **attrs: AttrValue) -> Value:
        """Add a node that is named after the root."""
        return self.rewriter.emit(op, operands, attrs, like=self.root)

    def number(self, value: int | float) -> Value:
        """Add a scalar of the root's element type."""
        return self.rewriter.number(value, self.type.dtype)


@dataclass(frozen=True)
class Rule:
    """Where ``pattern`` fits and ``condition`` holds, ``replacement`` gives the new value."""

    name: str
    pattern: Apply
    replacement: Callable[[Match], Value]
    condition: Callable[[Match], bool] = lambda match: True


def matches(rewriter: Rewriter, index: int, pattern: Apply) -> Iterator[Match]:
    """All ways in which a pattern fits a node; the operands of commutative ops in both orders."""
    for bound in _fit_node(rewriter, index, pattern, {}):
        yield Match(rewriter, index, bound)


def _fit_node(
    rewriter: Rewriter, index: int, pattern: Apply, bound: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    node = rewriter.node(index)
    if pattern.ops and node.op not in pattern.ops:
        return
    operands = rewriter.operands(index) if pattern.operands is not None else ()
    if pattern.operands is not None and not _may_fit(rewriter, operands, pattern.operands):
        return
    bound = {**bound, **{capture: node.attrs[attr] for attr, capture in pattern.attrs}}
    if pattern.name:
        bound[pattern.name] = Value(index)
    if pattern.operands is None:
        yield bound
        return
    yield from _fit_all(rewriter, operands, pattern.operands, bound)
    if node.op in COMMUTATIVE:
        yield from _fit_all(rewriter, operands[::-1], pattern.operands, bound)


def _may_fit(
    rewriter: Rewriter, values: Sequence[Value], patterns: Sequence[Wild | Number | Apply]
) -> bool:
    """A quick look at operand counts and ops that turns most nodes away, in any order."""
    if len(values) != len(patterns):
        return False
    names = {rewriter.node(value.node).op for value in values}
    for pattern in patterns:
        if isinstance(pattern, Number) and not names & {"fill", "constant"}:
            return False
        if isinstance(pattern, Apply) and pattern.ops and names.isdisjoint(pattern.ops):
            return False
    return True


def _fit_all(
    rewriter: Rewriter,
    values: Sequence[Value],
    patterns: Sequence[Wild | Number | Apply],
    bound: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    if not patterns:
        yield bound
        return
    for found in _fit_value(rewriter, values[0], patterns[0], bound):
        yield from _fit_all(rewriter, values[1:], patterns[1:], found)


def _fit_value(
    rewriter: Rewriter, value: Value, pattern: Wild | Number | Apply, bound: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if isinstance(pattern, Wild):
        if bound.get(pattern.name, value) == value:
            yield {**bound, pattern.name: value}
    elif isinstance(pattern, Number):
        number = rewriter.scalar(value)
        if number is not None and pattern.value in (None, number):
            yield {**bound, pattern.name: number}
    elif len(rewriter.node(value.node).types) == 1 and not (
        pattern.alone and rewriter.only_reader(value) is None
    ):
        yield from _fit_node(rewriter, value.node, pattern, bound)


# ---------------------------------------------------------------- running rules


def rewrite(rewriter: Rewriter, rules: Sequence[Rule]) -> None:
    """Apply rules until none fits, inner nodes first.

    Raises :class:`RewriteError` that names the rules that keep firing after more rewrites than a
    table that comes to rest would need.
    """
    buckets: dict[str, list[Rule]] = {}
    for rule in rules:
        for name in rule.pattern.ops or ("",):
            buckets.setdefault(name, []).append(rule)
    everywhere = buckets.pop("", [])
    queue = [(rewriter.rank(index), index) for index in rewriter.all()]
    heapify(queue)
    queued = {index for _, index in queue}
    fired: Counter[str] = Counter()
    budget = 20 * len(queue) + 1000
    while queue:
        _, index = heappop(queue)
        queued.discard(index)
        if index not in rewriter.graph:
            continue
        applicable = [*buckets.get(rewriter.node(index).op, ()), *everywhere]
        rewriter.touched.clear()
        name = _apply_first(rewriter, index, applicable)
        if name is None:
            continue
        fired[name] += 1
        if sum(fired.values()) > budget:
            often = ", ".join(name for name, _ in fired.most_common(3))
            raise RewriteError(f"rewriting does not come to rest: {often} keep firing")
        for fresh in _affected(rewriter):
            if fresh not in queued:
                queued.add(fresh)
                heappush(queue, (rewriter.rank(fresh), fresh))


def _apply_first(rewriter: Rewriter, index: int, rules: Sequence[Rule]) -> str | None:
    """The name of the first rule that fits the node, after it was applied."""
    for rule in rules:
        for match in matches(rewriter, index, rule.pattern):
            if not rule.condition(match):
                continue
            try:
                rewriter.replace(Value(index), rule.replacement(match))
            except RewriteError as fault:
                raise RewriteError(f"rule {rule.name}: {fault}") from fault
            return rule.name
    return None


def _affected(rewriter: Rewriter) -> set[int]:
    """Nodes to look at again: those touched and two levels of readers, as patterns are deep."""
    found = {index for index in rewriter.touched if index in rewriter.graph}
    for _ in range(2):
        found |= {user for index in found for user, _, _ in rewriter.graph.users(index)}
    return found
