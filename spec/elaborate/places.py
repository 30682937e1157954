"""Where an operator stands and where its operands came from, for messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...compiler.ir.types import Span
from .. import syntax as s
from .environment import Env
from .errors import Sides
from .values import (
    CombineBlock,
    DefBlock,
    FnBlock,
    IdentityBlock,
    Instance,
    LabelBlock,
    OpBlock,
    PipeBlock,
    RepeatBlock,
)

KEEP_SHAPE = ("bn", "groupnorm", "instancenorm", "l2norm", "layernorm", "log_softmax", "lrn",
              "prelu", "shuffle", "softmax", "switchable_norm")  # fmt: skip
"""Layers that are passed over when a message asks which layer made a shape."""


def operator_at(node: s.Binary, env: Env) -> Span:
    """The place of an infix operator itself, between its operands."""
    source = env.elab.reporter.sources.get(node.span.file, "")
    start = node.left.span.end
    for line in source[start : node.right.span.start].splitlines(keepends=True):
        column = line.split("#")[0].find(node.op)
        if column >= 0:
            return span_at(source, start + column, start + column + len(node.op), node.span)
        start += len(line)
    return node.span


def span_at(source: str, start: int, end: int, like: Span) -> Span:
    """Offsets as a span of the same file."""
    line = source.count("\n", 0, start) + 1
    column = start - (source.rfind("\n", 0, start) + 1) + 1
    return replace(like, line=line, column=column, start=start, end=end)


def sides_of(node: s.Binary, env: Env) -> Sides:
    """The operands of an infix operator on tensors, by the names they were given."""
    return Sides(node.op, operator_at(node, env), _tensor(node.left, env), _tensor(node.right, env))


def _tensor(node: Any, env: Env) -> tuple[Span, str]:
    while isinstance(node, (s.Group, s.Pipe, s.Subscript, s.Unary)):
        if isinstance(node, s.Pipe):
            node = node.parts[-1]
        elif isinstance(node, s.Subscript):
            node = node.base
        else:
            node = node.operand if isinstance(node, s.Unary) else node.body
    if isinstance(node, s.Name):
        found = env.scope.find(node.id) if node.id not in env.bound else None
        return found[1].span if found is not None else node.span, node.id
    if isinstance(node, s.Call) and isinstance(node.function, s.Name):
        return node.span, node.function.id
    if isinstance(node, s.Label):
        return node.span, node.name
    if isinstance(node, s.Binary):
        return node.span, f"`{node.op}`"
    return node.span, getattr(node, "text", "") or "here"


def sides_of_blocks(block: CombineBlock) -> Sides:
    """The operands of an infix operator on blocks: the layers that made their shapes."""
    return Sides(block.op, block.at, _maker(block.left), _maker(block.right))


def _maker(part: Any) -> tuple[Span | None, str]:
    """The last element of an operand that could have changed the shape."""
    while isinstance(part, PipeBlock):
        parts = [piece for piece in part.parts if not _keeps_shape(piece)]
        part = (parts or part.parts)[-1]
    return getattr(part, "span", None), _text(part)


def _keeps_shape(part: Any) -> bool:
    if isinstance(part, LabelBlock):
        return _keeps_shape(part.body)
    if isinstance(part, OpBlock):
        pointwise = part.layer.batching == "elementwise" and not part.layer.has_weights
        return pointwise or part.layer.name in KEEP_SHAPE
    return isinstance(part, IdentityBlock)


def _text(part: Any) -> str:
    if isinstance(part, (LabelBlock, DefBlock, Instance)):
        return part.name
    if isinstance(part, OpBlock):
        return part.layer.name
    if isinstance(part, IdentityBlock):
        return "id"
    if isinstance(part, RepeatBlock):
        return _text(part.body)
    if isinstance(part, CombineBlock):
        return f"`{part.op}`"
    return "fn" if isinstance(part, FnBlock) else "here"
