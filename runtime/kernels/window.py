"""The loops that window kernels share: depthwise convolution and pooling on 16-channel blocks.

A task is a band of output rows of one block of one image. Rows of taps outside the input are left
out by the bounds of a loop. Output columns fall in three ranges, computed once a task: where a
window hangs over the left or right edge pixels go one by one, with loop bounds for their taps; in
the middle all taps are inside and a tile of pixels stays in registers.
"""

from __future__ import annotations

from dataclasses import dataclass

WORDS = [
    "x", "y", "x_image", "x_block", "y_image", "y_block", "blocks", "bands", "band_rows",
    "height", "width", "rows", "columns", "taps_y", "stride_y", "dilation_y", "pad_top", "pad_left",
]  # fmt: skip
"""``*_image`` and ``*_block`` are byte strides, so that operands may be parts of larger buffers;
``rows`` and ``columns`` are the output's; a task is ``(image, block, band)``, the band fastest."""


@dataclass(frozen=True)
class Window:
    """What is unrolled: taps along a row, their stride and dilation, pixels of a register tile."""

    taps: int
    stride: int
    dilation: int
    pixels: int


def tile_pixels(columns: int, taps: int, stride: int, dilation: int, pads: int, width: int) -> int:
    """Pixels of the register tile that waste least on the middle of a row.

    ``pads`` is the padding left and right together, ``width`` the vector width.
    """
    reach = dilation * (taps - 1)
    middle = max(columns - -(-min(pads, reach) // stride), 1)
    most = 8 if width == 16 else 6
    if middle <= most:
        return middle
    return min(range(most, 3, -1), key=lambda p: -(-middle // p) * p)


def division(planes: int, rows: int) -> tuple[int, int]:
    """``(bands, rows of a band)`` for images times blocks: about 16 tasks where rows allow."""
    bands = max(1, min(rows // 4, -(-16 // planes)))
    band_rows = -(-rows // bands)
    return -(-rows // band_rows), band_rows


def tasks(images: int, blocks: int, bands: int) -> int:
    """How many tasks a window kernel has."""
    return images * blocks * bands


def prologue(window: Window) -> list[str]:
    """From the task to its planes, and the columns ``left .. right`` where all taps are inside."""
    reach = window.dilation * (window.taps - 1)
    s, p = window.stride, window.pixels
    return [
        "    band = task % bands",
        "    image = task // bands // blocks",
        "    block = task // bands % blocks",
        "    first_row = band * band_rows",
        "    last_row = min(first_row + band_rows, rows)",
        "    source = x + image * x_image + block * x_block",
        "    target = image * y_image + block * y_block",
        f"    left = min((pad_left + {s - 1}) // {s}, columns)",
        f"    right = (width - {1 + reach} + pad_left + {s}) // {s}",
        "    right = max(min(right, columns), left)",
        f"    if right - left < {p}:",
        "        left = columns",
        "        right = columns",
    ]


def loops(
    window: Window,
    width: int,
    ahead: list[str],
    tap: str,
    finish: list[str],
    together: list[str],
    alone: list[str],
) -> list[str]:
    """All rows and columns of a task.

    ``ahead`` sets up a row (``first_tap .. last_tap`` and ``lane``, the byte of the block, are
    known); ``tap`` updates ``{a}`` by the input ``{x}`` and the weight at ``{w}``; ``finish`` turns
    ``{a}`` into a result and stores it at ``{to}``. Before the finish runs ``together`` in a tile,
    and ``alone`` for a pixel that is computed by itself, whose taps are ``first .. last``.
    """
    wide = width * 4
    return [
        "    for line in range(first_row, last_row):",
        "        top = line * stride_y - pad_top",
        "        first_tap = 0",
        "        last_tap = taps_y",
        "        if top < 0:",
        "            first_tap = (dilation_y - 1 - top) // dilation_y",
        "        if top + (taps_y - 1) * dilation_y >= height:",
        "            last_tap = (height - 1 - top) // dilation_y + 1",
        f"        for lane in range(0, 64, {wide}):",
        *("            " + code for code in ahead),
        "            above = source + top * width * 64 - pad_left * 64 + lane",
        "            place = target + line * columns * 64 + lane",
        "            column = 0",
        "            while column < columns:",
        "                if column >= left and column < right:",
        f"                    column = min(column, right - {window.pixels})",
        *("                    " + code for code in _tile(window, tap, finish, together)),
        f"                    column += {window.pixels}",
        "                else:",
        *("                    " + code for code in _pixel(window, tap, finish, alone)),
        "                    column += 1",
    ]


def _tile(window: Window, tap: str, finish: list[str], together: list[str]) -> list[str]:
    """Pixels whose taps are all inside; an input that several taps need is loaded once."""
    rows = [f"a{p} = start" for p in range(window.pixels)]
    rows += [
        "for ky in range(first_tap, last_tap):",
        f"    xp = above + (ky * dilation_y * width + column * {window.stride}) * 64",
        f"    wp = ky * {window.taps * 64} + lane",
    ]
    loaded: set[int] = set()
    for kx in range(window.taps):
        for p in range(window.pixels):
            offset = p * window.stride + kx * window.dilation
            if offset not in loaded:
                loaded.add(offset)
                rows.append(f"    x{offset} = load(xp, {offset * 64})")
            code = tap.format(a=f"a{p}", x=f"x{offset}", w=f"wp + {kx * 64}")
            rows.append("    " + code)
    rows += together
    for p in range(window.pixels):
        rows.append(f"to = place + (column + {p}) * 64")
        rows += [code.format(a=f"a{p}", to="to") for code in finish]
    return rows


def _pixel(window: Window, tap: str, finish: list[str], alone: list[str]) -> list[str]:
    """A pixel whose window may hang over an edge."""
    d = window.dilation
    return [
        f"start_x = column * {window.stride} - pad_left",
        f"first = max(({d - 1} - start_x) // {d}, 0)",
        f"last = min((width - 1 - start_x) // {d} + 1, {window.taps})",
        "a = start",
        "for ky in range(first_tap, last_tap):",
        f"    xp = above + (ky * dilation_y * width + column * {window.stride}) * 64",
        f"    wp = ky * {window.taps * 64} + lane",
        "    for kx in range(first, last):",
        f"        xs = load(xp + kx * {d * 64})",
        "        " + tap.format(a="a", x="xs", w="wp + kx * 64"),
        *alone,
        "to = place + column * 64",
        *(code.format(a="a", to="to") for code in finish),
    ]


def header(width: int, extra: str = "") -> list[str]:
    """Imports of a window kernel; ``extra`` names more of the SIMD module."""
    return [
        "from numba import float32, int64",
        "from tilth.runtime.kernels.vector_ops import maximum",
        "from tilth.runtime.simd import (",
        f"    fma, load_f64, load_i64, store, vmax, vmin, {extra}",
        f"    load{width} as load, spread{width} as spread,",
        ")",
        "",
        "",
        "def kernel(row, task, slot):",
    ]
