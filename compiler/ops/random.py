"""Random tensors, drawn by counter: element i depends on seed, step, path and i only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...runtime import philox
from ..ir.types import DTYPES, FLOATS, INTEGERS, Attrs, TensorType
from .base import Op, Operand, OpError, define
from .rules import quiet, require_kind, require_rank, sizes_attr

KEY_TYPE = TensorType("u64", (2,))
"""The type of the key operand: seed and step."""


def require_key(what: str, kind: TensorType) -> None:
    """Raise E104 unless the type is that of a key."""
    if kind != KEY_TYPE:
        raise OpError("E104", f"{what} needs a random key {KEY_TYPE}, found {kind}")


def _draw_rule(name: str, dtypes: tuple[str, ...]) -> Callable[..., Any]:
    def shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        require_key(name, types[0])
        if attrs["dtype"] not in dtypes:
            raise OpError("E104", f"{name}: cannot draw {attrs['dtype']}")
        return (TensorType(str(attrs["dtype"]), sizes_attr(attrs, "shape")),)

    return shape


def _bits(key: np.ndarray, path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = DTYPES[dtype]
    drawn = philox.bits(philox.stream(key, path), int(np.prod(shape, dtype=np.int64)))
    top = drawn >> np.uint64(64 - 8 * kind.itemsize)
    return top.astype(f"u{kind.itemsize}").view(kind).reshape(shape)


def _uniform(key: np.ndarray, path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return philox.uniform(philox.stream(key, path), shape, DTYPES[dtype])


def _normal(key: np.ndarray, path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return philox.normal(philox.stream(key, path), shape, DTYPES[dtype])


def pick(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The index whose share of the last axis of ``p`` holds ``u`` in [0, 1), as i32.

    The number of partial sums that do not exceed u times the total, never past the last index
    with a positive probability.
    """
    sums = np.cumsum(p, axis=-1, dtype=p.dtype)
    index = np.sum(sums <= u[..., None] * sums[..., -1:], axis=-1)
    last = p.shape[-1] - 1 - np.argmax(np.flip(p, -1) > 0, axis=-1)
    return np.minimum(index, last).astype(np.int32)


def _categorical_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    p, key = types
    require_kind("random_categorical", p, "float")
    require_rank("random_categorical", p, 1)
    require_key("random_categorical", key)
    return (TensorType("i32", p.shape[:-1]),)


@quiet
def _categorical(p: np.ndarray, key: np.ndarray, path: str) -> np.ndarray:
    return pick(p, philox.uniform(philox.stream(key, path), p.shape[:-1], p.dtype))


def _permutation_shape(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    require_key("random_permutation", types[0])
    size: Any = attrs["size"]
    return (TensorType("i32", (size,)),)


def _permutation(key: np.ndarray, path: str, size: int) -> np.ndarray:
    drawn = philox.bits(philox.stream(key, path), size)
    return np.argsort(drawn, kind="stable").astype(np.int32)


for _name, _reference, _dtypes, _doc in (
    ("random_bits", _bits, INTEGERS, "Random bits: the top ones of 64 for each element."),
    ("random_uniform", _uniform, FLOATS, "Uniform in [0, 1)."),
    ("random_normal", _normal, FLOATS, "Standard normal, by Box and Muller."),
):
    define(
        Op(
            _name,
            (Operand("key"),),
            _draw_rule(_name, _dtypes),
            _reference,
            _doc,
            attrs=("path", "shape", "dtype"),
            random=True,
        )
    )
define(
    Op(
        "random_categorical",
        (Operand("p"), Operand("key")),
        _categorical_shape,
        _categorical,
        "An index for each row of weights p (they need not add up to 1), by inverse CDF.",
        attrs=("path",),
        random=True,
    )
)
define(
    Op(
        "random_permutation",
        (Operand("key"),),
        _permutation_shape,
        _permutation,
        "0..size in random order: the stable order of 64 random bits each.",
        attrs=("path", "size"),
        random=True,
    )
)
