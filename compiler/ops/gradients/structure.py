"""Why statements of the language, random bits and orders have no gradient; dropout, sorting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.dims import product
from ..base import gradient_of, no_gradient, zero_gradient
from ..expr import Expr, Pullback

zero_gradient(
    "what is drawn depends on the key and on no other operand, and a key is whole numbers",
    *("random_bits", "random_uniform", "random_normal", "random_permutation"),
)
zero_gradient("an index is a whole number; learn through its probabilities", "random_categorical")
zero_gradient("positions are whole numbers", "argsort", "adaptive_maxpool_places")
no_gradient("inference turns it into tensor ops first", "site", "factor", "query")
no_gradient("it is expanded into the derivative that it stands for first", "grad")


@gradient_of("dropout", "drop_path", "after")
def _identity(pull: Pullback) -> Sequence[Expr | None]:
    return [pull.d]


@gradient_of("sort")
def _sort(pull: Pullback) -> Sequence[Expr | None]:
    attrs: Any = pull.attrs
    order = pull.x[0].op("argsort", **attrs)
    return [_put_along(pull.d, order, pull.x[0], attrs["axis"])]


@gradient_of("topk")
def _topk(pull: Pullback) -> Sequence[Expr | None]:
    return [_put_along(pull.d, pull.y[1], pull.x[0], pull.attrs["axis"])]


def _put_along(d: Expr, place: Expr, x: Expr, axis: Any) -> Expr:
    """Zeros like ``x`` with each element of ``d`` at its place along an axis."""
    lines = x.moved(axis, x.rank - 1)
    count = x.writer.size(lines.shape[-1], "i64")
    rows = d.moved(axis, d.rank - 1)
    line = x.writer.make("iota", size=product(rows.shape[:-1]), dtype="i64")
    start = (line * count).reshape((*rows.shape[:-1], 1))
    flat = (place.moved(axis, place.rank - 1).cast("i64") + start).reshape((rows.type.elements,))
    base = x.writer.fill((lines.type.elements,), 0, x.dtype)
    made = base.op("scatter_add", flat, rows.reshape((rows.type.elements,)))
    return made.reshape(lines.shape).moved(x.rank - 1, axis)
