"""Gradients of Gaussian filters: filters of the cotangents."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import OpError, gradient_of, no_gradient
from ..expr import Expr, Pullback

_FEATURES = "the lattice moves in steps with the features that it is built around"
no_gradient(_FEATURES, "lattice")


@gradient_of("gauss_filter")
def _gauss(pull: Pullback) -> Sequence[Expr | None]:
    """With F the filter, which is symmetric, v' is F(d).

    f' is the sum over channels of ``d (F(f v) - f F(v)) + v (F(f d) - f F(d))``.
    """
    features, values = pull.x
    back = features.op("gauss_filter", pull.d)
    if not pull.needs[0]:
        return [None, back]
    moved = _pulled(features, values, pull.d) + _pulled(features, pull.d, values)
    own = (pull.d * pull.y[0] + values * back).sum((values.rank - 1,), keepdims=True)
    return [moved - features * own, back]


def _pulled(features: Expr, values: Expr, other: Expr) -> Expr:
    """``sum_c other_c F(f v_c)``."""
    rank = values.rank
    shape = (*features.shape, values.shape[-1])
    product = features.unsqueeze(rank) * values.unsqueeze(rank - 1)
    rows = (*features.shape[:-1], shape[-2] * shape[-1])
    found = features.op("gauss_filter", product.broadcast(shape).reshape(rows)).reshape(shape)
    return (found * other.unsqueeze(rank - 1)).sum((rank,))


@gradient_of("gauss_grid_filter")
def _grid(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("gauss_grid_filter", sigmas=pull.attrs["sigmas"])]


@gradient_of("lattice_filter")
def _lattice(pull: Pullback) -> Sequence[Expr | None]:
    """Sharing out and reading back are each other's transpose; blurs go in reverse order."""
    if pull.needs[2]:
        message = f"a lattice filter has no derivative by its features: {_FEATURES}"
        hint = "keep gradients from them with `stop(..)`, or take `filter=exact`"
        raise OpError("E809", message, hint)
    back = pull.d.op("lattice_filter", *pull.x[1:], reverse=not pull.attrs["reverse"])
    return [back]
