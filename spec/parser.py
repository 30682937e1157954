"""From the text of a model block to statements: Lark's LALR tables, then dataclasses.

Each statement is parsed on its own, so that one wrong statement does not hide the others.
"""

from __future__ import annotations

import hashlib
import io
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree, v_args
from lark import __version__ as LARK_VERSION
from lark.exceptions import UnexpectedToken
from lark.lark import PostLex
from lark.visitors import Transformer_NonRecursive

from ..compiler.ir.types import Span
from ..runtime.disk_cache import read_entry, write_entry
from ..runtime.machine import cache_folder
from . import syntax as s
from .diagnostics import Diagnostic, Reporter
from .layout import MAX_FAULTS, Line, lines, token_span
from .unexpected import unexpected

MAX_NESTING = 150
MAX_TOKENS = 25_000
GRAMMAR = Path(__file__).with_name("grammar.lark")


@cache
def lark() -> Lark:
    """The lexer and the parser's tables: those of this grammar in the cache, else built anew."""
    text = GRAMMAR.read_text(encoding="utf-8")
    facts = (text, LARK_VERSION, sys.version_info[:2])
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:20]
    path = cache_folder() / "grammar" / f"{name}.bin"
    tables = read_entry(path)
    if tables is None:
        tables = _tables(text)
        with suppress(OSError):  # it costs the next process the time that it took
            write_entry(path, tables)
    return Lark.load(io.BytesIO(tables))


def _tables(text: str) -> bytes:
    made = Lark(
        text,
        parser="lalr",
        lexer="basic",
        start=["statement", "expr"],
        propagate_positions=True,
        maybe_placeholders=True,
        postlex=_KeepStray(),
    )
    buffer = io.BytesIO()
    made.save(buffer)
    return buffer.getvalue()


class _KeepStray(PostLex):
    """Keeps the terminal for stray characters among the lexer's, though no rule mentions it."""

    always_accept = ("STRAY",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        return stream


def parse_model(
    text: str, start: int, end: int, file: str, reporter: Reporter
) -> tuple[s.Statement, ...]:
    """Statements in ``text[start:end]``; faulty ones are reported and left out.

    After ``MAX_FAULTS`` of them the rest is not read.
    """
    found = []
    faults = 0
    for line in lines(lark(), text, start, end, file, reporter):
        statement = _parse_line(line, "statement", file, reporter)
        if statement is not None:
            found.append(statement)
        elif (faults := faults + 1) == MAX_FAULTS:
            break
    return tuple(found)


def parse_formula(text: str, start: int, end: int, file: str, reporter: Reporter) -> s.Expr | None:
    """One expression that fills ``text[start:end]``; ``None`` when it is empty or faulty."""
    faults = len(reporter.diagnostics)
    rows = lines(lark(), text, start, end, file, reporter, formula=True)
    if not rows or len(reporter.diagnostics) > faults:
        return None
    if len(rows) > 1:
        place = token_span(rows[1].tokens[0], file)
        reporter.report(Diagnostic("E201", "one formula is expected here, not statements", place))
        return None
    return _parse_line(rows[0], "expr", file, reporter)


def _parse_line(line: Line, start: str, file: str, reporter: Reporter) -> Any:
    if len(line.tokens) > MAX_TOKENS:
        message = f"the statement has {len(line.tokens)} words; {MAX_TOKENS} is the most"
        place = token_span(line.tokens[MAX_TOKENS], file)
        hint = "name a part with `def` or an equation; long tables belong to `options:`"
        reporter.report(Diagnostic("E207", message, place, hint=hint))
        return None
    for token in line.tokens:
        if token.type == "NUMBER" and math.isinf(float(token)):
            place = token_span(token, file)
            hint = "numbers have 64 bits: 1.8e308 is the largest"
            reporter.report(Diagnostic("E201", "this number is too large", place, hint=hint))
            return None
    interactive = lark().parse_interactive(start=start)
    try:
        for token in line.tokens:
            interactive.feed_token(token)
        tree = interactive.feed_eof(line.tokens[-1])
    except UnexpectedToken as fault:
        at_end = fault.token.type == "$END"
        place = len(line.tokens) if at_end else _place(line.tokens, fault.token)
        accepted = _accepted(line.tokens[:place], start)
        reporter.report(unexpected(line.tokens, place, accepted, file))
        return None
    built = _Build(file).transform(Tree("root", [tree]))
    return _check_depth(built, file, reporter)


def _place(tokens: tuple[Token, ...], token: Token) -> int:
    return next(i for i, other in enumerate(tokens) if other is token)


def _accepted(tokens: tuple[Token, ...], start: str) -> frozenset[str]:
    """The terminals that may follow; exact, as no reduction was made for a wrong one."""
    interactive = lark().parse_interactive(start=start)
    for token in tokens:
        interactive.feed_token(token)
    return frozenset(interactive.accepts())


def _check_depth(node: Any, file: str, reporter: Reporter) -> Any:
    level = [node]
    for _ in range(MAX_NESTING):
        level = [child for parent in level for child in s.children(parent)]
        if not level:
            return node
    deepest: Any = level[0]
    reporter.report(
        Diagnostic(
            "E207",
            f"the expression is nested more than {MAX_NESTING} deep",
            deepest.span,
            hint="name a part with `def` or an equation",
        )
    )
    return None


# ---------------------------------------------------------------- tree to dataclasses


@v_args(meta=True)
class _Build(Transformer_NonRecursive):
    """One method a grammar rule; each returns its dataclass."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def at(self, meta: Any) -> Span:
        if meta.empty:
            return Span(self.file, 0, 0)
        return Span(self.file, meta.line, meta.column, meta.start_pos, meta.end_pos)

    def root(self, meta: Any, c: list) -> Any:
        return c[0]

    def statement(self, meta: Any, c: list) -> Any:
        return c[0]

    # -------------------------------------------------------- statements

    def equation(self, meta: Any, c: list) -> s.Equation:
        return s.Equation(c[0], c[1], c[2], self.at(meta))

    def draw(self, meta: Any, c: list) -> s.Draw:
        return s.Draw(c[0], c[1], c[2], self.at(meta))

    def targets(self, meta: Any, c: list) -> tuple[s.Target, ...]:
        return tuple(c)

    def target(self, meta: Any, c: list) -> s.Target:
        return s.Target(str(c[0]), c[1], self.at(meta))

    def definition(self, meta: Any, c: list) -> s.Definition:
        return s.Definition(str(c[1]), c[2] or (), c[3], self.at(meta))

    definition_block = definition

    def parameters(self, meta: Any, c: list) -> tuple[s.Parameter, ...]:
        return tuple(c)

    def parameter(self, meta: Any, c: list) -> s.Parameter:
        return s.Parameter(str(c[0]), c[1], self.at(meta))

    def block(self, meta: Any, c: list) -> s.Block:
        return s.Block(tuple(x for x in c if not isinstance(x, Token)), self.at(meta))

    def factor(self, meta: Any, c: list) -> s.Factor:
        return s.Factor(c[1], c[2], self.at(meta))

    def fix(self, meta: Any, c: list) -> s.Fix:
        return s.Fix(c[1] or (), c[2], self.at(meta))

    def iterate(self, meta: Any, c: list) -> s.Iterate:
        return s.Iterate(c[1] or (), c[2], c[4], self.at(meta))

    def input(self, meta: Any, c: list) -> s.Input:
        return s.Input(c[1], c[2], self.at(meta))

    def param(self, meta: Any, c: list) -> s.Param:
        return s.Param(c[1], c[2], c[3], self.at(meta))

    def index(self, meta: Any, c: list) -> s.Index:
        return s.Index(c[1], c[2], self.at(meta))

    def name_set(self, meta: Any, c: list) -> s.NameSet:
        return s.NameSet(tuple(str(x) for x in c), self.at(meta))

    def const(self, meta: Any, c: list) -> s.Const:
        return s.Const(str(c[1]), c[2], self.at(meta))

    def state(self, meta: Any, c: list) -> s.State:
        return s.State(str(c[1]), c[2], self.at(meta))

    def output(self, meta: Any, c: list) -> s.Output:
        return s.Output(tuple(c[1:]), self.at(meta))

    def result(self, meta: Any, c: list) -> s.Result:
        return s.Result(c[0], None, self.at(meta))

    def named_result(self, meta: Any, c: list) -> s.Result:
        return s.Result(c[1], str(c[0]), self.at(meta))

    def names(self, meta: Any, c: list) -> tuple[str, ...]:
        return tuple(str(x) for x in c)

    def type(self, meta: Any, c: list) -> s.TypeExpr:
        return s.TypeExpr(str(c[0]), tuple(x for x in c[1:] if x is not None), self.at(meta))

    def for_clause(self, meta: Any, c: list) -> s.ForClause:
        binders = tuple(x for x in c if isinstance(x, s.Binder))
        rest = c[1 + len(binders) :]
        condition = next((x for x in rest if x is not None and not isinstance(x, Token)), None)
        return s.ForClause(binders, condition, self.at(meta))

    def binder(self, meta: Any, c: list) -> s.Binder:
        return s.Binder(tuple(c[:-2]), c[-1], self.at(meta))

    def binder_item(self, meta: Any, c: list) -> tuple[str, ...]:
        return (str(c[0]),)

    def binder_tuple(self, meta: Any, c: list) -> tuple[str, ...]:
        return tuple(str(x) for x in c)

    # -------------------------------------------------------- expressions

    def conditional(self, meta: Any, c: list) -> s.Conditional:
        return s.Conditional(c[1], c[3], c[5], self.at(meta))

    def binary(self, meta: Any, c: list) -> s.Binary:
        return s.Binary(str(c[1]), c[0], c[2], self.at(meta))

    def unary(self, meta: Any, c: list) -> s.Unary:
        return s.Unary(str(c[0]), c[1], self.at(meta))

    def interval(self, meta: Any, c: list) -> s.Interval:
        return s.Interval(c[0], c[2], self.at(meta))

    def pipe(self, meta: Any, c: list) -> s.Pipe:
        return s.Pipe(tuple(x for x in c if not isinstance(x, Token)), self.at(meta))

    def reduction(self, meta: Any, c: list) -> s.Reduction:
        return s.Reduction(str(c[0]), c[1], c[3], c[4], self.at(meta))

    def reducer_binders(self, meta: Any, c: list) -> tuple[tuple[str, Any], ...]:
        return tuple(c)

    def reducer_binder(self, meta: Any, c: list) -> tuple[str, Any]:
        return (str(c[0]), c[2])

    def label(self, meta: Any, c: list) -> s.Label:
        quoted = c[2].type == "STRING"
        return s.Label(c[0], str(c[2]).strip('"') if quoted else str(c[2]), quoted, self.at(meta))

    def call(self, meta: Any, c: list) -> s.Call:
        return s.Call(c[0], c[1] or (), self.at(meta))

    def arguments(self, meta: Any, c: list) -> tuple[s.Argument, ...]:
        return tuple(x for x in c if x is not None)

    def argument(self, meta: Any, c: list) -> s.Argument:
        return s.Argument(c[0], None, None, self.at(meta))

    def keyword_argument(self, meta: Any, c: list) -> s.Argument:
        return s.Argument(c[1], str(c[0]), None, self.at(meta))

    def weighted_argument(self, meta: Any, c: list) -> s.Argument:
        return s.Argument(c[1], None, c[0], self.at(meta))

    def subscript(self, meta: Any, c: list) -> s.Subscript:
        return s.Subscript(c[0], c[1], self.at(meta))

    def items(self, meta: Any, c: list) -> tuple[Any, ...]:
        return tuple(c)

    def whole_axis(self, meta: Any, c: list) -> s.WholeAxis:
        return s.WholeAxis(self.at(meta))

    def member(self, meta: Any, c: list) -> s.Member:
        return s.Member(c[0], str(c[1]), self.at(meta))

    def number(self, meta: Any, c: list) -> s.Number:
        text = str(c[0])
        value: int | float = float(text) if set(text) & set(".eE") else int(text)
        return s.Number(value, text, self.at(meta))

    def string(self, meta: Any, c: list) -> s.String:
        return s.String(str(c[0])[1:-1], self.at(meta))

    def true(self, meta: Any, c: list) -> s.Boolean:
        return s.Boolean(True, self.at(meta))

    def false(self, meta: Any, c: list) -> s.Boolean:
        return s.Boolean(False, self.at(meta))

    def name(self, meta: Any, c: list) -> s.Name:
        return s.Name(str(c[0]), self.at(meta))

    def group(self, meta: Any, c: list) -> s.Group:
        return s.Group(c[0], self.at(meta))

    def tuple(self, meta: Any, c: list) -> s.Tuple:
        return s.Tuple(tuple(x for x in c if x is not None), self.at(meta))

    def list(self, meta: Any, c: list) -> s.List:
        return s.List(tuple(x for x in c if x is not None), self.at(meta))

    def comprehension(self, meta: Any, c: list) -> s.Comprehension:
        return s.Comprehension(c[0], c[1], self.at(meta))

    def fn(self, meta: Any, c: list) -> s.Fn:
        return s.Fn(c[1], c[2], self.at(meta))
