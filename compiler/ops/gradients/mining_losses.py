"""Losses over pairs, triplets, boxes and the hardest items, by simpler ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..base import expansion_of
from ..expr import Expr
from .losses import log1p_exp, picked, reduced

_INF = float("inf")


def _root(x: Expr) -> Expr:
    """The square root, with slope 0 at 0."""
    return (x > 0).where((x > 0).where(x, 1).sqrt(), 0)


def _mean_of(values: Expr, held: Expr) -> Expr:
    """The mean of the values that are held; 0 when none is."""
    count = held.cast(values.dtype).sum().maximum(1)
    return held.where(values, 0).sum() / count


@expansion_of("triplet")
def _triplet(x: Sequence[Expr], attrs: Any) -> Expr:
    a, label = x
    distance = _root((a.unsqueeze(1) - a.unsqueeze(0)).square().sum([2]))
    same = label.unsqueeze(1).same(label.unsqueeze(0))
    eye = a.writer.make("eye", size=a.shape[0], dtype=a.dtype) > 0
    positive = same & ~eye
    if attrs["mining"] == "batch_hard":
        held = positive.reduce("any", [1]) & ~same.reduce("all", [1])
        farthest = positive.where(distance, -_INF).reduce("max", [1])
        nearest = same.where(_INF, distance).reduce("min", [1])
        gap = held.where(farthest, 0) - held.where(nearest, 0)
    else:
        held = positive.unsqueeze(2) & ~same.unsqueeze(1)
        gap = distance.unsqueeze(2) - distance.unsqueeze(1)
    values = log1p_exp(gap) if attrs["soft"] else (gap + attrs["margin"]).op("relu")
    if attrs["reduction"] == "sum":
        return held.where(values, 0).sum()
    return _mean_of(values, held & (values > 0) if attrs["reduction"] != "mean" else held)


@expansion_of("center_loss")
def _center(x: Sequence[Expr], attrs: Any) -> Expr:
    a, label, centers = x
    apart = (a - centers.op("take", label, axis=0)).square().sum([1]) * 0.5
    return reduced(apart, attrs["reduction"])


@expansion_of("triplet_margin")
def _triplet_margin(x: Sequence[Expr], attrs: Any) -> Expr:
    anchor, positive, negative = x
    norm = float(attrs["norm"])

    def distance(a: Expr, b: Expr) -> Expr:
        apart = (a - b + attrs["eps"]).abs()
        return (apart**norm).sum([a.rank - 1]) ** (1 / norm)

    near, far = distance(anchor, positive), distance(anchor, negative)
    if attrs["swap"]:
        far = far.minimum(distance(positive, negative))
    return reduced((near - far + attrs["margin"]).op("relu"), attrs["reduction"])


@expansion_of("contrastive")
def _contrastive(x: Sequence[Expr], attrs: Any) -> Expr:
    a, b, same = x
    square = (a - b).square().sum([1])
    apart = (attrs["margin"] - _root(square)).op("relu").square()
    alike = same if same.dtype == "bool" else ~same.same(0)
    return reduced(alike.where(square, apart) * 0.5, attrs["reduction"])


def _class_losses(logits: Expr, label: Expr, axis: int) -> Expr:
    return -picked(logits.op("log_softmax", axis=axis), label, axis)


@expansion_of("ohem")
def _ohem(x: Sequence[Expr], attrs: Any) -> Expr:
    logits, label = x
    kept = ~label.same(attrs["ignore"])
    axis = attrs["axis"] % logits.rank
    losses = _class_losses(logits, kept.where(label, 0), axis)
    size = losses.type.elements
    flat = kept.where(losses, -_INF).reshape((size,))
    falling = flat.op("sort", axis=0, descending=True)
    # In double, so that the count is the same in every element type.
    count = (kept.cast("f64").sum() * float(attrs["keep"])).op("round").maximum(1)
    first = logits.writer.make("iota", size=size, dtype="f64") < count
    return first.where(falling, 0).sum() / count.cast(logits.dtype)


@expansion_of("hard_negative")
def _hard_negative(x: Sequence[Expr], attrs: Any) -> Expr:
    logits, label = x
    losses = _class_losses(logits, label, attrs["axis"] % logits.rank)
    positive = label > 0
    quota = positive.cast("f64").sum([1], keepdims=True) * float(attrs["ratio"])
    order = positive.where(_INF, -losses).op("argsort", axis=1, descending=False)
    rank = order.op("argsort", axis=1, descending=False).cast("f64")
    kept = positive | ((rank < quota) & ~positive)
    return kept.where(losses, 0).sum() / positive.cast(losses.dtype).sum().maximum(1)


# ---------------------------------------------------------------- boxes


def _column(boxes: Expr, place: int) -> Expr:
    return boxes.slice(1, place, place + 1).reshape(boxes.shape[:1])


def _areas(boxes: Expr) -> Expr:
    x1, y1, x2, y2 = (_column(boxes, place) for place in range(4))
    return (x2 - x1) * (y2 - y1)


def _intersections(a: Expr, b: Expr) -> Expr:
    sides = []
    for low, high in ((0, 2), (1, 3)):
        start = _column(a, low).unsqueeze(1).maximum(_column(b, low))
        end = _column(a, high).unsqueeze(1).minimum(_column(b, high))
        sides.append((end - start).op("relu"))
    return sides[0] * sides[1]


def _smooth_ln(x: Expr, sigma: float) -> Expr:
    line = (x - sigma) * (1 / (1 - sigma)) - math.log1p(-sigma)
    return (x <= sigma).where(-(-x.minimum(sigma)).log1p(), line)


@expansion_of("repulsion_gt")
def _repulsion_gt(x: Sequence[Expr], attrs: Any) -> Expr:
    boxes, targets, assign = x
    if targets.shape[0] == 1:
        return boxes.sum() * 0.0
    both, areas = _intersections(boxes, targets), _areas(targets)
    iou = both / (_areas(boxes).unsqueeze(1) + areas - both)
    own = assign.op("one_hot", size=targets.shape[0], dtype=boxes.dtype) > 0
    rival = own.where(-1, iou).op("argmax", axis=1, keepdims=False)
    covered = picked(both, rival, 1) / areas.op("take", rival, axis=0)
    return _smooth_ln(covered, attrs["sigma"]).mean()


@expansion_of("repulsion_box")
def _repulsion_box(x: Sequence[Expr], attrs: Any) -> Expr:
    boxes, assign = x
    both, areas = _intersections(boxes, boxes), _areas(boxes)
    iou = both / (areas.unsqueeze(1) + areas - both)
    each = boxes.writer.fill(iou.shape, 1, boxes.dtype)
    apart = (each.op("triu", k=1) > 0) & ~assign.unsqueeze(1).same(assign.unsqueeze(0))
    found = apart.where(_smooth_ln(apart.where(iou, 0), attrs["sigma"]), 0)
    count = (apart & (iou > 0)).cast(boxes.dtype).sum()
    return found.sum() / (count + attrs["eps"])
