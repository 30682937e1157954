"""The syntax tree of the model language: plain frozen dataclasses, one a form.

Every node keeps its ``span``; spans do not take part in comparison, so two trees are equal when
they say the same thing. :func:`dump` prints a tree as an s-expression for golden tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Union

from ..compiler.ir.types import Span

NOWHERE = Span("", 0, 0)


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Number:
    """A literal; ``text`` keeps how it was written (``4.09e9``)."""

    value: int | float
    text: str = field(compare=False, repr=False, default="")
    span: Span = _span()


@dataclass(frozen=True)
class String:
    """A quoted text."""

    value: str
    span: Span = _span()


@dataclass(frozen=True)
class Boolean:
    """``true`` or ``false``."""

    value: bool
    span: Span = _span()


@dataclass(frozen=True)
class Name:
    """A name; ``_`` is the input of the innermost definition; ``x'`` is a next value."""

    id: str
    span: Span = _span()


@dataclass(frozen=True)
class Call:
    """``function(args)``."""

    function: Expr
    args: tuple[Argument, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Argument:
    """``value``, ``name=value``, or ``weight: value`` (in ``choice``)."""

    value: Expr
    name: str | None = None
    weight: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Subscript:
    """``base[items]``."""

    base: Expr
    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class WholeAxis:
    """``:`` inside brackets."""

    span: Span = _span()


@dataclass(frozen=True)
class Member:
    """``base.name``: a definition of another spec."""

    base: Expr
    name: str
    span: Span = _span()


@dataclass(frozen=True)
class Unary:
    """``-x`` or ``not x``."""

    op: str
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Binary:
    """``left op right``; ``op`` is one of ``+ - ++ * / @ % ^ | == != < <= > >= and or``."""

    op: str
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Pipe:
    """``a >> b >> c``."""

    parts: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Interval:
    """``low..high``, the end left out."""

    low: Expr
    high: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Label:
    """``body as name``; ``pattern`` when the label was quoted and may hold ``{i}``."""

    body: Expr
    name: str
    quoted: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Group:
    """A bracketed expression."""

    body: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Tuple:
    """``(a, b)``: fan out, a tuple of tensors, or a merged axis."""

    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class List:
    """``[a, b]``."""

    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Comprehension:
    """``[body for k in range if condition]``."""

    body: Expr
    clause: ForClause
    span: Span = _span()


@dataclass(frozen=True)
class Conditional:
    """``if condition then yes else no``."""

    condition: Expr
    yes: Expr
    no: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Reduction:
    """``kind{binders if condition} body``."""

    kind: str
    binders: tuple[tuple[str, Expr | None], ...]
    condition: Expr | None
    body: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Fn:
    """``fn(a, b) { ... }``: a block of several tensors."""

    params: tuple[str, ...]
    body: Block
    span: Span = _span()


Expr = Union[
    Number, String, Boolean, Name, Call, Subscript, WholeAxis, Member, Unary, Binary, Pipe,
    Interval, Label, Group, Tuple, List, Comprehension, Conditional, Reduction, Fn,
]  # fmt: skip


# ---------------------------------------------------------------- statements


@dataclass(frozen=True)
class Binder:
    """``i, j in domain`` or ``(t, c) in rows``: each item is a tuple of names."""

    items: tuple[tuple[str, ...], ...]
    domain: Expr
    span: Span = _span()


@dataclass(frozen=True)
class ForClause:
    """``for t in 1..T, k in 0..2 if condition``."""

    binders: tuple[Binder, ...]
    condition: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Target:
    """A name on the left-hand side, with its index items if it has any."""

    name: str
    items: tuple[Expr, ...] | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Equation:
    """``targets = value for ...``."""

    targets: tuple[Target, ...]
    value: Expr
    clause: ForClause | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Draw:
    """``targets ~ distribution for ...``."""

    targets: tuple[Target, ...]
    distribution: Expr
    clause: ForClause | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a definition."""

    name: str
    default: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Block:
    """``{ ... }``."""

    body: tuple[Statement, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Definition:
    """``def name(params) = body`` or ``def name(params) { ... }``."""

    name: str
    params: tuple[Parameter, ...]
    body: Expr | Block
    span: Span = _span()


@dataclass(frozen=True)
class Factor:
    """``factor energy for ...``."""

    energy: Expr
    clause: ForClause | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Fix:
    """``fix { equations }``."""

    args: tuple[Argument, ...]
    body: Block
    span: Span = _span()


@dataclass(frozen=True)
class Iterate:
    """``iterate { equations } until condition``."""

    args: tuple[Argument, ...]
    body: Block
    until: Expr
    span: Span = _span()


@dataclass(frozen=True)
class TypeExpr:
    """``f32[N, 3]``, ``simplex[K]``, ``real``."""

    name: str
    dims: tuple[Expr, ...] = ()
    span: Span = _span()


@dataclass(frozen=True)
class Input:
    """``input a, b : type``."""

    names: tuple[str, ...]
    type: TypeExpr
    span: Span = _span()


@dataclass(frozen=True)
class Param:
    """``param a, b : domain[shape] = initialiser``."""

    names: tuple[str, ...]
    type: TypeExpr
    init: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class NameSet:
    """``{up, right, down, left}``."""

    names: tuple[str, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Index:
    """``index s : grid(4, 12)``, ``index a : {up, down}``."""

    names: tuple[str, ...]
    domain: Expr | NameSet
    span: Span = _span()


@dataclass(frozen=True)
class Const:
    """``const gamma = 0.95``."""

    name: str
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class State:
    """``state k = 0``."""

    name: str
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Result:
    """One item of an ``output`` statement."""

    value: Expr
    name: str | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Output:
    """``output y, policy = expr``."""

    results: tuple[Result, ...]
    span: Span = _span()


STATEMENTS = (
    Equation, Draw, Definition, Factor, Fix, Iterate, Input, Param, Index, Const, State, Output
)  # fmt: skip
Statement = Union[
    Equation, Draw, Definition, Factor, Fix, Iterate, Input, Param, Index, Const, State, Output
]  # fmt: skip
Syntax = Union[Expr, Statement, Argument, Binder, ForClause, Target, Parameter, Block, TypeExpr,
               NameSet, Result]  # fmt: skip


def children(node: object) -> list[object]:
    """Syntax nodes directly below ``node``, in source order."""
    found: list[object] = []
    for spec in fields(node):  # type: ignore[arg-type]
        if spec.name not in ("span", "text"):
            _gather(getattr(node, spec.name), found)
    return found


def _gather(value: object, found: list[object]) -> None:
    if isinstance(value, tuple):
        for item in value:
            _gather(item, found)
    elif hasattr(value, "span"):
        found.append(value)


def walk(node: object) -> list[object]:
    """The node and everything below it, parents first."""
    found, stack = [], [node]
    while stack:
        current = stack.pop()
        found.append(current)
        stack.extend(reversed(children(current)))
    return found


def dump(node: object, indent: int = 0) -> str:
    """The tree as an indented s-expression, spans left out."""
    pad = "  " * indent
    flat = _flat(node)
    if len(pad) + len(flat) <= 96 or not hasattr(node, "span"):
        return pad + flat
    rows = [f"{pad}({type(node).__name__}"]
    for spec in fields(node):  # type: ignore[arg-type]
        if spec.name in ("span", "text"):
            continue
        value = getattr(node, spec.name)
        items = value if isinstance(value, tuple) else (value,)
        if any(hasattr(item, "span") for item in items):
            rows += [dump(item, indent + 1) for item in items]
        elif value not in (None, ()):
            rows.append(f"{pad}  {_flat(value)}")
    return "\n".join(rows) + ")"


def _flat(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(_flat(v) for v in value) + "]"
    if not hasattr(value, "span"):
        return "-" if value is None else repr(value) if isinstance(value, str) else str(value)
    parts = [type(value).__name__]
    for spec in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, spec.name)
        if spec.name not in ("span", "text") and inner not in (None, ()):
            parts.append(_flat(inner))
    return "(" + " ".join(parts) + ")"
