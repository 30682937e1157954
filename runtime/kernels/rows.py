"""Reductions of flat tensors along any axes: sum, mean, product, extremes, log-sum-exp, positions.

:func:`collapse` turns any set of axes into kept and reduced groups of axes. If the innermost group
is reduced, a run of contiguous elements is folded in vector lanes and these in a fixed order; if it
is kept, lanes are neighbouring results. Sums and products of float32 accumulate in float64.

A reduction with few results is done in ``parts``: each writes results of its own, in order, as
float64 where it sums, and a second reduction over the parts joins them. So the outcome depends on
the shape only, never on threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from . import indices
from .pointwise import row_major

WORDS = ("pieces", "per_task", "results", "parts", "part", "x", "y", "run", "x_run", "divisor")
"""The row begins so: pieces of one part, pieces a task does, results of one part, parts, elements
of the outermost reduced axis in a part, addresses, size of the innermost group, its byte step, and
(float64) what sums are divided by. Then sizes and byte strides of the outer kept axes (``n0, x_s0,
...``), then of the reduced axes from the outermost (``r0, x_r0, ...``), without the run."""

KINDS = ("sum", "prod", "max", "min", "lse", "any", "all", "argmax", "argmin")
"""``mean`` is a sum with a divisor."""

SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "bool": 1}
LANES = 64
"""Results of a piece where lanes are neighbouring results."""


@dataclass(frozen=True)
class Reduction:
    """A reduction's axes collapsed: ``(size, stride in elements)`` of each group, outermost first.

    ``run`` is the innermost group; ``inner`` says whether it is ``reduced`` or ``kept``.
    """

    kept: tuple[tuple[int, int], ...]
    reduced: tuple[tuple[int, int], ...]
    run: int
    inner: str

    @property
    def results(self) -> int:
        """Number of results."""
        return prod(size for size, _ in self.kept) * (self.run if self.inner == "kept" else 1)

    @property
    def folded(self) -> int:
        """Elements that join in each result."""
        return prod(size for size, _ in self.reduced) * (self.run if self.inner == "reduced" else 1)


def collapse(shape: Sequence[int], axes: Sequence[int]) -> Reduction:
    """Group the axes of a contiguous tensor into kept and reduced ones."""
    groups: list[list[Any]] = []
    for axis, (size, stride) in enumerate(zip(shape, row_major(shape), strict=True)):
        if size == 1:
            continue
        how = "reduced" if axis in axes else "kept"
        if groups and groups[-1][0] == how:
            groups[-1][1] *= size
            groups[-1][2] = stride
        else:
            groups.append([how, size, stride])
    if not groups:
        groups.append(["reduced", 1, 1])
    if all(how == "kept" for how, _, _ in groups):
        groups.insert(0, ["reduced", 1, 0])
    *outer, (inner, run, _) = groups
    kept, reduced = (
        tuple((size, stride) for how, size, stride in outer if how == wanted)
        for wanted in ("kept", "reduced")
    )
    return Reduction(kept, reduced, run, inner)


def parts(where: Reduction) -> int:
    """In how many parts to reduce: more than one where results are few and elements many."""
    if where.inner == "reduced" and not where.reduced:
        # A single run is cut by reshaping it, which only whole divisors allow.
        return 1
    if where.results >= 4 * LANES or where.results * where.folded < 65_536:
        return 1
    outermost = where.reduced[0][0]
    # Counted by their size, so that no part is empty.
    return -(-outermost // -(-outermost // 16))


def cut(where: Reduction) -> Reduction:
    """A reduction of one long run seen as two axes, when its length has a divisor near 16."""
    if where.inner != "reduced" or where.reduced or where.run < 65_536:
        return where
    for count in range(16, 1, -1):
        if where.run % count == 0:
            size = where.run // count
            return Reduction(where.kept, ((count, size),), size, "reduced")
    return where


def division(where: Reduction) -> tuple[int, int]:
    """``(pieces, pieces a task does)`` of one part; a task folds about 16,384 elements."""
    if where.inner == "kept":
        pieces = where.results // where.run * -(-where.run // LANES)
        work = min(where.run, LANES) * where.folded
    else:
        pieces, work = where.results, where.folded
    return pieces, max(1, 16_384 // max(work, 1))


def tasks(where: Reduction, count: int = 1) -> int:
    """How many tasks a reduction in ``count`` parts has."""
    pieces, per_task = division(where)
    return count * -(-pieces // per_task)


def words(
    where: Reduction, dtype: str, x: Any, y: Any, count: int = 1, divisor: float = 1.0
) -> list[Any]:
    """The row of a reduction in ``count`` parts; the divisor belongs to the last reduction."""
    size = SIZES[dtype]
    pieces, per_task = division(where)
    outermost = where.reduced[0][0] if where.reduced else 1
    row = [pieces, per_task, where.results, count, -(-outermost // count), x, y, where.run, size]
    row.append(divisor)
    for length, stride in (*where.kept, *where.reduced):
        row += [length, stride * size]
    return row


@dataclass(frozen=True)
class ReduceKernel:
    """One reduction: element types, kind, which group is innermost, outer kept and reduced axes.

    ``target`` differs from ``source`` where partial sums stay float64, and for positions (i32).
    """

    kind: str
    source_dtype: str
    target: str
    inner: str
    kept: int
    reduced: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        axes = f"{self.inner}_{self.kept}_{self.reduced}"
        return f"reduce_{self.kind}_{self.source_dtype}_{self.target}_{axes}_w{self.width}"

    @property
    def lanes(self) -> int:
        """Lanes of the vectors that are folded."""
        return self.width if self.source_dtype == "f32" else self.width // 2

    @property
    def is_vector(self) -> bool:
        """Whether the kernel folds vectors."""
        return self.source_dtype in ("f32", "f64")

    def source(self) -> str:
        """The kernel's Python source."""
        names = [*WORDS, *(f"{a}{d}" for d in range(self.kept) for a in ("n", "x_s")),
                 *(f"{a}{d}" for d in range(self.reduced) for a in ("r", "x_r"))]  # fmt: skip
        read = [f"    {name} = load_i64(row + {8 * i})" for i, name in enumerate(names)]
        read[names.index("divisor")] = f"    divisor = load_f64(row + {8 * names.index('divisor')})"
        chunked = self.inner == "kept"
        lines = [
            f'"""Reduction: {self.kind} of {self.source_dtype}, innermost group {self.inner}."""',
            *_imports(self),
            "",
            "",
            "def kernel(row, task, slot):",
            *read,
            "    in_part = (pieces + per_task - 1) // per_task",
            "    number = task // in_part",
            "    first = (task - number * in_part) * per_task",
            "    last = min(first + per_task, pieces)",
            f"    chunks = (run + {LANES - 1}) // {LANES}" if chunked else "    chunks = 1",
            "    chunk = first % chunks",
            "    index = first // chunks",
            f"    y += number * results * {SIZES[self.target]}",
            *([] if chunked else [f"    y += index * {SIZES[self.target]}"]),
            *self._first_place(),
            *indices.split(self.kept),
            "    for _ in range(first, last):",
            f"        start = x{indices.offset('x', self.kept)}",
            *(_kept_inside(self) if chunked else _reduced_inside(self)),
            "        chunk += 1",
            "        if chunk == chunks:",
            "            chunk = 0",
            *indices.advance(self.kept, 12),
        ]
        return "\n".join(lines) + "\n"

    def _first_place(self) -> list[str]:
        """``flat`` counts result rows when the innermost group is kept."""
        return ["    flat = index"] if self.inner == "kept" else []


def _imports(kernel: ReduceKernel) -> list[str]:
    if not kernel.is_vector:
        return [
            "from numba import int32, int64, uint8",
            "from tilth.runtime.simd import (",
            "    load_f64, load_i32, load_i64, load_u8, store_i32, store_i64, store_u8,",
            ")",
        ]
    n = kernel.lanes
    mark = "" if kernel.source_dtype == "f32" else "d"
    return [
        "from numba import float32, float64, int32",
        "from tilth.runtime.kernels import folds, vector_math as e",
        "from tilth.runtime.kernels.masks import (",
        "    first_lane, lane_numbers, lanes_below, pick, store_first, store_whole,",
        f"    load_first{n}{mark} as load_few,",
        ")",
        "from tilth.runtime.simd import (",
        "    load_f64, load_i64, narrow, store, store_f32, store_f64, store_i32, widen,",
        f"    load{n}{mark} as load, spread{n}d as spread_wide,",
        *([f"    spread{n} as spread,"] if mark == "" else ["    spread" + f"{n}d as spread,"]),
        ")",
    ]


# ---------------------------------------------------------------- what is folded


@dataclass(frozen=True)
class Fold:
    """How vectors join: the start, the step, the name of the fold across lanes."""

    start: str
    step: str
    across: str
    wide: bool


FOLDS = {
    "sum": Fold("0.0", "{a} + {x}", "folds.sum_across", True),
    "prod": Fold("1.0", "{a} * {x}", "folds.product_across", True),
    "max": Fold('float("-inf")', "folds.maximum({x}, {a})", "folds.maximum_across", False),
    "min": Fold('float("inf")', "folds.minimum({x}, {a})", "folds.minimum_across", False),
}


def _start(kernel: ReduceKernel, fold: Fold) -> str:
    if fold.wide:
        return f"spread_wide({fold.start})"
    scalar = f"float32({fold.start})" if kernel.source_dtype == "f32" else fold.start
    return f"spread({scalar})"


def _identity(kernel: ReduceKernel, fold: Fold) -> str:
    """What partial vectors are filled up with."""
    scalar = f"float32({fold.start})" if kernel.source_dtype == "f32" else fold.start
    return f"spread({scalar})"


def _wide(kernel: ReduceKernel, fold: Fold, value: str) -> str:
    return f"widen({value})" if fold.wide and kernel.source_dtype == "f32" else value


def _nest(kernel: ReduceKernel, body: list[str], pad: str) -> list[str]:
    """Loops over the reduced axes; ``at`` is the address inside, the outermost is cut in parts."""
    if kernel.reduced == 0:
        return [f"{pad}at = start", *(pad + line for line in body)]
    rows = [f"{pad}for j0 in range(number * part, min((number + 1) * part, r0)):"]
    for d in range(1, kernel.reduced):
        pad += "    "
        rows.append(f"{pad}for j{d} in range(r{d}):")
    pad += "    "
    steps = "".join(f" + j{d} * x_r{d}" for d in range(kernel.reduced))
    return [*rows, f"{pad}at = start{steps}", *(pad + line for line in body)]


# ---------------------------------------------------------------- the innermost group is reduced


def _reduced_inside(kernel: ReduceKernel) -> list[str]:
    pad = "        "
    size = SIZES[kernel.target]
    if not kernel.is_vector:
        return [*_scalar_fold(kernel, pad, over_run=True), f"{pad}y += {size}"]
    if kernel.kind in ("argmax", "argmin"):
        rows = _position_run(kernel)
        return [*(pad + line for line in rows), f"{pad}y += 4"]
    if kernel.kind == "lse":
        rows = _run_fold(kernel, FOLDS["max"], "top", "{x}")
        rows.append("peak = folds.finite_or_zero(folds.maximum_across(top))")
        rows += _run_fold(kernel, FOLDS["sum"], "total", "e.exp({x} - peak)")
        rows.append("value = first_lane(e.log(folds.sum_across(total)))")
        rows.append("value += float64(first_lane(peak))")
    else:
        fold = FOLDS[kernel.kind]
        rows = _run_fold(kernel, fold, "total", "{x}")
        rows.append(f"value = first_lane({fold.across}(total))")
        if kernel.kind == "sum":
            rows.append("value /= divisor")
    cast = "float32" if kernel.target == "f32" else "float64"
    rows.append(f"store_{kernel.target}(y, {cast}(value))")
    return [*(pad + line for line in rows), f"{pad}y += {size}"]


def _run_fold(kernel: ReduceKernel, fold: Fold, name: str, change: str) -> list[str]:
    """Fold runs into the vector ``name``, two accumulators at a time; the rest is filled up."""
    n, size = kernel.lanes, SIZES[kernel.source_dtype]
    other = f"{name}_b"
    filler = fold if change == "{x}" else FOLDS["max"]

    def joined(target: str, value: str) -> str:
        return f"{target} = {fold.step.format(a=target, x=_wide(kernel, fold, value))}"

    value = change.format(x="load(at)")
    second = change.format(x=f"load(at + {n * size})")
    filled = f"pick(few, load_few(at, left), {_identity(kernel, filler)})"
    rest = change.format(x=filled)
    body = [
        f"for _ in range(run // {2 * n}):",
        f"    {joined(name, value)}",
        f"    {joined(other, second)}",
        f"    at += {2 * n * size}",
        f"left = run % {2 * n}",
        "while left > 0:",
        f"    few = lanes_below({_identity(kernel, fold)}, left)",
        f"    {joined(name, rest)}",
        f"    at += {n * size}",
        f"    left -= {n}",
    ]
    return [
        f"{name} = {_start(kernel, fold)}",
        f"{other} = {name}",
        *_nest(kernel, body, ""),
        f"{name} = {fold.step.format(a=name, x=other)}",
    ]


def _position_run(kernel: ReduceKernel) -> list[str]:
    n, size = kernel.lanes, SIZES[kernel.source_dtype]
    sign = "" if kernel.kind == "argmax" else "-"
    lowest = _identity(kernel, FOLDS["max"])
    body = [
        "place = lane_numbers(spread_wide(0.0))",
        "left = run",
        "while left > 0:",
        f"    value = pick(lanes_below(best, left), {sign}load_few(at, left), {lowest})",
        "    ahead = folds.leads(value, place, best, found)",
        "    best = pick(ahead, value, best)",
        "    found = pick(ahead, place, found)",
        f"    place = place + {n}.0",
        f"    at += {n * size}",
        f"    left -= {n}",
    ]
    return [
        f"best = {lowest}",
        "found = lane_numbers(spread_wide(0.0))",
        *_nest(kernel, body, ""),
        "store_i32(y, int32(first_lane(folds.leader(best, found))))",
    ]


# ---------------------------------------------------------------- the innermost group is kept


def _kept_inside(kernel: ReduceKernel) -> list[str]:
    pad = "        "
    size = SIZES[kernel.target]
    rows = [
        f"{pad}left = min(run - chunk * {LANES}, {LANES})",
        f"{pad}start += chunk * {LANES} * x_run",
        f"{pad}to = y + (flat * run + chunk * {LANES}) * {size}",
    ]
    if not kernel.is_vector:
        rows += [
            f"{pad}for _ in range(left):",
            *_scalar_fold(kernel, pad + "    ", over_run=False, target="to"),
            f"{pad}    start += x_run",
            f"{pad}    to += {size}",
        ]
    else:
        n = kernel.lanes
        rows.append(f"{pad}while left > 0:")
        inside = pad + "    "
        four = 4 * n <= LANES and kernel.kind not in ("argmax", "argmin")
        if four:
            rows.append(f"{inside}if left >= {4 * n}:")
            rows += _lanes_fold(kernel, inside + "    ", 4)
            rows.append(f"{inside}else:")
        rows += _lanes_fold(kernel, inside + ("    " if four else ""), 1)
    rows += [f"{pad}if chunk == chunks - 1:", f"{pad}    flat += 1"]
    return rows


def _lanes_fold(kernel: ReduceKernel, pad: str, vectors: int) -> list[str]:
    """Several whole vectors of neighbouring results, or one that may be partial."""
    n, size = kernel.lanes, SIZES[kernel.source_dtype]
    if kernel.kind in ("argmax", "argmin"):
        rows = _position_lanes(kernel)
    elif kernel.kind == "lse":
        rows = _lanes_pass(kernel, FOLDS["max"], "top", "{x}", vectors)
        rows += [f"top{v} = folds.finite_or_zero(top{v})" for v in range(vectors)]
        rows += _lanes_pass(kernel, FOLDS["sum"], "t", "e.exp({x} - top{v})", vectors)
        wide = "widen(top{v})" if kernel.source_dtype == "f32" else "top{v}"
        rows += [f"t{v} = e.log(t{v}) + {wide.format(v=v)}" for v in range(vectors)]
    else:
        rows = _lanes_pass(kernel, FOLDS[kernel.kind], "t", "{x}", vectors)
        if kernel.kind == "sum":
            rows += [f"t{v} = t{v} / spread_wide(divisor)" for v in range(vectors)]
    if kernel.kind not in ("argmax", "argmin"):
        wide = kernel.kind == "lse" or FOLDS[kernel.kind].wide
        narrow = "narrow(t{v})" if wide and kernel.target == "f32" else "t{v}"
        for v in range(vectors):
            value, to = narrow.format(v=v), f"to + {v * n * SIZES[kernel.target]}"
            rows.append(f"store({to}, {value})" if vectors > 1
                        else f"store_first({to}, {value}, left)")  # fmt: skip
    rows += [
        f"start += {vectors * n * size}",
        f"to += {vectors * n * SIZES[kernel.target]}",
        f"left -= {vectors * n}",
    ]
    return [pad + line for line in rows]


def _lanes_pass(
    kernel: ReduceKernel, fold: Fold, name: str, change: str, vectors: int
) -> list[str]:
    n, size = kernel.lanes, SIZES[kernel.source_dtype]
    rows = [f"{name}{v} = {_start(kernel, fold)}" for v in range(vectors)]
    body = []
    for v in range(vectors):
        source = f"load(at + {v * n * size})" if vectors > 1 else "load_few(at, left)"
        value = _wide(kernel, fold, change.format(x=source, v=v))
        body.append(f"{name}{v} = {fold.step.format(a=f'{name}{v}', x=value)}")
    return rows + _nest(kernel, body, "")


def _position_lanes(kernel: ReduceKernel) -> list[str]:
    sign = "" if kernel.kind == "argmax" else "-"
    body = [
        f"value = {sign}load_few(at, left)",
        "place = spread_wide(j0 * 1.0)",
        "ahead = folds.leads(value, place, best, found)",
        "best = pick(ahead, value, best)",
        "found = pick(ahead, place, found)",
    ]
    return [
        f"best = {_identity(kernel, FOLDS['max'])}",
        "found = spread_wide(0.0)",
        *_nest(kernel, body, ""),
        "store_whole(to, found, left)",
    ]


# ---------------------------------------------------------------- one element at a time

_SCALAR = {
    "sum": ("0", "total += value"),
    "prod": ("1", "total *= value"),
    "max": (None, "total = max(total, value)"),
    "min": (None, "total = min(total, value)"),
    "any": ("0", "total |= value"),
    "all": ("1", "total &= value"),
}


def _scalar_fold(kernel: ReduceKernel, pad: str, over_run: bool, target: str = "y") -> list[str]:
    """Fold whole numbers or truth values in int64, which wraps as the element type does."""
    source, result = kernel.source_dtype, kernel.target
    read = "int64(load_u8(at) != 0)" if source == "bool" else f"int64(load_{source}(at))"
    if kernel.kind in ("argmax", "argmin"):
        sign = ">" if kernel.kind == "argmax" else "<"
        place = "step" if over_run else "j0"
        fold = [f"value = {read}", f"if value {sign} total:", "    total = value",
                f"    found = {place}"]  # fmt: skip
        start, value = ["at = start", f"total = {read}", "found = int64(0)"], "found"
    else:
        first, step = _SCALAR[kernel.kind]
        fold = [f"value = {read}", step]
        start = ["at = start", f"total = {read}" if first is None else f"total = int64({first})"]
        value = "total"
    if over_run:
        fold = ["for step in range(run):", *("    " + line for line in fold), "    at += x_run"]
    if kernel.kind in ("max", "min"):
        start[0] = _part_start(kernel)
    kind = "u8" if result == "bool" else result
    cast = {"u8": "uint8", "i32": "int32", "i64": "int64"}[kind]
    return [
        *(pad + line for line in start),
        *_nest(kernel, fold, pad),
        f"{pad}store_{kind}({target}, {cast}({value}))",
    ]


def _part_start(kernel: ReduceKernel) -> str:
    """The first element of this part, from which an extreme of whole numbers starts."""
    return "at = start + number * part * x_r0" if kernel.reduced else "at = start"
