"""Short calls in the sections' values: ``sgd(lr=0.1, nesterov=true)``, ``warmup(5) >> cosine(85)``.

The arguments are read into the same nodes as YAML's, so that the kinds of ``kinds.py`` check them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..compiler.ir.types import Span
from .diagnostics import Label, nearest
from .kinds import Kind, read, source_text
from .source import Source, SourceText
from .yaml_nodes import Context, Node, ScalarNode, SequenceNode, resolve

REQUIRED = object()
"""The default of a setting that must be given."""

MAX_LISTS = 16

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>"[^"\n]*"|'[^'\n]*')
    | (?P<sign>>>|[()\[\],=])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Parameter:
    """One setting of a call."""

    name: str
    kind: Kind
    default: Any = REQUIRED


@dataclass(frozen=True)
class Rule:
    """What may be called: a name, its settings in positional order, and what it is."""

    name: str
    parameters: tuple[Parameter, ...]
    help: str


@dataclass(frozen=True)
class Family:
    """The calls that may stand at one place; messages use ``noun`` and ``example``."""

    noun: str
    example: str
    rules: tuple[Rule, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names that may be called."""
        return tuple(rule.name for rule in self.rules)


@dataclass(frozen=True)
class Call:
    """One call with every setting, defaults included; ``spans`` has those that were written."""

    name: str
    settings: Mapping[str, Any]
    span: Span
    spans: Mapping[str, Span] = field(default_factory=dict)


def call_of(family: Family) -> Kind:
    """The kind of value that is one call of a family."""

    def convert(node: Node, what: str, context: Context) -> Call | None:
        calls = _read_chain(node, what, family, context)
        if calls is not None and len(calls) > 1:
            message = f"`{what}` is one {family.noun}, not several"
            context.fault("E201", message, calls[1].span)
            return None
        return calls[0] if calls else None

    return _family_kind(family, convert, f"a call such as `{family.example}`")


def chain_of(family: Family) -> Kind:
    """The kind of value that is calls of a family joined by ``>>``, read as a tuple."""

    def convert(node: Node, what: str, context: Context) -> tuple[Call, ...] | None:
        return _read_chain(node, what, family, context)

    return _family_kind(family, convert, f"calls such as `{family.example}`")


def default_call(family: Family, name: str, span: Span, **settings: Any) -> Call:
    """A call as the sections' short forms mean it (``clip: 1.0``)."""
    rule = next(rule for rule in family.rules if rule.name == name)
    defaults = {p.name: p.default for p in rule.parameters}
    return Call(name, defaults | settings, span)


def _family_kind(family: Family, convert: Any, expected: str) -> Kind:
    base = source_text()
    names = "|".join(family.names)
    listing = "; ".join(f"{signature(rule)}: {rule.help}" for rule in family.rules)
    schema = {"type": "string", "pattern": rf"^\s*({names})\b", "description": listing}
    return Kind(expected, base.accepts, convert, schema)


def signature(rule: Rule) -> str:
    """How a call is written, with its defaults."""
    parts = [
        p.name if p.default is REQUIRED else f"{p.name}={_literal(p.default)}"
        for p in rule.parameters
    ]
    return f"{rule.name}({', '.join(parts)})"


def _literal(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(x) for x in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read_chain(node: Node, what: str, family: Family, context: Context) -> tuple[Call, ...] | None:
    text: SourceText | None = source_text().convert(node, what, context)
    if text is None:
        return None
    try:
        written = _Parser(context.source, text.span, _tokens(text.span, context)).chain()
    except _Fault as fault:
        context.fault(fault.code, fault.message, fault.span, labels=fault.labels)
        return None
    calls = [_check_call(call, family, context) for call in written]
    return tuple(call for call in calls if call is not None) if None not in calls else None


def _check_call(call: _Written, family: Family, context: Context) -> Call | None:
    rule = next((rule for rule in family.rules if rule.name == call.name), None)
    if rule is None:
        close = nearest(call.name, family.names)
        known = f"known are {', '.join(family.names)}"
        hint = f"did you mean `{close}`?" if close else known
        context.fault("E301", f"unknown {family.noun} `{call.name}`", call.name_span, hint=hint)
        return None
    before = len(context.reporter.diagnostics)
    given = _match_arguments(call, rule, context)
    values: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    for parameter in rule.parameters:
        if parameter.name in given:
            node = given[parameter.name]
            spans[parameter.name] = node.span
            what = f"{rule.name}({parameter.name}=..)"
            values[parameter.name] = read(parameter.kind, node, what, context)
        elif parameter.default is REQUIRED:
            message = f"`{rule.name}` needs `{parameter.name}`"
            context.fault("E402", message, call.name_span, hint=f"write `{signature(rule)}`")
        else:
            values[parameter.name] = parameter.default
    if len(context.reporter.diagnostics) > before:
        return None
    return Call(rule.name, values, call.span, spans)


def _match_arguments(call: _Written, rule: Rule, context: Context) -> dict[str, Node]:
    names = [parameter.name for parameter in rule.parameters]
    given: dict[str, Node] = {}
    for place, argument in enumerate(call.arguments):
        name = argument.name
        if not name:
            if place >= len(names):
                plural = "" if len(names) == 1 else "s"
                message = f"`{rule.name}` takes at most {len(names)} argument{plural}"
                hint = f"`{signature(rule)}`"
                context.fault("E403", message, argument.value.span, hint=hint)
                break
            name = names[place]
        if name not in names:
            close = nearest(name, names)
            hint = f"did you mean `{close}`?" if close else f"`{signature(rule)}`"
            message = f"`{rule.name}` has no setting `{name}`"
            context.fault("E401", message, argument.span, hint=hint)
        elif name in given:
            label = Label(given[name].span, "first given here")
            message = f"`{name}` is given twice"
            context.fault("E403", message, argument.span, labels=(label,))
        else:
            given[name] = argument.value
    return given


class _Fault(Exception):
    def __init__(self, code: str, message: str, span: Span, labels: tuple[Label, ...] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.span, self.labels = code, message, span, labels


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    span: Span


@dataclass(frozen=True)
class _Argument:
    name: str
    span: Span
    value: Node


@dataclass(frozen=True)
class _Written:
    name: str
    name_span: Span
    span: Span
    arguments: tuple[_Argument, ...]


def _tokens(span: Span, context: Context) -> list[_Token]:
    source = context.source
    found: list[_Token] = []
    place = span.start
    while place < span.end:
        if source.text[place : span.end].isspace():
            break
        match = _TOKEN.match(source.text, place, span.end)
        if match is None:
            rest = source.text[place : span.end]
            start = place + len(rest) - len(rest.lstrip())
            character = source.text[start]
            message = f"unexpected `{character}`"
            raise _Fault("E202", message, source.span(start, start + 1))
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], source.span(match.start(kind), match.end(kind))))
        place = match.end()
    end = source.span(span.end, span.end)
    return [*found, _Token("end", "the end", end)]


class _Parser:
    """Recursive descent over the tokens of one value; lists are the only thing that nests."""

    def __init__(self, source: Source, span: Span, tokens: list[_Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.place = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.place]

    def chain(self) -> list[_Written]:
        calls = [self.call()]
        while self.token.text == ">>":
            self.place += 1
            calls.append(self.call())
        if self.token.kind != "end":
            self.wrong("`>>` or the end")
        return calls

    def call(self) -> _Written:
        head = self.take("name", "a name")
        arguments: list[_Argument] = []
        end = head.span.end
        if self.token.text == "(":
            opening = self.token
            self.place += 1
            while self.token.text != ")":
                arguments.append(self.argument(arguments))
                if self.token.text == ",":
                    self.place += 1
                elif self.token.text != ")":
                    self.unclosed(opening, "`,` or `)`")
            end = self.token.span.end
            self.place += 1
        span = self.source.span(head.span.start, end)
        return _Written(head.text, head.span, span, tuple(arguments))

    def argument(self, before: list[_Argument]) -> _Argument:
        start = self.token
        if start.kind == "name" and self.tokens[self.place + 1].text == "=":
            self.place += 2
            return _Argument(start.text, start.span, self.value(0))
        value = self.value(0)
        if before and before[-1].name:
            message = "a setting without a name stands after one with a name"
            raise _Fault("E201", message, start.span)
        return _Argument("", start.span, value)

    def value(self, depth: int) -> Node:
        token = self.token
        if depth > MAX_LISTS:
            raise _Fault("E207", f"lists are nested more than {MAX_LISTS} deep", token.span)
        if token.text == "[":
            return self.list(depth)
        if token.kind not in ("number", "name", "text"):
            self.wrong("a value")
        self.place += 1
        if token.kind == "text":
            inner = self.source.span(token.span.start + 1, token.span.end - 1)
            content = token.text[1:-1]
            return ScalarNode(token.span, content, content, "double", inner)
        return ScalarNode(token.span, resolve(token.text), token.text, "plain", token.span)

    def list(self, depth: int) -> SequenceNode:
        opening = self.token
        self.place += 1
        items: list[Node] = []
        while self.token.text != "]":
            items.append(self.value(depth + 1))
            if self.token.text == ",":
                self.place += 1
            elif self.token.text != "]":
                self.unclosed(opening, "`,` or `]`")
        end = self.token.span.end
        self.place += 1
        return SequenceNode(self.source.span(opening.span.start, end), tuple(items))

    def take(self, kind: str, expected: str) -> _Token:
        if self.token.kind != kind:
            self.wrong(expected)
        self.place += 1
        return self.tokens[self.place - 1]

    def wrong(self, expected: str) -> NoReturn:
        found = self.token.text if self.token.kind == "end" else f"`{self.token.text}`"
        raise _Fault("E201", f"expected {expected}, found {found}", self.token.span)

    def unclosed(self, opening: _Token, expected: str) -> NoReturn:
        if self.token.kind != "end":
            self.wrong(expected)
        message = f"the bracket `{opening.text}` is not closed"
        raise _Fault("E203", message, opening.span)
