"""Pooling of blocked images [C/16, N, H, W, 16]: windows, and whole planes to [N, C].

A task is one plane (a block of one image).
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = [
    "x", "y", "x_plane", "y_plane", "height", "width", "rows", "columns", "kernel_y", "kernel_x",
    "stride_y", "stride_x", "pad_top", "pad_left", "pad_bottom", "pad_right", "dilation_y",
    "dilation_x", "count_pad", "images", "channels", "scratch",
    "scratch_slot",
]  # fmt: skip
"""The row; ``*_plane`` are byte strides. ``count_pad`` counts padding in an average."""


@dataclass(frozen=True)
class WindowKernel:
    """Max or average over windows; ``kind`` is ``max`` or ``mean``."""

    kind: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"pool_{self.kind}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        parts = tile.vectors(self.width)
        wide = self.width * 4
        start = "float32(-np.inf)" if self.kind == "max" else "float32(0.0)"
        body = []
        for v in range(parts):
            body.append(f"            a{v} = spread({start})")
        body += [
            "            for ky in range(first_y, last_y):",
            "                line = source + (top + ky * dilation_y) * width * 64",
            "                at = line + (left + first_x * dilation_x) * 64",
            "                for _ in range(first_x, last_x):",
        ]
        for v in range(parts):
            value = f"load(at + {v * wide})"
            joined = f"vmax({value}, a{v})" if self.kind == "max" else f"a{v} + {value}"
            body.append(f"                    a{v} = {joined}")
        body.append("                    at += dilation_x * 64")
        for v in range(parts):
            scaled = f"a{v}" if self.kind == "max" else f"a{v} * share"
            body.append(f"            store(to + {v * wide}, {scaled})")
        share = []
        if self.kind == "mean":
            share = [
                "            if count_pad != 0:",
                "                high = min(top + kernel_y, height + pad_bottom) - top",
                "                across = min(left + kernel_x, width + pad_right) - left",
                "                count = high * across",
                "            else:",
                "                count = (last_y - first_y) * (last_x - first_x)",
                "            share = spread(float32(1.0) / float32(max(count, 1)))",
            ]
        lines = [
            f'"""Pooling by {self.kind} over windows."""',
            "import numpy as np",
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    source = x + task * x_plane",
            "    to = y + task * y_plane",
            "    for oy in range(rows):",
            "        top = oy * stride_y - pad_top",
            "        first_y = (max(0, -top) + dilation_y - 1) // dilation_y",
            "        last_y = min(kernel_y, (height - top + dilation_y - 1) // dilation_y)",
            "        for ox in range(columns):",
            "            left = ox * stride_x - pad_left",
            "            first_x = (max(0, -left) + dilation_x - 1) // dilation_x",
            "            last_x = min(kernel_x, (width - left + dilation_x - 1) // dilation_x)",
            *share,
            *body,
            "            to += 64",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class PlaneKernel:
    """Max or mean over whole planes to a flat [N, C]; ``kind`` is ``max`` or ``mean``."""

    kind: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"plane_{self.kind}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        parts = tile.vectors(self.width)
        wide = self.width * 4
        start = "float32(-np.inf)" if self.kind == "max" else "float32(0.0)"
        rows = [f"    a{u}_{v} = spread({start})" for u in range(4) for v in range(parts)]
        step = []
        for u in range(4):
            for v in range(parts):
                step.append("        " + self._join(f"a{u}_{v}", f"load(at + {u * 64 + v * wide})"))
        rest = ["        " + self._join(f"a0_{v}", f"load(at + {v * wide})") for v in range(parts)]
        last = []
        for v in range(parts):
            for u in (1, 2, 3):
                last.append("    " + self._join(f"a0_{v}", f"a{u}_{v}"))
            if self.kind == "mean":
                last.append(f"    a0_{v} = a0_{v} * spread(float32(1.0) / float32(pixels))")
            last.append(f"    store(hold + {v * wide}, a0_{v})")
        lines = [
            f'"""{self.kind} over whole planes."""',
            "import numpy as np",
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    at = x + task * x_plane",
            "    hold = scratch + slot * scratch_slot",
            "    pixels = height * width",
            *rows,
            "    for _ in range(pixels // 4):",
            *step,
            "        at += 256",
            "    for _ in range(pixels % 4):",
            *rest,
            "        at += 64",
            *last,
            "    block = task // images",
            "    to = y + ((task % images) * channels + block * 16) * 4",
            "    for lane in range(min(16, channels - block * 16)):",
            "        store_f32(to + lane * 4, load_f32(hold + lane * 4))",
        ]
        return "\n".join(lines) + "\n"

    def _join(self, name: str, value: str) -> str:
        if self.kind == "max":
            return f"{name} = vmax({value}, {name})"
        return f"{name} = {name} + {value}"
