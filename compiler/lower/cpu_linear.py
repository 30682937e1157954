"""Dense layers to rows."""

from __future__ import annotations

from ...runtime.abi import word_of
from ...runtime.kernels import linear
from ..ir.graph import Node, Value
from ..ops.fused import named_extras
from .convolution import BLOCK
from .cpu import Lowering, rule
from .cpu_conv import clamp_of, packed_vector
from .load import label


@rule("linear", "fused_linear")
def lower_linear(state: Lowering, index: int, node: Node) -> None:
    """Y = activation(x W' + b + residual) on the last axis."""
    operands = list(state.graph.operands(index))
    extras = named_extras(node.attrs, operands) if node.op.startswith("fused") else (
        {"bias": operands[2]} if len(operands) > 2 else {}
    )  # fmt: skip
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
