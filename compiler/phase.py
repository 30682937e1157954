"""When a value is known: once the weights are there (`load`), or at every call (`call`)."""

from __future__ import annotations

from collections.abc import Iterable

from .ir.dims import Dim
from .ir.graph import Graph, Node
from .ir.types import AttrValue

LOAD, CALL = "load", "call"


def phase(graph: Graph) -> dict[int, str]:
    """The phase of every node.

    A ``load`` node depends on weights and constants only, and on no size that a call brings;
    while training, weights change and it runs again at every step.
    """
    sizes = weight_sizes(graph)
    known: dict[int, bool] = {}
    for index, node in graph.nodes():
        operands = [known[value.node] for value in graph.operands(index)]
        known[index] = is_load(node, operands, sizes)
    return {index: LOAD if early else CALL for index, early in known.items()}


def weight_sizes(graph: Graph) -> frozenset[str]:
    """Symbols whose value the weights tell."""
    found: frozenset[str] = frozenset()
    for _, node in graph.of_op("param"):
        found |= node.type.symbols
    return found


def is_load(node: Node, operands: Iterable[bool], sizes: frozenset[str]) -> bool:
    """Whether a node is ``load``, given which operands are and what sizes the weights tell."""
    if node.op == "input" or not all(operands):
        return False
    return node.op == "param" or node_symbols(node) <= sizes


def node_symbols(node: Node) -> frozenset[str]:
    """Symbolic sizes in a node's types and attributes."""
    found: frozenset[str] = frozenset()
    for kind in node.types:
        found |= kind.symbols
    for value in node.attrs.values():
        found |= _attr_symbols(value)
    return found


def _attr_symbols(value: AttrValue) -> frozenset[str]:
    if isinstance(value, Dim):
        return value.symbols
    if isinstance(value, tuple):
        return frozenset().union(*map(_attr_symbols, value))
    return frozenset()
