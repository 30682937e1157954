"""Log densities of many values under many settings of a distribution's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import DimLike, product
from ..ir.types import Attrs, TensorType
from .base import Op, Operand, OpError, define
from .distributions import distribution
from .rules import quiet, require_equal, require_kind

BLOCK = 1 << 20
"""Elements that the reference holds at once."""


def _shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    value, params = types[0], types[1:]
    row = distribution(str(attrs["dist"]), str(attrs["form"]))
    rows = row.params_of(str(attrs["form"]))
    lead, rest = (attrs[name] for name in ("lead", "rest"))
    if not isinstance(lead, int) or not isinstance(rest, int) or len(rows) != len(params):
        raise OpError("E407", f"log_densities: {len(params)} parameters do not fit {row.name}")
    if value.rank != lead + rest + row.rank:
        raise OpError("E101", f"log_densities: {value} does not have {lead} + {rest} axes")
    names: tuple[DimLike, ...] | None = None
    for parameter, kind in zip(rows, params, strict=True):
        require_kind(f"log_densities: {parameter.name}", kind, "number")
        own = kind.shape[: kind.rank - parameter.rank - rest]
        names = own if names is None else names
        if len(own) != len(names):
            raise OpError("E101", f"log_densities: {parameter.name} has rank {kind.rank}")
        shape = (*names, *value.shape[lead : lead + rest])
        for a, b in zip(shape, kind.shape, strict=False):
            require_equal("log_densities", a, b, types)
    floats = [kind.dtype for kind in types if kind.is_float]
    dtype = floats[-1] if floats else "f64"
    return (TensorType(dtype, (*value.shape[:lead], *(names or ()))),)


@quiet
def _reference(
    value: np.ndarray, *params: np.ndarray, dist: str, form: str, lead: int, rest: int
) -> np.ndarray:
    row = distribution(dist, form)
    rows = row.params_of(form)
    density = row.forms[form].log_prob if form else row.log_prob
    dtype = next((p.dtype for p in params[::-1] if p.dtype.kind == "f"), np.dtype(np.float64))
    names = params[0].shape[: params[0].ndim - rows[0].rank - rest]
    events = [p.shape[len(names) :] for p in params]
    flat = [
        p.reshape(-1, *event).astype(np.float64) for p, event in zip(params, events, strict=True)
    ]
    points = value.reshape(-1, *value.shape[lead:]).astype(np.float64)
    result = np.empty((len(points), len(flat[0])))
    width = max(1, len(flat[0]) * int(np.prod(value.shape[lead:], dtype=np.int64)))
    step = max(1, BLOCK // width)
    for start in range(0, len(points), step):
        part = _checked(density, points[start : start + step, None], *(p[None] for p in flat))
        axes = tuple(range(2, 2 + rest))
        result[start : start + step] = np.sum(part, axis=axes) if axes else part
    return result.reshape(*value.shape[:lead], *names).astype(dtype)


def _checked(density: Any, *arrays: np.ndarray) -> np.ndarray:
    try:
        return density(*arrays)
    except np.linalg.LinAlgError as fault:
        raise OpError("E408", f"a matrix parameter: {fault}".lower()) from fault


def _macs(types: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs) -> Any:
    lead: Any = attrs["lead"]
    row = distribution(str(attrs["dist"]), "")
    one = product(types[0].shape[lead:])
    # A matrix parameter costs a product with the deviation.
    return results[0].elements * (one * one if any(p.rank == 2 for p in row.params) else one)


define(
    Op(
        "log_densities",
        (Operand("value"), Operand("params", variadic=True)),
        _shape,
        _reference,
        "The log density of every value (its first `lead` axes) under every setting of the "
        "parameters (their leading axes), summed over `rest` axes of one observation.",
        attrs=("dist", "form", "lead", "rest"),
        macs=_macs,
    )
)
