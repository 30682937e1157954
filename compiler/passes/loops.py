"""Loops taken apart and put together again: what passes that move code across a loop share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Graph, Value
from ..ir.types import TensorType
from ..rewrite import Rewriter


def replace_loop(
    rewriter: Rewriter, index: int, region: Graph, operands: Sequence[Value], rows: int
) -> int:
    """Put a loop with another region and operands in the place of one; ``rows`` are stacked."""
    node = rewriter.node(index)
    attrs = {**node.attrs, "n_xs": rows} if node.op == "scan" else node.attrs
    made = rewriter.emit(node.op, operands, attrs, index, (region,))
    rewriter.replace_node(index, made.node)
    return made.node


def add_region_input(region: Graph, stem: str, kind: TensorType) -> Value:
    """Declare one more input of a region, with a name of its own that starts with ``stem``."""
    taken = {node.name for _, node in region.of_op("input")}
    number = next(n for n in range(len(taken) + 1) if f"{stem}{n}" not in taken)
    return region.add_input(f"{stem}{number}", kind)


def is_needed_by(graph: Graph, value: Value, wanted: Callable[[int], bool]) -> bool:
    """Whether the graph puts a value out or a wanted node reads it."""
    if any(value == found for _, found in graph.outputs):
        return True
    return any(r == value.result and wanted(user) for user, _, r in graph.users(value.node))
