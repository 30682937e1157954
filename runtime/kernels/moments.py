"""Weighted moments of many points around many centres, in float64 (the M-step's sums).

A task sums over a run of points into numbers of its own; a last row adds those in order, so that
the result does not depend on threads. Lanes are centres where parts of a point are independent,
and points, with a tile of 4 x 2 sums in registers, where the outer product is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

from .chain import Layout, imports, read, words
from .densities import rows_of

WORDS = (
    "weights", "x", "centre", "partial", "points", "states", "size", "per_task", "partial_step",
    "scratch", "scratch_slot",
)  # fmt: skip
"""Weights [R, C], points [R, D], centres [C, D]; ``states`` is C."""

END_WORDS = ("partial", "count", "first", "second", "states", "size", "parts", "partial_step")
"""A task is a centre."""

POINTS = 64
"""Points of a block."""

MOST_PARTS = 16
"""Partial sums at most."""


def division(points: int) -> tuple[int, int]:
    """``(tasks, points of a task)``."""
    parts = max(1, min(MOST_PARTS, points // 512))
    per_task = -(-points // parts)
    return -(-points // per_task), per_task


def partial_bytes(shape: Layout, states: int, size: int, outer: bool) -> int:
    """Bytes of one task's sums."""
    if outer:
        rows = rows_of(size)
        return states * (1 + rows + rows * rows) * shape.lanes * 8
    return (1 + 2 * size) * shape.row(states)


def scratch_bytes(shape: Layout, states: int, size: int, outer: bool) -> int:
    """Bytes of a block."""
    if outer:
        return (3 * rows_of(size) + states) * POINTS * 8
    return size * shape.row(states)


@dataclass(frozen=True)
class MomentsKernel:
    """Sums of a run of points; ``outer`` sums products of all parts of a point."""

    shape: Layout
    outer: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        kind = f"outer_{self.shape.lanes}" if self.outer else self.shape.name
        return f"moments_{kind}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Weighted moments."""',
            *imports(self.shape),
            "def kernel(row, task, slot):",
            *words(WORDS),
            "    zero = spread(0.0)",
            "    mine = scratch + slot * scratch_slot",
            "    begin = task * per_task",
            "    end = min(begin + per_task, points)",
            "    own = partial + task * partial_step",
            "    for i in range(partial_step // 8):",
            "        store_f64(own + i * 8, 0.0)",
            *(self._outer() if self.outer else self._parts()),
        ]
        return "\n".join(lines) + "\n"

    def _parts(self) -> list[str]:
        shape, count, n = self.shape, self.shape.vectors, self.shape.lanes * 8
        begin = "o" if shape.many else "0"
        weight = [
            f"k{v} = " + read(shape, "g", "zero").replace(
                "{o}", f"(o + {v * n})" if shape.many else str(v * n)
            )
            for v in range(count)
        ]  # fmt: skip
        inner = [
            *(f"a{v} = load(own + {begin} + {v * n})" for v in range(count)),
            "g = weights + r * states * 8",
            "for _ in range(few):",
            *("    " + line for line in weight),
            *(f"    a{v} = a{v} + k{v}" for v in range(count)),
            "    g += states * 8",
            *(f"store(own + {begin} + {v * n}, a{v})" for v in range(count)),
            "for d in range(size):",
            f"    to = own + (2 * d + 1) * line + {begin}",
            *(f"    m{v} = load(mine + d * line + {begin} + {v * n})" for v in range(count)),
            *(f"    a{v} = load(to + {v * n})" for v in range(count)),
            *(f"    b{v} = load(to + line + {v * n})" for v in range(count)),
            "    g, at = weights + r * states * 8, x + (r * size + d) * 8",
            "    for _ in range(few):",
            "        p = spread(load_f64(at))",
            *("        " + line for line in weight),
            *(f"        z{v} = p - m{v}" for v in range(count)),
            *(f"        k{v} = k{v} * z{v}" for v in range(count)),
            *(f"        a{v} = a{v} + k{v}" for v in range(count)),
            *(f"        b{v} = fma(k{v}, z{v}, b{v})" for v in range(count)),
            "        g += states * 8",
            "        at += size * 8",
            *(f"    store(to + {v * n}, a{v})" for v in range(count)),
            *(f"    store(to + line + {v * n}, b{v})" for v in range(count)),
        ]
        if shape.many:
            inner = [f"for o in range(0, line, {shape.group}):", *("    " + i for i in inner)]
        return [
            f"    line = (states * 8 + {shape.group - 1}) // {shape.group} * {shape.group}",
            "    for d in range(size):",
            "        for c in range(line // 8):",
            "            value = load_f64(centre + (c * size + d) * 8) if c < states else 0.0",
            "            store_f64(mine + d * line + c * 8, value)",
            f"    for r in range(begin, end, {POINTS}):",
            f"        few = min({POINTS}, end - r)",
            *("        " + line for line in inner),
        ]

    def _outer(self) -> list[str]:
        n = self.shape.lanes * 8
        wide = POINTS * 8
        tile = [(u, v) for u in range(4) for v in range(2)]
        return [
            "    rows = (size + 3) // 4 * 4",
            "    turned = mine",
            f"    apart = turned + rows * {wide}",
            f"    scaled = apart + rows * {wide}",
            f"    shares = scaled + rows * {wide}",
            f"    for i in range(size * {POINTS}, rows * {POINTS}):",
            "        store_f64(apart + i * 8, 0.0)",
            "        store_f64(scaled + i * 8, 0.0)",
            f"    for r in range(begin, end, {POINTS}):",
            f"        few = min({POINTS}, end - r)",
            f"        for p in range({POINTS}):",
            "            at = x + (r + min(p, few - 1)) * size * 8",
            "            for d in range(size):",
            f"                store_f64(turned + d * {wide} + p * 8, load_f64(at + d * 8))",
            "            at = weights + (r + min(p, few - 1)) * states * 8",
            "            for c in range(states):",
            "                value = load_f64(at + c * 8) if p < few else 0.0",
            f"                store_f64(shares + c * {wide} + p * 8, value)",
            "        for c in range(states):",
            f"            sums = own + c * (1 + rows + rows * rows) * {n}",
            f"            share = shares + c * {wide}",
            "            a = load(sums)",
            f"            for o in range(0, {wide}, {n}):",
            "                a = a + load(share + o)",
            "            store(sums, a)",
            "            for d in range(size):",
            "                mu = spread(load_f64(centre + (c * size + d) * 8))",
            f"                at = d * {wide}",
            f"                a = load(sums + (1 + d) * {n})",
            f"                for o in range(0, {wide}, {n}):",
            "                    z = load(turned + at + o) - mu",
            "                    k = z * load(share + o)",
            "                    store(apart + at + o, z)",
            "                    store(scaled + at + o, k)",
            "                    a = a + k",
            f"                store(sums + (1 + d) * {n}, a)",
            "            for i in range(0, rows, 4):",
            "                for j in range(0, min(i + 4, size), 2):",
            f"                    to = sums + (1 + rows + i * rows + j) * {n}",
            *(f"                    a{u}_{v} = load(to + ({u} * rows + {v}) * {n})"
              for u, v in tile),
            f"                    s, w = scaled + i * {wide}, apart + j * {wide}",
            f"                    for o in range(0, {wide}, {n}):",
            f"                        w0, w1 = load(w + o), load(w + o + {wide})",
            *(line for u in range(4) for line in (
                f"                        k = load(s + o + {u * wide})",
                f"                        a{u}_0 = fma(k, w0, a{u}_0)",
                f"                        a{u}_1 = fma(k, w1, a{u}_1)",
            )),
            *(f"                    store(to + ({u} * rows + {v}) * {n}, a{u}_{v})"
              for u, v in tile),
        ]  # fmt: skip


@dataclass(frozen=True)
class MomentsEndKernel:
    """All tasks' sums of one centre, added in order."""

    shape: Layout
    outer: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        kind = f"outer_{self.shape.lanes}" if self.outer else self.shape.name
        return f"moments_end_{kind}"

    def source(self) -> str:
        """The kernel's Python source."""
        n = self.shape.lanes * 8
        lines = [
            '"""Partial moments added."""',
            *imports(self.shape),
            "def kernel(row, task, slot):",
            *words(END_WORDS),
        ]
        if not self.outer:
            group = self.shape.group
            return "\n".join([
                *lines,
                f"    line = (states * 8 + {group - 1}) // {group} * {group}",
                "    for d in range(1 + 2 * size):",
                "        total = 0.0",
                "        for part in range(parts):",
                "            at = partial + part * partial_step",
                "            total += load_f64(at + d * line + task * 8)",
                "        if d == 0:",
                "            store_f64(count + task * 8, total)",
                "        elif d % 2 == 1:",
                "            store_f64(first + (task * size + d // 2) * 8, total)",
                "        else:",
                "            store_f64(second + (task * size + d // 2 - 1) * 8, total)",
            ]) + "\n"  # fmt: skip
        return "\n".join([
            *lines,
            "    rows = (size + 3) // 4 * 4",
            f"    at = partial + task * (1 + rows + rows * rows) * {n}",
            "    for d in range(1 + rows + rows * rows):",
            "        total = spread(0.0)",
            "        for part in range(parts):",
            f"            total = total + load(at + part * partial_step + d * {n})",
            "        value = sum_lanes(total)",
            "        i, j = (d - 1 - rows) // rows, (d - 1 - rows) % rows",
            "        if d == 0:",
            "            store_f64(count + task * 8, value)",
            "        elif d <= size:",
            "            store_f64(first + (task * size + d - 1) * 8, value)",
            "        elif d > rows and i < size and j <= i:",
            "            store_f64(second + ((task * size + i) * size + j) * 8, value)",
            "            store_f64(second + ((task * size + j) * size + i) * 8, value)",
        ]) + "\n"  # fmt: skip


ROWS = {"MomentsKernel": WORDS, "MomentsEndKernel": END_WORDS}
"""Words by kernel."""
