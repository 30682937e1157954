"""Gradients of convolutions, of transposed ones, and of the adjoint that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import gradient_of, no_gradient
from ..expr import Expr, Pullback

no_gradient(
    "fusion makes it, after differentiation",
    *("fused_conv", "fused_conv_transpose", "fused_linear", "fused_elementwise"),
)


def _window(attrs: Any) -> dict[str, Any]:
    return {key: attrs[key] for key in ("stride", "pad", "dilation", "groups")}


def _backward_data(d: Expr, weight: Expr, size: Sequence[Any], attrs: Any) -> Expr:
    """The cotangent of conv's input of spatial ``size``: the transposed convolution."""
    extra = []
    for i, length in enumerate(size):
        reach = attrs["dilation"][i] * (weight.shape[2 + i] - 1) + 1
        extra.append(
            length + sum(attrs["pad"][i]) - reach - (d.shape[2 + i] - 1) * attrs["stride"][i]
        )
    return d.op("conv_transpose", weight, **_window(attrs), out_pad=tuple(extra))


def _backward_weight(x: Expr, d: Expr, kernel: Sequence[Any], attrs: Any) -> Expr:
    return x.op("conv_backward_weight", d, **_window(attrs), kernel=tuple(kernel))


def _bias(d: Expr) -> Expr:
    return d.sum([0, *range(2, d.rank)])


@gradient_of("conv")
def _conv(pull: Pullback) -> Sequence[Expr | None]:
    x, weight, *bias = pull.x
    d, attrs = pull.d, pull.attrs
    dx = _backward_data(d, weight, x.shape[2:], attrs) if pull.needs[0] else None
    dw = _backward_weight(x, d, weight.shape[2:], attrs) if pull.needs[1] else None
    return [dx, dw, *(_bias(d) for _ in bias)]


@gradient_of("conv_transpose")
def _conv_transpose(pull: Pullback) -> Sequence[Expr | None]:
    x, weight, *bias = pull.x
    d, attrs = _without_surplus(pull.d, pull.attrs)
    dx = d.op("conv", weight, **_window(attrs)) if pull.needs[0] else None
    dw = _backward_weight(d, x, weight.shape[2:], attrs) if pull.needs[1] else None
    return [dx, dw, *(_bias(pull.d) for _ in bias)]


def _without_surplus(d: Expr, attrs: Any) -> tuple[Expr, dict[str, Any]]:
    """The cotangent without rows at the end that ``out_pad`` added and no tap reaches."""
    pads = []
    for axis, ((before, after), extra) in enumerate(
        zip(attrs["pad"], attrs["out_pad"], strict=True), 2
    ):
        # Where the extra rows are fewer than the stride, conv leaves them out by itself.
        if isinstance(extra, int) and extra >= attrs["stride"][axis - 2]:
            cut = max(extra - after, 0)
            d = d.slice(axis, 0, d.shape[axis] - cut) if cut else d
            after -= extra - cut
        pads.append((before, after))
    return d, {**attrs, "pad": tuple(pads)}


@gradient_of("conv_backward_weight")
def _conv_backward_weight(pull: Pullback) -> Sequence[Expr | None]:
    x, d = pull.x
    weight, attrs = pull.d, pull.attrs
    dx = _backward_data(d, weight, x.shape[2:], attrs) if pull.needs[0] else None
    dd = x.op("conv", weight, **_window(attrs)) if pull.needs[1] else None
    return [dx, dd]
