"""Arithmetic on constants: numbers, symbolic sizes and lists, computed while compiling."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NoReturn

from ...compiler.ir.dims import Dim, compare, floordiv, mod
from ...compiler.ir.types import Span
from . import tensors as t
from .environment import Env
from .errors import fail
from .values import (
    describe,
    is_constant,
)

LARGEST = 2**63 - 1
MAX_TERMS = 64

_CONSTANT_OPS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": mod,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def is_plain(value: Any) -> bool:
    """Whether a value is a constant that :func:`constant_binary` works on."""
    return isinstance(value, (bool, int, float, str, Dim)) or (
        isinstance(value, (list, tuple)) and is_constant(value)
    )


def constant_binary(op: str, left: Any, right: Any, env: Env, span: Span) -> Any:
    """An infix operator on two constants; E404, E408 or E110 where it has no value."""
    if isinstance(left, (list, tuple)) or isinstance(right, (list, tuple)):
        return _list_binary(op, left, right, env, span)
    if op == "++":
        fail("E404", "`++` joins tensors or lists", span, f"{describe(left)}, {describe(right)}")
    if op in ("and", "or"):
        if isinstance(left, bool) and isinstance(right, bool):
            return (left and right) if op == "and" else (left or right)
        fail("E404", f"`{op}` joins conditions", span, f"{describe(left)}, {describe(right)}")
    if isinstance(left, str) or isinstance(right, str):
        if op in ("==", "!=") and isinstance(left, str) and isinstance(right, str):
            return (left == right) is (op == "==")
        fail("E404", f"`{op}` needs numbers", span, f"{describe(left)} {op} {describe(right)}")
    if isinstance(left, Dim) or isinstance(right, Dim):
        return _size_binary(op, left, right, env, span)
    try:
        if op == "/":
            return _divide(left, right)
        result = _power(left, right, span) if op == "^" else _CONSTANT_OPS[op](left, right)
    except (ZeroDivisionError, OverflowError):
        zero = right == 0
        fail("E408", "division by zero" if zero else "the number is too large", span)

    if isinstance(result, float) and math.isinf(result) and op in "*+-":
        if not math.isinf(left) and not math.isinf(right):
            fail("E408", "the number is too large", span)
    if isinstance(result, int) and abs(result) > LARGEST:
        fail("E408", "the whole number is too large", span,
             hint="write it as a real number, such as 1e30")  # fmt: skip
    return result


def _divide(left: Any, right: Any) -> Any:
    quotient = left / right
    exact = isinstance(left, int) and isinstance(right, int) and left % right == 0
    return left // right if exact else quotient


def _power(left: Any, right: Any, span: Span) -> Any:
    if isinstance(left, int) and isinstance(right, int) and abs(right) > 1024:
        fail("E408", "the exponent is too large", span, str(right))
    result = left**right
    if isinstance(result, complex):
        fail("E408", "a root of a negative number", span, f"{left}^{right}")
    return result


def _size_binary(op: str, left: Any, right: Any, env: Env, span: Span) -> Any:
    sizes = isinstance(right, (int, Dim)) and isinstance(left, (int, Dim))
    if op == "/" and sizes:
        result = floordiv(left, right)
        env.elab.require_equal(result * right, left, "a size is divided", span)
        return result
    if op in ("+", "-", "*", "%") and sizes:
        return _simple(_CONSTANT_OPS[op](left, right), span)
    if op in ("==", "!="):
        verdict = compare(left, right)
        if verdict is None:
            undecided(f"{left} {op} {right}", span)
        return verdict if op == "==" else not verdict
    gap: Any = left - right if sizes else None
    if op in ("<", "<=", ">", ">=") and isinstance(gap, int):
        return _CONSTANT_OPS[op](gap, 0)
    left = t.constant(env, left, None, span) if isinstance(left, Dim) else left
    right = t.constant(env, right, None, span) if isinstance(right, Dim) else right
    return t.binary(env, op, left, right, span)


def _simple(size: Any, span: Span) -> Any:
    """E702 when a symbolic size is a formula beyond any use."""
    if isinstance(size, Dim):
        if len(size.terms) > MAX_TERMS or any(len(m) > MAX_TERMS for m, _ in size.terms):
            fail("E702", f"the formula of a size has more than {MAX_TERMS} terms", span)
    return size


def undecided(text: str, span: Span) -> NoReturn:
    """E110: a comparison of sizes that are still symbolic."""
    fail("E110", "this cannot be decided while compiling", span, text,
         "sizes are symbolic here; declare the input with numbers, or pass `--shape`")  # fmt: skip


def _list_binary(op: str, left: Any, right: Any, env: Env, span: Span) -> Any:
    if op in ("==", "!=") and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return (list(left) == list(right)) is (op == "==")
    if op == "++" and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return bounded([*left, *right], span)
    return t.binary(env, op, t.as_tensor(env, left, span), t.as_tensor(env, right, span), span)


def bounded(items: list[Any], span: Span) -> list[Any]:
    """E702 when a list, its inner lists counted, has more items than may be unrolled."""
    from .domains import MAX_UNROLLED

    left = MAX_UNROLLED
    stack: list[Any] = [items]
    while stack:
        for item in stack.pop():
            left -= 1
            if left < 0:
                too_long(span)
            if isinstance(item, (list, tuple)):
                stack.append(item)
    return items


def too_long(span: Span) -> NoReturn:
    """E702: a list with more items than may be unrolled."""
    from .domains import MAX_UNROLLED

    fail("E702", f"a list has more than {MAX_UNROLLED} items", span,
         hint="write a long repetition over an index: `y[i] = ... for i in 0..n`")  # fmt: skip
