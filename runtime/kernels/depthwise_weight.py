"""The gradient of depthwise weights on 16-channel blocks: each channel's own products of planes.

A task is a run of output rows of one block over some images; its sums go to a place of their own
and are added in order afterwards (``batch_norm.ChannelTotalKernel`` does the same for channels).
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = [
    "x", "d", "y", "x_image", "x_block", "d_image", "d_block", "blocks", "images", "splits",
    "share", "height", "width", "rows", "columns", "taps_y", "stride_y", "dilation_y", "pad_top",
    "pad_left",
]  # fmt: skip
"""A task is ``(block, split)`` of ``share`` images, the split fastest; ``y`` takes
[blocks, splits, taps, 16]."""


@dataclass(frozen=True)
class DepthwiseWeightKernel:
    """Taps, stride and dilation of a row are unrolled."""

    taps: int
    stride: int
    dilation: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"depthwise_weight_k{self.taps}s{self.stride}d{self.dilation}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        parts, wide = tile.vectors(self.width), self.width * 4
        sums = [(j, v) for j in range(self.taps) for v in range(parts)]
        clear = [
            f"        store(sums + tap * 64, spread(float32(0.0)), {v * wide})"
            for v in range(parts)
        ]
        lines = [
            f'"""Gradient of depthwise weights, {self.taps} taps a row."""',
            "from numba import float32, int64",
            "from tilth.runtime.simd import (",
            f"    fma, load_i64, store, load{self.width} as load, spread{self.width} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    block = task // splits",
            "    first = task % splits * share",
            "    last = min(first + share, images)",
            f"    sums = y + task * taps_y * {self.taps * 64}",
            f"    for tap in range(taps_y * {self.taps}):",
            *clear,
            f"    left = min((pad_left + {self.stride - 1}) // {self.stride}, columns)",
            f"    right = (width - {1 + self.dilation * (self.taps - 1)} + pad_left"
            f" + {self.stride}) // {self.stride}",
            "    right = max(min(right, columns), left)",
            "    for image in range(first, last):",
            "        source = x + image * x_image + block * x_block",
            "        slopes = d + image * d_image + block * d_block",
            "        for line in range(rows):",
            "            for i in range(taps_y):",
            "                level = line * stride_y - pad_top + i * dilation_y",
            "                if level < 0 or level >= height:",
            "                    continue",
            f"                place = sums + i * {self.taps * 64}",
            *[f"                a{j}_{v} = load(place, {j * 64 + v * wide})" for j, v in sums],
            "                above = source + (level * width - pad_left) * 64",
            "                beside = slopes + line * columns * 64",
            "                for column in range(left):",
            *self._edge(),
            f"                xp = above + left * {self.stride * 64}",
            "                dp = beside + left * 64",
            "                for _ in range(left, right):",
            *[f"                    d{v} = load(dp, {v * wide})" for v in range(parts)],
            *[f"                    a{j}_{v} = fma(load(xp, {j * self.dilation * 64 + v * wide}), "
              f"d{v}, a{j}_{v})" for j, v in sums],
            f"                    xp += {self.stride * 64}",
            "                    dp += 64",
            "                for column in range(right, columns):",
            *self._edge(),
            *[f"                store(place, a{j}_{v}, {j * 64 + v * wide})" for j, v in sums],
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _edge(self) -> list[str]:
        """A pixel whose window hangs over the left or right edge."""
        parts, wide = tile.vectors(self.width), self.width * 4
        rows = [f"start = column * {self.stride} - pad_left"]
        for j in range(self.taps):
            rows.append(f"if start + {j * self.dilation} >= 0 and "
                        f"start + {j * self.dilation} < width:")  # fmt: skip
            rows.append(f"    at = above + column * {self.stride * 64} + {j * self.dilation * 64}")
            rows += [f"    a{j}_{v} = fma(load(at, {v * wide}), "
                     f"load(beside + column * 64, {v * wide}), a{j}_{v})"
                     for v in range(parts)]  # fmt: skip
        return ["                    " + line for line in rows]


SUM_WORDS = ["x", "y", "splits", "taps", "channels"]
"""``x`` are the sums of splits, ``y`` takes the weights, [channels, taps]; a task is a block."""


@dataclass(frozen=True)
class DepthwiseSumKernel:
    """The splits' sums as weights."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"depthwise_weight_sum_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Sums of all splits as depthwise weights."""',
            "from numba import float32, int64",
            "from tilth.runtime.simd import load_f32, load_i64, store_f32",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(SUM_WORDS),
            "    for lane in range(min(16, channels - task * 16)):",
            "        for tap in range(taps):",
            "            at = x + (task * splits * taps + tap) * 64 + lane * 4",
            "            total = 0.0",
            "            for _ in range(splits):",
            "                total += load_f32(at)",
            "                at += taps * 64",
            "            store_f32(y + ((task * 16 + lane) * taps + tap) * 4, float32(total))",
        ]
        return "\n".join(lines) + "\n"


ROWS = {"DepthwiseSumKernel": SUM_WORDS}
"""Rows of the kernels that do not have ``WORDS``."""
