"""Random variables: the statements ``~`` and ``factor``, and latent values inside them.

A statement over a latent variable is evaluated with the variable's values as one more axis, so
each ``~`` and each ``factor`` becomes a node whose operands are tables over indices and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.dims import Dim, DimLike
from ...compiler.ir.graph import Value
from ...compiler.ir.types import FLOATS, INTEGERS, Span
from .. import syntax as s
from . import tensors as t
from .distributions import need_distribution, parameter_tensors, parts_of
from .domains import bind_clause, declared_domain
from .environment import Env
from .equations import bind_targets, shifted_name
from .errors import ElaborationError, Poisoned, fail
from .expressions import evaluate, evaluate_value, value_of, whole
from .ranges import infer_range
from .values import (
    Axis,
    LabelIndex,
    RandomVariable,
    Tensor,
    describe,
)

if TYPE_CHECKING:
    from .scope import Scope


Place = tuple[Any, ...]
"""An index of a latent variable: ``("index", "t", -1)``, ``("at", 3)`` or ``("table", tensor)``;
in a node's attributes the number of the operand that holds the table stands for it."""


@dataclass(frozen=True)
class Support:
    """Values of a latent variable: how many (None when continuous), and its axes."""

    size: DimLike | None
    domain: tuple[Axis, ...]
    dtype: str


def variable(scope: Scope, name: str) -> Any:
    """What a drawn name evaluates to."""
    return RandomVariable(name)


def latent_index(base: RandomVariable, node: s.Subscript, items: Sequence[Any], env: Env) -> Any:
    """``z[t-1]`` inside a statement: an axis over the variable's values."""
    if env.latent is None:
        fail("E604", f"`{base.name}` is a latent variable", node.span,
             hint=f"ask for it: `marginals({base.name})`, `map({base.name})`")  # fmt: skip
    places = tuple(_place(item, env, node.span) for item in items)
    key = (base.name, places)
    if key not in env.latent:
        support = support_of(base.name, env, node.span)
        if support.size is None:
            fail("E605", f"`{base.name}` has no finite support", node.span,
                 hint="a continuous latent variable is used as a whole")  # fmt: skip
        text = f"{base.name}[{', '.join(text_of(item) for item in node.items)}]"
        # One definition used twice may write two values alike.
        twins = sum(axis.name.split(" ")[0] == text for axis in env.latent.values())
        name = f"{text} ({twins})" if twins else text
        env.latent[key] = Axis(name, support.size, kind="latent")
    return LabelIndex(env.latent[key])


def _place(item: Any, env: Env, span: Span) -> Place:
    """Where an index of a latent variable points: see :data:`Place`."""
    if isinstance(item, LabelIndex) and item.axis.kind != "latent":
        return ("index", item.axis.name, item.offset)
    value = value_of(item, env, span)
    if isinstance(value, Tensor):
        if value.dtype not in INTEGERS or any(axis.kind == "latent" for axis in value.labels):
            fail("E605", "which variable is meant must not depend on another one", span,
                 hint="its index is a number, an index or a table of numbers")  # fmt: skip
        return ("table", value)
    return ("at", whole(value, span, "an index"))


def need_finite(name: str, env: Env, span: Span) -> None:
    """E605 unless a variable counts: only then can it be an index."""
    if env.latent is not None and support_of(name, env, span).size is None:
        fail("E605", f"`{name}` is continuous and cannot be an index", span,
             hint="only `categorical`, `bernoulli` and `labels` count")  # fmt: skip


def scalar_value(base: RandomVariable, env: Env, span: Span) -> Any:
    """A latent variable without an index, used as a number."""
    if env.latent is None:
        fail("E604", f"`{base.name}` is a latent variable", span,
             hint=f"ask for it: `marginals({base.name})`, `E{{{base.name}}} ...`")  # fmt: skip
    key = (base.name, ())
    if key not in env.latent:
        support = support_of(base.name, env, span)
        size = support.size if support.size is not None else 1
        env.latent[key] = Axis(base.name, size, kind="latent")
    return value_of(LabelIndex(env.latent[key]), env, span)


def text_of(node: Any) -> str:
    """How an index is written, short: the name of a latent value's axis."""
    if isinstance(node, s.Name):
        return node.id
    if isinstance(node, s.Number):
        return str(node.value)
    if isinstance(node, s.Binary):
        return f"{text_of(node.left)}{node.op}{text_of(node.right)}"
    if isinstance(node, s.Group):
        return f"({text_of(node.body)})"
    if isinstance(node, s.Subscript):
        return f"{text_of(node.base)}[{', '.join(text_of(x) for x in node.items)}]"
    return "..."


def support_of(name: str, env: Env, span: Span) -> Support:
    """The support of a drawn variable, from its first statement."""
    cache = env.elab.supports
    if name not in cache:
        found = env.scope.find(name)
        if found is None or name not in found[0].draws:
            fail("E604", f"`{name}` is not a random variable", span)
        if name in env.elab.asked_supports:
            fail("E609", f"`{name}` is drawn from its own earlier value only", span,
                 hint=f"say how it begins, such as `{name}[0] ~ ...`")  # fmt: skip
        env.elab.asked_supports.add(name)
        try:
            cache[name] = _first_support(found[0], name)
        finally:
            env.elab.asked_supports.discard(name)
    return cache[name]


def _first_support(owner: Scope, name: str) -> Support:
    """The support by the first statement that tells it without asking for it."""
    rows = owner.draws[name]
    for row in rows[:-1]:
        try:
            return _support(owner, row, name)
        except ElaborationError as fault:
            if fault.diagnostic.code != "E609":
                raise
    return _support(owner, rows[-1], name)


def _support(owner: Scope, row: s.Draw, name: str) -> Support:
    target = next(x for x in row.targets if x.name == name)
    env = replace(owner.env, latent={})
    env, axes = bind_targets(env, row, list(target.items or ()))
    value = need_distribution(evaluate(row.distribution, env), row.span)
    kind, _, params = parts_of(value)
    domain = tuple(axes.values())
    if kind == "bernoulli":
        return Support(2, domain, "i32")
    if kind == "labels":
        size = params[0]
        if isinstance(size, Tensor) or not isinstance(size, (int, Dim)):
            size = None
        return Support(size, domain, "i32")
    if kind == "categorical":
        tensor = t.as_tensor(env, params[0], row.span)
        if not tensor.rest:
            fail("E605", "a categorical variable needs a vector of probabilities", row.span,
                 str(tensor.type))  # fmt: skip
        return Support(tensor.rest[-1], domain, "i32")
    return Support(None, domain, env.elab.float_dtype)


# ---------------------------------------------------------------- statements


def emit_statements(scope: Scope) -> list[tuple[str, Value]]:
    """All ``~`` and ``factor`` statements of a file as nodes; their results are kept alive."""
    makers: list[Callable[[], tuple[str, Value]]] = []
    for name, rows in scope.draws.items():
        _drawn_once(scope, name, [row for row in rows if not _is_noise(scope, row)])
        for row in rows:
            if row.targets[0].name != name or _is_noise(scope, row):
                continue
            makers.append(lambda row=row: _site(scope, row))
    for place, row in enumerate(scope.factors):
        makers.append(lambda place=place, row=row: _factor(scope, row, place))
    found: list[tuple[str, Value]] = []
    for make in makers:
        try:
            found.append(make())
        except ElaborationError as fault:
            scope.elab.report(fault.diagnostic)
        except Poisoned:
            continue
    if len(found) < len(makers):
        raise Poisoned
    # Ranges of one family may be drawn by several statements that read the same.
    names = [name for name, _ in found]
    return [
        (name if name not in names[:place] else f"{name} ({names[:place].count(name) + 1})", value)
        for place, (name, value) in enumerate(found)
    ]


def _drawn_once(scope: Scope, name: str, rows: Sequence[s.Draw]) -> None:
    """E602 when two statements draw the same elements of a family."""
    if len(rows) < 2:
        return
    reaches = [(_reach(scope, row, name), row) for row in rows]
    for place, (first, earlier) in enumerate(reaches):
        for second, row in reaches[place + 1 :]:
            pairs = zip(first, second, strict=False)
            if all(_below(a, d) and _below(c, b) for (a, b), (c, d) in pairs):
                fail("E602", f"`{name}` is drawn twice", row.span,
                     f"{_ranges(second)} here and {_ranges(first)} there",
                     labels=[(earlier.span, "first drawn here")])  # fmt: skip


def _reach(scope: Scope, row: s.Draw, name: str) -> list[tuple[DimLike, DimLike]]:
    """Where each index of a drawn family begins and ends."""
    items = list(next(x for x in row.targets if x.name == name).items or ())
    env, axes = bind_targets(replace(scope.env, latent={}), row, items)
    found: list[tuple[DimLike, DimLike]] = []
    for item in items:
        if isinstance(item, s.Tuple):
            continue
        key, offset = shifted_name(item, env)
        low = offset if key is None else axes[key].low + offset
        found.append((low, low + (1 if key is None else axes[key].size)))
    return found


def _ranges(reach: Sequence[tuple[DimLike, DimLike]]) -> str:
    return ", ".join(f"{low}..{high}" for low, high in reach)


def _below(low: DimLike, high: DimLike) -> bool:
    """Whether ``low < high`` whatever the sizes; every size is at least 1."""
    room = high - low
    if isinstance(room, int):
        return room > 0
    return all(c > 0 and all(isinstance(x, str) for x in m) for m, c in room.terms)


def _is_noise(scope: Scope, row: s.Draw) -> bool:
    """Randomness of a decision process: a next state, or noise under ``E{...}``."""
    names = {target.name for target in row.targets}
    if any(name.endswith("'") for name in names):
        return True
    for statement in scope.statements:
        for node in s.walk(statement):
            if isinstance(node, s.Reduction) and node.kind == "E":
                if names & {binder for binder, _ in node.binders}:
                    return True
    return False


def _site(scope: Scope, row: s.Draw) -> tuple[str, Value]:
    target = row.targets[0]
    if len(row.targets) > 1:
        fail("E410", "a statement draws one variable", row.span)
    env = replace(scope.env, latent={})
    items = list(target.items or ())
    env, axes = bind_targets(env, row, items)
    value = need_distribution(evaluate(row.distribution, env), row.distribution.span)
    name, form, _ = parts_of(value)
    if name == "choice":
        fail("E601", "`choice` describes a next state", value.span, hint="write `s' ~ choice(...)`")
    operands = [(x, x.labels) for x in parameter_tensors(value, env)]
    entry = scope.entries[target.name]
    observed = entry.kind in ("input", "param")
    if observed:
        whole_value = scope.force(entry, row.span)
        if not isinstance(whole_value, Tensor):
            fail("E604", f"`{target.name}` cannot be observed", target.span, describe(whole_value))
        if items:
            from .subscripts import index_tensor

            evaluated = [evaluate(item, env) for item in items]
            point = index_tensor(whole_value, evaluated, env, target.span, target.name)
        else:
            point = whole_value
        wide = next((x.dtype for x, _ in operands if x.dtype in FLOATS), point.dtype)
        if point.dtype in FLOATS:
            point = t.cast(env, point, wide, target.span)
        operands.append((point, point.labels))
    label = text_of(s.Subscript(s.Name(target.name), tuple(items))) if items else target.name
    at = tuple(_place(evaluate(item, env), env, target.span) for item in items)
    condition = _condition(row.clause, env)
    operands += condition
    latents, at = _latents(env, operands, at)
    attrs = {
        "variable": target.name, "dist": name, "form": form, "target": label,
        "axes": tuple(tuple(axis.name for axis in labels) for _, labels in operands),
        "domain": _domain(axes), "support": _size(target.name, env, row.span),
        "observed": entry.kind if observed else "", "dtype": env.elab.float_dtype,
        "latents": latents, "at": at, "conditional": bool(condition),
    }  # fmt: skip
    values = [t.local(env, x) for x, _ in operands]
    made = env.builder.emit("site", values, attrs, row.span, label)
    return f"log p({label})", made


def _size(name: str, env: Env, span: Span) -> Any:
    size = support_of(name, env, span).size
    return size


def _domain(axes: dict[str, Axis]) -> tuple[Any, ...]:
    return tuple((name, axis.low, axis.size) for name, axis in axes.items())


def _condition(clause: s.ForClause | None, env: Env) -> list[tuple[Tensor, tuple[Axis, ...]]]:
    if clause is None or clause.condition is None:
        return []
    value = evaluate_value(clause.condition, env)
    if value is True:
        return []
    if value is False:
        value = t.constant(env, value, "bool", clause.condition.span)
    if not isinstance(value, Tensor):
        fail("E404", "a condition is needed after `if`", clause.condition.span, describe(value))
    t.need_condition(value, clause.condition.span)
    return [(value, value.labels)]


def _factor(scope: Scope, row: s.Factor, place: int) -> tuple[str, Value]:
    env = replace(scope.env, latent={})
    bound, _ = bind_clause(row.clause, env)
    env = env.bind(bound)
    for name in sorted(_free_indices(row.energy, env)):
        domain = declared_domain(name, env) or infer_range(name, [row.energy], env, row.span)
        bound[name] = LabelIndex(domain.axis(name))
        env = env.bind(bound)
    value = evaluate_value(row.energy, env)
    tensor = t.as_tensor(env, value, row.span)
    condition = _condition(row.clause, env)
    operands = [(tensor, tensor.labels), *condition]
    columns = [column for column in bound.values() if isinstance(column, Tensor)]
    axes = {key: index.axis for key, index in bound.items() if isinstance(index, LabelIndex)}
    axes |= {axis.name: axis for column in columns for axis in column.labels}
    latents, _ = _latents(env, operands, ())
    attrs = {
        "axes": tuple(tuple(axis.name for axis in labels) for _, labels in operands),
        "domain": _domain(axes), "dtype": env.elab.float_dtype,
        "latents": latents, "conditional": bool(condition),
    }  # fmt: skip
    values = [t.local(env, t.cast(env, operands[0][0], env.elab.float_dtype, row.span))]
    values += [t.local(env, x) for x, _ in operands[1:]]
    made = env.builder.emit("factor", values, attrs, row.span, f"factor{place}")
    return f"factor {place}", made


def _latents(
    env: Env, operands: list[tuple[Tensor, tuple[Axis, ...]]], at: tuple[Place, ...]
) -> tuple[tuple[Any, ...], tuple[Place, ...]]:
    """The latent values of a statement as ``(axis, variable, places)``, and the target's places.

    Tables that point at variables become operands, and their numbers stand in the places.
    """
    tables: dict[Any, int] = {}

    def numbered(places: tuple[Place, ...]) -> tuple[Place, ...]:
        found = []
        for place in places:
            if place[0] == "table":
                tensor = place[1]
                if tensor.value not in tables:
                    tables[tensor.value] = len(operands)
                    operands.append((tensor, tensor.labels))
                place = ("table", tables[tensor.value])
            found.append(place)
        return tuple(found)

    rows = tuple(
        (axis.name, name, numbered(places)) for (name, places), axis in (env.latent or {}).items()
    )
    return rows, numbered(at)


def _free_indices(node: Any, env: Env) -> set[str]:
    """Declared indices that an energy mentions without binding them."""
    from .references import free_names

    found = set()
    for name in free_names(node):
        entry = env.scope.find(name)
        if entry is not None and entry[1].kind == "index" and name not in env.bound:
            found.add(name)
    return found
