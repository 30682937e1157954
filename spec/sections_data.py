"""The sections about what comes from outside: ``data`` (examples, tables) and ``weights``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..compiler.ir.dims import DimLike
from ..compiler.ir.dims import parse as parse_dim
from ..compiler.ir.types import Span
from .diagnostics import nearest
from .kinds import (
    IDENTIFIER,
    Constant,
    Key,
    Kind,
    choice,
    flag,
    is_number,
    list_of,
    located,
    mapping_of,
    name,
    number,
    one_of,
    record,
    text,
    whole,
)
from .sections import PATH
from .yaml_nodes import Context, MappingNode, Node, ScalarNode, SequenceNode

FORMATS = ("npz", "npy", "csv", "images", "idx", "cifar", "text")
CHECKPOINTS = ("torch", "torchvision", "timm", "safetensors", "onnx", "keras", "npz")
MAX_SLICE = 200

_PATH_ENDS = (".npz", ".npy", ".csv", ".tsv", ".txt", ".gz", ".json")


@dataclass(frozen=True)
class DataSource:
    """One entry of ``data``.

    Exactly one of ``source`` (a built-in data set), ``path`` and ``inline`` (numbers, lists as
    tuples) is given. ``columns`` maps a model's input to the columns or arrays that fill it;
    ``split`` is the name of a part, or the fraction of each named part.
    """

    span: Span
    spans: Mapping[str, Span] = field(default_factory=dict)
    source: str | None = None
    path: str | None = None
    inline: Any = None
    format: str | None = None
    columns: Mapping[str, tuple[str, ...]] | None = None
    header: bool = True
    delimiter: str = ","
    split: str | Mapping[str, float] | None = None
    seed: int = 0
    limit: int | None = None
    size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    length: int = 64


@dataclass(frozen=True)
class Slice:
    """One axis of a slice; ``None`` leaves an end open. Ends may hold the model's sizes."""

    start: DimLike | None
    stop: DimLike | None


@dataclass(frozen=True)
class WeightRule:
    """Where a weight comes from: ``"weight_ih_l0[0:H]": W_i``."""

    file_name: str
    slices: tuple[Slice, ...]
    path: str
    span: Span
    path_span: Span


def _is_path(value: str) -> bool:
    return "/" in value or "\\" in value or value.endswith(_PATH_ENDS)


def _named_source() -> Kind:
    base = text()

    def convert(node: Node, what: str, context: Context) -> DataSource | None:
        value = base.convert(node, what, context)
        if value and _is_path(value):
            return DataSource(node.span, {"path": node.span}, path=value)
        return DataSource(node.span, {"source": node.span}, source=value) if value else None

    return Kind("the name of a data set or a path", base.accepts, convert, base.schema)


def _inline_source() -> Kind:
    def accepts(node: Node) -> bool:
        return isinstance(node, SequenceNode) or is_number(node)

    def convert(node: Node, what: str, context: Context) -> DataSource | None:
        value = _numbers(node, what, context)
        return None if value is None else DataSource(node.span, {"inline": node.span}, inline=value)

    schema = {"type": ["array", "number"]}
    return Kind("a list of numbers", accepts, convert, schema)


def _numbers(node: Node, what: str, context: Context) -> Any:
    """Nested lists of numbers and truth values as tuples; ragged ones are tables."""
    if isinstance(node, SequenceNode):
        values = [_numbers(item, what, context) for item in node.items]
        return None if any(value is None for value in values) else tuple(values)
    if is_number(node) or (isinstance(node, ScalarNode) and isinstance(node.value, bool)):
        assert isinstance(node, ScalarNode)
        return node.value
    if isinstance(node, (ScalarNode, MappingNode)):
        message = f"`{what}` must hold numbers only"
        context.fault("E006", message, node.span, hint="name a file for anything else")
    return None


def _check_source(source: DataSource, spans: Mapping[str, Span], context: Context) -> None:
    if "source" in spans and "path" in spans:
        context.fault("E016", "give `source` or `path`, not both", spans["path"])
    if "source" not in spans and "path" not in spans and not context.faulty(source.span):
        hint = "`path: FILE`, or `source: NAME` for a built-in one"
        message = "a data set needs `path` or `source`"
        context.fault("E007", message, source.span, hint=hint)
    if isinstance(source.split, Mapping) and sum(source.split.values()) > 1 + 1e-9:
        total = sum(source.split.values())
        message = "the parts of `split` are more than the whole"
        context.fault("E016", message, spans["split"], found=f"they sum to {total:g}")
    if source.format is None and "path" in spans and source.path and not _is_guessed(source.path):
        message = "the format of this path is not clear from its name"
        hint = f"add `format:`, one of {', '.join(FORMATS)}"
        context.fault("E007", message, spans["path"], hint=hint)


def _is_guessed(path: str) -> bool:
    return path.endswith((".npz", ".npy", ".csv", ".tsv", ".txt"))


def _columns() -> Kind:
    def convert_one(node: Node, what: str, context: Context) -> tuple[str, ...]:
        assert isinstance(node, ScalarNode)
        return (node.text,)

    one = Kind(
        "a column's name or number",
        lambda node: isinstance(node, ScalarNode) and isinstance(node.value, (str, int)),
        convert_one,
        {"type": ["string", "integer"]},
    )
    many = list_of(one, 1)

    def convert(node: Node, what: str, context: Context) -> tuple[str, ...] | None:
        columns = many.convert(node, what, context)
        return None if columns is None else tuple(column for (column,) in columns)

    return mapping_of(one_of(one, replace(many, convert=convert)), IDENTIFIER, "an input's name")


def _weight_rules() -> Kind:
    target = name(PATH, "a weight path such as `layer1.0.conv1`")

    def convert(node: Node, what: str, context: Context) -> tuple[WeightRule, ...]:
        assert isinstance(node, MappingNode)
        rules: list[WeightRule] = []
        for entry in node.entries:
            path = located(target)
            value: Constant | None = None
            if not isinstance(entry.value, ScalarNode) or not path.accepts(entry.value):
                message = f"`{entry.key.text}` must name a weight path of the model"
                context.fault("E006", message, entry.value.span)
            else:
                value = path.convert(entry.value, f"{what}.{entry.key.text}", context)
            parsed = _parse_file_name(entry.key, context)
            if value is not None and parsed is not None:
                rules.append(WeightRule(*parsed, value.value, entry.key.span, value.span))
        return tuple(rules)

    expected = "a mapping from names in the file to weight paths"
    schema = {"type": "object", "additionalProperties": dict(target.schema)}
    return Kind(expected, lambda node: isinstance(node, MappingNode), convert, schema)


def _parse_file_name(key: ScalarNode, context: Context) -> tuple[str, tuple[Slice, ...]] | None:
    match = re.fullmatch(r"([^\[\]\s]+)\s*(?:\[([^\[\]]*)\])?\s*", key.text)
    if match is None or len(key.text) > MAX_SLICE:
        message = f"`{key.text[:40]}` is not a name in a weights file"
        hint = 'write `"name"` or `"name[0:H]"`'
        context.fault("E006", message, key.span, hint=hint)
        return None
    if match[2] is None:
        return match[1], ()
    slices: list[Slice] = []
    for part in match[2].split(","):
        start, colon, stop = (piece.strip() for piece in part.partition(":"))
        try:
            ends = [parse_dim(piece) if piece else None for piece in (start, stop)]
        except (ValueError, ZeroDivisionError):
            ends = None
        if not colon or ends is None:
            message = f"`{part.strip()}` is not a slice"
            hint = "a slice is `start:stop`, such as `0:H` or `H:2*H`; `:` takes the whole axis"
            context.fault("E006", message, key.span, hint=hint)
            return None
        slices.append(Slice(*ends))
    return match[1], tuple(slices)


def _checkpoints() -> Kind:
    rules = mapping_of(_weight_rules())

    def convert(node: Node, what: str, context: Context) -> dict[str, tuple[WeightRule, ...]]:
        assert isinstance(node, MappingNode)
        for entry in node.entries:
            label = entry.key.text
            if label not in CHECKPOINTS:
                close = nearest(label, CHECKPOINTS)
                hint = f"did you mean `{close}`?" if close else f"one of {', '.join(CHECKPOINTS)}"
                message = f"unknown format `{label}` in `{what}`"
                context.fault("E004", message, entry.key.span, hint=hint)
        known = tuple(entry for entry in node.entries if entry.key.text in CHECKPOINTS)
        return rules.convert(MappingNode(node.span, known), what, context)

    schema = {"type": "object", "propertyNames": {"enum": list(CHECKPOINTS)}}
    return replace(rules, convert=convert, schema={**rules.schema, **schema})


_FRACTIONS = mapping_of(number(0, 1, above=True), IDENTIFIER, "a part's name")

DATA_KEYS = (
    Key("source", text(), "a built-in data set"),
    Key("path", text(), "a file or folder, relative to the spec"),
    Key("format", choice(*FORMATS), "how to read it, where the name does not tell"),
    Key("columns", _columns(), "columns or arrays by the model's input"),
    Key("header", flag(), "whether a csv file's first line names its columns"),
    Key("delimiter", text(), "what stands between a csv file's values"),
    Key("split", one_of(text(), _FRACTIONS), "a part's name, or fractions by part"),
    Key("seed", whole(0), "seed of the split"),
    Key("limit", whole(1), "how many examples to take"),
    Key("size", list_of(whole(1), 2, 2), "height and width that images are scaled to"),
    Key("mean", list_of(number(), 1), "subtracted, by channel"),
    Key("std", list_of(number(0, above=True), 1), "divided by, by channel"),
    Key("length", whole(1), "characters of a window of text"),
)

DATA = mapping_of(
    one_of(_named_source(), _inline_source(), record(DATA_KEYS, DataSource, _check_source)),
    IDENTIFIER,
    "a name",
)
WEIGHTS = _checkpoints()
