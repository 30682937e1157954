"""A symmetric filter along one axis, ended by zeros: each task does a strip of lines in scratch.

Lines are copied between zeros, so that the filter itself is one loop over vectors without edges.
Along the last axis of points a strip is one line of ``size * channels`` elements; along another it
is ``size`` rows of a few vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["x", "y", "weights", "reach", "rows", "length", "strip", "strips", "row_step",
         "outer_step", "tap", "scratch", "scratch_slot"]  # fmt: skip
"""Task ``outer * strips + s`` does elements ``s * strip ..`` of ``rows`` rows of ``length``, which
lie ``row_step`` bytes apart; neighbours along the axis are ``tap`` elements apart in scratch (0: as
many as the strip has)."""

SIZES = {"f32": 4, "f64": 8}
AT_ONCE = 4
STRIP = 512
"""Bytes of a row in a strip."""


def scratch(rows: int, strip: int, reach: int, tap: int, size: int) -> int:
    """Bytes of scratch that a task takes, for elements of ``size`` bytes."""
    return (rows * strip + 2 * reach * tap) * size + 256


@dataclass(frozen=True)
class AxisKernel:
    """The filter on elements of ``dtype``."""

    dtype: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"gauss_axis_{self.dtype}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        size = SIZES[self.dtype]
        lanes = self.width if self.dtype == "f32" else self.width // 2
        mark = f"{lanes}{'' if self.dtype == 'f32' else 'd'}"
        cast = "float32" if self.dtype == "f32" else "float64"
        wide = lanes * size
        return "\n".join([
            '"""A symmetric filter along an axis."""',
            "from numba import float32, float64",
            "from tilth.runtime.kernels.masks import (",
            f"    load_first{mark} as load_first, store_first,",
            ")",
            "from tilth.runtime.simd import (",
            f"    fma, load_i64, load{mark} as load_vector, load_{self.dtype} as load, store,",
            f"    spread{mark} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    outer, piece = task // strips, task % strips",
            "    few = min(strip, length - piece * strip)",
            f"    start = outer * outer_step + piece * strip * {size}",
            f"    distance = (tap if tap else few) * {size}",
            "    own = scratch + slot * scratch_slot",
            "    inside = own + reach * distance",
            f"    line = few * {size}",
            f"    for at in range(own, inside, {wide}):",
            f"        store(at, spread({cast}(0.0)))",
            "    for r in range(rows):",
            "        source, to = x + start + r * row_step, inside + r * line",
            f"        for i in range(0, few, {lanes}):",
            f"            store(to + i * {size}, load_first(source + i * {size}, few - i))",
            "    end = inside + rows * line",
            f"    for at in range(end, end + reach * distance + {wide}, {wide}):",
            f"        store(at, spread({cast}(0.0)))",
            "    for r in range(rows):",
            "        source, to = inside + r * line, y + start + r * row_step",
            f"        whole = few - few % {AT_ONCE * lanes}",
            f"        for i in range(0, whole, {AT_ONCE * lanes}):",
            f"            at = source + i * {size}",
            *("            " + text for text in self._block(AT_ONCE, wide, size)),
            *(
                f"            store(to + i * {size} + {v * wide}, a{v})"
                for v in range(AT_ONCE)
            ),
            f"        for i in range(whole, few, {lanes}):",
            f"            at = source + i * {size}",
            *("            " + text for text in self._block(1, wide, size)),
            f"            store_first(to + i * {size}, a0, few - i)",
        ]) + "\n"  # fmt: skip

    def _block(self, count: int, wide: int, size: int) -> list[str]:
        """Sums of some vectors over all taps."""
        return [
            "w = spread(load(weights))",
            *(f"a{v} = load_vector(at + {v * wide}) * w" for v in range(count)),
            "for k in range(1, reach + 1):",
            f"    w = spread(load(weights + k * {size}))",
            "    low, high = at - k * distance, at + k * distance",
            *(
                f"    a{v} = fma(load_vector(low + {v * wide}) + load_vector(high + {v * wide}), "
                f"w, a{v})"
                for v in range(count)
            ),
        ]
