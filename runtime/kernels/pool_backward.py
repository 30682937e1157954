"""The cotangent of max pooling's input, and images spread apart for strided convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = [
    "x", "y", "d", "goal", "x_image", "x_block", "y_image", "y_block", "d_image", "d_block",
    "goal_image", "goal_block", "blocks", "height", "width", "rows", "columns", "taps_y", "taps_x",
    "stride_y", "stride_x", "dilation_y", "dilation_x", "pad_top", "pad_left",
]  # fmt: skip
"""``*_image`` and ``*_block`` are byte strides, ``rows`` and ``columns`` those of the pool's
result; a task is ``(image, block)``, the block fastest."""


@dataclass(frozen=True)
class MaxPoolBackwardKernel:
    """Every cotangent to the first of its window's elements that the maximum is, or the first NaN.

    Where the maximum stood is found again: that reads x and y instead of a saved array of places.
    """

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"maxpool_backward_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.width * 4
        clear = [f"        store(at, zero, {v * wide})" for v in range(tile.vectors(self.width))]
        lines = [
            '"""Cotangents of maxima to where they stood."""',
            "from numba import float32, int64",
            "from tilth.runtime.kernels.masks import pick",
            "from tilth.runtime.simd import (",
            f"    load_i64, store, load{self.width} as load, spread{self.width} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    image = task // blocks",
            "    block = task % blocks",
            "    zero = spread(float32(0.0))",
            "    source = x + image * x_image + block * x_block",
            "    target = goal + image * goal_image + block * goal_block",
            "    at = target",
            "    for _ in range(height * width):",
            *clear,
            "        at += 64",
            "    for line in range(rows):",
            "        top = line * stride_y - pad_top",
            "        above = y + image * y_image + block * y_block + line * columns * 64",
            "        slopes = d + image * d_image + block * d_block + line * columns * 64",
            "        for column in range(columns):",
            "            left = column * stride_x - pad_left",
            f"            for lane in range(0, 64, {wide}):",
            "                best = load(above + lane)",
            "                rest = load(slopes + lane)",
            "                for i in range(taps_y):",
            "                    level = top + i * dilation_y",
            "                    if level < 0 or level >= height:",
            "                        continue",
            "                    for j in range(taps_x):",
            "                        across = left + j * dilation_x",
            "                        if across < 0 or across >= width:",
            "                            continue",
            "                        spot = (level * width + across) * 64 + lane",
            "                        value = load(source + spot)",
            "                        hit = (value == best) | (value != value)",
            "                        share = pick(hit, rest, zero)",
            "                        store(target + spot, load(target + spot) + share)",
            "                        rest = pick(hit, zero, rest)",
            "            above += 64",
            "            slopes += 64",
        ]
        return "\n".join(lines) + "\n"


SPREAD_WORDS = [
    "x", "y", "residual", "x_image", "x_block", "y_image", "y_block", "residual_image",
    "residual_block", "blocks", "height", "width", "rows", "columns", "stride_y", "stride_x",
]  # fmt: skip
"""As ``WORDS``; ``residual`` may be 0."""


@dataclass(frozen=True)
class SpreadKernel:
    """Pixels ``stride`` apart with zeros between them, and a residual added."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"spread_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.width * 4
        parts = range(tile.vectors(self.width))
        lines = [
            '"""Pixels apart, zeros between them."""',
            "from numba import float32, int64",
            "from tilth.runtime.simd import (",
            f"    load_i64, store, load{self.width} as load, spread{self.width} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(SPREAD_WORDS),
            "    image = task // blocks",
            "    block = task % blocks",
            "    zero = spread(float32(0.0))",
            "    to = y + image * y_image + block * y_block",
            "    beside = residual + image * residual_image + block * residual_block",
            "    source = x + image * x_image + block * x_block",
            "    for line in range(rows):",
            "        level = line // stride_y",
            "        filled = line % stride_y == 0 and level < height",
            "        at = source + level * width * 64",
            "        turn = 0",
            "        left = width",
            "        for _ in range(columns):",
            *[f"            a{v} = zero" for v in parts],
            "            if filled and turn == 0 and left > 0:",
            *[f"                a{v} = load(at, {v * wide})" for v in parts],
            "                at += 64",
            "                left -= 1",
            "            turn += 1",
            "            if turn == stride_x:",
            "                turn = 0",
            "            if residual != 0:",
            *[f"                a{v} = a{v} + load(beside, {v * wide})" for v in parts],
            *[f"            store(to, a{v}, {v * wide})" for v in parts],
            "            beside += 64",
            "            to += 64",
        ]
        return "\n".join(lines) + "\n"


def tasks(images: int, blocks: int) -> int:
    """How many tasks the kernels here have."""
    return images * blocks


ROWS = {"SpreadKernel": SPREAD_WORDS}
"""Rows of the kernels that do not have ``WORDS``."""
