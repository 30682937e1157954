"""Lane masks: comparisons of vectors, choosing by lane, and loads and stores of a few lanes.

A mask is an LLVM vector of single bits; in memory truth values are bytes, 0 or 1.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import models, register_model
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, signature

from ..simd import FLOAT, VectorType, infer_global, intrinsic


class MaskType(types.Type):
    """``count`` truth values, one for each lane."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"m{count}")


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.count))


# ---------------------------------------------------------------- comparison and logic


def _comparison(function: Any, sign: str, emit: str) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            a, b = args
            if not isinstance(a, VectorType):
                return None
            if a == b or isinstance(b, types.Float):
                return signature(MaskType(a.count), a, b)
            return None

    def compare(builder: Any, a: Any, b: Any) -> Any:
        return getattr(builder, emit)(sign, a, b)

    @lower_builtin(function, VectorType, VectorType)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return compare(builder, args[0], args[1])

    @lower_builtin(function, VectorType, types.Float)
    def lower_scalar(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[0].type
        scalar = args[1]
        if scalar.type != kind.element:
            convert = builder.fptrunc if kind.element == FLOAT[32] else builder.fpext
            scalar = convert(scalar, kind.element)
        return compare(builder, args[0], _spread(builder, scalar, kind))


def _spread(builder: Any, scalar: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
    return builder.shuffle_vector(single, undefined, places)


for _function, _sign, _emit in (
    (operator.lt, "<", "fcmp_ordered"),
    (operator.le, "<=", "fcmp_ordered"),
    (operator.gt, ">", "fcmp_ordered"),
    (operator.ge, ">=", "fcmp_ordered"),
    (operator.eq, "==", "fcmp_ordered"),
    (operator.ne, "!=", "fcmp_unordered"),
):
    _comparison(_function, _sign, _emit)


def _logic(function: Any, emit: str) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            a, b = args
            return signature(a, a, b) if isinstance(a, MaskType) and a == b else None

    @lower_builtin(function, MaskType, MaskType)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, emit)(args[0], args[1])


_logic(operator.and_, "and_")
_logic(operator.or_, "or_")
_logic(operator.xor, "xor")


@infer_global(operator.invert)
class _Inversion(AbstractTemplate):
    key = operator.invert

    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], args[0]) if isinstance(args[0], MaskType) else None


@lower_builtin(operator.invert, MaskType)
def _invert(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.not_(args[0])


@intrinsic
def pick(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:
    """``yes`` in the lanes that the mask holds, else ``no``; both vectors or both masks."""
    if not isinstance(mask, MaskType) or yes != no:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return yes(mask, yes, no), codegen


@intrinsic
def any_lane(typingctx: Any, mask: Any) -> Any:
    """Whether the mask holds in at least one lane."""
    if not isinstance(mask, MaskType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = ir.IntType(mask.count)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), codegen


# ---------------------------------------------------------------- truth values in memory


@intrinsic
def as_number(typingctx: Any, mask: Any, like: Any) -> Any:
    """1 where the mask holds, else 0, as floats of the type of ``like``."""
    if not isinstance(mask, MaskType) or not isinstance(like, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.uitofp(args[0], args[1].type)

    return like(mask, like), codegen


def _byte_loads(count: int) -> tuple[Any, Any]:
    """Loads of ``count`` bytes, all of them or the first few: as a mask."""
    mask = MaskType(count)
    byte = ir.VectorType(ir.IntType(8), count)

    def truth(builder: Any, value: Any) -> Any:
        return builder.icmp_unsigned("!=", value, ir.Constant(byte, None))

    @intrinsic
    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], byte.as_pointer())
            return truth(builder, builder.load(pointer, align=1))

        return mask(types.int64), codegen

    @intrinsic
    def load_few(typingctx: Any, address: Any, few: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = _masked_load(builder, args[0], byte, f"v{count}i8", 1, args[1])
            return truth(builder, value)

        return mask(types.int64, types.int64), codegen

    return load, load_few


load_mask2, load_first_mask2 = _byte_loads(2)
load_mask4, load_first_mask4 = _byte_loads(4)
load_mask8, load_first_mask8 = _byte_loads(8)
load_mask16, load_first_mask16 = _byte_loads(16)


@intrinsic
def store_mask(typingctx: Any, address: Any, mask: Any) -> Any:
    """Write a mask as bytes."""
    if not isinstance(mask, MaskType):
        return None
    byte = ir.VectorType(ir.IntType(8), mask.count)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], byte.as_pointer())
        builder.store(builder.zext(args[1], byte), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, mask), codegen


# ---------------------------------------------------------------- a few lanes


def first_lanes(builder: Any, count: int, few: Any) -> Any:
    """The LLVM mask of the lanes below ``few``."""
    word = ir.IntType(64)
    kind = ir.VectorType(word, count)
    places = ir.Constant(kind, list(range(count)))
    return builder.icmp_signed("<", places, _spread(builder, few, kind))


def _masked_load(builder: Any, address: Any, kind: Any, name: str, align: int, few: Any) -> Any:
    mask = first_lanes(builder, kind.count, few)
    number = ir.IntType(32)
    pointer = builder.inttoptr(address, kind.as_pointer())
    args = [pointer, ir.Constant(number, align), mask, ir.Constant(kind, None)]
    signature_ = ir.FunctionType(kind, [a.type for a in args])
    wanted = f"llvm.masked.load.{name}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature_, wanted), args)


def _masked_store(builder: Any, address: Any, value: Any, name: str, align: int, few: Any) -> None:
    mask = first_lanes(builder, value.type.count, few)
    pointer = builder.inttoptr(address, value.type.as_pointer())
    args = [value, pointer, ir.Constant(ir.IntType(32), align), mask]
    signature_ = ir.FunctionType(ir.VoidType(), [a.type for a in args])
    wanted = f"llvm.masked.store.{name}.p0"
    builder.call(cgutils.get_or_insert_function(builder.module, signature_, wanted), args)


def _first_load(count: int, bits: int) -> Any:
    kind = VectorType(bits, count)

    @intrinsic
    def load_few(typingctx: Any, address: Any, few: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = context.get_value_type(kind)
            return _masked_load(builder, args[0], value, f"v{count}f{bits}", 4, args[1])

        return kind(types.int64, types.int64), codegen

    return load_few


load_first4, load_first8, load_first16 = (_first_load(count, 32) for count in (4, 8, 16))
load_first2d, load_first4d, load_first8d, load_first16d = (
    _first_load(count, 64) for count in (2, 4, 8, 16)
)


@intrinsic
def store_first(typingctx: Any, address: Any, vector: Any, few: Any) -> Any:
    """Write the first ``few`` lanes of a vector or a mask; the rest of memory stays."""
    if not isinstance(vector, (VectorType, MaskType)):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address, value, few = args
        if isinstance(vector, MaskType):
            byte = ir.VectorType(ir.IntType(8), vector.count)
            value = builder.zext(value, byte)
            _masked_store(builder, address, value, f"v{vector.count}i8", 1, few)
        else:
            _masked_store(builder, address, value, f"v{vector.count}f{vector.bits}", 4, few)
        return context.get_dummy_value()

    return types.void(types.int64, vector, types.int64), codegen


@intrinsic
def lanes_below(typingctx: Any, like: Any, few: Any) -> Any:
    """The mask of the first ``few`` lanes of vectors of the type of ``like``."""
    if not isinstance(like, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return first_lanes(builder, like.count, args[1])

    return MaskType(like.count)(like, types.int64), codegen


@intrinsic
def lane_numbers(typingctx: Any, like: Any) -> Any:
    """0, 1, 2, ... along the lanes, as floats of the type of ``like``."""
    if not isinstance(like, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(args[0].type, [float(i) for i in range(like.count)])

    return like(like), codegen


@intrinsic
def lane_count(typingctx: Any, vector: Any) -> Any:
    """How many lanes a vector has, known when the kernel is compiled."""
    if not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(ir.IntType(64), vector.count)

    return types.int64(vector), codegen


def _crossing(distance: int) -> Any:
    """The vector with lanes ``i`` and ``i ^ distance`` exchanged; itself when it is too short."""

    @intrinsic
    def cross(typingctx: Any, vector: Any) -> Any:
        if not isinstance(vector, VectorType):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            if distance >= vector.count:
                return args[0]
            places = [i ^ distance for i in range(vector.count)]
            order = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), places)
            return builder.shuffle_vector(args[0], args[0], order)

        return vector(vector), codegen

    return cross


cross1, cross2, cross4, cross8 = (_crossing(distance) for distance in (1, 2, 4, 8))


@intrinsic
def first_lane(typingctx: Any, vector: Any) -> Any:
    """The scalar in lane 0."""
    if not isinstance(vector, VectorType):
        return None
    scalar = types.float32 if vector.bits == 32 else types.float64

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], ir.Constant(ir.IntType(32), 0))

    return scalar(vector), codegen


@intrinsic
def lane_values(typingctx: Any, vector: Any) -> Any:
    """All lanes as a tuple of scalars."""
    if not isinstance(vector, VectorType):
        return None
    scalar = types.float32 if vector.bits == 32 else types.float64

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = ir.IntType(32)
        values = [
            builder.extract_element(args[0], ir.Constant(number, lane))
            for lane in range(vector.count)
        ]
        return context.make_tuple(builder, sig.return_type, values)

    return types.UniTuple(scalar, vector.count)(vector), codegen


@intrinsic
def store_whole(typingctx: Any, address: Any, vector: Any, few: Any) -> Any:
    """Write the first ``few`` lanes, whole numbers, as int32."""
    if not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(32), vector.count)
        value = builder.fptosi(args[1], kind)
        _masked_store(builder, args[0], value, f"v{vector.count}i32", 4, args[2])
        return context.get_dummy_value()

    return types.void(types.int64, vector, types.int64), codegen


@intrinsic
def store_bytes(typingctx: Any, address: Any, vector: Any) -> Any:
    """Write whole-valued lanes, 0 to 255, as bytes."""
    if not isinstance(vector, VectorType):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = builder.fptosi(args[1], ir.VectorType(ir.IntType(32), vector.count))
        value = builder.trunc(whole, ir.VectorType(ir.IntType(8), vector.count))
        pointer = builder.inttoptr(args[0], value.type.as_pointer())
        builder.store(value, pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, vector), codegen
