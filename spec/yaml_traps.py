"""Says in plain words what PyYAML could not read, and names the usual traps (E010 to E012)."""

from __future__ import annotations

import re

import yaml

from .diagnostics import Diagnostic, Label
from .source import Source

MAX_LOOK = 2000
"""How far a trap looks; unclosed quotes make its patterns quadratic in this."""

_BLOCK = re.compile(
    r"^ *(?:- +)*(?P<key>[\w.-]+|\"[^\"]*\"|'[^']*') *: *[|>](?P<how>[-+\d]*)[ \t]*(?:#.*)?$"
)
_NO_SPACE = re.compile(r"^ *(?:- +)*(?P<key>[A-Za-z_][\w-]*):(?P<rest>[^\s/].*)$")
_ONE_LINE = re.compile(r"'(?:[^'\n]|'')*'|\"(?:[^\"\\\n]|\\.)*\"")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def explain(error: yaml.MarkedYAMLError, source: Source) -> Diagnostic:
    """The diagnostic of a YAML error: a trap by its name where it is one, else E002."""
    mark = error.problem_mark or error.context_mark
    place = min(mark.index if mark else 0, len(source.text))
    trap = (
        _tab(source, place)
        or _ended_block(source, place)
        or _apostrophe(source, place)
        or _split_call(error, source, place)
        or _colon_in_call(source, place)
        or _missing_space(error, source, place)
    )
    return trap or _plain(error, source, place)


def _tab(source: Source, place: int) -> Diagnostic | None:
    start, end = _line(source, place)
    blank = re.match(r"[ \t]*", source.text[start:end])
    tab = blank[0].find("\t") if blank else -1
    if tab >= 0:
        hint = "indent with spaces"
        span = source.span(start + tab, start + tab + 1)
        return Diagnostic("E002", "a tab is used to indent", span, hint=hint)
    if source.text[place : place + 1] == "\t":
        span = source.span(place, place + 1)
        return Diagnostic("E002", "a tab stands where YAML wants a space", span)
    return None


def _ended_block(source: Source, place: int) -> Diagnostic | None:
    """E010: a literal block that ended before its author meant it to."""
    lines = source.text.split("\n")
    error_row = source.text.count("\n", 0, place)
    row = 0
    while row <= error_row and row < len(lines):
        header = _BLOCK.match(lines[row].rstrip("\r"))
        row += 1
        if header is None:
            continue
        parent = header.start("key")
        digits = re.search(r"\d", header["how"])
        margin = parent + int(digits[0]) if digits else None
        while row < len(lines):
            indent = _indent(lines[row])
            if indent is not None:
                if margin is None and indent > parent:
                    margin = indent
                if margin is None or indent < margin:
                    break
            row += 1
        if row >= len(lines) or row > error_row:
            return None
        fault = _block_end(source, lines, row, parent, margin, header["key"])
        if fault is not None:
            return fault
    return None


def _block_end(
    source: Source, lines: list[str], row: int, parent: int, margin: int | None, key: str
) -> Diagnostic | None:
    line = lines[row].rstrip("\r")
    indent = _indent(line) or 0
    start = source.starts[row]
    span = source.span(start + indent, start + len(line))
    if line.lstrip().startswith("#"):
        after = row
        while after < len(lines) and (
            _indent(lines[after]) is None or lines[after].lstrip().startswith("#")
        ):
            after += 1
        if after == len(lines) or (_indent(lines[after]) or 0) <= parent:
            return None
        message = f"a comment indented less than the `{key}` block ended it"
        hint = "indent the comment like the block"
        label = Label(source.span(source.starts[after], source.starts[after]), "the block went on")
        return Diagnostic("E010", message, span, labels=(label,), hint=hint)
    looks_like_key = re.match(r"[\w\"'.-]+ *:(\s|$)|[-?] |---|\.\.\.", line.lstrip())
    if margin is not None and (indent > parent or not looks_like_key):
        message = f"a line indented less than the `{key}` block ended it"
        hint = f"indent it by {margin} spaces, as the block is"
        return Diagnostic("E010", message, span, hint=hint)
    return None


def _apostrophe(source: Source, place: int) -> Diagnostic | None:
    """E012, and the same slip with double quotes."""
    start, end = _line(source, place)
    line = source.text[start : min(end, start + MAX_LOOK)]
    for match in _ONE_LINE.finditer(line):
        before, after = line[: match.start()].rstrip(), line[match.end() :].strip()[:1]
        opens = not before or before[-1] in ":,[{-?"
        if opens and after.isalnum() and start + match.end() <= place:
            at = start + match.end() - 1
            if match[0][0] == '"':
                message = "a double quote inside double quotes ended the text"
                hint = 'write \\" for the inner ones, or use single quotes'
                return Diagnostic("E002", message, source.span(at, at + 1), hint=hint)
            message = "an apostrophe inside single quotes ended the text"
            hint = "write the apostrophe twice (''), or use double quotes"
            return Diagnostic("E012", message, source.span(at, at + 1), hint=hint)
        if opens and after != "":
            break
    return None


def _split_call(error: yaml.MarkedYAMLError, source: Source, place: int) -> Diagnostic | None:
    """E011 where the pieces of a split call are not even YAML: ``{a: f([1, 2], b)}``."""
    if not (error.context or "").startswith("while parsing a flow"):
        return None
    opened = error.context_mark.index if error.context_mark else 0
    region = _QUOTED.sub(
        lambda m: " " * len(m[0]), source.text[opened : min(place, opened + MAX_LOOK)]
    )
    if region.count("(") <= region.count(")"):
        return None
    call = re.search(r"[\w.]+\(", region)
    at = opened + (call.start() if call else 0)
    message = "YAML takes an unquoted call inside brackets apart at its commas"
    hint = "quote the whole call"
    return Diagnostic("E011", message, source.span(at, place), hint=hint)


def _colon_in_call(source: Source, place: int) -> Diagnostic | None:
    """``sgd(lr: 0.1)``, which is a call with YAML's colon."""
    start, _ = _line(source, place)
    before = source.text[max(start, place - MAX_LOOK) : place]
    setting = re.search(r"\w+\([^()]*?(\w+) *$", before)
    if setting is None or source.text[place : place + 1] != ":":
        return None
    span = source.span(place, place + 1)
    hint = f"in a call a setting is written with `=`: `{setting[1]}=..`"
    return Diagnostic("E002", "a `:` inside a call", span, hint=hint)


def _missing_space(error: yaml.MarkedYAMLError, source: Source, place: int) -> Diagnostic | None:
    """``name:resnet`` on the line of the error or on the last line before it."""
    marks = [m.index for m in (error.context_mark, error.problem_mark) if m is not None]
    for index in sorted({min(m, len(source.text)) for m in marks} | {place}, reverse=True):
        start, end = _line(source, index)
        before = source.text[:start].rstrip()
        for first, last in ((start, end), _line(source, len(before))):
            match = _NO_SPACE.match(source.text[first:last].rstrip("\r"))
            if match is not None:
                at = first + match.start("key")
                span = source.span(at, first + match.end("key") + 1)
                hint = f"write `{match['key']}: {match['rest']}`"
                return Diagnostic("E002", "a space is missing after the colon", span, hint=hint)
    return None


_READABLE: tuple[tuple[str, str, str | None], ...] = (
    (
        "mapping values are not allowed here",
        "a `:` that starts no value here",
        "quote a text that holds `: `, and check the indentation of this line",
    ),
    (
        "could not find expected ':'",
        "this line is not `key: value`",
        "a text over several lines is indented more than its key",
    ),
    (
        "expected <block end>, but found '<scalar>'",
        "text where a new key or the end was expected",
        "quote the whole value, or indent the line like the keys above it",
    ),
    (
        "expected <block end>",
        "this line's indentation fits no line above it",
        "indent it like the keys that it belongs to",
    ),
    (
        "expected '<document start>'",
        "this line's indentation fits no line above it",
        "start the keys of the file at column 1",
    ),
    ("expected ',' or ']'", "a list needs `,` or `]` here", None),
    ("expected ',' or '}'", "a mapping in braces needs `,` or `}` here", None),
    ("found unexpected end of stream", "the file ends inside a quoted text", "close the quote"),
    ("found unexpected document separator", "`---` inside a quoted text", "close the quote"),
    (
        "expected a comment or a line break",
        "text after the `|` of a block",
        "begin the block's text on the next line",
    ),
    ("expected the node content", "a value is missing here", None),
    (
        "sequence entries are not allowed here",
        "a list's `-` cannot start here",
        "put the list's lines below their key",
    ),
    (
        "expected alphabetic or numeric character",
        "a value cannot start with `&` or `*`",
        "quote the text",
    ),
)


def _plain(error: yaml.MarkedYAMLError, source: Source, place: int) -> Diagnostic:
    problem = error.problem or error.context or "unreadable"
    labels: tuple[Label, ...] = ()
    context = error.context_mark
    if context is not None and (error.context or "").endswith(("flow sequence", "flow mapping")):
        labels = (Label(source.span(context.index, context.index + 1), "opened here"),)
    span = source.span(place, min(place + 1, len(source.text)))
    if problem.endswith("'<stream end>'"):
        if labels:
            return Diagnostic("E002", "this bracket is not closed", labels[0].span)
        return Diagnostic("E002", "the text ends inside a bracket", span, hint="close the bracket")
    for start, message, hint in _READABLE:
        if problem.startswith(start):
            quoted = "quoted" in (error.context or "")
            moved = quoted or start.startswith(("could not", "expected alphabetic"))
            if context is not None and moved:
                # The place to look at is where the text began, not where the file ended.
                span = source.span(context.index, context.index + 1)
            return Diagnostic("E002", message, span, labels=labels, hint=hint)
    if "\\x00" in problem:
        # PyYAML reads a NUL behind the last character.
        return Diagnostic("E002", "the file ends too early", span, hint="close the quote")
    escape = re.match(r"found unknown escape character '(.+)'", problem)
    if escape is not None:
        message = f"an unknown escape `\\{escape[1]}` in double quotes"
        hint = "single quotes keep backslashes as they are"
        return Diagnostic("E002", message, span, hint=hint)
    first = re.match(r"found character '(.+)' that cannot start any token", problem)
    if first is not None:
        message = f"a value cannot start with `{first[1]}`"
        return Diagnostic("E002", message, span, hint="quote the text")
    return Diagnostic("E002", f"not valid YAML: {problem}", span, labels=labels)


def _line(source: Source, place: int) -> tuple[int, int]:
    start = source.text.rfind("\n", 0, place) + 1
    end = source.text.find("\n", place)
    return start, len(source.text) if end < 0 else end


def _indent(line: str) -> int | None:
    """The number of leading spaces, or ``None`` for a blank line."""
    stripped = line.lstrip(" ")
    return None if not stripped.strip() else len(line) - len(stripped)
