"""Convolutions, transposed convolutions and linear layers: ops with a kernel of weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as grid
from typing import Any

import numpy as np

from ..ir.dims import DimLike, floordiv, product
from ..ir.graph import Value
from ..ir.types import Attrs, TensorType
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer
from .net_rules import (
    need_divisible,
    need_float,
    need_positive,
    need_range,
    need_size,
    need_whole,
    spatial_rank,
)
from .windows import pad_pairs, padded, per_axis, same_pads, spatial_names, window_count, windows

# ---------------------------------------------------------------- convolution


def _conv_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, weight, *bias = types
    stride, pad, dilation, groups = _window_attrs(attrs)
    n = spatial_rank("conv", x)
    need_float("conv", *types)
    if weight.rank != x.rank:
        raise OpError("E101", f"conv of {x} needs a weight of rank {x.rank}, found {weight}")
    need_divisible("conv", "the number of input channels", x.shape[1], groups)
    need_divisible("conv", "the number of output channels", weight.shape[0], groups)
    need_size("conv", "the input's channel count", x.shape[1], weight.shape[1] * groups)
    _check_bias("conv", bias, weight.shape[0])
    sizes = [
        window_count("conv", name, x.shape[2 + i], weight.shape[2 + i], stride[i], pad[i], d)
        for i, (name, d) in enumerate(zip(spatial_names(n), dilation, strict=True))
    ]
    return [x.with_shape([x.shape[0], weight.shape[0], *sizes])]


def _conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    kernel = weight.shape[2:]
    x = padded(x, pad)
    view = windows(x, kernel, stride, dilation)
    n = len(kernel)
    sizes = view.shape[2 : 2 + n]
    outputs, inputs = weight.shape[:2]
    rows = weight.reshape(groups, outputs // groups, -1)
    result = np.empty((len(x), outputs, *sizes), x.dtype)
    # im2col: one matrix product per image and group, so memory stays that of one image.
    to_columns = (0, *range(1 + n, 1 + 2 * n), *range(1, 1 + n))
    for image, patches in zip(result, view, strict=True):
        columns = patches.transpose(to_columns).reshape(groups, inputs * int(np.prod(kernel)), -1)
        image[...] = np.matmul(rows, columns).reshape(image.shape)
    return result if bias is None else result + _per_channel(bias, n)


def _conv_macs(types: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs) -> DimLike:
    return results[0].elements * product(types[1].shape[1:])


define(
    Op(
        "conv",
        (Operand("x"), Operand("weight"), Operand("bias", optional=True)),
        _conv_shape,
        _conv,
        "Convolution (cross-correlation) over 1 to 3 spatial axes of [N, C, spatial...] with "
        "weight [O, C/groups, kernel...]. LeCun et al., Proc. IEEE 1998; groups: Krizhevsky et "
        "al., NIPS 2012; dilation: Yu and Koltun, ICLR 2016.",
        ("stride", "pad", "dilation", "groups"),
        batching="leading",
        macs=_conv_macs,
    )
)


def _build_conv(
    builder: Builder,
    tensors: Sequence[Value],
    *,
    channels: DimLike,
    kernel: Any,
    stride: Any,
    pad: Any,
    dilation: Any,
    groups: DimLike,
    bias: bool,
    init: Any,
    op: str = "conv",
) -> Value:
    kind = builder.type_of(tensors[0])
    n = spatial_rank(op, kind)
    need_positive(op, channels, "the number of channels")
    need_positive(op, groups, "the number of groups")
    need_divisible(op, "the number of input channels", kind.shape[1], groups)
    need_divisible(op, "the number of output channels", channels, groups)
    sizes = per_axis(op, "kernel", kernel, n)
    dilations = per_axis(op, "dilation", dilation, n)
    pads = same_pads(sizes, dilations) if pad is None else pad_pairs(op, pad, n)
    strides = per_axis(op, "stride", stride, n)
    shape = (channels, floordiv(kind.shape[1], groups), *sizes)
    operands = [tensors[0], builder.param("weight", shape, init, "weight", kind.dtype)]
    if bias:
        operands.append(builder.param("bias", (channels,), ("zeros",), "bias", kind.dtype))
    attrs = {"stride": strides, "pad": pads, "dilation": dilations, "groups": groups}
    return builder.emit("conv", operands, attrs)


def _build_depthwise(
    builder: Builder, tensors: Sequence[Value], *, multiplier: int, **settings: Any
) -> Value:
    kind = builder.type_of(tensors[0])
    spatial_rank("depthwise", kind)
    need_whole("depthwise", "multiplier", multiplier)
    inputs = kind.shape[1]
    return _build_conv(
        builder,
        tensors,
        channels=inputs * multiplier,
        groups=inputs,
        op="depthwise",
        **settings,
    )


_KERNEL = (
    Setting("kernel", "ints"),
    Setting("stride", "ints", 1),
    Setting("pad", "ints", None),
)
_WEIGHTS = (Setting("bias", "bool", True), Setting("init", "rule", ("he",)))

define_layer(
    Layer(
        "conv",
        (
            Setting("channels", "int"),
            *_KERNEL,
            Setting("dilation", "ints", 1),
            Setting("groups", "int", 1),
            *_WEIGHTS,
        ),
        (1, 1),
        _build_conv,
        "Convolution. pad is a number, one per axis, or pairs [[top, bottom], [left, right]]; by "
        "default an odd kernel keeps the size at stride 1: dilation*(kernel-1)//2 on each side.",
        batching="leading",
        has_weights=True,
    )
)

define_layer(
    Layer(
        "depthwise",
        (
            *_KERNEL,
            Setting("dilation", "ints", 1),
            Setting("multiplier", "int", 1),
            *_WEIGHTS,
        ),
        (1, 1),
        _build_depthwise,
        "Depthwise convolution: each channel has multiplier kernels of its own. Howard et al., "
        "MobileNets, 2017, arXiv:1704.04861.",
        batching="leading",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- transposed convolution


def _transpose_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, weight, *bias = types
    stride, pad, dilation, groups = _window_attrs(attrs)
    out_pad: Any = attrs["out_pad"]
    n = spatial_rank("convt", x)
    need_float("convt", *types)
    if weight.rank != x.rank:
        raise OpError("E101", f"convt of {x} needs a weight of rank {x.rank}, found {weight}")
    need_divisible("convt", "the number of input channels", x.shape[1], groups)
    need_size("convt", "the input's channel count", x.shape[1], weight.shape[0])
    channels = weight.shape[1] * groups
    _check_bias("convt", bias, channels)
    sizes = []
    for i, name in enumerate(spatial_names(n)):
        span = dilation[i] * (weight.shape[2 + i] - 1) + out_pad[i] + 1
        size = (x.shape[2 + i] - 1) * stride[i] - sum(pad[i]) + span
        need_positive("convt", size, f"the output's {name}", "use less pad or a larger kernel")
        sizes.append(size)
    return [x.with_shape([x.shape[0], channels, *sizes])]


def _conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    out_pad: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    batch, inputs, *sizes = x.shape
    outputs, *kernel = weight.shape[1:]
    rows = weight.reshape(groups, inputs // groups, -1).swapaxes(1, 2)
    columns = np.matmul(rows, x.reshape(batch, groups, inputs // groups, -1))
    columns = columns.reshape(batch, groups * outputs, *kernel, *sizes)
    spatial = list(zip(sizes, kernel, stride, dilation, out_pad, strict=True))
    full = [(m - 1) * s + d * (k - 1) + 1 + o for m, k, s, d, o in spatial]
    result = np.zeros((batch, groups * outputs, *full), x.dtype)
    for taps in grid(*map(range, kernel)):
        places = tuple(
            slice(t * d, t * d + (m - 1) * s + 1, s)
            for t, (m, _, s, d, _) in zip(taps, spatial, strict=True)
        )
        result[(slice(None), slice(None), *places)] += columns[(slice(None), slice(None), *taps)]
    crop = tuple(slice(b, length - a) for (b, a), length in zip(pad, full, strict=True))
    result = np.ascontiguousarray(result[(slice(None), slice(None), *crop)])
    return result if bias is None else result + _per_channel(bias, len(sizes))


def _transpose_macs(
    types: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs
) -> DimLike:
    return types[0].elements * product(types[1].shape[1:])


define(
    Op(
        "conv_transpose",
        (Operand("x"), Operand("weight"), Operand("bias", optional=True)),
        _transpose_shape,
        _conv_transpose,
        "Transposed convolution, the adjoint of conv in its input: weight [C, O/groups, "
        "kernel...]; size (H-1)*stride - pads + dilation*(kernel-1) + out_pad + 1. Zeiler et al., "
        "CVPR 2010; Dumoulin and Visin, 2016, arXiv:1603.07285.",
        ("stride", "pad", "out_pad", "dilation", "groups"),
        batching="leading",
        macs=_transpose_macs,
    )
)


def _build_convt(
    builder: Builder,
    tensors: Sequence[Value],
    *,
    channels: DimLike,
    kernel: Any,
    stride: Any,
    pad: Any,
    out_pad: Any,
    dilation: Any,
    groups: int,
    bias: bool,
    init: Any,
) -> Value:
    kind = builder.type_of(tensors[0])
    n = spatial_rank("convt", kind)
    need_positive("convt", channels, "the number of channels")
    need_positive("convt", groups, "the number of groups")
    need_divisible("convt", "the number of input channels", kind.shape[1], groups)
    need_divisible("convt", "the number of output channels", channels, groups)
    sizes = per_axis("convt", "kernel", kernel, n)
    dilations = per_axis("convt", "dilation", dilation, n)
    strides = per_axis("convt", "stride", stride, n)
    extra = per_axis("convt", "out_pad", out_pad, n, least=0)
    for o, s, d in zip(extra, strides, dilations, strict=True):
        limit = max(s, d)
        need_range("convt", "out_pad", o, o < limit, f"less than the stride or dilation ({limit})")
    attrs = {
        "stride": strides,
        "pad": same_pads(sizes, dilations) if pad is None else pad_pairs("convt", pad, n),
        "out_pad": extra,
        "dilation": dilations,
        "groups": groups,
    }
    shape = (kind.shape[1], floordiv(channels, groups), *sizes)
    operands = [tensors[0], builder.param("weight", shape, init, "weight", kind.dtype)]
    if bias:
        operands.append(builder.param("bias", (channels,), ("zeros",), "bias", kind.dtype))
    return builder.emit("conv_transpose", operands, attrs)


define_layer(
    Layer(
        "convt",
        (
            Setting("channels", "int"),
            *_KERNEL,
            Setting("out_pad", "ints", 0),
            Setting("dilation", "ints", 1),
            Setting("groups", "int", 1),
            *_WEIGHTS,
        ),
        (1, 1),
        _build_convt,
        "Transposed convolution (also called deconvolution); pad trims the output and defaults "
        "to dilation*(kernel-1)//2 on each side.",
        batching="leading",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- linear


def _linear_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, weight, *bias = types
    _need_features(x)
    need_float("linear", *types)
    if weight.rank != 2:
        raise OpError("E101", f"linear needs a weight [out, in], found {weight}")
    need_size(
        "linear",
        f"the last axis of {x}",
        x.shape[-1],
        weight.shape[1],
        "flatten or pool the features to the size that the weight was made for",
    )
    _check_bias("linear", bias, weight.shape[0])
    return [x.with_shape([*x.shape[:-1], weight.shape[0]])]


def _linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = np.matmul(x, weight.T)
    return y if bias is None else y + bias


define(
    Op(
        "linear",
        (Operand("x"), Operand("weight"), Operand("bias", optional=True)),
        _linear_shape,
        _linear,
        "x @ weight.T + bias on the last axis, weight [out, in]; all other axes are batch.",
        batching="last",
        macs=lambda types, results, attrs: results[0].elements * types[1].shape[1],
    )
)


def _build_linear(
    builder: Builder, tensors: Sequence[Value], *, features: DimLike, bias: bool, init: Any
) -> Value:
    kind = builder.type_of(tensors[0])
    _need_features(kind)
    need_positive("linear", features, "the number of features")
    shape = (features, kind.shape[-1])
    operands = [tensors[0], builder.param("weight", shape, init, "weight", kind.dtype)]
    if bias:
        operands.append(builder.param("bias", (features,), ("zeros",), "bias", kind.dtype))
    return builder.emit("linear", operands)


define_layer(
    Layer(
        "linear",
        (Setting("features", "int"), *_WEIGHTS),
        (1, 1),
        _build_linear,
        "A fully connected layer on the last axis; flatten a feature map first.",
        batching="last",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- helpers


def _window_attrs(attrs: Attrs) -> tuple[Any, Any, Any, Any]:
    return attrs["stride"], attrs["pad"], attrs["dilation"], attrs["groups"]


def _check_bias(op: str, bias: Sequence[TensorType], channels: DimLike) -> None:
    for kind in bias:
        if kind.rank != 1:
            raise OpError("E101", f"{op} needs a bias of rank 1, found {kind}")
        need_size(op, "the bias's size", kind.shape[0], channels)


def _need_features(kind: TensorType) -> None:
    if kind.rank == 0:
        raise OpError("E101", f"linear needs at least one axis, found {kind}")


def _per_channel(vector: np.ndarray, n: int) -> np.ndarray:
    return vector.reshape(-1, *(1,) * n)
