"""What a graph costs to hold and to run: parameters, multiply-accumulates, bytes.

Every number is an integer, or a symbolic size while a symbol is unbound. A ``scan`` costs its
length times its body; the number of steps of ``fix`` and ``iterate`` depends on data, so that their
bodies are counted once and listed in :attr:`Cost.open_loops`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from .ir.dims import Dim, DimLike, dim_max
from .ir.graph import Graph, Node, Value
from .ir.types import TensorType
from .ops import OPS
from .ops.control import LOOPS

MAX_PEAKS = 8
"""A peak that may lie at more places than this, depending on sizes, is not written down."""

HELD = ("param", "constant")
"""Ops whose results lie in memory before the graph runs."""


@dataclass(frozen=True)
class NodeCost:
    """The cost of one node, loops included.

    ``repeats`` is how often the regions run: 1 without regions, ``None`` when data decides.
    """

    index: int
    op: str
    name: str
    parameters: DimLike = 0
    buffers: DimLike = 0
    parameter_bytes: DimLike = 0
    buffer_bytes: DimLike = 0
    macs: DimLike = 0
    read_bytes: DimLike = 0
    written_bytes: DimLike = 0
    repeats: DimLike | None = 1
    bodies: tuple[Cost, ...] = ()

    @property
    def moved_bytes(self) -> DimLike:
        """Operands read plus results written."""
        return self.read_bytes + self.written_bytes

    @property
    def intensity(self) -> float | None:
        """Multiply-accumulates per byte moved; ``None`` when nothing moves or sizes are open."""
        return _ratio(self.macs, self.moved_bytes)


@dataclass(frozen=True)
class Cost:
    """The cost of a graph.

    ``parameters`` counts the elements of ``param`` nodes of every kind but ``buffer``, each weight
    path once; ``activation_bytes`` all results written; ``peak_bytes`` the most that is live at
    once in canonical order when each value is freed after its last reader (inputs included,
    weights and constants not), ``None`` when it has too many symbolic cases. ``open_loops`` are the
    ``fix`` and ``iterate`` nodes whose bodies were counted for one step.
    """

    rows: tuple[NodeCost, ...]
    parameters: DimLike
    buffers: DimLike
    parameter_bytes: DimLike
    buffer_bytes: DimLike
    macs: DimLike
    activation_bytes: DimLike
    moved_bytes: DimLike
    peak_bytes: DimLike | None
    open_loops: tuple[int, ...]

    @property
    def intensity(self) -> float | None:
        """Multiply-accumulates per byte moved; ``None`` when nothing moves or sizes are open."""
        return _ratio(self.macs, self.moved_bytes)


def cost(graph: Graph, bindings: Mapping[str, DimLike] | None = None) -> Cost:
    """The cost of a graph under ``bindings``; the batch ``N`` is 1 unless it is bound.

    Bind a symbol to itself to keep it: ``cost(graph, {"N": symbol("N")})``.
    """
    return _cost(graph.bind({"N": 1, **(bindings or {})}), set())


def weight_path(node: Node) -> str:
    """The path of a ``param`` node."""
    return str(node.attrs.get("path") or node.name)


def bytes_of(kinds: Iterable[TensorType]) -> DimLike:
    """Bytes of tensors of the given types."""
    return _total(kind.elements * kind.itemsize for kind in kinds)


# ---------------------------------------------------------------- helpers


def _cost(graph: Graph, seen: set[str]) -> Cost:
    rows = tuple(_row(graph, index, seen) for index in graph.order())
    return Cost(
        rows,
        parameters=_total(r.parameters for r in rows),
        buffers=_total(r.buffers for r in rows),
        parameter_bytes=_total(r.parameter_bytes for r in rows),
        buffer_bytes=_total(r.buffer_bytes for r in rows),
        macs=_total(r.macs for r in rows),
        activation_bytes=_total(r.written_bytes for r in rows),
        moved_bytes=_total(r.moved_bytes for r in rows),
        peak_bytes=_peak(graph, rows),
        open_loops=tuple(r.index for r in rows if r.repeats is None),
    )


def _row(graph: Graph, index: int, seen: set[str]) -> NodeCost:
    node = graph.node(index)
    if node.op == "param":
        return _param_row(index, node, seen)
    if node.op in ("input", "constant"):
        return NodeCost(index, node.op, node.name)
    reads = [graph.type_of(value) for value in graph.operands(index)]
    rule = OPS[node.op].macs if node.op in OPS else None
    bodies = tuple(_cost(region, seen) for region in node.regions)
    repeats = _repeats(node)
    times: DimLike = 1 if repeats is None else repeats
    macs = rule(reads, node.types, node.attrs) if rule else times * _total(b.macs for b in bodies)
    moved = written = 0
    if node.op in LOOPS:  # what lies inside a fused group stays in registers
        moved = times * _total(b.moved_bytes for b in bodies)
        written = times * _total(b.activation_bytes for b in bodies)
    return NodeCost(
        index,
        node.op,
        node.name,
        parameters=_total(b.parameters for b in bodies),
        buffers=_total(b.buffers for b in bodies),
        parameter_bytes=_total(b.parameter_bytes for b in bodies),
        buffer_bytes=_total(b.buffer_bytes for b in bodies),
        macs=macs,
        read_bytes=bytes_of(reads) + moved - written,
        written_bytes=bytes_of(node.types) + written,
        repeats=repeats,
        bodies=bodies,
    )


def _param_row(index: int, node: Node, seen: set[str]) -> NodeCost:
    path = weight_path(node)
    if path in seen:
        return NodeCost(index, node.op, node.name)
    # A weight without a path cannot be met again under the same name.
    seen.update([path] if path else [])
    count, size = _total(kind.elements for kind in node.types), bytes_of(node.types)
    if node.attrs.get("kind") == "buffer":
        return NodeCost(index, node.op, node.name, buffers=count, buffer_bytes=size)
    return NodeCost(index, node.op, node.name, parameters=count, parameter_bytes=size)


def _repeats(node: Node) -> DimLike | None:
    if node.op not in LOOPS:
        return 1
    length = node.attrs.get("length")
    return length if isinstance(length, int | Dim) else None


def _peak(graph: Graph, rows: tuple[NodeCost, ...]) -> DimLike | None:
    last = _last_readers(graph, [row.index for row in rows])
    kept = {value for _, value in graph.outputs}
    live: DimLike = 0
    peaks: list[DimLike] = []
    for row in rows:
        if row.op in HELD:
            continue
        node = graph.node(row.index)
        results = [Value(row.index, i) for i in range(len(node.types))]
        live = live + bytes_of(node.types)
        inner = [b.peak_bytes for b in row.bodies if node.op in LOOPS]
        peaks = _with_peak(peaks, live + _total(p for p in inner if p is not None))
        unread = [value for value in results if value not in last]
        dead = [value for value in {*graph.operands(row.index)} if last[value] == row.index]
        for value in (*dead, *unread):
            if value not in kept and graph.node(value.node).op not in HELD:
                live = live - bytes_of([graph.type_of(value)])
    if len(peaks) > MAX_PEAKS or any(b.peak_bytes is None for r in rows for b in r.bodies):
        return None
    return reduce(dim_max, peaks) if peaks else 0


def _last_readers(graph: Graph, order: list[int]) -> dict[Value, int]:
    last: dict[Value, int] = {}
    for index in order:
        for value in graph.operands(index):
            last[value] = index
    return last


def _with_peak(peaks: list[DimLike], new: DimLike) -> list[DimLike]:
    """The peaks that may be the highest, with ``new`` among them unless another is never lower."""
    if any(_at_least(old, new) for old in peaks):
        return peaks
    return [*(old for old in peaks if not _at_least(new, old)), new]


def _at_least(a: DimLike, b: DimLike) -> bool:
    """Whether ``a >= b`` for all sizes of one or more; False also when that is not plain to see."""
    difference = a - b
    if isinstance(difference, int):
        return difference >= 0
    sure = 0
    for monomial, coefficient in difference.terms:
        if monomial and coefficient < 0:
            return False
        if all(isinstance(atom, str) for atom in monomial):
            sure += coefficient
    return sure >= 0


def _total(numbers: Iterable[DimLike]) -> DimLike:
    total: DimLike = 0
    for number in numbers:
        total = total + number
    return total


def _ratio(macs: DimLike, moved: DimLike) -> float | None:
    if isinstance(macs, int) and isinstance(moved, int) and moved:
        return macs / moved
    return None
