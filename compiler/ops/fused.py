"""Convolutions and linear layers with what surrounds them: one node, one pass over memory.

``y = activation(op(prologue(x), weight, bias) + residual)``. The attribute ``extras`` names the
operands after x and weight, in the order of :data:`EXTRAS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.types import Attrs, AttrValue, TensorType
from .base import OPS, Op, Operand, OpError, define
from .net_rules import need_size

EXTRAS = ("bias", "residual", "scale", "shift")
"""Operands that may follow x and weight; ``scale`` and ``shift`` belong to the prologue."""

PROLOGUES = ("", "affine", "affine_relu")
"""What happens to x: x * scale + shift per channel, then relu. Zero padding comes after."""

ACTIVATIONS = (
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "sigmoid",
    "hardsigmoid",
    "hardswish",
    "swish",
    "mish",
    "softplus",
    "softsign",
    "tanh",
)
"""Activations that an epilogue may end with; ``""`` is none."""

FUSED = {"conv": "fused_conv", "conv_transpose": "fused_conv_transpose", "linear": "fused_linear"}
"""The fused form of each op."""

ADDED = ("extras", "activation", "activation_attrs", "prologue")
"""Attributes of a fused op beyond those of its plain form."""


def named_extras(attrs: Attrs, operands: Sequence[Any]) -> dict[str, Any]:
    """The operands after x and weight by name; raises E407 when they are not those of the node."""
    names: Any = attrs["extras"]
    rest = operands[2:]
    known = tuple(name for name in EXTRAS if name in names)
    if known != tuple(names) or len(names) != len(rest):
        raise OpError("E407", f"{len(rest)} operands for {list(names)}, of {list(EXTRAS)}")
    if ("scale" in names, "shift" in names) != (bool(attrs["prologue"]),) * 2:
        raise OpError("E407", "scale and shift come with a prologue and only with one")
    return dict(zip(names, rest, strict=True))


def plain_attrs(attrs: Attrs) -> dict[str, AttrValue]:
    """The attributes of the plain op inside."""
    return {name: value for name, value in attrs.items() if name not in ADDED}


def _fused_shape(plain: str) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        extras = named_extras(attrs, types)
        if attrs["prologue"] not in PROLOGUES:
            raise OpError("E404", f"{FUSED[plain]}: unknown prologue {attrs['prologue']}")
        if attrs["activation"] not in ("", *ACTIVATIONS):
            raise OpError("E404", f"{FUSED[plain]}: unknown activation {attrs['activation']}")
        bias = [extras["bias"]] if "bias" in extras else []
        (result,) = OPS[plain].shape([types[0], types[1], *bias], plain_attrs(attrs))
        if extras.get("residual", result) != result:
            raise OpError("E103", f"{FUSED[plain]}: residual {extras['residual']} for {result}")
        for name in ("scale", "shift"):
            if name in extras:
                need_size(FUSED[plain], name, extras[name].shape[0], types[0].shape[1])
        return [result]

    return shape


def _fused_reference(plain: str) -> Callable[..., np.ndarray]:
    def reference(x: np.ndarray, weight: np.ndarray, *rest: np.ndarray, **attrs: Any) -> np.ndarray:
        extras = named_extras(attrs, (x, weight, *rest))
        x = _before(x, extras, str(attrs["prologue"]))
        bias = [extras["bias"]] if "bias" in extras else []
        y = _call(plain, (x, weight, *bias), plain_attrs(attrs))
        if "residual" in extras:
            y = y + extras["residual"]
        if attrs["activation"]:
            y = _call(attrs["activation"], (y,), dict(attrs["activation_attrs"]))
        return y

    return reference


def _before(x: np.ndarray, extras: Mapping[str, np.ndarray], prologue: str) -> np.ndarray:
    if prologue:
        x = _call("affine", (x, extras["scale"], extras["shift"]), {})
    return _call("relu", (x,), {}) if prologue == "affine_relu" else x


def _call(op: str, arrays: Sequence[np.ndarray], attrs: Attrs) -> np.ndarray:
    reference = OPS[op].reference
    assert reference is not None
    return reference(*arrays, **attrs)


for _plain, _name in FUSED.items():
    _op = OPS[_plain]
    define(
        Op(
            _name,
            (Operand("x"), Operand("weight"), *(Operand(e, optional=True) for e in EXTRAS)),
            _fused_shape(_plain),
            _fused_reference(_plain),
            f"activation({_plain}(prologue(x), weight, bias) + residual); padding is added after "
            "the prologue, so that it stays zero.",
            (*_op.attrs, *ADDED),
            batching=_op.batching,
            macs=_op.macs,
        )
    )
