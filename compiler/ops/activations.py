"""Activations: elementwise nonlinearities, softmax over an axis, and the error function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.dims import floordiv
from ..ir.graph import Value
from ..ir.types import Attrs, TensorType
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer, layer_of
from .net_rules import need_divisible, need_float, need_range, need_size, need_whole
from .rules import axis_attr, axis_in, quiet, require_kind

# ---------------------------------------------------------------- elementwise


def _elementwise(
    name: str,
    reference: Callable[..., np.ndarray],
    doc: str,
    *settings: Setting,
    family: str = "float",
) -> None:
    """Enter an activation of one tensor and its layer; the settings are its attributes."""

    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        require_kind(name, types[0], family)
        for setting in settings:
            if setting.choices:
                value = attrs[setting.name]
                expected = " or ".join(setting.choices)
                need_range(name, setting.name, value, value in setting.choices, expected)
        return list(types)

    attrs = tuple(setting.name for setting in settings)
    op = Op(name, (Operand("x"),), shape, quiet(reference), doc, attrs, batching="elementwise")
    layer_of(define(op), *settings)


def _sigmoid(x: np.ndarray, slope: float = 1.0) -> np.ndarray:
    # exp of a negative number only: nothing overflows and the small tail keeps its digits.
    z = slope * x
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def _softplus(x: np.ndarray, beta: float = 1.0) -> np.ndarray:
    z = beta * x
    return (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta


def _gelu(x: np.ndarray, *, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * erfc(-x * math.sqrt(0.5))


def _elu(x: np.ndarray, *, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _selu(x: np.ndarray) -> np.ndarray:
    return _SELU_SCALE * _elu(x, alpha=_SELU_ALPHA)


def _hardsigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


_elementwise(
    "relu",
    lambda x: np.maximum(x, np.zeros((), x.dtype)),
    "max(x, 0). Nair and Hinton, ICML 2010.",
    family="number",
)
_elementwise(
    "relu6",
    lambda x: np.clip(x, 0, 6),
    "min(max(x, 0), 6). Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010.",
    family="number",
)
_elementwise(
    "leaky_relu",
    lambda x, slope: np.where(x > 0, x, slope * x),
    "x above zero, slope*x below. Maas et al., ICML 2013.",
    Setting("slope", "float", 0.01),
)
_elementwise(
    "elu",
    _elu,
    "x above zero, alpha*(exp(x) - 1) below. Clevert et al., ICLR 2016, arXiv:1511.07289.",
    Setting("alpha", "float", 1.0),
)
_elementwise(
    "selu",
    _selu,
    "ELU scaled so that mean 0 and variance 1 are a fixed point. Klambauer et al., NIPS 2017.",
)
_elementwise(
    "gelu",
    _gelu,
    "x times the standard normal distribution function, exact or by tanh. Hendrycks and Gimpel, "
    "2016, arXiv:1606.08415.",
    Setting("approximate", "choice", "none", ("none", "tanh")),
)
_elementwise(
    "sigmoid",
    _sigmoid,
    "1 / (1 + exp(-slope*x)).",
    Setting("slope", "float", 1.0),
)
_elementwise(
    "hardsigmoid",
    _hardsigmoid,
    "min(max(x + 3, 0), 6) / 6. Howard et al., MobileNetV3, ICCV 2019.",
)
_elementwise(
    "hardswish",
    lambda x: x * _hardsigmoid(x),
    "x * hardsigmoid(x). Howard et al., MobileNetV3, ICCV 2019.",
)
_elementwise(
    "swish",
    lambda x: x * _sigmoid(x),
    "x * sigmoid(x), also called silu. Ramachandran et al., 2017, arXiv:1710.05941.",
)
_elementwise(
    "mish",
    lambda x: x * np.tanh(_softplus(x)),
    "x * tanh(softplus(x)). Misra, BMVC 2020, arXiv:1908.08681.",
)
_elementwise(
    "softplus",
    _softplus,
    "log(1 + exp(beta*x)) / beta. Dugas et al., NIPS 2000.",
    Setting("beta", "float", 1.0),
)
_elementwise(
    "softsign",
    lambda x: x / (1 + np.abs(x)),
    "x / (1 + |x|). Bergstra et al., 2009.",
)
_elementwise("tanh", np.tanh, "The hyperbolic tangent.")


def _build_silu(builder: Builder, tensors: Sequence[Value]) -> Value:
    return builder.emit("swish", tensors)


define_layer(
    Layer("silu", (), (1, 1), _build_silu, "Another name of swish.", batching="elementwise")
)


# ---------------------------------------------------------------- with weights


def _prelu_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, weight = types
    _need_channels("prelu", x)
    need_float("prelu", *types)
    if weight.rank != 1:
        raise OpError("E101", f"prelu needs a weight of rank 1, found {weight}")
    need_size("prelu", "the weight's size", weight.shape[0], x.shape[1])
    return [x]


def _prelu(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * weight.reshape(-1, *(1,) * (x.ndim - 2)))


define(
    Op(
        "prelu",
        (Operand("x"), Operand("weight")),
        _prelu_shape,
        _prelu,
        "x above zero, weight*x below, one weight per channel (axis 1). He et al., ICCV 2015, "
        "arXiv:1502.01852.",
        batching="leading",
    )
)


def _build_prelu(builder: Builder, tensors: Sequence[Value], *, init: Any) -> Value:
    x = builder.type_of(tensors[0])
    _need_channels("prelu", x)
    weight = builder.param("weight", (x.shape[1],), init, "weight", x.dtype)
    return builder.emit("prelu", [tensors[0], weight])


define_layer(
    Layer(
        "prelu",
        (Setting("init", "rule", ("constant", 0.25)),),
        (1, 1),
        _build_prelu,
        "Leaky rectifier whose slope is learned per channel.",
        batching="leading",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- over an axis


def _axis_shape(name: str) -> Callable[[Sequence[TensorType], Attrs], list[TensorType]]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        require_kind(name, types[0], "float")
        axis_attr(name, attrs, types[0])
        return list(types)

    return shape


def _softmax(x: np.ndarray, *, axis: int, beta: float) -> np.ndarray:
    z = beta * x
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: np.ndarray, *, axis: int) -> np.ndarray:
    """The logarithm of softmax along an axis, without overflow or log of zero."""
    z = x - x.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


define(
    Op(
        "softmax",
        (Operand("x"),),
        _axis_shape("softmax"),
        _softmax,
        "exp(beta*x) over its sum along one axis; beta is an inverse temperature. Bridle, 1990.",
        ("axis", "beta"),
        batching="axis",
    )
)

define(
    Op(
        "log_softmax",
        (Operand("x"),),
        _axis_shape("log_softmax"),
        log_softmax,
        "The logarithm of softmax along one axis.",
        ("axis",),
        batching="axis",
    )
)


def _axis_layer(name: str, *settings: Setting) -> None:
    def build(
        builder: Builder, tensors: Sequence[Value], *, axis: int | None, **values: Any
    ) -> Value:
        rank = builder.type_of(tensors[0]).rank
        axis = min(1, rank - 1) if axis is None else axis
        return builder.emit(name, tensors, {"axis": axis_in(name, axis, rank), **values})

    doc = f"The op {name}; the axis is the channel axis 1, or 0 for a vector, unless given."
    define_layer(
        Layer(name, (Setting("axis", "int", None), *settings), (1, 1), build, doc, batching="axis")
    )


_axis_layer("softmax", Setting("beta", "float", 1.0))
_axis_layer("log_softmax")


def _maxout_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    pieces: Any = attrs["pieces"]
    _need_channels("maxout", x)
    require_kind("maxout", x, "number")
    need_whole("maxout", "pieces", pieces)
    need_divisible("maxout", "the number of channels", x.shape[1], pieces)
    return [x.with_shape([x.shape[0], floordiv(x.shape[1], pieces), *x.shape[2:]])]


def _maxout(x: np.ndarray, *, pieces: int) -> np.ndarray:
    return x.reshape(x.shape[0], x.shape[1] // pieces, pieces, *x.shape[2:]).max(axis=2)


layer_of(
    define(
        Op(
            "maxout",
            (Operand("x"),),
            _maxout_shape,
            _maxout,
            "Largest of each `pieces` consecutive channels (axis 1). Goodfellow et al., ICML 2013, "
            "arXiv:1302.4389.",
            ("pieces",),
            batching="leading",
        )
    ),
    Setting("pieces", "int"),
)


# ---------------------------------------------------------------- the error function

# Rational approximations of W. J. Cody, Math. Comp. 23 (1969) 631-637: numerator and denominator,
# highest power first.
_ERF_SMALL = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (
        1.0,
        2.36012909523441209e1,
        2.44024637934444173e2,
        1.28261652607737228e3,
        2.84423683343917062e3,
    ),
)
_ERFC_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ),
)
_ERFC_LARGE = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242e0,
        1.87295284992346725e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)


@quiet
def erf(x: np.ndarray) -> np.ndarray:
    """The error function, computed in float64 to about 1e-15 and returned in ``x``'s type."""
    x = np.asarray(x)
    z = x.astype(np.float64)
    small = np.abs(z) <= 0.5
    tail = np.sign(z) * (1 - _erfc_positive(np.maximum(np.abs(z), 0.46875)))
    return np.where(small, _erf_small(np.where(small, z, 0)), tail).astype(x.dtype)


@quiet
def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x) without cancellation: relative error about 1e-15 in the right tail as well."""
    x = np.asarray(x)
    z = x.astype(np.float64)
    small = np.abs(z) <= 0.46875
    tail = _erfc_positive(np.maximum(np.abs(z), 0.46875))
    tail = np.where(z < 0, 2 - tail, tail)
    return np.where(small, 1 - _erf_small(np.where(small, z, 0)), tail).astype(x.dtype)


def _erf_small(z: np.ndarray) -> np.ndarray:
    return z * _ratio(_ERF_SMALL, z * z)


def _erfc_positive(z: np.ndarray) -> np.ndarray:
    """Erfc for z >= 0.46875."""
    middle = _ratio(_ERFC_MIDDLE, np.minimum(z, 4))
    inverse = 1 / np.square(np.maximum(z, 4))
    large = 1 / math.sqrt(math.pi) - inverse * _ratio(_ERFC_LARGE, inverse)
    # exp(-z*z) with z split in two, so that rounding z*z does not cost digits.
    head = np.floor(np.minimum(z, 64) * 16) / 16
    bell = np.exp(-head * head) * np.exp(-(z - head) * (z + head))
    scaled = np.where(z <= 4, middle, large / np.maximum(z, 4))
    return np.where(np.isposinf(z), 0, bell * scaled)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], z: np.ndarray) -> np.ndarray:
    above, below = coefficients
    return np.polyval(above, z) / np.polyval(below, z)


_elementwise("erf", erf, "The error function. Cody, Math. Comp. 1969.")


# ---------------------------------------------------------------- helpers


def _need_channels(op: str, x: TensorType) -> None:
    if x.rank < 2:
        raise OpError(
            "E101", f"{op} needs [N, C, ...], found {x}", "axis 0 is the batch, axis 1 the channels"
        )
