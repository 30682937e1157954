"""Dense layers to rows."""

from __future__ import annotations

from typing import Any

from ...runtime.abi import word_of
from ...runtime.kernels import linear
from ..ir.graph import Node, Value
from ..ops.fused import named_extras
from .convolution import BLOCK
from .cpu import Lowering, rule
from .cpu_conv import CLAMPS, clamp_of, packed_vector
from .load import label
from .recipe import Recipe, with_epilogue, with_prologue


@rule("linear", "fused_linear")
def lower_linear(state: Lowering, index: int, node: Node) -> None:
    """Y = activation(x W' + b + residual) on the last axis."""
    operands = list(state.graph.operands(index))
    extras = named_extras(node.attrs, operands) if node.op.startswith("fused") else (
        {"bias": operands[2]} if len(operands) > 2 else {}
    )  # fmt: skip
    if not _has_kernel(state, node, operands, extras):
        _from_parts(state, index, node, operands, extras)
        return
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
    text = f"pack.matrix({state.load.text(operands[1])}, {blocks})"
    packed = state.load.pack(label(f"{path}.weight"), text, panels * depth * wide * 4)
    out = state.new_flat(Value(index))
    low, high = clamp_of(node)
    words = {
        "x": x.place, "w": packed, "y": out.place, "rows": images, "length": depth,
        "outputs": features, "x_row": depth * 4, "y_row": features * 4, "row_groups": groups,
        "group_rows": group_rows, "panel_bytes": depth * wide * 4, "low_bits": word_of(low),
        "high_bits": word_of(high),
        "bias": packed_vector(state, extras.get("bias"), f"{path}.bias", features, wide),
    }  # fmt: skip
    if "residual" in extras:
        words["residual"] = state.flat(extras["residual"]).place
    kernel = linear.LinearKernel(rows, blocks, False, lanes)
    tasks = linear.tasks(features, blocks, groups)
    state.emit(kernel, tasks, linear.WORDS, words, path)


def _has_kernel(state: Lowering, node: Node, operands: list[Value], extras: Any) -> bool:
    """Whether the packed kernel fits: float32, weights known when loading, a clamp at most."""
    bias = extras.get("bias")
    steady = operands[1].node in state.phases and (bias is None or bias.node in state.phases)
    activation = str(node.attrs.get("activation", ""))
    plain = activation in CLAMPS and not node.attrs.get("prologue")
    return steady and plain and node.type.dtype == "f32"


def _from_parts(
    state: Lowering, index: int, node: Node, operands: list[Value], extras: Any
) -> None:
    """The product as a nest; what is fused with it goes in one pass after it."""
    r = Recipe(state, [*operands[:2], *extras.values()])
    named = dict(zip(extras, r.inputs[2:], strict=True))
    x = with_prologue(r, r.inputs[0], named, node)
    letters = "abcdefgh"[: r.type_of(x).rank - 1]
    spec = f"{letters}k,nk->{letters}n"
    y = r("contract", x, r.inputs[1], attrs={"semiring": "sum_product", "spec": spec})
    y = r("add", y, named["bias"]) if "bias" in named else y
    r.finish(index, with_epilogue(r, y, named, node))
