"""The gradient of a chain's log Z: marginals by emission, expected transitions by transition."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import OpError, gradient_of
from ..expr import Expr, Pullback


@gradient_of("chain")
def _chain(pull: Pullback) -> Sequence[Expr | None]:
    if pull.attrs["mode"] != "sum":
        mode = pull.attrs["mode"]
        hint = "learn through its log-likelihood"
        raise OpError("E809", f"a chain's {mode} cannot be differentiated", hint)
    init, transition, emission = pull.x
    marginals, pairs, _ = init.ops("chain", transition, emission, mode="posterior", path="")
    weight = pull.d
    first = marginals.slice(weight.rank, 0, 1).reshape((*weight.shape, marginals.shape[-1]))
    return [
        (first * weight.reshape((*weight.shape, 1))).sum_to(init.shape),
        (pairs * weight.reshape((*weight.shape, 1, 1, 1))).sum_to(transition.shape),
        (marginals * weight.reshape((*weight.shape, 1, 1))).sum_to(emission.shape),
    ]
