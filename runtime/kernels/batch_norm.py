"""Batch normalisation of a training step on 16-channel blocks, forward and backward.

Each direction is three kernels: sums of runs of pixels, the channels' numbers from all runs'
sums, and one pass that writes the result with the activation around it. A block's pixels, those of
all images, lie one after another. Sums belong to runs, and are added in the order of the runs, in
float64: the same bits whichever thread does what.

The variance is that of Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances" (1979): squares are taken around each run's own mean, so that a large
mean costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import tile

RUN = 512
"""Pixels of a run: they stay in the first two caches while a kernel looks twice."""


def runs(pixels: int) -> int:
    """How many runs a block's pixels make; a task is ``(block, run)``, the run fastest."""
    return -(-pixels // RUN)


_HEAD = [
    "    run = task % runs",
    "    block = task // runs",
    f"    first = run * {RUN}",
    f"    count = min(pixels - first, {RUN})",
]


def _imports(width: int) -> list[str]:
    return [
        "import math",
        "from numba import float32, int64",
        "from tilth.runtime.kernels.masks import pick",
        "from tilth.runtime.simd import (",
        "    fma, load_f32, load_f64, load_i64, narrow, store, store_f32, vmax, vmin, widen,",
        f"    load{width} as load, spread{width} as spread, spread{width}d as spread_wide,",
        ")",
        "",
        "",
        "def kernel(row, task, slot):",
    ]


# ---------------------------------------------------------------- forward

MOMENT_WORDS = ["x", "y", "x_block", "runs", "pixels"]
"""``y`` takes [blocks, runs, 2, 16]: the mean of a run, and its squares around that."""


@dataclass(frozen=True)
class MomentsKernel:
    """Mean and squares around it of every run of every block."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"moments_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        wide = self.width * 4
        lines = [
            '"""Means and squares around them of runs of pixels."""',
            *_imports(self.width),
            *tile.words(MOMENT_WORDS),
            *_HEAD,
            f"    for lane in range(0, 64, {wide}):",
            "        start = x + block * x_block + first * 64 + lane",
            *_summed("a = a + load(at)", "b = b + load(at, 64)"),
            "        mean = (a + b) * spread(float32(1.0 / count))",
            *_summed(
                "gap = load(at) - mean; a = fma(gap, gap, a)",
                "gap = load(at, 64) - mean; b = fma(gap, gap, b)",
            ),
            "        to = y + task * 128 + lane",
            "        store(to, mean)",
            "        store(to, a + b, 64)",
        ]
        return "\n".join(lines) + "\n"


def _summed(even: str, odd: str) -> list[str]:
    """``a`` and ``b`` over the run from ``start``, pixel by pixel in turns."""
    return [
        "        at = start",
        "        a = spread(float32(0.0))",
        "        b = a",
        "        for _ in range(count // 2):",
        *(f"            {code.strip()}" for code in even.split(";")),
        *(f"            {code.strip()}" for code in odd.split(";")),
        "            at += 128",
        "        if count % 2 == 1:",
        *(f"            {code.strip()}" for code in even.split(";")),
    ]


STATISTIC_WORDS = [
    "x", "running_mean", "running_var", "weight", "bias", "new_mean", "new_var", "mean", "inv_std",
    "scale", "shift", "runs", "pixels", "channels", "eps", "momentum",
]  # fmt: skip
"""``x`` are the moments; weight and bias may be 0. ``scale`` and ``shift`` take whole blocks, the
other results ``channels`` numbers; a task is a block."""


@dataclass(frozen=True)
class StatisticsKernel:
    """A batch's statistics from the moments of its runs, and what they make of the norm."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"statistics_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        eps, momentum = (8 * STATISTIC_WORDS.index(name) for name in ("eps", "momentum"))
        lines = [
            '"""Statistics of a batch from the moments of its runs."""',
            *_imports(self.width),
            *tile.words(STATISTIC_WORDS),
            f"    small = load_f64(row, {eps})",
            f"    fresh = load_f64(row, {momentum})",
            "    for lane in range(16):",
            "        at = x + task * runs * 128 + lane * 4",
            "        average = 0.0",
            "        squares = 0.0",
            "        done = 0",
            "        for _ in range(runs):",
            f"            count = min(pixels - done, {RUN})",
            "            gap = load_f32(at) * 1.0 - average",
            "            squares += load_f32(at, 64) + gap * gap * done * count / (done + count)",
            "            average += gap * count / (done + count)",
            "            done += count",
            "            at += 128",
            "        variance = squares / pixels",
            "        inverse = float32(1.0 / math.sqrt(variance + small))",
            "        here = task * 16 + lane",
            "        if here < channels:",
            "            old = load_f32(running_mean + here * 4) * 1.0",
            "            store_f32(new_mean + here * 4, float32(old + fresh * (average - old)))",
            "            old = load_f32(running_var + here * 4) * 1.0",
            "            unbiased = squares / max(pixels - 1, 1)",
            "            store_f32(new_var + here * 4, float32(old + fresh * (unbiased - old)))",
            "            store_f32(mean + here * 4, float32(average))",
            "            store_f32(inv_std + here * 4, inverse)",
            "            middle = float32(average) * 1.0",
            *["    " + line for line in _SCALE],
            "        else:",
            "            store_f32(scale + here * 4, float32(0.0))",
            "            store_f32(shift + here * 4, float32(0.0))",
        ]
        return "\n".join(lines) + "\n"


SCALE_WORDS = ["mean", "inv_std", "weight", "bias", "scale", "shift", "channels"]
"""Weight and bias may be 0; a task is a block."""


@dataclass(frozen=True)
class ScaleShiftKernel:
    """Scale and shift of a norm again, from its statistics: the same bits as forward."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"scale_shift_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Scale and shift of a norm from its statistics."""',
            *_imports(self.width),
            *tile.words(SCALE_WORDS),
            "    for lane in range(16):",
            "        here = task * 16 + lane",
            "        if here < channels:",
            "            inverse = load_f32(inv_std + here * 4)",
            "            middle = load_f32(mean + here * 4) * 1.0",
            *["    " + line for line in _SCALE],
            "        else:",
            "            store_f32(scale + here * 4, float32(0.0))",
            "            store_f32(shift + here * 4, float32(0.0))",
        ]
        return "\n".join(lines) + "\n"


_SCALE = [
    "        factor = inverse",
    "        offset = 0.0",
    "        if weight != 0:",
    "            factor = float32(inverse * load_f32(weight + here * 4))",
    "        if bias != 0:",
    "            offset = load_f32(bias + here * 4) * 1.0",
    "        store_f32(scale + here * 4, factor)",
    "        store_f32(shift + here * 4, float32(offset - middle * factor))",
]
"""Scale and shift of channel ``here``, from its ``inverse`` and ``middle``."""


APPLY_WORDS = [
    "x", "y", "residual", "scale", "shift", "x_block", "y_block", "residual_block", "runs",
    "pixels", "low_bits", "high_bits",
]  # fmt: skip
"""``residual`` may be 0."""


@dataclass(frozen=True)
class NormaliseKernel:
    """``clamp(x * scale + shift + residual)``."""

    residual: bool
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"normalise{'_residual' * self.residual}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        added = ["            value = value + load(beside)", "            beside += 64"]
        lines = [
            '"""Scale and shift of the channels, then a residual and a clamp."""',
            *_imports(self.width),
            *tile.words(APPLY_WORDS),
            *_HEAD,
            *_bounds(APPLY_WORDS),
            f"    for lane in range(0, 64, {self.width * 4}):",
            "        factor = load(scale + block * 64 + lane)",
            "        offset = load(shift + block * 64 + lane)",
            "        at = x + block * x_block + first * 64 + lane",
            "        to = y + block * y_block + first * 64 + lane",
            "        beside = residual + block * residual_block + first * 64 + lane",
            "        for _ in range(count):",
            "            value = fma(load(at), factor, offset)",
            *(added if self.residual else []),
            "            store(to, vmin(vmax(value, low), high))",
            "            at += 64",
            "            to += 64",
        ]
        return "\n".join(lines) + "\n"


def _bounds(names: list[str]) -> list[str]:
    low, high = (8 * names.index(name) for name in ("low_bits", "high_bits"))
    return [
        f"    low = spread(float32(load_f64(row, {low})))",
        f"    high = spread(float32(load_f64(row, {high})))",
    ]


# ---------------------------------------------------------------- backward

MASKS = ("none", "again", "given")
"""Where a backward norm's cotangent passes: everywhere; where what the norm gave, computed anew
from x, lies between the bounds; where another array does."""

SUMS_WORDS = [
    "x", "d", "z", "y", "mean", "inv_std", "scale", "shift", "x_block", "d_block", "z_block",
    "runs", "pixels", "low_bits", "high_bits",
]  # fmt: skip
"""``y`` takes [blocks, runs, 2, 16]: the sum of d, and that of d times the normalised x; ``z`` is
the array of a mask that is given."""


@dataclass(frozen=True)
class BackwardSumsKernel:
    """Sums over runs of the masked cotangent, alone and times the normalised input."""

    mask: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"norm_sums_{self.mask}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Sums of a backward norm."""',
            *_imports(self.width),
            *tile.words(SUMS_WORDS),
            *_HEAD,
            *_bounds(SUMS_WORDS),
            "    zero = spread(float32(0.0))",
            f"    for lane in range(0, 64, {self.width * 4}):",
            *_mask_vectors(self.mask),
            "        middle = load(mean + block * 64 + lane)",
            "        whole = zero",
            "        along = zero",
            *_places(self.mask),
            "        for _ in range(count):",
            "            value = load(at)",
            "            slope = load(beside)",
            *_masked(self.mask),
            "            whole = whole + slope",
            "            along = fma(slope, value - middle, along)",
            *_moves(self.mask),
            "        to = y + task * 128 + lane",
            "        store(to, whole)",
            "        store(to, along * load(inv_std + block * 64 + lane), 64)",
        ]
        return "\n".join(lines) + "\n"


def _mask_vectors(mask: str) -> list[str]:
    if mask != "again":
        return []
    return [
        "        factor = load(scale + block * 64 + lane)",
        "        offset = load(shift + block * 64 + lane)",
    ]


def _places(mask: str) -> list[str]:
    rows = [
        "        at = x + block * x_block + first * 64 + lane",
        "        beside = d + block * d_block + first * 64 + lane",
    ]
    if mask == "given":
        rows.append("        over = z + block * z_block + first * 64 + lane")
    return rows


def _masked(mask: str) -> list[str]:
    if mask == "none":
        return []
    made = "load(over)" if mask == "given" else "fma(value, factor, offset)"
    return [
        f"            made = {made}",
        "            slope = pick(made > low, slope, zero)",
        "            slope = pick(made < high, slope, zero)",
    ]


def _moves(mask: str) -> list[str]:
    rows = ["            at += 64", "            beside += 64"]
    return [*rows, "            over += 64"] if mask == "given" else rows


SLOPE_WORDS = [
    "x", "mean", "inv_std", "weight", "d_weight", "d_bias", "slopes", "runs", "pixels", "channels",
]  # fmt: skip
"""``x`` are the sums; ``slopes`` takes [blocks, 3, 16]: what d, x - mean and 1 are multiplied by;
``weight`` may be 0; a task is a block."""


@dataclass(frozen=True)
class SlopesKernel:
    """Cotangents of weight and bias from the sums of all runs, and the slopes of x's."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"norm_slopes_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Slopes of a backward norm from the sums of its runs."""',
            *_imports(self.width),
            *tile.words(SLOPE_WORDS),
            "    for lane in range(16):",
            "        at = x + task * runs * 128 + lane * 4",
            "        whole = 0.0",
            "        along = 0.0",
            "        for _ in range(runs):",
            "            whole += load_f32(at)",
            "            along += load_f32(at, 64)",
            "            at += 128",
            "        here = task * 16 + lane",
            "        to = slopes + task * 192 + lane * 4",
            "        factor = 0.0",
            "        inverse = 0.0",
            "        if here < channels:",
            "            inverse = load_f32(inv_std + here * 4) * 1.0",
            "            factor = inverse",
            "            if weight != 0:",
            "                factor = inverse * load_f32(weight + here * 4)",
            "            store_f32(d_weight + here * 4, float32(along))",
            "            store_f32(d_bias + here * 4, float32(whole))",
            "            store_f32(to, float32(factor))",
            "            store_f32(to + 64, float32(-factor * inverse * along / pixels))",
            "            store_f32(to + 128, float32(-factor * whole / pixels))",
            "        else:",
            "            store_f32(to, float32(0.0))",
            "            store_f32(to + 64, float32(0.0))",
            "            store_f32(to + 128, float32(0.0))",
        ]
        return "\n".join(lines) + "\n"


BACKWARD_WORDS = [
    "x", "d", "z", "y", "mean", "scale", "shift", "slopes", "x_block", "d_block", "z_block",
    "y_block", "runs", "pixels", "low_bits", "high_bits",
]  # fmt: skip


@dataclass(frozen=True)
class BackwardKernel:
    """The cotangent of the norm's input."""

    mask: str
    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"norm_backward_{self.mask}_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""The cotangent of a norm\'s input."""',
            *_imports(self.width),
            *tile.words(BACKWARD_WORDS),
            *_HEAD,
            *_bounds(BACKWARD_WORDS),
            "    zero = spread(float32(0.0))",
            f"    for lane in range(0, 64, {self.width * 4}):",
            *_mask_vectors(self.mask),
            "        middle = load(mean + block * 64 + lane)",
            "        p = load(slopes + block * 192 + lane)",
            "        q = load(slopes + block * 192 + 64 + lane)",
            "        r = load(slopes + block * 192 + 128 + lane)",
            *_places(self.mask),
            "        to = y + block * y_block + first * 64 + lane",
            "        for _ in range(count):",
            "            value = load(at)",
            "            slope = load(beside)",
            *_masked(self.mask),
            "            store(to, fma(p, slope, fma(q, value - middle, r)))",
            *_moves(self.mask),
            "            to += 64",
        ]
        return "\n".join(lines) + "\n"


CHANNEL_WORDS = ["x", "y", "x_block", "runs", "pixels"]
"""``y`` takes [blocks, runs, 16]."""

TOTAL_WORDS = ["x", "y", "runs", "channels"]
"""``x`` are sums of runs, ``y`` takes ``channels`` numbers; a task is a block."""


@dataclass(frozen=True)
class ChannelSumsKernel:
    """Sums over runs of each channel: the cotangent of a bias."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"channel_sums_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Sums of runs of pixels."""',
            *_imports(self.width),
            *tile.words(CHANNEL_WORDS),
            *_HEAD,
            f"    for lane in range(0, 64, {self.width * 4}):",
            "        start = x + block * x_block + first * 64 + lane",
            *_summed("a = a + load(at)", "b = b + load(at, 64)"),
            "        store(y + task * 64 + lane, a + b)",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class ChannelTotalKernel:
    """Each channel's sum, from those of its runs."""

    width: int

    @property
    def name(self) -> str:
        """A readable file name."""
        return f"channel_total_w{self.width}"

    def source(self) -> str:
        """The kernel's Python source."""
        lines = [
            '"""Sums of all runs."""',
            *_imports(self.width),
            *tile.words(TOTAL_WORDS),
            "    for lane in range(min(16, channels - task * 16)):",
            "        total = 0.0",
            "        at = x + task * runs * 64 + lane * 4",
            "        for _ in range(runs):",
            "            total += load_f32(at)",
            "            at += 64",
            "        store_f32(y + (task * 16 + lane) * 4, float32(total))",
        ]
        return "\n".join(lines) + "\n"


ROWS = {
    "MomentsKernel": MOMENT_WORDS,
    "StatisticsKernel": STATISTIC_WORDS,
    "ScaleShiftKernel": SCALE_WORDS,
    "NormaliseKernel": APPLY_WORDS,
    "BackwardSumsKernel": SUMS_WORDS,
    "SlopesKernel": SLOPE_WORDS,
    "BackwardKernel": BACKWARD_WORDS,
    "ChannelSumsKernel": CHANNEL_WORDS,
    "ChannelTotalKernel": TOTAL_WORDS,
}
"""The rows' words."""
