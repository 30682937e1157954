"""Gaussian filters of random fields: exact over all pairs, along axes, and on a lattice.

Values are rows ``[.., N, C]`` at points with features ``[.., N, d]``; the kernel between two points
is ``exp(-|f_i - f_j|^2 / 2)`` and each point counts itself, with weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from ..ir.types import Attrs, TensorType
from .base import Op, Operand, OpError, define
from .rules import quiet, require_equal, require_kind, require_rank

BLOCK = 1 << 22
"""Pairs that the exact reference holds at once."""

REACH = 5.0
"""Standard deviations at which a filter along axes ends; what lies beyond is 6e-7 of the kernel."""


# ---------------------------------------------------------------- exact, over all pairs


def _rows(op: str, features: TensorType, values: TensorType) -> None:
    for kind in (features, values):
        require_kind(op, kind, "float")
        require_rank(op, kind, 2)
    if features.shape[:-2] != values.shape[:-2]:
        raise OpError("E103", f"{op}: features {features} and values {values} differ in batch")
    require_equal(op, features.shape[-2], values.shape[-2], (features, values))


def _gauss_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    features, values = types
    _rows("gauss_filter", features, values)
    return (values,)


def gauss_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``out_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j``, a block of rows at a time."""
    if features.ndim > 2:
        pairs = zip(features, values, strict=True)
        return np.stack([gauss_filter(f, v) for f, v in pairs]) if len(values) else values.copy()
    result = np.empty_like(values)
    step = max(1, BLOCK // max(1, len(values)))
    for start in range(0, len(values), step):
        part = features[start : start + step]
        square = np.zeros((len(part), len(values)), features.dtype)
        for column in range(features.shape[1]):
            square += np.square(part[:, None, column] - features[None, :, column])
        kernel = np.exp(square * features.dtype.type(-0.5))
        result[start : start + step] = kernel.astype(values.dtype) @ values
    return result


define(
    Op(
        "gauss_filter",
        (Operand("features"), Operand("values")),
        _gauss_shape,
        gauss_filter,
        "Each row of values [.., N, C] summed over all rows with the weight"
        " exp(-|f_i - f_j|^2 / 2) of their features [.., N, d]: exact, N^2 pairs.",
        macs=lambda types, results, attrs: (
            results[0].elements * types[0].shape[-2] + types[0].elements * types[0].shape[-2]
        ),
    )
)


# ---------------------------------------------------------------- along axes


def axis_weights(sigma: float, size: int) -> np.ndarray:
    """``exp(-k^2 / (2 sigma^2))`` for k = 0, 1, .. up to :data:`REACH` sigma, or the axis's end."""
    reach = min(ceil(REACH * sigma), max(size - 1, 0))
    return np.exp(-0.5 * np.square(np.arange(reach + 1) / sigma))


def _grid_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    sigmas: Any = attrs["sigmas"]
    require_kind("gauss_grid_filter", types[0], "float")
    require_rank("gauss_grid_filter", types[0], len(sigmas) + 1)
    if not sigmas or any(sigma <= 0 for sigma in sigmas):
        raise OpError("E408", f"gauss_grid_filter: widths must be positive, found {sigmas}")
    return (types[0],)


def _grid(values: np.ndarray, sigmas: tuple[float, ...]) -> np.ndarray:
    first = values.ndim - 1 - len(sigmas)
    for axis, sigma in enumerate(sigmas, first):
        size = values.shape[axis]
        weights = axis_weights(sigma, size).astype(values.dtype)
        moved = np.moveaxis(values, axis, 0)
        total = moved * weights[0]
        for k in range(1, len(weights)):
            total[k:] += moved[: size - k] * weights[k]
            total[: size - k] += moved[k:] * weights[k]
        values = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(values)


define(
    Op(
        "gauss_grid_filter",
        (Operand("values"),),
        _grid_shape,
        _grid,
        "Values [.., H, W, C] on a grid, filtered along each axis by exp(-k^2 / (2 sigma^2)), which"
        " ends at five standard deviations: `gauss_filter` of grid positions, separably.",
        attrs=("sigmas",),
        macs=lambda types, results, attrs: results[0].elements * _taps(types[0], attrs),
    )
)


def _taps(kind: TensorType, attrs: Attrs) -> int:
    sigmas: Any = attrs["sigmas"]
    return sum(2 * ceil(REACH * sigma) + 1 for sigma in sigmas)


# ---------------------------------------------------------------- on a lattice


def _lattice_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (features,) = types
    require_kind("lattice", features, "float")
    require_rank("lattice", features, 2)
    *batch, count, d = features.shape
    if not isinstance(d, int) or not 1 <= d <= 12:
        raise OpError("E103", f"lattice: features need 1 to 12 numbers each, found {features}")
    corners = d + 1
    return (
        TensorType("i32", (*batch, count, corners)),
        features.with_shape((*batch, count, corners)),
        TensorType("i32", (*batch, corners, count * corners + 1, 2)),
        TensorType("i32", (*batch, 1)),
    )


def key_bits(d: int) -> int:
    """Bits of a lattice coordinate in a key of 64."""
    return min(62 // d, 30)


@quiet
def _lattice(features: np.ndarray) -> tuple[np.ndarray, ...]:
    if features.ndim > 2:
        parts = [_lattice(f) for f in features]
        return tuple(np.stack(column) for column in zip(*parts, strict=True))
    corners, weights = lattice_corners(features)
    count, _, d = corners.shape
    keys = _packed(corners.reshape(-1, d))
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    # Vertices are numbered from 1 in the order in which points meet them.
    order = np.argsort(first, kind="stable")
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    vertex = number[inverse.reshape(-1)].reshape(count, d + 1)
    along = np.zeros((d + 1, count * (d + 1) + 1, 2), np.int32)
    for axis in range(d + 1):
        step = -np.ones(d, np.int64)
        if axis < d:
            step[axis] = d
        here = corners.reshape(-1, d)[first]
        for side, moved in enumerate((here + step, here - step)):
            wanted = _packed(moved)
            place = np.minimum(np.searchsorted(unique, wanted), len(unique) - 1)
            found = unique[place] == wanted if len(unique) else np.zeros(0, bool)
            along[axis, number[found.nonzero()[0]], side] = number[place[found]]
    return vertex, weights, along, np.array([len(unique) + 1], np.int32)


def lattice_corners(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners ``i64[N, d+1, d]`` of each point's simplex and its weights ``[N, d+1]`` there.

    Corners are given by the first d coordinates of the d+1 that sum to 0. (Adams, Baek, Davis,
    Fast High-Dimensional Filtering Using the Permutohedral Lattice, 2010, section 4.)
    """
    count, d = features.shape
    if not np.all(np.isfinite(features)):
        raise OpError("E408", "lattice: a feature is not a finite number")
    kind = features.dtype.type
    steps = np.arange(d, dtype=np.float64)
    # The blur adds variance 2/3 of a unit: features are spread so that it is 1.
    scale = (np.sqrt(2 / 3) * (d + 1) / np.sqrt((steps + 1) * (steps + 2))).astype(kind)
    elevated = np.zeros((count, d + 1), features.dtype)
    total = np.zeros(count, features.dtype)
    for j in range(d, 0, -1):
        part = features[:, j - 1] * scale[j - 1]
        elevated[:, j] = total - kind(j) * part
        total = total + part
    elevated[:, 0] = total
    shares = np.rint(elevated * kind(1 / (d + 1)))
    base = shares.astype(np.int64) * (d + 1)
    excess = np.sum(shares, axis=1).astype(np.int64)
    gap = elevated - base.astype(features.dtype)
    later = gap[:, :, None] < gap[:, None, :]
    tie = (gap[:, :, None] == gap[:, None, :]) & (np.arange(d + 1)[:, None] > np.arange(d + 1))
    rank = np.sum(later | tie, axis=2) + excess[:, None]
    base += np.where(rank < 0, d + 1, 0) - np.where(rank > d, d + 1, 0)
    rank += np.where(rank < 0, d + 1, 0) - np.where(rank > d, d + 1, 0)
    gap = (elevated - base.astype(features.dtype)) * kind(1 / (d + 1))
    in_order = np.zeros((count, d + 2), features.dtype)
    rows = np.arange(count)[:, None]
    in_order[rows, d - rank] += gap
    in_order[rows, d + 1 - rank] -= gap
    in_order[:, 0] += 1 + in_order[:, d + 1]
    corners = np.empty((count, d + 1, d), np.int64)
    for r in range(d + 1):
        corners[:, r] = (base + r - (d + 1) * (rank > d - r))[:, :d]
    return corners, np.ascontiguousarray(in_order[:, : d + 1])


def _packed(corners: np.ndarray) -> np.ndarray:
    """One number a lattice point; raises E408 where coordinates do not fit."""
    d = corners.shape[1]
    bits = key_bits(d)
    half = 1 << (bits - 1)
    if corners.size and not -half < corners.min() - d <= corners.max() + d < half:
        raise OpError("E408", "lattice: features spread too far for its keys",
                      "wider kernels, or `filter=exact`")  # fmt: skip
    key = np.zeros(len(corners), np.int64)
    for column in range(d):
        key = (key << bits) | (corners[:, column] + half)
    return key


define(
    Op(
        "lattice",
        (Operand("features"),),
        _lattice_shape,
        _lattice,
        "The permutohedral lattice around points with features [.., N, d]: the d+1 corners of each"
        " point's simplex (numbers from 1), its weights there, for each direction every corner's"
        " two neighbours (0 where no point made one), and one more than the number of corners.",
    )
)


def _filter_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    values, vertex, weight, along, count = types
    _rows("lattice_filter", weight, values)
    for kind, rank in ((vertex, 2), (along, 3), (count, 1)):
        require_kind("lattice_filter", kind, "integer")
        require_rank("lattice_filter", kind, rank)
    require_equal("lattice_filter", vertex.shape[-1], weight.shape[-1], types)
    if not isinstance(attrs["reverse"], bool):
        raise OpError("E404", "lattice_filter: reverse is true or false")
    return (values,)


def _lattice_filter(
    values: np.ndarray, vertex: np.ndarray, weight: np.ndarray, along: np.ndarray,
    count: np.ndarray, reverse: bool,
) -> np.ndarray:  # fmt: skip
    if values.ndim > 2:
        rows = zip(values, vertex, weight, along, count, strict=True)
        parts = [_lattice_filter(*row, reverse) for row in rows]
        return np.stack(parts) if parts else values.copy()
    held = int(count[0])
    corners = vertex.shape[1]
    half = values.dtype.type(0.5)
    table = np.zeros((held, values.shape[1]), values.dtype)
    for k in range(corners):
        np.add.at(table, vertex[:, k], values * weight[:, k, None].astype(values.dtype))
    order = range(corners - 1, -1, -1) if reverse else range(corners)
    for axis in order:
        sides = table[along[axis, 1:held, 0]] + table[along[axis, 1:held, 1]]
        table[1:] = table[1:] + half * sides
    result = np.zeros_like(values)
    for k in range(corners):
        result += table[vertex[:, k]] * weight[:, k, None].astype(values.dtype)
    return result * values.dtype.type(lattice_gain(corners - 1))


def lattice_gain(d: int) -> float:
    """What makes the filter of a single corner 1 at that corner."""
    return 1 / (1 + 2.0**-d)


define(
    Op(
        "lattice_filter",
        (
            Operand("values"),
            Operand("vertex"),
            Operand("weight"),
            Operand("along"),
            Operand("count"),
        ),
        _filter_shape,
        _lattice_filter,
        "`gauss_filter` approximated on a `lattice`: values are shared out to corners, blurred"
        " along each direction in turn (from the last to the first if `reverse`), and read back.",
        attrs=("reverse",),
        macs=lambda types, results, attrs: 2 * results[0].elements * types[1].shape[-1],
    )
)
