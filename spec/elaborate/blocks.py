"""Applying blocks to tensors: the block algebra and the weight paths.

An *element* is an operand of ``>>``, a copy of ``^`` or a member of ``chain[...]``. A label opens
a level of the path; an unlabelled ``def`` call that is an element opens its position; an
unlabelled op takes its position, as in ``nn.Sequential``. A block applied alone is no element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ...compiler.ir.types import Span
from .. import syntax as s
from ..diagnostics import Label
from . import tensors as t
from .builder import Path
from .environment import Env
from .errors import ElaborationError, fail
from .places import sides_of_blocks
from .values import (
    CombineBlock,
    DefBlock,
    DelayedBlock,
    FanBlock,
    FnBlock,
    IdentityBlock,
    Instance,
    LabelBlock,
    NegateBlock,
    OpBlock,
    PipeBlock,
    RepeatBlock,
    SideBlock,
    SpecBlock,
    TupleValue,
    describe,
    is_block,
)


def apply(block: Any, value: Any, env: Env, span: Span) -> Any:
    """The result of a block on its own (no element: it takes no position)."""
    env.elab.step(span, env.depth)
    if isinstance(block, OpBlock):
        from .layers import apply_layer

        return apply_layer(block.layer, _operands(value), dict(block.settings), env, block.span)
    if isinstance(block, IdentityBlock):
        return value
    if isinstance(block, PipeBlock):
        return apply_chain(block.parts, value, env, span)
    if isinstance(block, RepeatBlock):
        return apply_chain((block,), value, env, span)
    if isinstance(block, LabelBlock):
        return _apply_label(block, value, env)
    if isinstance(block, DefBlock):
        with used_at(env, block.name, block.span):
            return apply(block.body, value, _deeper(env), block.span)
    if isinstance(block, Instance):
        with used_at(env, block.name, span):
            return apply_instance(block, value, env, span)
    if isinstance(block, (DelayedBlock, FnBlock, SpecBlock)):
        return _apply_body(block, value, env, span)
    return _apply_parallel(block, value, env, span)


@contextmanager
def used_at(env: Env, name: str, span: Span) -> Iterator[None]:
    """A fault inside a definition also shows the statement that uses it."""
    try:
        yield
    except ElaborationError as fault:
        found = fault.diagnostic
        place = found.span
        outside = place is None or not _holds(span, place)
        if env.depth == 0 and outside and all(x.span != span for x in found.labels):
            label = Label(span, f"in `{name}`, used here")
            fault.diagnostic = replace(found, labels=(*found.labels, label))
        raise


def _holds(outer: Span, inner: Span) -> bool:
    return outer.file == inner.file and outer.start <= inner.start < outer.end


def _operands(value: Any) -> tuple[Any, ...]:
    return value.items if isinstance(value, TupleValue) else (value,)


def _deeper(env: Env) -> Env:
    return replace(env, depth=env.depth + 1)


def _apply_parallel(block: Any, value: Any, env: Env, span: Span) -> Any:
    """Operands of ``+ - * / ++``, of a tuple and of ``|``: side by side, no elements."""
    if isinstance(block, CombineBlock):
        left = _side(block.left, value, env, span)
        right = _side(block.right, value, env, span)
        return t.binary(env, block.op, left, right, block.span, sides_of_blocks(block))
    if isinstance(block, NegateBlock):
        return t.elementwise(env, "neg", [apply(block.body, value, env, span)], block.span)
    if isinstance(block, FanBlock):
        return TupleValue(tuple(apply(part, value, env, span) for part in block.parts))
    if isinstance(block, SideBlock):
        items = value.items if isinstance(value, TupleValue) else None
        if items is None or len(items) != len(block.parts):
            fail(
                "E410",
                f"`|` has {len(block.parts)} blocks side by side",
                block.span,
                f"the input is {describe(value)}",
                f"split it first: `split({len(block.parts)}) >> (f | g)`",
            )
        pairs = zip(block.parts, items, strict=True)
        return TupleValue(tuple(_side(part, item, env, span) for part, item in pairs))
    fail("E406", "a block is needed here", span, describe(block))


def _side(part: Any, value: Any, env: Env, span: Span) -> Any:
    return apply(part, value, env, span) if is_block(part) else part


# ---------------------------------------------------------------- chains


def apply_chain(parts: Sequence[Any], value: Any, env: Env, span: Span) -> Any:
    """Elements one after the other; each knows its position."""
    position = 0
    for element, path in _elements(parts, env, position):
        value = _apply_element(element, value, env.at(path), span)
    return value


def _elements(parts: Sequence[Any], env: Env, position: int) -> Iterator[tuple[Any, Path]]:
    """Each element with the path of its weights; nested chains are flattened."""
    path = env.path
    for part in _flatten(parts, env):
        if isinstance(part, IdentityBlock):
            continue
        if isinstance(part, (OpBlock, DefBlock)):
            yield (
                part,
                path.position(position)
                if isinstance(part, DefBlock)
                else replace(path, auto=path.position(position).auto),
            )
        else:
            yield part, path
        position += 1


def _flatten(parts: Sequence[Any], env: Env) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, PipeBlock):
            yield from _flatten(part.parts, env)
        elif isinstance(part, RepeatBlock):
            for _ in range(part.times):
                env.elab.step(part.span, env.depth)
                yield from _flatten((part.body,), env)
        elif isinstance(part, LabelBlock) and isinstance(part.body, RepeatBlock):
            for copy in range(part.body.times):
                yield _labelled_copy(part, part.body, copy)
        else:
            yield part


def _labelled_copy(label: LabelBlock, repeat: RepeatBlock, copy: int) -> LabelBlock:
    """A label on ``f^n`` numbers the copies, or counts where it holds ``{i}``."""
    name = _fill(label, copy) if label.pattern else f"{label.name}.{copy}"
    return LabelBlock(repeat.body, name, False, label.env, label.span)


def _apply_element(element: Any, value: Any, env: Env, span: Span) -> Any:
    if isinstance(element, DefBlock):
        return apply(element, value, env, element.span)
    # An instance's own place is where it is defined; this is about where it is used.
    return apply(element, value, env, span if isinstance(element, Instance) else element.span)


def _apply_label(block: LabelBlock, value: Any, env: Env) -> Any:
    if isinstance(block.body, RepeatBlock):
        return apply_chain((block,), value, env, block.span)
    name = _fill(block, 0) if block.pattern else block.name
    return apply(block.body, value, env.at(env.path.level(name)), block.span)


def _fill(label: LabelBlock, copy: int) -> str:
    """The text of a label with ``{i}``, ``{i+1}`` and other constants filled in."""
    from ..diagnostics import Reporter
    from ..parser import parse_formula
    from .expressions import evaluate

    def one(match: re.Match[str]) -> str:
        reporter = Reporter()
        tree = parse_formula(match.group(1), 0, len(match.group(1)), label.span.file, reporter)
        if tree is None or reporter.failed:
            fail("E201", f"`{match.group(0)}` in a label is not a formula", label.span)
        number = evaluate(tree, label.env.bind({"i": copy}))
        if not isinstance(number, (int, str)):
            fail("E409", f"`{match.group(0)}` in a label must be a whole number", label.span)
        return str(number)

    return re.sub(r"\{([^{}]*)\}", one, label.name)


# ---------------------------------------------------------------- bodies


def apply_instance(block: Instance, value: Any, env: Env, span: Span) -> Any:
    """A named block: its own path, and the same weights each time."""
    block.first, block.place = block.first or span, span
    block.seen.clear()
    path = Path(block.path, block.path, block)
    return apply(block.block, value, env.at(path), span)


def _apply_body(block: Any, value: Any, env: Env, span: Span) -> Any:
    """The body of a ``def`` or ``fn`` in a scope of its own, with ``_`` bound to the input."""
    inner = _deeper(env)
    if isinstance(block, SpecBlock):
        from .imports import apply_spec

        return apply_spec(block, value, inner, span)
    if isinstance(block, FnBlock):
        return _apply_fn(block, value, inner, span)
    if isinstance(block.body, s.Block):
        return run_body(block.body, dict(block.env.bound), value, block.env, inner)
    from .expressions import evaluate

    expression = replace(
        block.env, builder=env.builder, path=env.path, input=value, depth=inner.depth,
        guard=env.guard,
    )  # fmt: skip
    result = evaluate(block.body, expression)
    return apply(result, value, inner, span) if is_block(result) else result


def _apply_fn(block: FnBlock, value: Any, env: Env, span: Span) -> Any:
    items = _operands(value) if len(block.params) != 1 else (value,)
    if len(items) != len(block.params):
        fail(
            "E407",
            f"this block takes {len(block.params)} tensors ({', '.join(block.params)})",
            span,
            f"found {len(items)}",
            labels=[(block.span, "defined here")],
        )
    bound = {**block.env.bound, **dict(zip(block.params, items, strict=True))}
    return run_body(block.body, bound, value, block.env, env)


def run_body(body: s.Block, bound: dict[str, Any], value: Any, defined: Env, env: Env) -> Any:
    """Statements of a body; the value is what they output."""
    from .declarations import register_symbols
    from .outputs import body_result
    from .scope import Scope

    scope = Scope(
        env.elab, body.body, env.builder, env.path, defined.scope, bound, value, env.depth
    )
    scope.declare()
    register_symbols(scope, body.body)
    result = body_result(scope, body)
    if is_block(result) and value is not None:
        return apply(result, value, env, body.span)
    return result
