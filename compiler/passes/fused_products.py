"""A product (conv, conv_transpose, linear), plain or fused, taken apart and put together again."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Value
from ..ir.types import Attrs, AttrValue
from ..ops.fused import EXTRAS, FUSED, named_extras, plain_attrs
from ..rewrite import Rewriter

PLAIN = {fused: plain for plain, fused in FUSED.items()}
"""The plain form of each fused op."""


@dataclass(frozen=True)
class Product:
    """The parts of ``activation(op(prologue(x), weight, bias) + residual)``."""

    op: str
    x: Value
    weight: Value
    attrs: Attrs
    bias: Value | None = None
    residual: Value | None = None
    scale: Value | None = None
    shift: Value | None = None
    prologue: str = ""
    activation: str = ""
    activation_attrs: tuple[AttrValue, ...] = ()


def is_product(rewriter: Rewriter, index: int) -> bool:
    """Whether a node is a product, plain or fused."""
    name = rewriter.node(index).op
    return name in FUSED or name in PLAIN


def taken_apart(rewriter: Rewriter, index: int) -> Product:
    """The parts of a product."""
    node, operands = rewriter.node(index), rewriter.operands(index)
    if node.op in FUSED:
        x, weight, *bias = operands
        return Product(node.op, x, weight, node.attrs, bias[0] if bias else None)
    x, weight, *_ = operands
    return Product(
        PLAIN[node.op],
        x,
        weight,
        plain_attrs(node.attrs),
        **named_extras(node.attrs, operands),
        prologue=str(node.attrs["prologue"]),
        activation=str(node.attrs["activation"]),
        activation_attrs=node.attrs["activation_attrs"],  # type: ignore[arg-type]
    )


def put_together(rewriter: Rewriter, parts: Product, like: int) -> Value:
    """Emit the fused product, named after ``like``."""
    extras = {name: value for name in EXTRAS if (value := getattr(parts, name)) is not None}
    attrs = {
        **parts.attrs,
        "extras": tuple(extras),
        "activation": parts.activation,
        "activation_attrs": parts.activation_attrs,
        "prologue": parts.prologue,
    }
    operands = (parts.x, parts.weight, *extras.values())
    return rewriter.emit(FUSED[parts.op], operands, attrs, like=like)


def channel_axis(rewriter: Rewriter, index: int) -> int:
    """The axis of a product's output channels."""
    node = rewriter.node(index)
    return node.type.rank - 1 if PLAIN.get(node.op, node.op) == "linear" else 1
