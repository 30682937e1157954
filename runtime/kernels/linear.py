"""Dense layers: y[N, K] = x[N, C] W^T + b with a clamp, weights packed in panels of blocks.

A tile is ``rows`` rows of x times ``blocks`` blocks of 16 outputs in registers; each weight vector
is read once for all rows of the tile. The input is flat, or a blocked tensor read in the order it
lies in memory: then the weights' columns are permuted once when they are packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tile

WORDS = [
    "x", "w", "bias", "y", "residual", "x_row", "y_row", "row_groups", "group_rows", "rows",
    "outputs", "panel_bytes", "length", "tails", "tail_length", "low_bits", "high_bits",
]  # fmt: skip
"""``x_row`` and ``y_row`` are byte strides of a row; a task is ``(panel, group of rows)``, the
group fastest. A row of x is ``length`` floats on end, then ``tails`` pixels 64 bytes apart of which
``tail_length`` floats count (the last, partial block of a blocked tensor; 0 tails for flat x)."""


def pack(weight: np.ndarray, blocks: int) -> np.ndarray:
    """Weights [K, C] as [ceil(K / (16 * blocks)), C, 16 * blocks] float32, zero beyond K."""
    k, c = weight.shape
    wide = tile.BLOCK * blocks
    panels = -(-k // wide)
    full = np.zeros((panels * wide, c), np.float32)
    full[:k] = weight
    return np.ascontiguousarray(full.reshape(panels, wide, c).transpose(0, 2, 1))


def pack_blocked(weight: np.ndarray, blocks: int, channels: int) -> np.ndarray:
    """As :func:`pack`, for x flattened from [channels, pixels] but read as it lies in blocks.

    The order becomes block, pixel, channel; channels beyond the last are not read at all, since pad
    lanes may hold anything.
    """
    c = weight.shape[1]
    pixels = c // channels
    order = np.arange(c).reshape(channels, pixels)
    whole = channels // tile.BLOCK * tile.BLOCK
    parts = [order[:whole].reshape(-1, tile.BLOCK, pixels).transpose(0, 2, 1).reshape(-1),
             order[whole:].T.reshape(-1)]  # fmt: skip
    return pack(weight[:, np.concatenate(parts)], blocks)


def reading(channels: int, pixels: int = 1, blocked: bool = False) -> tuple[int, int, int]:
    """``(length, tails, tail_length)`` of a row of x with ``channels * pixels`` features."""
    if not blocked:
        return channels * pixels, 0, 0
    whole, rest = divmod(channels, tile.BLOCK)
    return whole * tile.BLOCK * pixels, pixels if rest else 0, rest


def tile_shape(rows: int, outputs: int, width: int) -> tuple[int, int]:
    """``(rows, blocks)`` of the register tile: four blocks for a few rows, two for many."""
    budget = 28 if width == 16 else 12
    needed = -(-outputs // tile.BLOCK)
    for blocks in (4, 2, 1):
        vectors = blocks * tile.vectors(width)
        if blocks <= max(needed, 1) and vectors * rows <= budget:
            return rows, blocks
    blocks = min(2 if width == 16 else 1, needed)
    most = max(1, budget // (blocks * tile.vectors(width)))
    groups = -(-rows // most)
    return -(-rows // groups), blocks


def division(rows: int, tile_rows: int) -> tuple[int, int]:
    """``(row groups, rows of a group)``: a few tiles high, so that weights are reused."""
    group_rows = min(rows, max(tile_rows, 64 // tile_rows * tile_rows))
    return -(-rows // group_rows), group_rows


def tasks(outputs: int, blocks: int, row_groups: int) -> int:
    """How many tasks a dense layer has."""
    return -(-outputs // (tile.BLOCK * blocks)) * row_groups


@dataclass(frozen=True)
class LinearKernel:
    """A dense layer with a register tile of ``rows`` x ``blocks``; needs at least ``rows`` rows.

    ``tailed`` kernels read a blocked input whose last block is partial.
    """

    rows: int
    blocks: int
    tailed: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        tail = "_tailed" if self.tailed else ""
        return f"linear_{self.rows}x{self.blocks}{tail}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        regs = self.blocks * tile.vectors(self.width)
        wide = self.width * 4
        low, high = (8 * WORDS.index(name) for name in ("low_bits", "high_bits"))
        bias = [f"    i{v} = load(bias + panel * {self.blocks * 64}, {v * wide})"
                for v in range(regs)]  # fmt: skip
        lines = [
            f'"""Dense layer, {self.rows} rows x {self.blocks} blocks."""',
            "from numba import float32",
            "from tilth.runtime.kernels.masks import load_first"
            f"{self.width} as load_first, store_first",
            "from tilth.runtime.simd import (",
            f"    fma, load_f64, load_i64, vmax, vmin, load{self.width} as load,",
            f"    spread{self.width} as spread, spread_from{self.width} as spread_from,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            f"    low = spread(float32(load_f64(row, {low})))",
            f"    high = spread(float32(load_f64(row, {high})))",
            "    panel = task // row_groups",
            "    first = task % row_groups * group_rows",
            "    last = min(first + group_rows, rows)",
            *bias,
            *(f"    step{p} = {p} * x_row" for p in range(1, self.rows)),
            f"    for level in range(first, last, {self.rows}):",
            # The last tile of a group overlaps the one before it.
            f"        base = max(min(level, last - {self.rows}), 0)",
            "        xp = x + base * x_row",
            "        wp = w + panel * panel_bytes",
            *tile.set_to(self.rows, self.blocks, self.width, "i", 8),
            *self._multiply("length", 8),
            *self._tails(),
            *self._store(),
        ]
        return "\n".join(lines) + "\n"

    def _multiply(self, count: str, indent: int) -> list[str]:
        pad = " " * indent
        regs = self.blocks * tile.vectors(self.width)
        rows = [f"{pad}for _ in range({count}):"]
        rows += [f"{pad}    w{v} = load(wp, {v * self.width * 4})" for v in range(regs)]
        for p in range(self.rows):
            at = f"xp + step{p}" if p else "xp"
            rows.append(f"{pad}    b = spread_from({at})")
            rows += [f"{pad}    a{p}_{v} = fma(b, w{v}, a{p}_{v})" for v in range(regs)]
        return [*rows, f"{pad}    wp += {self.blocks * 64}", f"{pad}    xp += 4"]

    def _tails(self) -> list[str]:
        if not self.tailed:
            return []
        return [
            "        for _ in range(tails):",
            "            xt = xp",
            *self._multiply("tail_length", 12),
            "            xp = xt + 64",
        ]

    def _store(self) -> list[str]:
        n = self.width
        rows = []
        for v in range(self.blocks * tile.vectors(n)):
            rows += [
                f"        left = outputs - panel * {self.blocks * 16} - {v * n}",
                "        if left > 0:",
                f"            left = min(left, {n})",
                f"            to = base * y_row + panel * {self.blocks * 64} + {v * n * 4}",
            ]
            for p in range(self.rows):
                rows += [
                    "            if residual != 0:",
                    f"                a{p}_{v} = a{p}_{v} + load_first(residual + to, left)",
                    f"            store_first(y + to, vmin(vmax(a{p}_{v}, low), high), left)",
                    "            to += y_row",
                ]
        return rows
