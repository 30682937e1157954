"""Gradients of activations, and of softmax over an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..activations import _SELU_ALPHA, _SELU_SCALE
from ..base import expansion_of, gradient_of
from ..expr import Expr, Pullback
from .reduce import first_extreme

_Slope = Callable[[Expr, Expr, Expr, Any], Expr]


def _sigmoid(x: Expr) -> Expr:
    return x.op("sigmoid", slope=1.0)


def _gelu(x: Expr, d: Expr, approximate: str) -> Expr:
    if approximate == "tanh":
        root = math.sqrt(2 / math.pi)
        t = (root * (x + 0.044715 * x * x.square())).op("tanh")
        inner = root * (3 * 0.044715 * x.square() + 1.0)
        return d * (0.5 * (t + 1.0) + 0.5 * x * (1.0 - t.square()) * inner)
    bell = (-0.5 * x.square()).exp() * (1 / math.sqrt(2 * math.pi))
    return d * (0.5 * ((x * math.sqrt(0.5)).op("erf") + 1.0) + x * bell)


def _mish(x: Expr, d: Expr) -> Expr:
    t = x.op("softplus", beta=1.0).op("tanh")
    return d * (t + x * (1.0 - t.square()) * _sigmoid(x))


_SLOPES: dict[str, _Slope] = {
    # d(op(x)) from x, y = op(x) and the cotangent d of y
    "relu": lambda x, y, d, a: y.op("clamp_backward", d, low=0.0, high=None),
    "relu6": lambda x, y, d, a: y.op("clamp_backward", d, low=0.0, high=6.0),
    "leaky_relu": lambda x, y, d, a: (x > 0).where(d, d * a["slope"]),
    "elu": lambda x, y, d, a: (x > 0).where(d, d * a["alpha"] * x.minimum(0).exp()),
    "selu": lambda x, y, d, a: d * _SELU_SCALE * (x > 0).where(1, _SELU_ALPHA * x.minimum(0).exp()),
    "gelu": lambda x, y, d, a: _gelu(x, d, a["approximate"]),
    "sigmoid": lambda x, y, d, a: d * y * (1.0 - y) * float(a["slope"]),
    "hardsigmoid": lambda x, y, d, a: ((x > -3) & (x < 3)).where(d * (1 / 6), 0),
    "hardswish": lambda x, y, d, a: d * (x <= -3).where(0, (x >= 3).where(1, x * (1 / 3) + 0.5)),
    "swish": lambda x, y, d, a: d * (y + _sigmoid(x) * (1.0 - y)),
    "mish": lambda x, y, d, a: _mish(x, d),
    "softplus": lambda x, y, d, a: d * x.op("sigmoid", slope=a["beta"]),
    "softsign": lambda x, y, d, a: d / (x.abs() + 1.0).square(),
    "tanh": lambda x, y, d, a: d * (1.0 - y.square()),
    "erf": lambda x, y, d, a: d * (2 / math.sqrt(math.pi)) * (-x.square()).exp(),
}


def _of(slope: _Slope) -> Callable[[Pullback], Sequence[Expr | None]]:
    return lambda pull: [slope(pull.x[0], pull.y[0], pull.d, pull.attrs)]


for _name, _slope in _SLOPES.items():
    gradient_of(_name)(_of(_slope))


@expansion_of("prelu")
def _prelu(x: Sequence[Expr], attrs: Any) -> Expr:
    a, weight = x
    return (a > 0).where(a, a * weight.per_channel(a))


@gradient_of("softmax")
def _softmax(pull: Pullback) -> Sequence[Expr | None]:
    axis, beta = pull.attrs["axis"], float(pull.attrs["beta"])  # type: ignore[arg-type]
    part = pull.d * pull.y[0]
    return [(part - pull.y[0] * part.sum([axis], keepdims=True)) * beta]  # type: ignore[list-item]


@gradient_of("log_softmax")
def _log_softmax(pull: Pullback) -> Sequence[Expr | None]:
    d = pull.d
    return [d - pull.y[0].exp() * d.sum([pull.attrs["axis"]], keepdims=True)]  # type: ignore[list-item]


@gradient_of("maxout")
def _maxout(pull: Pullback) -> Sequence[Expr | None]:
    x, pieces = pull.x[0], pull.attrs["pieces"]
    split = x.reshape((*pull.y[0].shape[:2], pieces, *x.shape[2:]))  # type: ignore[arg-type]
    return [(first_extreme(split, (2,), "argmax") * pull.d.unsqueeze(2)).reshape(x.shape)]
