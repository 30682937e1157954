"""Kinds of values in the envelope: each says what it expects, reads it, and describes it as schema.

A section is declared once, as a tuple of :class:`Key`; reading, the messages about it and the JSON
Schema all come from that declaration. A value that does not fit is reported and read as ``None``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..compiler.ir.types import Span
from .diagnostics import nearest
from .source import SourceText
from .yaml_nodes import (
    BrokenNode,
    Context,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    describe,
)

IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"

Check = Callable[[Any, Mapping[str, Span], Context], None]


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    ``accepts`` looks at the node's type only; ``convert`` gives the value, or reports and gives
    ``None``. Both are used through :func:`read`.
    """

    expected: str
    accepts: Callable[[Node], bool]
    convert: Callable[[Node, str, Context], Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """One key of a record; ``help`` is its hover text, ``field`` its Python name if another."""

    name: str
    kind: Kind
    help: str
    required: bool = False
    field: str = ""


@dataclass(frozen=True)
class Constant:
    """A value with the places of its key (or of itself, without a key) and of the value."""

    value: Any
    span: Span
    key_span: Span


def read(kind: Kind, node: Node, what: str, context: Context) -> Any:
    """The value of a node, or ``None`` after a message that names ``what``."""
    if isinstance(node, BrokenNode):
        return None
    if not kind.accepts(node):
        message = f"`{what}` must be {kind.expected}"
        found = f"found {describe(node)}"
        context.fault("E006", message, node.span, found=found, hint=_kind_hint(kind, node))
        return None
    return kind.convert(node, what, context)


def text() -> Kind:
    """Any text."""
    return Kind("a text", _is_text, lambda node, what, context: _text(node), {"type": "string"})


def name(pattern: str = NAME, expected: str = "a name") -> Kind:
    """A text that matches ``pattern``."""

    def convert(node: Node, what: str, context: Context) -> str | None:
        if re.fullmatch(pattern, _text(node)):
            return _text(node)
        message = f"`{what}` must be {expected}"
        hint = "letters, digits and `_`"
        if pattern == NAME:
            hint = "letters, digits and `_ . + -`, without spaces"
        context.fault("E006", message, node.span, found=f"found {describe(node)}", hint=hint)
        return None

    return Kind(expected, _is_text, convert, {"type": "string", "pattern": f"^{pattern}$"})


def flag() -> Kind:
    """``true`` or ``false``."""
    return Kind(
        "true or false",
        lambda node: isinstance(node, ScalarNode) and isinstance(node.value, bool),
        lambda node, what, context: _scalar(node).value,
        {"type": "boolean"},
    )


def whole(low: int | None = None, high: int | None = None) -> Kind:
    """A whole number from ``low`` to ``high``."""
    expected = "a whole number" + _range_text(low, high, False, False)
    schema: dict[str, Any] = {"type": "integer"}
    schema |= {} if low is None else {"minimum": low}
    schema |= {} if high is None else {"maximum": high}

    def convert(node: Node, what: str, context: Context) -> int | None:
        value = _scalar(node).value
        assert isinstance(value, int)
        inside = (low is None or value >= low) and (high is None or value <= high)
        return value if inside else _out_of_range(node, what, expected, context)

    return Kind(expected, is_whole, convert, schema)


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    above: bool = False,
    below: bool = False,
) -> Kind:
    """A finite number from ``low`` to ``high``; ``above`` and ``below`` leave the ends out."""
    expected = "a number" + _range_text(low, high, above, below)
    schema: dict[str, Any] = {"type": "number"}
    schema |= {} if low is None else {"exclusiveMinimum" if above else "minimum": low}
    schema |= {} if high is None else {"exclusiveMaximum" if below else "maximum": high}

    def convert(node: Node, what: str, context: Context) -> float | None:
        value = _scalar(node).value
        assert isinstance(value, (int, float))
        inside = math.isfinite(value)
        inside &= low is None or value > low or (value == low and not above)
        inside &= high is None or value < high or (value == high and not below)
        return value if inside else _out_of_range(node, what, expected, context)

    return Kind(expected, is_number, convert, schema)


def choice(*options: str) -> Kind:
    """One of a few words."""
    expected = "one of " + ", ".join(options)

    def convert(node: Node, what: str, context: Context) -> str | None:
        if _text(node) in options:
            return _text(node)
        close = nearest(_text(node), options)
        hint = f"did you mean `{close}`?" if close else None
        found = f"found {describe(node)}"
        context.fault("E006", f"`{what}` must be {expected}", node.span, found=found, hint=hint)
        return None

    return Kind(expected, _is_text, convert, {"enum": list(options)})


def list_of(item: Kind, least: int = 0, most: int | None = None) -> Kind:
    """A list; read as a tuple of what could be read."""
    size = ""
    if least and least == most:
        size = f" ({least} of them)"
    elif least:
        size = f" (at least {least})"
    expected = f"a list, each {item.expected}{size}"

    def convert(node: Node, what: str, context: Context) -> tuple[Any, ...] | None:
        assert isinstance(node, SequenceNode)
        count = len(node.items)
        if count < least or (most is not None and count > most):
            context.fault("E016", f"`{what}` must be {expected}", node.span, found=f"found {count}")
            return None
        values = [read(item, x, f"{what}[{i}]", context) for i, x in enumerate(node.items)]
        return tuple(value for value in values if value is not None)

    schema: dict[str, Any] = {"type": "array", "items": dict(item.schema)}
    schema |= {"minItems": least} if least else {}
    schema |= {} if most is None else {"maxItems": most}
    return Kind(expected, lambda node: isinstance(node, SequenceNode), convert, schema)


def mapping_of(item: Kind, pattern: str = NAME, keys: str = "a name") -> Kind:
    """A mapping from free names to values of one kind."""

    def convert(node: Node, what: str, context: Context) -> dict[str, Any]:
        assert isinstance(node, MappingNode)
        values: dict[str, Any] = {}
        for entry in node.entries:
            if not re.fullmatch(pattern, entry.key.text):
                message = f"a key of `{what}` must be {keys}"
                found = f"found {describe(entry.key)}"
                context.fault("E006", message, entry.key.span, found=found)
                continue
            value = read(item, entry.value, f"{what}.{entry.key.text}", context)
            if isinstance(value, Constant):
                value = Constant(value.value, value.span, entry.key.span)
            if value is not None:
                values[entry.key.text] = value
        return values

    expected = "a mapping from names to values"
    schema = {
        "type": "object",
        "propertyNames": {"pattern": f"^{pattern}$"},
        "additionalProperties": dict(item.schema),
    }
    return Kind(expected, lambda node: isinstance(node, MappingNode), convert, schema)


def located(item: Kind) -> Kind:
    """The same kind, read as a :class:`Constant` that keeps its place."""

    def convert(node: Node, what: str, context: Context) -> Constant | None:
        value = item.convert(node, what, context)
        return None if value is None else Constant(value, node.span, node.span)

    return Kind(item.expected, item.accepts, convert, item.schema)


def constant() -> Kind:
    """A number, a truth value, a text, or a nested list of them, as tuples."""

    def accepts(node: Node) -> bool:
        return isinstance(node, SequenceNode) or (
            isinstance(node, ScalarNode) and node.value is not None
        )

    def convert(node: Node, what: str, context: Context) -> Any:
        if isinstance(node, SequenceNode):
            values = [read(kind, x, f"{what}[{i}]", context) for i, x in enumerate(node.items)]
            return None if any(value is None for value in values) else tuple(values)
        return _scalar(node).value

    expected = "a number, a text, true or false, or a list of these"
    schema = {"type": ["number", "string", "boolean", "array"]}
    kind = Kind(expected, accepts, convert, schema)
    return kind


def source_text(block: bool = False) -> Kind:
    """Text in the model's grammar: one line, or with ``block`` a literal block too."""
    expected = "a formula" + (" or a `|` block of formulas" if block else "")

    def convert(node: Node, what: str, context: Context) -> SourceText | None:
        scalar = _scalar(node)
        written = context.source.text[scalar.content.start : scalar.content.end]
        hint = "quote it in a way that needs no escapes"
        if scalar.style == "folded" or (scalar.style == "literal" and not block):
            hint = "begin the block with `|`" if block else "write it on one line"
        elif scalar.style != "literal" and "\n" in written:
            hint = "begin a literal block with `|`" if block else "write it on one line"
        elif not written.strip():
            hint = "write a formula"
        elif scalar.style == "literal" or written == scalar.text:
            return SourceText(written, scalar.content)
        context.fault("E006", f"`{what}` must be {expected}", node.span, hint=hint)
        return None

    return Kind(expected, _is_text, convert, {"type": "string"})


def one_of(*kinds: Kind) -> Kind:
    """The first of several kinds that takes the node."""
    expected = " or ".join(kind.expected for kind in kinds)

    def convert(node: Node, what: str, context: Context) -> Any:
        kind = next(kind for kind in kinds if kind.accepts(node))
        return kind.convert(node, what, context)

    return Kind(
        expected,
        lambda node: any(kind.accepts(node) for kind in kinds),
        convert,
        {"anyOf": [dict(kind.schema) for kind in kinds]},
    )


def mapped(item: Kind, change: Callable[[Any, Span], Any]) -> Kind:
    """The same kind with its value changed by ``change(value, span)``."""

    def convert(node: Node, what: str, context: Context) -> Any:
        value = item.convert(node, what, context)
        return None if value is None else change(value, node.span)

    return Kind(item.expected, item.accepts, convert, item.schema)


def record(keys: tuple[Key, ...], build: Callable[..., Any], check: Check | None = None) -> Kind:
    """A mapping with known keys.

    ``build(span=..., spans=..., **values)`` makes the result; a key that is absent or wrong is not
    passed, so that its default holds. ``spans`` has the place of every given value. ``check`` looks
    at what was built and reports what does not go together.
    """

    def convert(node: Node, what: str, context: Context) -> Any:
        assert isinstance(node, MappingNode)
        values, spans = read_keys(node, keys, what, context)
        built = build(span=node.span, spans=spans, **values)
        if check is not None:
            check(built, spans, context)
        return built

    return Kind(
        "a mapping", lambda node: isinstance(node, MappingNode), convert, record_schema(keys)
    )


def read_keys(
    node: MappingNode, keys: tuple[Key, ...], what: str, context: Context
) -> tuple[dict[str, Any], dict[str, Span]]:
    """Values and places by field name; reports unknown (E004) and missing (E007) keys."""
    known = {key.name: key for key in keys}
    values: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    given = {entry.key.text for entry in node.entries}
    for entry in node.entries:
        label = entry.key.text
        key = known.get(label)
        if key is None:
            if context.full:
                break
            close = nearest(label, [k for k in known if k not in given])
            names = ", ".join(known)
            hint = f"did you mean `{close}`?" if close else f"the keys are {names}"
            place = f"in `{what}`" if what else "in the spec"
            context.fault("E004", f"unknown key `{label}` {place}", entry.key.span, hint=hint)
            continue
        path = f"{what}.{label}" if what else label
        field = key.field or key.name
        value = read(key.kind, entry.value, path, context)
        spans[field] = entry.value.span
        if value is not None:
            values[field] = value
    for key in keys:
        if key.required and key.name not in given:
            owner = f"`{what}`" if what else "the spec"
            message = f"{owner} has no `{key.name}`"
            context.fault("E007", message, node.span, hint=f"`{key.name}` is {key.help}")
    return values, spans


def record_schema(keys: tuple[Key, ...]) -> dict[str, Any]:
    """The JSON Schema of a mapping with known keys."""
    properties = {key.name: {**key.kind.schema, "description": key.help} for key in keys}
    required = [key.name for key in keys if key.required]
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return schema | ({"required": required} if required else {})


def is_whole(node: Node) -> bool:
    """Whether a node is a whole number."""
    return is_number(node) and isinstance(_scalar(node).value, int)


def is_number(node: Node) -> bool:
    """Whether a node is a number; truth values are none."""
    if not isinstance(node, ScalarNode) or isinstance(node.value, bool):
        return False
    return isinstance(node.value, (int, float))


def _is_text(node: Node) -> bool:
    return isinstance(node, ScalarNode) and isinstance(node.value, str)


def _scalar(node: Node) -> ScalarNode:
    assert isinstance(node, ScalarNode)
    return node


def _text(node: Node) -> str:
    return str(_scalar(node).value)


def _kind_hint(kind: Kind, node: Node) -> str | None:
    if not isinstance(node, ScalarNode):
        return None
    if node.value is None:
        empty = kind.accepts(MappingNode(node.span, ()))
        return "an empty mapping is written `{}`" if empty else None
    if kind.accepts(ScalarNode(node.span, "", "", "plain", node.span)):
        return f'quote it if it is text: "{node.text}"' if len(node.text) < 40 else None
    if node.style in ("single", "double") and node.text:
        return "leave out the quotes" if not node.text.isalpha() else None
    match = re.fullmatch(r"([\w-]+):(\S.*)", node.text)
    if match and isinstance(node.value, str):
        return f"a space is missing after the colon: `{match[1]}: {match[2]}`"
    return None


def _out_of_range(node: Node, what: str, expected: str, context: Context) -> None:
    context.fault(
        "E016", f"`{what}` must be {expected}", node.span, found=f"found {_scalar(node).text}"
    )


def _range_text(low: float | None, high: float | None, above: bool, below: bool) -> str:
    if low is not None and high is not None and not above and not below:
        return f" from {low:g} to {high:g}"
    ends = []
    if low is not None:
        ends.append(f"above {low:g}" if above else f"of at least {low:g}")
    if high is not None:
        ends.append(f"below {high:g}" if below else f"of at most {high:g}")
    return "".join([" " if ends else "", " and ".join(ends)])
