"""The page of tables behind the language reference: layers, distributions, initialisers, messages.

It is made from the tables that the elaborator itself uses, so it cannot say anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..compiler.ops import LAYERS, OPS, Layer
from ..compiler.ops.base import REQUIRED, Setting
from ..compiler.ops.distributions import DISTRIBUTIONS, Distribution, Parameter
from ..compiler.ops.initialise import RULES
from .calls import Family, signature
from .diagnostics import CODES
from .elaborate.calls import BUILTINS
from .envelope import KEYS
from .kinds import Key
from .section_calls import AUGMENTATIONS, CLIPS, EXPLORATION, OPTIMIZERS, SCHEDULES
from .sections import (
    CHECKPOINT_KEYS,
    EARLY_STOP_KEYS,
    LEARN_KEYS,
    OBJECTIVE_KEYS,
    SOLVE_KEYS,
    TRAIN_KEYS,
    VALIDATION_KEYS,
)
from .sections_data import DATA_KEYS

FAMILIES = {
    "conv": "Convolutions and linear layers",
    "pool": "Pooling",
    "norm": "Normalisation",
    "activations": "Activations",
    "dropout": "Dropout",
    "gather": "Lookup",
    "resize": "Resampling",
    "movement": "Shapes",
    "shaping": "Shapes",
    "elementwise": "Element by element",
    "numpy": "Element by element",
    "special": "Element by element",
    "random": "Random numbers",
    "reduce": "Reductions",
    "sort": "Order",
    "linalg": "Linear algebra",
    "contract": "Linear algebra",
    "distributions": "Densities",
    "losses": "Losses",
    "metrics": "Metrics",
    "mining_losses": "Losses",
}
"""Headings by the module of the op table that a layer's op or recipe comes from."""

CODE_FAMILIES = {
    "E0": "The YAML around the model",
    "E1": "Shapes and types",
    "E2": "Syntax",
    "E3": "Names and scopes",
    "E4": "Calls and settings",
    "E5": "Indices and recurrences",
    "E6": "Probabilistic and decision models",
    "E7": "Limits",
    "E8": "Weights, inputs and running",
    "E9": "Expectations",
}
_INTRODUCTION = """\
# Ops, distributions, initialisers, messages

These tables are made from the ones that the compiler itself reads (`spec/reference.py`); the rules
of the language are in [language.md](language.md).

A layer is called with its settings, by position or by name. A setting with `=` has that default;
`auto` means that it is worked out from the input, and `a|b` that it is one of these words, the
first by default. *On* counts the tensors it takes;
a dagger (†) marks layers with weights. *In equations* says what the layer does where an equation
over indices uses it: `each element` broadcasts, `each` is applied once per index value, and `-`
cannot stand there."""


def ops_page() -> str:
    """The text of ``docs/ops.md``."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterable[str]:
    yield _INTRODUCTION
    yield from _layers()
    yield from _functions()
    yield from _distributions()
    yield from _initialisers()
    yield from _keys()
    yield from _section_calls()
    yield from _codes()


# ---------------------------------------------------------------- layers


def _layers() -> Iterable[str]:
    groups: dict[str, list[Layer]] = {heading: [] for heading in FAMILIES.values()}
    for layer in LAYERS.values():
        groups[FAMILIES[_module(layer)]].append(layer)
    yield "\n## Layers"
    for heading, layers in groups.items():
        if layers:
            yield f"\n### {heading}\n"
            rows = [_layer_row(layer) for layer in layers]
            yield from table(("layer", "on", "in equations", "what it does"), rows)


def _module(layer: Layer) -> str:
    """The module that defines a layer; for a plain op's layer, that of its op's shape rule."""
    own = layer.build.__module__.rsplit(".", 1)[-1]
    if own != "base":
        return own
    cells = getattr(layer.build, "__closure__", None) or ()
    ops = [cell.cell_contents for cell in cells if hasattr(cell.cell_contents, "reference")]
    op = ops[0] if ops else OPS[layer.name]
    return (op.reference or op.shape).__module__.rsplit(".", 1)[-1]


def _layer_row(layer: Layer) -> Sequence[str]:
    settings = ", ".join(_setting(setting) for setting in layer.settings)
    mark = " †" if layer.has_weights else ""
    return f"`{layer.name}({settings})`{mark}", _operands(layer), _mapping(layer), layer.doc


def _setting(setting: Setting) -> str:
    choices = "|".join(setting.choices)
    if setting.default is REQUIRED:
        return f"{setting.name}: {choices}" if choices else setting.name
    default = choices if choices and setting.default == setting.choices[0] else None
    return f"{setting.name}={default or _default(setting.default)}"


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "auto", True: "true", False: "false"}[value]
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        inner = ", ".join(f"{x:g}" for x in value[1:])
        return f"{value[0]}({inner})" if inner else value[0]
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _operands(layer: Layer) -> str:
    fewest, most = layer.operands
    if most is None:
        return f"{fewest} or more"
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _mapping(layer: Layer) -> str:
    return {"elementwise": "each element", "none": "-"}.get(layer.batching, "each")


# ---------------------------------------------------------------- what is no layer

_FUNCTIONS = {
    "chain": "`chain([f, g, h])`: blocks in a row",
    "channels": "`channels(x)`: the size of axis 1, or of axis 0 where there is no other",
    "size": "`size(x, axis)`: one size; `size(x)`: the spatial sizes, from axis 2 on",
    "len": "`len(list)`: how many items",
    "max": "`max(a, b, ...)`: the larger of several, element by element; `max(x)` reduces",
    "min": "`min(a, b, ...)`: the smaller of several, element by element; `min(x)` reduces",
    "clamp": "`clamp(x, low, high)`; `clamp(position)` to the position's grid",
    "grad": "`grad(scalar, x)`: the derivative, shaped like `x`",
    "neighbours": "`neighbours(grid)`: pairs of positions side by side, each pair once",
    "sample": "`sample(d)`, `sample(d, shape)`: a draw that gradients can pass; not a variable",
    "kl": "`kl(p, q)`: divergence in closed form, summed over all but the batch",
    "entropy": "`entropy(d)`: in closed form, element by element",
    "logp": "`logp(d, x)`: log density, summed over all but the batch; `logp(y = value)`: "
    "a question to the model",
    "map": "`map(z)`: the most probable values of `z`",
    "marginals": "`marginals(z)`: the posterior of each `z`",
    "loglik": "`loglik()`: the log-likelihood of what is observed",
    "meanfield": "`meanfield(z, steps, damping, filter)`: approximate marginals",
    "bp": "`bp(z, steps, damping, tol, semiring)`: loopy belief propagation",
    "gibbs": "`gibbs(z, steps, burn, thin)`: marginals from Gibbs samples",
}


def _functions() -> Iterable[str]:
    yield "\n## Functions of the language\n"
    yield from table(("name", "what it gives"), [(f"`{n}`", _FUNCTIONS[n]) for n in BUILTINS])


def _distributions() -> Iterable[str]:
    yield "\n## Distributions\n"
    yield "`choice(0.8: a, 0.2: b)` and `truncate(d, first, end)` stand in the language's page.\n"
    rows = [_distribution_row(row) for row in DISTRIBUTIONS.values()]
    yield from table(("distribution", "parameters", "values", "smooth samples"), rows)


def _distribution_row(row: Distribution) -> Sequence[str]:
    calls = [_signature(row.name, row.params)]
    calls += [
        f"{row.name}({', '.join(f'{p.name}=..' for p in form.params)})"
        for form in row.forms.values()
    ]
    given = [p for params in (row.params, *(f.params for f in row.forms.values())) for p in params]
    domains = ", ".join(f"{p.name} {p.domain}{'[..]' * bool(p.rank)}" for p in given)
    shown = " or ".join(f"`{call}`" for call in calls)
    return shown, domains, row.support, "yes" if row.smooth else "no"


def _signature(name: str, params: Sequence[Parameter]) -> str:
    parts = [p.name if p.default is None else f"{p.name}={p.default:g}" for p in params]
    return f"{name}({', '.join(parts)})"


def _initialisers() -> Iterable[str]:
    yield "\n## Initialisers\n"
    yield from table(
        ("name", "what it fills with"), [(f"`{name}`", rule.doc) for name, rule in RULES.items()]
    )


# ---------------------------------------------------------------- sections and messages

SECTIONS: Mapping[str, Sequence[Key]] = {
    "The file": KEYS,
    "train": TRAIN_KEYS,
    "An item of train.objectives": OBJECTIVE_KEYS,
    "train.validate": VALIDATION_KEYS,
    "train.early_stop": EARLY_STOP_KEYS,
    "train.checkpoint": CHECKPOINT_KEYS,
    "solve": SOLVE_KEYS,
    "learn": LEARN_KEYS,
    "An entry of data": DATA_KEYS,
}


def _keys() -> Iterable[str]:
    yield "\n## Keys of a spec file"
    for heading, keys in SECTIONS.items():
        yield f"\n### {heading}\n"
        rows = [(f"`{k.name}`", k.help + "; required" * k.required, k.kind.expected) for k in keys]
        yield from table(("key", "holds", "written as"), rows)


def _section_calls() -> Iterable[str]:
    families: Mapping[str, Family] = {
        "Optimisers": OPTIMIZERS,
        "Schedules": SCHEDULES,
        "Clipping": CLIPS,
        "Exploration": EXPLORATION,
        "Augmentation": AUGMENTATIONS,
    }
    yield "\n## Calls in the YAML sections"
    for heading, family in families.items():
        yield f"\n### {heading}\n"
        rows = [(f"`{signature(rule)}`", rule.help) for rule in family.rules]
        yield from table(("call", "what it is"), rows)


def _codes() -> Iterable[str]:
    yield "\n## Messages"
    for prefix, heading in CODE_FAMILIES.items():
        yield f"\n### {prefix}xx: {heading}\n"
        rows = [(f"`{c}`", text) for c, text in sorted(CODES.items()) if c.startswith(prefix)]
        yield from table(("code", "meaning"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """A Markdown table; bars inside cells are escaped."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
