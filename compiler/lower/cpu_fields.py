"""Gaussian filters: the lattice around points, its filter, and filters along axes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...runtime.abi import word_of
from ...runtime.kernels import gauss, lattice
from ..ir.graph import Node, Value
from ..ir.types import DTYPES
from ..ops.fields import axis_weights, key_bits, lattice_gain
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule
from .storage import Flat

MOST_COPIES = 8


@rule("lattice")
def lower_lattice(state: Lowering, index: int, node: Node) -> None:
    """Corners by runs of points, joined in order; then neighbours. One picture after another."""
    features = state.flat(state.graph.operands(index)[0])
    results = [state.new_flat(Value(index, place)) for place in range(4)]
    *batch, points, d = features.shape
    for n in range(prod(batch)):
        parts = [_picture(x, n, prod(batch)) for x in (features, *results)]
        _lattice(state, points, d, parts, node.name or node.op)


def _picture(x: Flat, n: int, batch: int) -> Flat:
    """One picture of a batch of them."""
    size = prod(x.shape) // max(batch, 1) * DTYPES[x.dtype].itemsize
    return Flat(x.place.moved(n * size), x.shape, x.dtype)


def _lattice(state: Lowering, points: int, d: int, parts: list[Flat], label: str) -> None:
    features, vertex, weight, along, count = parts
    corners, run = points * (d + 1), lattice.run_of(points)
    slots = lattice.table_size(run * (d + 1), lattice.RUN_TABLE)
    keys, all_keys = (state.room(8 * corners + 64) for _ in range(2))
    tables = state.room(4 * slots * lattice.PARTS)
    table = state.room(4 * lattice.table_size(corners, lattice.ALL_TABLE))
    counts, numbers = state.room(8 * (lattice.PARTS + 1)), state.room(4 * corners + 64)
    fault = state.check("E408", "lattice: a feature is not finite, or they spread too far for keys",
                        "wider kernels, or `filter=exact`")  # fmt: skip
    bits = key_bits(d)
    words: dict[str, Any] = {
        "features": features.place, "points": points, "vertex": vertex.place,
        "weight": weight.place, "keys": keys, "table": tables, "slots": slots, "counts": counts,
        "fault": fault, "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = lattice.CornersKernel(d, features.dtype, bits)
    state.emit(kernel, lattice.PARTS, lattice.CORNER_WORDS, words, label, lattice.scratch(d))
    words = {
        "keys": keys, "counts": counts, "points": points, "table": table, "all_keys": all_keys,
        "numbers": numbers, "count": count.place,
    }  # fmt: skip
    state.emit(lattice.JoinKernel(d), 1, lattice.JOIN_WORDS, words, label)
    room = along.shape[-2]
    words = {
        "vertex": vertex.place, "numbers": numbers, "points": points, "along": along.place,
        "room": room, "count": count.place,
    }  # fmt: skip
    state.emit(lattice.RenumberKernel(d), lattice.PARTS, lattice.RENUMBER_WORDS, words, label)
    words = {
        "all_keys": all_keys, "table": table, "along": along.place, "room": room,
        "count": count.place, "size": counts.moved(8 * lattice.PARTS),
    }  # fmt: skip
    state.emit(lattice.NeighboursKernel(d, bits), lattice.SPLIT, lattice.NEIGHBOUR_WORDS, words,
               label)  # fmt: skip


@rule("lattice_filter")
def lower_lattice_filter(state: Lowering, index: int, node: Node) -> None:
    """Splat by each of the team into a table of its own, blur, slice."""
    operands = [state.flat(v) for v in state.graph.operands(index)]
    out = state.new_flat(Value(index))
    batch = prod(operands[0].shape[:-2])
    for n in range(batch):
        parts = [_picture(x, n, batch) for x in (*operands, out)]
        _filter(state, parts, bool(node.attrs["reverse"]), node.name or node.op)


def _filter(state: Lowering, parts: list[Flat], reverse: bool, label: str) -> None:
    values, vertex, weight, along, count, out = parts
    points, channels = values.shape[-2:]
    d = vertex.shape[-1] - 1
    rows = lattice.rows_of(channels, values.dtype, state.target.lanes)
    room = along.shape[-2]
    copy = rows.bytes(channels) * room
    copies = max(1, min(state.target.threads, MOST_COPIES))
    tables, other = state.room(copy * copies), state.room(copy)
    words: dict[str, Any] = {
        "values": values.place, "vertex": vertex.place, "weight": weight.place, "points": points,
        "run": -(-points // copies), "channels": channels, "tables": tables, "copy": copy,
        "count": count.place,
    }  # fmt: skip
    state.emit(lattice.SplatKernel(d, rows), copies, lattice.SPLAT_WORDS, words, label)
    here, there = tables, other
    order = range(d, -1, -1) if reverse else range(d + 1)
    for turn, axis in enumerate(order):
        words = {
            "x": here, "copy": copy, "y": there, "along": along.place.moved(axis * room * 8),
            "count": count.place, "channels": channels,
        }  # fmt: skip
        kernel = lattice.BlurKernel(rows, 1 if turn else copies)
        state.emit(kernel, lattice.SPLIT, lattice.BLUR_WORDS, words, label)
        here, there = there, here
    words = {
        "table": here, "vertex": vertex.place, "weight": weight.place, "out": out.place,
        "points": points, "run": -(-points // lattice.SPLIT), "channels": channels,
        "gain": word_of(lattice_gain(d)),
    }  # fmt: skip
    state.emit(lattice.SliceKernel(d, rows), lattice.SPLIT, lattice.SLICE_WORDS, words, label)


@rule("gauss_grid_filter")
def lower_grid_filter(state: Lowering, index: int, node: Node) -> None:
    """One axis after another."""
    attrs: Any = node.attrs
    here = state.flat(state.graph.operands(index)[0])
    out, sigmas = state.new_flat(Value(index)), attrs["sigmas"]
    if not prod(here.shape):
        return
    first = len(here.shape) - 1 - len(sigmas)
    axes = list(range(first, len(here.shape) - 1))
    for turn, axis in enumerate(axes):
        last = turn == len(axes) - 1
        there = out if last else state.loose_flat(here.shape, here.dtype)
        weights = axis_weights(sigmas[axis - first], here.shape[axis])
        _along_axis(state, here, there, axis, weights, node.name or node.op)
        here = there


def _along_axis(
    state: Lowering, x: Flat, y: Flat, axis: int, weights: np.ndarray, label: str
) -> None:
    size, unit = x.shape[axis], DTYPES[x.dtype].itemsize
    inner, outer = prod(x.shape[axis + 1 :]), prod(x.shape[:axis])
    reach = len(weights) - 1
    if axis == len(x.shape) - 2:
        rows, length, strip, tap = 1, size * inner, size * inner, inner
    else:
        rows, length, strip, tap = size, inner, min(inner, gauss.STRIP // unit), 0
    strips = -(-length // strip)
    words = {
        "x": x.place, "y": y.place, "weights": state.known(weights, x.dtype).place, "reach": reach,
        "rows": rows, "length": length, "strip": strip, "strips": strips, "row_step": inner * unit,
        "outer_step": size * inner * unit, "tap": tap, "scratch": SCRATCH,
        "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = gauss.AxisKernel(x.dtype, state.target.lanes)
    need = gauss.scratch(rows, strip, reach, tap or strip, unit)
    state.emit(kernel, outer * strips, gauss.WORDS, words, label, need)
