"""What a node computes at every step of a loop, computed for all steps at once.

:func:`over_steps` gives a recipe, or ``None`` where there is none. Stacked operands carry the steps
on a new first axis; so do the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.dims import DimLike
from ..ir.graph import Node, Value
from ..ir.types import Attrs, AttrValue, TensorType
from ..ops.base import OPS
from ..ops.contract import parse_spec
from ..rewrite import Rewriter

Recipe = Callable[[Rewriter, Sequence[Value]], Value]
"""Emits the node over all steps, given its operands; the first result."""


def over_steps(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    """How to compute ``node`` for all ``steps``; ``kinds`` are its operands' types at one step."""
    row = OPS.get(node.op)
    if row is None or row.random or node.regions or not any(stacked):
        return None
    special = _SPECIAL.get(node.op)
    if special is not None:
        return special(node, kinds, stacked, steps)
    general = _GENERAL.get(row.batching)
    return general(node, kinds, stacked, steps) if general is not None else None


def _plain(node: Node, attrs: Attrs | None = None) -> Recipe:
    kept = node.attrs if attrs is None else attrs
    return lambda rw, operands: rw.emit(node.op, operands, kept)


def _raised(rw: Rewriter, value: Value, rank: int) -> Value:
    """A stacked value with axes of size 1 put after its first, up to ``rank`` of them a step."""
    shape = rw.type_of(value).shape
    missing = rank - (len(shape) - 1)
    if missing <= 0:
        return value
    return rw.emit("reshape", (value,), {"shape": (shape[0], *(1,) * missing, *shape[1:])})


# ---------------------------------------------------------------- by how an op maps over axes


def _elementwise(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    def emit(rw: Rewriter, operands: Sequence[Value]) -> Value:
        rank = node.type.rank
        moved = [
            _raised(rw, value, rank) if is_stacked else value
            for value, is_stacked in zip(operands, stacked, strict=True)
        ]
        return rw.emit(node.op, moved, node.attrs)

    return emit


def _last(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    return _plain(node) if not any(stacked[1:]) else None


def _axis(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    if not all(stacked):
        return None
    shifted = {name: _shift(node.attrs[name]) for name in OPS[node.op].axis_attrs}
    return _plain(node, {**node.attrs, **shifted})


def _shift(axes: AttrValue) -> AttrValue:
    if isinstance(axes, tuple):
        return tuple(_shift(axis) for axis in axes)
    assert isinstance(axes, int)
    return axes + 1


def _leading(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    if any(stacked[1:]) or len(node.types) != 1:
        return None

    def emit(rw: Rewriter, operands: Sequence[Value]) -> Value:
        batch = (steps * kinds[0].shape[0], *kinds[0].shape[1:])
        merged = rw.emit("reshape", operands[:1], {"shape": batch})
        result = rw.emit(node.op, (merged, *operands[1:]), node.attrs)
        return rw.emit("reshape", (result,), {"shape": (steps, *node.type.shape)})

    return emit


# ---------------------------------------------------------------- ops of their own kind


def _contract(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    inputs, output = parse_spec(str(node.attrs["spec"]), len(kinds))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    step = next((c for c in letters if c not in "".join(inputs)), None)
    if step is None:
        return None
    parts = [step + part if s else part for part, s in zip(inputs, stacked, strict=True)]
    return _plain(node, {**node.attrs, "spec": ",".join(parts) + "->" + step + output})


def _matmul(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    a, b = kinds
    return _plain(node) if a.rank >= 2 and b.rank == 2 and stacked[0] and not stacked[1] else None


def _reshape(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    return _plain(node, {"shape": (steps, *node.type.shape)})


def _broadcast(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    attrs = {"shape": (steps, *node.type.shape)}
    return lambda rw, operands: rw.emit(
        "broadcast", (_raised(rw, operands[0], node.type.rank),), attrs
    )


def _transpose(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    return _plain(node, {"perm": (0, *_shift(node.attrs["perm"]))})  # type: ignore[misc]


def _slice(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    first = {"starts": 0, "stops": steps, "steps": 1}
    return _plain(node, {name: (size, *node.attrs[name]) for name, size in first.items()})  # type: ignore[misc]


def _take(
    node: Node, kinds: Sequence[TensorType], stacked: Sequence[bool], steps: DimLike
) -> Recipe | None:
    # Rows of one table at an index a step.
    return _plain(node) if node.attrs["axis"] == 0 and list(stacked) == [False, True] else None


_GENERAL = {"elementwise": _elementwise, "last": _last, "axis": _axis, "leading": _leading}
_SPECIAL = {
    "contract": _contract,
    "matmul": _matmul,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "transpose": _transpose,
    "slice": _slice,
    "take": _take,
}
