"""Evaluating expressions: constants are computed, tensors become nodes, blocks stay recipes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...compiler.ir.dims import Dim
from ...compiler.ir.types import Span
from ...compiler.ops import LAYERS
from ...compiler.ops.distributions import DISTRIBUTIONS
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .constants import bounded, constant_binary, is_plain, too_long, undecided
from .elaborator import looks_like_size
from .environment import Env
from .errors import Poisoned, fail
from .places import operator_at, sides_of
from .values import (
    CombineBlock,
    DefValue,
    FanBlock,
    FnBlock,
    IdentityBlock,
    LabelBlock,
    LabelIndex,
    NegateBlock,
    OpBlock,
    PipeBlock,
    RandomVariable,
    Record,
    RepeatBlock,
    ScanIndex,
    SideBlock,
    Tensor,
    TupleValue,
    Unknown,
    describe,
    is_block,
    is_constant,
    is_number,
)

CONSTANTS = {"pi": math.pi, "inf": math.inf}


def evaluate(node: Any, env: Env) -> Any:
    """The value of an expression; raises :class:`ElaborationError` at a fault."""
    env.elab.step(node.span, env.depth)
    return _HANDLERS[type(node)](node, env)


# ---------------------------------------------------------------- names


def resolve(name: str, env: Env, span: Span) -> Any:
    """What a name stands for: bound names, then scopes, then ops, then symbolic sizes."""
    if name == "_":
        if env.input is None:
            fail("E301", "`_` is the input of a `def` or `fn`, and there is none here", span)
        return env.input
    if name in env.bound:
        return env.bound[name]
    found = env.scope.find(name)
    bound = env.scope.find_bound(name)
    if bound is not None:
        return bound
    if found is not None:
        scope, entry = found
        if entry.kind == "index":
            _unbound_index(name, env, span)
        value = scope.force(entry, span)
        return _macro(value, env) if isinstance(value, s.Equation) else value
    return _builtin(name, env, span)


def _unbound_index(name: str, env: Env, span: Span) -> Any:
    """E501 beside a reducer over the same index, E508 where nothing binds it."""
    _outside_reducer(name, env, span)
    fail("E508", f"the index `{name}` is not bound here", span,
         hint=f"put it on the left-hand side, `y[{name}] = ...`, or reduce over it, "
         f"`sum{{{name}}} ...`")  # fmt: skip


def _outside_reducer(name: str, env: Env, span: Span) -> None:
    """E501 when a reducer of the same statement binds the name, but not here."""
    for statement in env.scope.statements:
        place = getattr(statement, "span", span)
        if place.file != span.file or not place.start <= span.start < place.end:
            continue
        for node in s.walk(statement):
            if isinstance(node, s.Reduction) and any(name == key for key, _ in node.binders):
                fail("E501", f"the index `{name}` is used outside its reducer", span,
                     hint=f"`{node.kind}` takes the product to its right and stops at `+` and "
                     f"`-`: bracket what it covers, `{node.kind}{{{name}}} (...)`",
                     labels=[(node.span, "the reducer")])  # fmt: skip


def _macro(equation: s.Equation, env: Env) -> Any:
    """A next value written as an equation, `s' = f(s, a)`: expanded with the indices at hand."""
    return evaluate(equation.value, replace(env, depth=env.depth + 1))


def _builtin(name: str, env: Env, span: Span) -> Any:
    if name in CONSTANTS:
        return CONSTANTS[name]
    if name == "id":
        return IdentityBlock(span)
    if name in LAYERS:
        return OpBlock(LAYERS[name], {}, span)
    if name in env.elab.symbols:
        return scope_symbol(name, env)
    unknown_name(name, env, span)


def scope_symbol(name: str, env: Env) -> Any:
    """A symbolic size: of the innermost definition that uses it in a shape, else of the file."""
    scope = env.scope
    while scope is not None:
        if name in scope.symbols:
            return env.elab.resolve(scope.symbols[name])
        scope = scope.parent
    return env.elab.resolve(Dim((((name,), 1),)))


def unknown_name(name: str, env: Env, span: Span, way_out: str | None = None) -> Any:
    """E301 with the nearest name; what a broken statement may define is passed over."""
    from .calls import BUILTINS

    if name in env.elab.lost:
        raise Poisoned
    _outside_reducer(name, env, span)
    candidates = [*env.bound, *env.scope.visible(), *LAYERS, *BUILTINS, *DISTRIBUTIONS, "id"]
    close = nearest(name, [c for c in candidates if c != name])
    hint = f"did you mean `{close}`?" if close else way_out
    if hint is None and looks_like_size(name) and name[0].isupper():
        hint = f"if `{name}` is a size, give it under `options:` or use it in a shape"
    fail("E301", f"unknown name `{name}`", span, hint=hint)


def _name(node: s.Name, env: Env) -> Any:
    return resolve(node.id, env, node.span)


# ---------------------------------------------------------------- values


def value_of(value: Any, env: Env, span: Span) -> Any:
    """Indices and random variables as numbers: a tensor along their axis."""
    if isinstance(value, LabelIndex):
        if value.axis.grid is not None:
            return _position(value, env, span)
        return t.numbers(env, value.axis, value.axis.low + value.offset, span)
    if isinstance(value, ScanIndex):
        return value.home.step_number(value, env, span)
    if isinstance(value, RandomVariable):
        from .random_variables import scalar_value

        return scalar_value(value, env, span)
    return value


def _position(index: LabelIndex, env: Env, span: Span) -> Tensor:
    """A position on a grid as its coordinates, row first."""
    axis = index.axis
    assert axis.grid is not None
    parts = []
    remaining: Any = t.numbers(env, axis, 0, span)
    for extent in reversed(axis.grid[1:]):
        parts.append(t.elementwise(env, "mod", [remaining, extent], span))
        remaining = t.elementwise(env, "floordiv", [remaining, extent], span)
    parts.append(remaining)
    columns = []
    for part in reversed(parts):
        part = t.cast(env, part, "i32", span)
        columns.append(t.emit(env, "reshape", [part], span, (axis,), shape=(axis.size, 1)))
    joined = t.emit(env, "concat", columns, span, (axis,), axis=1)
    return Tensor(joined.value, joined.home, (axis,), axis.grid)


def evaluate_value(node: Any, env: Env) -> Any:
    """Evaluate to a constant, tensor or block: indices become tensors."""
    return value_of(evaluate_part(node, env), env, node.span)


def evaluate_part(node: Any, env: Env) -> Any:
    """Evaluate an operand: a definition that needs no arguments stands for what it makes."""
    value = evaluate(node, env)
    if not isinstance(value, DefValue) or any(p.default is None for p in value.statement.params):
        return value
    from .calls import expand

    return expand(value, (), env, node.span)


def constant_of(node: Any, env: Env, what: str) -> Any:
    """Evaluate to a constant; E409 otherwise."""
    value = evaluate(node, env)
    if isinstance(value, TupleValue):
        value = list(value.items)
    if not is_constant(value):
        fail("E409", f"{what} must be known while compiling", node.span, describe(value))
    return value


def whole(value: Any, span: Span, what: str) -> Any:
    """A whole number or size; E105 with the value otherwise."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, Dim)):
        found = f"{value:.6g}" if isinstance(value, float) else describe(value)
        hint = "`/` does not round: use floor(..), ceil(..) or round(..)"
        fail("E105", f"{what} must be a whole number", span, found,
             hint if isinstance(value, float) else None)  # fmt: skip
    return value


# ---------------------------------------------------------------- operators


def _group(node: s.Group, env: Env) -> Any:
    return evaluate(node.body, env)


def _unary(node: s.Unary, env: Env) -> Any:
    value = evaluate(node.operand, env)
    if is_block(value):
        return NegateBlock(value, node.span)
    value = value_of(value, env, node.span)
    if node.op == "not":
        if isinstance(value, bool):
            return not value
        return t.elementwise(env, "not", [value], node.span)
    if is_number(value):
        return -value
    return t.elementwise(env, "neg", [value], node.span)


def _binary(node: s.Binary, env: Env) -> Any:
    if node.op in ("+", "-", "++", "|"):
        check_chains(node, env)
    left, right = evaluate_part(node.left, env), evaluate_part(node.right, env)
    return combine(node.op, left, right, env, node)


def combine(op: str, left: Any, right: Any, env: Env, node: s.Binary) -> Any:
    """An infix operator on two values of any kind."""
    span = node.span
    if op == "^" and is_block(left):
        return RepeatBlock(left, _times(right, node.right.span), span)
    if op == "|":
        parts = (*left.parts, right) if isinstance(left, SideBlock) else (left, right)
        return SideBlock(parts, span)
    if is_block(left) or is_block(right):
        return _combine_blocks(op, left, right, env, node)
    shifted = _shift(op, left, right)
    if shifted is not None:
        return shifted
    if op in t.COMPARISONS and _is_position(left) and _is_position(right):
        # Positions compare by their number, row by row.
        first, second = (t.numbers(env, index.axis, 0, span) for index in (left, right))
        return t.binary(env, op, first, second, span)
    left, right = value_of(left, env, span), value_of(right, env, span)
    if is_plain(left) and is_plain(right) and op != "@":
        return constant_binary(op, left, right, env, span)
    for side, place in ((left, node.left.span), (right, node.right.span)):
        if isinstance(side, (list, tuple)):
            t.check_list(side, place)
        elif not isinstance(side, (Tensor, Unknown, bool, Record)) and not is_number(side):
            fail("E405", f"`{op}` needs numbers or tensors", place, describe(side))
    return t.binary(env, op, left, right, span, sides_of(node, env))


def _combine_blocks(op: str, left: Any, right: Any, env: Env, node: s.Binary) -> Any:
    if op not in ("+", "-", "*", "/", "++", "@"):
        fail("E406", f"`{op}` does not combine blocks", operator_at(node, env),
             f"{describe(left)} {op} {describe(right)}")  # fmt: skip
    for side, place in ((left, node.left.span), (right, node.right.span)):
        if not is_block(side) and not isinstance(side, Tensor) and not is_number(side):
            fail("E406", f"`{op}` combines blocks with blocks, tensors or numbers", place,
                 describe(side))  # fmt: skip
    return CombineBlock(op, left, right, node.span, operator_at(node, env))


def _times(value: Any, span: Span) -> int:
    if isinstance(value, (Tensor, Unknown)):
        fail("E409", "a block is repeated a number of times known while compiling", span,
             describe(value))  # fmt: skip
    value = whole(value, span, "a repetition")
    if isinstance(value, Dim):
        fail("E409", "a block is repeated a number of times known while compiling", span,
             str(value), "give the size a value under `options:`")  # fmt: skip
    if value < 0:
        fail("E408", "a block is repeated 0 times or more", span, str(value))
    if value > 100_000:
        fail("E702", f"a block is repeated {value} times", span,
             hint="write the repetition as a recurrence over an index")  # fmt: skip
    return value


def _is_position(value: Any) -> bool:
    return isinstance(value, LabelIndex) and value.axis.grid is not None


def _shift(op: str, left: Any, right: Any) -> Any:
    """``t - 1``: an index moved by a constant stays an index."""
    if isinstance(left, (LabelIndex, ScanIndex)) and op in ("+", "-"):
        whole_number = isinstance(right, (int, Dim)) and not isinstance(right, bool)
        grid = isinstance(left, LabelIndex) and left.axis.grid is not None
        if whole_number and not grid:
            return replace(left, offset=left.offset + (right if op == "+" else -right))
    if isinstance(right, (LabelIndex, ScanIndex)) and op == "+" and isinstance(left, int):
        return _shift(op, right, left)
    return None


# ---------------------------------------------------------------- chains


def check_chains(node: s.Binary, env: Env) -> None:
    """E204: a chain may stand unbracketed only as the first operand."""
    chain = node.right
    if not isinstance(chain, s.Pipe):
        return
    source = env.elab.reporter.sources.get(node.span.file, "")
    nodes = (node.left, chain.parts[0], chain.parts[1:])
    spans = [(x[0].span.start, x[-1].span.end) if isinstance(x, tuple)
             else (x.span.start, x.span.end) for x in nodes]  # fmt: skip
    texts = [source[start:end] for start, end in spans]
    if sum(map(len, texts)) > 70 or any("\n" in x or not x for x in texts):
        texts = ["a", "b", "c"]
    (a, b, c), op = texts, node.op
    fail("E204", f"a chain after `{op}` needs brackets", chain.span,
         hint=f"write `({a} {op} {b}) >> {c}` or `{a} {op} ({b} >> {c})`")  # fmt: skip


def _pipe(node: s.Pipe, env: Env) -> Any:
    from .blocks import apply, apply_chain

    values = [evaluate_part(part, env) for part in node.parts]
    head = value_of(values[0], env, node.parts[0].span)
    rest = values[1:]
    for value, part in zip(rest, node.parts[1:], strict=True):
        if not is_block(value):
            fail("E406", "`>>` leads into a block", part.span, describe(value),
                 "a tensor can only stand first in a chain")  # fmt: skip
    if is_block(head):
        return PipeBlock((head, *rest), node.span)
    if isinstance(head, RandomVariable):
        fail("E405", "a random variable cannot enter a chain", node.parts[0].span)
    if len(rest) == 1:
        return apply(rest[0], head, env, node.span)
    return apply_chain(rest, head, env, node.span)


def _label(node: s.Label, env: Env) -> Any:
    value = evaluate_part(node.body, env)
    if not is_block(value):
        fail("E406", "`as` labels a block", node.span, describe(value))
    return LabelBlock(value, node.name, node.quoted and "{" in node.name, env, node.span)


def _tuple(node: s.Tuple, env: Env) -> Any:
    items = tuple(evaluate_part(item, env) for item in node.items)
    if items and all(is_block(item) for item in items):
        return FanBlock(items, node.span)
    return TupleValue(tuple(value_of(x, env, node.span) for x in items))


def _list(node: s.List, env: Env) -> Any:
    items = bounded([evaluate_part(item, env) for item in node.items], node.span)
    if all(is_constant(item) for item in items):
        return items
    return TupleValue(tuple(value_of(x, env, node.span) for x in items))


def _comprehension(node: s.Comprehension, env: Env) -> Any:
    from .domains import MAX_UNROLLED, iterate_clause

    items: list[Any] = []
    for place, bound in enumerate(iterate_clause(node.clause, env)):
        if place >= MAX_UNROLLED:
            too_long(node.span)
        inner = env.bind(bound).at(env.path.unlabelled(str(place)))
        items.append(evaluate_part(node.body, inner))
    bounded(items, node.span)
    if all(is_constant(item) for item in items):
        return items
    return TupleValue(tuple(items))


def _conditional(node: s.Conditional, env: Env) -> Any:
    condition = evaluate_value(node.condition, env)
    if isinstance(condition, (bool, int)) and not isinstance(condition, Dim):
        return evaluate(node.yes if condition else node.no, env)
    if isinstance(condition, Unknown):
        return _first_known(node, env)
    if not isinstance(condition, Tensor):
        fail("E404", "a condition is needed after `if`", node.condition.span, describe(condition))
    t.need_condition(condition, node.condition.span)
    opposite = t.elementwise(env, "not", [condition], node.condition.span)
    yes = evaluate_value(node.yes, _guarded(env, condition, node.condition.span))
    no = evaluate_value(node.no, _guarded(env, opposite, node.condition.span))
    if is_block(yes) or is_block(no):
        if _from_sizes(condition):
            undecided("the condition compares sizes", node.condition.span)
        fail("E110", "blocks are chosen while compiling", node.condition.span, str(condition.type),
             "a condition on values of tensors can only choose between tensors")  # fmt: skip
    return t.elementwise(env, "where", [condition, yes, no], node.span)


def _from_sizes(tensor: Tensor) -> bool:
    """Whether a condition depends on nothing but symbolic sizes and constants."""
    graph = tensor.home.graph
    stack, seen = [tensor.value.node], set()
    while stack:
        index = stack.pop()
        if index in seen:
            continue
        seen.add(index)
        if graph.node(index).op in ("input", "param", "sample"):
            return False
        stack += [value.node for value in graph.operands(index)]
    return True


def _guarded(env: Env, condition: Tensor, span: Span) -> Env:
    if env.guard is None:
        return replace(env, guard=condition)
    both = t.elementwise(env, "and", [env.guard, condition], span)
    return replace(env, guard=both)


def _first_known(node: s.Conditional, env: Env) -> Any:
    for branch in (node.yes, node.no):
        value = evaluate_value(branch, env)
        if not isinstance(value, Unknown):
            return value
    return Unknown()


def _fn(node: s.Fn, env: Env) -> Any:
    return FnBlock(node.params, node.body, env, node.span)


def _reduction(node: s.Reduction, env: Env) -> Any:
    from .reductions import reduction

    return reduction(node, env)


def _subscript(node: s.Subscript, env: Env) -> Any:
    from .subscripts import subscript

    return subscript(node, env)


def _call(node: s.Call, env: Env) -> Any:
    from .calls import call

    return call(node, env)


def _member(node: s.Member, env: Env) -> Any:
    from .calls import member

    return member(node, env)


def _interval(node: s.Interval, env: Env) -> Any:
    fail("E501", "a range `a..b` stands in brackets or after `in`", node.span)


def _whole_axis(node: s.WholeAxis, env: Env) -> Any:
    fail("E501", "`:` stands only inside brackets", node.span)


_HANDLERS: dict[type, Callable[[Any, Env], Any]] = {
    s.Number: lambda node, env: node.value,
    s.String: lambda node, env: node.value,
    s.Boolean: lambda node, env: node.value,
    s.Name: _name,
    s.Call: _call,
    s.Subscript: _subscript,
    s.WholeAxis: _whole_axis,
    s.Member: _member,
    s.Unary: _unary,
    s.Binary: _binary,
    s.Pipe: _pipe,
    s.Interval: _interval,
    s.Label: _label,
    s.Group: _group,
    s.Tuple: _tuple,
    s.List: _list,
    s.Comprehension: _comprehension,
    s.Conditional: _conditional,
    s.Reduction: _reduction,
    s.Fn: _fn,
}
