"""The graph every stage shares: nodes of ops over typed values, on a networkx multigraph.

Nodes are numbered by integers; an immutable :class:`Node` hangs on each. An edge from producer to
consumer carries which result it reads (``result``) and which operand it feeds (its key). Nothing
outside this file touches networkx. Constants live in a side table under their content's hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Any

import networkx as nx
import numpy as np

from .dims import DimLike, substitute
from .types import Attrs, AttrValue, Span, TensorType, bind_attr


@dataclass(frozen=True)
class Value:
    """One result of one node."""

    node: int
    result: int = 0


@dataclass(frozen=True)
class Node:
    """An op applied: its attributes, result types, name (weight path or label) and origin.

    ``regions`` are closed sub-graphs (the bodies of ``scan``, ``fix``, ``iterate``): all that a
    region reads comes in through its inputs.
    """

    op: str
    attrs: Attrs
    types: tuple[TensorType, ...]
    name: str = ""
    span: Span | None = None
    regions: tuple[Graph, ...] = ()

    @property
    def type(self) -> TensorType:
        """The type of the first (usually the only) result."""
        return self.types[0]


@dataclass(frozen=True)
class Constraint:
    """Two symbolic sizes that must be equal once the symbols are known."""

    left: DimLike
    right: DimLike
    why: str
    span: Span | None = None


@dataclass
class Graph:
    """A directed acyclic multigraph of :class:`Node`, with ordered inputs and named outputs."""

    name: str = ""
    inputs: list[int] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    constraints: list[Constraint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._net: nx.MultiDiGraph = nx.MultiDiGraph()
        self._next = 0

    # ------------------------------------------------------------ reading

    def __len__(self) -> int:
        return self._net.number_of_nodes()

    def __contains__(self, index: int) -> bool:
        return index in self._net

    def node(self, index: int) -> Node:
        """The node numbered ``index``."""
        return self._net.nodes[index]["node"]

    def type_of(self, value: Value) -> TensorType:
        """The type of one result."""
        return self.node(value.node).types[value.result]

    def operands(self, index: int) -> tuple[Value, ...]:
        """What the node reads, in operand order."""
        reads = [
            (position, Value(source, edge["result"]))
            for source, edges in self._net.pred[index].items()
            for position, edge in edges.items()
        ]
        reads.sort(key=itemgetter(0))
        return tuple(value for _, value in reads)

    def users(self, index: int) -> list[tuple[int, int, int]]:
        """``(consumer, operand position, result read)`` for every edge out of the node, sorted."""
        found: list[Any] = [
            (user, position, edge["result"])
            for user, edges in self._net.succ[index].items()
            for position, edge in edges.items()
        ]
        found.sort()
        return found

    def order(self) -> list[int]:
        """All nodes, producers first; ties broken by number, so the order is canonical."""
        pending = {index: self._net.in_degree(index) for index in self._net}
        ready = [index for index, degree in pending.items() if degree == 0]
        heapify(ready)
        result: list[int] = []
        while ready:
            index = heappop(ready)
            result.append(index)
            for _, user in self._net.out_edges(index):
                pending[user] -= 1
                if pending[user] == 0:
                    heappush(ready, user)
        return result

    def nodes(self) -> Iterator[tuple[int, Node]]:
        """``(number, node)`` in canonical order."""
        for index in self.order():
            yield index, self.node(index)

    def of_op(self, *ops: str) -> list[tuple[int, Node]]:
        """Nodes of the given ops in canonical order."""
        return [(index, node) for index, node in self.nodes() if node.op in ops]

    @property
    def symbols(self) -> frozenset[str]:
        """Symbolic sizes that occur in any type."""
        found: frozenset[str] = frozenset()
        for index in self._net:
            for kind in self.node(index).types:
                found |= kind.symbols
        return found

    def constant(self, index: int) -> np.ndarray:
        """The array behind a ``constant`` node."""
        return self.constants[str(self.node(index).attrs["hash"])]

    # ------------------------------------------------------------ building

    def add(
        self,
        op: str,
        operands: Sequence[Value] = (),
        attrs: Mapping[str, AttrValue] | None = None,
        types: Sequence[TensorType] = (),
        name: str = "",
        span: Span | None = None,
        regions: Sequence[Graph] = (),
    ) -> int:
        """Append a node and return its number. Types are trusted here; the verifier checks them."""
        index = self._next
        self._next += 1
        node = Node(op, dict(attrs or {}), tuple(types), name, span, tuple(regions))
        self._net.add_node(index, node=node)
        for position, value in enumerate(operands):
            self._net.add_edge(value.node, index, key=position, result=value.result)
        return index

    def add_input(self, name: str, kind: TensorType, span: Span | None = None) -> Value:
        """Declare the next input."""
        index = self.add("input", (), {}, (kind,), name, span)
        self.inputs.append(index)
        return Value(index)

    def add_constant(self, array: np.ndarray, dtype: str, span: Span | None = None) -> Value:
        """A constant tensor, stored once by content."""
        array = np.array(array, order="C")  # ascontiguousarray would turn a scalar into [1]
        digest = content_hash(array)
        self.constants[digest] = array
        kind = TensorType(dtype, array.shape)
        return Value(self.add("constant", (), {"hash": digest}, (kind,), "", span))

    def set_output(self, name: str, value: Value) -> None:
        """Name ``value`` as the next output."""
        self.outputs.append((name, value))

    # ------------------------------------------------------------ changing

    def set_node(self, index: int, node: Node) -> None:
        """Replace what hangs on a number; edges stay."""
        self._net.nodes[index]["node"] = node

    def set_operands(self, index: int, operands: Sequence[Value]) -> None:
        """Rewire what a node reads."""
        self._net.remove_edges_from(list(self._net.in_edges(index, keys=True)))
        for position, value in enumerate(operands):
            self._net.add_edge(value.node, index, key=position, result=value.result)

    def replace_uses(self, old: Value, new: Value) -> None:
        """Let every reader of ``old``, outputs included, read ``new`` instead."""
        for user, position, result in self.users(old.node):
            if result == old.result and user != new.node:
                self._net.remove_edge(old.node, user, key=position)
                self._net.add_edge(new.node, user, key=position, result=new.result)
        self.outputs = [(name, new if value == old else value) for name, value in self.outputs]

    def remove(self, index: int) -> None:
        """Delete a node that nothing reads."""
        if self._net.out_degree(index):
            raise ValueError(f"node %{index} ({self.node(index).op}) still has readers")
        self._net.remove_node(index)

    def prune(self, keep: Iterable[int] = ()) -> None:
        """Delete everything that no output (nor a node in ``keep``) depends on; inputs stay."""
        live = {value.node for _, value in self.outputs} | set(keep) | set(self.inputs)
        stack = list(live)
        while stack:
            for source in self._net.predecessors(stack.pop()):
                if source not in live:
                    live.add(source)
                    stack.append(source)
        self._net.remove_nodes_from([index for index in self._net if index not in live])
        used = {self.node(i).attrs.get("hash") for i in self._net if self.node(i).op == "constant"}
        self.constants = {digest: a for digest, a in self.constants.items() if digest in used}

    def copy(self) -> Graph:
        """An independent graph with the same nodes (nodes and constants are shared values)."""
        twin = Graph(
            self.name,
            list(self.inputs),
            list(self.outputs),
            dict(self.constants),
            list(self.constraints),
        )
        twin._net = self._net.copy()
        twin._next = self._next
        return twin

    def bind(self, bindings: Mapping[str, DimLike]) -> Graph:
        """The graph with symbolic sizes replaced, regions included; numbers stay."""
        twin = self.copy()
        for index in list(twin._net):
            node = twin.node(index)
            twin.set_node(
                index,
                replace(
                    node,
                    attrs={key: bind_attr(value, bindings) for key, value in node.attrs.items()},
                    types=tuple(kind.bind(bindings) for kind in node.types),
                    regions=tuple(region.bind(bindings) for region in node.regions),
                ),
            )
        twin.constraints = [
            replace(c, left=substitute(c.left, bindings), right=substitute(c.right, bindings))
            for c in self.constraints
        ]
        return twin

    # ------------------------------------------------------------ comparing

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return self.signature() == other.signature()

    __hash__ = None  # type: ignore[assignment]

    def signature(self) -> tuple[object, ...]:
        """A value equal for two graphs exactly when they have the same structure and constants.

        Numbers are renamed by canonical order and source spans are left out.
        """
        rename = {index: place for place, index in enumerate(self.order())}
        rows = []
        for index, node in self.nodes():
            operands = tuple((rename[v.node], v.result) for v in self.operands(index))
            regions = tuple(region.signature() for region in node.regions)
            attrs = tuple(sorted((k, _typed(v)) for k, v in node.attrs.items()))
            rows.append((node.op, operands, attrs, node.types, node.name, regions))
        outputs = tuple((name, rename[v.node], v.result) for name, v in self.outputs)
        inputs = tuple(rename[index] for index in self.inputs)
        constraints = tuple((str(c.left), str(c.right), c.why) for c in self.constraints)
        return (self.name, tuple(rows), inputs, outputs, constraints)


def content_hash(array: np.ndarray) -> str:
    """A short digest of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _typed(value: AttrValue) -> str:
    # repr keeps True apart from 1 and 1 apart from 1.0.
    if isinstance(value, tuple):
        return "(" + ",".join(_typed(v) for v in value) + ")"
    return f"{type(value).__name__}:{value!r}"
