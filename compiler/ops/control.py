"""Ops with regions: loops and fused groups, and the typing rules that look into the region.

A region is a closed graph; everything that it reads comes in through its inputs, in the order
carries, slices of stacked inputs (scan only), captures. A fused group has no carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.dims import compare
from ..ir.graph import Graph
from ..ir.types import Attrs, TensorType
from .base import Op, Operand, OpError, define

LOOPS = ("scan", "fix", "iterate")
WITH_REGION = (*LOOPS, "fused_elementwise")


def region_result_types(
    op: str, types: Sequence[TensorType], attrs: Attrs, region: Graph
) -> tuple[TensorType, ...]:
    """Result types of a loop or a fused group, from operand types and the region.

    Raises E407 when counts do not match, E102 when a carry changes its type, and E103 or E104
    when an operand does not fit the region's input.
    """
    carries = _count(op, attrs, "n_carry") if op in LOOPS else 0
    stacked = _count(op, attrs, "n_xs") if op == "scan" else 0
    wanted = [region.node(index).type for index in region.inputs]
    if len(types) != len(wanted) or len(types) < carries + stacked:
        raise OpError("E407", f"{op}: {len(types)} operands for a region of {len(wanted)} inputs")
    given = list(types)
    for place in range(carries, carries + stacked):
        given[place] = _slice_type(types[place], attrs)
    for place, (found, inner) in enumerate(zip(given, wanted, strict=True)):
        if found != inner:
            code = "E103" if found.dtype == inner.dtype else "E104"
            raise OpError(code, f"{op}: operand {place} is {found} but the region reads {inner}")
    outputs = [region.type_of(value) for _, value in region.outputs]
    extra = outputs[carries:]
    if len(outputs) < carries or (op == "fix" and extra) or (op == "iterate" and len(extra) != 1):
        raise OpError("E407", f"{op}: a region of {len(outputs)} outputs for {carries} carries")
    for place, (before, after) in enumerate(zip(wanted[:carries], outputs, strict=False)):
        if before != after:
            raise OpError("E102", f"{op}: carry {place} starts as {before} and becomes {after}")
    if op == "iterate" and extra[0] != TensorType("bool", ()):
        raise OpError("E104", f"iterate: the condition must be bool[], found {extra[0]}")
    if op == "fix" and not all(kind.is_float for kind in outputs):
        raise OpError("E104", "fix: every carry must be floating-point", "use iterate")
    length: Any = attrs.get("length")
    if op == "fused_elementwise":
        return tuple(outputs)
    stacks = [kind.with_shape([length, *kind.shape]) for kind in extra] if op == "scan" else []
    return (*outputs[:carries], *stacks)


def _count(op: str, attrs: Attrs, name: str) -> int:
    value = attrs[name]
    if not isinstance(value, int) or value < 0:
        raise OpError("E404", f"{op}: {name} must be a whole number, found {value}")
    return value


def _slice_type(kind: TensorType, attrs: Attrs) -> TensorType:
    length: Any = attrs["length"]
    if kind.rank < 1 or compare(kind.shape[0], length) is False:
        raise OpError("E103", f"scan: {kind} cannot be read in {length} steps")
    return kind.with_shape(kind.shape[1:])


def _from_region(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    raise TypeError("types come from the region; see region_result_types")


_WHY = "runs its region; see interpret.py"
_OPERANDS = (Operand("operands", variadic=True),)
define(
    Op(
        "scan",
        _OPERANDS,
        _from_region,
        None,
        "Carries through `length` steps, each reading row t of the stacked inputs; results are the"
        " last carries and, stacked, what each step puts out. Reverse starts at the last row.",
        attrs=("n_carry", "n_xs", "length", "reverse"),
        why_no_reference=_WHY,
    )
)
define(
    Op(
        "fix",
        _OPERANDS,
        _from_region,
        None,
        "The fixed point of the region: carries are replaced until the largest change is below"
        " tol; not converging within max_steps is an error.",
        attrs=("n_carry", "tol", "max_steps"),
        why_no_reference=_WHY,
    )
)
define(
    Op(
        "iterate",
        _OPERANDS,
        _from_region,
        None,
        "Carries replaced until the region's last output, evaluated with the new ones, holds, or"
        " for max_steps.",
        attrs=("n_carry", "max_steps"),
        why_no_reference=_WHY,
    )
)
define(
    Op(
        "fused_elementwise",
        _OPERANDS,
        _from_region,
        None,
        "A convex group of element-wise ops over one shape, at most followed by a reduction: one"
        " loop that keeps what lies between in registers.",
        why_no_reference=_WHY,
    )
)
