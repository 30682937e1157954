"""Ops that only the language makes: sizes as numbers, edges of a grid, and statements of models.

``site``, ``factor`` and ``query`` state a probabilistic model; inference turns them into tensor
ops. ``grad`` stands for a derivative until differentiation expands it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.types import DTYPES, Attrs, TensorType
from .base import Op, Operand, OpError, define

INFERENCE = "inference expands it into tensor ops"


def _size_shape(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    return (TensorType(str(attrs["dtype"]), ()),)


def _size(size: int, dtype: str) -> np.ndarray:
    return np.asarray(size, DTYPES[dtype])


def _edges_shape(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    rows: Any = attrs["rows"]
    columns: Any = attrs["columns"]
    count = rows * (columns - 1) + (rows - 1) * columns
    return (TensorType("i32", (count, 2)),)


def _edges(rows: int, columns: int) -> np.ndarray:
    number = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    across = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    down = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
    return np.concatenate([across, down])


def _densify_shape(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    return (TensorType(types[2].dtype, (types[0].shape[0] - 1, attrs["columns"])),)  # type: ignore[arg-type]


def _densify(indptr: np.ndarray, index: np.ndarray, value: np.ndarray, columns: int) -> np.ndarray:
    dense = np.zeros((len(indptr) - 1, columns), value.dtype)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    np.add.at(dense, (rows, index), value)
    return dense


def _like_second(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    if types[0].rank:
        raise OpError("E101", f"grad needs a single number, found {types[0]}")
    return (types[1],)


def _energy(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    return (TensorType(str(attrs["dtype"]), ()),)


def _declared(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
    return (TensorType(str(attrs["dtype"]), tuple(attrs["shape"])),)  # type: ignore[arg-type]


define(
    Op(
        "size_of",
        (),
        _size_shape,
        _size,
        "A symbolic size as a number.",
        attrs=("size", "dtype"),
        batching="elementwise",
    )
)
define(
    Op(
        "grid_edges",
        (),
        _edges_shape,
        _edges,
        "Pairs of positions that lie side by side on a grid, numbered row by row; each pair once.",
        attrs=("rows", "columns"),
    )
)
define(
    Op(
        "densify",
        (Operand("indptr"), Operand("index"), Operand("value")),
        _densify_shape,
        _densify,
        "A matrix in compressed rows as a dense one; entries at one place add up.",
        attrs=("columns",),
    )
)
define(
    Op(
        "grad",
        (Operand("scalar"), Operand("x")),
        _like_second,
        None,
        "The derivative of a single number with respect to x.",
        why_no_reference="differentiation expands it",
    )
)
define(
    Op(
        "site",
        (Operand("operands", variadic=True),),
        _energy,
        None,
        "A statement x ~ distribution: the parameters, then the value when it is `observed` (an "
        "`input` or a `param`), then its condition when it is `conditional`, then tables. "
        "`axes` names the axes that lead each operand: indices of the statement and values of "
        "latent variables such as z[t-1]. `latents` says for each of those axes which variable it "
        "is and where: at an index with a shift, at a number, or at what an operand's table holds; "
        "`at` says the same of the target. The result is the log density it adds.",
        attrs=(
            *("variable", "dist", "form", "target", "axes", "latents", "at"),
            *("domain", "support", "observed", "conditional", "dtype"),
        ),
        why_no_reference=INFERENCE,
    )
)
define(
    Op(
        "factor",
        (Operand("operands", variadic=True),),
        _energy,
        None,
        "An energy term, then the condition under which it counts, then tables; attributes as in "
        "site. The result is the energy it adds.",
        attrs=("axes", "latents", "domain", "conditional", "dtype"),
        why_no_reference=INFERENCE,
    )
)
define(
    Op(
        "query",
        (Operand("statements", variadic=True),),
        _declared,
        None,
        "A question to the model: marginals, map, loglik, logp, meanfield, bp, gibbs.",
        attrs=("ask", "variable", "settings", "dtype", "shape"),
        why_no_reference=INFERENCE,
    )
)
