"""Random tensors by counter: the draws of :mod:`tilth.runtime.philox`, element by element."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["key", "y", "p", "count", "size", "hash", "per_task"]
"""``key`` points at (seed, step), ``hash`` is the path's; ``count`` elements in pairs. For an index
by weights ``p`` points at rows of ``size`` weights."""

PAIRS = 4096
"""Pairs of elements that a task draws."""

SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "u64": 8, "u8": 1, "i8": 1}


def tasks(count: int) -> int:
    """How many tasks there are."""
    return max(1, -(-((count + 1) // 2) // PAIRS))


@dataclass(frozen=True)
class DrawKernel:
    """``kind`` is ``bits``, ``uniform``, ``normal``, ``order`` (bits to sort by) or ``index``.

    ``dtype`` is that of the result, or of the weights of an ``index``.
    """

    kind: str
    dtype: str

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"draw_{self.kind}_{self.dtype}"

    def source(self) -> str:
        """The kernel's Python source."""
        return "\n".join([
            f'"""Random {self.kind} by counter."""',
            "import math",
            "from numba import float32, float64, int8, int32, int64, uint8, uint64",
            "from tilth.runtime.kernels.draw_math import (",
            "    block, fraction, weighted_f32, weighted_f64,",
            ")",
            "from tilth.runtime.simd import (",
            "    load_f32, load_f64, load_i64, load_u64, store_f32, store_f64, store_i8,",
            "    store_i32, store_i64, store_u8, store_u64,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    seed = load_u64(key) ^ uint64(hash)",
            "    step = load_u64(key + 8)",
            "    first = task * per_task",
            "    for pair in range(first, min(first + per_task, (count + 1) // 2)):",
            "        a, b = block(seed, step, uint64(pair))",
            *("        " + line for line in self._body()),
        ]) + "\n"  # fmt: skip

    def _body(self) -> list[str]:
        if self.kind == "index":
            row = f"size * {SIZES[self.dtype]}"
            chosen = f"weighted_{self.dtype}(p + (pair * 2 + {{0}}) * {row}, size, {{1}})"
            values = [chosen.format(i, f"fraction({x}, {self._bits})") for i, x in enumerate("ab")]
            return [
                f"store_i32(y + pair * 8, {values[0]})",
                "if pair * 2 + 1 < count:",
                f"    store_i32(y + pair * 8 + 4, {values[1]})",
            ]
        if self.kind == "normal":
            lines = [
                f"radius = math.sqrt(-2.0 * math.log1p(-fraction(a, {self._bits})))",
                f"angle = {2 * 3.141592653589793!r} * fraction(b, {self._bits})",
            ]
            values = ["radius * math.cos(angle)", "radius * math.sin(angle)"]
        elif self.kind == "uniform":
            lines, values = [], [f"fraction({x}, {self._bits})" for x in "ab"]
        elif self.kind == "order":
            # Signed numbers in the order of the unsigned ones.
            lines, values = [], [f"{x} ^ uint64(1 << 63)" for x in "ab"]
        else:
            shift = 64 - 8 * SIZES[self.dtype]
            lines, values = [], [f"{x} >> uint64({shift})" for x in "ab"]
        cast = {"f32": "float32", "f64": "float64", "i8": "int8", "i32": "int32", "i64": "int64",
                "u8": "uint8", "u64": "uint64"}[self.dtype]  # fmt: skip
        size = SIZES[self.dtype]
        return [
            *lines,
            f"store_{self.dtype}(y + pair * {2 * size}, {cast}({values[0]}))",
            "if pair * 2 + 1 < count:",
            f"    store_{self.dtype}(y + pair * {2 * size} + {size}, {cast}({values[1]}))",
        ]

    @property
    def _bits(self) -> int:
        return 24 if self.dtype == "f32" else 53
