"""Generator of loop-nest kernels: an expression evaluated along the axes of a :mod:`.nest`.

On vectors, lanes are neighbouring results or neighbouring elements of a fold, and a register tile
holds several of them, so that a contraction loads each operand once for a row or column of the
tile. Nests that touch whole numbers, fold truth values or scatter their results run one element at
a time. Lanes are folded in a fixed order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from . import indices
from .nest import WORDS
from .nest_scalar import scalar_tile
from .pointwise import LOADS, SIZES, Expression, constant_code, vector_code

FOLDS = ("", "sum", "prod", "max", "min", "lse", "any", "all", "argmax", "argmin")
"""How evaluations join; the empty one joins nothing."""

WIDE = ("sum", "prod", "lse")
"""Folds that may accumulate in float64."""


@dataclass(frozen=True)
class NestKernel:
    """What a nest kernel is compiled for.

    ``access`` tells how each operand is read along the lanes (``one``, ``full``, ``strided``),
    ``by_row`` whether it differs from row to row; ``tile`` is (rows, vectors). ``wide`` sums
    float32 in float64. ``targets`` are element types of the results; ``scattered`` results lie
    apart along the lanes.
    """

    expression: Expression
    fold: str
    inner: str
    outer: int
    reduced: int
    access: tuple[str, ...]
    by_row: tuple[bool, ...]
    tile: tuple[int, int]
    targets: tuple[str, ...]
    wide: bool
    scattered: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name: fold, ops, and a hash of the structure."""
        ops = [self.fold, *(step.op for step in self.expression.steps[:4])]
        text = "_".join(op for op in ops if op) or "copy"
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return f"nest_{text}_{digest}_w{self.width}"

    @property
    def kinds(self) -> set[str]:
        """Element types of everything that the expression names."""
        e = self.expression
        return {a.dtype for a in e.arguments} | set(e.constants) | {s.dtype for s in e.steps}

    @property
    def is_vector(self) -> bool:
        """Whether the kernel computes on vectors."""
        results = {self.expression.dtype(name) for name in self.expression.outputs}
        floats = self.kinds <= {"f32", "f64", "bool"} and "bool" not in self.expression.constants
        folded = not self.fold or (results <= {"f32", "f64"} and self.fold not in ("any", "all"))
        return floats and folded and not (self.scattered and self.inner == "kept")

    @property
    def lanes(self) -> int:
        """Lanes of every vector: the machine's float32 lanes, half of them if all is float64."""
        return self.width // 2 if "f64" in self.kinds and "f32" not in self.kinds else self.width

    def source(self) -> str:
        """The kernel's Python source."""
        body = _vector_piece(self) if self.is_vector else scalar_tile(self)
        lines = [
            f'"""Loop nest: {self.fold or "no fold"}, lanes {self.inner}."""',
            *(_vector_imports(self) if self.is_vector else _SCALAR_IMPORTS),
            "",
            "",
            "def kernel(row, task, slot):",
            *_read_words(self),
            "    in_part = (pieces + per_task - 1) // per_task",
            "    number = task // in_part",
            "    first = (task - number * in_part) * per_task",
            "    last = min(first + per_task, pieces)",
            *([
                "    from_0 = number * part",
                "    to_0 = min(from_0 + part, r0)",
            ] if self.reduced else []),
            "    tile = first % tiles",
            "    piece = first // tiles % chunks",
            "    index = first // tiles // chunks",
            *indices.split(self.outer),
            "    for _ in range(first, last):",
            *("        " + line for line in [*_piece_start(self), *body]),
            "        tile += 1",
            "        if tile == tiles:",
            "            tile = 0",
            "            piece += 1",
            "            if piece == chunks:",
            "                piece = 0",
            *indices.advance(self.outer, 16),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def _read_words(kernel: NestKernel) -> list[str]:
    e = kernel.expression
    names = [*WORDS, *(f"n{d}" for d in range(kernel.outer))]
    names += [f"r{d}" for d in range(kernel.reduced)]
    for place in range(len(e.arguments)):
        names += [f"a{place}_at", *(f"a{place}_s{d}" for d in range(kernel.outer))]
        names += [f"a{place}_r{d}" for d in range(kernel.reduced)]
        names += [f"a{place}_row", f"a{place}_step"]
    for place in range(len(kernel.targets)):
        names += [f"y{place}_at", *(f"y{place}_s{d}" for d in range(kernel.outer))]
        names += [f"y{place}_row", f"y{place}_step"]
    rows = [f"    {name} = load_i64(row + {8 * i})" for i, name in enumerate(names)]
    rows[names.index("divisor")] = f"    divisor = load_f64(row + {8 * names.index('divisor')})"
    for place, dtype in enumerate(e.constants):
        at = f"row + {8 * (len(names) + place)}"
        rows.append(f"    k{place} = {constant_code(dtype, at, kernel.is_vector)}")
    return rows


def _piece_start(kernel: NestKernel) -> list[str]:
    """Addresses of a piece's first element; the last row tile reaches back to be whole."""
    rows = [f"line = min(tile * {kernel.tile[0]}, tall - {kernel.tile[0]})"]
    rows.append("start = piece * chunk")
    for place in range(len(kernel.expression.arguments)):
        name = f"a{place}"
        rows.append(f"s{place} = {name}_at{indices.offset(name, kernel.outer)}"
                    f" + line * {name}_row + start * {name}_step")  # fmt: skip
    for place in range(len(kernel.targets)):
        name = f"y{place}"
        rows.append(f"q{place} = {name}_at{indices.offset(name, kernel.outer)} + number * results"
                    f" + line * {name}_row + start * {name}_step")  # fmt: skip
    return rows


def _loops(kernel: NestKernel, body: Iterable[str]) -> list[str]:
    return indices.fold_loops(kernel.reduced, len(kernel.expression.arguments), body)


# ---------------------------------------------------------------- on vectors

_SCALAR_IMPORTS = [
    "import math",
    "from numba import float32, float64, int32, int64, uint8",
    "from tilth.runtime.kernels import scalar_math as s",
    "from tilth.runtime.simd import (",
    "    load_f32, load_f64, load_i32, load_i64, load_u64, load_u8, store_f32, store_f64,",
    "    store_i32, store_i64, store_u8,",
    ")",
]


def _vector_imports(kernel: NestKernel) -> list[str]:
    n = kernel.lanes
    singles = [
        f"from tilth.runtime.kernels.strided import load_strided{n} as strided_f32",
        f"from tilth.runtime.kernels.masks import load_first{n} as first_f32",
        f"from tilth.runtime.simd import load{n} as load_f32s, spread{n} as spread32",
    ]
    return [
        "from numba import float32, float64, int32",
        "from tilth.runtime.kernels import folds, vector_math as e, vector_ops as v",
        "from tilth.runtime.kernels.strided import (",
        f"    load_strided{n}d as strided_f64, load_strided_mask{n} as strided_bool,",
        ")",
        "from tilth.runtime.kernels.masks import (",
        "    as_number, first_lane, lane_numbers, lanes_below, pick, store_first, store_mask,",
        f"    store_whole, load_mask{n} as load_bool, load_first_mask{n} as first_bool,",
        f"    load_first{n}d as first_f64,",
        ")",
        "from tilth.runtime.simd import (",
        "    fma, load_f32, load_f64, load_i64, load_u8, narrow, store, store_f32, store_f64,",
        "    store_i32, vabs, vceil, vfloor, vmax, vmin, vround, vsqrt, widen,",
        f"    load{n}d as load_f64s, spread{n}d as spread64,",
        ")",
        *(singles if n >= 4 else []),
    ]


def _vector_piece(kernel: NestKernel) -> list[str]:
    rows, vectors = kernel.tile
    if kernel.inner == "reduced":
        return _reduced_lanes(kernel)
    n = kernel.lanes
    lines = ["left = min(run - start, chunk)", "while left > 0:"]
    if vectors > 1:
        lines.append(f"    if left >= {vectors * n}:")
        lines += ["        " + line for line in _kept_tile(kernel, rows, vectors, True)]
        lines.append("        continue")
    lines.append(f"    if left >= {n}:")
    lines += ["        " + line for line in _kept_tile(kernel, rows, 1, True)]
    lines.append("    else:")
    lines += ["        " + line for line in _kept_tile(kernel, rows, 1, False)]
    return lines


@dataclass(frozen=True)
class _Cells:
    """A register tile: the expression's values by row and vector, each computed where it differs.

    ``whole`` reads whole vectors; otherwise ``left`` lanes exist.
    """

    kernel: NestKernel
    rows: int
    vectors: int
    whole: bool

    def varies(self, name: str) -> tuple[bool, bool]:
        """Whether a value differs by row and by vector."""
        kernel = self.kernel
        if name[0] == "k":
            return False, False
        place = int(name[1:])
        if name[0] == "a":
            return kernel.by_row[place], kernel.access[place] != "one"
        operands = [self.varies(o) for o in kernel.expression.steps[place].operands]
        return any(r for r, _ in operands), any(v for _, v in operands)

    def name(self, name: str, row: int, vector: int) -> str:
        """The variable of a value in one cell."""
        if name[0] == "k":
            return name
        by_row, by_vector = self.varies(name)
        return f"{name}_{row if by_row else 0}_{vector if by_vector else 0}"

    def evaluate(self) -> list[str]:
        """Loads and steps, each once for every cell in which it differs."""
        lines = []
        for place, argument in enumerate(self.kernel.expression.arguments):
            for row, vector in self._own(f"a{place}"):
                code = self._load(place, argument.dtype, row, vector)
                lines.append(f"{self.name(f'a{place}', row, vector)} = {code}")
        for place, step in enumerate(self.kernel.expression.steps):
            for row, vector in self._own(f"t{place}"):
                operands = [self.name(o, row, vector) for o in step.operands]
                code = vector_code(self.kernel.expression, step, operands)
                lines.append(f"{self.name(f't{place}', row, vector)} = {code}")
        return lines

    def _own(self, name: str) -> list[tuple[int, int]]:
        by_row, by_vector = self.varies(name)
        return [
            (row, vector)
            for row in range(self.rows if by_row else 1)
            for vector in range(self.vectors if by_vector else 1)
        ]

    def _load(self, place: int, dtype: str, row: int, vector: int) -> str:
        n, access = self.kernel.lanes, self.kernel.access[place]
        at = f"p{place}" + (f" + {row} * a{place}_row" if self.kernel.by_row[place] and row else "")
        if access == "one":
            return _spread_one(dtype, at)
        if access == "strided":
            at += f" + {vector * n} * a{place}_step" if vector else ""
            few = str(n) if self.whole else "left"
            return f"strided_{dtype}({at}, a{place}_step, {few})"
        at += f" + {vector * n * SIZES[dtype]}" if vector else ""
        return f"{LOADS[dtype]}({at})" if self.whole else f"first_{dtype}({at}, left)"

    def cells(self) -> list[tuple[int, int]]:
        """All (row, vector)."""
        return [(row, vector) for row in range(self.rows) for vector in range(self.vectors)]


def _spread_one(dtype: str, at: str) -> str:
    if dtype == "bool":
        return f"spread64(load_u8({at}) * 1.0) > 0.0"
    return f"spread32(load_f32({at}))" if dtype == "f32" else f"spread64(load_f64({at}))"


# ---------------------------------------------------------------- how vectors join

_STARTS = {"sum": "0.0", "prod": "1.0", "max": 'float("-inf")', "min": 'float("inf")'}
_JOINS = {
    "sum": "{a} + {x}",
    "prod": "{a} * {x}",
    "max": "folds.maximum({x}, {a})",
    "min": "folds.minimum({x}, {a})",
}
_ACROSS = {"sum": "sum", "prod": "product", "max": "maximum", "min": "minimum"}


@dataclass(frozen=True)
class _Fold:
    """Accumulators ``{name}_{row}_{vector}`` of one way to join, in one element type."""

    kernel: NestKernel
    kind: str
    name: str

    @property
    def source(self) -> str:
        """Element type of what is folded."""
        return self.kernel.expression.dtype(self.kernel.expression.outputs[0])

    @property
    def wide(self) -> bool:
        """Whether float32 is accumulated in float64."""
        return self.kernel.wide and self.kind in WIDE and self.source == "f32"

    @property
    def dtype(self) -> str:
        """Element type of the accumulators."""
        return "f64" if self.wide else self.source

    def spread(self, dtype: str | None = None) -> str:
        """The neutral element in every lane."""
        scalar = _STARTS[self.kind]
        return f"spread32(float32({scalar}))" if (dtype or self.dtype) == "f32" else (
            f"spread64({scalar})"
        )  # fmt: skip

    def start(self, cells: Iterable[tuple[int, int]]) -> list[str]:
        """Accumulators before anything joins."""
        return [f"{self.name}_{r}_{v} = {self.spread()}" for r, v in cells]

    def join(self, cell: tuple[int, int], value: str) -> str:
        """One evaluation joins its accumulator."""
        target = f"{self.name}_{cell[0]}_{cell[1]}"
        value = f"widen({value})" if self.wide else value
        return f"{target} = {_JOINS[self.kind].format(a=target, x=value)}"


def _product_parts(kernel: NestKernel, cells: _Cells, cell: tuple[int, int]) -> str | None:
    """The two factors of the evaluation when it is a product that may join in one rounding."""
    e = kernel.expression
    if kernel.fold != "sum" or kernel.wide or not e.steps or e.outputs[0] != f"t{len(e.steps) - 1}":
        return None
    last = e.steps[-1]
    if last.op != "mul" or any(last.operands.count(o) > 1 for o in last.operands):
        return None
    a, b = (cells.name(o, *cell) for o in last.operands)
    return f"{a}, {b}"


def _fold_body(kernel: NestKernel, cells: _Cells, fold: _Fold, change: str = "{x}") -> list[str]:
    """Evaluate a tile and join it; ``change`` is applied first, ``{r}`` and ``{v}`` name a cell."""
    lines = cells.evaluate()
    factors = [_product_parts(kernel, cells, cell) for cell in cells.cells()]
    if change == "{x}" and all(factors):
        last = len(kernel.expression.steps) - 1
        lines = [line for line in lines if not line.startswith(f"t{last}_")]
        for (r, v), pair in zip(cells.cells(), factors, strict=True):
            lines.append(f"{fold.name}_{r}_{v} = fma({pair}, {fold.name}_{r}_{v})")
        return lines
    output = kernel.expression.outputs[0]
    for r, v in cells.cells():
        value = change.format(x=cells.name(output, r, v), r=r, v=v)
        lines.append(fold.join((r, v), value))
    return lines


# ---------------------------------------------------------------- lanes are neighbouring results


def _kept_tile(kernel: NestKernel, rows: int, vectors: int, whole: bool) -> list[str]:
    cells = _Cells(kernel, rows, vectors, whole)
    if not kernel.fold:
        return [*_loops(kernel, cells.evaluate()), *_store_outputs(kernel, cells),
                *_go_on(kernel, vectors)]  # fmt: skip
    if kernel.fold in ("argmax", "argmin"):
        return [*_kept_positions(kernel, cells), *_go_on(kernel, vectors)]
    if kernel.fold == "lse":
        top, total = _Fold(kernel, "max", "top"), _Fold(kernel, "sum", "t")
        wide = "widen({0})" if total.wide else "{0}"
        lines = top.start(cells.cells()) + _loops(kernel, _fold_body(kernel, cells, top))
        lines += [f"top_{r}_{v} = folds.finite_or_zero(top_{r}_{v})" for r, v in cells.cells()]
        lines += total.start(cells.cells())
        lines += _loops(kernel, _fold_body(kernel, cells, total, "e.exp({x} - top_{r}_{v})"))
        lines += [
            f"t_{r}_{v} = e.log(t_{r}_{v}) + {wide.format(f'top_{r}_{v}')}"
            for r, v in cells.cells()
        ]
        dtype = total.dtype
    else:
        fold = _Fold(kernel, kernel.fold, "t")
        lines = fold.start(cells.cells()) + _loops(kernel, _fold_body(kernel, cells, fold))
        dtype = fold.dtype
        if kernel.fold == "sum":
            scale = "spread32(float32(divisor))" if dtype == "f32" else "spread64(divisor)"
            lines += [f"t_{r}_{v} = t_{r}_{v} / {scale}" for r, v in cells.cells()]
    for r, v in cells.cells():
        lines += _store(kernel, cells, 0, f"t_{r}_{v}", dtype, (r, v))
    return [*lines, *_go_on(kernel, vectors)]


def _kept_positions(kernel: NestKernel, cells: _Cells) -> list[str]:
    sign = "" if kernel.fold == "argmax" else "-"
    lowest = _Fold(kernel, "max", "best")
    value = cells.name(kernel.expression.outputs[0], 0, 0)
    body = [
        *cells.evaluate(),
        f"value = {sign}{value}",
        f"place = spread64(({indices.folded_number(kernel.reduced)}) * 1.0)",
        "ahead = folds.leads(value, place, best, found)",
        "best = pick(ahead, value, best)",
        "found = pick(ahead, place, found)",
    ]
    return [f"best = {lowest.spread()}", "found = spread64(0.0)", *_loops(kernel, body),
            f"store_whole(q0, found, {kernel.lanes if cells.whole else 'left'})"]  # fmt: skip


def _store_outputs(kernel: NestKernel, cells: _Cells) -> list[str]:
    lines = []
    for place, name in enumerate(kernel.expression.outputs):
        dtype = kernel.expression.dtype(name)
        for cell in cells.cells():
            lines += _store(kernel, cells, place, cells.name(name, *cell), dtype, cell)
    return lines


def _store(
    kernel: NestKernel, cells: _Cells, place: int, value: str, dtype: str, cell: tuple[int, int]
) -> list[str]:
    target, (row, vector) = kernel.targets[place], cell
    if dtype != target:
        value = f"narrow({value})" if target == "f32" else f"widen({value})"
    at = f"q{place}" + (f" + {row} * y{place}_row" if row else "")
    at += f" + {vector * kernel.lanes * SIZES[target]}" if vector else ""
    if not cells.whole:
        return [f"store_first({at}, {value}, left)"]
    return [f"{'store_mask' if target == 'bool' else 'store'}({at}, {value})"]


def _go_on(kernel: NestKernel, vectors: int) -> list[str]:
    count = vectors * kernel.lanes
    lines = [
        f"s{i} += {count} * a{i}_step"
        for i in range(len(kernel.expression.arguments))
        if kernel.access[i] != "one"
    ]
    lines += [f"q{i} += {count * SIZES[t]}" for i, t in enumerate(kernel.targets)]
    return [*lines, f"left -= {count}"]


# ---------------------------------------------------------------- lanes are elements of the fold


def _reduced_lanes(kernel: NestKernel) -> list[str]:
    rows = kernel.tile[0]
    if kernel.fold in ("argmax", "argmin"):
        return _reduced_positions(kernel)
    cells = [(r, 0) for r in range(rows)]
    if kernel.fold == "lse":
        top, total = _Fold(kernel, "max", "top"), _Fold(kernel, "sum", "t")
        lines = _run_fold(kernel, top, "{x}")
        lines += [
            f"top_{r}_0 = folds.finite_or_zero(folds.maximum_across(top_{r}_0))" for r, _ in cells
        ]
        lines += _run_fold(kernel, total, "e.exp({x} - top_{r}_0)")
        values = [
            f"float64(first_lane(e.log(folds.sum_across(t_{r}_0))))"
            f" + float64(first_lane(top_{r}_0))"
            for r, _ in cells
        ]
    else:
        fold = _Fold(kernel, kernel.fold, "t")
        lines = _run_fold(kernel, fold, "{x}")
        across = f"folds.{_ACROSS[kernel.fold]}_across"
        scale = " / divisor" if kernel.fold == "sum" else ""
        values = [f"first_lane({across}(t_{r}_0)){scale}" for r, _ in cells]
    target = kernel.targets[0]
    cast = "float32" if target == "f32" else "float64"
    for (r, _), value in zip(cells, values, strict=True):
        lines.append(f"store_{target}(q0 + {r} * y0_row, {cast}({value}))")
    return lines


def _run_fold(kernel: NestKernel, fold: _Fold, change: str) -> list[str]:
    """Fold runs, two accumulators at a time where there is one row; the rest is filled up."""
    rows, n = kernel.tile[0], kernel.lanes
    ways = 2 if rows == 1 else 1
    whole = _Cells(kernel, rows, ways, True)
    rest = _Cells(kernel, rows, 1, False)
    output = kernel.expression.outputs[0]
    filled = [line for r in range(rows) for line in [
        f"value = {change.format(x=rest.name(output, r, 0), r=r, v=0)}",
        f"value = pick(lanes_below(value, left), value, {fold.spread(fold.source)})",
        fold.join((r, 0), "value"),
    ]]  # fmt: skip
    moves = [i for i, access in enumerate(kernel.access) if access != "one"]
    body = [
        f"for _ in range(run // {ways * n}):",
        *("    " + line for line in _fold_body(kernel, whole, fold, change)),
        *(f"    p{i} += {ways * n} * a{i}_step" for i in moves),
        f"left = run % {ways * n}",
        "while left > 0:",
        *("    " + line for line in [*rest.evaluate(), *filled]),
        *(f"    p{i} += {n} * a{i}_step" for i in moves),
        f"    left -= {n}",
    ]
    lines = [*fold.start(whole.cells()), *_loops(kernel, body)]
    if ways == 2:
        name = fold.name
        joined = _JOINS[fold.kind].format(a=f"{name}_0_0", x=f"{name}_0_1")
        lines.append(f"{name}_0_0 = {joined}")
    return lines


def _reduced_positions(kernel: NestKernel) -> list[str]:
    n = kernel.lanes
    sign = "" if kernel.fold == "argmax" else "-"
    lowest = _Fold(kernel, "max", "best").spread()
    cells = _Cells(kernel, 1, 1, False)
    value = cells.name(kernel.expression.outputs[0], 0, 0)
    body = [
        "place = lane_numbers(spread64(0.0))",
        "left = run",
        "while left > 0:",
        *("    " + line for line in cells.evaluate()),
        f"    value = pick(lanes_below(best, left), {sign}{value}, {lowest})",
        "    ahead = folds.leads(value, place, best, found)",
        "    best = pick(ahead, value, best)",
        "    found = pick(ahead, place, found)",
        f"    place = place + {n}.0",
        *(
            f"    p{i} += {n} * a{i}_step"
            for i, access in enumerate(kernel.access)
            if access != "one"
        ),
        f"    left -= {n}",
    ]
    return [
        f"best = {lowest}",
        "found = lane_numbers(spread64(0.0))",
        *_loops(kernel, body),
        "store_i32(q0, int32(first_lane(folds.leader(best, found))))",
    ]


ROWS = {"NestKernel": None}
"""Rows depend on the expression, so they have no fixed names."""
