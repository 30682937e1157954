"""Outputs: what a spec or a body hands out, under which names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...compiler.ir.dims import product
from .. import syntax as s
from . import tensors as t
from .domains import declared_domain
from .environment import Env
from .equations import Family
from .errors import ElaborationError, Poisoned, fail
from .expressions import evaluate_value
from .references import free_names
from .values import (
    DistributionValue,
    Instance,
    LabelIndex,
    RandomVariable,
    Record,
    Tensor,
    TupleValue,
    describe,
    is_block,
)

if TYPE_CHECKING:
    from ..envelope import Envelope
    from .scope import Scope


def body_result(scope: Scope, body: s.Block) -> Any:
    """The value of a definition's body: its output, or a tuple of its outputs."""
    values = []
    for output in scope.outputs:
        for result in output.results:
            values.append(evaluate_value(result.value, scope.env))
    if not scope.outputs:
        fail("E306", "the body outputs nothing", body.span, hint="end it with `output y`")
    return values[0] if len(values) == 1 else TupleValue(tuple(values))


def emit_outputs(scope: Scope, envelope: Envelope) -> None:
    """Set the graph's outputs: declared ones, next states, statements of the model."""
    elab = scope.elab
    graph = elab.builder.graph
    seen: dict[str, Any] = {}
    for output in scope.outputs:
        for result in output.results:
            try:
                _emit(scope, result, seen)
            except ElaborationError as fault:
                elab.report(fault.diagnostic)
            except Poisoned:
                continue
    for name, entry in scope.entries.items():
        if name.endswith("'") and name[:-1] in scope.entries:
            if scope.entries[name[:-1]].kind == "state":
                _set(scope, name, _next_state(scope, name, entry), seen, entry.span)
    statements = elab.statements(scope) if scope.draws or scope.factors else []
    for name, value in statements:
        graph.set_output(name, value)
    if not graph.outputs and not elab.reporter.failed:
        if _losses(scope, seen):
            return
        place = envelope.model.span
        fail("E306", "nothing is output", place,
             hint="add `output y`, or declare a random variable with `~`")  # fmt: skip


def _losses(scope: Scope, seen: dict[str, Any]) -> bool:
    """Without an ``output``, quantities named loss are what the spec is about."""
    found = False
    for name, entry in scope.entries.items():
        if name.startswith("loss") and entry.state == "done" and isinstance(entry.value, Tensor):
            _set(scope, name, entry.value, seen, entry.span)
            found = True
    return found


def _next_state(scope: Scope, name: str, entry: Any) -> Tensor:
    row = entry.statements[0]
    if not isinstance(row, s.Equation):
        fail("E606", f"the state `{name[:-1]}` is updated by an equation", entry.span,
             hint=f"write `{name} = ...`")  # fmt: skip
    value = evaluate_value(row.value, scope.env)
    kind = scope.force(scope.entries[name[:-1]]).type
    tensor = t.as_tensor(scope.env, value, entry.span, kind.dtype)
    if tensor.type.shape != kind.shape:
        fail("E103", f"`{name}` has another shape than its state", entry.span,
             f"{tensor.type} and {kind}")  # fmt: skip
    return t.cast(scope.env, tensor, kind.dtype, entry.span)


def _emit(scope: Scope, result: s.Result, seen: dict[str, Any]) -> None:
    name = result.name or _default_name(result.value, seen)
    env, order = _free_declared(scope, result)
    env = env.at(env.path.unlabelled(name))
    value = evaluate_value(result.value, env)
    if isinstance(value, Tensor) and (order or value.labels):
        value = _spread(env, value, order, result)
    _set(scope, name, value, seen, result.span)


def _default_name(node: Any, seen: dict[str, Any]) -> str:
    """An unnamed output is called after what it shows: ``h[T-1]`` → ``h[T-1]``."""
    text = _text(node)
    if text is not None and text not in seen:
        return text
    return f"output{len(seen)}"


def _text(node: Any) -> str | None:
    if isinstance(node, s.Name):
        return node.id
    if isinstance(node, s.Number):
        return node.text
    if isinstance(node, s.Subscript):
        items = [_text(item) for item in node.items]
        base = _text(node.base)
        return None if base is None or None in items else f"{base}[{', '.join(map(str, items))}]"
    if isinstance(node, s.Binary) and node.op in ("+", "-"):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else f"{left}{node.op}{right}"
    if isinstance(node, s.Call) and isinstance(node.function, s.Name) and node.args:
        inner = _text(node.args[0].value)
        return None if inner is None else f"{node.function.id}({inner})"
    return None


def _free_declared(scope: Scope, result: s.Result) -> tuple[Env, list[Any]]:
    """Declared indices that stay free: ``policy = argmax{a} Q[s, a]`` is a table over ``s``."""
    env = scope.env
    order: list[Any] = []
    names = free_names(result.value)
    for node in s.walk(result.value):
        if isinstance(node, s.Name) and node.id in names and node.id not in env.bound:
            domain = declared_domain(node.id, env)
            if domain is not None:
                axis = domain.axis(node.id)
                order.append(axis)
                env = env.bind({node.id: LabelIndex(axis)})
    return env, order


def _spread(env: Env, value: Tensor, order: list[Any], result: s.Result) -> Tensor:
    plain = t.finish_labels(env, value, order, result.span)
    shape: list[Any] = []
    sizes = list(plain.type.shape)
    lead = len(sizes) - len(order) - len(value.rest)
    shape += sizes[:lead]
    for axis in order:
        shape += list(axis.grid) if axis.grid is not None else [axis.size]
    shape += list(value.rest)
    if tuple(shape) != plain.type.shape and product(shape) == product(plain.type.shape):
        plain = t.emit(env, "reshape", [plain], result.span, (), shape=tuple(shape))
    return plain


def _set(scope: Scope, name: str, value: Any, seen: dict[str, Any], span: Any) -> None:
    env = scope.env
    if isinstance(value, Family):
        value = _stack_family(env, value, span)
    if isinstance(value, TupleValue):
        if any(is_block(item) for item in value.items):
            fail("E405", "blocks cannot be output", span, hint="apply them to a tensor first")
        for place, item in enumerate(value.items):
            _set(scope, f"{name}.{place}", item, seen, span)
        return
    if isinstance(value, Instance) or is_block(value):
        fail("E405", f"`{name}` is a block and cannot be output", span, describe(value),
             "apply it to a tensor first: `x >> block`")  # fmt: skip
    if isinstance(value, RandomVariable):
        fail("E604", f"`{name}` is a random variable", span,
             hint=f"ask for it: `marginals({name})`, `map({name})`")  # fmt: skip
    if isinstance(value, (DistributionValue, Record)):
        fail("E405", f"`{name}` cannot be output", span, describe(value))
    tensor = t.as_tensor(env, value, span)
    if tensor.labels:
        tensor = t.finish_labels(env, tensor, (), span)
    if name in seen:
        fail("E302", f"`{name}` is output twice", span, hint="name one: `output other = ...`",
             labels=[(seen[name], "first output here")])  # fmt: skip
    seen[name] = span
    scope.elab.builder.graph.set_output(name, t.local(env, tensor))


def _stack_family(env: Env, family: Family, span: Any) -> Any:
    """Members of one shape become one tensor, the index after the batch; else a tuple."""
    members = family.everything()
    if not all(isinstance(m, Tensor) and not m.labels for m in members):
        return TupleValue(tuple(members))
    shapes = {m.type.shape for m in members}
    if len(shapes) != 1:
        return TupleValue(tuple(members))
    shape = members[0].type.shape
    axis = 1 if shape and shape[0] == env.elab.batch else 0
    return t.stack(env, t.promote(env, members, span), axis, span)
