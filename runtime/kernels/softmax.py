"""Softmax and log-softmax of flat tensors along any axis, without overflow.

Along the last axis a task does whole rows: largest element, sum of exponentials (lanes in a fixed
order, in float64), result. Along another axis lanes are neighbouring elements. The exponentials
are written to the result and scaled there, so that each is computed once. A row whose largest
element is not finite becomes NaN, as in the reference; single elements may well be -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

WORDS = ("pieces", "per_task", "x", "y", "size", "inner", "chunks", "beta")
"""``size`` elements along the axis, ``inner`` elements in a row-major step of it; pieces are rows
along the last axis (``inner`` 1), else chunks of 64 neighbours; ``beta`` is float64."""

LANES = 64
MOST_VECTORS = 4
LOWEST = 'float("-inf")'
SIZES = {"f32": 4, "f64": 8}


def words(shape: Sequence[int], axis: int, x: object, y: object, beta: float = 1.0) -> list[object]:
    """The row of a softmax along ``axis``."""
    inner = prod(shape[axis + 1 :])
    chunks = 1 if inner == 1 else -(-inner // LANES)
    pieces, per_task = division(shape, axis)
    return [pieces, per_task, x, y, shape[axis], inner, chunks, beta]


def division(shape: Sequence[int], axis: int) -> tuple[int, int]:
    """``(pieces, pieces a task does)``; a task has about 8,192 elements."""
    inner = prod(shape[axis + 1 :])
    chunks = 1 if inner == 1 else -(-inner // LANES)
    pieces = prod(shape[:axis]) * chunks
    return pieces, max(1, 8_192 // (shape[axis] * min(inner, LANES)))


def tasks(shape: Sequence[int], axis: int) -> int:
    """How many tasks a softmax has."""
    pieces, per_task = division(shape, axis)
    return -(-pieces // per_task)


def short(shape: Sequence[int], axis: int, dtype: str, width: int) -> int:
    """Vectors of a row along the last axis that fits in registers; 0 for one that does not."""
    lanes = width if dtype == "f32" else width // 2
    count = -(-shape[axis] // lanes)
    return count if prod(shape[axis + 1 :]) == 1 and count <= MOST_VECTORS else 0


@dataclass(frozen=True)
class SoftmaxKernel:
    """``kind`` is ``softmax`` or ``log_softmax``; ``last`` tells the last axis from the others.

    Rows of a few ``vectors`` stay in registers from the first load to the last store.
    """

    kind: str
    dtype: str
    last: bool
    width: int
    vectors: int = 0

    @property
    def name(self) -> str:
        """A readable file name."""
        short = f"_v{self.vectors}" if self.vectors else ""
        return f"{self.kind}_{self.dtype}_{'last' if self.last else 'axis'}_w{self.width}{short}"

    def source(self) -> str:
        """The kernel's Python source."""
        read = [f"    {name} = load_i64(row + {8 * i})" for i, name in enumerate(WORDS)]
        read[-1] = f"    beta = load_f64(row + {8 * WORDS.index('beta')})"
        lines = [
            f'"""{self.kind} of {self.dtype}, {"the last" if self.last else "an inner"} axis."""',
            *self._imports(),
            "",
            "",
            "def kernel(row, task, slot):",
            *read,
            f"    none = {self._spread(LOWEST)}",
            f"    zero = {self._spread('0.0')}",
            "    first = task * per_task",
            "    for piece in range(first, min(first + per_task, pieces)):",
            *(self._short_row() if self.vectors else self._row() if self.last else self._columns()),
        ]
        return "\n".join(lines) + "\n"

    def _spread(self, scalar: str) -> str:
        return f"spread(float32({scalar}))" if self.dtype == "f32" else f"spread({scalar})"

    def _imports(self) -> list[str]:
        n = self._lanes
        mark = "" if self.dtype == "f32" else "d"
        return [
            "from numba import float32",
            "from tilth.runtime.kernels import folds, vector_math as e",
            "from tilth.runtime.kernels.masks import (",
            f"    lanes_below, load_first{n}{mark} as load_first, pick, store_first,",
            ")",
            "from tilth.runtime.simd import (",
            f"    load_f64, load_i64, narrow, widen, spread{n}{mark} as spread,",
            f"    load{n}{mark} as load_vector, spread{n}d as spread_wide, store,",
            ")",
        ]

    @property
    def _lanes(self) -> int:
        return self.width if self.dtype == "f32" else self.width // 2

    def _total(self, value: str) -> str:
        return f"total + widen({value})" if self.dtype == "f32" else f"total + {value}"

    def _rest(self) -> tuple[str, str]:
        """What is subtracted or multiplied at the end, and how it is applied to ``value``."""
        narrow = "narrow({0})" if self.dtype == "f32" else "{0}"
        if self.kind == "softmax":
            return narrow.format("1.0 / total"), "value * rest"
        return narrow.format("e.log(total)"), "value - rest"

    def _kept(self) -> str:
        """What the second pass leaves in ``y``: exponentials, or differences from the largest."""
        return "power" if self.kind == "softmax" else "moved"

    def _row(self) -> list[str]:
        size = SIZES[self.dtype]
        rest, applied = self._rest()
        return [
            f"        start = x + piece * size * {size}",
            f"        to = y + piece * size * {size}",
            "        top = none",
            *self._along("at = start", [
                "value = pick(few, load_first(at, left) * beta, none)",
                "top = folds.maximum(value, top)",
            ]),
            "        top = folds.maximum_across(top)",
            "        total = spread_wide(0.0)",
            *self._along("at = start", [
                "moved = load_first(at, left) * beta - top",
                "power = e.exp(moved)",
                f"store_first(to + (at - start), {self._kept()}, left)",
                f"total = {self._total('pick(few, power, zero)')}",
            ]),
            "        total = folds.sum_across(total)",
            f"        rest = {rest}",
            *self._along("at = to", [
                "value = load_first(at, left)",
                f"store_first(at, {applied}, left)",
            ]),
        ]  # fmt: skip

    def _short_row(self) -> list[str]:
        n, size, count = self._lanes, SIZES[self.dtype], self.vectors
        rest, applied = self._rest()
        edge, full = count - 1, range(count - 1)
        moved = [f"m{v} = x{v} - top" for v in range(count)]
        return [
            f"        start = x + piece * size * {size}",
            f"        to = y + piece * size * {size}",
            f"        left = size - {edge * n}",
            "        few = lanes_below(none, left)",
            *(f"        x{v} = load_vector(start + {v * n * size}) * beta" for v in full),
            f"        x{edge} = load_first(start + {edge * n * size}, left) * beta",
            f"        x{edge} = pick(few, x{edge}, none)",
            f"        top = {self._folded('folds.maximum')}",
            "        top = folds.maximum_across(top)",
            *(f"        {line}" for line in moved),
            *(f"        p{v} = e.exp(m{v})" for v in range(count)),
            f"        total = {'widen(p0)' if self.dtype == 'f32' else 'p0'}",
            *(
                f"        total = {self._total(f'p{v}')}"
                for v in range(1, count)
            ),
            "        total = folds.sum_across(total)",
            f"        rest = {rest}",
            *(
                f"        store(to + {v * n * size}, {self._done(v, applied)})"
                for v in full
            ),
            f"        store_first(to + {edge * n * size}, {self._done(edge, applied)}, left)",
        ]  # fmt: skip

    def _folded(self, function: str) -> str:
        """All of a short row's vectors folded into one."""
        made = "x0"
        for v in range(1, self.vectors):
            made = f"{function}(x{v}, {made})"
        return made

    def _done(self, v: int, applied: str) -> str:
        return applied.replace("value", f"{'p' if self.kind == 'softmax' else 'm'}{v}")

    def _along(self, begin: str, body: list[str]) -> list[str]:
        n, size = self._lanes, SIZES[self.dtype]
        return [
            f"        {begin}",
            f"        for left in range(size, 0, -{n}):",
            "            few = lanes_below(none, left)",
            *("            " + line for line in body),
            f"            at += {n * size}",
        ]

    def _columns(self) -> list[str]:
        n, size = self._lanes, SIZES[self.dtype]
        rest, applied = self._rest()
        return [
            "        outer = piece // chunks",
            f"        chunk = piece % chunks * {LANES}",
            f"        place = (outer * size * inner + chunk) * {size}",
            f"        step = inner * {size}",
            f"        for left in range(min(inner - chunk, {LANES}), 0, -{n}):",
            "            top = none",
            "            at = x + place",
            "            for _ in range(size):",
            "                top = folds.maximum(load_first(at, left) * beta, top)",
            "                at += step",
            "            total = spread_wide(0.0)",
            "            at = place",
            "            for _ in range(size):",
            "                moved = load_first(x + at, left) * beta - top",
            "                power = e.exp(moved)",
            f"                store_first(y + at, {self._kept()}, left)",
            f"                total = {self._total('power')}",
            "                at += step",
            f"            rest = {rest}",
            "            at = y + place",
            "            for _ in range(size):",
            "                value = load_first(at, left)",
            f"                store_first(at, {applied}, left)",
            "                at += step",
            f"            place += {n * size}",
        ]
