"""Calls: layers, definitions, instances, and the functions that the language itself provides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...compiler.ir.dims import Dim, dim_max, dim_min
from ...compiler.ir.types import Span
from ...compiler.ops import LAYERS
from ...compiler.ops.distributions import DISTRIBUTIONS
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .environment import Env
from .errors import fail
from .expressions import evaluate, evaluate_value, unknown_name, whole
from .values import (
    DefBlock,
    DefValue,
    DelayedBlock,
    OpBlock,
    PipeBlock,
    Tensor,
    TupleValue,
    Unknown,
    describe,
    is_block,
    is_number,
)

NUMERIC: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "tanh": math.tanh, "floor": math.floor, "ceil": math.ceil,
    "round": round, "abs": abs,
}  # fmt: skip


def call(node: s.Call, env: Env) -> Any:
    """The value of ``function(args)``."""
    if isinstance(node.function, s.Name):
        name = node.function.id
        known = name in env.bound or env.scope.find(name) is not None
        known = known or env.scope.find_bound(name) is not None
        if not known:
            return _call_builtin(name, node, env)
    function = evaluate(node.function, env)
    if isinstance(function, str):
        # A string option names a def when it is called: `block(w)`.
        return _call_named(function, node, env)
    if isinstance(function, DefValue):
        return call_def(function, node, env)
    if isinstance(function, OpBlock) and not function.settings:
        return _call_layer(function.layer.name, node, env)
    if is_block(function):
        return _apply(function, node, env)
    fail("E308", "this cannot be called", node.function.span, describe(function))


def _call_named(name: str, node: s.Call, env: Env) -> Any:
    found = env.scope.find(name)
    if found is not None:
        value = found[0].force(found[1], node.span)
        if isinstance(value, DefValue):
            return call_def(value, node, env)
    if name in LAYERS:
        return _call_layer(name, node, env)
    definitions = [x for x in env.scope.visible() if env.scope.find(x)]
    close = nearest(name, definitions)
    hint = f"did you mean `{close}`?" if close else "options that are called name a `def`"
    fail("E308", f'"{name}" is not a definition', node.function.span, hint=hint)


def _call_builtin(name: str, node: s.Call, env: Env) -> Any:
    if name in BUILTINS:
        return BUILTINS[name](node, env)
    if name in LAYERS:
        return _call_layer(name, node, env)
    if name in DISTRIBUTIONS or name in ("choice", "truncate"):
        from .distributions import distribution

        return distribution(name, node, env)
    if name in env.elab.symbols:
        fail("E308", f"the size `{name}` cannot be called", node.span)
    unknown_name(name, env, node.function.span)


def _apply(block: Any, node: s.Call, env: Env) -> Any:
    from .blocks import apply

    operands = [evaluate_value(argument.value, env) for argument in node.args]
    for argument, value in zip(node.args, operands, strict=True):
        if argument.name is not None or is_block(value):
            fail("E405", "an instance is applied to tensors", argument.span,
                 describe(value))  # fmt: skip
    if not operands:
        fail("E407", "an instance is applied to tensors", node.span, "none is given")
    value = operands[0] if len(operands) == 1 else TupleValue(tuple(operands))
    return apply(block, value, env, node.span)


# ---------------------------------------------------------------- layers


def _call_layer(name: str, node: s.Call, env: Env) -> Any:
    """Tensors apply the layer, settings alone make a block, numbers alone compute."""
    from .layers import apply_layer, bind_arguments, complete

    layer = LAYERS[name]
    positional: list[tuple[Any, Span]] = []
    named: dict[str, tuple[Any, Span]] = {}
    kinds = {setting.name: setting.kind for setting in layer.settings}
    for argument in node.args:
        if argument.weight is not None:
            fail("E401", f"`{name}` takes no weighted arguments", argument.span,
                 hint="weights stand in `choice(0.8: a, 0.2: b)`")  # fmt: skip
        if argument.name is None:
            value = _choice(argument.value, layer, env) or evaluate_value(argument.value, env)
            if is_block(value):
                fail("E405", f"`{name}` applies to tensors", argument.span, describe(value),
                     f"blocks are composed: `block >> {name}`")  # fmt: skip
            positional.append((value, argument.span))
            continue
        if argument.name in named:
            fail("E403", f"`{argument.name}` is given twice", argument.span)
        value = _word(argument.value, kinds.get(argument.name, ""), env)
        named[argument.name] = (value, argument.span)
    if name in NUMERIC and len(positional) == 1 and is_number(positional[0][0]) and not named:
        return _numeric(name, positional[0][0], env, node.span)
    operands, settings = _separate(layer, positional)
    if not operands and named and layer.operands[0] > 0:
        inputs = [v for v, _ in named.values() if isinstance(v, (Tensor, Unknown))]
        if inputs:
            fail("E405", f"tensors of `{name}` are given without a name", node.span)
    given, places = bind_arguments(layer, settings, named)
    if given:
        complete(layer, given, env, node.span, places)  # a wrong setting is shown where it stands
    if operands or layer.operands[1] == 0:
        return apply_layer(layer, operands, given, env, node.span)
    return OpBlock(layer, given, node.span)


def _word(node: s.Expr, kind: str, env: Env) -> Any:
    """A setting that names a choice may do so without quotes: ``mode=bilinear``."""
    from .layers import rule_word

    if kind == "rule" and (rule := rule_word(node, env)) is not None:
        return rule
    if kind in ("choice", "dtype", "str") and isinstance(node, s.Name) and _is_free(node, env):
        return node.id
    value = evaluate_value(node, env)
    return list(value.items) if isinstance(value, TupleValue) else value


def _choice(node: s.Expr, layer: Any, env: Env) -> str | None:
    """The word of a choice that stands by position: ``strip_pool(h)``."""
    if not isinstance(node, s.Name) or node.id in LAYERS or not _is_free(node, env):
        return None
    words = {word for setting in layer.settings for word in setting.choices}
    return node.id if node.id in words else None


def _is_free(node: s.Name, env: Env) -> bool:
    """Whether a name stands for nothing here."""
    if node.id in env.bound or env.scope.find(node.id) is not None:
        return False
    return env.scope.find_bound(node.id) is None


def _separate(layer: Any, positional: Sequence[tuple[Any, Span]]) -> tuple[list[Any], list[Any]]:
    """Leading tensors are operands; numbers are operands too where the layer needs several."""
    tensor_like = (Tensor, Unknown, TupleValue)
    fewest, most = layer.operands
    count = 0
    some = any(isinstance(v, tensor_like) for v, _ in positional)
    for place, (value, _) in enumerate(positional):
        if isinstance(value, tensor_like) or (some and place < fewest):
            count = place + 1
        else:
            break
        if most is not None and count >= most and not isinstance(value, TupleValue):
            break
    operands = [value for value, _ in positional[:count]]
    return operands, list(positional[count:])


def _numeric(name: str, value: Any, env: Env, span: Span) -> Any:
    if isinstance(value, Dim):
        from .layers import apply_layer

        tensor = t.constant(env, value, env.elab.float_dtype, span)
        return apply_layer(LAYERS[name], [tensor], {}, env, span)
    try:
        return NUMERIC[name](value)
    except (ValueError, OverflowError):
        fail("E408", f"`{name}` is not defined here", span, f"{name}({value})")


# ---------------------------------------------------------------- definitions


def call_def(function: DefValue, node: s.Call, env: Env) -> Any:
    """A use of a ``def``: its value now, or a block that waits for its input."""
    values: list[tuple[str | None, Any, Span]] = []
    for argument in node.args:
        if argument.weight is not None:
            fail("E401", "a definition takes no weighted arguments", argument.span)
        values.append((argument.name, evaluate(argument.value, env), argument.span))
    return expand(function, values, env, node.span)


def expand(
    function: DefValue, values: Sequence[tuple[str | None, Any, Span]], env: Env, span: Span
) -> Any:
    """The body of a ``def`` with its parameters bound."""
    from .blocks import run_body, used_at
    from .references import mentions_input

    statement = function.statement
    bound = _bind_parameters(function, values, env, span)
    defined = replace(
        function.scope.env, bound={**function.scope.bound, **bound}, builder=env.builder,
        path=env.path, depth=env.depth + 1, input=None, guard=env.guard, latent=env.latent,
    )  # fmt: skip
    env.elab.step(span, env.depth + 1)
    body = statement.body
    if mentions_input(body):
        return DefBlock(statement.name, DelayedBlock(body, defined, span), span)
    with used_at(env, statement.name, span):
        if isinstance(body, s.Block):
            inner = replace(env, depth=env.depth + 1)
            value = run_body(body, defined.bound, None, defined, inner)  # type: ignore[arg-type]
        else:
            value = evaluate(body, defined)
    return DefBlock(statement.name, value, span) if is_block(value) else value


def _bind_parameters(
    function: DefValue, values: Sequence[tuple[str | None, Any, Span]], env: Env, span: Span
) -> dict[str, Any]:
    statement = function.statement
    names = [p.name for p in statement.params]
    usage = f"it reads {statement.name}({', '.join(names)})"
    bound: dict[str, Any] = {}
    positional = [(v, place) for name, v, place in values if name is None]
    if len(positional) > len(names):
        fail("E403", f"too many arguments for `{statement.name}`", positional[len(names)][1],
             f"it takes {len(names)}", usage, [(statement.span, "defined here")])  # fmt: skip
    for name, (value, _) in zip(names, positional, strict=False):
        bound[name] = value
    for name, value, place in values:
        if name is None:
            continue
        if name not in names:
            close = nearest(name, names)
            fail("E401", f"`{statement.name}` has no parameter `{name}`", place,
                 hint=f"did you mean `{close}`?" if close else usage)  # fmt: skip
        if name in bound:
            fail("E403", f"`{name}` is given twice", place)
        bound[name] = value
    for parameter in statement.params:
        if parameter.name in bound:
            continue
        if parameter.default is None:
            fail("E402", f"`{statement.name}` needs `{parameter.name}`", span, hint=usage,
                 labels=[(statement.span, "defined here")])  # fmt: skip
        known = {**function.scope.bound, **bound}
        outer = replace(function.scope.env, bound=known, depth=env.depth + 1)
        bound[parameter.name] = evaluate(parameter.default, outer)
    return bound


def member(node: s.Member, env: Env) -> Any:
    """``v.name``: a definition of another spec."""
    from .values import SpecBlock

    base = evaluate(node.base, env)
    if not isinstance(base, SpecBlock):
        hint = f"layers are applied with `>>`: `x >> {node.name}`" if node.name in LAYERS else None
        fail("E308", "`.` reaches into a spec named under `use:`", node.span, describe(base), hint)
    found = base.scope.entries.get(node.name)
    if found is None or found.kind != "def":
        definitions = [e.name for e in base.scope.entries.values() if e.kind == "def"]
        close = nearest(node.name, definitions)
        hint = f"did you mean `{close}`?" if close else f"it defines {', '.join(definitions)}"
        fail("E301", f"`{base.alias}` has no definition `{node.name}`", node.span, hint=hint)
    return base.scope.force(found, node.span)


# ---------------------------------------------------------------- functions of the language


def _one(node: s.Call, env: Env, name: str) -> Any:
    if len(node.args) != 1 or node.args[0].name is not None:
        fail("E407", f"`{name}` takes one argument", node.span)
    return evaluate_value(node.args[0].value, env)


def _chain(node: s.Call, env: Env) -> Any:
    value = _one(node, env, "chain")
    items = value.items if isinstance(value, TupleValue) else value
    if not isinstance(items, (list, tuple)) or not all(is_block(x) for x in items):
        fail("E406", "`chain` takes a list of blocks", node.span, describe(value))
    return PipeBlock(tuple(items), node.span)


def _channels(node: s.Call, env: Env) -> Any:
    value = _one(node, env, "channels")
    if isinstance(value, Unknown):
        return value
    if not isinstance(value, Tensor):
        fail("E405", "`channels` looks at a tensor", node.span, describe(value))
    sizes = list(value.rest)
    if not sizes:
        fail("E101", "a number has no channels", node.span, str(value.type))
    return sizes[1] if len(sizes) > 1 else sizes[0]


def _size(node: s.Call, env: Env) -> Any:
    """``size(x)``: spatial sizes; ``size(x, axis)``: one of them."""
    if not 1 <= len(node.args) <= 2:
        fail("E407", "`size` takes a tensor and an axis", node.span)
    value = evaluate_value(node.args[0].value, env)
    if not isinstance(value, Tensor):
        fail("E405", "`size` looks at a tensor", node.span, describe(value))
    if len(node.args) == 1:
        return list(value.rest[2:]) if len(value.rest) > 2 else list(value.rest)
    axis = whole(evaluate(node.args[1].value, env), node.args[1].span, "an axis")
    if not isinstance(axis, int) or not -len(value.rest) <= axis < len(value.rest):
        fail("E107", f"the tensor has {len(value.rest)} axes", node.args[1].span, f"axis {axis}")
    return value.rest[axis]


def _extremum(name: str) -> Callable[[s.Call, Env], Any]:
    def run(node: s.Call, env: Env) -> Any:
        """``max(a, b)`` compares; ``max(x, axis=...)`` reduces."""
        plain = [a for a in node.args if a.name is None]
        if len(plain) < 2 or len(plain) != len(node.args):
            return _call_layer(name, node, env)
        values = [evaluate_value(a.value, env) for a in plain]
        result = values[0]
        for value in values[1:]:
            result = _pair(name, result, value, env, node.span)
        return result

    return run


def _pair(name: str, a: Any, b: Any, env: Env, span: Span) -> Any:
    if is_number(a) and is_number(b):
        if isinstance(a, Dim) or isinstance(b, Dim):
            return dim_max(a, b) if name == "max" else dim_min(a, b)
        return max(a, b) if name == "max" else min(a, b)
    return t.elementwise(env, "maximum" if name == "max" else "minimum", [a, b], span)


def _clamp(node: s.Call, env: Env) -> Any:
    """``clamp(x, low, high)``; a position is clamped to its grid."""
    if not node.args:
        fail("E407", "`clamp` takes a value and its limits", node.span)
    value = evaluate_value(node.args[0].value, env)
    if isinstance(value, Tensor) and value.grid is not None and len(node.args) == 1:
        top = t.constant(env, [size - 1 for size in value.grid], value.dtype, node.span)
        low = t.elementwise(env, "maximum", [value, 0], node.span)
        return t.elementwise(env, "minimum", [low, top], node.span)
    limits = [evaluate_value(a.value, env) for a in node.args[1:]]
    if (len(limits) == 2 and isinstance(value, (Tensor, Unknown))) or len(limits) == 2:
        low = _pair("max", value, limits[0], env, node.span)
        return _pair("min", low, limits[1], env, node.span)
    fail("E402", "`clamp` needs its limits", node.span, hint="clamp(x, low, high)")


def _grad(node: s.Call, env: Env) -> Any:
    """``grad(scalar, x)``: the derivative, shaped like ``x``."""
    if len(node.args) != 2:
        fail("E407", "`grad` takes a scalar and what to differentiate by", node.span)
    scalar = evaluate_value(node.args[0].value, env)
    x = evaluate_value(node.args[1].value, env)
    if not isinstance(scalar, Tensor) or not isinstance(x, Tensor):
        fail("E405", "`grad` takes tensors", node.span, f"{describe(scalar)}, {describe(x)}")
    if scalar.type.rank:
        fail("E101", "`grad` differentiates a single number", node.args[0].span,
             str(scalar.type), "sum it: `grad(sum(y), x)`")  # fmt: skip
    return t.emit(env, "grad", [scalar, x], node.span, x.labels)


def _neighbours(node: s.Call, env: Env) -> Any:
    """``neighbours(grid)``: pairs of positions side by side, each pair once."""
    from .domains import domain_of

    if len(node.args) != 1:
        fail("E407", "`neighbours` takes a grid", node.span)
    domain = domain_of(node.args[0].value, env)
    if domain.grid is None or len(domain.grid) != 2:
        fail("E502", "`neighbours` needs a grid of two extents", node.span)
    rows, columns = domain.grid
    made = env.builder.emit("grid_edges", (), {"rows": rows, "columns": columns}, node.span)
    return Tensor(made, env.builder)


def _lists(node: s.Call, env: Env) -> Any:
    """``len(list)``: how many items."""
    value = _one(node, env, "len")
    items = value.items if isinstance(value, TupleValue) else value
    if not isinstance(items, (list, tuple)):
        fail("E404", "`len` counts the items of a list", node.span, describe(value))
    return len(items)


def _random(name: str) -> Callable[[s.Call, Env], Any]:
    def run(node: s.Call, env: Env) -> Any:
        from . import distributions, queries

        home = queries if name.startswith("query_") else distributions
        return getattr(home, name)(node, env)

    return run


BUILTINS: dict[str, Callable[[s.Call, Env], Any]] = {
    "chain": _chain,
    "channels": _channels,
    "size": _size,
    "max": _extremum("max"),
    "min": _extremum("min"),
    "clamp": _clamp,
    "grad": _grad,
    "neighbours": _neighbours,
    "len": _lists,
    "sample": _random("sample"),
    "kl": _random("kl"),
    "entropy": _random("entropy"),
    "logp": _random("logp"),
    "map": _random("query_map"),
    "marginals": _random("query_marginals"),
    "loglik": _random("query_loglik"),
    "meanfield": _random("query_meanfield"),
    "bp": _random("query_bp"),
    "gibbs": _random("query_gibbs"),
}
