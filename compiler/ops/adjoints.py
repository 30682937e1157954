"""Ops that gradients of nets are made of and that no other op expresses well.

All but ``batch_norm_backward`` are the transpose of the linear map that their name tells:
<adjoint(d), x> = <d, op(x)>.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as grid
from typing import Any

import numpy as np

from ..ir.dims import floordiv, product
from ..ir.types import INTEGERS, Attrs, TensorType
from .base import OPS, Op, Operand, OpError, define
from .net_rules import need_divisible, need_float, need_positive, need_same_shape, need_size
from .net_rules import spatial_rank as spatial
from .norm import along_channels, need_channels, need_vectors
from .pool import _tap_slices
from .resize import resize_matrix
from .windows import padded, spatial_names, windows

# ---------------------------------------------------------------- convolution


def _backward_weight_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, d = types
    name = "conv_backward_weight"
    need_float(name, x, d)
    n = spatial(name, x)
    kernel: Any = attrs["kernel"]
    groups: Any = attrs["groups"]
    need_divisible(name, "the number of input channels", x.shape[1], groups)
    weight = x.with_shape([d.shape[1], floordiv(x.shape[1], groups), *kernel])
    if d.rank != x.rank or len(kernel) != n:
        raise OpError("E101", f"{name}: {d} is not what conv of {x} by {list(kernel)} gives")
    window = {key: attrs[key] for key in ("stride", "pad", "dilation", "groups")}
    (made,) = OPS["conv"].shape([x, weight], window)
    for found, expected in zip(d.shape, made.shape, strict=True):
        need_size(name, "a size of the cotangent", found, expected)
    return [weight]


def _backward_weight(
    x: np.ndarray,
    d: np.ndarray,
    *,
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    kernel: Sequence[int],
) -> np.ndarray:
    view = windows(padded(x, pad), kernel, stride, dilation)
    n, outputs, inputs = len(kernel), d.shape[1], x.shape[1]
    sizes = view.shape[2 : 2 + n]
    total = np.zeros((groups, outputs // groups, inputs // groups * int(np.prod(kernel))), x.dtype)
    to_columns = (0, *range(1 + n, 1 + 2 * n), *range(1, 1 + n))
    for image, patches in zip(d, view, strict=True):
        columns = patches.transpose(to_columns).reshape(groups, total.shape[2], -1)
        rows = image.reshape(groups, outputs // groups, int(np.prod(sizes)))
        total += np.matmul(rows, columns.swapaxes(1, 2))
    return total.reshape(outputs, inputs // groups, *kernel)


define(
    Op(
        "conv_backward_weight",
        (Operand("x"), Operand("d")),
        _backward_weight_shape,
        _backward_weight,
        "The cotangent of conv's weight [O, C/groups, kernel...] from its input x and the "
        "cotangent d of its result: the sum over images and places of d times the window.",
        ("stride", "pad", "dilation", "groups", "kernel"),
        macs=lambda types, results, attrs: types[1].elements * product(results[0].shape[1:]),
    )
)


# ---------------------------------------------------------------- batch norm


def _batch_norm_backward_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, d, *vectors = types
    need_channels("batch_norm_backward", x)
    need_float("batch_norm_backward", *types)
    need_same_shape("batch_norm_backward", x, d)
    need_vectors("batch_norm_backward", vectors, x.shape[1])
    return [x, vectors[0], vectors[0]]


def _batch_norm_backward(
    x: np.ndarray,
    d: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    normal = (x - along_channels(mean, x)) * along_channels(inv_std, x)
    d_weight, d_bias = (d * normal).sum(axis=axes), d.sum(axis=axes)
    centred = d - along_channels(d_bias / count, x) - normal * along_channels(d_weight / count, x)
    scale = inv_std if weight is None else inv_std * weight
    return centred * along_channels(scale, x), d_weight, d_bias


define(
    Op(
        "batch_norm_backward",
        (
            *(Operand("x"), Operand("d"), Operand("mean"), Operand("inv_std")),
            Operand("weight", optional=True),
        ),
        _batch_norm_backward_shape,
        _batch_norm_backward,
        "Cotangents of batch_norm_train's x, weight and bias from that of its y, through the "
        "batch's statistics. Ioffe and Szegedy, ICML 2015, arXiv:1502.03167, section 3.",
    )
)


# ---------------------------------------------------------------- pooling


def _restored(op: str, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    """The type of a pool's input from that of its result and the attribute ``size``."""
    size: Any = attrs["size"]
    n = spatial(op, types[0])
    if len(size) != n:
        raise OpError("E101", f"{op} of {types[0]} needs {n} sizes, found {list(size)}")
    for name, s in zip(spatial_names(n), size, strict=True):
        need_positive(op, s, f"the result's {name}")
    return types[0].with_shape([*types[0].shape[:2], *size])


def _adjoint_shape(adjoint: str, forward: str) -> Callable[..., list[TensorType]]:
    """The rule of an adjoint: the input that ``forward`` turns into the operand's type."""

    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        need_float(adjoint, *types)
        restored = _restored(adjoint, types, attrs)
        plain = {("size" if k == "count" else k): v for k, v in attrs.items() if k != "size"}
        (made,) = OPS[forward].shape([restored], plain)
        need_same_shape(adjoint, made, types[0])
        return [restored]

    return shape


def _avgpool_backward(
    d: np.ndarray,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[tuple[int, int]],
    ceil: bool,
    count_pad: bool,
    size: Sequence[int],
) -> np.ndarray:
    counts, once = d.shape[2:], (1,) * len(kernel)
    share = d
    ends = []
    for axis, (length, count, k, s, (before, after)) in enumerate(
        zip(size, counts, kernel, stride, pad, strict=True), 2
    ):
        start = np.arange(count) * s - before
        end = np.minimum(start + k, length + after)
        ends.append(max(length, int(start[-1]) + k))
        if not count_pad:
            start, end = np.maximum(start, 0), np.minimum(end, length)
        share = share / (end - start).astype(d.dtype).reshape(-1, *(1,) * (d.ndim - axis - 1))
    full = [before + end for (before, _), end in zip(pad, ends, strict=True)]
    total = np.zeros((*d.shape[:2], *full), d.dtype)
    for taps in grid(*map(range, kernel)):
        total[(..., *_tap_slices(taps, counts, stride, once))] += share
    return total[(..., *(slice(b, b + s) for (b, _), s in zip(pad, size, strict=True)))]


define(
    Op(
        "avgpool_backward",
        (Operand("d"),),
        _adjoint_shape("avgpool_backward", "avgpool"),
        _avgpool_backward,
        "The cotangent of avgpool's input, of the given spatial size: each window's d shared "
        "among the elements that it averaged.",
        ("kernel", "stride", "pad", "ceil", "count_pad", "size"),
        batching="leading",
    )
)


def _adaptive_backward(d: np.ndarray, *, count: Sequence[int], size: Sequence[int]) -> np.ndarray:
    for axis, (cells, length) in enumerate(zip(count, size, strict=True), 2):
        shape = list(d.shape)
        shape[axis] = length
        total = np.zeros(shape, d.dtype)
        for i in range(cells):
            start, end = i * length // cells, -(-(i + 1) * length // cells)
            lead = (slice(None),) * axis
            total[(*lead, slice(start, end))] += d[(*lead, slice(i, i + 1))] / (end - start)
        d = total
    return d


define(
    Op(
        "adaptive_avgpool_backward",
        (Operand("d"),),
        _adjoint_shape("adaptive_avgpool_backward", "adaptive_avgpool"),
        _adaptive_backward,
        "The cotangent of adaptive_avgpool's input, of the given spatial size; count is the "
        "number of cells per axis.",
        ("count", "size"),
        batching="leading",
    )
)


# ---------------------------------------------------------------- places within a channel


def _need_places(op: str, indices: TensorType, values: TensorType) -> None:
    if indices.dtype not in INTEGERS:
        raise OpError("E104", f"{op} needs whole-number places, found {indices}")
    need_same_shape(op, values, indices)


def _add_at_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    need_float("add_at_places", types[0])
    _need_places("add_at_places", types[1], types[0])
    size: Any = attrs["size"]
    for name, s in zip(spatial_names(len(size)), size, strict=True):
        need_positive("add_at_places", s, f"the result's {name}")
    return [types[0].with_shape([*types[0].shape[:2], *size])]


def _add_at(d: np.ndarray, places: np.ndarray, *, size: Sequence[int]) -> np.ndarray:
    count = int(np.prod(size))
    flat = places.reshape(-1, int(np.prod(places.shape[2:])))
    _check_places("add_at_places", flat, count)
    rows = np.arange(len(flat))[:, None] * count
    total = np.bincount((rows + flat).ravel(), d.astype(np.float64).ravel(), len(flat) * count)
    return total.astype(d.dtype).reshape(*d.shape[:2], *size)


def _take_at_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, places = types
    need_float("take_at_places", x)
    spatial("take_at_places", x)
    if places.rank < 3:
        raise OpError("E101", f"take_at_places needs places [N, C, spatial...], found {places}")
    made = x.with_shape([*x.shape[:2], *places.shape[2:]])
    _need_places("take_at_places", places, made)
    return [made]


def _take_at(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    rows, count = int(np.prod(x.shape[:2])), int(np.prod(x.shape[2:]))
    flat = places.reshape(rows, -1)
    _check_places("take_at_places", flat, count)
    found = np.take_along_axis(x.reshape(rows, count), flat.astype(np.int64), axis=1)
    return found.reshape(places.shape)


def _check_places(op: str, places: np.ndarray, count: int) -> None:
    if places.size and not (places.min() >= 0 and places.max() < count):
        raise OpError("E504", f"{op}: a place is not in 0..{count}")


define(
    Op(
        "add_at_places",
        (Operand("d"), Operand("places")),
        _add_at_shape,
        _add_at,
        "Zeros of the given spatial size with d[n, c, ...] added at the flat places of its own "
        "channel: the cotangent of max pooling's input.",
        ("size",),
        batching="leading",
    )
)
define(
    Op(
        "take_at_places",
        (Operand("x"), Operand("places")),
        _take_at_shape,
        _take_at,
        "The elements of x [N, C, spatial...] at flat places within each channel.",
        batching="leading",
    )
)


def _adaptive_places_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (made,) = OPS["adaptive_maxpool"].shape(types, attrs)
    return [made.with_dtype("i64")]


def _adaptive_places(x: np.ndarray, *, size: Sequence[int]) -> np.ndarray:
    places = np.empty((*x.shape[:2], *size), np.int64)
    lengths = x.shape[2:]
    for cell in np.ndindex(*size):
        bounds = [
            (i * n // count, -(-(i + 1) * n // count))
            for i, n, count in zip(cell, lengths, size, strict=True)
        ]
        part = x[(..., *(slice(*bound) for bound in bounds))]
        first = part.reshape(*x.shape[:2], -1).argmax(axis=-1)
        at = np.unravel_index(first, part.shape[2:])
        inside = [p + start for p, (start, _) in zip(at, bounds, strict=True)]
        places[(..., *cell)] = np.ravel_multi_index(inside, lengths)
    return places


define(
    Op(
        "adaptive_maxpool_places",
        (Operand("x"),),
        _adaptive_places_shape,
        _adaptive_places,
        "Where each maximum of adaptive_maxpool stands: flat places within one channel, the first "
        "of equals.",
        ("size",),
        batching="leading",
    )
)


# ---------------------------------------------------------------- resampling


def _resize_backward_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    need_float("resize_backward", *types)
    restored = _restored("resize_backward", types, {"size": attrs["input_size"]})
    plain = {k: v for k, v in attrs.items() if k != "input_size"}
    (made,) = OPS["resize"].shape([restored], plain)
    need_same_shape("resize_backward", made, types[0])
    return [restored]


def _resize_backward(d: np.ndarray, *, input_size: Sequence[int], **how: Any) -> np.ndarray:
    for i, length in enumerate(input_size):
        matrix = resize_matrix(length, i, dtype=d.dtype, **how)
        d = np.moveaxis(np.tensordot(d, matrix, axes=(2 + i, 0)), -1, 2 + i)
    return np.ascontiguousarray(d)


define(
    Op(
        "resize_backward",
        (Operand("d"),),
        _resize_backward_shape,
        _resize_backward,
        "The cotangent of resize's input, of spatial size input_size: each element's d shared "
        "among those that it was mixed from, by the same weights.",
        ("size", "scale", "mode", "align_corners", "antialias", "input_size"),
        batching="leading",
    )
)
