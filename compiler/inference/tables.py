"""Tables: log-potentials with named axes, and the few tensor ops that inference is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.dims import DimLike, evaluate, product
from ..ir.graph import Graph, Value
from ..ir.types import AttrValue, Span, TensorType
from ..ops.base import infer


def known(size: Any) -> int:
    """A size that is a number by now."""
    return evaluate(size, {})


@dataclass(frozen=True, eq=False)
class Table:
    """A tensor whose axes have names: indices (``t``) and values of variables (``z``).

    ``plates`` are the indices that it is repeated over; those that are no axis of it are indices
    along which it stays the same.
    """

    value: Value
    axes: tuple[str, ...]
    plates: frozenset[str] = frozenset()


class Emitter:
    """Adds nodes to a graph; ``sizes`` holds the size of every axis by name."""

    def __init__(self, graph: Graph, sizes: Mapping[str, DimLike]) -> None:
        self.graph = graph
        self.sizes = dict(sizes)
        self.span: Span | None = None
        self.label = ""

    def type_of(self, value: Value) -> TensorType:
        """The type of a value."""
        return self.graph.type_of(value)

    def emit(self, op: str, operands: Sequence[Value], **attrs: AttrValue) -> Value:
        """A node with its inferred types; its first result."""
        types = infer(op, [self.type_of(v) for v in operands], attrs)
        return Value(self.graph.add(op, operands, attrs, types, self.label, self.span))

    def shape(self, axes: Iterable[str]) -> tuple[DimLike, ...]:
        """Sizes of axes."""
        return tuple(self.sizes[axis] for axis in axes)

    # ------------------------------------------------------------ axes

    def reshape(self, value: Value, shape: Sequence[DimLike]) -> Value:
        """The same elements in another shape; nothing where the shape is this already."""
        same = self.type_of(value).shape == tuple(shape)
        return value if same else self.emit("reshape", [value], shape=tuple(shape))

    def arrange(self, table: Table, axes: Sequence[str]) -> Value:
        """The table's tensor with these axes in order, of size 1 where it has no such axis."""
        held = [axis for axis in axes if axis in table.axes]
        perm = tuple(table.axes.index(axis) for axis in held)
        value = table.value
        if perm != tuple(range(len(perm))):
            value = self.emit("transpose", [value], perm=perm)
        return self.reshape(value, [self.sizes[a] if a in held else 1 for a in axes])

    def expand(self, table: Table, axes: Sequence[str]) -> Value:
        """The table's tensor with exactly these axes, repeated along those that it lacks."""
        value, shape = self.arrange(table, axes), self.shape(axes)
        same = self.type_of(value).shape == shape
        return value if same else self.emit("broadcast", [value], shape=shape)

    def joined(self, tables: Sequence[Table]) -> tuple[str, ...]:
        """All axes of some tables, in order of appearance."""
        return tuple(dict.fromkeys(axis for table in tables for axis in table.axes))

    # ------------------------------------------------------------ arithmetic

    def number(self, value: float, dtype: str = "f64") -> Value:
        """A constant scalar."""
        return self.emit("fill", [], shape=(), value=value, dtype=dtype)

    def combine(self, op: str, tables: Sequence[Table]) -> Table:
        """Tables joined element by element with a binary op."""
        plates = frozenset().union(*(table.plates for table in tables))
        axes = self.joined(tables)
        value = self.arrange(tables[0], axes)
        for table in tables[1:]:
            value = self.emit(op, [value, self.arrange(table, axes)])
        return Table(value, axes, plates)

    def times(self, a: Table, b: Table) -> Table:
        """A product; a factor that is the number 1 costs nothing."""
        for one, other in ((a, b), (b, a)):
            node = self.graph.node(one.value.node)
            if not one.axes and node.op == "fill" and node.attrs["value"] == 1.0:
                return other
        return self.combine("mul", [a, b])

    def wide(self, table: Table) -> Table:
        """The table in float64, in which exact inference computes."""
        if self.type_of(table.value).dtype == "f64":
            return table
        value = self.emit("cast", [table.value], dtype="f64")
        return Table(value, table.axes, table.plates)

    def map(self, op: str, table: Table) -> Table:
        """An op on every element."""
        return Table(self.emit(op, [table.value]), table.axes, table.plates)

    def reduce(self, kind: str, table: Table, axes: Iterable[str]) -> Table:
        """A reduction over axes that the table has."""
        places = tuple(sorted(table.axes.index(axis) for axis in axes))
        if not places:
            return table
        value = self.emit("reduce", [table.value], kind=kind, axes=places, keepdims=False)
        kept = tuple(a for place, a in enumerate(table.axes) if place not in places)
        return Table(value, kept, table.plates)

    def total(self, table: Table, axes: Iterable[str]) -> Table:
        """The sum over axes; along one that the table lacks it is the same, so it is multiplied."""
        gone = set(axes)
        result = self.reduce("sum", table, [axis for axis in table.axes if axis in gone])
        times = [self.sizes[axis] for axis in gone if axis not in table.axes]
        if times and product(times) != 1:
            result = Table(self.scaled(result.value, product(times)), result.axes, result.plates)
        return Table(result.value, result.axes, result.plates - gone)

    def scaled(self, value: Value, factor: DimLike) -> Value:
        """A value times a size."""
        if factor == 1:
            return value
        dtype = self.type_of(value).dtype
        number = self.emit("size_of", [], size=factor, dtype="i64")
        return self.emit("mul", [value, self.emit("cast", [number], dtype=dtype)])

    # ------------------------------------------------------------ places along an axis

    def cut(self, value: Value, axis: int, low: DimLike, size: DimLike) -> Value:
        """Part of a tensor along one axis."""
        shape = self.type_of(value).shape
        if low == 0 and size == shape[axis]:
            return value
        starts = tuple(low if place == axis else 0 for place in range(len(shape)))
        stops = tuple(low + size if p == axis else d for p, d in enumerate(shape))
        return self.emit("slice", [value], starts=starts, stops=stops, steps=(1,) * len(shape))

    def place(self, value: Value, axis: int, low: DimLike, total: DimLike) -> Value:
        """A tensor put into zeros along one axis."""
        shape = self.type_of(value).shape
        after: Any = total - low - shape[axis]
        if low == 0 and after == 0:
            return value
        edges = [tuple(e if p == axis else 0 for p in range(len(shape))) for e in (low, after)]
        return self.emit("pad", [value], before=edges[0], after=edges[1], value=0.0,
                         mode="constant")  # fmt: skip
