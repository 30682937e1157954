"""The one style of the model language: spaces, indentation and line breaks; comments are kept.

Operators are spaced, except ``^``, ``..``, ``.`` and unary minus; ``*`` and ``/`` between a number
and a name inside brackets (``4*w``, ``c/2``); ``+`` and ``-`` of two names or numbers that fill an
index or an end of a range (``t-1``, ``0..n+1``). The author's line breaks stay, before an operator
rather than after it; a row over 100 columns opens its block or breaks
before each ``>>`` of its outermost chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lark import Token

from . import syntax as s
from .diagnostics import Reporter
from .layout import lines
from .parser import lexer, parse_formula, parse_model
from .source import make_source
from .yaml_nodes import MappingNode, Node, ScalarNode, SequenceNode, read_yaml

WIDTH = 100
BLOCK_INDENT = 2
CONTINUATION = 4
FORMULA_SECTIONS = ("model", "train")
"""Top-level keys whose literal blocks hold statements of the model language."""


def format_model(text: str, file: str = "model") -> str:
    """The text of a model block in the one style; raises ``SpecError`` when it does not parse."""
    return _format(text, 0, len(text), file, {file: text})


def format_formula(text: str, file: str = "formula") -> str:
    """One expression in the one style, without a line end."""
    reporter = Reporter({file: text})
    tree = parse_formula(text, 0, len(text), file, reporter)
    reporter.raise_if_failed()
    styled = _styled(text, 0, len(text), () if tree is None else (tree,), formula=True)
    again = parse_formula(styled, 0, len(styled), file, reporter)
    assert again == tree and _comments(styled) == _comments(text), "formatting changed a formula"
    return styled.removesuffix("\n")


def format_spec(text: str, file: str) -> str:
    """A whole spec file: its formula blocks in the one style, the YAML around them as it is.

    Only spaces at line ends are taken from the YAML. Raises ``SpecError`` when YAML or a block
    does not parse.
    """
    reporter = Reporter({file: text})
    root = read_yaml(make_source(text, file), reporter)
    reporter.raise_if_failed()
    newline = "\r\n" if "\r\n" in text else "\n"
    parts: list[str] = []
    done = 0
    for block in _formula_blocks(root):
        start, end = _block_rows(text, block)
        indent = _block_indent(text, block)
        body = _format(text, start, end, file, {file: text})
        rows = [" " * indent + row if row else "" for row in body.splitlines()]
        parts += [_without_trailing_spaces(text[done:start]), newline.join(rows)]
        done = end
    return "".join(parts) + _without_trailing_spaces(text[done:])


# ---------------------------------------------------------------- the YAML around blocks


def _formula_blocks(root: Node | None) -> list[ScalarNode]:
    found: list[ScalarNode] = []
    if isinstance(root, MappingNode):
        for entry in root.entries:
            if entry.key.text in FORMULA_SECTIONS:
                found += _literals(entry.value)
    return sorted(found, key=lambda block: block.content.start)


def _literals(node: Node) -> list[ScalarNode]:
    if isinstance(node, ScalarNode):
        visible = node.content.end > node.content.start
        return [node] if node.style == "literal" and visible else []
    if isinstance(node, SequenceNode):
        return [found for item in node.items for found in _literals(item)]
    if isinstance(node, MappingNode):
        return [found for entry in node.entries for found in _literals(entry.value)]
    return []


def _block_rows(text: str, block: ScalarNode) -> tuple[int, int]:
    """From the start of the block's first visible row to the end of its last one's text."""
    return text.rfind("\n", 0, block.content.start) + 1, block.content.end


def _block_indent(text: str, block: ScalarNode) -> int:
    """Two more than the key's row, unless the header says how many (``|4``)."""
    row_start = text.rfind("\n", 0, block.span.start) + 1
    # The item of a list is as deep as the text behind its dashes.
    parent = len(re.match(r" *(?:- +)*", text[row_start:])[0])  # type: ignore[index]
    given = re.match(r"\|[+-]?([1-9])", text[block.span.start :])
    return parent + (int(given[1]) if given else BLOCK_INDENT)


def _without_trailing_spaces(text: str) -> str:
    return re.sub(r"[ \t]+(?=\r?\n|\Z)", "", text)


# ---------------------------------------------------------------- one block of statements


@dataclass
class _Row:
    """One line of output."""

    indent: int
    text: str
    places: list[int]  # of its tokens; none when it is a comment
    comment: str = ""
    blank_before: bool = False

    @property
    def width(self) -> int:
        return self.indent + len(self.text)


@dataclass(frozen=True)
class _Comment:
    text: str
    start: int
    line: int
    own_line: bool


@dataclass
class _Stream:
    """The tokens of a text with what decides their layout; places are positions in ``tokens``."""

    tokens: list[Token]
    statements: set[int]
    comments: list[list[_Comment]]  # before each token, and after the last
    partner: dict[int, int] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)  # opening braces that enclose statements
    inside: list[str] = field(default_factory=list)  # the innermost open bracket before each token
    breaks: set[int] = field(default_factory=set)  # before these tokens, within a statement
    expanded: set[int] = field(default_factory=set)  # blocks with one statement a row


def _format(text: str, start: int, end: int, file: str, sources: dict[str, str]) -> str:
    reporter = Reporter(sources)
    trees = parse_model(text, start, end, file, reporter)
    reporter.raise_if_failed()
    styled = _styled(text, start, end, trees)
    again = parse_model(styled, 0, len(styled), file, reporter)
    same = again == trees and _comments(styled) == _comments(text[start:end])
    assert same, "formatting changed a model"
    return styled


def _comments(text: str) -> list[str]:
    return sorted(comment.text for comment in _find_comments(text, 0, len(text)))


def _find_comments(text: str, start: int, end: int) -> list[_Comment]:
    found = []
    line, counted = text.count("\n", 0, start) + 1, start
    for match in re.finditer(r'"[^"\n]*"|#[^\n]*', text[start:end]):
        place = start + match.start()
        line += text.count("\n", counted, place)
        counted = place
        if match[0].startswith("#"):
            row_start = max(start, text.rfind("\n", start, place) + 1)
            own_line = not text[row_start:place].strip()
            found.append(_Comment(match[0].rstrip(), place, line, own_line))
    return found


def _styled(
    text: str, start: int, end: int, trees: tuple[s.Statement | s.Expr, ...], formula: bool = False
) -> str:
    stream = _stream(text, start, end, formula)
    spaces = _spaces(stream, _tight_operators(stream, trees))
    _keep_breaks(stream, spaces)
    chains = _chains(stream, trees)
    rows = _rows(stream, spaces)
    while _break_long(rows, stream, chains):
        rows = _rows(stream, spaces)
    return "".join(row + "\n" for row in _print(rows))


def _stream(text: str, start: int, end: int, formula: bool) -> _Stream:
    tokens: list[Token] = []
    statements: set[int] = set()
    for line in lines(lexer(), text, start, end, "", Reporter(), formula):
        fresh = True
        for token in line.tokens:
            if token.type == "_NL":
                fresh = True
                continue
            if fresh:
                statements.add(len(tokens))
            fresh = False
            tokens.append(token)
    comments: list[list[_Comment]] = [[] for _ in range(len(tokens) + 1)]
    waiting = 0
    for comment in _find_comments(text, start, end):
        while waiting < len(tokens) and (tokens[waiting].start_pos or 0) < comment.start:
            waiting += 1
        comments[waiting].append(comment)
    stream = _Stream(tokens, statements, comments)
    _pair_brackets(stream)
    return stream


def _pair_brackets(stream: _Stream) -> None:
    stack: list[int] = []
    for i, token in enumerate(stream.tokens):
        if token.type in ("RPAR", "RSQB", "RBRACE"):
            opener = stack.pop()
            stream.partner[i], stream.partner[opener] = opener, i
        if stack and stack[-1] == i - 1 and stack[-1] in stream.blocks:
            stream.statements.add(i)
        stream.inside.append(_kind(stream, stack[-1]) if stack else "block")
        if token.type in ("LPAR", "LSQB", "LBRACE"):
            before = stream.tokens[i - 1].type
            if token.type == "LBRACE" and before not in ("REDUCER", "COLON"):
                stream.blocks.add(i)
            stack.append(i)


def _kind(stream: _Stream, opener: int) -> str:
    return "block" if opener in stream.blocks else stream.tokens[opener].type


# ---------------------------------------------------------------- spaces

_OPERAND_END = {"NAME", "NUMBER", "STRING", "RPAR", "RSQB", "TRUE", "FALSE"}
_GLUED = {"DOT", "DOTS", "CARET"}
_SIMPLE = (s.Name, s.Number, s.Subscript)


def _spaces(stream: _Stream, tight: set[int]) -> list[bool]:
    """Whether a space stands before each token when it does not start a row."""
    glued = tight | {i for i, token in enumerate(stream.tokens) if token.type in _GLUED}
    glued |= {
        i
        for i, token in enumerate(stream.tokens)
        if token.type == "EQUAL" and stream.inside[i] == "LPAR"
    }
    spaces = [False]
    for i in range(1, len(stream.tokens)):
        touching = i in glued or i - 1 in glued or _is_unary_minus(stream, i - 1)
        spaces.append(not touching and _space_between(stream, i))
    return spaces


def _space_between(stream: _Stream, i: int) -> bool:
    before, token = stream.tokens[i - 1].type, stream.tokens[i].type
    if before == "LBRACE":
        return i - 1 in stream.blocks
    if token == "RBRACE":
        return stream.partner[i] in stream.blocks
    if token == "LBRACE":
        return before != "REDUCER"
    if token == "COLON":
        return stream.inside[i] == "block" or (stream.inside[i] == "LSQB" and before == "COMMA")
    if token in ("LPAR", "LSQB"):
        return not _ends_operand(stream, i - 1) and before not in (
            "LPAR",
            "LSQB",
            "FN",
            "FIX",
            "ITERATE",
        )
    return token not in ("COMMA", "RPAR", "RSQB") and before not in ("LPAR", "LSQB")


def _ends_operand(stream: _Stream, i: int) -> bool:
    token = stream.tokens[i].type
    return token in _OPERAND_END or (token == "RBRACE" and stream.partner[i] in stream.blocks)


def _is_unary_minus(stream: _Stream, i: int) -> bool:
    return stream.tokens[i].type == "MINUS" and not (i > 0 and _ends_operand(stream, i - 1))


def _tight_operators(stream: _Stream, trees: Iterable[object]) -> set[int]:
    """Places of ``* / + -`` that are written without spaces."""
    operator_before = _operator_places(stream)
    tight: set[int] = set()
    # node, in brackets, fills an index or an end of a range, operand of a product
    stack = [(tree, False, False, False) for tree in trees]
    while stack:
        node, inside, whole, factor = stack.pop()
        product = False
        if isinstance(node, s.Binary):
            product = node.op in ("*", "/", "@", "%")
            simple = isinstance(node.left, _SIMPLE) and isinstance(node.right, _SIMPLE)
            number = isinstance(node.left, s.Number) or isinstance(node.right, s.Number)
            scaled = node.op in ("*", "/") and inside and number and not factor
            if simple and (scaled or (whole and node.op in ("+", "-"))):
                tight.add(operator_before[node.right.span.start])
        for child in s.children(node):
            stack.append((child, *_surroundings(node, child, inside), product))
    return tight


def _surroundings(node: object, child: object, inside: bool) -> tuple[bool, bool]:
    """Whether a child stands in brackets, and whether it fills an index or an end of a range."""
    match node:
        case s.Subscript(base=base):
            return (inside, False) if child is base else (True, True)
        case s.Call(function=function):
            return (inside, False) if child is function else (True, False)
        case s.Target() | s.TypeExpr() | s.Interval():
            return True, True
        case s.Reduction(body=body):
            return (inside, False) if child is body else (True, False)
        case s.Group() | s.Tuple() | s.List() | s.Comprehension():
            return True, False
        case s.Block():
            return False, False
    return inside, False


def _operator_places(stream: _Stream) -> dict[int, int]:
    """From the offset where an operand starts to the place of the token before it."""
    return {token.start_pos or 0: i - 1 for i, token in enumerate(stream.tokens)}


# ---------------------------------------------------------------- line breaks

_MOVED = {
    "PIPE", "ADD", "MINUS", "MUL", "BAR", "CARET", "COMPARE", "DOTS", "AND", "OR", "AS", "DOT",
}  # fmt: skip


def _keep_breaks(stream: _Stream, spaces: list[bool]) -> None:
    """The author's breaks, moved from behind an operator or before a comma to its other side."""
    tokens = stream.tokens
    for opener in stream.blocks:
        if tokens[opener].line != tokens[stream.partner[opener]].line:
            stream.expanded.add(opener)
    for i in range(1, len(tokens)):
        if tokens[i - 1].line == tokens[i].line or _starts_block_row(stream, i):
            continue
        if tokens[i - 1].type in _MOVED and not _is_unary_minus(stream, i - 1):
            stream.comments[i - 1] += stream.comments[i]
            stream.comments[i] = []
            stream.breaks.add(i - 1)
        elif stream.comments[i]:
            stream.breaks.add(i)
        elif tokens[i].type == "COMMA":
            stream.breaks.add(i + 1)
        elif _may_break(stream, spaces, i):
            stream.breaks.add(i)


def _may_break(stream: _Stream, spaces: list[bool], i: int) -> bool:
    before, token = stream.tokens[i - 1].type, stream.tokens[i].type
    if before in ("LPAR", "LSQB") or token in ("RPAR", "RSQB"):
        return True
    infix = token in _MOVED and not _is_unary_minus(stream, i)
    return (spaces[i] or infix) and i not in stream.blocks and before != "NOT"


def _starts_block_row(stream: _Stream, i: int) -> bool:
    """Whether a token starts a statement or closes a block."""
    closes = stream.tokens[i].type == "RBRACE" and stream.partner[i] in stream.blocks
    return i in stream.statements or closes


def _chains(stream: _Stream, trees: Iterable[object]) -> list[list[int]]:
    """The places of each chain's ``>>``, outer chains first."""
    before = _operator_places(stream)
    nodes = [node for tree in trees for node in s.walk(tree)]
    pipes = [node for node in nodes if isinstance(node, s.Pipe)]
    return [[before[part.span.start] for part in pipe.parts[1:]] for pipe in pipes]


def _break_long(rows: list[_Row], stream: _Stream, chains: list[list[int]]) -> bool:
    """Open the outermost block or chain of each row that is too long; whether there was one."""
    row_of = [0] * len(stream.tokens)
    for number, row in enumerate(rows):
        for i in row.places:
            row_of[i] = number
    long = {number for number, row in enumerate(rows) if row.width > WIDTH}
    changed = False
    for opener in sorted(stream.blocks - stream.expanded):
        if row_of[opener] in long:
            long.discard(row_of[opener])
            stream.expanded.add(opener)
            changed = True
    for chain in chains:
        unbroken = [i for i in chain if i not in stream.breaks and row_of[i] in long]
        if unbroken:
            long -= {row_of[i] for i in unbroken}
            stream.breaks |= set(unbroken)
            changed = True
    return changed


# ---------------------------------------------------------------- rows


def _rows(stream: _Stream, spaces: list[bool]) -> list[_Row]:
    rows: list[_Row] = []
    opened: list[tuple[int, int]] = []  # opening bracket, indent of its row
    line = 0  # of the last thing that was placed
    for i, token in enumerate(stream.tokens):
        closes = token.type in ("RPAR", "RSQB", "RBRACE")
        new_row = i in stream.breaks
        if _starts_block_row(stream, i):
            new_row = not opened or opened[-1][0] in stream.expanded
        if new_row:
            first = not rows or (bool(opened) and opened[-1][0] == i - 1)
            in_block = _starts_block_row(stream, i)
            indent = _indent(stream, opened, in_block)
            for comment in stream.comments[i]:
                apart = in_block and not first and comment.line - line > 1
                first = not _add_comment(rows, comment, indent, apart) and first
                line = comment.line
            apart = i in stream.statements and not first and (token.line or 0) - line > 1
            indent = opened[-1][1] if closes else indent
            rows.append(_Row(indent, token.value, [i], blank_before=apart))
        else:
            rows[-1].text += " " * spaces[i] + token.value
            rows[-1].places.append(i)
        line = token.line or 0
        if closes:
            opened.pop()
        elif token.type in ("LPAR", "LSQB", "LBRACE"):
            opened.append((i, rows[-1].indent))
    for comment in stream.comments[-1]:
        _add_comment(rows, comment, 0, bool(rows) and comment.line - line > 1)
        line = comment.line
    return rows


def _indent(stream: _Stream, opened: list[tuple[int, int]], in_block: bool) -> int:
    deeper = 0 if in_block else CONTINUATION
    if not opened:
        return deeper
    opener, indent = opened[-1]
    return indent + (BLOCK_INDENT + deeper if opener in stream.blocks else CONTINUATION)


def _add_comment(rows: list[_Row], comment: _Comment, indent: int, apart: bool) -> bool:
    """Put a comment behind the last row or on its own; whether it got a row."""
    if comment.own_line or rows[-1].comment or not rows[-1].places:
        rows.append(_Row(indent, comment.text, [], blank_before=apart))
        return True
    rows[-1].comment = comment.text
    return False


def _print(rows: list[_Row]) -> list[str]:
    """Rows as text; the comments behind adjacent rows stand in one column."""
    printed: list[str] = []
    for number, row in enumerate(rows):
        text = " " * row.indent + row.text
        if row.comment:
            text = text.ljust(_comment_column(rows, number)) + row.comment
        printed += [""] * row.blank_before + [text]
    return printed


def _comment_column(rows: list[_Row], number: int) -> int:
    first = last = number
    while (
        rows[first].comment
        and not rows[first].blank_before
        and first > 0
        and rows[first - 1].comment
    ):
        first -= 1
    while last + 1 < len(rows) and rows[last + 1].comment and not rows[last + 1].blank_before:
        last += 1
    return max(row.width for row in rows[first : last + 1]) + 2
