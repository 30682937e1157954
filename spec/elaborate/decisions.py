"""Decision processes: outcomes of random steps, expectations over them, tables and sparse data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...compiler.ir.types import FLOATS, Span
from .. import syntax as s
from . import tensors as t
from .distributions import align_parameters, need_distribution, parameter_tensors, parts_of
from .environment import Env
from .errors import fail
from .expressions import evaluate, evaluate_value, value_of
from .values import (
    Axis,
    LabelIndex,
    Record,
    Tensor,
    Unknown,
)

if TYPE_CHECKING:
    pass


def expectation(node: s.Reduction, env: Env) -> Any:
    """``E{s'} body``: the body weighted by the outcomes of the named random steps."""
    names = [name for name, _ in node.binders]
    rows: list[s.Draw] = []
    for name in names:
        found = env.scope.find(name)
        if found is None or name not in found[0].draws:
            fail("E604", f"`{name}` is not drawn by any `~`", node.span,
                 hint=f"state it: `{name} ~ ...`")  # fmt: skip
        row = found[0].draws[name][0]
        if all(row is not other for other in rows):
            rows.append(row)
    weights: list[Tensor] = []
    axes: list[Axis] = []
    for row in rows:
        env = _outcomes(row, env, weights, axes)
    body = evaluate_value(node.body, env)
    if isinstance(body, Unknown):
        return body
    tensor = t.as_tensor(env, body, node.span)
    if tensor.dtype not in FLOATS:
        tensor = t.cast(env, tensor, weights[0].dtype, node.span)
    if tensor.rest:
        for weight in weights:
            tensor = t.elementwise(env, "mul", [tensor, weight], node.span)
        return t.reduce_axes(env, tensor, axes, "sum", node.span)
    return t.contract(env, [*weights, tensor], axes, node.span, name="E")


def _outcomes(row: s.Draw, env: Env, weights: list[Tensor], axes: list[Axis]) -> Env:
    """Bind the drawn names to their outcomes along a branch axis, with their weights."""
    value = evaluate(row.distribution, env)
    if isinstance(value, Record):
        return _table_outcomes(row, value, env, weights, axes)
    value = need_distribution(value, row.distribution.span)
    name = row.targets[0].name
    if value.branches:
        axis = Axis(name, len(value.branches), kind="branch")
        weights.append(_stack(env, [w for w, _ in value.branches], axis, value.span, True))
        outcome = _stack(env, [v for _, v in value.branches], axis, value.span, False)
        axes.append(axis)
        return env.bind({name: outcome})
    low, high = value.params.get("@low"), value.params.get("@high")
    kind, form, _ = parts_of(value)
    if low is None:
        low, high = (0, 2) if kind == "bernoulli" else (None, None)
    if low is None or high is None:
        fail("E605", f"`{name}` has no finite support", row.span,
             hint=f"limit it: `truncate({kind}(...), 0, n)`")  # fmt: skip
    params = align_parameters(env, parameter_tensors(value, env), value.span)
    labels = params[0].labels
    axis = Axis(name, high - low, low, kind="branch")
    made = t.emit(env, "pmf", params, value.span, dist=kind, form=form, lo=low, hi=high)
    weights.append(Tensor(made.value, made.home, (*labels, axis)))
    axes.append(axis)
    return env.bind({name: LabelIndex(axis)})


def _stack(env: Env, items: Sequence[Any], axis: Axis, span: Span, weight: bool) -> Tensor:
    """Outcomes side by side along a new label."""
    dtype = env.elab.float_dtype if weight else None
    tensors = []
    for item in items:
        tensor = t.as_tensor(env, value_of(item, env, span), span, dtype)
        tensors.append(t.cast(env, tensor, dtype, span) if dtype else tensor)
    grid = next((x.grid for x in tensors if x.grid is not None), None)
    tensors = t.promote(env, tensors, span)
    labels = t.union(tensors)
    expanded = []
    for tensor in tensors:
        full = t.arrange(env, tensor, labels, span, expand=True)
        shape = (*(x.size for x in labels), 1, *full.rest)
        expanded.append(t.emit(env, "reshape", [full], span, (), shape=shape))
    joined = expanded[0]
    if len(expanded) > 1:
        joined = t.emit(env, "concat", expanded, span, (), axis=len(labels))
    return Tensor(joined.value, joined.home, (*labels, axis), grid)


def _table_outcomes(
    row: s.Draw, table: Record, env: Env, weights: list[Tensor], axes: list[Axis]
) -> Env:
    """``s', r, done ~ P[s, a]``: next state, reward and end, one row a possible outcome."""
    fields = ("next", "reward", "done")
    if len(row.targets) > len(fields):
        fail("E410", "a table gives a next state, a reward and an end", row.span)
    weight = table.fields["probability"]
    axis = weight.labels[-1]
    weights.append(weight)
    axes.append(axis)
    bound = {
        target.name: table.fields[key] for target, key in zip(row.targets, fields, strict=False)
    }
    return env.bind(bound)


def densify(matrix: Record, env: Env, span: Span) -> Tensor:
    """A sparse matrix as a dense one."""
    parts = [matrix.fields[key] for key in ("indptr", "index", "value")]
    return t.emit(env, "densify", parts, span, (), columns=matrix.columns)


def record_row(table: Record, items: Sequence[Any], env: Env, span: Span) -> Any:
    """``P[s, a]``: the outcomes of a table at given indices, along a branch axis of their own."""
    from .subscripts import index_tensor

    if table.kind == "sparse":
        return index_tensor(densify(table, env, span), items, env, span, "this")
    fields: dict[str, Tensor] = {}
    branch: Axis | None = None
    for key, tensor in table.fields.items():
        if branch is None:
            branch = Axis("outcome", tensor.type.shape[-1], kind="branch")
        fields[key] = index_tensor(tensor, [*items, LabelIndex(branch)], env, span, key)
    return Record("table", fields)
