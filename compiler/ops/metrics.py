"""What is reported while training: figures of merit that nothing differentiates.

They are put together from other ops, so that they need no kernels of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.graph import Value
from .base import Builder, Layer, OpError, Setting, define_layer
from .losses import need_labels
from .rules import axis_in


def _build_accuracy(
    builder: Builder, tensors: Sequence[Value], *, top: int, axis: int | None, ignore: int
) -> Any:
    scores, label = tensors
    kind = builder.type_of(scores)
    axis = axis_in("accuracy", min(1, kind.rank - 1) if axis is None else axis, kind.rank)
    need_labels("accuracy", kind, builder.type_of(label), axis)
    if top < 1:
        raise OpError("E408", f"accuracy: top is {top}, expected 1 or more")
    if top == 1:
        best = builder.emit("argmax", [scores], {"axis": axis, "keepdims": False})
        hit = builder.emit("eq", [best, _as(builder, label, builder.type_of(best).dtype)])
    else:
        attrs = {"k": top, "axis": axis, "largest": True}
        _, best = builder.emit("topk", [scores], attrs)
        shape = list(kind.shape)
        shape[axis] = 1
        wanted = _as(builder, label, builder.type_of(best).dtype)
        wanted = builder.emit("reshape", [wanted], {"shape": tuple(shape)})
        same = builder.emit("eq", [best, wanted])
        attrs = {"kind": "any", "axes": (axis,), "keepdims": False}
        hit = builder.emit("reduce", [same], attrs)
    ignored = builder.emit(
        "fill", [], {"shape": (), "value": ignore, "dtype": builder.type_of(label).dtype}
    )
    kept = builder.emit("ne", [label, ignored])
    right = _count(builder, builder.emit("and", [hit, kept]), kind.dtype)
    one = builder.emit("fill", [], {"shape": (), "value": 1.0, "dtype": kind.dtype})
    total = builder.emit("maximum", [_count(builder, kept, kind.dtype), one])
    return builder.emit("div", [right, total])


def _as(builder: Builder, value: Value, dtype: str) -> Value:
    same = builder.type_of(value).dtype == dtype
    return value if same else builder.emit("cast", [value], {"dtype": dtype})


def _count(builder: Builder, truth: Value, dtype: str) -> Value:
    numbers = builder.emit("cast", [truth], {"dtype": dtype})
    axes = tuple(range(builder.type_of(truth).rank))
    return builder.emit("reduce", [numbers], {"kind": "sum", "axes": axes, "keepdims": False})


define_layer(
    Layer(
        "accuracy",
        (Setting("top", "int", 1), Setting("axis", "int", None), Setting("ignore", "int", -100)),
        (2, 2),
        _build_accuracy,
        "The share of items whose label is among the `top` highest scores; classes lie on axis 1, "
        "or 0 for a vector, unless axis is given, and items labelled `ignore` do not count.",
    )
)
