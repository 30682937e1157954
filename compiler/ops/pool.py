"""Pooling: windows of fixed size, adaptive and global pools, unpooling, pyramids and strips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as grid
from typing import Any

import numpy as np

from ..ir.dims import DimLike, product
from ..ir.graph import Value
from ..ir.types import INTEGERS, Attrs, TensorType
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer
from .net_rules import need_float, need_positive, need_range, need_same_shape, spatial_rank
from .windows import pad_pairs, padded, per_axis, reach, spatial_names, window_count, windows

# ---------------------------------------------------------------- windows of fixed size


def _pool_sizes(op: str, x: TensorType, attrs: Attrs) -> list[DimLike]:
    n = spatial_rank(op, x)
    kernel, stride, pad, dilation = _spread(attrs)
    sizes = []
    for i, name in enumerate(spatial_names(n)):
        half = reach(kernel[i], dilation[i]) // 2
        most = max(pad[i])
        # A wider pad would make windows that hold nothing but padding.
        need_range(op, "pad", most, most <= half, f"at most half the window ({half})")
        sizes.append(
            window_count(
                op,
                name,
                x.shape[2 + i],
                kernel[i],
                stride[i],
                pad[i],
                dilation[i],
                bool(attrs["ceil"]),
            )
        )
    return sizes


def _maxpool_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    sizes = _pool_sizes("maxpool", x, attrs)
    _need_number("maxpool", x)
    return [x.with_shape([*x.shape[:2], *sizes])]


def _indices_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (values,) = _maxpool_shape(types, attrs)
    return [values, values.with_dtype("i64")]


def _avgpool_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    sizes = _pool_sizes("avgpool", x, attrs)
    need_float("avgpool", x)
    return [x.with_shape([*x.shape[:2], *sizes])]


def _maxpool(
    x: np.ndarray,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    ceil: bool,
) -> np.ndarray:
    counts = _counts(x, kernel, stride, pad, dilation, ceil)
    filled = padded(x, _reaching(x, counts, kernel, stride, pad, dilation), _lowest(x.dtype))
    result: np.ndarray | None = None
    for taps in grid(*map(range, kernel)):
        part = filled[(..., *_tap_slices(taps, counts, stride, dilation))]
        result = part.copy() if result is None else np.maximum(result, part, out=result)
    assert result is not None
    return result


def _maxpool_with_indices(
    x: np.ndarray,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    ceil: bool,
) -> tuple[np.ndarray, np.ndarray]:
    n = len(kernel)
    values = _maxpool(x, kernel=kernel, stride=stride, pad=pad, dilation=dilation, ceil=ceil)
    counts = values.shape[2:]
    pads = _reaching(x, counts, kernel, stride, pad, dilation)
    view = windows(padded(x, pads, _lowest(x.dtype)), kernel, stride, dilation)
    view = view[(..., *(slice(c) for c in counts), *(slice(None),) * n)]
    best = values.reshape(*values.shape, *(1,) * n)
    # Padding never wins, not even against -inf; a NaN wins as in the values.
    flat, valid = _tap_places(x.shape[2:], counts, kernel, stride, pad, dilation)
    hits = ((view == best) | (view != view)) & valid
    first = hits.reshape(*values.shape, -1).argmax(axis=-1)
    flat = np.broadcast_to(flat.reshape(*counts, -1), (*values.shape, int(np.prod(kernel))))
    return values, np.take_along_axis(flat, first[..., None], axis=-1)[..., 0]


def _avgpool(
    x: np.ndarray,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    ceil: bool,
    count_pad: bool,
) -> np.ndarray:
    once = (1,) * len(kernel)
    counts = _counts(x, kernel, stride, pad, once, ceil)
    filled = padded(x, _reaching(x, counts, kernel, stride, pad, once))
    total = np.zeros((*x.shape[:2], *counts), x.dtype)
    for taps in grid(*map(range, kernel)):
        total += filled[(..., *_tap_slices(taps, counts, stride, once))]
    divisor = np.ones((), x.dtype)
    for size, count, k, s, (before, after) in zip(
        x.shape[2:], counts, kernel, stride, pad, strict=True
    ):
        start = np.arange(count) * s - before
        end = np.minimum(start + k, size + after)
        if not count_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        divisor = np.multiply.outer(divisor, (end - start).astype(x.dtype))
    return total / divisor


_WINDOW = ("kernel", "stride", "pad", "dilation", "ceil")

define(
    Op(
        "maxpool",
        (Operand("x"),),
        _maxpool_shape,
        _maxpool,
        "Largest element of each window of [N, C, spatial...]; padding never wins. With ceil a "
        "last window may hang over the end if it starts inside the input or the pad before it.",
        _WINDOW,
        batching="leading",
    )
)

define(
    Op(
        "maxpool_with_indices",
        (Operand("x"),),
        _indices_shape,
        _maxpool_with_indices,
        "maxpool and where each maximum stood: flat positions within one channel's spatial axes, "
        "the first of equals. Zeiler and Fergus, ECCV 2014; SegNet, PAMI 2017.",
        _WINDOW,
        batching="leading",
    )
)

define(
    Op(
        "avgpool",
        (Operand("x"),),
        _avgpool_shape,
        _avgpool,
        "Mean of each window of [N, C, spatial...]. count_pad divides by the window's size inside "
        "the padded input, otherwise by the number of input elements in it.",
        ("kernel", "stride", "pad", "ceil", "count_pad"),
        batching="leading",
    )
)


def _build_pool(
    builder: Builder,
    tensors: Sequence[Value],
    *,
    op: str,
    kernel: Any,
    stride: Any,
    pad: Any,
    dilation: Any = None,
    **settings: Any,
) -> Any:
    n = spatial_rank(op, builder.type_of(tensors[0]))
    kernels = per_axis(op, "kernel", kernel, n)
    attrs = {
        "kernel": kernels,
        "stride": kernels if stride is None else per_axis(op, "stride", stride, n),
        "pad": pad_pairs(op, pad, n),
        **settings,
    }
    if dilation is not None:
        attrs["dilation"] = per_axis(op, "dilation", dilation, n)
    return builder.emit(op, tensors, attrs)


def _window_layer(op: str, *extra: Setting, doc: str) -> None:
    def build(builder: Builder, tensors: Sequence[Value], **settings: Any) -> Any:
        return _build_pool(builder, tensors, op=op, **settings)

    window = (Setting("kernel", "ints"), Setting("stride", "ints", None), Setting("pad", "ints", 0))
    define_layer(Layer(op, (*window, *extra), (1, 1), build, doc, batching="leading"))


_STRIDE_NOTE = "; stride defaults to the kernel, pad is a number, one per axis, or pairs."
_window_layer(
    "maxpool",
    Setting("dilation", "ints", 1),
    Setting("ceil", "bool", False),
    doc="Max pooling" + _STRIDE_NOTE,
)
_window_layer(
    "maxpool_with_indices",
    Setting("dilation", "ints", 1),
    Setting("ceil", "bool", False),
    doc="Max pooling that also gives the positions for maxunpool" + _STRIDE_NOTE,
)
_window_layer(
    "avgpool",
    Setting("ceil", "bool", False),
    Setting("count_pad", "bool", True),
    doc="Average pooling" + _STRIDE_NOTE,
)


# ---------------------------------------------------------------- unpooling


def _unpool_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, indices = types
    n = spatial_rank("maxunpool", x)
    if indices.dtype not in INTEGERS:
        raise OpError(
            "E104",
            f"maxunpool needs whole-number positions, found {indices}",
            "take them from maxpool_with_indices",
        )
    need_same_shape("maxunpool", x, indices)
    size: Any = attrs["size"]
    for name, s in zip(spatial_names(n), size, strict=True):
        need_positive("maxunpool", s, f"the output's {name}")
    return [x.with_shape([*x.shape[:2], *size])]


def _unpool(x: np.ndarray, indices: np.ndarray, *, size: Sequence[int]) -> np.ndarray:
    places = int(np.prod(size))
    flat = np.zeros((*x.shape[:2], places), x.dtype)
    if indices.size and not (indices.min() >= 0 and indices.max() < places):
        raise ValueError(f"maxunpool: a position lies outside an output of {tuple(size)}")
    np.put_along_axis(flat, indices.reshape(*x.shape[:2], -1), x.reshape(*x.shape[:2], -1), -1)
    return flat.reshape(*x.shape[:2], *size)


define(
    Op(
        "maxunpool",
        (Operand("x"), Operand("indices")),
        _unpool_shape,
        _unpool,
        "Puts each value back where maxpool_with_indices found it; zero elsewhere. Zeiler and "
        "Fergus, ECCV 2014.",
        ("size",),
        batching="leading",
    )
)


def _build_unpool(
    builder: Builder, tensors: Sequence[Value], *, kernel: Any, stride: Any, pad: Any, size: Any
) -> Value:
    x = builder.type_of(tensors[0])
    n = spatial_rank("maxunpool", x)
    if size is None:
        kernels = per_axis("maxunpool", "kernel", kernel, n)
        strides = kernels if stride is None else per_axis("maxunpool", "stride", stride, n)
        pads = pad_pairs("maxunpool", pad, n)
        shape = tuple(
            (m - 1) * s - sum(p) + k
            for m, k, s, p in zip(x.shape[2:], kernels, strides, pads, strict=True)
        )
    else:
        shape = _size_per_axis("maxunpool", size, n)
    return builder.emit("maxunpool", tensors, {"size": shape})


define_layer(
    Layer(
        "maxunpool",
        (
            Setting("kernel", "ints"),
            Setting("stride", "ints", None),
            Setting("pad", "ints", 0),
            Setting("size", "ints", None),
        ),
        (2, 2),
        _build_unpool,
        "Undoes maxpool_with_indices(kernel, stride, pad); give size where the pool dropped rows.",
        batching="leading",
    )
)


# ---------------------------------------------------------------- adaptive and global pools


def _adaptive_shape(op: str, types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    n = spatial_rank(op, x)
    if op == "adaptive_avgpool":
        need_float(op, x)
    _need_number(op, x)
    size: Any = attrs["size"]
    for name, s in zip(spatial_names(n), size, strict=True):
        need_positive(op, s, f"the output's {name}")
    return [x.with_shape([*x.shape[:2], *size])]


def _adaptive(x: np.ndarray, size: Sequence[int], pick: Any) -> np.ndarray:
    for axis, count in enumerate(size, 2):
        length = x.shape[axis]
        cells = [
            pick(x[(slice(None),) * axis + (slice(start, end),)], axis=axis)
            for start, end in (
                (i * length // count, -(-(i + 1) * length // count)) for i in range(count)
            )
        ]
        x = np.stack(cells, axis=axis)
    return x


def _define_adaptive(op: str, pick: Any, what: str) -> None:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return _adaptive_shape(op, types, attrs)

    def reference(x: np.ndarray, *, size: Sequence[int]) -> np.ndarray:
        return _adaptive(x, size, pick)

    def build(builder: Builder, tensors: Sequence[Value], *, size: Any) -> Value:
        n = spatial_rank(op, builder.type_of(tensors[0]))
        return builder.emit(op, tensors, {"size": _size_per_axis(op, size, n)})

    doc = (
        f"{what} of each of size cells that cover the input; cell i spans floor(i*H/size) to "
        "ceil((i+1)*H/size). He et al., Spatial Pyramid Pooling, ECCV 2014."
    )
    define(Op(op, (Operand("x"),), shape, reference, doc, ("size",), batching="leading"))
    define_layer(Layer(op, (Setting("size", "ints"),), (1, 1), build, doc, batching="leading"))


_define_adaptive("adaptive_avgpool", np.mean, "Mean")
_define_adaptive("adaptive_maxpool", np.max, "Largest element")


def _build_global(builder: Builder, tensors: Sequence[Value], op: str, kind: str) -> Value:
    n = spatial_rank(op, builder.type_of(tensors[0]))
    axes = tuple(range(2, 2 + n))
    return builder.emit("reduce", tensors, {"kind": kind, "axes": axes, "keepdims": False})


def _build_gap(builder: Builder, tensors: Sequence[Value]) -> Value:
    return _build_global(builder, tensors, "gap", "mean")


def _build_gmp(builder: Builder, tensors: Sequence[Value]) -> Value:
    return _build_global(builder, tensors, "gmp", "max")


define_layer(
    Layer(
        "gap",
        (),
        (1, 1),
        _build_gap,
        "Global average pooling: [N, C, spatial...] to [N, C]. Lin et al., Network in Network, "
        "ICLR 2014.",
        batching="leading",
    )
)

define_layer(
    Layer(
        "gmp",
        (),
        (1, 1),
        _build_gmp,
        "Global max pooling: [N, C, spatial...] to [N, C].",
        batching="leading",
    )
)


def _build_pyramid(builder: Builder, tensors: Sequence[Value], *, levels: Any, kind: str) -> Value:
    levels = levels if isinstance(levels, (tuple, list)) else (levels,)
    x = builder.type_of(tensors[0])
    n = spatial_rank("spp", x)
    need_range("spp", "levels", levels, len(levels) > 0, "at least one level")
    parts = []
    for level in levels:
        size = per_axis("spp", "levels", level, n)
        cells = builder.emit(f"adaptive_{kind}pool", tensors, {"size": size})
        shape = (x.shape[0], x.shape[1] * product(size))
        parts.append(builder.emit("reshape", [cells], {"shape": shape}))
    return parts[0] if len(parts) == 1 else builder.emit("concat", parts, {"axis": 1})


define_layer(
    Layer(
        "spp",
        (
            Setting("levels", "ints", (4, 2, 1)),
            Setting("kind", "choice", "max", ("max", "avg")),
        ),
        (1, 1),
        _build_pyramid,
        "Spatial pyramid pooling: adaptive pools of each level, flattened and concatenated to "
        "[N, C * sum of cells]. He et al., ECCV 2014, arXiv:1406.4729.",
        batching="leading",
    )
)


def _build_strip(builder: Builder, tensors: Sequence[Value], *, axis: str) -> Value:
    x = builder.type_of(tensors[0])
    if x.rank != 4:
        raise OpError("E101", f"strip_pool needs [N, C, H, W], found {x}")
    axes = (2,) if axis == "h" else (3,)
    return builder.emit("reduce", tensors, {"kind": "mean", "axes": axes, "keepdims": True})


define_layer(
    Layer(
        "strip_pool",
        (Setting("axis", "choice", choices=("h", "w")),),
        (1, 1),
        _build_strip,
        "Mean along one whole spatial axis, which stays with size 1: w gives [N, C, H, 1]. Hou et "
        "al., Strip Pooling, CVPR 2020, arXiv:2003.13328.",
        batching="leading",
    )
)


# ---------------------------------------------------------------- helpers


def _spread(attrs: Attrs) -> tuple[Any, Any, Any, Any]:
    kernel: Any = attrs["kernel"]
    return kernel, attrs["stride"], attrs["pad"], attrs.get("dilation", (1,) * len(kernel))


def _need_number(op: str, x: TensorType) -> None:
    if x.dtype == "bool":
        raise OpError("E104", f"{op} needs numbers, found {x}", "cast it to f32 first")


def _size_per_axis(op: str, size: Any, n: int) -> tuple[DimLike, ...]:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,) * n
    need_range(op, "size", size, len(sizes) == n, f"one size or a list of {n}")
    return sizes


def _lowest(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _counts(
    x: np.ndarray, kernel: Any, stride: Any, pad: Any, dilation: Any, ceil: bool
) -> tuple[int, ...]:
    names = spatial_names(len(kernel))
    places = zip(names, x.shape[2:], kernel, stride, pad, dilation, strict=True)
    counts: list[Any] = [window_count("pool", *place, ceil=ceil) for place in places]
    return tuple(counts)


def _reaching(
    x: np.ndarray, counts: Any, kernel: Any, stride: Any, pad: Any, dilation: Any
) -> list[tuple[int, int]]:
    """The padding with which every window, overhanging ones too, has all its taps."""
    pads = []
    for size, count, k, s, (before, after), d in zip(
        x.shape[2:], counts, kernel, stride, pad, dilation, strict=True
    ):
        last = (count - 1) * s - before + d * (k - 1)
        pads.append((before, max(after, last + 1 - size)))
    return pads


def _tap_slices(taps: Any, counts: Any, stride: Any, dilation: Any) -> tuple[slice, ...]:
    return tuple(
        slice(t * d, t * d + (c - 1) * s + 1, s)
        for t, c, s, d in zip(taps, counts, stride, dilation, strict=True)
    )


def _tap_places(
    sizes: Any, counts: Any, kernel: Any, stride: Any, pad: Any, dilation: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Flat input position of each window's tap ``[out..., kernel...]``, and whether it exists."""
    n = len(kernel)
    flat = np.zeros((1,) * (2 * n), np.int64)
    valid = np.ones((1,) * (2 * n), bool)
    for i in range(n):
        starts = np.arange(counts[i]) * stride[i] - pad[i][0]
        places = starts[:, None] + np.arange(kernel[i]) * dilation[i]
        shape = [1] * (2 * n)
        shape[i], shape[n + i] = places.shape
        places = places.reshape(shape)
        flat = flat * sizes[i] + places
        valid = valid & (places >= 0) & (places < sizes[i])
    return np.broadcast_to(flat, (*counts, *kernel)), np.broadcast_to(valid, (*counts, *kernel))
