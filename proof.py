"""What `tilth check` proves: the facts under ``expect:``, each compared with what was computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .compiler.cost import Cost, cost
from .compiler.depth import depth
from .compiler.ir.dims import Dim, DimLike, is_symbol, substitute, symbol
from .compiler.ir.graph import Graph
from .compiler.ir.types import shape_text
from .compiler.ops.base import OpError
from .spec.diagnostics import Diagnostic, SpecError, nearest
from .spec.elaborate import Model
from .spec.expectations import Expectation, Fact

Shape = tuple[DimLike, ...]

ABSENT = ("E802", "E804")
"""Codes of what is not here: an input, or the package that an input comes from."""


@dataclass(frozen=True)
class Proof:
    """One fact of the spec and what came out."""

    name: str
    expected: str
    found: str
    proven: bool

    def as_json(self) -> dict[str, object]:
        """A plain dictionary."""
        return {
            "name": self.name,
            "expected": self.expected,
            "found": self.found,
            "proven": self.proven,
        }


@dataclass(frozen=True)
class Report:
    """What a check found.

    ``macs`` are of one example, at the sizes of the facts; ``outputs`` are shapes by name. Numbers
    and sizes that depend on open sizes are symbolic.
    """

    name: str
    variant: str | None
    parameters: DimLike
    buffers: DimLike
    macs: DimLike
    outputs: Mapping[str, Shape]
    proofs: tuple[Proof, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def ok(self) -> bool:
        """Whether no error was found."""
        return not any(d.severity == "error" for d in self.diagnostics)

    def as_json(self) -> dict[str, object]:
        """A plain dictionary; symbolic numbers are strings."""
        return {
            "name": self.name,
            "variant": self.variant,
            "parameters": _plain(self.parameters),
            "buffers": _plain(self.buffers),
            "macs": _plain(self.macs),
            "outputs": {name: [_plain(d) for d in shape] for name, shape in self.outputs.items()},
            "expectations": [proof.as_json() for proof in self.proofs],
            "diagnostics": [d.as_json() for d in self.diagnostics],
        }


def prove(
    model: Model,
    graph: Graph,
    elsewhere: Callable[[], Collection[str]] | None = None,
    outputs_of: Callable[[], Mapping[str, Any]] | None = None,
) -> Report:
    """Check a model: its rules for weights, and the facts that it states.

    ``graph`` is the model's, perhaps with sizes filled in. ``elsewhere`` gives the weight paths of
    other variants, which the rules may name too. Without it the model is not one that the spec
    talks about (its options are overridden), so that neither rules nor facts need hold.
    ``outputs_of`` runs a model that needs no input; numbers of outputs are proven with it.
    """
    found = list(model.warnings)
    if elsewhere is not None:
        found += _misnamed_weights(model, graph, elsewhere)
    expectation = _expectation(model) if elsewhere is not None else None
    sizes: dict[str, DimLike] = {}
    if expectation is not None:
        try:
            sizes = dict(sizes_at(graph, expectation.at))
        except OpError as fault:
            span = expectation.spans.get("at", expectation.span)
            found.append(Diagnostic(fault.code, fault.message, span, hint=fault.hint))
            expectation = None
    total = cost(graph, {**sizes, "N": 1})
    outputs = {
        name: tuple(substitute(d, sizes) for d in graph.type_of(value).shape)
        for name, value in graph.outputs
    }
    proofs: list[Proof] = []
    if expectation is not None:
        _prove_numbers(expectation, graph, total, proofs, found)
        _prove_outputs(expectation, outputs, sizes, proofs, found)
        _prove_values(expectation, outputs_of, proofs, found)
    return Report(
        model.name,
        model.variant,
        total.parameters,
        total.buffers,
        total.macs,
        outputs,
        tuple(proofs),
        tuple(found),
    )


def sizes_at(graph: Graph, shapes: Mapping[str, tuple[int | str, ...] | int]) -> dict[str, int]:
    """Values of symbols from shapes by input and sizes by symbol.

    A size that is a symbol's name leaves it open. Raises ``OpError`` E802 when something does not
    fit.
    """
    inputs = {graph.node(index).name: graph.node(index).type for index in graph.inputs}
    # A number for an input is the shape of a vector.
    shapes = {name: (n,) if isinstance(n, int) and name in inputs.keys() - graph.symbols else n
              for name, n in shapes.items()}  # fmt: skip
    sizes = {name: size for name, size in shapes.items() if isinstance(size, int)}
    unknown = sizes.keys() - graph.symbols
    unknown |= {n for n, shape in shapes.items() if isinstance(shape, tuple) and n not in inputs}
    for name in sorted(unknown):
        known = [*inputs, *sorted(graph.symbols)]
        close = nearest(name, known)
        hint = f"did you mean `{close}`?" if close else f"there is {', '.join(known) or 'neither'}"
        raise OpError("E802", f"`{name}` is neither an input nor an open size", hint)
    pairs = [
        (name, declared, given)
        for name, shape in shapes.items()
        if isinstance(shape, tuple)
        for declared, given in _pairs(name, inputs[name].shape, shape)
    ]
    for name, declared, given in pairs:
        size = is_symbol(declared)
        if size is not None and isinstance(given, int) and sizes.setdefault(size, given) != given:
            raise OpError("E802", f"{size} is {given} in `{name}`, but {sizes[size]} elsewhere")
    for name, declared, given in pairs:
        left = substitute(declared, sizes)
        right = given if isinstance(given, int) else substitute(symbol(given), sizes)
        if left != right:
            shown = f"declared {inputs[name]}, given {shape_text(shapes[name])}"  # type: ignore[arg-type]
            raise OpError("E802", f"the shape of `{name}` does not fit: {shown}")
    return sizes


# ---------------------------------------------------------------- helpers


def _plain(number: DimLike) -> int | str:
    return str(number) if isinstance(number, Dim) else number


def _pairs(name: str, declared: Shape, given: tuple[int | str, ...]) -> list[tuple]:
    if len(declared) != len(given):
        shown = f"declared {shape_text(declared)}, given {shape_text(given)}"  # type: ignore[arg-type]
        raise OpError("E802", f"the shape of `{name}` has another rank: {shown}")
    return list(zip(declared, given, strict=True))


def _expectation(model: Model) -> Expectation | None:
    """The facts of this variant; the spec's own name stands for its default variant."""
    expect, envelope = model.envelope.expect, model.envelope
    if model.variant is not None and model.variant in expect:
        return expect[model.variant]
    return expect.get(envelope.name) if model.variant == envelope.default_variant else None


def _prove_numbers(
    expectation: Expectation,
    graph: Graph,
    total: Cost,
    proofs: list[Proof],
    found: list[Diagnostic],
) -> None:
    for fact in expectation.facts.values():
        if fact.name == "depth":
            actual: DimLike = depth(graph)
        elif fact.name in ("parameters", "buffers", "macs"):
            actual = getattr(total, fact.name)
        else:
            message = f"`{fact.name}` is not proven by check"
            hint = "it is a claim about training or data, which check does not run"
            found.append(Diagnostic("E902", message, fact.span, hint=hint, severity="warning"))
            continue
        agrees = isinstance(actual, int) and fact.agrees(actual)
        proofs.append(Proof(fact.name, fact.text, _shown(actual), agrees))
        if not agrees:
            found.append(_unmet(fact, actual))


def _unmet(fact: Fact, actual: DimLike) -> Diagnostic:
    message = f"`{fact.name}` is not what the spec expects"
    hint = None
    if isinstance(actual, Dim):
        hint = f"it depends on {', '.join(sorted(actual.symbols))}: fix them under `at:`"
    elif fact.value:
        off = actual - fact.value
        hint = f"that is {off:+,.0f} or {off / fact.value:+.2%}"
    note = f"expected {fact.text}, found {_shown(actual)}"
    return Diagnostic("E901", message, fact.span, note, hint=hint)


def _prove_outputs(
    expectation: Expectation,
    outputs: Mapping[str, Shape],
    sizes: Mapping[str, DimLike],
    proofs: list[Proof],
    found: list[Diagnostic],
) -> None:
    for name, shape in expectation.outputs.items():
        place = expectation.spans.get("outputs", expectation.span)
        if name not in outputs:
            close = nearest(name, outputs)
            hint = f"did you mean `{close}`?" if close else f"the outputs are {', '.join(outputs)}"
            found.append(Diagnostic("E901", f"there is no output `{name}`", place, hint=hint))
            continue
        wanted = tuple(
            substitute(symbol(size), sizes) if isinstance(size, str) else size for size in shape
        )
        actual = outputs[name]
        texts = shape_text(wanted), shape_text(actual)
        proofs.append(Proof(f"outputs.{name}", *texts, wanted == actual))
        if wanted != actual:
            message = f"output `{name}` has not the shape that the spec expects"
            note = f"expected {texts[0]}, found {texts[1]}"
            found.append(Diagnostic("E901", message, place, note))


def _prove_values(
    expectation: Expectation,
    outputs_of: Callable[[], Mapping[str, Any]] | None,
    proofs: list[Proof],
    found: list[Diagnostic],
) -> None:
    if not expectation.values:
        return
    arrays, why = None, "the model needs inputs that check does not have"
    try:
        arrays = outputs_of() if outputs_of is not None else None
    except SpecError as fault:
        if fault.diagnostics[0].code not in ABSENT:
            raise
        why = ": ".join(filter(None, (fault.diagnostics[0].message, fault.diagnostics[0].hint)))
    if arrays is None:
        for fact in expectation.values.values():
            message = f"`{fact.name}` is not proven by check"
            found.append(Diagnostic("E902", message, fact.span, hint=why, severity="warning"))
        return
    for fact in expectation.values.values():
        name, _, items = fact.name.partition("[")
        place = tuple(int(item) for item in items.rstrip("]").split(",") if item)
        array = arrays.get(name)
        if (
            array is None
            or len(place) != array.ndim
            or any(i >= n for i, n in zip(place, array.shape, strict=True))
        ):
            shown = ", ".join(f"{n}{list(a.shape)}" for n, a in arrays.items())
            message = f"no output has the element `{fact.name}`"
            found.append(Diagnostic("E901", message, fact.span, hint=f"the outputs are {shown}"))
            continue
        actual = array[place].item()
        proofs.append(Proof(f"values.{fact.name}", fact.text, f"{actual:.6g}", fact.agrees(actual)))
        if not fact.agrees(actual):
            message = f"`{fact.name}` is not what the spec expects"
            note = f"expected {fact.text}, found {actual:.8g}"
            found.append(Diagnostic("E901", message, fact.span, note))


def _misnamed_weights(
    model: Model, graph: Graph, elsewhere: Callable[[], Collection[str]]
) -> list[Diagnostic]:
    """Rules under ``weights:`` that name a weight which no variant of the spec has."""
    paths = {str(node.attrs["path"]) for _, node in graph.of_op("param")}
    rules = [rule for rules in model.envelope.weights.values() for rule in rules]
    if all(rule.path in paths for rule in rules):
        return []
    paths |= set(elsewhere())
    found = []
    for rule in rules:
        if rule.path not in paths:
            close = nearest(rule.path, paths)
            hint = f"did you mean `{close}`?" if close else "`tilth inspect` lists the weights"
            message = f"the model has no weight `{rule.path}`"
            found.append(Diagnostic("E801", message, rule.path_span, hint=hint))
    return found


def _shown(number: DimLike) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)
