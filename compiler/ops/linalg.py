"""Linear algebra on the last two axes; leading axes are a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ..ir.dims import dim_min
from ..ir.types import Attrs, TensorType
from .base import Op, Operand, OpError, Setting, define, layer_of
from .rules import (
    broadcast_shapes,
    quiet,
    require_equal,
    require_kind,
    require_rank,
    require_same_dtype,
)


def _matrix(name: str, kind: TensorType, square: bool = True) -> None:
    require_kind(name, kind, "float")
    require_rank(name, kind, 2)
    if square:
        require_equal(f"{name} needs a square matrix", kind.shape[-2], kind.shape[-1], [kind])


def _square_rule(name: str, lost_axes: int) -> Callable[..., Any]:
    """The type of a square matrix without its last ``lost_axes`` axes."""

    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        _matrix(name, types[0])
        return (types[0].with_shape(types[0].shape[: types[0].rank - lost_axes]),)

    return shape


def _wide(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference over numpy.linalg: half precision through single, faults as E408."""

    @quiet
    @wraps(function)
    def call(*arrays: np.ndarray, **attrs: Any) -> Any:
        dtype = arrays[0].dtype
        wide = [a.astype(np.float32) if dtype == np.float16 else a for a in arrays]
        try:
            result = function(*wide, **attrs)
        except np.linalg.LinAlgError as fault:
            raise OpError("E408", f"{name}: {fault}".lower()) from fault
        if isinstance(result, tuple):
            return tuple(np.asarray(part).astype(dtype, copy=False) for part in result)
        return np.asarray(result).astype(dtype, copy=False)

    return call


def _solve_shape(name: str) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        a, b = types
        _matrix(name, a)
        require_same_dtype(name, types)
        require_rank(f"{name} right-hand side", b, a.rank - 1, a.rank)
        columns = b.rank - a.rank + 1
        batch = broadcast_shapes(name, [a.shape[:-2], b.shape[: a.rank - 2]])
        require_equal(name, a.shape[-1], b.shape[a.rank - 2], types)
        return (a.with_shape([*batch, a.shape[-1], *b.shape[b.rank - columns :]]),)

    return shape


def _as_columns(solve: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Let a solver for matrices take a batch of vectors as well."""

    def call(a: np.ndarray, b: np.ndarray, **attrs: Any) -> np.ndarray:
        if b.ndim == a.ndim:
            return solve(a, b, **attrs)
        return solve(a, b[..., None], **attrs)[..., 0]

    return call


def _triangular(a: np.ndarray, b: np.ndarray, lower: bool) -> np.ndarray:
    n = a.shape[-1]
    strict = np.tril(a, -1) if lower else np.triu(a, 1)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    x = np.zeros((*batch, *b.shape[-2:]), b.dtype)
    for row in range(n) if lower else range(n - 1, -1, -1):
        # Unknowns that are still zero do not count, so one formula serves both directions.
        known = np.matmul(strict[..., row, None, :], x)[..., 0, :]
        x[..., row, :] = (b[..., row, :] - known) / a[..., row, row, None]
    return x


def _logdet(a: np.ndarray) -> np.ndarray:
    sign, size = np.linalg.slogdet(a)
    return np.where(sign < 0, np.full_like(size, np.nan), size)


def _svd_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    a = types[0]
    _matrix("svd", a, square=False)
    *batch, rows, columns = a.shape
    rank = dim_min(rows, columns)
    shapes = ([*batch, rows, rank], [*batch, rank], [*batch, rank, columns])
    return tuple(a.with_shape(shape) for shape in shapes)


def _eigh_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    _matrix("eigh", types[0])
    return (types[0].with_shape(types[0].shape[:-1]), types[0])


def _qr_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    a = types[0]
    _matrix("qr", a, square=False)
    *batch, rows, columns = a.shape
    rank = dim_min(rows, columns)
    return (a.with_shape([*batch, rows, rank]), a.with_shape([*batch, rank, columns]))


def _linear(
    name: str,
    operands: tuple[str, ...],
    shape: Callable[..., Any],
    reference: Callable[..., Any],
    doc: str,
    attrs: tuple[str, ...] = (),
) -> Op:
    return define(
        Op(
            name,
            tuple(Operand(operand) for operand in operands),
            shape,
            _wide(name, reference),
            doc,
            attrs=attrs,
            batching="last",
        )
    )


for _op in (
    _linear(
        "inverse", ("a",), _square_rule("inverse", 0), np.linalg.inv, "The inverse of a matrix."
    ),
    _linear(
        "cholesky",
        ("a",),
        _square_rule("cholesky", 0),
        np.linalg.cholesky,
        "The lower triangle L with L L^T = a, for a symmetric and positive definite.",
    ),
    _linear("det", ("a",), _square_rule("det", 2), np.linalg.det, "The determinant."),
    _linear(
        "logdet",
        ("a",),
        _square_rule("logdet", 2),
        _logdet,
        "The logarithm of the determinant; -inf when it is 0, nan when it is negative.",
    ),
    _linear(
        "trace",
        ("a",),
        _square_rule("trace", 2),
        lambda a: np.trace(a, axis1=-2, axis2=-1),
        "The sum of the diagonal.",
    ),
    _linear(
        "solve",
        ("a", "b"),
        _solve_shape("solve"),
        _as_columns(np.linalg.solve),
        "x with a x = b; b is a matrix, or a vector when its rank is one below that of a.",
    ),
    _linear(
        "svd",
        ("a",),
        _svd_shape,
        lambda a: tuple(np.linalg.svd(a, full_matrices=False)),
        "U, S, Vt with U diag(S) Vt = a, singular values falling, without empty columns.",
    ),
    _linear(
        "eigh",
        ("a",),
        _eigh_shape,
        lambda a: tuple(np.linalg.eigh(a)),
        "Rising eigenvalues and eigenvectors (columns) of a symmetric matrix (lower triangle).",
    ),
    _linear(
        "qr",
        ("a",),
        _qr_shape,
        lambda a: tuple(np.linalg.qr(a)),
        "Q with orthonormal columns and R upper triangular, Q R = a.",
    ),
):
    layer_of(_op)
layer_of(
    _linear(
        "triangular_solve",
        ("a", "b"),
        _solve_shape("triangular_solve"),
        _as_columns(_triangular),
        "x with a x = b for a triangular a, of which only that triangle is read.",
        attrs=("lower",),
    ),
    Setting("lower", "bool", True),
)
