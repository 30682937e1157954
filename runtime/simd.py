"""SIMD vectors and raw memory for Numba kernels: a register-wide float32 (or float64) type.

A vector is an LLVM vector value, so kernels are ordinary ``@njit`` functions: loads, stores,
arithmetic operators and :func:`fma` become single instructions. Memory is addressed by plain
integers (byte addresses), since kernels get their tensors as rows of addresses.

Widths are 4, 8 or 16 float32 lanes (2, 4, 8 of float64); :func:`lanes` tells the machine's.
"""

from __future__ import annotations

import operator
import os
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, extending
from numba.core.extending import models, register_model
from numba.core.imputils import lower_builtin
from numba.core.typing import templates
from numba.core.typing.templates import AbstractTemplate, signature

from .faults import RuntimeFault

intrinsic: Any = extending.intrinsic
infer_global: Any = templates.infer_global

FLOAT = {32: ir.FloatType(), 64: ir.DoubleType()}


def lanes() -> int:
    """Float32 lanes of this machine's vectors: 16, 8 or 4 (``TILTH_LANES`` lowers it)."""
    features = llvm.get_host_cpu_features()
    widest = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    wanted = os.environ.get("TILTH_LANES")
    if wanted is None:
        return widest
    if wanted not in ("4", "8", "16") or int(wanted) > widest:
        message = f"TILTH_LANES is `{wanted}`, and vectors of this machine have 4 to {widest} lanes"
        raise RuntimeFault("E804", message, "set it to 4, 8 or 16, or leave it out")
    return int(wanted)


class VectorType(types.Type):
    """``count`` lanes of ``bits``-wide floats."""

    def __init__(self, bits: int, count: int) -> None:
        self.bits = bits
        self.count = count
        super().__init__(name=f"f{bits}x{count}")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(FLOAT[fe_type.bits], fe_type.count))


def vector_type(count: int, bits: int = 32) -> VectorType:
    """The Numba type of a vector."""
    return VectorType(bits, count)


def _llvm_name(kind: VectorType) -> str:
    return f"v{kind.count}f{kind.bits}"


def _pointer(builder: Any, address: Any, pointee: Any) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


# ---------------------------------------------------------------- memory
#
# Functions of memory take a byte address and may take an offset to it as a last argument: what
# Numba need not see as an addition of its own compiles sooner.


def _vector_load(count: int, bits: int) -> Any:
    kind = VectorType(bits, count)

    @intrinsic
    def load(typingctx: Any, address: Any, offset: Any = 0) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = context.get_value_type(kind)
            at = builder.add(*args)
            return builder.load(_pointer(builder, at, value), align=4)

        return kind(types.int64, types.int64), codegen

    return load


load2, load4, load8, load16 = (_vector_load(count, 32) for count in (2, 4, 8, 16))
load2d, load4d, load8d, load16d = (_vector_load(count, 64) for count in (2, 4, 8, 16))


@intrinsic
def store(typingctx: Any, address: Any, vector: Any, offset: Any = 0) -> Any:
    """Write a vector at a byte address."""
    if not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = context.get_value_type(vector)
        at = builder.add(args[0], args[2])
        builder.store(args[1], _pointer(builder, at, value), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, vector, types.int64), codegen


def _scalar_load(kind: Any, size: int) -> Any:
    @intrinsic
    def load(typingctx: Any, address: Any, offset: Any = 0) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = context.get_value_type(kind)
            at = builder.add(*args)
            return builder.load(_pointer(builder, at, value), align=size)

        return kind(types.int64, types.int64), codegen

    return load


load_f32 = _scalar_load(types.float32, 4)
load_f64 = _scalar_load(types.float64, 8)
load_i32 = _scalar_load(types.int32, 4)
load_i64 = _scalar_load(types.int64, 8)
load_u64 = _scalar_load(types.uint64, 8)
load_i8 = _scalar_load(types.int8, 1)
load_u8 = _scalar_load(types.uint8, 1)


def _scalar_store(kind: Any, size: int) -> Any:
    @intrinsic
    def put(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            target = _pointer(builder, args[0], context.get_value_type(kind))
            builder.store(args[1], target, align=size)
            return context.get_dummy_value()

        return types.void(types.int64, kind), codegen

    return put


store_f32 = _scalar_store(types.float32, 4)
store_f64 = _scalar_store(types.float64, 8)
store_i32 = _scalar_store(types.int32, 4)
store_i64 = _scalar_store(types.int64, 8)
store_u64 = _scalar_store(types.uint64, 8)
store_i8 = _scalar_store(types.int8, 1)
store_u8 = _scalar_store(types.uint8, 1)


def _prefetch(locality: int) -> Any:
    @intrinsic
    def prefetch(typingctx: Any, address: Any, offset: Any = 0) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            byte = ir.IntType(8).as_pointer()
            number = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            constants = [ir.Constant(number, x) for x in (0, locality, 1)]
            at = builder.add(*args)
            builder.call(function, [builder.inttoptr(at, byte), *constants])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return prefetch


prefetch_l1 = _prefetch(3)
prefetch_l2 = _prefetch(2)

# ---------------------------------------------------------------- making vectors


def _broadcast(count: int, bits: int) -> Any:
    kind = VectorType(bits, count)
    scalar = types.float32 if bits == 32 else types.float64

    @intrinsic
    def spread(typingctx: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _splat(builder, args[0], context.get_value_type(kind))

        return kind(scalar), codegen

    return spread


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    zero = ir.Constant(ir.IntType(32), 0)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, zero)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def _spread_from(count: int) -> Any:
    kind = VectorType(32, count)

    @intrinsic
    def spread_from(typingctx: Any, address: Any, offset: Any = 0) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = builder.add(*args)
            value = builder.load(_pointer(builder, at, FLOAT[32]), align=4)
            return _splat(builder, value, context.get_value_type(kind))

        return kind(types.int64, types.int64), codegen

    return spread_from


spread_from4, spread_from8, spread_from16 = (_spread_from(count) for count in (4, 8, 16))
spread4, spread8, spread16 = (_broadcast(count, 32) for count in (4, 8, 16))
spread2d, spread4d, spread8d, spread16d = (_broadcast(count, 64) for count in (2, 4, 8, 16))


@intrinsic
def splat(typingctx: Any, like: Any, value: Any) -> Any:
    """A vector of the type of ``like`` whose lanes all hold the scalar ``value``."""
    if not isinstance(like, VectorType) or not isinstance(value, types.Float):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _like(context, builder, sig.args, args, 1)

    return like(like, value), codegen


def _like(context: Any, builder: Any, kinds: Any, args: Any, place: int) -> Any:
    """The scalar at ``place`` of two operands as a vector of the other's type."""
    vector = kinds[1 - place]
    wanted = types.float32 if vector.bits == 32 else types.float64
    scalar = context.cast(builder, args[place], kinds[place], wanted)
    return _splat(builder, scalar, context.get_value_type(vector))


# ---------------------------------------------------------------- arithmetic


def _call_vector(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, args)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` in one rounding."""
    if not isinstance(a, VectorType) or a != b or a != c:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call_vector(builder, f"llvm.fma.{_llvm_name(a)}", args[0].type, list(args))

    return a(a, b, c), codegen


def _unary_intrinsic(name: str) -> Any:
    @intrinsic
    def run(typingctx: Any, a: Any) -> Any:
        if not isinstance(a, VectorType):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call_vector(builder, f"llvm.{name}.{_llvm_name(a)}", args[0].type, list(args))

        return a(a), codegen

    return run


vsqrt = _unary_intrinsic("sqrt")
vabs = _unary_intrinsic("fabs")
vfloor = _unary_intrinsic("floor")
vceil = _unary_intrinsic("ceil")
vround = _unary_intrinsic("rint")


@intrinsic
def polynomial(typingctx: Any, x: Any, coefficients: Any) -> Any:
    """Horner's scheme on a tuple of float64 coefficients, highest power first."""
    if not isinstance(x, VectorType) or not isinstance(coefficients, types.UniTuple):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = context.get_value_type(x)
        total = None
        for place in range(coefficients.count):
            scalar = builder.extract_value(args[1], place)
            if x.bits == 32:
                scalar = builder.fptrunc(scalar, FLOAT[32])
            term = _splat(builder, scalar, kind)
            if total is None:
                total = term
            else:
                name = f"llvm.fma.{_llvm_name(x)}"
                total = _call_vector(builder, name, kind, [total, args[0], term])
        return total

    return x(x, coefficients), codegen


@intrinsic
def copysign(typingctx: Any, size: Any, sign: Any) -> Any:
    """The size of the first with the sign of the second."""
    if not isinstance(size, VectorType) or size != sign:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = f"llvm.copysign.{_llvm_name(size)}"
        return _call_vector(builder, name, args[0].type, list(args))

    return size(size, sign), codegen


def _convert(source: int, target: int, emit: str) -> Any:
    @intrinsic
    def run(typingctx: Any, a: Any) -> Any:
        if not isinstance(a, VectorType) or a.bits != source:
            return None
        result = VectorType(target, a.count)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, emit)(args[0], context.get_value_type(result))

        return result(a), codegen

    return run


widen = _convert(32, 64, "fpext")
narrow = _convert(64, 32, "fptrunc")


def _select(compare: str) -> Any:
    """Larger or smaller of two, lane by lane; a NaN in the first operand is kept.

    Of equal operands the first is taken, as x86's own instructions do, so that it is one of them.
    """

    @intrinsic
    def run(typingctx: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, VectorType) or a != b:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            second = builder.fcmp_ordered(compare, args[1], args[0])
            return builder.select(second, args[1], args[0])

        return a(a, b), codegen

    return run


vmax = _select(">")
vmin = _select("<")


@intrinsic
def vselect(typingctx: Any, x: Any, limit: Any, yes: Any, no: Any) -> Any:
    """``yes`` where ``x < limit``, else ``no``."""
    if not isinstance(x, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        less = builder.fcmp_ordered("<", args[0], args[1])
        return builder.select(less, args[2], args[3])

    return x(x, x, x, x), codegen


def _integers(x: VectorType) -> Any:
    return ir.VectorType(ir.IntType(x.bits), x.count)


def _all_lanes(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _whole_bits(builder: Any, number: Any, x: VectorType) -> Any:
    """A whole-valued vector as integers of the same width, of which the low bits count.

    Doubles get an addend that moves the units into the last bit: AVX2 has no conversion.
    """
    if x.bits == 32:
        return builder.fptosi(number, _integers(x))
    moved = builder.fadd(number, ir.Constant(number.type, [1.5 * 2.0**52] * x.count))
    return builder.bitcast(moved, _integers(x))


@intrinsic
def scale_by_power(typingctx: Any, x: Any, n: Any) -> Any:
    """``x * 2**n`` for whole-valued ``n``, by adding to the exponent bits (no overflow check)."""
    if not isinstance(x, VectorType) or x != n:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shift = _all_lanes(_integers(x), 23 if x.bits == 32 else 52)
        moved = builder.shl(_whole_bits(builder, args[1], x), shift)
        bits = builder.add(builder.bitcast(args[0], _integers(x)), moved)
        return builder.bitcast(bits, args[0].type)

    return x(x, n), codegen


@intrinsic
def exponent(typingctx: Any, x: Any) -> Any:
    """The binary exponent of positive ``x`` such that ``x / 2**e`` lies in [1, 2)."""
    if not isinstance(x, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = _integers(x)
        bits = builder.bitcast(args[0], kind)
        if x.bits == 32:
            raised = builder.lshr(bits, _all_lanes(kind, 23))
            return builder.sitofp(builder.sub(raised, _all_lanes(kind, 127)), args[0].type)
        # The exponent becomes the last bits of a double of size 2**52.
        joined = builder.or_(
            builder.lshr(bits, _all_lanes(kind, 52)), _all_lanes(kind, 0x433 << 52)
        )
        base = ir.Constant(args[0].type, [2.0**52 + 1023] * x.count)
        return builder.fsub(builder.bitcast(joined, args[0].type), base)

    return x(x), codegen


@intrinsic
def mantissa(typingctx: Any, x: Any) -> Any:
    """A positive double over its power of two: in [1, 2); 0 becomes 1."""
    if not isinstance(x, VectorType) or x.bits != 64:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = _integers(x)
        bits = builder.and_(builder.bitcast(args[0], kind), _all_lanes(kind, (1 << 52) - 1))
        return builder.bitcast(builder.or_(bits, _all_lanes(kind, 1023 << 52)), args[0].type)

    return x(x), codegen


@intrinsic
def power_of_two(typingctx: Any, n: Any) -> Any:
    """Two to the whole-valued double n, -1023 <= n <= 1023; -1023 gives 0."""
    if not isinstance(n, VectorType) or n.bits != 64:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base = ir.Constant(args[0].type, [1.5 * 2.0**52 + 1023] * n.count)
        bits = builder.bitcast(builder.fadd(args[0], base), _integers(n))
        return builder.bitcast(builder.shl(bits, _all_lanes(bits.type, 52)), args[0].type)

    return n(n), codegen


def _reduce(name: str) -> Any:
    """All lanes folded in a fixed order (pairwise halves), so that results repeat."""

    @intrinsic
    def run(typingctx: Any, a: Any) -> Any:
        if not isinstance(a, VectorType):
            return None
        scalar = types.float32 if a.bits == 32 else types.float64

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value, count = args[0], a.count
            while count > 1:
                half = count // 2
                number = ir.IntType(32)
                low = ir.Constant(ir.VectorType(number, half), list(range(half)))
                high = ir.Constant(ir.VectorType(number, half), list(range(half, count)))
                undefined = ir.Constant(value.type, ir.Undefined)
                first = builder.shuffle_vector(value, undefined, low)
                second = builder.shuffle_vector(value, undefined, high)
                if name == "add":
                    value = builder.fadd(first, second)
                else:
                    larger = builder.fcmp_unordered(">" if name == "max" else "<", first, second)
                    value = builder.select(larger, first, second)
                count = half
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return scalar(a), codegen

    return run


sum_lanes = _reduce("add")
max_lanes = _reduce("max")


class _Arithmetic(AbstractTemplate):
    """Two equal vectors, or a vector and a scalar in either order."""

    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) != 2:
            return None
        a, b = args
        if isinstance(a, VectorType) and (a == b or isinstance(b, types.Float)):
            return signature(a, a, b)
        if isinstance(b, VectorType) and isinstance(a, types.Float):
            return signature(b, a, b)
        return None


def _operator(function: Any, emit: str) -> None:
    @infer_global(function)
    class Template(_Arithmetic):
        key = function

    @lower_builtin(function, VectorType, VectorType)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, emit)(args[0], args[1])

    @lower_builtin(function, VectorType, types.Float)
    def lower_right(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, emit)(args[0], _like(context, builder, sig.args, args, 1))

    @lower_builtin(function, types.Float, VectorType)
    def lower_left(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, emit)(_like(context, builder, sig.args, args, 0), args[1])


for _function, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _emit)


@infer_global(operator.neg)
class _Negation(AbstractTemplate):
    key = operator.neg

    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], VectorType):
            return signature(args[0], args[0])
        return None


@lower_builtin(operator.neg, VectorType)
def _negate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0])
