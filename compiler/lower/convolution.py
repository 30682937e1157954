"""How a convolution is done: which kernel, which tile, how it is cut into tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def most_pixels(blocks: int, target: Target) -> int:
    """Pixels of the largest tile whose sums, weights and one input stay in registers."""
    vectors = blocks * BLOCK // target.lanes
    return max(1, min(28, (target.registers - 1 - vectors) // vectors))


def choose_tile(columns: int, blocks_out: int, target: Target, groups: int = 1) -> Tile:
    """The tile with the least waste; large ones first, since they load less per product.

    A panel must not span two groups, so with groups the blocks of a tile divide a group's.
    """
    registers = BLOCK // target.lanes
    options = []
    for blocks in (1, 2, 4):
        if (blocks > blocks_out and blocks > 1) or (groups > 1 and blocks_out % blocks):
            continue
        for pixels in range(1, min(most_pixels(blocks, target), columns) + 1):
            tiles = pixels * blocks * registers
            # Two products and two loads issue a cycle. Weights come from the second-level cache,
            # so a tile of many pixels and few blocks, which reads fewer of them, is better.
            weights = blocks * registers / tiles
            loads = max(1.0, (pixels + blocks * registers) / tiles)
            latency = max(1.0, 8 / tiles)
            cost = waste(columns, pixels) * waste(blocks_out, blocks) * loads * latency
            options.append((round(cost * (1 + 0.6 * weights), 4), -tiles, Tile(pixels, blocks)))
    return min(options, key=lambda o: o[:2])[2]


@dataclass(frozen=True)
class WinogradChoice:
    """Winograd with a register tile, tiles of a task, panel groups, and its estimated cycles."""

    tile: Tile
    band: int
    groups: int
    cycles: float


# Estimates in cycles of one thread, from measured rates: a register tile issues two vector products
# a cycle.
FAR = 8.0
"""Bytes a cycle from beyond the second-level cache."""
TRANSFORM = 150.0
"""Cycles to transform one tile of one block, in or out."""
DISPATCH = 300.0
"""Cycles to claim a task and set up its loops."""
STAGING = 16.0
"""Bytes a cycle that are copied to scratch."""


def efficiency(tile: Tile, target: Target) -> float:
    """Share of the peak that a register tile reaches: sums must hide latency, loads must fit."""
    vectors = tile.blocks * BLOCK // target.lanes
    sums = tile.pixels * vectors
    loads = tile.pixels + vectors
    share = min(1.0, sums / 8) * min(1.0, sums / loads) * (1 - 0.02 * loads / sums)
    # With 16 registers sums hardly outnumber what hides latency: every late load is felt (measured
    # with 8 lanes: 0.90 of the peak with 8 sums, 0.93 with 10, 0.95 with 12).
    return share if target.lanes == 16 else share * (1 - 0.6 / sums)


@dataclass(frozen=True)
class Work:
    """What a division shares out: ``rows`` (of tiles) by panels of ``panel_bytes`` of weights.

    ``row_bytes`` of input are read for a row, ``halo_bytes`` more for a band of them; ``cycles`` is
    the arithmetic of one row and one panel; ``staged`` rows are copied before they are used.
    """

    rows: int
    panels: int
    images: int
    panel_bytes: int
    row_bytes: int
    halo_bytes: int
    cycles: float
    staged: bool


@dataclass(frozen=True)
class Division:
    """Tasks: every image's bands of ``band_rows`` rows, by groups of panels."""

    bands: int
    band_rows: int
    groups: int
    cycles: float


def divide(work: Work, target: Target) -> Division:
    """The division with the least estimated time of the slowest thread.

    Bands are tried from the whole image down to a few tasks a thread, and panels whole, or shared
    out when outputs outnumber pixels.
    """
    most = max(1, 8 * target.threads // work.images)
    counts = {-(-work.rows // -(-work.rows // n)) for n in range(1, min(work.rows, most) + 1)}
    room = target.l2 // 2 - work.halo_bytes
    fit = max(1, room // max(work.row_bytes, 1))
    counts.add(-(-work.rows // min(fit, work.rows)))
    shares = {1, *(min(work.panels, n * target.threads) for n in (1, 2, 4))}
    options = [_divided(work, target, n, g) for n in sorted(counts) for g in sorted(shares)]
    return min(options, key=lambda option: option.cycles)


def _divided(work: Work, target: Target, bands: int, groups: int) -> Division:
    band_rows = -(-work.rows // bands)
    each = -(-work.panels // groups)
    tasks = bands * groups * work.images
    own = -(-tasks // target.threads)
    own_bands = -(-own // groups)
    own_panels = min(work.panels, each * min(own, groups))
    band_bytes = band_rows * work.row_bytes + work.halo_bytes
    resident = own_panels * work.panel_bytes + band_bytes < target.l2 // 2
    weights = own_panels * work.panel_bytes * (1 if resident else own_bands)
    inputs = band_bytes * own_bands * (1 if 2 * band_bytes < target.l2 else each)
    task = band_rows * each * work.cycles
    compute = own * (task + DISPATCH + work.staged * band_bytes / STAGING)
    # Reads from far away hide behind arithmetic, but not all of them.
    fetch = (weights + inputs) / FAR
    cycles = max(compute, fetch) + 0.2 * fetch + 0.1 * task
    return Division(bands, band_rows, groups, cycles)


def tile_cycles(tile: Tile, depth: int, target: Target) -> float:
    """Cycles of one register tile: its products, then the results."""
    sums = tile.pixels * tile.blocks * BLOCK / target.lanes
    return depth * sums / 2 / efficiency(tile, target) + 3 * sums + 30


def flat_work(shape: ConvShape, tile: Tile, target: Target) -> Work:
    """A pointwise convolution over all pixels of all images, a row a tile."""
    pixels = shape.images * shape.height * shape.width
    depth = shape.channels // shape.groups
    return Work(
        -(-pixels // tile.pixels), -(-shape.blocks_out // tile.blocks) * shape.groups, 1,
        depth * tile.blocks * BLOCK * 4, tile.pixels * shape.channels * 4, 0,
        tile_cycles(tile, depth, target), False,
    )  # fmt: skip


def line_bytes(shape: ConvShape, staged: bool) -> int:
    """Bytes of a row of one input block, with the columns that staging pads."""
    if not staged:
        return shape.width * BLOCK * 4
    reach = (shape.columns - 1) * shape.stride[1] + (shape.kernel[1] - 1) * shape.dilation[1] + 1
    return reach * BLOCK * 4


def row_work(shape: ConvShape, tile: Tile, target: Target, staged: bool, line: int) -> Work:
    """A convolution by output rows; ``line`` is the bytes of a row of input, all channels."""
    reach = (shape.kernel[0] - 1) * shape.dilation[0] + 1
    depth = shape.channels // shape.groups * shape.kernel[0] * shape.kernel[1]
    tiles = -(-shape.columns // tile.pixels)
    return Work(
        shape.rows, -(-shape.blocks_out // tile.blocks) * shape.groups, shape.images,
        depth * tile.blocks * BLOCK * 4, line * shape.stride[0],
        line * max(0, reach - shape.stride[0]), tiles * tile_cycles(tile, depth, target), staged,
    )  # fmt: skip


def reshaped(shape: ConvShape, target: Target) -> ConvShape:
    """A pointwise convolution by rows over longer ones: to it an image is a run of pixels.

    Tiles of wide vectors divide the usual widths; those of narrow ones waste least on long rows.
    """
    if not shape.pointwise or shape.stride != (1, 1) or target.lanes == 16:
        return shape
    options = [shape]
    for rows in range(shape.height, 0, -1):
        if shape.height % rows == 0:
            columns = shape.height // rows * shape.width
            options.append(replace(
                shape, height=rows, width=columns, rows=rows, columns=columns
            ))  # fmt: skip
    return min(options, key=lambda option: direct_cycles(option, target))


def direct_cycles(shape: ConvShape, target: Target) -> float:
    """Estimated cycles of the direct kernel, staged."""
    tile = choose_tile(shape.columns, shape.blocks_out, target, shape.groups)
    line = line_bytes(shape, True) * shape.blocks_in * shape.groups
    return divide(row_work(shape, tile, target, True, line), target).cycles


def choose_winograd(shape: ConvShape, target: Target) -> WinogradChoice | None:
    """Winograd where it applies and is estimated to be faster than the direct kernel."""
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
    best = min(_winograd_options(shape, target), key=lambda choice: choice.cycles)
    return best if best.cycles < direct_cycles(shape, target) else None


def _winograd_options(shape: ConvShape, target: Target) -> list[WinogradChoice]:
    tiles = shape.images * -(-shape.rows // 4) * -(-shape.columns // 4)
    # Weights and inputs come from the second-level cache: a panel as wide as leaves room in the
    # registers for enough tiles to use each of them several times.
    blocks = 2 if shape.blocks_out > 1 and most_pixels(2, target) >= 4 else 1
    panels = -(-shape.blocks_out // blocks)
    most = min(most_pixels(blocks, target), tiles)
    options = []
    for pixels in range(max(1, min(6, most)), most + 1):
        for groups in {1, min(panels, target.threads), min(panels, 2 * target.threads)}:
            for multiple in (1, 2, 3, 4, 6, 8, 12, 16):
                band = min(pixels * multiple, tiles)
                cycles = _winograd_cycles(shape, target, Tile(pixels, blocks), band, groups)
                options.append(WinogradChoice(Tile(pixels, blocks), band, groups, cycles))
    return options


def _winograd_cycles(shape: ConvShape, target: Target, tile: Tile, band: int, groups: int) -> float:
    tiles = shape.images * -(-shape.rows // 4) * -(-shape.columns // 4)
    panels = -(-shape.blocks_out // tile.blocks)
    each = -(-panels // groups)
    per_step = tile.blocks * BLOCK / target.lanes / 2
    depth = shape.blocks_in * BLOCK * winograd.POSITIONS
    padded = -(-band // tile.pixels) * tile.pixels
    compute = padded * each * depth * per_step / efficiency(tile, target)
    scratch = winograd.scratch_bytes(band, shape.blocks_in, tile.blocks)
    if scratch > target.l2:
        compute *= 1.3
    fetch = each * depth * tile.blocks * BLOCK * 4 / FAR
    moved = band * (shape.blocks_in + each * tile.blocks) * TRANSFORM * (BLOCK // target.lanes)
    tasks = -(-tiles // band) * groups
    rounds = -(-tasks // target.threads)
    # The last band is usually smaller: count its share, but never less than a whole round's start.
    full = tiles * groups / band / target.threads
    return (max(compute, fetch) + 0.2 * fetch + moved) * (0.7 * rounds + 0.3 * full)
