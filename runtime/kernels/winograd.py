"""Winograd convolution F(4x4, 3x3), stride 1: 36 products a tile of 16 outputs instead of 144.

A task is a band of tiles (counted over all images) and a range of output panels. It transforms the
input tiles of its band to scratch, multiplies each of the 36 positions as a small matrix product
with the shared register tile, and transforms back with bias, residual and clamp.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1;
points 0, 1, -1, 2, -2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import tile

POSITIONS = 36
TILE = 4

WORDS = [
    "x", "w", "bias", "y", "residual",
    "x_image", "x_block", "y_image", "y_block", "height", "width", "rows", "columns",
    "pad_top", "pad_left", "tiles_down", "tiles_across", "tiles", "band_tiles",
    "panels", "panel_groups", "panels_per_task", "blocks_in", "blocks_out", "tail",
    "low_bits", "high_bits", "scratch", "scratch_slot",
]  # fmt: skip
"""The row; ``tiles`` counts all images' tiles, ``band_tiles`` those of one task."""

G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""The filter transform (Lavin and Gray, equation for F(4x4, 3x3))."""


def pack(weight: np.ndarray, blocks: int) -> np.ndarray:
    """Weights [K, C, 3, 3] as [panels, 36, C, 16 * blocks], transformed in float64."""
    k, c = weight.shape[:2]
    wide = tile.BLOCK * blocks
    packed = np.zeros((-(-k // wide), POSITIONS, c, wide), np.float32)
    for panel, rows in enumerate(packed):
        part = weight[panel * wide : (panel + 1) * wide]
        taps = np.ascontiguousarray(part.transpose(2, 3, 1, 0), np.float64)
        down = [_combined(line, taps) for line in G]
        for i, row in enumerate(down):
            for j, line in enumerate(G):
                rows[i * 6 + j, :, : len(part)] = _combined(line, row)
    return packed


def _combined(factors: np.ndarray, taps: np.ndarray) -> Any:
    """The sum of three arrays with a factor each; a product of matrices would be slower."""
    return sum(f * tap for f, tap in zip(factors.tolist(), taps, strict=True) if f)


def scratch_bytes(band_tiles: int, blocks_in: int, blocks: int) -> int:
    """Scratch of one slot: transformed inputs, products of one panel, two tiles to work in."""
    lines = (band_tiles * blocks_in | 1) + (band_tiles * blocks | 1) + 2
    return POSITIONS * tile.BLOCK * 4 * lines


def input_transform(width: int) -> list[str]:
    """One tile: columns into ``work``, rows from there to the 36 positions."""
    wide = width * 4
    body = []
    for source, line, target, spot in (
        ("at", "line", "work", "j * 64 + {i} * 384"),
        ("work", "64", "to", "(j * 6 + {i}) * position"),
    ):
        start = "at + j * 64" if source == "at" else "work + j * 384"
        body.append("    for j in range(6):")
        body.append(f"        here = {start}")
        for v in range(tile.vectors(width)):
            lane = v * wide
            body += [f"        d{i} = load(here + {i} * {line}, {lane})" for i in range(6)]
            body += [
                "        p = fma(minus4, d2, d4)",
                "        q = fma(minus4, d1, d3)",
                "        r = d4 - d2",
                "        s = two * (d3 - d1)",
                "        e0 = fma(four, d0, fma(minus5, d2, d4))",
                "        e5 = fma(four, d1, fma(minus5, d3, d5))",
            ]
            values = ["e0", "p + q", "p - q", "r + s", "r - s", "e5"]
            for i, value in enumerate(values):
                body.append(f"        store({target} + {spot.format(i=i)}, {value}, {lane})")
    return [
        "@part",
        "def transform_input(at, line, work, to, position):",
        *_constants(),
        *body,
        "",
        "",
    ]


def _constants() -> list[str]:
    values = {"two": 2, "four": 4, "eight": 8, "minus4": -4, "minus5": -5}
    return [f"    {name} = spread(float32({x}.0))" for name, x in values.items()]


@dataclass(frozen=True)
class WinogradKernel:
    """Compiled for a register tile of ``pixels`` tiles by ``blocks`` blocks."""

    pixels: int
    blocks: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"winograd_{self.pixels}x{self.blocks}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Winograd F(4x4, 3x3), {self.pixels} tiles x {self.blocks} blocks."""',
            "from tilth.runtime.kernel_compiler import part",
            *tile.header(self.width),
            *input_transform(self.width),
            *self._output_transform(),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            *self._places(),
            *self._transform_inputs(),
            *self._products(),
        ]
        return "\n".join(lines) + "\n"

    @property
    def _parts(self) -> int:
        return tile.vectors(self.width)

    def _output_transform(self) -> list[str]:
        """One tile of one block: 36 products to 4x4 outputs in ``work`` (rows of 4)."""
        wide = self.width * 4
        body = []
        for source, step, target, spot in (
            ("at + j * position", "6 * position", "work", "j * 64 + {i} * 384"),
            ("work + j * 384", "64", "to", "(j * 4 + {i}) * 64"),
        ):
            body.append(f"    for j in range({6 if target == 'work' else 4}):")
            body.append(f"        here = {source}")
            for v in range(self._parts):
                lane = v * wide
                body += [f"        m{i} = load(here + {i} * {step}, {lane})" for i in range(6)]
                body += [
                    "        s1 = m1 + m2",
                    "        s2 = m1 - m2",
                    "        s3 = m3 + m4",
                    "        s4 = m3 - m4",
                ]
                values = [
                    "m0 + s1 + s3", "fma(two, s4, s2)", "fma(four, s3, s1)",
                    "fma(eight, s4, s2) + m5",
                ]  # fmt: skip
                for i, value in enumerate(values):
                    body.append(f"        store({target} + {spot.format(i=i)}, {value}, {lane})")
        return [
            "@part",
            "def transform_output(at, position, work, to):",
            *_constants(),
            *body,
            "",
            "",
        ]

    def _places(self) -> list[str]:
        per_tile = tile.BLOCK * 4
        return [
            f"    low = spread(float32(load_f64(row, {8 * WORDS.index('low_bits')})))",
            f"    high = spread(float32(load_f64(row, {8 * WORDS.index('high_bits')})))",
            "    zero = spread(float32(0.0))",
            "    group = task % panel_groups",
            "    first_tile = (task // panel_groups) * band_tiles",
            "    count = min(band_tiles, tiles - first_tile)",
            "    image_tiles = tiles_down * tiles_across",
            "    inputs = scratch + slot * scratch_slot",
            f"    block_bytes = band_tiles * {per_tile}",
            # An odd number of cache lines, or the 36 positions of a tile fall on a few cache sets.
            "    position = (blocks_in * band_tiles | 1) * 64",
            f"    products = inputs + {POSITIONS} * position",
            f"    product_position = ({self.blocks} * band_tiles | 1) * 64",
            f"    work = products + {POSITIONS} * product_position",
            f"    patch = work + {POSITIONS * per_tile}",
            "    first_image = first_tile // image_tiles",
            "    first_across = first_tile % tiles_across",
            "    first_down = first_tile // tiles_across % tiles_down",
        ]

    def _transform_inputs(self) -> list[str]:
        clear = [f"                        store(to, zero, {v * self.width * 4})"
                 for v in range(self._parts)]  # fmt: skip
        copy = [
            f"                        store(to + {v * self.width * 4}, "
            f"load(at, {v * self.width * 4}))"
            for v in range(self._parts)
        ]
        return [
            "    for block in range(blocks_in):",
            *_first_tile(8),
            "        for number in range(count):",
            "            top = down * 4 - pad_top",
            "            left = across * 4 - pad_left",
            "            inside = top >= 0 and top + 6 <= height and left >= 0",
            "            inside = inside and left + 6 <= width",
            "            plane = x + image * x_image + block * x_block",
            "            goal = inputs + block * block_bytes + number * 64",
            "            if inside:",
            "                at = plane + (top * width + left) * 64",
            "                transform_input(at, width * 64, work, goal, position)",
            "            else:",
            "                to = patch",
            "                for i in range(top, top + 6):",
            "                    for j in range(left, left + 6):",
            "                        if i < 0 or j < 0 or i >= height or j >= width:",
            *[f"    {line}" for line in clear],
            "                        else:",
            "                            at = plane + (i * width + j) * 64",
            *[f"    {line}" for line in copy],
            "                        to += 64",
            "                transform_input(patch, 384, work, goal, position)",
            *_next_tile(12),
        ]

    def _products(self) -> list[str]:
        args = (self.pixels, self.blocks, self.width)
        regs = self.blocks * self._parts
        stores = []
        for p, v, name in tile.accumulators(*args):
            block, part = divmod(v, self._parts)
            at = p * 64 + part * self.width * 4
            where = f"goal + {block} * block_bytes + {at}" if block else f"goal + {at}"
            stores.append(f"                store({where}, {name})")
        return [
            "    depth = (blocks_in - 1) * 16 + tail",
            f"    panel_bytes = {POSITIONS} * depth * {self.blocks * 64}",
            "    first_panel = group * panels_per_task",
            "    last_panel = min(first_panel + panels_per_task, panels)",
            f"    groups = (count + {self.pixels - 1}) // {self.pixels}",
            "    for panel in range(first_panel, last_panel):",
            f"        for spot in range({POSITIONS}):",
            f"            wb = w + panel * panel_bytes + spot * depth * {self.blocks * 64}",
            # The next position's weights are fetched meanwhile, a piece with each step.
            f"            following = wb + depth * {self.blocks * 64}",
            f"            stride = max({self.blocks * 64} // groups, 1)",
            "            for number in range(groups):",
            f"                first = max(min(number * {self.pixels}, count - {self.pixels}), 0)",
            "                xb = inputs + spot * position + first * 64",
            "                wp = wb",
            *[f"                z{v} = zero" for v in range(regs)],
            *tile.set_to(*args, "z", 16),
            "                for block in range(blocks_in):",
            "                    xp = xb + block * block_bytes",
            "                    lanes = 16 if block < blocks_in - 1 else tail",
            *tile.multiply(
                *args, "64", 20, "lanes", ["prefetch_l2(following)", "following += stride"]
            ),
            "                goal = products + spot * product_position + first * 64",
            *stores,
            *self._write_back(),
        ]

    def _write_back(self) -> list[str]:
        rows = [
            f"        for k in range({self.blocks}):",
            f"            out = panel * {self.blocks} + k",
            "            if out < blocks_out:",
        ]
        for v in range(self._parts):
            lane = v * self.width * 4
            rows.append(f"                bias{v} = load(bias + out * 64, {lane})")
        rows += [
            *_first_tile(16),
            "                for number in range(count):",
            "                    at = products + k * block_bytes + number * 64",
            "                    transform_output(at, product_position, work, patch)",
            "                    top = down * 4",
            "                    left = across * 4",
            "                    plane = image * y_image + out * y_block",
            "                    bottom = min(top + 4, rows)",
            "                    right = min(left + 4, columns)",
            "                    for i in range(top, bottom):",
            "                        at = patch + (i - top) * 256",
            "                        to = plane + (i * columns + left) * 64",
            "                        for _ in range(left, right):",
        ]
        for v in range(self._parts):
            lane = v * self.width * 4
            rows += [
                f"                            value = load(at, {lane}) + bias{v}",
                "                            if residual != 0:",
                f"                                value = value + load(residual + to, {lane})",
                f"                            store(y + to, vmin(vmax(value, low), high), {lane})",
            ]
        rows += ["                            at += 64", "                            to += 64"]
        return rows + _next_tile(20)


def _first_tile(indent: int) -> list[str]:
    names = ("image", "down", "across")
    return [" " * indent + f"{name} = first_{name}" for name in names]


def _next_tile(indent: int) -> list[str]:
    rows = [
        "across += 1",
        "if across == tiles_across:",
        "    across = 0",
        "    down += 1",
        "    if down == tiles_down:",
        "        down = 0",
        "        image += 1",
    ]
    return [" " * indent + row for row in rows]
