"""The permutohedral lattice and its filter: hashing of corners, then splat, blur and slice.

Points are taken in ``PARTS`` runs. Each run numbers the corners that it meets in a table of its
own; one task joins the runs in order, so that numbers do not depend on threads. Splatting adds
into a table a team member of its own, by fixed runs of points; the first blur adds these up.
(Adams, Baek, Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, 2010.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from . import tile

PARTS = 16
"""Runs of points that are numbered on their own."""

SPLIT = 64
"""Tasks of a pass over corners, or over points."""

RUN_TABLE, ALL_TABLE = 4096, 16384
"""Slots with which the hash tables of a run and of all corners begin."""

SIZES = {"f32": 4, "f64": 8}
GROUP = 6
"""Vectors of a row that are held in registers at once."""

CORNER_WORDS = ["features", "points", "vertex", "weight", "keys", "table", "slots", "counts",
                "fault", "scratch", "scratch_slot"]  # fmt: skip
"""``keys`` and ``table`` have room for each run: its corners' keys (int64) and its hash table
(int32, ``slots`` of it, see :func:`table_size`); ``counts`` says how many corners it has (int64).
A point that cannot be held is reported at ``fault``."""

JOIN_WORDS = ["keys", "counts", "points", "table", "all_keys", "numbers", "count"]
"""``all_keys`` and ``table`` are those of all corners, ``numbers`` those of each run's corners
(int32), ``count`` gets one more than their number (int32), and the int64 after the counts of all
runs the size of the table."""

RENUMBER_WORDS = ["vertex", "numbers", "points", "along", "room", "count"]
NEIGHBOUR_WORDS = ["all_keys", "table", "along", "room", "count", "size"]

SPLAT_WORDS = ["values", "vertex", "weight", "points", "run", "channels", "tables", "copy", "count"]
"""Task t adds ``run`` points to the table ``t * copy`` bytes into ``tables``."""

BLUR_WORDS = ["x", "copy", "y", "along", "count", "channels"]
SLICE_WORDS = ["table", "vertex", "weight", "out", "points", "run", "channels", "gain"]


def table_size(corners: int, start: int) -> int:
    """Slots of a hash table that begins with ``start`` and is at most half full, by fours."""
    size = start
    while size < 2 * corners + 2:
        size *= 4
    return size


def run_of(points: int) -> int:
    """Points of a run."""
    return -(-points // PARTS)


def scratch(d: int) -> int:
    """Bytes of scratch that a point takes."""
    return 16 * (d + 2)


@dataclass(frozen=True)
class CornersKernel:
    """Corners, weights and numbers within a run of points with ``d`` features each."""

    d: int
    dtype: str
    bits: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_corners_{self.d}_{self.dtype}"

    def source(self) -> str:
        """The kernel's Python source."""
        d, size = self.d, SIZES[self.dtype]
        cast = {"f32": "float32", "f64": "float64"}[self.dtype]
        half = 1 << (self.bits - 1)
        ones = sum(1 << self.bits * (d - 1 - i) for i in range(d))
        return "\n".join([
            f'"""The lattice around points with {d} features."""',
            "import numpy as np",
            "from numba import float32, float64, int64",
            "from tilth.runtime.kernels.lattice_math import enter",
            "from tilth.runtime.simd import (",
            "    load_i64, load_i32, store_i64, store_i32,",
            f"    load_{self.dtype} as load, store_{self.dtype} as store,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(CORNER_WORDS),
            f"    run = (points + {PARTS - 1}) // {PARTS}",
            "    first = task * run",
            f"    keys += first * {8 * (d + 1)}",
            "    table += task * slots * 4",
            "    by_rank = scratch + slot * scratch_slot",
            f"    sorted_gaps = by_rank + {8 * (d + 2)}",
            "    held = int64(0)",
            f"    size = int64({RUN_TABLE})",
            "    for at in range(size):",
            "        store_i32(table + 4 * at, 0)",
            *(f"    last{r} = int64(-1)" for r in range(d + 1)),
            *(f"    id{r} = int64(0)" for r in range(d + 1)),
            "    for n in range(first, min(first + run, points)):",
            *("        " + line for line in self._point(cast, size)),
            *("        " + line for line in self._check(half)),
            *("        " + line for line in self._ranks(cast, size, half)),
            *(f"        {line}" for r in range(d + 1) for line in self._corner(r, ones)),
            "    store_i64(counts + 8 * task, held)",
        ]) + "\n"  # fmt: skip

    def _point(self, cast: str, size: int) -> list[str]:
        """Elevation onto the plane of vectors that sum to 0, and the nearest remainder-0 point."""
        d = self.d
        lines = [f"x = features + n * {d * size}", f"total = {cast}(0.0)"]
        for j in range(d, 0, -1):
            scale = sqrt(2 / 3) * (d + 1) / sqrt(j * (j + 1))
            lines += [
                f"part = load(x + {(j - 1) * size}) * {cast}({scale!r})",
                f"e{j} = total - {cast}({j}.0) * part",
                "total = total + part",
            ]
        lines += ["e0 = total", "excess = int64(0)"]
        for i in range(d + 1):
            lines += [
                f"near = np.rint(e{i} * {cast}({1 / (d + 1)!r}))",
                f"fits = abs(near) < {cast}({float(1 << 30)!r})",
                f"b{i} = int64(near) * {d + 1} if fits else int64({1 << 40})",
                f"excess += int64(near) if fits else int64({1 << 40})",
                f"g{i} = e{i} - {cast}(b{i})",
            ]
        return lines

    def _check(self, half: int) -> list[str]:
        """A point that the keys cannot hold is reported, and taken as if it were the origin."""
        d = self.d
        wide = half - 2 * (d + 1)
        outside = " or ".join(f"abs(b{i}) >= {wide}" for i in range(d + 1))
        return [
            f"if {outside}:",
            "    store_i64(fault, n + 1)",
            "    excess = int64(0)",
            *(f"    b{i} = int64(0)" for i in range(d + 1)),
        ]

    def _ranks(self, cast: str, size: int, half: int) -> list[str]:
        """Ranks of the differences, from the largest; weights follow from neighbours in rank."""
        d = self.d
        lines = []
        for i in range(d + 1):
            terms = [f"int64(g{i} < g{j})" for j in range(i + 1, d + 1)]
            terms += [f"int64(g{i} <= g{j})" for j in range(i)]
            lines.append(f"r{i} = {' + '.join(['excess', *terms])}")
        for i in range(d + 1):
            lines += [
                f"if r{i} < 0:",
                f"    r{i} += {d + 1}",
                f"    b{i} += {d + 1}",
                f"elif r{i} > {d}:",
                f"    r{i} -= {d + 1}",
                f"    b{i} -= {d + 1}",
                f"g{i} = (e{i} - {cast}(b{i})) * {cast}({1 / (d + 1)!r})",
                f"store(sorted_gaps + r{i} * {size}, g{i})",
            ]
        for i in range(d):
            lines.append(f"store_i64(by_rank + r{i} * 8, {1 << self.bits * (d - 1 - i)})")
        lines.append(f"store_i64(by_rank + r{d} * 8, 0)")
        lines.append(f"w = weight + n * {(d + 1) * size}")
        for k in range(1, d + 1):
            high, low = f"sorted_gaps + {(d - k) * size}", f"sorted_gaps + {(d - k + 1) * size}"
            lines.append(f"store(w + {k * size}, load({high}) - load({low}))")
        lines.append(f"store(w, {cast}(1.0) + load(sorted_gaps + {d * size}) - load(sorted_gaps))")
        shift = [f"((b{i} + {half}) << {self.bits * (d - 1 - i)})" for i in range(d)]
        lines.append(f"key = {' | '.join(shift)}")
        lines.append(f"v = vertex + n * {4 * (d + 1)}")
        return lines

    def _corner(self, r: int, ones: int) -> list[str]:
        """The number of one corner; a run of equal ones looks it up once."""
        d = self.d
        step = [f"key += {ones} - {d + 1} * load_i64(by_rank + {8 * (d - r + 1)})"] if r else []
        return [
            *step,
            f"if key != last{r}:",
            f"    last{r} = key",
            "    if 2 * held + 2 > size:",
            "        size *= 4",
            "        for at in range(size):",
            "            store_i32(table + 4 * at, 0)",
            "        for k in range(held):",
            "            enter(table, size, keys, load_i64(keys + 8 * k), k)",
            f"    id{r} = enter(table, size, keys, key, held)",
            f"    held = max(held, id{r})",
            f"store_i32(v + {4 * r}, id{r})",
        ]


@dataclass(frozen=True)
class JoinKernel:
    """The numbers of all corners, from those of each run, in order."""

    d: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_join_{self.d}"

    def source(self) -> str:
        """The kernel's Python source."""
        per = 8 * (self.d + 1)
        return "\n".join([
            '"""Corners of all runs of points, numbered in the order in which they are met."""',
            "from numba import int64",
            "from tilth.runtime.kernels.lattice_math import enter",
            "from tilth.runtime.simd import load_i64, store_i32, store_i64",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(JOIN_WORDS),
            f"    run = (points + {PARTS - 1}) // {PARTS}",
            "    held = int64(0)",
            f"    size = int64({ALL_TABLE})",
            "    for at in range(size):",
            "        store_i32(table + 4 * at, 0)",
            f"    for part in range({PARTS}):",
            f"        own = keys + part * run * {per}",
            f"        to = numbers + part * run * {per // 2}",
            "        for k in range(load_i64(counts + 8 * part)):",
            "            if 2 * held + 2 > size:",
            "                size *= 4",
            "                for at in range(size):",
            "                    store_i32(table + 4 * at, 0)",
            "                for old in range(held):",
            "                    enter(table, size, all_keys, load_i64(all_keys + 8 * old), old)",
            "            number = enter(table, size, all_keys, load_i64(own + 8 * k), held)",
            "            held = max(held, number)",
            "            store_i32(to + 4 * k, number)",
            "    store_i32(count, held + 1)",
            f"    store_i64(counts + 8 * {PARTS}, size)",
        ]) + "\n"  # fmt: skip


@dataclass(frozen=True)
class RenumberKernel:
    """Points' corners by their numbers among all; room for neighbours is cleared."""

    d: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_renumber_{self.d}"

    def source(self) -> str:
        """The kernel's Python source."""
        c = self.d + 1
        return "\n".join([
            '"""Corners of a run of points by their numbers among all."""',
            "from tilth.runtime.simd import load_i32, load_i64, store_i32, store_i64",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(RENUMBER_WORDS),
            f"    run = (points + {PARTS - 1}) // {PARTS}",
            "    first = task * run",
            f"    own = numbers + first * {4 * c}",
            f"    for at in range(first * {4 * c}, min(first + run, points) * {4 * c}, 4):",
            "        store_i32(vertex + at, load_i32(own + 4 * (load_i32(vertex + at) - 1)))",
            "    held = load_i32(count)",
            f"    share = (held + {PARTS - 1}) // {PARTS}",
            f"    for axis in range({c}):",
            "        sides = along + axis * room * 8",
            "        for k in range(task * share, min((task + 1) * share, held)):",
            "            store_i64(sides + 8 * k, 0)",
        ]) + "\n"  # fmt: skip


@dataclass(frozen=True)
class NeighboursKernel:
    """Both neighbours of each corner along each direction: one is looked up, and is mutual."""

    d: int
    bits: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_neighbours_{self.d}"

    def source(self) -> str:
        """The kernel's Python source."""
        d = self.d
        ones = sum(1 << self.bits * i for i in range(d))
        steps = [(d + 1) * (1 << self.bits * (d - 1 - i)) - ones for i in range(d)] + [-ones]
        lines = []
        for axis, step in enumerate(steps):
            lines += [
                f"other = find(table, size, all_keys, key + {step})",
                "if other:",
                f"    sides = along + {axis} * room * 8",
                "    store_i32(sides + 8 * k, other)",
                "    store_i32(sides + 8 * other + 4, k)",
            ]
        return "\n".join([
            '"""Neighbours of lattice corners."""',
            "from tilth.runtime.kernels.lattice_math import find",
            "from tilth.runtime.simd import load_i32, load_i64, store_i32",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(NEIGHBOUR_WORDS),
            "    size = load_i64(size)",
            "    held = load_i32(count)",
            f"    share = (held + {SPLIT - 1}) // {SPLIT}",
            "    for k in range(max(1, task * share), min((task + 1) * share, held)):",
            "        key = load_i64(all_keys + 8 * (k - 1))",
            *("        " + line for line in lines),
        ]) + "\n"  # fmt: skip


# ---------------------------------------------------------------- filtering


@dataclass(frozen=True)
class Rows:
    """How rows of channels lie in vectors: ``vectors`` at once, in one group or in several."""

    dtype: str
    width: int
    vectors: int
    several: bool

    @property
    def lanes(self) -> int:
        """Elements of a vector."""
        return self.width if self.dtype == "f32" else self.width // 2

    @property
    def mark(self) -> str:
        """What vector functions of this type end in."""
        return f"{self.lanes}{'' if self.dtype == 'f32' else 'd'}"

    @property
    def name(self) -> str:
        """A part of file names."""
        return f"{self.dtype}_w{self.width}_v{self.vectors}{'m' if self.several else ''}"

    def bytes(self, channels: int) -> int:
        """Bytes of a table's row."""
        groups = -(-channels // (self.lanes * self.vectors))
        return groups * self.lanes * self.vectors * SIZES[self.dtype]

    def imports(self) -> list[str]:
        """Import lines of a kernel."""
        return [
            "from tilth.runtime.kernels.masks import (",
            f"    load_first{self.mark} as load_first, store_first,",
            ")",
            "from tilth.runtime.simd import (",
            f"    fma, load_i32, load_i64, load_f64, load{self.mark} as load_vector, store,",
            f"    load_{self.dtype} as load, spread{self.mark} as spread,",
            ")",
            "from numba import float32, float64",
        ]

    def groups(self) -> list[str]:
        """Lines that set ``groups`` and ``step``, the bytes of a table's row."""
        wide = self.lanes * self.vectors
        count = f"(channels + {wide - 1}) // {wide}" if self.several else "1"
        return [f"groups = {count}", f"step = groups * {wide * SIZES[self.dtype]}"]

    def offset(self, v: int) -> int:
        """Bytes from the start of a group to a vector."""
        return v * self.lanes * SIZES[self.dtype]

    def each_group(self, body: list[str]) -> list[str]:
        """The body for each group: ``shift`` are bytes to it, ``left`` channels from it on."""
        wide = self.lanes * self.vectors
        if not self.several:
            return ["shift = 0", "left = channels", *body]
        return [
            "for group in range(groups):",
            f"    shift = group * {wide * SIZES[self.dtype]}",
            f"    left = channels - group * {wide}",
            *("    " + line for line in body),
        ]

    def is_part(self, v: int) -> bool:
        """Whether a vector may hold fewer elements than it has lanes."""
        return self.several or v == self.vectors - 1

    def read(self, v: int, at: str) -> str:
        """A vector of a row of values, which ends where its channels do."""
        where = f"{at} + shift + {self.offset(v)}"
        if self.is_part(v):
            return f"load_first({where}, left - {v * self.lanes})"
        return f"load_vector({where})"

    def write(self, v: int, at: str, value: str) -> str:
        """Write such a vector."""
        where = f"{at} + shift + {self.offset(v)}"
        if self.is_part(v):
            return f"store_first({where}, {value}, left - {v * self.lanes})"
        return f"store({where}, {value})"


def rows_of(channels: int, dtype: str, width: int) -> Rows:
    """How rows of some channels lie in vectors of float32 ``width``."""
    lanes = width if dtype == "f32" else width // 2
    count = max(1, -(-channels // lanes))
    return Rows(dtype, width, min(count, GROUP), count > GROUP)


@dataclass(frozen=True)
class SplatKernel:
    """Values shared out to corners."""

    d: int
    rows: Rows

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_splat_{self.d}_{self.rows.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        rows, c, size = self.rows, self.d + 1, SIZES[self.rows.dtype]
        corner = []
        for k in range(c):
            corner += [
                f"w = spread(load(weight + (n * {c} + {k}) * {size}))",
                f"at = table + load_i32(vertex + (n * {c} + {k}) * 4) * step + shift",
            ]
            for v in range(rows.vectors):
                to = f"at + {rows.offset(v)}"
                corner.append(f"store({to}, fma(x{v}, w, load_vector({to})))")
        body = [
            *(f"x{v} = {rows.read(v, 'x')}" for v in range(rows.vectors)),
            *corner,
        ]
        return "\n".join([
            f'"""Values at points shared out to the {c} corners of each."""',
            *rows.imports(),
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(SPLAT_WORDS),
            *("    " + line for line in rows.groups()),
            "    table = tables + task * copy",
            f"    zero = spread({_number(rows.dtype, '0.0')})",
            f"    for at in range(table, table + load_i32(count) * step, {rows.lanes * size}):",
            "        store(at, zero)",
            "    for n in range(task * run, min((task + 1) * run, points)):",
            f"        x = values + n * channels * {size}",
            *("        " + line for line in rows.each_group(body)),
        ]) + "\n"  # fmt: skip


@dataclass(frozen=True)
class BlurKernel:
    """Each corner and half of its neighbours in one direction; ``copies`` of x are added up."""

    rows: Rows
    copies: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_blur_{self.rows.name}_c{self.copies}"

    def source(self) -> str:
        """The kernel's Python source."""
        rows, size = self.rows, SIZES[self.rows.dtype]
        wide = rows.lanes * size
        loads = {
            name: " + ".join(
                f"load_vector(x + {name} * step + at{f' + {c} * copy' if c else ''})"
                for c in range(self.copies)
            )
            for name in ("k", "a", "b")
        }
        sides = f"({loads['a']}) + ({loads['b']})"
        return "\n".join([
            '"""A blur of lattice corners along one direction."""',
            *rows.imports(),
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(BLUR_WORDS),
            *("    " + line for line in rows.groups()),
            f"    half = spread({_number(rows.dtype, '0.5')})",
            "    held = load_i32(count)",
            f"    share = (held + {SPLIT - 1}) // {SPLIT}",
            "    if task == 0:",
            f"        for at in range(0, step, {wide}):",
            f"            store(y + at, spread({_number(rows.dtype, '0.0')}))",
            "    for k in range(max(1, task * share), min((task + 1) * share, held)):",
            "        a = load_i32(along + 8 * k)",
            "        b = load_i32(along + 8 * k + 4)",
            f"        for at in range(0, step, {wide}):",
            f"            store(y + k * step + at, fma({sides}, half, {loads['k']}))",
        ]) + "\n"  # fmt: skip


@dataclass(frozen=True)
class SliceKernel:
    """Values read back at points from their corners."""

    d: int
    rows: Rows

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"lattice_slice_{self.d}_{self.rows.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        rows, c, size = self.rows, self.d + 1, SIZES[self.rows.dtype]
        body = []
        for k in range(c):
            body += [
                f"w = spread(load(weight + (n * {c} + {k}) * {size}))",
                f"at = table + load_i32(vertex + (n * {c} + {k}) * 4) * step + shift",
            ]
            for v in range(rows.vectors):
                found = f"load_vector(at + {rows.offset(v)})"
                body.append(f"y{v} = fma({found}, w, y{v})" if k else f"y{v} = {found} * w")
        body += [rows.write(v, "y", f"y{v} * scale") for v in range(rows.vectors)]
        cast = "float32" if rows.dtype == "f32" else "float64"
        return "\n".join([
            f'"""Values at points from the {c} corners of each."""',
            *rows.imports(),
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(SLICE_WORDS[:-1]),
            f"    scale = spread({cast}(load_f64(row + {8 * (len(SLICE_WORDS) - 1)})))",
            *("    " + line for line in rows.groups()),
            "    for n in range(task * run, min((task + 1) * run, points)):",
            f"        y = out + n * channels * {size}",
            *("        " + line for line in rows.each_group(body)),
        ]) + "\n"  # fmt: skip


def _number(dtype: str, text: str) -> str:
    return f"{'float32' if dtype == 'f32' else 'float64'}({text})"
