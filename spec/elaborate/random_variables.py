"""``~`` and ``factor``, distributions, expectations, and questions to a model.

A statement over a latent variable is evaluated with the variable's values as one more axis, so
each ``~`` and each ``factor`` becomes a node whose operands are tables over indices and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.dims import Dim, DimLike
from ...compiler.ir.graph import Graph, Value
from ...compiler.ir.types import FLOATS, Span
from ...compiler.ops.distributions import DISTRIBUTIONS
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .domains import bind_clause, declared_domain
from .environment import Env
from .equations import bind_targets, shifted_name
from .errors import ElaborationError, Poisoned, fail
from .expressions import evaluate, evaluate_value, value_of, whole
from .ranges import infer_range
from .values import (
    BATCH,
    Axis,
    DistributionValue,
    LabelIndex,
    RandomVariable,
    Record,
    Tensor,
    TupleValue,
    Unknown,
    describe,
    is_number,
)

if TYPE_CHECKING:
    from .scope import Scope

FINITE = ("categorical", "bernoulli", "labels")


# ---------------------------------------------------------------- distributions


def distribution(name: str, node: s.Call, env: Env) -> Any:
    """The value of ``normal(mu, sd)``, ``choice(0.8: a, ...)`` or ``truncate(d, lo, hi)``."""
    if name == "choice":
        return _choice(node, env)
    if name == "truncate":
        return _truncate(node, env)
    row = DISTRIBUTIONS[name]
    names = [p.name for p in row.params]
    forms = {p.name: form for form, f in row.forms.items() for p in f.params}
    given: dict[str, Any] = {}
    form = ""
    for place, argument in enumerate(node.args):
        value = evaluate_value(argument.value, env)
        key = argument.name
        if key is None:
            if place >= len(names):
                fail("E403", f"too many arguments for `{name}`", argument.span,
                     f"it takes {', '.join(names)}")  # fmt: skip
            key = names[place]
        elif key in forms and key not in names:
            form = forms[key]
        elif key not in names:
            close = nearest(key, [*names, *forms])
            hint = f"did you mean `{close}`?" if close else f"it takes {', '.join(names)}"
            fail("E401", f"`{name}` has no parameter `{key}`", argument.span, hint=hint)
        if key in given:
            fail("E403", f"`{key}` is given twice", argument.span)
        given[key] = value
    for parameter in row.params_of(form):
        if parameter.name in given:
            continue
        if parameter.default is None:
            fail("E402", f"`{name}` needs `{parameter.name}`", node.span,
                 hint=f"it reads {name}({', '.join(names)})")  # fmt: skip
        given[parameter.name] = parameter.default
    ordered = {p.name: given[p.name] for p in row.params_of(form)}
    _check_probabilities(name, ordered, node)
    return DistributionValue(f"{name}:{form}" if form else name, ordered, node.span)


def _check_probabilities(name: str, params: dict[str, Any], node: s.Call) -> None:
    value = params.get("p")
    if name == "categorical" and isinstance(value, list) and all(is_number(x) for x in value):
        total = sum(value)
        if abs(total - 1) > 1e-6:
            fail("E603", "probabilities must sum to 1", node.span, f"they sum to {total:g}")
    if name == "bernoulli" and is_number(value) and not 0 <= value <= 1:  # type: ignore[operator]
        fail("E603", "a probability lies between 0 and 1", node.span, str(value))


def _choice(node: s.Call, env: Env) -> DistributionValue:
    branches = []
    for argument in node.args:
        if argument.weight is None:
            fail("E601", "a choice reads `choice(0.8: a, 0.2: b)`", argument.span)
        weight = evaluate_value(argument.weight, env)
        branches.append((weight, evaluate_value(argument.value, env)))
    if not branches:
        fail("E601", "a choice needs at least one outcome", node.span)
    weights = [w for w, _ in branches]
    if all(is_number(w) for w in weights):
        total = sum(weights)
        if abs(total - 1) > 1e-6:
            fail("E603", "probabilities must sum to 1", node.span, f"they sum to {total:g}")
    return DistributionValue("choice", {}, node.span, tuple(branches))


def _truncate(node: s.Call, env: Env) -> DistributionValue:
    if len(node.args) != 3:
        fail("E407", "`truncate` takes a distribution, its first value and its end", node.span)
    base = evaluate(node.args[0].value, env)
    if not isinstance(base, DistributionValue) or base.branches:
        fail("E601", "`truncate` limits a distribution", node.args[0].span, describe(base))
    low, high = (whole(evaluate(a.value, env), a.span, "a limit") for a in node.args[1:])
    if isinstance(low, Dim) or isinstance(high, Dim) or low >= high:
        fail("E504", "a range ends before it starts", node.span, f"{low}..{high}")
    return replace(base, params={**base.params, "@low": low, "@high": high}, span=node.span)


def _parts(value: DistributionValue) -> tuple[str, str, list[Any]]:
    name, _, form = value.name.partition(":")
    return name, form, [v for key, v in value.params.items() if not key.startswith("@")]


def _need_distribution(value: Any, span: Span) -> DistributionValue:
    if not isinstance(value, DistributionValue):
        hint = "such as `normal(mu, sd)`, `categorical(p)` or `labels(n)`"
        fail("E601", "a distribution is needed here", span, describe(value), hint)
    return value


def _tensors(value: DistributionValue, env: Env) -> list[Tensor]:
    name, form, params = _parts(value)
    rows = DISTRIBUTIONS[name].params_of(form)
    found = []
    for row, param in zip(rows, params, strict=True):
        if isinstance(param, RandomVariable):
            fail("E604", "a parameter cannot be a latent variable as a whole", value.span)
        tensor = t.as_tensor(env, param, value.span)
        if tensor.dtype not in FLOATS and row.domain != "count":
            tensor = t.cast(env, tensor, env.elab.float_dtype, value.span)
        found.append(tensor)
    floats = [x for x in found if x.dtype in FLOATS]
    if len({x.dtype for x in floats}) > 1:
        wide = t.promote(env, floats, value.span)[0].dtype
        found = [t.cast(env, x, wide, value.span) if x.dtype in FLOATS else x for x in found]
    return found


# ---------------------------------------------------------------- calls on distributions


def _key(env: Env) -> Tensor:
    return Tensor(env.elab.random_key(), env.builder.root)


def sample(node: s.Call, env: Env) -> Any:
    """``sample(d)`` or ``sample(d, shape)``: a reparameterised draw; no latent variable."""
    if not 1 <= len(node.args) <= 2:
        fail("E407", "`sample` takes a distribution and a shape", node.span)
    value = _need_distribution(evaluate(node.args[0].value, env), node.args[0].span)
    params = _tensors(value, env)
    name, form, _ = _parts(value)
    rows = DISTRIBUTIONS[name].params_of(form)
    params = _align_params(env, params, [row.rank for row in rows], node.span)
    if len(node.args) == 2:
        shape = evaluate(node.args[1].value, env)
        shape = shape.items if isinstance(shape, TupleValue) else shape
        if not isinstance(shape, (list, tuple)):
            shape = [shape]
        sizes = tuple(whole(d, node.args[1].span, "a size") for d in shape)
    else:
        sizes = ()
        for tensor, row in zip(params, rows, strict=True):
            own = tensor.type.shape[: tensor.type.rank - row.rank]
            sizes = own if len(own) > len(sizes) else _widest(sizes, own)
    operands = [t.local(env, x) for x in [*params, _key(env)]]
    path = env.elab.next_random(env.path.auto)
    attrs = {"dist": name, "form": form, "path": path, "shape": sizes}
    made = env.builder.emit("sample", operands, attrs, node.span)
    return Tensor(made, env.builder, params[0].labels)


def _widest(a: Sequence[DimLike], b: Sequence[DimLike]) -> tuple[DimLike, ...]:
    if len(b) < len(a):
        b = (1,) * (len(a) - len(b)) + tuple(b)
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


def _align_params(env: Env, params: list[Tensor], ranks: Sequence[int], span: Span) -> list[Tensor]:
    if not any(x.labels for x in params):
        return params
    labels = t.union(params)
    return [t.arrange(env, x, labels, span, expand=True) for x in params]


def _per_sample(env: Env, tensor: Tensor, span: Span) -> Tensor:
    """Sum over everything but the batch (and indices)."""
    keep = len(tensor.labels)
    if not keep and tensor.rest and tensor.rest[0] == env.elab.batch:
        keep = 1
    axes = tuple(range(keep, tensor.type.rank))
    if not axes:
        return tensor
    return t.emit(env, "reduce", [tensor], span, kind="sum", axes=axes, keepdims=False)


def kl(node: s.Call, env: Env) -> Any:
    """``kl(p, q)`` in closed form, summed over all but the batch."""
    if len(node.args) != 2:
        fail("E407", "`kl` takes two distributions", node.span)
    p, q = (_need_distribution(evaluate(a.value, env), a.span) for a in node.args)
    operands = _tensors(p, env) + _tensors(q, env)
    operands = t.promote(env, operands, node.span)
    operands = _align_params(env, operands, (), node.span)
    attrs = {"p": _parts(p)[0], "q": _parts(q)[0], "p_form": _parts(p)[1], "q_form": _parts(q)[1]}
    made = t.emit(env, "kl", operands, node.span, **attrs)
    return _per_sample(env, made, node.span)


def entropy(node: s.Call, env: Env) -> Any:
    """``entropy(d)`` in closed form."""
    if len(node.args) != 1:
        fail("E407", "`entropy` takes a distribution", node.span)
    value = _need_distribution(evaluate(node.args[0].value, env), node.args[0].span)
    operands = _align_params(env, _tensors(value, env), (), node.span)
    name, form, _ = _parts(value)
    return t.emit(env, "entropy", operands, node.span, dist=name, form=form)


def logp(node: s.Call, env: Env) -> Any:
    """``logp(d, x)``: log density, summed over all but the batch; ``logp(y = label)``: a query."""
    if len(node.args) == 1 and node.args[0].name is not None:
        observed = evaluate_value(node.args[0].value, env)
        if not isinstance(observed, Tensor):
            fail("E405", "`logp(y = value)` needs a tensor", node.span, describe(observed))
        return _query(env, node.span, "logp", node.args[0].name, (), [observed],
                      env.elab.float_dtype, ())  # fmt: skip
    if len(node.args) != 2:
        fail("E407", "`logp` takes a distribution and a value", node.span,
             hint="logp(normal(mu, sd), x), or logp(y = label)")  # fmt: skip
    value = _need_distribution(evaluate(node.args[0].value, env), node.args[0].span)
    params = _tensors(value, env)
    point = t.as_tensor(env, evaluate_value(node.args[1].value, env), node.args[1].span,
                        params[0].dtype if params else None)  # fmt: skip
    operands = [point, *params]
    if point.dtype in FLOATS and any(x.dtype != point.dtype for x in params):
        wide = t.promote(env, [x for x in operands if x.dtype in FLOATS], node.span)[0].dtype
        operands = [t.cast(env, x, wide, node.span) if x.dtype in FLOATS else x for x in operands]
    operands = _align_params(env, operands, (), node.span)
    name, form, _ = _parts(value)
    made = t.emit(env, "log_prob", operands, node.span, dist=name, form=form)
    return _per_sample(env, made, node.span)


# ---------------------------------------------------------------- variables


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
    text = ", ".join(_text(item) for item in node.items)
    key = (base.name, text)
    if key not in env.latent:
        support = support_of(base.name, env, node.span)
        if support.size is None:
            fail("E605", f"`{base.name}` has no finite support", node.span,
                 hint="a continuous latent variable is used as a whole")  # fmt: skip
        env.latent[key] = Axis(f"{base.name}[{text}]", support.size, kind="latent")
    return LabelIndex(env.latent[key])


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
    key = (base.name, "")
    if key not in env.latent:
        support = support_of(base.name, env, span)
        size = support.size if support.size is not None else 1
        env.latent[key] = Axis(base.name, size, kind="latent")
    return value_of(LabelIndex(env.latent[key]), env, span)


def _text(node: Any) -> str:
    if isinstance(node, s.Name):
        return node.id
    if isinstance(node, s.Number):
        return str(node.value)
    if isinstance(node, s.Binary):
        return f"{_text(node.left)}{node.op}{_text(node.right)}"
    if isinstance(node, s.Group):
        return f"({_text(node.body)})"
    if isinstance(node, s.Subscript):
        return f"{_text(node.base)}[{', '.join(_text(x) for x in node.items)}]"
    return "..."


def support_of(name: str, env: Env, span: Span) -> Support:
    """The support of a drawn variable, from its first statement."""
    cache = env.elab.supports
    if name not in cache:
        found = env.scope.find(name)
        if found is None or name not in found[0].draws:
            fail("E604", f"`{name}` is not a random variable", span)
        owner = found[0]
        row = owner.draws[name][0]
        cache[name] = _support(owner, row, name)
    return cache[name]


def _support(owner: Scope, row: s.Draw, name: str) -> Support:
    target = next(x for x in row.targets if x.name == name)
    env = replace(owner.env, latent={})
    env, axes = bind_targets(env, row, list(target.items or ()))
    value = _need_distribution(evaluate(row.distribution, env), row.span)
    kind, form, params = _parts(value)
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
    value = _need_distribution(evaluate(row.distribution, env), row.distribution.span)
    name, form, _ = _parts(value)
    if name == "choice":
        fail("E601", "`choice` describes a next state", value.span, hint="write `s' ~ choice(...)`")
    operands = [(x, x.labels) for x in _tensors(value, env)]
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
    label = _text(s.Subscript(s.Name(target.name), tuple(items))) if items else target.name
    operands += _condition(row.clause, env)
    attrs = {
        "variable": target.name, "dist": name, "form": form, "target": label,
        "axes": tuple(tuple(axis.name for axis in labels) for _, labels in operands),
        "domain": _domain(axes), "support": _size(target.name, env, row.span),
        "observed": observed, "dtype": env.elab.float_dtype,
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
    operands = [(tensor, tensor.labels), *_condition(row.clause, env)]
    columns = {key: column for key, column in bound.items() if isinstance(column, Tensor)}
    operands += [(column, column.labels) for column in columns.values()]
    axes = {key: index.axis for key, index in bound.items() if isinstance(index, LabelIndex)}
    axes |= {axis.name: axis for column in columns.values() for axis in column.labels}
    attrs = {
        "axes": tuple(tuple(axis.name for axis in labels) for _, labels in operands),
        "domain": _domain(axes), "rows": tuple(columns), "dtype": env.elab.float_dtype,
    }  # fmt: skip
    values = [t.local(env, t.cast(env, operands[0][0], env.elab.float_dtype, row.span))]
    values += [t.local(env, x) for x, _ in operands[1:]]
    made = env.builder.emit("factor", values, attrs, row.span, f"factor{place}")
    return f"factor {place}", made


def _free_indices(node: Any, env: Env) -> set[str]:
    """Declared indices that an energy mentions without binding them."""
    from .references import free_names

    found = set()
    for name in free_names(node):
        entry = env.scope.find(name)
        if entry is not None and entry[1].kind == "index" and name not in env.bound:
            found.add(name)
    return found


# ---------------------------------------------------------------- decision processes


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
    return t.contract(env, [*weights, tensor], axes, node.span)


def _outcomes(row: s.Draw, env: Env, weights: list[Tensor], axes: list[Axis]) -> Env:
    """Bind the drawn names to their outcomes along a branch axis, with their weights."""
    value = evaluate(row.distribution, env)
    if isinstance(value, Record):
        return _table_outcomes(row, value, env, weights, axes)
    value = _need_distribution(value, row.distribution.span)
    name = row.targets[0].name
    if value.branches:
        axis = Axis(name, len(value.branches), kind="branch")
        weights.append(_stack(env, [w for w, _ in value.branches], axis, value.span, True))
        outcome = _stack(env, [v for _, v in value.branches], axis, value.span, False)
        axes.append(axis)
        return env.bind({name: outcome})
    low, high = value.params.get("@low"), value.params.get("@high")
    kind, form, _ = _parts(value)
    if low is None:
        low, high = (0, 2) if kind == "bernoulli" else (None, None)
    if low is None or high is None:
        fail("E605", f"`{name}` has no finite support", row.span,
             hint=f"limit it: `truncate({kind}(...), 0, n)`")  # fmt: skip
    params = _align_params(env, _tensors(value, env), (), value.span)
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


# ---------------------------------------------------------------- questions


def _query(
    env: Env, span: Span, ask: str, name: str, settings: Sequence[Any],
    extra: Sequence[Tensor], dtype: str, shape: Sequence[DimLike],
) -> Tensor:  # fmt: skip
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
            return _query(env, node.span, ask, name, (), (), "f64", ())
        shape, support = _extent(name, env, node.span)
        dtype = env.elab.float_dtype if over_values else support.dtype
        if over_values and support.size is not None:
            shape = (*shape, support.size)
        return _query(env, node.span, ask, name, settings, (), dtype, shape)

    return run


query_map = _variable_query("map", False, ())
query_marginals = _variable_query("marginals", True, ())
query_meanfield = _variable_query("meanfield", True, ("steps", "damping", "tol"))
query_bp = _variable_query("bp", True, ("steps", "damping", "tol"))
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
    return _query(env, node.span, "loglik", name, (), (), env.elab.float_dtype, ())
