"""Ops in simpler ops where their gradients are written by hand: what engines may run instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.dims import floordiv
from .base import expansion_of
from .expr import Expr
from .fused import named_extras, plain_attrs
from .gradients.losses import reduced

# ---------------------------------------------------------------- axes cut and traded


@expansion_of("channel_shuffle")
def _channel_shuffle(x: Sequence[Expr], attrs: Any) -> Expr:
    a, groups, axis = x[0], attrs["groups"], attrs["axis"] % x[0].rank
    lead, size, rest = a.shape[:axis], a.shape[axis], a.shape[axis + 1 :]
    cut = a.reshape((*lead, groups, floordiv(size, groups), *rest))
    return cut.moved(axis, axis + 1).reshape(a.shape)


@expansion_of("pixel_shuffle")
def _pixel_shuffle(x: Sequence[Expr], attrs: Any) -> Expr:
    r = attrs["factor"]
    n, c, h, w = x[0].shape
    cut = x[0].reshape((n, floordiv(c, r * r), r, r, h, w))
    return cut.transpose((0, 1, 4, 2, 5, 3)).reshape((n, floordiv(c, r * r), h * r, w * r))


@expansion_of("pixel_unshuffle")
def _pixel_unshuffle(x: Sequence[Expr], attrs: Any) -> Expr:
    r = attrs["factor"]
    n, c, h, w = x[0].shape
    cut = x[0].reshape((n, c, floordiv(h, r), r, floordiv(w, r), r))
    turned = cut.transpose((0, 1, 3, 5, 2, 4))
    return turned.reshape((n, c * (r * r), floordiv(h, r), floordiv(w, r)))


@expansion_of("maxout")
def _maxout(x: Sequence[Expr], attrs: Any) -> Expr:
    n, c, *space = x[0].shape
    pieces = attrs["pieces"]
    return x[0].reshape((n, floordiv(c, pieces), pieces, *space)).reduce("max", [2])


# ---------------------------------------------------------------- matrices


@expansion_of("diag")
def _diag(x: Sequence[Expr], attrs: Any) -> Expr:
    (a,) = x
    wide = a.unsqueeze(a.rank - 1).broadcast((*a.shape, a.shape[-1]))
    rows, columns = _offsets(wide, 0)
    return rows.same(columns).where(wide, 0)


@expansion_of("tril")
def _tril(x: Sequence[Expr], attrs: Any) -> Expr:
    rows, columns = _offsets(x[0], attrs["k"])
    return (columns <= rows).where(x[0], 0)


@expansion_of("triu")
def _triu(x: Sequence[Expr], attrs: Any) -> Expr:
    rows, columns = _offsets(x[0], attrs["k"])
    return (columns >= rows).where(x[0], 0)


def _offsets(a: Expr, k: Any) -> tuple[Expr, Expr]:
    """The column of each row's k-th diagonal, and column numbers."""
    rows = a.writer.make("iota", size=a.shape[-2], dtype="i32").unsqueeze(1)
    return rows + k, a.writer.make("iota", size=a.shape[-1], dtype="i32")


@expansion_of("trace")
def _trace(x: Sequence[Expr], attrs: Any) -> Expr:
    return x[0].op("diagonal").sum([x[0].rank - 2])


@expansion_of("one_hot")
def _one_hot(x: Sequence[Expr], attrs: Any) -> Expr:
    (index,) = x
    places = index.writer.make("iota", size=attrs["size"], dtype=index.dtype)
    return index.unsqueeze(index.rank).same(places).cast(attrs["dtype"])


# ---------------------------------------------------------------- sums


@expansion_of("var")
def _var(x: Sequence[Expr], attrs: Any) -> Expr:
    (a,) = x
    axes = [axis % a.rank for axis in attrs["axes"]]
    spread = (a - a.mean(axes, keepdims=True)).square()
    if not attrs["unbiased"]:
        return spread.mean(axes, keepdims=attrs["keepdims"])
    return spread.sum(axes, keepdims=attrs["keepdims"]) / (a.count(axes) - 1)


@expansion_of("zero_one")
def _zero_one(x: Sequence[Expr], attrs: Any) -> Expr:
    score, target = x
    return reduced((target * score <= 0).cast(score.dtype), attrs["reduction"])


@expansion_of("densify")
def _densify(x: Sequence[Expr], attrs: Any) -> Expr:
    indptr, index, value = x
    (count,), rows = value.shape, indptr.shape[0] - 1
    # An entry's row is the number of rows that end before it.
    ends = indptr.slice(0, 1, rows + 1).cast("i64")
    marks = value.writer.fill((count + 1,), 0, "i64")
    marks = marks.op("scatter_add", ends, ends.filled(1))
    row = marks.op("cumsum", axis=0, reverse=False).slice(0, 0, count)
    flat = row * attrs["columns"] + index.cast("i64")
    zeros = value.writer.fill((rows * attrs["columns"],), 0, value.dtype)
    return zeros.op("scatter_add", flat, value).reshape((rows, attrs["columns"]))


# ---------------------------------------------------------------- transposed convolution


@expansion_of("conv_transpose")
def _conv_transpose(x: Sequence[Expr], attrs: Any) -> Expr:
    """A convolution of the input with zeros between its elements, kernels turned about."""
    a, weight, *bias = x
    n = a.rank - 2
    groups, (inputs, each, *kernel) = attrs["groups"], weight.shape
    for axis, step in enumerate(attrs["stride"], 2):
        a = _spread_out(a, axis, step)
    before, after = [0, 0], [0, 0]
    pads = zip(kernel, attrs["dilation"], attrs["pad"], attrs["out_pad"], strict=True)
    for axis, (k, d, (low, high), more) in enumerate(pads, 2):
        first, last = d * (k - 1) - low, d * (k - 1) - high + more
        start, stop = max(-first, 0), max(-last, 0)
        if start or stop:
            a = a.slice(axis, start, a.shape[axis] - stop)
        before.append(max(first, 0))
        after.append(max(last, 0))
    if any(before) or any(after):
        a = a.pad(before, after)
    turned = weight.reshape((groups, floordiv(inputs, groups), each, *kernel)).moved(1, 2)
    turned = turned.reshape((groups * each, floordiv(inputs, groups), *kernel))
    for axis in range(2, 2 + n):
        turned = turned.flip(axis)
    settings = {
        "stride": (1,) * n,
        "pad": ((0, 0),) * n,
        "dilation": attrs["dilation"],
        "groups": groups,
    }
    y = a.op("conv", turned, **settings)
    return y + bias[0].per_channel(y) if bias else y


@expansion_of("fused_conv_transpose")
def _fused_conv_transpose(x: Sequence[Expr], attrs: Any) -> Expr:
    named = named_extras(attrs, x)
    a = x[0]
    if attrs["prologue"]:
        a = a.op("affine", named["scale"], named["shift"])
    a = a.op("relu") if attrs["prologue"] == "affine_relu" else a
    bias = [named["bias"]] if "bias" in named else []
    y = a.op("conv_transpose", x[1], *bias, **plain_attrs(attrs))
    y = y + named["residual"] if "residual" in named else y
    return (
        y.op(attrs["activation"], **dict(attrs["activation_attrs"])) if attrs["activation"] else y
    )


def _spread_out(a: Expr, axis: int, step: int) -> Expr:
    """``step - 1`` zeros between neighbours along an axis."""
    if step == 1:
        return a
    size = a.shape[axis]
    wide = a.unsqueeze(axis + 1)
    wide = wide.pad([0] * wide.rank, [step - 1 if i == axis + 1 else 0 for i in range(wide.rank)])
    joined = wide.reshape((*a.shape[:axis], size * step, *a.shape[axis + 1 :]))
    return joined.slice(axis, 0, (size - 1) * step + 1)


@expansion_of("gauss_filter")
def _gauss_filter(x: Sequence[Expr], attrs: Any) -> Expr:
    features, values = x
    rank = features.rank
    apart = features.unsqueeze(rank - 1) - features.unsqueeze(rank - 2)
    square = apart.square().sum((rank,))
    kernel = (square * -0.5).exp().cast(values.dtype)
    batch = "nmopq"[: rank - 2]
    return kernel.contract(f"{batch}ij,{batch}jc->{batch}ic", values)
