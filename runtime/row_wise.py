"""Large weights known by their rows, so that folding and packing never hold a whole one.

Statements of a load program look like plain numpy; on a large weight they only note what is to be
done, and the packers then ask for a few rows (of the first axis) at a time.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Where = slice | np.ndarray

LARGE = 1 << 16
"""Bytes from which a weight is taken row by row."""


@dataclass(frozen=True, eq=False)
class RowWise(np.lib.mixins.NDArrayOperatorsMixin):
    """An array whose rows are computed when they are asked for; numpy takes it as an operand.

    Element-wise functions and ``np.take`` stay row-wise; anything else makes the whole array.
    """

    shape: tuple[int, ...]
    rows: Callable[[Where], np.ndarray]
    """Some of the first axis: by a slice or by an array of indices."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.rows(slice(None)), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "__call__" and ufunc.signature is None and ufunc.nout == 1 and not options:
            return _each_row(ufunc, inputs)
        return getattr(ufunc, method)(*map(_whole, inputs), **options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        if function is np.take and isinstance(inputs[0], RowWise) and not options:
            return _take(*inputs)
        return function(*map(_whole, inputs), **options)

    def __getitem__(self, place: Any) -> np.ndarray:
        return np.asarray(self)[place]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def reshape(self, *shape: Any) -> Any:
        """The array in another shape; row-wise when the first axis stays."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if sizes[0] != self.shape[0] or -1 in sizes:
            return np.asarray(self).reshape(sizes)
        return RowWise(sizes, lambda where: self.rows(where).reshape(-1, *sizes[1:]))


def some_rows(array: Any, where: Where) -> np.ndarray:
    """Rows of an array, whichever kind it is."""
    return array.rows(where) if isinstance(array, RowWise) else array[where]


class Sources:
    """Weights by name as a load program reads them: the large ones row-wise."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = weights
        # Arrays that lie in a file's pages, see :func:`release`.
        self._files: dict[int, mmap.mmap] = {}

    def __getitem__(self, name: str) -> Any:
        array = self._weights[name]
        file = mapped_file(array)
        if file is not None:
            self._files[id(file)] = file
        if array.ndim < 2 or array.nbytes < LARGE:
            return array
        weights = self._weights
        return RowWise(array.shape, lambda where: weights[name][where])

    def release(self) -> None:
        """Give back the pages of weight files that have been read; they can be read again."""
        release(self._files.values())


def mapped_file(array: np.ndarray) -> mmap.mmap | None:
    """The memory-mapped file that an array lies in."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


def release(files: Iterable[mmap.mmap]) -> None:
    """Drop the resident pages of read-only maps, where the system can."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for file in files:
            file.madvise(mmap.MADV_DONTNEED)


# ---------------------------------------------------------------- helpers


def _whole(value: Any) -> Any:
    if isinstance(value, RowWise):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_whole, value))
    return value


def _each_row(ufunc: Any, operands: tuple[Any, ...]) -> Any:
    """An element-wise function row by row; broadcasting along the first axis makes it whole."""
    shapes = [np.shape(x) for x in operands]
    shape = np.broadcast_shapes(*shapes)
    split = [len(own) == len(shape) and own[0] == shape[0] for own in shapes]
    if not all(s for s, x in zip(split, operands, strict=True) if isinstance(x, RowWise)):
        return ufunc(*map(_whole, operands))

    def rows(where: Where) -> np.ndarray:
        pairs = zip(split, operands, strict=True)
        return ufunc(*(some_rows(x, where) if s else x for s, x in pairs))

    return RowWise(shape, rows)


def _take(array: RowWise, places: Any, axis: int) -> Any:
    axis %= len(array.shape)
    if np.ndim(places) != 1:
        return np.take(np.asarray(array), places, axis)
    shape = (*array.shape[:axis], len(places), *array.shape[axis + 1 :])
    if axis == 0:
        return RowWise(shape, lambda where: array.rows(places[where]))
    return RowWise(shape, lambda where: np.take(array.rows(where), places, axis))
