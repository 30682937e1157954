"""How elaboration stops at a fault: one exception that carries the diagnostic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ...compiler.ir.types import Span
from ..diagnostics import Diagnostic, Label


class ElaborationError(Exception):
    """A located fault; the statement that was being elaborated is given up."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class Poisoned(Exception):
    """A name is used whose own statement has failed; that fault is reported already."""


def fail(
    code: str,
    message: str,
    span: Span | None,
    found: str = "",
    hint: str | None = None,
    labels: Sequence[tuple[Span | None, str]] = (),
) -> NoReturn:
    """Stop with a diagnostic."""
    places = tuple(Label(place, text) for place, text in labels if place is not None)
    raise ElaborationError(Diagnostic(code, message, span, found, places, hint))
