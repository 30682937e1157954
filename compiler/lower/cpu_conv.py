"""Convolutions to rows: direct, pointwise, Winograd, depthwise; with prologue and epilogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

from ...runtime.abi import word_of
from ...runtime.kernels import conv as direct
from ...runtime.kernels import winograd
from ..ir.graph import Node, Value
from ..ops import OpError
from ..ops.fused import named_extras, plain_attrs
from .convolution import (
    BLOCK,
    ConvShape,
    Tile,
    WinogradChoice,
    choose_tile,
    choose_winograd,
    divide,
    flat_work,
    line_bytes,
    reshaped,
    row_work,
)
from .cpu import SCRATCH, SCRATCH_SLOT, Lowering, rule
from .filters import Filters, channel_vector, pad_groups
from .recipe import Recipe, with_epilogue, with_prologue
from .storage import LINE, Blocked, Flat, Mapped, lanes_of

CLAMPS = {"": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
"""Activations that are a clamp, done in the epilogue for nothing."""


@dataclass(frozen=True)
class ConvParts:
    """A convolution node taken apart.

    ``turned`` weights are those of a backward convolution. ``source`` and ``goal`` stand for the
    node's input and result where it is made of several steps. ``gaps`` are groups, and the outputs
    that each has room for, where that is more than it has.
    """

    shape: ConvShape
    weight: Value
    extras: dict[str, Value]
    low: float
    high: float
    prologue: str
    path: str
    turned: bool = False
    source: Blocked | None = None
    goal: Blocked | None = None
    gaps: tuple[int, int] | None = None

    def filters(self, state: Lowering, groups: int | None = None, known: str = "") -> Filters:
        """The weights, as they are or as text of the load phase that stands for them."""
        groups = self.shape.groups if groups is None else groups
        return Filters(state, self.weight, self.path, groups, self.turned, known)


def clamp_of(node: Node) -> tuple[float, float]:
    """Limits of a node's fused activation."""
    activation = str(node.attrs.get("activation", ""))
    if activation not in CLAMPS:
        raise OpError("E804", f"there is no CPU kernel for `{node.op}` with {activation} yet")
    return CLAMPS[activation]


@rule("conv", "fused_conv")
def lower_conv(state: Lowering, index: int, node: Node) -> None:
    """One convolution: an image kernel where there is one, else windows as a view."""
    reason = _has_kernel(state, index, node)
    if reason:
        without_kernel(state, index, node)
        return
    parts = _parts(state, index, node)
    shape = parts.shape
    each = shape.channels // shape.groups
    if each == 1 and shape.groups > 1:
        from .cpu_simple import lower_depthwise

        lower_depthwise(state, index, parts)
        return
    convolve(state, index, parts)


def convolve(state: Lowering, index: int, parts: ConvParts) -> None:
    """A convolution that is not depthwise, by the kernel that is estimated to be the fastest."""
    shape = parts.shape
    each = shape.channels // shape.groups
    choice = None if parts.prologue else choose_winograd(shape, state.target)
    if choice is not None:
        _winograd(state, index, parts, choice)
    elif _in_whole_blocks(shape):
        _direct(state, index, parts, shape, parts.filters(state))
    elif _by_channels(parts) and shape.features // shape.groups % BLOCK == 0:
        _mapped(state, index, parts, shape, _lanes(state, index, parts), parts.filters(state))
    elif BLOCK % each == 0 and shape.channels == shape.features and shape.channels % BLOCK == 0:
        _block_diagonal(state, index, parts)
    elif _may_pad_groups(state, index, parts):
        _padded_groups(state, index, parts)
    else:
        _dense(state, index, parts)


def _in_whole_blocks(shape: ConvShape) -> bool:
    each = shape.channels // shape.groups
    whole = each % BLOCK == 0 and shape.blocks_out * BLOCK * shape.groups == shape.features
    return shape.groups == 1 or whole


def _by_channels(parts: ConvParts) -> bool:
    """Whether channels can be read one by one, wherever they lie: no taps to move between."""
    shape = parts.shape
    return shape.pointwise and shape.stride == (1, 1) and not parts.prologue


def _lanes(state: Lowering, index: int, parts: ConvParts) -> Blocked | Mapped:
    """The input where it lies."""
    value = state.graph.operands(index)[0]
    stored = parts.source or state.stored.get(value)
    return stored if isinstance(stored, (Blocked, Mapped)) else state.blocked(value)


DENSE = 6
"""Groups up to which zeros between them cost less than a nest."""


def _has_kernel(state: Lowering, index: int, node: Node) -> str:
    """Why no image kernel fits, or nothing."""
    operands, attrs = state.graph.operands(index), node.attrs
    extras = named_extras(attrs, operands) if node.op == "fused_conv" else {}
    steady = [*operands[1:2], *(v for name, v in extras.items() if name != "residual")]
    steady += operands[2:] if node.op == "conv" else []
    if node.type.dtype != "f32" or node.type.rank != 4:
        return "image kernels take [N, C, H, W] of float32"
    if str(attrs.get("activation", "")) not in CLAMPS:
        return "the activation is no clamp"
    channels, features = state.shape(operands[0])[1], state.shape(Value(index))[1]
    groups: Any = attrs["groups"]
    each = channels // groups
    if each == 1 and groups > 1:
        return "a depthwise kernel has no prologue" if attrs.get("prologue") else ""
    whole = each % BLOCK == 0 and features // groups % BLOCK == 0
    if groups > 1 and not whole and any(v.node not in state.phases for v in steady):
        return "groups cut blocks of weights that are packed at every call"
    narrow = BLOCK % each == 0 and channels == features and channels % BLOCK == 0
    fits = groups == 1 or whole or narrow or groups <= DENSE
    fits = fits or _may_pad_groups(state, index, _parts(state, index, node))
    return "" if fits else "groups cut blocks"


def without_kernel(state: Lowering, index: int, node: Node) -> None:
    """The convolution alone, with what is fused to it before and after."""
    from .cpu_windows import conv_by_windows

    operands = list(state.graph.operands(index))
    fused = node.op == "fused_conv"
    extras = named_extras(node.attrs, operands) if fused else dict(
        zip(("bias",), operands[2:], strict=False)
    )  # fmt: skip
    if not extras and not fused:
        conv_by_windows(state, index, node)
        return
    r = Recipe(state, [*operands[:2], *extras.values()])
    named = dict(zip(extras, r.inputs[2:], strict=True))
    x = with_prologue(r, r.inputs[0], named, node)
    plain = plain_attrs(node.attrs) if fused else node.attrs
    bias = [named["bias"]] if "bias" in named else []
    if (bias and extras["bias"].node not in state.phases) or not fused:
        y = r("conv", x, r.inputs[1], attrs=plain)
        if bias:
            shape = (1, -1, *(1,) * (r.type_of(y).rank - 2))
            size = r.type_of(bias[0]).shape[0]
            shape = tuple(size if n == -1 else n for n in shape)
            y = r("add", y, r("reshape", bias[0], attrs={"shape": shape}))
    else:
        y = r("conv", x, r.inputs[1], *bias, attrs=plain)
    r.finish(index, with_epilogue(r, y, named, node))


def _parts(state: Lowering, index: int, node: Node) -> ConvParts:
    operands = list(state.graph.operands(index))
    attrs: Any = node.attrs
    extras = named_extras(attrs, operands) if node.op.startswith("fused") else (
        {"bias": operands[2]} if len(operands) > 2 else {}
    )  # fmt: skip
    n, c, *spatial = state.shape(operands[0])
    _, features, rows, columns = state.shape(Value(index))
    kernel = state.shape(operands[1])[2:]
    shape = ConvShape(
        n, c, spatial[0], spatial[1], features, cast(Any, kernel), attrs["stride"], attrs["pad"],
        attrs["dilation"], attrs["groups"], rows, columns,
    )  # fmt: skip
    low, high = clamp_of(node)
    prologue = str(attrs.get("prologue", ""))
    return ConvParts(shape, operands[1], cast(Any, extras), low, high, prologue, node.name)


def _common(state: Lowering, index: int, parts: ConvParts, wide: int) -> tuple[Any, Blocked]:
    out = parts.goal or state.new_blocked(Value(index))
    bias = channel_vector(state, parts.extras.get("bias"), f"{parts.path}.bias",
                          parts.shape.features, wide, parts.gaps)  # fmt: skip
    words: dict[str, Any] = {
        "bias": bias, "y": out.place, "low_bits": word_of(parts.low),
        "high_bits": word_of(parts.high), "y_image": out.plane, "y_block": out.block,
        "rows": parts.shape.rows, "columns": parts.shape.columns,
    }  # fmt: skip
    residual = parts.extras.get("residual")
    if residual is not None:
        other = state.blocked(residual)
        words["residual"] = other.place
        if (other.plane, other.block) != (out.plane, out.block):
            raise AssertionError("a residual has its result's strides")
    return words, out


# ---------------------------------------------------------------- Winograd


def _winograd(state: Lowering, index: int, parts: ConvParts, choice: WinogradChoice) -> None:
    shape = parts.shape
    x = parts.source or state.blocked(state.graph.operands(index)[0])
    blocks = choice.tile.blocks
    words, _ = _common(state, index, parts, BLOCK * blocks)
    panels = -(-shape.blocks_out // blocks)
    size = panels * winograd.POSITIONS * shape.channels * blocks * BLOCK * 4
    weight = parts.filters(state).transformed(blocks, size)
    down, across = -(-shape.rows // 4), -(-shape.columns // 4)
    tiles = shape.images * down * across
    words |= {
        "x": x.place, "w": weight, "x_image": x.plane, "x_block": x.block,
        "height": shape.height, "width": shape.width, "pad_top": shape.pad[0][0],
        "pad_left": shape.pad[1][0], "tiles_down": down, "tiles_across": across, "tiles": tiles,
        "band_tiles": choice.band, "panels": panels, "panel_groups": choice.groups,
        "panels_per_task": -(-panels // choice.groups), "blocks_in": shape.blocks_in,
        "blocks_out": shape.blocks_out, "tail": _tail(shape.channels), "scratch": SCRATCH,
        "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    kernel = winograd.WinogradKernel(choice.tile.pixels, blocks, state.target.lanes)
    scratch = winograd.scratch_bytes(choice.band, shape.blocks_in, blocks)
    tasks = -(-tiles // choice.band) * choice.groups
    state.emit(kernel, tasks, winograd.WORDS, words, parts.path, scratch)


def _tail(channels: int) -> int:
    """Channels of the last block."""
    return (channels - 1) % BLOCK + 1


# ---------------------------------------------------------------- direct


def _block_diagonal(state: Lowering, index: int, parts: ConvParts) -> None:
    """Groups narrower than a block: blocks of several groups, with zeros between them."""
    shape = parts.shape
    each = shape.channels // shape.groups
    groups = shape.groups * each // BLOCK
    text = f"pack.block_diagonal({state.load.text(parts.weight)}, {shape.groups})[0]"
    wide = ConvShape(**{**vars(shape), "groups": groups})
    _direct(state, index, parts, wide, parts.filters(state, groups, text))


def _may_pad_groups(state: Lowering, index: int, parts: ConvParts) -> bool:
    """Whether the outputs of each group may get blocks of their own."""
    shape = parts.shape
    readable = shape.channels // shape.groups % BLOCK == 0 or _by_channels(parts)
    return readable and stands_alone(state, index, parts)


def stands_alone(state: Lowering, index: int, parts: ConvParts) -> bool:
    """Whether the result may lie anywhere, its weights known before the call and nothing added."""
    placed = parts.goal is not None or Value(index) in state.parents
    steady = [parts.weight, *parts.extras.values()]
    return not placed and all(value.node in state.phases for value in steady)


def _padded_groups(state: Lowering, index: int, parts: ConvParts) -> None:
    """Groups that cut blocks of outputs: each gets blocks of its own, and the rest is a map."""
    shape = parts.shape
    each = shape.features // shape.groups
    room = -(-each // BLOCK) * BLOCK
    wide = replace(shape, features=room * shape.groups)
    goal = state.loose_blocked((shape.images, wide.features, shape.rows, shape.columns))
    text = pad_groups(state.load.text(parts.weight), shape.groups, room)
    padded = replace(parts, shape=wide, goal=goal, gaps=(shape.groups, room))
    weight = padded.filters(state, known=text)
    if shape.channels // shape.groups % BLOCK == 0:
        _direct(state, index, padded, wide, weight)
    else:
        _mapped(state, index, padded, wide, _lanes(state, index, parts), weight)
    state.stored[Value(index)] = Mapped.gapped(goal, shape.groups, each)


def _dense(state: Lowering, index: int, parts: ConvParts) -> None:
    """A few groups that cut blocks: one group, with zeros between them."""
    text = f"pack.dense({state.load.text(parts.weight)}, {parts.shape.groups})"
    wide = replace(parts, shape=replace(parts.shape, groups=1))
    _direct(state, index, wide, wide.shape, parts.filters(state, 1, text))


def _reads_planes(parts: ConvParts, stored: Any) -> bool:
    """Whether the input is read as the caller gave it: few channels, not in blocks yet."""
    plain = not parts.prologue and parts.shape.dilation == (1, 1)
    few = parts.shape.channels < BLOCK
    return few and plain and not isinstance(stored, (Blocked, Mapped))


def _direct(
    state: Lowering, index: int, parts: ConvParts, shape: ConvShape, weight: Filters
) -> None:
    value = state.graph.operands(index)[0]
    stored = parts.source or state.stored.get(value)
    if _reads_planes(parts, stored):
        _planar(state, index, parts, state.flat(value), weight)
        return
    flat = _by_channels(parts)
    if isinstance(stored, Mapped) and flat:
        _mapped(state, index, parts, shape, stored, weight)
        return
    _from_blocks(state, index, parts, shape, weight, flat)


def _from_blocks(
    state: Lowering, index: int, parts: ConvParts, shape: ConvShape, weight: Filters, flat: bool
) -> None:
    """By runs of pixels (``flat``), or by rows, staged where taps or a prologue ask for it."""
    x = parts.source or state.blocked(state.graph.operands(index)[0])
    pixels = shape.images * shape.height * shape.width
    shape = shape if flat else reshaped(shape, state.target)
    across = pixels if flat else shape.columns
    tile = choose_tile(across, shape.blocks_out, state.target, shape.groups)
    words, _ = _common(state, index, parts, BLOCK * tile.blocks)
    staged = not shape.pointwise or bool(parts.prologue)
    line = line_bytes(shape, staged)
    plan = (
        _flat_tasks(state, shape, tile, pixels) if flat
        else _row_tasks(state, shape, tile, staged, line * shape.blocks_in * shape.groups)
    )  # fmt: skip
    words |= plan
    each = -(-shape.blocks_out // tile.blocks)
    block = plan["stage_rows"] * line if staged else x.block
    taps = shape.kernel[0] * shape.kernel[1]
    table = state.load.pack(
        "table", f"pack.tap_table({shape.blocks_in}, {block}, {line}, {LINE}, {shape.kernel}, "
        f"{shape.dilation})", shape.blocks_in * taps * 8,
    )  # fmt: skip
    each_in = shape.channels // shape.groups
    panel = each_in * taps * tile.blocks * BLOCK * 4
    panels = each * shape.groups
    packed = weight.panels(tile.blocks, panels * panel)
    words |= {
        "x": x.place, "w": packed, "table": table, "chunks": shape.blocks_in * taps,
        "length": BLOCK, "full_chunks": (shape.blocks_in - 1) * taps, "tail": _tail(each_in),
        "x_image": x.plane, "x_block": x.block, "panels": panels,
        "blocks_out": -(-shape.features // BLOCK), "panel_bytes": panel, "group_panels": each,
        "group_bytes": shape.blocks_in * block, "blocks_in": x.blocks,
        "height": shape.height, "width": shape.width, "pad_top": shape.pad[0][0],
        "pad_left": shape.pad[1][0], "stage_width": line // LINE, "stride_y": shape.stride[0],
        "row_step": line * shape.stride[0], "pixels": pixels,
        "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    words |= _prologue(state, parts)
    stage = ("prologue" if parts.prologue else "blocked") if staged else "none"
    step = LINE * shape.stride[1]
    scratch = x.blocks * block if staged else 0
    split = {} if flat else _parts_of_depth(state, panel, scratch, tile)
    words |= split
    kernel = direct.ConvKernel(
        tile.pixels, tile.blocks, step, stage, flat, state.target.lanes, bool(split)
    )
    tasks = words["bands"] * words["panel_groups"] * (1 if flat else shape.images)
    if split:
        scratch += _sums_bytes(plan, tile, shape)
    state.emit(kernel, tasks, direct.WORDS, words, parts.path, scratch)


PART = 32 << 10
"""Bytes of weights that a deep kernel reads again for each tile before it goes on."""


def _parts_of_depth(state: Lowering, panel: int, scratch: int, tile: Tile) -> dict[str, Any]:
    """Words of a deep kernel, where a panel and the next would not stay in cache together."""
    if 2 * panel < state.target.l2 // 2:
        return {}
    return {"part_chunks": max(1, PART // (tile.blocks * BLOCK * LINE)), "sums_at": scratch}


def _sums_bytes(plan: dict[str, Any], tile: Tile, shape: ConvShape) -> int:
    tiles = plan["band_rows"] * -(-shape.columns // tile.pixels)
    return tiles * tile.pixels * tile.blocks * LINE


def _mapped(
    state: Lowering, index: int, parts: ConvParts, shape: ConvShape, x: Blocked | Mapped,
    weight: Filters,
) -> None:  # fmt: skip
    """A pointwise convolution that reads its channels where they lie: one chunk a channel."""
    pixels = shape.images * shape.height * shape.width
    tile = choose_tile(pixels, shape.blocks_out, state.target, shape.groups)
    words, _ = _common(state, index, parts, BLOCK * tile.blocks)
    plan = _flat_tasks(state, shape, tile, pixels)
    each, channels = -(-shape.blocks_out // tile.blocks), shape.channels // shape.groups
    panel = channels * tile.blocks * BLOCK * 4
    packed = weight.panels(tile.blocks, each * shape.groups * panel)
    table, base = state.lane_table(lanes_of(x), parts.path)
    words |= plan
    words |= {
        "x": base, "w": packed, "table": table, "chunks": channels, "length": 1,
        "full_chunks": channels, "panels": each * shape.groups,
        "blocks_out": -(-shape.features // BLOCK), "panel_bytes": panel, "group_panels": each,
        "group_bytes": channels * 8, "pixels": pixels,
    }  # fmt: skip
    kernel = direct.ConvKernel(
        tile.pixels, tile.blocks, LINE, "none", True, state.target.lanes, mapped=True
    )
    tasks = words["bands"] * words["panel_groups"]
    state.emit(kernel, tasks, direct.WORDS, words, parts.path)


def _prologue(state: Lowering, parts: ConvParts) -> dict[str, Any]:
    if not parts.prologue:
        return {}
    found: dict[str, Any] = {}
    for name in ("scale", "shift"):
        found[name] = channel_vector(state, parts.extras[name], f"{parts.path}.{name}",
                                    parts.shape.channels, BLOCK)  # fmt: skip
    limit = 0.0 if parts.prologue == "affine_relu" else -math.inf
    return {**found, "prologue_low": word_of(limit)}


def _flat_tasks(state: Lowering, shape: ConvShape, tile: Tile, pixels: int) -> dict[str, Any]:
    """Runs of pixels, a run a row of tiles."""
    work = flat_work(shape, tile, state.target)
    plan = divide(work, state.target)
    columns = min(pixels, plan.band_rows * tile.pixels)
    bands = -(-pixels // columns)
    return {
        "bands": bands, "band_rows": 1, "rows": bands, "columns": columns,
        "panel_groups": plan.groups, "panels_per_task": -(-work.panels // plan.groups),
        "stage_rows": 0,
    }  # fmt: skip


def _row_tasks(
    state: Lowering, shape: ConvShape, tile: Tile, staged: bool, line: int
) -> dict[str, Any]:
    """Bands of output rows; ``line`` is the bytes of a row of (staged) input, all channels."""
    work = row_work(shape, tile, state.target, staged, line)
    plan = divide(work, state.target)
    reach = (shape.kernel[0] - 1) * shape.dilation[0] + 1
    stage_rows = (plan.band_rows - 1) * shape.stride[0] + reach if staged else 0
    return {
        "rows": shape.rows, "columns": shape.columns,
        "bands": plan.bands, "band_rows": plan.band_rows, "panel_groups": plan.groups,
        "panels_per_task": -(-work.panels // plan.groups), "stage_rows": stage_rows,
    }  # fmt: skip


def _planar(state: Lowering, index: int, parts: ConvParts, x: Flat, weight: Filters) -> None:
    """The first layer: few channels, read from the caller's NCHW array."""
    shape = parts.shape
    tile = choose_tile(shape.columns, shape.blocks_out, state.target)
    words, _ = _common(state, index, parts, BLOCK * tile.blocks)
    pixel = shape.channels * 4
    reach = (shape.columns - 1) * shape.stride[1] + shape.kernel[1]
    line = reach * pixel
    plan = _row_tasks(state, shape, tile, True, line)
    panels = -(-shape.blocks_out // tile.blocks)
    length = shape.kernel[1] * shape.channels
    panel = shape.kernel[0] * length * tile.blocks * BLOCK * 4
    table = state.load.pack(
        "table", f"pack.tap_table(1, 0, {line}, {pixel}, ({shape.kernel[0]}, 1))",
        shape.kernel[0] * 8,
    )  # fmt: skip
    packed = weight.planar(tile.blocks, panels * panel)
    words |= plan
    words |= {
        "x": x.place, "w": packed, "table": table, "chunks": shape.kernel[0], "length": length,
        "full_chunks": shape.kernel[0],
        "x_image": shape.channels * shape.height * shape.width * 4, "panels": panels,
        "blocks_out": shape.blocks_out, "panel_bytes": panel, "group_panels": panels,
        "blocks_in": shape.channels, "height": shape.height, "width": shape.width,
        "pad_top": shape.pad[0][0], "pad_left": shape.pad[1][0], "stage_width": reach,
        "stride_y": shape.stride[0], "row_step": line * shape.stride[0],
        "scratch": SCRATCH, "scratch_slot": SCRATCH_SLOT,
    }  # fmt: skip
    step = pixel * shape.stride[1]
    kernel = direct.ConvKernel(tile.pixels, tile.blocks, step, "planar", False, state.target.lanes)
    tasks = words["bands"] * words["panel_groups"] * shape.images
    state.emit(kernel, tasks, direct.WORDS, words, parts.path, plan["stage_rows"] * line)
