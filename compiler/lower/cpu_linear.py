"""Dense layers to rows."""

from __future__ import annotations

from ...runtime.abi import word_of
from ...runtime.kernels import image_linear
from ..ir.graph import Node, Value
from ..ops.fused import named_extras
from .convolution import BLOCK
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule
from .cpu_conv import clamp_of, packed_vector
from .load import label


@rule("linear", "fused_linear")
def lower_linear(state: Lowering, index: int, node: Node) -> None:
    """y = activation(x W' + b + residual) on the last axis."""
    operands = state.graph.operands(index)
    extras = named_extras(node.attrs, operands) if node.op.startswith("fused") else (
        {"bias": operands[2]} if len(operands) > 2 else {}
    )  # fmt: skip
    x = state.flat(operands[0])
    *lead, depth = x.shape
    images = 1
    for dim in lead:
        images *= dim
    features = state.shape(operands[1])[0]
    rows, blocks = _tile(images, -(-features // BLOCK), BLOCK // state.target.lanes)
    wide = blocks * BLOCK
    panels = -(-features // wide)
    path = node.name
    text = f"pack.matrix({state.load.text(operands[1])}, {blocks})"
    packed = state.load.pack(label(f"{path}.weight"), text, panels * depth * wide * 4)
    out = state.new_flat(Value(index))
    low, high = clamp_of(node)
    words = {
        "x": x.place, "w": packed, "y": out.place, "images": images, "depth": depth,
        "features": features, "x_row": depth * 4, "y_row": features * 4,
        "panel_bytes": depth * wide * 4, "low_bits": word_of(low), "high_bits": word_of(high),
        "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
        "bias": packed_vector(state, extras.get("bias"), f"{path}.bias", features, wide),
    }  # fmt: skip
    if "residual" in extras:
        words["residual"] = state.flat(extras["residual"]).place
    kernel = image_linear.LinearKernel(rows, blocks, state.target.lanes)
    state.emit(kernel, panels, image_linear.WORDS, words, path, wide * 4)


def _tile(images: int, blocks_out: int, registers: int) -> tuple[int, int]:
    """Rows and blocks of the register tile: many blocks for few rows."""
    rows = min(images, 8)
    most = {1: 4, 2: 4, 3: 4, 4: 4, 5: 4, 6: 4, 7: 2, 8: 2}[rows]
    blocks = min(most, blocks_out)
    if registers > 1:
        rows, blocks = min(rows, 4), 1
    return rows, blocks
