"""How deep a net is, as papers count it: layers with weights on the longest path."""

from __future__ import annotations

from collections.abc import Sequence

from .ir.graph import Graph, Value
from .ops import OPS

Reach = tuple[bool, bool, int]
"""What a value depends on: on inputs, on weights; and the layers before it."""


def depth(graph: Graph) -> int:
    """Layers with weights on the longest path from an input to an output.

    A layer is an op that multiplies what comes from the inputs with what comes from weights alone:
    a convolution or a matrix product. A loop counts as one step of its body.
    """
    reaches = _outputs(graph, [(True, False, 0)] * len(graph.inputs))
    return max((layers for _, _, layers in reaches), default=0)


def _outputs(graph: Graph, inputs: Sequence[Reach]) -> list[Reach]:
    reach: dict[Value, Reach] = dict(zip(map(Value, graph.inputs), inputs, strict=True))
    for index, node in graph.nodes():
        operands = [reach[value] for value in graph.operands(index)]
        if node.op == "input":
            continue
        if node.op == "param":
            results: list[Reach] = [(False, True, 0)]
        elif node.regions:
            carries = int(node.attrs.get("n_carry", 0))  # type: ignore[arg-type]
            results = _region(node.regions[0], operands, carries, len(node.types))
        else:
            data = any(from_inputs for from_inputs, _, _ in operands)
            weights = any(trained for _, trained, _ in operands)
            own = any(trained and not from_inputs for from_inputs, trained, _ in operands)
            row = OPS.get(node.op)
            layer = row is not None and row.macs is not None and data and own
            before = max((layers for _, _, layers in operands), default=0)
            results = [(data, weights, before + layer)] * len(node.types)
        reach.update({Value(index, place): r for place, r in enumerate(results)})
    return [reach[value] for _, value in graph.outputs]


def _region(body: Graph, operands: Sequence[Reach], carries: int, count: int) -> list[Reach]:
    """The results of a loop, whose carries come from the inputs by way of the step before."""
    carried = [(True, trained, layers) for _, trained, layers in operands[:carries]]
    # The carries of `iterate` are followed by its condition, which is no result.
    return _outputs(body, [*carried, *operands[carries:]])[:count]
