"""Direct convolution on 16-channel blocks, any stride, dilation, padding and group count.

Activations lie block-major, [C/16, N, H, W, 16], so that neighbouring images continue each other.
A task is a band of output rows (or a run of pixels, for pointwise ones) of one image and a range
of output-channel panels. Where the input needs padding, a prologue or interleaving, the task
first stages the input rows it needs in scratch, which then stay in cache for all its panels.
Inputs are read through a table of chunks: chunk ``t`` is ``length`` consecutive floats at byte
offset ``table[t]`` from a pixel, so taps, dilation and channel maps are data. Chunks from
``full_chunks`` on are ``tail`` long: the last block's, whose other lanes are unspecified.

No hardware prefetcher follows these reads: the input is fetched two chunks ahead, and the next
panel's weights a piece with each channel, so that they have come by the time they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = [
    "x", "w", "bias", "y", "residual", "table", "chunks", "length", "full_chunks", "tail",
    "x_image", "x_block", "y_image", "y_block", "bands", "band_rows", "rows", "columns",
    "panels", "panel_groups", "panels_per_task", "blocks_out", "panel_bytes",
    "row_step", "group_panels", "group_bytes", "low_bits", "high_bits",
    "scratch", "scratch_slot", "blocks_in", "height", "width", "pad_top", "pad_left",
    "stage_width", "stage_rows", "stride_y", "scale", "shift", "pixels",
    "prologue_low", "part_chunks", "sums_at",
]  # fmt: skip
"""The row. ``*_image`` and ``*_block`` are byte strides; ``group_bytes`` is the stride of groups in
the input, or in the table of a mapped kernel; ``scale`` and ``shift`` are the prologue's. A
deep kernel takes ``part_chunks`` at a time and keeps sums at ``sums_at`` of its scratch."""


AHEAD = ["prefetch_l2(following)", "following += stride"]
"""With each channel a piece of the next panel's weights is fetched."""


@dataclass(frozen=True)
class ConvKernel:
    """What a convolution kernel is compiled for.

    ``pixels`` x ``blocks`` is the register tile; ``step`` the bytes between neighbouring pixels of
    the (staged) input. ``stage``: ``none``, ``blocked`` (copy with padding), ``prologue`` (scale,
    shift and relu on the way) or ``planar`` (channels interleaved from NCHW). A ``flat`` kernel
    (pointwise, stride 1) sees all pixels of all images as rows of ``columns``; the last row
    overlaps the one before it where they do not divide. A ``deep`` kernel takes the weights of a
    panel in parts, each for all pixels of the task before the next, so that a part stays in cache.
    A ``mapped`` kernel's chunks are single channels, that lie anywhere.
    """

    pixels: int
    blocks: int
    step: int
    stage: str
    flat: bool
    width: int
    deep: bool = False
    mapped: bool = False

    @property
    def name(self) -> str:
        """A readable file name."""
        shape = f"{self.pixels}x{self.blocks}_s{self.step}"
        kind = "_flat" * self.flat + "_deep" * self.deep + "_mapped" * self.mapped
        return f"conv_{shape}_{self.stage}{kind}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Convolution, {self.pixels} pixels x {self.blocks} blocks, stage {self.stage}."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            *self._places(),
            *self._stage(),
            *self._loops(),
        ]
        return "\n".join(lines) + "\n"

    def _places(self) -> list[str]:
        return [
            f"    low = spread(float32(load_f64(row, {8 * WORDS.index('low_bits')})))",
            f"    high = spread(float32(load_f64(row, {8 * WORDS.index('high_bits')})))",
            "    zero = spread(float32(0.0))",
            "    group = task % panel_groups",
            "    band = (task // panel_groups) % bands",
            "    image = task // (panel_groups * bands)",
            "    first_row = band * band_rows",
            "    last_row = min(first_row + band_rows, rows)",
            "    source = x + image * x_image",
            "    target = image * y_image",
        ]

    # ------------------------------------------------------------ staging

    def _stage(self) -> list[str]:
        if self.stage == "none":
            return [] if self.flat else ["    source += first_row * row_step"]
        if self.stage == "planar":
            return self._stage_planar()
        parts = tile.vectors(self.width)
        wide = self.width * 4
        body = []
        for v in range(parts):
            body.append(f"                        value = load(at, {v * wide})")
            if self.stage == "prologue":
                body.append(f"                        value = vmax(fma(value, s{v}, t{v}), floor)")
            body.append(f"                        store(to, value, {v * wide})")
        factors = []
        if self.stage == "prologue":
            for v in range(parts):
                factors.append(f"        s{v} = load(scale + block * 64, {v * wide})")
                factors.append(f"        t{v} = load(shift + block * 64, {v * wide})")
        clear = [f"store(to, zero, {v * wide})" for v in range(parts)]
        floor = []
        if self.stage == "prologue":
            word = 8 * WORDS.index("prologue_low")
            floor = [f"    floor = spread(float32(load_f64(row, {word})))"]
        return [
            *floor,
            "    here = scratch + slot * scratch_slot",
            "    to = here",
            "    top = first_row * stride_y - pad_top",
            "    for block in range(blocks_in):",
            *factors,
            "        for line in range(stage_rows):",
            "            level = top + line",
            "            if level < 0 or level >= height:",
            "                for _ in range(stage_width):",
            *[f"                    {c}" for c in clear],
            "                    to += 64",
            "            else:",
            "                at = source + block * x_block + level * width * 64",
            "                at -= pad_left * 64",
            "                for column in range(-pad_left, stage_width - pad_left):",
            "                    if column < 0 or column >= width:",
            *[f"                        {c}" for c in clear],
            "                    else:",
            *body,
            "                    at += 64",
            "                    to += 64",
            "    source = here",
        ]

    def _stage_planar(self) -> list[str]:
        """``blocks_in`` counts channels here; a pixel's channels become neighbours."""
        return [
            "    here = scratch + slot * scratch_slot",
            "    top = first_row * stride_y - pad_top",
            "    step = blocks_in * 4",
            "    for line in range(stage_rows):",
            "        level = top + line",
            "        inside = level >= 0 and level < height",
            "        before = min(pad_left, stage_width) if inside else stage_width",
            "        copied = min(width, stage_width - before)",
            "        for channel in range(blocks_in):",
            "            to = here + (line * stage_width * blocks_in + channel) * 4",
            "            at = source + (channel * height + level) * width * 4",
            "            for _ in range(before):",
            "                store_f32(to, float32(0.0))",
            "                to += step",
            "            for _ in range(copied):",
            "                store_f32(to, load_f32(at))",
            "                at += 4",
            "                to += step",
            "            for _ in range(stage_width - before - copied):",
            "                store_f32(to, float32(0.0))",
            "                to += step",
            "    source = here",
        ]

    # ------------------------------------------------------------ computing

    def _loops(self) -> list[str]:
        regs = self.blocks * tile.vectors(self.width)
        wide = self.width * 4
        bias = [f"            i{v} = load(bias + panel * {self.blocks * 64}, {v * wide})"
                for v in range(regs)]  # fmt: skip
        sums = f"sums + ((line - first_row) * tiles + number) * {self.pixels * self.blocks * 64}"
        return [
            "    first_panel = group * panels_per_task",
            "    last_panel = min(first_panel + panels_per_task, panels)",
            f"    tiles = (columns + {self.pixels - 1}) // {self.pixels}",
            *(["    sums = scratch + slot * scratch_slot + sums_at"] if self.deep else []),
            "    for panel in range(first_panel, last_panel):",
            *self._group(),
            "        weights = w + panel * panel_bytes",
            *[line[4:] for line in bias],
            f"        for begin in range(0, chunks, {'part_chunks' if self.deep else 'chunks'}):",
            f"            end = {'min(begin + part_chunks, chunks)' if self.deep else 'chunks'}",
            "            whole = max(min(end, full_chunks) - begin, 0)",
            "            depth = whole * length + (end - begin - whole) * tail",
            f"            following = weights + depth * {self.blocks * 64}",
            f"            stride = {self.blocks * 64} // ((last_row - first_row) * tiles)",
            "            for line in range(first_row, last_row):",
            *self._line(),
            "                for number in range(tiles):",
            f"                    column = min(number * {self.pixels}, columns - {self.pixels})",
            f"                    xb = base + column * {self.step}",
            f"                    xn = base + min(column + {self.pixels}, "
            f"columns - {self.pixels}) * {self.step}",
            "                    wp = weights",
            *self._start(sums),
            *(self._channels() if self.mapped else self._chunks()),
            *self._finish(sums),
            f"            weights += depth * {self.blocks * 64}",
        ]

    def _group(self) -> list[str]:
        """Where a panel's group begins: in the input, or in the table of channels."""
        if self.mapped:
            return [
                "        shifted = source",
                "        places = table + (panel // group_panels) * group_bytes",
            ]
        return ["        shifted = source + (panel // group_panels) * group_bytes"]

    def _chunks(self) -> list[str]:
        """The products of a tile, by chunks of neighbouring channels."""
        tile_args = (self.pixels, self.blocks, self.width)
        return [
            "                    for t in range(begin, end):",
            "                        xp = xb + load_i64(table + 8 * t)",
            "                        at = xb",
            "                        ahead = t + 2",
            "                        if ahead >= end:",
            "                            at = xn",
            "                            ahead = min(ahead - end + begin, t)",
            "                        at += load_i64(table + 8 * ahead)",
            *[
                f"                        prefetch_l1(at, {p * self.step})"
                for p in range(self.pixels)
                # Pixels that are nearer than a line's length share it with the one before.
                if p == 0 or p * self.step // 64 > (p - 1) * self.step // 64
            ],
            "                        count = length if t < full_chunks else tail",
            *tile.multiply(*tile_args, str(self.step), 24, "count", AHEAD),
        ]

    def _channels(self) -> list[str]:
        """The products of a tile, by channels that lie anywhere."""
        once = [
            *tile.channel(self.pixels, self.blocks, self.width, str(self.step)),
            *AHEAD,
        ]
        rows = ["                    at = places"]
        for turns in (f"chunks // {tile.UNROLL}", f"chunks % {tile.UNROLL}"):
            count = tile.UNROLL if "//" in turns else 1
            rows.append(f"                    for _ in range({turns}):")
            for n in range(count):
                rows.append(f"                        xp = xb + load_i64(at, {8 * n})")
                rows += ["                        " + code for code in once]
            rows.append(f"                        at += {8 * count}")
        return rows

    def _start(self, sums: str) -> list[str]:
        """Sums begin with the bias, or where the part before left them."""
        tile_args = (self.pixels, self.blocks, self.width)
        rows = tile.set_to(*tile_args, "i", 20)
        if not self.deep:
            return rows
        loads = [
            f"                        {name} = load(place, {i * self.width * 4})"
            for i, (_, _, name) in enumerate(tile.accumulators(*tile_args))
        ]
        return [*rows, "                    if begin > 0:",
                f"                        place = {sums}", *loads]  # fmt: skip

    def _finish(self, sums: str) -> list[str]:
        """Results to their place, or sums to scratch for the next part."""
        rows = [
            f"                    place = target + panel * {self.blocks} * y_block",
            "                    place += (start + column) * 64",
            *["    " + line for line in self._epilogue()],
        ]
        if not self.deep:
            return rows
        names = tile.accumulators(self.pixels, self.blocks, self.width)
        stores = [
            f"                        store(place, {name}, {i * self.width * 4})"
            for i, (_, _, name) in enumerate(names)
        ]
        return [
            "                    if end < chunks:",
            f"                        place = {sums}",
            *stores,
            "                    else:",
            *["    " + line for line in rows],
        ]

    def _line(self) -> list[str]:
        if self.flat:
            return [
                "                start = max(min(line * columns, pixels - columns), 0)",
                f"                base = shifted + start * {self.step}",
            ]
        return [
            "                start = line * columns",
            "                base = shifted + (line - first_row) * row_step",
        ]

    def _epilogue(self) -> list[str]:
        parts = tile.vectors(self.width)
        wide = self.width * 4
        rows = []
        for k in range(self.blocks):
            at = f"place + {k} * y_block" if k else "place"
            rows.append(f"                if panel * {self.blocks} + {k} < blocks_out:")
            rows.append(f"                    to = {at}")
            rows.append("                    if residual != 0:")
            rows.append("                        beside = residual + to")
            for p in range(self.pixels):
                for v in range(parts):
                    name = f"a{p}_{k * parts + v}"
                    rows.append(f"                        {name} = {name} + "
                                f"load(beside, {p * 64 + v * wide})")  # fmt: skip
            rows.append("                    out = y + to")
            for p in range(self.pixels):
                for v in range(parts):
                    name = f"a{p}_{k * parts + v}"
                    rows.append(f"                    store(out, vmin(vmax({name}, low), high), "
                                f"{p * 64 + v * wide})")  # fmt: skip
        return rows
