"""Domains of weights under updates by gradient: where an optimiser works, and the way back.

Real weights are updated as they are; positive and unit ones are cut off at the border. Others are
updated in coordinates that have no border: a simplex by its logarithm, w = softmax(u), a positive
definite matrix by its Cholesky factor, w = L L^T (Pinheiro, Bates, Statistics and Computing 6,
1996). A zero of a simplex stays zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ...runtime.train.step import Group
from ..ops.expr import Expr


@dataclass(frozen=True)
class Chart:
    """Coordinates of one weight.

    ``enter`` takes the weight and its gradient to coordinates and theirs, ``leave`` goes back. They
    see a weight's own shape where ``shaped``, else all weights of a group as one row.
    """

    enter: Callable[[Expr, Expr], tuple[Expr, Expr]]
    leave: Callable[[Expr], Expr]
    shaped: bool = True


def _as_it_is(w: Expr, g: Expr) -> tuple[Expr, Expr]:
    return w, g


def _from_simplex(w: Expr, g: Expr) -> tuple[Expr, Expr]:
    inner = (w * g).sum([w.rank - 1], keepdims=True)
    return w.log(), w * (g - inner)


def _to_simplex(u: Expr) -> Expr:
    return u.op("softmax", axis=u.rank - 1, beta=1.0)


def _transposed(x: Expr) -> Expr:
    return x.transpose((*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _symmetric(w: Expr, g: Expr) -> tuple[Expr, Expr]:
    return w, (g + _transposed(g)) * 0.5


def _from_posdef(w: Expr, g: Expr) -> tuple[Expr, Expr]:
    root = w.op("cholesky")
    return root, _lower((g + _transposed(g)) @ root)


def _lower(x: Expr) -> Expr:
    size = x.shape[-1]
    spot = x.writer.make("iota", size=size, dtype="i32")
    below = spot.unsqueeze(1) >= spot
    return below.where(x, 0)


def _to_posdef(u: Expr) -> Expr:
    return u @ _transposed(u)


CHARTS: dict[str, Chart] = {
    "real": Chart(_as_it_is, lambda w: w, shaped=False),
    "positive": Chart(_as_it_is, lambda w: w.maximum(1e-6), shaped=False),
    "unit": Chart(_as_it_is, lambda w: w.maximum(0.0).minimum(1.0), shaped=False),
    "simplex": Chart(_from_simplex, _to_simplex),
    "symmetric": Chart(_symmetric, lambda w: w),
    "posdef": Chart(_from_posdef, _to_posdef),
}
"""How weights of each domain are updated."""


def entered(group: Group, domain: str, w: Expr, g: Expr) -> tuple[Expr, Expr]:
    """The coordinates of a group's flat weights, and the gradient by them."""
    chart = CHARTS[domain]
    if not chart.shaped:
        return chart.enter(w, g)
    pairs = zip(_parts(group, w), _parts(group, g), strict=True)
    rows = [chart.enter(*pair) for pair in pairs]
    return _flat(group, [u for u, _ in rows]), _flat(group, [d for _, d in rows])


def left(group: Group, domain: str, u: Expr) -> Expr:
    """Flat weights from their coordinates."""
    chart = CHARTS[domain]
    if not chart.shaped:
        return chart.leave(u)
    return _flat(group, [chart.leave(part) for part in _parts(group, u)])


def _parts(group: Group, flat: Expr) -> list[Expr]:
    found, start = [], 0
    for shape in group.shapes:
        found.append(flat.slice(0, start, start + prod(shape)).reshape(shape))
        start += prod(shape)
    return found


def _flat(group: Group, parts: list[Expr]) -> Expr:
    rows = [part.reshape((prod(n),)) for part, n in zip(parts, group.shapes, strict=True)]
    return rows[0].concat(*rows[1:], axis=0) if len(rows) > 1 else rows[0]
