"""Gradients of the ops of training steps (gradients of gradients)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import expansion_of, gradient_of, no_gradient
from ..expr import Expr, Pullback

no_gradient(
    "fusion makes it, after differentiation", "fused_batch_norm_train", "fused_batch_norm_backward"
)


@gradient_of("clamp_backward")
def _clamp_backward(pull: Pullback) -> Sequence[Expr | None]:
    return [None, pull.x[0].op("clamp_backward", pull.d, **pull.attrs)]


@expansion_of("maxpool_backward")
def _maxpool_backward(x: Sequence[Expr], attrs: Any) -> Expr:
    a, _, d = x
    _, places = a.ops("maxpool_with_indices", **attrs)
    return d.op("add_at_places", places, size=a.shape[2:])
