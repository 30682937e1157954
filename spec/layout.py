"""Where statements end: from the flat token stream to one token list a statement.

A line ends a statement unless it is open: inside ``()`` or ``[]`` or the braces of a reducer or a
name set, or when an infix operator stands at its end or at the start of the next line. A word such
as ``input`` is a keyword only where a statement starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lark import Lark, TextSlice, Token
from lark.exceptions import UnexpectedCharacters

from ..compiler.ir.types import Span
from .diagnostics import Diagnostic, Label, Reporter

STATEMENT_WORDS = (
    "def", "factor", "fix", "iterate", "input", "param", "index", "const", "state", "output",
)  # fmt: skip
EXPRESSION_WORDS = (
    "for", "in", "if", "then", "else", "until", "and", "or", "not", "as", "fn", "true", "false",
)  # fmt: skip
OPENING = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
CLOSING = {"RPAR", "RSQB", "RBRACE"}
MAX_DEPTH = 60

# A line is open after or before one of these. Words bind lines too: no statement starts with them.
_INFIX = {"PIPE", "ADD", "MUL", "BAR", "CARET", "COMPARE", "__ANON_0", "AND", "OR", "AS", "IN"}
_OPEN_AFTER = _INFIX | {
    "MINUS", "EQUAL", "TILDE", "COMMA", "COLON", "IF", "THEN", "ELSE", "FOR", "NOT", "UNTIL", "DOT",
}  # fmt: skip
_OPEN_BEFORE = _INFIX | {"MINUS", "THEN", "ELSE", "FOR", "IF", "UNTIL", "DOT", "EQUAL", "TILDE"}


@dataclass(frozen=True)
class Line:
    """The tokens of one top-level statement."""

    tokens: tuple[Token, ...]


def token_span(token: Token, file: str) -> Span:
    """Where a token stands."""
    return Span(file, token.line or 0, token.column or 0, token.start_pos or 0, token.end_pos or 0)


def lines(parser: Lark, text: str, start: int, end: int, file: str, to: Reporter) -> list[Line]:
    """Split ``text[start:end]`` into statements; faults of layout go to the reporter."""
    result: list[Line] = []
    current: list[Token] = []
    stack: list[tuple[Token, bool]] = []  # (opening bracket, whether it encloses statements)
    pending: Token | None = None
    too_deep = False
    for token in _tokens(parser, text, start, end, file, to):
        if token.type == "_NL":
            if current and (not stack or stack[-1][1]):
                pending = pending or token
            continue
        in_statements = not stack or stack[-1][1]
        if pending is not None and current:
            if not _joins(current[-1], token):
                if stack:
                    if token.type != "RBRACE" and current[-1].type != "LBRACE":
                        current.append(pending)
                else:
                    result.append(Line(tuple(current)))
                    current = []
        pending = None
        fresh = not current or current[-1].type == "_NL" or (
            current[-1].type == "LBRACE" and bool(stack) and stack[-1][1]
        )
        token = _keyword(token, fresh and in_statements)
        if token.type in OPENING:
            is_block = token.type == "LBRACE" and _opens_block(current)
            stack.append((token, is_block))
            if len(stack) > MAX_DEPTH and not too_deep:
                too_deep = True
                to.report(_too_deep(token, file))
        elif token.type in CLOSING:
            if not stack or OPENING[stack[-1][0].type] != token.type:
                to.report(_unmatched(token, stack[-1][0] if stack else None, file))
                return result
            stack.pop()
        current.append(token)
    if stack:
        to.report(_unclosed(stack[-1][0], current, file))
    elif current:
        result.append(Line(tuple(current)))
    return [] if too_deep else result


def _tokens(
    parser: Lark, text: str, start: int, end: int, file: str, to: Reporter
) -> Iterator[Token]:
    faults = 0
    while start < end:
        try:
            yield from parser.lex(TextSlice(text, start, end))
            return
        except UnexpectedCharacters as fault:
            position = fault.pos_in_stream
            to.report(_bad_character(text, position, Span(file, fault.line, fault.column), file))
            faults += 1
            if faults >= 10:  # a binary file is not worth a message a byte
                return
            start = position + 1


def _keyword(token: Token, fresh: bool) -> Token:
    if token.type != "NAME":
        return token
    word = str(token)
    if word in EXPRESSION_WORDS or (fresh and word in STATEMENT_WORDS):
        return Token.new_borrow_pos(word.upper(), token.value, token)
    return token


def _joins(last: Token, following: Token) -> bool:
    # The next word is not yet classified here, so keywords are looked up by text.
    kind = following.type
    if kind == "NAME" and str(following) in EXPRESSION_WORDS:
        kind = str(following).upper()
    return last.type in _OPEN_AFTER or kind in _OPEN_BEFORE


def _opens_block(before: list[Token]) -> bool:
    if not before:
        return False
    return before[-1].type in ("RPAR", "EQUAL", "FIX", "ITERATE")


def _bad_character(text: str, position: int, span: Span, file: str) -> Diagnostic:
    character = text[position]
    hints = {
        "'": "texts are written in double quotes",
        ";": "one statement a line, no semicolon",
        "&": "write `and`",
        "!": "write `not`",
        "$": "names are letters, digits and _",
        '"': "close the text on the same line with a double quote",
        "\\": "a line continues by itself after or before an infix operator",
    }
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    return Diagnostic(
        "E202", f"unexpected character `{shown}`", span, hint=hints.get(character)
    )


def _too_deep(token: Token, file: str) -> Diagnostic:
    return Diagnostic(
        "E207",
        f"brackets are nested more than {MAX_DEPTH} deep",
        token_span(token, file),
        hint="name a part with `def` or an equation",
    )


def _unmatched(token: Token, opening: Token | None, file: str) -> Diagnostic:
    if opening is None:
        return Diagnostic(
            "E203", f"`{token}` closes a bracket that was never opened", token_span(token, file)
        )
    return Diagnostic(
        "E203",
        f"`{token}` does not close `{opening}`",
        token_span(token, file),
        labels=(Label(token_span(opening, file), f"`{opening}` was opened here"),),
    )


def _unclosed(opening: Token, current: list[Token], file: str) -> Diagnostic:
    hint = None
    place = next(i for i, t in enumerate(current) if t is opening)
    previous = opening
    for token, after in zip(current[place:], [*current[place + 1 :], None], strict=True):
        starts_line = token.line != previous.line
        named = after is not None and after.type == "NAME"
        if starts_line and str(token) in STATEMENT_WORDS and named:
            hint = f"it is still open at line {token.line}, where `{token}` seems to start a statement"
            break
        previous = token
    return Diagnostic(
        "E203", f"`{opening}` is never closed", token_span(opening, file), hint=hint
    )
