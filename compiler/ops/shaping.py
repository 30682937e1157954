"""The layers of movement: what users write to reshape, join, split, pad and make tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.dims import Dim, DimLike, compare, product
from ..ir.graph import Value
from ..ir.types import shape_text
from .base import OPS, REQUIRED, Builder, Layer, OpError, Setting, define_layer, layer_of
from .movement import PAD_MODES, equal_parts
from .rules import axes_in, axis_in

MOST_PARTS = 10_000


def _transpose(builder: Builder, tensors: Sequence[Value], perm: Any) -> Any:
    kind = builder.type_of(tensors[0])
    if perm is None:
        if kind.rank < 2:
            raise OpError("E101", f"transpose: needs rank 2 or more, found {kind}")
        perm = (*range(kind.rank - 2), kind.rank - 1, kind.rank - 2)
    given = (perm,) if isinstance(perm, int) else tuple(perm)
    order = tuple(axis_in("transpose", axis, kind.rank) for axis in given)
    return builder.emit("transpose", tensors, {"perm": order})


def _reshape(builder: Builder, tensors: Sequence[Value], shape: Sequence[DimLike]) -> Any:
    kind = builder.type_of(tensors[0])
    sizes = list(shape)
    open_places = [place for place, size in enumerate(sizes) if size == -1]
    if len(open_places) > 1:
        raise OpError("E408", f"reshape: only one size may be -1, found {shape_text(sizes)}")
    for place in open_places:
        others = product(size for size in sizes if size != -1)
        sizes[place] = _whole_quotient(kind.elements, others, str(kind), shape_text(sizes))
    return builder.emit("reshape", tensors, {"shape": tuple(sizes)})


def _whole_quotient(total: DimLike, others: DimLike, found: str, wanted: str) -> DimLike:
    if isinstance(total, Dim) and isinstance(others, Dim):
        (left, *more), (right, *others_more) = total.terms, others.terms
        if not more and not others_more and left[0] == right[0]:
            total, others = left[1], right[1]  # the same symbols on both sides cancel
    rest = total % others
    if isinstance(rest, int) and rest:
        raise OpError("E108", f"reshape: {found} does not divide to fill {wanted}")
    return total // others


def _flatten(builder: Builder, tensors: Sequence[Value], start: int) -> Any:
    kind = builder.type_of(tensors[0])
    start = axis_in("flatten", start, kind.rank)
    shape = (*kind.shape[:start], product(kind.shape[start:]))
    return builder.emit("reshape", tensors, {"shape": shape})


def _squeeze(builder: Builder, tensors: Sequence[Value], axis: Any) -> Any:
    kind = builder.type_of(tensors[0])
    axes = axes_in("squeeze", axis, kind.rank)
    for place in axes:
        if compare(kind.shape[place], 1) is not True:
            raise OpError("E103", f"squeeze: axis {place} of {kind} is not of size 1")
    shape = tuple(size for place, size in enumerate(kind.shape) if place not in axes)
    return builder.emit("reshape", tensors, {"shape": shape})


def _unsqueeze(builder: Builder, tensors: Sequence[Value], axis: int) -> Any:
    kind = builder.type_of(tensors[0])
    axis = axis_in("unsqueeze", axis, kind.rank + 1)
    shape = (*kind.shape[:axis], 1, *kind.shape[axis:])
    return builder.emit("reshape", tensors, {"shape": shape})


def _concat(builder: Builder, tensors: Sequence[Value], axis: int) -> Any:
    axis = axis_in("concat", axis, builder.type_of(tensors[0]).rank)
    return builder.emit("concat", tensors, {"axis": axis})


def _stack(builder: Builder, tensors: Sequence[Value], axis: int) -> Any:
    axis = axis_in("stack", axis, builder.type_of(tensors[0]).rank + 1)
    # A tensor of another rank is left for concat to refuse.
    raised = [
        _unsqueeze(builder, [tensor], min(axis, builder.type_of(tensor).rank)) for tensor in tensors
    ]
    return builder.emit("concat", raised, {"axis": axis})


def _split(builder: Builder, tensors: Sequence[Value], parts: int, axis: int) -> Any:
    kind = builder.type_of(tensors[0])
    axis = axis_in("split", axis, kind.rank)
    if parts < 1:
        raise OpError("E408", f"split: needs one part or more, found {parts}")
    if parts > MOST_PARTS:
        raise OpError(
            "E702",
            f"split: {parts} parts are too many; {MOST_PARTS} is the most",
            "walk the axis with an index: `y[i] = x[i] ...`",
        )
    sizes = equal_parts("split", kind.shape[axis], parts)
    return builder.emit("split", tensors, {"axis": axis, "sizes": sizes})


def _pad(
    builder: Builder,
    tensors: Sequence[Value],
    before: Any,
    after: Any,
    axis: Any,
    mode: str,
    value: float,
) -> Any:
    kind = builder.type_of(tensors[0])
    given = tuple(range(2, kind.rank)) if axis is None else axis
    axes = (given,) if isinstance(given, int) else tuple(given)
    sides = []
    for amount in (before, before if after is None else after):
        amounts = tuple(amount) if isinstance(amount, tuple | list) else (amount,) * len(axes)
        if len(amounts) != len(axes):
            raise OpError("E408", f"pad: {len(amounts)} amounts for {len(axes)} axes of {kind}")
        by_axis = dict(zip((axis_in("pad", a, kind.rank) for a in axes), amounts, strict=True))
        sides.append(tuple(by_axis.get(place, 0) for place in range(kind.rank)))
    attrs = {"before": sides[0], "after": sides[1], "value": value, "mode": mode}
    return builder.emit("pad", tensors, attrs)


def _flip(builder: Builder, tensors: Sequence[Value], axis: Any) -> Any:
    axes = axes_in("flip", axis, builder.type_of(tensors[0]).rank)
    return builder.emit("flip", tensors, {"axes": axes})


def _shuffle(builder: Builder, tensors: Sequence[Value], groups: int, axis: int) -> Any:
    axis = axis_in("shuffle", axis, builder.type_of(tensors[0]).rank)
    return builder.emit("channel_shuffle", tensors, {"groups": groups, "axis": axis})


def _eye(builder: Builder, tensors: Sequence[Value], size: DimLike, dtype: str) -> Any:
    return builder.emit("eye", [], {"size": size, "dtype": dtype})


def _zeros(builder: Builder, tensors: Sequence[Value], shape: Any, dtype: str) -> Any:
    return builder.emit("fill", [], {"shape": tuple(shape), "value": 0, "dtype": dtype})


def _ones(builder: Builder, tensors: Sequence[Value], shape: Any, dtype: str) -> Any:
    return builder.emit("fill", [], {"shape": tuple(shape), "value": 1, "dtype": dtype})


def _gauss(builder: Builder, tensors: Sequence[Value], width: float) -> Any:
    kind = builder.type_of(tensors[0])
    if kind.rank < 1:
        raise OpError("E101", f"gauss: needs a vector of differences, found {kind}")
    if width <= 0:
        raise OpError("E408", f"gauss: the width must be positive, found {width}")
    square = builder.emit("square", tensors)
    attrs = {"kind": "sum", "axes": (kind.rank - 1,), "keepdims": False}
    distance = builder.emit("reduce", [square], attrs)
    value = -0.5 / (width * width)
    factor = builder.emit("fill", [], {"shape": (), "value": value, "dtype": kind.dtype})
    return builder.emit("exp", [builder.emit("mul", [distance, factor])])


def _axis(default: Any = REQUIRED) -> Setting:
    return Setting("axis", "int", default)


_F32 = Setting("dtype", "dtype", "f32")
_SHAPE = Setting("shape", "shape")
for _layer in (
    Layer(
        "transpose",
        (Setting("perm", "ints", None),),
        (1, 1),
        _transpose,
        "Axes in another order; the last two swapped by default.",
    ),
    Layer(
        "reshape",
        (_SHAPE,),
        (1, 1),
        _reshape,
        "The same elements under another shape; one size may be -1 and is then computed.",
    ),
    Layer(
        "flatten",
        (Setting("start", "int", 1),),
        (1, 1),
        _flatten,
        "All axes from start on merged into one.",
    ),
    Layer(
        "squeeze",
        (Setting("axis", "ints"),),
        (1, 1),
        _squeeze,
        "Axes of size 1 taken away.",
        batching="axis",
    ),
    Layer("unsqueeze", (_axis(),), (1, 1), _unsqueeze, "A new axis of size 1.", batching="axis"),
    Layer("concat", (_axis(1),), (1, None), _concat, OPS["concat"].doc, batching="axis"),
    Layer(
        "stack",
        (_axis(0),),
        (1, None),
        _stack,
        "Tensors of one shape joined along a new axis.",
        batching="axis",
    ),
    Layer(
        "split",
        (Setting("parts", "int"), _axis(1)),
        (1, 1),
        _split,
        "Equal parts along an axis.",
        batching="axis",
    ),
    Layer(
        "pad",
        (
            Setting("before", "ints"),
            Setting("after", "ints", None),
            Setting("axis", "ints", None),
            Setting("mode", "choice", "constant", PAD_MODES),
            Setting("value", "number", 0),
        ),
        (1, 1),
        _pad,
        "Elements added before and after axes; both sides alike and spatial axes by default.",
        batching="axis",
    ),
    Layer("flip", (Setting("axis", "ints"),), (1, 1), _flip, OPS["flip"].doc, batching="axis"),
    Layer(
        "shuffle",
        (Setting("groups", "int"), _axis(1)),
        (1, 1),
        _shuffle,
        OPS["channel_shuffle"].doc,
        batching="axis",
    ),
    Layer("eye", (Setting("size", "int"), _F32), (0, 0), _eye, OPS["eye"].doc),
    Layer("zeros", (_SHAPE, _F32), (0, 0), _zeros, "A tensor of zeros."),
    Layer("ones", (_SHAPE, _F32), (0, 0), _ones, "A tensor of ones."),
    Layer(
        "gauss",
        (Setting("width", "float"),),
        (1, 1),
        _gauss,
        "exp(-|d|^2 / (2 width^2)) over the last axis of d.",
        batching="last",
    ),
):
    define_layer(_layer)

layer_of(OPS["diag"])
layer_of(OPS["diagonal"])
layer_of(OPS["tril"], Setting("k", "int", 0))
layer_of(OPS["triu"], Setting("k", "int", 0))
layer_of(OPS["one_hot"], Setting("size", "int"), _F32)
