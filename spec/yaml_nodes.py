"""YAML 1.2 core as a tree in which every key and value knows its place in the file.

The tree is built from PyYAML's event stream: nothing is expanded, so an alias bomb costs nothing,
and depth and size are checked while reading. Scalars are resolved by the rules of YAML 1.2 core
(``no`` is text, ``1e-3`` a number, ``0o17`` fifteen), which PyYAML's own resolver does not follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Union

import yaml

from ..compiler.ir.types import Span
from .diagnostics import Diagnostic, Label, Reporter
from .source import Source
from .yaml_traps import explain

MAX_DEPTH = 64
MAX_VALUES = 20_000
MAX_FAULTS = 200
MAX_DIGITS = 18

ScalarValue = Union[None, bool, int, float, str]

_NO_TEXT = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\r(?!\n)"
)
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, ScalarValue] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_STYLES = {None: "plain", "": "plain", "'": "single", '"': "double", "|": "literal", ">": "folded"}


@dataclass(frozen=True)
class ScalarNode:
    """One scalar: its value, its text, how it was written and where its characters stand.

    ``content`` is the place of the text itself: without quotes, without a block's ``|`` line.
    """

    span: Span
    value: ScalarValue
    text: str
    style: str
    content: Span


@dataclass(frozen=True)
class SequenceNode:
    """A list."""

    span: Span
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Entry:
    """One ``key: value`` of a mapping."""

    key: ScalarNode
    value: Node


@dataclass(frozen=True)
class MappingNode:
    """A mapping; its keys are distinct."""

    span: Span
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class BrokenNode:
    """A value whose fault was reported already."""

    span: Span


Node = Union[ScalarNode, SequenceNode, MappingNode, BrokenNode]


@dataclass(frozen=True)
class Context:
    """What reading needs besides the nodes: the source and where faults go."""

    source: Source
    reporter: Reporter

    @property
    def full(self) -> bool:
        """Whether so many faults were found that more would not help."""
        return len(self.reporter.diagnostics) >= MAX_FAULTS

    def faulty(self, span: Span) -> bool:
        """Whether a fault was reported inside a span, so that more about it may be an echo."""
        places = [d.span for d in self.reporter.diagnostics if d.span is not None]
        return any(span.start <= place.start <= span.end for place in places)

    def fault(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        found: str = "",
        labels: tuple[Label, ...] = (),
        hint: str | None = None,
    ) -> None:
        """Report one fault."""
        if not self.full:
            self.reporter.report(Diagnostic(code, message, span, found, labels, hint))


def read_yaml(source: Source, reporter: Reporter) -> Node | None:
    """The tree of a one-document YAML text; ``None`` when it has no structure to go on with.

    Faults inside the structure (duplicate keys E003, aliases and tags E005, a call that YAML split
    in two E011) are reported and leave a :class:`BrokenNode` or are left out.
    """
    context = Context(source, reporter)
    strange = _NO_TEXT.search(source.text)
    if strange is not None:
        _report_strange(strange, context)
        return None
    # SafeLoader is used as an event stream only; its constructors never run.
    reading = _Reading(context, yaml.SafeLoader(source.text))
    try:
        node = _read_document(reading)
    except _StopReading:
        return None
    except yaml.MarkedYAMLError as error:
        reporter.report(explain(error, source))
        return None
    except (ValueError, OverflowError):
        # PyYAML passes the number of an escape like "\UFFFFFFFF" to chr() unchecked.
        place = min(reading.loader.get_mark().index, len(source.text))
        message = "an escape in this text names no character"
        context.fault("E002", message, source.span(place, place))
        return None
    _report_anchors(reading)
    return node


def resolve(text: str) -> ScalarValue:
    """The value of a plain scalar by YAML 1.2 core; whole numbers too long to hold stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text.lstrip("+-").lstrip("0")) > MAX_DIGITS:
            return text
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def describe(node: Node) -> str:
    """What a node holds, as messages say it."""
    if isinstance(node, SequenceNode):
        return "a list"
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, BrokenNode) or node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    short = node.text if len(node.text) <= 40 else node.text[:37] + "..."
    short = " ".join(short.split())
    if isinstance(node.value, int):
        return f"the whole number {short}"
    if isinstance(node.value, float):
        return f"the number {short}"
    return f"the text `{short}`"


class _StopReading(Exception):
    """Reading ended early; the fault was reported."""


@dataclass
class _Reading:
    context: Context
    loader: yaml.SafeLoader
    values: int = 0
    anchors: dict[str, Span] = field(default_factory=dict)
    aliases: list[tuple[str, Span]] = field(default_factory=list)

    def next(self) -> yaml.Event:
        event = self.loader.get_event()
        assert event is not None  # the stream's end is never asked for
        return event

    def span(self, event: yaml.Event) -> Span:
        return self.context.source.span(event.start_mark.index, event.end_mark.index)


def _read_document(reading: _Reading) -> Node | None:
    reading.next()
    if isinstance(reading.next(), yaml.StreamEndEvent):
        return None
    node = _read_node(reading, reading.next(), 0)
    reading.next()
    more = reading.next()
    if not isinstance(more, yaml.StreamEndEvent):
        message = "a second document starts here; a spec file holds one"
        reading.context.fault("E002", message, reading.span(more), hint="remove the `---` line")
    return node


def _read_node(reading: _Reading, event: yaml.Event, depth: int) -> Node:
    span = reading.span(event)
    reading.values += 1
    if depth > MAX_DEPTH:
        message = f"values are nested more than {MAX_DEPTH} deep"
        reading.context.fault("E207", message, span)
        raise _StopReading
    if reading.values > MAX_VALUES:
        message = f"the file holds more than {MAX_VALUES:,} values"
        hint = "keep large tables in a data file and name it under `data:`"
        reading.context.fault("E002", message, span, hint=hint)
        raise _StopReading
    if isinstance(event, yaml.AliasEvent):
        reading.aliases.append((event.anchor, span))
        return BrokenNode(span)
    assert isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
    if event.anchor is not None:
        reading.anchors.setdefault(event.anchor, span)
    if event.tag is not None:
        message = f"tags are not part of the format: `{_tag_text(event, reading)}`"
        reading.context.fault("E005", message, span, hint="write the value without its tag")
    if isinstance(event, yaml.ScalarEvent):
        return _read_scalar(reading, event, span)
    if isinstance(event, yaml.SequenceStartEvent):
        return _read_sequence(reading, event, span, depth)
    return _read_mapping(reading, event, span, depth)


def _read_scalar(reading: _Reading, event: yaml.ScalarEvent, span: Span) -> Node:
    source = reading.context.source
    style = _STYLES[event.style]
    text: str = event.value
    if any("\ud800" <= c <= "\udfff" for c in text):
        reading.context.fault("E013", "an escape names half a character (a surrogate)", span)
        return BrokenNode(span)
    value = resolve(text) if style == "plain" else text
    if style == "plain" and isinstance(value, str) and _INT.fullmatch(text):
        message = f"the whole number has more than {MAX_DIGITS} digits"
        reading.context.fault("E006", message, span, hint="write it as a float")
        return BrokenNode(span)
    content = span
    # An anchor or a tag stands before the quote, so the place of the text is not known then.
    decorated = event.anchor is not None or event.tag is not None
    if style in ("literal", "folded"):
        content = _block_content(source, span)
        span = source.span(span.start, max(content.end, span.start + 1))
    elif style in ("single", "double") and not decorated:
        content = source.span(span.start + 1, span.end - 1)
    return ScalarNode(span, value, text, style, content)


def _block_content(source: Source, span: Span) -> Span:
    """From the first to the last visible character of a block scalar, in the file."""
    newline = source.text.find("\n", span.start, span.end)
    if newline < 0:
        return source.span(span.end, span.end)
    block = source.text[newline + 1 : span.end]
    if not block.strip():
        return source.span(newline, newline)
    start = newline + 1 + len(block) - len(block.lstrip())
    return source.span(start, newline + 1 + len(block.rstrip()))


def _read_sequence(
    reading: _Reading, opening: yaml.SequenceStartEvent, span: Span, depth: int
) -> SequenceNode:
    items: list[Node] = []
    while not isinstance(event := reading.next(), yaml.SequenceEndEvent):
        items.append(_read_node(reading, event, depth + 1))
    if opening.flow_style:
        items = _mend_items(items, reading.context)
    return SequenceNode(_whole(reading, span, event, items, opening.flow_style), tuple(items))


def _read_mapping(
    reading: _Reading, opening: yaml.CollectionStartEvent, span: Span, depth: int
) -> MappingNode | BrokenNode:
    entries: list[Entry] = []
    while not isinstance(event := reading.next(), yaml.MappingEndEvent):
        key = _read_node(reading, event, depth + 1)
        value = _read_node(reading, reading.next(), depth + 1)
        if isinstance(key, ScalarNode):
            entries.append(Entry(key, value))
        elif not isinstance(key, BrokenNode):
            message = "a key must be a name or a text"
            reading.context.fault("E006", message, key.span, found=f"found {describe(key)}")
    values = [entry.value for entry in entries]
    whole = _whole(reading, span, event, values, opening.flow_style)
    if opening.flow_style and entries:
        entries = _mend_entries(entries, reading.context)
        if not entries:
            return BrokenNode(whole)
    return MappingNode(whole, tuple(_without_repeats(entries, reading.context)))


def _whole(
    reading: _Reading, span: Span, ending: yaml.Event, values: list[Node], flow: bool
) -> Span:
    """A collection's span: to its bracket, or to the end of its last value."""
    end = reading.span(ending).end if flow else max([span.end, *(v.span.end for v in values)])
    return reading.context.source.span(span.start, end)


def _without_repeats(entries: list[Entry], context: Context) -> list[Entry]:
    first: dict[str, Entry] = {}
    for entry in entries:
        name, span = entry.key.text, entry.key.span
        if name == "<<" and entry.key.style == "plain":
            hint = "write the keys out where they are needed"
            context.fault("E005", "merge keys are not part of the format", span, hint=hint)
        elif name in first:
            label = Label(first[name].key.span, "first given here")
            context.fault("E003", f"the key `{name}` is given twice", span, labels=(label,))
        else:
            first[name] = entry
    return list(first.values())


def _mend_items(items: list[Node], context: Context) -> list[Node]:
    """Join the pieces of a call that YAML split at its commas (E011)."""
    mended: list[Node] = []
    place = 0
    while place < len(items):
        end = _last_piece([[item] for item in items], place)
        if end > place:
            mended.append(_report_split(items[place].span, items[end].span, "", context))
        else:
            mended.append(items[place])
        place = end + 1
    return mended


def _mend_entries(entries: list[Entry], context: Context) -> list[Entry]:
    mended: list[Entry] = []
    place = 0
    while place < len(entries):
        key, value = entries[place].key, entries[place].value
        end = _last_piece([[e.key, e.value] for e in entries], place)
        if end > place and _open_brackets([value]) > 0:
            last = entries[end]
            until = last.value.span if last.value.span.end > last.key.span.end else last.key.span
            value = _report_split(value.span, until, key.text, context)
            mended.append(Entry(key, value))
        elif end > place:
            _report_split(key.span, entries[end].key.span, "", context)
        elif _is_missing_space(key, value):
            name, _, rest = key.text.partition(":")
            hint = f"write `{name}: {rest}`"
            context.fault("E002", "a space is missing after the colon", key.span, hint=hint)
            head = ScalarNode(key.span, name, name, "plain", key.span)
            mended.append(Entry(head, BrokenNode(key.span)))
        else:
            mended.append(entries[place])
        place = end + 1
    return mended


def _last_piece(groups: list[list[Node]], place: int) -> int:
    """The index of the group that closes the brackets which ``groups[place]`` leaves open."""
    depth = _open_brackets(groups[place])
    if depth <= 0:
        return place
    for end in range(place + 1, len(groups)):
        depth += _open_brackets(groups[end])
        if depth <= 0:
            return end
    return place


def _open_brackets(nodes: list[Node]) -> int:
    texts = [n.text for n in nodes if isinstance(n, ScalarNode) and n.style == "plain"]
    return sum(text.count("(") - text.count(")") for text in texts)


def _is_missing_space(key: ScalarNode, value: Node) -> bool:
    empty = isinstance(value, ScalarNode) and value.value is None and value.text == ""
    return empty and key.style == "plain" and re.match(r"[\w-]+:[^\s/]", key.text) is not None


def _report_split(start: Span, end: Span, key: str, context: Context) -> BrokenNode:
    span = context.source.span(start.start, end.end)
    text = context.source.text[span.start : span.end]
    quoted = f'{key}: "{text}"' if key else f'"{text}"'
    message = f"YAML split `{text}` at its comma"
    context.fault("E011", message, span, hint=f"quote it inside brackets: `{quoted}`")
    return BrokenNode(span)


def _report_strange(match: re.Match[str], context: Context) -> None:
    point = ord(match[0])
    hint = "save the file with ordinary line ends" if match[0] in "\r\x85\u2028\u2029" else None
    message = f"the file is not plain text: it holds the character U+{point:04X}"
    context.fault("E013", message, context.source.span(match.start(), match.end()), hint=hint)


def _report_anchors(reading: _Reading) -> None:
    """One message for all anchors and aliases: a file full of them has one fault."""
    context = reading.context
    for name, span in reading.aliases:
        if name not in reading.anchors:
            hint = f'quote it if it is text: "*{name}"'
            context.fault("E005", f"`*{name}` is an alias of nothing", span, hint=hint)
            return
    if not reading.anchors:
        return
    name, span = next(iter(reading.anchors.items()))
    uses = [place for alias, place in reading.aliases if alias == name]
    labels = (Label(uses[0], f"`*{name}` used here"),) if uses else ()
    message = f"anchors and aliases are not part of the format: `&{name}`"
    hint = "write the value out at each place"
    context.fault("E005", message, span, labels=labels, hint=hint)


def _tag_text(event: yaml.ScalarEvent | yaml.CollectionStartEvent, reading: _Reading) -> str:
    text = reading.context.source.text[event.start_mark.index :]
    found = re.search(r"!\S*", text)
    return found[0] if found else str(event.tag)
