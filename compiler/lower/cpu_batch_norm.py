"""Batch norms of training steps to rows: sums, the channels' numbers, and one pass with the clamp.

Fused norms and plain ones go the same way; a plain one clamps nothing.
"""

from __future__ import annotations

import math
from typing import Any

from ...runtime.abi import word_of
from ...runtime.kernels import batch_norm as kernels
from ..ir.graph import Node, Value
from ..ops.steps import BACKWARD_EXTRAS, CLAMPS, FORWARD_EXTRAS, extras_of
from .convolution import BLOCK
from .cpu import Lowering, expand, rule
from .filters import channel_vector
from .storage import LINE, Blocked, Flat


def _is_image(node: Node) -> bool:
    return node.type.dtype == "f32" and node.type.rank == 4


def _extras(state: Lowering, index: int, node: Node) -> dict[str, Value]:
    """Operands after the statistics, by name."""
    operands = state.graph.operands(index)
    forward = "train" in node.op
    known, rest = (FORWARD_EXTRAS, operands[3:]) if forward else (BACKWARD_EXTRAS, operands[4:])
    if node.op.startswith("fused"):
        return extras_of(node.op, node.attrs, rest, known)
    return dict(zip(known, rest, strict=False))


def _bounds(node: Node) -> dict[str, int]:
    low, high = CLAMPS[str(node.attrs.get("activation", ""))]
    return {
        "low_bits": word_of(-math.inf if low is None else low),
        "high_bits": word_of(math.inf if high is None else high),
    }


def _pixels(x: Blocked) -> dict[str, int]:
    pixels = x.images * x.height * x.width
    return {"pixels": pixels, "runs": kernels.runs(pixels)}


def _lanes(state: Lowering, value: Value, name: str) -> Any:
    """A vector along the channels that kernels read in whole blocks."""
    count = state.shape(value)[0]
    if count % BLOCK == 0 and value.node not in state.phases:
        return state.flat(value).place
    return channel_vector(state, value, name, count, BLOCK)


@rule("batch_norm_train", "fused_batch_norm_train")
def lower_forward(state: Lowering, index: int, node: Node) -> None:
    """Statistics, then the normalised image with residual and clamp."""
    if not _is_image(node):
        expand(state, index, node)
        return
    extras, lanes = _extras(state, index, node), state.target.lanes
    x_value, running_mean, running_var = state.graph.operands(index)[:3]
    x = state.blocked(x_value)
    size, tasks = _pixels(x), x.blocks * _pixels(x)["runs"]
    moments = state.room(tasks * 2 * LINE)
    words: dict[str, Any] = {"x": x.place, "y": moments, "x_block": x.block, **size}
    state.emit(kernels.MomentsKernel(lanes), tasks, kernels.MOMENT_WORDS, words, node.name)
    scale, shift = (state.room(x.blocks * LINE) for _ in range(2))
    results = [state.new_flat(Value(index, place)).place for place in range(1, 5)]
    words = {
        **dict(zip(("new_mean", "new_var", "mean", "inv_std"), results, strict=True)), **size,
        "x": moments, "running_mean": state.flat(running_mean).place,
        "running_var": state.flat(running_var).place, "scale": scale, "shift": shift,
        "channels": x.channels, "eps": word_of(float(node.attrs["eps"])),  # type: ignore[arg-type]
        "momentum": word_of(float(node.attrs["momentum"])),  # type: ignore[arg-type]
        **{name: state.flat(extras[name]).place for name in ("weight", "bias") if name in extras},
    }  # fmt: skip
    kernel = kernels.StatisticsKernel(lanes)
    state.emit(kernel, x.blocks, kernels.STATISTIC_WORDS, words, f"{node.name} statistics")
    words = {"x": x.place, "scale": scale, "shift": shift, "x_block": x.block,
             **size, **_bounds(node)}  # fmt: skip
    if "residual" in extras:
        residual = state.blocked(extras["residual"])
        words |= {"residual": residual.place, "residual_block": residual.block}
    out = state.new_blocked(Value(index))
    words |= {"y": out.place, "y_block": out.block}
    apply = kernels.NormaliseKernel("residual" in extras, lanes)
    state.emit(apply, tasks, kernels.APPLY_WORDS, words, f"{node.name} applied")


@rule("batch_norm_backward", "fused_batch_norm_backward")
def lower_backward(state: Lowering, index: int, node: Node) -> None:
    """Sums, slopes, then the cotangent of the input."""
    if not _is_image(node):
        expand(state, index, node)
        return
    extras, lanes = _extras(state, index, node), state.target.lanes
    operands = state.graph.operands(index)
    x, d = state.blocked(operands[0]), state.blocked(operands[1])
    mean, inv_std = (_lanes(state, v, f"{node.name}.statistics") for v in operands[2:4])
    size, tasks = _pixels(x), x.blocks * _pixels(x)["runs"]
    mask = "none"
    words: dict[str, Any] = {
        "x": x.place, "d": d.place, "x_block": x.block, "d_block": d.block, "mean": mean,
        **size, **_bounds(node),
    }  # fmt: skip
    if "y" in extras:
        z, mask = state.blocked(extras["y"]), "given"
        words |= {"z": z.place, "z_block": z.block}
    elif node.attrs.get("activation"):
        mask = "again"
        words |= _forward_vectors(state, node, extras, operands[2:4], x)
    sums = state.room(tasks * 2 * LINE)
    first = kernels.BackwardSumsKernel(mask, lanes)
    own = {**words, "y": sums, "inv_std": inv_std}
    state.emit(first, tasks, kernels.SUMS_WORDS, own, node.name)
    slopes = state.room(x.blocks * 3 * LINE)
    d_weight, d_bias = (state.new_flat(Value(index, place)).place for place in (1, 2))
    own = {
        **size, "x": sums, "mean": mean, "inv_std": inv_std, "d_weight": d_weight,
        "d_bias": d_bias, "slopes": slopes, "channels": x.channels,
        **({"weight": state.flat(extras["weight"]).place} if "weight" in extras else {}),
    }  # fmt: skip
    kernel = kernels.SlopesKernel(lanes)
    state.emit(kernel, x.blocks, kernels.SLOPE_WORDS, own, f"{node.name} slopes")
    out = state.new_blocked(Value(index))
    own = {**words, "y": out.place, "y_block": out.block, "slopes": slopes}
    last = kernels.BackwardKernel(mask, lanes)
    state.emit(last, tasks, kernels.BACKWARD_WORDS, own, f"{node.name} input")


def _forward_vectors(
    state: Lowering, node: Node, extras: dict[str, Value], moments: Any, x: Blocked
) -> dict[str, Any]:
    """Scale and shift as the forward norm rounded them, so that masks are the same to the bit."""
    scale, shift = (state.room(x.blocks * LINE) for _ in range(2))
    words: dict[str, Any] = {
        "mean": state.flat(moments[0]).place, "inv_std": state.flat(moments[1]).place,
        "scale": scale, "shift": shift, "channels": x.channels,
        **{name: state.flat(extras[name]).place for name in ("weight", "bias") if name in extras},
    }  # fmt: skip
    kernel = kernels.ScaleShiftKernel(state.target.lanes)
    state.emit(kernel, x.blocks, kernels.SCALE_WORDS, words, f"{node.name} scale")
    return {"scale": scale, "shift": shift}


def channel_sums(state: Lowering, x: Blocked, out: Flat, name: str) -> None:
    """Every channel's sum over images and pixels."""
    lanes, size = state.target.lanes, _pixels(x)
    tasks = x.blocks * size["runs"]
    sums = state.room(tasks * LINE)
    words: dict[str, Any] = {"x": x.place, "y": sums, "x_block": x.block, **size}
    state.emit(kernels.ChannelSumsKernel(lanes), tasks, kernels.CHANNEL_WORDS, words, name)
    words = {"x": sums, "y": out.place, "runs": size["runs"], "channels": x.channels}
    state.emit(kernels.ChannelTotalKernel(lanes), x.blocks, kernels.TOTAL_WORDS, words, name)
