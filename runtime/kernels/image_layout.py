"""Between row-major NCHW and blocked [C/16, N, H, W, 16]; a task is one plane (block, image)."""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = ["x", "y", "images", "channels", "pixels", "plane", "table"]
"""The row; ``plane`` is the blocked side's byte stride."""


@dataclass(frozen=True)
class LayoutKernel:
    """``to_blocked`` writes zeros to the pad lanes; the other way drops them."""

    to_blocked: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"layout_{'to' if self.to_blocked else 'from'}_blocked_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        if self.to_blocked:
            body = [
                "        for pixel in range(pixels):",
                "            to = y + task * plane + pixel * 64 + lane * 4",
                "            if channel < channels:",
                "                store_f32(to, load_f32(flat + pixel * 4))",
                "            else:",
                "                store_f32(to, float32(0.0))",
            ]
            base = "x"
        else:
            body = [
                "        if channel < channels:",
                "            for pixel in range(pixels):",
                "                at = x + task * plane + pixel * 64 + lane * 4",
                "                store_f32(flat + pixel * 4, load_f32(at))",
            ]
            base = "y"
        lines = [
            '"""Blocked images to row-major ones or back."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    image = task % images",
            "    block = task // images",
            "    for lane in range(16):",
            "        channel = block * 16 + lane",
            f"        flat = {base} + (image * channels + channel) * pixels * 4",
            *body,
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class CopyKernel:
    """Copies ``pixels`` float32 values."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"copy_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Copy of float32 values."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    for i in range(pixels):",
            "        store_f32(y + i * 4, load_f32(x + i * 4))",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class GatherKernel:
    """One channel of blocked images from anywhere; a task is a channel, ``table`` its offset."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"gather_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Channels of blocked images from anywhere."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    at = x + load_i64(table + task * 8)",
            "    to = y + (task // 16) * plane + (task % 16) * 4",
            "    for pixel in range(pixels):",
            "        store_f32(to + pixel * 64, load_f32(at + pixel * 64))",
        ]
        return "\n".join(lines) + "\n"
