"""Weights into panels inside a plan: what ``runtime.packing`` does once, done at every step.

A weight is read by three strides, those of its outputs, inputs and taps, so that the transposed
and turned weights of a backward convolution need no copy: outputs and inputs change places and the
taps run backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile
from .winograd import POSITIONS

WORDS = [
    "x", "y", "output_step", "input_step", "tap_step", "outputs", "inputs", "taps", "blocks_in",
    "group_panels", "group_step", "panel_bytes",
]  # fmt: skip
"""``*_step`` are bytes between neighbours, ``group_step`` between groups of ``outputs`` outputs and
``inputs`` inputs; a task is ``(panel, block of 16 inputs)``, the block fastest."""


def tasks(panels: int, blocks_in: int) -> int:
    """How many tasks the packing of panels has."""
    return panels * blocks_in


@dataclass(frozen=True)
class PanelPackKernel:
    """Panels of ``wide`` outputs: rows ordered by input block, tap, input; zero beyond the last.

    Depthwise weights are panels of one input, vectors those of one input and one tap.
    """

    wide: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"pack_{self.wide}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Weights in panels of {self.wide} outputs."""',
            "from numba import float32, int64",
            "from tilth.runtime.simd import load_f32, load_i64, store_f32",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    block = task % blocks_in",
            "    panel = task // blocks_in",
            f"    first = panel % group_panels * {self.wide}",
            f"    count = max(min(outputs - first, {self.wide}), 0)",
            "    depth = min(inputs - block * 16, 16)",
            "    source = x + panel // group_panels * group_step + first * output_step",
            "    source += block * 16 * input_step",
            f"    to = y + panel * panel_bytes + block * 16 * taps * {self.wide * 4}",
            "    for tap in range(taps):",
            "        for channel in range(depth):",
            "            at = source + tap * tap_step + channel * input_step",
            "            for _ in range(count):",
            "                store_f32(to, load_f32(at))",
            "                to += 4",
            "                at += output_step",
            f"            for _ in range(count, {self.wide}):",
            "                store_f32(to, float32(0.0))",
            "                to += 4",
        ]
        return "\n".join(lines) + "\n"


WINOGRAD_WORDS = [
    "x", "y", "output_step", "input_step", "tap_step", "outputs", "inputs", "shares", "share",
    "scratch", "scratch_slot",
]  # fmt: skip
"""As ``WORDS``; a task is ``(panel, share)`` of ``share`` inputs, the share fastest."""

SHARE = 32
"""Inputs of one task of the Winograd transform."""

SOME = 8
"""Inputs that are transformed together: written one by one, the 36 positions of an input, which
often lie a power of two apart, would throw each other out of the cache."""


def winograd_tasks(panels: int, inputs: int) -> int:
    """How many tasks the transform has."""
    return panels * -(-inputs // SHARE)


def winograd_scratch(blocks: int) -> int:
    """Scratch of one slot: taps, half transformed ones, a few inputs' positions."""
    return (9 + 18 + POSITIONS * SOME) * blocks * tile.BLOCK * 4


@dataclass(frozen=True)
class WinogradPackKernel:
    """3x3 weights as [panels, 36, inputs, 16 * blocks]; see ``winograd.pack`` for the transform."""

    blocks: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"pack_winograd_{self.blocks}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.blocks * tile.BLOCK
        vectors = range(0, wide * 4, self.width * 4)
        down = [line for lane in vectors for line in self._down(wide, lane)]
        across = [line for lane in vectors for line in self._across(wide, lane)]
        lines = [
            f'"""Winograd weights in panels of {wide} outputs."""',
            "from numba import float32, int64",
            "from tilth.runtime.simd import (",
            f"    fma, load_f32, load_i64, store, store_f32, load{self.width} as load,",
            f"    spread{self.width} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WINOGRAD_WORDS),
            "    panel = task // shares",
            "    first_input = task % shares * share",
            "    last_input = min(first_input + share, inputs)",
            f"    first = panel * {wide}",
            f"    count = min(outputs - first, {wide})",
            "    work = scratch + slot * scratch_slot",
            f"    half = work + {9 * wide * 4}",
            "    quarter = spread(float32(1.0 / 4.0))",
            "    sixth = spread(float32(-1.0 / 6.0))",
            "    small = spread(float32(1.0 / 24.0))",
            "    twelfth = spread(float32(1.0 / 12.0))",
            "    plus_sixth = spread(float32(1.0 / 6.0))",
            f"    some = half + {18 * wide * 4}",
            f"    position = inputs * {wide * 4}",
            f"    panel_base = y + panel * {POSITIONS} * position",
            f"    for spot in range({9 * wide}):",
            "        store_f32(work + spot * 4, float32(0.0))",
            f"    for begin in range(first_input, last_input, {SOME}):",
            f"        end = min(begin + {SOME}, last_input)",
            "        for channel in range(begin, end):",
            "            source = x + first * output_step + channel * input_step",
            "            for output in range(count):",
            "                at = source + output * output_step",
            "                to = work + output * 4",
            "                for _ in range(9):",
            "                    store_f32(to, load_f32(at))",
            "                    at += tap_step",
            f"                    to += {wide * 4}",
            "            for j in range(3):",
            *["                " + line for line in down],
            f"            goal = some + (channel - begin) * {wide * 4}",
            "            for i in range(6):",
            *["                " + line for line in across],
            f"        for spot in range({POSITIONS}):",
            f"            at = some + spot * {SOME * wide * 4}",
            f"            to = panel_base + spot * position + begin * {wide * 4}",
            f"            for _ in range((end - begin) * {wide // self.width}):",
            "                store(to, load(at))",
            f"                at += {self.width * 4}",
            f"                to += {self.width * 4}",
        ]
        return "\n".join(lines) + "\n"

    def _down(self, wide: int, lane: int) -> list[str]:
        """Column ``j`` of the taps to six rows of the half transformed ones."""
        taps = [f"g{i} = load(work + ({3 * i} + j) * {wide * 4} + {lane})" for i in range(3)]
        return taps + [
            f"store(half + ({3 * i} + j) * {wide * 4} + {lane}, {value})"
            for i, value in enumerate(self._values())
        ]

    def _across(self, wide: int, lane: int) -> list[str]:
        """Row ``i`` of the half transformed taps to six positions."""
        taps = [f"g{j} = load(half + (3 * i + {j}) * {wide * 4} + {lane})" for j in range(3)]
        return taps + [
            f"store(goal + (i * 6 + {j}) * {SOME * wide * 4} + {lane}, {value})"
            for j, value in enumerate(self._values())
        ]

    def _values(self) -> list[str]:
        """The rows of G times three taps."""
        outer, ends = "sixth * (g0 + g2)", "fma(small, g0, plus_sixth * g2)"
        return [
            "quarter * g0",
            f"fma(sixth, g1, {outer})",
            f"fma(plus_sixth, g1, {outer})",
            f"fma(twelfth, g1, {ends})",
            f"{ends} - twelfth * g1",
            "g2",
        ]


ROWS = {"WinogradPackKernel": WINOGRAD_WORDS}
"""Rows of the kernels that do not have ``WORDS``."""
