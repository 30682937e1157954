"""Common subexpressions: what is computed twice is computed once, in loops too.

Before::

    %1 = exp(%0)
    %2 = exp(%0)
    %3 = add(%1, %2)

After::

    %1 = exp(%0)
    %3 = add(%1, %1)
"""

from __future__ import annotations

from collections.abc import Hashable

from ..ir.graph import Graph, Node, Value
from ..ir.types import AttrValue
from ..ops.control import LOOPS
from ..options import Options
from ..rewrite import COMMUTATIVE, Rewriter, n_carry, n_xs, within_loop

_APART = ("input", "site", "factor", "query", "grad")
"""Ops that stand for themselves: two equal statements of a model are two statements."""


def common_subexpressions(rewriter: Rewriter, options: Options) -> None:
    """Merge nodes with equal op, attributes, operands and regions; names do not count.

    Random ops merge too: equal keys and paths draw equal numbers.
    """
    seen: dict[Hashable, int] = {}
    for index in rewriter.all():
        if rewriter.node(index).op in LOOPS:
            _merge_reads(rewriter, index)
            within_loop(rewriter, index, lambda inner: common_subexpressions(inner, options))
        if rewriter.node(index).op in _APART:
            continue
        first = seen.setdefault(_key(rewriter.node(index), rewriter.operands(index)), index)
        if first != index:
            rewriter.replace_node(index, first)
            rewriter.sweep(index)


def _merge_reads(rewriter: Rewriter, index: int) -> None:
    """Let a region that gets the same operand twice read it once."""
    node = rewriter.node(index)
    region = node.regions[0].copy()
    first: dict[tuple[Value, bool], int] = {}
    merged = False
    stacked = n_carry(node) + n_xs(node)
    for place, value in enumerate(rewriter.operands(index)):
        if place < n_carry(node):
            continue
        inner = region.inputs[place]
        kept = first.setdefault((value, place < stacked), inner)
        if kept != inner and (region.users(inner) or _is_put_out(region, inner)):
            region.replace_uses(Value(inner), Value(kept))
            merged = True
    if merged:
        rewriter.set_region(index, region)


def _is_put_out(graph: Graph, index: int) -> bool:
    return any(value.node == index for _, value in graph.outputs)


def _key(node: Node, operands: tuple[Value, ...]) -> Hashable:
    if node.op in COMMUTATIVE:
        operands = tuple(sorted(operands, key=lambda value: (value.node, value.result)))
    regions = tuple(_structure(region) for region in node.regions)
    attrs = tuple((name, _exact(node.attrs[name])) for name in sorted(node.attrs))
    return (node.op, operands, attrs, node.types, regions)


def _exact(value: AttrValue) -> Hashable:
    # 1, 1.0 and True are equal in Python, and so are 0.0 and -0.0.
    if isinstance(value, tuple):
        return tuple(_exact(v) for v in value)
    return (type(value).__name__, repr(value) if isinstance(value, float) else value)


def _structure(graph: Graph) -> Hashable:
    """A value equal for two regions exactly when they compute the same."""
    place = {index: i for i, index in enumerate(graph.inputs)}
    rows = []
    for index, node in graph.nodes():
        place.setdefault(index, len(place))
        operands = tuple(Value(place[v.node], v.result) for v in graph.operands(index))
        rows.append((place[index], _key(node, operands)))
    outputs = tuple((place[value.node], value.result) for _, value in graph.outputs)
    return (tuple(rows), outputs)
