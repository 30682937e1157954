"""Convolutions backwards: to the input, by the kernels that go forward, and to the weights.

The cotangent of a convolution's input is a convolution of the cotangent with the weights turned:
inputs and outputs exchanged, taps reversed. Where the forward one strides, the cotangent is first
spread apart, with zeros between its pixels.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ...runtime.kernels import conv_weight, depthwise_weight, pool_backward, winograd
from ...runtime.kernels import winograd_weight as kernels
from ..ir.graph import Node, Value
from ..ops.fused import named_extras, plain_attrs
from .convolution import BLOCK, ConvShape
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, expand, rule
from .cpu_conv import CLAMPS, ConvParts, clamp_of, convolve
from .cpu_simple import lower_depthwise
from .cpu_windows import backward_weight_by_windows
from .storage import LINE, Blocked, Flat

# ---------------------------------------------------------------- to the input


@rule("conv_transpose", "fused_conv_transpose")
def lower_conv_transpose(state: Lowering, index: int, node: Node) -> None:
    """A transposed convolution as a convolution with turned weights, where kernels fit."""
    fused = node.op == "fused_conv_transpose"
    attrs: Any = plain_attrs(node.attrs) if fused else node.attrs
    if not _fits(state, index, node, attrs):
        expand(state, index, node)
        return
    operands = state.graph.operands(index)
    extras: dict[str, Value] = dict(zip(("bias",), operands[2:], strict=False))
    extras = named_extras(node.attrs, operands) if fused else extras
    x = state.blocked(operands[0])
    _, features, rows, columns = state.shape(Value(index))
    kernel: Any = state.shape(operands[1])[2:]
    low, high = clamp_of(node)
    pads: Any = tuple(
        (d * (k - 1) - before, d * (k - 1) - after + extra)
        for k, d, (before, after), extra in zip(
            kernel, attrs["dilation"], attrs["pad"], attrs["out_pad"], strict=True
        )
    )
    shape = ConvShape(
        x.images, x.channels, x.height, x.width, features, kernel, (1, 1), pads,
        attrs["dilation"], attrs["groups"], rows, columns,
    )  # type: ignore[arg-type]  # fmt: skip
    parts = ConvParts(shape, operands[1], extras, low, high, "", f"{node.name}.back", True)
    if attrs["stride"] == (1, 1):
        _convolve(state, index, parts)
    else:
        _strided(state, index, parts, x, attrs["stride"])


def _fits(state: Lowering, index: int, node: Node, attrs: Any) -> bool:
    operands, groups = state.graph.operands(index), attrs["groups"]
    if node.type.dtype != "f32" or node.type.rank != 4 or node.attrs.get("prologue"):
        return False
    if str(node.attrs.get("activation", "")) not in CLAMPS:
        return False
    kernel = state.shape(operands[1])[2:]
    reach = [d * (k - 1) for k, d in zip(kernel, attrs["dilation"], strict=True)]
    if any(max(pad) > r for pad, r in zip(attrs["pad"], reach, strict=True)):
        return False
    channels, features = state.shape(operands[0])[1], state.shape(Value(index))[1]
    one = channels == features == groups
    whole = channels // groups % BLOCK == 0 and features // groups % BLOCK == 0
    return groups == 1 or one or whole


def _convolve(state: Lowering, index: int, parts: ConvParts) -> None:
    shape = parts.shape
    if shape.groups > 1 and shape.groups == shape.channels:
        lower_depthwise(state, index, parts)
    else:
        convolve(state, index, parts)


def _strided(state: Lowering, index: int, parts: ConvParts, x: Blocked, stride: Any) -> None:
    shape = parts.shape
    simple = not {"bias"} & set(parts.extras) and parts.low == -np.inf and parts.high == np.inf
    if shape.kernel == (1, 1) and shape.pad[0][0] == shape.pad[1][0] == 0 and simple:
        # One tap meets no zeros: the product comes first, on the few pixels that there are.
        small = (shape.images, shape.features, shape.height, shape.width)
        goal = state.loose_blocked(small)
        size = replace(shape, rows=shape.height, columns=shape.width, pad=((0, 0), (0, 0)))
        _convolve(state, index, replace(parts, shape=size, extras={}, source=x, goal=goal))
        residual = parts.extras.get("residual")
        beside = state.blocked(residual) if residual is not None else None
        _spread(state, goal, state.new_blocked(Value(index)), stride, beside, parts.path)
        return
    height, width = ((n - 1) * s + 1 for n, s in zip((x.height, x.width), stride, strict=True))
    apart = state.loose_blocked((x.images, x.channels, height, width))
    _spread(state, x, apart, stride, None, parts.path)
    size = replace(shape, height=height, width=width)
    _convolve(state, index, replace(parts, shape=size, source=apart))


def _spread(
    state: Lowering, x: Blocked, out: Blocked, stride: Any, residual: Blocked | None, path: str
) -> None:
    """Pixels ``stride`` apart."""
    words: dict[str, Any] = {
        "x": x.place, "y": out.place, "x_image": x.plane, "x_block": x.block,
        "y_image": out.plane, "y_block": out.block, "blocks": x.blocks, "height": x.height,
        "width": x.width, "rows": out.height, "columns": out.width, "stride_y": stride[0],
        "stride_x": stride[1],
    }  # fmt: skip
    if residual is not None:
        words |= {"residual": residual.place, "residual_image": residual.plane,
                  "residual_block": residual.block}  # fmt: skip
    kernel = pool_backward.SpreadKernel(state.target.lanes)
    tasks = pool_backward.tasks(x.images, x.blocks)
    state.emit(kernel, tasks, pool_backward.SPREAD_WORDS, words, path)


# ---------------------------------------------------------------- to the weights


@rule("conv_backward_weight")
def lower_backward_weight(state: Lowering, index: int, node: Node) -> None:
    """The product of windows and cotangents over images and places."""
    attrs: Any = node.attrs
    x, d = state.graph.operands(index)
    channels, features, groups = state.shape(x)[1], state.shape(d)[1], attrs["groups"]
    if node.type.dtype != "f32" or node.type.rank != 4:
        backward_weight_by_windows(state, index, node)
    elif groups == 1 and _is_winograd(state, attrs, channels):
        _winograd_weight(state, index, node)
    elif groups == 1:
        _dense_weight(state, index, node)
    elif channels == features == groups:
        _depthwise_weight(state, index, node)
    else:
        backward_weight_by_windows(state, index, node)


PIXELS = 192
"""Pixels of a chunk, about: its x and d of one block stay in the first cache."""

SMALL = 256 << 10
"""Bytes of sums up to which tasks share out pixels rather than panels of outputs."""


def _dense_weight(state: Lowering, index: int, node: Node) -> None:
    attrs: Any = node.attrs
    x_value, d_value = state.graph.operands(index)
    d, lanes = state.blocked(d_value), state.target.lanes
    _, channels, height, width = state.shape(x_value)
    stored = state.stored.get(x_value)
    planar = channels < BLOCK and isinstance(stored, Flat)
    kernel, stride, dilation, pad = (attrs[n] for n in ("kernel", "stride", "dilation", "pad"))
    staged = planar or any(side for sides in pad for side in sides)
    flat = not staged and kernel == (1, 1) and stride == (1, 1)
    reach = [(n - 1) * s + (k - 1) * e + 1 for n, s, k, e in
             zip((d.height, d.width), stride, kernel, dilation, strict=True)]  # fmt: skip
    chunk = _chunks(d, flat)
    stage_rows = (chunk["band_rows"] - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1
    if planar:
        source = state.flat(x_value)
        pixel, blocks = channels * 4, channels
        line = reach[1] * pixel
        places = {"x": source.place, "x_image": channels * height * width * 4}
        stage_image, block = stage_rows * line, 0
    else:
        source = state.blocked(x_value)
        pixel, blocks = LINE, source.blocks
        line = (reach[1] if staged else width) * LINE
        places = {"x": source.place, "x_image": source.plane, "x_block": source.block}
        block = stage_rows * line if staged else source.block
        stage_image = blocks * block
    offsets, goals = _rows(channels, kernel, dilation, planar, block, line, pixel)
    rows, wide = conv_weight.tile_rows(lanes), conv_weight.panel_blocks(lanes)
    tiles = -(-len(offsets) // rows)
    offsets += [offsets[0]] * (tiles * rows - len(offsets))
    panels, panel = -(-d.blocks // wide), tiles * rows * wide * LINE
    share = _share(state, panels, panel, chunk["chunks"])
    splits = -(-chunk["chunks"] // share["split_chunks"])
    sums = state.room(splits * panels * panel)
    words: dict[str, Any] = {
        **places, **chunk, **share, "d": d.place, "y": sums, "tiles": tiles, "panels": panels,
        "table": _table(state, "rows", offsets), "d_image": d.plane,
        # A line of a flat kernel is a run of pixels, whatever the width of the pictures.
        "x_line": chunk["columns"] * LINE if flat else line * stride[0],
        "d_block": d.block, "split_bytes": panels * panel, "panel_bytes": panel,
        "blocks_out": d.blocks, "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
        "blocks_in": blocks, "height": height, "width": width, "pad_top": pad[0][0],
        "pad_left": pad[1][0], "stage_width": reach[1], "stage_rows": stage_rows,
        "stage_image": stage_image, "stride_y": stride[0],
    }  # fmt: skip
    stage = "planar" if planar else "blocked" if staged else "none"
    made = conv_weight.ConvWeightKernel(pixel * stride[1], stage, flat, lanes)
    scratch = stage_image * chunk["band_images"] if staged else 0
    tasks = splits * share["panel_groups"]
    state.emit(made, tasks, conv_weight.WORDS, words, f"{node.name}.weight", scratch)
    _sum_up(state, index, node, sums, goals, words | {"splits": splits, "panel_blocks": wide})


def _is_winograd(state: Lowering, attrs: Any, channels: int) -> bool:
    """Whether the sums are taken in Winograd's domain."""
    ones = attrs["stride"] == attrs["dilation"] == (1, 1)
    return attrs["kernel"] == (3, 3) and ones and channels >= BLOCK and not state.target.precise


TOGETHER = 16 << 20
"""Bytes of transformed tiles up to which images are taken together, so that they stay in cache."""


def _winograd_weight(state: Lowering, index: int, node: Node) -> None:
    """Both sides transformed, a product for each position, the sums transformed back."""
    attrs: Any = node.attrs
    x, d = (state.blocked(v) for v in state.graph.operands(index))
    down, across = -(-d.height // 4), -(-d.width // 4)
    image = winograd.POSITIONS * down * across * LINE * (x.blocks + d.blocks)
    images = max(1, min(x.images, TOGETHER // image))
    wide = kernels.panel_blocks(state.target.lanes)
    # An odd number of cache lines, or the 36 positions fall on a few cache sets.
    position = (x.blocks * d.blocks * BLOCK | 1) * LINE
    sums = state.room(winograd.POSITIONS * position)
    panels = -(-d.blocks // wide)
    groups = min(panels, -(-8 * state.target.threads // winograd.POSITIONS))
    for first in range(0, x.images, images):
        count = min(images, x.images - first)
        tiles = count * down * across
        sides = []
        for of, side, pads in (("input", x, attrs["pad"]), ("slope", d, ((0, 0), (0, 0)))):
            step = (side.blocks * tiles | 1) * LINE
            made = state.room(winograd.POSITIONS * step)
            sides.append((made, step))
            words: dict[str, Any] = {
                "x": side.place, "y": made, "x_image": side.plane, "x_block": side.block,
                "height": side.height, "width": side.width, "pad_top": pads[0][0],
                "pad_left": pads[1][0], "tiles_down": down, "tiles_across": across,
                "images": count, "first_image": first, "blocks": side.blocks, "position": step,
                "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
            }  # fmt: skip
            state.emit(
                kernels.TileTransformKernel(of, state.target.lanes), count * side.blocks,
                kernels.TRANSFORM_WORDS, words, f"{node.name}.weight {of}s",
                kernels.transform_scratch(),
            )  # fmt: skip
        (inputs, x_step), (slopes, d_step) = sides
        words = {
            "x": inputs, "d": slopes, "y": sums, "tiles": tiles, "blocks_in": x.blocks,
            "blocks_out": d.blocks, "panels": panels, "panel_groups": groups,
            "panels_per_task": -(-panels // groups), "x_position": x_step, "d_position": d_step,
            "y_position": position, "later": int(first > 0),
        }  # fmt: skip
        product = kernels.WeightProductKernel(state.target.lanes)
        tasks = winograd.POSITIONS * groups
        state.emit(product, tasks, kernels.PRODUCT_WORDS, words, f"{node.name}.weight")
    out = state.new_flat(Value(index))
    shares = -(-x.channels // kernels.SHARE)
    words = {
        "x": sums, "y": out.place, "position": position, "inputs": x.channels,
        "outputs": d.channels, "blocks_in": x.blocks, "shares": shares, "share": kernels.SHARE,
        "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    back = kernels.TapsKernel(state.target.lanes)
    state.emit(back, d.blocks * shares, kernels.BACK_WORDS, words, f"{node.name}.weight taps",
               kernels.back_scratch())  # fmt: skip


def _chunks(d: Blocked, flat: bool) -> dict[str, int]:
    """How the pixels of the cotangent are cut into chunks."""
    pixels = d.images * d.height * d.width
    if flat:
        columns = min(pixels, PIXELS)
        rows = -(-pixels // columns)
        return {"chunks": rows, "bands": rows, "band_rows": 1, "band_images": 1, "images": 1,
                "rows": rows, "columns": columns, "pixels": pixels}  # fmt: skip
    together = max(1, min(d.images, PIXELS // (d.height * d.width)))
    band = max(1, min(d.height, PIXELS // d.width))
    bands = -(-d.height // band)
    return {"chunks": -(-d.images // together) * bands, "bands": bands, "band_rows": band,
            "band_images": together, "images": d.images, "rows": d.height, "columns": d.width,
            "pixels": pixels}  # fmt: skip


def _share(state: Lowering, panels: int, panel: int, chunks: int) -> dict[str, int]:
    """Tasks by pixels where the sums are small, by panels where they are many."""
    wanted = 4 * state.target.threads
    groups = 1 if panels * panel <= SMALL else min(panels, wanted)
    each = -(-panels // groups)
    groups = -(-panels // each)
    splits = max(1, min(chunks, -(-wanted // groups)))
    return {"panel_groups": groups, "panels_per_task": each, "split_chunks": -(-chunks // splits)}


def _rows(
    channels: int, kernel: Any, dilation: Any, planar: bool, block: int, line: int, pixel: int
) -> tuple[list[int], list[int]]:
    """Of every row: where it reads x from a pixel, and where it lies in an output's weights."""
    taps = kernel[0] * kernel[1]
    offsets, goals = [], []
    for first in range(0, channels, BLOCK):
        inside = range(first, min(first + BLOCK, channels))
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                base = first // BLOCK * block + i * dilation[0] * line + j * dilation[1] * pixel
                offsets += [base + (c if planar else c - first) * 4 for c in inside]
                goals += [(c * taps + i * kernel[1] + j) * 4 for c in inside]
    return offsets, goals


def _table(state: Lowering, name: str, values: list[int]) -> Any:
    array = np.array(values, np.int64)
    return state.load.pack(name, state.load.literal(array), array.nbytes)


def _sum_up(
    state: Lowering, index: int, node: Node, sums: Any, goals: list[int], known: dict[str, Any]
) -> None:
    """The splits' sums in order, into the weights' layout."""
    out = state.new_flat(Value(index))
    outputs, blocks = out.shape[0], -(-out.shape[0] // BLOCK)
    words: dict[str, Any] = {
        name: known[name] for name in ("splits", "split_bytes", "panel_bytes", "panel_blocks")
    } | {
        "x": sums, "y": out.place, "table": _table(state, "goals", goals), "rows": len(goals),
        "outputs": outputs, "output_step": prod(out.shape[1:]) * 4,
        "shares": -(-len(goals) // conv_weight.SHARE), "share": conv_weight.SHARE,
    }  # fmt: skip
    kernel = conv_weight.WeightSumKernel(state.target.lanes)
    tasks = conv_weight.sum_tasks(blocks, len(goals))
    state.emit(kernel, tasks, conv_weight.SUM_WORDS, words, f"{node.name}.weight sum")


def _depthwise_weight(state: Lowering, index: int, node: Node) -> None:
    attrs: Any = node.attrs
    x, d = (state.blocked(v) for v in state.graph.operands(index))
    kernel, stride, dilation, pad = (attrs[n] for n in ("kernel", "stride", "dilation", "pad"))
    splits = max(1, min(x.images, -(-8 * state.target.threads // x.blocks)))
    share = -(-x.images // splits)
    splits, taps = -(-x.images // share), kernel[0] * kernel[1]
    sums = state.room(x.blocks * splits * taps * LINE)
    words: dict[str, Any] = {
        "x": x.place, "d": d.place, "y": sums, "x_image": x.plane, "x_block": x.block,
        "d_image": d.plane, "d_block": d.block, "blocks": x.blocks, "images": x.images,
        "splits": splits, "share": share, "height": x.height, "width": x.width, "rows": d.height,
        "columns": d.width, "taps_y": kernel[0], "stride_y": stride[0],
        "dilation_y": dilation[0], "pad_top": pad[0][0], "pad_left": pad[1][0],
    }  # fmt: skip
    made = depthwise_weight.DepthwiseWeightKernel(
        kernel[1], stride[1], dilation[1], state.target.lanes
    )
    label = f"{node.name}.weight"
    state.emit(made, x.blocks * splits, depthwise_weight.WORDS, words, label)
    out = state.new_flat(Value(index))
    words = {"x": sums, "y": out.place, "splits": splits, "taps": taps, "channels": x.channels}
    total = depthwise_weight.DepthwiseSumKernel(state.target.lanes)
    state.emit(total, x.blocks, depthwise_weight.SUM_WORDS, words, f"{label} sum")


# ---------------------------------------------------------------- pools


@rule("maxpool_backward")
def lower_maxpool_backward(state: Lowering, index: int, node: Node) -> None:
    """Each cotangent back to where its maximum stood."""
    attrs: Any = node.attrs
    if node.type.dtype != "f32" or node.type.rank != 4:
        expand(state, index, node)
        return
    x, y, d = (state.blocked(v) for v in state.graph.operands(index))
    out = state.new_blocked(Value(index))
    words: dict[str, Any] = {
        "x": x.place, "y": y.place, "d": d.place, "goal": out.place, "x_image": x.plane,
        "x_block": x.block, "y_image": y.plane, "y_block": y.block, "d_image": d.plane,
        "d_block": d.block, "goal_image": out.plane, "goal_block": out.block, "blocks": x.blocks,
        "height": x.height, "width": x.width, "rows": y.height, "columns": y.width,
        "taps_y": attrs["kernel"][0], "taps_x": attrs["kernel"][1],
        "stride_y": attrs["stride"][0], "stride_x": attrs["stride"][1],
        "dilation_y": attrs["dilation"][0], "dilation_x": attrs["dilation"][1],
        "pad_top": attrs["pad"][0][0], "pad_left": attrs["pad"][1][0],
    }  # fmt: skip
    kernel = pool_backward.MaxPoolBackwardKernel(state.target.lanes)
    tasks = pool_backward.tasks(x.images, x.blocks)
    state.emit(kernel, tasks, pool_backward.WORDS, words, node.name or node.op)
