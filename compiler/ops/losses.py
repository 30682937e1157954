"""Losses over elements, classes and distributions.

Every loss ends in ``reduction``: the mean, the sum, or none (one value per item). As in PyTorch,
the mean of a weighted class loss divides by the weights of the items' classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike
from ..ir.graph import Value
from ..ir.types import INTEGERS, Attrs, TensorType
from .activations import log_softmax
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer, layer_of
from .net_rules import need_float, need_range, need_rank, need_same_shape, need_size
from .rules import axis_in, quiet, require_kind

REDUCTIONS = ("mean", "sum", "none")
REDUCTION = Setting("reduction", "choice", "mean", REDUCTIONS)
_AXIS = Setting("axis", "int", None)
_IGNORE = Setting("ignore", "int", -100)


def reduced_type(
    op: str,
    x: TensorType,
    items: Sequence[DimLike],
    attrs: Attrs,
    known: Sequence[str] = REDUCTIONS,
) -> list[TensorType]:
    """The result type of a loss with one value for each of ``items``."""
    reduction = attrs["reduction"]
    need_range(op, "reduction", reduction, reduction in known, "one of " + ", ".join(known))
    return [x.with_shape(list(items) if reduction == "none" else [])]


def reduce_loss(values: np.ndarray, reduction: str) -> np.ndarray:
    """Apply a reduction to one value per item."""
    if reduction == "none":
        return values
    return np.asarray(values.mean() if reduction == "mean" else values.sum(), values.dtype)


# ---------------------------------------------------------------- over elements


def _pairwise(
    name: str,
    values: Callable[..., np.ndarray],
    operands: tuple[str, str],
    doc: str,
    *settings: Setting,
) -> None:
    """Enter a loss of two tensors of one shape, computed element by element."""

    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        need_float(name, *types)
        need_same_shape(name, *types)
        return reduced_type(name, types[0], types[0].shape, attrs)

    @quiet
    def reference(x: np.ndarray, y: np.ndarray, *, reduction: str, **attrs: Any) -> np.ndarray:
        return reduce_loss(values(x, y, **attrs), reduction)

    attrs = (*(setting.name for setting in settings), "reduction")
    op = Op(name, tuple(Operand(o) for o in operands), shape, reference, doc, attrs)
    layer_of(define(op), *settings, REDUCTION)


def _smooth_l1(x: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    d = np.abs(x - y)
    if beta == 0:
        return d
    return np.where(d < beta, 0.5 * d * d / beta, d - 0.5 * beta)


def _huber(x: np.ndarray, y: np.ndarray, delta: float) -> np.ndarray:
    d = np.abs(x - y)
    return np.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta))


def _bce(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A certain but wrong answer costs 100, not infinity, as in PyTorch.
    return -(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100))


def _bce_logits(x: np.ndarray, y: np.ndarray, pos_weight: float = 1.0) -> np.ndarray:
    return (1 - y) * x + (1 + (pos_weight - 1) * y) * log1p_exp(-x)


def _focal(x: np.ndarray, y: np.ndarray, alpha: float, gamma: float) -> np.ndarray:
    p = np.exp(-log1p_exp(-x))
    wrong = p * (1 - y) + (1 - p) * y
    loss = _bce_logits(x, y) * wrong**gamma
    return loss if alpha < 0 else (alpha * y + (1 - alpha) * (1 - y)) * loss


def log1p_exp(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_PREDICTED = ("x", "target")
_PROBABLE = ("p", "target")
_SIGNED = ("score", "target")
_MARGIN = Setting("margin", "float", 1.0)

_pairwise("mse", lambda x, y: np.square(x - y), _PREDICTED, "Squared difference.")
_pairwise("l1", lambda x, y: np.abs(x - y), _PREDICTED, "Absolute difference.")
_pairwise(
    "smooth_l1",
    _smooth_l1,
    _PREDICTED,
    "d^2/(2 beta) where the difference d is below beta, else d - beta/2. Girshick, Fast R-CNN, "
    "ICCV 2015.",
    Setting("beta", "float", 1.0),
)
_pairwise(
    "huber",
    _huber,
    _PREDICTED,
    "d^2/2 up to a difference d of delta, then delta*(d - delta/2). Huber, 1964.",
    Setting("delta", "float", 1.0),
)
_pairwise(
    "bce",
    _bce,
    _PROBABLE,
    "Binary cross entropy of probabilities; each logarithm is at least -100.",
)
_pairwise(
    "bce_logits",
    _bce_logits,
    _PREDICTED,
    "Binary cross entropy of sigmoid(x), without overflow; positives weigh pos_weight.",
    Setting("pos_weight", "float", 1.0),
)
_pairwise(
    "focal",
    _focal,
    _PREDICTED,
    "(1 - p_t)^gamma times the binary cross entropy of sigmoid(x), weighted alpha for positives "
    "and 1 - alpha for negatives; a negative alpha leaves the weights out. Lin et al., ICCV 2017, "
    "arXiv:1708.02002.",
    Setting("alpha", "float", 0.25),
    Setting("gamma", "float", 2.0),
)
_pairwise(
    "hinge",
    lambda s, t, margin: np.maximum(margin - t * s, 0),
    _SIGNED,
    "max(0, margin - target*score) for targets of -1 and 1. Cortes and Vapnik, 1995.",
    _MARGIN,
)
_pairwise(
    "square_hinge",
    lambda s, t, margin: np.square(np.maximum(margin - t * s, 0)),
    _SIGNED,
    "The square of hinge.",
    _MARGIN,
)
_pairwise(
    "logistic",
    lambda s, t: log1p_exp(-t * s),
    _SIGNED,
    "log(1 + exp(-target*score)) for targets of -1 and 1.",
)
_pairwise(
    "zero_one",
    lambda s, t: (t * s <= 0).astype(s.dtype),
    _SIGNED,
    "1 where the sign of score is not that of target, else 0; it has no useful gradient.",
)


# ---------------------------------------------------------------- over classes


def _class_operands(first: str) -> tuple[Operand, ...]:
    return (Operand(first), Operand("label"), Operand("weight", optional=True))


def _cross_entropy_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, label, *weight = types
    axis = _class_axis("cross_entropy", x, attrs)
    smoothing: Any = attrs["smoothing"]
    need_range("cross_entropy", "smoothing", smoothing, 0 <= smoothing <= 1, "from 0 to 1")
    if label.is_float:
        need_float("cross_entropy", x, label)
        need_same_shape("cross_entropy", x, label)
    else:
        need_labels("cross_entropy", x, label, axis)
    _need_class_weights("cross_entropy", x, weight, axis)
    return reduced_type("cross_entropy", x, _without(x.shape, axis), attrs)


@quiet
def _cross_entropy(
    logits: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    smoothing: float,
    axis: int,
    ignore: int,
    reduction: str,
) -> np.ndarray:
    logp = log_softmax(logits, axis=axis)
    classes = logits.shape[axis]
    scaled = logp if weight is None else logp * _along(weight, axis, logp.ndim)
    if label.dtype.kind == "f":
        target = (1 - smoothing) * label + smoothing / classes
        return reduce_loss(-(target * scaled).sum(axis=axis), reduction)
    kept, share = _pick(label, weight, classes, ignore, logits.dtype)
    hit = -at_labels(scaled, label, kept, axis)
    spread = np.where(kept, -scaled.sum(axis=axis) / classes, 0)
    values = hit if smoothing == 0 else (1 - smoothing) * hit + smoothing * spread
    return _weighted(values, share, reduction)


def _nll_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, label, *weight = types
    axis = _class_axis("nll", x, attrs)
    need_labels("nll", x, label, axis)
    _need_class_weights("nll", x, weight, axis)
    return reduced_type("nll", x, _without(x.shape, axis), attrs)


@quiet
def _nll(
    logp: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    axis: int,
    ignore: int,
    reduction: str,
) -> np.ndarray:
    kept, share = _pick(label, weight, logp.shape[axis], ignore, logp.dtype)
    return _weighted(-at_labels(logp, label, kept, axis) * share, share, reduction)


def _softmax_focal_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, label = types
    axis = _class_axis("softmax_focal", x, attrs)
    need_labels("softmax_focal", x, label, axis)
    return reduced_type("softmax_focal", x, _without(x.shape, axis), attrs)


@quiet
def _softmax_focal(
    logits: np.ndarray, label: np.ndarray, *, gamma: float, axis: int, reduction: str
) -> np.ndarray:
    check_labels(label, logits.shape[axis])
    logp = at_labels(log_softmax(logits, axis=axis), label, np.ones(label.shape, bool), axis)
    return reduce_loss(-((-np.expm1(logp)) ** gamma) * logp, reduction)


def _margins_shape(op: str) -> Callable[[Sequence[TensorType], Attrs], list[TensorType]]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        x, label = types
        need_rank(op, x, (2,), "scores [N, classes]", "merge the other axes into the batch")
        need_float(op, x)
        need_labels(op, x, label, 1)
        return reduced_type(op, x, x.shape[:1], attrs)

    return shape


def _violations(x: np.ndarray, label: np.ndarray, margin: float) -> np.ndarray:
    """How far each wrong class comes within ``margin`` of the right one; 0 at the right one."""
    check_labels(label, x.shape[1])
    right = np.take_along_axis(x, label[:, None].astype(np.int64), axis=1)
    wrong = np.arange(x.shape[1]) != label[:, None]
    return np.where(wrong, np.maximum(margin - right + x, 0), 0)


def _multi_margin(
    x: np.ndarray, label: np.ndarray, *, p: int, margin: float, reduction: str
) -> np.ndarray:
    return reduce_loss((_violations(x, label, margin) ** p).mean(axis=1), reduction)


def _crammer_singer(
    x: np.ndarray, label: np.ndarray, *, margin: float, reduction: str
) -> np.ndarray:
    return reduce_loss(_violations(x, label, margin).max(axis=1), reduction)


define(
    Op(
        "cross_entropy",
        _class_operands("logits"),
        _cross_entropy_shape,
        _cross_entropy,
        "-log softmax(logits) at the label; labels are class numbers, or class probabilities when "
        "they are floats of the logits' shape. smoothing mixes in the uniform distribution "
        "(Szegedy et al., CVPR 2016); items labelled `ignore` do not count.",
        ("smoothing", "axis", "ignore", "reduction"),
    )
)
define(
    Op(
        "nll",
        _class_operands("logp"),
        _nll_shape,
        _nll,
        "Minus the log-probability at the label; items labelled `ignore` do not count.",
        ("axis", "ignore", "reduction"),
    )
)
define(
    Op(
        "softmax_focal",
        (Operand("logits"), Operand("label")),
        _softmax_focal_shape,
        _softmax_focal,
        "-(1 - p)^gamma log p for the probability p of the labelled class. Lin et al., ICCV 2017.",
        ("gamma", "axis", "reduction"),
    )
)
layer_of(
    define(
        Op(
            "multi_margin",
            (Operand("x"), Operand("label")),
            _margins_shape("multi_margin"),
            _multi_margin,
            "Mean over classes of max(0, margin - x[label] + x[j])^p for j other than the label. "
            "Weston and Watkins, ESANN 1999.",
            ("p", "margin", "reduction"),
        )
    ),
    Setting("p", "int", 1),
    _MARGIN,
    REDUCTION,
)
layer_of(
    define(
        Op(
            "crammer_singer",
            (Operand("x"), Operand("label")),
            _margins_shape("crammer_singer"),
            _crammer_singer,
            "The largest margin violation of any wrong class. Crammer and Singer, JMLR 2001.",
            ("margin", "reduction"),
        )
    ),
    _MARGIN,
    REDUCTION,
)


def class_layer(name: str, operands: tuple[int, int], *settings: Setting) -> None:
    """The layer of a loss over a class axis: axis 1, or 0 for a vector, unless given."""

    def build(
        builder: Builder, tensors: Sequence[Value], *, axis: int | None, **values: Any
    ) -> Value:
        rank = builder.type_of(tensors[0]).rank
        axis = min(1, rank - 1) if axis is None else axis
        return builder.emit(name, tensors, {"axis": axis_in(name, axis, rank), **values})

    doc = f"The op {name}; classes lie on axis 1, or 0 for a vector, unless axis is given."
    define_layer(Layer(name, settings, operands, build, doc))


class_layer("cross_entropy", (2, 3), Setting("smoothing", "float", 0.0), _AXIS, _IGNORE, REDUCTION)
class_layer("nll", (2, 3), _AXIS, _IGNORE, REDUCTION)
class_layer("softmax_focal", (2, 2), Setting("gamma", "float", 2.0), _AXIS, REDUCTION)


# ---------------------------------------------------------------- between distributions


def _xlogx_over(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """P log(p/q), zero where p is zero."""
    return np.where(p > 0, p * (np.log(p) - np.log(q)), 0)


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    m = (p + q) / 2
    return (_xlogx_over(p, m) + _xlogx_over(q, m)) / 2


_DIVERGENCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "kl": _xlogx_over,
    "rev_kl": lambda p, q: _xlogx_over(q, p),
    "js": _jensen_shannon,
    "chi2": lambda p, q: np.where(p == q, 0, np.square(p - q) / q),
    "tv": lambda p, q: np.abs(p - q) / 2,
    "hellinger2": lambda p, q: np.square(np.sqrt(p) - np.sqrt(q)) / 2,
}


def _divergence_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    p, q = types
    kind = attrs["kind"]
    known = ", ".join(_DIVERGENCES)
    need_range("f_divergence", "kind", kind, kind in _DIVERGENCES, f"one of {known}")
    need_float("f_divergence", p, q)
    need_same_shape("f_divergence", p, q)
    axis = _class_axis("f_divergence", p, attrs)
    return reduced_type("f_divergence", p, _without(p.shape, axis), attrs)


@quiet
def _f_divergence(
    p: np.ndarray, q: np.ndarray, *, kind: str, axis: int, reduction: str
) -> np.ndarray:
    return reduce_loss(_DIVERGENCES[kind](p, q).sum(axis=axis), reduction)


define(
    Op(
        "f_divergence",
        (Operand("p"), Operand("q")),
        _divergence_shape,
        _f_divergence,
        "Divergence of p from q, both probabilities along one axis, in nats: kl, rev_kl, js, chi2, "
        "tv (total variation) or hellinger2. Csiszar, 1967; Lin, IEEE IT 1991 (js).",
        ("kind", "axis", "reduction"),
    )
)


def _divergence_layer(name: str, kind: str | None, doc: str) -> None:
    def build(
        builder: Builder, tensors: Sequence[Value], *, axis: int | None, **values: Any
    ) -> Value:
        rank = builder.type_of(tensors[0]).rank
        axis = min(1, rank - 1) if axis is None else axis
        attrs = {"axis": axis_in(name, axis, rank), **values}
        return builder.emit(
            "f_divergence", tensors, attrs if kind is None else attrs | {"kind": kind}
        )

    chosen = (Setting("kind", "choice", "kl", tuple(_DIVERGENCES)),) if kind is None else ()
    define_layer(Layer(name, (*chosen, _AXIS, REDUCTION), (2, 2), build, doc))


_divergence_layer("f_divergence", None, "An f-divergence between rows of probabilities.")
_divergence_layer(
    "kl_div", "kl", "Kullback-Leibler divergence: sum of p log(p/q); p and q are probabilities."
)
_divergence_layer("js_div", "js", "Jensen-Shannon divergence of two tensors of probabilities.")


# ---------------------------------------------------------------- overlap of masks


def _overlap(name: str, score: Callable[..., Any], doc: str) -> None:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        need_float(name, *types)
        need_same_shape(name, *types)
        return [types[0].with_shape([])]

    @quiet
    def reference(p: np.ndarray, target: np.ndarray, *, smooth: float) -> np.ndarray:
        return np.asarray(1 - score((p * target).sum(), p.sum() + target.sum(), smooth), p.dtype)

    op = Op(name, (Operand("p"), Operand("target")), shape, reference, doc, ("smooth",))
    layer_of(define(op), Setting("smooth", "float", 0.0))


_overlap(
    "dice",
    lambda both, total, smooth: (2 * both + smooth) / (total + smooth),
    "1 - (2 sum(p*target) + smooth) / (sum p + sum target + smooth) over the whole tensor. "
    "Milletari et al., V-Net, 3DV 2016.",
)
_overlap(
    "jaccard",
    lambda both, total, smooth: (both + smooth) / (total - both + smooth),
    "1 - soft intersection over union of the whole tensor. Rahman and Wang, ISVC 2016.",
)


# ---------------------------------------------------------------- helpers


def _class_axis(op: str, x: TensorType, attrs: Attrs) -> int:
    require_kind(op, x, "float")
    axis: Any = attrs["axis"]
    return axis_in(op, axis, x.rank)


def _without(shape: Sequence[Any], axis: int) -> list[Any]:
    return [*shape[:axis], *shape[axis + 1 :]]


def need_labels(op: str, x: TensorType, label: TensorType, axis: int) -> None:
    """Refuse labels that are not whole numbers of ``x``'s shape less the class axis."""
    if label.dtype not in INTEGERS:
        raise OpError(
            "E104", f"{op} needs whole-number labels, found {label}", "declare them i32 or i64"
        )
    items = x.with_shape(_without(x.shape, axis))
    need_same_shape(f"{op} (less its class axis {axis})", items, label)


def _need_class_weights(op: str, x: TensorType, weight: Sequence[TensorType], axis: int) -> None:
    for kind in weight:
        need_float(op, x, kind)
        need_rank(op, kind, (1,), "class weights of rank 1", "give one weight per class")
        need_size(op, "the number of class weights", kind.shape[0], x.shape[axis])


def check_labels(label: np.ndarray, classes: int) -> None:
    """Refuse class numbers outside ``0..classes``."""
    if label.size and not (label.min() >= 0 and label.max() < classes):
        raise ValueError(f"labels must lie in 0..{classes}, found {label.min()}..{label.max()}")


def _pick(
    label: np.ndarray, weight: np.ndarray | None, classes: int, ignore: int, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Which items count, and the weight of each item's class (0 where it does not)."""
    kept = label != ignore
    labels = np.where(kept, label, 0)
    check_labels(labels, classes)
    share = np.ones(label.shape, dtype) if weight is None else weight[labels]
    return kept, np.where(kept, share, 0).astype(dtype)


def at_labels(values: np.ndarray, label: np.ndarray, kept: np.ndarray, axis: int) -> np.ndarray:
    """``values`` at each item's label; 0 for items that do not count."""
    places = np.expand_dims(np.where(kept, label, 0).astype(np.int64), axis)
    found = np.take_along_axis(values, places, axis=axis)
    return np.where(kept, np.squeeze(found, axis), 0)


def _along(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return vector.reshape(-1, *(1,) * (rank - axis % rank - 1))


def _weighted(values: np.ndarray, share: np.ndarray, reduction: str) -> np.ndarray:
    if reduction == "mean":
        return np.asarray(values.sum() / share.sum(), values.dtype)
    return reduce_loss(values, reduction)
