"""Applying a layer: its settings are checked, its operands brought to the form it wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...compiler.ir.dims import Dim
from ...compiler.ir.types import DTYPES, FLOATS, INTEGERS, Span
from ...compiler.ops import OpError
from ...compiler.ops.base import REQUIRED, Layer, Setting
from ...compiler.ops.distributions import DISTRIBUTIONS
from .. import syntax as s
from ..diagnostics import nearest
from . import tensors as t
from .builder import LayerBuilder, raise_located
from .environment import Env
from .errors import fail
from .expressions import evaluate, value_of, whole
from .values import (
    DistributionValue,
    Tensor,
    TupleValue,
    Unknown,
    describe,
    is_number,
)

REDUCING = ("sum", "mean", "max", "min", "prod", "lse", "norm", "var", "std", "any", "all",
            "argmax", "argmin")  # fmt: skip
OF_REALS = ("sigmoid", "tanh", "softplus", "erf", "exp", "expm1", "log", "log1p", "logit", "sqrt",
            "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "lgamma",
            "digamma", "gauss", "softmax", "log_softmax")  # fmt: skip
"""Functions of real numbers: a whole number in a formula is cast, as under `/`."""


def apply_layer(
    layer: Layer, operands: Sequence[Any], given: dict[str, Any], env: Env, span: Span
) -> Any:
    """The layer's result on tensors; missing settings come from the spec, then the layer."""
    settings = complete(layer, given, env, span)
    flat = _flatten(operands, env, span)
    fewest, most = layer.operands
    if len(flat) < fewest or (most is not None and len(flat) > most):
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        wanted = f"{fewest} or more" if most is None else wanted
        noun = "tensor" if wanted == "1" else "tensors"
        hint = "side by side: `(f | f)`; joined: `concat`" if most == 1 and flat else None
        fail("E407", f"`{layer.name}` applies to {wanted} {noun}", span, f"found {len(flat)}",
             hint)  # fmt: skip
    if any(isinstance(x, Unknown) for x in flat):
        return _guess(layer, flat, env, span)
    tensors = _as_tensors(flat, env, span)
    if layer.name in OF_REALS:
        whole_numbers = all(x.dtype in INTEGERS for x in tensors)
        dtype = env.elab.float_dtype
        tensors = [t.cast(env, x, dtype, span) for x in tensors] if whole_numbers else tensors
    if any(x.labels for x in tensors):
        return _apply_labelled(layer, tensors, settings, given, env, span)
    if layer.name in ("concat",) and len({x.dtype for x in tensors}) > 1:
        tensors = t.promote(env, tensors, span)
    if layer.batching == "elementwise" and len(tensors) > 1:
        tensors = t.align(env, _promoted(tensors, env, span), span)[0]
    if "axis" not in given and settings.get("axis") == 1 and all(len(x.rest) == 1 for x in tensors):
        settings = {**settings, "axis": 0}  # the channels of a vector
    return _wrap(_build(layer, tensors, settings, env, span), (), env)


def _promoted(tensors: list[Tensor], env: Env, span: Span) -> list[Tensor]:
    floats = [x for x in tensors if x.dtype in FLOATS]
    if len({x.dtype for x in floats}) <= 1:
        return tensors
    widest = t.promote(env, floats, span)[0].dtype
    return [t.cast(env, x, widest, span) if x.dtype in FLOATS else x for x in tensors]


def _flatten(operands: Sequence[Any], env: Env, span: Span) -> list[Any]:
    flat: list[Any] = []
    for value in operands:
        value = value_of(value, env, span)
        if isinstance(value, TupleValue):
            flat += _flatten(value.items, env, span)
        else:
            flat.append(value)
    return flat


def _as_tensors(flat: Sequence[Any], env: Env, span: Span) -> list[Tensor]:
    like = next((x.dtype for x in flat if isinstance(x, Tensor) and x.dtype in FLOATS), None)
    for value in flat:
        if not isinstance(value, (Tensor, bool, int, float, Dim, list, tuple)):
            fail("E405", "a tensor is needed here", span, describe(value))
    return [t.as_tensor(env, x, span, like) for x in flat]


def _build(
    layer: Layer, tensors: Sequence[Tensor], settings: Mapping[str, Any], env: Env, span: Span
) -> Any:
    dtype = next((x.dtype for x in tensors if x.dtype in FLOATS), env.elab.float_dtype)
    builder = LayerBuilder(env.builder, env.path, span, dtype)
    try:
        return layer.build(builder, [t.local(env, x) for x in tensors], **settings)
    except OpError as fault:
        raise_located(fault, span)


def _wrap(result: Any, labels: Sequence[Any], env: Env) -> Any:
    if isinstance(result, tuple):
        return TupleValue(tuple(Tensor(value, env.builder, tuple(labels)) for value in result))
    return Tensor(result, env.builder, tuple(labels))


def _guess(layer: Layer, flat: Sequence[Any], env: Env, span: Span) -> Any:
    known = [x for x in flat if isinstance(x, Tensor)]
    if layer.batching == "elementwise" and known:
        return known[0] if len(known) == 1 else t.elementwise(env, "add", known, span)
    return Unknown()


# ---------------------------------------------------------------- inside equations


def _apply_labelled(layer: Layer, tensors: Sequence[Tensor], settings: dict[str, Any],
                    given: Mapping[str, Any], env: Env, span: Span) -> Any:  # fmt: skip
    """A layer applied to each element of an equation over indices."""
    if layer.batching == "elementwise":
        aligned, labels = t.align(env, _promoted(list(tensors), env, span), span)
        result = _wrap(_build(layer, aligned, settings, env, span), labels, env)
        grid = next((x.grid for x in tensors if x.grid is not None), None)
        if grid is not None and isinstance(result, Tensor) and layer.name in ("clamp", "stop"):
            return Tensor(result.value, result.home, result.labels, grid)
        return result
    if layer.batching == "none":
        fail("E501", f"`{layer.name}` cannot be used inside an equation over an index", span,
             hint="apply it in an equation of its own")  # fmt: skip
    tensors = [t.lift_batch(env, x) for x in tensors]
    labels = t.union(tensors)
    if layer.batching == "last":
        if len(tensors) > 1:
            tensors = [t.arrange(env, x, labels, span, expand=True) for x in tensors]
        return _wrap(_build(layer, tensors, settings, env, span), labels, env)
    tensors = [t.arrange(env, x, labels, span, expand=True) for x in tensors]
    merged = [t.merge_labels(env, x, span) for x in tensors]
    rank = max(len(x.rest) for x in tensors)
    shifted = _shift_axis(layer, settings, given, rank)
    result = _build(layer, merged, shifted, env, span)
    values = result if isinstance(result, tuple) else (result,)
    split = []
    for value in values:
        rest = env.builder.type_of(value).shape[1:]
        whole_shape = (*(axis.size for axis in labels), *rest)
        tensor = Tensor(value, env.builder)
        if len(labels) != 1:
            tensor = t.emit(env, "reshape", [tensor], span, (), shape=whole_shape)
        split.append(Tensor(tensor.value, tensor.home, labels))
    return TupleValue(tuple(split)) if isinstance(result, tuple) else split[0]


def _shift_axis(
    layer: Layer, settings: dict[str, Any], given: Mapping[str, Any], rank: int
) -> dict[str, Any]:
    """Axes count from the element's first; the merged labels stand before it."""
    if "axis" not in settings:
        return settings
    axis = settings["axis"]
    if axis is None and layer.name in REDUCING:
        return {**settings, "axis": tuple(range(1, rank + 1))}
    if "axis" in given and isinstance(axis, int) and axis >= 0:
        return {**settings, "axis": axis + 1}
    return settings


# ---------------------------------------------------------------- settings


def complete(layer: Layer, given: Mapping[str, Any], env: Env, span: Span,
             places: Mapping[str, Span] | None = None) -> dict[str, Any]:  # fmt: skip
    """All settings: as given (at ``places``), else the spec's defaults, else the layer's."""
    defaults = env.scope.defaults_of(layer.name)
    settings: dict[str, Any] = {}
    for setting in layer.settings:
        if setting.name in given:
            value = given[setting.name]
        elif setting.name in defaults:
            value = defaults[setting.name]
        elif setting.default is REQUIRED:
            fail("E402", f"`{layer.name}` needs the setting `{setting.name}`", span,
                 hint=usage(layer))  # fmt: skip
        else:
            settings[setting.name] = setting.default
            continue
        place = (places or {}).get(setting.name, span)
        settings[setting.name] = convert(layer, setting, value, env, place)
    return settings


def usage(layer: Layer) -> str:
    """How a layer is called: ``conv(channels, kernel, stride=1, ...)``."""
    parts = []
    for setting in layer.settings:
        if setting.default is REQUIRED:
            parts.append(setting.name)
        else:
            parts.append(f"{setting.name}={_default_text(setting.default)}")
    return f"it reads {layer.name}({', '.join(parts)})"


def _default_text(value: Any) -> str:
    """A default as one writes it; a rule such as ``("normal", 0, 1)`` reads ``normal(0, 1)``."""
    if value is None or isinstance(value, bool):
        return "auto" if value is None else str(value).lower()
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        inner = ", ".join(str(x) for x in value[1:])
        return f"{value[0]}({inner})" if inner else value[0]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def bind_arguments(
    layer: Layer, positional: Sequence[tuple[Any, Span]], named: Mapping[str, tuple[Any, Span]],
) -> tuple[dict[str, Any], dict[str, Span]]:  # fmt: skip
    """Match arguments to settings, with their places; E401 unknown, E403 too many."""
    names = [setting.name for setting in layer.settings]
    if len(positional) > len(names):
        place = positional[len(names)][1]
        fail("E403", f"too many arguments for `{layer.name}`", place,
             f"it takes {len(names)}", usage(layer))  # fmt: skip
    given = {name: value for name, (value, _) in zip(names, positional, strict=False)}
    places = {name: place for name, (_, place) in zip(names, positional, strict=False)}
    for name, (value, place) in named.items():
        if name not in names:
            close = nearest(name, names)
            hint = f"did you mean `{close}`?" if close else usage(layer)
            fail("E401", f"`{layer.name}` has no setting `{name}`", place, hint=hint)
        if name in given:
            fail("E403", f"`{name}` is given twice", place)
        given[name], places[name] = value, place
    return given, places


def convert(layer: Layer, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    """A setting's value in the form that its kind promises; E404 or E105 otherwise."""
    what = f"`{setting.name}` of `{layer.name}`"
    if value is None and setting.default is None:
        return None
    if isinstance(value, TupleValue):
        value = list(value.items)
    return _CONVERT[setting.kind](what, setting, value, env, span)


def _wrong(what: str, wanted: str, value: Any, span: Span) -> Any:
    fail("E404", f"{what} must be {wanted}", span, describe(value))


def _to_int(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if not is_number(value):
        _wrong(what, "a whole number", value, span)
    return whole(value, span, what)


def _to_ints(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_to_ints(what, setting, item, env, span) for item in value)
    return _to_int(what, setting, value, env, span)


def _to_float(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if not is_number(value) or isinstance(value, Dim):
        return _wrong(what, "a number", value, span)
    return float(value)


def _to_number(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if not is_number(value) or isinstance(value, Dim):
        _wrong(what, "a number", value, span)
    return value


def _to_numbers(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_to_number(what, setting, item, env, span) for item in items)


def _to_bool(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if not isinstance(value, bool):
        _wrong(what, "true or false", value, span)
    return value


def _to_str(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if not isinstance(value, str):
        _wrong(what, "a text", value, span)
    return value


def _to_choice(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    choices = DTYPES if setting.kind == "dtype" else setting.choices
    if value not in choices:
        close = nearest(value, choices) if isinstance(value, str) else None
        hint = f"did you mean `{close}`?" if close else None
        listed = ", ".join(choices)
        fail("E404", f"{what} must be one of {listed}", span,
             value if isinstance(value, str) else describe(value), hint)  # fmt: skip
    return value


def _to_shape(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    if not isinstance(value, (list, tuple)):
        _wrong(what, "a list of sizes", value, span)
    return tuple(_to_int(what, setting, item, env, span) for item in value)


def _to_rule(what: str, setting: Setting, value: Any, env: Env, span: Span) -> Any:
    return rule_of(what, value, env, span)


def rule_word(node: s.Expr, env: Env) -> tuple[Any, ...] | None:
    """An initialiser by its name, ``he`` or ``orthogonal(2)``; ``None`` for anything else.

    Names of the spec come first, and calls of distributions are left to them.
    """
    from ...compiler.ops.initialise import RULES

    name = node.function if isinstance(node, s.Call) else node
    if not isinstance(name, s.Name) or name.id in env.bound or env.scope.find(name.id):
        return None
    if env.scope.find_bound(name.id) is not None:
        return None
    if not isinstance(node, s.Call):
        return (name.id,)
    if name.id not in RULES or name.id in DISTRIBUTIONS:
        return None
    numbers = []
    for argument in node.args:
        value = evaluate(argument.value, env)
        if argument.name is not None or not is_number(value):
            fail("E404", f"`{name.id}` takes numbers", argument.span, describe(value))
        numbers.append(float(value))
    return (name.id, *numbers)


def rule_of(what: str, value: Any, env: Env, span: Span) -> tuple[Any, ...]:
    """An initialiser: ``he``, ``normal(0, 0.01)``, a number, or a rule already made."""
    from ...compiler.ops.initialise import check_rule

    if isinstance(value, str):
        rule: tuple[Any, ...] = (value,)
    elif isinstance(value, DistributionValue):
        rule = (value.name, *(float(x) for x in value.params.values() if is_number(x)))
    elif isinstance(value, tuple):
        rule = value
    elif is_number(value):
        rule = ("constant", float(value))
    else:
        _wrong(what, "an initialiser such as `he` or `normal(0, 0.01)`", value, span)
    try:
        check_rule(rule)
    except OpError as fault:
        raise_located(fault, span)
    return rule


_CONVERT: dict[str, Callable[..., Any]] = {
    "int": _to_int,
    "ints": _to_ints,
    "float": _to_float,
    "number": _to_number,
    "numbers": _to_numbers,
    "bool": _to_bool,
    "str": _to_str,
    "choice": _to_choice,
    "dtype": _to_choice,
    "shape": _to_shape,
    "rule": _to_rule,
}
