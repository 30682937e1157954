"""Fuse batch norms of a training step with the activation around them.

Before::

    %1:5 = batch_norm_train(%x, %mean, %var, %weight, %bias)
    %2 = add(%1, %shortcut)
    %3 = relu(%2)
    %5 = clamp_backward(%3, %4)
    %6:3 = batch_norm_backward(%x, %5, %1:3, %1:4, %weight)

After::

    %1:5 = fused_batch_norm_train(%x, %mean, %var, %weight, %bias, %shortcut) {activation="relu"}
    %6:3 = fused_batch_norm_backward(%x, %4, %1:3, %1:4, %weight, %1) {activation="relu"}

Without a shortcut the backward norm computes what it clamps anew from x, which it reads anyway.
Images alone: norms of other ranks are written out as sums and products, which fuse with what stands
around them like any others.
"""

from __future__ import annotations

from ..ir.graph import Value
from ..ops.steps import BACKWARD_EXTRAS, CLAMPS, FORWARD_EXTRAS, extras_of
from ..options import Options
from ..rewrite import Rewriter, within_loops


def fuse_batch_norm(rewriter: Rewriter, options: Options) -> None:
    """Fuse forward norms with what follows, then backward norms with the mask in front."""
    within_loops(rewriter, lambda inner: fuse_batch_norm(inner, options))
    for index in rewriter.of_op("batch_norm_train"):
        if _is_image(rewriter, index):
            _forward(rewriter, index)
    for index in rewriter.of_op("batch_norm_backward"):
        if _is_image(rewriter, index):
            _backward(rewriter, index)


def _is_image(rewriter: Rewriter, index: int) -> bool:
    return rewriter.type_of(rewriter.operands(index)[0]).rank == 4


def _forward(rewriter: Rewriter, index: int) -> None:
    x, mean, var, *learned = rewriter.operands(index)
    end, residual, activation = Value(index), None, ""
    reader = rewriter.only_reader(end)
    if reader is not None and rewriter.node(reader).op == "add":
        a, b = rewriter.operands(reader)
        other = b if a == end else a
        before = rewriter.rank(other.node) < rewriter.rank(reader)
        if before and other != end and rewriter.type_of(other) == rewriter.type_of(end):
            end, residual = Value(reader), other
            reader = rewriter.only_reader(end)
    clamp = _clamp_after(rewriter, end)
    if clamp is not None:
        end, activation = Value(clamp), rewriter.node(clamp).op
    if end.node == index:
        return
    named: dict[str, Value] = dict(zip(("weight", "bias"), learned, strict=False))
    if residual is not None:
        named["residual"] = residual
    extras = tuple(name for name in FORWARD_EXTRAS if name in named)
    attrs = {**rewriter.node(index).attrs, "activation": activation, "extras": extras}
    operands = (x, mean, var, *(named[name] for name in extras))
    made = rewriter.emit("fused_batch_norm_train", operands, attrs, like=index).node
    rewriter.became[index] = rewriter.became[end.node] = made
    rewriter.replace(end, Value(made))
    for place in range(1, 5):
        if index in rewriter.graph:
            rewriter.replace(Value(index, place), Value(made, place))


def _clamp_after(rewriter: Rewriter, value: Value) -> int | None:
    """The clamp that alone reads a value, and that gradients of it look at the result of."""
    reader = rewriter.only_reader(value)
    return reader if reader is not None and rewriter.node(reader).op in ("relu", "relu6") else None


def _backward(rewriter: Rewriter, index: int) -> None:
    x, d, mean, inv_std, *weight = rewriter.operands(index)
    mask = rewriter.node(d.node)
    if mask.op != "clamp_backward" or rewriter.only_reader(d) != index:
        return
    bounds = (mask.attrs["low"], mask.attrs["high"])
    activation = next((name for name, known in CLAMPS.items() if known == bounds), None)
    if activation is None:
        return
    y, cotangent = rewriter.operands(d.node)
    named: dict[str, Value] = {"weight": weight[0]} if weight else {}
    forward = rewriter.node(y.node)
    own = forward.op == "fused_batch_norm_train" and y.result == 0
    own = own and rewriter.operands(y.node)[0] == x and forward.attrs["activation"] == activation
    found = _extras(rewriter, y.node) if own else {}
    if own and "residual" not in found:
        named |= {"bias": found["bias"]} if "bias" in found else {}
    else:
        named["y"] = y
    extras = tuple(name for name in BACKWARD_EXTRAS if name in named)
    operands = (x, cotangent, mean, inv_std, *(named[name] for name in extras))
    attrs = {"activation": activation, "extras": extras}
    made = rewriter.emit("fused_batch_norm_backward", operands, attrs, like=index).node
    rewriter.became[index] = rewriter.became[d.node] = made
    rewriter.replace_node(index, made)


def _extras(rewriter: Rewriter, index: int) -> dict[str, Value]:
    operands, node = rewriter.operands(index), rewriter.node(index)
    return extras_of(node.op, node.attrs, operands[3:], FORWARD_EXTRAS)
