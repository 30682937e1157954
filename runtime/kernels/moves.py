"""Square tiles of memory transposed in vector registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from ..simd import FLOAT, intrinsic


def _transposition(count: int, bits: int) -> Any:
    """A function ``(source, source_step, target, target_step)`` on byte addresses and steps.

    It writes the ``count`` x ``count`` tile whose rows lie ``source_step`` apart as columns. Rows
    are exchanged in ``log2(count)`` rounds: in the round of distance d, row r and row r + d trade
    the lanes that differ in bit d.
    """
    kind = ir.VectorType(FLOAT[bits], count)
    number = ir.IntType(32)

    def trade(builder: Any, low: Any, high: Any, distance: int) -> tuple[Any, Any]:
        lanes = range(count)
        first = [i if not i & distance else i - distance + count for i in lanes]
        second = [i + distance if not i & distance else i + count for i in lanes]
        masks = [ir.Constant(ir.VectorType(number, count), order) for order in (first, second)]
        return tuple(builder.shuffle_vector(low, high, mask) for mask in masks)  # type: ignore

    @intrinsic
    def transpose(
        typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def place(address: Any, step: Any, row: int) -> Any:
                moved = builder.add(address, builder.mul(step, ir.Constant(step.type, row)))
                return builder.inttoptr(moved, kind.as_pointer())

            rows = [builder.load(place(args[0], args[1], r), align=4) for r in range(count)]
            distance = 1
            while distance < count:
                for r in range(count):
                    if not r & distance:
                        rows[r], rows[r + distance] = trade(
                            builder, rows[r], rows[r + distance], distance
                        )
                distance *= 2
            for r in range(count):
                builder.store(rows[r], place(args[2], args[3], r), align=4)
            return context.get_dummy_value()

        word = types.int64
        return types.void(word, word, word, word), codegen

    return transpose


transpose4, transpose8, transpose16 = (_transposition(count, 32) for count in (4, 8, 16))
transpose2d, transpose4d, transpose8d = (_transposition(count, 64) for count in (2, 4, 8))
