"""Resampling: resizing, sampling at grid points, and moving channels to space and back.

Coordinates are computed in float64 whatever the element type, so that a result does not depend on
rounding of positions; they follow PyTorch's conventions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from ..ir.dims import DimLike, floordiv
from ..ir.graph import Value
from ..ir.types import Attrs, TensorType
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer, layer_of
from .net_rules import (
    need_divisible,
    need_float,
    need_positive,
    need_range,
    need_rank,
    need_size,
    need_whole,
    spatial_rank,
)
from .windows import spatial_names

MODES = ("nearest", "nearest_exact", "bilinear", "bicubic")
Taps = tuple[np.ndarray, np.ndarray]

# ---------------------------------------------------------------- resize


def _resize_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    n = spatial_rank("resize", x)
    mode, antialias = attrs["mode"], attrs["antialias"]
    need_range("resize", "mode", mode, mode in MODES, "one of " + ", ".join(MODES))
    if mode in ("bilinear", "bicubic"):
        need_float("resize", x)
    smooth = mode in ("bilinear", "bicubic") and not attrs["align_corners"]
    need_range(
        "resize",
        "antialias",
        antialias,
        smooth or not antialias,
        "false unless mode is bilinear or bicubic and align_corners is false",
    )
    size: Any = attrs["size"]
    need_range("resize", "size", size, len(size) == n, f"one size per spatial axis ({n})")
    for name, s in zip(spatial_names(n), size, strict=True):
        need_positive("resize", s, f"the output's {name}")
    return [x.with_shape([*x.shape[:2], *size])]


def _resize(
    x: np.ndarray,
    *,
    size: Sequence[int],
    scale: Sequence[float] | None,
    mode: str,
    align_corners: bool,
    antialias: bool,
) -> np.ndarray:
    for i, count in enumerate(size):
        axis, given = 2 + i, None if scale is None else scale[i]
        length = x.shape[axis]
        if mode.startswith("nearest"):
            x = np.take(x, _nearest(length, count, given, mode == "nearest_exact"), axis=axis)
            continue
        step = _step(length, count, given, align_corners)
        if antialias:
            places, weights = _filter_taps(length, count, step, mode)
        else:
            places, weights = _interpolation_taps(length, count, step, mode, align_corners)
        x = _mix(x, axis, places, weights)
    return x


def resize_matrix(
    length: int,
    axis: int,
    *,
    dtype: np.dtype,
    size: Sequence[int],
    scale: Sequence[float] | None,
    **how: Any,
) -> np.ndarray:
    """The matrix ``[size, length]`` by which resize mixes the elements of one spatial axis."""
    unit = np.eye(length, dtype=dtype)[None]
    one = None if scale is None else (scale[axis],)
    return _resize(unit, size=(size[axis],), scale=one, **how)[0].T


def _mix(x: np.ndarray, axis: int, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum of the elements ``places[out, tap]`` along one axis."""
    shape = (-1, *(1,) * (x.ndim - axis - 1))
    columns = weights.astype(x.dtype).T
    return sum(
        np.take(x, place, axis=axis) * w.reshape(shape)
        for place, w in zip(places.T, columns, strict=True)
    )  # type: ignore[return-value]


def _nearest(length: int, count: int, scale: float | None, exact: bool) -> np.ndarray:
    i = np.arange(count)
    if scale is not None:
        found = np.floor((i + (0.5 if exact else 0.0)) / scale).astype(np.int64)
    else:
        # In whole numbers, where a division in floats may fall just below an integer.
        found = (2 * i + 1) * length // (2 * count) if exact else i * length // count
    return np.minimum(found, length - 1)


def _step(length: int, count: int, scale: float | None, align_corners: bool) -> float:
    """Input elements per output element."""
    if align_corners:
        return (length - 1) / (count - 1) if count > 1 else 0.0
    return length / count if scale is None else 1 / scale


def _interpolation_taps(
    length: int, count: int, step: float, mode: str, align_corners: bool
) -> Taps:
    centre = np.arange(count) * step if align_corners else (np.arange(count) + 0.5) * step - 0.5
    if mode == "bilinear":
        centre = np.clip(centre, 0, length - 1)
        offsets, kernel = np.arange(2), _triangle
    else:
        offsets, kernel = np.arange(-1, 3), _cubic
    places = np.floor(centre).astype(np.int64)[:, None] + offsets
    weights = kernel(places - centre[:, None], -0.75)
    return np.clip(places, 0, length - 1), weights


def _filter_taps(length: int, count: int, step: float, mode: str) -> Taps:
    """Taps of a kernel widened by ``step`` when shrinking, normalised at the borders."""
    kernel, radius = (_triangle, 1) if mode == "bilinear" else (_cubic, 2)
    widen = max(step, 1.0)
    reach = radius * widen
    centre = (np.arange(count) + 0.5) * step
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), length)
    places = first[:, None] + np.arange(int((last - first).max()))
    weights = kernel((places - centre[:, None] + 0.5) / widen, -0.5)
    weights = np.where(places < last[:, None], weights, 0)
    return np.minimum(places, length - 1), weights / weights.sum(axis=1, keepdims=True)


def _triangle(t: np.ndarray, a: float) -> np.ndarray:
    return np.maximum(1 - np.abs(t), 0)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with slope ``a`` at 1."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


define(
    Op(
        "resize",
        (Operand("x"),),
        _resize_shape,
        _resize,
        "Resamples every spatial axis of [N, C, spatial...] to size. scale, when given, sets the "
        "coordinates instead of the ratio of sizes. bilinear is linear on each axis, bicubic "
        "Keys' convolution (IEEE ASSP 1981) with a = -0.75, or -0.5 under antialias, which widens "
        "the kernel when shrinking.",
        ("size", "scale", "mode", "align_corners", "antialias"),
        batching="leading",
    )
)


def _build_resize(builder: Builder, tensors: Sequence[Value], *, size: Any, **how: Any) -> Value:
    n = spatial_rank("resize", builder.type_of(tensors[0]))
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,) * n
    return builder.emit("resize", tensors, {"size": sizes, "scale": None, **how})


def _build_upsample(
    builder: Builder, tensors: Sequence[Value], *, factor: float, mode: str, align_corners: bool
) -> Value:
    x = builder.type_of(tensors[0])
    n = spatial_rank("upsample", x)
    fits = isinstance(factor, (int, float)) and math.isfinite(factor) and factor > 0
    need_range("upsample", "factor", factor, fits, "a number above 0")
    ratio = Fraction(factor).limit_denominator(10_000)
    whole = ratio.denominator == 1
    attrs = {
        "size": tuple(floordiv(s * ratio.numerator, ratio.denominator) for s in x.shape[2:]),
        "scale": None if whole else (float(factor),) * n,
        "mode": mode,
        "align_corners": align_corners,
        "antialias": False,
    }
    return builder.emit("resize", tensors, attrs)


_MODE = Setting("mode", "choice", "nearest", MODES)
_ALIGN = Setting("align_corners", "bool", False)

define_layer(
    Layer(
        "upsample",
        (Setting("factor", "number"), _MODE, _ALIGN),
        (1, 1),
        _build_upsample,
        "Scales the spatial axes by factor (size rounded down); a factor that is no whole number "
        "also sets the coordinates.",
        batching="leading",
    )
)

define_layer(
    Layer(
        "resize",
        (Setting("size", "ints"), _MODE, _ALIGN, Setting("antialias", "bool", False)),
        (1, 1),
        _build_resize,
        "Resamples the spatial axes to size, one number or one per axis.",
        batching="leading",
    )
)


# ---------------------------------------------------------------- sampling at grid points


def _grid_sample_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, grid = types
    need_rank("grid_sample", x, (4,), "[N, C, H, W]", "a batch of images is [N, C, H, W]")
    need_rank("grid_sample", grid, (4,), "a grid [N, H, W, 2]", "affine_grid makes one")
    need_float("grid_sample", x, grid)
    need_size("grid_sample", "the grid's batch", grid.shape[0], x.shape[0])
    need_size("grid_sample", "the grid's last axis", grid.shape[3], 2, "it holds (x, y)")
    mode, padding = attrs["mode"], attrs["padding"]
    need_range("grid_sample", "mode", mode, mode in _SAMPLING, " or ".join(_SAMPLING))
    need_range("grid_sample", "padding", padding, padding in _PADDING, " or ".join(_PADDING))
    return [x.with_shape([x.shape[0], x.shape[1], grid.shape[1], grid.shape[2]])]


def _grid_sample(
    x: np.ndarray, grid: np.ndarray, *, mode: str, padding: str, align_corners: bool
) -> np.ndarray:
    height, width = x.shape[2:]
    u = _to_pixels(grid[..., 0].astype(np.float64), width, padding, align_corners)
    v = _to_pixels(grid[..., 1].astype(np.float64), height, padding, align_corners)
    if mode == "nearest":
        return _gather(x, np.rint(v), np.rint(u))
    top, left = np.floor(v), np.floor(u)
    down, right = v - top, u - left
    corners = (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    )
    total = np.zeros((*x.shape[:2], *grid.shape[1:3]), x.dtype)
    for row, column, weight in corners:
        total += _gather(x, row, column) * weight[:, None].astype(x.dtype)
    return total


def _to_pixels(g: np.ndarray, size: int, padding: str, align_corners: bool) -> np.ndarray:
    """Pixel positions of grid values in -1..1, moved inside as ``padding`` says."""
    p = (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
    if padding == "zeros":
        return p
    if padding == "reflection":
        low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
        if span > 0:
            turned = np.abs(p - low) % (2 * span)
            p = np.minimum(turned, 2 * span - turned) + low
        else:
            p = np.zeros_like(p)
    return np.clip(p, 0, size - 1)


def _gather(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Elements ``x[n, :, row, column]``; zero outside the image."""
    height, width = x.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    r = np.where(inside, rows, 0).astype(np.int64)
    c = np.where(inside, columns, 0).astype(np.int64)
    batch = np.arange(len(x))[:, None, None]
    found = np.where(inside[..., None], x[batch, :, r, c], 0)
    return np.moveaxis(found, -1, 1).astype(x.dtype, copy=False)


_SAMPLING = ("bilinear", "nearest")
_PADDING = ("zeros", "border", "reflection")

layer_of(
    define(
        Op(
            "grid_sample",
            (Operand("x"), Operand("grid")),
            _grid_sample_shape,
            _grid_sample,
            "x [N, C, H, W] at positions grid [N, h, w, 2] of (x, y) in -1..1. Jaderberg et al., "
            "Spatial Transformer Networks, NIPS 2015, arXiv:1506.02025.",
            ("mode", "padding", "align_corners"),
            batching="leading",
        )
    ),
    Setting("mode", "choice", "bilinear", _SAMPLING),
    Setting("padding", "choice", "zeros", _PADDING),
    _ALIGN,
)


def _affine_grid_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (theta,) = types
    need_rank("affine_grid", theta, (3,), "matrices [N, 2, 3]", "reshape the six numbers")
    need_float("affine_grid", theta)
    need_size("affine_grid", "the matrices' row count", theta.shape[1], 2)
    need_size("affine_grid", "the matrices' column count", theta.shape[2], 3)
    size: Any = attrs["size"]
    need_range("affine_grid", "size", size, len(size) == 2, "a height and a width")
    for name, s in zip(spatial_names(2), size, strict=True):
        need_positive("affine_grid", s, f"the grid's {name}")
    return [theta.with_shape([theta.shape[0], *size, 2])]


def _affine_grid(theta: np.ndarray, *, size: Sequence[int], align_corners: bool) -> np.ndarray:
    rows, columns = (_base_positions(count, align_corners) for count in size)
    base = np.empty((*size, 3))
    base[..., 0], base[..., 1], base[..., 2] = columns[None, :], rows[:, None], 1
    return np.einsum("hwk,njk->nhwj", base.astype(theta.dtype), theta)


def _base_positions(count: int, align_corners: bool) -> np.ndarray:
    if not align_corners:
        return (2 * np.arange(count) + 1) / count - 1
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(1)


define(
    Op(
        "affine_grid",
        (Operand("theta"),),
        _affine_grid_shape,
        _affine_grid,
        "The grid [N, H, W, 2] that affine matrices theta [N, 2, 3] map the output's pixels to. "
        "Jaderberg et al., Spatial Transformer Networks, NIPS 2015, arXiv:1506.02025.",
        ("size", "align_corners"),
        batching="leading",
    )
)


def _build_affine_grid(
    builder: Builder, tensors: Sequence[Value], *, size: Any, align_corners: bool
) -> Value:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    return builder.emit("affine_grid", tensors, {"size": sizes, "align_corners": align_corners})


define_layer(
    Layer(
        "affine_grid",
        (Setting("size", "ints"), _ALIGN),
        (1, 1),
        _build_affine_grid,
        "Sampling positions for grid_sample; size is [height, width].",
        batching="leading",
    )
)


# ---------------------------------------------------------------- channels and space


def _pixel_shuffle_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    r = _factor("pixel_shuffle", x, attrs)
    batch, channels, height, width = x.shape
    need_divisible("pixel_shuffle", "the number of channels", channels, r * r)
    return [x.with_shape([batch, floordiv(channels, r * r), height * r, width * r])]


def _pixel_shuffle(x: np.ndarray, *, factor: int) -> np.ndarray:
    n, c, h, w = x.shape
    r = factor
    split = x.reshape(n, c // (r * r), r, r, h, w)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def _pixel_unshuffle_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    r = _factor("pixel_unshuffle", x, attrs)
    batch, channels, *sizes = x.shape
    for name, size in zip(spatial_names(2), sizes, strict=True):
        need_divisible("pixel_unshuffle", f"the {name}", size, r)
    reduced: list[DimLike] = [floordiv(size, r) for size in sizes]
    return [x.with_shape([batch, channels * (r * r), *reduced])]


def _pixel_unshuffle(x: np.ndarray, *, factor: int) -> np.ndarray:
    n, c, h, w = x.shape
    r = factor
    split = x.reshape(n, c, h // r, r, w // r, r)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * r * r, h // r, w // r)


def _factor(op: str, x: TensorType, attrs: Attrs) -> int:
    if x.rank != 4:
        raise OpError("E101", f"{op} needs [N, C, H, W], found {x}")
    factor: Any = attrs["factor"]
    need_whole(op, "factor", factor)
    return factor


layer_of(
    define(
        Op(
            "pixel_shuffle",
            (Operand("x"),),
            _pixel_shuffle_shape,
            _pixel_shuffle,
            "[N, C*r*r, H, W] to [N, C, H*r, W*r]: each pixel's channels become an r by r square. "
            "Shi et al., CVPR 2016, arXiv:1609.05158.",
            ("factor",),
            batching="leading",
        )
    ),
    Setting("factor", "int"),
)

layer_of(
    define(
        Op(
            "pixel_unshuffle",
            (Operand("x"),),
            _pixel_unshuffle_shape,
            _pixel_unshuffle,
            "[N, C, H*r, W*r] to [N, C*r*r, H, W], the inverse of pixel_shuffle.",
            ("factor",),
            batching="leading",
        )
    ),
    Setting("factor", "int"),
)
