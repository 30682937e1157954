"""Questions to a model: ``marginals(z)``, ``map(z)``, ``meanfield(x, steps=5)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.dims import DimLike
from ...compiler.ir.graph import Graph, Value
from ...compiler.ir.types import Span
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .environment import Env
from .equations import bind_targets, shifted_name
from .errors import fail
from .expressions import evaluate
from .random_variables import Support, support_of
from .values import (
    BATCH,
    Tensor,
    is_number,
)

if TYPE_CHECKING:
    from .scope import Scope


WORDS = {"filter": ("exact", "lattice"), "semiring": ("sum_product", "max_sum")}
"""Settings that are words."""


def query(
    env: Env, span: Span, ask: str, name: str, settings: Sequence[Any],
    extra: Sequence[Tensor], dtype: str, shape: Sequence[DimLike],
) -> Tensor:  # fmt: skip
    """A node that asks about a drawn variable; E604 when it is not one."""
    found = env.scope.find(name)
    if found is None or name not in found[0].draws:
        drawn = [n for n in env.scope.visible() if (f := env.scope.find(n)) and n in f[0].draws]
        close = nearest(name, drawn)
        hint = f"did you mean `{close}`?" if close else f"state it: `{name} ~ ...`"
        fail("E604", f"`{name}` is not a random variable", span, hint=hint)
    statements = env.elab.statements(found[0])
    operands = [env.builder.local(v, env.builder.root) for _, v in statements]
    operands += [t.local(env, x) for x in extra]
    root = env.builder.root.graph
    batched = any(BATCH in names for _, v in statements for names in _axes_of(root, v))
    shape = (env.elab.batch, *shape) if batched else shape
    attrs = {
        "ask": ask, "variable": name, "settings": tuple(settings), "dtype": dtype,
        "shape": tuple(shape),
    }  # fmt: skip
    made = env.builder.emit("query", operands, attrs, span, f"{ask}({name})")
    return Tensor(made, env.builder)


def _axes_of(graph: Graph, statement: Value) -> Any:
    """The names of the axes that lead each operand of a statement's node."""
    return graph.node(statement.node).attrs["axes"]


def _asked(
    node: s.Call, env: Env, ask: str, allowed: Sequence[str]
) -> tuple[str, list[tuple[str, Any]]]:
    if not node.args or not isinstance(node.args[0].value, s.Name):
        fail("E604", f"`{ask}` asks about a random variable", node.span, hint=f"{ask}(x)")
    settings = []
    for argument in node.args[1:]:
        words = WORDS.get(argument.name or "", ()) if argument.name in allowed else ()
        if words:
            settings.append((str(argument.name), _word(argument, words)))
            continue
        value = evaluate(argument.value, env)
        if argument.name is None or not is_number(value):
            fail("E404", f"settings of `{ask}` read name=number", argument.span)
        if argument.name not in allowed:
            close = nearest(argument.name, allowed)
            hint = f"did you mean `{close}`?" if close else None
            if close is None and allowed:
                hint = f"it knows {', '.join(allowed)}"
            fail("E401", f"`{ask}` has no setting `{argument.name}`", argument.span, hint=hint)
        settings.append((argument.name, value))
    return node.args[0].value.id, settings


def _word(argument: Any, words: Sequence[str]) -> str:
    """A setting that is one of a few words."""
    found = argument.value.id if isinstance(argument.value, s.Name) else ""
    if found not in words:
        fail("E404", f"`{argument.name}` is one of {', '.join(words)}", argument.span)
    return found


def _extent(name: str, env: Env, span: Span) -> tuple[tuple[DimLike, ...], Support]:
    """The variable's index axes over all its statements."""
    support = support_of(name, env, span)
    found = env.scope.find(name)
    assert found is not None
    owner = found[0]
    ends: list[DimLike] = []
    for row in owner.draws[name]:
        target = next(x for x in row.targets if x.name == name)
        inner, axes = bind_targets(replace(owner.env, latent={}), row, list(target.items or ()))
        for place, item in enumerate(target.items or ()):
            key, offset = shifted_name(item, inner)
            if key is not None and axes[key].grid is not None:
                if not ends:
                    ends += list(axes[key].grid or ())
                continue
            end = offset + 1 if key is None else axes[key].low + axes[key].size + offset
            if place == len(ends):
                ends.append(end)
                continue
            known = ends[place]
            if not isinstance(end, int) or (isinstance(known, int) and end > known):
                ends[place] = end
    return tuple(ends), support


def _variable_query(ask: str, over_values: bool, settings_allowed: Sequence[str]) -> Any:
    def run(node: s.Call, env: Env) -> Tensor:
        name, settings = _asked(node, env, ask, settings_allowed)
        found = env.scope.find(name)
        if found is None or name not in found[0].draws:
            return query(env, node.span, ask, name, (), (), "f64", ())
        shape, support = _extent(name, env, node.span)
        dtype = env.elab.float_dtype if over_values else support.dtype
        if over_values and support.size is not None:
            shape = (*shape, support.size)
        return query(env, node.span, ask, name, settings, (), dtype, shape)

    return run


query_map = _variable_query("map", False, ())
query_marginals = _variable_query("marginals", True, ())
query_meanfield = _variable_query("meanfield", True, ("steps", "damping", "filter"))
query_bp = _variable_query("bp", True, ("steps", "damping", "tol", "semiring"))
query_gibbs = _variable_query("gibbs", True, ("steps", "burn", "thin"))


def query_loglik(node: s.Call, env: Env) -> Tensor:
    """``loglik()``: the log-likelihood of the observations."""
    if node.args:
        fail("E403", "`loglik` takes no arguments", node.span)
    scope: Scope | None = env.scope
    while scope is not None and not scope.draws:
        scope = scope.parent
    if scope is None:
        fail("E604", "the model draws no variable", node.span)
    name = next(iter(scope.draws))
    return query(env, node.span, "loglik", name, (), (), env.elab.float_dtype, ())
