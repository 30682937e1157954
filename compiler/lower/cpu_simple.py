"""Pooling, depthwise convolution, concatenation and the like on blocked images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...runtime.abi import word_of
from ...runtime.kernels import depthwise, layout, pool, window
from ..ir.graph import Node, Value
from .convolution import BLOCK
from .cpu import Lowering, in_whole_blocks, rule
from .cpu_batch_norm import channel_sums
from .cpu_conv import ConvParts, stands_alone
from .cpu_layout import gather_lanes
from .cpu_nest import reduce_flat
from .cpu_resample import adaptive_by_axis
from .cpu_views import concat_flat
from .cpu_windows import pool_by_windows
from .filters import Filters, channel_vector, pad_groups
from .storage import Blocked, Flat, Mapped, lanes_of


def window_words(x: Blocked, out: Blocked, kernel: Any, stride: Any, dilation: Any, pad: Any
                 ) -> tuple[window.Window, dict[str, Any]]:  # fmt: skip
    """What all window kernels share: the register tile, and the words of the row."""
    bands, band_rows = window.division(x.images * x.blocks, out.height)
    words = {
        "x": x.place, "y": out.place, "x_image": x.plane, "x_block": x.block,
        "y_image": out.plane, "y_block": out.block, "blocks": x.blocks, "bands": bands,
        "band_rows": band_rows, "height": x.height, "width": x.width, "rows": out.height,
        "columns": out.width, "taps_y": kernel[0], "stride_y": stride[0],
        "dilation_y": dilation[0], "pad_top": pad[0][0], "pad_left": pad[1][0],
    }  # fmt: skip
    return window.Window(kernel[1], stride[1], dilation[1], 1), words


def _window(state: Lowering, shape: window.Window, out: Blocked, pad: Any) -> window.Window:
    """With the pixels of a register tile."""
    pixels = window.tile_pixels(
        out.width, shape.taps, shape.stride, shape.dilation, pad[1][0] + pad[1][1],
        state.target.lanes,
    )  # fmt: skip
    return window.Window(shape.taps, shape.stride, shape.dilation, pixels)


@rule("maxpool", "avgpool")
def lower_pool(state: Lowering, index: int, node: Node) -> None:
    """Max or average over windows."""
    attrs: Any = node.attrs
    if len(attrs["kernel"]) != 2 or node.type.dtype != "f32":
        pool_by_windows(state, index, node)
        return
    x = state.blocked(state.graph.operands(index)[0])
    out = state.new_blocked(Value(index))
    dilation = attrs.get("dilation", (1, 1))
    shape, words = window_words(x, out, attrs["kernel"], attrs["stride"], dilation, attrs["pad"])
    words |= {"pad_bottom": attrs["pad"][0][1], "pad_right": attrs["pad"][1][1]}
    kind = "max" if node.op == "maxpool" else "mean_padded" if attrs["count_pad"] else "mean"
    kernel = pool.PoolKernel(kind, _window(state, shape, out, attrs["pad"]), state.target.lanes)
    tasks = window.tasks(x.images, x.blocks, words["bands"])
    state.emit(kernel, tasks, pool.WORDS, words, node.name or node.op)


@rule("reduce")
def lower_reduce(state: Lowering, index: int, node: Node) -> None:
    """A fold along axes; the mean or maximum of an image's planes is read from its blocks."""
    value = state.graph.operands(index)[0]
    kind, axes = str(node.attrs["kind"]), tuple(node.attrs["axes"])  # type: ignore[arg-type]
    image = isinstance(state.stored.get(value), (Blocked, Mapped))
    if image and kind == "sum" and axes == (0, 2, 3):
        channel_sums(state, state.blocked(value), state.new_flat(Value(index)), node.name)
    elif image and kind in ("mean", "max") and axes == (2, 3):
        global_pool(state, state.blocked(value), state.new_flat(Value(index)), kind, node.name)
    else:
        reduce_flat(state, index, node, kind, axes)


def global_pool(state: Lowering, x: Blocked, out: Flat, kind: str, name: str) -> None:
    """Whole planes to a flat [N, C]."""
    words = {
        "x": x.place, "y": out.place, "x_image": x.plane, "x_block": x.block,
        "y_image": x.channels * 4, "blocks": x.blocks, "channels": x.channels,
        "pixels": x.height * x.width,
    }  # fmt: skip
    kernel = pool.GlobalPoolKernel(kind, state.target.lanes)
    tasks = pool.global_tasks(x.images, x.blocks)
    state.emit(kernel, tasks, pool.GLOBAL_WORDS, words, name or "pool")


def lower_depthwise(state: Lowering, index: int, parts: ConvParts) -> None:
    """One filter a channel; several filters a channel read it several times."""
    shape = parts.shape
    if _keeps_gaps(state, index, parts):
        _gapped_depthwise(state, index, parts)
        return
    x = parts.source or state.blocked(state.graph.operands(index)[0])
    if shape.features != shape.channels:
        lanes, each = lanes_of(x), shape.features // shape.channels
        spread = Mapped(tuple(lane for lane in lanes for _ in range(each)),
                        x.images, x.height, x.width)  # fmt: skip
        x = gather_lanes(state, spread)
    out = parts.goal or state.new_blocked(Value(index))
    _depthwise(state, parts, x, out, parts.filters(state))


def _keeps_gaps(state: Lowering, index: int, parts: ConvParts) -> bool:
    """Whether the channels lie in groups with gaps between them, and the result's may so, too."""
    stored = state.stored.get(state.graph.operands(index)[0])
    gapped = parts.source is None and isinstance(stored, Mapped) and stored.whole is not None
    one_each = parts.shape.features == parts.shape.channels
    return gapped and one_each and stands_alone(state, index, parts)


def _gapped_depthwise(state: Lowering, index: int, parts: ConvParts) -> None:
    """Over the gaps, too: their filters are zeros."""
    stored: Any = state.stored[state.graph.operands(index)[0]]
    x, groups = stored.whole, stored.groups
    shape = replace(parts.shape, channels=x.channels, features=x.channels, groups=x.channels)
    out = state.loose_blocked((shape.images, x.channels, shape.rows, shape.columns))
    room = x.channels // groups
    text = pad_groups(state.load.text(parts.weight), groups, room)
    wide = replace(parts, shape=shape, gaps=(groups, room))
    _depthwise(state, wide, x, out, wide.filters(state, known=text))
    state.stored[Value(index)] = Mapped.gapped(out, groups, stored.channels // groups)


def _depthwise(
    state: Lowering, parts: ConvParts, x: Blocked, out: Blocked, filters: Filters
) -> None:
    shape = parts.shape
    taps = shape.kernel[0] * shape.kernel[1]
    weight = filters.depthwise(x.blocks * taps * BLOCK * 4)
    tile, words = window_words(x, out, shape.kernel, shape.stride, shape.dilation, shape.pad)
    words |= {
        "w": weight, "low_bits": word_of(parts.low), "high_bits": word_of(parts.high),
        "bias": channel_vector(state, parts.extras.get("bias"), f"{parts.path}.bias",
                              shape.features, BLOCK, parts.gaps),
    }  # fmt: skip
    residual = parts.extras.get("residual")
    if residual is not None:
        words["residual"] = state.blocked(residual).place
    kernel = depthwise.DepthwiseKernel(_window(state, tile, out, shape.pad), state.target.lanes)
    tasks = window.tasks(x.images, x.blocks, words["bands"])
    state.emit(kernel, tasks, depthwise.WORDS, words, parts.path)


@rule("concat")
def lower_concat(state: Lowering, index: int, node: Node) -> None:
    """Channels side by side: operands written in place need nothing."""
    value = Value(index)
    operands = state.graph.operands(index)
    images = [v for v in operands if isinstance(state.stored.get(v), (Blocked, Mapped))]
    if node.attrs["axis"] != 1 or node.type.rank != 4 or not images:
        concat_flat(state, index, node)
        return
    if not in_whole_blocks(state.graph, index):
        parts = [_image(state, operand) for operand in operands]
        lanes = tuple(lane for part in parts for lane in lanes_of(part))
        state.stored[value] = Mapped(lanes, parts[0].images, parts[0].height, parts[0].width)
        return
    out = state.new_blocked(value)
    channel = 0
    for operand in operands:
        source = state.blocked(operand)
        inside = out.place.moved(channel // BLOCK * out.block)
        if channel % BLOCK == 0 and source.place == inside:
            channel += source.channels
            continue
        _copy_blocks(state, source, out, channel)
        channel += source.channels


def _image(state: Lowering, value: Value) -> Blocked | Mapped:
    stored = state.stored.get(value)
    return stored if isinstance(stored, (Blocked, Mapped)) else state.blocked(value)


def _copy_blocks(state: Lowering, source: Blocked, out: Blocked, channel: int) -> None:
    """Copy a value into another, at any channel."""
    pixels = source.height * source.width
    words = {
        "x": source.place, "y": out.place, "x_image": source.plane, "x_block": source.block,
        "y_image": out.plane, "y_block": out.block, "y_first": channel,
        "channels": source.channels, "pixels": pixels, "groups": -(-pixels // layout.PIXELS),
    }  # fmt: skip
    kernel = layout.ChannelCopyKernel(state.target.lanes)
    tasks = layout.channel_tasks(source.images, pixels)
    state.emit(kernel, tasks, layout.CHANNEL_WORDS, words, "concat")


@rule("adaptive_avgpool", "adaptive_maxpool")
def lower_adaptive(state: Lowering, index: int, node: Node) -> None:
    """Adaptive pooling; to the size it has already it is nothing."""
    if node.type.dtype != "f32" or node.type.rank != 4:
        adaptive_by_axis(state, index, node)
        return
    x = state.blocked(state.graph.operands(index)[0])
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
