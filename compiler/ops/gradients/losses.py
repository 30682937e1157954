"""Losses by simpler ops: what their gradients go through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base import expansion_of
from ..expr import Expr

_Formula = Callable[[Expr, Expr, Any], Expr]


def reduced(values: Expr, reduction: str) -> Expr:
    """The mean, the sum, or the values themselves."""
    return values if reduction == "none" else values.reduce(reduction)


def log1p_exp(x: Expr) -> Expr:
    """log(1 + exp(x)) without overflow."""
    return x.op("softplus", beta=1.0)


def _smooth_l1(x: Expr, y: Expr, a: Any) -> Expr:
    d, beta = (x - y).abs(), float(a["beta"])
    return (d < beta).where(0.5 / beta * d.square(), d - 0.5 * beta) if beta else d


def _huber(x: Expr, y: Expr, a: Any) -> Expr:
    d, delta = (x - y).abs(), float(a["delta"])
    return (d <= delta).where(0.5 * d.square(), delta * (d - 0.5 * delta))


def _bce(p: Expr, y: Expr, a: Any) -> Expr:
    hit, miss = p.log().maximum(-100), (-p).log1p().maximum(-100)
    return -(y * hit + (1.0 - y) * miss)


def _bce_logits(x: Expr, y: Expr, pos_weight: float) -> Expr:
    return (1.0 - y) * x + (y * (pos_weight - 1) + 1.0) * log1p_exp(-x)


def _focal(x: Expr, y: Expr, a: Any) -> Expr:
    p = x.op("sigmoid", slope=1.0)
    wrong = p * (1.0 - y) + (1.0 - p) * y
    loss = _bce_logits(x, y, 1.0) * wrong ** float(a["gamma"])
    alpha = a["alpha"]
    return loss if alpha < 0 else (alpha * y + (1 - alpha) * (1.0 - y)) * loss


_PAIRWISE: dict[str, _Formula] = {
    "mse": lambda x, y, a: (x - y).square(),
    "l1": lambda x, y, a: (x - y).abs(),
    "smooth_l1": _smooth_l1,
    "huber": _huber,
    "bce": _bce,
    "bce_logits": lambda x, y, a: _bce_logits(x, y, float(a["pos_weight"])),
    "focal": _focal,
    "hinge": lambda s, t, a: (a["margin"] - t * s).op("relu"),
    "square_hinge": lambda s, t, a: (a["margin"] - t * s).op("relu").square(),
    "logistic": lambda s, t, a: log1p_exp(-t * s),
}


def _pairwise(formula: _Formula) -> Callable[[Sequence[Expr], Any], Expr]:
    return lambda x, attrs: reduced(formula(x[0], x[1], attrs), attrs["reduction"])


for _name, _formula in _PAIRWISE.items():
    expansion_of(_name)(_pairwise(_formula))


# ---------------------------------------------------------------- over classes


def picked(values: Expr, label: Expr, axis: int) -> Expr:
    """``values`` at each item's label along an axis, which goes."""
    hot = label.op("one_hot", size=values.shape[axis], dtype=values.dtype)
    return (values * hot.moved(hot.rank - 1, axis)).sum([axis])


def _kept(label: Expr, ignore: int, dtype: str) -> tuple[Expr, Expr]:
    """Labels with 0 in place of those that do not count, and 1 for those that do, else 0."""
    kept = ~label.same(ignore)
    return kept.where(label, 0), kept.cast(dtype)


def _weights(label: Expr, kept: Expr, weight: Sequence[Expr]) -> Expr:
    """The weight of each item's class, 0 where it does not count."""
    return kept * weight[0].op("take", label, axis=0) if weight else kept


def _weighted(values: Expr, share: Expr, reduction: str) -> Expr:
    return values.sum() / share.sum() if reduction == "mean" else reduced(values, reduction)


@expansion_of("cross_entropy")
def _cross_entropy(x: Sequence[Expr], attrs: Any) -> Expr:
    logits, label, *weight = x
    axis, smoothing = attrs["axis"] % logits.rank, float(attrs["smoothing"])
    logp = logits.op("log_softmax", axis=axis)
    scaled = logp * weight[0].per_channel(logits, axis) if weight else logp
    classes = logits.count([axis])
    if label.type.is_float:
        target = label * (1 - smoothing) + smoothing / classes if smoothing else label
        return reduced(-(target * scaled).sum([axis]), attrs["reduction"])
    label, kept = _kept(label, attrs["ignore"], logits.dtype)
    values = -picked(scaled, label, axis)
    if smoothing:
        values = values * (1 - smoothing) - scaled.sum([axis]) / classes * smoothing
    return _weighted(values * kept, _weights(label, kept, weight), attrs["reduction"])


@expansion_of("nll")
def _nll(x: Sequence[Expr], attrs: Any) -> Expr:
    logp, label, *weight = x
    label, kept = _kept(label, attrs["ignore"], logp.dtype)
    share = _weights(label, kept, weight)
    values = -picked(logp, label, attrs["axis"] % logp.rank) * share
    return _weighted(values, share, attrs["reduction"])


@expansion_of("softmax_focal")
def _softmax_focal(x: Sequence[Expr], attrs: Any) -> Expr:
    logits, label = x
    axis = attrs["axis"] % logits.rank
    logp = picked(logits.op("log_softmax", axis=axis), label, axis)
    return reduced(-((-logp.op("expm1")) ** float(attrs["gamma"])) * logp, attrs["reduction"])


def _violations(x: Expr, label: Expr, margin: float) -> Expr:
    """How far each wrong class comes within ``margin`` of the right one; 0 at the right one."""
    hot = label.op("one_hot", size=x.shape[1], dtype=x.dtype)
    right = (x * hot).sum([1], keepdims=True)
    return (margin - right + x).op("relu") * (1.0 - hot)


@expansion_of("multi_margin")
def _multi_margin(x: Sequence[Expr], attrs: Any) -> Expr:
    found = _violations(x[0], x[1], attrs["margin"])
    power = found if attrs["p"] == 1 else found ** float(attrs["p"])
    return reduced(power.mean([1]), attrs["reduction"])


@expansion_of("crammer_singer")
def _crammer_singer(x: Sequence[Expr], attrs: Any) -> Expr:
    found = _violations(x[0], x[1], attrs["margin"])
    return reduced(found.reduce("max", [1]), attrs["reduction"])


# ---------------------------------------------------------------- distributions and masks


def _xlogx_over(p: Expr, q: Expr) -> Expr:
    safe = (p > 0).where(p, 1)
    return (p > 0).where(p * (safe.log() - q.log()), 0)


def _jensen_shannon(p: Expr, q: Expr) -> Expr:
    m = (p + q) * 0.5
    return (_xlogx_over(p, m) + _xlogx_over(q, m)) * 0.5


_DIVERGENCES: dict[str, Callable[[Expr, Expr], Expr]] = {
    "kl": _xlogx_over,
    "rev_kl": lambda p, q: _xlogx_over(q, p),
    "js": _jensen_shannon,
    "chi2": lambda p, q: p.same(q).where(0, (p - q).square() / q),
    "tv": lambda p, q: (p - q).abs() * 0.5,
    "hellinger2": lambda p, q: (p.sqrt() - q.sqrt()).square() * 0.5,
}


@expansion_of("f_divergence")
def _f_divergence(x: Sequence[Expr], attrs: Any) -> Expr:
    values = _DIVERGENCES[attrs["kind"]](*x).sum([attrs["axis"] % x[0].rank])
    return reduced(values, attrs["reduction"])


@expansion_of("dice")
def _dice(x: Sequence[Expr], attrs: Any) -> Expr:
    p, target = x
    smooth = float(attrs["smooth"])
    return 1.0 - (2.0 * (p * target).sum() + smooth) / (p.sum() + target.sum() + smooth)


@expansion_of("jaccard")
def _jaccard(x: Sequence[Expr], attrs: Any) -> Expr:
    p, target = x
    smooth, both = float(attrs["smooth"]), (p * target).sum()
    return 1.0 - (both + smooth) / (p.sum() + target.sum() - both + smooth)
