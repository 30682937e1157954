"""What the machine can do: multiply-adds of data in cache, and copies of data in memory.

The multiply-adds are those of the register tile that our dense kernels use. They take turns with
the engines, so that each is compared with what the machine could do just then.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..runtime.kernel_cache import kernel
from ..runtime.kernels import tile
from ..runtime.simd import lanes
from ..runtime.walker import Walk
from .problem import Arrays, Problem

TILES = {16: (14, 2), 8: (6, 1), 4: (6, 1)}
"""Pixels and blocks that fill the registers, by vector width."""

LENGTH = 128
"""Channels of the tile: its operands stay in the first-level cache."""

REPEATS = 1000
TASKS = 4
"""Tasks a thread: a thread that is late leaves some to the others."""

WORDS = ["x", "w", "y", "repeats", "length"]


def flops_of_call(threads: int) -> int:
    """Floating-point operations of one call on so many threads."""
    pixels, blocks = TILES[lanes()]
    return 2 * pixels * blocks * tile.BLOCK * LENGTH * REPEATS * TASKS * threads


def prepare_peak(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """A call that does nothing but multiply and add; it has no outputs."""
    width = lanes()
    pixels, blocks = TILES[width]
    made = kernel(f"peak_{pixels}x{blocks}_w{width}", _source(pixels, blocks, width))
    tasks = TASKS * threads
    x = np.full(pixels * LENGTH, 0.5, np.float32)
    w = np.full(LENGTH * blocks * tile.BLOCK, 0.25, np.float32)
    y = np.zeros(tasks * pixels * blocks * tile.BLOCK, np.float32)

    addresses = (x.ctypes.data, w.ctypes.data, y.ctypes.data)
    row = np.array([made.address, tasks, *addresses, REPEATS, LENGTH], np.int64)
    walk = Walk(row, np.zeros(1, np.int64), threads)

    # The row holds addresses only: the call keeps the arrays alive.
    def call(kept: tuple[np.ndarray, ...] = (x, w, y)) -> Arrays:
        walk.run()
        return {}

    return call


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


COPIED = 256 << 20
"""Bytes that a copy reads, and as many that it writes: more than caches hold."""

PIECES = 64


def bytes_of_copy() -> int:
    """Bytes that one call moves."""
    return 2 * COPIED


def prepare_memory(problem: Problem, threads: int, setting: str) -> Callable[[], Arrays]:
    """A call that copies memory from one array to another; it has no outputs."""
    width = lanes()
    made = kernel(f"copy_w{width}", _copy_source(width))
    x, y = np.ones(COPIED // 4, np.float32), np.zeros(COPIED // 4, np.float32)

    words = [made.address, PIECES, x.ctypes.data, y.ctypes.data, COPIED // PIECES]
    walk = Walk(np.array(words, np.int64), np.zeros(1, np.int64), threads)

    # As above.
    def call(kept: tuple[np.ndarray, ...] = (x, y)) -> Arrays:
        walk.run()
        return {}

    return call


def _copy_source(width: int) -> str:
    lines = [f"        store(y + {4 * width * j}, load(x + {4 * width * j}))" for j in range(4)]
    return "\n".join([
        '"""A copy of memory, a piece a task."""',
        f"from tilth.runtime.simd import load_i64, load{width} as load, store",
        "",
        "",
        "def kernel(row, task, slot):",
        "    size = load_i64(row + 16)",
        "    x = load_i64(row) + task * size",
        "    y = load_i64(row + 8) + task * size",
        f"    for _ in range(size // {16 * width}):",
        *lines,
        f"        x += {16 * width}",
        f"        y += {16 * width}",
        "",
    ])  # fmt: skip
