"""Gradients of normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import expansion_of, gradient_of
from ..expr import Expr, Pullback


def _affine(y: Expr, vectors: Sequence[Expr]) -> Expr:
    if vectors:
        y = y * vectors[0].per_channel(y)
    return y + vectors[1].per_channel(y) if len(vectors) > 1 else y


def _moments(x: Expr, axes: Sequence[int]) -> tuple[Expr, Expr]:
    """Mean and biased variance along axes, which stay with size 1."""
    mean = x.mean(axes, keepdims=True)
    return mean, (x - mean).square().mean(axes, keepdims=True)


def _standardised(x: Expr, axes: Sequence[int], eps: float) -> Expr:
    mean, var = _moments(x, axes)
    return (x - mean) * (var + eps).op("rsqrt")


@expansion_of("batch_norm")
def _batch_norm(x: Sequence[Expr], attrs: Any) -> Expr:
    a, mean, var, *vectors = x
    scale = (var + attrs["eps"]).op("rsqrt")
    return _affine((a - mean.per_channel(a)) * scale.per_channel(a), vectors)


@expansion_of("affine")
def _scale_and_shift(x: Sequence[Expr], attrs: Any) -> Expr:
    return _affine(x[0], x[1:])


@gradient_of("batch_norm_train")
def _batch_norm_train(pull: Pullback) -> Sequence[Expr | None]:
    if any(d is not None for d in pull.dy[1:]):
        return pull.through_expansion()
    x, _, _, *vectors = pull.x
    found = x.ops("batch_norm_backward", pull.d, pull.y[3], pull.y[4], *vectors[:1])
    return [found[0], None, None, *found[1 : 1 + len(vectors)]]


@expansion_of("batch_norm_train")
def _batch_norm_train_expansion(x: Sequence[Expr], attrs: Any) -> Sequence[Expr]:
    a, running_mean, running_var, *vectors = x
    axes = [0, *range(2, a.rank)]
    mean, var = (m.reshape(running_mean.shape) for m in _moments(a, axes))
    inv_std = (var + attrs["eps"]).op("rsqrt")
    normal = (a - mean.per_channel(a)) * inv_std.per_channel(a)
    count, momentum = a.count(axes), float(attrs["momentum"])
    unbiased = var * (count / (count - 1.0))
    new_mean = running_mean * (1 - momentum) + mean * momentum
    new_var = running_var * (1 - momentum) + unbiased * momentum
    return _affine(normal, vectors), new_mean, new_var, mean, inv_std


@expansion_of("batch_norm_backward")
def _batch_norm_backward(x: Sequence[Expr], attrs: Any) -> Sequence[Expr]:
    a, d, mean, inv_std, *weight = x
    axes = [0, *range(2, a.rank)]
    count = a.count(axes)
    normal = (a - mean.per_channel(a)) * inv_std.per_channel(a)
    d_weight, d_bias = (d * normal).sum(axes), d.sum(axes)
    shift, slope = (d_bias / count).per_channel(a), (d_weight / count).per_channel(a)
    scale = inv_std * weight[0] if weight else inv_std
    return (d - shift - normal * slope) * scale.per_channel(a), d_weight, d_bias


@expansion_of("layer_norm")
def _layer_norm(x: Sequence[Expr], attrs: Any) -> Expr:
    a, *vectors = x
    y = _standardised(a, range(a.rank - attrs["axes"], a.rank), attrs["eps"])
    y = y * vectors[0] if vectors else y
    return y + vectors[1] if len(vectors) > 1 else y


@expansion_of("instance_norm")
def _instance_norm(x: Sequence[Expr], attrs: Any) -> Expr:
    return _affine(_standardised(x[0], range(2, x[0].rank), attrs["eps"]), x[1:])


@expansion_of("group_norm")
def _group_norm(x: Sequence[Expr], attrs: Any) -> Expr:
    a, *vectors = x
    groups = attrs["groups"]
    grouped = a.reshape((a.shape[0], groups, a.shape[1] // groups, *a.shape[2:]))
    y = _standardised(grouped, range(2, grouped.rank), attrs["eps"]).reshape(a.shape)
    return _affine(y, vectors)


@expansion_of("switchable_norm")
def _switchable_norm(x: Sequence[Expr], attrs: Any) -> Expr:
    a, mean_weight, var_weight, *vectors = x
    space = tuple(range(2, a.rank))
    moments = [_moments(a, axes) for axes in (space, (1, *space), (0, *space))]
    mixed = []
    for place, logits in enumerate((mean_weight, var_weight)):
        share = logits.op("softmax", axis=0, beta=1.0)
        shares = [share.slice(0, i, i + 1).reshape(()) for i in range(3)]
        parts = [s * m[place] for s, m in zip(shares, moments, strict=True)]
        mixed.append(parts[0] + parts[1] + parts[2])
    mean, var = mixed
    return _affine((a - mean) * (var + attrs["eps"]).op("rsqrt"), vectors)


@expansion_of("lrn")
def _lrn(x: Sequence[Expr], attrs: Any) -> Expr:
    a, size = x[0], attrs["size"]
    before = [size // 2 if axis == 1 else 0 for axis in range(a.rank)]
    after = [(size - 1) // 2 if axis == 1 else 0 for axis in range(a.rank)]
    squares = a.square().pad(before, after)
    total = squares.slice(1, 0, a.shape[1])
    for i in range(1, size):
        total = total + squares.slice(1, i, i + a.shape[1])
    alpha = attrs["alpha"] / size if attrs["average"] else attrs["alpha"]
    return a * (total * alpha + attrs["k"]) ** -float(attrs["beta"])


@expansion_of("l2norm")
def _l2norm(x: Sequence[Expr], attrs: Any) -> Expr:
    a = x[0]
    length = a.square().sum([attrs["axis"] % a.rank], keepdims=True)
    # The root has no slope at 0, where the length is eps anyway.
    floor = float(attrs["eps"])
    safe = (length > floor * floor).where(length, 1).sqrt()
    return a / (length > floor * floor).where(safe, floor)
