"""The readable text of a graph, and the parser that reads it back.

``parse_graph(print_graph(g)) == g``. Nodes are numbered by canonical order; a span keeps its file,
line and column. Sizes stand bare in types and between ``<`` and ``>`` in attributes, so that they
are never taken for strings. Constants are exact: short ones as numbers, others as their bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .dims import Dim, DimLike
from .dims import parse as parse_dim
from .graph import Constraint, Graph, Node, Value, content_hash
from .types import DTYPES, AttrValue, Span, TensorType, shape_text

INLINE_ELEMENTS = 16
"""Constants of at most this many elements are printed as numbers."""

MAX_DEPTH = 100
"""How deep tuples, lists and regions may nest in a text."""


class GraphSyntaxError(ValueError):
    """A text that is not a graph; ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


def print_graph(graph: Graph) -> str:
    """The text form of a graph.

    Raises ``TypeError`` for an attribute or a constant of a type that the IR does not have, since
    it could not be read back as the same value.
    """
    files = list(dict.fromkeys(span.file for span in _spans(graph)))
    lines = [f"source {_string(file)}" for file in files]
    lines += _graph_lines(graph, files)
    return "\n".join(lines) + "\n"


def graph_listing(graph: Graph) -> list[str]:
    """The lines of a graph for a comparison with another state of it: not to be read back.

    Nodes keep the numbers that they have in the graph and stand right after what they read, so that
    a change shows where it was made and nowhere else.
    """
    files = list(dict.fromkeys(span.file for span in _spans(graph)))
    return _graph_lines(graph, files, settled=True)


def parse_graph(text: str) -> Graph:
    """The graph that a text stands for; raises :class:`GraphSyntaxError`."""
    parser = _Parser(text)
    while parser.accept("source"):
        parser.files.append(parser.string("a file name"))
    graph = parser.graph()
    if parser.token.kind != "end":
        parser.fail("the end of the text")
    return graph


def attr_text(value: AttrValue) -> str:
    """An attribute value as the text form writes it."""
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Dim):
        return f"<{value}>"
    if isinstance(value, tuple):
        inner = ", ".join(attr_text(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be an attribute")


# ---------------------------------------------------------------- printing


def _spans(graph: Graph) -> Iterator[Span]:
    for _, node in graph.nodes():
        if node.span is not None:
            yield node.span
        for region in node.regions:
            yield from _spans(region)
    for constraint in graph.constraints:
        if constraint.span is not None:
            yield constraint.span


def _graph_lines(graph: Graph, files: list[str], settled: bool = False) -> list[str]:
    order = _readers_last(graph) if settled else graph.order()
    number = {index: index if settled else place for place, index in enumerate(order)}

    def value_text(value: Value) -> str:
        suffix = f":{value.result}" if value.result else ""
        return f"%{number[value.node]}{suffix}"

    lines = [f"graph {_string(graph.name)} {{"]
    for index in order:
        operands = ", ".join(value_text(v) for v in graph.operands(index))
        text = _node_text(graph, index, number[index], operands, files)
        lines += ["  " + line for line in _with_regions(text, graph.node(index), files, settled)]
    declared = [index for index in order if graph.node(index).op == "input"]
    if graph.inputs != declared:
        lines.append("  inputs " + ", ".join(f"%{number[index]}" for index in graph.inputs))
    for c in graph.constraints:
        place = _place(c.span, files)
        lines.append(f"  require {c.left} == {c.right} {_string(c.why)}{place}")
    lines += [f"  output {_string(name)} = {value_text(v)}" for name, v in graph.outputs]
    return [*lines, "}"]


def _readers_last(graph: Graph) -> list[int]:
    """All nodes, each right after what it reads, from the outputs back."""
    placed: dict[int, None] = {}
    for end in [*(value.node for _, value in graph.outputs), *graph.order()]:
        waiting = [(end, False)]
        while waiting:
            index, is_read = waiting.pop()
            if is_read:
                placed[index] = None
            elif index not in placed:
                waiting.append((index, True))
                waiting += [(value.node, False) for value in reversed(graph.operands(index))]
    return list(placed)


def _node_text(graph: Graph, index: int, number: int, operands: str, files: list[str]) -> str:
    node = graph.node(index)
    count = "" if len(node.types) == 1 else f":{len(node.types)}"
    text = f"%{number}{count} = {_word(node.op)}"
    if operands or node.regions:
        # Empty brackets keep a region's from being read as operands.
        text += f"({operands})"
    if node.name:
        text += f" {_string(node.name)}"
    attrs, literal = dict(node.attrs), ""
    if node.op == "constant" and "hash" in attrs:
        array = graph.constant(index)
        literal = " " + _array_text(array)
        if attrs["hash"] == content_hash(array):
            del attrs["hash"]
    if attrs:
        text += " {" + ", ".join(f"{_word(k)}={attr_text(v)}" for k, v in attrs.items()) + "}"
    text += literal
    if node.types:
        text += " : " + ", ".join(str(kind) for kind in node.types)
    return text + _place(node.span, files)


def _with_regions(text: str, node: Node, files: list[str], settled: bool) -> list[str]:
    if not node.regions:
        return [text]
    lines = [text + " ("]
    for region in node.regions:
        lines += ["  " + line for line in _graph_lines(region, files, settled)]
    return [*lines, ")"]


def _place(span: Span | None, files: list[str]) -> str:
    if span is None:
        return ""
    file = files.index(span.file)
    return f" @{span.line}:{span.column}" + (f"#{file}" if file else "")


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _word(text: str) -> str:
    return text if _NAME.fullmatch(text) else _string(text)


def _array_text(array: np.ndarray) -> str:
    dtype = next((name for name, kind in DTYPES.items() if kind == array.dtype), None)
    if dtype is None:
        raise TypeError(f"a constant of dtype {array.dtype} is not part of the IR")
    head = f"{dtype}{shape_text(array.shape)}"
    if array.size <= INLINE_ELEMENTS:
        values = [_number_text(x) for x in array.reshape(-1)]
        again = _array_of(values, array.dtype, array.shape)
        # A NaN with a payload is the one short constant that numbers do not hold.
        if again.tobytes() == array.tobytes():
            return f"{head} {_nested(values, array.shape)}"
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return f'{head} base64 "{base64.b64encode(little.tobytes()).decode()}"'


def _number_text(x: np.generic) -> str:
    if not isinstance(x, np.floating):
        return str(x)
    # The shortest form may round twice on its way back through float64; then the long one is used.
    short = str(x)
    return short if type(x)(float(short)) == x else repr(float(x))


def _nested(values: list[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return values[0]
    step = len(values) // shape[0] if shape[0] else 0
    parts = [values[i * step : (i + 1) * step] for i in range(shape[0])]
    return "[" + ", ".join(_nested(part, shape[1:]) for part in parts) + "]"


def _array_of(values: list[str], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    read: Callable[[str], Any] = float if dtype.kind == "f" else int
    numbers = [v == "True" if v in ("True", "False") else read(v) for v in values]
    return np.array(numbers, dtype=dtype).reshape(shape)


# ---------------------------------------------------------------- parsing

_NAME = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
_NUMBER = r"-?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|inf\b|nan\b)"
_TOKEN = re.compile(
    rf'(?P<space>\s+)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<value>%\d+)|(?P<number>{_NUMBER})'
    rf"|(?P<name>{_NAME.pattern})|(?P<sign>==|//|[-+*%=:(){{}}\[\],@<>#])"
)
_WORDS: dict[str, AttrValue] = {"None": None, "True": True, "False": False}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    place, line = 0, 1
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise GraphSyntaxError(line, f"unexpected character {text[place]!r}")
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match.group(), line, place, match.end()))
        line += match.group().count("\n")
        place = match.end()
    return [*tokens, _Token("end", "the end of the text", line, place, place)]


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0
        self.depth = 0
        self.files: list[str] = []

    # ------------------------------------------------------------ statements

    def graph(self) -> Graph:
        self.expect("graph")
        graph = Graph(self.string("the graph's name"))
        self.expect("{")
        inputs: list[int] | None = None
        with self.nested():
            while not self.accept("}"):
                if self.token.kind == "value":
                    self.node(graph)
                elif self.accept("inputs"):
                    inputs = self.inputs(graph)
                elif self.accept("require"):
                    self.require(graph)
                elif self.accept("output"):
                    name = self.string("the output's name")
                    self.expect("=")
                    graph.set_output(name, self.value(graph))
                else:
                    self.fail("a node (%0 = ...), inputs, require, output or }")
        if inputs is not None:
            graph.inputs = inputs
        return graph

    def node(self, graph: Graph) -> None:
        index = int(self.take().text[1:])
        if index != len(graph):
            self.fail_at(self.position - 1, f"%{len(graph)}, as nodes are numbered in order")
        count = self.whole("the number of results") if self.accept(":") else 1
        self.expect("=")
        op = self.word("an op")
        operands = self.listed(lambda: self.value(graph), ")") if self.accept("(") else []
        name = self.string("a name") if self.token.kind == "string" else ""
        attrs = dict(self.listed(self.attr, "}")) if self.accept("{") else {}
        if op == "constant" and self.token.kind == "name":
            array = self.array()
            digest = str(attrs.setdefault("hash", content_hash(array)))
            graph.constants[digest] = array
        types = self.types(count)
        span = self.span()
        regions: list[Graph] = []
        if self.accept("("):
            while not self.accept(")"):
                regions.append(self.graph())
        graph.add(op, operands, attrs, types, name, span, regions)
        if op == "input":
            graph.inputs.append(index)

    def inputs(self, graph: Graph) -> list[int]:
        if self.token.kind != "value":
            return []
        found = [self.value(graph).node]
        while self.accept(","):
            found.append(self.value(graph).node)
        return found

    def require(self, graph: Graph) -> None:
        left = self.size(lambda t: t.text == "==")
        self.expect("==")
        right = self.size(lambda t: t.kind == "string")
        why = self.string("the reason")
        graph.constraints.append(Constraint(left, right, why, self.span()))

    # ------------------------------------------------------------ parts

    def value(self, graph: Graph) -> Value:
        token = self.token
        if token.kind != "value":
            self.fail("a value such as %0")
        self.take()
        index = int(token.text[1:])
        if index not in graph:
            self.fail_at(self.position - 1, "a value that is defined above")
        result = self.whole("the number of a result") if self.accept(":") else 0
        if result >= len(graph.node(index).types):
            self.fail_at(self.position - 1, f"one of the results of %{index}")
        return Value(index, result)

    def attr(self) -> tuple[str, AttrValue]:
        key = self.word("an attribute")
        self.expect("=")
        return key, self.attr_value()

    def attr_value(self) -> AttrValue:
        token = self.token
        if token.kind == "string":
            return self.string("a string")
        if token.kind == "number":
            return _number(self.take().text)
        if token.kind == "name" and token.text in _WORDS:
            return _WORDS[self.take().text]
        if token.kind == "name" and token.text in ("inf", "nan"):
            return float(self.take().text)
        if self.accept("<"):
            size = self.size(lambda t: t.text == ">")
            self.expect(">")
            return size
        if self.accept("("):
            with self.nested():
                return tuple(self.listed(self.attr_value, ")"))
        self.fail("an attribute value (None, True, 1, 1.5, a string, <size> or a tuple)")

    def types(self, count: int) -> list[TensorType]:
        if count == 0:
            return []
        self.expect(":")
        found = [self.type()]
        while len(found) < count:
            self.expect(",")
            found.append(self.type())
        return found

    def type(self) -> TensorType:
        if self.token.text not in DTYPES:
            self.fail("an element type (" + ", ".join(DTYPES) + ")")
        dtype = self.take().text
        self.expect("[")
        return TensorType(dtype, tuple(self.listed(self.axis, "]")))

    def axis(self) -> DimLike:
        depth = 0

        def at_end(token: _Token) -> bool:
            nonlocal depth
            if depth == 0 and token.text in (",", "]"):
                return True
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            return False

        return self.size(at_end)

    def size(self, at_end: Callable[[_Token], bool]) -> DimLike:
        first = self.token
        while self.token.kind != "end" and not at_end(self.token):
            self.take()
        source = self.text[first.start : self.tokens[self.position].start]
        try:
            return parse_dim(source)
        except ValueError as error:
            raise GraphSyntaxError(first.line, f"expected a size: {error}") from error

    def array(self) -> np.ndarray:
        line = self.token.line
        kind = self.type()
        dtype, shape = DTYPES[kind.dtype], tuple(d for d in kind.shape if isinstance(d, int))
        if len(shape) != kind.rank:
            raise GraphSyntaxError(line, "expected a constant of known size")
        try:
            if self.accept("base64"):
                data = base64.b64decode(self.string("base64 data"), validate=True)
                little = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
                return little.astype(dtype)
            return _array_of(self.numbers(), dtype, shape)
        except (ValueError, OverflowError) as error:
            if isinstance(error, GraphSyntaxError):
                raise
            raise GraphSyntaxError(line, f"expected the values of {kind}: {error}") from error

    def numbers(self) -> list[str]:
        if self.accept("["):
            with self.nested():
                return [x for part in self.listed(self.numbers, "]") for x in part]
        if self.token.kind == "number" or self.token.text in ("True", "False", "inf", "nan"):
            return [self.take().text]
        self.fail("a number")

    def span(self) -> Span | None:
        if not self.accept("@"):
            return None
        line = self.whole("a line number")
        self.expect(":")
        column = self.whole("a column number")
        file = self.whole("the number of a source") if self.accept("#") else 0
        if file >= len(self.files):
            self.fail_at(self.position - 1, "the number of a source named at the top")
        return Span(self.files[file], line, column)

    # ------------------------------------------------------------ tokens

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def take(self) -> _Token:
        token = self.token
        self.position += token.kind != "end"
        return token

    def accept(self, text: str) -> bool:
        found = self.token.text == text and self.token.kind in ("name", "sign")
        self.position += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(repr(text))

    def listed(self, item: Callable[[], Any], close: str) -> list[Any]:
        """Items up to ``close``, which is taken too; a comma may end the list."""
        found: list[Any] = []
        while not self.accept(close):
            found.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return found

    def string(self, what: str) -> str:
        if self.token.kind != "string":
            self.fail(f"{what} in double quotes")
        token = self.take()
        try:
            return json.loads(token.text, strict=False)
        except ValueError as error:
            raise GraphSyntaxError(token.line, f"expected {what}: {error}") from error

    def word(self, what: str) -> str:
        if self.token.kind == "string":
            return self.string(what)
        # "inf" and "nan" are names here, numbers elsewhere.
        if self.token.kind != "name" and self.token.text not in ("inf", "nan"):
            self.fail(what)
        return self.take().text

    def whole(self, what: str) -> int:
        if not self.token.text.isdecimal():
            self.fail(what)
        return int(self.take().text)

    @contextmanager
    def nested(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} nested brackets")
        yield
        self.depth -= 1

    def fail(self, expected: str) -> NoReturn:
        self.fail_at(self.position, expected)

    def fail_at(self, position: int, expected: str) -> NoReturn:
        token = self.tokens[position]
        found = token.text if len(token.text) <= 40 else token.text[:37] + "..."
        raise GraphSyntaxError(token.line, f"expected {expected}, found {found}")


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
