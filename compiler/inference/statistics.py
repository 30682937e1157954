"""Expected sufficient statistics of a statement, in cells that share their parameters.

A cell is one setting of the values that some parameter of the statement varies with. Sums over
everything else are taken here, with deviations from the current mean, so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

BLOCK = 1 << 18
"""Rows that are worked on at once, times the width of one."""


@dataclass
class Cells:
    """Sums over the occurrences in each cell: ``count``, ``first``, ``second`` or ``outcomes``.

    Of ``x - centre``, where ``centre`` is the mean at which they were taken.
    """

    count: np.ndarray
    first: np.ndarray | None = None
    second: np.ndarray | None = None
    centre: np.ndarray | None = None

    def add(self, other: Cells) -> None:
        """Take another sequence's sums in."""
        self.count = self.count + other.count
        if self.first is not None and other.first is not None:
            self.first = self.first + other.first
        if self.second is not None and other.second is not None:
            self.second = self.second + other.second


@dataclass(frozen=True)
class Labelled:
    """An array whose leading axes have names; what follows is one element."""

    array: np.ndarray
    axes: tuple[str, ...]

    @property
    def rest(self) -> int:
        """Axes of one element."""
        return self.array.ndim - len(self.axes)

    def over(self, axes: Sequence[str], depth: int, event: int) -> np.ndarray:
        """With these axes in order, then ``depth`` axes of an observation, then the event's."""
        held = [axis for axis in axes if axis in self.axes]
        places = [self.axes.index(axis) for axis in held]
        tail = list(range(len(self.axes), self.array.ndim))
        array = self.array.transpose(places + tail)
        own = array.shape[len(held) :]
        lead = iter(array.shape[: len(held)])
        shape = [next(lead) if axis in held else 1 for axis in axes]
        batch = own[: len(own) - event]
        return array.reshape((*shape, *(1,) * (depth - len(batch)), *own))


@dataclass(frozen=True)
class Occurrences:
    """What a statement saw: posterior weights and, when it is observed, the values.

    ``cells`` are the axes that parameters vary with; ``sizes`` gives every axis its size.
    """

    weights: Labelled
    point: Labelled | None
    sizes: Mapping[str, int]
    cells: tuple[str, ...]
    missing: np.ndarray | None = field(default=None)


def outcome_counts(seen: Occurrences, own: str | None, values: int) -> Cells:
    """How often each value occurred in each cell, ``[cells, values]``."""
    if own is not None:  # a latent variable: its weights run over its values
        axes = (*seen.cells, own)
        return Cells(_summed(seen.weights, axes, seen.sizes))
    assert seen.point is not None
    axes = tuple(dict.fromkeys((*seen.weights.axes, *seen.point.axes)))
    weights = np.broadcast_to(seen.weights.over(axes, 0, 0), [seen.sizes[axis] for axis in axes])
    point = np.broadcast_to(seen.point.over(axes, 0, 0), weights.shape)
    good = np.ones(point.shape, bool)
    if seen.missing is not None:
        gone = Labelled(seen.missing, seen.point.axes).over(axes, 0, 0)
        good = ~np.broadcast_to(gone, point.shape)
    shape = [seen.sizes[axis] for axis in seen.cells]
    rows = np.zeros(point.shape, np.int64)
    for axis, size in zip(seen.cells, shape, strict=True):
        spread = [1] * len(axes)
        spread[axes.index(axis)] = size
        rows = rows * size + np.arange(size).reshape(spread)
    flat = (rows * values + np.where(good, point, 0))[good]
    total = int(np.prod(shape, dtype=np.int64)) * values
    counts = np.bincount(flat.ravel(), weights[good].ravel(), minlength=total)
    return Cells(counts.reshape((*shape, values)))


def moments(
    seen: Occurrences, centre: np.ndarray | None, depth: int, event: int, second: bool
) -> Cells:
    """Weighted sums of 1, x - centre and its square (outer product for vectors), by cell.

    Parameters
    ----------
    centre
        ``[cells, depth axes, event]``, or zero.
    depth, event
        Axes of one observation that are independent, and those of one value.
    """
    assert seen.point is not None
    gone = [axis for axis in (*seen.weights.axes, *seen.point.axes) if axis not in seen.cells]
    gone = list(dict.fromkeys(gone))
    axes = (*gone, *seen.cells)
    weights = seen.weights.over(axes, 0, 0)
    point = seen.point.over(axes, depth, event)
    missing = None
    if seen.missing is not None:
        missing = Labelled(seen.missing, seen.point.axes).over(axes, depth, event)
    cells = [seen.sizes[axis] for axis in seen.cells]
    own = point.shape[len(axes) :]
    middle = np.zeros((*cells, *own)) if centre is None else np.broadcast_to(centre, (*cells, *own))
    total = Cells(np.zeros((*cells, *own[:depth])), np.zeros((*cells, *own)),
                  np.zeros((*cells, *own, *own[depth:])) if second else None, middle)  # fmt: skip
    shape = [seen.sizes[axis] for axis in gone]
    for block in _blocks(shape, int(np.prod([*cells, *own], dtype=np.int64))):
        _accumulate(total, weights, point, missing, block, len(gone), depth, event)
    return total


def _blocks(shape: Sequence[int], width: int) -> list[tuple[slice, ...]]:
    """Parts of the summed axes whose elements fit into memory."""
    if not shape:
        return [()]
    rest = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, BLOCK // max(1, width * rest))
    return [(slice(k, k + step),) for k in range(0, shape[0], step)]


def _accumulate(
    total: Cells, weights: np.ndarray, point: np.ndarray, missing: np.ndarray | None,
    block: tuple[slice, ...], gone: int, depth: int, event: int,
) -> None:  # fmt: skip
    assert total.first is not None and total.centre is not None
    pick = tuple(part for part in block)
    w = weights[pick] if weights.shape[:1] != (1,) else weights
    x = point[pick] if point.shape[:1] != (1,) else point
    w = w.reshape((*w.shape, *(1,) * depth))
    if missing is not None:
        lost = missing[pick] if missing.shape[:1] != (1,) else missing
        whole = lost.any(axis=tuple(range(lost.ndim - event, lost.ndim))) if event else lost
        w = np.where(whole, 0.0, w)
        x = np.where(lost, 0.0, x)
    summed = tuple(range(gone))
    gap = x - total.centre
    wide = w.reshape((*w.shape, *(1,) * event))
    shape = np.broadcast_shapes(w.shape, gap.shape[: gap.ndim - event])
    # Axes that only the other operand has must be repeated before they are summed.
    total.count += np.broadcast_to(w, shape).sum(axis=summed)
    weighted = wide * gap
    total.first += weighted.sum(axis=summed)
    if total.second is None:
        return
    if event:
        total.second += _outer(weighted, np.broadcast_to(gap, weighted.shape), gone)
    else:
        total.second += (weighted * gap).sum(axis=summed)


def _outer(a: np.ndarray, b: np.ndarray, gone: int) -> np.ndarray:
    """The sum over leading axes of ``a b^T``, as matrix products."""
    size = a.shape[-1]
    cells = a.shape[gone:-1]
    rows = int(np.prod(a.shape[:gone], dtype=np.int64))
    left = a.reshape(rows, -1, size).transpose(1, 2, 0)
    right = b.reshape(rows, -1, size).transpose(1, 0, 2)
    return np.matmul(left, right).reshape((*cells, size, size))


def _summed(table: Labelled, axes: Sequence[str], sizes: Mapping[str, int]) -> np.ndarray:
    """Summed over all other axes, with exactly these."""
    gone = tuple(k for k, axis in enumerate(table.axes) if axis not in axes)
    kept = tuple(axis for axis in table.axes if axis in axes)
    array = Labelled(table.array.sum(axis=gone), kept).over(axes, 0, 0)
    return np.broadcast_to(array, [sizes[axis] for axis in axes])
