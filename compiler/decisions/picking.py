"""Lookups in tables, and where their results lie in memory.

A part of a rule has thousands of states and then a few actions and coordinates. Numpy's loops run
along memory, so arrays are kept with the states next to each other: then a loop has thousands of
turns, where in C order it would have two.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..ops.rules import check_index

SHORT = 64
"""Elements of a run that is too short for a loop of its own."""
FEW = 8
"""Elements of a table's entry that are looked up one by one."""


def laid_along(array: np.ndarray, axis: int) -> np.ndarray:
    """The array with an axis next to each other in memory, where the axes behind it are short."""
    if prod(array.shape[axis + 1 :]) > SHORT or array.shape[axis] <= SHORT:
        return array
    if array.strides[axis] == array.itemsize or 0 in array.strides:
        return array
    moved = np.ascontiguousarray(np.moveaxis(array, axis, -1))
    return np.moveaxis(moved, -1, axis)


def gathered(x: np.ndarray, *indices: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The op ``gather``; raises ``OpError`` E504 as it does."""
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    table = x.transpose([*axes, *rest])
    for size, index in zip(table.shape, indices, strict=False):
        check_index("gather", index, size)
    if table.flags.c_contiguous and prod(table.shape[len(axes) :]) <= FEW:
        return picked(table, indices, len(rest))
    return np.asarray(table[tuple(indices)])


def picked(table: np.ndarray, indices: Sequence[np.ndarray], tail: int = 0) -> np.ndarray:
    """``table[indices]``, in the order in memory of the indices.

    ``indices`` are one for each leading axis, inside it (nothing is checked), and broadcast;
    ``tail`` axes of the table are left, and short: they come last.
    """
    lead = table.ndim - tail
    flat = np.zeros((), np.intp)
    for size, index in zip(table.shape[:lead], indices, strict=True):
        flat = flat * size + index
    order = sorted(range(flat.ndim), key=lambda axis: -flat.strides[axis])
    along = flat.transpose(order)
    rest = table.shape[lead:]
    rows = table.reshape(-1, prod(rest))
    found = np.stack([np.take(rows[:, k], along, mode="clip") for k in range(rows.shape[1])])
    back = np.argsort(order)
    return found.transpose([*(back + 1), 0]).reshape(*flat.shape, *rest)
