"""What is wrong with a decision process, as a value with its place in the spec."""

from __future__ import annotations

from ..ir.types import Span


class DecisionFault(Exception):
    """A fault of the model: a diagnostic code, a message, where, what was found, the way out."""

    def __init__(
        self, code: str, message: str, span: Span | None, found: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.span = span
        self.found = found
        self.hint = hint
