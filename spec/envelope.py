"""The YAML envelope of a spec file: everything around the model block, and the block's place.

:func:`read_envelope` reports every fault of a file in one run. What could be read is kept, so that
the model block can be checked in the same run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..compiler.ir.types import Span
from .diagnostics import Diagnostic, Reporter, nearest
from .expectations import Expectation, expectations
from .kinds import (
    IDENTIFIER,
    Constant,
    Key,
    Kind,
    choice,
    constant,
    is_whole,
    list_of,
    located,
    mapping_of,
    name,
    read,
    read_keys,
    text,
)
from .sections import LEARN, SOLVE, TRAIN, Learn, Solve, Train
from .sections_data import DATA, WEIGHTS, DataSource, WeightRule
from .source import Source, SourceText, make_source, read_text
from .yaml_nodes import BrokenNode, Context, MappingNode, Node, ScalarNode, describe, read_yaml

VERSION = 1
OVERRIDES = "--set"
"""The file name under which messages show option overrides."""


@dataclass(frozen=True)
class Settings:
    """Named values with their places: one variant's overrides, or one layer's defaults."""

    name: str
    values: Mapping[str, Constant]
    span: Span
    key_span: Span


@dataclass(frozen=True)
class Envelope:
    """A spec file as read.

    ``model`` is the place of the model block's statements; ``spans`` has the places of the keys'
    values, for those that carry none themselves. ``source`` is the paper, ``document`` the file.
    """

    document: Source
    spans: Mapping[str, Span]
    name: str
    model: SourceText
    title: str | None = None
    source: str | None = None
    implements: tuple[Constant, ...] = ()
    dtype: str | None = None
    options: Mapping[str, Constant] = field(default_factory=dict)
    defaults: Mapping[str, Settings] = field(default_factory=dict)
    variants: Mapping[str, Settings] = field(default_factory=dict)
    expect: Mapping[str, Expectation] = field(default_factory=dict)
    use: Mapping[str, Constant] = field(default_factory=dict)
    train: Train | None = None
    solve: Solve | None = None
    learn: Learn | None = None
    data: Mapping[str, DataSource] = field(default_factory=dict)
    weights: Mapping[str, tuple[WeightRule, ...]] = field(default_factory=dict)

    @property
    def default_variant(self) -> str | None:
        """The variant that is meant when none is named.

        It is the one named like the spec, else the first that overrides nothing, else the first;
        ``None`` where the file has no variants.
        """
        if self.name in self.variants:
            return self.name
        plain = [variant.name for variant in self.variants.values() if not variant.values]
        return next(iter([*plain, *self.variants]), None)

    def options_for(
        self, variant: str | None = None, overrides: Sequence[str] = ()
    ) -> dict[str, Constant]:
        """Every option's value: the file's, then the variant's, then ``NAME=VALUE`` overrides.

        ``variant`` may be ``None`` or the spec's own name for the default one. An override is read
        as YAML and must be of a kind that the spec itself gives the option. Raises
        ``diagnostics.SpecError``: E014 unknown variant, E015 unknown option, E006 wrong kind.
        """
        reporter = Reporter({self.document.file: self.document.text})
        options = dict(self.options)
        known = variant in self.variants
        chosen = variant if known else self.default_variant
        if not known and variant not in (None, self.name):
            message = f"`{self.name}` has no variant `{variant}`"
            hint = _suggest(str(variant), self.variants, "variants")
            reporter.report(Diagnostic("E014", message, hint=hint))
        if chosen is not None:
            options |= self.variants[chosen].values
        options |= _read_overrides(self, overrides, reporter)
        reporter.raise_if_failed()
        return options


def load_envelope(path: Path, reporter: Reporter, shown: str | None = None) -> Envelope | None:
    """Read a file; ``shown`` is the name that messages give it."""
    content = read_text(path, reporter, shown)
    return None if content is None else read_envelope(content, shown or str(path), reporter)


def read_envelope(content: str, file: str, reporter: Reporter) -> Envelope | None:
    """The envelope of a spec's text; ``None`` when there is no model block to go on with.

    A spec with faults still gives what could be read; ``reporter.failed`` tells.
    """
    document = make_source(content.removeprefix("\ufeff"), file)
    reporter.sources[file] = document.text
    context = Context(document, reporter)
    before = len(reporter.diagnostics)
    node = read_yaml(document, reporter)
    empty = node is None or (isinstance(node, ScalarNode) and node.value is None)
    if empty and len(reporter.diagnostics) == before:
        hint = "a spec begins with `tilth: 1` and `name: NAME`"
        context.fault("E007", "the file is empty", document.span(0, 0), hint=hint)
    if empty or node is None or isinstance(node, BrokenNode):
        return None
    if not isinstance(node, MappingNode):
        found = f"found {describe(node)}"
        hint = "a spec begins with `tilth: 1` and `name: NAME`"
        context.fault("E006", "a spec is a mapping", node.span, found=found, hint=hint)
        return None
    values, spans = read_keys(node, KEYS, "", context)
    values.pop("tilth", None)
    if "name" not in values:
        values["name"] = PurePath(file).stem
    for key in ("variants", "defaults"):
        if key in values:
            values[key] = {name: _settings(name, value) for name, value in values[key].items()}
    if "model" not in values:
        return None
    envelope = Envelope(document, spans, **values)
    _check_variants(envelope, context)
    return envelope


def _settings(name: str, value: Constant) -> Settings:
    return Settings(name, value.value, value.span, value.key_span)


def _check_variants(envelope: Envelope, context: Context) -> None:
    options = envelope.options
    for variant in envelope.variants.values():
        for option, value in variant.values.items():
            if option not in options:
                message = f"variant `{variant.name}` sets `{option}`, which is no option"
                hint = _suggest(option, options, "options")
                context.fault("E015", message, value.key_span, hint=hint)
    names = {envelope.name: None, **envelope.variants}
    for expectation in envelope.expect.values():
        if expectation.variant not in names:
            message = f"`{expectation.variant}` is no variant of this spec"
            hint = _suggest(expectation.variant, names, "variants")
            context.fault("E014", message, expectation.key_span, hint=hint)


def _suggest(name: str, known: Mapping[str, Any], noun: str) -> str:
    close = nearest(name, known)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"the {noun} are {', '.join(known)}" if known else f"the spec has no {noun}"


def _read_overrides(
    envelope: Envelope, overrides: Sequence[str], reporter: Reporter
) -> dict[str, Constant]:
    """Options from ``NAME=VALUE`` texts; messages show them as lines of one small file."""
    lines = [" ".join(line.splitlines()) for line in overrides]
    shown = "\n".join(lines)
    reporter.sources[OVERRIDES] = shown
    whole = make_source(shown, OVERRIDES)
    context = Context(whole, reporter)
    options: dict[str, Constant] = {}
    start = 0
    for line in lines:
        end = start + len(line)
        match = re.match(rf"\s*({IDENTIFIER})\s*=", line)
        if match is None:
            hint = "write `NAME=VALUE`, such as `depths=[3, 4, 23, 3]`"
            message = f"`{line}` is not an override"
            context.fault("E006", message, whole.span(start, end), hint=hint)
        elif match[1] not in envelope.options:
            message = f"`{envelope.name}` has no option `{match[1]}`"
            hint = _suggest(match[1], envelope.options, "options")
            place = whole.span(start + match.start(1), start + match.end(1))
            context.fault("E015", message, place, hint=hint)
        else:
            # Everything before the value is blanked, so that places come out right.
            before = re.sub(r"[^\n]", " ", shown[: start + match.end()])
            value = _read_override(envelope, match[1], before + shown[len(before) : end], context)
            if value is not None:
                key_span = whole.span(start + match.start(1), start + match.end(1))
                options[match[1]] = Constant(value.value, value.span, key_span)
        start = end + 1
    return options


def _read_override(
    envelope: Envelope, option: str, content: str, context: Context
) -> Constant | None:
    before = len(context.reporter.diagnostics)
    source = make_source(content, OVERRIDES)
    node = read_yaml(source, context.reporter)
    if len(context.reporter.diagnostics) > before:
        return None
    if node is None:
        end = len(content)
        context.fault("E006", f"`{option}` is given no value", source.span(end, end))
        return None
    value: Constant | None = read(located(constant()), node, option, context)
    if value is None:
        return None
    used = [envelope.options[option]]
    used += [v.values[option] for v in envelope.variants.values() if option in v.values]
    kinds = list(dict.fromkeys(_category(constant.value) for constant in used))
    if _category(value.value) not in kinds:
        message = f"`{option}` must be {' or '.join(kinds)}"
        context.fault("E006", message, value.span, found=f"found {describe(node)}")
        return None
    return value


def _category(value: Any) -> str:
    """What an override must have in common with the value it replaces."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, tuple):
        return "a list"
    return "a text" if isinstance(value, str) else "a number"


def _version() -> Kind:
    def convert(node: Node, what: str, context: Context) -> int | None:
        assert isinstance(node, ScalarNode)
        if node.value == VERSION:
            return VERSION
        message = f"version {node.text} of the language is not known here"
        context.fault("E008", message, node.span, hint=f"this Tilth reads `tilth: {VERSION}`")
        return None

    schema = {"type": "integer", "enum": [VERSION]}
    return Kind("the language's version, a whole number", is_whole, convert, schema)


def _model() -> Kind:
    def convert(node: Node, what: str, context: Context) -> SourceText | None:
        hint = "write `model: |` and the statements, indented, on the lines below"
        if not isinstance(node, ScalarNode) or node.style != "literal":
            written = describe(node)
            if isinstance(node, ScalarNode) and node.style == "folded":
                written = "a folded block (`>`), which loses line ends"
            message = "the model must be a literal block"
            context.fault("E009", message, node.span, found=f"found {written}", hint=hint)
            return None
        span = node.content
        if span.start == span.end:
            context.fault("E007", "the model block is empty", node.span, hint=hint)
            return None
        return SourceText(context.source.text[span.start : span.end], span)

    return Kind("a literal block", lambda node: True, convert, {"type": "string"})


_CONSTANTS = mapping_of(located(constant()), IDENTIFIER, "a name such as `depths`")

KEYS = (
    Key("tilth", _version(), "the version of the language: 1", required=True),
    Key("name", name(), "the spec's name, by which other specs and commands call it", True),
    Key("title", text(), "the paper's title"),
    Key("source", text(), "the paper: authors, venue, year, identifier"),
    Key("implements", list_of(located(name())), "ids in the zoo's list of systems"),
    Key("dtype", choice("f32", "f64"), "the float type that the model computes in"),
    Key("options", _CONSTANTS, "constants of the model, which `--set` and variants override"),
    Key(
        "defaults",
        mapping_of(located(_CONSTANTS), IDENTIFIER, "a layer's name"),
        "settings that a layer takes throughout this spec unless it is told otherwise",
    ),
    Key("variants", mapping_of(located(_CONSTANTS)), "named sets of option overrides"),
    Key("expect", expectations(), "facts from the paper by variant; `tilth check` proves them"),
    Key(
        "use",
        mapping_of(located(name()), IDENTIFIER, "an alias such as `v`"),
        "other specs by alias: their defs are alias.name(..)",
    ),
    Key("model", _model(), "a literal block (`|`) in the model language", required=True),
    Key("train", TRAIN, "how the model is trained"),
    Key("solve", SOLVE, "how a decision process is solved"),
    Key("learn", LEARN, "how a decision process is learned from episodes"),
    Key("data", DATA, "data sets and tables by name"),
    Key("weights", WEIGHTS, "where a checkpoint's weights go, by format"),
)
