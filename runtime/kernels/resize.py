"""Resampling of 16-channel blocks: resize by tables of taps, sampling at the points of a grid.

Resizing is a weighted sum over ``taps`` rows and ``taps`` columns of the input. Which ones, and
with which weights, is in tables made once for the sizes (:func:`nearest_table`,
:func:`linear_table`, :func:`cubic_table`), so one kernel serves every way to count coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tile

WORDS = [
    "x", "y", "x_image", "x_block", "y_image", "y_block", "blocks", "width", "rows", "columns",
    "row_places", "row_weights", "column_places", "column_weights",
]  # fmt: skip
"""Byte strides as everywhere; ``rows`` and ``columns`` are the result's. Tables: int64 places and
float32 weights, ``taps`` for each row and for each column. A task is ``(image, block, row)``."""


def tasks(images: int, blocks: int, rows: int) -> int:
    """How many tasks a resize or a grid sample has."""
    return images * blocks * rows


# ---------------------------------------------------------------- tables

Table = tuple[np.ndarray, np.ndarray]
"""Places [count, taps] int64 and weights [count, taps] float32."""


def nearest_table(length: int, count: int, scale: float | None, exact: bool) -> Table:
    """One tap: the element under an output's corner, or under its middle when ``exact``."""
    i = np.arange(count)
    if scale is not None:
        found = np.floor((i + (0.5 if exact else 0.0)) / scale).astype(np.int64)
    else:
        found = (2 * i + 1) * length // (2 * count) if exact else i * length // count
    return np.minimum(found, length - 1)[:, None], np.ones((count, 1), np.float32)


def linear_table(length: int, count: int, scale: float | None, align_corners: bool) -> Table:
    """Two taps: linear interpolation, positions held inside the input."""
    centre = np.clip(_centres(length, count, scale, align_corners), 0, length - 1)
    low = np.floor(centre).astype(np.int64)
    weight = centre - low
    places = np.minimum(np.stack([low, low + 1], 1), length - 1)
    return places, np.stack([1 - weight, weight], 1).astype(np.float32)


def cubic_table(length: int, count: int, scale: float | None, align_corners: bool) -> Table:
    """Four taps: Keys' cubic convolution with a = -0.75, places held inside the input."""
    centre = _centres(length, count, scale, align_corners)
    places = np.floor(centre).astype(np.int64)[:, None] + np.arange(-1, 3)
    t = np.abs(places - centre[:, None])
    a = -0.75
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    weights = np.where(t <= 1, near, np.where(t < 2, far, 0))
    return np.clip(places, 0, length - 1), weights.astype(np.float32)


def _centres(length: int, count: int, scale: float | None, align_corners: bool) -> np.ndarray:
    if align_corners:
        return np.arange(count) * ((length - 1) / (count - 1) if count > 1 else 0.0)
    step = length / count if scale is None else 1 / scale
    return (np.arange(count) + 0.5) * step - 0.5


# ---------------------------------------------------------------- resize


@dataclass(frozen=True)
class ResizeKernel:
    """A resize with ``taps`` taps along each axis: 1 nearest, 2 linear, 4 cubic."""

    taps: int
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"resize_{self.taps}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Resize of blocks, {self.taps} taps an axis."""',
            "from tilth.runtime.simd import (",
            f"    fma, load_f32, load_i64, store, load{self.width} as load,",
            f"    spread{self.width} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(WORDS),
            "    line = task % rows",
            "    image = task // rows // blocks",
            "    block = task // rows % blocks",
            "    x += image * x_image + block * x_block",
            "    y += image * y_image + block * y_block + line * columns * 64",
        ]
        t = self.taps
        for k in range(t):
            at = f"row_places + (line * {t} + {k}) * 8"
            lines.append(f"    r{k} = x + load_i64({at}) * width * 64")
            if t > 1:
                at = f"row_weights + (line * {t} + {k}) * 4"
                lines.append(f"    u{k} = spread(load_f32({at}))")
        lines.append("    for column in range(columns):")
        for k in range(t):
            at = f"column_places + (column * {t} + {k}) * 8"
            lines.append(f"        c{k} = load_i64({at}) * 64")
            if t > 1:
                at = f"column_weights + (column * {t} + {k}) * 4"
                lines.append(f"        v{k} = spread(load_f32({at}))")
        lines.append(f"        for lane in range(0, 64, {self.width * 4}):")
        lines += ["            " + code for code in self._mix()]
        lines += ["        y += 64"]
        return "\n".join(lines) + "\n"

    def _mix(self) -> list[str]:
        """Rows are weighed first, then columns, in the order of the reference."""
        if self.taps == 1:
            return ["store(y + lane, load(r0 + c0 + lane))"]
        rows = []
        for c in range(self.taps):
            rows.append(f"s{c} = load(r0 + c{c} + lane) * u0")
            for r in range(1, self.taps):
                rows.append(f"s{c} = fma(load(r{r} + c{c} + lane), u{r}, s{c})")
        rows.append("total = s0 * v0")
        rows += [f"total = fma(s{c}, v{c}, total)" for c in range(1, self.taps)]
        return [*rows, "store(y + lane, total)"]


# ---------------------------------------------------------------- sampling at grid points

GRID_WORDS = [
    "x", "grid", "y", "x_image", "x_block", "y_image", "y_block", "blocks", "height", "width",
    "rows", "columns",
]  # fmt: skip
"""``grid`` is flat [N, rows, columns, 2] float32, (x, y) in -1..1; tasks as for a resize."""


@dataclass(frozen=True)
class GridSampleKernel:
    """Samples blocks at grid points; modes and paddings are those of the op ``grid_sample``.

    Positions are computed in float64. Points outside add nothing under ``zeros``; a NaN or
    infinite position makes NaN, as in the reference, except for ``nearest``, where it adds nothing.
    """

    mode: str
    padding: str
    align_corners: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        corners = "corners" if self.align_corners else "centres"
        return f"grid_sample_{self.mode}_{self.padding}_{corners}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            f'"""Grid sampling of blocks: {self.mode}, {self.padding}."""',
            "from numba import float32",
            "from tilth.runtime.kernels import scalar_math as s",
            "from tilth.runtime.simd import (",
            f"    fma, load_f32, load_i64, store, load{self.width} as load,",
            f"    spread{self.width} as spread,",
            ")",
            "",
            "",
            "def kernel(row, task, slot):",
            *tile.words(GRID_WORDS),
            "    line = task % rows",
            "    image = task // rows // blocks",
            "    block = task // rows % blocks",
            "    x += image * x_image + block * x_block",
            "    y += image * y_image + block * y_block + line * columns * 64",
            "    grid += (image * rows + line) * columns * 8",
            "    for column in range(columns):",
            "        u = s.grid_position("
            f"load_f32(grid), width, {self.align_corners}, {self._padding})",
            "        v = s.grid_position("
            f"load_f32(grid + 4), height, {self.align_corners}, {self._padding})",
            *(self._nearest() if self.mode == "nearest" else self._bilinear()),
            "        grid += 8",
            "        y += 64",
        ]
        return "\n".join(lines) + "\n"

    @property
    def _padding(self) -> int:
        return ("zeros", "border", "reflection").index(self.padding)

    def _nearest(self) -> list[str]:
        return [
            "        u = s.round_even(u)",
            "        v = s.round_even(v)",
            "        inside = u >= 0.0 and u < width and v >= 0.0 and v < height",
            "        at = x + (int(v) * width + int(u)) * 64 if inside else x",
            f"        for lane in range(0, 64, {self.width * 4}):",
            "            value = load(at + lane) if inside else spread(float32(0.0))",
            "            store(y + lane, value)",
        ]

    def _bilinear(self) -> list[str]:
        """Corners outside are read as 0 and still weighed, which keeps NaN positions NaN."""
        rows = [
            "        left = s.floor(u)",
            "        top = s.floor(v)",
            "        right = u - left",
            "        down = v - top",
            "        across = left > -2.0 and left < width and top > -2.0 and top < height",
            "        c = int(left) if across else -2",
            "        r = int(top) if across else -2",
            "        at = x + (r * width + c) * 64",
        ]
        weights = ("(1.0 - down) * (1.0 - right)", "(1.0 - down) * right",
                   "down * (1.0 - right)", "down * right")  # fmt: skip
        for k, (dr, dc) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            rows += [
                f"        w{k} = spread(float32({weights[k]}))",
                f"        in{k} = r + {dr} >= 0 and r + {dr} < height"
                f" and c + {dc} >= 0 and c + {dc} < width",
            ]
        rows.append(f"        for lane in range(0, 64, {self.width * 4}):")
        rows.append("            zero = spread(float32(0.0))")
        rows.append("            total = zero")
        for k, (dr, dc) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            place = f"at + ({dr} * width + {dc}) * 64 + lane"
            rows.append(f"            value = load({place}) if in{k} else zero")
            rows.append(f"            total = fma(value, w{k}, total)")
        return [*rows, "            store(y + lane, total)"]
