"""Depthwise convolution of blocked images [C/16, N, H, W, 16]; a task is a band of one plane.

Columns whose window lies inside are done several at a time; those at the edges one by one with
the taps that exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tile

WORDS = [
    "x", "w", "bias", "y", "residual", "x_plane", "y_plane", "images", "bands", "band_rows",
    "height", "width", "rows", "columns", "kernel_y", "kernel_x", "stride_y", "pad_top",
    "pad_left", "dilation_y", "dilation_x", "low_bits", "high_bits",
]  # fmt: skip
"""The row; ``*_plane`` are byte strides."""


def pack(weight: np.ndarray) -> np.ndarray:
    """Weights [C, 1, kh, kw] as [C/16, kh * kw, 16]."""
    c = weight.shape[0]
    taps = int(np.prod(weight.shape[2:]))
    blocks = -(-c // tile.BLOCK)
    full = np.zeros((blocks * tile.BLOCK, taps), np.float32)
    full[:c] = weight.reshape(c, taps)
    return np.ascontiguousarray(full.reshape(blocks, tile.BLOCK, taps).transpose(0, 2, 1))


@dataclass(frozen=True)
class DepthwiseKernel:
    """Compiled for ``pixels`` neighbouring outputs and a column stride."""

    pixels: int
    stride: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"depthwise_{self.pixels}_s{self.stride}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Depthwise convolution, {self.pixels} outputs at a time, stride {self.stride}."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    low = spread(float32(load_f64(row + %d)))" % (8 * WORDS.index("low_bits")),
            "    high = spread(float32(load_f64(row + %d)))" % (8 * WORDS.index("high_bits")),
            "    band = task % bands",
            "    plane = task // bands",
            "    block = plane // images",
            "    source = x + plane * x_plane",
            "    weights = w + block * kernel_y * kernel_x * 64",
            *self._bias(),
            "    reach = (kernel_x - 1) * dilation_x",
            f"    inner = min(columns, (pad_left + {self.stride - 1}) // {self.stride})",
            f"    outer = min(columns, (width - 1 - reach + pad_left) // {self.stride} + 1)",
            "    outer = max(inner, outer)",
            "    for oy in range(band * band_rows, min((band + 1) * band_rows, rows)):",
            "        top = oy * stride_y - pad_top",
            "        first_y = (max(0, -top) + dilation_y - 1) // dilation_y",
            "        last_y = min(kernel_y, (height - top + dilation_y - 1) // dilation_y)",
            "        goal = plane * y_plane + oy * columns * 64",
            *self._edges("range(0, inner)"),
            *self._middle(),
            *self._edges("range(outer, columns)"),
        ]
        return "\n".join(lines) + "\n"

    @property
    def _parts(self) -> int:
        return tile.vectors(self.width)

    def _bias(self) -> list[str]:
        return [f"    i{v} = load(bias + block * 64 + {v * self.width * 4})"
                for v in range(self._parts)]  # fmt: skip

    def _finish(self, pixels: int, indent: int) -> list[str]:
        pad = " " * indent
        rows = [f"{pad}if residual != 0:"]
        for p, v, name in tile.accumulators(pixels, 1, self.width):
            at = p * 64 + v * self.width * 4
            rows.append(f"{pad}    {name} = {name} + load(residual + to + {at})")
        for p, v, name in tile.accumulators(pixels, 1, self.width):
            at = p * 64 + v * self.width * 4
            rows.append(f"{pad}store(y + to + {at}, vmin(vmax({name}, low), high))")
        return rows

    def _edges(self, columns: str) -> list[str]:
        rows = [
            f"        for ox in {columns}:",
            f"            left = ox * {self.stride} - pad_left",
            "            first_x = (max(0, -left) + dilation_x - 1) // dilation_x",
            "            last_x = min(kernel_x, (width - left + dilation_x - 1) // dilation_x)",
            *[f"            a0_{v} = i{v}" for v in range(self._parts)],
            "            for ky in range(first_y, last_y):",
            "                line = source + ((top + ky * dilation_y) * width + left) * 64",
            "                for kx in range(first_x, last_x):",
            "                    wp = weights + (ky * kernel_x + kx) * 64",
            "                    at = line + kx * dilation_x * 64",
        ]
        for v in range(self._parts):
            lane = v * self.width * 4
            rows.append(f"                    a0_{v} = fma(load(at + {lane}), "
                        f"load(wp + {lane}), a0_{v})")  # fmt: skip
        return [*rows, "            to = goal + ox * 64", *self._finish(1, 12)]

    def _middle(self) -> list[str]:
        n = self.pixels
        rows = [
            f"        for number in range((outer - inner + {n - 1}) // {n}):",
            f"            ox = inner + number * {n}",
            f"            if ox + {n} > outer:",
            f"                ox = outer - {n}",
            "            if ox < inner:",
            *self._short(),
            "            else:",
            f"                left = ox * {self.stride} - pad_left",
            *tile.set_to(n, 1, self.width, "i", 16),
            "                for ky in range(first_y, last_y):",
            "                    at = source + ((top + ky * dilation_y) * width + left) * 64",
            "                    wp = weights + ky * kernel_x * 64",
            "                    for _ in range(kernel_x):",
        ]
        rows += [f"                        w{v} = load(wp + {v * self.width * 4})"
                 for v in range(self._parts)]  # fmt: skip
        for p, v, name in tile.accumulators(n, 1, self.width):
            at = p * self.stride * 64 + v * self.width * 4
            rows.append(f"                        {name} = fma(load(at + {at}), w{v}, {name})")
        rows += [
            "                        at += dilation_x * 64",
            "                        wp += 64",
            "                to = goal + ox * 64",
            *self._finish(n, 16),
        ]
        return rows

    def _short(self) -> list[str]:
        """Fewer inner columns than a tile: one at a time, all taps of a row exist."""
        rows = [
            "                for column in range(inner, outer):",
            f"                    left = column * {self.stride} - pad_left",
            *[f"                    a0_{v} = i{v}" for v in range(self._parts)],
            "                    for ky in range(first_y, last_y):",
            "                        at = source + ((top + ky * dilation_y) * width + left) * 64",
            "                        wp = weights + ky * kernel_x * 64",
            "                        for _ in range(kernel_x):",
        ]
        for v in range(self._parts):
            lane = v * self.width * 4
            rows.append(f"                            a0_{v} = fma(load(at + {lane}), "
                        f"load(wp + {lane}), a0_{v})")  # fmt: skip
        return [
            *rows,
            "                            at += dilation_x * 64",
            "                            wp += 64",
            "                    to = goal + column * 64",
            *self._finish(1, 20),
        ]
