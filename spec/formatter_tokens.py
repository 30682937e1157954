"""The tokens of a text as the formatter sees them, and which of them a space parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lark import Token

from . import syntax as s
from .diagnostics import Reporter
from .layout import lines
from .parser import lark


@dataclass(frozen=True)
class Comment:
    """A comment; ``column`` is where it starts when only spaces stand before it."""

    text: str
    start: int
    line: int
    own_line: bool
    column: int | None


@dataclass
class Stream:
    """The tokens of a text with what decides their layout; places are positions in ``tokens``."""

    tokens: list[Token]
    statements: set[int]
    comments: list[list[Comment]]  # before each token, and after the last
    columns: list[int] = field(default_factory=list)  # where the author put each token
    runs: list[int] = field(default_factory=list)  # how many spaces the author put before it
    leads: set[int] = field(default_factory=set)  # tokens with only spaces before them
    partner: dict[int, int] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)  # opening braces that enclose statements
    opener: list[int] = field(default_factory=list)  # the innermost open bracket, -1 where none is
    depth: list[int] = field(default_factory=list)  # how many brackets are open
    owner: list[int] = field(default_factory=list)  # the first token of each token's statement
    breaks: dict[int, int | None] = field(default_factory=dict)
    """Tokens that start a row within a statement; the column of the author's row, where known."""
    expanded: set[int] = field(default_factory=set)  # blocks with one statement a row

    def inside(self, i: int) -> str:
        """The type of the innermost open bracket, ``block`` among statements."""
        opener = self.opener[i]
        return "block" if opener < 0 or opener in self.blocks else self.tokens[opener].type

    def ends_operand(self, i: int) -> bool:
        """Whether an operand ends with a token, so that ``(`` calls it and ``-`` subtracts."""
        token = self.tokens[i].type
        return token in _OPERAND_END or (token == "RBRACE" and self.partner[i] in self.blocks)

    def is_unary_minus(self, i: int) -> bool:
        """Whether a token is a minus with one operand."""
        return self.tokens[i].type == "MINUS" and not (i > 0 and self.ends_operand(i - 1))

    def starts_block_row(self, i: int) -> bool:
        """Whether a token starts a statement or closes a block."""
        closes = self.tokens[i].type == "RBRACE" and self.partner[i] in self.blocks
        return i in self.statements or closes

    def place_before(self) -> dict[int, int]:
        """From the offset where an operand starts to the place of the token before it."""
        return {token.start_pos or 0: i - 1 for i, token in enumerate(self.tokens)}


def make_stream(text: str, start: int, end: int, formula: bool) -> Stream:
    """The stream of ``text[start:end]``, which parses; of one expression when ``formula``."""
    tokens: list[Token] = []
    statements: set[int] = set()
    for line in lines(lark(), text, start, end, "", Reporter(), formula):
        fresh = True
        for token in line.tokens:
            if token.type == "_NL":
                fresh = True
                continue
            if fresh:
                statements.add(len(tokens))
            fresh = False
            tokens.append(token)
    comments: list[list[Comment]] = [[] for _ in range(len(tokens) + 1)]
    waiting = 0
    for comment in find_comments(text, start, end):
        while waiting < len(tokens) and (tokens[waiting].start_pos or 0) < comment.start:
            waiting += 1
        comments[waiting].append(comment)
    stream = Stream(tokens, statements, comments)
    _measure(stream, text, start)
    _pair_brackets(stream)
    return stream


def find_comments(text: str, start: int, end: int) -> list[Comment]:
    """The comments of ``text[start:end]`` in order."""
    found = []
    line, counted = text.count("\n", 0, start) + 1, start
    for match in re.finditer(r'"[^"\n]*"|#[^\n]*', text[start:end]):
        place = start + match.start()
        line += text.count("\n", counted, place)
        counted = place
        if match[0].startswith("#"):
            before = text[max(start, text.rfind("\n", start, place) + 1) : place]
            column = None if before.strip(" ") else len(before)
            found.append(Comment(match[0].rstrip(), place, line, not before.strip(), column))
    return found


def _measure(stream: Stream, text: str, start: int) -> None:
    """Where the author put each token; a tab counts as no spaces, for it has no width."""
    done = start
    for i, token in enumerate(stream.tokens):
        place = token.start_pos or 0
        row_start = max(start, text.rfind("\n", start, place) + 1)
        gap = text[done:place]
        stream.columns.append(place - row_start)
        stream.runs.append(0 if gap.strip(" ") else len(gap))
        if not text[row_start:place].strip(" "):
            stream.leads.add(i)
        done = token.end_pos or 0


def _pair_brackets(stream: Stream) -> None:
    stack: list[int] = []
    owners = [0]  # of the open statements, the innermost last
    for i, token in enumerate(stream.tokens):
        if token.type in ("RPAR", "RSQB", "RBRACE"):
            opener = stack.pop()
            stream.partner[i], stream.partner[opener] = opener, i
            if opener in stream.blocks:
                owners.pop()
        if stack and stack[-1] == i - 1 and stack[-1] in stream.blocks:
            stream.statements.add(i)
            owners.append(i)
        elif i in stream.statements:
            owners[-1] = i
        stream.owner.append(owners[-1])
        stream.opener.append(stack[-1] if stack else -1)
        stream.depth.append(len(stack))
        if token.type in ("LPAR", "LSQB", "LBRACE"):
            before = stream.tokens[i - 1].type
            if token.type == "LBRACE" and before not in ("REDUCER", "COLON"):
                stream.blocks.add(i)
            stack.append(i)


# ---------------------------------------------------------------- spaces

_OPERAND_END = {"NAME", "NUMBER", "STRING", "RPAR", "RSQB", "TRUE", "FALSE"}
_GLUED = {"DOT", "DOTS", "CARET"}
_EQUATING = "logp"
"""The call whose ``=`` says that a variable has a value: ``logp(y = label)``."""


def spaces_between(stream: Stream, trees: Iterable[object]) -> list[bool]:
    """Whether a space stands before each token when it does not start a row."""
    glued = _tight_operators(stream, trees)
    glued |= {i for i, token in enumerate(stream.tokens) if token.type in _GLUED}
    glued |= {i for i in range(len(stream.tokens)) if _names_argument(stream, i)}
    spaces = [False]
    for i in range(1, len(stream.tokens)):
        touching = i in glued or i - 1 in glued or stream.is_unary_minus(i - 1)
        spaces.append(not touching and _space_between(stream, i))
    return spaces


def _names_argument(stream: Stream, i: int) -> bool:
    opener = stream.opener[i]
    is_equal = stream.tokens[i].type == "EQUAL" and stream.inside(i) == "LPAR"
    return is_equal and stream.tokens[opener - 1].value != _EQUATING


def _space_between(stream: Stream, i: int) -> bool:
    before, token = stream.tokens[i - 1].type, stream.tokens[i].type
    if before == "LBRACE":
        return i - 1 in stream.blocks
    if token == "RBRACE":
        return stream.partner[i] in stream.blocks
    if token == "LBRACE":
        return before != "REDUCER"
    if token == "COLON":
        return stream.inside(i) == "block" or (stream.inside(i) == "LSQB" and before == "COMMA")
    if token in ("LPAR", "LSQB"):
        head = before in ("LPAR", "LSQB", "FN", "FIX", "ITERATE")
        return not head and not stream.ends_operand(i - 1)
    return token not in ("COMMA", "RPAR", "RSQB") and before not in ("LPAR", "LSQB")


def _tight_operators(stream: Stream, trees: Iterable[object]) -> set[int]:
    """Places of ``* / + -`` that are written without spaces."""
    place_before = stream.place_before()
    tight: set[int] = set()
    # node, in brackets, a whole argument or size, fills an index or an end of a range, a factor
    stack = [(tree, False, False, False, False) for tree in trees]
    while stack:
        node, inside, argument, index, factor = stack.pop()
        product = False
        if isinstance(node, s.Binary):
            product = node.op in ("*", "/", "@", "%")
            if _is_scaled(node, inside, argument) and not factor:
                tight.add(place_before[node.right.span.start])
            if index and node.op in ("+", "-") and _is_simple(node.left, node.right):
                tight.add(place_before[node.right.span.start])
        for child in s.children(node):
            stack.append((child, *_surroundings(node, child, inside), product))
    return tight


def _is_scaled(node: s.Binary, inside: bool, argument: bool) -> bool:
    """Whether a product reads as one size or factor (``4*w``, ``c/2``, ``2*x[i]``)."""
    if node.op not in ("*", "/"):
        return False
    numbers = isinstance(node.left, s.Number) or isinstance(node.right, s.Number)
    plain = isinstance(node.left, _PLAIN) and isinstance(node.right, _PLAIN)
    coefficient = node.op == "*" and _is_simple(node.left, node.right) and numbers
    return (argument and plain) or (inside and (coefficient or (plain and numbers)))


_PLAIN = (s.Name, s.Number)


def _is_simple(*operands: object) -> bool:
    return all(isinstance(operand, (*_PLAIN, s.Subscript)) for operand in operands)


def _surroundings(node: object, child: object, inside: bool) -> tuple[bool, bool, bool]:
    """Whether a child is in brackets, a whole argument or size, and fills an index or range end."""
    match node:
        case s.Subscript(base=base):
            return (inside, False, False) if child is base else (True, True, True)
        case s.Call(function=function):
            return (inside, False, False) if child is function else (True, False, False)
        case s.Argument() | s.Parameter():
            return True, True, False
        case s.Target() | s.TypeExpr() | s.Interval():
            return True, True, True
        case s.Reduction(body=body):
            return (inside, False, False) if child is body else (True, False, False)
        case s.Group() | s.Tuple() | s.List() | s.Comprehension():
            return True, False, False
        case s.Binary(op="==" | "!=" | "<" | "<=" | ">" | ">="):
            return True, False, False
        case s.Block():
            return False, False, False
    return inside, False, False
