"""What to say about a token that the grammar does not take: expected, found, and a way out."""

from __future__ import annotations

from lark import Token

from ..compiler.ir.types import Span
from .diagnostics import Diagnostic, nearest
from .layout import EXPRESSION_WORDS, STATEMENT_WORDS, token_span

_READABLE = {
    "LPAR": "`(`", "RPAR": "`)`", "LSQB": "`[`", "RSQB": "`]`", "LBRACE": "`{`", "RBRACE": "`}`",
    "EQUAL": "`=`", "TILDE": "`~`", "COMMA": "`,`", "COLON": "`:`", "NAME": "a name",
    "NUMBER": "a number", "STRING": "a text", "_NL": "a new line", "$END": "the end of the line",
    "PIPE": "`>>`", "DOT": "`.`", "DOTS": "`..`", "BAR": "`|`", "CARET": "`^`", "MINUS": "`-`",
    "COMPARE": "a comparison", "ADD": "`+`", "MUL": "`*`", "REDUCER": "a reducer",
}  # fmt: skip
_OPERAND = {
    "NAME", "NUMBER", "STRING", "LPAR", "LSQB", "MINUS", "TRUE", "FALSE", "FN", "REDUCER", "NOT",
    "IF",
}  # fmt: skip
_INFIX = {"PIPE", "ADD", "MINUS", "MUL", "CARET", "BAR", "COMPARE", "DOTS", "AND", "OR"}
_AFTER_OPERAND = _INFIX | {"AS", "LPAR", "LSQB", "DOT"}
_OPERAND_END = {"NAME", "NUMBER", "STRING", "RPAR", "RSQB", "TRUE", "FALSE"}
_STATEMENTS = {word.upper() for word in STATEMENT_WORDS}
_KEYWORDS = _STATEMENTS | {word.upper() for word in EXPRESSION_WORDS}
_REDUCERS = ("sum", "prod", "max", "min", "lse", "any", "all", "mean", "argmax", "argmin", "E")


def unexpected(
    tokens: tuple[Token, ...], place: int, accepted: frozenset[str], file: str
) -> Diagnostic:
    """The message for ``tokens[place]``, or for the statement's end when it is past the last.

    ``accepted`` holds the terminals that could have stood there.
    """
    expected = _expected(set(accepted))
    if place == len(tokens):
        last = tokens[-1]
        end = last.end_pos or 0
        span = Span(file, last.end_line or 0, last.end_column or 0, end, end)
        message = f"the statement ends too early: expected {expected}"
        return Diagnostic("E205", message, span, hint=_end_hint(tokens))
    token = tokens[place]
    before = tokens[place - 1] if place else None
    if (
        before is not None
        and before.type in _STATEMENTS
        and token.type in ("EQUAL", "TILDE", "LSQB")
    ):
        message = f"`{before}` starts a declaration, so no equation can define that name"
        return Diagnostic("E206", message, token_span(before, file), hint="choose another name")
    reserved = token.type in _KEYWORDS and "NAME" in accepted
    if reserved and not accepted & {"NUMBER", "INPUT"}:
        message = f"`{token}` is a keyword: expected {expected}"
        return Diagnostic("E206", message, token_span(token, file), hint="choose another name")
    if token.type in _INFIX:
        expected = expected.replace("an operator", "another operator")
    found = "a new line" if token.type == "_NL" else f"`{token}`"
    message = f"unexpected {found}: expected {expected}"
    return Diagnostic("E201", message, token_span(token, file), hint=_hint(tokens, place))


def _expected(kinds: set[str]) -> str:
    words: list[str] = []
    if len(kinds & _STATEMENTS) > 3:
        words.append("a statement")
        kinds -= _STATEMENTS | {"NAME"}
    if kinds >= {"NAME", "NUMBER"}:
        words.append("an expression")
        kinds -= _OPERAND
    if len(kinds & _INFIX) >= 3:
        words.append("an operator")
        kinds -= _AFTER_OPERAND
    if "$END" in kinds:
        kinds.discard("_NL")
    words += sorted(_READABLE.get(kind, f"`{kind.lower()}`") for kind in kinds)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


# ---------------------------------------------------------------- hints

_CONDITION = "a condition reads `if c then f else g`"
_DECIMAL = "write a decimal number with digits on both sides of the point"
_LOOP = "there is no loop statement: `y[i] = ... for i in 0..n`"
_RANGE = "a range is written `a..b`, its end left out"
_PAIRS = {
    ("EQUAL", "EQUAL"): "`==` compares, `=` defines",
    ("MUL", "MUL"): "a power is written `^`",
    ("ADD", "EQUAL"): "a name is defined once: there is no `+=`",
    ("MINUS", "EQUAL"): "a name is defined once: there is no `-=`",
    ("MUL", "EQUAL"): "a name is defined once: there is no `*=`",
    ("BAR", "BAR"): "write `or`",
    ("MINUS", "COMPARE"): "a chain is written `>>`",
    ("BAR", "COMPARE"): "a chain is written `>>`",
    ("EQUAL", "COMPARE"): "comparisons are `<=`, `>=`, `==` and `!=`",
    ("COMPARE", "EQUAL"): "comparisons are `<=`, `>=`, `==` and `!=`",
    ("NUMBER", "NAME"): "write the multiplication: `2*x`",
}
_EXAMPLES = {
    "INPUT": "input x : f32[N, 3]",
    "PARAM": "param W : real[K, D]",
    "INDEX": "index i : 0..n",
}
_FOREIGN = {
    "return": "results are named by `output`",
    "let": "an equation needs no word before it: `x = ...`",
    "var": "an equation needs no word before it: `x = ...`",
    "function": "a recipe starts with `def`",
    "lambda": "a block of several tensors is `fn(a, b) { ... }`",
    "class": "a recipe starts with `def`",
    "while": "a loop is `iterate { ... } until condition`",
    "import": "other specs are named under `use:`",
    "from": "other specs are named under `use:`",
    "elif": "write `else if`",
    "print": "results are named by `output`",
}


def _hint(tokens: tuple[Token, ...], place: int) -> str | None:
    token = tokens[place]
    kind = token.type
    start = _statement_start(tokens, place)
    if place == start:
        return _first_hint(token)
    before = tokens[place - 1].type
    after = tokens[place + 1].type if place + 1 < len(tokens) else ""
    if tokens[start].type in _STATEMENTS:
        hint = _declaration_hint(tokens[start], kind, _outside(tokens[start + 1 : place]))
        if hint is not None:
            return hint
    pair = _PAIRS.get((before, kind)) or _PAIRS.get((kind, after))
    if pair is not None:
        return pair
    if place == start + 1 and before == "NAME":
        return _second_hint(tokens[start], token)
    if before == "DOT" and tokens[place - 2].type == "NUMBER":
        return _DECIMAL
    if kind == "LBRACE" and before == "NAME" and str(tokens[place - 1]) in _REDUCERS:
        return f"no space between `{tokens[place - 1]}` and its brace"
    if kind in ("NAME", "NUMBER", "LPAR", "LSQB") and before in _OPERAND_END:
        return _missing_hint(tokens, place)
    return _operator_hint(tokens, place, {t.type for t in tokens[start:place]})


def _first_hint(token: Token) -> str | None:
    match token.type:
        case "FOR":
            return _LOOP
        case "IF" | "THEN" | "ELSE":
            return _CONDITION
        case "RBRACE":
            return "a block holds at least one statement"
    return "a statement starts with a name or a word such as `input`, `def` or `output`"


def _second_hint(first: Token, token: Token) -> str | None:
    word = str(first)
    if word in _FOREIGN:
        return _FOREIGN[word]
    if token.type == "NAME":
        near = nearest(word, STATEMENT_WORDS)
        return f"did you mean `{near}`?" if near else None
    if token.type == "COLON":
        return f"an equation reads `{word} = ...`; a declaration starts with `input` or `param`"
    if token.type == "COMPARE" and str(token) == "==":
        return "`=` defines, `==` compares"
    return "a result needs a name: `y = ...`, or `output ...`"


def _declaration_hint(first: Token, kind: str, outside: set[str]) -> str | None:
    """``outside`` holds the kinds of the tokens so far that stand in no bracket."""
    word = first.type
    if word in _EXAMPLES and "COLON" not in outside and kind != "COMMA":
        return f"a declaration reads `{_EXAMPLES[word]}`"
    if word == "INPUT" and kind == "EQUAL":
        return "an input has no value; a fixed one is `const c = ...`"
    if word == "DEF" and not outside & {"EQUAL", "LBRACE"}:
        return "a definition reads `def f(a, b=1) = ...` or `def f(a) { ... }`"
    if word in ("FIX", "ITERATE") and "LBRACE" not in outside:
        return f"its equations stand in braces: `{first} {{ ... }}`"
    return None


def _missing_hint(tokens: tuple[Token, ...], place: int) -> str:
    if tokens[place].type == "LPAR" and tokens[place - 2].type == "AS":
        return "the label stands last: `f(a) as name`"
    callee = _callee(tokens, place - 1) if tokens[place - 1].type == "RPAR" else ""
    if callee in _REDUCERS:
        return f"the index of a reducer stands in braces: `{callee}{{k}} ...`"
    return "an operator, a comma or a new line is missing before it"


def _callee(tokens: tuple[Token, ...], closer: int) -> str:
    depth = 0
    for i in range(closer, 0, -1):
        depth += {"RPAR": 1, "LPAR": -1}.get(tokens[i].type, 0)
        if depth == 0:
            return str(tokens[i - 1])
    return ""


def _operator_hint(tokens: tuple[Token, ...], place: int, earlier: set[str]) -> str | None:
    kind, before = tokens[place].type, tokens[place - 1].type
    open_bracket = _innermost_open(tokens, place)
    if kind == "IF" and before in _INFIX:
        return "put the condition in brackets: `(if c then f else g)`"
    if kind == "COMPARE":
        return "compare two at a time: `a < b and b < c`"
    if kind == "CARET":
        return "bracket a power of a power: `(a^b)^c`"
    if kind == "AS":
        return "one label an expression; brackets take another"
    if kind == "DOTS":
        return "a range has two ends: `a..b`"
    if kind == "COLON" and (open_bracket == "LSQB" or "FOR" in earlier):
        return _RANGE
    if kind in ("ELSE", "COLON", "COMMA", "RPAR", "RSQB", "_NL") and "IF" in earlier:
        return _CONDITION
    if kind == "LBRACE" and "FOR" in earlier:
        return _LOOP
    if kind == "EQUAL" and "FOR" in earlier:
        return "an index runs through a range: `for t in a..b`"
    if kind == "EQUAL" and open_bracket == "" and earlier & {"EQUAL", "TILDE"}:
        return "one `=` a statement; `==` compares"
    if kind == "COMMA" and open_bracket == "" and "EQUAL" in earlier:
        return "a tuple needs brackets: `(a, b)`"
    if kind == "DOT" and before not in _OPERAND_END:
        return _DECIMAL
    return None


def _end_hint(tokens: tuple[Token, ...]) -> str | None:
    first = tokens[0]
    kinds = {t.type for t in tokens}
    if first.type in ("DEF", "INPUT", "PARAM", "INDEX", "FIX", "ITERATE"):
        hint = _declaration_hint(first, "", _outside(tokens[1:]))
        if hint is not None:
            return hint
    if "IF" in kinds and "ELSE" not in kinds:
        return _CONDITION
    if first.type == "ITERATE" and "UNTIL" not in kinds:
        return "a loop says when it ends: `iterate { ... } until condition`"
    if len(tokens) == 1 and first.type == "NAME":
        return "a result needs a name: `y = ...`, or `output ...`"
    return None


def _statement_start(tokens: tuple[Token, ...], place: int) -> int:
    """Where the innermost statement around ``place`` starts."""
    stack: list[int] = [0]
    for i, token in enumerate(tokens[:place]):
        if token.type in ("LPAR", "LSQB", "LBRACE"):
            encloses = token.type == "LBRACE" and tokens[i - 1].type not in ("REDUCER", "COLON")
            stack.append(i + 1 if encloses else stack[-1])
        elif token.type in ("RPAR", "RSQB", "RBRACE"):
            stack.pop()
        elif token.type == "_NL":
            stack[-1] = i + 1
    return stack[-1]


def _outside(tokens: tuple[Token, ...]) -> set[str]:
    """The kinds of the tokens that stand in no bracket; brackets count themselves."""
    found: set[str] = set()
    depth = 0
    for token in tokens:
        depth -= token.type in ("RPAR", "RSQB", "RBRACE")
        if depth == 0:
            found.add(token.type)
        depth += token.type in ("LPAR", "LSQB", "LBRACE")
    return found


def _innermost_open(tokens: tuple[Token, ...], place: int) -> str:
    stack: list[str] = []
    for token in tokens[:place]:
        if token.type in ("LPAR", "LSQB", "LBRACE"):
            stack.append(token.type)
        elif token.type in ("RPAR", "RSQB", "RBRACE"):
            stack.pop()
    return stack[-1] if stack else ""
