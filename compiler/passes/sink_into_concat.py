"""Move what follows a concatenation into its operands, where an epilogue can take it.

Before::

    %3 = concat(%1, %2) {axis=1}
    %4 = relu(%3)

After::

    %5 = relu(%1)
    %6 = relu(%2)
    %4 = concat(%5, %6) {axis=1}
"""

from __future__ import annotations

from ..ir.graph import Value
from ..ops.fused import ACTIVATIONS
from ..options import Options
from ..rewrite import Rewriter, within_loops

# Only behind these does an activation cost nothing; elsewhere it would be moved for nothing.
PRODUCERS = ("conv", "conv_transpose", "concat")


def sink_into_concat(rewriter: Rewriter, options: Options) -> None:
    """Distribute an activation over a concatenation that it alone reads."""
    within_loops(rewriter, lambda inner: sink_into_concat(inner, options))
    for index in reversed(rewriter.of_op("concat")):
        reader = rewriter.only_reader(Value(index))
        if reader is None or rewriter.node(reader).op not in ACTIVATIONS:
            continue
        operands = rewriter.operands(index)
        if all(rewriter.node(v.node).op in PRODUCERS for v in operands) and all(
            rewriter.only_reader(v) == index for v in operands
        ):
            _sink(rewriter, index, reader)


def _sink(rewriter: Rewriter, index: int, reader: int) -> None:
    node, activation = rewriter.node(index), rewriter.node(reader)
    moved = [
        rewriter.emit(activation.op, (value,), dict(activation.attrs))
        for value in rewriter.operands(index)
    ]
    made = rewriter.emit("concat", moved, dict(node.attrs))
    rewriter.became[reader] = rewriter.became[index] = made.node
    rewriter.replace(Value(reader), made)
