"""Channels of blocked images gathered where a channel map cannot be read in place."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["x", "y", "table", "y_block", "pixels"]
"""``table`` holds each channel's byte offset from ``x``; a task is a channel, ``pixels`` counts
those of all images (blocks lie block-major)."""


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
            "    at = x + load_i64(table + task * 8)",
            "    to = y + (task // 16) * y_block + (task % 16) * 4",
            "    for pixel in range(pixels):",
            "        store_f32(to + pixel * 64, load_f32(at + pixel * 64))",
        ]
        return "\n".join(lines) + "\n"
