"""Packing weights for the kernels, once, when a module gets its weights.

Large arrays are packed in pieces, a few panels of outputs at a time, and read row by row (see
``row_wise``): so no second copy of a weight exists while it is packed. A packer yields consecutive
pieces; :func:`whole` joins them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .kernels import depthwise as depthwise_kernels
from .kernels import linear, winograd
from .kernels.resize import cubic_table as taps_cubic
from .kernels.resize import linear_table as taps_linear
from .kernels.resize import nearest_table as taps_nearest
from .kernels.tile import BLOCK
from .row_wise import some_rows

__all__ = [
    "block_diagonal",
    "decoded",
    "dense",
    "depthwise",
    "grid_edges",
    "matrix",
    "padded_groups",
    "panels",
    "planar",
    "tap_table",
    "taps_cubic",
    "taps_linear",
    "taps_nearest",
    "transformed",
    "turned",
    "vector",
    "whole",
    "window_shares",
]

PIECE = 1 << 17
"""Bytes of weights that are packed at a time, or one panel where that has more."""

Pieces = Iterator[np.ndarray]


def whole(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """The packed array, its pieces joined along the first axis."""
    return np.concatenate(list(pieces))


def panels(weight: Any, blocks: int, groups: int = 1) -> Pieces:
    """Convolution weights [K, C/groups, *kernel] for the direct kernel.

    Pieces of [panels, C/groups * taps, 16 * blocks], rows ordered by input block, tap, channel;
    outputs beyond K are zero. Groups must consist of whole blocks (see :func:`block_diagonal`).
    """
    each = weight.shape[0] // groups
    for group in range(groups):
        rows = range(group * each, (group + 1) * each)
        yield from _in_pieces(weight, rows, BLOCK * blocks, lambda part: _panels(part, blocks))


def _panels(weight: np.ndarray, blocks: int) -> np.ndarray:
    k, c = weight.shape[:2]
    wide = BLOCK * blocks
    count = -(-k // wide)
    full = np.zeros((count, wide, c, math.prod(weight.shape[2:])), np.float32)
    full.reshape(count * wide, *full.shape[2:])[:k] = weight.reshape(k, c, -1)
    rows = [
        full[:, :, start : start + BLOCK].transpose(0, 3, 2, 1).reshape(count, -1, wide)
        for start in range(0, c, BLOCK)
    ]
    return np.concatenate(rows, axis=1)


def planar(weight: Any, blocks: int) -> Pieces:
    """Weights [K, C, kh, kw] for an input staged by pixels: [panels, kh, kw * C, 16 * blocks]."""
    wide = BLOCK * blocks

    def make(part: np.ndarray) -> np.ndarray:
        k, c, kh, kw = part.shape
        count = -(-k // wide)
        full = np.zeros((count * wide, c, kh, kw), np.float32)
        full[:k] = part
        shaped = full.reshape(count, wide, c, kh, kw).transpose(0, 3, 4, 2, 1)
        return shaped.reshape(count, kh, kw * c, wide)

    return _in_pieces(weight, range(weight.shape[0]), wide, make)


def block_diagonal(weight: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """Grouped weights whose groups are not whole blocks, as groups of one block with zeros.

    [K, C/groups, ...] with ``16 % (C/groups) == 0`` becomes [K, 16, ...] in C/16 groups.
    """
    weight = np.asarray(weight)
    k, c = weight.shape[:2]
    together = BLOCK // c
    wide = np.zeros((k, BLOCK, *weight.shape[2:]), weight.dtype)
    each = k // groups
    for row in range(k):
        place = (row // each) % together
        wide[row, place * c : (place + 1) * c] = weight[row]
    return wide, groups // together


def padded_groups(array: Any, groups: int, room: int) -> np.ndarray:
    """Weights or a vector along outputs, [groups * each, ...], as [groups * room, ...] with zeros.

    The outputs of each group keep their order and come first in its room.
    """
    array = np.asarray(array)
    each = array.shape[0] // groups
    full = np.zeros((groups, room, *array.shape[1:]), array.dtype)
    full[:, :each] = array.reshape(groups, each, *array.shape[1:])
    return full.reshape(groups * room, *array.shape[1:])


def dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """Grouped weights [K, C/groups, ...] as those of one group, [K, C, ...], zeros between."""
    weight = np.asarray(weight)
    k, c = weight.shape[:2]
    full = np.zeros((groups, k // groups, groups, c, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        full[group, :, group] = weight.reshape(groups, k // groups, *weight.shape[1:])[group]
    return full.reshape(k, groups * c, *weight.shape[2:])


def turned(weight: Any, groups: int) -> np.ndarray:
    """Weights of the backward convolution: inputs and outputs of a group exchanged, taps reversed.

    [K, C/groups, ...] becomes [C, K/groups, ...].
    """
    weight = np.asarray(weight)
    k, c, *kernel = weight.shape
    apart = weight.reshape(groups, k // groups, c, *kernel).swapaxes(1, 2)
    return np.flip(apart, tuple(range(3, apart.ndim))).reshape(groups * c, k // groups, *kernel)


def vector(values: np.ndarray, multiple: int) -> np.ndarray:
    """A per-channel vector padded with zeros to a multiple of channels."""
    size = -(-len(values) // multiple) * multiple
    full = np.zeros(size, np.float32)
    full[: len(values)] = values
    return full


def transformed(weight: Any, blocks: int) -> Pieces:
    """Winograd weights; see :func:`winograd.pack`."""
    rows = range(weight.shape[0])
    return _in_pieces(weight, rows, BLOCK * blocks, lambda part: winograd.pack(part, blocks))


def matrix(weight: Any, blocks: int) -> Pieces:
    """A dense layer's weights; see :func:`linear.pack`."""
    rows = range(weight.shape[0])
    return _in_pieces(weight, rows, BLOCK * blocks, lambda part: linear.pack(part, blocks))


def depthwise(weight: Any) -> Pieces:
    """Depthwise weights; see :func:`depthwise.pack`."""
    return _in_pieces(weight, range(weight.shape[0]), BLOCK, depthwise_kernels.pack)


def tap_table(
    blocks: int, block_bytes: int, line_bytes: int, pixel_bytes: int,
    kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1),
) -> np.ndarray:  # fmt: skip
    """Byte offsets of a convolution's chunks from a pixel: block by block, tap by tap."""
    b, i, j = np.meshgrid(
        np.arange(blocks), np.arange(kernel[0]), np.arange(kernel[1]), indexing="ij"
    )
    offsets = b * block_bytes + i * dilation[0] * line_bytes + j * dilation[1] * pixel_bytes
    return offsets.reshape(-1).astype(np.int64)


def decoded(data: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array from its bytes in base64."""
    return np.frombuffer(base64.b64decode(data), dtype).reshape(shape)


def window_shares(counts: list[list[int]], dtype: type) -> np.ndarray:
    """One over the number of elements that each window averages, from those along each axis."""
    total = np.ones((), np.float64)
    for along in counts:
        total = np.multiply.outer(total, along)
    return np.ascontiguousarray(1 / total, dtype)


def grid_edges(rows: int, columns: int) -> np.ndarray:
    """Pairs of neighbours on a grid; see the op ``grid_edges``."""
    number = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    down = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
    return np.concatenate([across, down])


# ---------------------------------------------------------------- helpers


def _in_pieces(
    weight: Any, rows: range, panel: int, make: Callable[[np.ndarray], np.ndarray]
) -> Pieces:
    """``make(part)`` of some rows at a time: as many whole panels as a piece may hold."""
    row_bytes = 4 * max(1, math.prod(weight.shape[1:]))
    step = panel * max(1, PIECE // (panel * row_bytes))
    for start in range(rows.start, rows.stop, step):
        yield make(some_rows(weight, slice(start, min(start + step, rows.stop))))
