"""The gradient of 3x3 weights in Winograd's domain: 36 products a tile of 16 pixels, not 144.

With the forward algorithm Y = A' [(G g G') * (B' x B)] A of every tile, the gradient of g is
G' [sum over tiles of (A dY A') * (B' x B)] G. Four kernels: both transforms, a matrix product over
tiles for each of the 36 positions, and the transform of the sums back to nine taps.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1,
differentiated; points 0, 1, -1, 2, -2.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile
from .winograd import POSITIONS, input_transform

TRANSFORM_WORDS = [
    "x", "y", "x_image", "x_block", "height", "width", "pad_top", "pad_left", "tiles_down",
    "tiles_across", "images", "first_image", "blocks", "position", "scratch", "scratch_slot",
]  # fmt: skip
"""``y`` takes [36, blocks, tiles, 16], ``position`` bytes a position; a task is ``(image, block)``
of ``images`` images from the first, the block fastest. ``height`` and ``width`` are x's."""


def transform_scratch() -> int:
    """Scratch of one slot: a tile half transformed, and a tile with what lies around the image."""
    return 2 * POSITIONS * tile.BLOCK * 4


@dataclass(frozen=True)
class TileTransformKernel:
    """Tiles of 6x6 inputs (``of`` is ``input``) or of 4x4 cotangents (``slope``), transformed."""

    of: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"winograd_{self.of}_tiles_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        size = 6 if self.of == "input" else 4
        transform = input_transform(self.width) if size == 6 else slope_transform(self.width)
        parts = range(0, 64, self.width * 4)
        lines = [
            f'"""Winograd tiles of {self.of}s."""',
            "from tilth.runtime.kernel_compiler import part",
            *tile.header(self.width),
            *transform,
            "def kernel(row, task, slot):",
            *tile.words(TRANSFORM_WORDS),
            "    zero = spread(float32(0.0))",
            "    image = task // blocks",
            "    block = task % blocks",
            "    plane = x + (first_image + image) * x_image + block * x_block",
            "    work = scratch + slot * scratch_slot",
            f"    patch = work + {POSITIONS * 64}",
            "    each = tiles_down * tiles_across",
            "    goal = y + (block * images + image) * each * 64",
            "    for down in range(tiles_down):",
            "        top = down * 4 - pad_top",
            "        for across in range(tiles_across):",
            "            left = across * 4 - pad_left",
            f"            inside = top >= 0 and top + {size} <= height and left >= 0",
            f"            if inside and left + {size} <= width:",
            "                at = plane + (top * width + left) * 64",
            "                transform_input(at, width * 64, work, goal, position)",
            "            else:",
            "                to = patch",
            f"                for i in range(top, top + {size}):",
            f"                    for j in range(left, left + {size}):",
            "                        if i < 0 or j < 0 or i >= height or j >= width:",
            *[f"                            store(to, zero, {lane})" for lane in parts],
            "                        else:",
            "                            at = plane + (i * width + j) * 64",
            *[f"                            store(to, load(at, {lane}), {lane})" for lane in parts],
            "                        to += 64",
            f"                transform_input(patch, {size * 64}, work, goal, position)",
            "            goal += 64",
        ]
        return "\n".join(lines) + "\n"


def slope_transform(width: int) -> list[str]:
    """One tile: A times its columns into ``work``, then its rows to the 36 positions."""
    body = []
    for target, spot, count in (
        ("work", "j * 64 + {i} * 256", 4),
        ("to", "(j * 6 + {i}) * position", 6),
    ):
        start = "at + j * 64" if target == "work" else "work + j * 256"
        step = "line" if target == "work" else "64"
        body += [f"    for j in range({count}):", f"        here = {start}"]
        for lane in range(0, 64, width * 4):
            body += [f"        d{i} = load(here + {i} * {step}, {lane})" for i in range(4)]
            body += [
                "        p = d0 + d2",
                "        q = d1 + d3",
                "        r = fma(four, d2, d0)",
                "        s = fma(eight, d3, two * d1)",
            ]
            for i, value in enumerate(("d0", "p + q", "p - q", "r + s", "r - s", "d3")):
                body.append(f"        store({target} + {spot.format(i=i)}, {value}, {lane})")
    values = {"two": 2, "four": 4, "eight": 8}
    return [
        "@part",
        "def transform_input(at, line, work, to, position):",
        *[f"    {name} = spread(float32({x}.0))" for name, x in values.items()],
        *body,
        "",
        "",
    ]


PRODUCT_WORDS = [
    "x", "d", "y", "tiles", "blocks_in", "blocks_out", "panels", "panel_groups",
    "panels_per_task", "x_position", "d_position", "y_position", "later",
]  # fmt: skip
"""``y`` takes [36, blocks_out, 16 * blocks_in, 16]; where ``later`` is not 0 the products are added
to what it holds. A task is ``(position, group of panels)``, the group fastest."""

CHUNK = 192
"""Tiles that are taken together: those of a block of x and of d stay in the first cache."""


def row_tiles(width: int) -> list[int]:
    """How the 16 channels of a block are cut into rows of register tiles."""
    return {16: [8, 8], 8: [6, 5, 5], 4: [2] * 8}[width]


def panel_blocks(width: int) -> int:
    """Blocks of outputs of a register tile."""
    return 2 if width == 16 else 1


@dataclass(frozen=True)
class WeightProductKernel:
    """The matrix product over tiles of one position."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"winograd_weight_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = panel_blocks(self.width)
        lines = [
            '"""Products of transformed tiles."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(PRODUCT_WORDS),
            "    zero = spread(float32(0.0))",
            "    spot = task // panel_groups",
            "    first_panel = task % panel_groups * panels_per_task",
            "    last_panel = min(first_panel + panels_per_task, panels)",
            "    block_bytes = tiles * 64",
            "    out_bytes = blocks_in * 1024",
            "    for panel in range(first_panel, last_panel):",
            f"        sums = y + spot * y_position + panel * {wide} * out_bytes",
            f"        slopes = d + spot * d_position + panel * {wide} * block_bytes",
            f"        beside = block_bytes if panel * {wide} + 1 < blocks_out else 0",
            f"        further = out_bytes if panel * {wide} + 1 < blocks_out else 0",
            f"        for first in range(0, tiles, {CHUNK}):",
            f"            count = min(tiles - first, {CHUNK})",
            "            fresh = first == 0 and later == 0",
            "            for block in range(blocks_in):",
            "                inputs = x + spot * x_position + block * block_bytes + first * 64",
            "                place = sums + block * 1024",
            *self._rows(),
        ]
        return "\n".join(lines) + "\n"

    def _rows(self) -> list[str]:
        wide, parts, step = panel_blocks(self.width), tile.vectors(self.width), self.width * 4
        rows, start = [], 0
        for count in row_tiles(self.width):
            sums = list(tile.accumulators(count, wide, self.width))
            places = [
                f"place + {(start + r) * 64 + v % parts * step}" + " + further" * (v >= parts)
                for r, v, _ in sums
            ]
            body = []
            for k in range(wide):
                at = "dp + beside" if k else "dp"
                body += [f"d{k * parts + v} = load({at}, {v * step})" for v in range(parts)]
            for r in range(count):
                body.append(f"b = spread_from(xp, {r * 4})")
                body += [f"a{r}_{v} = fma(b, d{v}, a{r}_{v})" for v in range(wide * parts)]
            # The second block of an odd panel is the first again, and must not be stored over it.
            twice = "panel * 2 + 1 < blocks_out"
            rows += [
                "if fresh:",
                *[f"    {name} = zero" for _, _, name in sums],
                "else:",
                *[f"    {n} = load({p})" for (_, _, n), p in zip(sums, places, strict=True)],
                f"xp = inputs + {start * 4}",
                "dp = slopes + first * 64",
                "for _ in range(count):",
                *["    " + line for line in body],
                "    xp += 64",
                "    dp += 64",
            ]
            for (_, v, name), place in zip(sums, places, strict=True):
                if v >= parts:
                    rows += [f"if {twice}:", f"    store({place}, {name})"]
                else:
                    rows.append(f"store({place}, {name})")
            start += count
        return ["                " + line for line in rows]


BACK_WORDS = [
    "x", "y", "position", "inputs", "outputs", "blocks_in", "shares", "share", "scratch",
    "scratch_slot",
]  # fmt: skip
"""``y`` are the weights, [outputs, inputs, 3, 3]; a task is ``(block of outputs, share)`` of
``share`` inputs, the share fastest."""

SHARE = 64
"""Inputs of a task of the transform back."""


def back_scratch() -> int:
    """Scratch of one slot: the half transformed sums, and nine taps."""
    return (18 + 9) * tile.BLOCK * 4


@dataclass(frozen=True)
class TapsKernel:
    """The sums of 36 positions back to nine taps, in the layout of weights."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"winograd_taps_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lanes = range(0, 64, self.width * 4)
        lines = [
            '"""Sums of positions back to taps."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(BACK_WORDS),
            "    block = task // shares",
            "    first = task % shares * share",
            "    last = min(first + share, inputs)",
            "    count = min(outputs - block * 16, 16)",
            "    work = scratch + slot * scratch_slot",
            f"    taps = work + {18 * 64}",
            *_constants(),
            "    for channel in range(first, last):",
            "        source = x + block * blocks_in * 1024 + channel * 64",
            "        for j in range(6):",
            *[line for lane in lanes for line in self._down(lane)],
            "        for i in range(3):",
            *[line for lane in lanes for line in self._across(lane)],
            "        to = y + (block * 16 * inputs + channel) * 36",
            "        for output in range(count):",
            "            at = taps + output * 4",
            "            for _ in range(9):",
            "                store_f32(to, load_f32(at))",
            "                at += 64",
            "                to += 4",
            "            to += (inputs - 1) * 36",
        ]
        return "\n".join(lines) + "\n"

    def _down(self, lane: int) -> list[str]:
        """Column ``j`` of the positions to three rows."""
        loads = [f"m{i} = load(source + ({i * 6} + j) * position, {lane})" for i in range(6)]
        stores = [f"store(work + ({i * 6} + j) * 64, e{i}, {lane})" for i in range(3)]
        return ["            " + line for line in [*loads, *_VALUES, *stores]]

    def _across(self, lane: int) -> list[str]:
        """Row ``i`` of what is left to three taps."""
        loads = [f"m{j} = load(work + (i * 6 + {j}) * 64, {lane})" for j in range(6)]
        stores = [f"store(taps + (i * 3 + {j}) * 64, e{j}, {lane})" for j in range(3)]
        return ["            " + line for line in [*loads, *_VALUES, *stores]]


def _constants() -> list[str]:
    values = {"fourth": "1.0 / 4.0", "sixth": "1.0 / 6.0", "minus_sixth": "-1.0 / 6.0",
              "twelfth": "1.0 / 12.0", "small": "1.0 / 24.0"}  # fmt: skip
    return [f"    {name} = spread(float32({value}))" for name, value in values.items()]


_VALUES = [
    "p = m1 + m2",
    "q = m3 + m4",
    "e0 = fma(fourth, m0, fma(minus_sixth, p, small * q))",
    "e1 = fma(sixth, m2 - m1, twelfth * (m3 - m4))",
    "e2 = fma(sixth, q - p, m5)",
]
"""The rows of G' times six positions."""

ROWS = {
    "TileTransformKernel": TRANSFORM_WORDS,
    "WeightProductKernel": PRODUCT_WORDS,
    "TapsKernel": BACK_WORDS,
}
"""The rows' words."""
