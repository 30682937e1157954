"""Dead code: what no output depends on goes, unused carries, rows and captures of loops too.

Before::

    %3:3 = scan(%0, %1, %2) {n_carry=2, n_xs=1}   # only result 0 is read; carry 1 feeds itself
    output "h" = %3

After::

    %3 = scan(%0, %2) {n_carry=1, n_xs=1}
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..ir.graph import Graph, Node, Value
from ..ops.control import LOOPS
from ..options import Options
from ..rewrite import Rewriter, n_carry, n_xs, within_loops


def dead_code(rewriter: Rewriter, options: Options) -> None:
    """Remove what is never read; graph inputs stay, since callers name them."""
    _prune(rewriter)
    within_loops(rewriter, lambda inner: dead_code(inner, options))
    # Readers first: what a later loop lets go may have been all that an earlier one was for.
    for index in reversed(rewriter.of_op(*LOOPS)):
        if index in rewriter.graph:
            _share_results(rewriter, index)
            _trim(rewriter, index)
    _prune(rewriter)


def _prune(rewriter: Rewriter) -> None:
    rewriter.graph.prune()
    rewriter.forget()


def _share_results(rewriter: Rewriter, index: int) -> None:
    """Let readers of two stacks with the same rows read one of them."""
    node = rewriter.node(index)
    first: dict[Value, Value] = {}
    results = [Value(index, place) for place in range(len(node.types))]
    rows = [value for _, value in node.regions[0].outputs]
    for result, row in list(zip(results, rows, strict=False))[n_carry(node) :]:
        rewriter.replace(result, first.setdefault(row, result))


def _trim(rewriter: Rewriter, index: int) -> None:
    """Make a loop without the results, carries and operands that nothing needs."""
    node = rewriter.node(index)
    used = {result for _, _, result in rewriter.graph.users(index)}
    used |= {value.result for _, value in rewriter.graph.outputs if value.node == index}
    outputs, inputs = _needed(node, used)
    if len(outputs) == len(node.regions[0].outputs) and len(inputs) == len(node.regions[0].inputs):
        return
    region = _part(node.regions[0], outputs, inputs)
    operands = rewriter.operands(index)
    attrs = dict(node.attrs)
    attrs["n_carry"] = sum(1 for place in outputs if place < n_carry(node))
    if node.op == "scan":
        first = n_carry(node)
        attrs["n_xs"] = sum(1 for place in inputs if first <= place < first + n_xs(node))
    made = rewriter.emit(node.op, [operands[i] for i in inputs], attrs, index, (region,))
    for place, old in enumerate(outputs):
        if old in used:
            rewriter.replace(Value(index, old), Value(made.node, place))


def _needed(node: Node, used: Collection[int]) -> tuple[list[int], list[int]]:
    """Positions of the region's outputs and inputs that the used results depend on."""
    region, carries = node.regions[0], n_carry(node)
    outputs = {place for place in range(len(region.outputs)) if place in used}
    if node.op == "fix":  # every carry has a say in when it stops
        outputs |= set(range(carries))
    if node.op == "iterate":  # the condition is no result
        outputs.add(len(region.outputs) - 1)
    while True:
        live = _ancestors(region, [region.outputs[place][1].node for place in outputs])
        fed = {i for i in range(carries) if region.inputs[i] in live}
        if fed <= outputs:
            break
        outputs |= fed
    inputs = [
        place
        for place, index in enumerate(region.inputs)
        if index in live or (place < carries and place in outputs)
    ]
    return sorted(outputs), inputs


def _ancestors(graph: Graph, roots: Sequence[int]) -> set[int]:
    found, stack = set(roots), list(roots)
    while stack:
        for value in graph.operands(stack.pop()):
            if value.node not in found:
                found.add(value.node)
                stack.append(value.node)
    return found


def _part(region: Graph, outputs: Sequence[int], inputs: Sequence[int]) -> Graph:
    """The region with only some outputs and inputs."""
    part = region.copy()
    part.outputs = [region.outputs[place] for place in outputs]
    part.inputs = [region.inputs[place] for place in inputs]
    part.prune()
    return part
