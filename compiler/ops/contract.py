"""Contractions over a semiring, written like einsum, and the matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce as fold
from typing import Any

import numpy as np

from ..ir.dims import DimLike, compare, product
from ..ir.types import Attrs, TensorType, shape_text
from .base import Op, Operand, OpError, define, layer_of
from .rules import broadcast_shapes, quiet, require_kind, require_rank, require_same_dtype
from .special import logsumexp

BLOCK = 1 << 22
"""Aligned elements that the reference holds at once."""


@dataclass(frozen=True)
class Semiring:
    """How a contraction joins operands (``times``) and letters that vanish (``plus``)."""

    times: Callable[..., Any]
    plus: Callable[..., Any]
    reduce: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    family: str = "number"


SEMIRINGS: dict[str, Semiring] = {
    "sum_product": Semiring(
        np.multiply, np.add, lambda x, axes: np.sum(x, axis=axes, dtype=x.dtype)
    ),
    "max_product": Semiring(np.multiply, np.maximum, lambda x, axes: np.max(x, axis=axes)),
    "min_product": Semiring(np.multiply, np.minimum, lambda x, axes: np.min(x, axis=axes)),
    "max_plus": Semiring(np.add, np.maximum, lambda x, axes: np.max(x, axis=axes)),
    "min_plus": Semiring(np.add, np.minimum, lambda x, axes: np.min(x, axis=axes)),
    "lse_plus": Semiring(np.add, np.logaddexp, logsumexp, "float"),
}


def parse_spec(spec: str, operands: int) -> tuple[tuple[str, ...], str]:
    """Letters of each operand and of the result. Raises E407 on a spec that does not fit."""
    left, arrow, output = spec.partition("->")
    inputs = tuple(left.split(","))
    letters = set(left) - {","}
    good = arrow and len(inputs) == operands and all(c.isalpha() for c in letters | set(output))
    if not good or len(set(output)) != len(output) or not set(output) <= letters:
        raise OpError("E407", f"contract: {spec!r} does not fit {operands} operands")
    return inputs, output


def letter_sizes(
    inputs: Sequence[str], types: Sequence[TensorType], spec: str
) -> dict[str, DimLike]:
    """The size of each letter; raises E101 and E103."""
    sizes: dict[str, DimLike] = {}
    for letters, kind in zip(inputs, types, strict=True):
        if len(letters) != kind.rank:
            raise OpError(
                "E101", f"contract {spec}: {letters!r} needs rank {len(letters)}, found {kind}"
            )
        for letter, size in zip(letters, kind.shape, strict=True):
            if compare(sizes.setdefault(letter, size), size) is False:
                shown = "  and  ".join(shape_text(t.shape) for t in types)
                raise OpError(
                    "E103",
                    f"contract {spec}: {letter} is {sizes[letter]} and {size} in {shown}",
                )
    return sizes


def _contract_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    spec, semiring = str(attrs["spec"]), str(attrs["semiring"])
    if semiring not in SEMIRINGS:
        known = ", ".join(SEMIRINGS)
        raise OpError("E404", f"contract: unknown semiring {semiring}; known are {known}")
    inputs, output = parse_spec(spec, len(types))
    require_same_dtype("contract", types)
    require_kind("contract", types[0], SEMIRINGS[semiring].family)
    sizes = letter_sizes(inputs, types, spec)
    return (TensorType(types[0].dtype, tuple(sizes[letter] for letter in output)),)


def _contract_macs(
    types: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs
) -> DimLike:
    spec = str(attrs["spec"])
    inputs, _ = parse_spec(spec, len(types))
    return product(letter_sizes(inputs, types, spec).values()) * max(1, len(types) - 1)


@quiet
def _contract(*operands: np.ndarray, semiring: str, spec: str) -> np.ndarray:
    dtype = operands[0].dtype
    if semiring == "sum_product":
        # Half precision accumulates in single.
        wide = [x.astype(np.float32) if dtype == np.float16 else x for x in operands]
        return np.asarray(np.einsum(spec, *wide, optimize=len(wide) > 1)).astype(dtype, copy=False)
    inputs, output = parse_spec(spec, len(operands))
    order = output + "".join(dict.fromkeys(c for part in inputs for c in part if c not in output))
    aligned = [_align(x, part, order) for x, part in zip(operands, inputs, strict=True)]
    result = _join(SEMIRINGS[semiring], aligned, len(output), len(order))
    return np.asarray(result).astype(dtype, copy=False)


def _align(x: np.ndarray, letters: str, order: str) -> np.ndarray:
    """``x`` with one axis a letter of ``order``, of size 1 where it does not have the letter."""
    distinct = "".join(dict.fromkeys(letters))
    if distinct != letters:
        x = np.einsum(f"{letters}->{distinct}", x)
    held = sorted(distinct, key=order.index)
    x = x.transpose([distinct.index(c) for c in held])
    return x[tuple(slice(None) if c in held else None for c in order)]


def _join(semiring: Semiring, operands: list[np.ndarray], kept: int, rank: int) -> np.ndarray:
    """Multiply out and reduce the axes from ``kept`` on, halving what is too large to hold."""
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    if math.prod(shape) <= BLOCK:
        joined = fold(semiring.times, operands)
        return semiring.reduce(joined, tuple(range(kept, rank))) if kept < rank else joined
    axis = int(np.argmax(shape))
    middle = shape[axis] // 2
    halves = []
    for part in (slice(0, middle), slice(middle, None)):
        at = (slice(None),) * axis + (part,)
        halves.append(
            _join(semiring, [x if x.shape[axis] == 1 else x[at] for x in operands], kept, rank)
        )
    return np.concatenate(halves, axis) if axis < kept else semiring.plus(*halves)


def _matmul_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    a, b = types
    require_same_dtype("matmul", types)
    require_kind("matmul", a, "number")
    for kind in types:
        require_rank("matmul", kind, 1)
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.rank > 1 else ()
    inner = b.shape[-2] if b.rank > 1 else b.shape[0]
    if compare(a.shape[-1], inner) is False:
        raise OpError(
            "E103",
            f"matmul: the last size of {shape_text(a.shape)} is {a.shape[-1]},"
            f" but {shape_text(b.shape)} needs {inner}",
        )
    batch = broadcast_shapes("matmul", [a.shape[:-2], b.shape[:-2]])
    return (TensorType(a.dtype, (*batch, *rows, *columns)),)


def _matmul_macs(
    types: Sequence[TensorType], results: Sequence[TensorType], attrs: Attrs
) -> DimLike:
    return results[0].elements * types[0].shape[-1]


@quiet
def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype == np.float16:
        return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32))).astype(a.dtype)
    return np.asarray(np.matmul(a, b))


define(
    Op(
        "contract",
        (Operand("operands", variadic=True),),
        _contract_shape,
        _contract,
        "Operands multiplied where letters meet, letters missing from the result joined.",
        attrs=("semiring", "spec"),
        macs=_contract_macs,
    )
)
layer_of(
    define(
        Op(
            "matmul",
            (Operand("a"), Operand("b")),
            _matmul_shape,
            _matmul,
            "The matrix product of trailing axes; leading axes broadcast, vectors as in numpy.",
            batching="none",
            macs=_matmul_macs,
        )
    )
)
