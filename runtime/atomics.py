"""What threads that walk a plan share: counters, and calls of kernels by address."""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .simd import intrinsic


@intrinsic
def fetch_add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to an int64 at ``address`` atomically; the value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def load_acquire(typingctx: Any, address: Any) -> Any:
    """Read an int64 that another thread writes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


YIELD = "SwitchToThread" if os.name == "nt" else "sched_yield"


@intrinsic
def yield_processor(typingctx: Any) -> Any:
    """Let a thread run that waits for this thread's processor, if there is one."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, YIELD), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_kernel(typingctx: Any, function: Any, row: Any, task: Any, slot: Any) -> Any:
    """Call the kernel at address ``function`` with its parameter row, a task and a slot."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word, word])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), list(args[1:]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen
