"""Pooling, depthwise convolution, concatenation and the like on blocked images."""

from __future__ import annotations

from typing import Any

from ...runtime.abi import word_of
from ...runtime.kernels import image_depthwise, image_pool, pool
from ..ir.graph import Node, Value
from ..ops import OpError
from .convolution import BLOCK
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, in_whole_blocks, rule
from .cpu_conv import ConvParts, packed_vector
from .load import label
from .storage import LINE, Blocked, Flat, Mapped, lanes_of


@rule("maxpool", "avgpool")
def lower_pool(state: Lowering, index: int, node: Node) -> None:
    """Max or average over windows."""
    attrs: Any = node.attrs
    x = state.blocked(state.graph.operands(index)[0])
    if len(attrs["kernel"]) != 2:
        raise OpError("E804", "there is no CPU kernel for pooling of this rank yet")
    out = state.new_blocked(Value(index))
    dilation = attrs.get("dilation", (1, 1))
    words = {
        "x": x.place, "y": out.place, "x_plane": x.plane, "y_plane": out.plane,
        "height": x.height, "width": x.width, "rows": out.height, "columns": out.width,
        "kernel_y": attrs["kernel"][0], "kernel_x": attrs["kernel"][1],
        "stride_y": attrs["stride"][0], "stride_x": attrs["stride"][1],
        "pad_top": attrs["pad"][0][0], "pad_left": attrs["pad"][1][0],
        "pad_bottom": attrs["pad"][0][1], "pad_right": attrs["pad"][1][1],
        "dilation_y": dilation[0], "dilation_x": dilation[1],
        "count_pad": int(attrs.get("count_pad", False)),
    }  # fmt: skip
    kind = "max" if node.op == "maxpool" else "mean"
    kernel = image_pool.WindowKernel(kind, state.target.lanes)
    state.emit(kernel, x.blocks * x.images, image_pool.WORDS, words, node.name or node.op)


@rule("reduce")
def lower_reduce(state: Lowering, index: int, node: Node) -> None:
    """Mean or maximum over the whole plane of an image."""
    value = state.graph.operands(index)[0]
    kind, axes = str(node.attrs["kind"]), node.attrs["axes"]
    if kind not in ("mean", "max") or axes != (2, 3) or len(state.shape(value)) != 4:
        raise OpError("E804", f"there is no CPU kernel for `reduce` of kind {kind} over {axes} yet")
    x = state.blocked(value)
    out = state.new_flat(Value(index))
    words = {
        "x": x.place, "y": out.place, "x_plane": x.plane, "height": x.height, "width": x.width,
        "images": x.images, "channels": x.channels, "scratch": SCRATCH,
        "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = image_pool.PlaneKernel(kind, state.target.lanes)
    state.emit(kernel, x.blocks * x.images, image_pool.WORDS, words, node.name or node.op, LINE)


def lower_depthwise(state: Lowering, index: int, parts: ConvParts) -> None:
    """One filter a channel."""
    shape = parts.shape
    if parts.prologue:
        raise OpError("E804", "there is no CPU kernel for a depthwise prologue yet")
    x = state.blocked(state.graph.operands(index)[0])
    out = state.new_blocked(Value(index))
    taps = shape.kernel[0] * shape.kernel[1]
    path = label(f"{parts.path}.weight")
    text = f"pack.depthwise({state.load.text(parts.weight)})"
    weight = state.load.pack(path, text, x.blocks * taps * BLOCK * 4)
    inner = max(1, shape.columns - (shape.kernel[1] - 1))
    most = 8 if state.target.lanes == 16 else 4 if state.target.lanes == 8 else 2
    pixels = max(1, min(most, inner))
    planes = x.blocks * x.images
    band = shape.rows
    if planes < state.target.threads * 2:
        band = max(1, -(-shape.rows * planes // (state.target.threads * 4)))
    bands = -(-shape.rows // band)
    words: dict[str, Any] = {
        "x": x.place, "w": weight, "y": out.place, "x_plane": x.plane, "y_plane": out.plane,
        "images": x.images, "bands": bands, "band_rows": band, "height": shape.height,
        "width": shape.width, "rows": shape.rows, "columns": shape.columns,
        "kernel_y": shape.kernel[0], "kernel_x": shape.kernel[1], "stride_y": shape.stride[0],
        "pad_top": shape.pad[0][0], "pad_left": shape.pad[1][0],
        "dilation_y": shape.dilation[0], "dilation_x": shape.dilation[1],
        "low_bits": word_of(parts.low), "high_bits": word_of(parts.high),
        "bias": packed_vector(state, parts.extras.get("bias"), f"{parts.path}.bias",
                              shape.features, BLOCK),
    }  # fmt: skip
    residual = parts.extras.get("residual")
    if residual is not None:
        words["residual"] = state.blocked(residual).place
    kernel = image_depthwise.DepthwiseKernel(pixels, shape.stride[1], state.target.lanes)
    state.emit(kernel, planes * bands, image_depthwise.WORDS, words, parts.path)


@rule("concat")
def lower_concat(state: Lowering, index: int, node: Node) -> None:
    """Channels side by side: operands written in place need nothing."""
    value = Value(index)
    if node.attrs["axis"] != 1 or node.type.rank != 4:
        raise OpError("E804", "there is no CPU kernel for this concatenation yet")
    if not in_whole_blocks(state.graph, index):
        parts = [_image(state, operand) for operand in state.graph.operands(index)]
        lanes = tuple(lane for part in parts for lane in lanes_of(part))
        state.stored[value] = Mapped(lanes, parts[0].images, parts[0].height, parts[0].width)
        return
    out = state.new_blocked(value)
    channel = 0
    for operand in state.graph.operands(index):
        source = state.blocked(operand)
        inside = out.place.moved(channel // BLOCK * out.block)
        if channel % BLOCK == 0 and source.place == inside:
            channel += source.channels
            continue
        _copy_blocks(state, source, out, channel)
        channel += source.channels


def _image(state: Lowering, value: Value) -> Blocked | Mapped:
    stored = state.stored[value]
    return state.blocked(value) if isinstance(stored, Flat) else stored


def _copy_blocks(state: Lowering, source: Blocked, out: Blocked, channel: int) -> None:
    """Copy a value into another at a whole block."""
    if channel % BLOCK:
        raise OpError("E804", "there is no CPU kernel to join channels inside a block yet")
    words = {
        "x": source.place, "y": out.place.moved(channel // BLOCK * out.block),
        "x_plane": source.plane, "y_plane": out.plane, "height": source.height,
        "width": source.width, "rows": source.height, "columns": source.width, "kernel_y": 1,
        "kernel_x": 1, "stride_y": 1, "stride_x": 1, "dilation_y": 1, "dilation_x": 1,
    }  # fmt: skip
    kernel = image_pool.WindowKernel("max", state.target.lanes)
    state.emit(kernel, source.blocks * source.images, image_pool.WORDS, words, "concat")




@rule("adaptive_avgpool", "adaptive_maxpool")
def lower_adaptive(state: Lowering, index: int, node: Node) -> None:
    """Adaptive pooling; to the size it has already it is nothing."""
    value = state.graph.operands(index)[0]
    x = state.blocked(value)
    _, _, rows, columns = state.shape(Value(index))
    if (rows, columns) == (x.height, x.width):
        state.stored[Value(index)] = x
        return
    out = state.new_blocked(Value(index))
    kind = "max" if node.op == "adaptive_maxpool" else "mean"
    kernel = pool.AdaptivePoolKernel(kind, state.target.lanes)
    words = {
        "x": x.place, "y": out.place, "x_image": x.plane, "x_block": x.block,
        "y_image": out.plane, "y_block": out.block, "blocks": x.blocks, "height": x.height,
        "width": x.width, "rows": rows, "columns": columns,
    }  # fmt: skip
    tasks = pool.adaptive_tasks(x.images, x.blocks, rows)
    state.emit(kernel, tasks, pool.ADAPTIVE_WORDS, words, node.name or node.op)
