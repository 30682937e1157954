"""Checks of ranks, sizes and settings that the net part of the op table shares.

Sizes may be symbolic: a check refuses only what no value of the symbols can mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.dims import DimLike, compare, mod
from ..ir.types import TensorType
from .base import OpError
from .rules import require_kind, require_same_dtype


def spatial_rank(op: str, kind: TensorType) -> int:
    """Number of spatial axes of ``[N, C, spatial...]``; refuses other ranks (E101)."""
    need_rank(
        op,
        kind,
        (3, 4, 5),
        "[N, C, spatial...] with 1 to 3 spatial axes",
        "a batch of images is [N, C, H, W]; plain features [N, C] go through linear"
        if kind.rank < 3
        else "reshape the extra axes into the batch",
    )
    return kind.rank - 2


def need_float(op: str, *kinds: TensorType) -> None:
    """Refuse operands that are not floats or whose element types differ (E104)."""
    for kind in kinds:
        require_kind(op, kind, "float")
    require_same_dtype(op, kinds)


def need_rank(op: str, kind: TensorType, ranks: Sequence[int], form: str, hint: str) -> None:
    """Refuse a tensor whose rank is not among ``ranks`` (E101); ``form`` shows the layout."""
    if kind.rank not in ranks:
        raise OpError("E101", f"{op} needs {form}, found {kind}", hint)


def need_size(op: str, what: str, found: DimLike, expected: DimLike, hint: str = "") -> None:
    """Refuse a size that can never be the expected one (E103)."""
    if compare(found, expected) is False:
        raise OpError("E103", f"{op}: {what} is {found}, expected {expected}", hint or None)


def need_same_shape(op: str, first: TensorType, second: TensorType) -> None:
    """Refuse two tensors that can never have the same shape (E103)."""
    differ = first.rank != second.rank or any(
        compare(a, b) is False for a, b in zip(first.shape, second.shape, strict=True)
    )
    if differ:
        raise OpError(
            "E103",
            f"{op} needs two tensors of one shape, found {first} and {second}",
            "reshape or index one of them so that the shapes agree",
        )


def need_divisible(op: str, what: str, size: DimLike, by: DimLike) -> None:
    """Refuse a size that ``by`` can never divide (E108)."""
    if compare(mod(size, by), 0) is False:
        raise OpError(
            "E108",
            f"{op}: {what} {size} is not divisible by {by}",
            f"choose a divisor of {size}" if isinstance(size, int) else None,
        )


def need_range(op: str, name: str, value: Any, ok: bool, expected: str) -> None:
    """Refuse a setting unless ``ok`` (E408)."""
    if not ok:
        shown = list(value) if isinstance(value, tuple) else value
        raise OpError("E408", f"{op}: {name} is {shown}, expected {expected}")


def need_whole(op: str, name: str, value: Any, least: int = 1) -> None:
    """Refuse a setting that is not a known whole number of at least ``least`` (E408)."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    need_range(op, name, value, whole and value >= least, f"a whole number of at least {least}")


def need_positive(op: str, size: DimLike, why: str, hint: str | None = None) -> None:
    """Refuse a size known to be zero or negative (E106)."""
    if isinstance(size, int) and size <= 0:
        raise OpError("E106", f"{op}: {why} would be {size}", hint)
