"""Loop nests over strided tensors: the axes of element-wise walks, reductions and contractions.

A nest computes ``result[kept] = fold over reduced of expression(operands)``. Its axes are kept or
reduced; each operand has a stride along each, 0 where it is repeated. So a matrix product, a row
sum, a log-sum-exp contraction, a convolution as windows of its input and a strided copy are one
thing. :func:`arrange` merges axes that are one walk, and chooses

* ``lanes`` - the axis along the vector: neighbouring results, or neighbouring elements of a fold,
* ``rows`` - a kept axis whose results share loads: a register tile of ``rows`` by ``vectors``.

Kernels (:mod:`.nest_kernel`) are keyed by this structure, never by a size. A nest with few results
is done in ``parts``, each in a place of its own, which a second nest joins: the outcome depends on
sizes only, never on threads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .pointwise import SIZES, Expression

CHUNK = 1024
"""Results of a piece along the lanes, where nothing is folded."""

GRAIN = 16_384
"""Evaluations of the expression that a task is worth."""

WORDS = ("pieces", "per_task", "chunks", "chunk", "tiles", "tall", "run", "parts", "part",
         "results", "divisor")  # fmt: skip
"""The row begins so: pieces of one part and those a task does, chunks along the lanes and results
of one, row tiles and rows, elements along the lanes, parts, elements of the outermost reduced axis
in one part, bytes of one part's results, and (float64) what sums are divided by. Then sizes of
outer kept axes, of reduced axes; for each array its address and its byte strides: outer kept,
reduced (operands only), rows, lanes; then the constants."""


@dataclass(frozen=True)
class Axis:
    """A size, and each array's stride in elements, operands first and then results."""

    size: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """The axes of a nest, arranged; ``inner`` tells whether lanes are ``kept`` or ``reduced``.

    ``outer`` are kept axes, outermost first; ``tile`` is (rows, vectors) of the register tile.
    """

    outer: tuple[Axis, ...]
    rows: Axis | None
    reduced: tuple[Axis, ...]
    lanes: Axis
    inner: str
    tile: tuple[int, int]
    parts: int = 1

    @property
    def results(self) -> int:
        """Number of results."""
        count = prod(axis.size for axis in self.outer) * (self.rows.size if self.rows else 1)
        return count * (self.lanes.size if self.inner == "kept" else 1)

    @property
    def folded(self) -> int:
        """Elements that join in each result."""
        count = prod(axis.size for axis in self.reduced)
        return count * (self.lanes.size if self.inner == "reduced" else 1)


# ---------------------------------------------------------------- arranging axes


def arrange(
    sizes: Sequence[int],
    reduced: Sequence[int],
    strides: Sequence[Sequence[int]],
    operands: int,
    width: int,
    ordered: bool = False,
    tiled: bool = True,
) -> Nest:
    """The nest of a walk over ``sizes`` in which axes ``reduced`` are folded.

    ``strides`` has each operand's strides, then each result's (0 along reduced axes). ``width`` is
    lanes of a vector. ``ordered`` keeps the order of reduced axes (positions of extremes);
    ``tiled`` allows register tiles (on vectors).
    """
    kept, folded = (
        _merged(
            [
                Axis(sizes[a], tuple(s[a] for s in strides))
                for a in range(len(sizes))
                if sizes[a] != 1 and (a in reduced) == wanted
            ],
            ordered and wanted,
        )
        for wanted in (False, True)
    )
    # Positions count the folded axes row by row, which a vector along one of several would not.
    along = folded if not ordered or len(folded) == 1 else []
    lanes = _lanes_of(kept, along, operands, width)
    nothing = Axis(1, (0,) * len(strides))
    if lanes is None:
        lanes, inner = nothing, "kept"
    else:
        inner = "reduced" if any(lanes is axis for axis in folded) else "kept"
    kept = [axis for axis in kept if axis is not lanes]
    folded = [axis for axis in folded if axis is not lanes]
    tiled = tiled and not ordered
    rows = _rows_of(kept, lanes, operands) if reduced and tiled else None
    tile = _tile(lanes, rows, inner, bool(folded), width) if tiled else (1, 1)
    if tile[0] == 1:
        rows = None
    outer = tuple(axis for axis in kept if axis is not rows)
    nest = Nest(outer, rows, tuple(folded), lanes, inner, tile)
    return nest if ordered else _in_parts(nest)


def _merged(axes: list[Axis], ordered: bool) -> list[Axis]:
    """Axes after joining those that every array walks as one."""
    axes = list(axes)
    place = 0
    while place < len(axes):
        for other in range(len(axes)):
            apart = other != place + 1 if ordered else other == place
            a = axes[place]
            if apart or other >= len(axes):
                continue
            b = axes[other]
            if all(s == t * b.size for s, t in zip(a.strides, b.strides, strict=True)):
                axes[place] = Axis(a.size * b.size, b.strides)
                del axes[other]
                place = -1
                break
        place += 1
    return axes


def _lanes_of(kept: list[Axis], folded: list[Axis], operands: int, width: int) -> Axis | None:
    """The axis with the fewest operands that would be read one element at a time."""

    def cost(axis: Axis, is_kept: bool) -> tuple[float, ...]:
        reads = axis.strides[:operands]
        results = axis.strides[operands:] if is_kept else ()
        gathered = sum(s not in (0, 1) for s in reads)
        scattered = sum(s != 1 for s in results)
        idle = -(-axis.size // width) * width / max(axis.size, 1)
        return (scattered > 0, gathered + idle - 1, not is_kept, abs(max(reads, default=0)))

    options = [(cost(axis, True), axis) for axis in kept]
    options += [(cost(axis, False), axis) for axis in folded]
    return min(options, key=lambda option: option[0], default=(None, None))[1]


def _rows_of(kept: list[Axis], lanes: Axis, operands: int) -> Axis | None:
    """The kept axis along which most loads are shared."""

    def shared(axis: Axis) -> int:
        return sum(
            s == 0 and along != 0
            for s, along in zip(axis.strides[:operands], lanes.strides, strict=False)
        )

    best = max(kept, key=lambda axis: (shared(axis), axis.size), default=None)
    return best if best is not None and shared(best) else None


def _tile(lanes: Axis, rows: Axis | None, inner: str, folds: bool, width: int) -> tuple[int, int]:
    tall = rows.size if rows is not None else 1
    wide = -(-lanes.size // width) if inner == "kept" else 1
    registers = 24 if width >= 8 else 10
    if rows is None:
        return 1, 4 if inner == "kept" and wide >= 4 and folds else 1
    vectors = 1 if inner == "reduced" else 2 if wide >= 2 else 1
    fitting = [r for r in (8, 6, 4, 3, 2) if r <= tall and r * vectors <= registers // 2 + 4]
    return (fitting[0] if fitting else 1), vectors


def _in_parts(nest: Nest) -> Nest:
    """Cut the outermost reduced axis where results are few and elements many."""
    reduced, lanes = nest.reduced, nest.lanes
    if nest.results >= 256 or nest.results * nest.folded < 65_536:
        return nest
    if not reduced:
        # A single run is cut by seeing it as two axes, which only divisors allow.
        counts = [c for c in range(16, 1, -1) if lanes.size % c == 0]
        if not counts:
            return nest
        size = lanes.size // counts[0]
        reduced = (Axis(counts[0], tuple(s * size for s in lanes.strides)),)
        lanes = Axis(size, lanes.strides)
    reduced = tuple(sorted(reduced, key=lambda axis: -axis.size))
    # Counted by their size, so that no part is empty.
    count = -(-reduced[0].size // -(-reduced[0].size // 16))
    return Nest(nest.outer, nest.rows, reduced, lanes, nest.inner, nest.tile, count)


# ---------------------------------------------------------------- rows of words


def chunk_of(nest: Nest, lanes: int) -> int:
    """Results of a piece along the lanes."""
    if nest.inner == "reduced":
        return 1
    if nest.rows is not None:
        return nest.tile[1] * lanes
    return 4 * lanes if nest.reduced else CHUNK


def division(nest: Nest, lanes: int) -> tuple[int, int, int, int]:
    """``(chunks, row tiles, pieces, pieces of a task)`` of one part."""
    chunks = -(-nest.lanes.size // chunk_of(nest, lanes)) if nest.inner == "kept" else 1
    tiles = -(-nest.rows.size // nest.tile[0]) if nest.rows is not None else 1
    pieces = prod(axis.size for axis in nest.outer) * chunks * tiles
    work = nest.tile[0] * nest.folded // nest.parts
    if nest.inner == "kept":
        work *= min(nest.lanes.size, chunk_of(nest, lanes))
    return chunks, tiles, pieces, max(1, GRAIN // max(work, 1))


def tasks(nest: Nest, lanes: int) -> int:
    """How many tasks a nest has."""
    _, _, pieces, per_task = division(nest, lanes)
    return nest.parts * -(-pieces // per_task)


def words(
    nest: Nest,
    expression: Expression,
    targets: Sequence[str],
    addresses: Sequence[Any],
    values: Sequence[float],
    lanes: int,
    divisor: float = 1.0,
) -> list[Any]:
    """The row; ``targets`` are element types of results, ``addresses`` of operands and results."""
    chunks, tiles, pieces, per_task = division(nest, lanes)
    tall = nest.rows.size if nest.rows is not None else 1
    outermost = nest.reduced[0].size if nest.reduced else 1
    row: list[Any] = [pieces, per_task, chunks, chunk_of(nest, lanes), tiles, tall]
    row += [nest.lanes.size, nest.parts, -(-outermost // nest.parts)]
    row += [nest.results * SIZES[targets[0]], _bits(divisor)]
    row += [axis.size for axis in (*nest.outer, *nest.reduced)]
    kinds = [argument.dtype for argument in expression.arguments]
    nothing = Axis(1, (0,) * len(addresses))
    for place, (kind, address) in enumerate(zip([*kinds, *targets], addresses, strict=True)):
        axes = [*nest.outer, *(nest.reduced if place < len(kinds) else ())]
        axes += [nest.rows or nothing, nest.lanes]
        row += [address, *(axis.strides[place] * SIZES[kind] for axis in axes)]
    for kind, value in zip(expression.constants, values, strict=True):
        row.append(_bits(value) if kind in ("f32", "f64") else int(value))
    return row


def accesses(nest: Nest, operands: int) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """How operands are read along the lanes, and which differ from row to row."""
    known = {0: "one", 1: "full"}
    along = tuple(known.get(s, "strided") for s in nest.lanes.strides[:operands])
    if nest.rows is None:
        return along, (False,) * operands
    return along, tuple(s != 0 for s in nest.rows.strides[:operands])


def _bits(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]
