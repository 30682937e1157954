"""Tensor types, source spans and attribute values: the vocabulary of the IR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

import numpy as np

from .dims import Dim, DimLike, product, substitute, symbols_of

DTYPES: dict[str, np.dtype] = {
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
}
FLOATS = ("f16", "f32", "f64")
INTEGERS = ("i8", "i32", "i64", "u8", "u64")

AttrValue = Union[None, bool, int, float, str, Dim, tuple["AttrValue", ...]]
Attrs = Mapping[str, AttrValue]


@dataclass(frozen=True)
class Span:
    """A stretch of a spec file; lines and columns count from 1, offsets from 0."""

    file: str
    line: int
    column: int
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of one tensor; a size is an integer or a symbolic ``Dim``."""

    dtype: str
    shape: tuple[DimLike, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def elements(self) -> DimLike:
        """Number of elements."""
        return product(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return DTYPES[self.dtype].itemsize

    @property
    def is_float(self) -> bool:
        """Whether the element type is a floating-point number."""
        return self.dtype in FLOATS

    @property
    def symbols(self) -> frozenset[str]:
        """Symbols that occur in the shape."""
        found: frozenset[str] = frozenset()
        for dim in self.shape:
            found |= symbols_of(dim)
        return found

    def bind(self, bindings: Mapping[str, DimLike]) -> TensorType:
        """The type with symbols replaced."""
        return TensorType(self.dtype, tuple(substitute(d, bindings) for d in self.shape))

    def with_shape(self, shape: tuple[DimLike, ...] | list[DimLike]) -> TensorType:
        """Same element type, another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: str) -> TensorType:
        """Same shape, another element type."""
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{shape_text(self.shape)}"


def shape_text(shape: tuple[DimLike, ...] | list[DimLike]) -> str:
    """A shape as users read it: ``[N, 3, 224, 224]``."""
    return "[" + ", ".join(str(d) for d in shape) + "]"


def bind_attr(value: AttrValue, bindings: Mapping[str, DimLike]) -> AttrValue:
    """An attribute value with symbols replaced, at any depth."""
    if isinstance(value, Dim):
        return value.substitute(bindings)
    if isinstance(value, tuple):
        return tuple(bind_attr(v, bindings) for v in value)
    return value
