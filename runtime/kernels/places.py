"""Values at flat places within a channel: added there, put there, or taken from there."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["x", "places", "y", "lines", "count", "size", "per_task", "fault"]
"""``lines`` channels of ``count`` places each; a channel of the larger side has ``size`` elements.
A place outside is not touched: its number plus 1 is written to the int64 at ``fault``."""

SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8}


def per_task(count: int) -> int:
    """Channels of a task."""
    return max(1, 16_384 // max(count, 1))


def tasks(lines: int, count: int) -> int:
    """How many tasks there are."""
    return -(-lines // per_task(count))


@dataclass(frozen=True)
class PlacesKernel:
    """``how`` is ``add`` or ``put`` (x has ``count``, y ``size`` elements a channel), or ``take``.

    Values join in the order of their places; of those put at one place the last stays.
    """

    how: str
    dtype: str
    index: str

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{self.how}_at_places_{self.dtype}_{self.index}"

    def source(self) -> str:
        """The kernel's Python source."""
        size = SIZES[self.dtype]
        body = {
            "add": ["to = y + (line * size + at) * {s}",
                    "store(to, load(to) + load(x + number * {s}))"],
            "put": ["store(y + (line * size + at) * {s}, load(x + number * {s}))"],
            "take": ["store(y + number * {s}, load(x + (line * size + at) * {s}))"],
        }[self.how]  # fmt: skip
        return "\n".join([
            f'"""Values {self.how} at places of their channel."""',
            "from tilth.runtime.simd import (",
            f"    load_i64, load_{self.index} as load_index, load_{self.dtype} as load,",
            f"    store_i64, store_{self.dtype} as store,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    first = task * per_task",
            "    for line in range(first, min(first + per_task, lines)):",
            "        for number in range(line * count, line * count + count):",
            f"            at = load_index(places + number * {SIZES[self.index]})",
            "            if at < 0 or at >= size:",
            "                store_i64(fault, number + 1)",
            "                continue",
            *("            " + line.format(s=size) for line in body),
        ]) + "\n"  # fmt: skip
