"""The text of a spec file, and the place of every character in it."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from ..compiler.ir.types import Span
from .diagnostics import Diagnostic, Reporter

MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class Source:
    """A file's text with what is needed to name a place in it."""

    file: str
    text: str
    starts: tuple[int, ...] = field(repr=False)

    def span(self, start: int, end: int) -> Span:
        """The span of the characters ``start`` to ``end`` (left out)."""
        row = bisect_right(self.starts, start) - 1
        return Span(self.file, row + 1, start - self.starts[row] + 1, start, end)


@dataclass(frozen=True)
class SourceText:
    """A stretch of a file that the model grammar reads later: a block or a one-line formula.

    ``span`` runs from its first to its last visible character, so that a parser over the whole
    file's text (Lark's ``TextSlice``) gives places in the file.
    """

    text: str
    span: Span


def make_source(text: str, file: str) -> Source:
    """The source of a text, ready to name places."""
    return Source(file, text, (0, *(m.end() for m in re.finditer("\n", text))))


def read_text(path: Path, reporter: Reporter, shown: str | None = None) -> str | None:
    """The text of a spec file, without a byte order mark; ``None`` after E001 or E013."""
    file = shown or str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        reporter.report(Diagnostic("E001", f"cannot read `{file}`: {reason}"))
        return None
    if len(data) > MAX_BYTES:
        message = f"`{file}` is larger than {MAX_BYTES // 10**6} MB: not a spec file"
        hint = "keep large tables in a data file and name it under `data:`"
        reporter.report(Diagnostic("E013", message, hint=hint))
        return None
    return decode(data, file, reporter)


def decode(data: bytes, file: str, reporter: Reporter) -> str | None:
    """The text of UTF-8 bytes, without a byte order mark; ``None`` after E013."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        message = "the file is UTF-16, not UTF-8"
        return _not_text(data, 0, message, "save it as UTF-8", file, reporter)
    if (place := data.find(b"\0")) >= 0:
        message = f"the file is not text: byte {place} is NUL"
        return _not_text(data, place, message, None, file, reporter)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        message = f"the file is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
        return _not_text(data, error.start, message, "save it as UTF-8", file, reporter)


def _not_text(
    data: bytes, place: int, message: str, hint: str | None, file: str, reporter: Reporter
) -> None:
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    before = data[:place].decode("utf-8", "replace").removeprefix("\ufeff")
    reporter.sources[file] = text
    span = make_source(text, file).span(len(before), len(before) + 1)
    reporter.report(Diagnostic("E013", message, span, hint=hint))
