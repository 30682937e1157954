"""A graph as plain dictionaries and lists, ready for ``json.dumps``.

Keys of a graph: ``name``, ``symbols``, ``inputs`` (node ids), ``outputs`` (``name``, ``node``,
``result``), ``nodes``, ``edges``, ``constraints`` (``left``, ``right``, ``why``, ``span``) and
``cost`` (totals).

Keys of a node: ``id`` (its number in canonical order, as in the text form), ``op``, ``name``,
``attrs``, ``types`` (``dtype``, ``shape``), ``span`` (``file``, ``line``, ``column``) or null,
``cost``, ``regions`` (graphs). An edge goes ``from`` a node's ``result`` ``to`` a node's
``operand``.

A size is a number, or a string where it has symbols. In ``attrs`` a symbolic size is
``{"size": "2*H"}``, so that it is no string, and an infinity or NaN is ``{"float": "inf"}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..compiler.cost import Cost, NodeCost, cost
from ..compiler.ir.dims import Dim, DimLike
from ..compiler.ir.graph import Graph
from ..compiler.ir.types import AttrValue, Span, TensorType


def graph_json(graph: Graph, bindings: Mapping[str, DimLike] | None = None) -> dict[str, Any]:
    """The graph as plain data; costs at ``bindings`` (the batch ``N`` is 1 unless bound)."""
    return _graph(graph, cost(graph, bindings))


# ---------------------------------------------------------------- helpers


def _graph(graph: Graph, total: Cost) -> dict[str, Any]:
    number = {index: place for place, index in enumerate(graph.order())}
    edges = [
        {"from": number[v.node], "result": v.result, "to": number[index], "operand": position}
        for index in number
        for position, v in enumerate(graph.operands(index))
    ]
    outputs = [
        {"name": name, "node": number[v.node], "result": v.result} for name, v in graph.outputs
    ]
    constraints = [
        {"left": _size(c.left), "right": _size(c.right), "why": c.why, "span": _span(c.span)}
        for c in graph.constraints
    ]
    return {
        "name": graph.name,
        "symbols": sorted(graph.symbols),
        "inputs": [number[index] for index in graph.inputs],
        "outputs": outputs,
        "nodes": [_node(graph, row, number[row.index]) for row in total.rows],
        "edges": edges,
        "constraints": constraints,
        "cost": _totals(total, [number[index] for index in total.open_loops]),
    }


def _node(graph: Graph, row: NodeCost, number: int) -> dict[str, Any]:
    node = graph.node(row.index)
    regions = zip(node.regions, row.bodies, strict=False)
    return {
        "id": number,
        "op": node.op,
        "name": node.name,
        "attrs": {key: _attr(value) for key, value in node.attrs.items()},
        "types": [_type(kind) for kind in node.types],
        "span": _span(node.span),
        "cost": {
            "parameters": _size(row.parameters),
            "buffers": _size(row.buffers),
            "macs": _size(row.macs),
            "read_bytes": _size(row.read_bytes),
            "written_bytes": _size(row.written_bytes),
            "repeats": None if row.repeats is None else _size(row.repeats),
        },
        "regions": [_graph(region, spent) for region, spent in regions],
    }


def _totals(total: Cost, open_loops: list[int]) -> dict[str, Any]:
    return {
        "parameters": _size(total.parameters),
        "buffers": _size(total.buffers),
        "parameter_bytes": _size(total.parameter_bytes),
        "buffer_bytes": _size(total.buffer_bytes),
        "macs": _size(total.macs),
        "activation_bytes": _size(total.activation_bytes),
        "moved_bytes": _size(total.moved_bytes),
        "peak_bytes": None if total.peak_bytes is None else _size(total.peak_bytes),
        "intensity": total.intensity,
        "open_loops": open_loops,
    }


def _size(size: DimLike) -> int | str:
    return size if isinstance(size, int) else str(size)


def _type(kind: TensorType) -> dict[str, Any]:
    return {"dtype": kind.dtype, "shape": [_size(d) for d in kind.shape]}


def _attr(value: AttrValue) -> Any:
    if isinstance(value, tuple):
        return [_attr(v) for v in value]
    if isinstance(value, Dim):
        return {"size": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _span(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    return {"file": span.file, "line": span.line, "column": span.column}
