"""Normalisation: over the batch, over features, over channel groups, over neighbours.

Operands of ``batch_norm`` and ``batch_norm_train`` are ordered x, mean, var, weight, bias, so that
the learned pair, which ``affine=False`` leaves out, comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike
from ..ir.graph import Value
from ..ir.types import Attrs, TensorType, shape_text
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer, layer_of
from .net_rules import (
    need_divisible,
    need_float,
    need_positive,
    need_range,
    need_size,
    need_whole,
)
from .rules import axis_in

_AFFINE = (Operand("weight", optional=True), Operand("bias", optional=True))
_STATISTICS = (Operand("x"), Operand("running_mean"), Operand("running_var"), *_AFFINE)
_EPS = Setting("eps", "float", 1e-5)

# ---------------------------------------------------------------- batch norm


def _batch_norm_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, *vectors = types
    need_channels("bn", x)
    need_float("bn", *types)
    need_vectors("bn", vectors, x.shape[1])
    return [x]


def _batch_norm(
    x: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    eps: float,
    momentum: float,
) -> np.ndarray:
    scale = 1 / np.sqrt(running_var + eps)
    y = (x - along_channels(running_mean, x)) * along_channels(scale, x)
    return _affine(y, weight, bias)


def _batch_norm_train_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    return [*_batch_norm_shape(types, attrs), *(types[1],) * 4]


def _batch_norm_train(
    x: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    eps: float,
    momentum: float,
) -> tuple[np.ndarray, ...]:
    axes = (0, *range(2, x.ndim))
    count = x.size // x.shape[1]
    if count < 2:
        raise ValueError("bn: training needs more than one value per channel to have a variance")
    mean, var = x.mean(axis=axes), x.var(axis=axes)
    inv_std = 1 / np.sqrt(var + eps)
    y = (x - along_channels(mean, x)) * along_channels(inv_std, x)
    unbiased = var * (count / (count - 1))
    new_mean = (1 - momentum) * running_mean + momentum * mean
    new_var = (1 - momentum) * running_var + momentum * unbiased
    return _affine(y, weight, bias), new_mean, new_var, mean, inv_std


define(
    Op(
        "batch_norm",
        _STATISTICS,
        _batch_norm_shape,
        _batch_norm,
        "(x - running_mean) / sqrt(running_var + eps) * weight + bias per channel (axis 1), with "
        "running statistics. momentum only matters to batch_norm_train, which training puts in "
        "its place. Ioffe and Szegedy, ICML 2015, arXiv:1502.03167.",
        ("eps", "momentum"),
        batching="leading",
    )
)

define(
    Op(
        "batch_norm_train",
        _STATISTICS,
        _batch_norm_train_shape,
        _batch_norm_train,
        "Batch normalisation with the statistics of the batch: y (biased variance), the new "
        "running mean and variance (unbiased), new = (1 - momentum)*old + momentum*batch, and what "
        "batch_norm_backward reads: the batch's mean and 1 / sqrt(variance + eps). Ioffe and "
        "Szegedy, ICML 2015, arXiv:1502.03167.",
        ("eps", "momentum"),
    )
)


def _build_bn(
    builder: Builder, tensors: Sequence[Value], *, eps: float, momentum: float, affine: bool
) -> Value:
    x = builder.type_of(tensors[0])
    need_channels("bn", x)
    _need_eps("bn", eps)
    need_range("bn", "momentum", momentum, 0 <= momentum <= 1, "a number from 0 to 1")
    shape = (x.shape[1],)
    learned = _affine_params(builder, shape, x.dtype, affine)
    mean = builder.param("running_mean", shape, ("zeros",), "buffer", x.dtype)
    var = builder.param("running_var", shape, ("ones",), "buffer", x.dtype)
    attrs = {"eps": eps, "momentum": momentum}
    return builder.emit("batch_norm", [tensors[0], mean, var, *learned], attrs)


define_layer(
    Layer(
        "bn",
        (_EPS, Setting("momentum", "float", 0.1), Setting("affine", "bool", True)),
        (1, 1),
        _build_bn,
        "Batch normalisation of the channels (axis 1).",
        batching="leading",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- scale and shift


def _affine_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, *vectors = types
    need_channels("affine", x)
    need_float("affine", *types)
    need_vectors("affine", vectors, x.shape[1])
    return [x]


define(
    Op(
        "affine",
        (Operand("x"), Operand("scale"), Operand("shift")),
        _affine_shape,
        lambda x, scale, shift: _affine(x, scale, shift),
        "x * scale + shift per channel (axis 1): what is left of a batch norm whose statistics "
        "are fixed.",
        batching="leading",
    )
)


# ---------------------------------------------------------------- layer norm


def _layer_norm_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, *vectors = types
    need_float("layernorm", *types)
    shape = _last_axes(x, attrs["axes"])
    for kind in vectors:
        if kind.rank != len(shape):
            raise OpError(
                "E101", f"layernorm needs weights {shape_text(shape)} for {x}, found {kind}"
            )
        for found, expected in zip(kind.shape, shape, strict=True):
            need_size("layernorm", "a size of the weights", found, expected)
    return [x]


def _layer_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    axes: int,
    eps: float,
) -> np.ndarray:
    y = _standardise(x, tuple(range(x.ndim - axes, x.ndim)), eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


define(
    Op(
        "layer_norm",
        (Operand("x"), *_AFFINE),
        _layer_norm_shape,
        _layer_norm,
        "Each sample's last `axes` axes to mean 0 and (biased) variance 1, then * weight + bias. "
        "Ba, Kiros and Hinton, 2016, arXiv:1607.06450.",
        ("axes", "eps"),
        batching="last",
    )
)


def _build_layernorm(
    builder: Builder, tensors: Sequence[Value], *, axes: int, eps: float, affine: bool
) -> Value:
    x = builder.type_of(tensors[0])
    _need_eps("layernorm", eps)
    shape = _last_axes(x, axes)
    learned = _affine_params(builder, shape, x.dtype, affine)
    return builder.emit("layer_norm", [tensors[0], *learned], {"axes": axes, "eps": eps})


define_layer(
    Layer(
        "layernorm",
        (Setting("axes", "int", 1), _EPS, Setting("affine", "bool", True)),
        (1, 1),
        _build_layernorm,
        "Layer normalisation over the last `axes` axes, with weights of their shape.",
        batching="last",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- instance and group norm


def _instance_norm_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, *vectors = types
    _need_space("instancenorm", x)
    need_float("instancenorm", *types)
    need_vectors("instancenorm", vectors, x.shape[1])
    return [x]


def _instance_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    eps: float,
) -> np.ndarray:
    return _affine(_standardise(x, tuple(range(2, x.ndim)), eps), weight, bias)


def _group_norm_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, *vectors = types
    need_channels("groupnorm", x)
    need_float("groupnorm", *types)
    groups: Any = attrs["groups"]
    need_positive("groupnorm", groups, "the number of groups")
    need_divisible("groupnorm", "the number of channels", x.shape[1], groups)
    need_vectors("groupnorm", vectors, x.shape[1])
    return [x]


def _group_norm(
    x: np.ndarray,
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    *,
    groups: int,
    eps: float,
) -> np.ndarray:
    grouped = x.reshape(x.shape[0], groups, -1)
    return _affine(_standardise(grouped, (2,), eps).reshape(x.shape), weight, bias)


define(
    Op(
        "instance_norm",
        (Operand("x"), *_AFFINE),
        _instance_norm_shape,
        _instance_norm,
        "Each channel of each sample to mean 0 and (biased) variance 1 over its spatial axes. "
        "Ulyanov, Vedaldi and Lempitsky, 2016, arXiv:1607.08022.",
        ("eps",),
        batching="leading",
    )
)

define(
    Op(
        "group_norm",
        (Operand("x"), *_AFFINE),
        _group_norm_shape,
        _group_norm,
        "Each group of consecutive channels of each sample to mean 0 and (biased) variance 1. Wu "
        "and He, ECCV 2018, arXiv:1803.08494.",
        ("groups", "eps"),
        batching="leading",
    )
)


def _build_instancenorm(
    builder: Builder, tensors: Sequence[Value], *, eps: float, affine: bool
) -> Value:
    x = builder.type_of(tensors[0])
    _need_space("instancenorm", x)
    _need_eps("instancenorm", eps)
    learned = _affine_params(builder, (x.shape[1],), x.dtype, affine)
    return builder.emit("instance_norm", [tensors[0], *learned], {"eps": eps})


def _build_groupnorm(
    builder: Builder, tensors: Sequence[Value], *, groups: int, eps: float, affine: bool
) -> Value:
    x = builder.type_of(tensors[0])
    need_channels("groupnorm", x)
    _need_eps("groupnorm", eps)
    learned = _affine_params(builder, (x.shape[1],), x.dtype, affine)
    return builder.emit("group_norm", [tensors[0], *learned], {"groups": groups, "eps": eps})


define_layer(
    Layer(
        "instancenorm",
        (_EPS, Setting("affine", "bool", False)),
        (1, 1),
        _build_instancenorm,
        "Instance normalisation of [N, C, spatial...].",
        batching="leading",
        has_weights=True,
    )
)

define_layer(
    Layer(
        "groupnorm",
        (Setting("groups", "int"), _EPS, Setting("affine", "bool", True)),
        (1, 1),
        _build_groupnorm,
        "Group normalisation of the channels (axis 1).",
        batching="leading",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- switchable norm


def _switchable_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, mean_weight, var_weight, *vectors = types
    _need_space("switchable_norm", x)
    need_float("switchable_norm", *types)
    need_vectors("switchable_norm", (mean_weight, var_weight), 3)
    need_vectors("switchable_norm", vectors, x.shape[1])
    return [x]


def _switchable_norm(
    x: np.ndarray,
    mean_weight: np.ndarray,
    var_weight: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    *,
    eps: float,
) -> np.ndarray:
    space = tuple(range(2, x.ndim))
    kinds = (space, (1, *space), (0, *space))
    mean = sum(
        w * x.mean(axis=axes, keepdims=True)
        for w, axes in zip(_proportions(mean_weight), kinds, strict=True)
    )
    var = sum(
        w * x.var(axis=axes, keepdims=True)
        for w, axes in zip(_proportions(var_weight), kinds, strict=True)
    )
    return _affine((x - mean) / np.sqrt(var + eps), weight, bias)


def _proportions(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max())
    return e / e.sum()


define(
    Op(
        "switchable_norm",
        (
            Operand("x"),
            Operand("mean_weight"),
            Operand("var_weight"),
            Operand("weight"),
            Operand("bias"),
        ),
        _switchable_shape,
        _switchable_norm,
        "Normalises by a learned mixture of instance, layer and batch statistics, in that order "
        "in the two weight vectors (softmax). The batch part uses the statistics of the batch "
        "given. Luo et al., ICLR 2019, arXiv:1806.10779.",
        ("eps",),
    )
)


def _build_switchable(builder: Builder, tensors: Sequence[Value], *, eps: float) -> Value:
    x = builder.type_of(tensors[0])
    _need_space("switchable_norm", x)
    _need_eps("switchable_norm", eps)
    learned = _affine_params(builder, (x.shape[1],), x.dtype, True)
    mixtures = [
        builder.param(name, (3,), ("ones",), "norm", x.dtype)
        for name in ("mean_weight", "var_weight")
    ]
    return builder.emit("switchable_norm", [tensors[0], *mixtures, *learned], {"eps": eps})


define_layer(
    Layer(
        "switchable_norm",
        (_EPS,),
        (1, 1),
        _build_switchable,
        "Switchable normalisation: learns which of instance, layer and batch norm to use.",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- neighbours and lengths


def _lrn_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    need_channels("lrn", x)
    need_float("lrn", x)
    size: Any = attrs["size"]
    need_whole("lrn", "size", size)
    return [x]


def _lrn(
    x: np.ndarray, *, size: int, alpha: float, beta: float, k: float, average: bool
) -> np.ndarray:
    before, after = size // 2, (size - 1) // 2
    squares = np.pad(x * x, ((0, 0), (before, after), *((0, 0),) * (x.ndim - 2)))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x / (k + (alpha / size if average else alpha) * total) ** beta


layer_of(
    define(
        Op(
            "lrn",
            (Operand("x"),),
            _lrn_shape,
            _lrn,
            "Local response normalisation over `size` neighbouring channels: x / (k + alpha * sum "
            "of squares)^beta; average=true divides alpha by size, as PyTorch does. Krizhevsky et "
            "al., NIPS 2012.",
            ("size", "alpha", "beta", "k", "average"),
            batching="leading",
        )
    ),
    Setting("size", "int", 5),
    Setting("alpha", "float", 1e-4),
    Setting("beta", "float", 0.75),
    Setting("k", "float", 1.0),
    Setting("average", "bool", False),
)


def _l2norm_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    (x,) = types
    need_float("l2norm", x)
    axis: Any = attrs["axis"]
    axis_in("l2norm", axis, x.rank)
    return [x]


def _l2norm(x: np.ndarray, *, axis: int, eps: float) -> np.ndarray:
    length = np.sqrt((x * x).sum(axis=axis, keepdims=True))
    return x / np.maximum(length, eps)


define(
    Op(
        "l2norm",
        (Operand("x"),),
        _l2norm_shape,
        _l2norm,
        "x / max(|x|, eps) along one axis. Liu et al., ParseNet, 2015, arXiv:1506.04579.",
        ("axis", "eps"),
        batching="axis",
    )
)


def _build_l2norm(builder: Builder, tensors: Sequence[Value], *, axis: int, eps: float) -> Value:
    axis = axis_in("l2norm", axis, builder.type_of(tensors[0]).rank)
    return builder.emit("l2norm", tensors, {"axis": axis, "eps": eps})


define_layer(
    Layer(
        "l2norm",
        (Setting("axis", "int", 1), Setting("eps", "float", 1e-12)),
        (1, 1),
        _build_l2norm,
        "Scales vectors along one axis to length 1.",
        batching="axis",
    )
)


# ---------------------------------------------------------------- helpers


def need_channels(op: str, x: TensorType) -> None:
    """Refuse a tensor without a channel axis (E101)."""
    if x.rank < 2:
        raise OpError(
            "E101", f"{op} needs [N, C, ...], found {x}", "axis 0 is the batch, axis 1 the channels"
        )


def _need_space(op: str, x: TensorType) -> None:
    if x.rank < 3:
        raise OpError(
            "E101",
            f"{op} needs [N, C, spatial...], found {x}",
            "use bn or layernorm for plain features",
        )


def _need_eps(op: str, eps: float) -> None:
    need_range(op, "eps", eps, eps >= 0, "a number of at least 0")


def need_vectors(op: str, vectors: Sequence[TensorType], size: DimLike) -> None:
    """Refuse vectors that do not hold one number per channel (E101, E103)."""
    for kind in vectors:
        if kind.rank != 1:
            raise OpError("E101", f"{op} needs weights of rank 1, found {kind}")
        need_size(op, "the size of a weight vector", kind.shape[0], size)


def _last_axes(x: TensorType, axes: Any) -> tuple[DimLike, ...]:
    need_whole("layernorm", "axes", axes)
    if axes > x.rank:
        raise OpError(
            "E101", f"layernorm over the last {axes} axes needs rank {axes} or more, found {x}"
        )
    return x.shape[x.rank - axes :]


def _affine_params(
    builder: Builder, shape: tuple[DimLike, ...], dtype: str, affine: bool
) -> list[Value]:
    if not affine:
        return []
    weight = builder.param("weight", shape, ("ones",), "norm", dtype)
    return [weight, builder.param("bias", shape, ("zeros",), "norm", dtype)]


def along_channels(vector: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A vector shaped to broadcast along axis 1 of ``x``."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def _affine(y: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    if weight is not None:
        y = y * along_channels(weight, y)
    return y if bias is None else y + along_channels(bias, y)


def _standardise(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
