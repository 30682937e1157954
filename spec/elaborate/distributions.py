"""Distributions as values: ``normal(mu, sd)``, and what is called on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...compiler.ir.dims import Dim, DimLike
from ...compiler.ir.types import FLOATS, Span
from ...compiler.ops.distributions import DISTRIBUTIONS
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .environment import Env
from .errors import fail
from .expressions import evaluate, evaluate_value, whole
from .values import (
    DistributionValue,
    RandomVariable,
    Tensor,
    TupleValue,
    describe,
    is_number,
)

if TYPE_CHECKING:
    pass


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


def parts_of(value: DistributionValue) -> tuple[str, str, list[Any]]:
    """Name, form and parameters of a distribution, in order."""
    name, _, form = value.name.partition(":")
    return name, form, [v for key, v in value.params.items() if not key.startswith("@")]


def need_distribution(value: Any, span: Span) -> DistributionValue:
    """The value itself; E601 when it is not a distribution."""
    if not isinstance(value, DistributionValue):
        hint = "such as `normal(mu, sd)`, `categorical(p)` or `labels(n)`"
        fail("E601", "a distribution is needed here", span, describe(value), hint)
    return value


def parameter_tensors(value: DistributionValue, env: Env) -> list[Tensor]:
    """The parameters as tensors of one float type."""
    name, form, params = parts_of(value)
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
    value = need_distribution(evaluate(node.args[0].value, env), node.args[0].span)
    params = parameter_tensors(value, env)
    name, form, _ = parts_of(value)
    rows = DISTRIBUTIONS[name].params_of(form)
    params = align_parameters(env, params, node.span)
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


def align_parameters(env: Env, params: list[Tensor], span: Span) -> list[Tensor]:
    """Parameters with the same labels, missing ones broadcast."""
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
    p, q = (need_distribution(evaluate(a.value, env), a.span) for a in node.args)
    operands = parameter_tensors(p, env) + parameter_tensors(q, env)
    operands = t.promote(env, operands, node.span)
    operands = align_parameters(env, operands, node.span)
    (p_name, p_form, _), (q_name, q_form, _) = parts_of(p), parts_of(q)
    attrs = {"p": p_name, "q": q_name, "p_form": p_form, "q_form": q_form}
    made = t.emit(env, "kl", operands, node.span, **attrs)
    return _per_sample(env, made, node.span)


def entropy(node: s.Call, env: Env) -> Any:
    """``entropy(d)`` in closed form."""
    if len(node.args) != 1:
        fail("E407", "`entropy` takes a distribution", node.span)
    value = need_distribution(evaluate(node.args[0].value, env), node.args[0].span)
    operands = align_parameters(env, parameter_tensors(value, env), node.span)
    name, form, _ = parts_of(value)
    return t.emit(env, "entropy", operands, node.span, dist=name, form=form)


def logp(node: s.Call, env: Env) -> Any:
    """``logp(d, x)``: log density, summed over all but the batch; ``logp(y = label)``: a query."""
    if len(node.args) == 1 and node.args[0].name is not None:
        observed = evaluate_value(node.args[0].value, env)
        if not isinstance(observed, Tensor):
            fail("E405", "`logp(y = value)` needs a tensor", node.span, describe(observed))
        from .queries import query

        return query(env, node.span, "logp", node.args[0].name, (), [observed],
                      env.elab.float_dtype, ())  # fmt: skip
    if len(node.args) != 2:
        fail("E407", "`logp` takes a distribution and a value", node.span,
             hint="logp(normal(mu, sd), x), or logp(y = label)")  # fmt: skip
    value = need_distribution(evaluate(node.args[0].value, env), node.args[0].span)
    params = parameter_tensors(value, env)
    point = t.as_tensor(env, evaluate_value(node.args[1].value, env), node.args[1].span,
                        params[0].dtype if params else None)  # fmt: skip
    operands = [point, *params]
    if point.dtype in FLOATS and any(x.dtype != point.dtype for x in params):
        wide = t.promote(env, [x for x in operands if x.dtype in FLOATS], node.span)[0].dtype
        operands = [t.cast(env, x, wide, node.span) if x.dtype in FLOATS else x for x in operands]
    operands = align_parameters(env, operands, node.span)
    name, form, _ = parts_of(value)
    made = t.emit(env, "log_prob", operands, node.span, dist=name, form=form)
    return _per_sample(env, made, node.span)
