"""Arithmetic on tensors that carry labels: alignment, broadcasting, dtypes, contractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compiler.ir.dims import Dim, DimLike, collect_undecided, compare, product
from ...compiler.ir.graph import Value
from ...compiler.ir.types import FLOATS, Span, TensorType
from .environment import Env
from .errors import Sides, fail
from .values import Axis, Record, Tensor, Unknown, describe, is_number

COMPARISONS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "^": "pow"}
LOGIC = {"and": "and", "or": "or"}
_RANK = {"bool": 0, "u8": 1, "i8": 1, "i32": 2, "u64": 3, "i64": 3, "f16": 4, "f32": 5, "f64": 6}


def emit(env: Env, op: str, operands: Sequence[Tensor], span: Span, labels: Any = None,
         name: str = "", **attrs: Any) -> Tensor:  # fmt: skip
    """One node on tensors that are aligned already; the labels are the first operand's."""
    builder = env.builder
    values = [builder.local(t.value, t.home) for t in operands]
    result = builder.emit(op, values, attrs, span, name)
    kept = operands[0].labels if labels is None else tuple(labels)
    return Tensor(result, builder, kept)


def local(env: Env, tensor: Tensor) -> Value:
    """The tensor's value in the graph under construction."""
    return env.builder.local(tensor.value, tensor.home)


# ---------------------------------------------------------------- constants and dtypes


def constant(env: Env, value: Any, dtype: str | None, span: Span) -> Tensor:
    """A constant as a tensor; a symbolic size becomes a ``size`` node."""
    if isinstance(value, Dim):
        result = env.builder.emit("size_of", (), {"size": value, "dtype": "i64"}, span)
        tensor = Tensor(result, env.builder)
        return tensor if dtype in (None, "i64") else cast(env, tensor, dtype, span)
    if isinstance(value, (list, tuple)) and _has_size(value):
        parts = [constant(env, item, dtype or "i64", span) for item in value]
        return stack(env, parts, 0, span)
    array = _array(value, span)
    if dtype is None:
        dtype = {"b": "bool", "i": "i32", "f": env.elab.float_dtype}[array.dtype.kind]
    return Tensor(env.builder.constant(array, dtype, span), env.builder)


def check_list(value: Any, span: Span) -> None:
    """E404 unless a list holds numbers, its rows of one length."""
    if not _has_size(value):
        _array(value, span)


def _has_size(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_size(item) for item in value)
    return isinstance(value, Dim)


def _array(value: Any, span: Span) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "bif":
        fail("E404", "a list of numbers with equal lengths is needed here", span, describe(value))
    return array


def as_tensor(env: Env, value: Any, span: Span, like: str | None = None) -> Tensor:
    """``value`` as a tensor; constants take the element type ``like`` where it fits."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (bool, int, float, Dim, list, tuple)):
        dtype = like
        if like is not None and like not in FLOATS and not _integral(value):
            dtype = env.elab.float_dtype
        if isinstance(value, bool):
            dtype = "bool"
        elif like == "bool":
            dtype = None
        return constant(env, value, dtype, span)
    fail("E405", "a tensor is needed here", span, describe(value))


def _integral(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_integral(item) for item in value)
    return isinstance(value, (bool, int, Dim))


def cast(env: Env, tensor: Tensor, dtype: str, span: Span) -> Tensor:
    """The tensor in another element type (a node one can see)."""
    if tensor.dtype == dtype:
        return tensor
    result = emit(env, "cast", [tensor], span, dtype=dtype)
    return Tensor(result.value, result.home, tensor.labels, tensor.grid)


def promote(env: Env, tensors: Sequence[Tensor], span: Span) -> list[Tensor]:
    """All in the widest element type among them."""
    widest = max((t.dtype for t in tensors), key=_RANK.__getitem__)
    return [cast(env, t, widest, span) for t in tensors]


# ---------------------------------------------------------------- labels


def lift_batch(env: Env, tensor: Tensor) -> Tensor:
    """A leading batch axis of one element becomes a label."""
    if any(axis.kind == "batch" for axis in tensor.labels):
        return tensor
    rest = tensor.rest
    if not rest or rest[0] != env.elab.batch:
        return tensor
    axis = env.elab.batch_axis(inner=bool(tensor.labels))
    return Tensor(tensor.value, tensor.home, (*tensor.labels, axis), tensor.grid)


def union(tensors: Sequence[Tensor]) -> tuple[Axis, ...]:
    """All labels, in order of first appearance, the batch first."""
    found: list[Axis] = []
    for tensor in tensors:
        found += [axis for axis in tensor.labels if axis not in found]
    return tuple(sorted(found, key=lambda axis: axis.kind != "batch"))


def arrange(env: Env, tensor: Tensor, labels: Sequence[Axis], span: Span,
            expand: bool = False, rank: int | None = None) -> Tensor:  # fmt: skip
    """The tensor with exactly these labels in this order; missing ones get size 1.

    ``expand`` broadcasts missing labels to their size. ``rank`` pads the element's shape with
    leading ones, so that labels of operands of different rank line up.
    """
    own = [axis for axis in labels if axis in tensor.labels]
    count = len(tensor.labels)
    order = [tensor.labels.index(axis) for axis in own]
    rest = list(tensor.rest)
    if order != list(range(count)):
        perm = (*order, *range(count, count + len(rest)))
        tensor = emit(env, "transpose", [tensor], span, own, perm=perm)
    pad = [1] * max(0, (rank or 0) - len(rest))
    shape = [axis.size if axis in own else 1 for axis in labels] + pad + rest
    if len(own) != len(labels) or pad:
        tensor = emit(env, "reshape", [tensor], span, labels, shape=tuple(shape))
    if expand and len(own) != len(labels):
        full = [axis.size for axis in labels] + pad + rest
        tensor = emit(env, "broadcast", [tensor], span, labels, shape=tuple(full))
    return Tensor(tensor.value, tensor.home, tuple(labels), tensor.grid)


def align(env: Env, tensors: Sequence[Tensor], span: Span) -> tuple[list[Tensor], tuple[Axis, ...]]:
    """Operands with the same labels and element ranks, ready for an element-wise op."""
    if any(axis.kind == "batch" for t in tensors for axis in t.labels):
        tensors = [lift_batch(env, t) for t in tensors]
    labels = union(tensors)
    ranks = [len(t.rest) for t in tensors]
    top = max(ranks)
    done = []
    reference = next(t for t in tensors if len(t.rest) == top)
    for tensor in tensors:
        if len(tensor.rest) < top and tensor.rest:
            tensor = _pad_rank(env, tensor, reference, span)
        done.append(tensor)
    needs = [t.labels != labels or (bool(labels) and len(t.rest) < top) for t in done]
    return [
        arrange(env, t, labels, span, rank=top) if moved and (t.labels or t.rest) else t
        for t, moved in zip(done, needs, strict=True)
    ], labels


def _pad_rank(env: Env, tensor: Tensor, reference: Tensor, span: Span) -> Tensor:
    """Align a lower rank: from the left when both lead with the batch, else as it fits.

    What has no batch lines up with the last axes, or else with those behind the batch.
    """
    low, high = tensor.rest, reference.rest
    missing = len(high) - len(low)
    batched = low[0] == env.elab.batch and high[0] == env.elab.batch
    skip = 1 if high[0] == env.elab.batch and not batched else 0
    last = list(zip(low, high[missing:], strict=True))
    first = list(zip(low, high[skip:], strict=False))
    sure = all(map(_sure, first)) and not all(map(_sure, last))
    fits = all(_fits(a, b) for a, b in first) and not all(_fits(a, b) for a, b in last)
    if not batched and not sure and not fits:
        return tensor
    shape = [axis.size for axis in tensor.labels] + list(low) + [1] * (missing - skip)
    return emit(env, "reshape", [tensor], span, tensor.labels, shape=tuple(shape))


def _fits(a: DimLike, b: DimLike) -> bool:
    with collect_undecided():
        return a == 1 or b == 1 or compare(a, b) is not False


def _sure(pair: tuple[DimLike, DimLike]) -> bool:
    return 1 in pair or pair[0] == pair[1]


def finish_labels(env: Env, tensor: Tensor, order: Sequence[Axis], span: Span) -> Tensor:
    """The plain tensor of an equation: batch (unless inner), indices in order, element."""
    batch = [axis for axis in tensor.labels if axis.kind == "batch"]
    inner = bool(batch) and batch[0].inner
    labels = [*order, *batch] if inner else [*batch, *order]
    stray = [axis for axis in tensor.labels if axis not in labels]
    if stray:
        fail(
            "E501",
            f"index `{stray[0].name}` is used outside a reducer",
            span,
            hint=f"sum over it, `sum{{{stray[0].name}}} ...`, or put it on the left-hand side",
        )
    result = arrange(env, tensor, labels, span, expand=True)
    return Tensor(result.value, result.home, (), tensor.grid)


# ---------------------------------------------------------------- element-wise


def need_condition(tensor: Tensor, span: Span) -> None:
    """E104 unless a tensor holds truth values."""
    if tensor.dtype != "bool":
        fail("E104", "a condition must be true or false", span, str(tensor.type),
             "compare it: `x != 0`")  # fmt: skip


def elementwise(env: Env, op: str, operands: Sequence[Any], span: Span,
                sides: Sides | None = None, **attrs: Any) -> Any:  # fmt: skip
    """An element-wise op with alignment, promotion and shape messages."""
    known = [x for x in operands if isinstance(x, Tensor)]
    if any(isinstance(x, Unknown) for x in operands):
        return _guess(env, known, span)
    like = max((t.dtype for t in known), key=_RANK.__getitem__) if known else None
    if op in ("div", "pow") and like not in (*FLOATS, None):
        like = env.elab.float_dtype
        operands = [cast(env, x, like, span) if isinstance(x, Tensor) else x for x in operands]
    tensors = [as_tensor(env, x, span, like) for x in operands]
    if op == "where":
        tensors = [tensors[0], *promote(env, tensors[1:], span)]
    elif op not in ("and", "or", "not", "xor"):
        tensors = promote(env, tensors, span)
    grid = next((t.grid for t in tensors if t.grid is not None and t.rest), None)
    aligned, names = align(env, tensors, span)
    check_shapes(aligned, span, sides)
    result = emit(env, op, aligned, span, names, **attrs)
    keeps_grid = op in ("add", "sub", "where", "minimum", "maximum", "clamp")
    return Tensor(result.value, result.home, names, grid if keeps_grid else None)


def check_shapes(tensors: Sequence[Tensor], span: Span, sides: Sides | None) -> None:
    """E102 when element shapes cannot be broadcast together."""
    first = tensors[0]
    for other in tensors[1:]:
        pairs = zip(reversed(first.rest), reversed(other.rest), strict=False)
        if all(_fits(a, b) for a, b in pairs):
            continue
        found = f"{_shape(first)} (left)  and  {_shape(other)} (right)"
        if sides is None:
            fail("E102", "shapes do not agree", span, found.replace(" (left)", "")
                 .replace(" (right)", ""))  # fmt: skip
        message = f"cannot {sides.verb} branches of different shape"
        fail("E102", message, sides.at, found, _branch_hint(first, other, sides), sides=sides)


def _branch_hint(left: Tensor, right: Tensor, sides: Sides) -> str | None:
    """The projection that would make two branches agree."""
    if sides.op == "*" and len(left.rest) > 1:
        return "each size of a gate is that of what it gates, or 1"
    if sides.op not in ("+", "-") or len(left.rest) < 2 or len(left.rest) != len(right.rest):
        return None
    # The shortcut is what comes unchanged from the input, else the right branch.
    target, short = (right, left) if sides.left[1] == "id" else (left, right)
    channels = target.rest[1]
    if len(target.rest) == 2:
        return f"project one of them: linear({channels})"
    strides = {_stride(a, b) for a, b in zip(short.rest[2:], target.rest[2:], strict=True)}
    if strides == {1}:
        return f"project the shortcut: conv({channels}, 1)"
    if strides == {2}:
        return f"project the shortcut: conv({channels}, 1, stride=2)"
    return "bring both to the same spatial size (stride, pool or upsample)"


def _stride(size: DimLike, target: DimLike) -> int | None:
    if size == target:
        return 1
    known = isinstance(size, int) and isinstance(target, int) and 0 < target < size
    return -(-size // target) if known else None  # type: ignore[operator]


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(str(d) for d in tensor.rest) + "]"


def _guess(env: Env, known: Sequence[Tensor], span: Span) -> Any:
    """The type that an element-wise result has at least, while a carry is still unknown."""
    if not known:
        return Unknown()
    if len(known) == 1:
        return known[0]
    aligned, labels = align(env, promote(env, known, span), span)
    result = emit(env, "add", aligned, span, labels) if aligned[0].dtype != "bool" else aligned[0]
    return Tensor(result.value, result.home, labels)


def binary(env: Env, op: str, left: Any, right: Any, span: Span,
           sides: Sides | None = None) -> Any:  # fmt: skip
    """``left op right`` on tensors (or a tensor and a constant)."""
    if op == "@":
        return matmul(env, left, right, span, sides)
    if op == "++":
        return concat(env, [left, right], span, sides=sides)
    if op in ("==", "!="):
        _check_positions(left, right, span)
    table = {**COMPARISONS, **ARITHMETIC, **LOGIC}
    if op == "^" and is_number(right) and right == 2:
        return elementwise(env, "square", [left], span)
    result = elementwise(env, table[op], [left, right], span, sides)
    grids = [x.grid for x in (left, right) if isinstance(x, Tensor) and x.grid]
    if op in ("==", "!=") and grids and isinstance(result, Tensor) and result.rest:
        # Positions are compared as a whole: equal when every coordinate is.
        axis = len(result.labels) + len(result.rest) - 1
        kind = "all" if op == "==" else "any"
        return emit(env, "reduce", [result], span, kind=kind, axes=(axis,), keepdims=False)
    return result


def _check_positions(left: Any, right: Any, span: Span) -> None:
    """A position equals another position, never a single number."""
    for place, other in ((left, right), (right, left)):
        if isinstance(place, Tensor) and place.grid is not None and is_number(other):
            fail("E102", "a position on a grid is compared with a position", span,
                 f"the number {other}", "write its coordinates: `s == [row, column]`")  # fmt: skip


def matmul(env: Env, left: Any, right: Any, span: Span, sides: Sides | None = None) -> Any:
    """``left @ right`` per element: a batch that leads either side is not mentioned."""
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return _guess_matmul(env, left, right, span)
    left, right = _dense(env, left, span), _dense(env, right, span)
    for side in (left, right):
        if not isinstance(side, Tensor) and not isinstance(side, (list, tuple)):
            fail("E405", "`@` multiplies tensors", sides.at if sides else span, describe(side),
                 "numbers multiply with `*`")  # fmt: skip
    a, b = promote(env, [as_tensor(env, left, span), as_tensor(env, right, span)], span)
    plain = not a.labels and not b.labels
    a, b = lift_batch(env, a), lift_batch(env, b)
    if not a.rest or not b.rest or len(a.rest) > 2 or len(b.rest) > 2:
        fail("E101", "`@` multiplies vectors and matrices", sides.at if sides else span,
             f"{_shape(a)} @ {_shape(b)}", "name the axes: `sum{k} a[i, k] * b[k, j]`",
             sides=sides)  # fmt: skip
    labels = union([a, b])
    letters = {axis: chr(ord("A") + place) for place, axis in enumerate(labels)}
    rows = "i" * (len(a.rest) - 1)
    columns = "j" * (len(b.rest) - 1)
    left_spec = "".join(letters[x] for x in a.labels) + rows + "k"
    right_spec = "".join(letters[x] for x in b.labels) + "k" + columns
    spec = f"{left_spec},{right_spec}->{''.join(letters[x] for x in labels)}{rows}{columns}"
    with collect_undecided() as undecided:
        agree = compare(tuple(a.rest)[-1], next(iter(b.rest)))
    if agree is False:
        fail("E103", "the inner sizes of `@` do not agree", sides.at if sides else span,
             f"{_shape(a)} @ {_shape(b)}", sides=sides)  # fmt: skip
    for x, y in undecided:
        env.elab.require_equal(x, y, "inner sizes of @", span)
    result = emit(env, "contract", [a, b], span, labels, semiring="sum_product", spec=spec)
    return Tensor(result.value, result.home, () if plain else labels)


def _dense(env: Env, value: Any, span: Span) -> Any:
    if not isinstance(value, Record):
        return value
    from .decisions import densify

    return densify(value, env, span)


def _guess_matmul(env: Env, left: Any, right: Any, span: Span) -> Any:
    known = left if isinstance(left, Tensor) else right
    if not isinstance(known, Tensor) or len(known.rest) != 2:
        return Unknown()
    # A matrix times something unknown (taken for a vector) keeps one of its sizes.
    axis = len(known.labels) + (1 if known is left else 0)
    kept = emit(env, "reduce", [known], span, kind="sum", axes=(axis,), keepdims=False)
    return Tensor(kept.value, kept.home, known.labels)


# ---------------------------------------------------------------- joining


def concat(env: Env, parts: Sequence[Any], span: Span, axis: int = 1,
           sides: Sides | None = None) -> Any:  # fmt: skip
    """Join on the channel axis (axis 1 of a batched tensor, axis 0 of a vector)."""
    if any(isinstance(x, Unknown) for x in parts):
        return Unknown()
    tensors = promote(env, [as_tensor(env, x, span) for x in parts], span)
    if any(t.labels for t in tensors):
        tensors = [lift_batch(env, t) for t in tensors]
        labels = union(tensors)
        tensors = [arrange(env, t, labels, span, expand=True) for t in tensors]
        at = len(labels)
    else:
        labels = ()
        at = min(axis, len(tensors[0].rest) - 1)
    if not tensors[0].rest:
        fail("E109", "numbers cannot be joined; `++` joins tensors on channels",
             sides.at if sides else span, sides=sides)  # fmt: skip
    for other in tensors[1:]:
        _check_join(tensors[0], other, at - len(labels), sides.at if sides else span, sides)
    result = emit(env, "concat", tensors, span, labels, axis=at)
    return Tensor(result.value, result.home, labels)


def _check_join(first: Tensor, other: Tensor, axis: int, span: Span, sides: Sides | None) -> None:
    """E109 unless two tensors agree in all but the axis they are joined on."""
    found = f"{_shape(first)} (left)  and  {_shape(other)} (right)"
    if len(other.rest) != len(first.rest):
        fail("E109", "cannot join tensors of different rank", span, found, sides=sides)
    for place, (a, b) in enumerate(zip(first.rest, other.rest, strict=True)):
        with collect_undecided():
            differ = place != axis and compare(a, b) is False
        if differ:
            hint = "bring both to the same spatial size (stride, pool or upsample)"
            fail("E109", "cannot join branches of different shape", span, found,
                 hint if place > 1 else None, sides=sides)  # fmt: skip


def stack(env: Env, parts: Sequence[Tensor], axis: int, span: Span) -> Tensor:
    """Plain tensors of one shape on a new axis."""
    expanded = []
    for part in parts:
        shape = list(part.rest)
        shape.insert(axis, 1)
        expanded.append(emit(env, "reshape", [part], span, (), shape=tuple(shape)))
    if len(expanded) == 1:
        return expanded[0]
    return emit(env, "concat", expanded, span, (), axis=axis)


# ---------------------------------------------------------------- reducing


def reduce_axes(env: Env, tensor: Tensor, axes: Sequence[Axis], kind: str, span: Span) -> Tensor:
    """Reduce over labels; one that the tensor lacks counts as a constant, times its size."""
    missing = [axis for axis in axes if axis not in tensor.labels]
    if missing and kind in ("sum", "prod", "lse"):
        tensor = arrange(env, tensor, (*tensor.labels, *missing), span, expand=True)
    places = tuple(i for i, axis in enumerate(tensor.labels) if axis in axes)
    kept = [axis for axis in tensor.labels if axis not in axes]
    if not places:
        return tensor
    result = emit(env, "reduce", [tensor], span, kept, kind=kind, axes=places, keepdims=False)
    return Tensor(result.value, result.home, tuple(kept), tensor.grid)


def contract(env: Env, factors: Sequence[Tensor], axes: Sequence[Axis], span: Span,
             semiring: str = "sum_product", name: str = "") -> Tensor:  # fmt: skip
    """Contract scalar-valued factors over labels in one node; ``name`` says what made it."""
    factors = promote(env, factors, span)
    labels = union(factors)
    letters = {axis: _letter(place) for place, axis in enumerate(labels)}
    kept = [axis for axis in labels if axis not in axes]
    inputs = ",".join("".join(letters[axis] for axis in t.labels) for t in factors)
    spec = f"{inputs}->{''.join(letters[axis] for axis in kept)}"
    return emit(env, "contract", factors, span, kept, name, semiring=semiring, spec=spec)


def _letter(place: int) -> str:
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[place]


def merge_labels(env: Env, tensor: Tensor, span: Span) -> Tensor:
    """All labels as one leading axis (for ops that know only a batch)."""
    if len(tensor.labels) == 1:
        return Tensor(tensor.value, tensor.home, tensor.labels)
    shape = (product(axis.size for axis in tensor.labels), *tensor.rest)
    return emit(env, "reshape", [tensor], span, (), shape=shape)


def zero(env: Env, kind: TensorType, span: Span) -> Value:
    """A tensor of zeros."""
    return env.builder.emit("fill", (), {"shape": kind.shape, "value": 0.0, "dtype": kind.dtype},
                            span)  # fmt: skip


def numbers(env: Env, axis: Axis, low: DimLike, span: Span) -> Tensor:
    """``low, low + 1, ...`` along an index."""
    made = env.builder.emit("iota", (), {"size": axis.size, "dtype": "i32"}, span)
    result = Tensor(made, env.builder, (axis,))
    return result if low == 0 else elementwise(env, "add", [result, low], span)


def same_home(env: Env, tensor: Tensor) -> Tensor:
    """The tensor as a value of the graph under construction."""
    return Tensor(local(env, tensor), env.builder, tensor.labels, tensor.grid)
