"""Ops that only place elements: reshape, transpose, slice, pad, join, split, repeat, make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike, ceildiv, compare, floordiv, mod, product
from ..ir.types import DTYPES, Attrs, TensorType, shape_text
from .base import Op, Operand, OpError, define
from .rules import (
    axes_attr,
    axis_attr,
    check_index,
    quiet,
    require_equal,
    require_kind,
    require_rank,
    require_same_dtype,
    sizes_attr,
)


def require_positive(what: str, size: DimLike) -> None:
    """Raise E106 when a size is known to be zero or negative."""
    if isinstance(size, int) and size < 1:
        raise OpError("E106", f"{what}: a size would be {size}")


def _dtype_attr(what: str, attrs: Attrs) -> str:
    dtype = str(attrs["dtype"])
    if dtype not in DTYPES:
        raise OpError("E404", f"{what}: unknown element type {dtype}")
    return dtype


# ---------------------------------------------------------------- same elements


def _reshape_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    shape = sizes_attr(attrs, "shape")
    for size in shape:
        require_positive("reshape", size)
    if compare(types[0].elements, product(shape)) is False:
        raise OpError(
            "E103",
            f"reshape: {types[0]} holds {types[0].elements} elements,"
            f" but {shape_text(shape)} needs {product(shape)}",
        )
    return (types[0].with_shape(shape),)


def _transpose_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    perm = axes_attr("transpose", attrs, types[0], "perm")
    if len(perm) != types[0].rank:
        raise OpError("E107", f"transpose: {list(perm)} does not name every axis of {types[0]}")
    return (types[0].with_shape([types[0].shape[axis] for axis in perm]),)


def _flip_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    axes_attr("flip", attrs, types[0])
    return (types[0],)


def _shuffle_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    axis = axis_attr("shuffle", attrs, types[0])
    groups, size = attrs["groups"], types[0].shape[axis]
    if not isinstance(groups, int) or groups < 1:
        raise OpError("E408", f"shuffle: groups must be 1 or more, found {groups}")
    if compare(mod(size, groups), 0) is False:
        raise OpError("E108", f"shuffle: {size} channels do not divide into {groups} groups")
    return (types[0],)


def _channel_shuffle(x: np.ndarray, groups: int, axis: int) -> np.ndarray:
    size = x.shape[axis]
    order = np.arange(size).reshape(groups, size // groups).T.reshape(-1)
    return np.take(x, order, axis)


# ---------------------------------------------------------------- parts and joins


def _slice_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = types[0]
    starts, stops, steps = (sizes_attr(attrs, name) for name in ("starts", "stops", "steps"))
    if not len(starts) == len(stops) == len(steps) == x.rank:
        raise OpError("E101", f"slice: {len(starts)} ranges do not fit {x}")
    shape: list[DimLike] = []
    for start, stop, step, size in zip(starts, stops, steps, x.shape, strict=True):
        inside = [start, size - stop, stop - start]
        if any(isinstance(gap, int) and gap < 0 for gap in inside):
            raise OpError("E504", f"slice: {start}..{stop} is not inside 0..{size} of {x}")
        if isinstance(step, int) and step < 1:
            raise OpError("E408", f"slice: the step must be 1 or more, found {step}")
        shape.append(ceildiv(stop - start, step))
        require_positive(f"slice {start}..{stop}", shape[-1])
    return (x.with_shape(shape),)


def _slice(
    x: np.ndarray, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> np.ndarray:
    return x[tuple(slice(*part) for part in zip(starts, stops, steps, strict=True))]


def _concat_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    first = types[0]
    require_same_dtype("concat", types)
    axis = axis_attr("concat", attrs, first)
    shown = "  and  ".join(str(kind) for kind in types)
    for kind in types[1:]:
        same_rank = kind.rank == first.rank
        if not same_rank or any(
            compare(a, b) is False
            for place, (a, b) in enumerate(zip(first.shape, kind.shape, strict=True))
            if place != axis
        ):
            raise OpError("E109", f"concat: cannot join along axis {axis}: {shown}")
    total: DimLike = 0
    for kind in types:
        total = total + kind.shape[axis]
    return (first.with_shape([*first.shape[:axis], total, *first.shape[axis + 1 :]]),)


def _concat(*parts: np.ndarray, axis: int) -> np.ndarray:
    return np.concatenate(parts, axis)


def _split_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = types[0]
    axis, sizes = axis_attr("split", attrs, x), sizes_attr(attrs, "sizes")
    total: DimLike = 0
    for size in sizes:
        require_positive("split", size)
        total = total + size
    if compare(total, x.shape[axis]) is False:
        raise OpError(
            "E103", f"split: parts {shape_text(sizes)} do not add up to {x.shape[axis]} in {x}"
        )
    return tuple(x.with_shape([*x.shape[:axis], s, *x.shape[axis + 1 :]]) for s in sizes)


def _split(x: np.ndarray, axis: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, np.cumsum(sizes[:-1], dtype=int), axis))


# ---------------------------------------------------------------- more elements


def _broadcast_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, shape = types[0], sizes_attr(attrs, "shape")
    fits = x.rank <= len(shape)
    tail = shape[len(shape) - x.rank :]
    if not fits or any(
        a != 1 and compare(a, b) is False for a, b in zip(x.shape, tail, strict=True)
    ):
        raise OpError("E103", f"broadcast: {x} does not fit {shape_text(shape)}")
    return (x.with_shape(shape),)


def _tile_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    reps = sizes_attr(attrs, "reps")
    if len(reps) != types[0].rank:
        raise OpError("E101", f"tile: {len(reps)} counts do not fit {types[0]}")
    for count in reps:
        require_positive("tile", count)
    return (types[0].with_shape([d * r for d, r in zip(types[0].shape, reps, strict=True)]),)


PAD_MODES = ("constant", "reflect", "edge")


def _pad_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, mode = types[0], attrs["mode"]
    before, after = sizes_attr(attrs, "before"), sizes_attr(attrs, "after")
    if mode not in PAD_MODES:
        raise OpError("E404", f"pad: unknown mode {mode}; known are {', '.join(PAD_MODES)}")
    if not len(before) == len(after) == x.rank:
        raise OpError("E101", f"pad: {len(before)} amounts do not fit {x}")
    for amount, size in zip(before + after, x.shape * 2, strict=True):
        if isinstance(amount, int) and amount < 0:
            raise OpError("E408", f"pad: amounts must not be negative, found {amount}")
        room = size - amount
        if mode == "reflect" and isinstance(room, int) and room < 1:
            raise OpError("E408", f"pad: reflecting {amount} needs a size above it, found {x}")
    shape = [d + b + a for d, b, a in zip(x.shape, before, after, strict=True)]
    return (x.with_shape(shape),)


def _pad(
    x: np.ndarray, before: tuple[int, ...], after: tuple[int, ...], value: float, mode: str
) -> np.ndarray:
    widths = list(zip(before, after, strict=True))
    if mode == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(value))
    return np.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")


# ---------------------------------------------------------------- matrices


def _diag_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_rank("diag", types[0], 1)
    return (types[0].with_shape([*types[0].shape, types[0].shape[-1]]),)


def _diag(x: np.ndarray) -> np.ndarray:
    return np.where(np.eye(x.shape[-1], dtype=bool), x[..., None], np.zeros((), x.dtype))


def _diagonal_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_rank("diagonal", types[0], 2)
    require_equal("diagonal", types[0].shape[-2], types[0].shape[-1], types)
    return (types[0].with_shape(types[0].shape[:-1]),)


def _diagonal(x: np.ndarray) -> np.ndarray:
    return np.diagonal(x, axis1=-2, axis2=-1)


def _triangle_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_rank("tril and triu", types[0], 2)
    if not isinstance(attrs["k"], int):
        raise OpError("E404", f"tril and triu: k must be a whole number, found {attrs['k']}")
    return (types[0],)


# ---------------------------------------------------------------- from nothing


def _iota_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    size: Any = attrs["size"]
    require_positive("iota", size)
    kind = TensorType(_dtype_attr("iota", attrs), (size,))
    require_kind("iota", kind, "number")
    return (kind,)


def _iota(size: int, dtype: str) -> np.ndarray:
    return np.arange(size, dtype=DTYPES[dtype])


def _fill_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    shape = sizes_attr(attrs, "shape")
    for size in shape:
        require_positive("fill", size)
    return (TensorType(_dtype_attr("fill", attrs), shape),)


def _fill(shape: tuple[int, ...], value: float, dtype: str) -> np.ndarray:
    return np.full(shape, value, DTYPES[dtype])


def _eye_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    size: Any = attrs["size"]
    require_positive("eye", size)
    return (TensorType(_dtype_attr("eye", attrs), (size, size)),)


def _eye(size: int, dtype: str) -> np.ndarray:
    return np.eye(size, dtype=DTYPES[dtype])


def _one_hot_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_kind("one_hot", types[0], "integer")
    size: Any = attrs["size"]
    require_positive("one_hot", size)
    return (TensorType(_dtype_attr("one_hot", attrs), (*types[0].shape, size)),)


def _one_hot(index: np.ndarray, size: int, dtype: str) -> np.ndarray:
    check_index("one_hot", index, size)
    return (index[..., None] == np.arange(size)).astype(DTYPES[dtype])


def equal_parts(what: str, size: DimLike, parts: int) -> tuple[DimLike, ...]:
    """Sizes of ``parts`` equal parts; raises E108 when ``size`` does not divide."""
    rest = mod(size, parts)
    if isinstance(rest, int) and rest:
        raise OpError("E108", f"{what}: {size} does not divide into {parts} equal parts")
    return (floordiv(size, parts),) * parts


_X = (Operand("x"),)
for _op in (
    Op(
        "reshape",
        _X,
        _reshape_shape,
        lambda x, shape: x.reshape(shape),
        "The same elements in row-major order under another shape.",
        attrs=("shape",),
    ),
    Op(
        "transpose",
        _X,
        _transpose_shape,
        lambda x, perm: x.transpose(perm),
        "Axes in another order: axis i of the result is axis perm[i].",
        attrs=("perm",),
    ),
    Op(
        "flip",
        _X,
        _flip_shape,
        lambda x, axes: np.flip(x, axes),
        "Elements along axes in reverse order.",
        attrs=("axes",),
        batching="axis",
        axis_attrs=("axes",),
    ),
    Op(
        "channel_shuffle",
        _X,
        _shuffle_shape,
        _channel_shuffle,
        "Channels as a matrix of groups, transposed (ShuffleNet, Zhang et al. 2018).",
        attrs=("groups", "axis"),
        batching="axis",
    ),
    Op(
        "slice",
        _X,
        _slice_shape,
        _slice,
        "Every step-th element of start..stop along each axis.",
        attrs=("starts", "stops", "steps"),
    ),
    Op(
        "concat",
        (Operand("parts", variadic=True),),
        _concat_shape,
        _concat,
        "Tensors joined along an axis.",
        attrs=("axis",),
        batching="axis",
    ),
    Op(
        "split",
        _X,
        _split_shape,
        _split,
        "Parts of given sizes along an axis.",
        attrs=("axis", "sizes"),
        batching="axis",
    ),
    Op(
        "broadcast",
        _X,
        _broadcast_shape,
        lambda x, shape: np.broadcast_to(x, shape),
        "Sizes of 1 and missing leading axes repeated to a shape.",
        attrs=("shape",),
    ),
    Op(
        "tile",
        _X,
        _tile_shape,
        lambda x, reps: np.tile(x, reps),
        "The whole tensor repeated along each axis.",
        attrs=("reps",),
    ),
    Op(
        "pad",
        _X,
        _pad_shape,
        quiet(_pad),
        "Elements added around each axis: a value, a mirror without the edge, or the edge.",
        attrs=("before", "after", "value", "mode"),
    ),
    Op(
        "diag",
        _X,
        _diag_shape,
        _diag,
        "The diagonal matrix of a vector.",
        batching="last",
    ),
    Op(
        "diagonal",
        _X,
        _diagonal_shape,
        _diagonal,
        "The diagonal of a square matrix.",
        batching="last",
    ),
    Op(
        "tril",
        _X,
        _triangle_shape,
        lambda x, k: np.tril(x, k),
        "The lower triangle of a matrix up to its k-th diagonal, zero above.",
        attrs=("k",),
        batching="last",
    ),
    Op(
        "triu",
        _X,
        _triangle_shape,
        lambda x, k: np.triu(x, k),
        "The upper triangle of a matrix from its k-th diagonal on, zero below.",
        attrs=("k",),
        batching="last",
    ),
    Op(
        "iota",
        (),
        _iota_shape,
        _iota,
        "0, 1, 2, ... up to a size.",
        attrs=("size", "dtype"),
    ),
    Op(
        "fill",
        (),
        _fill_shape,
        _fill,
        "A tensor of one value.",
        attrs=("shape", "value", "dtype"),
    ),
    Op(
        "eye",
        (),
        _eye_shape,
        _eye,
        "The identity matrix.",
        attrs=("size", "dtype"),
    ),
    Op(
        "one_hot",
        (Operand("index"),),
        _one_hot_shape,
        _one_hot,
        "A new last axis that is 1 at the index and 0 elsewhere.",
        attrs=("size", "dtype"),
        batching="last",
    ),
):
    define(_op)
