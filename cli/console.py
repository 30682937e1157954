"""What commands write with: results to stdout, messages to stderr, colour only on a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""


class Failure(Exception):
    """A failure that a command says in one line; ``usage`` when the command line is at fault."""

    def __init__(self, message: str, hint: str | None = None, usage: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.usage = usage


def say(text: str = "") -> None:
    """A line of results."""
    print(text)


def note(text: str) -> None:
    """A line about what is going on."""
    print(text, file=sys.stderr)


def say_json(value: Any) -> None:
    """A result that a program reads."""
    print(json.dumps(value, indent=2, allow_nan=False))


def complain(text: str) -> None:
    """Rendered diagnostics or a failure, coloured on a terminal."""
    if not _colourful(sys.stderr):
        print(text, file=sys.stderr)
        return
    from rich.text import Text

    styled = Text(text)
    styled.highlight_regex(r"error(\[\w+\])?:", "bold red")
    styled.highlight_regex(r"warning(\[\w+\])?:", "bold yellow")
    styled.highlight_regex(r"(?m)^ +\| +(?P<caret>\^.*)$", "red")
    styled.highlight_regex(r"(?m)^ +hint:", "bold cyan")
    _console(sys.stderr).print(styled, soft_wrap=True)


def say_table(table: Any) -> None:
    """A rich table."""
    _console(sys.stdout).print(table)


def table_text(table: Any) -> str:
    """A rich table as plain text."""
    stream = io.StringIO()
    _console(stream).print(table)
    return stream.getvalue()


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return [indent + line.rstrip() for line in padded]


def write_result(text: str, output: str | None) -> None:
    """Text to a file, or to stdout when there is none."""
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write `{output}`: {reason(error)}") from error
    note(f"wrote {output}")


def reason(error: OSError) -> str:
    """The system's reason in plain words."""
    return (error.strerror or type(error).__name__).lower()


# ---------------------------------------------------------------- helpers


def _console(stream: IO[str]) -> Any:
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(file=stream, width=width, highlight=False, no_color=not _colourful(stream))


def _colourful(stream: IO[str]) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain
