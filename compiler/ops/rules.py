"""Checks that shape rules share: element types, ranks, axes, agreeing and broadcasting sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ..ir.dims import DimLike, compare
from ..ir.types import FLOATS, INTEGERS, Attrs, TensorType, shape_text
from .base import OpError

KIND_NAMES = {
    "float": FLOATS,
    "integer": INTEGERS,
    "number": FLOATS + INTEGERS,
    "bool": ("bool",),
    "any": (*FLOATS, *INTEGERS, "bool"),
}
"""Families of element types by the word that messages use."""


def require_kind(what: str, kind: TensorType, family: str) -> None:
    """Raise E104 unless the element type is in ``family`` (a key of ``KIND_NAMES``)."""
    if kind.dtype in KIND_NAMES[family]:
        return
    wanted = {
        "float": "a floating-point tensor",
        "integer": "an integer tensor",
        "number": "a tensor of numbers",
        "bool": "a tensor of truth values",
        "any": "a tensor",
    }[family]
    hint = "cast it first: cast(f32)" if family == "float" else None
    raise OpError("E104", f"{what} needs {wanted}, found {kind}", hint)


def require_same_dtype(what: str, types: Sequence[TensorType]) -> None:
    """Raise E104 unless all element types are equal."""
    for kind in types[1:]:
        if kind.dtype != types[0].dtype:
            raise OpError(
                "E104",
                f"{what} needs equal element types, found {types[0].dtype} and {kind.dtype}",
                f"cast one of them: cast({types[0].dtype})",
            )


def require_rank(what: str, kind: TensorType, fewest: int, most: int | None = None) -> None:
    """Raise E101 unless the rank lies in ``fewest..most`` (``most=None``: any above)."""
    if kind.rank >= fewest and (most is None or kind.rank <= most):
        return
    wanted = f"rank {fewest}" if most == fewest else f"rank {fewest} or more"
    if most is not None and most != fewest:
        wanted = f"rank {fewest} to {most}"
    raise OpError("E101", f"{what} needs {wanted}, found {kind}")


def require_equal(what: str, a: DimLike, b: DimLike, types: Sequence[TensorType]) -> None:
    """Raise E103 when two sizes can never agree; ``types`` are shown."""
    if compare(a, b) is False:
        shown = "  and  ".join(shape_text(kind.shape) for kind in types)
        raise OpError("E103", f"{what}: sizes {a} and {b} do not agree in {shown}")


def axis_in(what: str, axis: int, rank: int) -> int:
    """The axis counted from the front; negative ones count from the end. Raises E107."""
    if not -rank <= axis < rank:
        raise OpError("E107", f"{what}: axis {axis} is out of range for a tensor of rank {rank}")
    return axis % rank


def axes_in(what: str, axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted, distinct axes counted from the front; ``None`` means all. Raises E107."""
    if axes is None:
        return tuple(range(rank))
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    found = tuple(sorted(axis_in(what, axis, rank) for axis in given))
    if len(set(found)) != len(found):
        raise OpError("E107", f"{what}: an axis is named twice in {list(given)}")
    return found


def axis_attr(what: str, attrs: Attrs, kind: TensorType, name: str = "axis") -> int:
    """The attribute ``name`` as an axis of ``kind``, already counted from the front."""
    axis = attrs[name]
    if not isinstance(axis, int) or not 0 <= axis < kind.rank:
        raise OpError("E107", f"{what}: axis {axis} is out of range for {kind}")
    return axis


def axes_attr(what: str, attrs: Attrs, kind: TensorType, name: str = "axes") -> tuple[int, ...]:
    """The attribute ``name`` as distinct axes of ``kind``, already counted from the front."""
    axes = attrs[name]
    if not isinstance(axes, tuple):
        raise OpError("E107", f"{what}: {name} must be a tuple, found {axes}")
    found: list[int] = []
    for axis in axes:
        if not isinstance(axis, int) or not 0 <= axis < kind.rank or axis in found:
            raise OpError("E107", f"{what}: axes {list(axes)} do not fit {kind}")
        found.append(axis)
    return tuple(found)


def sizes_attr(attrs: Attrs, name: str) -> tuple[DimLike, ...]:
    """An attribute that is a tuple of sizes."""
    return tuple(attrs[name])  # type: ignore[arg-type]


def broadcast_shapes(what: str, shapes: Sequence[tuple[DimLike, ...]]) -> tuple[DimLike, ...]:
    """The numpy broadcast of shapes; a size that cannot be decided passes as the left one.

    Raises E103 that shows both shapes when two sizes can never agree.
    """
    result: tuple[DimLike, ...] = tuple(shapes[0])
    for shape in shapes[1:]:
        rank = max(len(result), len(shape))
        left = (1,) * (rank - len(result)) + tuple(result)
        right = (1,) * (rank - len(shape)) + tuple(shape)
        joined: list[DimLike] = []
        for a, b in zip(left, right, strict=True):
            if a != 1 and b != 1 and compare(a, b) is False:
                raise OpError(
                    "E103",
                    f"{what}: shapes {shape_text(result)} and {shape_text(shape)} do not agree",
                )
            joined.append(b if a == 1 else a)
        result = tuple(joined)
    return result


def check_index(what: str, index: np.ndarray, size: int) -> None:
    """Raise E504 with the value and the range when an index lies outside ``0..size``."""
    outside = (index < 0) | (index >= size)
    if outside.any():
        raise OpError("E504", f"{what}: index {index[outside].flat[0]} is not in 0..{size}")


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference whose IEEE special values (inf, nan) come without numpy's warnings."""

    @wraps(function)
    def call(*arrays: np.ndarray, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays, **attrs)

    return call
