"""How elaboration stops at a fault: one exception that carries the diagnostic."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from ...compiler.ir.types import Span
from ..diagnostics import Diagnostic, Label


class ElaborationError(Exception):
    """A located fault; the statement that was being elaborated is given up."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


@dataclass(frozen=True)
class Sides:
    """An infix operator in a message: where it stands, and what its operands are called."""

    op: str
    at: Span
    left: tuple[Span | None, str]
    right: tuple[Span | None, str]

    def labels(self) -> list[Label]:
        """``left from 12:25 conv3, right from 14:9 id``."""
        named = (("left from", self.left), ("right from", self.right))
        return [Label(span, text, side) for side, (span, text) in named if span is not None]

    @property
    def verb(self) -> str:
        """What the operator does, in a message."""
        verbs = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "++": "join"}
        return verbs.get(self.op, "combine")


class Poisoned(Exception):
    """A name is used whose own statement has failed; that fault is reported already."""


@contextmanager
def quiet(report: Callable[[Diagnostic], None]) -> Iterator[None]:
    """Report a fault instead of stopping, so that all faults are found in one run."""
    try:
        yield
    except ElaborationError as fault:
        report(fault.diagnostic)
    except Poisoned:
        return


def fail(
    code: str,
    message: str,
    span: Span | None,
    found: str = "",
    hint: str | None = None,
    labels: Sequence[tuple[Span | None, str]] = (),
    sides: Sides | None = None,
) -> NoReturn:
    """Stop with a diagnostic; ``sides`` tells where both operands came from."""
    places = tuple(Label(place, text) for place, text in labels if place is not None)
    if sides is not None:
        places = (*sides.labels(), *places)
    places = tuple(Label(x.span, _shown(x.text), x.side) for x in places)
    hint = _shown(hint) if hint is not None else None
    raise ElaborationError(Diagnostic(code, _shown(message), span, _shown(found), places, hint))


def _shown(text: str) -> str:
    """A text without internal names: step ``h@t`` is ``h``, open size ``K_3__`` is ``K``."""
    return re.sub(r"\b([A-Za-z]\w*?)_\d+__\b", r"\1", re.sub(r"(?<=\w)@[A-Za-z]\w*", "", text))
