"""Fuse epilogues: bias, residual and activation happen while a product writes its result.

Before::

    %2 = conv(%0, %W, %b)
    %3 = add(%2, %shortcut)
    %4 = relu(%3)

After::

    %4 = fused_conv(%0, %W, %b, %shortcut) {extras=("bias", "residual"), activation="relu"}
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Value
from ..ops.fused import ACTIVATIONS, FUSED
from ..options import Options
from ..rewrite import Rewriter, within_loops
from .fused_products import PLAIN, Product, channel_axis, put_together, taken_apart


def fuse_epilogue(rewriter: Rewriter, options: Options) -> None:
    """Fuse what follows a product as long as it is the result's only reader."""
    within_loops(rewriter, lambda inner: fuse_epilogue(inner, options))
    # Of two products that are added, the later one adds the earlier one's finished result.
    for index in reversed(rewriter.of_op(*FUSED, *PLAIN)):
        if index in rewriter.graph and not rewriter.steady(Value(index)):
            _fuse(rewriter, index)


def _fuse(rewriter: Rewriter, index: int) -> None:
    parts, value, absorbed = taken_apart(rewriter, index), Value(index), []
    while True:
        reader = rewriter.only_reader(value)
        if reader is None:
            _refuse_readers(rewriter, value)
            break
        larger = _with_reader(rewriter, index, parts, value, reader)
        if larger is None:
            break
        parts, value = larger, Value(reader)
        absorbed.append(reader)
    if absorbed:
        made = put_together(rewriter, parts, index)
        for gone in (index, *absorbed):
            rewriter.became[gone] = made.node
        rewriter.replace(value, made)


def _refuse_readers(rewriter: Rewriter, value: Value) -> None:
    readers = rewriter.readers(value)
    count = len(readers) + rewriter.is_output(value)
    for reader, _ in readers:
        rewriter.refuse(value.node, reader, f"its result is read in {count} places")


def _with_reader(
    rewriter: Rewriter, index: int, parts: Product, value: Value, reader: int
) -> Product | None:
    """The product with its reader inside, or ``None`` and a refusal."""
    node = rewriter.node(reader)
    if node.op in ACTIVATIONS and not parts.activation:
        attrs = tuple(node.attrs.items())
        return replace(parts, activation=node.op, activation_attrs=attrs)
    if parts.activation:
        rewriter.refuse(index, reader, "it comes after the activation, which ends an epilogue")
        return None
    if node.op != "add":
        rewriter.refuse(index, reader, f"{node.op} cannot be part of an epilogue")
        return None
    a, b = rewriter.operands(reader)
    other = b if a == value else a
    # Over one position a whole result has the shape of a bias, too.
    whole = rewriter.type_of(other) == rewriter.node(index).type and not rewriter.steady(other)
    bias = None if whole else _as_bias(rewriter, index, other)
    if bias is not None:
        total = bias if parts.bias is None else rewriter.emit("add", (parts.bias, bias))
        return replace(parts, bias=total)
    if rewriter.type_of(other) != rewriter.node(index).type:
        rewriter.refuse(index, reader, "the summand is spread over the result, and is no bias")
        return None
    if parts.residual is not None:
        rewriter.refuse(index, reader, "an epilogue adds one residual")
        return None
    return replace(parts, residual=other)


def _as_bias(rewriter: Rewriter, index: int, other: Value) -> Value | None:
    """A summand with one number for each output channel, as a vector."""
    kind, axis = rewriter.node(index).type, channel_axis(rewriter, index)
    shape = rewriter.type_of(other).shape
    full = (*(1,) * (kind.rank - len(shape)), *shape)
    wanted = tuple(size if place == axis else 1 for place, size in enumerate(kind.shape))
    if full != wanted or kind.shape[axis] == 1:
        return None
    if len(shape) == 1:
        return other
    return rewriter.emit("reshape", (other,), {"shape": (kind.shape[axis],)})
