"""Gradients of linear algebra on the last two axes (Giles, 2008; Roberts and Roberts, 2020).

``cholesky`` and ``eigh`` read the lower triangle alone, so that all of the cotangent goes there.
Where eigenvalues or singular values are equal their vectors have no derivative; it comes out as
inf or nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import gradient_of
from ..expr import Expr, Pullback


def _eye(x: Expr) -> Expr:
    return x.writer.make("eye", size=x.shape[-1], dtype=x.dtype)


def _diagonal(x: Expr) -> Expr:
    """Only the diagonal of matrices, zero elsewhere."""
    return x * _eye(x)


def _times_columns(x: Expr, scale: Expr) -> Expr:
    """Column j times element j."""
    return x * scale.unsqueeze(scale.rank - 1)


def _scaled(x: Expr, d: Expr) -> Expr:
    """Matrices times one number each."""
    return x * d.unsqueeze(d.rank, d.rank + 1)


@gradient_of("inverse")
def _inverse(pull: Pullback) -> Sequence[Expr | None]:
    turned = pull.y[0].T
    return [-(turned @ pull.d @ turned)]


@gradient_of("det")
def _det(pull: Pullback) -> Sequence[Expr | None]:
    return [_scaled(pull.x[0].op("inverse").T, pull.d * pull.y[0])]


@gradient_of("logdet")
def _logdet(pull: Pullback) -> Sequence[Expr | None]:
    return [_scaled(pull.x[0].op("inverse").T, pull.d)]


@gradient_of("trace")
def _trace(pull: Pullback) -> Sequence[Expr | None]:
    return [_scaled(_eye(pull.x[0]), pull.d)]


def _to_lower(x: Expr) -> Expr:
    """The cotangent of a symmetric matrix as that of its lower triangle."""
    both = x + x.T
    return both.op("tril", k=-1) + _diagonal(x)


@gradient_of("cholesky")
def _cholesky(pull: Pullback) -> Sequence[Expr | None]:
    # A' = L^-T phi(L^T L') L^-1, phi the lower triangle with half the diagonal
    root = pull.y[0]
    inner = root.T @ pull.d.op("tril", k=0)
    inner = inner.op("tril", k=0) - _diagonal(inner) * 0.5
    left = root.T.op("triangular_solve", inner, lower=False)
    return [_to_lower(root.T.op("triangular_solve", left.T, lower=False).T)]


def _solved(pull: Pullback, x: Expr, d_b: Expr) -> tuple[Expr, Expr]:
    """Cotangents of a and b in ``a x = b`` from that of b, with x as columns."""
    a, b = pull.x
    vector = b.rank < a.rank
    d_a = -(d_b @ x.T)
    d_b = d_b.reshape(d_b.shape[:-1]) if vector else d_b
    return d_a.sum_to(a.shape), d_b.sum_to(b.shape)


def _columns(x: Expr, pull: Pullback) -> Expr:
    return x.unsqueeze(x.rank) if pull.x[1].rank < pull.x[0].rank else x


@gradient_of("solve")
def _solve(pull: Pullback) -> Sequence[Expr | None]:
    d_b = pull.x[0].T.op("solve", _columns(pull.d, pull))
    return _solved(pull, _columns(pull.y[0], pull), d_b)


@gradient_of("triangular_solve")
def _triangular_solve(pull: Pullback) -> Sequence[Expr | None]:
    lower = bool(pull.attrs["lower"])
    d = _columns(pull.d, pull)
    d_b = pull.x[0].T.op("triangular_solve", d, lower=not lower)
    d_a, d_b = _solved(pull, _columns(pull.y[0], pull), d_b)
    return [d_a.op("tril" if lower else "triu", k=0), d_b]


def _inverse_gaps(values: Expr) -> Expr:
    """1 / (v[j] - v[i]) off the diagonal, 0 on it."""
    eye = values.writer.make("eye", size=values.shape[-1], dtype=values.dtype)
    gaps = values.unsqueeze(values.rank - 1) - values.unsqueeze(values.rank)
    return (gaps + eye).op("reciprocal") - eye


@gradient_of("eigh")
def _eigh(pull: Pullback) -> Sequence[Expr | None]:
    values, vectors = pull.y
    inner = pull.cotangent(0).op("diag")
    if pull.dy[1] is not None:
        inner = inner + _inverse_gaps(values) * (vectors.T @ pull.dy[1])
    return [_to_lower(vectors @ inner @ vectors.T)]


@gradient_of("svd")
def _svd(pull: Pullback) -> Sequence[Expr | None]:
    u, s, vt = pull.y
    du, ds, dvt = (pull.cotangent(place) for place in range(3))
    v, dv, gaps = vt.T, dvt.T, _inverse_gaps(s.square())
    left = gaps * (u.T @ du - du.T @ u)
    right = gaps * (vt @ dv - dvt @ v)
    middle = _times_columns(left, s) + s.unsqueeze(s.rank) * right + ds.op("diag")
    total = u @ middle @ vt
    rows, columns = pull.x[0].shape[-2:]
    if rows != columns:
        inverse = s.op("reciprocal")
        outside = _times_columns(du - u @ (u.T @ du), inverse) @ vt
        beside = _times_columns(dv - v @ (vt @ dv), inverse)
        total = total + outside + u @ beside.T
    return [total]


@gradient_of("qr")
def _qr(pull: Pullback) -> Sequence[Expr | None]:
    q, r = pull.y
    dq, dr = pull.cotangent(0), pull.cotangent(1)
    rows: Any
    rows, columns = pull.x[0].shape[-2:]
    axis = r.rank - 1
    wide = isinstance(rows, int) and isinstance(columns, int) and rows < columns
    if not wide:
        return [_qr_tall(q, r, dq, dr.op("triu", k=0))]
    # [X | Y] = Q [U | V]: X = Q U by the tall rule, and Y = Q V
    square, d_square = (m.slice(axis, 0, rows) for m in (r, dr))
    d_rest = dr.slice(axis, rows, columns)
    right = q @ d_rest
    dq = dq + pull.x[0].slice(axis, rows, columns) @ d_rest.T
    left = _qr_tall(q, square, dq, d_square.op("triu", k=0))
    return [left.concat(right, axis=axis)]


def _qr_tall(q: Expr, r: Expr, dq: Expr, dr: Expr) -> Expr:
    inner = r @ dr.T - dq.T @ q
    low = inner.op("tril", k=-1)
    both = low + low.T + _diagonal(inner)
    return (r.op("triangular_solve", (dq + q @ both).T, lower=False)).T
