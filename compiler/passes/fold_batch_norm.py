"""Fold batch norm: fixed statistics are a scale and a shift, and those belong to the weights.

Before::

    %1 = conv(%0, %W)
    %2 = batch_norm(%1, %mean, %var, %gamma, %beta) {eps=1e-05}

After::

    %3 = mul(%gamma, rsqrt(add(%var, 1e-05)))       # before any call: weights only
    %4 = mul(%W, reshape(%3))
    %5 = sub(%beta, mul(%mean, %3))
    %2 = conv(%0, %4, %5)

A batch norm in front of a convolution folds too, unless zero padding lies between: the shift would
have to stop where the padding starts. What cannot fold becomes ``affine``, a scale and a shift.
"""

from __future__ import annotations

from ..ir.dims import DimLike, floordiv
from ..ir.graph import Value
from ..options import Options
from ..rewrite import Rewriter, within_loops

_PRODUCTS = ("conv", "conv_transpose", "linear")


def fold_batch_norm(rewriter: Rewriter, options: Options) -> None:
    """Fold every batch norm that running statistics drive; nothing when precise or training."""
    within_loops(rewriter, lambda inner: fold_batch_norm(inner, options))
    reason = _why_not(options)
    for index in rewriter.of_op("batch_norm"):
        if reason is None:
            _as_affine(rewriter, index)
        else:
            rewriter.refuse(rewriter.operands(index)[0].node, index, reason)
    if reason is None:
        for index in rewriter.of_op("affine"):
            if not _fold_back(rewriter, index):
                _fold_forward(rewriter, index)


def _why_not(options: Options) -> str | None:
    if options.training:
        return "while training, a batch norm's statistics and weights change"
    if options.precise:
        return "precise: folded weights round differently"
    return None


def _as_affine(rewriter: Rewriter, index: int) -> None:
    """Write ``(x - mean) / sqrt(var + eps) * gamma + beta`` as ``x * scale + shift``."""
    node = rewriter.node(index)
    x, mean, var, *learned = rewriter.operands(index)
    dtype = node.type.dtype
    eps = rewriter.number(float(node.attrs["eps"]), dtype)  # type: ignore[arg-type]
    scale = rewriter.emit("rsqrt", (rewriter.emit("add", (var, eps)),))
    if learned:
        scale = rewriter.emit("mul", (learned[0], scale))
    moved = rewriter.emit("mul", (mean, scale))
    shift = ("sub", (learned[1], moved)) if learned else ("neg", (moved,))
    rewriter.replace(
        Value(index), rewriter.emit("affine", (x, scale, rewriter.emit(*shift)), like=index)
    )


# ---------------------------------------------------------------- after a product


def _fold_back(rewriter: Rewriter, index: int) -> bool:
    """``(W x + b) * s + t = (s W) x + (s b + t)``."""
    x, scale, shift = rewriter.operands(index)
    producer = rewriter.node(x.node)
    if producer.op not in _PRODUCTS:
        return False
    reason = _why_not_back(rewriter, index)
    if reason is not None:
        rewriter.refuse(x.node, index, reason)
        return False
    source, weight, *bias = rewriter.operands(x.node)
    weight = _scaled_outputs(rewriter, x.node, weight, scale)
    if bias:
        shift = rewriter.emit("add", (rewriter.emit("mul", (bias[0], scale)), shift))
    made = rewriter.emit(producer.op, (source, weight, shift), producer.attrs, like=x.node)
    rewriter.became[x.node] = made.node
    rewriter.replace(Value(index), made)
    return True


def _why_not_back(rewriter: Rewriter, index: int) -> str | None:
    x, *vectors = rewriter.operands(index)
    producer = rewriter.node(x.node)
    if rewriter.only_reader(x) is None:
        return "the product is read elsewhere too, before it is normalised"
    if producer.op == "linear" and producer.type.rank != 2:
        return "the channels are not the features of the linear layer"
    known = (*vectors, *rewriter.operands(x.node)[1:])
    if not all(map(rewriter.steady, known)):
        return "the weights or the statistics depend on the call"
    return None


def _scaled_outputs(rewriter: Rewriter, product: int, weight: Value, scale: Value) -> Value:
    """The weight with a factor for each output channel."""
    node, kind = rewriter.node(product), rewriter.type_of(weight)
    kernel = (1,) * (kind.rank - 2)
    if node.op != "conv_transpose":
        return _times(rewriter, weight, scale, (kind.shape[0], 1, *kernel))
    groups: DimLike = node.attrs["groups"]  # type: ignore[assignment]
    if groups == 1:
        return _times(rewriter, weight, scale, (1, kind.shape[1], *kernel))
    # Weight [C, O/groups, kernel...]: the rows of a group share that group's outputs.
    rows = (groups, floordiv(kind.shape[0], groups), *kind.shape[1:])
    parted = rewriter.emit("reshape", (weight,), {"shape": rows})
    scaled = _times(rewriter, parted, scale, (groups, 1, kind.shape[1], *kernel))
    return rewriter.emit("reshape", (scaled,), {"shape": kind.shape})


def _times(rewriter: Rewriter, weight: Value, scale: Value, shape: tuple[DimLike, ...]) -> Value:
    factor = rewriter.emit("reshape", (scale,), {"shape": shape})
    return rewriter.emit("mul", (weight, factor))


# ---------------------------------------------------------------- before a product


def _fold_forward(rewriter: Rewriter, index: int) -> bool:
    """``W (x * s + t) + b = (W s) x + (W t + b)``, where no padding comes between."""
    reader = rewriter.only_reader(Value(index))
    if reader is None or rewriter.node(reader).op not in ("conv", "linear"):
        return False
    x, scale, shift = rewriter.operands(index)
    reason = _why_not_forward(rewriter, index, reader)
    if reason is not None:
        rewriter.refuse(index, reader, reason)
        return False
    node = rewriter.node(reader)
    _, weight, *bias = rewriter.operands(reader)
    groups: DimLike = node.attrs.get("groups", 1)  # type: ignore[assignment]
    scaled = _with_inputs(rewriter, weight, scale, groups)
    operands = [x, scaled, *bias]
    if rewriter.scalar(shift) != 0:
        operands[2:] = [_moved_bias(rewriter, weight, shift, groups, bias)]
    made = rewriter.emit(node.op, operands, node.attrs, like=reader)
    rewriter.became[index] = made.node
    rewriter.replace(Value(reader), made)
    return True


def _why_not_forward(rewriter: Rewriter, index: int, reader: int) -> str | None:
    x, scale, shift = rewriter.operands(index)
    node, known = rewriter.node(reader), rewriter.operands(reader)
    if known[0] != Value(index) or not all(map(rewriter.steady, (scale, shift, *known[1:]))):
        return "the weights or the statistics depend on the call"
    if node.op == "linear" and rewriter.type_of(x).rank != 2:
        return "the channels are not the features of the linear layer"
    pads: tuple[tuple[int, int], ...] = node.attrs.get("pad", ())  # type: ignore[assignment]
    if any(amount for pair in pads for amount in pair) and rewriter.scalar(shift) != 0:
        return "zero padding lies between: a shift in the weights would leak into it"
    return None


def _with_inputs(rewriter: Rewriter, weight: Value, vector: Value, groups: DimLike) -> Value:
    """The weight ``[O, C/groups, kernel...]`` with a factor for each input channel."""
    kind = rewriter.type_of(weight)
    kernel = (1,) * (kind.rank - 2)
    if groups == 1:
        return _times(rewriter, weight, vector, (1, kind.shape[1], *kernel))
    rows = (groups, floordiv(kind.shape[0], groups), *kind.shape[1:])
    parted = rewriter.emit("reshape", (weight,), {"shape": rows})
    scaled = _times(rewriter, parted, vector, (groups, 1, kind.shape[1], *kernel))
    return rewriter.emit("reshape", (scaled,), {"shape": kind.shape})


def _moved_bias(
    rewriter: Rewriter, weight: Value, shift: Value, groups: DimLike, bias: list[Value]
) -> Value:
    """``W t + b``: what a constant input adds to each output."""
    products = _with_inputs(rewriter, weight, shift, groups)
    axes = tuple(range(1, rewriter.type_of(weight).rank))
    total = rewriter.emit("reduce", (products,), {"kind": "sum", "axes": axes, "keepdims": False})
    return rewriter.emit("add", (bias[0], total)) if bias else total
