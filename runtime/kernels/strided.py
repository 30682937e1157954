"""Vectors of elements that lie apart in memory."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from ..simd import FLOAT, VectorType, intrinsic
from .masks import MaskType


def _loads(count: int, bits: int) -> Any:
    """A function ``(address, step in bytes, few)``: ``count`` elements, of which ``few`` exist.

    Lanes from ``few`` on repeat the last element there is, so nothing else is read.
    """
    element = ir.IntType(8) if bits == 8 else FLOAT[bits]
    kind: Any = MaskType(count) if bits == 8 else VectorType(bits, count)
    word = ir.IntType(64)

    @intrinsic
    def load(typingctx: Any, address: Any, step: Any, few: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at, step, few = args
            last = builder.sub(few, ir.Constant(word, 1))
            found = ir.Constant(ir.VectorType(element, count), ir.Undefined)
            for lane in range(count):
                number = ir.Constant(word, lane)
                inside = builder.icmp_signed("<", number, few)
                place = builder.mul(builder.select(inside, number, last), step)
                pointer = builder.inttoptr(builder.add(at, place), element.as_pointer())
                value = builder.load(pointer, align=bits // 8)
                found = builder.insert_element(found, value, ir.Constant(ir.IntType(32), lane))
            if bits == 8:
                return builder.icmp_unsigned("!=", found, ir.Constant(found.type, None))
            return found

        return kind(types.int64, types.int64, types.int64), codegen

    return load


load_strided4, load_strided8, load_strided16 = (_loads(count, 32) for count in (4, 8, 16))
load_strided2d, load_strided4d, load_strided8d, load_strided16d = (
    _loads(count, 64) for count in (2, 4, 8, 16)
)
load_strided_mask2, load_strided_mask4, load_strided_mask8, load_strided_mask16 = (
    _loads(count, 8) for count in (2, 4, 8, 16)
)
