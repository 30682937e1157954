"""Kernels along one axis of a row-major tensor: running sums and products, stable sorting.

A *line* is the elements along the axis at one place of the others; ``inner`` elements lie between
neighbours. A task does ``per_task`` lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

RUNNING_WORDS = ["x", "y", "lines", "inner", "size", "outer_step", "step", "per_task"]
"""``step`` is the byte step along a line (negative from the end); ``outer_step`` is that from one
group of ``inner`` lines to the next. x and y point at the first line's first element."""

SORT_WORDS = ["x", "values", "places", "lines", "inner", "size", "kept", "outer_step", "step",
              "per_task", "scratch", "scratch_slot"]  # fmt: skip
"""``kept`` elements of each line's order are written."""

SORTED = ("f32", "f64", "i32", "i64")
SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8}
GRAIN = 16_384


def per_task(work: int) -> int:
    """Lines of a task, given the work of one."""
    return max(1, GRAIN // max(work, 1))


def tasks(lines: int, work: int) -> int:
    """How many tasks there are."""
    return -(-lines // per_task(work))


def sort_scratch(size: int) -> int:
    """Bytes of scratch that sorting a line takes: two lists of positions."""
    return 2 * size * 8


def _lines(indent: str = "    ") -> list[str]:
    return [
        f"{indent}first = task * per_task",
        f"{indent}for line in range(first, min(first + per_task, lines)):",
    ]


def _casts(dtype: str) -> str:
    return {"f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64"}[dtype]


@dataclass(frozen=True)
class RunningKernel:
    """``cumsum`` or ``cumprod``; floats accumulate in float64."""

    op: str
    dtype: str

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{self.op}_{self.dtype}"

    def source(self) -> str:
        """The kernel's Python source."""
        size = SIZES[self.dtype]
        wide = "float64" if self.dtype[0] == "f" else "int64"
        sign, start = ("+", 0) if self.op == "cumsum" else ("*", 1)
        return "\n".join([
            f'"""{self.op} along an axis."""',
            "from numba import float32, float64, int32, int64",
            f"from tilth.runtime.simd import load_i64, load_{self.dtype} as load, "
            f"store_{self.dtype} as store",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(RUNNING_WORDS),
            *_lines(),
            f"        at = line // inner * outer_step + line % inner * {size}",
            f"        total = {wide}({start})",
            "        for _ in range(size):",
            f"            total {sign}= {wide}(load(x + at))",
            f"            store(y + at, {_casts(self.dtype)}(total))",
            "            at += step",
        ]) + "\n"  # fmt: skip


@dataclass(frozen=True)
class SortKernel:
    """A stable order of each line by merging; NaN counts as the largest, equal ones keep theirs.

    ``values`` and ``places`` tell which results are written.
    """

    dtype: str
    descending: bool
    values: bool
    places: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        how = "down" if self.descending else "up"
        return f"sort_{self.dtype}_{how}_{int(self.values)}{int(self.places)}"

    def source(self) -> str:
        """The kernel's Python source."""
        size = SIZES[self.dtype]
        # Whether the later run's element goes first: strictly ahead, NaN beyond all numbers.
        ahead = "b > a or (b != b and a == a)" if self.descending else (
            "b < a or (a != a and b == b)"
        )  # fmt: skip
        return "\n".join([
            '"""A stable order along an axis."""',
            "from numba import int32, int64",
            "from tilth.runtime.simd import load_i64, store_i32, store_i64, "
            f"load_{self.dtype} as load, store_{self.dtype} as store",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(SORT_WORDS),
            "    first_list = scratch + slot * scratch_slot",
            "    other_list = first_list + size * 8",
            *_lines(),
            f"        start = x + line // inner * outer_step + line % inner * {size}",
            "        here = first_list",
            "        there = other_list",
            "        for i in range(size):",
            "            store_i64(here + i * 8, int64(i))",
            "        run = 1",
            "        while run < size:",
            "            low = 0",
            "            while low < size:",
            "                middle = min(low + run, size)",
            "                high = min(low + 2 * run, size)",
            "                i = low",
            "                j = middle",
            "                for k in range(low, high):",
            "                    later = i >= middle",
            "                    if i < middle and j < high:",
            "                        a = load(start + load_i64(here + i * 8) * step)",
            "                        b = load(start + load_i64(here + j * 8) * step)",
            f"                        later = {ahead}",
            "                    if later:",
            "                        store_i64(there + k * 8, load_i64(here + j * 8))",
            "                        j += 1",
            "                    else:",
            "                        store_i64(there + k * 8, load_i64(here + i * 8))",
            "                        i += 1",
            "                low = high",
            "            here, there = there, here",
            "            run *= 2",
            "        place = line // inner * kept * inner + line % inner",
            "        for i in range(kept):",
            "            at = load_i64(here + i * 8)",
            *([f"            store(values + place * {size}, load(start + at * step))"]
              if self.values else []),
            *(["            store_i32(places + place * 4, int32(at))"] if self.places else []),
            "            place += inner",
        ]) + "\n"  # fmt: skip
