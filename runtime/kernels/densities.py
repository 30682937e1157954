"""Log densities of many points under many settings of a normal distribution, in float64.

Normal: lanes are settings, so that a point's number is broadcast. Multivariate normal: lanes are
points; the deviation is whitened, ``z = L^-1 (x - mu)`` with ``L L^T = cov``, four rows of the
triangle at a time. Settings are prepared first: one over the spreads, and the constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from .chain import Layout, imports, words, write

POINTS = 32
"""Points of a block of the multivariate kernel."""

PER_TASK = 1024
"""Points of a task."""

PREPARE_WORDS = ("mean", "spread_", "ready", "settings", "size", "fault", "scratch", "scratch_slot")
"""Means [C, D] and spreads [C, D] or [C, D, D]; a task is a setting, or does all normal ones."""

WORDS = ("x", "ready", "y", "points", "settings", "size", "scratch", "scratch_slot")
"""Points [R, D] to log densities [R, C]."""

HALF_LOG_2PI = 0.9189385332046727


def ready_bytes(shape: Layout, settings: int, size: int, matrix: bool) -> int:
    """Bytes of prepared settings."""
    if matrix:
        return settings * matrix_words(size) * 8
    return (2 * size + 1) * shape.row(settings)


def matrix_words(size: int) -> int:
    """Numbers of one prepared covariance: constant, mean, whitening rows in fours."""
    return 8 + size + rows_of(size) * size


def rows_of(size: int) -> int:
    """Rows in whole fours."""
    return -(-size // 4) * 4


def prepare_scratch(size: int) -> int:
    """Bytes to factorise one covariance in."""
    return 2 * size * size * 8


def scratch_bytes(settings: int, size: int) -> int:
    """Bytes of a block: points and deviations transposed, and results."""
    return (2 * size + settings) * POINTS * 8


@dataclass(frozen=True)
class PrepareKernel:
    """Settings made ready."""

    shape: Layout
    matrix: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"densities_ready_{'matrix' if self.matrix else self.shape.name}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Settings of normal distributions made ready."""',
            *imports(self.shape, ["from tilth.runtime.kernels import matrix_math as m",
                                  "from tilth.runtime.simd import store_i64"]),
            "def kernel(row, task, slot):",
            *words(PREPARE_WORDS),
            *(self._matrix() if self.matrix else self._normal()),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _normal(self) -> list[str]:
        group = self.shape.group
        return [
            f"    line = (settings * 8 + {group - 1}) // {group} * {group}",
            "    for c in range(line // 8):",
            "        total = 0.0",
            "        for d in range(size):",
            "            mu, scale = 0.0, 0.0",
            "            if c < settings:",
            "                mu = load_f64(mean + (c * size + d) * 8)",
            "                sd = load_f64(spread_ + (c * size + d) * 8)",
            "                scale = 0.7071067811865476 / sd",
            f"                total -= math.log(sd) + {HALF_LOG_2PI}",
            "            store_f64(ready + (2 * d + 1) * line + c * 8, mu)",
            "            store_f64(ready + (2 * d + 2) * line + c * 8, scale)",
            "        store_f64(ready + c * 8, total)",
        ]

    def _matrix(self) -> list[str]:
        return [
            "    left = scratch + slot * scratch_slot",
            "    right = left + size * size * 8",
            "    rows = (size + 3) // 4 * 4",
            "    to = ready + task * (8 + size + rows * size) * 8",
            "    for i in range(size * size):",
            "        store_f64(left + i * 8, load_f64(spread_ + (task * size * size + i) * 8))",
            "    if not m.cholesky(left, size):",
            "        store_i64(fault, task + 1)",
            "        return",
            f"    total = -size * {HALF_LOG_2PI}",
            "    for i in range(size):",
            "        total -= math.log(m.get(left, size, i, i))",
            "    store_f64(to, total)",
            "    m.set_identity(right, size)",
            "    m.substitute(left, size, right, size, True)",
            "    for i in range(size):",
            "        store_f64(to + 64 + i * 8, load_f64(mean + (task * size + i) * 8))",
            "    at = to + 64 + size * 8",
            "    for i in range(rows):",
            "        for j in range(size):",
            "            value = m.get(right, size, i, j) if i < size else 0.0",
            "            store_f64(at + (i * size + j) * 8, value * 0.7071067811865476)",
        ]


@dataclass(frozen=True)
class DensitiesKernel:
    """Log densities; a task does ``PER_TASK`` points."""

    shape: Layout
    matrix: bool

    @property
    def name(self) -> str:
        """A readable file name."""
        kind = f"matrix_{self.shape.lanes}" if self.matrix else self.shape.name
        return f"densities_{kind}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Log densities of normal distributions."""',
            *imports(self.shape),
            "def kernel(row, task, slot):",
            *words(WORDS),
            "    zero = spread(0.0)",
            f"    first = task * {PER_TASK}",
            f"    last = min(first + {PER_TASK}, points)",
            *(self._matrix() if self.matrix else self._normal()),
        ]
        return "\n".join(lines) + "\n"

    def _normal(self) -> list[str]:
        shape = self.shape
        group, count, n = shape.group, shape.vectors, shape.lanes * 8
        begin = "o" if shape.many else "0"
        inner = [
            "w = ready + " + begin,
            *(f"a{v} = load(w + {v * n})" for v in range(count)),
            *(f"b{v} = a{v}" for v in range(count)),
            "for d in range(size):",
            "    w += line",
            "    p, q = spread(load_f64(one + d * 8)), spread(load_f64(two + d * 8))",
            *(f"    m{v}, s{v} = load(w + {v * n}), load(w + line + {v * n})"
              for v in range(count)),
            *(f"    z{v} = (p - m{v}) * s{v}" for v in range(count)),
            *(f"    a{v} = fma(-z{v}, z{v}, a{v})" for v in range(count)),
            *(f"    z{v} = (q - m{v}) * s{v}" for v in range(count)),
            *(f"    b{v} = fma(-z{v}, z{v}, b{v})" for v in range(count)),
            "    w += line",
        ]  # fmt: skip
        for v in range(count):
            o = f"({begin} + {v * n})" if shape.many else str(v * n)
            for at, name in (("to", "a"), ("too", "b")):
                inner.append(write(shape, at, f"{name}{v}").replace("{o}", o))
        if shape.many:
            inner = [f"for o in range(0, line, {group}):", *("    " + line for line in inner)]
        return [
            f"    line = (settings * 8 + {group - 1}) // {group} * {group}",
            "    states = settings",
            # Two points share what is read of the settings; the last may be done twice.
            "    for r in range(first, last, 2):",
            "        one, two = x + r * size * 8, x + min(r + 1, last - 1) * size * 8",
            "        to = y + r * settings * 8",
            "        too = y + min(r + 1, last - 1) * settings * 8",
            *("        " + line for line in inner),
        ]

    def _matrix(self) -> list[str]:
        n = self.shape.lanes
        wide = POINTS * 8
        tile = [(u, v) for u in range(4) for v in range(2)]
        return [
            "    turned = scratch + slot * scratch_slot",
            f"    apart = turned + size * {wide}",
            f"    found = apart + size * {wide}",
            "    rows = (size + 3) // 4 * 4",
            f"    for r in range(first, last, {POINTS}):",
            f"        few = min({POINTS}, last - r)",
            f"        for p in range({POINTS}):",
            "            at = x + (r + min(p, few - 1)) * size * 8",
            "            for d in range(size):",
            f"                store_f64(turned + d * {wide} + p * 8, load_f64(at + d * 8))",
            "        for c in range(settings):",
            "            own = ready + c * (8 + size + rows * size) * 8",
            "            constant = spread(load_f64(own))",
            "            for d in range(size):",
            "                mu = spread(load_f64(own + 64 + d * 8))",
            f"                at = d * {wide}",
            *(f"                store(apart + at + {o}, load(turned + at + {o}) - mu)"
              for o in range(0, wide, n * 8)),
            "            white = own + 64 + size * 8",
            f"            for o in range(0, {wide}, {2 * n * 8}):",
            "                q0, q1 = constant, constant",
            "                for i in range(0, size, 4):",
            *(f"                    a{u}_{v} = zero" for u, v in tile),
            "                    w, at = white + i * size * 8, apart + o",
            "                    for _ in range(min(i + 4, size)):",
            f"                        d0, d1 = load(at), load(at + {n * 8})",
            *(line for u in range(4) for line in (
                f"                        k = spread(load_f64(w + {u} * size * 8))",
                f"                        a{u}_0 = fma(k, d0, a{u}_0)",
                f"                        a{u}_1 = fma(k, d1, a{u}_1)",
            )),
            "                        w += 8",
            f"                        at += {wide}",
            *(f"                    q{v} = fma(-a{u}_{v}, a{u}_{v}, q{v})" for u, v in tile),
            f"                store(found + c * {wide} + o, q0)",
            f"                store(found + c * {wide} + o + {n * 8}, q1)",
            "        for p in range(few):",
            "            to = y + (r + p) * settings * 8",
            "            for c in range(settings):",
            f"                store_f64(to + c * 8, load_f64(found + c * {wide} + p * 8))",
        ]  # fmt: skip


ROWS = {"PrepareKernel": PREPARE_WORDS, "DensitiesKernel": WORDS}
"""Words by kernel."""
