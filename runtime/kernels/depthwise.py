"""Depthwise convolution on 16-channel blocks: one filter a channel, vectors over the channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tile, window
from .window import Window

WORDS = [*window.WORDS, "w", "bias", "residual", "low_bits", "high_bits"]
"""The shared words (``window``), then packed weights and bias, what is added to the result (laid
out as ``y``, and never ``y`` itself; 0 for none), and the clamp of the result as float64 bits."""


def pack(weight: np.ndarray) -> np.ndarray:
    """Weights [C, 1, kh, kw] as [ceil(C/16), kh, kw, 16] float32, zero in the pad lanes."""
    c, _, kh, kw = weight.shape
    blocks = -(-c // tile.BLOCK)
    full = np.zeros((blocks * tile.BLOCK, kh, kw), np.float32)
    full[:c] = weight[:, 0]
    return np.ascontiguousarray(full.reshape(blocks, tile.BLOCK, kh, kw).transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class DepthwiseKernel:
    """A depthwise convolution with taps, stride and dilation of a row unrolled.

    Vertical stride, dilation, padding and the number of tap rows are words of the row.
    """

    window: Window
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        w = self.window
        return f"depthwise_k{w.taps}s{w.stride}d{w.dilation}_{w.pixels}px_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        w = self.window
        low, high = (8 * WORDS.index(name) for name in ("low_bits", "high_bits"))
        lines = [
            f'"""Depthwise convolution, {w.taps} taps a row, stride {w.stride}."""',
            *window.header(self.width),
            *tile.words(WORDS),
            f"    low = spread(float32(load_f64(row, {low})))",
            f"    high = spread(float32(load_f64(row, {high})))",
            *window.prologue(w),
            f"    weights = w + block * taps_y * {w.taps * 64}",
            *window.loops(
                w,
                self.width,
                ahead=["start = load(bias + block * 64 + lane)"],
                tap="{a} = fma({x}, load(weights, {w}), {a})",
                finish=[
                    "if residual != 0:",
                    "    {a} = {a} + load(residual, {to})",
                    "store(y, vmin(vmax({a}, low), high), {to})",
                ],
                together=[],
                alone=[],
            ),
        ]
        return "\n".join(lines) + "\n"
