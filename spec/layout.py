"""Where statements end: from the flat token stream to one token list a statement.

A line ends a statement unless it is open: inside ``()`` or ``[]`` or the braces of a reducer or a
name set, or when an infix operator stands at its end or at the start of the next line. A word such
as ``input`` is a keyword only where a statement starts.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from lark import Lark, TextSlice, Token

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
MAX_FAULTS = 50  # a text of junk is not worth a message a line

# A line is open after or before one of these. Words bind lines too: no statement starts with them.
_INFIX = {"PIPE", "ADD", "MUL", "BAR", "CARET", "COMPARE", "DOTS", "AND", "OR", "AS", "IN"}
_OPEN_AFTER = _INFIX | {
    "MINUS", "EQUAL", "TILDE", "COMMA", "COLON", "IF", "THEN", "ELSE", "FOR", "NOT", "UNTIL", "DOT",
}  # fmt: skip
_OPEN_BEFORE = _INFIX | {"MINUS", "THEN", "ELSE", "FOR", "IF", "UNTIL", "DOT", "EQUAL", "TILDE"}
_OPERAND_END = {"NAME", "NUMBER", "STRING", "TRUE", "FALSE"} | CLOSING


@dataclass(frozen=True)
class Line:
    """The tokens of one top-level statement."""

    tokens: tuple[Token, ...]


def token_span(token: Token, file: str) -> Span:
    """Where a token stands."""
    return Span(file, token.line or 0, token.column or 0, token.start_pos or 0, token.end_pos or 0)


def lines(
    lexer: Lark, text: str, start: int, end: int, file: str, to: Reporter, formula: bool = False
) -> list[Line]:
    """Split ``text[start:end]`` into statements, or into one line when it is a formula.

    A statement with a fault of layout (brackets, strange characters) is reported once and left out.
    In a formula no word is a statement's.
    """
    splitter = _Splitter(file, to, formula)
    waiting: Token | None = None
    for token in lexer.lex(TextSlice(text, start, end)):
        if waiting is not None:
            splitter.feed(waiting, token)
        waiting = token
        if splitter.stopped:
            return splitter.result
    if waiting is not None:
        splitter.feed(waiting, None)
    return splitter.finish()


@dataclass
class _Splitter:
    file: str
    to: Reporter
    formula: bool
    result: list[Line] = field(default_factory=list)
    current: list[Token] = field(default_factory=list)
    stack: list[tuple[Token, bool]] = field(default_factory=list)  # bracket, encloses statements
    first: Token | None = None  # of the innermost statement
    reducer_end: Token | None = None  # the last brace that closed no block
    pending: Token | None = None
    broken: bool = False  # the current statement has a fault that was reported
    stopped: bool = False
    faults: int = 0

    @property
    def in_statements(self) -> bool:
        return not self.stack or self.stack[-1][1]

    def feed(self, token: Token, following: Token | None) -> None:
        """Take one token; ``following`` is the one after it."""
        if token.type == "_NL":
            self.pending = self.pending or token
            return
        if self.pending is not None:
            self.start_line(token, following)
        if token.type == "STRAY":
            self.fault(_bad_character(token, self.file))
            return
        last = self.current[-1] if self.current else None
        fresh = self.in_statements and (last is None or last.type in ("_NL", "LBRACE"))
        if fresh:
            self.first = token
        token = _keyword(token, fresh and not (last is None and self.formula))
        if token.type in OPENING:
            self.open(token)
        elif token.type in CLOSING:
            self.close(token)
        self.current.append(token)

    def start_line(self, token: Token, following: Token | None) -> None:
        """Decide whether the statement goes on at ``token``, the first of a line."""
        newline, self.pending = self.pending, None
        goes_on = (
            bool(self.current)
            and _joins(self.current[-1], token)
            and not (self.in_statements and _cannot_go_on(self.current[-1], token, following))
        )
        if not self.in_statements:
            last = self.current[-1]
            column = (self.first or token).column or 0
            if last is self.reducer_end or not _starts_statement(last, column, token, following):
                return
            self.fault(_unclosed(self.stack[-1][0], token, self.file))
            goes_on = False
            while not self.in_statements:
                self.stack.pop()
        if not self.current:
            self.broken = False
        elif not goes_on and not self.stack:
            self.end_statement()
        elif not goes_on and token.type != "RBRACE" and self.current[-1].type != "LBRACE":
            assert newline is not None
            self.current.append(newline)

    def end_statement(self) -> None:
        if self.current and not self.broken:
            self.result.append(Line(tuple(self.current)))
        self.current = []
        self.broken = False

    def finish(self) -> list[Line]:
        """All whole statements."""
        if self.stack:
            self.fault(_unclosed(self.stack[-1][0], None, self.file))
        self.end_statement()
        return self.result

    def open(self, token: Token) -> None:
        is_block = token.type == "LBRACE" and _opens_block(self.current)
        self.stack.append((token, is_block))
        if len(self.stack) > MAX_DEPTH:
            self.stopped = True
            self.fault(_too_deep(token, self.file))

    def close(self, token: Token) -> None:
        fits = [OPENING[opening.type] == token.type for opening, _ in self.stack]
        if not fits or not fits[-1]:
            self.fault(_unmatched(token, self.stack[-1][0] if self.stack else None, self.file))
        while any(fits) and not fits[-1]:
            fits.pop()
            self.stack.pop()
        if self.stack:
            _, is_block = self.stack.pop()
            if token.type == "RBRACE" and not is_block:
                self.reducer_end = token

    def fault(self, diagnostic: Diagnostic) -> None:
        # The first fault of a statement causes the others: only it is told.
        if not self.broken:
            self.to.report(diagnostic)
            self.faults += 1
            self.stopped = self.stopped or self.faults >= MAX_FAULTS
        self.broken = True


def _keyword(token: Token, fresh: bool) -> Token:
    """The token, as a keyword if it is one; ``fresh`` where a statement may start."""
    if token.type != "NAME":
        return token
    word = str(token)
    if word in EXPRESSION_WORDS or (fresh and word in STATEMENT_WORDS):
        return Token.new_borrow_pos(word.upper(), token.value, token)
    return token


def _joins(last: Token, following: Token) -> bool:
    # The next word is not yet classified here, so keywords are looked up by text.
    return last.type in _OPEN_AFTER or _keyword(following, False).type in _OPEN_BEFORE


def _cannot_go_on(last: Token, token: Token, following: Token | None) -> bool:
    """Whether a line is a new statement although the one before ends with an operator."""
    after = _keyword(following, False).type if following is not None else ""
    if _keyword(token, False).type != "NAME" or last.type in ("COMMA", "COLON"):
        return False
    declares = str(token) in STATEMENT_WORDS and after in ("NAME", "COLON")
    return declares or after in ("EQUAL", "TILDE")


def _opens_block(before: list[Token]) -> bool:
    if not before:
        return False
    named = len(before) > 1 and before[-2].type == "DEF"
    return named or before[-1].type in ("RPAR", "EQUAL", "FIX", "ITERATE")


def _starts_statement(last: Token, column: int, token: Token, following: Token | None) -> bool:
    """Whether a line inside an open bracket can only be a new statement.

    ``last`` is the token before it, ``column`` where the open statement starts.
    """
    if _keyword(token, False).type != "NAME":
        return False
    after = _keyword(following, False).type if following is not None else ""
    if str(token) in STATEMENT_WORDS and after == "NAME":
        return True
    if (token.column or 0) > column:
        return False
    return last.type in _OPERAND_END or (
        after in ("EQUAL", "TILDE") and last.type not in ("COMMA", "LPAR", "LSQB", "LBRACE")
    )


# ---------------------------------------------------------------- messages

_CHARACTER_HINTS = {
    "'": "texts are written in double quotes",
    ";": "one statement a line, no semicolon",
    "&": "write `and`",
    "!": "write `not`",
    "$": "names are letters, digits and _",
    '"': "close the text on the same line with a double quote",
    "\\": "a line continues by itself after or before an infix operator",
    "?": "a condition reads `if c then f else g`",
    "`": "formulas stand in the text as they are, without backquotes",
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", 'write `"`'),
    **dict.fromkeys("\u2013\u2014\u2212", "write `-`"),
    **dict.fromkeys("\u00d7\u00b7\u22c5\u2217", "write `*`"),
    **dict.fromkeys("\u2192\u00bb", "write `>>`"),
    "\u00f7": "write `/`",
    "\u2264": "write `<=`",
    "\u2265": "write `>=`",
    "\u2260": "write `!=`",
    "\u2211": "a sum over k is written `sum{k}`",
    "\u220f": "a product over k is written `prod{k}`",
    "\u2026": "a range is written `a..b`",
}


def _bad_character(token: Token, file: str) -> Diagnostic:
    character = str(token)
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    hint = _CHARACTER_HINTS.get(character)
    if hint is None and character.isalpha():
        hint = "names are made of a-z, A-Z, digits and _"
        if "GREEK" in (name := unicodedata.name(character, "")):
            letter = name.rsplit(" ", 1)[-1]
            letter = letter.capitalize() if "CAPITAL" in name else letter.lower()
            hint += f": write `{letter}`"
    message = f"unexpected character `{shown}`" if shown != "`" else "unexpected backquote"
    return Diagnostic("E202", message, token_span(token, file), hint=hint)


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


def _unclosed(opening: Token, at: Token | None, file: str) -> Diagnostic:
    hint = None
    if at is not None:
        hint = f"it is still open at line {at.line}, where `{at}` seems to start a statement"
    return Diagnostic("E203", f"`{opening}` is never closed", token_span(opening, file), hint=hint)
