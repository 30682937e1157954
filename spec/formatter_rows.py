"""Rows of formatted text: where they break, how far they are indented, and what lines up in them.

The author's layout is kept where it lines things up. A row's indentation counts from the first row
of its statement. A longer run of spaces stays when, in the rows as they will be printed, a token of
the nearest row above or below that is wide enough starts or ends in the same column; the set of
such runs only shrinks until all of it serves, so a second pass finds every run as the first left
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from . import syntax as s
from .formatter_tokens import Comment, Stream

WIDTH = 100
BLOCK_INDENT = 2
CONTINUATION = 4
LEAST_CONTINUATION = 2


@dataclass
class Row:
    """One line of output."""

    indent: int
    words: list[str]
    places: list[int]  # of its tokens; none when it is a comment
    gaps: list[int] = field(default_factory=lambda: [0])  # before each word
    comment: str = ""
    blank_before: bool = False

    @property
    def text(self) -> str:
        """The row without its indentation and the comment behind it."""
        return "".join(" " * gap + word for gap, word in zip(self.gaps, self.words, strict=True))

    @property
    def width(self) -> int:
        """Where the row ends, without the comment behind it."""
        return self.indent + sum(self.gaps) + sum(map(len, self.words))


def make_rows(stream: Stream, spaces: list[bool]) -> list[Row]:
    """The rows that the breaks of a stream make."""
    rows = _place(stream)
    _line_up(rows, stream, _least_gaps(rows, stream, spaces))
    return rows


# ---------------------------------------------------------------- line breaks

_MOVED = {
    "PIPE", "ADD", "MINUS", "MUL", "BAR", "CARET", "COMPARE", "DOTS", "AND", "OR", "AS", "DOT",
}  # fmt: skip


def keep_breaks(stream: Stream, spaces: list[bool]) -> None:
    """The author's breaks, moved from behind an operator or before a comma to its other side."""
    tokens = stream.tokens
    for opener in stream.blocks:
        if tokens[opener].line != tokens[stream.partner[opener]].line:
            stream.expanded.add(opener)
    for i in range(1, len(tokens)):
        if tokens[i - 1].line == tokens[i].line or stream.starts_block_row(i):
            continue
        column = stream.columns[i] if i in stream.leads else None
        if tokens[i - 1].type in _MOVED and not stream.is_unary_minus(i - 1):
            stream.comments[i - 1] += stream.comments[i]
            stream.comments[i] = []
            stream.breaks[i - 1] = column
        elif stream.comments[i]:
            stream.breaks[i] = column
        elif tokens[i].type == "COMMA":
            stream.breaks[i + 1] = column
        elif _may_break(stream, spaces, i):
            stream.breaks[i] = column


def _may_break(stream: Stream, spaces: list[bool], i: int) -> bool:
    before, token = stream.tokens[i - 1].type, stream.tokens[i].type
    if before in ("LPAR", "LSQB") or token in ("RPAR", "RSQB"):
        return True
    infix = token in _MOVED and not stream.is_unary_minus(i)
    return (spaces[i] or infix) and i not in stream.blocks and before != "NOT"


def break_long(rows: list[Row], stream: Stream, trees: Iterable[object]) -> bool:
    """Open the outermost block or chain of each row that is too long; whether there was one.

    The author's rows of a chain that is opened lose their indentation, to stand like the others.
    """
    long = {number for number, row in enumerate(rows) if row.width > WIDTH}
    if not long:
        return False
    row_of = _row_of(rows)
    changed = False
    for opener in sorted(stream.blocks - stream.expanded):
        if row_of[opener] in long:
            long.discard(row_of[opener])
            stream.expanded.add(opener)
            changed = True
    for chain in _chains(stream, trees):
        unbroken = [i for i in chain if i not in stream.breaks and row_of[i] in long]
        if unbroken:
            long -= {row_of[i] for i in unbroken}
            again = stream.breaks.keys() & chain
            stream.breaks |= dict.fromkeys([*again, *unbroken])
            changed = True
    return changed


def _chains(stream: Stream, trees: Iterable[object]) -> list[list[int]]:
    """The places of each chain's ``>>``, outer chains first."""
    before = stream.place_before()
    nodes = [node for tree in trees for node in s.walk(tree)]
    pipes = [node for node in nodes if isinstance(node, s.Pipe)]
    return [[before[part.span.start] for part in pipe.parts[1:]] for pipe in pipes]


def _row_of(rows: list[Row]) -> dict[int, int]:
    return {i: number for number, row in enumerate(rows) for i in row.places}


# ---------------------------------------------------------------- rows and their indentation


@dataclass
class _Layout:
    """What the rows so far mean for the indent of the next one."""

    opened: list[tuple[int, int]]  # open brackets with the indents of their rows
    statements: dict[int, int]  # the indent of each statement whose first row is also the author's
    shifts: dict[int, int]


def _place(stream: Stream) -> list[Row]:
    rows: list[Row] = []
    layout = _Layout([], {}, _shifts(stream))
    opened = layout.opened
    line = 0  # of the last thing that was placed
    for i, token in enumerate(stream.tokens):
        in_block = stream.starts_block_row(i)
        closes = token.type in ("RPAR", "RSQB", "RBRACE")
        new_row = i in stream.breaks
        if in_block:
            new_row = not opened or opened[-1][0] in stream.expanded
        if new_row:
            first = not rows or (bool(opened) and opened[-1][0] == i - 1)
            for comment in stream.comments[i]:
                apart = in_block and not first and comment.line - line > 1
                indent = _indent(stream, layout, i, comment.column)
                first = not _add_comment(rows, comment, indent, apart) and first
                line = comment.line
            apart = i in stream.statements and not first and (token.line or 0) - line > 1
            indent = _indent(stream, layout, i, stream.breaks.get(i), closes)
            rows.append(Row(indent, [token.value], [i], blank_before=apart))
        else:
            rows[-1].words.append(token.value)
            rows[-1].places.append(i)
        line = token.line or 0
        if closes:
            opened.pop()
        elif token.type in ("LPAR", "LSQB", "LBRACE"):
            opened.append((i, rows[-1].indent))
        if new_row and i in stream.statements and i in stream.leads:
            layout.statements[i] = rows[-1].indent
    for comment in stream.comments[-1]:
        _add_comment(rows, comment, 0, bool(rows) and comment.line - line > 1)
        line = comment.line
    return rows


def _indent(
    stream: Stream, layout: _Layout, i: int, column: int | None, closes: bool = False
) -> int:
    """The indent of a row before a token; ``column`` is where the author's starts, if known."""
    in_block = stream.starts_block_row(i)
    owner = stream.owner[i]
    if not in_block and column is not None and owner in layout.statements:
        further = column - stream.columns[owner] + layout.shifts.get(owner, 0)
        if further >= LEAST_CONTINUATION:
            return layout.statements[owner] + further
    deeper = 0 if in_block else CONTINUATION
    if not layout.opened:
        return deeper
    opener, indent = layout.opened[-1]
    if closes:
        return indent
    return indent + (BLOCK_INDENT + deeper if opener in stream.blocks else CONTINUATION)


def _shifts(stream: Stream) -> dict[int, int]:
    """How far the continuation rows of a statement move so that the outermost is far enough.

    Operators often stand out to the left (``( a`` above ``>> b``): such rows move together.
    """
    further: dict[int, list[int]] = {}
    for i, column in stream.breaks.items():
        owner = stream.owner[i]
        if column is not None and stream.tokens[i].type not in ("RPAR", "RSQB", "RBRACE"):
            further.setdefault(owner, []).append(column - stream.columns[owner])
    return {
        owner: LEAST_CONTINUATION - min(found)
        for owner, found in further.items()
        if 0 < min(found) < LEAST_CONTINUATION <= max(found)
    }


def _add_comment(rows: list[Row], comment: Comment, indent: int, apart: bool) -> bool:
    """Put a comment behind the last row or on its own; whether it got a row."""
    if comment.own_line or rows[-1].comment or not rows[-1].places:
        rows.append(Row(indent, [comment.text], [], blank_before=apart))
        return True
    rows[-1].comment = comment.text
    return False


# ---------------------------------------------------------------- what lines up


def _least_gaps(rows: list[Row], stream: Stream, spaces: list[bool]) -> list[int]:
    """The spaces before each token where nothing lines up.

    A group over several rows keeps a space inside of its brackets.
    """
    row_of = _row_of(rows)
    gaps = [int(space) for space in spaces]
    padded: set[int] = set()
    for i, token in enumerate(stream.tokens[1:], 1):
        group = _behind_bracket(stream, i) and not _is_call(stream, i - 1)
        if group and stream.runs[i] and row_of[i] != row_of[stream.partner[i - 1]]:
            padded.add(i - 1)
            gaps[i] = 1
        elif token.type in ("RPAR", "RSQB") and stream.runs[i] and stream.partner[i] in padded:
            gaps[i] = 1
    return gaps


def _is_call(stream: Stream, opener: int) -> bool:
    """Whether a bracket belongs to what stands before it: a call, an index, parameters."""
    heads = ("FN", "FIX", "ITERATE")
    return opener > 0 and (
        stream.ends_operand(opener - 1) or stream.tokens[opener - 1].type in heads
    )


def _line_up(rows: list[Row], stream: Stream, least: list[int]) -> None:
    """Give rows their gaps: the least ones, and those of the author that line tokens up."""
    wide = {i for row in rows for i in row.places[1:] if _may_line_up(stream, least, i)}
    paragraphs = _paragraphs(rows)
    while True:
        starts: dict[int, int] = {}
        for row in rows:
            _set_gaps(row, stream, least, wide, starts)
        served = {
            row.places[k]
            for paragraph in paragraphs
            for number, row in enumerate(paragraph)
            for k in range(1, len(row.places))
            if row.places[k] in wide and _serves(paragraph, number, k, stream, starts)
        }
        if served == wide:
            return
        wide = served


def _may_line_up(stream: Stream, least: list[int], i: int) -> bool:
    """Whether the author put more spaces before a token than needed, on purpose perhaps."""
    return stream.runs[i] > least[i] and (stream.runs[i] >= 2 or _behind_bracket(stream, i))


def _paragraphs(rows: list[Row]) -> list[list[Row]]:
    """Rows with tokens, parted where a blank line is."""
    paragraphs: list[list[Row]] = [[]]
    for row in rows:
        if row.blank_before:
            paragraphs.append([])
        if row.places:
            paragraphs[-1].append(row)
    return paragraphs


def _set_gaps(
    row: Row, stream: Stream, least: list[int], wide: set[int], starts: dict[int, int]
) -> None:
    """Lay a row out: a token of ``wide`` stays in the author's column if there is room."""
    row.gaps = [0] * len(row.words)
    end = row.indent
    shift = 0  # from the author's columns, as they were at the start of the author's row
    for k, i in enumerate(row.places):
        gap = least[i] if k else 0
        if i in wide:
            room = stream.columns[i] + shift - end
            # One space where none is due would be taken for a slip the next time.
            gap = room if room >= 2 or (room == 1 and _behind_bracket(stream, i)) else gap
            gap = max(gap, least[i])
        starts[i] = end + gap
        if k == 0 or stream.tokens[i].line != stream.tokens[i - 1].line:
            shift = starts[i] - stream.columns[i]
        row.gaps[k] = gap
        end = starts[i] + len(row.words[k])


def _behind_bracket(stream: Stream, i: int) -> bool:
    return stream.tokens[i - 1].type in ("LPAR", "LSQB")


def _serves(
    paragraph: list[Row], number: int, k: int, stream: Stream, starts: dict[int, int]
) -> bool:
    """Whether a row above or below has a token of the same kind in the column of this one."""
    i = paragraph[number].places[k]
    for numbers in (range(number - 1, -1, -1), range(number + 1, len(paragraph))):
        row = next((paragraph[n] for n in numbers if paragraph[n].width > starts[i]), None)
        if row and any(_stand_alike(stream, starts, i, other) for other in row.places):
            return True
    return False


def _stand_alike(stream: Stream, starts: dict[int, int], i: int, other: int) -> bool:
    tokens = stream.tokens
    ends = [starts[place] + len(tokens[place]) for place in (i, other)]
    in_column = starts[i] == starts[other] or ends[0] == ends[1]
    if not in_column or stream.depth[i] != stream.depth[other]:
        return False
    before = tokens[other - 1].type if other and not stream.ends_operand(other - 1) else ""
    return tokens[i].type == tokens[other].type or tokens[i - 1].type == before


# ---------------------------------------------------------------- text


def print_rows(rows: list[Row]) -> list[str]:
    """Rows as text; the comments behind adjacent rows stand in one column."""
    printed: list[str] = []
    for number, row in enumerate(rows):
        text = " " * row.indent + row.text
        if row.comment:
            text = text.ljust(_comment_column(rows, number)) + row.comment
        printed += [""] * row.blank_before + [text]
    return printed


def _comment_column(rows: list[Row], number: int) -> int:
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
