"""Where the numbers of an operand come from: which element of which parameter each one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..interpret import interpret
from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from .statements import statements_of

MOVES = (
    *("param", "reshape", "transpose", "slice", "broadcast", "concat", "gather", "take", "flip"),
    *("iota", "constant", "fill", "cast", "size_of", "tile"),
)
"""Ops that only place elements, and what they need for it."""


@dataclass(frozen=True)
class Source:
    """An operand of a distribution.

    ``path`` is the parameter whose elements it is made of, and ``index`` says which (flat), in the
    operand's shape. A known operand has no path. ``computed`` parameters (``softmax(W @ u)``) are
    those that it depends on in any other way.
    """

    path: str | None
    index: np.ndarray | None
    computed: tuple[str, ...] = ()


def source_of(
    graph: Graph,
    value: Value,
    shapes: Mapping[str, tuple[int, ...]],
    data: Mapping[str, np.ndarray] | None = None,
) -> Source:
    """What an operand of a graph with known sizes is made of; ``shapes`` of parameters by path.

    ``data`` are inputs by name: whole numbers among them may choose elements (``p[c[n]]`` with an
    observed class), which makes the answer one of these data alone.
    """
    twin = graph.copy()
    twin.outputs = [("it", value)]
    twin.inputs = []
    twin.prune()
    twin.inputs = [index for index, _ in twin.of_op("input")]
    paths = tuple(str(node.attrs["path"]) for _, node in twin.of_op("param"))
    if not paths:
        return Source(None, None)
    if len(set(paths)) > 1 or not all(_only_places(node, data or {}) for _, node in twin.nodes()):
        return Source(None, None, paths)
    (path,) = set(paths)
    numbers = np.arange(int(np.prod(shapes[path], dtype=np.int64)), dtype=np.float64)
    _in_double(twin)
    chosen = {node.name: (data or {})[node.name] for _, node in twin.of_op("input")}
    found = interpret(twin, chosen, {path: numbers.reshape(shapes[path])})["it"]
    return Source(path, np.rint(found).astype(np.int64))


def chosen_by_data(graph: Graph) -> bool:
    """Whether some statement's parameters depend on an input (``p[c[n]]``, a regression)."""
    wanted = [value.node for s in statements_of(graph) for value, _ in s.params]
    found = set(wanted)
    while wanted:
        index = wanted.pop()
        if graph.node(index).op == "input":
            return True
        new = {value.node for value in graph.operands(index)} - found
        found |= new
        wanted += new
    return False


def _only_places(node: Node, data: Mapping[str, np.ndarray]) -> bool:
    """Whether an op moves elements and nothing else; an input may say where, not what."""
    if node.op == "input":
        return node.name in data and not node.type.is_float
    return node.op in MOVES


def _in_double(graph: Graph) -> None:
    """Numbers of elements stay exact in float64."""
    for index, node in graph.nodes():
        attrs = dict(node.attrs)
        if node.op == "cast" and node.type.is_float:
            attrs["dtype"] = "f64"
        types = tuple(
            TensorType("f64", kind.shape) if kind.is_float else kind for kind in node.types
        )
        graph.set_node(index, replace(node, attrs=attrs, types=types))
