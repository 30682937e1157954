"""Reducers: ``sum{k} A[i, k] * B[k, j]``, ``max{a in 0..n if ok[s, a]} Q[s, a]``, ``E{s'} V[s']``.

A product under ``sum`` becomes one contraction; a sum under ``max``, ``min`` or ``lse`` likewise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...compiler.ir.types import FLOATS, Span
from .. import syntax as s
from . import tensors as t
from .domains import Domain, declared_domain, domain_of
from .environment import Env
from .errors import fail
from .expressions import evaluate_value, value_of
from .ranges import infer_range
from .values import Axis, LabelIndex, Tensor, Unknown, describe, is_block, is_number

IDENTITY = {"sum": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf, "lse": -math.inf,
            "mean": 0.0, "argmax": -math.inf, "argmin": math.inf}  # fmt: skip
SEMIRINGS = {"max": "max_plus", "min": "min_plus", "lse": "lse_plus"}


def reduction(node: s.Reduction, env: Env) -> Any:
    """The value of a reducer."""
    if node.kind == "E":
        from .decisions import expectation

        return expectation(node, env)
    bound, masks = _bind(node, env)
    inner = env.bind(bound)
    axes = [index.axis for index in bound.values()]
    if node.condition is not None:
        condition = evaluate_value(node.condition, inner)
        if isinstance(condition, bool):
            condition = t.constant(inner, condition, "bool", node.condition.span)
        if isinstance(condition, Tensor):
            t.need_condition(condition, node.condition.span)
            masks.append(condition)
        elif not isinstance(condition, Unknown):
            fail("E404", "a condition is needed after `if`", node.condition.span,
                 describe(condition))  # fmt: skip
    mask = _all(masks, inner, node.span)
    if mask is not None:
        guard = mask if env.guard is None else _all([env.guard, mask], inner, node.span)
        inner = replace(inner, guard=guard)
    if mask is None:
        product = _contraction(node, axes, inner)
        if product is not None:
            return product
    body = evaluate_value(node.body, inner)
    return reduce_value(node.kind, body, axes, mask, inner, node.span)


def _all(masks: list[Tensor], env: Env, span: Span) -> Tensor | None:
    result: Any = None
    for mask in masks:
        result = mask if result is None else t.elementwise(env, "and", [result, mask], span)
    return result


def _bind(node: s.Reduction, env: Env) -> tuple[dict[str, LabelIndex], list[Tensor]]:
    """Axes of the reducer's own indices, and masks for ranges that depend on other indices."""
    bound: dict[str, LabelIndex] = {}
    masks: list[Tensor] = []
    for name, range_node in node.binders:
        inner = env.bind(bound)

        def widest(name: str = name, inner: Env = inner) -> Domain:
            return _infer(name, node, inner)

        if range_node is not None:
            domain = domain_of(range_node, inner, name, widest)
        else:
            domain = declared_domain(name, inner) or widest()
        axis = domain.axis(name)
        bound[name] = LabelIndex(axis)
        masks += _limits(domain, bound[name], env.bind(bound), node.span)
    return bound, masks


def _infer(name: str, node: s.Reduction, env: Env) -> Domain:
    parts = [node.body] if node.condition is None else [node.body, node.condition]
    return infer_range(name, parts, env, node.span)


def _limits(domain: Domain, index: LabelIndex, env: Env, span: Span) -> list[Tensor]:
    found = []
    for limit, op in ((domain.lower, "ge"), (domain.upper, "lt")):
        if limit is not None:
            number = value_of(index, env, span)
            found.append(t.elementwise(env, op, [number, limit], span))
    return found


def reduce_value(
    kind: str, body: Any, axes: list[Axis], mask: Tensor | None, env: Env, span: Span
) -> Any:
    """Reduce an evaluated body over axes, counting only where ``mask`` is true."""
    if isinstance(body, Unknown):
        return body
    if is_block(body):
        fail("E405", f"`{kind}{{...}}` reduces tensors", span, describe(body))
    if kind in ("any", "all"):
        return _quantifier(kind, body, axes, mask, env, span)
    tensor = _spread(body, axes, mask, env, span)
    if kind in ("argmax", "argmin"):
        return _arg(kind, tensor, axes, mask, env, span)
    if mask is not None:
        tensor = _masked(kind, tensor, mask, env, span)
    if kind == "mean" and mask is not None:
        total = t.reduce_axes(env, tensor, axes, "sum", span)
        ones = t.cast(env, mask, tensor.dtype, span)
        full = t.arrange(env, ones, [x for x in tensor.labels], span, expand=True)
        count = t.reduce_axes(env, full, axes, "sum", span)
        return t.elementwise(env, "div", [total, count], span)
    if tensor.dtype == "bool" and kind in ("sum", "prod", "mean"):
        tensor = t.cast(env, tensor, "i32", span)
    if kind in ("mean", "lse") and tensor.dtype not in FLOATS:
        tensor = t.cast(env, tensor, env.elab.float_dtype, span)
    return t.reduce_axes(env, tensor, axes, kind, span)


def _spread(body: Any, axes: list[Axis], mask: Tensor | None, env: Env, span: Span) -> Tensor:
    """The body as a tensor; a constant under a mask takes the mask's axes."""
    if is_number(body) and mask is not None:
        whole = isinstance(body, int)
        ones = t.cast(env, mask, "i32" if whole else env.elab.float_dtype, span)
        return ones if body == 1 else t.elementwise(env, "mul", [ones, body], span)
    if is_number(body) and not isinstance(body, float):
        body = t.constant(env, body, "i32" if isinstance(body, int) else None, span)
    return t.as_tensor(env, body, span)


def _masked(kind: str, tensor: Tensor, mask: Tensor, env: Env, span: Span) -> Tensor:
    identity: Any = IDENTITY[kind]
    if tensor.dtype == "bool":
        tensor = t.cast(env, tensor, "i32", span)
    if tensor.dtype not in FLOATS:
        if math.isinf(identity):
            tensor = t.cast(env, tensor, env.elab.float_dtype, span)
        else:
            identity = int(identity)
    mask = _pad_rest(env, mask, tensor, span)
    return t.elementwise(env, "where", [mask, tensor, identity], span)


def _pad_rest(env: Env, mask: Tensor, tensor: Tensor, span: Span) -> Tensor:
    if not tensor.rest:
        return mask
    shape = (*(axis.size for axis in mask.labels), *([1] * len(tensor.rest)))
    return t.emit(env, "reshape", [mask], span, mask.labels, shape=shape)


def _quantifier(
    kind: str, body: Any, axes: list[Axis], mask: Tensor | None, env: Env, span: Span
) -> Tensor:
    tensor = t.as_tensor(env, body, span)
    if tensor.dtype != "bool":
        fail("E104", f"`{kind}{{...}}` needs a condition", span, str(tensor.type),
             f"bracket a comparison: `{kind}{{i}} (a[i] > b)`")  # fmt: skip
    if mask is not None:
        if kind == "any":
            tensor = t.elementwise(env, "and", [tensor, mask], span)
        else:
            outside = t.elementwise(env, "not", [mask], span)
            tensor = t.elementwise(env, "or", [tensor, outside], span)
    return t.reduce_axes(env, tensor, axes, kind, span)


def _arg(
    kind: str, tensor: Tensor, axes: list[Axis], mask: Tensor | None, env: Env, span: Span
) -> Tensor:
    if len(axes) != 1:
        fail("E507", f"`{kind}` looks for one index", span, f"{len(axes)} are bound")
    if axes[0] not in tensor.labels:
        tensor = t.arrange(env, tensor, (*tensor.labels, axes[0]), span, expand=True)
    if mask is not None:
        tensor = _masked(kind, tensor, mask, env, span)
    place = tensor.labels.index(axes[0])
    kept = [axis for axis in tensor.labels if axis is not axes[0]]
    found = t.emit(env, kind, [tensor], span, kept, axis=place, keepdims=False)
    if axes[0].low != 0:
        found = t.elementwise(env, "add", [found, axes[0].low], span)
    return found


# ---------------------------------------------------------------- contractions


def _contraction(node: s.Reduction, axes: list[Axis], env: Env) -> Any:
    """``sum`` of a product (or ``max``, ``min``, ``lse`` of a bracketed sum) as one node."""
    if node.kind == "sum":
        parts, scale = _factors(node.body), "mul"
        semiring = "sum_product"
    elif node.kind in SEMIRINGS:
        parts, scale = _terms(node.body), "add"
        semiring = SEMIRINGS[node.kind]
    else:
        return None
    if len(parts) < 2:
        return None
    values = [evaluate_value(part, env) for part in parts]
    if any(isinstance(v, Unknown) for v in values):
        # While a carry is unknown, the known factors tell the least type of the result.
        known = [v for v in values if isinstance(v, Tensor)]
        if not known:
            return Unknown()
        guess: Any = known[0]
        for value in known[1:]:
            guess = t.elementwise(
                env, "add" if scale == "add" else "mul", [guess, value], node.span
            )
        return reduce_value(node.kind, guess, axes, None, env, node.span)
    tensors = [v for v in values if isinstance(v, Tensor) and v.labels and not v.rest]
    others = [v for v in values if not (isinstance(v, Tensor) and v.labels and not v.rest)]
    small = all(
        is_number(v) or (isinstance(v, Tensor) and not v.rest and not v.labels) for v in others
    )
    covered = all(any(axis in x.labels for x in tensors) for axis in axes)
    floats = all(x.dtype in FLOATS for x in tensors)
    if len(tensors) < 2 or not small or not covered or not floats:
        combined: Any = values[0]
        op = "mul" if scale == "mul" else "add"
        for value in values[1:]:
            if is_number(combined) and is_number(value):
                combined = combined * value if scale == "mul" else combined + value
            else:
                combined = t.elementwise(env, op, [combined, value], node.span)
        return reduce_value(node.kind, combined, axes, None, env, node.span)
    result: Any = t.contract(env, tensors, axes, node.span, semiring)
    for value in others:
        result = t.elementwise(env, scale, [result, value], node.span)
    return result


def _factors(node: Any) -> list[Any]:
    if isinstance(node, s.Group):
        return _factors(node.body) if isinstance(_core(node), s.Binary) else [node]
    if isinstance(node, s.Binary) and node.op == "*":
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


def _terms(node: Any) -> list[Any]:
    if isinstance(node, s.Group):
        return _terms(node.body) if isinstance(_core(node), s.Binary) else [node]
    if isinstance(node, s.Binary) and node.op == "+":
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _core(node: Any) -> Any:
    while isinstance(node, s.Group):
        node = node.body
    return node
