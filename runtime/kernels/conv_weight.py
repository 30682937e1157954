"""The gradient of convolution weights: a matrix product over pixels, on 16-channel blocks.

A row of the product is one input channel at one tap, a column an output channel: the sum over all
pixels of x, shifted by the tap, times d. A register tile of a few rows by whole blocks of outputs
stays in registers while the pixels of a chunk go by; chunks are small enough for x and d to stay in
cache until every tile has seen them. Rows read x at byte offsets of a table, so taps, dilation and
channels that lie anywhere are data. Where the input is padded, a chunk's rows of it are first
copied to scratch with the zeros around them.

Sums of a task's chunks go to a place of their own, and a second kernel adds the tasks' sums in
order and turns them into the layout of weights: the same bits whichever thread does what.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = [
    "x", "d", "y", "table", "tiles", "panels", "panel_groups", "panels_per_task", "chunks",
    "split_chunks", "bands", "band_rows", "band_images", "images", "rows", "columns", "pixels",
    "x_image", "x_block", "x_line", "d_image", "d_block", "split_bytes", "panel_bytes",
    "blocks_out", "scratch", "scratch_slot", "blocks_in", "height", "width", "pad_top", "pad_left",
    "stage_width", "stage_rows", "stage_image", "stride_y",
]  # fmt: skip
"""A chunk is ``band_images`` images times ``band_rows`` output rows, ``split_chunks`` chunks a
task; a task is ``(split, group of panels)``, the group fastest. ``x_line`` is the bytes of x
between output rows. A flat kernel has one image, whose rows are runs of ``columns`` of ``pixels``.
``y`` takes [splits, panels, tiles * rows of a tile, outputs of a panel]."""


def tile_rows(width: int) -> int:
    """Rows of the register tile."""
    return {16: 12, 8: 6, 4: 2}[width]


def panel_blocks(width: int) -> int:
    """Blocks of outputs of a panel, the register tile's columns."""
    return 2 if width == 16 else 1


@dataclass(frozen=True)
class ConvWeightKernel:
    """Compiled for a distance of ``step`` bytes between neighbouring pixels of the (staged) input.

    ``stage``: ``none``, ``blocked`` (copied with padding) or ``planar`` (channels interleaved from
    NCHW). ``flat``: all pixels of all images continue each other.
    """

    step: int
    stage: str
    flat: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        flat = "_flat" if self.flat else ""
        return f"conv_weight_s{self.step}_{self.stage}{flat}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Gradient of convolution weights, stage {self.stage}."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    zero = spread(float32(0.0))",
            "    group = task % panel_groups",
            "    split = task // panel_groups",
            "    first_panel = group * panels_per_task",
            "    last_panel = min(first_panel + panels_per_task, panels)",
            "    first_chunk = split * split_chunks",
            "    last_chunk = min(first_chunk + split_chunks, chunks)",
            "    here = scratch + slot * scratch_slot",
            "    for chunk in range(first_chunk, last_chunk):",
            "        first_image = chunk // bands * band_images",
            "        last_image = min(first_image + band_images, images)",
            "        first_row = chunk % bands * band_rows",
            "        last_row = min(first_row + band_rows, rows)",
            *self._stage(),
            *self._tiles(),
        ]
        return "\n".join(lines) + "\n"

    # ------------------------------------------------------------ staging

    def _stage(self) -> list[str]:
        if self.stage == "none":
            return [
                "        source = x + first_image * x_image + first_row * x_line",
                "        source_image = x_image",
            ]
        body = self._planar() if self.stage == "planar" else self._blocked()
        return [
            "        top = first_row * stride_y - pad_top",
            "        for image in range(first_image, last_image):",
            *body,
            "        source = here",
            "        source_image = stage_image",
        ]

    def _blocked(self) -> list[str]:
        parts = tile.vectors(self.width)
        wide = self.width * 4
        clear = [f"store(to, zero, {v * wide})" for v in range(parts)]
        copy = [f"store(to, load(at, {v * wide}), {v * wide})" for v in range(parts)]
        return [
            "            to = here + (image - first_image) * stage_image",
            "            for block in range(blocks_in):",
            "                plane = x + image * x_image + block * x_block",
            "                for line in range(stage_rows):",
            "                    level = top + line",
            "                    inside = level >= 0 and level < height",
            "                    at = plane + (level * width - pad_left) * 64",
            "                    for column in range(-pad_left, stage_width - pad_left):",
            "                        if inside and column >= 0 and column < width:",
            *[f"                            {line}" for line in copy],
            "                        else:",
            *[f"                            {line}" for line in clear],
            "                        at += 64",
            "                        to += 64",
        ]

    def _planar(self) -> list[str]:
        """``blocks_in`` counts channels here; a pixel's channels become neighbours."""
        return [
            "            goal = here + (image - first_image) * stage_image",
            "            for line in range(stage_rows):",
            "                level = top + line",
            "                inside = level >= 0 and level < height",
            "                for channel in range(blocks_in):",
            "                    to = goal + (line * stage_width * blocks_in + channel) * 4",
            "                    at = x + image * x_image",
            "                    at += ((channel * height + level) * width - pad_left) * 4",
            "                    for column in range(-pad_left, stage_width - pad_left):",
            "                        if inside and column >= 0 and column < width:",
            "                            store_f32(to, load_f32(at))",
            "                        else:",
            "                            store_f32(to, float32(0.0))",
            "                        at += 4",
            "                        to += blocks_in * 4",
        ]

    # ------------------------------------------------------------ products

    def _tiles(self) -> list[str]:
        """Every tile of every panel over the chunk's pixels."""
        rows, blocks = tile_rows(self.width), panel_blocks(self.width)
        sums = list(tile.accumulators(rows, blocks, self.width))
        size = rows * blocks * 64
        return [
            "        for panel in range(first_panel, last_panel):",
            "            sums = y + split * split_bytes + panel * panel_bytes",
            f"            cotangent = d + panel * {blocks} * d_block + first_image * d_image",
            f"            beside = d_block if panel * {blocks} + 1 < blocks_out else 0",
            "            for number in range(tiles):",
            f"                offsets = table + number * {8 * rows}",
            *[f"                o{r} = load_i64(offsets, {8 * r})" for r in range(rows)],
            f"                place = sums + number * {size}",
            "                if chunk == first_chunk:",
            *[f"                    {name} = zero" for _, _, name in sums],
            "                else:",
            *[f"                    {name} = load(place, {i * self.width * 4})"
              for i, (_, _, name) in enumerate(sums)],
            "                for image in range(last_image - first_image):",
            "                    for line in range(first_row, last_row):",
            "                        xp = source + image * source_image",
            "                        xp += (line - first_row) * x_line",
            "                        dp = cotangent + image * d_image + line * columns * 64",
            *self._line(),
            *[f"                store(place, {name}, {i * self.width * 4})"
              for i, (_, _, name) in enumerate(sums)],
        ]  # fmt: skip

    def _line(self) -> list[str]:
        rows, blocks = tile_rows(self.width), panel_blocks(self.width)
        count = "min(columns, pixels - line * columns)" if self.flat else "columns"
        parts, wide = tile.vectors(self.width), self.width * 4
        body = []
        for k in range(blocks):
            at = "dp + beside" if k else "dp"
            body += [f"d{k * parts + v} = load({at}, {v * wide})" for v in range(parts)]
        for r in range(rows):
            body.append(f"b = spread_from(xp + o{r})")
            body += [f"a{r}_{v} = fma(b, d{v}, a{r}_{v})" for v in range(blocks * parts)]
        return [
            f"                        for _ in range({count}):",
            *["                            " + line for line in body],
            f"                            xp += {self.step}",
            "                            dp += 64",
        ]


SUM_WORDS = [
    "x", "y", "table", "rows", "outputs", "splits", "split_bytes", "panel_bytes", "panel_blocks",
    "output_step", "shares", "share",
]  # fmt: skip
"""``table`` gives the byte at which a row lies in an output's weights; a task is ``(block of 16
outputs, share)`` of ``share`` rows, the share fastest."""

SHARE = 256
"""Rows of one task."""


def sum_tasks(blocks: int, rows: int) -> int:
    """How many tasks the sum has."""
    return blocks * -(-rows // SHARE)


@dataclass(frozen=True)
class WeightSumKernel:
    """Sums of all splits, in order, as weights [outputs, inputs, taps]."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"conv_weight_sum_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        parts, wide = tile.vectors(self.width), self.width * 4
        lines = [
            '"""Partial sums of convolution weights, added and laid out as weights."""',
            "from numba import int64",
            "from tilth.runtime.kernels.masks import lane_values",
            f"from tilth.runtime.simd import load_i64, load{self.width} as load, store_f32",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(SUM_WORDS),
            "    first = task % shares * share",
            "    last = min(first + share, rows)",
            "    block = task // shares",
            "    count = min(outputs - block * 16, 16)",
            "    source = x + block // panel_blocks * panel_bytes + block % panel_blocks * 64",
            "    target = y + block * 16 * output_step",
            "    for line in range(first, last):",
            "        at = source + line * panel_blocks * 64",
            *[f"        a{v} = load(at, {v * wide})" for v in range(parts)],
            "        for _ in range(1, splits):",
            "            at += split_bytes",
            *[f"            a{v} = a{v} + load(at, {v * wide})" for v in range(parts)],
            "        to = target + load_i64(table + 8 * line)",
        ]
        for v in range(parts):
            lines.append(f"        values = lane_values(a{v})")
            for lane in range(self.width):
                place = v * self.width + lane
                lines += [
                    f"        if {place} < count:",
                    f"            store_f32(to + {place} * output_step, values[{lane}])",
                ]
        return "\n".join(lines) + "\n"


ROWS = {"WeightSumKernel": SUM_WORDS}
"""Rows of the kernels that do not have ``WORDS``."""
