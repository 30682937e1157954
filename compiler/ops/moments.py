"""Weighted moments of many values around many centres: the statistics of normal distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import product
from ..ir.types import Attrs, TensorType
from .base import Op, Operand, OpError, define
from .rules import quiet, require_equal, require_kind

BLOCK = 1 << 20
"""Elements that the reference holds at once."""


def _shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    weights, value, centre = types
    lead, event = attrs["lead"], attrs["event"]
    for kind in types:
        require_kind("moments", kind, "float")
    if not isinstance(lead, int) or event not in (0, 1) or value.rank < lead + int(event == 1):
        raise OpError("E407", f"moments: {value} does not have {lead} axes and {event} more")
    own, cells = value.shape[lead:], weights.shape[lead:]
    for a, b in zip(weights.shape[:lead], value.shape[:lead], strict=True):
        require_equal("moments", a, b, types)
    if len(centre.shape) != len(cells) + len(own):
        raise OpError("E101", f"moments: the centre has shape {centre}")
    for a, b in zip(centre.shape, (*cells, *own), strict=True):
        require_equal("moments: centre", a, b, types)
    first = centre.with_shape((*cells, *own))
    second = first.with_shape((*cells, *own, *own[len(own) - 1 :])) if event else first
    return (first.with_shape(cells), first, second)


@quiet
def _reference(
    weights: np.ndarray, value: np.ndarray, centre: np.ndarray, *, lead: int, event: int
) -> tuple[np.ndarray, ...]:
    cells, own = weights.shape[lead:], value.shape[lead:]
    w = weights.reshape(-1, int(np.prod(cells, dtype=np.int64))).astype(np.float64)
    size = int(np.prod(own, dtype=np.int64))
    x, c = value.reshape(len(w), size), centre.reshape(w.shape[1], size)
    first = np.zeros(c.shape)
    second = np.zeros((*c.shape, size) if event else c.shape)
    step = max(1, BLOCK // max(1, c.size))
    for start in range(0, len(w), step):
        gap = x[start : start + step, None] - c
        part = w[start : start + step, :, None] * gap
        first += part.sum(axis=0)
        if event:
            second += np.matmul(part.transpose(1, 2, 0), gap.transpose(1, 0, 2))
        else:
            second += (part * gap).sum(axis=0)
    shape = (*cells, *own, *own[len(own) - 1 :]) if event else (*cells, *own)
    dtype = centre.dtype
    return (
        w.sum(axis=0).reshape(cells).astype(dtype),
        first.reshape(*cells, *own).astype(dtype),
        second.reshape(shape).astype(dtype),
    )


def _macs(types: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs) -> Any:
    own = product(types[1].shape[attrs["lead"] :])  # type: ignore[misc]
    return types[0].elements * own * (own if attrs["event"] else 1)


define(
    Op(
        "moments",
        (Operand("weights"), Operand("value"), Operand("centre")),
        _shape,
        _reference,
        "Sums over the first `lead` axes of weights `[lead, cells]`, of weights times the value's "
        "deviation from the centre of each cell, and times its square; of vectors (`event` 1) the "
        "outer product.",
        attrs=("lead", "event"),
        batching="none",
        macs=_macs,
    )
)
