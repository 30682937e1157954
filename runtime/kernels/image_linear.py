"""Dense layers y[N, K] = x[N, C] W' + b on packed weights; a task is a panel of outputs.

Rows of x are taken a few at a time; with one row the kernel streams the weights and is bound by
memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

WORDS = [
    "x", "w", "bias", "y", "residual", "images", "depth", "features", "x_row", "y_row",
    "panel_bytes", "low_bits", "high_bits", "scratch", "scratch_slot",
]  # fmt: skip
"""The row; ``x_row`` and ``y_row`` are byte strides between rows."""


@dataclass(frozen=True)
class LinearKernel:
    """``rows`` of x at a time by ``blocks`` of 16 outputs."""

    rows: int
    blocks: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"linear_{self.rows}x{self.blocks}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        regs = self.blocks * tile.vectors(self.width)
        wide = self.width * 4
        full = self.blocks * 64
        inner = [f"            w{v} = load(wp + {v * wide})" for v in range(regs)]
        for p in range(self.rows):
            inner.append(f"            b = spread(load_f32(x{p} + at))")
            inner += [f"            a{p}_{v} = fma(b, w{v}, a{p}_{v})" for v in range(regs)]
        ends = []
        for p in range(self.rows):
            ends.append(f"        to = y + min(first + {p}, images - 1) * y_row + task * {full}")
            ends.append("        more = residual + to - y")
            ends.append("        if residual != 0:")
            ends.append("            for k in range(count):")
            ends.append("                store_f32(hold + k * 4, load_f32(more + k * 4))")
            ends += [f"            a{p}_{v} = a{p}_{v} + load(hold + {v * wide})"
                     for v in range(regs)]  # fmt: skip
            ends += [f"        store(hold + {v * wide}, vmin(vmax(a{p}_{v}, low), high))"
                     for v in range(regs)]  # fmt: skip
            ends.append("        for k in range(count):")
            ends.append("            store_f32(to + k * 4, load_f32(hold + k * 4))")
        lines = [
            f'"""Dense layer, {self.rows} rows x {self.blocks} blocks."""',
            *tile.header(self.width),
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    low = spread(float32(load_f64(row + %d)))" % (8 * WORDS.index("low_bits")),
            "    high = spread(float32(load_f64(row + %d)))" % (8 * WORDS.index("high_bits")),
            "    hold = scratch + slot * scratch_slot",
            f"    count = min({self.blocks * 16}, features - task * {self.blocks * 16})",
            *[f"    i{v} = load(bias + task * {full} + {v * wide})" for v in range(regs)],
            f"    for group in range((images + {self.rows - 1}) // {self.rows}):",
            f"        first = max(min(group * {self.rows}, images - {self.rows}), 0)",
            *[f"        x{p} = x + min(first + {p}, images - 1) * x_row"
              for p in range(self.rows)],
            *tile.set_to(self.rows, self.blocks, self.width, "i", 8),
            "        wp = w + task * panel_bytes",
            "        for c in range(depth):",
            "            at = c * 4",
            *inner,
            f"            wp += {full}",
            *ends,
        ]  # fmt: skip
        return "\n".join(lines) + "\n"
