"""Losses over pairs, triplets, boxes and the hardest items of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.graph import Value
from ..ir.types import INTEGERS, Attrs, TensorType
from .activations import log_softmax
from .base import Builder, Layer, Op, Operand, OpError, Setting, define, define_layer, layer_of
from .losses import (
    REDUCTION,
    at_labels,
    check_labels,
    class_layer,
    log1p_exp,
    need_labels,
    reduce_loss,
    reduced_type,
)
from .net_rules import (
    need_float,
    need_positive,
    need_range,
    need_rank,
    need_same_shape,
    need_size,
)
from .rules import axis_in, quiet

# ---------------------------------------------------------------- embeddings of one batch

_TRIPLET_REDUCTIONS = ("mean", "sum", "mean_nonzero")
_MINING = ("batch_hard", "batch_all")


def _triplet_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, label = types
    _need_embeddings("triplet", x, label)
    mining = attrs["mining"]
    need_range("triplet", "mining", mining, mining in _MINING, " or ".join(_MINING))
    return reduced_type("triplet", x, (), attrs, _TRIPLET_REDUCTIONS)


def _triplet(
    x: np.ndarray, label: np.ndarray, *, margin: float, mining: str, soft: bool, reduction: str
) -> np.ndarray:
    distance = np.sqrt(np.square(x[:, None] - x[None]).sum(axis=-1))
    same = label[:, None] == label[None]
    positive = same & ~np.eye(len(x), dtype=bool)
    if mining == "batch_hard":
        farthest = np.where(positive, distance, -np.inf).max(axis=1)
        nearest = np.where(same, np.inf, distance).min(axis=1)
        gap = (farthest - nearest)[positive.any(axis=1) & ~same.all(axis=1)]
    else:
        gap = (distance[:, :, None] - distance[:, None])[positive[:, :, None] & ~same[:, None]]
    values = log1p_exp(gap) if soft else np.maximum(gap + margin, 0)
    if reduction == "mean_nonzero":
        values, reduction = values[values > 0], "mean"
    # A batch without a single triplet has nothing to pull or push.
    return reduce_loss(values, reduction) if values.size else np.zeros((), x.dtype)


layer_of(
    define(
        Op(
            "triplet",
            (Operand("x"), Operand("label")),
            _triplet_shape,
            _triplet,
            "Triplet loss of embeddings x [N, D] by Euclidean distance: each anchor with its "
            "farthest positive and nearest negative (batch_hard), or all triplets (batch_all). "
            "soft takes log(1 + exp(gap)) for the margin. Hermans et al., 2017, arXiv:1703.07737.",
            ("margin", "mining", "soft", "reduction"),
        )
    ),
    Setting("margin", "float", 0.3),
    Setting("mining", "choice", "batch_hard", _MINING),
    Setting("soft", "bool", False),
    Setting("reduction", "choice", "mean", _TRIPLET_REDUCTIONS),
)


def _need_embeddings(op: str, x: TensorType, label: TensorType) -> None:
    need_float(op, x)
    need_rank(op, x, (2,), "embeddings [N, D]", "flatten or pool the features first")
    need_labels(op, x, label, 1)


def _center_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    x, label, centers = types
    _need_embeddings("center_loss", x, label)
    need_float("center_loss", x, centers)
    need_rank("center_loss", centers, (2,), "centers [classes, D]", "one row per class")
    need_size("center_loss", "the centers' length", centers.shape[1], x.shape[1])
    return reduced_type("center_loss", x, x.shape[:1], attrs)


def _center(x: np.ndarray, label: np.ndarray, centers: np.ndarray, *, reduction: str) -> np.ndarray:
    check_labels(label, len(centers))
    return reduce_loss(np.square(x - centers[label]).sum(axis=1) / 2, reduction)


define(
    Op(
        "center_loss",
        (Operand("x"), Operand("label"), Operand("centers")),
        _center_shape,
        _center,
        "Half the squared distance of each embedding from its class's center. Wen et al., ECCV "
        "2016.",
        ("reduction",),
    )
)


def _build_center(
    builder: Builder, tensors: Sequence[Value], *, classes: int, init: Any, reduction: str
) -> Value:
    x, label = (builder.type_of(t) for t in tensors)
    _need_embeddings("center_loss", x, label)
    need_positive("center_loss", classes, "the number of classes")
    centers = builder.param("centers", (classes, x.shape[1]), init, "weight", x.dtype)
    return builder.emit("center_loss", [*tensors, centers], {"reduction": reduction})


define_layer(
    Layer(
        "center_loss",
        (Setting("classes", "int"), Setting("init", "rule", ("normal", 0.0, 1.0)), REDUCTION),
        (2, 2),
        _build_center,
        "Center loss with one learned center per class; add it, scaled, to a cross entropy.",
        has_weights=True,
    )
)


# ---------------------------------------------------------------- given pairs and triplets


def _margin_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    anchor, positive, negative = types
    need_float("triplet_margin", *types)
    if anchor.rank == 0:
        raise OpError("E101", f"triplet_margin needs vectors [..., D], found {anchor}")
    need_same_shape("triplet_margin", anchor, positive)
    need_same_shape("triplet_margin", anchor, negative)
    norm: Any = attrs["norm"]
    need_range("triplet_margin", "norm", norm, norm > 0, "a number above 0")
    return reduced_type("triplet_margin", anchor, anchor.shape[:-1], attrs)


def _triplet_margin(
    anchor: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    *,
    margin: float,
    norm: float,
    eps: float,
    swap: bool,
    reduction: str,
) -> np.ndarray:
    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (np.abs(a - b + eps) ** norm).sum(axis=-1) ** (1 / norm)

    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = np.minimum(far, distance(positive, negative))
    return reduce_loss(np.maximum(near - far + margin, 0), reduction)


layer_of(
    define(
        Op(
            "triplet_margin",
            (Operand("anchor"), Operand("positive"), Operand("negative")),
            _margin_shape,
            _triplet_margin,
            "max(0, |anchor - positive| - |anchor - negative| + margin) over the last axis; eps is "
            "added to differences as in PyTorch; swap also tries positive - negative. Balntas et "
            "al., BMVC 2016.",
            ("margin", "norm", "eps", "swap", "reduction"),
        )
    ),
    Setting("margin", "float", 1.0),
    Setting("norm", "float", 2.0),
    Setting("eps", "float", 1e-6),
    Setting("swap", "bool", False),
    REDUCTION,
)


def _contrastive_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    a, b, same = types
    need_float("contrastive", a, b)
    need_rank("contrastive", a, (2,), "embeddings [N, D]", "flatten the features")
    need_same_shape("contrastive", a, b)
    if same.dtype not in (*INTEGERS, "bool"):
        raise OpError("E104", f"contrastive needs truth values or 0 and 1, found {same}")
    need_rank("contrastive", same, (1,), "one label per pair [N]", "1 for alike, 0 for different")
    need_size("contrastive", "the number of labels", same.shape[0], a.shape[0])
    return reduced_type("contrastive", a, a.shape[:1], attrs)


def _contrastive(
    a: np.ndarray, b: np.ndarray, same: np.ndarray, *, margin: float, reduction: str
) -> np.ndarray:
    distance = np.sqrt(np.square(a - b).sum(axis=1))
    apart = np.maximum(margin - distance, 0)
    return reduce_loss(np.square(np.where(same != 0, distance, apart)) / 2, reduction)


layer_of(
    define(
        Op(
            "contrastive",
            (Operand("a"), Operand("b"), Operand("same")),
            _contrastive_shape,
            _contrastive,
            "d^2/2 for pairs that are alike, max(0, margin - d)^2/2 for others, d the Euclidean "
            "distance. Hadsell et al., CVPR 2006.",
            ("margin", "reduction"),
        )
    ),
    Setting("margin", "float", 1.0),
    REDUCTION,
)


# ---------------------------------------------------------------- hardest items


def _mined_shape(op: str, types: Sequence[TensorType], attrs: Attrs) -> None:
    x, label = types
    need_float(op, x)
    axis: Any = attrs["axis"]
    need_labels(op, x, label, axis_in(op, axis, x.rank))


def _ohem_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    _mined_shape("ohem", types, attrs)
    keep: Any = attrs["keep"]
    need_range("ohem", "keep", keep, 0 < keep <= 1, "a fraction above 0 and up to 1")
    return [types[0].with_shape([])]


def _ohem(
    logits: np.ndarray, label: np.ndarray, *, keep: float, axis: int, ignore: int
) -> np.ndarray:
    kept = label != ignore
    losses = _class_losses(logits, np.where(kept, label, 0), axis)[kept]
    count = max(1, round(keep * losses.size))
    return np.asarray(np.sort(losses)[::-1][:count].mean(), logits.dtype)


def _hard_negative_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    _mined_shape("hard_negative", types, attrs)
    x = types[0]
    need_rank("hard_negative", x, (3,), "logits of rank 3", "[N, anchors, classes] with axis=2")
    ratio: Any = attrs["ratio"]
    need_range("hard_negative", "ratio", ratio, ratio > 0, "a number above 0")
    return [x.with_shape([])]


@quiet
def _hard_negative(logits: np.ndarray, label: np.ndarray, *, ratio: float, axis: int) -> np.ndarray:
    losses = _class_losses(logits, label, axis)
    positive = label > 0
    quota = ratio * positive.sum(axis=1, keepdims=True)
    order = np.argsort(np.where(positive, np.inf, -losses), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    kept = positive | ((rank < quota) & ~positive)
    return np.asarray(losses[kept].sum() / max(1, int(positive.sum())), logits.dtype)


def _class_losses(logits: np.ndarray, label: np.ndarray, axis: int) -> np.ndarray:
    check_labels(label, logits.shape[axis])
    every = np.ones(label.shape, bool)
    return -at_labels(log_softmax(logits, axis=axis), label, every, axis)


define(
    Op(
        "ohem",
        (Operand("logits"), Operand("label")),
        _ohem_shape,
        _ohem,
        "Online hard example mining: the mean cross entropy of the fraction `keep` of items with "
        "the largest; items labelled `ignore` do not count. Shrivastava et al., CVPR 2016.",
        ("keep", "axis", "ignore"),
    )
)
define(
    Op(
        "hard_negative",
        (Operand("logits"), Operand("label")),
        _hard_negative_shape,
        _hard_negative,
        "Cross entropy over anchors with hard negative mining: in each image all positives "
        "(label above 0) and the ratio times as many negatives of the largest loss count; the sum "
        "is divided by the number of positives. Liu et al., SSD, ECCV 2016, arXiv:1512.02325.",
        ("ratio", "axis"),
    )
)
class_layer(
    "ohem",
    (2, 2),
    Setting("keep", "float", 0.25),
    Setting("axis", "int", None),
    Setting("ignore", "int", -100),
)
class_layer("hard_negative", (2, 2), Setting("ratio", "float", 3.0), Setting("axis", "int", 2))


# ---------------------------------------------------------------- repulsion of boxes


def _repulsion_shape(op: str, attrs: Attrs, assign: TensorType, *boxes: TensorType) -> TensorType:
    need_float(op, *boxes)
    for kind in boxes:
        need_rank(op, kind, (2,), "boxes [n, 4]", "boxes are x1, y1, x2, y2")
        need_size(op, "the boxes' last axis", kind.shape[1], 4)
    if assign.dtype not in INTEGERS:
        raise OpError("E104", f"{op} needs whole-number assignments, found {assign}")
    need_rank(op, assign, (1,), "assignments [n]", "the index of each box's target")
    need_size(op, "the number of assignments", assign.shape[0], boxes[0].shape[0])
    sigma: Any = attrs["sigma"]
    need_range(op, "sigma", sigma, 0 <= sigma < 1, "from 0 up to but not including 1")
    return boxes[0].with_shape([])


def _repulsion_gt_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    boxes, targets, assign = types
    return [_repulsion_shape("repulsion_gt", attrs, assign, boxes, targets)]


def _repulsion_box_shape(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    boxes, assign = types
    return [_repulsion_shape("repulsion_box", attrs, assign, boxes)]


def _repulsion_gt(
    boxes: np.ndarray, targets: np.ndarray, assign: np.ndarray, *, sigma: float
) -> np.ndarray:
    if len(boxes) == 0 or len(targets) < 2:
        return np.zeros((), boxes.dtype)
    both = _intersections(boxes, targets)
    iou = both / (_areas(boxes)[:, None] + _areas(targets) - both)
    iou[np.arange(len(boxes)), assign] = -1
    rival = iou.argmax(axis=1)
    covered = both[np.arange(len(boxes)), rival] / _areas(targets)[rival]
    return np.asarray(_smooth_ln(covered, sigma).mean(), boxes.dtype)


def _repulsion_box(
    boxes: np.ndarray, assign: np.ndarray, *, sigma: float, eps: float
) -> np.ndarray:
    first, second = np.triu_indices(len(boxes), 1)
    apart = assign[first] != assign[second]
    first, second = first[apart], second[apart]
    both = _intersections(boxes, boxes)[first, second]
    areas = _areas(boxes)
    iou = both / (areas[first] + areas[second] - both)
    return np.asarray(_smooth_ln(iou, sigma).sum() / ((iou > 0).sum() + eps), boxes.dtype)


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=-1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)


def _smooth_ln(x: np.ndarray, sigma: float) -> np.ndarray:
    """-ln(1 - x) up to ``sigma``, then its tangent there."""
    line = (x - sigma) / (1 - sigma) - np.log1p(-sigma)
    return np.where(x <= sigma, -np.log1p(-np.minimum(x, sigma)), line)


_SIGMA = Setting("sigma", "float", 0.5)

layer_of(
    define(
        Op(
            "repulsion_gt",
            (Operand("boxes"), Operand("targets"), Operand("assign")),
            _repulsion_gt_shape,
            _repulsion_gt,
            "RepGT: keeps each box off the target it overlaps most besides its own, by smooth_ln "
            "of the covered part of that target, averaged. Boxes are x1, y1, x2, y2. Wang et al., "
            "Repulsion Loss, CVPR 2018, arXiv:1711.07752.",
            ("sigma",),
        )
    ),
    _SIGMA,
)
layer_of(
    define(
        Op(
            "repulsion_box",
            (Operand("boxes"), Operand("assign")),
            _repulsion_box_shape,
            _repulsion_box,
            "RepBox: keeps boxes of different targets apart, by smooth_ln of their intersection "
            "over union, per overlapping pair. Wang et al., CVPR 2018, arXiv:1711.07752.",
            ("sigma", "eps"),
        )
    ),
    _SIGMA,
    Setting("eps", "float", 1e-6),
)
