"""Which weights a label means: ``layer1``, ``head.0.weight``, ``*.bn2``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...compiler.ir.types import Span
from ..diagnostics import nearest
from ..kinds import Constant
from .errors import fail


def weights_under(pattern: Constant, paths: Iterable[str], what: str) -> list[str]:
    """The paths that a pattern means: itself or what lies below it; E301 when there is none.

    ``*`` stands for any letters of one part, and a pattern that begins with ``*.`` fits at every
    depth.
    """
    known = list(paths)
    found = [path for path in known if fits(str(pattern.value), path)]
    if not found:
        _nothing(str(pattern.value), known, pattern.span, what)
    return found


def fits(pattern: str, path: str) -> bool:
    """Whether a weight path is meant by a pattern."""
    deep = pattern.startswith("*.")
    parts = pattern.removeprefix("*.").split(".")
    rule = r"\.".join(re.escape(part).replace(r"\*", r"[^.]*") for part in parts)
    return re.fullmatch((r"(.*\.)?" if deep else "") + rule + r"(\..*)?", path) is not None


def _nothing(pattern: str, paths: list[str], span: Span, what: str) -> None:
    labels = {path.rpartition(".")[0] for path in paths} | set(paths)
    labels |= {".".join(path.split(".")[:n]) for path in paths for n in (1, 2)}
    labels.discard("")
    close = nearest(pattern, labels)
    top = sorted({path.split(".")[0] for path in paths})
    shown = ", ".join(top[:8]) + (", ..." if len(top) > 8 else "")
    hint = f"did you mean `{close}`?" if close else f"the labels are {shown}"
    fail("E301", f"no weight lies under `{pattern}` in `{what}`", span, hint=hint)
