"""The machine's multiply-add peak: the register tile that our dense kernels use, on data in cache.

Its rate is what no engine can exceed without doing less arithmetic.
"""

from __future__ import annotations

import time

import numpy as np

from ..runtime.kernel_cache import kernel
from ..runtime.kernels import tile
from ..runtime.simd import lanes
from ..runtime.walker import walk

TILES = {16: (14, 2), 8: (6, 1), 4: (6, 1)}
"""Pixels and blocks that fill the registers, by vector width."""

LENGTH = 128
"""Channels of the tile: its operands stay in the first-level cache."""

WORDS = ["x", "w", "y", "repeats", "length"]
COUNTER_WORDS = 16


def gflops(threads: int, seconds: float = 0.2) -> float:
    """Floating-point operations a second, in 10^9, on ``threads`` threads: the best of several."""
    width = lanes()
    pixels, blocks = TILES[width]
    made = kernel(f"peak_{pixels}x{blocks}_w{width}", _source(pixels, blocks, width))
    tasks = 4 * threads
    x = np.full(pixels * LENGTH, 0.5, np.float32)
    w = np.full(LENGTH * blocks * tile.BLOCK, 0.25, np.float32)
    y = np.zeros(tasks * pixels * blocks * tile.BLOCK, np.float32)
    flops = 2 * pixels * blocks * tile.BLOCK * LENGTH * tasks

    def run(repeats: int) -> float:
        addresses = (x.ctypes.data, w.ctypes.data, y.ctypes.data)
        rows = np.array([made.address, tasks, *addresses, repeats, LENGTH], np.int64)
        starts, counters = np.zeros(1, np.int64), np.zeros(COUNTER_WORDS, np.int64)
        begin = time.perf_counter()
        walk(rows, starts, counters, threads)
        return time.perf_counter() - begin

    run(1)
    repeats = max(1, int(seconds / 8 / (run(50) / 50)))
    return max(flops * repeats / run(repeats) for _ in range(8)) / 1e9


def _source(pixels: int, blocks: int, width: int) -> str:
    parts = blocks * tile.vectors(width)
    stores = [
        f"    store(y + {4 * (p * blocks * tile.BLOCK + v * width)}, {name})"
        for p, v, name in tile.accumulators(pixels, blocks, width)
    ]
    lines = [
        f'"""Multiply-adds from cache, {pixels} pixels x {blocks} blocks."""',
        *tile.header(width),
        "def kernel(row, task, slot):",
        *tile.words(WORDS),
        f"    y += task * {4 * pixels * blocks * tile.BLOCK}",
        *[f"    z{v} = spread(float32(0.0))" for v in range(parts)],
        *tile.set_to(pixels, blocks, width, "z", 4),
        "    for _ in range(repeats):",
        "        xp = x",
        "        wp = w",
        *tile.multiply(pixels, blocks, width, str(4 * LENGTH), 8),
        *stores,
    ]
    return "\n".join(lines) + "\n"
