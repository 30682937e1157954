"""What must hold of weights and observations before a model is asked anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ..ir.graph import Graph
from .potentials import MISSING
from .statements import ModelFault, Statement
from .structure import support_name

TOLERANCE = 1e-6
"""How far the sum of a row of probabilities may be from 1."""


def check_parameters(graph: Graph, params: Mapping[str, np.ndarray]) -> None:
    """E603 and E607 for weights outside of their domain, with the row and by how much."""
    for _, node in graph.of_op("param"):
        path, domain = str(node.attrs["path"]), str(node.attrs["domain"])
        if path in params and domain in _DOMAINS:
            fault = _DOMAINS[domain](np.asarray(params[path], np.float64))
            if fault:
                code = "E603" if domain == "simplex" else "E607"
                raise ModelFault(code, f"weight `{path}` is not a {domain}", node.span, fault)


def _simplex(array: np.ndarray) -> str:
    if np.any(array < 0) or np.any(np.isnan(array)):
        spot = np.unravel_index(int(np.argmax((array < 0) | np.isnan(array))), array.shape)
        return f"{_spot(spot)} is {array[spot]:g}"
    totals = np.sum(array, axis=-1)
    off = np.abs(totals - 1)
    if not np.any(off > TOLERANCE):
        return ""
    spot = np.unravel_index(int(np.argmax(off > TOLERANCE)), totals.shape)
    gap = float(totals[spot]) - 1
    where = f"row {', '.join(str(int(k)) for k in spot)}" if totals.ndim else "it"
    return (
        f"{where} sums to {totals[spot]:.9g}, {abs(gap):.3g} too {'much' if gap > 0 else 'little'}"
    )


def _bounded(good: Callable[[np.ndarray], np.ndarray], wanted: str) -> Callable[..., str]:
    def check(array: np.ndarray) -> str:
        bad = ~good(array)
        if not np.any(bad):
            return ""
        spot = np.unravel_index(int(np.argmax(bad)), array.shape)
        return f"{_spot(spot)} is {array[spot]:g}, not {wanted}"

    return check


def _posdef(array: np.ndarray) -> str:
    if not np.allclose(array, np.swapaxes(array, -1, -2), rtol=1e-8, atol=1e-12):
        return "it is not symmetric"
    least = np.linalg.eigvalsh(array)[..., 0]
    if np.all(least > 0):
        return ""
    spot = np.unravel_index(int(np.argmax(least <= 0)), least.shape)
    where = f"matrix {', '.join(str(int(k)) for k in spot)}" if least.ndim else "it"
    return f"the least eigenvalue of {where} is {least[spot]:.3g}"


_DOMAINS: dict[str, Callable[[np.ndarray], str]] = {
    "simplex": _simplex,
    "positive": _bounded(lambda a: a > 0, "above 0"),
    "unit": _bounded(lambda a: (a >= 0) & (a <= 1), "between 0 and 1"),
    "posdef": _posdef,
}


def _spot(spot: Collection[Any]) -> str:
    return f"[{', '.join(str(int(k)) for k in spot)}]" if spot else "it"


def all_finite(array: np.ndarray) -> bool:
    """Whether a sum shows that there is no nan and no infinity; ``False`` may be an overflow.

    One pass without a mask: long data are looked at before every question.
    """
    return bool(np.isfinite(np.sum(array)))


def check_support(statement: Statement, array: np.ndarray, missing: bool) -> None:
    """E611 for the first observation that its distribution cannot give.

    ``array`` is what the statement observes, indices first; with ``missing`` nan and ``MISSING``
    stand for what was not seen.
    """
    if _is_real(statement) and array.dtype.kind == "f" and all_finite(array):
        return
    good = _inside(statement, array)
    if missing:
        gone = np.isnan(array) if array.dtype.kind == "f" else array == MISSING
        if statement.dist in ("mvnormal", "dirichlet", "multinomial"):
            _require_whole(statement, gone)
            gone = np.all(gone, axis=-1)
        good = good | gone
    if np.all(good):
        return
    spot = np.unravel_index(int(np.argmax(~good)), good.shape)
    _refuse(statement, array, spot)


def _is_real(statement: Statement) -> bool:
    """Whether every finite number or vector can be drawn from a statement's distribution."""
    return statement.dist == "mvnormal" or support_name(statement.dist) == "real numbers"


def _inside(statement: Statement, array: np.ndarray) -> np.ndarray:
    """Where a value can be drawn from the statement's distribution."""
    if _is_real(statement):
        finite = np.isfinite(array)
        return np.all(finite, axis=-1) if statement.dist == "mvnormal" else finite
    kind = support_name(statement.dist)
    whole = array == np.floor(array) if array.dtype.kind == "f" else np.ones(array.shape, bool)
    if statement.dist in ("categorical", "labels"):
        top = statement.support
        return whole & (array >= 0) & (array < (top if isinstance(top, int) else np.inf))
    if statement.dist == "bernoulli":
        return (array >= 0) & (array <= 1)
    if kind == "whole numbers from 0":
        return whole & (array >= 0)
    if kind == "numbers above 0":
        return array >= 0
    if kind == "numbers from 0 to 1":
        return (array >= 0) & (array <= 1)
    if statement.dist == "dirichlet":
        return np.all(array >= 0, -1) & (np.abs(np.sum(array, -1) - 1) <= 1e-5)
    if statement.dist in ("multinomial", "dpp"):
        return np.all(array >= 0, axis=-1)
    return np.isfinite(array)


def _require_whole(statement: Statement, gone: np.ndarray) -> None:
    part = np.any(gone, axis=-1) & ~np.all(gone, axis=-1)
    if np.any(part):
        spot = np.unravel_index(int(np.argmax(part)), part.shape)
        raise ModelFault(
            "E611", f"an observation of `{statement.variable}` is missing in part", statement.span,
            f"{statement.variable}{_spot(spot)}", f"{statement.dist} needs all of it or none",
        )  # fmt: skip


def _refuse(statement: Statement, array: np.ndarray, spot: tuple[Any, ...]) -> None:
    value = array[spot]
    shown = f"{value:g}" if np.ndim(value) == 0 else np.array2string(value, precision=4)
    takes = support_name(statement.dist)
    if statement.dist == "categorical" and isinstance(statement.support, int):
        takes = f"0 to {statement.support - 1}"
    hint = None
    if np.any(np.isnan(np.asarray(value, np.float64))):
        hint = "nan marks what is missing; `tilth query` and `tilth fit` leave it out"
    raise ModelFault(
        "E611", f"`{statement.variable}` has a value that {statement.dist} cannot give",
        statement.span, f"{statement.variable}{_spot(spot)} is {shown}; it takes {takes}", hint,
    )  # fmt: skip
