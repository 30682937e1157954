"""Arrays over raw memory for kernels whose speed does not hang on addresses."""

from __future__ import annotations

from typing import Any

import numba
from numba import njit, types

from ..simd import intrinsic

carray: Any = numba.carray  # type: ignore[reportPrivateImportUsage]


def _pointer_to(kind: Any) -> Any:
    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return pointer


_f64, _i32, _i64, _u8, _u64 = (
    _pointer_to(kind)
    for kind in (types.float64, types.int32, types.int64, types.uint8, types.uint64)
)


@njit(error_model="numpy")
def f64s(address, count):
    """``count`` float64 at an address."""
    return carray(_f64(address), (count,))


@njit(error_model="numpy")
def i32s(address, count):
    """``count`` int32 at an address."""
    return carray(_i32(address), (count,))


@njit(error_model="numpy")
def i64s(address, count):
    """``count`` int64 at an address."""
    return carray(_i64(address), (count,))


@njit(error_model="numpy")
def u8s(address, count):
    """``count`` bytes at an address."""
    return carray(_u8(address), (count,))


@njit(error_model="numpy")
def u64s(address, count):
    """``count`` uint64 at an address."""
    return carray(_u64(address), (count,))
