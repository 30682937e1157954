"""Channels of blocked images gathered where a channel map cannot be read in place."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["x", "y", "table", "y_block", "pixels", "channels", "groups"]
"""``table`` holds each channel's byte offset from ``x``; ``pixels`` counts those of all images
(blocks lie block-major); a task is ``(block of y, group of 64 pixels)``."""

PIXELS = 64
"""Pixels of a task: what it writes stays in the first-level cache until all lanes are there."""

TOGETHER = 4
"""Pixels that share a look into the table."""


def tasks(channels: int, pixels: int) -> tuple[int, int]:
    """``(tasks, groups of pixels)``."""
    groups = -(-pixels // PIXELS)
    return -(-channels // tile.BLOCK) * groups, groups


@dataclass(frozen=True)
class ChannelGatherKernel:
    """Copies channels into blocks of their own; pad lanes of the last block keep what they hold."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"gather_channels_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Channels of blocked images from anywhere."""',
            "from tilth.runtime.simd import load_f32, load_i64, store_f32",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    block = task // groups",
            f"    first = task % groups * {PIXELS}",
            f"    count = min({PIXELS}, pixels - first)",
            f"    lanes = min({tile.BLOCK}, channels - block * {tile.BLOCK})",
            f"    offsets = table + block * {8 * tile.BLOCK}",
            "    to = y + block * y_block + first * 64",
            "    x += first * 64",
            f"    for _ in range(count // {TOGETHER}):",
            *_pixels(TOGETHER),
            f"    for _ in range(count % {TOGETHER}):",
            *_pixels(1),
        ]
        return "\n".join(lines) + "\n"


def _pixels(count: int) -> list[str]:
    """All lanes of neighbouring pixels."""
    return [
        "        for lane in range(lanes):",
        "            at = x + load_i64(offsets + lane * 8)",
        *[
            f"            store_f32(to + lane * 4 + {p * 64}, load_f32(at + {p * 64}))"
            for p in range(count)
        ],
        f"        x += {count * 64}",
        f"        to += {count * 64}",
    ]
