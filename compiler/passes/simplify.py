"""Simplify: algebra and movement clean-up, as a table of rules.

Before::

    %1 = transpose(%0) {perm=(1, 0)}
    %2 = transpose(%1) {perm=(1, 0)}
    %3 = mul(%2, 1.0)
    %4 = dropout(%3) {rate=0.5}
    %5 = mul(%4, %4)

After::

    %5 = square(%0)
"""

from __future__ import annotations

from ..options import Options
from ..rewrite import Rewriter, rewrite, within_loops
from .simplify_algebra import EXACT, INFERENCE, ROUNDING
from .simplify_contractions import CONTRACTIONS
from .simplify_movement import MOVEMENT


def simplify(rewriter: Rewriter, options: Options) -> None:
    """Run all clean-up rules to a fixpoint, in loops too.

    Rules that round differently are left out when ``precise``, and those that drop dropout and
    stopped gradients when ``training``.
    """
    rules = [*MOVEMENT, *CONTRACTIONS, *EXACT]
    if not options.precise:
        rules += ROUNDING
    if not options.training:
        rules += INFERENCE
    within_loops(rewriter, lambda inner: simplify(inner, options))
    rewrite(rewriter, rules)
