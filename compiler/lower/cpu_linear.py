"""Dense layers to rows."""

from __future__ import annotations

from math import prod
from typing import Any

from ...runtime.abi import word_of
from ...runtime.kernels import linear, rows_times
from ..ir.graph import Node, Value
from ..ops.fused import named_extras
from .convolution import BLOCK
from .cpu import Lowering, rule
from .cpu_conv import CLAMPS, clamp_of
from .filters import Filters, channel_vector
from .recipe import Recipe, with_epilogue, with_prologue
from .storage import Flat


@rule("linear", "fused_linear")
def lower_linear(state: Lowering, index: int, node: Node) -> None:
    """Y = activation(x W' + b + residual) on the last axis."""
    operands = list(state.graph.operands(index))
    extras = named_extras(node.attrs, operands) if node.op.startswith("fused") else (
        {"bias": operands[2]} if len(operands) > 2 else {}
    )  # fmt: skip
    if not _has_kernel(node):
        _from_parts(state, index, node, operands, extras)
        return
    few = prod(state.shape(operands[0])[:-1]) <= FEW_ROWS and "residual" not in extras
    if few and operands[1].node not in state.phases:
        _few_rows(state, index, node, operands, extras)
    else:
        _packed(state, index, node, operands, extras)


FEW_ROWS = 16
"""Rows up to which weights that change at every call are read as they lie, not packed."""


def _packed(
    state: Lowering, index: int, node: Node, operands: list[Value], extras: Any
) -> None:  # fmt: skip
    """Weights in panels, packed when they are loaded or at every call."""
    x = state.flat(operands[0])
    *lead, depth = x.shape
    images = 1
    for dim in lead:
        images *= dim
    features = state.shape(operands[1])[0]
    lanes = state.target.lanes
    rows, blocks = linear.tile_shape(images, features, lanes)
    wide = blocks * BLOCK
    panels = -(-features // wide)
    groups, group_rows = linear.division(images, rows)
    path = node.name
    packed = Filters(state, operands[1], path).matrix(blocks, panels * depth * wide * 4)
    out = state.new_flat(Value(index))
    low, high = clamp_of(node)
    words = {
        "x": x.place, "w": packed, "y": out.place, "rows": images, "length": depth,
        "outputs": features, "x_row": depth * 4, "y_row": features * 4, "row_groups": groups,
        "group_rows": group_rows, "panel_bytes": depth * wide * 4, "low_bits": word_of(low),
        "high_bits": word_of(high),
        "bias": channel_vector(state, extras.get("bias"), f"{path}.bias", features, wide),
    }  # fmt: skip
    if "residual" in extras:
        words["residual"] = state.flat(extras["residual"]).place
    kernel = linear.LinearKernel(rows, blocks, False, lanes)
    tasks = linear.tasks(features, blocks, groups)
    state.emit(kernel, tasks, linear.WORDS, words, path)


def _has_kernel(node: Node) -> bool:
    """Whether a kernel fits: float32, a clamp at most, nothing before the product."""
    activation = str(node.attrs.get("activation", ""))
    return activation in CLAMPS and not node.attrs.get("prologue") and node.type.dtype == "f32"


def _few_rows(
    state: Lowering, index: int, node: Node, operands: list[Value], extras: Any
) -> None:  # fmt: skip
    """A few rows times a matrix as it lies: it is read once."""
    x, w = (state.flat(v) for v in operands[:2])
    out = state.new_flat(Value(index))
    outputs, depth = w.shape
    low, high = clamp_of(node)
    words: dict[str, Any] = {
        "x": x.place, "w": w.place, "y": out.place, "x_row": depth * 4, "w_row": depth * 4,
        "y_row": outputs * 4, "rows": prod(x.shape[:-1]), "outputs": outputs,
        "share": rows_times.OUTPUTS, "depth": depth, "low_bits": word_of(low),
        "high_bits": word_of(high),
    }  # fmt: skip
    if "bias" in extras:
        words["bias"] = state.flat(extras["bias"]).place
    kernel = rows_times.DotKernel(state.target.lanes)
    tasks = -(-outputs // rows_times.OUTPUTS)
    state.emit(kernel, tasks, rows_times.DOT_WORDS, words, node.name or node.op)


def back_product(state: Lowering, index: int, name: str, d: Flat, w: Flat) -> None:
    """The way back to a dense layer's input, ``d W`` of [N, K] and [K, C]."""
    out = state.new_flat(Value(index))
    depth, columns = w.shape
    share = rows_times.share_of(columns, state.target.threads)
    words: dict[str, Any] = {
        "d": d.place, "w": w.place, "y": out.place, "d_row": depth * 4, "w_row": columns * 4,
        "y_row": columns * 4, "rows": d.shape[0], "columns": columns, "depth": depth,
        "share": share,
    }  # fmt: skip
    kernel = rows_times.BackKernel(state.target.lanes)
    state.emit(kernel, -(-columns // share), rows_times.BACK_WORDS, words, name)


def outer_product(state: Lowering, index: int, name: str, d: Flat, x: Flat) -> None:
    """The gradient of a dense layer's weights, ``d' x`` of [N, K] and [N, C]."""
    out = state.new_flat(Value(index))
    outputs, columns = out.shape
    share = min(columns, rows_times.WIDE)
    shares = -(-columns // share)
    each = max(1, -(-outputs * shares // (16 * state.target.threads)))
    words: dict[str, Any] = {
        "d": d.place, "x": x.place, "y": out.place, "d_row": outputs * 4, "x_row": columns * 4,
        "y_row": columns * 4, "rows": d.shape[0], "outputs": outputs, "columns": columns,
        "share": share, "shares": shares, "each": each,
    }  # fmt: skip
    kernel = rows_times.OuterKernel(state.target.lanes)
    tasks = shares * -(-outputs // each)
    state.emit(kernel, tasks, rows_times.OUTER_WORDS, words, name)


def _from_parts(
    state: Lowering, index: int, node: Node, operands: list[Value], extras: Any
) -> None:
    """The product alone, with what is fused with it before and after; a nest but in float32."""
    r = Recipe(state, [*operands[:2], *extras.values()])
    named = dict(zip(extras, r.inputs[2:], strict=True))
    x = with_prologue(r, r.inputs[0], named, node)
    bias = [named["bias"]] if "bias" in named else []
    if node.type.dtype == "f32":
        y = r("linear", x, r.inputs[1], *bias)
    else:
        letters = "abcdefgh"[: r.type_of(x).rank - 1]
        spec = f"{letters}k,nk->{letters}n"
        y = r("contract", x, r.inputs[1], attrs={"semiring": "sum_product", "spec": spec})
        y = r("add", y, *bias) if bias else y
    r.finish(index, with_epilogue(r, y, named, node))
