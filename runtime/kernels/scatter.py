"""Rows added to rows chosen by index, in the order of the indices.

Tasks share out the elements of a row, so that two of them never write to one place and sums have
one order.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["y", "index", "updates", "count", "size", "inner", "share", "fault"]
"""y [size, inner], index [count], updates [count, inner], ``share`` elements a task. An index
outside ``0 .. size`` adds nothing: its place plus 1 is written to the int64 at ``fault``."""

SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8}


def share(inner: int) -> int:
    """Elements of a row that a task adds."""
    return max(64, -(-inner // 16))


def tasks(inner: int) -> int:
    """How many tasks there are."""
    return -(-inner // share(inner))


@dataclass(frozen=True)
class ScatterAddKernel:
    """Adds elements of ``dtype`` at indices of type ``index``."""

    dtype: str
    index: str

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"scatter_add_{self.dtype}_{self.index}"

    def source(self) -> str:
        """The kernel's Python source."""
        size, step = SIZES[self.dtype], SIZES[self.index]
        return "\n".join([
            '"""Rows added at indices."""',
            "from tilth.runtime.simd import (",
            f"    load_i64, load_{self.index} as load_index, load_{self.dtype} as load,",
            f"    store_i64, store_{self.dtype} as store,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    first = task * share",
            "    last = min(first + share, inner)",
            "    for place in range(count):",
            f"        at = load_index(index + place * {step})",
            "        if at < 0 or at >= size:",
            "            store_i64(fault, place + 1)",
            "            continue",
            f"        to = y + at * inner * {size}",
            f"        source = updates + place * inner * {size}",
            f"        for i in range(first * {size}, last * {size}, {size}):",
            "            store(to + i, load(to + i) + load(source + i))",
        ]) + "\n"  # fmt: skip
