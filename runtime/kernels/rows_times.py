"""Products with a matrix as it lies in memory, [K, C] row-major, for few rows: nothing is packed.

What a dense layer does in a training step: ``y = x W' + b`` forward, ``y = d W`` back to its input,
and ``W = d' x``, the gradient of the matrix. Every one reads or writes the matrix once, in the
order it lies, and keeps the few rows in cache; large matrices are bound by memory.
"""

from __future__ import annotations

from dataclasses import dataclass

DOT_WORDS = [
    "x", "w", "y", "bias", "x_row", "w_row", "y_row", "rows", "outputs", "share", "depth",
    "low_bits", "high_bits",
]  # fmt: skip
"""``*_row`` are byte strides; ``bias`` may be 0; a task is ``share`` outputs."""

FEW = 4
"""Rows of x of a register tile."""

OUTPUTS = 16
"""Outputs of a task of the forward product, as a rule."""

WIDE = 1024
"""Columns of a task of the other two."""


def share_of(columns: int, threads: int) -> int:
    """Columns of a task of the product back: few enough tasks to stream, enough for all threads."""
    return min(WIDE, max(64, -(-columns // (4 * threads) // 64) * 64))


def _imports(width: int) -> list[str]:
    return [
        "from numba import float32, int64",
        f"from tilth.runtime.kernels.masks import load_first{width} as load_first, store_first",
        "from tilth.runtime.simd import (",
        "    fma, load_f32, load_f64, load_i64, store, store_f32, sum_lanes,",
        f"    load{width} as load, spread{width} as spread,",
        ")",
        "",
        "",
        "def kernel(row, task, slot):",
    ]


def _words(names: list[str]) -> list[str]:
    return [f"    {name} = load_i64(row + {8 * place})" for place, name in enumerate(names)]


@dataclass(frozen=True)
class DotKernel:
    """``y[n, k] = clamp(sum over c of x[n, c] w[k, c] + bias[k])``: the forward product."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"rows_dot_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        low, high = (8 * DOT_WORDS.index(name) for name in ("low_bits", "high_bits"))
        body, end = [], []
        for tail in (False, True):
            get = "load_first({}, left)" if tail else "load({})"
            pad = " " * (20 if tail else 24)
            rows = [f"v = {get.format('wp')}"]
            rows += [f"u{n} = {get.format(f'x{n}')}" for n in range(FEW)]
            rows += [f"a{n} = fma(u{n}, v, a{n})" for n in range(FEW)]
            (end if tail else body).extend(pad + line for line in rows)
        moves = [f"{' ' * 24}x{n} += {self.width * 4}" for n in range(FEW)]
        stores = []
        for n in range(FEW):
            stores += [
                f"                if base + {n} < rows:",
                f"                    value = sum_lanes(a{n}) + start",
                "                    value = min(max(value, low), high)",
                f"                    store_f32(y + (base + {n}) * y_row + k * 4, value)",
            ]
        lines = [
            '"""A few rows times the rows of a matrix."""',
            *_imports(self.width),
            *_words(DOT_WORDS),
            f"    low = float32(load_f64(row + {low}))",
            f"    high = float32(load_f64(row + {high}))",
            "    first = task * share",
            "    last = min(first + share, outputs)",
            f"    left = depth % {self.width}",
            "    for k in range(first, last):",
            "            start = float32(0.0)",
            "            if bias != 0:",
            "                start = load_f32(bias + k * 4)",
            f"            for base in range(0, rows, {FEW}):",
            "                wp = w + k * w_row",
            *[f"                x{n} = x + min(base + {n}, rows - 1) * x_row" for n in range(FEW)],
            *[f"                a{n} = spread(float32(0.0))" for n in range(FEW)],
            f"                for _ in range(depth // {self.width}):",
            *body,
            *moves,
            f"{' ' * 24}wp += {self.width * 4}",
            "                if left > 0:",
            *end,
            *stores,
        ]
        return "\n".join(lines) + "\n"


BACK_WORDS = [
    "d", "w", "y", "d_row", "w_row", "y_row", "rows", "columns", "share", "depth",
]  # fmt: skip
"""A task is ``share`` columns of y."""

DEEP = 4
"""Rows of the matrix that are taken together."""


@dataclass(frozen=True)
class BackKernel:
    """``y[n, c] = sum over k of d[n, k] w[k, c]``: back to the input of a dense layer."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"rows_back_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.width * 4
        lines = [
            '"""A few rows times the columns of a matrix."""',
            *_imports(self.width),
            *_words(BACK_WORDS),
            "    first = task * share",
            "    count = min(columns - first, share)",
            "    for n in range(rows):",
            "        at = y + n * y_row + first * 4",
            "        for _ in range(count):",
            "            store_f32(at, float32(0.0))",
            "            at += 4",
            f"    whole = depth // {DEEP} * {DEEP}",
            f"    for k in range(0, whole, {DEEP}):",
            *self._rows(DEEP, wide, "k"),
            "    for k in range(whole, depth):",
            *self._rows(1, wide, "k"),
        ]
        return "\n".join(lines) + "\n"

    def _rows(self, deep: int, wide: int, k: str) -> list[str]:
        """Some rows of the matrix times their factors, added to all rows of y."""
        names = range(deep)
        rows = [
            "        for n in range(rows):",
            f"            factor = d + n * d_row + {k} * 4",
            *[f"            f{i} = spread(load_f32(factor + {i * 4}))" for i in names],
            *[f"            w{i} = w + ({k} + {i}) * w_row + first * 4" for i in names],
            "            at = y + n * y_row + first * 4",
            f"            for _ in range(count // {self.width}):",
            "                a = load(at)",
            *[f"                a = fma(load(w{i}), f{i}, a)" for i in names],
            "                store(at, a)",
            f"                at += {wide}",
            *[f"                w{i} += {wide}" for i in names],
            f"            left = count % {self.width}",
            "            if left > 0:",
            "                a = load_first(at, left)",
            *[f"                a = fma(load_first(w{i}, left), f{i}, a)" for i in names],
            "                store_first(at, a, left)",
        ]
        return rows


OUTER_WORDS = [
    "d", "x", "y", "d_row", "x_row", "y_row", "rows", "outputs", "columns", "share", "shares",
    "each",
]  # fmt: skip
"""A task is ``(each outputs, share columns)``, the columns fastest."""


@dataclass(frozen=True)
class OuterKernel:
    """``y[k, c] = sum over n of d[n, k] x[n, c]``: the gradient of a dense layer's matrix."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"rows_outer_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.width * 4
        lines = [
            '"""The sum of a few outer products."""',
            *_imports(self.width),
            *_words(OUTER_WORDS),
            "    first = task % shares * share",
            "    count = min(columns - first, share)",
            "    top = task // shares * each",
            f"    left = count % {self.width}",
            "    for k in range(top, min(top + each, outputs)):",
            f"        for base in range(0, rows, {FEW}):",
            *[f"            f{n} = spread(float32(0.0))" for n in range(FEW)],
            *[f"            x{n} = x + min(base + {n}, rows - 1) * x_row + first * 4"
              for n in range(FEW)],
            *[line for n in range(FEW) for line in (
                f"            if base + {n} < rows:",
                f"                f{n} = spread(load_f32(d + (base + {n}) * d_row + k * 4))",
            )],
            "            at = y + k * y_row + first * 4",
            f"            for _ in range(count // {self.width}):",
            "                a = f0 * load(x0)",
            *[f"                a = fma(f{n}, load(x{n}), a)" for n in range(1, FEW)],
            "                if base > 0:",
            "                    a = a + load(at)",
            "                store(at, a)",
            f"                at += {wide}",
            *[f"                x{n} += {wide}" for n in range(FEW)],
            "            if left > 0:",
            "                a = f0 * load_first(x0, left)",
            *[f"                a = fma(f{n}, load_first(x{n}, left), a)" for n in range(1, FEW)],
            "                if base > 0:",
            "                    a = a + load_first(at, left)",
            "                store_first(at, a, left)",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


ROWS = {"DotKernel": DOT_WORDS, "BackKernel": BACK_WORDS, "OuterKernel": OUTER_WORDS}
"""The rows' words."""
