"""How each op meets a value whose channels lie in another order than the graph means.

An *order* says where channels lie: logical channel ``i`` is physical channel ``order[i]`` of axis
1. A rule gives, for a node that reads such values, its results on physical values and their orders,
or ``None`` when the channels must be put right first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np

from ..ir.graph import Value
from ..ops.base import OPS
from ..rewrite import Rewriter

Order = tuple[int, ...]
Placed = tuple[Value, Order]
"""A physical value and its order."""


class Context(Protocol):
    """What a rule may ask for."""

    rewriter: Rewriter

    def placed(self, value: Value) -> Placed:
        """The physical value behind a logical one, and its order."""
        ...

    def is_moved(self, value: Value) -> bool:
        """Whether a value's channels lie in another order."""
        ...

    def in_order(self, value: Value, order: Order, reader: int) -> Value | None:
        """The value with its channels in ``order``, or ``None`` when that costs a copy."""
        ...


Rule = Callable[[Context, int], "list[Placed] | None"]


def rule_for(rewriter: Rewriter, index: int) -> Rule | None:
    """The rule of a node's op."""
    name = rewriter.node(index).op
    if name in RULES:
        return RULES[name]
    row = OPS.get(name)
    return _elementwise if row is not None and row.batching == "elementwise" else None


def identity(size: int) -> Order:
    """The order in which every channel lies at its place."""
    return tuple(range(size))


def inverse(order: Sequence[int]) -> Order:
    """For each physical channel the logical one."""
    places = [0] * len(order)
    for logical, physical in enumerate(order):
        places[physical] = logical
    return tuple(places)


def compose(outer: Sequence[int], inner: Sequence[int]) -> Order:
    """``outer[inner[i]]``."""
    return tuple(outer[i] for i in inner)


def take(rewriter: Rewriter, value: Value, index: Sequence[int], axis: int, name: str) -> Value:
    """The value at constant indices along an axis; the value itself when that changes nothing."""
    if tuple(index) == identity(len(index)) and len(index) == rewriter.type_of(value).shape[axis]:
        return value
    table = rewriter.constant(np.array(index, np.int32), "i32", name)
    made = rewriter.emit("take", (value, table), {"axis": axis})
    rewriter.rename(made.node, name)
    return made


def select(rewriter: Rewriter, value: Value, channels: Sequence[int]) -> Value:
    """Channels in rising order: a slice where they lie side by side, else a channel map."""
    kind = rewriter.type_of(value)
    first, last = channels[0], channels[-1] + 1
    if last - first != len(channels):
        return take(rewriter, value, channels, 1, "channel_map")
    if len(channels) == kind.shape[1]:
        return value
    starts = (0, first, *(0,) * (kind.rank - 2))
    stops = (kind.shape[0], last, *kind.shape[2:])
    return rewriter.emit(
        "slice", (value,), {"starts": starts, "stops": stops, "steps": (1,) * kind.rank}
    )


# ---------------------------------------------------------------- channel by channel


def pass_through(ctx: Context, index: int) -> list[Placed] | None:
    """An op that treats every channel alike: the order passes."""
    rw, (x, *rest) = ctx.rewriter, ctx.rewriter.operands(index)
    if any(ctx.is_moved(value) for value in rest):
        return None
    value, order = ctx.placed(x)
    node = rw.node(index)
    made = rw.emit(node.op, (value, *rest), node.attrs, like=index)
    return [(Value(made.node, place), order) for place in range(len(node.types))]


def pass_with_vectors(ctx: Context, index: int) -> list[Placed] | None:
    """An op with a number a channel: its vectors are put in the physical order."""
    rw, (x, *vectors) = ctx.rewriter, ctx.rewriter.operands(index)
    if any(ctx.is_moved(value) for value in vectors):
        return None
    value, order = ctx.placed(x)
    back = inverse(order)
    moved = [take(rw, vector, back, 0, "") for vector in vectors]
    node = rw.node(index)
    return [(rw.emit(node.op, (value, *moved), node.attrs, like=index), order)]


def _elementwise(ctx: Context, index: int) -> list[Placed] | None:
    """Operands of one order pass it on; small ones are brought into it."""
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    operands, rank = rw.operands(index), node.type.rank
    moved = [value for value in operands if ctx.is_moved(value)]
    if any(rw.type_of(value).rank != rank for value in moved):
        return None
    # The operand with the fewest axes of size 1 is the largest: the others are brought to it.
    largest = min(moved, key=lambda value: rw.type_of(value).shape.count(1))
    order = ctx.placed(largest)[1]
    if node.type.shape[1] != len(order):
        return None
    ready = []
    for value in operands:
        axis = 1 - (rank - rw.type_of(value).rank)
        if axis < 0 or rw.type_of(value).shape[axis] == 1:
            ready.append(value)
            continue
        found = ctx.in_order(value, order, index) if axis == 1 else _turned(rw, value, order, axis)
        if found is None:
            return None
        ready.append(found)
    return [(rw.emit(node.op, ready, node.attrs, like=index), order)]


def _turned(rewriter: Rewriter, value: Value, order: Order, axis: int) -> Value | None:
    return take(rewriter, value, inverse(order), axis, "") if rewriter.steady(value) else None


def _reduce(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    axes: tuple[int, ...] = node.attrs["axes"]  # type: ignore[assignment]
    value, _ = ctx.placed(rw.operands(index)[0])
    if 1 in axes:
        # A sum over channels does not ask for their order.
        return [(rw.emit(node.op, (value,), node.attrs, like=index), ())]
    if 0 in axes and not node.attrs.get("keepdims"):
        return None
    return pass_through(ctx, index)


def _if_channels_stay(test: Callable[[Rewriter, int], bool]) -> Rule:
    """The order passes where the op leaves axis 1 alone."""
    return lambda ctx, index: pass_through(ctx, index) if test(ctx.rewriter, index) else None


def _reshape(ctx: Context, index: int) -> list[Placed] | None:
    """Same channels, or each channel's values laid out behind one another."""
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    value, order = ctx.placed(rw.operands(index)[0])
    before, after = rw.type_of(value).shape, node.type.shape
    if after[:2] == before[:2]:
        return pass_through(ctx, index)
    inner = rw.type_of(value).with_shape(before[2:]).elements
    if after != (before[0], len(order) * inner) or not isinstance(inner, int):
        return None
    made = rw.emit("reshape", (value,), node.attrs, like=index)
    return [(made, tuple(c * inner + place for c in order for place in range(inner)))]


# ---------------------------------------------------------------- weights


def _conv(ctx: Context, index: int) -> list[Placed] | None:
    """A dense convolution takes the order into its weights; a grouped one if groups stay whole."""
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    x, *weights = rw.operands(index)
    if any(ctx.is_moved(value) for value in weights):
        return None
    value, order = ctx.placed(x)
    groups = node.attrs["groups"]
    outputs = rw.type_of(weights[0]).shape[0]
    if not isinstance(groups, int) or not isinstance(outputs, int):
        return None
    width = len(order) // groups
    homes = [_block(order[g * width : (g + 1) * width], width) for g in range(groups)]
    if any(home is None for home in homes):
        return None
    height = outputs // groups
    result = tuple(h * height + row for h in homes if h is not None for row in range(height))
    rows = inverse(result)
    weight = _regrouped(rw, weights[0], rows, inverse(order), width, height)
    bias = [take(rw, vector, rows, 0, "") for vector in weights[1:]]
    return [(rw.emit("conv", (value, weight, *bias), node.attrs, like=index), result)]


def _block(channels: Order, width: int) -> int | None:
    """The group that the channels fill, if they do."""
    first = min(channels)
    whole = first % width == 0 and max(channels) == first + width - 1
    return first // width if whole else None


def _regrouped(
    rw: Rewriter, weight: Value, rows: Order, back: Order, width: int, height: int
) -> Value:
    """Weights ``[O, width, kernel...]`` for physical channels: rows and inputs both moved."""
    if width == 1:
        return take(rw, weight, rows, 0, "")
    if width == len(back):
        return take(rw, weight, back, 1, "")
    kind = rw.type_of(weight)
    # Each group has an order of its own inside, so rows and inputs are taken as one axis.
    inside = [[back[(row // height) * width + j] % width for j in range(width)]
              for row in range(len(rows))]  # fmt: skip
    flat = [rows[row] * width + j for row in range(len(rows)) for j in inside[row]]
    lines = rw.emit("reshape", (weight,), {"shape": (len(flat), *kind.shape[2:])})
    return rw.emit("reshape", (take(rw, lines, flat, 0, ""),), {"shape": kind.shape})


def _conv_transpose(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    x, weight, *bias = rw.operands(index)
    if node.attrs["groups"] != 1 or any(ctx.is_moved(v) for v in (weight, *bias)):
        return None
    value, order = ctx.placed(x)
    moved = take(rw, weight, inverse(order), 0, "")
    return [(rw.emit(node.op, (value, moved, *bias), node.attrs, like=index), ())]


def _linear(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    x, weight, *bias = rw.operands(index)
    if rw.type_of(x).rank > 2:
        return pass_through(ctx, index)
    if any(ctx.is_moved(v) for v in (weight, *bias)):
        return None
    value, order = ctx.placed(x)
    moved = take(rw, weight, inverse(order), 1, "")
    return [(rw.emit("linear", (value, moved, *bias), node.attrs, like=index), ())]


# ---------------------------------------------------------------- shuffles, parts and joins


def _shuffle(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    value, order = ctx.placed(rw.operands(index)[0])
    if node.attrs["axis"] != 1:
        return pass_through(ctx, index)
    return [(value, compose(order, shuffle_order(len(order), int(node.attrs["groups"]))))]  # type: ignore[arg-type]


def shuffle_order(size: int, groups: int) -> Order:
    """Which channel each channel of a shuffle is."""
    return tuple(np.arange(size).reshape(groups, size // groups).T.reshape(-1).tolist())


def _take(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    x, table = rw.operands(index)
    chosen = rw.vector(table)
    if ctx.is_moved(table) or node.attrs["axis"] != 1 or chosen is None or chosen.ndim != 1:
        return None
    value, order = ctx.placed(x)
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(order)):
        return None
    channels = compose(order, chosen.tolist())
    if len(set(channels)) != len(channels):
        return None
    return [_chosen(rw, value, channels)]


def _chosen(rewriter: Rewriter, value: Value, channels: Sequence[int]) -> Placed:
    """Some channels of a value: picked in rising order, the rest of the order stays virtual."""
    rising = sorted(channels)
    place = {channel: i for i, channel in enumerate(rising)}
    return select(rewriter, value, rising), tuple(place[channel] for channel in channels)


def _concat(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    operands = rw.operands(index)
    sizes = [rw.type_of(value).shape[1] for value in operands]
    if not all(isinstance(size, int) for size in sizes):
        return None
    placed = [ctx.placed(value) for value in operands]
    values, orders = [p[0] for p in placed], [p[1] for p in placed]
    if node.attrs["axis"] != 1:
        if len(set(orders)) != 1:
            return None
        return [(rw.emit("concat", values, node.attrs, like=index), orders[0])]
    starts = _starts(len(order) for order in orders)
    joined = tuple(s + c for s, order in zip(starts, orders, strict=True) for c in order)
    return [(rw.emit("concat", values, node.attrs, like=index), joined)]


def _split(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    if node.attrs["axis"] != 1:
        return pass_through(ctx, index)
    value, order = ctx.placed(rw.operands(index)[0])
    sizes = [kind.shape[1] for kind in node.types]
    if not all(isinstance(size, int) for size in sizes):
        return None
    starts = _starts(int(str(size)) for size in sizes)
    ends = [*starts[1:], len(order)]
    parts = [order[a:b] for a, b in zip(starts, ends, strict=True)]
    if all(sorted(p) == list(range(a, b)) for p, a, b in zip(parts, starts, ends, strict=True)):
        made = rw.emit("split", (value,), node.attrs, like=index)
        return [
            (Value(made.node, i), tuple(c - start for c in part))
            for i, (part, start) in enumerate(zip(parts, starts, strict=True))
        ]
    return [_chosen(rw, value, part) for part in parts]


def _slice(ctx: Context, index: int) -> list[Placed] | None:
    rw, node = ctx.rewriter, ctx.rewriter.node(index)
    value, order = ctx.placed(rw.operands(index)[0])
    ranges = {name: node.attrs[name] for name in ("starts", "stops", "steps")}
    start, stop, step = (r[1] for r in ranges.values())  # type: ignore[index]
    if not all(isinstance(n, int) for n in (start, stop, step)):
        return None
    chosen, rest = _chosen(rw, value, order[start:stop:step])  # type: ignore[misc]
    whole = {"starts": 0, "stops": len(rest), "steps": 1}
    attrs = {
        name: (r[0], whole[name], *r[2:])  # type: ignore[index,misc]
        for name, r in ranges.items()
    }
    return [(rw.emit("slice", (chosen,), attrs, like=index), rest)]


def _starts(sizes: Iterable[int]) -> list[int]:
    return list(accumulate(sizes, initial=0))[:-1]


# ---------------------------------------------------------------- the table


def _pad_leaves_channels(rw: Rewriter, index: int) -> bool:
    attrs = rw.node(index).attrs
    return attrs["before"][1] == 0 and attrs["after"][1] == 0  # type: ignore[index]


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("maxpool", "maxpool_with_indices", "avgpool", "adaptive_avgpool"),
            *("adaptive_maxpool", "resize", "dropout", "drop_path"),
            *("softmax", "log_softmax", "l2norm"),
        ),
        pass_through,
    ),
    **dict.fromkeys(("batch_norm", "affine", "prelu", "instance_norm"), pass_with_vectors),
    "flip": _if_channels_stay(lambda rw, i: 1 not in rw.node(i).attrs["axes"]),  # type: ignore[operator]
    "pad": _if_channels_stay(_pad_leaves_channels),
    "transpose": _if_channels_stay(lambda rw, i: rw.node(i).attrs["perm"][1] == 1),  # type: ignore[index]
    "reduce": _reduce,
    "reshape": _reshape,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "channel_shuffle": _shuffle,
    "take": _take,
    "concat": _concat,
    "split": _split,
    "slice": _slice,
}
