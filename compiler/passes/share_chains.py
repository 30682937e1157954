"""The total of a chain whose posterior is wanted too is read off the posterior's pass.

Before::

    %4 = chain(%1, %2, %3) {mode="sum"}
    %5 = chain(%1, %2, %3) {mode="posterior"}

After::

    %5 = chain(%1, %2, %3) {mode="posterior"}      # %5.2 is log Z, for readers of %4
"""

from __future__ import annotations

from ..ir.graph import Value
from ..ops.chain import LOG_Z
from ..options import Options
from ..rewrite import Rewriter, within_loops


def share_chains(rewriter: Rewriter, options: Options) -> None:
    """Let readers of a chain's sum read what a posterior of the same operands makes of it."""
    within_loops(rewriter, lambda inner: share_chains(inner, options))
    chains = [(rewriter.node(i).attrs["mode"], i) for i in rewriter.of_op("chain")]
    posteriors = {rewriter.operands(i): i for mode, i in chains if mode == "posterior"}
    for mode, index in chains:
        other = posteriors.get(rewriter.operands(index))
        if mode == "sum" and other is not None:
            rewriter.became[index] = other
            rewriter.replace(Value(index), Value(other, LOG_Z))
