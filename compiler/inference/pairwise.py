"""Pairwise factors read as formulas: sums of ``scale * compat(x, x') * a(i) * b(j) * gauss(i, j)``.

A factor over all pairs is a table of N^2 L^2 entries that nobody wants to make. What it is made
of is looked up in the graph, down to tensors over one index each and Gaussians of differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product as pairs_of
from typing import Any

from ..ir.graph import Graph, Node, Value
from .statements import BATCH, Statement
from .tables import Table

Names = tuple[str | None, ...]
"""What each axis of a value runs over; None for one of size 1, FEATURE for a vector's."""

FEATURE = "*"
MOST_TERMS = 64


@dataclass(frozen=True)
class Leaf:
    """A tensor over few axes, or one over it."""

    table: Table
    inverse: bool = False

    @property
    def over(self) -> set[str]:
        """What it runs over, apart from the batch."""
        return {axis for axis in self.table.axes if axis is not None and axis != BATCH}


@dataclass(frozen=True)
class Bell:
    """``exp(-|f_i - f_j|^2 / (2 width^2))``; the features are ``[.., N, d]`` on either side."""

    left: Table
    right: Table
    width: float


@dataclass(frozen=True)
class Term:
    """A product: a number, tensors by what they run over, and Gaussians."""

    number: float = 1.0
    leaves: tuple[Leaf, ...] = ()
    bells: tuple[Bell, ...] = ()

    def over(self, wanted: Callable[[set[str]], bool]) -> tuple[Leaf, ...]:
        """The tensors whose axes, apart from the batch, are wanted."""
        return tuple(x for x in self.leaves if wanted(x.over))

    def times(self, other: Term) -> Term:
        """The product of two products."""
        return Term(self.number * other.number, (*self.leaves, *other.leaves),
                    (*self.bells, *other.bells))  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A pairwise factor's terms; ``how`` restricts its pairs: ``<`` once each, ``!=`` twice."""

    terms: tuple[Term, ...]
    i: str
    j: str
    how: str


def kernel_of(graph: Graph, statement: Statement) -> Kernel | None:
    """A factor ``E(x[i], x[j])`` over all pairs as a sum of Gaussian terms; None for any other."""
    if statement.role != "factor" or len(statement.references) != 2:
        return None
    first, second = statement.references
    domain = [name for name in statement.domain if name != BATCH]
    if first.variable != second.variable or len(domain) != 2 or statement.condition is None:
        return None
    places = [r.places for r in statement.references]
    if any(len(p) != 1 or p[0][0] != "index" or p[0][2] != 0 for p in places):
        return None
    i, j = places[0][0][1], places[1][0][1]
    if {i, j} != set(domain) or statement.domain[i] != statement.domain[j]:
        return None
    how = _order(graph, statement, i, j)
    if how is None:
        return None
    value, axes = statement.params[0]
    terms = Reader(graph, i, j).terms(value, axes)
    values = {first.axis, second.axis}
    if terms is None or not all(_sorted(term, i, j, values) for term in terms):
        return None
    return Kernel(tuple(terms), i, j, how)


def _sorted(term: Term, i: str, j: str, values: set[str]) -> bool:
    """Whether every tensor of a term is over one pixel, or over values only."""
    kinds = ({i}, {j}, set())
    return bool(term.bells) and all(x.over in kinds or x.over <= values for x in term.leaves)


def _order(graph: Graph, statement: Statement, i: str, j: str) -> str | None:
    """``<`` or ``!=`` when the statement's condition says ``i < j`` or ``i != j``."""
    assert statement.condition is not None
    value, axes = statement.condition
    node = graph.node(value.node)
    if node.op not in ("lt", "gt", "ne"):
        return None
    found = [_counts(graph, v, axes) for v in graph.operands(value.node)]
    if node.op == "ne" and set(found) == {i, j}:
        return "!="
    if node.op == "gt":
        found.reverse()
    return "<" if found in ([i, j], [j, i]) and node.op != "ne" else None


def _counts(graph: Graph, value: Value, axes: Sequence[str]) -> str | None:
    """The axis whose positions a value counts, from 0."""
    shape = graph.type_of(value).shape
    names = [name for name, size in zip(axes[-len(shape) :], shape, strict=False) if size != 1]
    while graph.node(value.node).op == "reshape":
        (value,) = graph.operands(value.node)
    return names[0] if graph.node(value.node).op == "iota" and len(names) == 1 else None


@dataclass
class Reader:
    """Reads values over ``i`` and ``j`` as sums of products."""

    graph: Graph
    i: str
    j: str
    _bells: dict[Value, Bell] = field(default_factory=dict)

    def terms(self, value: Value, names: Sequence[str | None]) -> list[Term] | None:
        """The terms of a value whose axes are named; None where it is none of these."""
        node, shape = self.graph.node(value.node), self.graph.type_of(value).shape
        names = _named(names, shape)
        found = self._opened(value, node, names)
        if found is not None:
            return found if len(found) <= MOST_TERMS else None
        if {self.i, self.j} <= set(names) or FEATURE in names:
            return None
        return [Term(leaves=(Leaf(self._table(value, names)),))]

    def _opened(self, value: Value, node: Node, names: Names) -> list[Term] | None:
        """What an op is made of; None for an op that stands for itself."""
        operands = self.graph.operands(value.node)
        if node.op in ("add", "sub"):
            parts = [self.terms(v, self._under(v, names)) for v in operands]
            if parts[0] is None or parts[1] is None:
                return None
            sign = -1.0 if node.op == "sub" else 1.0
            return [*parts[0], *(replace(t, number=sign * t.number) for t in parts[1])]
        if node.op == "neg":
            found = self.terms(operands[0], names)
            return found and [replace(t, number=-t.number) for t in found]
        if node.op in ("mul", "div"):
            return self._product(operands, names, node.op == "div")
        if node.op in ("cast", "reshape", "transpose", "broadcast"):
            inner = self._behind(value, node, names)
            return None if inner is None else self.terms(operands[0], inner)
        if node.op == "exp" and {self.i, self.j} <= set(names):
            bell = self._bell(operands[0], names)
            return None if bell is None else [Term(bells=(bell,))]
        return None

    def _product(self, operands: Sequence[Value], names: Names, divided: bool) -> list[Term] | None:
        parts = [self.terms(v, self._under(v, names)) for v in operands]
        if parts[0] is None or parts[1] is None:
            return None
        if divided:
            if len(parts[1]) != 1 or parts[1][0].bells or not parts[1][0].number:
                return None
            below = parts[1][0]
            leaves = tuple(Leaf(x.table, not x.inverse) for x in below.leaves)
            parts[1] = [Term(1 / below.number, leaves)]
        return [a.times(b) for a, b in pairs_of(parts[0], parts[1])]

    def _under(self, value: Value, names: Names) -> Names:
        """The names of an operand that is broadcast to its reader."""
        rank = self.graph.type_of(value).rank
        return names[len(names) - rank :]

    def _behind(self, value: Value, node: Node, names: Names) -> Names | None:
        """The names of the operand of an op that moves axes; None where it merges or parts them."""
        (source,) = self.graph.operands(value.node)
        shape = self.graph.type_of(source).shape
        if node.op == "cast":
            return names
        if node.op == "transpose":
            inner: list[str | None] = [None] * len(names)
            perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
            for place, axis in enumerate(perm):
                inner[axis] = names[place]
            return tuple(inner)
        if node.op == "broadcast":
            return names[len(names) - len(shape) :]
        return _reshaped(names, node.type.shape, shape)

    # ------------------------------------------------------------ Gaussians

    def _bell(self, value: Value, names: Names) -> Bell | None:
        """``c * sum((f_i - f_j)^2)`` with a negative number c."""
        step = self._through_casts(value)
        if self.graph.node(step.node).op != "mul":
            return None
        distance, factor = self.graph.operands(step.node)
        number = self.graph.node(factor.node)
        if number.op != "fill" or number.type.rank or not float(str(number.attrs["value"])) < 0:
            return None
        total = self.graph.node(distance.node)
        rank = total.type.rank
        wanted = {"kind": "sum", "axes": (rank,), "keepdims": False}
        if total.op != "reduce" or dict(total.attrs) != wanted:
            return None
        square = self._through_casts(self.graph.operands(distance.node)[0])
        if self.graph.node(square.node).op != "square":
            return None
        apart = self._through_casts(self.graph.operands(square.node)[0])
        if self.graph.node(apart.node).op != "sub":
            return None
        full = (*names, FEATURE)
        sides = [self._features(v, self._under(v, full)) for v in self.graph.operands(apart.node)]
        if sides[0] is None or sides[1] is None:
            return None
        by_index = {side.axes[-2]: side for side in sides if side is not None}
        if set(by_index) != {self.i, self.j}:
            return None
        width = (-0.5 / float(str(number.attrs["value"]))) ** 0.5
        return Bell(by_index[self.i], by_index[self.j], width)

    def _through_casts(self, value: Value) -> Value:
        while self.graph.node(value.node).op == "cast":
            (value,) = self.graph.operands(value.node)
        return value

    def _features(self, value: Value, names: Names) -> Table | None:
        """Vectors over one index, with the batch perhaps."""
        shape = self.graph.type_of(value).shape
        table = self._table(value, _named(names, shape))
        if [a for a in table.axes if a != BATCH] not in ([self.i, FEATURE], [self.j, FEATURE]):
            return None
        return table

    def _table(self, value: Value, names: Names) -> Table:
        """A value without its axes of size 1, as plain as it stands in the graph."""
        while self.graph.node(value.node).op in ("reshape", "cast"):
            inner = self._behind(value, self.graph.node(value.node), names)
            if inner is None or (FEATURE in names and FEATURE not in inner):
                break
            (value,), names = self.graph.operands(value.node), inner
        return Table(value, names)  # type: ignore[arg-type]


def _named(names: Sequence[str | None], shape: Sequence[Any]) -> Names:
    """Names of axes; one of size 1 has none, unless it is the batch's or a vector's."""
    return tuple(
        n if size != 1 or n in (BATCH, FEATURE) else None
        for n, size in zip(names, shape, strict=True)
    )


def _reshaped(names: Names, after: Sequence[Any], before: Sequence[Any]) -> Names | None:
    """Names before a reshape that adds or takes away axes of size 1; None for any other."""
    found: list[str | None] = []
    place = 0
    for size in before:
        while place < len(after) and after[place] == 1 != size:
            place += 1
        if place < len(after) and after[place] == size:
            found.append(names[place])
            place += 1
        elif size == 1:
            found.append(None)
        else:
            return None
    return tuple(found) if all(size == 1 for size in after[place:]) else None


def same(graph: Graph, a: Value, b: Value) -> bool:
    """Whether two values are computed alike from the same inputs and weights."""
    seen: dict[tuple[Value, Value], bool] = {}

    def equal(a: Value, b: Value) -> bool:
        if a == b:
            return True
        if (a, b) in seen:
            return seen[a, b]
        one, two = graph.node(a.node), graph.node(b.node)
        alike = a.result == b.result and one.op == two.op and one.types == two.types
        alike = alike and one.op not in ("input", "param") and one.attrs == two.attrs
        if alike and one.op == "constant":
            alike = bool((graph.constant(a.node) == graph.constant(b.node)).all())
        if alike:
            left, right = graph.operands(a.node), graph.operands(b.node)
            alike = len(left) == len(right) and all(
                equal(x, y) for x, y in zip(left, right, strict=True)
            )
        seen[a, b] = alike
        return alike

    return equal(a, b)
