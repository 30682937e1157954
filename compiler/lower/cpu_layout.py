"""Between layouts, along channels, and out of the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...runtime.kernels import channel_map, layout
from ..ir.graph import Node, Value
from .cpu import Lowering, rule
from .cpu_gather import take_flat
from .cpu_views import copy_view, slice_view
from .load import Packed
from .storage import Blocked, Flat, Mapped, Place, lanes_of


def to_blocked(state: Lowering, source: Flat) -> Blocked:
    """A row-major image as blocks."""
    if len(source.shape) != 4 or source.dtype != "f32":
        raise AssertionError(f"there is no image layout for {source.dtype}{list(source.shape)}")
    made = state.loose_blocked(source.shape)
    _convert(state, source.place, made, True)
    return made


def to_flat(state: Lowering, source: Blocked, port: int | None = None) -> Flat:
    """Blocks as a row-major image; into an output of the call when ``port`` is given."""
    shape = (source.images, source.channels, source.height, source.width)
    size = source.images * source.channels * source.height * source.width * 4
    place = Place(None, 0, port) if port is not None else state.room(size)
    _convert(state, place, source, False)
    return Flat(place, shape, "f32")


def _convert(state: Lowering, flat: Place | Packed, blocked: Blocked, to: bool) -> None:
    pixels = blocked.height * blocked.width
    words = {
        "flat": flat, "blocked": blocked.place, "flat_image": blocked.channels * pixels * 4,
        "blocked_image": blocked.plane, "blocked_block": blocked.block, "blocks": blocked.blocks,
        "channels": blocked.channels, "pixels": pixels, "groups": -(-pixels // layout.PIXELS),
    }  # fmt: skip
    kernel = layout.BlockKernel(to, state.target.lanes)
    tasks = layout.block_tasks(blocked.images, blocked.blocks, pixels)
    state.emit(kernel, tasks, layout.BLOCK_WORDS, words, "layout")


def gather_lanes(state: Lowering, source: Mapped) -> Blocked:
    """Channels from anywhere into blocks of their own."""
    shape = (source.images, source.channels, source.height, source.width)
    made = state.loose_blocked(shape)
    table, base = state.lane_table(source.lanes, "gather")
    pixels = source.images * source.height * source.width
    tasks, groups = channel_map.tasks(source.channels, pixels)
    words = {
        "x": base, "y": made.place, "y_block": made.block, "table": table, "pixels": pixels,
        "channels": source.channels, "groups": groups,
    }  # fmt: skip
    kernel = channel_map.ChannelGatherKernel(state.target.lanes)
    state.emit(kernel, tasks, channel_map.WORDS, words, "gather")
    return made


@rule("take")
def lower_take(state: Lowering, index: int, node: Node) -> None:
    """Slices at indices: chosen channels of an image are a map, no copy."""
    value, chosen = state.graph.operands(index)
    stored = state.stored.get(value)
    is_known = state.graph.node(chosen.node).op == "constant"
    if not is_known or node.attrs["axis"] != 1 or not isinstance(stored, (Blocked, Mapped)):
        take_flat(state, index, node)
        return
    lanes = lanes_of(stored)
    picked = tuple(lanes[int(i)] for i in state.graph.constant(chosen.node))
    state.stored[Value(index)] = Mapped(picked, stored.images, stored.height, stored.width)


@rule("split", "slice")
def lower_split(state: Lowering, index: int, node: Node) -> None:
    """Parts by strides; ranges of an image's channels are maps, or views of whole blocks."""
    value = state.graph.operands(index)[0]
    stored = state.stored.get(value)
    if not isinstance(stored, (Blocked, Mapped)) or not _on_channels(state, value, node):
        slice_view(state, index, node)
        return
    lanes = lanes_of(stored)
    start = 0 if node.op == "split" else int(node.attrs["starts"][1])  # type: ignore[index,arg-type]
    for place in range(len(node.types)):
        count = state.shape(Value(index, place))[1]
        picked = lanes[start : start + count]
        start += count
        made: Blocked | Mapped
        made = Mapped(picked, stored.images, stored.height, stored.width)
        if isinstance(stored, Blocked) and picked[0].lane == 0:
            made = replace(stored, place=picked[0].block, channels=count)
        state.stored[Value(index, place)] = made


def _on_channels(state: Lowering, value: Value, node: Node) -> bool:
    if node.op == "split":
        return node.attrs["axis"] == 1
    attrs: Any = node.attrs
    shape = state.shape(value)
    return all(step == 1 for step in attrs["steps"]) and all(
        place == 1 or (low == 0 and high == size)
        for place, (low, high, size) in enumerate(
            zip(attrs["starts"], attrs["stops"], shape, strict=True)
        )
    )


def deliver_outputs(state: Lowering) -> None:
    """Write every output that is not in the caller's array yet."""
    for place, (_, value) in enumerate(state.graph.outputs):
        port = len(state.graph.inputs) + place
        target = Flat(Place(None, 0, port), state.shape(value), state.type_of(value).dtype)
        stored = state.stored.get(value)
        if isinstance(stored, Flat) and stored.place == target.place and stored.contiguous:
            continue
        if isinstance(stored, (Blocked, Mapped)):
            to_flat(state, state.blocked(value), port)
        else:
            copy_view(state, state.view(value), target)
