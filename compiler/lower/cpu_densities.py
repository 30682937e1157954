"""Log densities of normal distributions, and the moments of what they drew, to rows."""

from __future__ import annotations

from math import prod
from typing import Any

from ...runtime.kernels import densities, moments
from ...runtime.kernels.chain import layout
from ..ir.graph import Node, Value
from ..ops import OpError
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, expand, rule

NORMAL = {"normal": 0, "mvnormal": 1}
"""Distributions with kernels of their own, and the rank of one value."""


@rule("log_densities")
def lower_densities(state: Lowering, index: int, node: Node) -> None:
    """Normal distributions by their kernels, others in simpler ops."""
    attrs: Any = node.attrs
    operands = state.graph.operands(index)
    rank = NORMAL.get(attrs["dist"])
    whole = all(state.type_of(v).dtype == "f64" for v in operands)
    if rank is None or attrs["form"] or not whole or (rank and attrs["rest"]):
        expand(state, index, node)
        return
    x, mean, spread = (state.flat(v) for v in operands)
    out = state.new_flat(Value(index))
    lead = attrs["lead"]
    points, size = prod(x.shape[:lead]), prod(x.shape[lead:])
    settings = prod(out.shape[lead:])
    if not points or not settings:
        return
    matrix, label = bool(rank), node.name or "log_densities"
    shape = layout(settings, state.target.lanes)
    ready = state.room(densities.ready_bytes(shape, settings, size, matrix))
    words = {
        "mean": mean.place, "spread_": spread.place, "ready": ready, "settings": settings,
        "size": size, "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    if matrix:
        words["fault"] = state.check("E408", "a matrix parameter: matrix is not positive definite")
    state.emit(densities.PrepareKernel(shape, matrix), settings if matrix else 1,
               densities.PREPARE_WORDS, words, label, densities.prepare_scratch(size))  # fmt: skip
    words = {
        "x": x.place, "ready": ready, "y": out.place, "points": points, "settings": settings,
        "size": size, "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    room = densities.scratch_bytes(settings, size) if matrix else 0
    state.emit(densities.DensitiesKernel(shape, matrix), -(-points // densities.PER_TASK),
               densities.WORDS, words, label, room)  # fmt: skip


@rule("moments")
def lower_moments(state: Lowering, index: int, node: Node) -> None:
    """Sums of runs of points, then of those."""
    attrs: Any = node.attrs
    operands = state.graph.operands(index)
    if any(state.type_of(v).dtype != "f64" for v in operands):
        raise OpError("E804", "moments have a CPU kernel in float64 alone")
    weights, x, centre = (state.flat(v) for v in operands)
    outs = [state.new_flat(Value(index, place)) for place in range(3)]
    lead, outer = attrs["lead"], bool(attrs["event"])
    points, size = prod(x.shape[:lead]), prod(x.shape[lead:])
    states = prod(weights.shape[lead:])
    if not points or not states or (outer and len(x.shape) != lead + 1):
        raise OpError("E804", "moments of such shapes have no CPU kernel")
    shape = layout(states, state.target.lanes)
    parts, per_task = moments.division(points)
    step = moments.partial_bytes(shape, states, size, outer)
    partial = state.room(parts * step)
    label = node.name or "moments"
    words = {
        "weights": weights.place, "x": x.place, "centre": centre.place, "partial": partial,
        "points": points, "states": states, "size": size, "per_task": per_task,
        "partial_step": step, "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    state.emit(moments.MomentsKernel(shape, outer), parts, moments.WORDS, words, label,
               moments.scratch_bytes(shape, states, size, outer))  # fmt: skip
    words = {
        "partial": partial, "states": states, "size": size, "parts": parts, "partial_step": step,
        "count": outs[0].place, "first": outs[1].place, "second": outs[2].place,
    }  # fmt: skip
    state.emit(moments.MomentsEndKernel(shape, outer), states, moments.END_WORDS, words, label)
