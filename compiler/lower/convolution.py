"""How a convolution is done: which kernel, which tile, how it is cut into tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...runtime.kernels import winograd
from .target import Target

BLOCK = 16


@dataclass(frozen=True)
class ConvShape:
    """The sizes of one convolution (two spatial axes)."""

    images: int
    channels: int
    height: int
    width: int
    features: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int
    rows: int
    columns: int

    @property
    def pointwise(self) -> bool:
        """A 1x1 kernel without padding."""
        return self.kernel == (1, 1) and all(p == (0, 0) for p in self.pad)

    @property
    def blocks_in(self) -> int:
        """Input blocks of 16 channels of one group."""
        return -(-(self.channels // self.groups) // BLOCK)

    @property
    def blocks_out(self) -> int:
        """Output blocks of 16 channels of one group."""
        return -(-(self.features // self.groups) // BLOCK)


@dataclass(frozen=True)
class Tile:
    """A register tile."""

    pixels: int
    blocks: int


def waste(total: int, tile: int) -> float:
    """Work done over work needed when ``total`` is covered by tiles that may overlap."""
    return -(-total // tile) * tile / total


def choose_tile(columns: int, blocks_out: int, target: Target, groups: int = 1) -> Tile:
    """The tile with the least waste; large ones first, since they load less per product.

    A panel must not span two groups, so with groups the blocks of a tile divide a group's.
    """
    registers = BLOCK // target.lanes
    options = []
    for blocks in (1, 2, 4):
        if (blocks > blocks_out and blocks > 1) or (groups > 1 and blocks_out % blocks):
            continue
        most = target.accumulators // (blocks * registers)
        for pixels in range(1, min(most, columns, 28) + 1):
            tiles = pixels * blocks * registers
            # Broadcasts and weight loads per product; two loads issue a cycle, as do two products.
            loads = (pixels + blocks * registers) / tiles
            latency = max(1.0, 8 / tiles)
            cost = waste(columns, pixels) * waste(blocks_out, blocks) * max(1.0, loads) * latency
            options.append((round(cost * (1 + 0.02 * loads), 4), -tiles, Tile(pixels, blocks)))
    return min(options, key=lambda o: o[:2])[2]


@dataclass(frozen=True)
class WinogradChoice:
    """Winograd with a register tile, tiles of a task, and panel groups."""

    tile: Tile
    band: int
    groups: int


def choose_winograd(shape: ConvShape, target: Target) -> WinogradChoice | None:
    """Winograd where it applies and its transformed weights do not cost more than it saves."""
    applies = (
        shape.kernel == (3, 3)
        and shape.stride == (1, 1)
        and shape.dilation == (1, 1)
        and shape.groups == 1
        and not target.precise
        and shape.channels >= BLOCK
    )
    if not applies:
        return None
    down, across = -(-shape.rows // 4), -(-shape.columns // 4)
    tiles = shape.images * down * across
    direct = shape.images * shape.rows * shape.columns * 9
    # Transformed weights are four times the plain ones and stream from memory: about six products
    # of a register tile fit in the time that one weight vector takes to arrive.
    fast = tiles * 36 * 1.25 + 36 * 6
    if fast >= direct:
        return None
    blocks = 2 if shape.blocks_out > 1 else 1
    registers = BLOCK // target.lanes
    most = target.accumulators // (blocks * registers)
    per_tile = winograd.POSITIONS * BLOCK * 4 * (shape.blocks_in + blocks)
    fit = max(1, int(target.l2 * 0.9) // per_tile)
    panels = -(-shape.blocks_out // blocks)
    # Enough tasks for balance: bands of tiles first, then groups of panels.
    bands = max(-(-tiles // fit), min(target.threads * 2, max(1, tiles // (2 * most))))
    if target.threads > 1 and bands % target.threads:
        bands += target.threads - bands % target.threads
    band = -(-tiles // bands)
    if band > most:
        band = -(-band // most) * most if waste(band, most) < 1.1 else band
    groups = 1
    if -(-tiles // band) < target.threads:
        groups = min(panels, target.threads)
    pixels = min(range(1, min(most, band) + 1), key=lambda p: (round(waste(band, p) / _rate(p), 3), -p))
    return WinogradChoice(Tile(pixels, blocks), band, groups)


def _rate(pixels: int) -> float:
    """Speed of a tile of two blocks relative to the peak: small ones wait for their sums."""
    return min(1.0, pixels * 2 / 12) * (1 - 0.3 / pixels)


def task_split(work: int, unit: int, target: Target, most: int) -> int:
    """Rows of ``unit`` products a task: at least two tasks a thread, none below 20 microseconds."""
    smallest = max(1, math.ceil(2_000_000 / max(unit, 1)))
    balanced = max(1, work // (target.threads * 3))
    return max(1, min(most, max(smallest, balanced), work))
