"""Sliding windows over spatial axes: their settings, how many there are, and views of them.

``n`` is the number of spatial axes everywhere: the rank less batch and channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike, ceildiv, dim_min, floordiv
from .base import OpError
from .net_rules import need_range, need_whole

Pads = tuple[tuple[int, int], ...]


# ---------------------------------------------------------------- settings


def per_axis(op: str, name: str, value: Any, n: int, least: int = 1) -> tuple[int, ...]:
    """A setting that is one whole number or one per spatial axis, as a tuple."""
    listed = isinstance(value, (tuple, list))
    values = tuple(value) if listed else (value,) * n
    need_range(op, name, value, len(values) == n, f"one number or a list of {n}")
    for v in values:
        need_whole(op, name, v, least)
    return values


def pad_pairs(op: str, value: Any, n: int) -> Pads:
    """Padding as ``(before, after)`` per axis from an int, a list per axis, or pairs."""
    if isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value):
        need_range(op, "pad", value, len(value) == n, f"{n} pairs [before, after]")
        pairs = []
        for pair in value:
            is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
            need_range(op, "pad", pair, is_pair, "a pair [before, after]")
            before, after = per_axis(op, "pad", pair, 2, least=0)
            pairs.append((before, after))
        return tuple(pairs)
    return tuple((p, p) for p in per_axis(op, "pad", value, n, least=0))


def same_pads(kernel: Sequence[int], dilation: Sequence[int]) -> Pads:
    """The padding that keeps the size of an odd kernel at stride 1."""
    sides = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    return tuple((side, side) for side in sides)


def spatial_names(n: int) -> tuple[str, ...]:
    """What messages call the spatial axes."""
    return (("width",), ("height", "width"), ("depth", "height", "width"))[n - 1]


# ---------------------------------------------------------------- sizes


def reach(kernel: DimLike, dilation: int) -> DimLike:
    """Elements from the first to the last tap of a dilated kernel, both included."""
    return dilation * (kernel - 1) + 1


def window_count(
    op: str,
    axis: str,
    size: DimLike,
    kernel: DimLike,
    stride: int,
    pad: tuple[int, int],
    dilation: int,
    ceil: bool = False,
) -> DimLike:
    """How many windows fit on one axis; with ``ceil`` a last one may hang over the end.

    The overhanging window must still start inside the input or the padding before it, which is
    PyTorch's ``ceil_mode`` rule.
    """
    room = size + sum(pad) - reach(kernel, dilation)
    if isinstance(room, int) and room < 0:
        raise OpError(
            "E106",
            f"{op}: a window of {reach(kernel, dilation)} does not fit {axis} {size} padded "
            f"by {pad[0]} and {pad[1]}",
            "use a smaller kernel, more pad or a larger input",
        )
    if not ceil:
        return floordiv(room, stride) + 1
    steps = ceildiv(room, stride)
    slack = reach(kernel, dilation) - pad[1]
    # A window that reaches at least a stride past the padding can never start too late.
    if not (isinstance(slack, int) and slack >= stride):
        steps = dim_min(steps, floordiv(size + pad[0] - 1, stride))
    return steps + 1


# ---------------------------------------------------------------- arrays


def padded(x: np.ndarray, pad: Sequence[tuple[int, int]], value: float = 0) -> np.ndarray:
    """``x`` with its spatial axes padded by ``value`` (``x`` itself when there is no padding)."""
    if not any(b or a for b, a in pad):
        return x
    return np.pad(x, ((0, 0), (0, 0), *pad), constant_values=value)


def windows(
    x: np.ndarray, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> np.ndarray:
    """A view ``[N, C, out..., kernel...]`` of all windows of an already padded array."""
    n = len(kernel)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + n)))
    steps = tuple(slice(None, None, s) for s in stride)
    taps = tuple(slice(None, None, d) for d in dilation)
    return view[(slice(None), slice(None), *steps, *taps)]
