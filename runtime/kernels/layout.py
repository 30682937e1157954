"""Kernels that only move elements: between layouts, along channels, across axes, by index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from . import indices, tile
from .pointwise import row_major

PIXELS = 256
"""Pixels that a task of the blocked layouts moves."""

# ---------------------------------------------------------------- NCHW and NCHW16c

BLOCK_WORDS = ["flat", "blocked", "flat_image", "blocked_image", "blocked_block", "blocks",
               "channels", "pixels", "groups"]  # fmt: skip
"""Byte addresses and strides; a task is ``(image, block, group of 256 pixels)``."""


def block_tasks(images: int, blocks: int, pixels: int) -> int:
    """How many tasks a change between the layouts has."""
    return images * blocks * -(-pixels // PIXELS)


@dataclass(frozen=True)
class BlockKernel:
    """NCHW to NCHW16c (``to_blocked``, pad lanes become 0) or back; float32."""

    to_blocked: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"{'to' if self.to_blocked else 'from'}_blocked_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        n = self.width
        lines = [
            f'"""Layout: NCHW {"to" if self.to_blocked else "from"} blocks of 16 channels."""',
            "from numba import float32",
            f"from tilth.runtime.kernels.moves import transpose{n} as transpose",
            "from tilth.runtime.simd import load_f32, load_i64, store_f32",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(BLOCK_WORDS),
            "    first = task % groups * 256",
            "    last = min(first + 256, pixels)",
            "    block = task // groups % blocks",
            "    image = task // groups // blocks",
            "    step = pixels * 4",
            "    flat += image * flat_image + block * 16 * step",
            "    blocked += image * blocked_image + block * blocked_block",
            "    lanes = min(channels - block * 16, 16)",
            f"    whole = lanes // {n} * {n}",
            f"    edge = first + (last - first) // {n} * {n}",
            f"    for lane in range(0, whole, {n}):",
            f"        for pixel in range(first, edge, {n}):",
            "            a = flat + lane * step + pixel * 4",
            "            b = blocked + pixel * 64 + lane * 4",
            "            transpose(a, step, b, 64)"
            if self.to_blocked
            else "            transpose(b, 64, a, step)",
            "        for pixel in range(edge, last):",
            f"            for place in range(lane, lane + {n}):",
            *self._one(16),
            "    for place in range(whole, lanes):",
            "        for pixel in range(first, last):",
            *self._one(12),
        ]
        if self.to_blocked:
            lines += [
                "    for place in range(lanes, 16):",
                "        for pixel in range(first, last):",
                "            store_f32(blocked + pixel * 64 + place * 4, float32(0.0))",
            ]
        return "\n".join(lines) + "\n"

    def _one(self, indent: int) -> list[str]:
        pad = " " * indent
        flat, blocked = "flat + place * step + pixel * 4", "blocked + pixel * 64 + place * 4"
        if self.to_blocked:
            return [f"{pad}store_f32({blocked}, load_f32({flat}))"]
        return [f"{pad}store_f32({flat}, load_f32({blocked}))"]


# ---------------------------------------------------------------- channels between blocked tensors

CHANNEL_WORDS = ["x", "y", "x_image", "x_block", "y_image", "y_block", "x_first", "y_first",
                 "channels", "pixels", "groups"]  # fmt: skip
"""``channels`` channels from channel ``x_first`` of x to channel ``y_first`` of y; a task is
``(image, group of 256 pixels)``."""


def channel_tasks(images: int, pixels: int) -> int:
    """How many tasks a copy of channels has."""
    return images * -(-pixels // PIXELS)


@dataclass(frozen=True)
class ChannelCopyKernel:
    """Copies a range of channels between blocked tensors: concat, split, slice at any channel.

    Lanes of y outside the range keep what they hold, so parts of a concat may run in any order.
    """

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"copy_channels_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        n = self.width
        lines = [
            '"""Layout: a range of channels between blocked tensors."""',
            f"from tilth.runtime.kernels.masks import load_first{n} as load_first, store_first",
            "from tilth.runtime.simd import load_i64",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(CHANNEL_WORDS),
            "    first = task % groups * 256",
            "    last = min(first + 256, pixels)",
            "    image = task // groups",
            "    x += image * x_image",
            "    y += image * y_image",
            "    done = 0",
            "    while done < channels:",
            # The longest stretch that lies in one block on both sides.
            "        source = x_first + done",
            "        target = y_first + done",
            "        count = min(16 - source % 16, 16 - target % 16)",
            "        count = min(count, channels - done)",
            "        a = x + source // 16 * x_block + source % 16 * 4 + first * 64",
            "        b = y + target // 16 * y_block + target % 16 * 4 + first * 64",
            "        for _ in range(first, last):",
            *self._lanes(),
            "            a += 64",
            "            b += 64",
            "        done += count",
        ]
        return "\n".join(lines) + "\n"

    def _lanes(self) -> list[str]:
        n = self.width
        if n == 16:
            return ["            store_first(b, load_first(a, count), count)"]
        return [
            f"            for lane in range(0, count, {n}):",
            "                few = count - lane",
            "                store_first(b + lane * 4, load_first(a + lane * 4, few), few)",
        ]


# ---------------------------------------------------------------- axes in another order


@dataclass(frozen=True)
class Transposition:
    """A permutation of axes as a walk: two axes in tiles, the others outside.

    ``rows`` is the axis whose elements are neighbours in the result, ``columns`` the one whose
    elements are neighbours in the source (both the same axis when it stays last, then ``columns``
    is 1). Strides are in elements.
    """

    outer: tuple[tuple[int, int, int], ...]
    rows: int
    columns: int
    source_step: int
    target_step: int


def transposition(shape: Sequence[int], strides: Sequence[int]) -> Transposition:
    """The walk over a source by strides, one of them 1; the target is contiguous.

    ``outer`` is (size, source stride, target stride).
    """
    axes = [[size, stride] for size, stride in zip(shape, strides, strict=True) if size != 1]
    place = len(axes) - 2
    while place >= 0:
        if axes[place][1] == axes[place + 1][1] * axes[place + 1][0]:
            size, stride = axes.pop(place + 1)
            axes[place] = [axes[place][0] * size, stride]
        place -= 1
    if not axes:
        axes = [[1, 1]]
    own = row_major([size for size, _ in axes])
    walk = [(size, stride, target) for (size, stride), target in zip(axes, own, strict=True)]
    last = walk.pop()
    if last[1] == 1:
        return Transposition(tuple(walk), last[0], 1, 1, 0)
    beside = next(i for i, axis in enumerate(walk) if axis[1] == 1)
    column = walk.pop(beside)
    return Transposition(tuple(walk), last[0], column[0], last[1], column[2])


TRANSPOSE_WORDS = ("pieces", "per_task", "x", "y", "rows", "columns", "x_step", "y_step", "strips")
"""``x_step`` is the byte step of the result's neighbours in x, ``y_step`` that of the source's
neighbours in y. A piece is a strip of 64 columns (when the last axis stays last, a whole run of
``rows``) at one outer index. Then ``n0, x_s0, y_s0, ...`` for each outer axis, in bytes."""

STRIP = 64


def transpose_division(where: Transposition) -> tuple[int, int]:
    """``(pieces, pieces a task does)``; a task moves about 16,384 elements."""
    pieces = prod(size for size, _, _ in where.outer) * -(-where.columns // STRIP)
    work = where.rows * min(where.columns, STRIP)
    return pieces, max(1, 16_384 // work)


def transpose_tasks(where: Transposition) -> int:
    """How many tasks a transposition has."""
    pieces, per_task = transpose_division(where)
    return -(-pieces // per_task)


def transpose_words(where: Transposition, itemsize: int, x: Any, y: Any) -> list[Any]:
    """The row of a transposition."""
    strips = -(-where.columns // STRIP)
    row: list[Any] = [*transpose_division(where), x, y, where.rows, where.columns]
    row += [where.source_step * itemsize, where.target_step * itemsize, strips]
    for size, source, target in where.outer:
        row += [size, source * itemsize, target * itemsize]
    return row


@dataclass(frozen=True)
class TransposeKernel:
    """A permutation of axes for elements of ``itemsize`` 1, 4 or 8 bytes.

    ``tiled`` permutations change the last axis; the others copy runs.
    """

    itemsize: int
    tiled: bool
    outer: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        how = "tiled" if self.tiled else "runs"
        return f"transpose_{self.itemsize}_{how}_{self.outer}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        extra = [f"{a}{d}" for d in range(self.outer) for a in ("n", "x_s", "y_s")]
        lanes = {4: self.width, 8: self.width // 2, 1: 0}[self.itemsize]
        mark = "d" if self.itemsize == 8 else ""
        kind = {1: "u8", 4: "i32", 8: "i64"}[self.itemsize]
        imports = [f"from tilth.runtime.simd import load_i64, store, load_{kind} as get, "
                   f"store_{kind} as put"]  # fmt: skip
        if lanes:
            imports += [
                f"from tilth.runtime.kernels.moves import transpose{lanes}{mark} as transpose",
                f"from tilth.runtime.simd import load{lanes}{mark} as load",
            ]
        lines = [
            f'"""Axes in another order, {self.itemsize} bytes an element."""',
            *imports,
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words([*TRANSPOSE_WORDS, *extra]),
            "    first = task * per_task",
            "    strip = first % strips",
            "    index = first // strips",
            *indices.split(self.outer),
            "    for _ in range(first, min(first + per_task, pieces)):",
            f"        a = x{indices.offset('x', self.outer)} + strip * {STRIP * self.itemsize}",
            f"        b = y{indices.offset('y', self.outer)} + strip * {STRIP} * y_step",
            *(self._tiles(lanes) if self.tiled else self._run(lanes)),
            "        strip += 1",
            "        if strip == strips:",
            "            strip = 0",
            *indices.advance(self.outer, 12),
        ]
        return "\n".join(lines) + "\n"

    def _tiles(self, lanes: int) -> list[str]:
        size = self.itemsize
        rows = [f"        count = min(columns - strip * {STRIP}, {STRIP})"]
        if lanes:
            rows += [
                f"        tall = rows // {lanes} * {lanes}",
                f"        broad = count // {lanes} * {lanes}",
                f"        for r in range(0, tall, {lanes}):",
                f"            for c in range(0, broad, {lanes}):",
                f"                transpose(a + r * x_step + c * {size}, x_step,",
                f"                          b + c * y_step + r * {size}, y_step)",
            ]
        else:
            rows += ["        tall = 0", "        broad = 0"]
        return [
            *rows,
            "        for c in range(count):",
            "            for r in range(tall if c < broad else 0, rows):",
            f"                put(b + c * y_step + r * {size}, get(a + r * x_step + c * {size}))",
        ]

    def _run(self, lanes: int) -> list[str]:
        size = self.itemsize
        rows = ["        done = 0"]
        if lanes:
            rows += [
                f"        for _ in range(rows // {lanes}):",
                f"            store(b + done * {size}, load(a + done * {size}))",
                f"            done += {lanes}",
            ]
        return [
            *rows,
            "        for r in range(done, rows):",
            f"            put(b + r * {size}, get(a + r * {size}))",
        ]


# ---------------------------------------------------------------- by index

GATHER_WORDS = ["x", "index", "y", "outer", "count", "size", "inner", "per_task", "fault"]
"""x [outer, size, inner], index [count], y [outer, count, inner]; ``inner`` in bytes. An index
outside ``0 .. size`` is not read: its place in the list, plus 1, is written to the int64 at
``fault`` (the last writer wins; the caller clears it), and that part of y keeps what it holds."""


def gather_division(outer: int, count: int, inner: int) -> int:
    """Slices that a task copies, of ``outer * count``: about 64 KiB."""
    return max(1, min(outer * count, 65_536 // max(inner, 1)))


def gather_tasks(outer: int, count: int, inner: int) -> int:
    """How many tasks a gather has."""
    return -(-outer * count // gather_division(outer, count, inner))


@dataclass(frozen=True)
class GatherKernel:
    """Slices of x at indices along one axis (the op ``take``); indices are i32 or i64.

    ``unit`` is the bytes moved at a time, 1, 4 or 8: the element size.
    """

    index: str
    unit: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"gather_{self.index}_{self.unit}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.width * 4
        kind = {1: "u8", 4: "i32", 8: "i64"}[self.unit]
        lines = [
            '"""Slices at indices along an axis."""',
            "from tilth.runtime.simd import (",
            f"    load_{self.index} as load_index, load_i64, store, store_i64,",
            f"    load{self.width} as load, load_{kind} as get, store_{kind} as put,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(GATHER_WORDS),
            "    first = task * per_task",
            "    for number in range(first, min(first + per_task, outer * count)):",
            "        place = number % count",
            f"        at = load_index(index + place * {4 if self.index == 'i32' else 8})",
            "        if at < 0 or at >= size:",
            "            store_i64(fault, place + 1)",
            "            continue",
            "        a = x + (number // count * size + at) * inner",
            "        b = y + number * inner",
            "        done = 0",
            f"        for _ in range(inner // {wide}):",
            "            store(b + done, load(a + done))",
            f"            done += {wide}",
            f"        for byte in range(done, inner, {self.unit}):",
            "            put(b + byte, get(a + byte))",
        ]
        return "\n".join(lines) + "\n"


ROWS = {
    "BlockKernel": BLOCK_WORDS,
    "ChannelCopyKernel": CHANNEL_WORDS,
    "GatherKernel": GATHER_WORDS,
}
"""Names of the rows' words by kernel."""
