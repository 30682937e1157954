"""The register tile that dense kernels share: ``pixels`` x ``blocks`` of 16 channels.

Accumulators are plain local names, so LLVM keeps them in registers; one weight vector per block is
loaded per input channel and each pixel's value is broadcast from memory. With 14 pixels and two
blocks this runs at the machine's multiply-add peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BLOCK = 16
"""Channels of a block: fixed, so that a compiled module moves between machines."""


def vectors(width: int) -> int:
    """Registers that one block takes at a vector width."""
    return BLOCK // width


def accumulators(pixels: int, blocks: int, width: int) -> Iterator[tuple[int, int, str]]:
    """``(pixel, vector, name)`` for every accumulator."""
    for p in range(pixels):
        for v in range(blocks * vectors(width)):
            yield p, v, f"a{p}_{v}"


def set_to(pixels: int, blocks: int, width: int, value: str, indent: int) -> list[str]:
    """Statements that give every accumulator of vector ``v`` the value of ``{value}{v}``."""
    pad = " " * indent
    return [f"{pad}{name} = {value}{v}" for _, v, name in accumulators(pixels, blocks, width)]


UNROLL = 4
"""Channels of one turn of the inner loop: a loop of single channels reached 80 % of the peak."""


def multiply(
    pixels: int,
    blocks: int,
    width: int,
    step: str,
    indent: int,
    count: str = "length",
    ahead: Sequence[str] = (),
) -> list[str]:
    """The inner loop: ``count`` channels at ``xp`` (pixels ``step`` bytes apart) by ``wp``.

    ``ahead`` are statements that prefetch, run once a channel.
    """
    pad, unroll = " " * indent, unrolled(step)
    once = [pad + "    " + code for code in [*channel(pixels, blocks, width, step), *ahead]]
    if unroll == 1:
        return [f"{pad}for _ in range({count}):", *once]
    return [
        f"{pad}for _ in range({count} // {unroll}):",
        *(once * unroll),
        f"{pad}for _ in range({count} % {unroll}):",
        *once,
    ]


def unrolled(step: str) -> int:
    """Channels of one turn of the inner loop where pixels are ``step`` bytes apart.

    Pixels that are nearer than so many channels would meet in one turn: a value that was spread for
    one pixel is another's for a later channel. LLVM keeps it for that, and registers run out.
    """
    return min(UNROLL, max(1, int(step) // 4)) if step.isdigit() else UNROLL


def channel(pixels: int, blocks: int, width: int, step: str) -> list[str]:
    """The products of one channel at ``xp`` by ``wp``, which go on to the next."""
    regs = blocks * vectors(width)
    rows = [f"w{v} = load(wp, {v * width * 4})" for v in range(regs)]
    for p in range(pixels):
        rows.append(f"b = spread_from(xp, {_times(p, step)})")
        rows += [f"a{p}_{v} = fma(b, w{v}, a{p}_{v})" for v in range(regs)]
    return [*rows, f"wp += {blocks * BLOCK * 4}", "xp += 4"]


def _times(p: int, step: str) -> str:
    return str(p * int(step)) if step.isdigit() else f"{p} * {step}"


def header(width: int) -> list[str]:
    """Imports of a generated kernel."""
    return [
        "from numba import float32, int64",
        "from tilth.runtime.simd import (",
        "    fma, load_f32, load_f64, load_i64, prefetch_l1, prefetch_l2, store, store_f32,",
        "    vmax, vmin,",
        f"    load{width} as load, spread{width} as spread, spread_from{width} as spread_from,",
        ")",
        "",
        "ONE_TYPE = True  # each variable has one type",
        "",
        "",
    ]


def words(names: list[str], indent: int = 4) -> list[str]:
    """Statements that read the row's words into local names, in order."""
    pad = " " * indent
    return [f"{pad}{name} = load_i64(row, {8 * place})" for place, name in enumerate(names)]
