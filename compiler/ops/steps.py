"""Ops that training steps are made of and fused to: masks of clamps, pools, batch norms.

The fused batch norms are what a pass makes after differentiation: one pass over memory each for
statistics and result, with the activation around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.types import Attrs, TensorType
from .base import OPS, Op, Operand, OpError, define
from .net_rules import need_float, need_same_shape
from .norm import along_channels

# ---------------------------------------------------------------- clamps


def _clamp_backward_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    need_float("clamp_backward", *types)
    need_same_shape("clamp_backward", *types)
    return [types[1]]


def clamp_backward(
    y: np.ndarray, d: np.ndarray, *, low: float, high: float | None
) -> np.ndarray:  # fmt: skip
    """The reference of the op of that name."""
    inside = y > low
    if high is not None:
        inside &= y < high
    return np.where(inside, d, np.zeros((), d.dtype))


define(
    Op(
        "clamp_backward",
        (Operand("y"), Operand("d")),
        _clamp_backward_shape,
        clamp_backward,
        "The cotangent d of a clamp's result y, passed on where low < y < high (no bound where "
        "high is none), else 0: relu and relu6.",
        ("low", "high"),
        batching="elementwise",
    )
)


# ---------------------------------------------------------------- pools


def _maxpool_backward_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, y, d = types
    need_float("maxpool_backward", *types)
    (made,) = OPS["maxpool"].shape([x], attrs)
    need_same_shape("maxpool_backward", made, y)
    need_same_shape("maxpool_backward", y, d)
    return [x]


def _maxpool_backward(x: np.ndarray, y: np.ndarray, d: np.ndarray, **attrs: Any) -> np.ndarray:
    places_of: Any = OPS["maxpool_with_indices"].reference
    add: Any = OPS["add_at_places"].reference
    _, places = places_of(x, **attrs)
    return add(d, places, size=x.shape[2:])


define(
    Op(
        "maxpool_backward",
        (Operand("x"), Operand("y"), Operand("d")),
        _maxpool_backward_shape,
        _maxpool_backward,
        "The cotangent of maxpool's input x from its result y and the cotangent d of that: each d "
        "goes to the first largest element of its window, or the first nan.",
        ("kernel", "stride", "pad", "dilation", "ceil"),
        batching="leading",
    )
)


# ---------------------------------------------------------------- batch norms

CLAMPS: Mapping[str, tuple[float | None, float | None]] = {
    "": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
}
"""Activations that a fused batch norm may end with, as bounds."""

FORWARD_EXTRAS = ("weight", "bias", "residual")
BACKWARD_EXTRAS = ("weight", "bias", "y")


def extras_of(op: str, attrs: Attrs, rest: Sequence[Any], known: Sequence[str]) -> dict[str, Any]:
    """The operands that the attribute ``extras`` names; raises E407 when they do not fit."""
    names: Any = attrs["extras"]
    if tuple(n for n in known if n in names) != tuple(names) or len(names) != len(rest):
        raise OpError("E407", f"{op}: {len(rest)} operands for {list(names)}, of {list(known)}")
    return dict(zip(names, rest, strict=True))


def _need_clamp(op: str, attrs: Attrs) -> None:
    if attrs["activation"] not in CLAMPS:
        raise OpError("E404", f"{op}: unknown activation {attrs['activation']}")


def _fused_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    op = "fused_batch_norm_train"
    _need_clamp(op, attrs)
    extras = extras_of(op, attrs, types[3:], FORWARD_EXTRAS)
    if "residual" in extras:
        need_same_shape(op, types[0], extras["residual"])
    learned = [extras[name] for name in ("weight", "bias") if name in extras]
    return list(OPS["batch_norm_train"].shape([*types[:3], *learned], _plain(attrs)))


def _plain(attrs: Attrs) -> dict[str, Any]:
    return {name: attrs[name] for name in ("eps", "momentum")}


def _clamped(y: np.ndarray, activation: str) -> np.ndarray:
    low, high = CLAMPS[activation]
    y = y if low is None else np.maximum(y, np.asarray(low, y.dtype))
    return y if high is None else np.minimum(y, np.asarray(high, y.dtype))


def _fused(
    x: np.ndarray, mean: np.ndarray, var: np.ndarray, *rest: np.ndarray, **attrs: Any
) -> tuple[np.ndarray, ...]:
    extras = extras_of("fused_batch_norm_train", attrs, rest, FORWARD_EXTRAS)
    learned = [extras[name] for name in ("weight", "bias") if name in extras]
    plain: Any = OPS["batch_norm_train"].reference
    y, *others = plain(x, mean, var, *learned, **_plain(attrs))
    y = y + extras["residual"] if "residual" in extras else y
    return (_clamped(y, attrs["activation"]), *others)


define(
    Op(
        "fused_batch_norm_train",
        (
            *(Operand("x"), Operand("running_mean"), Operand("running_var")),
            *(Operand(name, optional=True) for name in FORWARD_EXTRAS),
        ),
        _fused_shape,
        _fused,
        "batch_norm_train whose y is activation(y + residual); `extras` names the operands after "
        "the statistics.",
        ("eps", "momentum", "activation", "extras"),
    )
)


def _fused_backward_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    op = "fused_batch_norm_backward"
    _need_clamp(op, attrs)
    extras = extras_of(op, attrs, types[4:], BACKWARD_EXTRAS)
    if "y" in extras:
        need_same_shape(op, types[0], extras["y"])
    learned = [extras["weight"]] if "weight" in extras else []
    return list(OPS["batch_norm_backward"].shape([*types[:4], *learned], {}))


def _fused_backward(
    x: np.ndarray,
    d: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    *rest: np.ndarray,
    **attrs: Any,
) -> tuple[np.ndarray, ...]:
    extras = extras_of("fused_batch_norm_backward", attrs, rest, BACKWARD_EXTRAS)
    y = extras.get("y")
    if y is None:
        y = (x - along_channels(mean, x)) * along_channels(inv_std, x)
        y = y * along_channels(extras["weight"], x) if "weight" in extras else y
        y = y + along_channels(extras["bias"], x) if "bias" in extras else y
    low, high = CLAMPS[attrs["activation"]]
    if low is not None:
        d = clamp_backward(y, d, low=low, high=high)
    plain: Any = OPS["batch_norm_backward"].reference
    return plain(x, d, mean, inv_std, *([extras["weight"]] if "weight" in extras else []))


define(
    Op(
        "fused_batch_norm_backward",
        (
            *(Operand("x"), Operand("d"), Operand("mean"), Operand("inv_std")),
            *(Operand(name, optional=True) for name in BACKWARD_EXTRAS),
        ),
        _fused_backward_shape,
        _fused_backward,
        "batch_norm_backward of the cotangent d of activation(y): y is an operand, or computed "
        "anew from x; `extras` names the operands after the statistics.",
        ("activation", "extras"),
    )
)
