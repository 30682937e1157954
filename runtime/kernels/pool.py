"""Pooling on 16-channel blocks: windows of fixed size, adaptive cells, whole images."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile, window
from .window import Window

# ---------------------------------------------------------------- windows of fixed size

WORDS = [*window.WORDS, "pad_bottom", "pad_right"]
"""The shared words (``window``), then the padding at the far edges, which only an average that
counts padding looks at; an overhanging window of ceil mode counts nothing beyond it."""


@dataclass(frozen=True)
class PoolKernel:
    """Max or average pooling; ``kind`` is ``max``, ``mean`` or ``mean_padded`` (counts padding).

    A maximum starts from -inf, so padding never wins, and NaN wins over all. Averages divide the
    sum by the number of taps, as the reference does.
    """

    kind: str
    window: Window
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        w = self.window
        return f"pool_{self.kind}_k{w.taps}s{w.stride}d{w.dilation}_{w.pixels}px_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        w = self.window
        ahead, together, alone = ['start = spread(float32(float("-inf")))'], [], []
        tap, finish = "{a} = maximum({x}, {a})", ["store(y, {a}, {to})"]
        if self.kind != "max":
            ahead = ["start = spread(float32(0.0))", *self._divisor(w)]
            tap = "{a} = {a} + {x}"
            finish = ["store(y, {a} / divisor, {to})"]
            together, alone = ["divisor = full"], self._divisor_alone()
        lines = [
            f'"""Pooling ({self.kind}), {w.taps} taps a row, stride {w.stride}."""',
            *window.header(self.width),
            *tile.words(WORDS),
            *window.prologue(w),
            *window.loops(w, self.width, ahead, tap, finish, together, alone),
        ]
        return "\n".join(lines) + "\n"

    def _divisor(self, w: Window) -> list[str]:
        """Of a tile, whose taps along the row are all inside."""
        count = "last_tap - first_tap"
        if self.kind == "mean_padded":
            count = "min(top + taps_y, height + pad_bottom) - top"
        return [f"tall = {count}", f"full = spread(float32(tall * {w.taps}))"]

    def _divisor_alone(self) -> list[str]:
        count = "last - first"
        if self.kind == "mean_padded":
            count = f"min(start_x + {self.window.taps}, width + pad_right) - start_x"
        return [f"divisor = spread(float32(tall * ({count})))"]


# ---------------------------------------------------------------- adaptive cells

ADAPTIVE_WORDS = [
    "x", "y", "x_image", "x_block", "y_image", "y_block", "blocks", "height", "width", "rows",
    "columns",
]  # fmt: skip
"""As ``WORDS``; a task is ``(image, block, output row)``, the row fastest."""


def adaptive_tasks(images: int, blocks: int, rows: int) -> int:
    """How many tasks an adaptive pool has."""
    return images * blocks * rows


@dataclass(frozen=True)
class AdaptivePoolKernel:
    """Cell i of ``size`` spans floor(i * H / size) to ceil((i + 1) * H / size)."""

    kind: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"pool_adaptive_{self.kind}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        mean = self.kind == "mean"
        start = "0.0" if mean else 'float("-inf")'
        lines = [
            f'"""Adaptive pooling ({self.kind})."""',
            *window.header(self.width),
            *tile.words(ADAPTIVE_WORDS),
            "    line = task % rows",
            "    image = task // rows // blocks",
            "    block = task // rows % blocks",
            "    source = x + image * x_image + block * x_block",
            "    target = y + image * y_image + block * y_block + line * columns * 64",
            "    first = line * height // rows",
            "    last = -(-(line + 1) * height // rows)",
            f"    for lane in range(0, 64, {self.width * 4}):",
            "        for column in range(columns):",
            "            left = column * width // columns",
            "            right = -(-(column + 1) * width // columns)",
            f"            total = spread(float32({start}))",
            "            for level in range(first, last):",
            "                at = source + (level * width + left) * 64 + lane",
            "                for _ in range(left, right):",
            "                    total = total + load(at)"
            if mean
            else "                    total = maximum(load(at), total)",
            "                    at += 64",
        ]
        if mean:
            lines += [
                "            count = (last - first) * (right - left)",
                "            total = total / spread(float32(count))",
            ]
        lines.append("            store(target + column * 64 + lane, total)")
        return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- whole images

GLOBAL_WORDS = ["x", "y", "x_image", "x_block", "y_image", "blocks", "channels", "pixels"]
"""``y`` is flat [N, C] with ``y_image`` bytes an image; a task is ``(image, block)``."""

RUN = 64
"""Pixels that are summed in float32 before they go to the float64 total."""


def global_tasks(images: int, blocks: int) -> int:
    """How many tasks a global pool has."""
    return images * blocks


@dataclass(frozen=True)
class GlobalPoolKernel:
    """Mean (``mean``) or maximum (``max``) of each channel: blocked input, flat [N, C] output.

    The mean is summed in float32 over runs of 64 pixels and in float64 over the runs.
    """

    kind: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"pool_global_{self.kind}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        n = self.width
        lines = [
            f'"""Global pooling ({self.kind})."""',
            "from numba import float32",
            "from tilth.runtime.kernels.masks import store_first",
            "from tilth.runtime.kernels.vector_ops import maximum",
            "from tilth.runtime.simd import (",
            f"    load_i64, narrow, widen, load{n} as load, spread{n} as spread,",
            f"    spread{n}d as spread_wide,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(GLOBAL_WORDS),
            "    image = task // blocks",
            "    block = task % blocks",
            "    source = x + image * x_image + block * x_block",
            "    target = y + image * y_image + block * 64",
            f"    for lane in range(0, 16, {n}):",
            "        left = channels - block * 16 - lane",
            "        if left > 0:",
            "            at = source + lane * 4",
            *(self._mean() if self.kind == "mean" else self._maximum()),
            f"            store_first(target + lane * 4, total, min(left, {n}))",
        ]
        return "\n".join(lines) + "\n"

    def _mean(self) -> list[str]:
        return [
            "            sums = spread_wide(0.0)",
            "            done = 0",
            "            while done < pixels:",
            f"                last = min(done + {RUN}, pixels)",
            "                a = spread(float32(0.0))",
            "                b = a",
            "                for _ in range(done, last - 1, 2):",
            "                    a = a + load(at)",
            "                    b = b + load(at, 64)",
            "                    at += 128",
            "                if (last - done) % 2 == 1:",
            "                    a = a + load(at)",
            "                    at += 64",
            "                sums = sums + widen(a + b)",
            "                done = last",
            "            total = narrow(sums / (pixels * 1.0))",
        ]

    def _maximum(self) -> list[str]:
        return [
            "            total = load(at)",
            "            for _ in range(1, pixels):",
            "                at += 64",
            "                total = maximum(load(at), total)",
        ]


ROWS = {"AdaptivePoolKernel": ADAPTIVE_WORDS, "GlobalPoolKernel": GLOBAL_WORDS}
"""Rows of the kernels that do not have ``WORDS``."""
