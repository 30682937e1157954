"""Fuse prologues: a scale and shift in front of a convolution happens while it reads its input.

Before::

    %1 = affine(%0, %scale, %shift)
    %2 = relu(%1)
    %3 = conv(%2, %W) {pad=((1, 1), (1, 1))}

After::

    %3 = fused_conv(%0, %W, %scale, %shift) {extras=("scale", "shift"), prologue="affine_relu"}

Padding comes after the prologue, so that it stays zero. DenseNet and pre-activation nets live on
this: their normalised inputs are never written to memory.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Value
from ..options import Options
from ..rewrite import Rewriter, within_loops
from .fused_products import Product, is_product, put_together, taken_apart


def fuse_prologue(rewriter: Rewriter, options: Options) -> None:
    """Fuse ``affine`` and ``relu`` into the products that read them, where all readers can."""
    within_loops(rewriter, lambda inner: fuse_prologue(inner, options))
    for index in rewriter.of_op("affine"):
        _fuse(rewriter, index)


def _fuse(rewriter: Rewriter, index: int) -> None:
    x, scale, shift = rewriter.operands(index)
    end, prologue = Value(index), "affine"
    reader = rewriter.only_reader(end)
    if reader is not None and rewriter.node(reader).op == "relu":
        end, prologue = Value(reader), "affine_relu"
    readers = rewriter.readers(end)
    reasons = [_why_not(rewriter, end, user, place) for user, place in readers]
    if rewriter.is_output(end):
        reasons.append("the normalised value is put out")
    for (user, _), _ in zip(readers, reasons, strict=False):
        if any(reasons):
            rewriter.refuse(end.node, user, next(reason for reason in reasons if reason))
    if any(reasons) or not readers:
        return
    for user, _ in readers:
        parts = replace(
            taken_apart(rewriter, user), x=x, scale=scale, shift=shift, prologue=prologue
        )
        made = put_together(rewriter, parts, user)
        rewriter.became[index] = rewriter.became[end.node] = made.node
        rewriter.replace(Value(user), made)


def _why_not(rewriter: Rewriter, value: Value, user: int, place: int) -> str | None:
    node = rewriter.node(user)
    if not is_product(rewriter, user) or place != 0:
        return f"{node.op} reads the normalised value too and cannot compute it while reading"
    parts: Product = taken_apart(rewriter, user)
    if parts.prologue:
        return "the product has a prologue already"
    if parts.weight == value or parts.bias == value:
        return "the normalised value is a weight as well"
    if parts.op == "linear" and rewriter.type_of(value).rank != 2:
        return "the channels are not the features that the linear layer reads"
    return None
