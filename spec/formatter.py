"""The one style of the model language: spaces, indentation and line breaks; comments are kept.

Operators are spaced, except ``^``, ``..``, ``.`` and unary minus; ``*`` and ``/`` between a number
and a name inside brackets (``4*w``, ``c/2``) and between two names that are a whole argument or
size (``conv(width*c, 3)``); ``+`` and ``-`` of two names or numbers that fill an index or an end of
a range (``t-1``, ``0..n+1``). The author's line breaks stay, before an operator rather than after
it; a row over 100 columns opens its block or breaks before each ``>>`` of its outermost chain.

What lines up stays lined up: a continuation row keeps its indentation from its statement when that
is two or more, a bracket over several rows its inner space (``( conv``), and a longer run of spaces
stays when the row above or below has a token in that column.
"""

from __future__ import annotations

import re

from . import syntax as s
from .diagnostics import Reporter
from .formatter_rows import BLOCK_INDENT, break_long, keep_breaks, make_rows, print_rows
from .formatter_tokens import find_comments, make_stream, spaces_between
from .parser import parse_formula, parse_model
from .source import make_source
from .yaml_nodes import MappingNode, Node, ScalarNode, SequenceNode, read_yaml

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
    return sorted(comment.text for comment in find_comments(text, 0, len(text)))


def _styled(
    text: str, start: int, end: int, trees: tuple[s.Statement | s.Expr, ...], formula: bool = False
) -> str:
    stream = make_stream(text, start, end, formula)
    spaces = spaces_between(stream, trees)
    keep_breaks(stream, spaces)
    rows = make_rows(stream, spaces)
    while break_long(rows, stream, trees):
        rows = make_rows(stream, spaces)
    return "".join(row + "\n" for row in print_rows(rows))
