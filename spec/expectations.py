"""The ``expect`` section: facts from the paper that ``tilth check`` proves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Union

from ..compiler.ir.types import Span
from .diagnostics import nearest
from .kinds import IDENTIFIER, Kind, is_whole, list_of, mapping_of, number, one_of, read
from .yaml_nodes import Context, MappingNode, Node, ScalarNode, describe

Shape = tuple[Union[int, str], ...]

KNOWN: dict[str, str] = {
    "parameters": "trainable numbers",
    "buffers": "numbers that are kept but not trained, such as running means",
    "macs": "multiply-accumulates of one example, at the shapes in `at`",
    "depth": "layers with weights on the longest path",
}


@dataclass(frozen=True)
class Fact:
    """One number that must come out. ``text`` keeps the digits as they were written."""

    name: str
    value: int | float
    text: str
    span: Span

    def agrees(self, actual: int | float) -> bool:
        """Whether a result is this fact: whole numbers exactly, others to the digits written.

        ``4.09e9`` says three digits, so anything from 4.085e9 to 4.095e9 agrees.
        """
        if isinstance(self.value, int):
            return actual == self.value
        if actual != actual or actual in (float("inf"), float("-inf")):
            return False
        written = Decimal(self.text)
        exponent = written.as_tuple().exponent
        assert isinstance(exponent, int)
        return abs(Fraction(actual) - Fraction(written)) <= Fraction(10) ** exponent / 2


@dataclass(frozen=True)
class Expectation:
    """The facts of one variant.

    ``outputs`` are shapes by output name, ``values`` numbers of outputs (``V[0, 2]``); ``at`` are
    the shapes (by input) and sizes (by symbol) at which the facts hold.
    """

    variant: str
    span: Span
    key_span: Span
    facts: Mapping[str, Fact]
    outputs: Mapping[str, Shape]
    at: Mapping[str, Shape | int]
    spans: Mapping[str, Span]
    values: Mapping[str, Fact] = field(default_factory=dict)


def expectations() -> Kind:
    """The kind of the whole section: a mapping from variant to facts."""

    def convert(node: Node, what: str, context: Context) -> dict[str, Expectation]:
        assert isinstance(node, MappingNode)
        found: dict[str, Expectation] = {}
        for entry in node.entries:
            variant = entry.key.text
            if isinstance(entry.value, MappingNode):
                found[variant] = _read_facts(entry.key, entry.value, f"{what}.{variant}", context)
            elif isinstance(entry.value, (ScalarNode,)) and variant in KNOWN:
                message = f"`{variant}` stands outside a variant"
                hint = f"write the facts under a name: `NAME: {{{variant}: {entry.value.text}}}`"
                context.fault("E006", message, entry.key.span, hint=hint)
            else:
                read(_FACTS, entry.value, f"{what}.{variant}", context)
        return found

    schema = {"type": "object", "additionalProperties": _facts_schema()}
    expected = "a mapping from variants to facts"
    return Kind(expected, lambda node: isinstance(node, MappingNode), convert, schema)


def _read_facts(key: ScalarNode, node: MappingNode, what: str, context: Context) -> Expectation:
    facts: dict[str, Fact] = {}
    shapes: dict[str, Mapping[str, Shape | int]] = {}
    spans: dict[str, Span] = {}
    values: dict[str, Fact] = {}
    for entry in node.entries:
        label = entry.key.text
        spans[label] = entry.value.span
        if label in ("outputs", "at"):
            kind = _OUTPUTS if label == "outputs" else _AT
            shapes[label] = read(kind, entry.value, f"{what}.{label}", context) or {}
            continue
        if label == "values":
            values = _read_values(entry.value, f"{what}.{label}", context)
            continue
        close = nearest(label, [*KNOWN, "outputs", "at", "values"])
        if label not in KNOWN and close is not None:
            hint = f"did you mean `{close}`?"
            message = f"unknown expectation `{label}`"
            context.fault("E902", message, entry.key.span, hint=hint)
            continue
        kind = _COUNT if label in KNOWN else _NUMBER
        value = read(kind, entry.value, f"{what}.{label}", context)
        if value is not None and isinstance(entry.value, ScalarNode):
            facts[label] = Fact(label, value, entry.value.text, entry.value.span)
    outputs = {name: s for name, s in shapes.get("outputs", {}).items() if isinstance(s, tuple)}
    at = shapes.get("at", {})
    return Expectation(key.text, node.span, key.span, facts, outputs, at, spans, values)


def _read_values(node: Node, what: str, context: Context) -> dict[str, Fact]:
    """Numbers of outputs by ``name[indices]``, with the digits as they were written."""
    numbers = read(_VALUES, node, what, context) or {}
    if not isinstance(node, MappingNode):
        return {}
    return {
        name: Fact(name, numbers[name], entry.value.text, entry.value.span)
        for entry in node.entries
        for name in (entry.key.text,)
        if name in numbers and isinstance(entry.value, ScalarNode)
    }


def _size() -> Kind:
    """One size of a shape: a whole number of at least 1, or a symbol's name."""
    expected = "a size: a whole number of at least 1, or a symbol such as N"

    def accepts(node: Node) -> bool:
        return is_whole(node) or (isinstance(node, ScalarNode) and isinstance(node.value, str))

    def convert(node: Node, what: str, context: Context) -> int | str | None:
        assert isinstance(node, ScalarNode)
        value = node.value
        if isinstance(value, int) and value >= 1:
            return value
        if isinstance(value, str) and value.isidentifier():
            return value
        code = "E016" if isinstance(value, int) else "E006"
        found = f"found {describe(node)}"
        context.fault(code, f"`{what}` must be {expected}", node.span, found=found)
        return None

    schema = {"type": ["integer", "string"], "minimum": 1}
    return Kind(expected, accepts, convert, schema)


def _facts_schema() -> dict[str, object]:
    known = {name: {**_COUNT.schema, "description": text} for name, text in KNOWN.items()}
    shapes = {
        "outputs": {**_OUTPUTS.schema, "description": "shapes by output"},
        "at": {**_AT.schema, "description": "shapes by input at which the facts hold"},
        "values": {**_VALUES.schema, "description": "numbers of outputs, by element"},
    }
    return {
        "type": "object",
        "properties": {**known, **shapes},
        "additionalProperties": {"type": "number"},
    }


_COUNT = number(0)
_NUMBER = number()
_SHAPE = list_of(_size())
_OUTPUTS = mapping_of(_SHAPE, r"[A-Za-z_][A-Za-z0-9_.\[\]]*", "an output's name")
_AT = mapping_of(one_of(_SHAPE, _size()), IDENTIFIER, "an input's or a size's name")
_VALUES = mapping_of(
    _NUMBER, r"[A-Za-z_][A-Za-z0-9_]*(\[\d+(, ?\d+)*\])?", "an output's element such as V[0, 2]"
)
_FACTS = mapping_of(_NUMBER)
