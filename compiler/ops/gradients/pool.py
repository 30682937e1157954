"""Gradients of pooling and unpooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.types import Attrs
from ..base import gradient_of
from ..expr import Expr, Pullback


@gradient_of("maxpool")
def _maxpool(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.x[0].op("maxpool_backward", pull.y[0], pull.d, **pull.attrs)]


@gradient_of("maxpool_with_indices")
def _maxpool_with_indices(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("add_at_places", pull.y[1], size=pull.x[0].shape[2:])]


@gradient_of("add_at_places")
def _add_at_places(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("take_at_places", pull.x[1])]


@gradient_of("take_at_places")
def _take_at_places(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("add_at_places", pull.x[1], size=pull.x[0].shape[2:])]


@gradient_of("maxunpool")
def _maxunpool(pull: Pullback) -> Sequence[Expr | None]:
    # Places are those of different maxima; where two windows share one, both values are the same.
    return [pull.d.op("take_at_places", pull.x[1])]


@gradient_of("avgpool")
def _avgpool(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("avgpool_backward", **pull.attrs, size=pull.x[0].shape[2:])]


@gradient_of("avgpool_backward")
def _avgpool_backward(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("avgpool", **_without(pull.attrs, "size"))]


@gradient_of("adaptive_avgpool")
def _adaptive_avgpool(pull: Pullback) -> Sequence[Expr | None]:
    size = pull.x[0].shape[2:]
    return [pull.d.op("adaptive_avgpool_backward", count=pull.attrs["size"], size=size)]


@gradient_of("adaptive_avgpool_backward")
def _adaptive_avgpool_backward(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d.op("adaptive_avgpool", size=pull.attrs["count"])]


@gradient_of("adaptive_maxpool")
def _adaptive_maxpool(pull: Pullback) -> Sequence[Expr | None]:
    x = pull.x[0]
    places = x.op("adaptive_maxpool_places", size=pull.attrs["size"])
    return [pull.d.op("add_at_places", places, size=x.shape[2:])]


def _without(attrs: Attrs, name: str) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if key != name}
